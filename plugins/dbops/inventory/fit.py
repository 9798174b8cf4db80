"""Which store would serve a table: rules as data, each with its measured evidence and the best argument against it.

A rule is a list of requirements with published limits; the first rule whose requirements are all met is the advice, `relational` is what
remains. Below the coverage limit, or with statements that could not be read, or with no evidence at all, the answer is ``not decidable``:
a store chosen by half of the workload is chosen wrongly. :func:`edges` and :func:`groups` say which tables cannot be moved alone.

Limits: DynamoDB items of 400 KB (AWS, "Quotas in Amazon DynamoDB"); the shares are this project's and stand in RULES, one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from dbops import mysql
from dbops.inventory import access
from dbops.inventory.model import Catalog, Statement, TableRef
from dbops.inventory.tables import TableHeat, Verdict, by_table

Store = Literal["relational", "dynamodb", "redis", "memcached", "timeseries", "graph", "s3_archive", "not decidable"]

_TIME_TYPES = frozenset({"datetime", "timestamp", "date"})
_EXPIRY = ("expire", "expiry", "valid_until", "ttl")


@dataclass(frozen=True)
class Features:
    """What was measured of one table. Shares are of executions, in percent."""

    table: TableRef
    verdict: Verdict
    executions: int
    reads: int
    writes: int
    keyed: float
    """By key or by a range within one value of a key, or an insert; without join, subquery and aggregate."""
    whole_key: float
    """By the whole of a unique key, or an insert; without join, subquery, aggregate and counting up."""
    joined: float
    aggregated: float
    scanned: float
    updated: float
    """UPDATE, REPLACE, upsert."""
    by_time: float
    """Of reads: those with a range over a time column."""
    traversed: float
    """Recursive, or the table joined with itself."""
    unread: float
    """Statements that could not be parsed, were cut, or reach it by a way that has no pattern of its own."""
    key_sets: int
    """Different sets of columns by which rows are found."""
    row_bytes: int
    size_bytes: int
    foreign_keys: int
    time_key: bool
    """An index whose last column is a time, or a time leads one."""
    expires: bool
    """A column that says when a row expires."""
    pairs: bool
    """Refers to itself, or has an index over a pair of columns and one over the reverse."""

    @property
    def reads_per_write(self) -> float:
        """Executions that read for one that writes; all of them where nothing writes."""
        return self.reads / self.writes if self.writes else float(self.reads)


@dataclass(frozen=True)
class Requirement:
    """A measure and its limit."""

    name: str
    measure: Callable[[Features], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "%"

    def met(self, features: Features) -> bool:
        """Whether the table meets it."""
        value = self.measure(features)
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def evidence(self, features: Features) -> str:
        """The measured value beside the limit."""
        if not self.unit:
            return f"{self.name}: {'yes' if self.measure(features) else 'no'}"
        limit = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{self.name}: {_figure(self.measure(features))} {self.unit} ({limit})"


@dataclass(frozen=True)
class Rule:
    """A store, what a table must be like for it, and why that may still be wrong."""

    store: Store
    requirements: tuple[Requirement, ...]
    counter: str


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


_JOINED = Requirement("joins and subqueries", lambda f: f.joined, at_most=1)
_AGGREGATED = Requirement("aggregates", lambda f: f.aggregated, at_most=1)
_EXPIRES = Requirement("a column says when a row expires", lambda f: f.expires, at_least=1, unit="")
_NO_FOREIGN_KEYS = Requirement("foreign keys", lambda f: f.foreign_keys, at_most=0, unit="keys")

RULES: tuple[Rule, ...] = (
    Rule(
        "s3_archive",
        (Requirement("cold for the whole watched window", lambda f: f.verdict == "cold", at_least=1, unit=""),),
        "a job that runs once a quarter or a year is not seen in a shorter window; reads from S3 take seconds, not milliseconds",
    ),
    Rule(
        "graph",
        (
            Requirement("refers to itself or holds pairs both ways", lambda f: f.pairs, at_least=1, unit=""),
            Requirement("recursive statements and joins with itself", lambda f: f.traversed, at_least=20),
        ),
        "one or two hops are a join that MySQL does well with both indexes; a graph store pays from three hops on",
    ),
    Rule(
        "timeseries",
        (
            Requirement("an index ends or begins with a time", lambda f: f.time_key, at_least=1, unit=""),
            Requirement("updates", lambda f: f.updated, at_most=1),
            Requirement("reads by time range", lambda f: f.by_time, at_least=80),
            Requirement("writes of all executions", lambda f: 100 * f.writes / max(f.executions, 1), at_least=20),
            _JOINED,
        ),
        "partitions by month in MySQL and an archive for old rows give most of it without a second store",
    ),
    Rule(
        "memcached",
        (
            Requirement("by the whole key", lambda f: f.whole_key, at_least=99),
            Requirement("key sets", lambda f: f.key_sets, at_most=1, unit="sets"),
            _EXPIRES,
            Requirement("reads per write", lambda f: f.reads_per_write, at_least=5, unit="reads"),
            Requirement("average row size", lambda f: f.row_bytes, at_most=1_000_000, unit="bytes"),
            _NO_FOREIGN_KEYS,
        ),
        "nothing survives a restart and eviction is silent: only rows that can be rebuilt may live there, which no statement shows",
    ),
    Rule(
        "redis",
        (
            Requirement("by key", lambda f: f.keyed, at_least=95),
            Requirement("key sets", lambda f: f.key_sets, at_most=2, unit="sets"),
            _EXPIRES,
            Requirement("size", lambda f: f.size_bytes / 1024**3, at_most=50, unit="GiB"),
            _NO_FOREIGN_KEYS,
        ),
        "memory costs more than disk, and a failover may lose the last writes unless MemoryDB's log is used",
    ),
    Rule(
        "dynamodb",
        (
            Requirement("by key, or by a range within one", lambda f: f.keyed, at_least=95),
            Requirement("key sets", lambda f: f.key_sets, at_most=5, unit="sets"),
            _JOINED,
            _AGGREGATED,
            Requirement("average row size", lambda f: f.row_bytes, at_most=400_000, unit="bytes"),
            _NO_FOREIGN_KEYS,
        ),
        "the next question that somebody asks ad hoc has no key; transactions over several tables are limited, and are not seen here",
    ),
    Rule(
        "relational",
        (),
        "no other store's requirements are met today; that may come from few statements that could be changed",
    ),
)


@dataclass(frozen=True)
class Advice:
    """A store for a table, and why."""

    table: TableRef
    store: Store
    evidence: tuple[str, ...]
    counter: str
    rejected: tuple[tuple[Store, str], ...]
    """Each other store with the first requirement that is not met."""
    features: Features


def advise(
    statements: Sequence[Statement],
    catalog: Catalog,
    heats: Iterable[TableHeat],
    *,
    coverage_percent: float,
    coverage_limit: float,
    holes: Collection[TableRef] = (),
) -> list[Advice]:
    """Advice for every table.

    Args:
        statements: of the window
        catalog: the tables
        heats: of :func:`dbops.inventory.tables.activity`
        coverage_percent: executions that named statements explain
        coverage_limit: below it every answer is ``not decidable``; also the share of a table's executions that must have been understood
        holes: tables whose rows changed although no known writer does that
    """
    touching = by_table(statements)
    return [
        _advise(
            features(heat, touching.get(heat.table, ()), catalog), coverage_percent, coverage_limit, heat.table in holes
        )
        for heat in heats
    ]


def _advise(measured: Features, coverage_percent: float, coverage_limit: float, has_hole: bool) -> Advice:
    why = _undecidable(measured, coverage_percent, coverage_limit)
    if why := why or ("its rows change and nobody is known to do it" if has_hole else ""):
        return Advice(measured.table, "not decidable", (why,), "", (), measured)
    rejected: list[tuple[Store, str]] = []
    for rule in RULES:
        missed = next((r for r in rule.requirements if not r.met(measured)), None)
        if missed is None:
            evidence = [r.evidence(measured) for r in rule.requirements] or [_relational_evidence(measured)]
            evidence.append(
                f"{coverage_percent:.1f} % of executions are explained; {measured.executions:,} on this table"
            )
            later = [(r.store, m) for r in RULES[RULES.index(rule) + 1 :] if (m := _first_missed(r, measured))]
            return Advice(measured.table, rule.store, tuple(evidence), rule.counter, (*rejected, *later), measured)
        rejected.append((rule.store, missed.evidence(measured)))
    raise AssertionError("the last rule has no requirement")


def _first_missed(rule: Rule, measured: Features) -> str:
    return next((r.evidence(measured) for r in rule.requirements if not r.met(measured)), "")


def _undecidable(measured: Features, coverage_percent: float, coverage_limit: float) -> str:
    if coverage_percent < coverage_limit:
        return f"{coverage_percent:.1f} % of executions are explained, {coverage_limit:g} % are needed"
    if measured.verdict == "no evidence" or (not measured.executions and measured.verdict != "cold"):
        return "no statement on it was seen, and the window is no proof that there is none"
    if measured.unread > 100 - coverage_limit:
        return f"{measured.unread:.1f} % of the executions on it have no readable pattern (cut, not parsed, or through a view or program)"
    return ""


def _relational_evidence(measured: Features) -> str:
    return (
        f"joins and subqueries {measured.joined:.1f} %, aggregates {measured.aggregated:.1f} %, without an index {measured.scanned:.1f} %, "
        f"{measured.key_sets} key sets, {measured.foreign_keys} foreign keys"
    )


# -- features ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """One statement on the table, weighed by its executions."""

    statement: Statement
    pattern: access.Pattern
    executions: int
    writes: bool

    @property
    def flags(self) -> set[str]:
        return self.statement.analysis.flags

    @property
    def alone(self) -> bool:
        """No join, subquery or aggregate."""
        return not self.flags & {"join", "subquery", "aggregate", "window", "recursive"}


def features(heat: TableHeat, statements: Iterable[Statement], catalog: Catalog) -> Features:
    """Measure one table."""
    table, definition = heat.table, catalog.tables[heat.table]
    seen = [
        _Seen(s, access.pattern(s, table, catalog), s.activity.executions, table in s.tables("write"))
        for s in statements
        if s.activity.executions and s.tables("read", "write") & {table}
    ]
    times = {c.name.lower() for c in definition.columns if c.data_type in _TIME_TYPES}
    reads = [s for s in seen if not s.writes]

    def share(holds: Callable[[_Seen], bool], among: Sequence[_Seen] = seen) -> float:
        total = sum(s.executions for s in among)
        return 100 * sum(s.executions for s in among if holds(s)) / total if total else 0.0

    keyed = [s for s in seen if s.alone and _keyed(s)]
    return Features(
        table=table,
        verdict=heat.verdict,
        executions=sum(s.executions for s in seen),
        reads=sum(s.executions for s in reads),
        writes=sum(s.executions for s in seen if s.writes),
        keyed=share(lambda s: s.alone and (_keyed(s) or s.pattern.access_class == "insert")),
        whole_key=share(lambda s: s.alone and _whole(s)),
        joined=share(lambda s: bool(s.flags & {"join", "subquery"})),
        aggregated=share(lambda s: bool(s.flags & {"aggregate", "window"})),
        scanned=share(lambda s: s.pattern.access_class == "scan"),
        updated=share(
            lambda s: s.writes and (s.statement.analysis.kind in ("update", "replace") or "upsert" in s.flags)
        ),
        by_time=share(
            lambda s: any(
                p.operator == "range"
                and p.column.lower() in times
                and (p.table is None or access.names(p.table, table, s.statement.schema))
                for p in s.statement.analysis.predicates
            ),
            reads,
        ),
        traversed=share(lambda s: "recursive" in s.flags or ("join" in s.flags and s.statement.tables() == {table})),
        unread=share(lambda s: s.pattern.access_class in ("unknown", "indirect")),
        key_sets=len({s.pattern.key for s in keyed}),
        row_bytes=definition.average_row_bytes,
        size_bytes=definition.data_bytes + definition.index_bytes,
        foreign_keys=sum(table in (r.child, r.parent) for r in catalog.references),
        time_key=any(i.columns[0].lower() in times or i.columns[-1].lower() in times for i in definition.indexes),
        expires=any(_says_expiry(c.name) for c in definition.columns),
        pairs=_pairs(table, definition, catalog),
    )


def _keyed(seen: _Seen) -> bool:
    """Whether a key-value store can be asked for it: a range over all keys, or an OR over two of them, is not within one key.

    Deleting what has expired is what such a store does by itself.
    """
    pattern = seen.pattern
    if pattern.access_class != "range":
        return pattern.access_class in access.KEYED
    by_age = seen.statement.analysis.kind == "delete" and _says_expiry(pattern.key[0])
    return "index-merge" not in pattern.flags and (len(pattern.key) > 1 or by_age)


def _says_expiry(column: str) -> bool:
    return any(word in column.lower() for word in _EXPIRY)


def _whole(seen: _Seen) -> bool:
    counts_up = "self-reference" in seen.flags
    return not counts_up and seen.pattern.access_class in ("point", "multi-point", "insert")


def _pairs(table: TableRef, definition: mysql.Table, catalog: Catalog) -> bool:
    if any(r.child == r.parent == table for r in catalog.references):
        return True
    firsts = [tuple(c.lower() for c in i.columns[:2]) for i in definition.indexes if len(i.columns) >= 2]
    leading = {i.columns[0].lower() for i in definition.indexes}
    key = definition.row_key
    both = {c.lower() for c in key.columns} if key and len(key.columns) == 2 else set()
    return any(pair[::-1] in firsts for pair in firsts) or (bool(both) and both <= leading)


# -- what belongs together ---------------------------------------------------------------------------------------------------

Tie = Literal["join", "write", "foreign key", "trigger"]
"""join: read in one statement, or in a function that it calls; write: one statement reads one and writes the other, or writes both;
trigger: writing one fires a program that touches the other."""


@dataclass(frozen=True)
class Edge:
    """Two tables that something ties together."""

    a: TableRef
    b: TableRef
    ties: frozenset[Tie]
    executions: int
    """Of statements that touch both."""
    statements: tuple[str, ...]


def edges(statements: Iterable[Statement], catalog: Catalog) -> list[Edge]:
    """The join graph, the busiest edges first."""
    ties: dict[tuple[TableRef, TableRef], set[Tie]] = {}
    seen: dict[tuple[TableRef, TableRef], dict[str, int]] = {}
    triggered = {p.table for p in catalog.programs if p.table}
    for statement in statements:
        for pair, tie in _ties(statement, catalog, triggered):
            ties.setdefault(pair, set()).add(tie)
            seen.setdefault(pair, {})[f"{statement.schema}.{statement.fingerprint}"] = statement.activity.executions
    for reference in catalog.references:
        if reference.child != reference.parent:
            ties.setdefault(_pair(reference.child, reference.parent), set()).add("foreign key")
    found = [
        Edge(
            *pair,
            frozenset(kinds),
            sum(seen.get(pair, {}).values()),
            tuple(sorted({k.rpartition(".")[2][:12] for k in seen.get(pair, {})})),
        )
        for pair, kinds in ties.items()
    ]
    return sorted(found, key=lambda e: (-e.executions, e.a, e.b))


def _ties(
    statement: Statement, catalog: Catalog, triggered: set[TableRef]
) -> Iterator[tuple[tuple[TableRef, TableRef], Tie]]:
    direct: set[TableRef] = set()
    behind: dict[TableRef, set[str]] = {}
    for use in statement.uses:
        if use.table not in catalog.tables or use.access == "ddl":
            continue
        if not use.via or use.via.startswith("view "):
            direct.add(use.table)
        elif not use.via.startswith("foreign key "):
            behind.setdefault(use.table, set()).add(use.via.partition(" ")[0])
    written = statement.tables("write")
    for a, b in combinations(sorted(direct), 2):
        yield _pair(a, b), "write" if {a, b} & written else "join"
    for target in direct:
        for table in behind.keys() - {target}:
            if target in written & triggered:
                yield _pair(target, table), "trigger"
            elif "trigger" not in behind[table]:
                yield _pair(target, table), "write" if {target, table} & written else "join"


def _pair(a: TableRef, b: TableRef) -> tuple[TableRef, TableRef]:
    return (a, b) if a <= b else (b, a)


def groups(tables: Iterable[TableRef], ties: Iterable[Edge]) -> list[tuple[TableRef, ...]]:
    """Tables that must move together: connected by any edge. The largest group first; a table without an edge is a group of its own."""
    leader: dict[TableRef, TableRef] = {table: table for table in tables}

    def find(table: TableRef) -> TableRef:
        while leader[table] != table:
            leader[table] = leader[leader[table]]
            table = leader[table]
        return table

    for edge in ties:
        if edge.a in leader and edge.b in leader:
            leader[find(edge.a)] = find(edge.b)
    members: Mapping[TableRef, list[TableRef]] = {table: [] for table in leader}
    for table in leader:
        members[find(table)].append(table)
    return sorted((tuple(sorted(m)) for m in members.values() if m), key=lambda g: (-len(g), g))
