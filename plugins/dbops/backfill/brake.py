"""What holds a copy back: a person's pause and the window end it, replica lag and running threads make it wait for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from dbops import mysql
from dbops.backfill.spec import Limits
from dbops.guardrails import Refused, Signal, Throttle, ThrottleEvent

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

CHECK_EVERY_S = 1.0
"""Signals are read once a second, not once a page."""
HeldBy = Literal["pause", "window", "limit", "stop"]


class Held(Refused):
    """The copy has to end here. Its checkpoint is kept, and the next run goes on from it."""

    def __init__(self, by: HeldBy, reason: str) -> None:
        super().__init__(reason)
        self.by = by


class Brake:
    """Called before each page; returns when the source can take it. ``waited`` lists the waits and their reasons.

    A mysqlclient connection must not be shared by threads: both belong to the brake, which uses them under a lock.

    Args:
        limits: of the spec
        source: connection to the server that is read
        lag_source: connection that shows the replica's lag; None where there is none, which blocks unless ``max_lag_s`` is null
        paused: why a person has paused the copy; None when nobody has
        stop: set when the worker is asked to end
        monotonic: a clock
        clock: the aware time
    """

    def __init__(
        self,
        limits: Limits,
        source: Connection,
        lag_source: Connection | None,
        paused: Callable[[], str | None],
        *,
        stop: threading.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.waited: list[ThrottleEvent] = []
        self._limits, self._source, self._lag_source, self._paused = limits, source, lag_source, paused
        self._stop = stop or threading.Event()
        self._monotonic, self._clock = monotonic, clock
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        limited = [(limits.max_lag_s, self.replica_lag), (limits.max_threads_running, self.threads_running)]
        self._throttle = Throttle(
            probes=[probe for limit, probe in limited if limit is not None], clock=clock, sleep=self._sleep, poll_s=1.0
        )

    def __call__(self) -> float:
        """Seconds waited until every signal is below its limit; looks at most once a second.

        Raises:
            Held: paused, outside of the window, stopped, or blocked for longer than ``limits.max_wait_s``
        """
        with self._lock:
            self._end_if_asked()
            if self._monotonic() - self._checked_at < CHECK_EVERY_S:
                return 0.0
            try:
                events = self._throttle.wait(self._limits.max_wait_s)
            except Held:
                raise
            except Refused as error:
                raise Held("limit", error.reason) from error
            self._checked_at = self._monotonic()
            self.waited += events
            return sum(event.seconds for event in events)

    def replica_lag(self) -> Signal:
        """Lag in seconds; unknown (which blocks) without a connection that shows it."""
        value = None if self._lag_source is None else mysql.replica_lag_seconds(self._lag_source)
        return Signal("replica lag", value, self._limits.max_lag_s or 0, "s")

    def threads_running(self) -> Signal:
        """Threads that run a statement, without this one."""
        return Signal("threads running", mysql.threads_running(self._source), self._limits.max_threads_running or 0)

    def _end_if_asked(self) -> None:
        if self._stop.is_set():
            raise Held("stop", "the worker was asked to end")
        window, now = self._limits.window, self._clock()
        if window and not window.contains(now):
            raise Held("window", f"outside the window {window}")
        if self._monotonic() - self._checked_at < CHECK_EVERY_S:
            return
        try:
            reason = self._paused()
        except Exception as error:
            raise Held("pause", f"the pause switch cannot be read ({type(error).__name__})") from error
        if reason is not None:
            raise Held("pause", f"paused: {reason}")

    def _sleep(self, seconds: float) -> None:
        """Between two looks of a wait; a pause or a stop ends it."""
        self._stop.wait(seconds)
        self._end_if_asked()
