"""The worker of a copy: reads pages of chunks, writes them under the rules, reads them back, keeps a checkpoint.

The steps of a page overlap with those of its neighbours: the next page is read while this one is written, and the one before is read back
and its checkpoint kept. No more than three pages are in memory. A checkpoint follows what the store has acknowledged and what
was read back, page by page. A worker that is killed at any moment leaves a chunk of which somebody else repeats a few pages, which
changes nothing under the rules.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dbops.backfill.journal import Journal
from dbops.backfill.records import Chunk, Event, Rejected, Tally
from dbops.backfill.target import Pace, Pressure, Sent, Target
from dbops.backfill.worker import LEASE_S, Brakes, Copied, Worker
from dbops.keys import Key
from dbops.keyvalue import rules
from dbops.keyvalue.items import Digest, canonical, item_hash
from dbops.keyvalue.rules import Names, Outcome, Write

if TYPE_CHECKING:
    from dbops.backfill.source import Page, Source

log = logging.getLogger(__name__)
PAGE_BYTES = 8 * 1024 * 1024
"""Of the items of a page: bounds the memory of a worker, whatever its rows are."""
LEAST_ROWS = 25


class Unsound(RuntimeError):
    """The store does not hold what it acknowledged, or somebody converts otherwise. The chunk stays at its last checkpoint."""


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
        lease_s: see `worker.LEASE_S`
        is_checked: whether what was written is read back; off for measurements only
        monotonic: a clock

    Raises:
        Unsound: see there; not to be repeated before somebody has looked
        TargetError: the store cannot be written as it is
        ViewError: the view gives two rows for one
        MySQLdb.Error: the source cannot be read
    """
    worker = _Worker(
        journal, source, plan_id, owner, brake, stop or threading.Event(), lease_s, monotonic, connect, target,
        _Timed(pace, monotonic), is_checked,
    )  # fmt: skip
    return worker.run(span)


@dataclass
class _Worker(Worker):
    connect: Callable[[], Any]
    target: Target
    pace: _Timed
    is_checked: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = self.source.spec.limits
        self.paging = Paging(limits.page_rows, limits.page_s, limits.chunk_rows)
        self.threads = limits.threads
        self.conn: Any = None

    def run(self, span: tuple[int, int] | None) -> Copied:
        try:
            with ThreadPoolExecutor(1, "read") as self.reader, ThreadPoolExecutor(1, "check") as self.checker:
                return super().run(span)
        finally:
            if self.conn is not None:
                self.conn.close()

    def chunk(self, chunk: Chunk, require_lease: Callable[[], None]) -> None:
        if chunk.reached is None:
            self.journal.clear_rejects(self.plan_id, chunk.number)
        progress = _Progress(self, chunk)
        try:
            for read in self._pages(chunk):
                require_lease()
                progress.keep(read)
            progress.wait()
        except BaseException as error:
            # An end that was asked for does not hide what was found in the page before.
            if (found := progress.abandon()) is not None:
                raise found from error
            raise

    def _pages(self, chunk: Chunk) -> Iterator[_Read]:
        """Pages of what is left of a chunk; the next one is read meanwhile."""
        ahead: Future[_Read] = self.reader.submit(self._read, chunk.begin, chunk.high)
        try:
            while True:
                read = ahead.result()
                if read.page.is_end or read.page.last is None:
                    yield read
                    return
                ahead = self.reader.submit(self._read, read.page.last, chunk.high)
                yield read
        finally:
            ahead.cancel()
            _settle(ahead)

    def _read(self, low: Key | None, high: Key) -> _Read:
        """One page; only the reader's thread uses the connection."""
        waited = self.may_go_on()
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


class _Progress:
    """A chunk on its way: pages written, read back and kept, in order."""

    def __init__(self, worker: _Worker, chunk: Chunk) -> None:
        self.worker, self.chunk = worker, chunk
        self._kept: Future[None] | None = None

    def keep(self, read: _Read) -> None:
        """Write a page; read it back and keep the checkpoint while the next one is written."""
        worker, began = self.worker, self.worker.monotonic()
        writes = [row.write for row in read.page.rows if row.write is not None]
        sent = worker.target.write(writes, worker.pace) if writes else Sent([])
        seconds = worker.monotonic() - began
        worker.paging.took(len(read.page.rows), sent.bytes, max(read.seconds, seconds))
        self.wait()
        self._kept = worker.checker.submit(self._keep, read, writes, sent, seconds)

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
        worker.reject(self.chunk, rejected)
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
            worker.note(Event("pressure", f"{pressure.reason} of {pressure.resource}", count=count))


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
        if _is_there(write, outcome, names):
            _require_sound(write, outcome, names)
            equal += 1
    return len(written) + equal


def _is_there(write: Write, outcome: Outcome, names: Names) -> bool:
    """Whether the store had this very version already. A tombstone of a row that MySQL keeps as deleted is no deletion of others."""
    if write.is_tombstone and outcome.reason == "tombstone":
        return rules.version_of(outcome.there, names) == write.version
    return outcome.reason == "equal"


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
        found = "equal" if _is_there(write, outcome, names) else str(outcome.reason)
        counts[("buried" if write.is_tombstone else "written") if outcome.is_written else found] += 1
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
