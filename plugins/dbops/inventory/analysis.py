"""The analysis: what the history of a window means, from statements to tables to advice, and what is different since the last one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from dbops.inventory import access, fit, parse, register, resolve, tables, upgrade
from dbops.inventory.access import Witnesses
from dbops.inventory.coverage import Coverage, combined, distinct
from dbops.inventory.history import Interval, Observed, TableActivity
from dbops.inventory.model import NOT_READ, Catalog, Gap, Statement, TableRef
from dbops.inventory.spec import InventorySpec
from dbops.inventory.trials import Key, Trial
from dbops.inventory.upgrade import Finding


@dataclass(frozen=True)
class Evidence:
    """Everything that an analysis is made of."""

    since: datetime
    until: datetime
    observed: list[Observed]
    intervals: list[Interval]
    table_io: list[TableActivity]
    trials: dict[Key, Trial]
    catalog: Catalog
    gaps: tuple[Gap, ...]
    before: tuple[datetime, dict[str, Any]] | None
    """End of the window and document of the last analysis."""
    known: frozenset[tuple[str | None, str]] = frozenset()
    """(schema, fingerprint) of statements that the history had seen before that window began."""


@dataclass(frozen=True)
class Change:
    """A statement or table that is not what it was at the last analysis."""

    kind: str
    """new, back (known from before the last window), gone, class, verdict, advice"""
    what: str
    """Id of the statement, or the table."""
    text: str
    was: str = ""
    now: str = ""
    writes: tuple[TableRef, ...] = ()
    """Tables that it writes and was not known to write."""
    statement: Key = ("", "")
    """Of a statement: (fingerprint, default schema or '')."""


@dataclass(frozen=True)
class Inventory:
    """What an analysis found."""

    spec: InventorySpec
    window: tables.Window
    coverage: Coverage
    intervals: list[Interval]
    unseen: tuple[str, ...]
    """Instances of the spec without a snapshot, or without one near the end of the window that could count what runs."""
    catalog: Catalog
    statements: list[Statement]
    witnesses: dict[Key, list[Witnesses]]
    heats: list[tables.TableHeat]
    unused: tables.UnusedParts
    writers: register.Register
    advice: list[fit.Advice]
    edges: list[fit.Edge]
    groups: list[tuple[TableRef, ...]]
    findings: dict[Key, list[Finding]]
    proposals: list[tables.Proposal]
    gaps: tuple[Gap, ...]
    compared_with: datetime | None
    changes: list[Change]
    alarms: list[Change] = field(default_factory=list)
    """New write statements on tables under migration."""

    @property
    def unparsed(self) -> list[Statement]:
        """Statements of which the parser could not tell everything."""
        return [s for s in self.statements if s.analysis.method in ("unparsed", "truncated-regex")]

    def document(self) -> dict[str, Any]:
        """What the next analysis is compared with."""
        return {
            "since": self.window.since.isoformat(),
            "statements": {
                _name(s): {
                    "id": s.id,
                    "text": s.text[:500],
                    "class": classes(self.witnesses[_key(s)]),
                    "writes": sorted(map(str, _written(s))),
                }
                for s in self.statements
            },
            "tables": {str(h.table): h.verdict for h in self.heats},
            "advice": {str(a.table): a.store for a in self.advice},
        }


def analyse(spec: InventorySpec, evidence: Evidence) -> Inventory:
    """Judge the evidence. Reads nothing and writes nothing."""
    everything = evidence.catalog
    if everything.folds_case:
        spec = spec.model_copy(update={"schemas": [schema.lower() for schema in spec.schemas]})
    # Names are resolved against every schema, because statements cross them; judged are the tables that the spec asks for.
    catalog = replace(everything, tables={t: d for t, d in everything.tables.items() if _is_judged(spec, t)})
    table_io = [io for io in evidence.table_io if _is_judged(spec, io.table)]
    statements = [_statement(seen, everything) for seen in evidence.observed]
    coverage = combined([i.coverage for i in watched(evidence.intervals)])
    stale = _stale(spec, evidence)
    # An instance that nobody watched to the end may have run anything.
    percent = 0.0 if stale or not coverage.measured else coverage.explained_percent
    window = tables.Window(
        evidence.since, evidence.until, _watched_since(spec, evidence.intervals), percent,
        _row_counters_missing(evidence.intervals),
    )  # fmt: skip
    percent *= _measured_share(window, evidence.intervals)
    window = replace(window, coverage_percent=percent)
    limits: Any = {"cold_after": timedelta(days=spec.cold_after_days), "coverage_limit": spec.coverage_limit}
    # What the first snapshot found was counted since the server started, perhaps long before the window.
    heats = tables.activity(statements, catalog, table_io, window, **limits)
    writers = _judged_only(spec, register.writers(statements, everything, table_io))
    edges = fit.edges(statements, catalog)
    groups = fit.groups(catalog.tables, edges)
    witnesses = {_key(s): _witnesses(s, evidence.trials.get(_key(s)), catalog) for s in statements}
    found = Inventory(
        spec=spec, window=window, coverage=replace(coverage, measured=coverage.measured and not stale), intervals=evidence.intervals,
        unseen=tuple(stale), catalog=catalog, statements=statements, witnesses=witnesses, heats=heats,
        unused=tables.unused(statements, catalog, table_io, window, **limits),
        writers=writers,
        advice=fit.advise(statements, catalog, heats, coverage_percent=percent, coverage_limit=spec.coverage_limit,
                          holes={h.table for h in writers.holes}),
        edges=edges, groups=groups,
        findings={_key(s): _findings(s, evidence.trials.get(_key(s))) for s in statements},
        proposals=_proposals(spec, heats, statements, catalog, window, groups, writers, table_io),
        gaps=(
            *evidence.gaps, *distinct([*coverage.gaps, *_uncounted(evidence.intervals)]), *_unmatched(spec, everything),
            *(_not_watched(name, last, evidence) for name, last in stale.items()),
        ),
        compared_with=evidence.before[0] if evidence.before else None,
        changes=[],
    )  # fmt: skip
    if evidence.before is None:
        return found
    changes = list(_changes(evidence.before[1], evidence.known, found))
    return replace(found, changes=changes, alarms=[c for c in changes if _is_alarm(spec, c, everything)])


def _is_judged(spec: InventorySpec, table: TableRef) -> bool:
    return not spec.schemas or table.schema in spec.schemas


def _judged_only(spec: InventorySpec, found: register.Register) -> register.Register:
    return replace(found, writers=tuple(w for w in found.writers if _is_judged(spec, w.table)))


def classes(found: Iterable[Witnesses]) -> dict[str, str]:
    """Table -> access class."""
    return {str(w.pattern.table): w.pattern.access_class for w in found}


def _statement(seen: Observed, catalog: Catalog) -> Statement:
    read = parse.analyse(seen.text, is_digest=seen.is_digest, truncated=seen.truncated)
    uses, columns, unresolved = resolve.resolve(read, seen.schema, catalog)
    return Statement(
        seen.fingerprint,
        seen.schema,
        seen.text,
        seen.is_digest,
        read,
        uses,
        columns,
        unresolved,
        activity=seen.activity,
    )


def _key(statement: Statement) -> Key:
    return statement.fingerprint, statement.schema or ""


def _name(statement: Statement) -> str:
    return f"{statement.schema or ''}|{statement.fingerprint}"


def _witnesses(statement: Statement, trial: Trial | None, catalog: Catalog) -> list[Witnesses]:
    plan = trial.plan if trial else None
    own = sorted({u.table for u in statement.uses if u.access != "ddl" and u.table in catalog.tables})
    return [access.witnesses(access.pattern(statement, table, catalog), plan, statement.activity) for table in own]


def _findings(statement: Statement, trial: Trial | None) -> list[Finding]:
    return list(trial.findings) if trial else upgrade.check_statement(statement)


def watched(intervals: Sequence[Interval]) -> list[Interval]:
    """Those of the watched time. What was counted before the first snapshot may be years of it, and tells of another time."""
    found = [i for i in intervals if i.since is not None and i.coverage.measured and i.coverage.executions_total]
    return found or list(intervals)


def _measured_share(window: tables.Window, intervals: Sequence[Interval]) -> float:
    """Of the watched time, what was counted: what ran shortly before a restart counts as not explained, by its time."""
    span = window.watched.total_seconds() * len({i.instance for i in intervals})
    begin = window.watched_since or window.until
    lost = sum(i.coverage.unmeasured_s for i in intervals if i.until > begin)
    return max(1.0 - lost / span, 0.0) if span else 1.0


def _uncounted(intervals: Sequence[Interval]) -> list[Gap]:
    """What instances cannot show at all, also where nothing was counted, for that very reason or because nothing ran."""
    return [gap for i in intervals for gap in i.coverage.gaps if gap.executions is None]


def _stale(spec: InventorySpec, evidence: Evidence) -> dict[str, datetime | None]:
    """Instances whose last snapshot that could count is missing or older than `stale_after_minutes` at the window's end -> its time."""
    last: dict[str, datetime] = {}
    for interval in evidence.intervals:
        if interval.coverage.measured:
            last[interval.instance] = max(interval.until, last.get(interval.instance, interval.until))
    limit = evidence.until - timedelta(minutes=spec.stale_after_minutes)
    return {i.name: last.get(i.name) for i in spec.instances if i.name not in last or last[i.name] < limit}


def _watched_since(spec: InventorySpec, intervals: Sequence[Interval]) -> datetime | None:
    """Since when every instance was watched without a break.

    An interval begins with the snapshot before it. After a long one in which the server restarted or was replaced, or its event counters
    were truncated, nobody knows what ran before that, so watching begins anew; as it does after one in which not all was counted.
    """
    first: dict[str, datetime] = {}
    last: dict[str, datetime] = {}
    listed = {i.name for i in spec.instances}
    long = timedelta(minutes=spec.stale_after_minutes)
    for interval in sorted(intervals, key=lambda i: i.until):
        if not interval.coverage.measured:
            # Counters that could not be read go on, and the next snapshot has them.
            blind = any(gap.blind and gap.what != NOT_READ for gap in interval.coverage.gaps)
            if blind and interval.instance in listed:
                first[interval.instance] = interval.until
            continue
        # Of a server that takes over, or that answers again after another one, the interval may begin elsewhere.
        begin = last.get(interval.instance, interval.since or interval.until)
        last[interval.instance] = interval.until
        lost = (
            any(reset.startswith(("server", "events")) for reset in interval.coverage.resets)
            and interval.until - begin > long
        )
        if lost or interval.instance not in first:
            first[interval.instance] = interval.until if lost else begin
    return max(first.values(), default=None)


def _row_counters_missing(intervals: Sequence[Interval]) -> str:
    """Where the row counters were not read or do not count: a read that no statement shows would go unseen there."""
    blind = {i.instance for i in intervals for gap in i.coverage.gaps if gap.what in _ROW_COUNTERS}
    return f"row counters of {', '.join(sorted(blind))} were missing at times (see the gaps)" if blind else ""


_ROW_COUNTERS = ("table_io", "table_io instruments", "row counters of tables")


def _not_watched(name: str, last: datetime | None, evidence: Evidence) -> Gap:
    taken = [i for i in evidence.intervals if i.instance == name]
    counted = " that could count its statements" if any(not i.coverage.measured for i in taken) else ""
    since = (
        f"its last snapshot{counted} is of {last:%Y-%m-%d %H:%M} UTC, the window ends at {evidence.until:%Y-%m-%d %H:%M}"
        if last
        else f"it has no snapshot{counted}"
    )
    return Gap(
        f"instance {name}", f"{since}: whatever ran there since is unknown",
        "close the gaps that name what is not counted there" if counted
        else "look at the red snapshot task of this instance, or take it out of the spec",
    )  # fmt: skip


def _unmatched(spec: InventorySpec, catalog: Catalog) -> Iterable[Gap]:
    if not catalog.tables:
        yield Gap(
            "definitions of tables", "this user sees no table, so no name is resolved and nothing is judged",
            "GRANT SELECT on the schemas of the application", "none",
        )  # fmt: skip
    for schema in sorted(set(spec.schemas) - {table.schema for table in (*catalog.tables, *catalog.views)}):
        yield Gap(
            f"schemas {schema}", "no table that this user may see is in such a schema, so nothing of it is judged",
            "correct the name (as the server spells it), or GRANT SELECT",
        )  # fmt: skip
    for pattern in spec.under_migration:
        if not any(_matches(table, pattern, catalog) for table in catalog.tables):
            yield Gap(
                f"under_migration {pattern}", "no table that this user may see has such a name, so no write on it can raise an alarm",
                "correct the pattern (schema.table, as the server spells it), or GRANT SELECT",
            )  # fmt: skip


def _proposals(
    spec: InventorySpec, heats: list[tables.TableHeat], statements: list[Statement], catalog: Catalog, window: tables.Window,
    groups: list[tuple[TableRef, ...]], writers: register.Register, table_io: list[TableActivity],
) -> list[tables.Proposal]:  # fmt: skip
    found = tables.propose_archive(
        heats, statements, catalog, window, table_io, cold_after=timedelta(days=spec.cold_after_days), coverage_limit=spec.coverage_limit
    )  # fmt: skip
    moving = [g for g in groups if any(_under_migration(spec, t, catalog) for t in g)]
    names = [f"{spec.name}_{number}" if len(moving) > 1 else spec.name for number in range(1, len(moving) + 1)]
    return [*found, *(tables.propose_backfill(n, g, catalog, writers) for n, g in zip(names, moving, strict=True))]


def _matches(table: TableRef, pattern: str, catalog: Catalog) -> bool:
    fold = str.lower if catalog.folds_case else str
    return fnmatchcase(fold(str(table)), fold(pattern))


def _under_migration(spec: InventorySpec, table: TableRef, catalog: Catalog) -> bool:
    return any(_matches(table, pattern, catalog) for pattern in spec.under_migration)


def _is_alarm(spec: InventorySpec, change: Change, catalog: Catalog) -> bool:
    return any(_under_migration(spec, table, catalog) for table in change.writes)


def _written(statement: Statement) -> frozenset[TableRef]:
    return statement.tables("write", "ddl")


def _changes(before: dict[str, Any], known: frozenset[tuple[str | None, str]], found: Inventory) -> Iterable[Change]:
    old: dict[str, dict[str, Any]] = before["statements"]
    present = {_name(s): s for s in found.statements}
    for name, statement in present.items():
        now = classes(found.witnesses[_key(statement)])
        if name not in old and (statement.schema, statement.fingerprint) in known:
            yield Change("back", statement.id, statement.text, now=_shown(now))
        elif name not in old:
            yield Change(
                "new", statement.id, statement.text, now=_shown(now), writes=tuple(sorted(_written(statement))),
                statement=_key(statement),
            )  # fmt: skip
        else:
            # A new foreign key, another view or a text that is whole at last makes a known statement a writer.
            writes = tuple(sorted(t for t in _written(statement) if str(t) not in old[name]["writes"]))
            if writes or old[name]["class"] != now:
                was = _shown(old[name]["class"])
                yield Change("class", statement.id, statement.text, was, _shown(now), writes, _key(statement))
    for name, was_ in old.items():
        if name not in present:
            yield Change("gone", was_["id"], was_["text"], was=_shown(was_["class"]))
    for kind, known_, current in (
        ("verdict", before["tables"], {str(h.table): h.verdict for h in found.heats}),
        ("advice", before["advice"], {str(a.table): a.store for a in found.advice}),
    ):
        for table in sorted(known_.keys() | current.keys()):
            if known_.get(table) != current.get(table):
                yield Change(kind, table, "", str(known_.get(table, "not there")), str(current.get(table, "not there")))


def _shown(by_table: dict[str, str]) -> str:
    return ", ".join(f"{table}: {kind}" for table, kind in sorted(by_table.items()))
