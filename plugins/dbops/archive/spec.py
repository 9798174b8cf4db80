"""What a DBA declares for one archived table: the YAML under ``include/specs/archive``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dbops import connections
from dbops.guardrails import Window
from dbops.specs import Spec

ROOM = "archive"

# Functions whose value changes between two evaluations of the same predicate: planning, export and purge must see the same rows.
_MOVING = {
    "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "CURRENT_USER", "CONNECTION_ID", "CURDATE", "CURTIME", "FOUND_ROWS",
    "LAST_INSERT_ID", "LOCALTIME", "LOCALTIMESTAMP", "NOW", "RAND", "ROW_COUNT", "SESSION_USER", "SLEEP", "SYSDATE",
    "UNIX_TIMESTAMP", "USER", "UTC_DATE", "UTC_TIME", "UTC_TIMESTAMP", "UUID", "UUID_SHORT", "GET_LOCK", "RELEASE_LOCK",
    "LOAD_FILE", "BENCHMARK", "SYSTEM_USER", "CURRENT_ROLE", "IS_FREE_LOCK", "IS_USED_LOCK", "RELEASE_ALL_LOCKS",
}  # fmt: skip
# Functions that MySQL also calls without parentheses, but that the parser then takes for columns.
_MOVING_NAMES = {"UTC_DATE", "UTC_TIME", "UTC_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "CURRENT_USER", "CURRENT_TIME"}

# MySQL's own functions that give the same value at plan and purge. Any other name may be a stored or loadable function, also one for which
# the parser knows another database's meaning: nobody vouches for its value.
_BUILT_INS = {
    # numbers
    "ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "BIN", "BIT_COUNT", "CEIL", "CEILING", "CONV", "COS", "COT", "CRC32", "DEGREES", "EXP", "FLOOR",
    "LN", "LOG", "LOG10", "LOG2", "MOD", "OCT", "PI", "POW", "POWER", "RADIANS", "ROUND", "SIGN", "SIN", "SQRT", "TAN", "TRUNCATE",
    # text and bytes
    "ASCII", "BIT_LENGTH", "CHAR", "CHARACTER_LENGTH", "CHARSET", "CHAR_LENGTH", "COERCIBILITY", "COLLATION", "CONCAT", "CONCAT_WS", "ELT",
    "EXPORT_SET", "EXTRACTVALUE", "FIELD", "FIND_IN_SET", "FORMAT", "FROM_BASE64", "HEX", "INSERT", "INSTR", "LCASE", "LEFT", "LENGTH",
    "LOCATE", "LOWER", "LPAD", "LTRIM", "MAKE_SET", "MD5", "MID", "OCTET_LENGTH", "ORD", "POSITION", "QUOTE", "REGEXP_INSTR", "REGEXP_LIKE",
    "REGEXP_REPLACE", "REGEXP_SUBSTR", "REPEAT", "REPLACE", "REVERSE", "RIGHT", "RPAD", "RTRIM", "SHA", "SHA1", "SHA2", "SOUNDEX", "SPACE",
    "STRCMP", "SUBSTR", "SUBSTRING", "SUBSTRING_INDEX", "TO_BASE64", "TRIM", "UCASE", "UNCOMPRESS", "UNCOMPRESSED_LENGTH", "UNHEX",
    "UPDATEXML", "UPPER", "WEIGHT_STRING",
    # dates and times
    "ADDDATE", "ADDTIME", "CONVERT_TZ", "DATE", "DATEDIFF", "DATE_ADD", "DATE_FORMAT", "DATE_SUB", "DAY", "DAYNAME", "DAYOFMONTH",
    "DAYOFWEEK", "DAYOFYEAR", "EXTRACT", "FROM_DAYS", "FROM_UNIXTIME", "GET_FORMAT", "HOUR", "LAST_DAY", "MAKEDATE", "MAKETIME",
    "MICROSECOND", "MINUTE", "MONTH", "MONTHNAME", "PERIOD_ADD", "PERIOD_DIFF", "QUARTER", "SECOND", "SEC_TO_TIME", "STR_TO_DATE",
    "SUBDATE", "SUBTIME", "TIME", "TIMEDIFF", "TIMESTAMP", "TIMESTAMPADD", "TIMESTAMPDIFF", "TIME_FORMAT", "TIME_TO_SEC", "TO_DAYS",
    "TO_SECONDS", "WEEK", "WEEKDAY", "WEEKOFYEAR", "YEAR", "YEARWEEK",
    # choice and conversion
    "BINARY", "CAST", "COALESCE", "CONVERT", "GREATEST", "IF", "IFNULL", "INTERVAL", "ISNULL", "LEAST", "NULLIF",
    # JSON
    "JSON_ARRAY", "JSON_ARRAY_APPEND", "JSON_ARRAY_INSERT", "JSON_CONTAINS", "JSON_CONTAINS_PATH", "JSON_DEPTH", "JSON_EXTRACT",
    "JSON_INSERT", "JSON_KEYS", "JSON_LENGTH", "JSON_MERGE_PATCH", "JSON_MERGE_PRESERVE", "JSON_OBJECT", "JSON_OVERLAPS", "JSON_PRETTY",
    "JSON_QUOTE", "JSON_REMOVE", "JSON_REPLACE", "JSON_SEARCH", "JSON_SET", "JSON_TYPE", "JSON_UNQUOTE", "JSON_VALID", "JSON_VALUE",
    # addresses and identifiers
    "BIN_TO_UUID", "INET6_ATON", "INET6_NTOA", "INET_ATON", "INET_NTOA", "IS_IPV4", "IS_IPV4_COMPAT", "IS_IPV4_MAPPED", "IS_IPV6",
    "IS_UUID", "UUID_TO_BIN",
    # geometry
    "MBRCONTAINS", "MBRCOVEREDBY", "MBRCOVERS", "MBRDISJOINT", "MBREQUALS", "MBRINTERSECTS", "MBROVERLAPS", "MBRTOUCHES", "MBRWITHIN",
    "POINT", "ST_AREA", "ST_ASBINARY", "ST_ASGEOJSON", "ST_ASTEXT", "ST_ASWKB", "ST_ASWKT", "ST_BUFFER", "ST_CENTROID", "ST_CONTAINS",
    "ST_CONVEXHULL", "ST_CROSSES", "ST_DIFFERENCE", "ST_DIMENSION", "ST_DISJOINT", "ST_DISTANCE", "ST_DISTANCE_SPHERE", "ST_ENDPOINT",
    "ST_ENVELOPE", "ST_EQUALS", "ST_EXTERIORRING", "ST_GEOHASH", "ST_GEOMETRYN", "ST_GEOMETRYTYPE", "ST_GEOMFROMGEOJSON",
    "ST_GEOMFROMTEXT", "ST_GEOMFROMWKB", "ST_INTERIORRINGN", "ST_INTERSECTION", "ST_INTERSECTS", "ST_ISCLOSED", "ST_ISEMPTY",
    "ST_ISSIMPLE", "ST_ISVALID", "ST_LATITUDE", "ST_LENGTH", "ST_LONGITUDE", "ST_NUMGEOMETRIES", "ST_NUMINTERIORRING",
    "ST_NUMINTERIORRINGS", "ST_NUMPOINTS", "ST_OVERLAPS", "ST_POINTFROMTEXT", "ST_POINTN", "ST_SRID", "ST_STARTPOINT", "ST_SWAPXY",
    "ST_SYMDIFFERENCE", "ST_TOUCHES", "ST_TRANSFORM", "ST_UNION", "ST_WITHIN", "ST_X", "ST_Y",
}  # fmt: skip
# Words before a parenthesis that call nothing: operators, and types in CAST and CONVERT.
_NOT_CALLED = {
    "AND", "BETWEEN", "BOTH", "CASE", "CHARACTER", "DATETIME", "DECIMAL", "DIV", "ELSE", "ESCAPE", "FLOAT", "FOR", "FROM", "IN", "LEADING",
    "LIKE", "MEMBER OF", "NCHAR", "NOT", "OR", "REGEXP", "RLIKE", "THEN", "TRAILING", "WHEN", "XOR",
}  # fmt: skip

_PARTITION = re.compile(r"^(identity|year|month|day|hour)\((\w+)\)$")
_COLUMN = r"^[A-Za-z0-9_$]+$"


def check_predicate(text: str) -> str:
    """Return `text` when it is one deterministic boolean expression over the row's own columns; otherwise raise ValueError.

    Refused: statements, several expressions, subqueries, user variables, placeholders, functions that give another value later, and
    stored or loadable functions, which may.
    """
    import sqlglot
    from sqlglot import exp

    try:
        tokens = sqlglot.tokenize(text, dialect="mysql")
        expression = sqlglot.parse_one(text, dialect="mysql")
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise ValueError(f"is not one SQL expression: {str(error).splitlines()[0]}") from error
    if any(token.comments for token in tokens) or ";" in (token.text for token in tokens):
        raise ValueError("must not have comments or semicolons")
    if not isinstance(expression, exp.Condition) or isinstance(expression, exp.Query):
        raise ValueError(f"must be an expression that is true or false, not {expression.key.upper()}")
    for node in expression.walk():
        if isinstance(node, exp.Query):
            raise ValueError("must not have a subquery: only the row's own columns keep their meaning until the purge")
        if isinstance(node, exp.Parameter | exp.SessionParameter | exp.Placeholder):
            raise ValueError("must not have variables or placeholders")
        if name := _moving(node):
            raise ValueError(f"must not call {name}(): its value changes between plan and purge; use `cold` for age")
    if name := _foreign_call(tokens):
        raise ValueError(
            f"must not call {name}(): not a built-in function that is known to give the same value at plan and purge"
        )
    return text


def _foreign_call(tokens: Sequence[Any]) -> str | None:
    """The first name, as written, that is called and may be something else than a built-in function of MySQL."""
    from sqlglot import TokenType

    quoted = TokenType.IDENTIFIER
    for before, token, after in zip([None, *tokens], tokens, tokens[1:], strict=False):
        if after.token_type is not TokenType.L_PAREN or not (token.token_type is quoted or re.match(r"\w", token.text)):
            continue
        # A name with a schema before it, and a quoted one, is never a built-in.
        qualified = before is not None and before.token_type is TokenType.DOT
        if qualified or token.token_type is quoted or token.text.upper() not in _BUILT_INS | _NOT_CALLED:
            return str(token.text)
    return None


def _moving(node: Any) -> str | None:
    """The name of the function that the node calls, if its value is another one later."""
    from sqlglot import exp

    if isinstance(node, exp.Column) and not node.this.quoted and not node.table:
        name = node.name.upper()
        return name if name in _MOVING_NAMES else None
    if isinstance(node, exp.Func):
        name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).upper()
        if name in _MOVING or isinstance(node, exp.CurrentTimestamp | exp.CurrentDate | exp.Rand):
            return name
    return None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cold(_Part):
    """Which rows are old enough: ``column < midnight UTC of (run date - older_than_days)``."""

    column: str = Field(pattern=_COLUMN, description="DATE, DATETIME or TIMESTAMP column (or an integer with `unit`)")
    older_than_days: int = Field(ge=1, le=36500, description="counted back from the run's date")
    unit: Literal["datetime", "epoch_s", "epoch_ms"] = Field(
        default="datetime", description="how an integer column counts; `datetime` for date and time columns"
    )

    def cutoff(self, run_after: datetime) -> datetime:
        """The first instant that is not cold, as an aware UTC midnight. `run_after` is the run's date, never the present time."""
        midnight = run_after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=self.older_than_days)


class Hold(_Part):
    """Rows that must stay (a legal hold, an open claim), whatever their age."""

    reason: str = Field(min_length=1, description="why they stay, for the reader of the spec")
    where: str = Field(min_length=1, description="SQL expression that is true for the rows to keep")

    _where = field_validator("where")(check_predicate)


class Target(_Part):
    """The Iceberg table that receives the rows."""

    namespace: str = Field(pattern=r"^[a-z0-9_]+$", description="Iceberg namespace = Trino schema")
    table: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$", description="default: the source table's name")
    partitioning: list[str] = Field(
        default_factory=list, max_length=1, description="at most one of identity|year|month|day|hour(column)"
    )

    @field_validator("partitioning")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for part in value:
            if not _PARTITION.match(part):
                raise ValueError(f"{part!r} is not a partitioning; write identity|year|month|day|hour(column)")
        return value

    @property
    def partition(self) -> tuple[str, str] | None:
        """(transform, column) or None."""
        match = _PARTITION.match(self.partitioning[0]) if self.partitioning else None
        return (match[1], match[2]) if match else None


class Purge(_Part):
    """How rows may leave MySQL."""

    allowed: bool = Field(default=False, description="scheduled runs may delete; a manual run types `confirm` instead")
    approval: bool = Field(default=False, description="a person must approve the verified plan before the first DELETE")
    batch_rows: int = Field(
        default=1000, ge=1, le=50_000, description="rows of the smallest unit that is proven and deleted"
    )
    transaction_ms: int = Field(
        default=100, ge=5, le=10_000, description="batches are joined until a transaction takes this long"
    )
    max_transaction_rows: int = Field(
        default=10_000, ge=1, le=100_000, description="rows that one transaction deletes at most, however quick it is"
    )
    workers: int = Field(default=2, ge=1, le=16, description="disjoint chunks that are purged at the same time")
    isolation: Literal["repeatable-read", "read-committed"] = Field(
        default="repeatable-read",
        description="of the purge: repeatable-read also keeps inserts out of the range for as long as the transaction takes",
    )
    lock_wait_s: int = Field(default=5, ge=1, le=60, description="innodb_lock_wait_timeout of the purge")
    max_lag_s: float | None = Field(default=10.0, gt=0, description="pause above; null only where no replica exists")
    lag_connection: str | None = Field(
        default=None, description="where lag is read: default the source on Aurora, else mysql_replica"
    )
    max_threads_running: int | None = Field(default=50, ge=1, description="pause above; null: do not look")
    max_commit_latency_ms: float | None = Field(
        default=100.0, gt=0, description="mean of our own commits and of Aurora's"
    )
    max_history_list: int | None = Field(default=2_000_000, ge=1, description="InnoDB undo records not yet purged")
    window: Window | None = Field(default=None, description="time of day in which rows may be deleted")
    max_wait_s: int = Field(
        default=1800, ge=1, description="give up (and resume in the next run) when blocked this long"
    )


class ArchiveSpec(Spec):
    """One archived table."""

    connection: str = Field(default=connections.MYSQL, description="Airflow connection of the source writer")
    read_connection: str | None = Field(default=None, description="optional reader endpoint for plan and export")
    aws_connection: str = Field(default=connections.AWS, description="Airflow connection of S3 (and Glue)")
    trino_connection: str = Field(
        default=connections.TRINO, description="Airflow connection of the Trino that verifies"
    )
    iceberg_connection: str = Field(
        default=connections.ICEBERG, description="Airflow connection of the Iceberg catalog"
    )
    schema_name: str = Field(alias="schema", pattern=_COLUMN, description="MySQL schema of the table")
    table: str = Field(pattern=_COLUMN, description="MySQL table")
    cold: Cold = Field(description="which rows are old enough")
    where: str | None = Field(default=None, description="further SQL expression that a row must meet")
    hold: list[Hold] = Field(default_factory=list, description="rows that stay, whatever their age")
    full_scan: bool = Field(default=False, description="allow a cold predicate that no index supports")
    referenced_rows: Literal["refuse", "skip"] = Field(
        default="refuse", description="rows that a RESTRICT child still points at: refuse the run, or leave those rows"
    )
    target: Target = Field(description="the Iceberg table that receives the rows")
    chunk_bytes: int = Field(
        default=64 * 1024**2, ge=64 * 1024, le=1024**3, description="source bytes a chunk (Parquet file)"
    )
    export_workers: int = Field(default=2, ge=1, le=8, description="chunks read at the same time by one task")
    purge: Purge = Field(default_factory=Purge, description="how rows may leave MySQL")
    zero_dates_as_text: list[str] = Field(
        default_factory=list, description="date columns that may hold zero dates: archived as text instead of refused"
    )
    lossy_text_as_binary: list[str] = Field(
        default_factory=list,
        description="text columns that utf8mb4 cannot hold: archived as bytes in their own charset",
    )
    restore_schema: str | None = Field(
        default=None, pattern=_COLUMN, description="scratch schema; default <schema>_restore"
    )

    @field_validator("where")
    @classmethod
    def _where(cls, value: str | None) -> str | None:
        return None if value is None else check_predicate(value)

    @property
    def full_name(self) -> str:
        """``schema.table``: what `confirm` must repeat and the allow-list names."""
        return f"{self.schema_name}.{self.table}"

    @property
    def target_table(self) -> str:
        """Name of the first generation of the Iceberg table."""
        return self.target.table or self.table.lower()

    @property
    def scratch_schema(self) -> str:
        """MySQL schema that restores write into."""
        return self.restore_schema or f"{self.schema_name}_restore"

    def predicate(self, cutoff: datetime) -> str:
        """The SQL expression of the rows that leave: cold, wanted, and not on hold (a hold that is NULL for a row does not hold it)."""
        from dbops.sql import ident, lit

        value = {
            "datetime": lit(cutoff.astimezone(UTC).replace(tzinfo=None)),
            "epoch_s": str(int(cutoff.timestamp())),
            "epoch_ms": str(int(cutoff.timestamp()) * 1000),
        }[self.cold.unit]
        parts = [f"{ident(self.cold.column)} < {value}"]
        if self.where:
            parts.append(f"({self.where})")
        parts += [f"(({hold.where}) IS NOT TRUE)" for hold in self.hold]
        return " AND ".join(parts)

    def rule_digest(self) -> str:
        """Changes when the meaning of the archived set or its form changes; a stored plan is only continued under the same rules."""
        rules = self.model_dump_json(
            include={
                "schema_name", "table", "cold", "where", "hold", "target", "zero_dates_as_text", "lossy_text_as_binary",
                "referenced_rows",
            }
        )  # fmt: skip
        return hashlib.sha256(rules.encode()).hexdigest()
