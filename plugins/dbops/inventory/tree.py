"""What one tree of sqlglot says: tables by access, columns by role, predicates and flags, with aliases resolved scope by scope.

One pass from the root down, without recursion: a condition of 40,000 ORs is a tree of that depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, cast

from sqlglot import exp

from dbops.inventory.model import Access, Analysis, Occurrence, Predicate, Role, TableName

_LEAVES = (exp.Column, exp.Identifier, exp.Literal, exp.Placeholder)
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


class _Place(NamedTuple):
    """Where a node stands."""

    scope: exp.Expr
    """The SELECT, UPDATE, DELETE or INSERT whose clauses hold it."""
    role: Role = "read"
    ctes: frozenset[str] = frozenset()
    """Common table expressions that are visible here, lower case."""
    assigned: bool = False
    """On the right of an assignment."""
    condition: bool = False
    """The node must be true for a row to count: in WHERE or ON, below nothing but AND and OR."""
    comparison: exp.Expr | None = None
    """The condition of which the node is one side, or an element of a row that is one side."""
    alternation: int | None = None
    """Below this OR (numbered) ..."""
    branch: int | None = None
    """... in this alternative of it."""
    join: exp.Join | None = None
    """In its ON."""


class _Walk:
    def __init__(self, tree: exp.Expr, analysis: Analysis) -> None:
        self.tree = tree
        self.analysis = analysis
        self.sources: dict[int, dict[str, TableName | None]] = {}
        """Scope -> alias (lower case) -> its table, or None for a derived table or common table expression."""
        self.outer: dict[int, exp.Expr] = {}
        self.scopes: dict[int, int] = {id(tree): 0}
        """Scope -> its number."""
        self.places: dict[int, exp.Expr] = {}
        """Column -> its scope."""
        self.joins: list[tuple[exp.Join, exp.Expr]] = []
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
        self.analysis.uses |= {(name, "read") for name in self._read_beside()}
        after = self._outer_joins()
        for key, number in self.scopes.items():
            self.analysis.occurrences += [
                Occurrence(number, alias, table, frozenset(after.get((number, alias), ())))
                for alias, table in self.sources.get(key, {}).items()
            ]
        for column, place in self.columns:
            self._column(column, place)
        for scope in self.stars:
            self.analysis.columns |= {(name, "*", "read") for name in self._here(scope)}
        for identifier, scope in self.joined:
            self.analysis.columns |= {(name, identifier, "joined") for name in self._here(scope)}
        self._insert()
        self._shown()
        if self.targets & {name for name, how in self.analysis.uses if how == "read"}:
            self.analysis.flags.add("self-reference")

    # -- the pass

    def _visit_all(self) -> None:
        pending = [(self.tree, _Place(self.tree))]
        while pending:
            node, place = pending.pop()
            place = self._visit(node, place)
            if not isinstance(node, _LEAVES):
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
                self.scopes.setdefault(id(node), len(self.scopes))
                place = _Place(node, ctes=place.ctes)
            case exp.Table():
                self._table(node, place)
            case exp.Subquery() if node.alias and isinstance(
                node.parent, exp.From | exp.Join | exp.Lateral | exp.Table
            ):
                self._aliases(place.scope)[node.alias.lower()] = None
            case exp.Column():
                self.columns.append((node, place))
                self.places[id(node)] = place.scope
            case exp.Star() if isinstance(node.parent, exp.Select):
                self.analysis.flags.add("star")
                self.stars.append(place.scope)
            case exp.Join():
                self.joins.append((node, place.scope))
                self.joined += [(identifier.name, place.scope) for identifier in node.args.get("using") or ()]
            case exp.Or():
                place = self._or(place)
        return place

    def _or(self, place: _Place) -> _Place:
        if place.role == "filtered":
            self.analysis.flags.add("or-condition")
        if not place.condition or place.alternation is not None:
            return place
        number = len(self.analysis.alternatives)
        self.analysis.alternatives[number] = 0
        return place._replace(alternation=number)

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
                yield cte, place._replace(ctes=visible)
                names += own
            place = place._replace(ctes=place.ctes.union(names))
        for child in node.iter_expressions():
            # A MySQL DELETE of several tables lists aliases before FROM: they name targets and are no tables of their own.
            if isinstance(child, exp.With | exp.Lock) or (child.arg_key == "tables" and isinstance(node, exp.Delete)):
                self.analysis.flags |= _flags_of(cast("Any", type(child)))
                continue
            yield child, self._place(node, child, place)

    def _place(self, node: exp.Expr, child: exp.Expr, place: _Place) -> _Place:
        if place.condition or place.comparison is not None:
            if (inside := self._inside(node, child, place)) is not None:
                return inside
            place = place._replace(condition=False, comparison=None)
        match node:
            case exp.Where():
                return place._replace(role="filtered", condition=True)
            case exp.Having():
                return place._replace(role="filtered")
            case exp.Join() if child.arg_key == "on":
                return place._replace(role="joined", condition=True, join=node)
        return self._outside(node, child, place)

    @staticmethod
    def _outside(node: exp.Expr, child: exp.Expr, place: _Place) -> _Place:
        match node:
            case exp.Order() | exp.Group():
                return place._replace(role="sorted")
            case exp.EQ() if isinstance(node.parent, exp.Update | exp.OnConflict) and node.arg_key == "expressions":
                return (
                    place._replace(role="written")
                    if child.arg_key == "this"
                    else place._replace(role="read", assigned=True)
                )
        return place

    def _inside(self, node: exp.Expr, child: exp.Expr, place: _Place) -> _Place | None:
        """The place of a child that is a condition still, or a side of one; None where it is part of an expression."""
        match node:
            case exp.And() | exp.Paren() if place.condition:
                return place
            case exp.Or() if place.condition and place.branch is None:
                return self._alternative(child, place)
            case _ if place.condition and isinstance(node, _COMPARISONS):
                return place._replace(condition=False, comparison=node)
            case exp.Tuple() | exp.Paren() if place.comparison is not None:
                return place
            case exp.MatchAgainst() if isinstance(place.comparison, exp.GT | exp.GTE):
                return place._replace(comparison=node)
        return None

    def _alternative(self, child: exp.Expr, place: _Place) -> _Place:
        """The place of one side of an OR: a OR b OR c are three alternatives of one."""
        inner = child
        while isinstance(inner, exp.Paren):
            inner = inner.this
        if isinstance(inner, exp.Or) or place.alternation is None:
            return place
        number = self.analysis.alternatives[place.alternation]
        self.analysis.alternatives[place.alternation] = number + 1
        return place._replace(branch=number)

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
        aliases = self._aliases(place.scope)
        alias = (table.alias or table.name).lower()
        if not table.alias and table.db and aliases.get(alias, name) != name:  # old.t JOIN new.t
            alias = f"{table.db.lower()}.{alias}"
        aliases[alias] = name

    def _access(self, name: TableName, scope: exp.Expr) -> Access:
        return "write" if scope is self.tree and name in self.targets else "read"

    def _read_beside(self) -> Iterator[TableName]:
        """Targets of a multi-table statement that it joins with themselves."""
        tree = self.tree
        if isinstance(tree, exp.Delete):
            written = {t.name.lower() for t in tree.args.get("tables") or ()}
        elif isinstance(tree, exp.Update):
            columns = [assignment.this for assignment in tree.expressions]
            written = {c.table.lower() for c in columns if isinstance(c, exp.Column)}
        else:
            return
        if not written or "" in written:
            return  # of a single table, or only the schema can tell
        for alias, name in self._aliases(tree).items():
            if name in self.targets and alias.rpartition(".")[2] not in written:
                yield name

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
        if role == "written" and isinstance(place.scope, exp.Insert):
            self.analysis.reassigned.add(column.name.lower())
        if role in ("filtered", "joined"):
            self.analysis.predicates.append(self._predicate(column, owner, place))
        if place.assigned and owner in self.targets:
            self.analysis.flags.add("self-reference")

    def _predicate(self, column: exp.Column, owner: TableName | None, place: _Place) -> Predicate:
        operator = _operator(column, place.comparison) if place.comparison is not None else "other"
        others: tuple[tuple[str, str], ...] = ()
        if operator != "other":
            others = tuple(self._others(_other_sides(column, cast("exp.Expr", place.comparison)), place.scope))
        scope, alias = self._source(column, place.scope)
        branch = None if place.alternation is None or place.branch is None else (place.alternation, place.branch)
        return Predicate(
            owner,
            column.name,
            # The rows of an outer statement are there already: a condition on them bounds nothing here.
            operator if scope is place.scope or not column.table else "other",
            place.alternation is not None,
            self.scopes[id(place.scope)],
            alias,
            others,
            branch,
            self._served_by(place.join),
            place.join is not None,
        )

    def _others(self, sides: Iterable[exp.Expr], scope: exp.Expr) -> Iterator[tuple[str, str]]:
        """Columns of `scope` in these expressions."""
        for side in sides:
            for column in side.find_all(exp.Column):
                where = self.places.get(id(column))
                if where is None or (where is not scope and not column.table):
                    continue
                found, alias = self._source(column, where)
                if found is scope:
                    yield alias, column.name

    def _source(self, column: exp.Column, scope: exp.Expr | None) -> tuple[exp.Expr | None, str]:
        """The scope and the alias that a column belongs to; '' for one without a qualifier where there are several."""
        if not column.table:
            aliases = self._aliases(scope) if scope is not None else {}
            return scope, next(iter(aliases)) if len(aliases) == 1 else ""
        while scope is not None and (found := _called(column, self._aliases(scope))) is None:
            scope = self.outer.get(id(scope))
        return scope, found if scope is not None and found is not None else column.table.lower()

    # -- joins

    def _outer_joins(self) -> dict[tuple[int, str], set[str]]:
        """(scope, alias) -> aliases that an outer join makes MySQL read first; notes the conditions of USING."""
        after: dict[tuple[int, str], set[str]] = {}
        for join, scope in self.joins:
            left, right = _left_of(join), _aliases_in(join.this)
            side = (join.side or "").upper()
            later, earlier = (right, left) if side == "LEFT" else (left, right) if side == "RIGHT" else ([], [])
            number = self.scopes[id(scope)]
            for alias in later:
                after.setdefault((number, alias), set()).update(earlier)
            aliases = self._aliases(scope)
            pairs = [(one, other) for one in right for other in left] + [
                (one, other) for one in left for other in right
            ]
            self.analysis.predicates += [
                Predicate(aliases.get(one), i.name, "=", scope=number, alias=one, others=((other, i.name),), joins=True)
                for i in join.args.get("using") or ()
                for one, other in pairs
                if not side or one in later
            ]
        return after

    def _served_by(self, join: exp.Join | None) -> frozenset[str] | None:
        side = (join.side or "").upper() if join is not None else ""
        if join is None or side not in ("LEFT", "RIGHT"):
            return None
        return frozenset(_aliases_in(join.this) if side == "LEFT" else _left_of(join))

    def _owner(self, column: exp.Column, scope: exp.Expr | None) -> TableName | None:
        if not column.table:
            if isinstance(scope, exp.Insert):
                return next(iter(self.targets), None)
            sources = self._aliases(scope) if scope is not None else {}
            return next(iter(sources.values())) if len(sources) == 1 else None
        alias = column.table.lower()
        while scope is not None:
            sources = self._aliases(scope)
            if (found := _called(column, sources)) is not None:
                return sources[found]
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

    def _shown(self) -> None:
        if not isinstance(self.tree, exp.Select):
            return
        for projection in self.tree.expressions:
            column = projection.unalias()
            owner = self._owner(column, self.tree) if isinstance(column, exp.Column) else None
            if owner and projection.alias_or_name and not isinstance(column.this, exp.Star):
                self.analysis.shown[projection.alias_or_name.lower()] = (owner, column.name)

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


def _called(column: exp.Column, sources: Mapping[str, TableName | None]) -> str | None:
    """The alias among `sources` that stands before a column, which may have a schema before it."""
    alias, schema = column.table.lower(), column.db.lower()
    if schema and f"{schema}.{alias}" in sources:
        return f"{schema}.{alias}"
    table = sources.get(alias)
    if alias not in sources or (schema and table is not None and table.schema and table.schema.lower() != schema):
        return None
    return alias


_COMPARISONS = (
    exp.EQ,
    exp.NullSafeEQ,
    exp.In,
    exp.GT,
    exp.GTE,
    exp.LT,
    exp.LTE,
    exp.Between,
    exp.Like,
    exp.Is,
    exp.MatchAgainst,
)


def _side_of(column: exp.Expr, comparison: exp.Expr) -> exp.Expr:
    """The side of the comparison that holds the column."""
    node = column
    while node.parent is not comparison and node.parent is not None:
        node = node.parent
    return node


def _other_sides(column: exp.Expr, comparison: exp.Expr) -> list[exp.Expr]:
    side = _side_of(column, comparison)
    return [child for child in comparison.iter_expressions() if child is not side]


def _operator(column: exp.Column, comparison: exp.Expr) -> str:
    """The operator of the comparison of which `column` (or a row that has it) is one side; "other" for what no index can serve."""
    node = _side_of(column, comparison)
    if comparison.args.get("negate"):  # NOT LIKE
        return "other"
    match comparison:
        case exp.EQ() | exp.NullSafeEQ():
            other = comparison.expression if node.arg_key == "this" else comparison.this
            if recast := _recast(other):
                return recast
            return "=" if isinstance(comparison, exp.EQ) else "<=>"
        case exp.In() if node.arg_key == "this" and not comparison.args.get("query"):
            return "in"
        case exp.GT() | exp.GTE() | exp.LT() | exp.LTE() | exp.Between():
            # MySQL reads (a, b) > (1, 2) row by row.
            return "other" if any(isinstance(n, exp.Tuple) for n in comparison.iter_expressions()) else "range"
        case exp.Like() if node.arg_key == "this":
            pattern = comparison.expression
            literal = pattern.name if isinstance(pattern, exp.Literal) else ""
            return "prefix" if literal and not literal.startswith(("%", "_")) else "like"
        case exp.Is() if isinstance(comparison.expression, exp.Null):
            return "null"
        case exp.MatchAgainst() if node.arg_key == "expressions":
            return "match"
    return "other"


def _recast(value: exp.Expr) -> str:
    """The operator of an = by another collation than the index has: equal bytes lie within its equal letters, others do not."""
    while isinstance(value, exp.Paren):
        value = value.this
    if isinstance(value, exp.Cast) and value.is_type(exp.DataType.Type.BINARY):
        return "range"
    if isinstance(value, exp.Collate):
        return "range" if value.expression.name.lower().endswith(("_bin", "binary")) else "other"
    return ""


def _aliases_in(source: exp.Expr | None) -> list[str]:
    """Aliases of a table, a derived table, or tables in parentheses with what is joined to them."""
    found: list[str] = []
    pending = [source]
    while pending:
        node = pending.pop()
        if (
            isinstance(node, exp.From | exp.Subquery | exp.Paren)
            and not node.alias
            and not isinstance(node.this, exp.Query)
        ):
            pending.append(node.this)
        elif node is not None and node.alias_or_name:
            found.append(node.alias_or_name.lower())
        if node is not None:
            pending += [join.this for join in node.args.get("joins") or ()]
    return found


def _left_of(join: exp.Join) -> list[str]:
    """Aliases of everything that stands before a join in its clause."""
    parent = join.parent
    if parent is None:
        return []
    joins = parent.args.get("joins") or []
    before = next((at for at, other in enumerate(joins) if other is join), 0)
    first = parent.args.get("from_") or parent.args.get("from")
    if first is not None:
        found = _aliases_in(first)
    elif isinstance(parent, exp.Table):
        found = [parent.alias_or_name.lower()]
    else:
        found = _aliases_in(parent.this)
    return found + [alias for other in joins[:before] for alias in _aliases_in(other.this)]
