"""The steps of an inventory: take a snapshot of one instance, analyse what the history holds. Operators and tests call these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbops.inventory import analysis, catalog, snapshot, trials
from dbops.inventory.history import History, Recorded
from dbops.inventory.log_sources import CloudWatchLogs, Files, LogSource, LogSourceError, RdsLogs, Reading
from dbops.inventory.logs import LogFormatError
from dbops.inventory.model import Catalog, Gap, Program, Sighting, Snapshot
from dbops.inventory.results import Results
from dbops.inventory.spec import FileLog, InstanceSpec, InventorySpec, Log, RdsLog

if TYPE_CHECKING:
    import sqlalchemy as sa


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


def take_snapshot(services: Services, spec: InventorySpec, name: str, now: datetime, *, full: bool) -> Taken:
    """Read one instance and its logs and add them to the history.

    Args:
        services: connections
        spec: the cluster
        name: of the instance in the spec
        now: naive UTC; the history takes each moment of an instance once
        full: also read the bodies of stored programs and views, and try every new raw text (EXPLAIN here, PREPARE on the 8.0 server)

    Raises:
        MySQLdb.Error: the instance cannot be reached; nothing is recorded
    """
    instance = next(i for i in spec.instances if i.name == name)
    engine = services.engine()
    history, results = History(engine), Results(engine)
    history.migrate()
    read, positions = _read_logs(services, spec, instance, history)
    logged = tuple(s for r in read for s in r.sightings)
    with closing(services.instance(instance.connection)) as conn:
        bodies: tuple[Program, ...] = ()
        gaps: list[Gap] = []
        sent = 0
        own: tuple[Sighting, ...] = ()
        tried: dict[trials.Key, trials.Trial] = {}
        if full:
            found, gaps = catalog.read(conn)
            bodies = programs(found)
            seen = snapshot.take(conn, name, now)
            seen = replace(seen, sightings=(*logged, *seen.sightings))
            tried, sent, own = _try(services, spec, instance, seen, found, results)
        shot = snapshot.take(conn, name, now, catalog_programs=bodies, own_executions=sent)
    if not spec.keep_samples:
        shot = replace(shot, sightings=tuple(s for s in shot.sightings if s.source not in ("sample", "history")))
    shot = replace(
        shot,
        sightings=(*shot.sightings, *own, *logged),
        gaps=(*shot.gaps, *gaps, *(g for r in read for g in r.gaps)),
        log_positions=positions,
    )
    recorded = history.record(spec.name, shot)
    results.add_trials(spec.name, now, tried)
    return Taken(recorded, len(shot.sightings), len(tried), shot.gaps)


def programs(found: Catalog) -> tuple[Program, ...]:
    """Stored programs and, as kind ``view``, views: what has a body."""
    views = (Program("view", ref.schema, ref.table, body) for ref, body in found.views.items() if body)
    return (*found.programs, *views)


def _try(
    services: Services,
    spec: InventorySpec,
    instance: InstanceSpec,
    seen: Snapshot,
    definitions: Catalog,
    results: Results,
) -> tuple[dict[trials.Key, trials.Trial], int, tuple[Sighting, ...]]:
    known = results.trials(spec.name)
    with (
        trials.Explainer(lambda: services.instance(instance.connection)) as explainer,
        _maybe(services, spec.upgrade_connection) as upgraded,
    ):
        tried = trials.run(seen, known, trials.unless_over_views(explainer, definitions), trials.checker(upgraded))
        return tried, explainer.sent, tuple(explainer.own)


class _maybe:
    """A connection that is closed at the end, or None."""

    def __init__(self, services: Services, connection: str | None) -> None:
        self.conn = services.instance(connection) if connection else None

    def __enter__(self) -> Any:
        return self.conn

    def __exit__(self, *exc: object) -> None:
        with suppress(Exception):
            if self.conn is not None:
                self.conn.close()


# -- logs ------------------------------------------------------------------------------------------------------------------------


@dataclass
class _LogRead:
    sightings: list[Sighting]
    gaps: list[Gap]


def _read_logs(
    services: Services, spec: InventorySpec, instance: InstanceSpec, history: History
) -> tuple[list[_LogRead], dict[str, str]]:
    """What the instance's logs have since the last snapshot; a log that cannot be read is a gap and keeps its position."""
    positions = dict(history.log_positions(spec.name, instance.name))
    read = []
    for log in spec.logs:
        if log.instance != instance.name:
            continue
        name = log_name(log)
        reading = Reading(
            _source(services, log), "slow_log" if log.kind == "slow" else "general_log", positions.get(name)
        )
        found = _LogRead([], [])
        try:
            for sighting in _named(reading.sightings(), name):
                found.sightings.append(sighting)  # one by one: what stands before a line that cannot be read is kept
        except LogFormatError as error:
            found.gaps.append(
                Gap(
                    f"the rest of {log.kind} log {name}",
                    str(error),
                    "correct the log's format, or its kind in the spec",
                )
            )
            positions[name] = reading.checkpoint
        except LogSourceError as error:
            found.gaps.append(
                Gap(f"{log.kind} log {name}", str(error), f"correct the entry of logs for {instance.name} in the spec")
            )
        else:
            positions[name] = reading.checkpoint
        found.gaps += reading.gaps
        read.append(found)
    return read, positions


def log_name(log: Log) -> str:
    """What the history calls a log; another place is another log."""
    if isinstance(log, FileLog):
        return f"file:{log.path}"
    if isinstance(log, RdsLog):
        return f"rds:{log.db_instance}:{log.kind}"
    return f"cloudwatch:{log.group}:{log.stream}"


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
    """Everything that the history of (until - window, until] tells, judged; the result is kept for the next difference.

    Args:
        services: connections
        spec: the cluster
        run: dag_id/run_id; the difference is to the last analysis of another run
        until: end of the window, naive UTC
        window_days: instead of the spec's
    """
    engine = services.engine()
    history, results = History(engine), Results(engine)
    history.migrate()
    since = until - timedelta(days=window_days or spec.window_days)
    with closing(services.instance(spec.writer.connection)) as conn:
        definitions, gaps = catalog.read(conn)
    found = analysis.analyse(
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
            before=results.analysis_before(spec.name, run, until),
        ),
    )
    results.save_analysis(spec.name, run, until, found.document())
    return found
