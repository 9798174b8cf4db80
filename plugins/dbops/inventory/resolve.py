"""From the names in a statement to the tables that it really touches: views, stored programs, triggers and foreign keys followed.

Rules of MySQL that this relies on: a statement inside a program resolves names in the program's schema; triggers fire for each changed
row but not for rows that a foreign key changes; REPLACE deletes and inserts; ON DUPLICATE KEY UPDATE inserts or updates; TRUNCATE fires
nothing. Where a rule cannot decide (an update through a view of several tables), every table that may be meant is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dbops.inventory import parse
from dbops.inventory.model import Access, Analysis, Catalog, ColumnUse, Program, Role, TableName, TableRef, Use

_EVENTS = {
    "insert": {"INSERT"},
    "replace": {"INSERT", "DELETE"},
    "update": {"UPDATE"},
    "delete": {"DELETE"},
    "load": {"INSERT"},
}
_ACTS = ("CASCADE", "SET NULL", "SET DEFAULT")


def resolve(
    analysis: Analysis, schema: str | None, catalog: Catalog
) -> tuple[frozenset[Use], frozenset[ColumnUse], tuple[str, ...]]:
    """What a statement touches.

    Args:
        analysis: of the statement
        schema: default schema of its session
        catalog: of the server

    Returns:
        uses (a view counts as used, and its base tables ``via`` it), columns, and the names that the catalog does not have: temporary
        tables, dropped tables, tables without a schema, unknown routines, dynamic SQL
    """
    run = _Run(_names(catalog))
    run.statement(analysis, schema, "")
    return frozenset(run.uses), frozenset(run.columns), tuple(run.unresolved)


class _Names:
    """A catalog by lower-case names. Exact spelling is preferred: on most servers t and T are two tables."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.known: dict[tuple[str, str], list[TableRef]] = {}
        for ref in (*catalog.tables, *catalog.views):
            self.known.setdefault((ref.schema.lower(), ref.table.lower()), []).append(ref)
        self.columns = {
            ref: {column.name.lower(): column.name for column in table.columns} for ref, table in catalog.tables.items()
        }
        self.programs = {(p.kind, p.schema.lower(), p.name.lower()): p for p in catalog.programs}
        self.triggers: dict[TableRef, list[Program]] = {}
        for program in catalog.programs:
            if program.table:
                self.triggers.setdefault(program.table, []).append(program)
        self.bodies: dict[Program, list[Analysis]] = {}
        self.views: dict[TableRef, Analysis] = {}

    def table(self, name: TableName, schema: str | None) -> TableRef | None:
        """The table that a name means. A digest prints a keyword in upper case, so another spelling will do if it is the only one."""
        owner = name.schema or schema
        if owner is None:
            return None
        found = self.known.get((owner.lower(), name.table.lower()), [])
        exact = TableRef(owner, name.table)
        return exact if exact in found else found[0] if len(found) == 1 else None

    def body(self, program: Program) -> list[Analysis]:
        if program not in self.bodies:
            self.bodies[program] = [parse.analyse(text) for text in parse.split_body(program.body)]
        return self.bodies[program]

    def view(self, ref: TableRef) -> Analysis:
        if ref not in self.views:
            self.views[ref] = parse.analyse(self.catalog.views[ref])
        return self.views[ref]


_last: list[tuple[Catalog, _Names]] = []


def _names(catalog: Catalog) -> _Names:
    """Built once for a catalog that is used for statement after statement."""
    if not _last or _last[0][0] is not catalog:
        _last[:] = [(catalog, _Names(catalog))]
    return _last[0][1]


@dataclass
class _Run:
    names: _Names
    uses: set[Use] = field(default_factory=set)
    columns: set[ColumnUse] = field(default_factory=set)
    unresolved: dict[str, None] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)
    """Programs that are being followed or were."""
    followed: set[tuple[Use, frozenset[str], frozenset[str]]] = field(default_factory=set)
    """(use, events, columns written) whose consequences are known: the INSERT of a body says nothing of its DELETE."""

    def statement(self, analysis: Analysis, schema: str | None, via: str) -> None:
        refs = {name: self.names.table(name, schema) for name, _ in analysis.uses}
        for name, ref in sorted(refs.items(), key=lambda item: (item[0].schema or "", item[0].table)):
            if ref is None:
                owner = name.schema or schema
                self.unresolved[f"{owner}.{name.table}" if owner else name.table] = None
        columns = list(self._columns(analysis, refs))
        self.columns.update(columns)
        written = {(c.table, c.column.lower()) for c in columns if c.role == "written"}
        events = set(_EVENTS.get(analysis.kind, ()))
        if "upsert" in analysis.flags:
            events.add("UPDATE")
        if "replace" in analysis.flags:
            events.add("DELETE")
        for name, access in analysis.uses:
            ref = refs[name]
            if ref is not None:
                changed = {c for t, c in written if t == ref}
                if "upsert" in analysis.flags and ref not in self.names.catalog.views:
                    changed &= analysis.reassigned
                self.use(ref, self._decided(ref, access, analysis, written), via, events, changed)
        self._calls(analysis, schema)
        if "dynamic-sql" in analysis.flags and via:
            self.unresolved[f"dynamic SQL in {via}"] = None

    def _decided(self, ref: TableRef, access: Access, analysis: Analysis, written: set[tuple[TableRef, str]]) -> Access:
        """UPDATE a, b SET x = 1 writes the table that has x."""
        if access == "write" and "ambiguous-target" in analysis.flags and written:
            return "write" if any(table == ref for table, _ in written) or ref not in self.names.columns else "read"
        return access

    # -- tables

    def use(
        self, ref: TableRef, access: Access, via: str, events: Iterable[str] = (), written: Iterable[str] = ()
    ) -> None:
        """Note the use of a table and of what follows from it."""
        use = Use(ref, access, via)
        self.uses.add(use)
        known = (use, frozenset(events), frozenset(written))
        if known in self.followed:
            return
        self.followed.add(known)
        if ref in self.names.catalog.views:
            self._view(ref, access, set(events), set(written))
        elif access == "write":
            self._triggers(ref, set(events))
            self._cascades(ref, set(events), set(written))

    def _view(self, ref: TableRef, access: Access, events: set[str], written: set[str]) -> None:
        via = f"view {ref}"
        if access == "ddl":
            return
        if not self.names.catalog.views[ref]:
            self.unresolved[f"definition of {via}"] = None
            return
        analysis = self.names.view(ref)
        bases = {base for name, _ in analysis.uses if (base := self.names.table(name, ref.schema))}
        targets = self._view_targets(ref, analysis, bases, written) if access == "write" else {}
        for base in sorted(bases):
            self.use(base, "write" if base in targets else "read", via, events, targets.get(base, ()))
        for name, _ in analysis.uses:
            if self.names.table(name, ref.schema) is None:
                self.unresolved[f"{name.schema or ref.schema}.{name.table}"] = None
        self._calls(analysis, ref.schema)
        refs = {name: self.names.table(name, ref.schema) for name, _ in analysis.uses}
        self.columns.update(self._columns(analysis, refs))

    def _view_targets(
        self, ref: TableRef, analysis: Analysis, bases: set[TableRef], written: set[str]
    ) -> dict[TableRef, set[str]]:
        """The tables that a write through a view changes -> their columns. Where it cannot be told, all that the view selects from."""
        owners: dict[TableRef, set[str]] = {}
        for column in written:
            name, real = analysis.shown.get(column, (None, column))
            base = self.names.table(name, ref.schema) if name else None
            for owner in [base] if base else [b for b in bases if column in self.names.columns.get(b, ())]:
                owners.setdefault(owner, set()).add(real.lower())
        if owners:
            return owners
        # Tables of a subquery are not written.
        top = {self.names.table(o.table, ref.schema) for o in analysis.occurrences if o.scope == 0 and o.table}
        return {base: set(written) for base in bases & top or bases}

    def _triggers(self, ref: TableRef, events: set[str]) -> None:
        for trigger in self.names.triggers.get(ref, ()):
            if trigger.event.upper() in events:
                self._enter(trigger)

    def _cascades(self, ref: TableRef, events: set[str], written: set[str]) -> None:
        """Rows that foreign keys change. They fire no triggers, but what is deleted or updated there may cascade on."""
        pending = [(ref, events, written)]
        while pending:
            parent, how, columns = pending.pop()
            for reference in self.names.catalog.references:
                if reference.parent != parent:
                    continue
                deletes = "DELETE" in how and reference.delete_rule in _ACTS
                keys = {column.lower() for column in reference.parent_columns}
                updates = "UPDATE" in how and reference.update_rule in _ACTS and (not keys or bool(keys & columns))
                for on, acts in (("DELETE", deletes), ("UPDATE", updates)):
                    use = Use(reference.child, "write", f"foreign key {reference.name}", on)
                    gone = on == "DELETE" and reference.delete_rule == "CASCADE"
                    changed = frozenset() if gone else frozenset(column.lower() for column in reference.child_columns)
                    known = (use, frozenset({"DELETE" if gone else "UPDATE"}), changed)
                    if not acts or known in self.followed:
                        continue
                    self.followed.add(known)
                    self.uses.add(use)
                    if not gone:
                        self.columns |= {
                            ColumnUse(reference.child, column, "written") for column in reference.child_columns
                        }
                    pending.append((reference.child, set(known[1]), set(changed)))

    # -- programs

    def _calls(self, analysis: Analysis, schema: str | None) -> None:
        for routine in sorted(analysis.routines):
            program = self._program("procedure", routine, schema)
            if program is None:
                self.unresolved[f"procedure {routine}"] = None
            else:
                self._enter(program)
        for function in sorted(analysis.functions):
            program = self._program("function", function, schema)
            if program is not None:
                self._enter(program)

    def _program(self, kind: str, name: str, schema: str | None) -> Program | None:
        owner, _, bare = name.rpartition(".")
        return self.names.programs.get((kind, (owner or schema or "").lower(), bare.lower()))

    def _enter(self, program: Program) -> None:
        via = str(program)
        if via in self.entered:
            return
        self.entered.add(via)
        if not program.body:
            self.unresolved[f"body of {via}"] = None
        for analysis in self.names.body(program):
            self.statement(analysis, program.schema, via)

    # -- columns

    def _columns(self, analysis: Analysis, refs: dict[TableName, TableRef | None]) -> Iterator[ColumnUse]:
        """Columns that exist. What is none (an alias, a variable of a program) has no place here."""
        here = [ref for ref in refs.values() if ref is not None]
        for name, column, role in analysis.columns:
            owner = refs.get(name) if name else None
            if name and owner is None:
                continue
            yield from self._column([owner] if owner else here, column, role)
            if (
                owner and column != "*" and not self._has(owner, column)
            ):  # a column of an outer statement, without its alias
                yield from self._column([ref for ref in here if ref != owner], column, role)

    def _has(self, ref: TableRef, column: str) -> bool:
        return ref in self.names.catalog.views or column.lower() in self.names.columns.get(ref, ())

    def _column(self, tables: Iterable[TableRef], column: str, role: Role) -> Iterator[ColumnUse]:
        for ref in tables:
            known = self.names.columns.get(ref)
            if known is None:  # a view: its columns carry the names of the columns that it shows, or others
                yield from self._of_view(ref, column, role)
            elif column == "*":
                yield from (ColumnUse(ref, real, role) for real in known.values())
            elif column.lower() in known:
                yield ColumnUse(ref, known[column.lower()], role)

    def _of_view(self, ref: TableRef, column: str, role: Role) -> Iterator[ColumnUse]:
        yield ColumnUse(ref, column, role)
        if not self.names.catalog.views.get(ref) or column == "*":
            return
        analysis = self.names.view(ref)
        if shown := analysis.shown.get(column.lower()):
            base = self.names.table(shown[0], ref.schema)
            yield from self._column([base] if base and base != ref else [], shown[1], role)
            return
        for name, _ in analysis.uses:
            base = self.names.table(name, ref.schema)
            if base is not None and base != ref:
                yield from self._column([base], column, role)
