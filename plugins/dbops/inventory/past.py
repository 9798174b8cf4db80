"""What the store knows of an instance before a snapshot, and what the snapshot leaves for the next one to be compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dbops.inventory.deltas import IO, START_JITTER
from dbops.inventory.model import Instance, Sighting, Snapshot, TableIo, hides_views
from dbops.inventory.stored import (
    IO_KEY,
    IO_READING,
    KEY,
    READING,
    SNAPSHOT,
    WATCH,
    Span,
    chunks,
    io_of,
    latest,
    moment,
    when,
)


@dataclass(frozen=True)
class Known:
    """A statement as a source of the instance names it."""

    key_id: int
    fingerprint: str
    last_seen: datetime | None = None


@dataclass
class Past:
    """What the store knows of an instance before a snapshot; ``previous`` has what can be compared, None before the first counters."""

    previous: Snapshot | None
    state: Mapping[str, Any]
    """What the newest snapshot left."""
    keys: dict[tuple[str, str], Known]
    io_keys: dict[TableIo, int]
    """By table and index, counters zero."""
    io_moved: dict[TableIo, dict[str, list[str]]]
    digest_epoch: int | None = None
    server_epoch: int | None = None
    last_id: int = 0
    """Number of the newest snapshot."""
    counted: Mapping[str, Any] = field(default_factory=dict)
    """What the snapshot left that `previous` is made of: the newest, or the last before another server took over for a while."""
    came_back: bool = False
    """The server answers again under this name, after another one: it has counted on from `previous`."""


def read_past(connection: sa.Connection, watch_id: int, snapshot: Snapshot) -> Past:
    """Read what `snapshot` has to be compared with.

    Digests are those of the digest table as it was last seen: what a reset swept away before that is history, not a row that vanished.
    """
    query = sa.select(SNAPSHOT).where(SNAPSHOT.c.watch_id == watch_id).order_by(SNAPSHOT.c.taken_at.desc()).limit(1)
    last = connection.execute(query).first()
    state: Mapping[str, Any] = last.state if last else {}
    keys = _known_keys(connection, watch_id, {name_of(s) for s in snapshot.sightings if s.source != "digest"})
    if last is None or "at" not in state:
        return Past(None, state, keys, known_io(connection, watch_id), {})
    base = _when_it_left(connection, watch_id, snapshot, state)
    came_back, base = base is not None, last if base is None else base
    counted = base.state
    spans = _spans(state.get("servers", {}).get(counted["server_uuid"], {}), closed=came_back)
    epoch = base.digest_epoch or base.snapshot_id
    server_epoch = base.server_epoch or base.snapshot_id
    digests = []
    live = latest(READING, READING.c.key_id, KEY.c.key_id, spans=spans)
    rows = (
        sa.select(KEY.c.key_id, KEY.c.source_key, KEY.c.schema_name, KEY.c.fingerprint, KEY.c.digest, READING)
        .join_from(KEY, READING, sa.and_(READING.c.key_id == KEY.c.key_id, READING.c.snapshot_id == live))
        .where(KEY.c.watch_id == watch_id, KEY.c.source == "digest")
    )
    for row in connection.execute(rows).mappings():
        keys["digest", row["source_key"]] = Known(row["key_id"], row["fingerprint"])
        if row["snapshot_id"] >= epoch:
            digests.append(_old_digest(dict(row)))
    texts = [
        Sighting(source, key, "", last_seen=known.last_seen) for (source, key), known in keys.items() if source != "digest"  # type: ignore[arg-type]
    ]  # fmt: skip
    prepared = [
        Sighting("prepared", key, "", executions=int(old["n"]), counters=old["c"]) for key, old in counted["prepared"].items()
    ]  # fmt: skip
    table_io, moved = _old_io(connection, watch_id, server_epoch, spans)
    previous = Snapshot(
        instance=Instance(snapshot.instance.name, base.version, counted["server_uuid"], moment(counted["started_at"]),
                          base.read_only, base.settings),
        taken_at=moment(counted["at"]),
        sightings=(*digests, *prepared, *(t for t in texts if t.source != "prepared")),
        table_io=table_io,
        **{name: counted[name] for name in _COUNTED},
    )  # fmt: skip
    return Past(
        previous, state, keys, known_io(connection, watch_id), moved, epoch, server_epoch, last.snapshot_id, counted, came_back
    )  # fmt: skip


def is_same_start(server: Mapping[str, Any], now: Instance) -> bool:
    """Whether a server that is remembered has not been restarted since."""
    return abs(now.started_at - moment(server["started_at"])) <= START_JITTER


@dataclass(frozen=True)
class Answered:
    """What the newest snapshot of an instance left."""

    state: Mapping[str, Any]
    hostname: str | None

    def is_same(self, now: Instance) -> bool:
        """Whether the server that answered last is that of a snapshot."""
        uuid, host = self.state["server_uuid"] == now.server_uuid, now.settings.get("hostname")
        return uuid and is_same_start(self.state, now) and self.hostname in (None, host)

    @property
    def at(self) -> datetime:
        """When it did."""
        return moment(self.state["at"])

    def counted_until(self, now: Instance) -> datetime | None:
        """When the server of a snapshot answered last, if ever and without a restart since."""
        known = self.state.get("servers", {}).get(now.server_uuid)
        return moment(known["at"]) if known and is_same_start(known, now) else None


def newest_servers(connection: sa.Connection, spec: str, *, but: str) -> dict[str, Answered]:
    """What is known of the servers of each instance of the spec, other than `but`."""
    newest = (
        sa.select(sa.func.max(SNAPSHOT.c.snapshot_id))
        .join_from(WATCH, SNAPSHOT, SNAPSHOT.c.watch_id == WATCH.c.watch_id)
        .where(WATCH.c.spec == spec, WATCH.c.instance != but)
        .group_by(WATCH.c.watch_id)
    )
    query = (
        sa.select(WATCH.c.instance, SNAPSHOT.c.state, SNAPSHOT.c.settings)
        .join_from(WATCH, SNAPSHOT, SNAPSHOT.c.watch_id == WATCH.c.watch_id)
        .where(SNAPSHOT.c.snapshot_id.in_(newest))
    )
    return {
        row.instance: Answered(row.state, row.settings.get("hostname"))
        for row in connection.execute(query)
        if "at" in row.state
    }


def _when_it_left(connection: sa.Connection, watch_id: int, snapshot: Snapshot, state: Mapping[str, Any]) -> Any:
    """The last snapshot of this server before another one answered under the name; None: it does not come back."""
    uuid = snapshot.instance.server_uuid
    known = state.get("servers", {}).get(uuid)
    if "statements" not in snapshot.read or known is None or state["server_uuid"] == uuid:
        return None
    if "spans" not in known or not is_same_start(known, snapshot.instance):
        return None
    query = sa.select(SNAPSHOT).where(SNAPSHOT.c.watch_id == watch_id, SNAPSHOT.c.taken_at == moment(known["at"]))
    return connection.execute(query).first()


def _spans(server: Mapping[str, Any], *, closed: bool) -> list[Span]:
    """Where the readings of a server lie; empty: everywhere."""
    spans: list[Span] = [(after, last) for after, last in server.get("spans", ())]
    now: list[Span] = [] if closed else [(server.get("after", 0), None)]
    return [*spans, *now] if spans or server.get("after") else []


def _known_keys(
    connection: sa.Connection, watch_id: int, names: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Known]:
    by_source: dict[str, list[str]] = defaultdict(list)
    for source, key in sorted(names):
        by_source[source].append(key)
    newest = latest(READING, READING.c.key_id, KEY.c.key_id)
    readings = sa.and_(READING.c.key_id == KEY.c.key_id, READING.c.snapshot_id == newest)
    found = {}
    for source, listed in by_source.items():
        for chunk in chunks(listed):
            query = (
                sa.select(KEY, READING.c.until)
                .outerjoin_from(KEY, READING, readings)
                .where(KEY.c.watch_id == watch_id, KEY.c.source == source, KEY.c.source_key.in_(chunk))
            )
            for row in connection.execute(query):
                found[source, row.source_key] = Known(row.key_id, row.fingerprint, row.until)
    return found


def _old_digest(row: Mapping[str, Any]) -> Sighting:
    total = row["total"]
    return Sighting(
        "digest", row["source_key"], "", row["schema_name"] or None, is_digest=True, digest=row["digest"], executions=int(total["n"]),
        counters=total["c"], first_seen=when(total["f"]),
    )  # fmt: skip


def total_of(sighting: Sighting) -> dict[str, Any]:
    """Cumulative counters of a digest, for the next comparison."""
    return {
        "n": sighting.executions,
        "c": {name: value for name, value in sighting.counters.items() if value},
        "f": sighting.first_seen.isoformat() if sighting.first_seen else None,
    }


_COUNTED = (
    "event_counts", "event_errors", "digest_lost", "null_row", "program_counts", "own_executions", "own_after", "connection_id",
    "program_statements",
)  # fmt: skip


def state_of(snapshot: Snapshot, old: Mapping[str, Any]) -> dict[str, Any]:
    """Counters for the next comparison; of a source that was not read, those of before."""
    state = {name: _plain(getattr(snapshot, name)) for name in _COUNTED}
    prepared = {
        s.key: {"n": s.executions, "c": {k: v for k, v in s.counters.items() if v}}
        for s in snapshot.sightings
        if s.source == "prepared" and s.executions
    }
    for source, names in (("prepared", ("prepared",)), ("programs", ("program_counts", "program_statements"))):
        if source not in snapshot.read:
            state |= {name: old.get(name, {}) for name in names}
            prepared = old.get("prepared", {}) if source == "prepared" else prepared
    return {
        **state,
        "prepared": prepared,
        "at": snapshot.taken_at.isoformat(),
        "table_io_at": snapshot.taken_at.isoformat() if "table_io" in snapshot.read else old.get("table_io_at"),
        "server_uuid": snapshot.instance.server_uuid,
        "started_at": snapshot.instance.started_at.isoformat(),
    }


def state_unmeasured(snapshot: Snapshot, old: Mapping[str, Any]) -> dict[str, Any]:
    """The counters of before; only our own statements go on."""
    sent = snapshot.own_executions + snapshot.own_after
    return {**old, "own_after": old["own_after"] + sent} if "own_after" in old else dict(old)


def definitions_of(snapshot: Snapshot, old: Mapping[str, Any]) -> bool | None:
    """Whether all definitions of views are known: as this snapshot says, or the last that read them; None: nobody has said."""
    if snapshot.definitions_read:
        return True
    if any(map(hides_views, snapshot.gaps)):
        return False
    known: bool | None = old.get("definitions")
    return known


def servers_of(snapshot: Snapshot, past: Past) -> dict[str, Any]:
    """Each server that was read under this name: its start, when that last was, and (since its start) which snapshots are its own.

    ``after`` is the number of the snapshot before those that it has had since it last took over, ``spans`` has former turns.
    """
    now, servers = snapshot.instance, dict(past.state.get("servers", {}))
    if "statements" not in snapshot.read:
        return servers
    mine = servers.get(now.server_uuid, {})
    former = past.state.get("server_uuid", now.server_uuid)
    if former != now.server_uuid and former in servers:
        left = servers[former]
        servers[former] = {**left, "spans": [*left.get("spans", ()), [left.get("after", 0), past.last_id]]}
    goes_on = bool(mine) and is_same_start(mine, now)
    servers[now.server_uuid] = {
        "started_at": now.started_at.isoformat(),
        "at": snapshot.taken_at.isoformat(),
        "after": mine.get("after", 0) if goes_on and former == now.server_uuid else past.last_id,
        "spans": mine.get("spans", []) if goes_on else [],
    }
    return servers


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def io_name(io: TableIo) -> TableIo:
    """Table and index alone."""
    return TableIo(io.table, io.index, 0, 0, 0, 0)


def known_io(connection: sa.Connection, watch_id: int) -> dict[TableIo, int]:
    """Numbers of the tables and indexes that the instance ever showed."""
    rows = connection.execute(sa.select(IO_KEY).where(IO_KEY.c.watch_id == watch_id))
    return {io_of(row, (0, 0, 0, 0)): row.io_key_id for row in rows}


def _old_io(
    connection: sa.Connection, watch_id: int, epoch: int, spans: Sequence[Span]
) -> tuple[tuple[TableIo, ...], dict[TableIo, dict[str, list[str]]]]:
    """Cumulative counters as last stored since the server's start (what it has not opened since counts from zero), and last moves."""
    newest = _io_readings(connection, watch_id, ())
    counters = _io_readings(connection, watch_id, spans) if spans else newest
    return (
        tuple(io_of(row, row[3:7]) for row in counters if row.snapshot_id >= epoch),
        {io_of(row, (0, 0, 0, 0)): dict(row.moved) for row in newest},
    )


def _io_readings(connection: sa.Connection, watch_id: int, spans: Sequence[Span]) -> Sequence[Any]:
    """The newest of every table and index."""
    newest = latest(IO_READING, IO_READING.c.io_key_id, IO_KEY.c.io_key_id, spans=spans)
    query = (
        sa.select(IO_KEY.c.table_schema, IO_KEY.c.table_name, IO_KEY.c.index_name, *(IO_READING.c[f"{name}_total"] for name in IO),
                  IO_READING.c.snapshot_id, IO_READING.c.moved)
        .join_from(IO_KEY, IO_READING, sa.and_(IO_READING.c.io_key_id == IO_KEY.c.io_key_id, IO_READING.c.snapshot_id == newest))
        .where(IO_KEY.c.watch_id == watch_id)
    )  # fmt: skip
    return connection.execute(query).all()


def name_of(sighting: Sighting) -> tuple[str, str]:
    """(source, key) as stored: a prepared statement is its text and schema, whichever session has it open."""
    if sighting.source != "prepared":
        return sighting.source, sighting.key
    parts = sighting.key.split(":")
    return "prepared", ":".join(filter(None, (parts[0], sighting.schema, *parts[3:])))
