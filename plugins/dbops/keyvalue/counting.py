"""An application tells once a minute what its repository counted; the gate of the read switch reads it.

    reporter = Reporter(users.counters, connect, application="shop", spec="users")
    reporter.start()
    ...
    reporter.close()

What came since the last report goes into one row of ``backfill_counter``, with the time that it covers, so that a reader sees a hole in
it. A report that may or may not have been committed is sent again as it was, and its key makes it one row. The application is never held
up and never sees an error: a report that fails is logged and kept for later. A process that ends says so; one that fell silent did not.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from dbops.keyvalue.repository import Counters

log = logging.getLogger(__name__)
TABLE = "backfill_counter"
EVERY_S = 60.0
_COLUMNS = ("spec", "application", "instance", "counted_from", "counted_to", "counts", "is_last")
_TICK = timedelta(microseconds=1)
_reporters: weakref.WeakSet[Reporter] = weakref.WeakSet()


@dataclass(frozen=True)
class _Report:
    since: datetime
    until: datetime
    counts: Mapping[str, int]
    is_last: bool


class Reporter:
    """Reports the counters of one repository from a thread of its own, until it is closed or the process ends.

    Args:
        counters: of the repository
        connect: opens a DB-API connection to the schema with the table, with timeouts; the reporter commits and closes it
        application: name under ``live.applications`` of the spec
        spec: of the backfill
        every_s: between two reports
        table: name of the table, with its schema if need be
        paramstyle: of the DB-API module
        instance: names the process; the default has its host, and is unique
        clock: aware current time; clocks of application and gate should agree within seconds
    """

    def __init__(
        self,
        counters: Counters,
        connect: Callable[[], Any],
        *,
        application: str,
        spec: str,
        every_s: float = EVERY_S,
        table: str = TABLE,
        paramstyle: Literal["format", "pyformat", "qmark"] = "format",
        instance: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        for name, value in (("application", application), ("spec", spec)):
            if not 0 < len(value) <= 100:
                raise ValueError(f"{name} is {value!r}: a name of 1 to 100 characters")
        if not re.fullmatch(r"\w+(\.\w+)?", table):
            raise ValueError(f"table is {table!r}: a name, or schema.name")
        if every_s <= 0:
            raise ValueError(f"every_s is {every_s}: seconds between two reports")
        if instance is not None and not 0 < len(instance) <= 100:
            raise ValueError(f"instance is {instance!r}: a name of 1 to 100 characters")
        self.application, self.spec, self.every_s = application, spec, every_s
        self._counters, self._connect, self._clock = counters, connect, clock
        mark = "?" if paramstyle == "qmark" else "%s"
        self._insert = f"INSERT INTO {table} ({', '.join(_COLUMNS)}) VALUES ({', '.join([mark] * len(_COLUMNS))})"
        self._sending = threading.Lock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._pending: _Report | None = None
        self._has_ended = False
        self._failures = 0
        self._reported: Mapping[str, int] = {}
        self._until = self._now()
        self.instance = instance or _instance()
        _reporters.add(self)

    def start(self) -> None:
        """Report from now on, the first time at once: a process is heard of before it counts anything."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="backfill-counters", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Say that the process ends, with its last counts. Call it when it stops serving.

        Args:
            timeout_s: how long to wait for the report that is under way

        Returns:
            whether the last report is there; if not, the gate takes the process for one that fell silent
        """
        self._ends.set()
        if self._thread is None:
            return self.report(is_last=True)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("the last report of the counters of %s took more than %g s", self.application, timeout_s)
            return False
        return self._has_ended and self._pending is None

    def report(self, *, is_last: bool = False) -> bool:
        """Send what was counted since the last report; whether it is there. Never raises."""
        try:
            with self._sending:
                # What may or may not be there goes first and unchanged: drawn anew, it could count twice.
                self._send()
                if not self._has_ended:
                    self._draw(is_last)
                    self._send()
            return True
        except Exception as error:
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:  # 1st, 2nd, 4th, 8th ... time: not a line a minute for days
                log.warning(
                    "counters of %s were not reported (%s, %d times so far); they are kept for the next report",
                    self.application, type(error).__name__, self._failures,
                )  # fmt: skip
            return False

    # --- inside --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ends.is_set():
            self.report()
            self._ends.wait(self.every_s)
        self.report(is_last=True)

    def _draw(self, is_last: bool) -> None:
        now, seen = max(self._now(), self._until + _TICK), self._counters.snapshot()
        counts = {name: count - self._reported.get(name, 0) for name, count in seen.items()}
        self._pending = _Report(self._until, now, counts, is_last)
        # The next report begins where this one ends, whenever this one arrives.
        self._until, self._reported, self._has_ended = now, seen, is_last

    def _send(self) -> None:
        report = self._pending
        if report is None:
            return
        row = (
            self.spec, self.application, self.instance, _naive(report.since), _naive(report.until),
            json.dumps(dict(report.counts)), int(report.is_last),
        )  # fmt: skip
        connection = self._connect()
        try:
            cursor = connection.cursor()
            try:
                cursor.execute(self._insert, row)
            except Exception as error:
                if not _is_there(error):
                    raise
            connection.commit()
        finally:
            connection.close()
        self._pending, self._failures = None, 0

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC)

    def _after_fork(self) -> None:
        """A child has no thread of its parent, and must not report what that counted."""
        was_running, self._thread = self._thread is not None and not self._ends.is_set(), None
        # Another thread of the parent may have held them at that moment; nobody here would ever give them back.
        self._sending, self._counters._lock = threading.Lock(), threading.Lock()
        self._ends, self._pending, self._has_ended = threading.Event(), None, False
        self._reported, self._until = self._counters.snapshot(), self._now()
        self.instance = _instance()
        if was_running:
            self.start()


def _after_fork() -> None:
    for reporter in list(_reporters):
        reporter._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _instance() -> str:
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


def _is_there(error: BaseException) -> bool:
    """A report with this key is there: this one, whose commit was not acknowledged."""
    is_integrity = any(kind.__name__ == "IntegrityError" for kind in type(error).__mro__)
    return is_integrity and (1062 in error.args or "unique" in str(error).lower() or "duplicate" in str(error).lower())


def _naive(moment: datetime) -> str:
    """As DATETIME(6) takes it, with every driver."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


__all__ = ["EVERY_S", "TABLE", "Reporter"]
