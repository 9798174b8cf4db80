"""How a statement reaches the rows of a table, by three witnesses: its conditions and the indexes, MySQL's plan, and MySQL's counters.

The *pattern* is what another store would have to serve; the *plan* is what MySQL chose with today's rows; the *counters* are what running
it cost. They may differ with good reason (a small table is scanned whatever the conditions are), so every difference gets a name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dbops import mysql
from dbops.inventory import text as sqltext
from dbops.inventory.model import Activity, Catalog, Occurrence, Predicate, Statement, TableName, TableRef
from dbops.sql import ident

AccessClass = Literal["point", "multi-point", "prefix", "range", "fulltext", "scan", "insert", "indirect", "unknown"]
"""point: every column of a unique index by =. multi-point: the same with IN. prefix: leading columns of an index by = (or IN: flag multi).
range: a range on a column of an index, after = on those before it. scan: no index helps. insert: rows by value. indirect: reached through a
view, program or foreign key, whose own statement has the pattern. unknown: the text was cut or could not be parsed."""
KEYED: frozenset[AccessClass] = frozenset({"point", "multi-point", "prefix", "range"})

_RANK: dict[AccessClass, int] = {"point": 4, "multi-point": 3, "prefix": 2, "range": 1, "scan": 0}
_SHOWN_FLAGS = frozenset(
    {
        "join",
        "aggregate",
        "sort",
        "limit",
        "distinct",
        "subquery",
        "union",
        "cte",
        "recursive",
        "window",
        "lock",
        "or-condition",
    }
)


@dataclass(frozen=True)
class Pattern:
    """What a statement asks of one table."""

    table: TableRef
    access_class: AccessClass
    index: str | None = None
    """The index that serves it best."""
    key: tuple[str, ...] = ()
    """Columns of that index which the conditions fix or bound, in index order."""
    flags: frozenset[str] = frozenset()
    """join, aggregate, sort, limit ... of the statement; multi: several key values; index-merge: an OR over several indexes."""
    aliases: frozenset[str] = frozenset()
    """How the statement calls the table, and no other."""


def pattern(statement: Statement, table: TableRef, catalog: Catalog) -> Pattern:
    """The pattern of one statement on one of its tables.

    Raises ValueError for a table that the statement does not touch.
    """
    uses = [use for use in statement.uses if use.table == table]
    if not uses:
        raise ValueError(
            f"table {table}: statement {statement.id} does not touch it; give one of {sorted(map(str, statement.tables()))}"
        )
    analysis = statement.analysis
    flags = frozenset(analysis.flags & _SHOWN_FLAGS)
    definition = catalog.tables.get(table)
    direct = {use.access for use in uses if not use.via}
    if not direct:
        return Pattern(table, "indirect", flags=flags)
    if analysis.kind in ("insert", "replace", "load") and direct == {"write"}:
        return Pattern(table, "insert", flags=flags)
    if analysis.kind == "truncate":
        return Pattern(table, "scan", flags=flags)
    if definition is None or analysis.kind not in ("select", "insert", "replace", "update", "delete"):
        return Pattern(table, "unknown", flags=flags)
    if analysis.method in ("truncated-regex", "unparsed"):
        return Pattern(table, "unknown", flags=flags)
    aliases = _aliases(statement, table)
    served = [found for scope in _scopes(statement, catalog) for found in scope.served(table)]
    # A table that is named twice costs what its worse place costs.
    worst = min(served, key=lambda s: (_RANK[s.access_class], len(s.key)), default=_Served("scan"))
    if worst.access_class != "point" and (index := _fulltext(definition, statement, table)):
        return Pattern(table, "fulltext", index.name, index.columns, flags, aliases)
    return Pattern(table, worst.access_class, worst.index, worst.key, flags | worst.flags, aliases)


def _aliases(statement: Statement, table: TableRef) -> frozenset[str]:
    places: dict[str, set[bool]] = {}
    for place in statement.analysis.occurrences:
        its = place.table is not None and names(place.table, table, statement.schema)
        places.setdefault(place.alias, set()).add(its)
    return frozenset(alias for alias, its in places.items() if its == {True})


def _fulltext(definition: mysql.Table, statement: Statement, table: TableRef) -> mysql.Index | None:
    """The index of a MATCH that must hold for every row."""
    matched = {
        p.column.lower()
        for p in statement.analysis.predicates
        if p.operator == "match" and not p.either and (p.table is None or names(p.table, table, statement.schema))
    }
    return next(
        (i for i in definition.indexes if i.index_type == "FULLTEXT" and {c.lower() for c in i.columns} == matched),
        None,
    )


def names(name: TableName, table: TableRef, schema: str | None) -> bool:
    """Whether `name`, written in a session with that default schema, means `table`. Compares without case."""
    written = name.schema or schema
    return name.table.lower() == table.table.lower() and (written is None or written.lower() == table.schema.lower())


@dataclass(frozen=True)
class _Served:
    access_class: AccessClass
    index: str | None = None
    key: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


_STRENGTH = {"=": 4, "<=>": 4, "null": 3, "in": 2, "range": 1, "prefix": 1}
_TEXT_TYPES = frozenset(
    {
        "char",
        "varchar",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "binary",
        "varbinary",
        "tinyblob",
        "blob",
        "mediumblob",
        "longblob",
    }
)
_MANY_JOINED = 8


@dataclass(frozen=True)
class _Condition:
    """A predicate that may bound an index of one place, once the rows of the places in `needs` are there."""

    column: str
    operator: str
    needs: frozenset[int]
    branch: tuple[int, int] | None


def _scopes(statement: Statement, catalog: Catalog) -> Iterator[_Scope]:
    analysis = statement.analysis
    touched = {use.table for use in statement.uses if not use.via}
    places: dict[int, list[tuple[Occurrence, TableRef | None]]] = {}
    for place in analysis.occurrences:
        found = [t for t in touched if place.table is not None and names(place.table, t, statement.schema)]
        exact = [t for t in found if place.table is not None and t.table == place.table.table] or found
        places.setdefault(place.scope, []).append((place, exact[0] if exact else None))
    predicates: dict[int, list[Predicate]] = {}
    for predicate in analysis.predicates:
        predicates.setdefault(predicate.scope, []).append(predicate)
    for scope, members in places.items():
        yield _Scope(members, predicates.get(scope, ()), analysis.alternatives, catalog)


class _Scope:
    """The tables of one SELECT, UPDATE or DELETE: one is read first, by constants; the others may be looked up by its rows."""

    def __init__(
        self,
        places: Sequence[tuple[Occurrence, TableRef | None]],
        predicates: Iterable[Predicate],
        alternatives: Mapping[int, int],
        catalog: Catalog,
    ) -> None:
        self.refs = [ref for _, ref in places]
        self.definitions = [catalog.tables.get(ref) if ref else None for ref in self.refs]
        self.by_alias = {place.alias: at for at, (place, _) in enumerate(places)}
        self.alternatives = alternatives
        self.filtered: set[int] = set()
        """Places with a condition of their own, whether an index serves it or not."""
        self.conditions: dict[int, list[_Condition]] = {}
        nullable = {self.by_alias[place.alias] for place, _ in places if place.after}
        self.inner: set[int] = set()
        """Places that an outer join adds, and whose added rows a condition takes away again: then it is an inner join."""
        placed = [(at, p) for p in predicates if (at := self._place_of(p.alias, p.column)) is not None]
        for at, predicate in placed:
            if not predicate.joins and not predicate.others:
                self.filtered.add(at)
                if predicate.operator not in ("null", "<=>", "other") and not predicate.either:
                    self.inner.add(at)
        for at, predicate in placed:
            if at in nullable and predicate.operator in ("null", "<=>") and not predicate.joins:
                continue
            if (condition := self._condition(at, predicate)) is not None:
                self.conditions.setdefault(at, []).append(condition)
        self.after = [
            frozenset() if at in self.inner else frozenset(self.by_alias[a] for a in place.after if a in self.by_alias)
            for at, (place, _) in enumerate(places)
        ]
        self.known: dict[tuple[int, frozenset[int]], _Served | None] = {}

    def served(self, table: TableRef) -> list[_Served]:
        """For each place of the table: how its rows are found."""
        wanted = [at for at, ref in enumerate(self.refs) if ref == table]
        if not wanted:
            return []
        firsts = [at for at, after in enumerate(self.after) if not after] or list(range(len(self.refs)))
        if len(firsts) > _MANY_JOINED:
            firsts = [max(firsts, key=lambda at: (self._rank(self._find(at, frozenset())), at in self.filtered, -at))]
        orders = [self._joined(first) for first in firsts]
        _, found = max(orders, key=lambda order: order[0])
        return [served for at in wanted if (served := found[at]) is not None]

    def _joined(self, first: int) -> tuple[tuple[int, bool, int], dict[int, _Served | None]]:
        """(how good it is, what serves each place) when `first` is read first, and always what is best served next."""
        found = {first: self._find(first, frozenset())}
        while left := [at for at in range(len(self.refs)) if at not in found]:
            bound = frozenset(found)
            ready = [at for at in left if self.after[at] <= bound] or left
            following = max(ready, key=lambda at: (self._rank(self._find(at, bound)), -at))
            found[following] = self._find(following, bound)
        ranks = [self._rank(served) for served in found.values()]
        return (-ranks.count(0), first in self.filtered, sum(ranks)), found

    @staticmethod
    def _rank(served: _Served | None) -> int:
        return _RANK["point"] if served is None else _RANK[served.access_class]

    def _find(self, at: int, bound: frozenset[int]) -> _Served | None:
        """What serves a place when the rows of `bound` are there; None for a place without indexes (a derived table, a view)."""
        definition = self.definitions[at]
        if definition is None:
            return None
        if (at, bound) not in self.known:
            usable = [c for c in self.conditions.get(at, ()) if c.needs <= bound]
            best = _best(definition, _strongest(c for c in usable if c.branch is None))
            if best.access_class == "scan":
                best = self._either(definition, usable) or best
            self.known[at, bound] = best
        return self.known[at, bound]

    def _either(self, definition: mysql.Table, usable: Iterable[_Condition]) -> _Served | None:
        """Conditions under OR: indexes help only if every alternative has one."""
        found: dict[int, dict[int, list[_Condition]]] = {}
        for condition in usable:
            if condition.branch is not None:
                found.setdefault(condition.branch[0], {}).setdefault(condition.branch[1], []).append(condition)
        best: list[_Served] = []
        for number, branches in found.items():
            if len(branches) < self.alternatives[number]:
                continue
            ways = {tuple(sorted(_strongest(branch).items())) for branch in branches.values()}
            served = {_best(definition, dict(way)) for way in ways}
            if not any(s.access_class == "scan" for s in served):
                best.append(_merged(served))
        return max(best, key=lambda s: _RANK[s.access_class], default=None)

    # -- conditions

    def _place_of(self, alias: str, column: str) -> int | None:
        if alias:
            at = self.by_alias.get(alias)
            definition = self.definitions[at] if at is not None else None
            return at if definition is None or definition.column(column) else None
        return next((at for at, d in enumerate(self.definitions) if d is not None and d.column(column)), None)

    def _condition(self, at: int, predicate: Predicate) -> _Condition | None:
        definition = self.definitions[at]
        column = definition.column(predicate.column) if definition is not None else None
        if column is None or predicate.operator not in _STRENGTH:
            return None
        if predicate.serves is not None:
            added = {self.by_alias[alias] for alias in predicate.serves if alias in self.by_alias}
            if at not in added and not added & self.inner:
                return None  # an outer join keeps these rows, whatever its condition says
        if predicate.operator == "prefix" and column.data_type not in _TEXT_TYPES:
            return None  # numbers and times are not indexed as text
        others = [(self._place_of(*other), other[1]) for other in predicate.others]
        needs = frozenset(place for place, _ in others if place is not None)
        if at in needs or not all(self._comparable(column, *other) for other in others):
            return None  # t.a = t.b is a question to each row
        return _Condition(column.name.lower(), predicate.operator, needs, predicate.branch)

    def _comparable(self, column: mysql.Column, place: int | None, name: str) -> bool:
        """Whether an index of `column` can be asked for values of the other one."""
        definition = self.definitions[place] if place is not None else None
        other = definition.column(name) if definition is not None else None
        if other is None or not column.collation:
            return True
        if other.collation is None:
            return other.data_type in _TEXT_TYPES  # an index on text cannot be asked for a number or a time
        if column.charset != other.charset:
            return (column.charset or "").startswith(("utf8mb4", "ucs2", "utf16", "utf32")) or (
                (column.charset or "").startswith("utf8") and other.charset in ("latin1", "ascii")
            )
        return column.collation == other.collation or column.collation.endswith("_bin")


def _strongest(conditions: Iterable[_Condition]) -> dict[str, str]:
    """Column (lower case) -> the operator that fixes it most."""
    found: dict[str, str] = {}
    for condition in conditions:
        if _STRENGTH[condition.operator] > _STRENGTH.get(found.get(condition.column, ""), 0):
            found[condition.column] = condition.operator
    return found


def _best(definition: mysql.Table, fixed: Mapping[str, str]) -> _Served:
    served = [_by_index(index, fixed) for index in definition.indexes if index.index_type in ("BTREE", "HASH")]
    return max(served, key=lambda s: (_RANK[s.access_class], len(s.key)), default=_Served("scan"))


def _by_index(index: mysql.Index, fixed: Mapping[str, str]) -> _Served:
    """How far the conditions use the columns of one index."""
    key: list[str] = []
    several = False
    for column in index.columns:
        operator = fixed.get(column.lower(), "")
        if operator in ("range", "prefix") and index.index_type != "HASH":
            return _Served("range", index.name, (*key, column), frozenset({"multi"} if several else ()))
        if operator not in ("=", "<=>", "in", "null"):
            break
        several = several or operator == "in"
        key.append(column)
    if not key or (index.index_type == "HASH" and len(key) < len(index.columns)):
        return _Served("scan")
    flags = frozenset({"multi"} if several else ())
    whole = len(key) == len(index.columns) and index.unique and not index.has_prefix
    # NULL may be there any number of times.
    if whole and not (index.nullable and any(fixed[c.lower()] in ("null", "<=>") for c in key)):
        return _Served("multi-point" if several else "point", index.name, tuple(key), flags)
    return _Served("prefix", index.name, tuple(key), flags)


def _merged(served: Iterable[_Served]) -> _Served:
    """What serves all alternatives of an OR."""
    listed = sorted(served, key=lambda s: (_RANK[s.access_class], s.key))
    worst = listed[0]
    if len({(s.index, s.key) for s in listed}) == 1:
        access_class: AccessClass = "multi-point" if worst.access_class == "point" else worst.access_class
        multi = frozenset({"multi"}) if access_class != "range" else worst.flags
        return _Served(access_class, worst.index, worst.key, worst.flags | multi)
    key = tuple(dict.fromkeys(k for s in sorted(listed, key=lambda s: s.key) for k in s.key))
    if len({s.index for s in listed}) == 1:
        return _Served(
            "range" if worst.access_class == "range" else "prefix", worst.index, worst.key, frozenset({"multi"})
        )
    return _Served("range", None, key, frozenset({"multi", "index-merge"}))


# -- the plan ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlanTable:
    """One table of a plan; `name` is its alias, `access_type` MySQL's word (const, ref, range, index, ALL ...)."""

    name: str
    access_type: str
    key: str | None
    used_columns: tuple[str, ...]
    possible_keys: tuple[str, ...]
    rows: int
    covering: bool
    """The index alone gives all columns."""
    loose: bool
    """Groups are skipped through (using_index_for_group_by)."""


_COST = {"ALL": 4, "index": 3, "eq_ref": 1, "const": 0, "system": 0}


@dataclass(frozen=True)
class Plan:
    """EXPLAIN FORMAT=JSON in short."""

    tables: tuple[PlanTable, ...]
    message: str = ""
    """What MySQL says instead of a table: Impossible WHERE, Select tables optimized away ..."""

    def of(self, table: TableRef, aliases: Collection[str] = ()) -> PlanTable | None:
        """The entry of a table: by its aliases (the most costly of several), else by its name, or the only one."""
        named = [t for t in self.tables if t.name.lower() in (aliases or (table.table.lower(),))]
        if aliases and named:
            return max(named, key=lambda t: _COST.get(t.access_type, 2))
        chosen = named or list(self.tables)
        return chosen[0] if len(chosen) == 1 else None


# MySQL evaluates constant calls while it makes a plan: these wait, take a lock that outlives the statement, or leave the server.
_ACTING_FAMILIES = (
    "asynchronous_connection_failover_", "audit_log_", "aws_", "group_replication_", "keyring_", "lambda_", "service_get_",
    "service_release_", "version_tokens_",
)  # fmt: skip
"""Beginnings of the names of functions that change the server, or call out of it (Aurora)."""
_ACTING = frozenset({
    "benchmark", "get_lock", "is_free_lock", "is_used_lock", "load_file", "master_pos_wait", "release_all_locks", "release_lock", "sleep",
    "source_pos_wait", "wait_for_executed_gtid_set", "wait_until_sql_thread_after_gtids",
})  # fmt: skip


def explainable(text: str) -> bool:
    """Whether EXPLAIN can take the text and does nothing: a SELECT, no placeholder (so no digest), not cut, no call that acts.

    EXPLAIN of DML may run stored functions that write, and a read-only transaction does not take it, so it is never sent.
    """
    tokens = sqltext.code_tokens(text)
    return (
        sqltext.kind_of(text) == "select"
        and not any(t.kind == "mark" or t.text == "..." or _acts(t.text.strip("`").lower()) for t in tokens)
        and not text.rstrip().endswith("...")
    )


def _acts(word: str) -> bool:
    return word in _ACTING or word.startswith(_ACTING_FAMILIES)


def explain_json(conn: Any, text: str, schema: str | None = None, *, timeout_ms: int = 5000) -> dict[str, Any]:
    """EXPLAIN FORMAT=JSON of one SELECT; nothing is written.

    MySQL may evaluate stored functions and subqueries to make its plan: hence the READ ONLY transaction and the time limit.

    Args:
        conn: a connection that nobody else uses, in autocommit
        text: as raw as it was sent; see :func:`explainable`
        schema: default schema of the session that sent it
        timeout_ms: limit of the statement

    Raises MySQLdb.Error as the server does.
    """
    comment = sqltext.own_comment()
    with conn.cursor() as cursor:
        if schema:
            cursor.execute(f"{comment} USE {ident(schema)}")
        cursor.execute(f"{comment} SET SESSION max_execution_time = %s", (timeout_ms,))
        cursor.execute(f"{comment} START TRANSACTION READ ONLY")
        try:
            cursor.execute(f"{comment} EXPLAIN FORMAT=JSON {text}")
            found = cursor.fetchone()
        finally:
            cursor.execute(f"{comment} ROLLBACK")
    plan: dict[str, Any] = json.loads(found[0])
    return plan


CONNECTION_LOST = (2006, 2013, 2055)


def read_plan(plan: Mapping[str, Any]) -> Plan:
    """The tables of a JSON plan, in the order in which MySQL reads them."""
    messages: list[str] = []
    tables: list[PlanTable] = []
    for node in _nodes(plan):
        if isinstance(message := node.get("message"), str):
            messages.append(message)
        table = node.get("table")
        if isinstance(table, dict) and "access_type" in table:
            tables.append(_plan_table(table))
    return Plan(tuple(tables), "; ".join(messages))


def _plan_table(table: Mapping[str, Any]) -> PlanTable:
    return PlanTable(
        name=str(table.get("table_name", "")),
        access_type=str(table["access_type"]),
        key=table.get("key"),
        used_columns=tuple(table.get("used_key_parts") or ()),
        possible_keys=tuple(table.get("possible_keys") or ()),
        rows=int(table.get("rows_examined_per_scan") or 0),
        covering=bool(table.get("using_index")),
        loose=bool(table.get("using_index_for_group_by")),
    )


def _nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


# -- the counters ------------------------------------------------------------------------------------------------------------

Observed = Literal["scan", "index", "unclear"]
_SEVERAL_TABLES = frozenset({"join", "subquery", "union", "cte"})
"""The server counts a statement as one without an index when any of its tables is read without one."""


def observed(activity: Activity) -> Observed | None:
    """What the counters say: most executions used no index, or hardly any did not. None where no source counts."""
    if not activity.executions or "no_index_used" not in activity.counters:
        return None
    share = activity.counters["no_index_used"] / activity.executions
    return "scan" if share >= 0.9 else "index" if share <= 0.1 else "unclear"


# -- agreement ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Witnesses:
    """The three answers for one statement and table, and why they differ where they do."""

    pattern: Pattern
    plan: PlanTable | None
    counters: Observed | None
    differences: tuple[str, ...] = field(default=())

    @property
    def agree(self) -> bool:
        """No witness contradicts another."""
        return not self.differences


_SAME: dict[AccessClass, frozenset[str]] = {
    "point": frozenset({"const", "eq_ref", "system"}),
    "multi-point": frozenset({"range"}),
    "prefix": frozenset({"ref", "ref_or_null", "eq_ref"}),
    "range": frozenset({"range"}),
    "fulltext": frozenset({"fulltext"}),
    "scan": frozenset({"ALL", "index"}),
}


def witnesses(found: Pattern, plan: Plan | None, activity: Activity) -> Witnesses:
    """Put the three side by side; every difference is named, one that no rule knows as ``unexplained``."""
    chosen = plan.of(found.table, found.aliases) if plan else None
    counted = observed(activity)
    differences = []
    if plan is not None and found.access_class in _SAME and (why := _differs(found, plan, chosen)):
        differences.append(f"plan: {why}")
    if counted in ("scan", "index") and found.access_class in _SAME and (why := _costs_otherwise(found, counted)):
        differences.append(f"counters: {why}")
    return Witnesses(found, chosen, counted, tuple(differences))


def _differs(found: Pattern, plan: Plan, chosen: PlanTable | None) -> str:
    """Why MySQL's plan is not what the conditions suggest; '' when it is."""
    if chosen is None:
        return f"MySQL needs no table: {plan.message}" if plan.message else "the plan names the table otherwise"
    same = _SAME[found.access_class]
    if found.access_class == "prefix" and "multi" in found.flags:
        same = frozenset({"range"})
    if "index-merge" in found.flags:
        same = frozenset({"index_merge"})
    if chosen.access_type in same:
        return ""
    for explanation, holds in _EXPLANATIONS:
        if holds(found, chosen):
            return f"{chosen.access_type} for {found.access_class}: {explanation}"
    return f"{chosen.access_type} for {found.access_class}: unexplained"


def _scanned(chosen: PlanTable) -> bool:
    return chosen.access_type in ("ALL", "index")


def _joined_otherwise(found: Pattern, chosen: PlanTable) -> bool:
    looked_up = chosen.access_type in ("ref", "eq_ref") and chosen.name.lower() in found.aliases
    return "join" in found.flags and (
        _scanned(chosen) if found.access_class in KEYED else found.access_class == "scan" and looked_up
    )


_FEW_ROWS = 1000

_EXPLANATIONS: tuple[tuple[str, Any], ...] = (
    ("the index could serve, but not with this value (another type, character set or collation)",
     lambda p, t: p.access_class == "point" and _scanned(t) and t.rows > _FEW_ROWS),
    ("an index would serve, but reading the table is cheaper with these rows",
     lambda p, t: p.access_class in KEYED and _scanned(t) and (t.possible_keys or "index-merge" in p.flags)),
    ("the index could serve, but not with these values", lambda p, t: p.access_class in KEYED and _scanned(t)),
    ("MySQL prefers another index of the same conditions",
     lambda p, t: p.access_class in KEYED and t.key is not None and p.index is not None and t.key != p.index),
    ("MySQL begins the join with another table", lambda p, t: _joined_otherwise(p, t)),
    ("groups are skipped through in index order", lambda p, t: p.access_class == "scan" and t.loose),
    ("joined by columns that no condition names (NATURAL JOIN, an IN subquery that MySQL makes a join)",
     lambda p, t: t.access_type in ("eq_ref", "ref") and bool(p.flags & {"join", "subquery"})),
    ("MySQL turns the IN subquery into a lookup for each row", lambda p, t: t.access_type in ("unique_subquery", "index_subquery")),
    ("two indexes are merged", lambda p, t: t.access_type == "index_merge"),
    ("one value in the list, so it is a single lookup", lambda p, t: "multi" in p.flags or p.access_class == "multi-point"),
    ("conditions that bound an index in another way (OR of conjunctions, <>, IS NOT NULL)",
     lambda p, t: p.access_class == "scan" and t.access_type in ("range", "ref", "const")),
    ("the bound covers a single value or the rest is filtered", lambda p, t: p.access_class in ("range", "prefix") and t.key == p.index),
)  # fmt: skip


def _costs_otherwise(found: Pattern, counted: Observed) -> str:
    if found.access_class == "scan" and counted == "index":
        return "an index was used although no condition asks for one (covering index, order or grouping by index)"
    if found.access_class in KEYED and counted == "scan" and not found.flags & _SEVERAL_TABLES:
        return "no index was used although one would serve (small table, or values of another type)"
    return ""
