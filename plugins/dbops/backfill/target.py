"""The door to a store: what copy, verification and roll-back ask of it. `dynamodb` and `redis` stand behind it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from dbops.keyvalue.items import Item
from dbops.keyvalue.rules import Names, Outcome, Version, Write

PressureKind = Literal["table", "key_range", "account", "on_demand_limit", "index", "server"]


@dataclass(frozen=True)
class Pressure:
    """Why a store turned writes away."""

    kind: PressureKind
    reason: str
    """As the store names it: ``TableWriteProvisionedThroughputExceeded``, ``OOM``."""
    resource: str = ""
    """Table or index."""


class TargetError(RuntimeError):
    """The store cannot be used as it is; the text says why and what to do."""


class Overloaded(TargetError):
    """Writes were turned away longer than the caller would wait. What was not acknowledged may simply be written again."""

    def __init__(self, message: str, pressure: Pressure) -> None:
        super().__init__(message)
        self.pressure = pressure


class Pace(Protocol):
    """How fast a writer or a reader may go. Shared by all threads of a task."""

    def spend(self, units: float) -> None:
        """Return when so many units may be spent. Raises guardrails.Refused when that would take too long."""

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        """Tell that the store turned requests away: the rate falls, and recovers by itself."""


class Reads:
    """Keeps a pace for reads, whose cost is known only when they are answered: each one pays before it for those that came before.

    So a reader is at most one request of each thread ahead of its pace, and never waits between an item and what it is compared with.

    Args:
        pace: in read units; None for reads that nobody limits
    """

    def __init__(self, pace: Pace | None) -> None:
        self._pace, self._owed, self._lock = pace, 0.0, threading.Lock()

    def pay(self) -> None:
        """Return when what was read so far is paid for. Raises what the pace raises."""
        if self._pace is None:
            return
        with self._lock:
            owed, self._owed = self._owed, 0.0
        if owed:
            self._pace.spend(owed)

    def owe(self, units: float) -> None:
        """Note what a read has cost, in read units."""
        with self._lock:
            self._owed += units

    def eased(self, pressure: Pressure) -> None:
        """Tell that the store turned a read away."""
        if self._pace is not None:
            self._pace.eased(pressure, 0.0)


@dataclass
class Sent:
    """What became of some writes."""

    outcomes: list[Outcome]
    """In the order of the writes."""
    units: float = 0.0
    """Write units that the store says it used; estimated where it does not say."""
    bytes: int = 0
    """Of the items that were sent, once each."""
    requests: int = 0
    pressures: Counter[Pressure] = field(default_factory=Counter)
    rejects: dict[int, str] = field(default_factory=dict)
    """By position, why the store takes no such item, without its values; the outcome there is ``missing``."""


@dataclass(frozen=True)
class Index:
    """A global secondary index: every write of a projected attribute costs once more."""

    name: str
    status: str


@dataclass(frozen=True)
class TargetFacts:
    """What a store is, before anything is written."""

    exists: bool
    state: str
    """``ACTIVE``, or what the store says."""
    key: tuple[tuple[str, str], ...] = ()
    """Key attributes and their types, partition key first: ``(("pk", "S"),)``."""
    billing: str = ""
    """``PAY_PER_REQUEST``, ``PROVISIONED``; empty for Redis."""
    write_capacity: float | None = None
    """Units a second that the table takes: provisioned, or the warm throughput; None when unknown."""
    indexes: tuple[Index, ...] = ()
    point_in_time_recovery: bool | None = None
    ttl_attribute: str = ""
    replicas: int = 0
    """Other regions of a global table."""
    items: int | None = None
    """About how many items; hours old."""
    memory_used: int | None = None
    memory_limit: int | None = None
    eviction: str = ""
    """``maxmemory-policy`` of Redis: only ``noeviction`` keeps what was written."""


@dataclass(frozen=True)
class ScanPage:
    """Some items, and where to go on; None at the end."""

    items: list[Item]
    next: str | None


class Target(Protocol):
    """A store under the rules of `dbops.keyvalue`. Safe to use from several threads."""

    @property
    def names(self) -> Names:
        """Attributes that are not columns."""

    def facts(self) -> TargetFacts:
        """What the store is."""

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        """Write each under `Condition.NEWER`; several keys at once, in no order; no key twice.

        Raises:
            Overloaded: the store turned writes away for too long
        """

    def read(self, keys: Sequence[Item]) -> list[Item | None]:
        """Items by key, consistently, in the order of the keys; None where there is none."""

    def remove(self, key: Item, version: Version, stamp: str) -> bool:
        """Remove a live item if it is still what the run with this stamp wrote. Whether it was."""

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage]:
        """All items of one of so many disjoint parts of the store, consistently, tombstones too; each page says where to go on."""
