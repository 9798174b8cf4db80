"""One snapshot on its way into the store: differences, ledger, and a row for everything that is new or moved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dbops.inventory import text as sqltext
from dbops.inventory.coverage import Coverage, coverage, with_logs
from dbops.inventory.deltas import IO, LOGS, Delta, Deltas, IoDelta, deltas, is_first_sight
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.model import COUNTERS, Gap, Sighting, Snapshot
from dbops.inventory.past import (
    Known,
    Past,
    definitions_of,
    io_name,
    is_same_start,
    known_io,
    name_of,
    newest_servers,
    read_past,
    servers_of,
    state_of,
    state_unmeasured,
    total_of,
)
from dbops.inventory.stored import (
    GAUGES,
    IO_KEY,
    IO_READING,
    KEY,
    NO_SCHEMA,
    ORIGIN,
    READING,
    SNAPSHOT,
    TEXT,
    WATCH,
    WHOLE_TABLE,
    chunks,
    from_coverage,
    insert_new,
    moment,
    when,
)  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """What a snapshot added. ``is_new`` is False when it, or a newer one of the instance, was there: then nothing was written."""

    snapshot_id: int
    is_new: bool
    coverage: Coverage
    resets: tuple[str, ...] = ()
    new_statements: int = 0
    """Statements that no instance of the spec had shown before."""
    readings: int = 0


class Recording:
    """One snapshot on its way into the store, within a transaction that holds the instance's lock."""

    def __init__(self, connection: sa.Connection, spec: str, watch_id: int, snapshot: Snapshot) -> None:
        self.connection, self.spec, self.watch_id = connection, spec, watch_id
        snapshot = placed(snapshot)
        self.past = read_past(connection, watch_id, snapshot)
        self.definitions = definitions_of(snapshot, self.past.state)
        snapshot = replace(
            snapshot,
            gaps=(
                *snapshot.gaps,
                *_came_back(snapshot, self.past),
                *_counted_again(snapshot, self.past),
                *self._renamed(snapshot),
            ),
        )
        self.prints = self._fingerprints(snapshot)
        self.snapshot = self._marked(snapshot)
        self.measured = "statements" in snapshot.read
        self.snapshot_id = 0

    def run(self) -> Recorded:
        """Add it; the caller's transaction commits."""
        past, snapshot = self.past, self.snapshot
        found = deltas(past.previous, snapshot)
        ledger = coverage(
            past.previous, snapshot, programs=self._known_programs(), building=self._building_programs(),
            definitions_known=self._definitions_known(),
        )  # fmt: skip
        ledger = with_logs(ledger, self._only_in_logs(found))
        reset = tuple(map(str, found.resets))
        if past.came_back:
            uuid = snapshot.instance.server_uuid
            reset = (*reset, f"server: server_uuid is {uuid} again: another one had taken over")
            lost = snapshot.taken_at - moment(past.state["at"])
            ledger = replace(ledger, resets=reset, unmeasured_s=ledger.unmeasured_s + max(lost.total_seconds(), 0.0))
        self.snapshot_id = self._insert_snapshot(found, ledger)
        new_keys = self._insert_keys()
        new_statements = self._insert_texts(new_keys)
        self._insert_origins()
        readings = self._insert_readings(found)
        if self.measured:
            self._insert_io(found.table_io)
        return Recorded(self.snapshot_id, True, ledger, reset, new_statements, readings)

    # -- before --------------------------------------------------------------------------------------------------------------

    def _fingerprints(self, snapshot: Snapshot) -> dict[tuple[str, str], str]:
        """Per stored key: what the store knows, or computed for what is new.

        A digest that was cut takes the identity of its sample, when that is whole.
        """
        whole = {(s.schema, s.digest): s for s in snapshot.sightings if s.source == "sample" and not s.truncated}
        prints = {}
        for sighting in snapshot.sightings:
            name = name_of(sighting)
            if name in prints:
                continue
            if known := self.past.keys.get(name):
                prints[name] = known.fingerprint
                continue
            source = sighting
            if sighting.source == "digest" and sighting.truncated:
                source = whole.get((sighting.schema, sighting.digest), sighting)
            prints[name] = fingerprint(source.text, is_digest=source.is_digest, truncated=source.truncated)
        return prints

    def _marked(self, snapshot: Snapshot) -> Snapshot:
        """With what the store has learned: which statements are ours, and which digests are those of a view's body."""
        own = self._own() | {(self.prints[name_of(s)], s.schema or NO_SCHEMA) for s in snapshot.sightings if s.own}
        views = self._views(snapshot)
        sightings = []
        for sighting in snapshot.sightings:
            print_ = self.prints[name_of(sighting)]
            changes: dict[str, Any] = {}
            if not sighting.own and (print_, sighting.schema or NO_SCHEMA) in own:
                changes["own"] = True
            if sighting.source == "digest" and print_ in views:
                changes["program"] = views[print_]
            sightings.append(replace(sighting, **changes) if changes else sighting)
        return replace(snapshot, sightings=tuple(sightings))

    def _renamed(self, snapshot: Snapshot) -> Iterator[Gap]:
        """The server had another name: what it counts was counted under that one too."""
        if not is_first_sight(self.past.previous, snapshot):
            return
        for name, server in newest_servers(self.connection, self.spec, but=snapshot.instance.name).items():
            if until := server.counted_until(snapshot.instance):
                yield Gap(
                    "executions that are counted twice", f"server {snapshot.instance.server_uuid} was instance {name} until"
                    f" {until:%Y-%m-%d %H:%M:%S} UTC: what it had counted until then is counted again",
                    "keep the name of an instance when its endpoint changes", "none",
                )  # fmt: skip

    def _own(self) -> set[tuple[str, str]]:
        query = sa.select(ORIGIN.c.fingerprint, ORIGIN.c.schema_name).where(
            ORIGIN.c.spec == self.spec, ORIGIN.c.kind == "own"
        )
        return {(row.fingerprint, row.schema_name) for row in self.connection.execute(query)}

    def _views(self, snapshot: Snapshot) -> dict[str, str]:
        query = self._bodies().where(KEY.c.program.like("view %"))
        found = {row.fingerprint: row.program for row in self.connection.execute(query)}
        for sighting in snapshot.sightings:
            if sighting.source == "routine" and (sighting.program or "").startswith("view "):
                found[self.prints[name_of(sighting)]] = sighting.program
        return found

    def _known_programs(self) -> set[str]:
        return {row.program for row in self.connection.execute(self._bodies())}

    def _building_programs(self) -> set[str]:
        """Those that PREPARE and EXECUTE what they have put together."""
        text = sa.func.upper(TEXT.c.text)
        query = (
            self._bodies()
            .join(TEXT, sa.and_(TEXT.c.spec == WATCH.c.spec, TEXT.c.fingerprint == KEY.c.fingerprint))
            .where(TEXT.c.source == "routine", sa.or_(text.like("PREPARE %"), text.like("EXECUTE %")))
        )
        return {row.program for row in self.connection.execute(query)}

    def _definitions_known(self) -> bool:
        """Whether the bodies of all views are known; until then any digest may be that of a statement over a view."""
        if self.definitions is not None:
            return self.definitions
        return any(s.source == "routine" for s in self.snapshot.sightings) or bool(self._known_programs())

    def _bodies(self) -> sa.Select[Any]:
        return (
            sa.select(KEY.c.program, KEY.c.fingerprint)
            .join_from(KEY, WATCH, KEY.c.watch_id == WATCH.c.watch_id)
            .where(WATCH.c.spec == self.spec, KEY.c.source == "routine")
        )

    def _only_in_logs(self, found: Deltas) -> int:
        """Executions of this interval that only a log shows; where two logs know a statement, the larger figure.

        What any digest names is none of them: a log has no less of it. Nor is what began before the interval, which belongs to the gaps of
        another one, if to any.
        """
        named: set[str] = set()
        counted: Counter[str] = Counter()
        logged: dict[str, Counter[str]] = defaultdict(Counter)
        for sighting in self.snapshot.sightings:
            if sighting.source == "digest" and not (sighting.program or "").startswith("view "):
                named.add(self.prints[name_of(sighting)])
        for delta in found.items:
            sighting, executions = delta.sighting, delta.executions or 0
            print_ = self.prints[name_of(sighting)]
            if sighting.source in LOGS and not sighting.own and self._within(sighting, found):
                logged[sighting.source][print_] += executions
            elif sighting.source == "prepared":
                counted[print_] += executions
        largest = {p: max(of_log[p] for of_log in logged.values()) for of_log in logged.values() for p in of_log}
        return sum(max(count - counted[p], 0) for p, count in largest.items() if p not in named)

    def _within(self, sighting: Sighting, found: Deltas) -> bool:
        """Whether the counters' interval has all that a log shows of a statement."""
        previous, since = self.past.previous, self.snapshot.instance.started_at
        if previous is not None:
            since = max(since, previous.taken_at) if found.was_reset("server") else previous.taken_at
        first, last = sighting.first_seen, sighting.last_seen
        return first is not None and last is not None and since <= first and last <= self.snapshot.taken_at

    # -- rows ----------------------------------------------------------------------------------------------------------------

    def _insert_snapshot(self, found: Deltas, ledger: Coverage) -> int:
        past, snapshot = self.past, self.snapshot
        fresh = past.previous is None or found.was_reset("server")
        result = self.connection.execute(
            sa.insert(SNAPSHOT).values(
                watch_id=self.watch_id,
                taken_at=snapshot.taken_at,
                previous_at=ledger.since,
                version=snapshot.instance.version,
                read_only=snapshot.instance.read_only,
                digest_epoch=None if self.measured and (fresh or found.was_reset("digests")) else past.digest_epoch,
                server_epoch=None if self.measured and fresh else past.server_epoch,
                state={
                    **(state_of(snapshot, past.counted) if self.measured else state_unmeasured(snapshot, past.state)),
                    "definitions": self.definitions,
                    "servers": servers_of(snapshot, past),
                    "log_positions": {**past.state.get("log_positions", {}), **snapshot.log_positions},
                },
                settings=dict(snapshot.instance.settings),
                coverage=from_coverage(ledger),
            )
        )
        return int(result.lastrowid)

    def _insert_keys(self) -> set[tuple[str, str]]:
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for sighting in self.snapshot.sightings:
            name = name_of(sighting)
            if name not in self.past.keys and name not in rows:
                rows[name] = {
                    "watch_id": self.watch_id, "source": name[0], "source_key": name[1], "schema_name": sighting.schema or NO_SCHEMA,
                    "fingerprint": self.prints[name], "digest": sighting.digest, "program": (sighting.program or "")[:200] or None,
                    "snapshot_id": self.snapshot_id,
                }  # fmt: skip
        if rows:
            self.connection.execute(sa.insert(KEY), list(rows.values()))
            mine = sa.select(KEY).where(KEY.c.watch_id == self.watch_id, KEY.c.snapshot_id == self.snapshot_id)
            for row in self.connection.execute(mine):
                self.past.keys[row.source, row.source_key] = Known(row.key_id, row.fingerprint)
        return set(rows)

    def _insert_texts(self, new_keys: Collection[tuple[str, str]]) -> int:
        """Masked texts of new keys; the number of fingerprints that the spec did not have."""
        rows: dict[tuple[str, str, bool], dict[str, Any]] = {}
        for sighting in self.snapshot.sightings:
            name = name_of(sighting)
            if name in new_keys:
                text, cut = _stored_text(sighting)
                row: dict[str, Any] = {
                    "spec": self.spec, "fingerprint": self.prints[name], "source": sighting.source, "truncated": cut,
                    "is_digest": sighting.is_digest, "text": text, "snapshot_id": self.snapshot_id,
                }  # fmt: skip
                rows.setdefault((row["fingerprint"], row["source"], row["truncated"]), row)
        prints = {row["fingerprint"] for row in rows.values()}
        known: set[str] = set()
        for chunk in chunks(sorted(prints)):
            query = sa.select(TEXT.c.fingerprint).where(TEXT.c.spec == self.spec, TEXT.c.fingerprint.in_(chunk))
            known |= set(self.connection.execute(query.distinct()).scalars())
        insert_new(self.connection, TEXT, [rows[name] for name in sorted(rows)])
        return len(prints - known)

    def _insert_origins(self) -> None:
        found: set[tuple[str, str, str, str]] = set()
        for sighting in self.snapshot.sightings:
            statement = (self.prints[name_of(sighting)], sighting.schema or NO_SCHEMA)
            found |= {(*statement, kind, value[:250]) for kind, value in _origins_of(sighting)}
        known: set[tuple[str, str, str, str]] = set()
        for chunk in chunks(sorted({f[0] for f in found})):
            query = sa.select(ORIGIN).where(ORIGIN.c.spec == self.spec, ORIGIN.c.fingerprint.in_(chunk))
            known |= {(r.fingerprint, r.schema_name, r.kind, r.value) for r in self.connection.execute(query)}
        names = ("fingerprint", "schema_name", "kind", "value")
        insert_new(
            self.connection, ORIGIN,
            [{"spec": self.spec, "snapshot_id": self.snapshot_id, **dict(zip(names, row, strict=True))} for row in sorted(found - known)],
        )  # fmt: skip

    def _insert_readings(self, found: Deltas) -> int:
        of_digest = {
            (s.schema, s.digest): self.prints[name_of(s)]
            for s in self.snapshot.sightings
            if s.source == "digest" and not s.truncated
        }
        rows: dict[int, dict[str, Any]] = {}
        for delta in found.items:
            sighting, name = delta.sighting, name_of(delta.sighting)
            if delta.executions is not None and not self.measured and sighting.source not in LOGS:
                continue
            if sighting.source == "routine" and (sighting.program or "").startswith("view "):
                continue  # a definition, not a statement: known only to recognise digests
            # The digest's own reading says all that a sample of the same statement could; one that was cut may turn out to be shared.
            if delta.executions is None and of_digest.get((sighting.schema, sighting.digest)) == self.prints[name]:
                continue
            key_id = self.past.keys[name].key_id
            row = self._reading(delta, key_id)
            rows[key_id] = _added(rows[key_id], row) if key_id in rows else row
        if rows:
            self.connection.execute(sa.insert(READING), list(rows.values()))
        return len(rows)

    def _reading(self, delta: Delta, key_id: int) -> dict[str, Any]:
        sighting = delta.sighting
        return {
            "key_id": key_id, "snapshot_id": self.snapshot_id, "executions": delta.executions, "since": delta.since,
            "until": delta.until, "interval_s": delta.interval_s or None,
            **{name: delta.counters.get(name) for name in COUNTERS}, **{name: sighting.gauges.get(name) for name in GAUGES},
            "total": total_of(sighting) if sighting.source == "digest" else None,
        }  # fmt: skip

    def _insert_io(self, moved: Sequence[IoDelta]) -> None:
        new = [d.now for d in moved if io_name(d.now) not in self.past.io_keys]
        if new:
            self.connection.execute(
                sa.insert(IO_KEY),
                [{"watch_id": self.watch_id, "table_schema": io.table.schema, "table_name": io.table.table,
                  "index_name": WHOLE_TABLE if io.index is None else io.index, "snapshot_id": self.snapshot_id} for io in new],
            )  # fmt: skip
            self.past.io_keys |= known_io(self.connection, self.watch_id)
        # A snapshot in between that could not read table_io makes the interval longer.
        read_at = when(self.past.counted.get("table_io_at")) if self.past.previous else None
        rows = []
        for delta in moved:
            name, since = io_name(delta.now), min(filter(None, (delta.since, read_at)))
            interval = [since.isoformat(), self.snapshot.taken_at.isoformat()]
            counts = {counter: getattr(delta, counter) for counter in IO}
            rows.append({
                "io_key_id": self.past.io_keys[name], "snapshot_id": self.snapshot_id, "since": since, **counts,
                **{f"{counter}_total": getattr(delta.now, counter) for counter in IO},
                "moved": self.past.io_moved.get(name, {}) | {counter: interval for counter, count in counts.items() if count},
            })  # fmt: skip
        if rows:
            self.connection.execute(sa.insert(IO_READING), rows)


def _came_back(snapshot: Snapshot, past: Past) -> Iterator[Gap]:
    """A server that answers under this name again has counted on; the one that had taken over is gone, with what it did at last."""
    if past.came_back:
        yield Gap(
            "the time before a failover", f"server {snapshot.instance.server_uuid} answers again; what ran on the other one after"
            f" {moment(past.state['at']):%Y-%m-%d %H:%M:%S} UTC is not known",
            "connect to the endpoint of an instance, not of the cluster, and list every instance", "none",
        )  # fmt: skip


def _counted_again(snapshot: Snapshot, past: Past) -> Iterator[Gap]:
    """The same, where the history has not kept what the server had counted then."""
    now, before = snapshot.instance, past.state.get("servers", {}).get(snapshot.instance.server_uuid)
    if past.previous is None or before is None or past.previous.instance.server_uuid == now.server_uuid:
        return
    if is_same_start(before, now):
        yield Gap(
            "executions that are counted twice", f"server {now.server_uuid} answers again, as until {before['at']} UTC, and has not been"
            " restarted: what it had counted until then is counted again",
            "connect to the endpoint of an instance, not of the cluster; disregard shares of executions in this interval", "none",
        )  # fmt: skip


def placed(snapshot: Snapshot) -> Snapshot:
    """With the schema of a log's statements corrected by the counters.

    A slow log never says that a session has no default schema, it shows that of the entry before. Where digests know the statement in
    exactly one other schema, that is the one.
    """
    if not any(s.source in LOGS for s in snapshot.sightings):
        return snapshot
    known: dict[str, set[str | None]] = defaultdict(set)
    for s in snapshot.sightings:
        if s.source == "digest":
            known[fingerprint(s.text, is_digest=True, truncated=s.truncated)].add(s.schema)
    sightings = []
    for s in snapshot.sightings:
        if s.source in LOGS and not s.truncated:
            schemas = known.get(fingerprint(s.text), set())
            if len(schemas) == 1 and s.schema not in schemas:
                (schema,) = schemas
                s = replace(s, schema=schema, key=f"{s.key}>{schema or NO_SCHEMA}")
        sightings.append(s)
    return replace(snapshot, sightings=tuple(sightings))


def _origins_of(sighting: Sighting) -> Iterator[tuple[str, str]]:
    if sighting.own:
        yield "own", "inventory"
    if sighting.user:
        yield "user", f"{sighting.user}@{sighting.host or ''}".rstrip("@")
    yield from (("user", user.rstrip("@")) for user in sighting.users)
    if sighting.program:
        yield "program", sighting.program
    if not sighting.is_digest and not sighting.own:
        yield from (("caller", caller) for caller in {*sqltext.callers(sighting.text), *sighting.callers})


def _stored_text(sighting: Sighting) -> tuple[str, bool]:
    """(masked text, whether it is cut)."""
    if sighting.is_digest:
        return sqltext.mask_literals(sqltext.statement_of(sighting.text)), sighting.truncated
    # A sample that ends for another reason than its length is one that we perhaps do not read as the server did.
    cut = sighting.truncated and (sighting.source not in ("sample", "history") or sighting.text.endswith("..."))
    text, whole = sqltext.storable(sighting.text, cut=cut)
    return text, sighting.truncated or not whole


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two readings of one key: sessions that run the same prepared statement, or sightings of one text."""
    sums = {
        n: (one[n] or 0) + (other[n] or 0)
        for n in ("executions", *COUNTERS)
        if one[n] is not None or other[n] is not None
    }
    sinces, untils = [m for m in (one["since"], other["since"]) if m], [m for m in (one["until"], other["until"]) if m]
    return {**one, **sums, "since": min(sinces, default=None), "until": max(untils, default=None)}
