"""Purge: delete proven batches, each in the transaction that proves it once more under lock.

One transaction: lock the ledger rows of the batches, checksum their key range and predicate with FOR UPDATE, compare with what Trino
read, DELETE the same rows, compare the number deleted, look once more what else the DELETE reached, write the audit, COMMIT. Anything
unexpected rolls all of it back. So a crash before the COMMIT leaves rows and audit as they were, a crash after it leaves neither row
nor doubt, and where the answer to the COMMIT is lost the ledger, which committed with the DELETE, decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbops import mysql, sql
from dbops.archive import checksum, codec, preflight
from dbops.archive.checksum import Checksum
from dbops.archive.ledger import SCHEMA, Batch, Ledger, Plan, assert_open, joined, utcnow
from dbops.keys import RowKey

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

# Lock wait timeout and deadlock: nothing was changed, the batch may be tried again.
_RETRYABLE = {1205, 1213}
# A row of a RESTRICT child points at a row (the second code: at one whose child this user may not see).
_REFERENCED = {1451, 1217}
_TRIES = 3


class PurgeStopped(RuntimeError):
    """The purge ended early on purpose (throttle, changed table, lost race); what is not `done` in the ledger is still in MySQL."""


class _Taken(Exception):
    """Another run has purged or judged some of the batches since they were listed."""


class _Referenced(Exception):
    """A child row points at a row of the batch; the message is MySQL's."""


@dataclass
class Outcome:
    """What a purge did. Seconds are summed over workers."""

    batches: int = 0
    rows: int = 0
    changed: list[tuple[int, int]] = field(default_factory=list)
    busy: list[tuple[int, int]] = field(default_factory=list)
    transactions: int = 0
    transaction_s: float = 0.0
    commit_s: float = 0.0

    def add(self, other: Outcome) -> None:
        """Add another worker's figures."""
        self.batches += other.batches
        self.rows += other.rows
        self.changed += other.changed
        self.busy += other.busy
        self.transactions += other.transactions
        self.transaction_s += other.transaction_s
        self.commit_s += other.commit_s


@dataclass
class Pace:
    """How many batches go into one transaction: grows and shrinks towards `target_s` seconds a transaction."""

    target_s: float
    max_rows: int
    batches: int = 1

    def learn(self, elapsed_s: float, batches: int, rows: int) -> None:
        """Adapt after a transaction of that many batches and rows."""
        if elapsed_s <= 0 or batches == 0 or rows == 0:
            return
        wanted = batches * self.target_s / elapsed_s
        # At most doubled, so that one quick transaction does not lead to a long one.
        limit = max(1, self.max_rows * batches // rows)
        self.batches = int(max(1, min(wanted, self.batches * 2, limit)))


@dataclass(frozen=True)
class Purger:
    """Deletes the verified batches of chunks through connections that `connect` opens (autocommit off, one a worker)."""

    plan: Plan
    key: RowKey
    server: mysql.Server
    connect: Callable[[], Connection]
    deleted_by: str
    before_transaction: Callable[[], None]
    on_commit: Callable[[float], None] = lambda seconds: None
    target_ms: int = 100
    max_rows: int = 10_000
    isolation: str = "repeatable-read"
    lock_wait_s: int = 5

    def run(self, chunk_nos: Sequence[int], workers: int, outcome: Outcome) -> None:
        """Purge those chunks, `workers` at a time, and add up in `outcome` what was done, also when it ends early.

        Raises the first worker's error after the others have stopped between transactions.
        """
        lock, stop = threading.Lock(), threading.Event()
        todo = iter(sorted(chunk_nos))

        def work() -> None:
            conn = self.connect()
            try:
                self._prepare(conn)
                pace = Pace(self.target_ms / 1000, self.max_rows)
                while not stop.is_set():
                    with lock:
                        chunk_no = next(todo, None)
                    if chunk_no is None:
                        return
                    part = Outcome()
                    try:
                        self._chunk(conn, chunk_no, pace, part, stop)
                    finally:
                        with lock:
                            outcome.add(part)
            except BaseException:
                stop.set()
                raise
            finally:
                conn.close()

        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="purge") as pool:
            futures = [pool.submit(work) for _ in range(min(workers, len(chunk_nos)) or 1)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except (
                BaseException
            ):  # a task that is stopped or times out: the workers end after the transaction under way
                stop.set()
                raise
            for future in futures:
                future.result()

    def _prepare(self, conn: Connection) -> None:
        with conn.cursor() as cursor:
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {self.isolation.replace('-', ' ').upper()}")
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", (self.lock_wait_s,))
        server = mysql.read_server(conn)
        if server.read_only:
            raise PurgeStopped(
                f"the server behind {self.plan.source_table} is read-only: not the writer, or a failover is under way"
            )
        if server.server_uuid != self.server.server_uuid:
            raise PurgeStopped(
                f"the connection of {self.plan.source_table} leads to another server than a moment ago: a failover"
            )
        conn.commit()

    def _chunk(self, conn: Connection, chunk_no: int, pace: Pace, outcome: Outcome, stop: threading.Event) -> None:
        pending = self._pending(conn, chunk_no)
        while pending and not stop.is_set():
            self.before_transaction()
            group = self._adjacent(pending, pace)
            try:
                self._group(conn, group, pace, outcome)
            except _Taken:
                # Another run purges the same chunk: go on with what it has left.
                pending = self._pending(conn, chunk_no)
                continue
            pending = pending[len(group) :]

    def _pending(self, conn: Connection, chunk_no: int) -> list[Batch]:
        found = Ledger(conn).batches(self.plan.plan_id, chunk_no, ["verified"])
        conn.rollback()  # ends the snapshot of that read
        return found

    def _group(self, conn: Connection, group: Sequence[Batch], pace: Pace, outcome: Outcome) -> None:
        if len(group) > 1 and self._try_group(conn, group, pace, outcome):
            return
        # Alone, or one of them differs: batch by batch, so that its neighbours still go.
        for batch in group:
            if len(group) > 1:
                self.before_transaction()
            self._single(conn, batch, pace, outcome)

    @staticmethod
    def _adjacent(pending: Sequence[Batch], pace: Pace) -> list[Batch]:
        group = [pending[0]]
        rows = pending[0].source.n
        for batch in pending[1 : pace.batches]:
            rows += batch.source.n
            if batch.batch_no != group[-1].batch_no + 1 or rows > pace.max_rows:
                break
            group.append(batch)
        return group

    def _single(self, conn: Connection, batch: Batch, pace: Pace, outcome: Outcome) -> None:
        try:
            if self._try_group(conn, [batch], pace, outcome):
                return
            reason = self._difference(conn, batch)
        except _Referenced as error:
            reason = f"a child row points at it: {error}"
        if reason is None:
            outcome.busy.append((batch.chunk_no, batch.batch_no))
            return
        Ledger(conn).mark_changed(self.plan.plan_id, batch, reason)
        outcome.changed.append((batch.chunk_no, batch.batch_no))

    def _difference(self, conn: Connection, batch: Batch) -> str | None:
        """Why the batch does not match, or None when it does (then it was only busy)."""
        with conn.cursor() as cursor:
            cursor.execute(self._checksum_sql([batch], lock=False))
            found = Checksum.from_row(*cursor.fetchone())
        conn.rollback()
        if batch.lake is None or found == batch.lake:
            return None
        return f"source changed after the export: {batch.lake.n} rows were archived, {found.n} are there now" + (
            "" if found.n != batch.lake.n else ", with other values"
        )

    def _try_group(self, conn: Connection, group: Sequence[Batch], pace: Pace, outcome: Outcome) -> bool:
        """Prove and delete these batches in one transaction; False when they do not match or stay locked (all rolled back).

        Raises _Referenced when a child row keeps a batch that is tried alone.
        """
        import MySQLdb

        for attempt in range(_TRIES):
            began = time.monotonic()
            try:
                done = self._transaction(conn, group, outcome)
            except MySQLdb.OperationalError as error:
                if error.args[0] not in _RETRYABLE:
                    raise
                conn.rollback()
                if attempt + 1 == _TRIES:
                    return False
                self.before_transaction()
                continue
            except MySQLdb.IntegrityError as error:
                conn.rollback()
                if error.args[0] not in _REFERENCED:
                    raise
                if len(group) == 1:
                    raise _Referenced(error.args[-1]) from error
                return False
            except BaseException:
                _rollback_quietly(conn)
                raise
            elapsed = time.monotonic() - began
            outcome.transactions += 1
            outcome.transaction_s += elapsed
            if done:
                rows = joined(group).n
                outcome.batches += len(group)
                outcome.rows += rows
                pace.learn(elapsed, len(group), rows)
            return done
        return False

    def _transaction(self, conn: Connection, group: Sequence[Batch], outcome: Outcome) -> bool:
        first, last = group[0], group[-1]
        span = (self.plan.plan_id, first.chunk_no, first.batch_no, last.batch_no)
        expected = joined(group)
        conn.begin()
        with conn.cursor() as cursor:
            assert_open(cursor, self.plan.plan_id)
            cursor.execute(
                f"SELECT COUNT(*) FROM {SCHEMA}.archive_batch"
                " WHERE plan_id = %s AND chunk_no = %s AND batch_no BETWEEN %s AND %s AND state = 'verified' FOR UPDATE",
                span,
            )
            if cursor.fetchone()[0] != len(group):
                conn.rollback()
                raise _Taken
            self._assert_definition(cursor)
            cursor.execute(self._checksum_sql(group, lock=True))
            if Checksum.from_row(*cursor.fetchone()) != expected or not expected.is_whole or expected.n == 0:
                conn.rollback()
                return False
            deleted = cursor.execute(f"DELETE FROM {sql.ident(self.plan.source)} WHERE {self._where(group)}")
            if deleted != expected.n:
                conn.rollback()
                return False
            self._assert_no_effects(cursor)
            updated = cursor.execute(
                f"UPDATE {SCHEMA}.archive_batch SET state = 'done', deleted_rows = source_n, deleted_at = %s, deleted_by = %s"
                " WHERE plan_id = %s AND chunk_no = %s AND batch_no BETWEEN %s AND %s AND state = 'verified'",
                (utcnow(), self.deleted_by, *span),
            )
            if updated != len(group):
                conn.rollback()
                raise PurgeStopped(
                    f"the ledger changed {updated} of {len(group)} batches of chunk {first.chunk_no}; rolled back"
                )
            began = time.monotonic()
            conn.commit()
            seconds = time.monotonic() - began
        outcome.commit_s += seconds
        self.on_commit(seconds)
        return True

    def _assert_definition(self, cursor: Any) -> None:
        """A column added after the export is not in the archive; a trigger or cascading key reaches rows that nobody looked at.

        The first statement takes the metadata lock, which keeps columns and triggers as the second one finds them. It does not keep the
        keys: MySQL 5.7 adds a foreign key of a child without a lock on its parent. Hence the same question after the DELETE.
        """
        cursor.execute(f"SELECT 1 FROM {sql.ident(self.plan.source)} LIMIT 0")
        present = self._assert_no_effects(cursor)
        planned = [c.name for c in self.plan.codecs]
        if present != planned:
            raise PurgeStopped(
                f"{self.plan.source_table} has columns {present}, the plan archived {planned}: abandon the plan and start again"
            )

    def _assert_no_effects(self, cursor: Any) -> list[str]:
        """The columns of the source. Raises PurgeStopped when a DELETE sets off more than the end of its own rows."""
        columns, effects = mysql.delete_effects(cursor, self.server, *self.plan.source)
        if effects:
            raise PurgeStopped(
                f"a DELETE on {self.plan.source_table} would also set off {', '.join(effects)}, which came after the preflight: remove it,"
                " then run again"
            )
        return columns

    def _checksum_sql(self, group: Sequence[Batch], *, lock: bool) -> str:
        where = self._where(group)
        return checksum.mysql_statement(
            self.plan.source,
            codec.mysql_row_text(self.plan.codecs),
            preflight.locking(where) if lock else where,
            lock=lock,
        )

    def _where(self, group: Sequence[Batch]) -> str:
        return f"{self.key.between(group[0].lower, group[-1].upper)} AND {self.plan.predicate}"


def _rollback_quietly(conn: Connection) -> None:
    import MySQLdb

    try:
        conn.rollback()
    except MySQLdb.Error:
        return  # the connection is lost, and with it the transaction
