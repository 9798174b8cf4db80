"""The worker of a copy: claims chunks, reads pages, writes them under the rules, reads them back, keeps a checkpoint.

The steps of a page overlap with those of its neighbours: the next page is read while this one is written, and the one before is read back
and its checkpoint kept. No more than three pages are in memory. A checkpoint follows what the store has acknowledged and what
was read back, page by page. A worker that is killed at any moment leaves a chunk of which somebody else repeats a few pages, which
changes nothing under the rules.

Everything that holds the copy back ends it cleanly (:class:`Copied` says why): the checkpoint is kept, the chunk is given back, and the
next run goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dbops.backfill.brake import Held
from dbops.backfill.journal import Journal, LeaseLost
from dbops.backfill.records import Chunk, Event, Rejected, Tally
from dbops.backfill.target import Overloaded, Pace, Pressure, Sent, Target
from dbops.guardrails import Refused
from dbops.keys import Key
from dbops.keyvalue import rules
from dbops.keyvalue.items import Digest, canonical, item_hash
from dbops.keyvalue.rules import Names, Outcome, Write

if TYPE_CHECKING:
    from dbops.backfill.source import Page, Source

log = logging.getLogger(__name__)
LEASE_S = 60.0
"""A chunk whose worker is silent for so long may be taken by another."""
PAGE_BYTES = 8 * 1024 * 1024
"""Of the items of a page: bounds the memory of a worker, whatever its rows are."""
LEAST_ROWS = 25
POLL_S = 5.0
End = Literal["done", "pause", "window", "limit", "stop", "overloaded", "rejects"]
"""Why a worker ended. All but ``done`` and ``rejects`` say: run it again."""


class Unsound(RuntimeError):
    """The store does not hold what it acknowledged, or somebody converts otherwise. The chunk stays at its last checkpoint."""


class Brakes(Protocol):
    """See :class:`dbops.backfill.brake.Brake`."""

    def __call__(self) -> float:
        """Seconds waited until the source can take a page; raises Held to end the copy."""


@dataclass(frozen=True)
class Copied:
    """What one worker did."""

    end: End
    reason: str
    """For a person; empty when it is done."""
    tally: Tally
    chunks: int
    """Finished by this worker."""
    lost: int = 0
    """Chunks that somebody else took from it; harmless."""


@dataclass
class _Timed:
    """A pace that counts how long threads waited for it."""

    pace: Pace
    monotonic: Callable[[], float]
    waited_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self, units: float) -> None:
        began = self.monotonic()
        self.pace.spend(units)
        with self.lock:
            self.waited_s += self.monotonic() - began

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        self.pace.eased(pressure, refused_units)

    def taken(self) -> float:
        """Thread seconds waited since the last call."""
        with self.lock:
            waited, self.waited_s = self.waited_s, 0.0
        return waited


@dataclass(frozen=True)
class _Read:
    """A page, and what reading it took."""

    page: Page
    seconds: float
    waited_s: float


class Paging:
    """How many rows the next page has: grows and shrinks until one takes ``page_s``, within the memory of `PAGE_BYTES`."""

    def __init__(self, rows: int, page_s: float, most: int) -> None:
        self.most = max(1, most)
        self.rows = min(max(1, rows), self.most)
        self._page_s = page_s

    def took(self, rows: int, size: int, seconds: float) -> None:
        """Learn from a page of so many rows and bytes of items."""
        # The end of a chunk, or a range that is nearly empty, says little; a page that was cut for its bytes says it all.
        if rows < max(1, self.rows // 2) and size < PAGE_BYTES:
            return
        factor = min(2.0, max(0.5, self._page_s / max(seconds, 1e-6)))
        wanted = int(self.rows * factor)
        if size:
            wanted = min(wanted, PAGE_BYTES * rows // size)
        self.rows = max(min(LEAST_ROWS, self.most), min(wanted, self.most))


def copy(
    journal: Journal,
    source: Source,
    connect: Callable[[], Any],
    target: Target,
    pace: Pace,
    brake: Brakes,
    plan_id: str,
    owner: str,
    span: tuple[int, int] | None = None,
    *,
    stop: threading.Event | None = None,
    lease_s: float = LEASE_S,
    is_checked: bool = True,
    monotonic: Callable[[], float] = time.monotonic,
) -> Copied:
    """Copy chunks of a plan until none is left, or until something holds the copy back.

    Args:
        journal: holds the plan
        source: what is read
        connect: opens a connection for the source's pages, values decoded
        target: what is written
        pace: write units a second, shared by all workers
        brake: asked before each page
        plan_id: of the plan
        owner: names this worker; another attempt has another name
        span: positions of its own, first and end; then it helps the others
        stop: ends the copy after the page under way
        lease_s: see `LEASE_S`
        is_checked: whether what was written is read back; off for measurements only
        monotonic: a clock

    Raises:
        Unsound: see there; not to be repeated before somebody has looked
        TargetError: the store cannot be written as it is
        ViewError: the view gives two rows for one
        MySQLdb.Error: the source cannot be read
    """
    worker = _Worker(
        journal, source, connect, target, _Timed(pace, monotonic), brake, plan_id, owner, stop or threading.Event(), lease_s,
        is_checked, monotonic,
    )  # fmt: skip
    return worker.run(span)


@dataclass
class _Worker:
    journal: Journal
    source: Source
    connect: Callable[[], Any]
    target: Target
    pace: _Timed
    brake: Brakes
    plan_id: str
    owner: str
    stop: threading.Event
    lease_s: float
    is_checked: bool
    monotonic: Callable[[], float]

    def __post_init__(self) -> None:
        limits = self.source.spec.limits
        self.paging = Paging(limits.page_rows, limits.page_s, limits.chunk_rows)
        self.threads = limits.threads
        self.conn: Any = None
        self.tally, self.chunks, self.lost = Tally(), 0, 0

    def run(self, span: tuple[int, int] | None) -> Copied:
        try:
            with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "check") as checker:
                while (chunk := self._next(span)) is not None:
                    try:
                        self._chunk(chunk, reader, checker)
                        self.chunks += 1
                    except LeaseLost as error:
                        self.lost += 1
                        self._note(Event("claim_lost", str(error)))
        except Held as held:
            return self._copied(held.by, held.reason)
        except Refused as refused:
            return self._copied("limit", refused.reason)
        except Overloaded as error:
            return self._copied("overloaded", str(error))
        except _TooManyRejects as error:
            return self._copied("rejects", str(error))
        finally:
            if self.conn is not None:
                self.conn.close()
        return self._copied("done", "")

    def _copied(self, end: End, reason: str) -> Copied:
        return Copied(end, reason, self.tally, self.chunks, self.lost)

    def _next(self, span: tuple[int, int] | None) -> Chunk | None:
        """The next chunk; waits while all that are left belong to others, because one of those may have died."""
        while True:
            if self.stop.is_set():
                raise Held("stop", "the worker was asked to end")
            self.brake()
            if (chunk := self.journal.claim(self.plan_id, self.owner, self.lease_s, span)) is not None:
                return chunk
            free_in = self.journal.until_free(self.plan_id)
            if free_in is None:
                return None
            self.stop.wait(min(POLL_S, max(0.05, free_in)))

    def _chunk(self, chunk: Chunk, reader: ThreadPoolExecutor, checker: ThreadPoolExecutor) -> None:
        if chunk.reached is None:
            self.journal.clear_rejects(self.plan_id, chunk.number)
        progress = _Progress(self, chunk)
        try:
            with self._heart(chunk) as lost:
                for read in self._pages(chunk, reader):
                    if lost.is_set():
                        raise LeaseLost(f"chunk {chunk.number} of {self.plan_id}: its lease was not renewed in time")
                    progress.keep(read, checker)
                progress.wait()
        except BaseException as error:
            worst = (
                progress.abandon() or error
            )  # an end that was asked for does not hide what was found in the page before
            if not isinstance(worst, LeaseLost):
                is_asked = isinstance(worst, Refused | _TooManyRejects)
                # Rows that were rejected are to be corrected, so the chunk is read once more from its begin.
                is_again = isinstance(worst, _TooManyRejects)
                self._give_back(progress.chunk, "" if is_asked else f"{type(worst).__name__}: {worst}", again=is_again)
            raise worst from (None if worst is error else error)

    def _give_back(self, chunk: Chunk, error: str, *, again: bool) -> None:
        try:
            self.journal.release(chunk, self.owner, error, again=again)
        except Exception:  # the error that ends the copy counts; the lease runs out by itself
            log.warning("chunk %s could not be given back", chunk.number, exc_info=True)

    def _pages(self, chunk: Chunk, reader: ThreadPoolExecutor) -> Iterator[_Read]:
        """Pages of what is left of a chunk; the next one is read meanwhile."""
        ahead: Future[_Read] = reader.submit(self._read, chunk.begin, chunk.high)
        try:
            while True:
                read = ahead.result()
                if read.page.is_end or read.page.last is None:
                    yield read
                    return
                ahead = reader.submit(self._read, read.page.last, chunk.high)
                yield read
        finally:
            ahead.cancel()
            _settle(ahead)

    def _read(self, low: Key | None, high: Key) -> _Read:
        """One page; only the reader's thread uses the connection."""
        waited = self.brake()
        if self.stop.is_set():
            raise Held("stop", "the worker was asked to end")
        began = self.monotonic()
        rows = self.paging.rows
        try:
            page = self.source.page(self._connection(), low, high, rows, self.plan_id)
        except Exception as error:
            if not _is_connection_lost(error):
                raise
            log.warning("connection to the source was lost (%s): reading the page again", error)
            self.conn = None
            page = self.source.page(self._connection(), low, high, rows, self.plan_id)
        return _Read(page, self.monotonic() - began, waited)

    def _connection(self) -> Any:
        if self.conn is None:
            self.conn = self.connect()
        return self.conn

    @contextmanager
    def _heart(self, chunk: Chunk) -> Iterator[threading.Event]:
        """Renew the lease while pages take long; the event says that it is lost."""
        ended, lost = threading.Event(), threading.Event()

        def beat() -> None:
            renewed = self.monotonic()
            while not ended.wait(self.lease_s / 3):
                try:
                    self.journal.beat(chunk, self.owner, self.lease_s)
                    renewed = self.monotonic()
                except LeaseLost:
                    lost.set()
                except Exception:
                    log.warning("the lease of chunk %s was not renewed", chunk.number, exc_info=True)
                    if self.monotonic() - renewed > self.lease_s:
                        lost.set()

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            ended.set()
            thread.join()

    def _note(self, event: Event) -> None:
        try:
            self.journal.note(self.plan_id, event)
        except Exception:  # a note is no reason to end a copy
            log.warning("event %s could not be noted", event, exc_info=True)


class _TooManyRejects(Exception):
    pass


class _Progress:
    """A chunk on its way: pages written, read back and kept, in order."""

    def __init__(self, worker: _Worker, chunk: Chunk) -> None:
        self.worker, self.chunk = worker, chunk
        self._kept: Future[None] | None = None

    def keep(self, read: _Read, checker: ThreadPoolExecutor) -> None:
        """Write a page; read it back and keep the checkpoint while the next one is written."""
        worker, began = self.worker, self.worker.monotonic()
        writes = [row.write for row in read.page.rows if row.write is not None]
        sent = worker.target.write(writes, worker.pace) if writes else Sent([])
        seconds = worker.monotonic() - began
        worker.paging.took(len(read.page.rows), sent.bytes, max(read.seconds, seconds))
        self.wait()
        self._kept = checker.submit(self._keep, read, writes, sent, seconds)

    def wait(self) -> None:
        """Until the page before is kept. Raises what keeping it raised."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            kept.result()

    def abandon(self) -> BaseException | None:
        """The chunk ends with an error: what is under way is not left behind. What it came to, if it failed."""
        return None if self._kept is None else self._kept.exception()

    def _keep(self, read: _Read, writes: Sequence[Write], sent: Sent, seconds: float) -> None:
        worker, page = self.worker, read.page
        checked = check(worker.target, writes, sent) if worker.is_checked else 0
        rejected = [Rejected(row.key, row.reject) for row in page.rows if row.write is None]
        keys = [row.key for row in page.rows if row.write is not None]
        rejected += [Rejected(keys[position], reason) for position, reason in sent.rejects.items()]
        worker.journal.reject(worker.plan_id, self.chunk.number, rejected)
        if rejected:
            self._check_rejects(rejected)
        tally = replace(
            tally_of(writes, sent, worker.target.names),
            read=len(page.rows), rejected=len(rejected), checked=checked, read_s=read.seconds, write_s=seconds,
            waited_s=read.waited_s + worker.pace.taken() / worker.threads,
        )  # fmt: skip
        last = page.last
        if page.is_end or last is None:
            self.chunk = worker.journal.finish(self.chunk, worker.owner, tally)
        else:
            self.chunk = worker.journal.checkpoint(self.chunk, worker.owner, last, tally, worker.lease_s)
        worker.tally += tally
        for pressure, count in sent.pressures.items():
            worker._note(Event("pressure", f"{pressure.reason} of {pressure.resource}", count=count))

    def _check_rejects(self, rejected: Sequence[Rejected]) -> None:
        worker, allowed = self.worker, self.worker.source.spec.rejects
        first = f"{', '.join(rejected[0].key)}: {rejected[0].reason}"
        if allowed.policy == "stop":
            raise _TooManyRejects(f"rejects.policy is stop, and a row cannot be an item: key {first}")
        count = worker.journal.reject_count(worker.plan_id)
        if count > allowed.max_rows:
            raise _TooManyRejects(
                f"{count} rows cannot be items, rejects.max_rows allows {allowed.max_rows}; the last: key {first}"
            )


def check(target: Target, writes: Sequence[Write], sent: Sent) -> int:
    """Read back what was written, and look at what was there already in this version. How many rows were right.

    Raises:
        Unsound: an item is missing, older, without version, or has other values in the same version
    """
    names = target.names
    written = [write for write, outcome in zip(writes, sent.outcomes, strict=True) if outcome.is_written]
    found = target.read([write.key for write in written]) if written else []
    for write, item in zip(written, found, strict=True):
        _require_sound(write, Outcome(rules.classify(item, write.version, names), item), names)
    equal = 0
    for write, outcome in zip(writes, sent.outcomes, strict=True):
        if outcome.reason == "equal":
            _require_sound(write, outcome, names)
            equal += 1
    return len(written) + equal


def _require_sound(write: Write, found: Outcome, names: Names) -> None:
    """Raise unless the item that was found is the one that was written, or a newer one."""
    match found.reason:
        case "newer":
            return
        case "tombstone":  # of this version or a newer one; a deletion of this version is newer than its row
            return
        case "equal":
            there = found.there or {}
            wanted = rules.document(write, names)
            if there == wanted or (
                not write.is_tombstone and canonical(there, names.all) == canonical(wanted, names.all)
            ):
                return
            other = sorted(
                name for name in (there.keys() | wanted.keys()) - names.all if there.get(name) != wanted.get(name)
            )
            raise Unsound(
                f"item {canonical(write.key)} has version {write.version.value} as its row, and other values of "
                f"{', '.join(other) or names.deleted}: another writer converts otherwise, or writes without raising the version. "
                "Correct that writer, then run again"
            )
    raise Unsound(
        f"item {canonical(write.key)} was acknowledged in version {write.version.value} and is {found.reason} now: somebody deletes "
        "or overwrites without a condition, or a TTL removes live items. Find that writer, then run again"
    )


def tally_of(writes: Sequence[Write], sent: Sent, names: Names) -> Tally:
    """Count what became of writes."""
    counts: Counter[str] = Counter()
    for position, (write, outcome) in enumerate(zip(writes, sent.outcomes, strict=True)):
        if position in sent.rejects:
            continue
        counts[("buried" if write.is_tombstone else "written") if outcome.is_written else str(outcome.reason)] += 1
    digest = Digest.of(
        item_hash(rules.document(write, names), names.all)
        for position, write in enumerate(writes)
        if position not in sent.rejects
    )
    return Tally(
        written=counts["written"], buried=counts["buried"], equal=counts["equal"], newer=counts["newer"],
        tombstones=counts["tombstone"], unversioned=counts["unversioned"], bytes=sent.bytes, units=sent.units, requests=sent.requests,
        refused_requests=sum(sent.pressures.values()), digest=digest,
    )  # fmt: skip


def _settle(future: Future[Any]) -> None:
    """Wait for what is under way, whatever it comes to."""
    if not future.cancelled():
        future.exception()


def _is_connection_lost(error: Exception) -> bool:
    """Whether the server or the network ended the connection (2006, 2013, 2055), or the server is shutting down (1053)."""
    return (
        type(error).__module__.startswith("MySQLdb") and bool(error.args) and error.args[0] in (2006, 2013, 2055, 1053)
    )
