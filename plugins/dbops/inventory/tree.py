"""What one tree of sqlglot says: tables by access, columns by role, predicates and flags, with aliases resolved scope by scope.

One pass from the root down, without recursion: a condition of 40,000 ORs is a tree of that depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

from sqlglot import exp

from dbops.inventory.model import Access, Analysis, Predicate, Role, TableName

_TRIGGER_ROWS = ("NEW", "OLD")
_FLAGS: dict[str, tuple[type[exp.Expr], ...]] = {
    "join": (exp.Join,),
    "aggregate": (exp.AggFunc, exp.Group),
    "sort": (exp.Order,),
    "limit": (exp.Limit,),
    "distinct": (exp.Distinct,),
    "subquery": (exp.Subquery, exp.Exists),
    "union": (exp.SetOperation,),
    "cte": (exp.With,),
    "lock": (exp.Lock,),
    "fulltext": (exp.MatchAgainst,),
    "window": (exp.Window,),
    "upsert": (exp.OnConflict,),
    "star": (exp.Star,),
}


def read(tree: exp.Expr, analysis: Analysis) -> None:
    """Add to `analysis` what `tree`, a SELECT, INSERT, UPDATE or DELETE, touches."""
    _Walk(tree, analysis).run()


@cache
def _flags_of(kind: Any) -> frozenset[str]:
    """Flags that the mere presence of a node of this class means."""
    return frozenset(flag for flag, kinds in _FLAGS.items() if issubclass(kind, kinds))


@dataclass(frozen=True)
class _Place:
    """Where a node stands."""

    scope: exp.Expr
    """The SELECT, UPDATE, DELETE or INSERT whose clauses hold it."""
    role: Role = "read"
    ctes: frozenset[str] = frozenset()
    """Common table expressions that are visible here, lower case."""
    assigned: bool = False
    """On the right of an assignment."""
    either: bool = False
    """Below an OR of its WHERE, HAVING or ON."""
    negated: bool = False
    """Below a NOT of it."""


class _Walk:
    def __init__(self, tree: exp.Expr, analysis: Analysis) -> None:
        self.tree = tree
        self.analysis = analysis
        self.sources: dict[int, dict[str, TableName | None]] = {}
        """Scope -> alias (lower case) -> its table, or None for a derived table or common table expression."""
        self.outer: dict[int, exp.Expr] = {}
        self.tables: list[tuple[TableName, exp.Expr]] = []
        self.columns: list[tuple[exp.Column, _Place]] = []
        self.stars: list[exp.Expr] = []
        """Scopes of a bare *."""
        self.joined: list[tuple[str, exp.Expr]] = []
        self.targets: set[TableName] = set()

    def run(self) -> None:
        self._visit_all()
        self.targets = set(self._targets())
        for name, scope in self.tables:
            self.analysis.uses.add((name, self._access(name, scope)))
        self.analysis.uses |= {(name, "write") for name in self.targets}
        for column, place in self.columns:
            self._column(column, place)
        for scope in self.stars:
            self.analysis.columns |= {(name, "*", "read") for name in self._here(scope)}
        for identifier, scope in self.joined:
            self.analysis.columns |= {(name, identifier, "joined") for name in self._here(scope)}
        self._insert()
        if self.targets & {name for name, how in self.analysis.uses if how == "read"}:
            self.analysis.flags.add("self-reference")

    # -- the pass

    def _visit_all(self) -> None:
        pending = [(self.tree, _Place(self.tree))]
        while pending:
            node, place = pending.pop()
            place = self._visit(node, place)
            pending += self._children(node, place)

    def _visit(self, node: exp.Expr, place: _Place) -> _Place:
        """Take notes of one node; gives the place of its children."""
        flags = _flags_of(cast("Any", type(node)))
        if flags:
            self.analysis.flags |= flags - {"star"}
        match node:
            case exp.Select() | exp.Update() | exp.Delete() | exp.Insert():
                if node is not self.tree:
                    self.outer[id(node)] = place.scope
                place = _Place(node, ctes=place.ctes)
            case exp.Table():
                self._table(node, place)
            case exp.Subquery() if node.alias and isinstance(
                node.parent, exp.From | exp.Join | exp.Lateral | exp.Table
            ):
                self._aliases(place.scope)[node.alias.lower()] = None
            case exp.Column():
                self.columns.append((node, place))
            case exp.Star() if isinstance(node.parent, exp.Select):
                self.analysis.flags.add("star")
                self.stars.append(place.scope)
            case exp.Join():
                self.joined += [(identifier.name, place.scope) for identifier in node.args.get("using") or ()]
            case exp.Or() if place.role == "filtered":
                self.analysis.flags.add("or-condition")
        return place

    def _children(self, node: exp.Expr, place: _Place) -> Iterator[tuple[exp.Expr, _Place]]:
        names: list[str] = []
        ctes = node.args.get("with_")
        if isinstance(ctes, exp.With):
            recursive = bool(ctes.args.get("recursive"))
            if recursive:
                self.analysis.flags.add("recursive")
            self.analysis.flags.add("cte")
            for cte in ctes.expressions:
                own = [cte.alias.lower()]
                visible = place.ctes.union(names, own if recursive else [])
                yield cte, replace(place, ctes=visible)
                names += own
            place = replace(place, ctes=place.ctes.union(names))
        for child in node.iter_expressions():
            # A MySQL DELETE of several tables lists aliases before FROM: they name targets and are no tables of their own.
            if isinstance(child, exp.With | exp.Lock) or (child.arg_key == "tables" and isinstance(node, exp.Delete)):
                self.analysis.flags |= _flags_of(cast("Any", type(child)))
                continue
            yield child, self._place(node, child, place)

    def _place(self, node: exp.Expr, child: exp.Expr, place: _Place) -> _Place:
        match node:
            case exp.Where() | exp.Having():
                return replace(place, role="filtered")
            case exp.Or() if not place.either:
                return replace(place, either=True)
            case exp.Not() if not place.negated:
                return replace(place, negated=True)
            case exp.Order() | exp.Group():
                return replace(place, role="sorted")
            case exp.Join() if child.arg_key == "on":
                return replace(place, role="joined")
            case exp.EQ() if isinstance(node.parent, exp.Update | exp.OnConflict) and node.arg_key == "expressions":
                return (
                    replace(place, role="written")
                    if child.arg_key == "this"
                    else replace(place, role="read", assigned=True)
                )
        return place

    # -- tables

    def _aliases(self, scope: exp.Expr) -> dict[str, TableName | None]:
        return self.sources.setdefault(id(scope), {})

    def _here(self, scope: exp.Expr) -> list[TableName]:
        return [name for name in self._aliases(scope).values() if name]

    def _table(self, table: exp.Table, place: _Place) -> None:
        """Note a table; table functions, DUAL and common table expressions are sources without being tables."""
        name = None
        if isinstance(table.this, exp.Identifier) and (table.db or table.name.lower() not in {"dual", *place.ctes}):
            name = TableName(table.db or None, table.name)
            self.tables.append((name, place.scope))
        self._aliases(place.scope)[(table.alias or table.name).lower()] = name

    def _access(self, name: TableName, scope: exp.Expr) -> Access:
        return "write" if scope is self.tree and name in self.targets else "read"

    def _targets(self) -> Iterator[TableName]:
        tree = self.tree
        if isinstance(tree, exp.Insert):
            target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
            if isinstance(target, exp.Table):
                yield TableName(target.db or None, target.name)
        elif isinstance(tree, exp.Update):
            yield from self._update_targets(tree)
        elif isinstance(tree, exp.Delete):
            named = tree.args.get("tables") or ([tree.this] if isinstance(tree.this, exp.Table) else [])
            for table in named:
                yield self._by_alias(table.db, table.name)

    def _update_targets(self, update: exp.Update) -> Iterator[TableName]:
        tables = self._here(update)
        for assignment in update.expressions:
            column = assignment.this
            if isinstance(column, exp.Column) and column.table:
                yield self._by_alias(column.db, column.table)
            else:
                yield from tables
                if len(tables) > 1:  # only the schema can tell which of the joined tables owns the column
                    self.analysis.flags.add("ambiguous-target")

    def _by_alias(self, db: str, name: str) -> TableName:
        found = self._aliases(self.tree).get(name.lower())
        return found if found and (not db or found.schema in (None, db)) else TableName(db or None, name)

    # -- columns

    def _column(self, column: exp.Column, place: _Place) -> None:
        owner = self._owner(column, place.scope)
        if owner is None and column.table.upper() in _TRIGGER_ROWS:
            return  # the row of a trigger
        if isinstance(column.this, exp.Star):
            self.analysis.flags.add("star")
            if owner:
                self.analysis.columns.add((owner, "*", "read"))
            return
        if not column.name:
            return
        role = place.role
        if role == "filtered" and self._is_join_condition(column, owner, place.scope):
            role = "joined"
        self.analysis.columns.add((owner, column.name, role))
        if role == "filtered":
            self.analysis.predicates.append(
                Predicate(owner, column.name, "other" if place.negated else _operator(column), place.either)
            )
        if place.assigned and owner in self.targets:
            self.analysis.flags.add("self-reference")

    def _owner(self, column: exp.Column, scope: exp.Expr | None) -> TableName | None:
        if not column.table:
            if isinstance(scope, exp.Insert):
                return next(iter(self.targets), None)
            sources = self._aliases(scope) if scope is not None else {}
            return next(iter(sources.values())) if len(sources) == 1 else None
        alias = column.table.lower()
        while scope is not None:
            sources = self._aliases(scope)
            if alias in sources:
                return sources[alias]
            scope = self.outer.get(id(scope))
        # ON DUPLICATE KEY UPDATE may name the tables of its SELECT.
        return next((sources[alias] for sources in self.sources.values() if alias in sources), None)

    def _is_join_condition(self, column: exp.Column, owner: TableName | None, scope: exp.Expr) -> bool:
        """``a.x = b.y`` in a WHERE, with columns of two tables."""
        condition = column.parent
        if not isinstance(condition, exp.EQ | exp.NullSafeEQ | exp.GT | exp.GTE | exp.LT | exp.LTE):
            return False
        other = condition.expression if column.arg_key == "this" else condition.this
        if not isinstance(other, exp.Column) or not other.table:
            return False
        owner_of_other = self._owner(other, scope)
        return owner_of_other != owner and not (owner_of_other is None and other.table.upper() in _TRIGGER_ROWS)

    def _insert(self) -> None:
        tree = self.tree
        if not isinstance(tree, exp.Insert):
            return
        names = [i.name for i in tree.this.expressions] if isinstance(tree.this, exp.Schema) else []
        self.analysis.columns |= {(target, name, "written") for target in self.targets for name in names or ["*"]}
        if isinstance(tree.expression, exp.Values):
            if len(tree.expression.expressions) > 1:
                self.analysis.flags.add("multi-row")
        elif isinstance(tree.expression, exp.Query):
            self.analysis.flags.add("insert-select")


def _operator(column: exp.Column) -> str:
    """The operator of the condition of which `column` alone is one side; "other" when it is part of an expression."""
    node: exp.Expr = column
    while isinstance(node.parent, exp.Paren | exp.Tuple):
        node = node.parent
    condition = node.parent
    if condition is None or condition.args.get("negate"):  # NOT LIKE
        return "other"
    match condition:
        case exp.EQ() | exp.NullSafeEQ():
            return "="
        case exp.In() if node.arg_key == "this" and not condition.args.get("query"):
            return "in"
        case exp.GT() | exp.GTE() | exp.LT() | exp.LTE() | exp.Between():
            return "range"
        case exp.Like() if node.arg_key == "this":
            pattern = condition.expression
            literal = pattern.name if isinstance(pattern, exp.Literal) else ""
            return "prefix" if literal and not literal.startswith(("%", "_")) else "like"
        case exp.Is():
            return "null"
    return "other"
