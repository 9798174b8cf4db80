"""The steps of an inventory: take a snapshot of one instance, analyse what the history holds. Operators and tests call these."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import MySQLdb
import sqlalchemy as sa

from dbops.inventory import analysis, catalog, snapshot, trials
from dbops.inventory.history import History, Recorded
from dbops.inventory.log_sources import CloudWatchLogs, Files, LogSource, RdsLogs, Reading
from dbops.inventory.logs import LogFormatError, LogKind
from dbops.inventory.model import NO_VIEWS, Catalog, Gap, Program, Sighting, Snapshot, hides_views
from dbops.inventory.results import LOG_ONLY, Alarm, Results
from dbops.inventory.spec import FileLog, InstanceSpec, InventorySpec, Log, RdsLog

TURN_WAIT_S = 300
TRY_AGAIN = timedelta(days=7)
"""A plan and an upgrade verdict are as good as the data and the server were: after so long the statement is tried again."""


@dataclass(frozen=True)
class Services:
    """How to reach what a run needs."""

    instance: Callable[[str], Any]
    """Opens a MySQL connection (autocommit) by the id of an Airflow connection."""
    engine: Callable[[], sa.Engine]
    """Of the store."""
    client: Callable[[str], Any]
    """An AWS client by service name."""


@dataclass(frozen=True)
class Taken:
    """What a snapshot brought."""

    recorded: Recorded
    sightings: int
    tried: int
    gaps: tuple[Gap, ...] = field(default=())


def take_snapshot(
    services: Services, spec: InventorySpec, name: str, clock: Callable[[], datetime], *, full: bool
) -> Taken:
    """Read one instance and its logs and add them to the history; one at a time for each instance, whoever asks.

    Args:
        services: connections
        spec: the cluster
        name: of the instance in the spec
        clock: gives naive UTC; asked when it is this snapshot's turn
        full: also read the bodies of stored programs and views, and try every new raw text (EXPLAIN here, PREPARE on the 8.0 server); the
            first snapshot of an instance always does. What is new in a log is always tried on the 8.0 server: nobody reads it again

    Raises:
        MySQLdb.Error: the instance cannot be reached; nothing is recorded
        Busy: another snapshot of the instance is under way for longer than the wait
        SecondNameError: another instance of the spec is the same server; nothing is recorded
    """
    engine = services.engine()
    history = History(engine)
    history.migrate()
    with _turn(engine, f"{spec.name}:{name}"):
        return _take(services, spec, next(i for i in spec.instances if i.name == name), clock, history, full=full)


def _take(
    services: Services,
    spec: InventorySpec,
    instance: InstanceSpec,
    clock: Callable[[], datetime],
    history: History,
    *,
    full: bool,
) -> Taken:
    name, results = instance.name, Results(history.engine)
    full = full or not history.knows_definitions(spec.name, name)
    before = dict(history.log_positions(spec.name, name))
    read, positions = _read_logs(services, spec, instance, before)
    logged = tuple(s for r in read for s in r.sightings)
    trial = _Tried()
    with closing(services.instance(instance.connection)) as conn:
        bodies: tuple[Program, ...] = ()
        gaps: list[Gap] = []
        if full:
            definitions, gaps = _definitions(conn)
            bodies = programs(definitions)
            if spec.keep_samples:
                seen = snapshot.take(conn, name, clock())
                seen = replace(seen, sightings=(*logged, *seen.sightings))
                trial = _try(services, spec, instance, seen, definitions, results)
        now = clock()  # trying thousands of texts takes longer than the history lets a clock be wrong
        shot = snapshot.take(conn, name, now, catalog_programs=bodies, own_executions=trial.sent)
    if logged and not full and spec.keep_samples:
        # The digests tell in which schema the log's statements ran.
        digests = (s for s in shot.sightings if s.source == "digest")
        trial = _try(services, spec, instance, replace(shot, sightings=(*logged, *digests)), None, results)
    if not spec.keep_samples:
        shot = replace(shot, sightings=tuple(s for s in shot.sightings if s.source not in ("sample", "history")))
    shot = replace(
        shot,
        sightings=(*shot.sightings, *trial.own, *logged),
        gaps=(*shot.gaps, *gaps, *trial.gaps, *(g for r in read for g in r.gaps)),
        log_positions=positions,
        log_positions_before=before,
        definitions_read=full and not any(hides_views(gap) for gap in gaps),
    )
    recorded = history.record(spec.name, shot, [i.name for i in spec.instances if i.name != name])
    results.add_trials(spec.name, now, trial.target, trial.found)
    return Taken(recorded, len(shot.sightings), len(trial.found), shot.gaps)


def _definitions(conn: Any) -> tuple[Catalog, list[Gap]]:
    """The catalog; empty, with a gap, where not even its beginning can be read: that must not cost a snapshot."""
    try:
        return catalog.read(conn)
    except MySQLdb.Error as error:
        fix = "see the error; the next full snapshot tries again"
        return Catalog({}, {}, (), (), False), [Gap(NO_VIEWS, f"not readable: {error}"[:300], fix)]


class Busy(RuntimeError):
    """Another snapshot of the same instance is under way; nothing was read."""


@contextmanager
def _turn(engine: sa.Engine, what: str) -> Iterator[None]:
    """Hold a lock of the store's server: two snapshots at once would read the same portion of a log twice."""
    if engine.dialect.name != "mysql":
        yield
        return
    lock = f"dbops_inventory:{hashlib.sha256(what.encode()).hexdigest()[:40]}"
    with engine.connect() as connection:
        got = connection.execute(
            sa.text("SELECT GET_LOCK(:name, :wait)"), {"name": lock, "wait": TURN_WAIT_S}
        ).scalar_one()
        if got != 1:
            raise Busy(
                f"another snapshot of {what} has been under way for more than {TURN_WAIT_S} s; this one read nothing"
            )
        try:
            yield
        finally:
            with suppress(sa.exc.SQLAlchemyError):  # a lost session has released it already
                connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": lock})


def programs(found: Catalog) -> tuple[Program, ...]:
    """Stored programs and, as kind ``view``, views: what has a body."""
    views = (Program("view", ref.schema, ref.table, body) for ref, body in found.views.items() if body)
    return (*found.programs, *views)


@dataclass(frozen=True)
class _Tried:
    """What came of the raw texts."""

    found: dict[trials.Key, trials.Trial] = field(default_factory=dict)
    target: str = ""
    sent: int = 0
    own: tuple[Sighting, ...] = ()
    gaps: tuple[Gap, ...] = ()


def _try(
    services: Services,
    spec: InventorySpec,
    instance: InstanceSpec,
    seen: Snapshot,
    definitions: Catalog | None,
    results: Results,
) -> _Tried:
    """Try what is new; without definitions nothing is explained. Whatever goes wrong with it must not cost the snapshot."""
    upgraded, gaps = _upgraded(services, spec)
    try:
        target = upgraded.get_server_info() if upgraded is not None else ""
        known = results.tried(spec.name, seen.taken_at - TRY_AGAIN, target)
        if definitions is None:
            target += LOG_ONLY
            known |= results.tried(spec.name, seen.taken_at - TRY_AGAIN, target)
        found: dict[trials.Key, trials.Trial] = {}
        with trials.Explainer(lambda: services.instance(instance.connection)) as explainer:
            explain = (lambda text, schema: None) if definitions is None else trials.if_harmless(explainer, definitions)
            try:
                trials.run(seen, known, explain, trials.checker(upgraded), found)
            except Exception as error:  # whatever a driver or a plan's odd shape raises is the answer here
                # Only a server's message is told: any other may hold the text that was tried.
                said = f": {error}" if isinstance(error, MySQLdb.OperationalError) else ""
                gaps = (*gaps, Gap(
                    "plans and upgrade checks of some statements", f"after {len(found)}: {type(error).__name__}{said}"[:300],
                    "see the error; the next full snapshot goes on with the rest",
                ))  # fmt: skip
            return _Tried(found, target, explainer.sent, tuple(explainer.own), gaps)
    finally:
        with suppress(Exception):
            if upgraded is not None:
                upgraded.close()


def _upgraded(services: Services, spec: InventorySpec) -> tuple[Any, tuple[Gap, ...]]:
    """A connection to the 8.0 server; None when there is none, or a gap when it does not answer: it must not cost a snapshot."""
    if not spec.upgrade_connection:
        return None, ()
    try:
        return services.instance(spec.upgrade_connection), ()
    except Exception as error:  # whatever a driver raises is the answer here
        gap = Gap(
            "the upgrade check on a server", f"{spec.upgrade_connection}: {type(error).__name__}: {error}"[:300],
            f"start that server or correct upgrade_connection of {spec.name}; rules judge until then",
        )  # fmt: skip
        return None, (gap,)


# -- logs ------------------------------------------------------------------------------------------------------------------------


@dataclass
class _LogRead:
    sightings: list[Sighting]
    gaps: list[Gap]


def _read_logs(
    services: Services, spec: InventorySpec, instance: InstanceSpec, before: Mapping[str, str]
) -> tuple[list[_LogRead], dict[str, str]]:
    """What the instance's logs have since the last snapshot; a log that cannot be read is a gap and keeps its position."""
    positions = dict(before)
    read = []
    for log in spec.logs:
        if log.instance == instance.name:
            name = log_name(log)
            found = _LogRead([], [])
            try:
                _read_log(services, log, name, found, positions)
            except (
                Exception
            ) as error:  # a log is one source of many: whatever is wrong with it must not cost the snapshot
                fix = f"correct the entry of logs for {instance.name} in the spec, or the log; it is read again from where it was"
                found = _LogRead(
                    [], [*found.gaps, Gap(f"{log.kind} log {name}", f"{type(error).__name__}: {error}"[:300], fix)]
                )
            read.append(found)
    return read, positions


def _read_log(services: Services, log: Log, name: str, found: _LogRead, positions: dict[str, str]) -> None:
    kind: LogKind = "slow_log" if log.kind == "slow" else "general_log"
    reading = Reading(_source(services, log), kind, positions.get(name))
    try:
        for sighting in _named(reading.sightings(), name):
            found.sightings.append(sighting)  # one by one: what stands before a line that cannot be read is kept
    except LogFormatError as error:
        fix = "correct the log's format, or its kind in the spec"
        found.gaps.append(Gap(f"the rest of {log.kind} log {name}", str(error), fix))
    positions[name] = reading.checkpoint
    found.gaps += reading.gaps


def log_name(log: Log) -> str:
    """What the history calls a log; another place is another log."""
    if isinstance(log, FileLog):
        return f"file:{log.path}:{log.kind}"
    if isinstance(log, RdsLog):
        return f"rds:{log.db_instance}:{log.kind}"
    return f"cloudwatch:{log.group}:{log.stream}:{log.kind}"


def _source(services: Services, log: Log) -> LogSource:
    if isinstance(log, FileLog):
        return Files(log.path)
    if isinstance(log, RdsLog):
        return RdsLogs(services.client("rds"), log.db_instance, "slowquery" if log.kind == "slow" else "general")
    return CloudWatchLogs(services.client("logs"), log.group, log.stream)


def _named(sightings: Iterator[Sighting], log: str) -> Iterator[Sighting]:
    """Without our own; two logs of one kind may show the same statement, and each counts for itself."""
    yield from (replace(s, key=f"{s.key}@{log}"[:400]) for s in sightings if not s.own)


# -- the analysis ----------------------------------------------------------------------------------------------------------------


def analyse(
    services: Services, spec: InventorySpec, run: str, until: datetime, *, window_days: int | None = None
) -> analysis.Inventory:
    """Everything that the history of (until - window, until] tells, judged. Changes nothing; see :func:`keep`.

    Args:
        services: connections
        spec: the cluster
        run: dag_id/run_id; the difference is to the last analysis of another run
        until: end of the window, naive UTC
        window_days: instead of the spec's; such an analysis is compared with none, since other windows hold other statements
    """
    engine = services.engine()
    history, results = History(engine), Results(engine)
    history.migrate()
    since = until - timedelta(days=window_days or spec.window_days)
    usual = not window_days or window_days == spec.window_days
    definitions, gaps = _definitions_of_any(services, spec)
    before = results.analysis_before(spec.name, run, until) if usual else None
    return analysis.analyse(
        spec,
        analysis.Evidence(
            since=since,
            until=until,
            observed=history.window(spec.name, since, until),
            intervals=history.coverage(spec.name, since, until),
            table_io=history.table_io(spec.name, since, until),
            trials=results.trials(spec.name),
            catalog=definitions,
            gaps=tuple(gaps),
            before=before,
            known=frozenset(history.previous_statements(spec.name, _began(before, until - since)))
            if before
            else frozenset(),
        ),
    )


def _began(before: tuple[datetime, Mapping[str, Any]], length: timedelta) -> datetime:
    """Begin of the last analysis' window. What the history has of that window and the analysis does not know came too late for it."""
    until, document = before
    return datetime.fromisoformat(document["since"]) if "since" in document else until - length


def untold(services: Services, found: analysis.Inventory) -> list[analysis.Change]:
    """The alarms of which nobody was told yet, by whichever run."""
    told = Results(services.engine()).alarmed(found.spec.name) if found.alarms else set()
    return [change for change in found.alarms if not told.issuperset(_alarms(change))]


def told(services: Services, found: analysis.Inventory, run: str, changes: Iterable[analysis.Change]) -> None:
    """Remember that somebody was told."""
    alarms = {alarm for change in changes for alarm in _alarms(change)}
    Results(services.engine()).add_alarmed(found.spec.name, run, found.window.until, alarms)


def _alarms(change: analysis.Change) -> set[Alarm]:
    return {(*change.statement, str(table)) for table in change.writes}


def _definitions_of_any(services: Services, spec: InventorySpec) -> tuple[Catalog, list[Gap]]:
    """The catalog of the first instance that answers; they all have the same definitions.

    Raises what the first one raised when none answers.
    """
    gaps: list[Gap] = []
    failed: MySQLdb.Error | None = None
    for instance in spec.instances:
        try:
            with closing(services.instance(instance.connection)) as conn:
                definitions, found = catalog.read(conn)
        except MySQLdb.Error as error:
            failed = failed or error
            gaps.append(Gap(
                f"definitions on instance {instance.name}", f"{type(error).__name__}: {error}"[:300],
                "start that instance or correct its connection; those of another instance are used until then",
            ))  # fmt: skip
        else:
            return definitions, [*found, *gaps]
    raise failed or ValueError(f"spec {spec.name} names no instance")


def keep(services: Services, found: analysis.Inventory, run: str) -> None:
    """Remember what an analysis concluded, for the next difference. Call it when everybody who must know has been told.

    An analysis of another window than the spec's is not kept.
    """
    if found.window.until - found.window.since == timedelta(days=found.spec.window_days):
        Results(services.engine()).save_analysis(found.spec.name, run, found.window.until, found.document())
