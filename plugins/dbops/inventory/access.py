"""How a statement reaches the rows of a table, by three witnesses: its conditions and the indexes, MySQL's plan, and MySQL's counters.

The *pattern* is what another store would have to serve; the *plan* is what MySQL chose with today's rows; the *counters* are what running
it cost. They may differ with good reason (a small table is scanned whatever the conditions are), so every difference gets a name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dbops import mysql
from dbops.inventory import text as sqltext
from dbops.inventory.model import Activity, Catalog, Predicate, Statement, TableName, TableRef
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
    writes = any(use.access == "write" and not use.via for use in uses)
    if all(use.via for use in uses):
        return Pattern(table, "indirect", flags=flags)
    if analysis.kind in ("insert", "replace", "load") and writes:
        return Pattern(table, "insert", flags=flags)
    if analysis.kind == "truncate":
        return Pattern(table, "scan", flags=flags)
    if definition is None or analysis.kind not in ("select", "insert", "replace", "update", "delete"):
        return Pattern(table, "unknown", flags=flags)
    if analysis.method in ("truncated-regex", "unparsed"):
        return Pattern(table, "unknown", flags=flags)
    if "fulltext" in flags | analysis.flags and (index := _fulltext(definition, statement, table)):
        return Pattern(table, "fulltext", index.name, index.columns, flags)
    best = _best(definition, _fixed(statement, table, catalog))
    if best.access_class == "scan":
        best = _either(definition, [p for p in _conditions(statement, table, catalog) if p.either]) or best
    return Pattern(table, best.access_class, best.index, best.key, flags | best.flags)


def _fulltext(definition: mysql.Table, statement: Statement, table: TableRef) -> mysql.Index | None:
    filtered = {
        use.column.lower()
        for use in statement.columns
        if use.table == table and use.role in ("filtered", "read", "sorted")
    }
    return next(
        (i for i in definition.indexes if i.index_type == "FULLTEXT" and {c.lower() for c in i.columns} <= filtered),
        None,
    )


def _conditions(statement: Statement, table: TableRef, catalog: Catalog) -> Iterator[Predicate]:
    """Predicates on columns of this table; one without a table belongs to it where the catalog says so."""
    filtered = {use.column.lower() for use in statement.columns if use.table == table and use.role == "filtered"}
    for predicate in statement.analysis.predicates:
        if predicate.table is None:
            if predicate.column.lower() in filtered:
                yield predicate
        elif names(predicate.table, table, statement.schema):
            yield predicate


def names(name: TableName, table: TableRef, schema: str | None) -> bool:
    """Whether `name`, written in a session with that default schema, means `table`. Compares without case."""
    written = name.schema or schema
    return name.table.lower() == table.table.lower() and (written is None or written.lower() == table.schema.lower())


def _fixed(statement: Statement, table: TableRef, catalog: Catalog) -> dict[str, str]:
    """Column (lower case) -> the operator that must hold: the one that fixes it most."""
    strength = {"=": 4, "null": 3, "in": 2, "range": 1, "prefix": 1}
    found: dict[str, str] = {
        use.column.lower(): "=" for use in statement.columns if use.table == table and use.role == "joined"
    }
    for predicate in _conditions(statement, table, catalog):
        column = predicate.column.lower()
        if not predicate.either and strength.get(predicate.operator, 0) > strength.get(found.get(column, ""), 0):
            found[column] = predicate.operator
    return found


@dataclass(frozen=True)
class _Served:
    access_class: AccessClass
    index: str | None = None
    key: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


def _best(definition: mysql.Table, fixed: Mapping[str, str]) -> _Served:
    served = [_by_index(index, fixed) for index in definition.indexes if index.index_type in ("BTREE", "HASH")]
    return max(served, key=lambda s: (_RANK[s.access_class], len(s.key)), default=_Served("scan"))


def _by_index(index: mysql.Index, fixed: Mapping[str, str]) -> _Served:
    """How far the conditions use the columns of one index."""
    key: list[str] = []
    several = False
    for column in index.columns:
        operator = fixed.get(column.lower(), "")
        if operator in ("range", "prefix"):
            return _Served("range", index.name, (*key, column), frozenset({"multi"} if several else ()))
        if operator not in ("=", "in", "null"):
            break
        several = several or operator == "in"
        key.append(column)
    if not key:
        return _Served("scan")
    flags = frozenset({"multi"} if several else ())
    whole = len(key) == len(index.columns) and index.unique and not index.has_prefix
    if whole and not any(fixed[c.lower()] == "null" for c in key):
        return _Served("multi-point" if several else "point", index.name, tuple(key), flags)
    return _Served("prefix", index.name, tuple(key), flags)


def _either(definition: mysql.Table, predicates: Iterable[Predicate]) -> _Served | None:
    """Conditions under OR: indexes help only if one leads with every column that occurs."""
    by_column: dict[str, set[str]] = {}
    for predicate in predicates:
        by_column.setdefault(predicate.column.lower(), set()).add(predicate.operator)
    served = []
    for column, operators in sorted(by_column.items()):
        worst = "range" if operators & {"range", "prefix"} else "in" if operators <= {"=", "in", "null"} else ""
        served.append(_best(definition, {column: worst}))
    if not served or any(s.access_class == "scan" for s in served):
        return None
    if len(served) == 1:
        return served[0]
    return _Served("range", None, tuple(k for s in served for k in s.key), frozenset({"multi", "index-merge"}))


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


@dataclass(frozen=True)
class Plan:
    """EXPLAIN FORMAT=JSON in short."""

    tables: tuple[PlanTable, ...]
    message: str = ""
    """What MySQL says instead of a table: Impossible WHERE, Select tables optimized away ..."""

    def of(self, table: TableRef) -> PlanTable | None:
        """The entry of a table: by its name, or the only one."""
        named = [t for t in self.tables if t.name.lower() == table.table.lower()]
        chosen = named or list(self.tables)
        return chosen[0] if len(chosen) == 1 else None


# MySQL evaluates constant calls while it makes a plan: these wait, take a lock that outlives the statement, or leave the server.
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
        and not any(t.kind == "mark" or t.text == "..." or t.text.strip("`").lower() in _ACTING for t in tokens)
        and not text.rstrip().endswith("...")
    )


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
    chosen = plan.of(found.table) if plan else None
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


_FEW_ROWS = 1000

_EXPLANATIONS: tuple[tuple[str, Any], ...] = (
    ("the index could serve, but not with this value (another type, character set or collation)",
     lambda p, t: p.access_class == "point" and _scanned(t) and t.rows > _FEW_ROWS),
    ("an index would serve, but reading the table is cheaper with these rows",
     lambda p, t: p.access_class in KEYED and _scanned(t) and (t.possible_keys or "index-merge" in p.flags)),
    ("the index could serve, but not with these values", lambda p, t: p.access_class in KEYED and _scanned(t)),
    ("MySQL prefers another index of the same conditions",
     lambda p, t: p.access_class in KEYED and t.key is not None and p.index is not None and t.key != p.index),
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
    if found.access_class in KEYED and counted == "scan":
        return "no index was used although one would serve (small table, or values of another type)"
    return ""
