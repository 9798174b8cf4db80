"""Tasks that share a bucket in time that passes only while all of them wait: one runs at a time, so a seed gives one history."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from dbops.backfill import journal, pacing
from tests.backfill.journal_kit import NOW

Work = Callable[[pacing.Bucket, Callable[[float], bool], Callable[[float], None]], None]
"""What a task does with its bucket, its wait, and a note of units that it has spent."""


class Conductor:
    """Hands one baton round: who waits gives it to who has to wake first."""

    def __init__(self, tasks: int) -> None:
        self.now = 0.0
        self._wakes: dict[int, float] = dict.fromkeys(range(tasks), 0.0)
        self._turn = threading.Condition()
        self._running: int | None = None

    def clock(self) -> datetime:
        return NOW + timedelta(seconds=self.now)

    def wait_of(self, task: int) -> Callable[[float], bool]:
        def wait(seconds: float) -> bool:
            if seconds > 0:
                self._park(task, self.now + seconds + 1e-9)
            return False

        return wait

    def _park(self, task: int, until: float) -> None:
        with self._turn:
            self._wakes[task] = until
            self._hand_on()
            self._turn.wait_for(lambda: self._running == task, 60)

    def _hand_on(self) -> None:
        self._running = min(self._wakes, key=lambda task: (self._wakes[task], task), default=None)
        if self._running is not None:
            self.now = max(self.now, self._wakes[self._running])
        self._turn.notify_all()

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        failed: list[BaseException] = []

        def go(task: int, work: Callable[[], None]) -> None:
            with self._turn:
                self._turn.wait_for(lambda: self._running == task, 60)
            try:
                work()
            except BaseException as error:
                failed.append(error)
            with self._turn:
                del self._wakes[task]
                self._hand_on()

        threads = [threading.Thread(target=go, args=each) for each in enumerate(works)]
        for thread in threads:
            thread.start()
        with self._turn:
            self._hand_on()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]


def memory_engine() -> sa.Engine:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    journal.Journal.open(engine)
    return engine


def played(
    engine: sa.Engine, limits: Sequence[float], works: Sequence[Work], tasks: int | None = None
) -> list[tuple[float, float]]:
    """(when, units) of everything that the tasks spent, in order."""
    conductor = Conductor(len(works))
    spent: list[tuple[float, float]] = []
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM backfill_bucket"))

    def bound(number: int, work: Work) -> Callable[[], None]:
        wait = conductor.wait_of(number)
        bucket = pacing.Bucket(
            engine, "dynamodb::rides", limits[number], tasks=tasks or len(works), max_wait_s=1e9, wait=wait,
            monotonic=lambda: conductor.now, clock=conductor.clock,
        )  # fmt: skip
        return lambda: work(bucket, wait, lambda units: spent.append((conductor.now, units)))

    conductor.run([bound(number, work) for number, work in enumerate(works)])
    return spent


def excess(spent: Sequence[tuple[float, float]], rate: float) -> float:
    """The most units above the rate that were spent in any interval."""
    worst, lowest, total = 0.0, 0.0, 0.0
    for at, units in spent:
        lowest = min(lowest, total - rate * at)
        total += units
        worst = max(worst, total - rate * at - lowest)
    return worst
