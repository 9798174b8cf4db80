"""The archive's ledger: durable state on the source server, schema ``dbops_archive``.

It lives beside the data because the row that says "this batch is deleted" must commit with the DELETE. Everything that a resumed run
needs is here; XCom carries only names. State of a chunk: planned -> exported -> published -> verified. State of a batch, from its
export on: exported -> verified | refused, then verified -> done | changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tenacity

from dbops import keys, mysql
from dbops.archive.checksum import Checksum, total
from dbops.archive.codec import Codec

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

SCHEMA = "dbops_archive"
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "dbops_archive_version"
_DUPLICATE_ENTRY = 1062
_LOCK_NAME_CHARS = 64  # of MySQL's GET_LOCK, since 5.7.5


class LedgerError(RuntimeError):
    """The ledger refuses a step: the state it finds does not allow it. Nothing was changed."""


class PlanExists(LedgerError):
    """Another open plan owns the table."""


@dataclass(frozen=True)
class Plan:
    """What one pass over a table archives. Written once, whole; its predicate and codecs never change."""

    plan_id: str
    spec: str
    source_table: str
    state: str
    rule_digest: str
    server_uuid: str
    cutoff: datetime
    predicate: str
    codecs: tuple[Codec, ...]
    create_table: str
    lake_table: str
    planned_rows: int
    planned_chunks: int
    source_bytes: int
    created_by: str
    created_at: datetime
    approved_by: str | None = None
    approved_digest: str | None = None

    @property
    def source(self) -> tuple[str, str]:
        """(schema, table) in MySQL."""
        schema, table = self.source_table.split(".", 1)
        return schema, table

    @property
    def lake(self) -> tuple[str, str, str]:
        """(catalog, namespace, table)."""
        catalog, namespace, table = self.lake_table.split(".", 2)
        return catalog, namespace, table


@dataclass(frozen=True)
class Chunk:
    """A key range (lower, upper] of a plan: the unit of copying."""

    chunk_no: int
    lower: keys.Key | None
    upper: keys.Key
    planned_rows: int
    state: str = "planned"
    snapshot_id: int | None = None


@dataclass(frozen=True)
class File:
    """A Parquet object of a chunk. ``sha256`` in hexadecimal."""

    chunk_no: int
    file_no: int
    uri: str
    sha256: str
    file_bytes: int
    file_rows: int


@dataclass(frozen=True)
class Batch:
    """A key range of a chunk: the unit of proof and deletion. ``source`` is what MySQL sent, ``lake`` what Trino read back."""

    chunk_no: int
    batch_no: int
    lower: keys.Key | None
    upper: keys.Key
    source: Checksum
    state: str = "exported"
    lake: Checksum | None = None


@dataclass(frozen=True)
class RefusedRow:
    """A row (and column, where one could be named) that did not survive the way to the lake."""

    row_key: str
    column: str | None
    reason: str


@dataclass(frozen=True)
class Event:
    """One finished step of a plan: how long it took, what it moved, and what there is to say about it."""

    stage: str
    seconds: float
    event_rows: int
    event_bytes: int
    message: str
    run: str = ""
    at: datetime | None = None


def utcnow() -> datetime:
    """Now, as the ledger stores it (naive UTC)."""
    return datetime.now(UTC).replace(tzinfo=None)


def _is_conflict(error: BaseException) -> bool:
    """Lock wait timeout or deadlock: MySQL rolled the statement or transaction back, so it may run again."""
    import MySQLdb

    return isinstance(error, MySQLdb.OperationalError) and error.args[0] in (1205, 1213)


retry_conflicts = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_conflict),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
    stop=tenacity.stop_after_attempt(8),
    reraise=True,
)


class Ledger:
    """Reads and writes the ledger through one mysqlclient connection (autocommit on; steps use explicit transactions)."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor inside a transaction: committed on return, rolled back on any exception."""
        self.conn.begin()
        cursor = self.conn.cursor()
        try:
            yield cursor
            self.conn.commit()
        except BaseException:
            self._rollback_quietly()
            raise
        finally:
            cursor.close()

    def _rollback_quietly(self) -> None:
        import MySQLdb

        try:
            self.conn.rollback()
        except MySQLdb.Error:
            return  # the connection is gone, and with it the transaction

    @contextmanager
    def exclusive(self, name: str, wait_s: int = 0) -> Iterator[bool]:
        """Hold a server-wide lock of that name (GET_LOCK) for the block; yields False when another session holds it."""
        import MySQLdb

        lock = lock_name(name)
        got = mysql.scalar(self.conn, "SELECT GET_LOCK(%s, %s)", (lock, wait_s)) == 1
        try:
            yield got
        finally:
            if got:
                with suppress(MySQLdb.Error):  # a lost session has released it already
                    mysql.scalar(self.conn, "SELECT RELEASE_LOCK(%s)", (lock,))

    # -- plans ---------------------------------------------------------------------------------------------------------------

    @retry_conflicts
    def create_plan(self, plan: Plan, chunks: Iterable[Chunk]) -> None:
        """Store a plan and all its chunks in one transaction. Raises PlanExists when the table has an open plan."""
        import MySQLdb

        try:
            with self.transaction() as cursor:
                cursor.execute(
                    f"INSERT INTO {SCHEMA}.archive_plan (plan_id, spec, source_table, open_table, state, rule_digest, server_uuid,"
                    " cutoff, predicate, columns_json, create_table, lake_table, planned_rows, planned_chunks, source_bytes,"
                    " created_by, created_at)"
                    " VALUES (%s, %s, %s, %s, 'open', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (
                        plan.plan_id, plan.spec, plan.source_table, plan.source_table, plan.rule_digest, plan.server_uuid,
                        plan.cutoff.replace(tzinfo=None), plan.predicate, json.dumps([asdict(c) for c in plan.codecs]), plan.create_table,
                        plan.lake_table, plan.planned_rows, plan.planned_chunks, plan.source_bytes, plan.created_by,
                        plan.created_at.replace(tzinfo=None),
                    ),
                )  # fmt: skip
                cursor.executemany(
                    f"INSERT INTO {SCHEMA}.archive_chunk (plan_id, chunk_no, lower_key, upper_key, planned_rows, state)"
                    " VALUES (%s, %s, %s, %s, %s, 'planned')",
                    [
                        (plan.plan_id, c.chunk_no, keys.dump(c.lower), keys.dump(c.upper), c.planned_rows)
                        for c in chunks
                    ],
                )
        except MySQLdb.IntegrityError as error:
            if error.args[0] == _DUPLICATE_ENTRY:
                raise PlanExists(
                    f"{plan.source_table} has an open plan already; it must be done or abandoned first"
                ) from error
            raise

    def open_plan(self, source_table: str) -> Plan | None:
        """The open plan of a table, or None."""
        found = mysql.rows(self.conn, f"SELECT * FROM {SCHEMA}.archive_plan WHERE open_table = %s", (source_table,))
        return _plan(found[0]) if found else None

    def plan(self, plan_id: str) -> Plan:
        """One plan. Raises LedgerError when there is none of that name."""
        found = mysql.rows(self.conn, f"SELECT * FROM {SCHEMA}.archive_plan WHERE plan_id = %s", (plan_id,))
        if not found:
            raise LedgerError(
                f"no archive plan {plan_id!r} in {SCHEMA}.archive_plan; list them with: SELECT plan_id, spec, state"
            )
        return _plan(found[0])

    def newest_plan(self, source_table: str) -> Plan | None:
        """The open plan of a table, else the one that was made last, else None."""
        found = mysql.rows(
            self.conn,
            f"SELECT * FROM {SCHEMA}.archive_plan WHERE source_table = %s"
            " ORDER BY open_table IS NULL, created_at DESC, plan_id LIMIT 1",
            (source_table,),
        )
        return _plan(found[0]) if found else None

    def open_plans(self, spec: str) -> list[Plan]:
        """Plans of a spec that are not closed: more than one only after the spec was changed to another table."""
        found = mysql.rows(
            self.conn, f"SELECT * FROM {SCHEMA}.archive_plan WHERE spec = %s AND open_table IS NOT NULL", (spec,)
        )
        return [_plan(row) for row in found]

    def known_plans(self, plan_ids: Collection[str]) -> set[str]:
        """Those of the names that the ledger has."""
        if not plan_ids:
            return set()
        statement = f"SELECT plan_id FROM {SCHEMA}.archive_plan WHERE plan_id IN %s"
        return {row["plan_id"] for row in mysql.rows(self.conn, statement, (sorted(plan_ids),))}

    def plans_with_deleted(self, spec: str) -> list[Plan]:
        """Plans of a spec that deleted rows, in whatever state, oldest first: what a restore can give back."""
        found = mysql.rows(
            self.conn,
            f"SELECT * FROM {SCHEMA}.archive_plan AS p WHERE spec = %s AND EXISTS"
            f" (SELECT 1 FROM {SCHEMA}.archive_batch AS b WHERE b.plan_id = p.plan_id AND b.state = 'done') ORDER BY created_at",
            (spec,),
        )
        return [_plan(row) for row in found]

    @retry_conflicts
    def close_plan(self, plan_id: str, state: str) -> None:
        """Mark a plan done or abandoned and free its table for the next one."""
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_plan SET state = %s, open_table = NULL, closed_at = %s"
                " WHERE plan_id = %s AND state IN ('open', 'abandoning')",
                (state, utcnow(), plan_id),
            )

    @retry_conflicts
    def begin_abandon(self, plan_id: str) -> None:
        """Open -> abandoning, before anything is taken out of the lake: from here on no step of the plan may run, only the abandon.

        Waits for purge transactions under way, which hold a shared lock on the plan.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_plan SET state = 'abandoning' WHERE plan_id = %s AND state = 'open'",
                (plan_id,),
            )

    @retry_conflicts
    def adopt(self, plan_id: str, server_uuid: str) -> None:
        """Let another server go on where the one that made the plan ended, after a person said that it took over."""
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_plan SET server_uuid = %s WHERE plan_id = %s",
                (server_uuid, plan_id),
            )

    @retry_conflicts
    def withdraw_approval(self, plan_id: str, nonce: str | None = None) -> None:
        """Forget an approval: whoever asks again, or is told no, must not find an older yes.

        From now on only an answer to the question `nonce` counts, and none at all without one.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_plan SET approved_by = NULL, approved_digest = NULL, approved_at = NULL,"
                " approval_nonce = %s WHERE plan_id = %s",
                (nonce, plan_id),
            )

    @retry_conflicts
    def approve(self, plan_id: str, by: str, digest: str, nonce: str) -> bool:
        """Record who approved which verified checksums; False when `nonce` is not the question that was asked last."""
        with self.transaction() as cursor:
            updated = cursor.execute(
                f"UPDATE {SCHEMA}.archive_plan SET approved_by = %s, approved_digest = %s, approved_at = %s"
                " WHERE plan_id = %s AND approval_nonce = %s",
                (by, digest, utcnow(), plan_id, nonce),
            )
        return bool(updated)

    # -- chunks --------------------------------------------------------------------------------------------------------------

    def chunks(self, plan_id: str, states: Sequence[str] = (), span: tuple[int, int] | None = None) -> list[Chunk]:
        """Chunks in order, of those states (all when empty) and with chunk_no in [first, last]."""
        statement = f"SELECT * FROM {SCHEMA}.archive_chunk WHERE plan_id = %s"
        args: list[Any] = [plan_id]
        if states:
            statement += " AND state IN %s"
            args.append(list(states))
        if span:
            statement += " AND chunk_no BETWEEN %s AND %s"
            args += span
        return [
            Chunk(
                chunk_no=row["chunk_no"],
                lower=keys.parse(row["lower_key"]),
                upper=keys.parse(row["upper_key"]) or (),
                planned_rows=row["planned_rows"],
                state=row["state"],
                snapshot_id=row["snapshot_id"],
            )
            for row in mysql.rows(self.conn, statement + " ORDER BY chunk_no", args)
        ]

    @retry_conflicts
    def record_export(
        self, plan_id: str, chunk_no: int, files: Sequence[File], batches: Sequence[Batch], wire_bytes: int
    ) -> None:
        """Planned -> exported: store the chunk's files and batches, in one transaction.

        Refused when the chunk is exported already: another run may be publishing those files. Raises LedgerError.
        """
        with self.transaction() as cursor:
            assert_open(cursor, plan_id)
            state = self._lock_chunk(cursor, plan_id, chunk_no)
            if state != "planned":
                raise LedgerError(f"chunk {chunk_no} of {plan_id} is {state}; only a planned chunk can be exported")
            cursor.executemany(
                f"INSERT INTO {SCHEMA}.archive_file (plan_id, chunk_no, file_no, uri, sha256, file_bytes, file_rows)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [(plan_id, f.chunk_no, f.file_no, f.uri, f.sha256, f.file_bytes, f.file_rows) for f in files],
            )
            cursor.executemany(
                f"INSERT INTO {SCHEMA}.archive_batch (plan_id, chunk_no, batch_no, lower_key, upper_key, state,"
                " source_n, source_nh, source_s, source_x) VALUES (%s, %s, %s, %s, %s, 'exported', %s, %s, %s, %s)",
                [
                    (plan_id, b.chunk_no, b.batch_no, keys.dump(b.lower), keys.dump(b.upper),
                     b.source.n, b.source.nh, b.source.s, b.source.x)
                    for b in batches
                ],
            )  # fmt: skip
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_chunk SET state = 'exported', wire_bytes = %s, exported_at = %s"
                " WHERE plan_id = %s AND chunk_no = %s",
                (wire_bytes, utcnow(), plan_id, chunk_no),
            )

    @retry_conflicts
    def record_published(self, plan_id: str, chunk_nos: Sequence[int], snapshot_id: int) -> None:
        """Exported -> published, for those chunks. Raises LedgerError unless all of them are exported."""
        with self.transaction() as cursor:
            assert_open(cursor, plan_id)
            updated = cursor.execute(
                f"UPDATE {SCHEMA}.archive_chunk SET state = 'published', snapshot_id = %s, published_at = %s"
                " WHERE plan_id = %s AND state = 'exported' AND chunk_no IN %s",
                (snapshot_id, utcnow(), plan_id, list(chunk_nos)),
            )
            if updated != len(chunk_nos):
                raise LedgerError(
                    f"only {updated} of {len(chunk_nos)} chunks of {plan_id} are exported; another run publishes them as well"
                )

    @retry_conflicts
    def record_verified(
        self,
        plan_id: str,
        chunk_no: int,
        found: Sequence[tuple[Batch, Checksum, str]],
        refused: dict[int, list[RefusedRow]],
    ) -> None:
        """Published -> verified: store Trino's checksum and the verdict (verified or refused) of every batch of the chunk.

        Leaves a chunk that another run has verified as it is. Raises LedgerError in any other state.
        """
        with self.transaction() as cursor:
            assert_open(cursor, plan_id)
            state = self._lock_chunk(cursor, plan_id, chunk_no)
            if state == "verified":
                return
            if state != "published":
                raise LedgerError(f"chunk {chunk_no} of {plan_id} is {state}; only a published chunk can be verified")
            cursor.executemany(
                f"INSERT INTO {SCHEMA}.archive_batch (plan_id, chunk_no, batch_no, upper_key, state,"
                " lake_n, lake_nh, lake_s, lake_x, reason) VALUES (%s, %s, %s, '', %s, %s, %s, %s, %s, %s)"
                " ON DUPLICATE KEY UPDATE lake_n = VALUES(lake_n), lake_nh = VALUES(lake_nh), lake_s = VALUES(lake_s),"
                " lake_x = VALUES(lake_x), reason = VALUES(reason),"
                " state = IF(state IN ('exported', 'verified', 'refused'), VALUES(state), state)",
                [
                    (plan_id, chunk_no, batch.batch_no, state, lake.n, lake.nh, lake.s, lake.x,
                     "; ".join(r.reason for r in refused.get(batch.batch_no, ()))[:1000] or None)
                    for batch, lake, state in found
                ],
            )  # fmt: skip
            for batch_no, refusals in refused.items():
                cursor.executemany(
                    f"INSERT INTO {SCHEMA}.archive_refusal (plan_id, chunk_no, batch_no, row_key, column_name, reason, found_at)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    [
                        (plan_id, chunk_no, batch_no, r.row_key[:1000], r.column, r.reason[:1000], utcnow())
                        for r in refusals
                    ],
                )
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_chunk SET state = 'verified', verified_at = %s"
                " WHERE plan_id = %s AND chunk_no = %s AND state = 'published'",
                (utcnow(), plan_id, chunk_no),
            )

    @staticmethod
    def _lock_chunk(cursor: Any, plan_id: str, chunk_no: int) -> str:
        cursor.execute(
            f"SELECT state FROM {SCHEMA}.archive_chunk WHERE plan_id = %s AND chunk_no = %s FOR UPDATE",
            (plan_id, chunk_no),
        )
        return str((cursor.fetchone() or ("missing",))[0])

    # -- files and batches ---------------------------------------------------------------------------------------------------

    def files(self, plan_id: str, chunk_nos: Sequence[int]) -> list[File]:
        """Files of those chunks."""
        if not chunk_nos:
            return []
        found = mysql.rows(
            self.conn,
            "SELECT chunk_no, file_no, uri, sha256, file_bytes, file_rows"
            f" FROM {SCHEMA}.archive_file WHERE plan_id = %s AND chunk_no IN %s ORDER BY chunk_no, file_no",
            (plan_id, list(chunk_nos)),
        )
        return [File(**row) for row in found]

    def batches(self, plan_id: str, chunk_no: int, states: Sequence[str] = ()) -> list[Batch]:
        """Batches of one chunk in order."""
        statement = f"SELECT * FROM {SCHEMA}.archive_batch WHERE plan_id = %s AND chunk_no = %s"
        args: list[Any] = [plan_id, chunk_no]
        if states:
            statement += " AND state IN %s"
            args.append(list(states))
        return [_batch(row) for row in mysql.rows(self.conn, statement + " ORDER BY batch_no", args)]

    @retry_conflicts
    def mark_changed(self, plan_id: str, batch: Batch, reason: str) -> None:
        """Verified -> changed: the source rows are no longer those that were archived; they stay and go into the next plan."""
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE {SCHEMA}.archive_batch SET state = 'changed', reason = %s"
                " WHERE plan_id = %s AND chunk_no = %s AND batch_no = %s AND state = 'verified'",
                (reason[:1000], plan_id, batch.chunk_no, batch.batch_no),
            )

    # -- events and pause ----------------------------------------------------------------------------------------------------

    @retry_conflicts
    def note(self, plan_id: str, event: Event) -> None:
        """Append an event."""
        with self.transaction() as cursor:
            cursor.execute(
                f"INSERT INTO {SCHEMA}.archive_event (plan_id, at, stage, run, seconds, event_rows, event_bytes, message)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (plan_id, utcnow(), event.stage, event.run, event.seconds, event.event_rows, event.event_bytes,
                 event.message[:2000]),
            )  # fmt: skip

    def events(self, plan_id: str) -> list[Event]:
        """Events of a plan, oldest first."""
        found = mysql.rows(
            self.conn,
            f"SELECT stage, seconds, event_rows, event_bytes, message, run, at FROM {SCHEMA}.archive_event"
            " WHERE plan_id = %s ORDER BY event_id",
            (plan_id,),
        )
        return [Event(**row) for row in found]

    def paused(self, source_table: str) -> str | None:
        """Why a person paused the table (or every table: ``*``), or None."""
        return mysql.scalar(
            self.conn,
            f"SELECT reason FROM {SCHEMA}.archive_pause WHERE source_table IN (%s, '*') LIMIT 1",
            (source_table,),
        )

    # -- totals --------------------------------------------------------------------------------------------------------------

    def batch_totals(self, plan_id: str) -> dict[str, dict[str, int]]:
        """Per batch state: batches, rows exported, rows deleted."""
        found = mysql.rows(
            self.conn,
            "SELECT state, COUNT(*) AS batches, SUM(source_n) AS source_rows, COALESCE(SUM(deleted_rows), 0) AS deleted_rows"
            f" FROM {SCHEMA}.archive_batch WHERE plan_id = %s GROUP BY state",
            (plan_id,),
        )
        return {row.pop("state"): {k: int(v) for k, v in row.items()} for row in found}

    def done_batches(self, plan_id: str) -> list[Batch]:
        """Batches whose rows were deleted, in order."""
        found = mysql.rows(
            self.conn,
            f"SELECT * FROM {SCHEMA}.archive_batch WHERE plan_id = %s AND state = 'done' ORDER BY chunk_no, batch_no",
            (plan_id,),
        )
        return [_batch(row) for row in found]

    def done_checksums(self, plan_id: str) -> dict[int, Checksum]:
        """Per chunk, Trino's checksum of the rows that were deleted."""
        found = mysql.rows(
            self.conn,
            "SELECT chunk_no, SUM(lake_n) AS n, SUM(lake_nh) AS nh, SUM(lake_s) AS s, BIT_XOR(lake_x) AS x"
            f" FROM {SCHEMA}.archive_batch WHERE plan_id = %s AND state = 'done' GROUP BY chunk_no",
            (plan_id,),
        )
        return {row["chunk_no"]: Checksum.from_row(row["n"], row["nh"], row["s"], row["x"]) for row in found}

    def chunk_states(self, plan_id: str) -> dict[str, int]:
        """Number of chunks per state."""
        found = mysql.rows(
            self.conn,
            f"SELECT state, COUNT(*) AS n FROM {SCHEMA}.archive_chunk WHERE plan_id = %s GROUP BY state",
            (plan_id,),
        )
        return {row["state"]: int(row["n"]) for row in found}

    def sizes(self, plan_id: str) -> tuple[int, int]:
        """(bytes of Parquet, bytes that MySQL sent)."""
        files = mysql.scalar(
            self.conn, f"SELECT SUM(file_bytes) FROM {SCHEMA}.archive_file WHERE plan_id = %s", (plan_id,)
        )
        wire = mysql.scalar(
            self.conn, f"SELECT SUM(wire_bytes) FROM {SCHEMA}.archive_chunk WHERE plan_id = %s", (plan_id,)
        )
        return int(files or 0), int(wire or 0)

    def refused_rows(self, plan_id: str) -> list[dict[str, Any]]:
        """Named rows of refused batches, and changed batches with their reason."""
        return mysql.rows(
            self.conn,
            "SELECT chunk_no, batch_no, row_key, column_name, reason"
            f" FROM {SCHEMA}.archive_refusal WHERE plan_id = %s"
            " UNION ALL SELECT chunk_no, batch_no, CONCAT('keys up to ', upper_key), NULL, reason"
            f" FROM {SCHEMA}.archive_batch WHERE plan_id = %s AND state = 'changed' ORDER BY chunk_no, batch_no",
            (plan_id, plan_id),
        )

    def unfinished(self, plan_id: str) -> dict[str, list[tuple[int, int]]]:
        """(chunk, batch) numbers per state of the batches that did not leave MySQL although they were exported."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row in mysql.rows(
            self.conn,
            f"SELECT state, chunk_no, batch_no FROM {SCHEMA}.archive_batch WHERE plan_id = %s AND state <> 'done'"
            " ORDER BY chunk_no, batch_no",
            (plan_id,),
        ):
            found.setdefault(row["state"], []).append((row["chunk_no"], row["batch_no"]))
        return found

    def verified_digest(self, plan_id: str) -> str:
        """One text for everything that was proven: what a person approves, and what the purge compares."""
        digest = hashlib.sha256(plan_id.encode())
        for row in mysql.rows(
            self.conn,
            f"SELECT chunk_no, batch_no, lake_n, lake_s, lake_x FROM {SCHEMA}.archive_batch"
            " WHERE plan_id = %s AND state IN ('verified', 'done', 'changed') ORDER BY chunk_no, batch_no",
            (plan_id,),
        ):
            digest.update(repr(tuple(row.values())).encode())
        return digest.hexdigest()


def lock_name(name: str) -> str:
    """What MySQL calls the lock of :meth:`Ledger.exclusive`, for SELECT IS_USED_LOCK()."""
    lock = f"{SCHEMA}:{name}"
    return lock if len(lock) <= _LOCK_NAME_CHARS else f"{SCHEMA}:{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def assert_open(cursor: Any, plan_id: str) -> None:
    """Raise LedgerError unless the plan is open, and keep it so until the cursor's transaction ends.

    The lock is shared among steps and excludes an abandon: what is being withdrawn from the lake must neither be added to nor leave MySQL.
    """
    cursor.execute(f"SELECT state FROM {SCHEMA}.archive_plan WHERE plan_id = %s LOCK IN SHARE MODE", (plan_id,))
    state = (cursor.fetchone() or ("missing",))[0]
    if state != "open":
        raise LedgerError(
            f"plan {plan_id} is {state}: another run closed it or gives it up; a new run makes a new plan"
        )


def joined(batches: Sequence[Batch]) -> Checksum:
    """Trino's checksum of several batches together: what purge and restore must find."""
    return total(b.lake for b in batches if b.lake is not None)


def _plan(row: dict[str, Any]) -> Plan:
    names = Plan.__dataclass_fields__
    values = {name: row[name] for name in names if name in row}
    codecs = tuple(Codec(**c) for c in json.loads(row["columns_json"]))
    times = {name: row[name].replace(tzinfo=UTC) for name in ("cutoff", "created_at")}
    return Plan(**{**values, **times, "codecs": codecs})


def _batch(row: dict[str, Any]) -> Batch:
    figures = partial(_figures, row)
    return Batch(
        chunk_no=row["chunk_no"],
        batch_no=row["batch_no"],
        lower=keys.parse(row["lower_key"]),
        upper=keys.parse(row["upper_key"]) or (),
        source=figures("source"),
        state=row["state"],
        lake=None if row["lake_n"] is None else figures("lake"),
    )


def _figures(row: dict[str, Any], side: str) -> Checksum:
    return Checksum.from_row(*(row[f"{side}_{figure}"] for figure in ("n", "nh", "s", "x")))
