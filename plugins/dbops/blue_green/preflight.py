"""Preflight by SQL on blue: what creation, the upgrade from 5.7 to 8.0, or the switchover would stumble over.

Ids are those of MySQL Shell's upgrade checker and of Aurora's prechecks where they have one. Checks that read a program's text look for
words and may be wrong about a comment: they warn. A check that could not be asked is ``unknown``, which stops a run like an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbops import mysql, sql

Level = Literal["error", "warning", "notice"]
Verdict = Literal["ok", "error", "warning", "notice", "unknown", "not applicable", "overridden"]

RESERVED_BY_8_0 = frozenset({
    "CUBE", "CUME_DIST", "DENSE_RANK", "EMPTY", "EXCEPT", "FIRST_VALUE", "FUNCTION", "GROUPING", "GROUPS", "INTERSECT",
    "JSON_TABLE", "LAG", "LAST_VALUE", "LATERAL", "LEAD", "NTH_VALUE", "NTILE", "OF", "OVER", "PERCENT_RANK",
    "PERSIST", "PERSIST_ONLY", "RANK", "RECURSIVE", "ROW", "ROWS", "ROW_NUMBER", "SYSTEM", "WINDOW",
})  # fmt: skip
"""Reserved by 8.0 and not by 5.7; :func:`reserved_words` asks an 8.0 server for its own list."""
LONG_TRANSACTION_S = 60
HISTORY_LENGTH = 1_000_000
UNCOMMITTED_ROWS = 10_000_000
"""Limits of Aurora's own prechecks."""
# Words that 5.7 itself uses unquoted in a program, so that they say nothing: ROW(1, 2), DROP FUNCTION.
_KEYWORDS_OF_5_7 = frozenset({"FUNCTION", "ROW"})


@dataclass(frozen=True)
class Check:
    """One question to blue: the statement of ``include/sql/blue_green/preflight_<statement>.sql``, or a one-line command."""

    id: str
    level: Level
    statement: str
    fix: str
    session: str = ""
    """Session variable that is ON while it is asked."""


@dataclass(frozen=True)
class Result:
    """Answer to one check; `objects` are (object, detail) of what was found."""

    id: str
    verdict: Verdict
    objects: tuple[tuple[str, str], ...]
    fix: str
    note: str = ""
    """Why it is unknown, or the recorded reason of an override."""

    @property
    def stops(self) -> bool:
        """The run must not go on."""
        return self.verdict in ("error", "unknown")


CHECKS = (
    Check("binlogFormat", "error", "binlog_format", "set binlog_format = ROW in the cluster parameter group and reboot the writer"),
    Check("binlogRetention", "error", "binlog_retention", "CALL mysql.rds_set_configuration('binlog retention hours', 24)"),
    Check("eventScheduler", "warning", "event_scheduler", "event_scheduler = OFF in green's parameter group until the switchover is over"),
    Check("triggerDefiner", "warning", "trigger_definer", "create the trigger again with a DEFINER that exists"),
    Check("definer", "warning", "definers", "create the program or view again with a DEFINER that exists"),
    Check("nullDefiner", "error", "null_definers", "create the trigger or event again with a DEFINER"),
    Check("noPrimaryKey", "warning", "no_primary_key", "add a PRIMARY KEY before the upgrade"),
    Check("schemaTmp", "error", "schema_tmp", "rename the database"),
    Check("engine", "error", "engine", "ALTER TABLE ... ENGINE = InnoDB"),
    Check("longTransactions", "warning", "long_transactions", "let it end, or end it, before the switchover"),
    Check("runningDdl", "warning", "running_ddl", "wait until it has ended"),
    Check("historyLength", "warning", "history_length", "end the oldest transactions, and wait for the purge"),
    Check("uncommittedRows", "warning", "uncommitted_rows", "let the transactions end before the upgrade"),
    Check("preparedXa", "error", "XA RECOVER", "XA COMMIT or XA ROLLBACK each of them"),
    Check("externalReplica", "error", "SHOW SLAVE STATUS", "stop replication into blue: CALL mysql.rds_reset_external_master"),
    Check("reservedKeywords", "warning", "reserved_names", "quote the name in every statement, or rename the object"),
    Check("routineSyntax", "warning", "programs", "quote the word in the program, or rename what it names"),
    Check("dollarSignName", "warning", "dollar_names", "quote the name in every statement, or rename the object"),
    Check("utf8mb3", "notice", "utf8mb3", "convert to utf8mb4 after the upgrade"),
    Check("obsoleteSqlModeFlags", "warning", "sql_modes", "create the program again without these modes"),
    Check("maxdbSqlModeFlags", "warning", "maxdb_mode", "create the program again without MAXDB, with DATETIME or TIMESTAMP as meant"),
    Check("removedFunctions", "warning", "removed_functions", "use its successor, for example ST_GeomFromText or AES_ENCRYPT"),
    Check("changedFunctionsInGeneratedColumns", "warning", "changed_generated", "compare its values after the upgrade, or make it anew"),
    Check("groupbyAscSyntax", "warning", "group_by_order", "use ORDER BY"),
    Check("depreciatedSyntaxCheck", "warning", "query_cache_words", "remove SQL_CACHE and SQL_NO_CACHE"),
    Check("emptyDotTableSyntax", "warning", "empty_dot_tables", "write the schema before the dot, or no dot"),
    Check("specialCharacters", "warning", "special_characters", "create the program again with ordinary spaces"),
    Check("nonNativePartitioning", "error", "native_partitioning", "ALTER TABLE ... ENGINE = InnoDB, or remove the partitions"),
    Check("partitionedTablesInSharedTablespaces", "error", "shared_tablespaces", "ALTER TABLE ... TABLESPACE = innodb_file_per_table"),
    Check("partitionsWithPrefixKeys", "warning", "partition_prefix_keys", "partition by a column that is indexed whole"),
    Check("deprecatedTemporalDelimiter", "warning", "temporal_delimiters", "REORGANIZE PARTITION with dates like 2020-01-31"),
    Check("foreignKeyLength", "error", "foreign_key_length", "give the foreign key a shorter name"),
    Check("invalidEngineForeignKey", "error", "foreign_key_engines", "give both tables the engine InnoDB, or drop the foreign key"),
    Check("enumSetElementLength", "error", "enum_length", "shorten the element to 255 characters"),
    Check("columnsWhichCannotHaveDefaults", "error", "forbidden_defaults", "ALTER TABLE ... ALTER COLUMN ... DROP DEFAULT"),
    Check("columnDefinition", "warning", "column_definitions", "give the column an integer type"),
    Check("invalid57Names", "error", "invalid_names", "mysqlcheck --fix-db-names --fix-table-names"),
    Check("lowerCaseNames", "error", "upper_case_names", "rename to lower case, or set lower_case_table_names = 0"),
    Check("viewColumnNameLength", "error", "view_column_names", "create the view again with shorter column names"),
    Check("ftsInTablename", "warning", "fts_names", "choose a target of 8.0.18 or later, or rename the table"),
    Check("oldTemporal", "error", "old_temporals", "ALTER TABLE ... FORCE", "show_old_temporals"),
    Check("zeroDates", "warning", "zero_dates", "give the column another default"),
    Check("indexTooLarge", "error", "large_indexes", "ALTER TABLE ... ROW_FORMAT = DYNAMIC, or shorten the index"),
    Check("geometryPrefixIndex", "error", "geometry_prefixes", "drop the index, or make it a SPATIAL one"),
    Check("innodbRowFormat", "notice", "row_formats", "ALTER TABLE ... ROW_FORMAT = DYNAMIC"),
    Check("auroraGetDanglingFulltextIndex", "error", "dangling_fulltext", "ALTER TABLE ... FORCE"),
    Check("fulltextInSystemTablespace", "error", "fulltext_in_system_tablespace", "ALTER TABLE ... FORCE with innodb_file_per_table = ON"),
    Check("getDuplicateTriggers", "error", "duplicate_triggers", "give one of them another name"),
    Check("orphanedObjects", "error", "orphaned_routines", "create the schema, drop the routine, drop the schema"),
    Check("mysqlSchema", "error", "mysql_schema", "rename or drop the table"),
    Check("sysSchemaObjects", "warning", "sys_objects", "rename or drop the table"),
    Check("schemaInconsistency", "error", "schema_inconsistency", "drop the orphaned table by making its .frm file anew, or dump and load"),
    Check("engineMixup", "error", "engine_mixup", "rename the table, drop what InnoDB knows under its name, and rename it back"),
    Check("circularDirectory", "error", "circular_directories", "move the tables to file-per-table tablespaces"),
    Check("auroraCheckDDLRecovery", "error", "ddl_recovery", "wait until no DDL runs; then ask AWS Support"),
    Check("removedSysVars", "warning", "removed_variables", "leave it out of green's parameter group; test what it was set for"),
    Check("sysVarsNewDefaults", "notice", "new_defaults", "set it in target.parameters to keep its value"),
    Check("zerofill", "notice", "zerofill", "LPAD in the application"),
    Check("authenticationPlugin", "notice", "authentication", "make sure that each client can log in with the plugin"),
    Check("defaultAuthenticationPlugin", "notice", "default_authentication", "give new accounts a plugin that every client knows"),
)  # fmt: skip
# Only managed servers have the table; elsewhere there is nothing to ask.
_MANAGED_ONLY = {"binlogRetention", "auroraCheckDDLRecovery"}
_NO_SUCH_TABLE = 1146


def reserved_words(conn80: Any) -> frozenset[str]:
    """Reserved words of an 8.0 server (green's version), by its own list; they include those of 5.7, which no bare name can have."""
    found = mysql.rows(conn80, "SELECT WORD AS word FROM information_schema.KEYWORDS WHERE RESERVED = 1")
    return frozenset(str(row["word"]).upper() for row in found)


def run(
    conn: Any,
    *,
    words: Iterable[str] = RESERVED_BY_8_0,
    overrides: Mapping[str, str] | None = None,
    others: Iterable[str] = (),
) -> list[Result]:
    """Ask every check.

    Args:
        conn: blue, as a user with PROCESS, REPLICATION CLIENT, and SELECT on what is to be seen (a user sees only what it may select)
        words: reserved words of the target, see :func:`reserved_words`
        overrides: check id -> reason for which a person goes on in spite of it
        others: ids of checks that are asked elsewhere and may be overridden as well (:data:`control.IDS`)

    Raises:
        ValueError: an override names no check, or gives no reason
    """
    given = dict(overrides or {})
    require_overrides(given, [*(check.id for check in CHECKS), *others])
    values = {
        "words": sorted(set(words)),
        "seconds": LONG_TRANSACTION_S,
        "history": HISTORY_LENGTH,
        "rows": UNCOMMITTED_ROWS,
    }
    return [overridden(_ask(conn, check, values), given) for check in CHECKS]


def _ask(conn: Any, check: Check, values: Mapping[str, Any]) -> Result:
    import MySQLdb

    command = " " in check.statement
    statement = check.statement if command else sql.render(f"blue_green/preflight_{check.statement}")
    bound = {name: value for name, value in values.items() if f"%({name})s" in statement}
    try:
        _set(conn, check.session, "ON")
        found = mysql.rows(conn, statement, bound or None)
        _set(conn, check.session, "DEFAULT")
    except MySQLdb.Error as error:
        if check.id in _MANAGED_ONLY and error.args[0] == _NO_SUCH_TABLE:
            return Result(check.id, "not applicable", (), check.fix, "the server is not a managed one")
        return Result(check.id, "unknown", (), check.fix, f"{error.args[0]}: {error.args[-1]}")
    if command:
        objects = tuple(
            (check.statement, ", ".join(f"{k}={v}" for k, v in row.items() if v not in (None, ""))[:200])
            for row in found
        )
    else:
        objects = tuple((_text(row["object"]), _text(row["detail"])) for row in found)
    if check.id == "routineSyntax":
        if hidden := [name for name, text in objects if not text]:
            note = f"the text of {', '.join(hidden[:5])} is hidden from this user; grant SELECT on mysql.proc and SHOW VIEW"
            return Result(check.id, "unknown", (), check.fix, note)
        objects = _reserved_uses(objects, values["words"])
    return Result(check.id, check.level if objects else "ok", objects, check.fix)


def _text(value: Any) -> str:
    """Text of a cell; names and sums may come as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _set(conn: Any, variable: str, value: str) -> None:
    if variable:
        with conn.cursor() as cursor:
            cursor.execute(f"SET SESSION {variable} = {value}")


# Strings, quoted names and comments; a comment that MySQL executes (/*! */) is kept as text.
_QUOTED = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`[^`]*`|/\*(?!!).*?\*/|--\s[^\n]*|#[^\n]*""", re.DOTALL
)
_BARE = re.compile(r"(?<![.@$\w])[A-Za-z_][\w$]*")


def _reserved_uses(programs: Iterable[tuple[str, str]], words: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Programs that use a word without quotes which only 8.0 reserves. Views are left out: the server quotes their names."""
    new = (frozenset(words) & RESERVED_BY_8_0) - _KEYWORDS_OF_5_7
    found = []
    for name, text in programs:
        used = sorted({word.upper() for word in _BARE.findall(_QUOTED.sub(" ", text))} & new)
        if used and not name.startswith("view "):
            found.append((name, f"uses {', '.join(used)} without quotes"))
    return tuple(found)


def require_overrides(overrides: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse an override that names no check, or gives no reason. Raises ValueError."""
    ids = sorted(set(known))
    if unknown := sorted(overrides.keys() - set(ids)):
        raise ValueError(f"override of {', '.join(unknown)}: no such check; known: {', '.join(ids)}")
    if empty := sorted(name for name, reason in overrides.items() if not reason.strip()):
        raise ValueError(f"override of {', '.join(empty)} has no reason; say why it is safe")


def overridden(result: Result, overrides: Mapping[str, str]) -> Result:
    """The result, with the recorded reason in place of a verdict that a person has overridden."""
    if result.id in overrides and result.verdict in ("error", "warning", "unknown"):
        note = f"was {result.verdict}: {overrides[result.id]}"
        return Result(result.id, "overridden", result.objects, result.fix, note)
    return result
