"""What slows a purge down: replica lag, running threads, commit latency, undo history, the window and a person's pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dbops import mysql
from dbops.archive.ledger import Ledger
from dbops.archive.spec import Purge
from dbops.guardrails import Signal, Throttle, ThrottleEvent

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

# As pt-archiver's --check-interval: signals are read once a second, not once a transaction.
CHECK_EVERY_S = 1.0


class Brake:
    """Called before each transaction of any worker; returns when the servers can take it.

    Raises :class:`dbops.guardrails.Refused` when blocked longer than ``purge.max_wait_s``. It has connections of its own and uses them
    under a lock, because a mysqlclient connection must not be shared by threads. ``waited`` lists the pauses and their reasons.
    """

    def __init__(
        self,
        purge: Purge,
        source_table: str,
        source: Connection,
        lag_source: Connection | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.waited: list[ThrottleEvent] = []
        self._purge = purge
        self._source, self._lag_source = source, lag_source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._commits: list[float] = []
        self._aurora_commits: tuple[float, float] | None = None
        ledger = Ledger(source)
        limited = [
            (purge.max_lag_s, self.replica_lag),
            (purge.max_threads_running, self.threads_running),
            (purge.max_commit_latency_ms, self.commit_latency),
            (purge.max_history_list, self.history_list_length),
        ]
        self._throttle = Throttle(
            probes=[probe for limit, probe in limited if limit is not None],
            window=purge.window,
            paused=lambda: ledger.paused(source_table) is not None,
            sleep=sleep,
        )

    def __call__(self) -> None:
        """Wait until every signal is below its limit; looks at most once a second."""
        with self._lock:
            if self._monotonic() - self._checked_at < CHECK_EVERY_S:
                return
            self.waited += self._throttle.wait(self._purge.max_wait_s)
            self._checked_at = self._monotonic()

    def committed(self, seconds: float) -> None:
        """Tell how long a COMMIT took."""
        self._commits.append(seconds)

    def replica_lag(self) -> Signal:
        """Lag in seconds; unknown (which blocks) without a connection that shows it."""
        value = None if self._lag_source is None else mysql.replica_lag_seconds(self._lag_source)
        return Signal("replica lag", value, self._purge.max_lag_s or 0, "s")

    def threads_running(self) -> Signal:
        """Threads that run a statement, without this one."""
        return Signal("threads running", mysql.threads_running(self._source), self._purge.max_threads_running or 0)

    def history_list_length(self) -> Signal:
        """Undo records that InnoDB has not purged: deletes come faster than it can clean up."""
        return Signal(
            "history list", mysql.history_list_length(self._source), self._purge.max_history_list or 0, "records"
        )

    def commit_latency(self) -> Signal:
        """Mean latency since the last look, of our own commits or, on Aurora, of all commits: whichever is worse.

        Samples are used once, so a pause ends after one look and the next transaction measures anew.
        """
        own, self._commits = self._commits, []
        means = [1000 * sum(own) / len(own)] if own else [0.0]
        counters = mysql.aurora_commit_counters(self._source)
        if counters and self._aurora_commits and counters[0] > self._aurora_commits[0]:
            commits, micros = counters[0] - self._aurora_commits[0], counters[1] - self._aurora_commits[1]
            means.append(micros / commits / 1000)
        self._aurora_commits = counters
        return Signal("commit latency", max(means), self._purge.max_commit_latency_ms or 0, "ms")
