"""What every worker of a plan does around a chunk: claims it, keeps its lease, gives it back, and says why the work has ended.

Everything that holds the work back ends it cleanly (:class:`Copied` says why): what the journal has is kept, the chunk is given back, and
the next run goes on from there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from dbops.backfill.brake import Held
from dbops.backfill.journal import Journal, LeaseLost
from dbops.backfill.records import Chunk, Event, Rejected, Tally
from dbops.backfill.target import Overloaded
from dbops.guardrails import Refused

if TYPE_CHECKING:
    from dbops.backfill.source import Source

log = logging.getLogger(__name__)
LEASE_S = 60.0
"""A chunk whose worker is silent for so long may be taken by another."""
POLL_S = 5.0
End = Literal["done", "pause", "window", "limit", "stop", "overloaded", "rejects"]
"""Why a worker ended. All but ``done`` and ``rejects`` say: run it again."""


class Brakes(Protocol):
    """See :class:`dbops.backfill.brake.Brake`."""

    def __call__(self) -> float:
        """Seconds waited until the source can take a page; raises Held to end the work."""


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


class TooManyRejects(Exception):
    """More rows cannot be items than the spec allows."""


@dataclass
class Worker:
    """Takes chunks of a plan until none is left; a subclass says what becomes of one."""

    journal: Journal
    source: Source
    plan_id: str
    owner: str
    brake: Brakes
    stop: threading.Event
    lease_s: float
    monotonic: Callable[[], float]

    def __post_init__(self) -> None:
        self.tally, self.chunks, self.lost = Tally(), 0, 0

    def chunk(self, chunk: Chunk, require_lease: Callable[[], None]) -> None:
        """Do the work of a chunk, finish it in the journal, and add what came of it to `tally`.

        Args:
            chunk: claimed by this worker
            require_lease: raises LeaseLost when the lease was not renewed in time
        """
        raise NotImplementedError

    def run(self, span: tuple[int, int] | None) -> Copied:
        """Work until no chunk is left, or something holds the work back. Raises what :meth:`chunk` raises.

        Args:
            span: positions of its own, first and end; then it helps the others
        """
        try:
            while (chunk := self._next(span)) is not None:
                try:
                    self._one(chunk)
                    self.chunks += 1
                except LeaseLost as error:
                    self.lost += 1
                    self.note(Event("claim_lost", str(error)))
        except Held as held:
            return self._ended(held.by, held.reason)
        except Refused as refused:
            return self._ended("limit", refused.reason)
        except Overloaded as error:
            return self._ended("overloaded", str(error))
        except TooManyRejects as error:
            return self._ended("rejects", str(error))
        return self._ended("done", "")

    def may_go_on(self) -> float:
        """Seconds waited for the brake; asked before each page. Raises Held when the work is to end."""
        waited = self.brake()
        if self.stop.is_set():
            raise Held("stop", "the worker was asked to end")
        return waited

    def reject(self, chunk: Chunk, rejected: Sequence[Rejected]) -> None:
        """Keep rows of a chunk that cannot be items. Raises TooManyRejects."""
        if not rejected:
            return
        self.journal.reject(self.plan_id, chunk.number, rejected)
        # Their keys are for the report: this text comes to alerts.
        allowed, where = self.source.spec.rejects, f"{rejected[0].reason}; table backfill_reject has the keys"
        if allowed.policy == "stop":
            raise TooManyRejects(f"rejects.policy is stop, and a row cannot be an item: {where}")
        count = self.journal.reject_count(self.plan_id)
        if count > allowed.max_rows:
            raise TooManyRejects(
                f"{count} rows cannot be items, rejects.max_rows allows {allowed.max_rows}; the last: {where}"
            )

    def note(self, event: Event) -> None:
        """Keep an event, if that can be done."""
        try:
            self.journal.note(self.plan_id, event)
        except Exception:  # a note is no reason to end the work
            log.warning("event %s could not be noted", event, exc_info=True)

    def _ended(self, end: End, reason: str) -> Copied:
        return Copied(end, reason, self.tally, self.chunks, self.lost)

    def _next(self, span: tuple[int, int] | None) -> Chunk | None:
        """The next chunk; waits while all that are left belong to others, because one of those may have died."""
        while True:
            self.may_go_on()
            if (chunk := self.journal.claim(self.plan_id, self.owner, self.lease_s, span)) is not None:
                return chunk
            free_in = self.journal.until_free(self.plan_id)
            if free_in is None:
                return None
            self.stop.wait(min(POLL_S, max(0.05, free_in)))

    def _one(self, chunk: Chunk) -> None:
        """Work on a chunk; it is given back with whatever ends that."""
        try:
            with self._heart(chunk) as require_lease:
                self.chunk(chunk, require_lease)
        except LeaseLost:
            raise
        except BaseException as error:
            is_asked = isinstance(error, Refused | TooManyRejects)
            # Rows that were rejected are to be corrected, so the chunk is read once more from its begin.
            is_again = isinstance(error, TooManyRejects)
            self._give_back(chunk, "" if is_asked else f"{type(error).__name__}: {error}", again=is_again)
            raise

    def _give_back(self, chunk: Chunk, error: str, *, again: bool) -> None:
        try:
            self.journal.release(chunk, self.owner, error, again=again)
        except Exception:  # the error that ends the work counts; the lease runs out by itself
            log.warning("chunk %s could not be given back", chunk.number, exc_info=True)

    @contextmanager
    def _heart(self, chunk: Chunk) -> Iterator[Callable[[], None]]:
        """Renew the lease while pages take long; gives a function that raises LeaseLost when that has failed."""
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

        def require_lease() -> None:
            if lost.is_set():
                raise LeaseLost(f"chunk {chunk.number} of {self.plan_id}: its lease was not renewed in time")

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield require_lease
        finally:
            ended.set()
            thread.join()
