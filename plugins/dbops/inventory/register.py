"""The dual-write register: every way in which rows of a table change, what makes it hard to repeat elsewhere, and who does it.

A write is what a statement names, and what follows from it without a statement of its own: triggers, foreign keys, writes through views.
Bodies of stored programs are read from the catalog, so a program that has not run yet is in the register too. The server's own row counters
are the check: a table whose rows changed although nobody is known to change them is a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from dbops.inventory import access, fingerprint, parse, resolve
from dbops.inventory import text as sqltext
from dbops.inventory.model import Activity, Catalog, Program, Reference, Statement, TableRef, Use

Operation = Literal[
    "insert", "insert-select", "upsert", "replace", "update", "delete", "load", "truncate", "cascade delete", "cascade update", "set null",
    "program",
]  # fmt: skip
"""program: a CALL, function or trigger changes the table; its body's statements are in the register by themselves."""

_CHANGES: dict[Operation, frozenset[str]] = {
    "insert": frozenset({"inserted"}),
    "insert-select": frozenset({"inserted"}),
    "upsert": frozenset({"inserted", "updated"}),
    "replace": frozenset({"inserted", "updated", "deleted"}),
    "load": frozenset({"inserted", "updated", "deleted"}),  # LOAD DATA ... REPLACE
    "update": frozenset({"updated"}),
    "delete": frozenset({"deleted"}),
}
"""Operation -> row counters of the server that it moves. TRUNCATE and what InnoDB does for a foreign key move none."""


@dataclass(frozen=True)
class Writer:
    """One way in which rows of a table change."""

    table: TableRef
    operation: Operation
    statement: str
    """Id of the statement."""
    text: str
    via: str
    """View, program or foreign key through which the statement gets there; '' when it names the table."""
    programs: frozenset[str]
    """Stored programs that hold the statement."""
    key: tuple[str, ...]
    """Columns by which it finds the rows, as far as an index serves them."""
    hazards: tuple[str, ...]
    """What a dual write must care about."""
    executions: int
    last_seen: datetime | None
    users: frozenset[str]
    callers: frozenset[str]
    instances: frozenset[str]


@dataclass(frozen=True)
class Blind:
    """A statement that may write something which cannot be told."""

    statement: str
    text: str
    why: str
    programs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Hole:
    """Rows changed, and no known writer does that."""

    table: TableRef
    counter: Literal["inserted", "updated", "deleted"]
    rows: int
    writers: int
    """Known writers of the table that do something else; 0 is the red line."""

    def __str__(self) -> str:
        known = f"its {self.writers} known writers do something else" if self.writers else "no writer is known"
        return f"{self.table}: {self.rows} rows {self.counter}, and {known}"


@dataclass(frozen=True)
class Register:
    """All writers, what is hidden, and what does not add up."""

    writers: tuple[Writer, ...]
    blind: tuple[Blind, ...]
    holes: tuple[Hole, ...]

    def of(self, table: TableRef) -> tuple[Writer, ...]:
        """Writers of one table."""
        return tuple(w for w in self.writers if w.table == table)


class RowCounts(Protocol):
    """Rows that changed in the window: a TableIo or a row of History.table_io. `index` is None for the whole table."""

    @property
    def table(self) -> TableRef: ...  # noqa: D102
    @property
    def index(self) -> str | None: ...  # noqa: D102
    @property
    def inserted(self) -> int: ...  # noqa: D102
    @property
    def updated(self) -> int: ...  # noqa: D102
    @property
    def deleted(self) -> int: ...  # noqa: D102


def writers(statements: Iterable[Statement], catalog: Catalog, table_io: Iterable[RowCounts] = ()) -> Register:
    """The register of everything in `statements` and in the catalog's stored programs.

    Args:
        statements: of the analysed window
        catalog: of the writer
        table_io: differences over the same window, of all instances; cumulative counters would blame today for what was long ago
    """
    known = list(statements)
    known += program_statements(catalog, known)
    found = tuple(writer for statement in known for writer in _of(statement, catalog))
    return Register(found, tuple(b for s in known for b in _blind(s, catalog)), tuple(_holes(found, catalog, table_io)))


def program_statements(catalog: Catalog, known: Sequence[Statement] = ()) -> list[Statement]:
    """The statements in the bodies of stored programs that `known` does not hold."""
    seen = {(name, s.fingerprint) for s in known for name in s.activity.programs}
    found = []
    for program in catalog.programs:
        for statement in _body(program, catalog):
            if (str(program), statement.fingerprint) not in seen:
                seen.add((str(program), statement.fingerprint))
                found.append(statement)
    return found


def _body(program: Program, catalog: Catalog) -> Iterator[Statement]:
    for text in parse.split_body(program.body):
        analysis = parse.analyse(text)
        uses, columns, unresolved = resolve.resolve(analysis, program.schema, catalog)
        yield Statement(
            fingerprint=fingerprint.fingerprint(text, is_digest=False, truncated=False),
            schema=program.schema,
            text=sqltext.mask_literals(text),
            is_digest=False,
            analysis=analysis,
            uses=uses,
            columns=columns,
            unresolved=unresolved,
            activity=Activity(sources=frozenset({"routine"}), programs=frozenset({str(program)})),
        )


def _of(statement: Statement, catalog: Catalog) -> Iterator[Writer]:
    for use in sorted(statement.uses):
        if use.access != "write" or use.table in catalog.views:
            continue  # a view has no rows of its own: its base tables are there too
        operation = _operation(statement, use, catalog)
        pattern = access.pattern(statement, use.table, catalog)
        activity = statement.activity
        yield Writer(
            table=use.table,
            operation=operation,
            statement=statement.id,
            text=statement.text,
            via=use.via,
            programs=activity.programs,
            key=pattern.key,
            hazards=tuple(_hazards(statement, use, operation, pattern, catalog)),
            executions=activity.executions,
            last_seen=activity.last_seen,
            users=activity.users,
            callers=activity.callers,
            instances=activity.instances,
        )


def _operation(statement: Statement, use: Use, catalog: Catalog) -> Operation:
    if (reference := _reference(use, catalog)) is not None:
        rule = reference.delete_rule if use.on == "DELETE" else reference.update_rule
        if rule.upper() != "CASCADE":
            return "set null"
        return "cascade delete" if use.on == "DELETE" else "cascade update"
    if use.via and not use.via.startswith("view "):
        return "program"
    flags = statement.analysis.flags
    match statement.analysis.kind:
        case "insert":
            return "upsert" if "upsert" in flags else "insert-select" if "insert-select" in flags else "insert"
        case "replace":
            return "replace"
        case "update":
            return "update"
        case "delete":
            return "delete"
        case "load":
            return "load"
        case "truncate" | "ddl":  # ALTER TABLE ... DROP PARTITION
            return "truncate"
    return "program"


def _reference(use: Use, catalog: Catalog) -> Reference | None:
    """The foreign key through which the table is written."""
    return next((r for r in catalog.references if r.child == use.table and use.via == f"foreign key {r.name}"), None)


# -- hazards -----------------------------------------------------------------------------------------------------------------


def _hazards(
    statement: Statement, use: Use, operation: Operation, pattern: access.Pattern, catalog: Catalog
) -> Iterator[str]:
    analysis, table = statement.analysis, use.table
    if operation in ("cascade delete", "cascade update", "set null"):
        yield "no statement names these rows: InnoDB changes them for the foreign key"
        return
    if operation == "program":
        yield "the rows are changed by a stored program"
        return
    if analysis.method in ("truncated-regex", "unparsed"):
        yield f"the text is not understood ({analysis.reason or analysis.method}): hazards are unknown"
    if use.via:
        yield f"the rows are named through {use.via}"
    yield from _which_rows(statement, operation, pattern, catalog)
    yield from _which_values(statement, table, operation, catalog)
    yield from _side_effects(statement, operation, table, catalog)


def _which_rows(statement: Statement, operation: Operation, pattern: access.Pattern, catalog: Catalog) -> Iterator[str]:
    """Whether the rows can be named without reading the table."""
    analysis, definition = statement.analysis, catalog.tables.get(pattern.table)
    key = definition.row_key if definition else None
    if definition is not None and key is None:
        yield "the table has no key that names a row"
    if operation in ("update", "delete"):
        by_key = key is not None and pattern.index == key.name and pattern.access_class in ("point", "multi-point")
        if not by_key and pattern.access_class != "indirect":
            yield f"rows by condition, not by key ({pattern.access_class}{' on ' + pattern.index if pattern.index else ''})"
        if "limit" in analysis.flags and "sort" not in analysis.flags:
            yield "LIMIT without ORDER BY: which rows is not defined"
        if "join" in analysis.flags or "subquery" in analysis.flags:
            yield "which rows depends on other tables"
    if operation in ("insert-select", "load"):
        yield "the rows are not in the statement"
    if operation == "truncate":
        rows = "all rows" if analysis.kind == "truncate" else "all rows of a partition"
        yield f"{rows} go, without an event per row"
    if "multi-row" in analysis.flags:
        yield "several rows in one statement"


def _which_values(statement: Statement, table: TableRef, operation: Operation, catalog: Catalog) -> Iterator[str]:
    """Whether the new values can be told from the statement."""
    analysis, definition = statement.analysis, catalog.tables.get(table)
    written = {use.column.lower() for use in statement.columns if use.table == table and use.role == "written"}
    if operation == "upsert":
        yield "insert or update, depending on what is there"
    if operation == "replace":
        yield "deletes a row that is there and inserts anew"
    if "self-reference" in analysis.flags:
        yield "reads what it writes: the result depends on the row's present value"
    if "nondeterministic" in analysis.flags:
        yield "a value that differs when it is computed again (NOW, UUID, RAND ...)"
    if definition is None:
        return
    if analysis.kind in ("insert", "replace", "load") and written:
        missing = [
            c.name
            for c in definition.columns
            if c.is_auto_increment and c.name.lower() not in written and "*" not in written
        ]
        if missing:
            yield f"the server gives {missing[0]} (AUTO_INCREMENT)"
    if (
        operation == "update"
        and (key := definition.row_key)
        and (moved := sorted(written & {c.lower() for c in key.columns}))
    ):
        yield f"changes the key ({', '.join(moved)})"


def _side_effects(statement: Statement, operation: Operation, table: TableRef, catalog: Catalog) -> Iterator[str]:
    events = {
        "insert": {"INSERT"}, "insert-select": {"INSERT"}, "load": {"INSERT"}, "upsert": {"INSERT", "UPDATE"},
        "replace": {"INSERT", "DELETE"}, "update": {"UPDATE"}, "delete": {"DELETE"},
    }.get(operation, set())  # fmt: skip
    fired = sorted(
        p.name for p in catalog.programs if p.kind == "trigger" and p.table == table and p.event.upper() in events
    )
    if fired:
        yield f"fires {', '.join(fired)}"
    named = {use.via for use in statement.uses if use.access == "write"}
    children = {str(r.child) for r in catalog.references if r.parent == table and f"foreign key {r.name}" in named}
    if children:
        yield f"changes rows of {', '.join(sorted(children))} through foreign keys"


# -- what is hidden, and what does not add up --------------------------------------------------------------------------------

_WRITES = ("insert", "replace", "update", "delete", "load", "truncate")


def _blind(statement: Statement, catalog: Catalog) -> Iterator[Blind]:
    analysis, programs = statement.analysis, statement.activity.programs
    why = ""
    if analysis.kind == "prepared" and programs:
        why = "it runs SQL that it builds itself (PREPARE): read the program"
    elif unknown := [
        name for name in statement.unresolved if analysis.kind == "call" and name.startswith("procedure ")
    ]:
        why = f"the routine is not in the catalog: {', '.join(unknown)}"
    elif hidden := [name for name in statement.unresolved if name.startswith(("body of ", "dynamic SQL in "))]:
        why = f"what it sets off cannot be read: {', '.join(hidden)}"
    elif analysis.kind in _WRITES and "truncated" in analysis.flags:
        why = "the text is cut: there may be more targets"
    elif analysis.kind in _WRITES and not statement.tables("write") - catalog.views.keys():
        why = (
            f"its target is not in the catalog: {', '.join(statement.unresolved) or analysis.reason or 'no name found'}"
        )
    elif lost := _lost_targets(statement):
        why = f"one of its targets is not in the catalog: {', '.join(lost)}"
    elif analysis.kind in _WRITES and "ambiguous-target" in analysis.flags:
        why = "which of the joined tables it writes only the schema can tell; all of them are listed"
    if why:
        yield Blind(statement.id, statement.text, why, programs)


def _lost_targets(statement: Statement) -> list[str]:
    """Tables that it names as targets and no definition has."""
    named = ((name.schema or statement.schema, name.table) for name in statement.analysis.tables("write"))
    written = (f"{schema}.{table}" if schema else table for schema, table in named)
    return sorted(set(written) & set(statement.unresolved))


def _holes(found: Sequence[Writer], catalog: Catalog, table_io: Iterable[RowCounts]) -> Iterator[Hole]:
    rows: dict[tuple[TableRef, str], int] = {}
    for io in table_io:
        if io.index is None:
            for counter in ("inserted", "updated", "deleted"):
                rows[_spelled(io.table, catalog), counter] = rows.get(
                    (_spelled(io.table, catalog), counter), 0
                ) + getattr(io, counter)
    for (table, counter), count in sorted(rows.items()):
        mine = [w for w in found if w.table == table]
        explained = any(counter in _CHANGES.get(w.operation, ()) for w in mine)
        if count > 0 and not explained and table.schema.lower() not in _SYSTEM:
            yield Hole(table, counter, count, len({w.statement for w in mine}))  # type: ignore[arg-type]


_SYSTEM = frozenset({"mysql", "performance_schema", "information_schema", "sys"})


def _spelled(table: TableRef, catalog: Catalog) -> TableRef:
    """The table as the catalog spells it, where the server compares names without case."""
    return TableRef(table.schema.lower(), table.table.lower()) if catalog.folds_case else table
