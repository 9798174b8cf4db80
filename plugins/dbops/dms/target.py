"""A MySQL server as the target of DMS: whether it takes the rows, and as what they are.

:func:`gather` reads status and definitions and changes nothing; :func:`check` judges. Fail-closed as :mod:`checks` is for the source.
Sources: DMS user guide, "Using a MySQL-compatible database as a target", "MySQL assessments".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dbops import mysql
from dbops.dms import checks, settings, source
from dbops.dms.checks import Hits
from dbops.dms.facts import Check, SourceFacts, SourceTable, TargetFacts, TargetTable, is_on
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec
from dbops.mysql import Column
from dbops.sql import ident

VARIABLES = (
    "activate_all_roles_on_login", "aurora_version", "basedir", "foreign_key_checks", "innodb_read_only", "local_infile",
    "lower_case_table_names", "max_allowed_packet", "net_read_timeout", "net_write_timeout", "read_only", "sql_mode",
    "super_read_only", "version", "wait_timeout",
)  # fmt: skip
PRIVILEGES = ("ALTER", "CREATE", "DROP", "INDEX", "INSERT", "UPDATE", "DELETE", "SELECT")
CONTROL = "awsdms_control"
"""Schema in which DMS keeps its own tables at the target."""
_DATES = frozenset({"date", "datetime", "timestamp"})
_WIDE = frozenset({"utf8mb4", "utf8", "utf8mb3"})


class Names(Protocol):
    """What a table is called at the target; `columns` has the columns that go there, by their name at the source."""

    @property
    def schema(self) -> str:
        """Schema there."""

    @property
    def table(self) -> str:
        """Table there."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Column of the source -> column there."""


@dataclass(frozen=True)
class Unchanged:
    """Names of a table that no rule renames."""

    schema: str
    table: str
    columns: Mapping[str, str]


def unchanged(table: Table, columns: Sequence[str]) -> Names:
    """Names at the target of a task that renames nothing."""
    return Unchanged(*table, {column: column for column in columns})


def gather(
    connection: Any,
    facts: SourceFacts,
    names: Callable[[Table, Sequence[str]], Names] = unchanged,
    *,
    login: str | None = None,
) -> TargetFacts:
    """What is at the target of the selected tables.

    Args:
        connection: of our login at the target
        facts: of the source
        names: what a table with these columns is called at the target, by the transformation rules
        login: the one in DMS's secret for the target, ``dms`` or ``dms@10.%``; None when nobody names it

    Raises:
        MySQLdb.Error: the server is not there
    """
    variables = mysql.global_variables(connection, VARIABLES)
    placed = {one.table: names(one.table, [column.name for column in one.shape.columns]) for one in facts.selected}
    wanted = {Table(there.schema, there.table) for there in placed.values()}
    shapes = {one.table: one.shape for one in source.read_tables(connection, wanted)}
    keys, triggers = (
        source.grouped(connection, name, wanted) if wanted else {} for name in ("dms/foreign_keys", "dms/triggers")
    )
    grants = mysql.own_grants(connection)
    tables = []
    for table, there in placed.items():
        at = Table(there.schema, there.table)
        seen = tuple(f"{row['timing']} {row['event']} {source.text(row['name'])}" for row in triggers.get(at, []))
        tables.append(
            TargetTable(
                source=table,
                table=at,
                columns=dict(there.columns),
                shape=shapes.get(at),
                foreign_keys=tuple(
                    f"{source.text(row['name'])} to {source.text(row['parent'])}" for row in keys.get(at, [])
                ),
                triggers=seen if mysql.granted(grants, "TRIGGER", *at) else None,
            )
        )
    held = None if login is None else source.read_login(connection, login, variables)
    return TargetFacts(variables["version"], variables, tuple(tables), held)


def check(
    spec: DmsSpec, facts: SourceFacts, target: TargetFacts, *, target_settings: Mapping[str, Any] | None = None
) -> tuple[Check, ...]:
    """What was looked at, stops first.

    Args:
        spec: what is declared
        facts: of the source
        target: from :func:`gather`
        target_settings: of a target endpoint that exists, from :func:`dbops.dms.source.endpoint_settings`
    """
    own = spec.target.settings if spec.target.kind in ("mysql", "aurora", "mariadb") else target_settings
    subject = _Subject(spec, facts, target, own)
    found = [
        Check(name, *hit) for name, good, look in _QUESTIONS for hit in list(look(subject)) or [("ok", "", good, "")]
    ]
    return checks.ordered([checks.overridden(spec, one) for one in found])


def ids() -> frozenset[str]:
    """Ids that a spec may override beside those of the linter's rules and of the source."""
    return frozenset(name for name, _, _ in _QUESTIONS)


@dataclass(frozen=True)
class _Subject:
    spec: DmsSpec
    facts: SourceFacts
    target: TargetFacts
    settings: Mapping[str, Any] | None
    """Of the target endpoint; None when they are unknown."""

    @property
    def makes_tables(self) -> bool:
        mode = settings.get(settings.effective(self.spec.settings), "FullLoadSettings.TargetTablePrepMode")
        return self.spec.has_load and mode == "DROP_AND_CREATE"

    @property
    def there(self) -> Iterator[tuple[SourceTable, TargetTable, mysql.Table]]:
        """Tables of the target that stay as they are, with those of the source."""
        sources = {one.table: one for one in self.facts.selected}
        for one in () if self.makes_tables else self.target.tables:
            if one.shape is not None:
                yield sources[one.source], one, one.shape

    @property
    def leaves_keys_unchecked(self) -> bool:
        """Whether DMS's sessions do not check foreign keys."""
        given = " ".join(str(value) for value in (self.settings or {}).values()).upper().replace(" ", "")
        return "FOREIGN_KEY_CHECKS=0" in given or not is_on(self.target.variables, "foreign_key_checks")


def _writable(subject: _Subject) -> Hits:
    for name in ("read_only", "super_read_only", "innodb_read_only"):
        if is_on(subject.target.variables, name):
            yield "stop", name, "is ON: nothing can be written", "Point the target endpoint at the writer"
            return


def _local_infile(subject: _Subject) -> Hits:
    if subject.spec.has_load and not is_on(subject.target.variables, "local_infile"):
        text = f"is {subject.target.variables.get('local_infile', 'unknown')}: a load goes by LOAD DATA LOCAL"
        yield "stop", "local_infile", text, "SET GLOBAL local_infile = ON, or set it to 1 in the parameter group"


def _exists(subject: _Subject) -> Hits:
    for one in subject.target.tables:
        if one.shape is not None or subject.makes_tables:
            continue
        text = f"does not exist ({one.source} goes there), or our login may not see it"
        if subject.spec.has_load:
            more = "DMS makes it without secondary indexes, defaults, AUTO_INCREMENT and foreign keys"
            yield "warning", str(one.table), f"{text}: {more}", "Make it by hand before the load"
        else:
            yield "stop", str(one.table), text, "Make it, and load it, before changes are applied"


def _key(subject: _Subject) -> Hits:
    for _, one, shape in subject.there:
        if shape.row_key is None:
            text = "has no key that names its rows: a change that is applied twice doubles rows, and each reads the whole table"
            yield "stop" if subject.spec.has_cdc else "warning", str(one.table), text, "Add a PRIMARY KEY"


def _columns(subject: _Subject) -> Hits:
    for _, one, shape in subject.there:
        if missing := [there for there in one.columns.values() if shape.column(there) is None]:
            text = f"lacks {checks.named(missing)}, which {one.source} has"
            yield "stop", str(one.table), text, "Add them, or leave them out by rules with remove-column"


def _generated(subject: _Subject) -> Hits:
    for _, one, shape in subject.there:
        for here, there in one.columns.items():
            column = shape.column(there)
            if column is not None and column.is_generated:
                text = f"is generated, and {one.source}.{here} would be written into it"
                yield "stop", f"{one.table}.{there}", text, f"Leave {here} out by a rule with remove-column"


def _narrower(subject: _Subject) -> Hits:
    for of, one, shape in subject.there:
        for here, there in one.columns.items():
            left, right = of.shape.column(here), shape.column(there)
            if left is not None and right is not None and (why := _cut(left, right)):
                text = f"is {right.column_type}, and {one.source}.{here} is {left.column_type}: {why}"
                yield "stop", f"{one.table}.{there}", text, "Give it the type of the source, or a wider one"


def _cut(left: Column, right: Column) -> str:
    """What becomes of values on their way from one column into the other; "" when nothing does."""
    if left.charset and right.charset and left.charset in _WIDE and right.charset not in _WIDE:
        return f"letters that {right.charset} lacks are lost"
    if left.charset == "utf8mb4" and right.charset in ("utf8", "utf8mb3"):
        return "letters of four bytes are lost"
    if left.max_chars and right.max_chars and left.max_chars > right.max_chars:
        return "longer values are cut or refused"
    if left.data_type == right.data_type == "decimal":
        whole, other = ((one.numeric_precision or 0) - (one.numeric_scale or 0) for one in (left, right))
        if whole > other or (left.numeric_scale or 0) > (right.numeric_scale or 0):
            return "digits are lost"
    if (
        left.data_type in _INTEGERS
        and right.data_type in _INTEGERS
        and not (_range(right)[0] <= _range(left)[0] and _range(left)[1] <= _range(right)[1])
    ):
        return "larger values are refused"
    return ""


_INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}


def _range(column: Column) -> tuple[int, int]:
    bits = _INTEGERS[column.data_type]
    return (0, 2**bits - 1) if column.unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _foreign_keys(subject: _Subject) -> Hits:
    if not subject.spec.has_load or subject.leaves_keys_unchecked:
        return
    for _, one, _ in subject.there:
        for key in one.foreign_keys:
            text = f"has the foreign key {key}: tables are loaded by name, children before parents"
            fix = "Set AfterConnectScript of the target endpoint to SET FOREIGN_KEY_CHECKS=0"
            yield "stop", str(one.table), text, fix


def _triggers(subject: _Subject) -> Hits:
    for _, one, _ in subject.there:
        if one.triggers is None:
            text = "can have triggers that our login does not see"
            yield "stop", str(one.table), text, f"GRANT TRIGGER ON {ident(one.table.schema)}.* to our login"
        for trigger in one.triggers or ():
            text = f"has the trigger {trigger}, which runs for every row that DMS writes"
            yield "stop", str(one.table), text, "Drop it until the target is the one that applications write"


def _sql_mode(subject: _Subject) -> Hits:
    modes = set(subject.target.variables.get("sql_mode", "").upper().split(","))
    if not modes & {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "TRADITIONAL"}:
        text = "is not strict: a value that does not fit is cut, and counts as written"
        yield "warning", "sql_mode", text, "Add STRICT_TRANS_TABLES"
    dates = [
        f"{one.table}.{column.name}"
        for one in subject.facts.selected
        for column in one.shape.columns
        if column.data_type in _DATES
    ]
    if dates and modes & {"NO_ZERO_DATE", "NO_ZERO_IN_DATE", "TRADITIONAL"}:
        text = f"has NO_ZERO_DATE: a zero date of {checks.named(dates)} is written as NULL, or refused"
        yield "warning", "sql_mode", text, "Take NO_ZERO_DATE and NO_ZERO_IN_DATE out, or repair the rows at the source"


def _packet(subject: _Subject) -> Hits:
    value = subject.target.variables.get("max_allowed_packet", "")
    most = int(value) if value.isdigit() else 0
    for one in subject.facts.selected:
        for name, longest in one.longest.items():
            if longest > most:
                text = f"holds {longest:,} bytes, and max_allowed_packet of the target is {most:,}"
                yield "stop", f"{one.table}.{name}", text, f"Set max_allowed_packet of the target to {2 * longest}"


def _timeouts(subject: _Subject) -> Hits:
    for name in ("net_read_timeout", "net_write_timeout", "wait_timeout"):
        value = subject.target.variables.get(name, "")
        if not value.isdigit() or int(value) < checks.TIMEOUT_S:
            text = f"is {value or 'unknown'} s: the target cuts DMS's sessions while it waits for the source"
            yield "warning", name, text, f"Set it to {checks.TIMEOUT_S}"


def _engine(subject: _Subject) -> Hits:
    for _, one, shape in subject.there:
        if shape.engine.lower() != "innodb":
            text = f"is {shape.engine or 'of unknown engine'}: a change that fails half-way is not taken back"
            yield "warning", str(one.table), text, f"ALTER TABLE {ident(tuple(one.table))} ENGINE = InnoDB"


def _case(subject: _Subject) -> Hits:
    folds = subject.target.variables.get("lower_case_table_names", "")
    if folds == subject.facts.value("lower_case_table_names"):
        return
    for one in subject.target.tables:
        if (name := str(one.table)) != name.lower():
            text = f"has capitals, and lower_case_table_names is {folds or 'unknown'} there and another here"
            yield "warning", name, text, "Add a rule with convert-lowercase, or make both servers the same"


def _grants(subject: _Subject) -> Hits:
    login = subject.target.login
    if login is None or login.accounts is None:
        text = "is not named" if login is None else f"cannot be asked for its grants: {login.reason}"
        fix = "Name it in the run; or GRANT SELECT ON mysql.* to our login at the target"
        yield "warning", login.name if login else "login of DMS", text, fix
        return
    if not login.accounts:
        yield (
            "stop",
            login.name,
            f"does not exist: {login.reason}",
            "CREATE USER, and see docs/dms.md for what it needs",
        )
    schemas = sorted({one.table.schema for one in subject.target.tables})
    for account in login.accounts:
        wanted = [(privilege, schema) for schema in schemas for privilege in PRIVILEGES] + [("CREATE", CONTROL)]
        lacking: dict[str, list[str]] = {}
        for privilege, schema in wanted:
            if not mysql.granted(account.grants, privilege, schema, "*"):
                lacking.setdefault(schema, []).append(privilege)
        for schema, privileges in lacking.items():
            listed = "ALL PRIVILEGES" if schema == CONTROL else ", ".join(privileges)
            fix = f"GRANT {listed} ON {ident(schema)}.* TO {account.name}"
            yield "stop", account.name, f"lacks {', '.join(privileges)} on {schema}", fix


_QUESTIONS: tuple[tuple[str, str, Callable[[_Subject], Hits]], ...] = (
    ("target-writable", "it takes writes", _writable),
    ("target-local-infile", "it takes LOAD DATA LOCAL, or nothing is loaded", _local_infile),
    ("target-tables", "every table is there, or is made by the load", _exists),
    ("target-key", "every table has a key that names its rows", _key),
    ("target-columns", "every column has its place", _columns),
    ("target-generated", "no column that is written is generated", _generated),
    ("target-narrower", "every value has room", _narrower),
    ("target-foreign-keys", "no foreign key is checked during a load", _foreign_keys),
    ("target-triggers", "no trigger runs", _triggers),
    ("target-sql-mode", "sql_mode is strict", _sql_mode),
    ("target-packet", "the longest value fits into a packet", _packet),
    ("target-timeouts", "sessions that wait are not cut", _timeouts),
    ("target-engine", "every table is InnoDB", _engine),
    ("target-case", "names are the same on both servers", _case),
    ("target-grants", "the login of DMS is granted what it needs", _grants),
)
