"""The history of every instance in the store (tables ``inventory_*``): snapshots go in, windows of activity come out.

A snapshot adds rows for what changed since the one before, and nothing is changed or deleted, so the history survives what empties the
server's own tables. Statements are known by their own fingerprint beside MySQL's digest, so it survives a version change too. Values are
masked before anything is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import tenacity

from dbops import store
from dbops.inventory.coverage import Coverage
from dbops.inventory.deltas import IO, LOGS
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.model import COUNTERS, Activity, Snapshot, TableRef
from dbops.inventory.past import newest_servers
from dbops.inventory.recording import Recorded as Recorded
from dbops.inventory.recording import Recording
from dbops.inventory.stored import (
    GAUGES,
    IO_KEY,
    IO_READING,
    KEY,
    ORIGIN,
    READING,
    SNAPSHOT,
    TEXT,
    WATCH,
    insert_new,
    io_of,
    is_conflict,
    latest,
    moment,
    to_coverage,
)  # fmt: skip

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "dbops_inventory_version"
STILL_THERE = timedelta(hours=1)
"""For so long after its last snapshot a server belongs to the instance that it was: two that change places are both refused until then."""
TEXT_PRECEDENCE = ("slow_log", "general_log", "sample", "prepared", "history", "routine", "digest")
"""Whose text is shown when several sources know a statement; a whole text comes before a cut one."""


@dataclass(frozen=True)
class Observed:
    """A statement and what it did within a window."""

    schema: str | None
    fingerprint: str
    text: str
    is_digest: bool
    truncated: bool
    activity: Activity


@dataclass(frozen=True)
class Interval:
    """The ledger of one instance between two snapshots."""

    instance: str
    since: datetime | None
    until: datetime
    coverage: Coverage
    version: str
    """Of the server at the end of the interval."""


@dataclass(frozen=True)
class TableActivity:
    """Rows that an instance read and wrote of a table (index None) or through an index ('' = without one) within a window."""

    instance: str
    table: TableRef
    index: str | None
    fetched: int
    inserted: int
    updated: int
    deleted: int
    moved: Mapping[str, tuple[datetime, datetime]]
    """Counter -> the last interval (ever) in which it moved; the first one begins with the server. Absent = never seen moving."""


class LogPositionsMovedError(RuntimeError):
    """Recording would count a portion of a log twice, or lose one; the message names the logs."""


class SecondNameError(RuntimeError):
    """Two instances of a spec are one server, which would be counted twice; the message names them."""


class History:
    """Reads and writes the history. Instances are cheap; the engine pools the connections."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def migrate(self) -> None:
        """Create or upgrade the tables; one query when they are current."""
        store.migrate(self.engine, MIGRATIONS, VERSION_TABLE)

    # -- in ------------------------------------------------------------------------------------------------------------------

    def record(self, spec: str, snapshot: Snapshot, others: Collection[str] = ()) -> Recorded:
        """Add a snapshot, in one transaction; the same (spec, instance, taken_at) again changes nothing.

        Snapshots of an instance come in order: one that is older than the newest adds nothing, since the newer one's differences span it.

        Args:
            spec: name of the spec
            snapshot: of one of its instances
            others: the spec's other instances: none of them may be the same server

        Raises:
            SecondNameError: the server is another instance of the spec; nothing is written
            LogPositionsMovedError: the logs were read from where another snapshot had already begun; nothing is written
        """
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_conflict),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_after_attempt(6),
            reraise=True,
        )
        return retry(self._record, spec, snapshot, others)

    def _record(self, spec: str, snapshot: Snapshot, others: Collection[str]) -> Recorded:
        with self.engine.begin() as connection:
            # All of them in one order, so that two names of one server cannot both be the first.
            for name in sorted({snapshot.instance.name, *others}):
                self._lock_watch(connection, spec, name)
            watch_id = self._lock_watch(connection, spec, snapshot.instance.name)
            newest = connection.execute(
                sa.select(SNAPSHOT.c.snapshot_id, SNAPSHOT.c.coverage)
                .where(SNAPSHOT.c.watch_id == watch_id, SNAPSHOT.c.taken_at >= snapshot.taken_at)
                .order_by(SNAPSHOT.c.taken_at)
                .limit(1)
            ).first()
            if newest is not None:
                known = to_coverage(newest.coverage)
                return Recorded(newest.snapshot_id, False, known, known.resets)
            _refuse_second_name(connection, spec, snapshot, others)
            recording = Recording(connection, spec, watch_id, snapshot)
            _refuse_moved(snapshot, recording.past.state.get("log_positions", {}))
            return recording.run()

    @staticmethod
    def _lock_watch(connection: sa.Connection, spec: str, instance: str) -> int:
        insert_new(connection, WATCH, [{"spec": spec, "instance": instance}])
        found = sa.select(WATCH.c.watch_id).where(WATCH.c.spec == spec, WATCH.c.instance == instance)
        return int(connection.execute(found.with_for_update()).scalar_one())

    # -- out -----------------------------------------------------------------------------------------------------------------

    def window(self, spec: str, since: datetime, until: datetime, *, with_own: bool = False) -> list[Observed]:
        """Every statement that a snapshot with since < taken_at <= until showed, over all instances; our own on request only.

        Executions that digests, prepared statements and a log of an instance all saw are counted once: the source that saw most of them
        is believed. Instances are added up.
        """
        with self.engine.connect() as connection:
            shared = _shared_digests(connection, spec)
            seen = self._readings(spec, since, until, shared).subquery()
            names = [seen.c[name] for name in ("fingerprint", "schema_name", "watch_id", "witness")]
            figures = connection.execute(
                sa.select(
                    *names,
                    *(sa.func.sum(seen.c[name]).label(name) for name in ("executions", *COUNTERS)),
                    *(sa.func.max(seen.c[name]).label(name) for name in GAUGES),
                    sa.func.min(seen.c.since).label("since"),
                    sa.func.max(seen.c.until).label("until"),
                    sa.func.max(seen.c.executions / seen.c.interval_s).label("peak"),
                ).group_by(*names)
            ).mappings()
            grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
            for row in figures:
                grouped[row["fingerprint"], row["schema_name"]].append(dict(row))
            texts = self._texts(connection, spec) | {print_: of.text for print_, of in shared.items()}
            places = self._places(connection, spec, since, until, shared)
            origins = self._origins(connection, spec)
        result = []
        for (print_, schema), rows in sorted(grouped.items()):
            origin = origins.get((print_, schema), {})
            if with_own or "own" not in origin:
                text = texts[print_]
                activity = _activity(rows, places[print_, schema], origin)
                result.append(
                    Observed(
                        schema or None, print_, text["text"], bool(text["is_digest"]), bool(text["truncated"]), activity
                    )
                )
        return result

    def coverage(self, spec: str, since: datetime, until: datetime) -> list[Interval]:
        """The ledgers of the snapshots with since < taken_at <= until, in order of time; sum them with coverage.combined()."""
        query = (
            sa.select(
                WATCH.c.instance, SNAPSHOT.c.previous_at, SNAPSHOT.c.taken_at, SNAPSHOT.c.coverage, SNAPSHOT.c.version
            )
            .join_from(SNAPSHOT, WATCH, SNAPSHOT.c.watch_id == WATCH.c.watch_id)
            .where(WATCH.c.spec == spec, SNAPSHOT.c.taken_at > since, SNAPSHOT.c.taken_at <= until)
            .order_by(SNAPSHOT.c.taken_at, WATCH.c.instance)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Interval(r.instance, r.previous_at, r.taken_at, to_coverage(r.coverage), r.version) for r in rows]

    def log_positions(self, spec: str, instance: str) -> dict[str, str]:
        """Name of each log -> where its next read begins, as the newest snapshot of the instance left it."""
        return dict(self._newest_state(spec, instance).get("log_positions", {}))

    def knows_definitions(self, spec: str, instance: str) -> bool:
        """Whether a snapshot of the instance has tried to read the definitions; before that no digest explains anything."""
        return self._newest_state(spec, instance).get("definitions") is not None

    def _newest_state(self, spec: str, instance: str) -> dict[str, Any]:
        query = (
            sa.select(SNAPSHOT.c.state)
            .join_from(SNAPSHOT, WATCH, SNAPSHOT.c.watch_id == WATCH.c.watch_id)
            .where(WATCH.c.spec == spec, WATCH.c.instance == instance)
            .order_by(SNAPSHOT.c.taken_at.desc())
            .limit(1)
        )
        with self.engine.connect() as connection:
            return dict(connection.execute(query).scalar() or {})

    def table_io(self, spec: str, since: datetime, until: datetime) -> list[TableActivity]:
        """Rows read and written per instance, table and index by snapshots with since < taken_at <= until.

        Every table and index that was ever seen is there, with zeros when nothing moved. What the first snapshot of an instance found
        was counted since its server started: `moved` tells.
        """
        with self.engine.connect() as connection:
            found = []
            for watch_id, instance, last in self._watches(connection, spec, SNAPSHOT.c.taken_at <= until):
                sums = self._io_sums(connection, watch_id, since, until)
                newest = latest(IO_READING, IO_READING.c.io_key_id, IO_KEY.c.io_key_id, last)
                query = (
                    sa.select(IO_KEY, IO_READING.c.moved)
                    .join_from(
                        IO_KEY,
                        IO_READING,
                        sa.and_(IO_READING.c.io_key_id == IO_KEY.c.io_key_id, IO_READING.c.snapshot_id == newest),
                    )
                    .where(IO_KEY.c.watch_id == watch_id)
                    .order_by(IO_KEY.c.table_schema, IO_KEY.c.table_name, IO_KEY.c.index_name)
                )
                for row in connection.execute(query):
                    name, counts = io_of(row, (0, 0, 0, 0)), sums.get(row.io_key_id, dict.fromkeys(IO, 0))
                    moved = {counter: (moment(first), moment(last_)) for counter, (first, last_) in row.moved.items()}
                    found.append(TableActivity(instance, name.table, name.index, **counts, moved=moved))
        return found

    @staticmethod
    def _io_sums(
        connection: sa.Connection, watch_id: int, since: datetime, until: datetime
    ) -> dict[int, dict[str, int]]:
        query = (
            sa.select(IO_READING.c.io_key_id, *(sa.func.sum(IO_READING.c[name]).label(name) for name in IO))
            .join_from(IO_READING, SNAPSHOT, SNAPSHOT.c.snapshot_id == IO_READING.c.snapshot_id)
            .where(SNAPSHOT.c.watch_id == watch_id, SNAPSHOT.c.taken_at > since, SNAPSHOT.c.taken_at <= until)
            .group_by(IO_READING.c.io_key_id)
        )
        return {row["io_key_id"]: {name: int(row[name]) for name in IO} for row in connection.execute(query).mappings()}

    def previous_statements(self, spec: str, before: datetime) -> dict[tuple[str | None, str], datetime | None]:
        """(schema, fingerprint) of every statement that a snapshot before that moment showed -> when it was last seen running."""
        found: dict[tuple[str, str], datetime | None] = {}
        with self.engine.connect() as connection:
            own = {names for names, kinds in self._origins(connection, spec).items() if "own" in kinds}
            for watch_id, _, last in self._watches(connection, spec, SNAPSHOT.c.taken_at < before):
                newest = latest(READING, READING.c.key_id, KEY.c.key_id, last)
                query = (
                    sa.select(KEY.c.schema_name, KEY.c.fingerprint, READING.c.until)
                    .join_from(KEY, READING, sa.and_(READING.c.key_id == KEY.c.key_id, READING.c.snapshot_id == newest))
                    .where(KEY.c.watch_id == watch_id)
                )
                for row in connection.execute(query):
                    name = (row.fingerprint, row.schema_name)
                    if name not in own:
                        found[name] = max(filter(None, (found.get(name), row.until)), default=None)
        return {(schema or None, print_): seen for (print_, schema), seen in found.items()}

    @staticmethod
    def _watches(connection: sa.Connection, spec: str, condition: sa.ColumnElement[bool]) -> list[tuple[int, str, int]]:
        """(watch, instance, newest snapshot that fulfils the condition); within a watch, snapshots are numbered in order of time."""
        query = (
            sa.select(WATCH.c.watch_id, WATCH.c.instance, sa.func.max(SNAPSHOT.c.snapshot_id))
            .join_from(WATCH, SNAPSHOT, SNAPSHOT.c.watch_id == WATCH.c.watch_id)
            .where(WATCH.c.spec == spec, condition)
            .group_by(WATCH.c.watch_id, WATCH.c.instance)
            .order_by(WATCH.c.instance)
        )
        return [(int(row[0]), row[1], int(row[2])) for row in connection.execute(query)]

    @staticmethod
    def _window(query: sa.Select[Any], spec: str, since: datetime, until: datetime) -> sa.Select[Any]:
        return (
            query.join_from(READING, KEY, KEY.c.key_id == READING.c.key_id)
            .join(WATCH, WATCH.c.watch_id == KEY.c.watch_id)
            .join(SNAPSHOT, SNAPSHOT.c.snapshot_id == READING.c.snapshot_id)
            .where(WATCH.c.spec == spec, SNAPSHOT.c.taken_at > since, SNAPSHOT.c.taken_at <= until)
        )

    def _readings(self, spec: str, since: datetime, until: datetime, shared: Mapping[str, _Shared]) -> sa.Select[Any]:
        """Sums per statement, witness and snapshot; digests and prepared statements are one witness, each log another."""
        witness = sa.case((KEY.c.source.in_(LOGS), KEY.c.source), else_="counters")
        print_ = _print_of(shared)
        names = (
            print_.label("fingerprint"), KEY.c.schema_name, KEY.c.watch_id, witness.label("witness"), READING.c.snapshot_id,
        )  # fmt: skip
        query = sa.select(
            *names,
            *(sa.func.sum(READING.c[name]).label(name) for name in ("executions", *COUNTERS)),
            *(sa.func.max(READING.c[name]).label(name) for name in (*GAUGES, "interval_s")),
            sa.func.min(READING.c.since).label("since"),
            sa.func.max(READING.c.until).label("until"),
        )
        return self._window(query, spec, since, until).group_by(print_, *names[1:3], witness, READING.c.snapshot_id)

    def _places(
        self, connection: sa.Connection, spec: str, since: datetime, until: datetime, shared: Mapping[str, _Shared]
    ) -> dict[tuple[str, str], set[tuple[str, str]]]:
        """(instance, source) per statement."""
        print_ = _print_of(shared).label("fingerprint")
        query = sa.select(print_, KEY.c.schema_name, WATCH.c.instance, KEY.c.source).distinct()
        found: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        for row in connection.execute(self._window(query, spec, since, until)):
            found[row.fingerprint, row.schema_name].add((row.instance, row.source))
        return found

    @staticmethod
    def _texts(connection: sa.Connection, spec: str) -> dict[str, Mapping[str, Any]]:
        """The best text per fingerprint."""
        best: dict[str, Mapping[str, Any]] = {}
        for row in connection.execute(sa.select(TEXT).where(TEXT.c.spec == spec)).mappings():
            known = best.get(row["fingerprint"])
            if known is None or _rank(dict(row)) < _rank(known):
                best[row["fingerprint"]] = dict(row)
        return best

    @staticmethod
    def _origins(connection: sa.Connection, spec: str) -> dict[tuple[str, str], dict[str, set[str]]]:
        found: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for row in connection.execute(sa.select(ORIGIN).where(ORIGIN.c.spec == spec)):
            found[row.fingerprint, row.schema_name][row.kind].add(row.value)
        return found


@dataclass(frozen=True)
class _Shared:
    """A cut digest of which several whole texts were seen."""

    text: Mapping[str, Any]
    key_ids: list[int]


def _shared_digests(connection: sa.Connection, spec: str) -> dict[str, _Shared]:
    """Fingerprint of the cut text -> digests that have the identity of the first whole sample, and are that of other statements too.

    What they count is nobody's in particular.
    """
    texts = sa.and_(TEXT.c.spec == WATCH.c.spec, TEXT.c.fingerprint == KEY.c.fingerprint, TEXT.c.source == KEY.c.source)
    query = (
        sa.select(KEY.c.key_id, KEY.c.digest, KEY.c.schema_name, KEY.c.fingerprint, TEXT.c.text, TEXT.c.is_digest, TEXT.c.truncated)
        .join_from(KEY, WATCH, KEY.c.watch_id == WATCH.c.watch_id)
        .join(TEXT, texts)
        .where(WATCH.c.spec == spec, KEY.c.digest.is_not(None))
    )  # fmt: skip
    whole: dict[tuple[str, str], set[str]] = defaultdict(set)
    cut = sa.and_(KEY.c.source == "digest", TEXT.c.truncated)
    digests = connection.execute(query.where(cut)).all()
    if not digests:
        return {}
    for row in connection.execute(query.where(KEY.c.source.in_(("sample", "history")), sa.not_(TEXT.c.truncated))):
        whole[row.digest, row.schema_name].add(row.fingerprint)
    found: dict[str, _Shared] = {}
    for row in digests:
        known = whole[row.digest, row.schema_name]
        if len(known) > 1 and row.fingerprint in known:
            print_ = fingerprint(row.text, is_digest=True, truncated=True)
            text = {"text": row.text, "is_digest": row.is_digest, "truncated": row.truncated}
            found.setdefault(print_, _Shared(text, [])).key_ids.append(row.key_id)
    return found


def _print_of(shared: Mapping[str, _Shared]) -> sa.ColumnElement[Any]:
    if not shared:
        return KEY.c.fingerprint
    return sa.case(*((KEY.c.key_id.in_(of.key_ids), print_) for print_, of in shared.items()), else_=KEY.c.fingerprint)


def _refuse_second_name(connection: sa.Connection, spec: str, snapshot: Snapshot, others: Collection[str]) -> None:
    now = snapshot.instance
    for name, server in newest_servers(connection, spec, but=now.name).items():
        if name in others and server.is_same(now) and snapshot.taken_at - server.at <= STILL_THERE:
            raise SecondNameError(
                f"instance {now.name} is the server of instance {name} (server_uuid {now.server_uuid}): it would be counted twice; nothing"
                " was recorded. Let each connection name the endpoint of one instance, or take one of the two out of the spec"
            )


def _refuse_moved(snapshot: Snapshot, stored: Mapping[str, str]) -> None:
    before = snapshot.log_positions_before
    if before is None:
        return
    moved = sorted(log for log in snapshot.log_positions if before.get(log) != stored.get(log))
    if moved:
        raise LogPositionsMovedError(
            f"instance {snapshot.instance.name}, snapshot of {snapshot.taken_at:%Y-%m-%d %H:%M:%S} UTC: another snapshot has read"
            f" {', '.join(moved)} meanwhile; nothing was recorded, take the snapshot again"
        )


def _activity(
    rows: Sequence[Mapping[str, Any]], places: Iterable[tuple[str, str]], origin: Mapping[str, Collection[str]]
) -> Activity:
    of_instance: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        known = of_instance.get(row["watch_id"])
        if known is None or (row["executions"] or 0) > (known["executions"] or 0):
            of_instance[row["watch_id"]] = row
    best = list(of_instance.values())
    peaks = [float(row["peak"]) for row in rows if row["peak"] is not None]
    instances, sources = zip(*places, strict=True)
    return Activity(
        executions=sum(int(row["executions"] or 0) for row in best),
        first_seen=min((row["since"] for row in rows if row["since"]), default=None),
        last_seen=max((row["until"] for row in rows if row["until"]), default=None),
        instances=frozenset(instances),
        sources=frozenset(sources),
        users=frozenset(origin.get("user", ())),
        callers=frozenset(origin.get("caller", ())),
        programs=frozenset(origin.get("program", ())),
        counters={name: sum(float(row[name]) for row in best if row[name] is not None) for name in COUNTERS
                  if any(row[name] is not None for row in best)},
        gauges={name: max(float(row[name]) for row in rows if row[name] is not None) for name in GAUGES
                if any(row[name] is not None for row in rows)},
        peak_per_second=max(peaks, default=None),
    )  # fmt: skip


def _rank(row: Mapping[str, Any]) -> tuple[bool, int]:
    return bool(row["truncated"]), TEXT_PRECEDENCE.index(row["source"])
