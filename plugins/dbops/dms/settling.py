"""Rows that look different are looked at again, until they are the same or the time to settle is over.

While changes go on, a target is behind its source, so one look proves nothing. A row that differs is looked at again, by its key alone.
When the time is over, a row that stood still on both sides all along and still differs is a difference; one that changed meanwhile is
`unsettled`, because it may be on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Literal, TypeVar

K = TypeVar("K", bound=Hashable)
State = Hashable
"""What a row is on one side; None when it is not there."""
Look = Callable[[Sequence[K]], Mapping[K, tuple[State, State]]]
"""Source and target as they are now, by key; a key that is nowhere may be left out."""

MAX_SAMPLE = 20
BATCH = 200
CAPACITY = 100_000
"""Rows that are kept to be looked at again. When more differ, those so far are settled before the walk goes on."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 5.0

Class = Literal["missing", "extra", "differing"]


@dataclass(frozen=True)
class Outcome:
    """Exact counts, and at most 20 rows by their keys."""

    missing: int = 0
    extra: int = 0
    differing: int = 0
    unsettled: int = 0
    sample: tuple[str, ...] = ()
    hurried: int = 0
    """Of the differences, those that were looked at twice without waiting, because so many differed before."""

    @property
    def wrong(self) -> int:
        """Rows that are different for good."""
        return self.missing + self.extra + self.differing


@dataclass
class _Row:
    source: State
    target: State
    changed: bool = False


@dataclass
class Settling(Generic[K]):
    """Collects the rows of one table that look different, and finds out which of them are."""

    look: Look[K]
    name: Callable[[K], str]
    settle_s: float
    wait: Callable[[float], None]
    clock: Callable[[], float]
    capacity: int = CAPACITY
    _new: list[K] = field(default_factory=list)
    _open: dict[K, _Row] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _sample: list[str] = field(default_factory=list)
    _maybe: list[str] = field(default_factory=list)
    _is_patient: bool = True
    _hurried: int = 0

    def suspect(self, keys: Iterable[K]) -> None:
        """Rows that looked different. They are looked at once more by their keys before they are kept."""
        for key in keys:
            self._new.append(key)
            if len(self._new) >= BATCH:
                self._take()

    def finish(self) -> Outcome:
        """Wait until everything is settled or the time is over, and say what is left."""
        self._take()
        self._drain()
        counts = {name: self._counts.get(name, 0) for name in ("missing", "extra", "differing", "unsettled")}
        return Outcome(**counts, sample=tuple((self._sample + self._maybe)[:MAX_SAMPLE]), hurried=self._hurried)

    def _take(self) -> None:
        keys, self._new = [key for key in self._new if key not in self._open], []
        for key, (source, target) in self.look(keys).items() if keys else ():
            if source != target:
                self._open[key] = _Row(source, target)
        if len(self._open) >= self.capacity:
            self._drain()

    def _drain(self) -> None:
        end = self.clock() + (self.settle_s if self._is_patient else 0)
        pause = FIRST_PAUSE_S
        while self._open:
            left = end - self.clock()
            if left > 0:
                self.wait(min(pause, left))
                pause = min(pause * 2, LAST_PAUSE_S)
            self._again()
            if left <= 0:
                break
        self._close()

    def _again(self) -> None:
        keys = iter(list(self._open))
        while some := list(islice(keys, BATCH)):
            found = self.look(some)
            for key in some:
                row, (source, target) = self._open[key], found.get(key, (None, None))
                if source == target:
                    del self._open[key]
                    continue
                row.changed = row.changed or (source, target) != (row.source, row.target)
                row.source, row.target = source, target

    def _close(self) -> None:
        """Count what is left; it is judged now."""
        settled = 0
        for key, row in self._open.items():
            kind = "unsettled" if row.changed else _class(row)
            self._counts[kind] = self._counts.get(kind, 0) + 1
            into = self._maybe if row.changed else self._sample
            if len(into) < MAX_SAMPLE:
                into.append(f"{kind} {self.name(key)}")
            settled += not row.changed
        if not self._is_patient:
            self._hurried += settled
        if len(self._open) >= self.capacity // 2:
            self._is_patient = False
        self._open = {}


def _class(row: _Row) -> Class:
    if row.source is None:
        return "extra"
    return "missing" if row.target is None else "differing"
