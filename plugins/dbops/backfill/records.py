"""Values that the journal keeps and every step shares. All times have UTC; keys are literals of MySQL (`dbops.keys`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from dbops.keys import Key
from dbops.keyvalue.items import Digest

PlanState = Literal["planned", "copying", "copied", "verified", "rolled_back", "abandoned"]
"""``copying`` until every chunk is done; ``verified`` when the last verification was clean. The last three are final for the copy."""
CLOSED: frozenset[PlanState] = frozenset({"verified", "rolled_back", "abandoned"})
ChunkState = Literal["planned", "done", "rolled_back"]
"""A chunk that somebody works on is ``planned`` with a lease."""
Class = Literal["equal", "target_newer", "source_newer", "missing", "extra", "converter", "unversioned", "ahead"]
"""What a row and its item are to each other; see :data:`FAILING`.

``equal``         same content, same version; or gone on both sides
``target_newer``  the item's version is above the row's: a newer write came by another way. Fine, once MySQL has shown that it has it too
``source_newer``  the row's version is above the item's: looked at again until it has arrived, or the time to drain is over
``missing``       the row has no item
``extra``         the item lives, its row is not there
``converter``     one version, two contents: somebody converts differently, or wrote without raising the version
``unversioned``   the item has no version, or one of another kind: somebody writes outside of the rules
``ahead``         ``target_newer`` that stays so: MySQL does not get there. The version went down (a joined row was deleted, a key was
                  inserted again from 1), and the item, perhaps a tombstone, hides the row
"""
FAILING: frozenset[Class] = frozenset({"source_newer", "missing", "extra", "converter", "unversioned", "ahead"})
"""Classes that no verified plan may have at its end."""


@dataclass(frozen=True)
class Plan:
    """One backfill from start to end, over as many DAG runs as it takes."""

    plan_id: str
    """``<spec>-<yyyymmdd>-<8 hex digits>``; also the stamp of the items that it writes."""
    spec: str
    rule_digest: str
    state: PlanState
    made_at: datetime
    server_uuid: str
    """Of the writer that it was made on."""
    log_position: str
    """GTID set or file:position of the source when it was made: dual writes and stream were live before."""
    rows: int
    """That the walk counted."""
    chunks: int
    estimate: dict[str, Any] = field(default_factory=dict)
    """`estimate.Estimate` as JSON."""
    closed_at: datetime | None = None

    @property
    def stamp(self) -> str:
        """What marks the items of this plan."""
        return self.plan_id


@dataclass(frozen=True)
class PlannedChunk:
    """Rows of the driving table with ``low < key <= high``."""

    number: int
    """From 0, in key order."""
    low: Key | None
    high: Key
    rows: int
    is_cold: bool = True


@dataclass(frozen=True)
class Tally:
    """What became of rows; adds up."""

    read: int = 0
    written: int = 0
    """Live items."""
    buried: int = 0
    """Tombstones."""
    equal: int = 0
    """This version was there already: another attempt, or a dual write."""
    newer: int = 0
    """A newer item was there, and stays: what a write without condition would have destroyed."""
    tombstones: int = 0
    """The row was deleted meanwhile, and stays so: what a write without condition would have raised from the dead."""
    unversioned: int = 0
    """An item without version was there, and stays: somebody writes outside of the rules."""
    rejected: int = 0
    checked: int = 0
    """Rows that were read back from the store after they had been written, and were right."""
    bytes: int = 0
    """Of the items that were sent."""
    units: float = 0.0
    requests: int = 0
    refused_requests: int = 0
    """Turned away by the store, and sent again."""
    read_s: float = 0.0
    write_s: float = 0.0
    waited_s: float = 0.0
    """For the pace, and for what the brake held it back for."""
    digest: Digest = field(default_factory=Digest)
    """Over the canonical items of the rows that were read, without rejects."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True)
class Chunk:
    """A chunk as the journal has it."""

    plan_id: str
    number: int
    position: int
    """In the shuffled order in which chunks are taken."""
    low: Key | None
    high: Key
    planned_rows: int
    is_cold: bool
    state: ChunkState
    reached: Key | None
    """Rows up to this key are done; None in the beginning."""
    tally: Tally
    attempt: int
    """How often it was claimed."""
    owner: str | None
    leased_until: datetime | None
    done_at: datetime | None
    error: str = ""
    checkpoints: int = 0
    """How often its progress was kept: a checkpoint counts only on top of the one that its writer knows of."""
    removed: int = 0
    """Items that the roll-back has taken out."""
    kept: int = 0
    """Items that the roll-back has left, because somebody has changed them since."""

    @property
    def begin(self) -> Key | None:
        """Where to go on: rows after this key are not done."""
        return self.reached if self.reached is not None else self.low


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be an item. The text holds no value of the row beside its key."""

    key: Key
    reason: str


@dataclass(frozen=True)
class Event:
    """Something that took time or that a person should know."""

    kind: str
    """``wait``, ``pressure``, ``pause``, ``rate``, ``claim_lost``, ``approval``, ``state``, ``repair``, ``roll_back``, ``rejects``,
    ``reopened``."""
    reason: str
    seconds: float = 0.0
    count: int = 0
    at: datetime | None = None
    """None: now."""
    run: str = ""
    """dag_id/run_id."""


@dataclass(frozen=True)
class Difference:
    """A row and an item that are not what they should be to each other, by the key of the item in canonical text."""

    key: str
    classed: Class
    source_version: str
    """As text; empty where there is none."""
    target_version: str
    detail: str
    """Which attributes differ, never their values."""
    looks: int = 1


Direction = Literal["forward", "reverse", "sample"]
"""From rows to items, from items to rows, or rows and keys that were drawn."""


@dataclass(frozen=True)
class Compared:
    """What one part of a verification came to: a chunk, a segment of the store, a stratum of a sample."""

    direction: Direction
    part: int
    counts: Mapping[Class, int] = field(default_factory=dict)
    """Rows, or items, by class."""
    rejected: int = 0
    """Rows that cannot be items."""
    foreign: int = 0
    """Items with keys of other views, in a table that holds several."""
    unread: int = 0
    """Drawn, but not there any more when it was read: not counted anywhere else."""
    looked_again: int = 0
    """Not equal at first sight."""
    differences: tuple[Difference, ...] = ()
    """All that fails."""
    seconds: float = 0.0
    name: str = ""
    """Of a stratum."""
    note: str = ""

    @property
    def seen(self) -> int:
        """How many were compared."""
        return sum(self.counts.values())

    @property
    def failing(self) -> int:
        """How many of them fail."""
        return sum(count for classed, count in self.counts.items() if classed in FAILING)


@dataclass(frozen=True)
class Verification:
    """A verification of a plan, with the sums of its parts."""

    verification_id: int
    plan_id: str
    run: str
    """dag_id/run_id."""
    mode: Literal["full", "sample"]
    began_at: datetime
    ended_at: datetime | None = None
    verdict: Literal["", "clean", "differences", "unfinished"] = ""
    """Empty while it runs."""
    counts: Mapping[Direction, Mapping[Class, int]] = field(default_factory=dict)
    rejected: int = 0
    foreign: int = 0
    bound: float | None = None
    """Of a sample: with 95 % confidence no larger part of the rows is wrong."""


@dataclass(frozen=True)
class Beat:
    """What one process of an application counted between two moments (`dbops.keyvalue.counting`)."""

    application: str
    instance: str
    """Names one process, from its start to its end."""
    since: datetime
    """End of the beat before, or the start of the process: without a hole between them nothing was missed."""
    at: datetime
    counts: Mapping[str, int]
    """Counts of `Counters` that came in this time."""
    is_last: bool = False
    """The process said that it ends."""
