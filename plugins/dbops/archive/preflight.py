"""Preflight: everything that would lose, distort or wrongly delete rows is found before anything is written.

Two parts: :func:`check_table` looks at definitions, server and services; :func:`row_checks` are conditions that the plan's walk counts
among the cold rows, and :func:`row_refusals` says what they mean. Each refusal names the column, the number of rows, one sample key and
the fix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbops import keys, mysql, sql
from dbops.archive import codec
from dbops.archive.ledger import Chunk
from dbops.archive.spec import ArchiveSpec
from dbops.keys import RowKey
from dbops.mysql import Column, ForeignKey, Table
from dbops.sql import ident

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

# Character sets whose every stored value utf8mb4 holds, so no row needs to be tried. The wide ones are not among them: they can hold half
# of a surrogate pair, where a conversion to utf8mb4 ends without an error.
_UNICODE = {"utf8mb4", "utf8", "utf8mb3", "ascii"}
_INNODB_WRITE_PROBE = "EXPLAIN DELETE FROM {table} WHERE FALSE"


@dataclass(frozen=True)
class Refusal:
    """Why a table (or some of its rows) cannot be archived as the spec says."""

    check: str
    message: str
    fix: str
    column: str | None = None
    rows: int | None = None
    sample_key: str | None = None

    def __str__(self) -> str:
        where = f" column {self.column}" if self.column else ""
        count = f" {self.rows} rows" if self.rows is not None else ""
        sample = f" (first key {self.sample_key})" if self.sample_key else ""
        return f"[{self.check}]{where}{count}: {self.message}{sample}. Fix: {self.fix}"


@dataclass(frozen=True)
class RowCheck:
    """A condition that no archived row may meet."""

    check: str
    column: str | None
    condition: str
    message: str
    fix: str


def check_table(conn: Connection, spec: ArchiveSpec, *, purging: bool) -> list[Refusal]:
    """Refusals that definitions and server settings give. `purging` adds what only a DELETE needs."""
    server = mysql.read_server(conn)
    table = mysql.read_table(conn, spec.schema_name, spec.table)
    if table is None:
        return [
            Refusal(
                "table", f"{spec.full_name} does not exist, is a view, or the user of {spec.connection!r} may not see it",
                "correct schema and table in the spec, or GRANT SELECT",
            )
        ]  # fmt: skip
    children = mysql.referencing_keys(conn, table.schema, table.name)
    refusals = [
        *_check_storage(table),
        *_check_columns(table, spec),
        *_check_cold(table, spec),
        *_check_children(conn, table, children, spec),
        *_check_triggers(conn, table),
    ]
    if server.log_bin and server.binlog_format != "ROW":
        refusals.append(
            Refusal(
                "binlog_format",
                f"is {server.binlog_format}, so replicas could delete other rows",
                "SET GLOBAL binlog_format = 'ROW'",
            )
        )
    if purging:
        if server.read_only:
            refusals.append(
                Refusal(
                    "writer", f"the server of {spec.connection!r} is read-only", "point the connection at the writer"
                )
            )
        refusals += _check_delete_grant(conn, table, spec)
        if spec.referenced_rows == "skip":
            refusals += _check_child_locks(conn, children)
    return refusals


def _check_storage(table: Table) -> Iterable[Refusal]:
    if table.engine != "InnoDB":
        yield Refusal(
            "engine", f"{table.full_name} is {table.engine or 'of unknown engine'}: no transaction can prove and delete its rows",
            f"ALTER TABLE {ident((table.schema, table.name))} ENGINE=InnoDB",
        )  # fmt: skip
    try:
        keys.row_key(table)
    except keys.UnusableKey as error:
        yield Refusal("key", str(error), "add a PRIMARY KEY of a supported type")


def _check_columns(table: Table, spec: ArchiveSpec) -> Iterable[Refusal]:
    for column in table.columns:
        try:
            codec.codec_for(column)
        except codec.UnknownType as error:
            yield Refusal("type", str(error), "leave the table out, or convert the column", column.name)
        if column.name.lower().startswith("_archive"):
            yield Refusal(
                "reserved_name", "names that start with _archive belong to the archive", "rename it", column.name
            )
    for option, kinds in (
        ("zero_dates_as_text", codec.DATES),
        ("lossy_text_as_binary", codec.TEXTS | codec.LONG_TEXTS),
    ):
        for name in getattr(spec, option):
            named = table.column(name)
            if named is None or named.data_type not in kinds:
                yield Refusal(
                    "spec", f"{option} names {name!r}, which is {named.column_type if named else 'not a column of the table'}",
                    f"name columns of type {', '.join(sorted(kinds))}", name,
                )  # fmt: skip
    if spec.target.partition:
        transform, name = spec.target.partition
        if problem := _unfit_partition(table, spec, transform, name):
            yield Refusal("partitioning", f"{transform}({name}) {problem}", "correct target.partitioning", name)


def _unfit_partition(table: Table, spec: ArchiveSpec, transform: str, name: str) -> str | None:
    """Why the column cannot be the source of the partition, or None."""
    source = table.column(name)
    allowed = codec.DATES if transform != "identity" else codec.DATES | set(codec.INTEGERS) | codec.TEXTS
    if source is None or source.data_type not in allowed or (transform == "hour" and source.data_type == "date"):
        return f"needs a column of type {', '.join(sorted(allowed))}"
    converted = {n.lower() for n in (*spec.zero_dates_as_text, *spec.lossy_text_as_binary)}
    return "needs a column that is archived in its own type" if source.name.lower() in converted else None


def _check_cold(table: Table, spec: ArchiveSpec) -> Iterable[Refusal]:
    column = table.column(spec.cold.column)
    wanted = codec.DATES if spec.cold.unit == "datetime" else set(codec.INTEGERS)
    if column is None or column.data_type not in wanted:
        kind = column.column_type if column else "not a column of the table"
        yield Refusal(
            "cold", f"is {kind}; unit {spec.cold.unit} needs {', '.join(sorted(wanted))}", "correct cold.column or cold.unit",
            spec.cold.column,
        )  # fmt: skip
        return
    leads = any(i.columns[0].lower() == column.name.lower() and i.index_type == "BTREE" for i in table.indexes)
    if not leads and not spec.full_scan:
        yield Refusal(
            "index", "no index begins with it, so finding the cold rows reads the whole table",
            f"ALTER TABLE {ident((table.schema, table.name))} ADD INDEX ({ident(column.name)}), or allow it: full_scan: true",
            column.name,
        )  # fmt: skip


def _check_children(
    conn: Connection, table: Table, children: Sequence[ForeignKey], spec: ArchiveSpec
) -> Iterable[Refusal]:
    try:
        hidden = mysql.hidden_foreign_keys(conn, table.schema, table.name)
    except mysql.MySqlFactError as error:
        yield Refusal(
            "foreign_keys", f"cannot be listed completely: {error}", "GRANT PROCESS ON *.* TO the archive's user"
        )
    else:
        if hidden > 0:
            yield Refusal(
                "foreign_keys", f"{hidden} foreign keys of tables that this user may not see point at {table.full_name}",
                "GRANT SELECT on the child tables to the archive's user",
            )  # fmt: skip
    for child in children:
        if child.delete_rule in ("CASCADE", "SET NULL"):
            yield Refusal(
                "cascade",
                f"foreign key {child.name} of {child.child_schema}.{child.child_table} is ON DELETE {child.delete_rule}: "
                "deleting a row here would silently change rows there",
                f"archive {child.child_table} first and change the key to ON DELETE RESTRICT",
                ", ".join(child.parent_columns),
            )
        if spec.referenced_rows == "skip" and _is_same(table, child):
            yield Refusal(
                "self_reference",
                f"foreign key {child.name} points at the table itself: MySQL cannot look for child rows in the table that it deletes from",
                "referenced_rows: refuse, with a `where` that leaves the rows to which others point",
                ", ".join(child.child_columns),
            )


def _is_same(table: Table, child: ForeignKey) -> bool:
    # Without case, because some servers store names in lower case.
    return (child.child_schema.lower(), child.child_table.lower()) == (table.schema.lower(), table.name.lower())


def _check_triggers(conn: Connection, table: Table) -> Iterable[Refusal]:
    if not mysql.has_privilege(conn, "TRIGGER", table.schema, table.name):
        yield Refusal(
            "triggers", f"this user cannot see the triggers of {table.full_name}, so a DELETE trigger could run unseen",
            f"GRANT TRIGGER ON {ident((table.schema, table.name))} TO the archive's user",
        )  # fmt: skip
    for trigger in mysql.triggers(conn, table.schema, table.name):
        if trigger.event == "DELETE":
            yield Refusal(
                "trigger", f"{trigger.timing} DELETE trigger {trigger.name} would run for every purged row",
                "drop it, or let it ignore the archive's user",
            )  # fmt: skip


def _check_delete_grant(conn: Connection, table: Table, spec: ArchiveSpec) -> Iterable[Refusal]:
    import MySQLdb

    try:
        with conn.cursor() as cursor:
            cursor.execute(_INNODB_WRITE_PROBE.format(table=ident((table.schema, table.name))))
    except MySQLdb.Error as error:
        yield Refusal(
            "grant", f"the user of {spec.connection!r} may not delete from {table.full_name}: {error.args[-1]}",
            f"GRANT SELECT, DELETE ON {ident((table.schema, table.name))} TO that user",
        )  # fmt: skip


def _check_child_locks(conn: Connection, children: Sequence[ForeignKey]) -> Iterable[Refusal]:
    import MySQLdb

    for name in sorted({(child.child_schema, child.child_table) for child in children}):
        try:
            with conn.cursor() as cursor:
                cursor.execute(f"SELECT 1 FROM {ident(name)} WHERE FALSE LOCK IN SHARE MODE")
        except MySQLdb.Error as error:
            yield Refusal(
                "grant", f"the purge must lock the rows of {'.'.join(name)} that it looks at, and may not: {error.args[-1]}",
                f"GRANT SELECT, LOCK TABLES ON {ident(name[0])}.* TO that user",
            )  # fmt: skip


def check_services(probes: Sequence[tuple[str, str, Callable[[], Any]]]) -> list[Refusal]:
    """Run each (check, fix, probe); a probe that raises becomes a refusal with its message."""
    refusals = []
    for check, fix, probe in probes:
        try:
            probe()
        except Exception as error:  # whatever a driver raises is the answer here
            text = " ".join(str(error).split())[:300]
            refusals.append(Refusal(check, f"{type(error).__name__}: {text}", fix))
    return refusals


def row_checks(table: Table, spec: ArchiveSpec, children: Sequence[ForeignKey]) -> list[RowCheck]:
    """The conditions to look for in the cold rows of this table under this spec."""
    as_text = {n.lower() for n in spec.zero_dates_as_text}
    as_binary = {n.lower() for n in spec.lossy_text_as_binary}
    checks = [_zero_date(c) for c in table.columns if c.data_type in codec.DATES and c.name.lower() not in as_text]
    checks += [
        _lossy(c)
        for c in table.columns
        if c.charset
        and c.charset not in _UNICODE
        and c.data_type in codec.TEXTS | codec.LONG_TEXTS
        and c.name.lower() not in as_binary
    ]
    if spec.target.partition:
        name = spec.target.partition[1]
        checks.append(
            RowCheck(
                "partition_null", name, f"{ident(name)} IS NULL", "a NULL has no partition, and Iceberg would hide the row",
                "partition by a NOT NULL column, or exclude the rows with `where`",
            )
        )  # fmt: skip
    if spec.referenced_rows == "refuse":
        checks += [
            RowCheck(
                "referenced", ", ".join(child.parent_columns), referenced(table, child),
                f"rows of {child.child_schema}.{child.child_table} still point at them ({child.name}, ON DELETE {child.delete_rule})",
                f"archive {child.child_table} first, or leave those rows: referenced_rows: skip",
            )
            for child in children
        ]  # fmt: skip
    return checks


def referenced(table: Table, child: ForeignKey) -> str:
    """SQL that is true for a row of `table` that a row of the child points at."""
    parent = (table.schema, table.name)
    pairs = zip(child.child_columns, child.parent_columns, strict=True)
    join = " AND ".join(f"child_row.{ident(c)} = {ident((*parent, p))}" for c, p in pairs)
    return f"EXISTS (SELECT 1 FROM {ident((child.child_schema, child.child_table))} AS child_row WHERE {join})"


_NAME = r"`(?:[^`]|``)+`"
_PAIR = rf"child_row\.{_NAME} = {_NAME}\.{_NAME}\.{_NAME}"
_REFERENCED = re.compile(rf"(EXISTS \(SELECT 1 FROM {_NAME}\.{_NAME} AS child_row WHERE {_PAIR}(?: AND {_PAIR})*)\)")


def locking(predicate: str) -> str:
    """A plan's predicate whose subqueries (those of :func:`referenced`) read the current child rows and lock them until the commit.

    A plain subquery reads the transaction's snapshot even inside a locking read, while a DELETE reads what is there now.
    """
    return _REFERENCED.sub(r"\1 LOCK IN SHARE MODE)", predicate)


def _zero_date(column: Column) -> RowCheck:
    c = ident(column.name)
    condition = (
        f"({c} = 0)" if column.data_type == "timestamp" else f"(YEAR({c}) = 0 OR MONTH({c}) = 0 OR DAYOFMONTH({c}) = 0)"
    )
    return RowCheck(
        "zero_date", column.name, condition, "zero or partial dates have no counterpart in the lake",
        f"correct the rows, or archive the column as text: zero_dates_as_text: [{column.name}]",
    )  # fmt: skip


def _lossy(column: Column) -> RowCheck:
    c = ident(column.name)
    round_trip = f"CONVERT(CONVERT({c} USING utf8mb4) USING {column.charset})"
    return RowCheck(
        "charset", column.name, f"(CAST({round_trip} AS BINARY) <> CAST({c} AS BINARY))",
        f"characters of {column.charset} that utf8mb4 does not hold would become '?'",
        f"archive the column as bytes: lossy_text_as_binary: [{column.name}]",
    )  # fmt: skip


def row_refusals(
    conn: Connection,
    table: Table,
    key: RowKey,
    predicate: str,
    checks: Sequence[RowCheck],
    chunks: Sequence[Chunk],
    failed: Sequence[Sequence[int]],
) -> list[Refusal]:
    """A refusal, with one sample key, for each check that rows fail. `failed` are the walk's counts, a list of chunks a check."""
    refusals = []
    for check, counts in zip(checks, failed, strict=True):
        if not any(counts):
            continue
        first = next(chunk for chunk, count in zip(chunks, counts, strict=True) if count)
        with conn.cursor() as cursor:
            cursor.execute(
                sql.render(
                    "archive/row_check_sample",
                    literals=key.select_literals,
                    table=(table.schema, table.name),
                    index=key.index,
                    where=f"{key.between(first.lower, first.upper)} AND {predicate}",
                    condition=check.condition,
                    order_by=key.order_by,
                )
            )
            found = cursor.fetchone()
        sample = None if found is None else ", ".join(keys.from_row(found))
        refusals.append(Refusal(check.check, check.message, check.fix, check.column, sum(counts), sample))
    return refusals
