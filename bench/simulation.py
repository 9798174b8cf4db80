"""A backfill as a discrete-event simulation: tasks, chunks with leases, the shared bucket, partitions of the table, journal, kills.

Plain Python, deterministic for a seed, without a service. Times are seconds, rates are a second. What a step costs is measured by
:mod:`bench.scaling`; what the sizes of the store are comes from DynamoDB's documentation (1,000 write units a partition).
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from dbops.backfill.pacing import GRANT_S, HOLD_S, SMALLEST_GRANT_S

PARTITION_UNITS = 1_000.0
"""Write units a second that one partition of DynamoDB takes."""
FIRST_PAGE = 500
LEAST_PAGE, LARGEST_PAGE = 25, 50_000
Layout = Literal["spread", "shuffled", "ordered"]


@dataclass(frozen=True)
class Costs:
    """What the steps cost, in seconds."""

    read_s: float
    """Waiting for MySQL for a row, on one connection; the next page is read while one is written."""
    cpu_s: float
    """CPU of the task for a row: decode, encode, key, hash, write, read back. One process has one core for it."""
    call_s: float
    """Round trip of a request beyond the CPU of the task."""
    units: float = 1.0
    """Write units of a row, indexes included."""
    rows_per_call: float = 25 * 100 / 125
    """Rows of a request: one write of 25, one reading back of 100."""
    claim_s: float = 0.0
    checkpoint_s: float = 0.0
    journal_cpu_s: float = 0.0
    """CPU of the journal's server for a claim or a checkpoint; it has one core for them."""
    grant_s: float = 0.0
    """A grant of the bucket: all tasks change the same row, one after the other."""
    server_cpu_s: float = 0.0
    """CPU for a row of servers that share the machine with the tasks; 0 where they have their own."""


@dataclass(frozen=True)
class Setting:
    """What is copied, by how many, and into what."""

    rows: int
    tasks: int
    units_per_s: float = math.inf
    """Of the bucket."""
    partitions: int = 4
    """4: a new on-demand table (4,000 units/s), 40: one that was warmed up to the default quota."""
    layout: Layout = "spread"
    """spread: the rows of a chunk lie in all partitions; shuffled, ordered: they lie in one, chunks are taken in random or in key order."""
    account_units: float = 40_000.0
    source_rows_per_s: float = math.inf
    """What the server that is read from gives to all tasks."""
    threads: int = 8
    chunk_rows: int = 10_000
    page_s: float = 2.0
    cores: float = math.inf
    """Cores that all tasks share; inf: each has its own."""
    lease_s: float = 60.0
    kills_per_task_hour: float = 0.0
    killed: tuple[tuple[float, int], ...] = ()
    """Seconds from the start and number of the task, for kills that are planned."""
    restart_s: float = 60.0
    seed: int = 1
    max_pages: int = 30_000
    """So many pages are simulated; the rest goes on at the rate that was reached."""


@dataclass(frozen=True)
class Result:
    """How it went."""

    seconds: float
    simulated: float
    """Share of the rows."""
    held: dict[str, float]
    """Share of the tasks' time that went by waiting for each; ``tasks`` is their own work."""
    pages: int
    kills: int
    rows_again: int
    """Rows that were written once more, because their page was never told to the journal."""
    rows_done: int
    peak_units_per_s: float
    """Highest mean over a stretch of 10 s."""
    limited_by: str
    """What alone would allow no more than this; otherwise that for which the tasks waited most."""


@dataclass
class Server:
    """Something that does one thing after the other."""

    free_at: float = 0.0

    def reserve(self, now: float, seconds: float) -> float:
        """When work that is handed in now is done."""
        self.free_at = max(now, self.free_at) + seconds
        return self.free_at


@dataclass
class _Chunk:
    number: int
    left: int


@dataclass
class _Task:
    number: int
    life: int = 0
    """Raised when it is killed: what its earlier life had under way does not happen."""
    chunk: _Chunk | None = None
    page: int = FIRST_PAGE
    rows: int = 0
    """Of the page that is written."""
    unkept: deque[int] = field(default_factory=deque)
    """Pages that are written, and of which the journal was not told yet."""
    read: int = 0
    """Rows of the page that is read or written next."""
    ahead_at: float = 0.0
    """When it is there."""
    began: float = 0.0
    granted: float = 0.0
    """Units that are left of its last grant ..."""
    lapses_at: float = 0.0
    """... until then."""

    @property
    def left(self) -> int:
        """Rows of the chunk that are not under way."""
        return (self.chunk.left if self.chunk else 0) - self.rows - sum(self.unkept)


@dataclass
class _World:
    costs: Costs
    setting: Setting
    chance: random.Random
    waiting: list[_Chunk]
    """Chunks that nobody has, the next one last."""
    leased: list[tuple[float, int, _Chunk]] = field(default_factory=list)
    """Chunks of tasks that were killed, by the end of their lease."""
    events: list[tuple[float, int, int, int, str]] = field(default_factory=list)
    source: Server = field(default_factory=Server)
    cores: Server = field(default_factory=Server)
    bucket: Server = field(default_factory=Server)
    grants: Server = field(default_factory=Server)
    account: Server = field(default_factory=Server)
    journal: Server = field(default_factory=Server)
    partitions: list[Server] = field(default_factory=list)
    spent: dict[int, float] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    serial: int = 0
    done: int = 0
    pages: int = 0
    kills: int = 0
    again: int = 0
    now: float = 0.0

    def at(self, time: float, task: _Task, what: str) -> None:
        self.serial += 1
        heapq.heappush(self.events, (time, self.serial, task.number, task.life, what))

    def hold(self, name: str, seconds: float) -> None:
        """A task goes on so much later because of this."""
        self.held[name] = self.held.get(name, 0.0) + seconds


def run(costs: Costs, setting: Setting) -> Result:
    """Copy all rows."""
    chance = random.Random(setting.seed)
    count = -(-setting.rows // setting.chunk_rows)
    chunks = [_Chunk(n, min(setting.chunk_rows, setting.rows - n * setting.chunk_rows)) for n in range(count)]
    if setting.layout != "ordered":
        chance.shuffle(chunks)
    world = _World(costs, setting, chance, chunks[::-1])
    world.partitions = [Server() for _ in range(setting.partitions)]
    tasks = [_Task(n) for n in range(setting.tasks)]
    for task in tasks:
        _begin(world, task, 0.0)
    for at, number in setting.killed:
        world.at(at, tasks[number], "kill")
    steps = {"claim": _claim, "write": _write, "written": _written, "kept": _kept, "kill": _kill}
    while world.done < setting.rows and world.pages < setting.max_pages:
        world.now, _, number, life, what = heapq.heappop(world.events)
        if life == tasks[number].life:
            steps[what](world, tasks[number])
    return _result(world)


def bound(costs: Costs, setting: Setting) -> dict[str, float]:
    """Rows a second that each thing alone would allow: no run is faster than the smallest."""
    units = costs.units
    per_row = max(costs.cpu_s, costs.read_s, costs.call_s / costs.rows_per_call / setting.threads)
    used = setting.partitions if setting.layout == "spread" else min(setting.partitions, setting.tasks)
    return {
        "tasks": setting.tasks / per_row,
        "cores": setting.cores / (costs.cpu_s + costs.server_cpu_s),
        "bucket": setting.units_per_s / units,
        "partitions": used * PARTITION_UNITS / units,
        "account": setting.account_units / units,
        "source": setting.source_rows_per_s,
        "grants": _grant(setting) / costs.grant_s / units if costs.grant_s else math.inf,
    }


def _grant(setting: Setting) -> float:
    """Units of a grant."""
    return setting.units_per_s * max(GRANT_S / setting.tasks, SMALLEST_GRANT_S)


def _claim(world: _World, task: _Task) -> None:
    """The next chunk without a live lease; those whose owner died come first, because they were taken first."""
    now, chunk = world.now, None
    if world.leased and world.leased[0][0] <= now:
        chunk = heapq.heappop(world.leased)[2]
    elif world.waiting:
        chunk = world.waiting.pop()
    elif world.leased:
        world.hold("leases", world.leased[0][0] - now)
        world.at(world.leased[0][0], task, "claim")
        return
    if chunk is not None:
        task.chunk, task.unkept, task.rows = chunk, deque(), 0
        claimed = max(now + world.costs.claim_s, world.journal.reserve(now, world.costs.journal_cpu_s))
        world.hold("journal", claimed - now)
        world.at(_read(world, task, claimed), task, "write")


def _read(world: _World, task: _Task, now: float) -> float:
    """When the next page is there, if it is asked for now."""
    rows = task.read = min(task.page, task.left)
    served = world.source.reserve(now, rows / world.setting.source_rows_per_s)
    return max(now + rows * world.costs.read_s, served)


def _write(world: _World, task: _Task) -> None:
    """The page is written when the task, the bucket and the table are done with it; the next one is read meanwhile."""
    assert task.chunk is not None
    costs, setting, now = world.costs, world.setting, world.now
    rows = task.rows = task.read
    task.began = now
    units = rows * costs.units
    calls_s = math.ceil(rows / costs.rows_per_call) * costs.call_s / setting.threads
    own_s = max(rows * costs.cpu_s, calls_s)
    ends = {
        "tasks": now + own_s,
        "cores": world.cores.reserve(now, rows * (costs.cpu_s + costs.server_cpu_s) / setting.cores),
        **_granted(world, task, units),
        "account": world.account.reserve(now, units / setting.account_units),
        "partitions": _partition(world, task.chunk, units),
    }
    last = max(ends, key=lambda name: ends[name])
    end = ends[last]
    world.hold(last, end - now)
    second = int(end / 10)
    world.spent[second] = world.spent.get(second, 0.0) + units
    task.ahead_at = _read(world, task, now) if task.left else end
    world.at(end, task, "written")


def _granted(world: _World, task: _Task, units: float) -> dict[str, float]:
    """When the bucket has granted so many units: grants are of one size, and what is left of one lapses."""
    setting, now = world.setting, world.now
    if math.isinf(setting.units_per_s):
        return {}
    if task.lapses_at <= now:
        task.granted = 0.0
    size = _grant(setting)
    count = max(0, math.ceil((units - task.granted) / size))
    task.granted += count * size - units
    if not count:
        return {}
    asked = world.grants.reserve(now, count * world.costs.grant_s)
    # The last one may be spent from the begin of its stretch of time on.
    stretch = size / setting.units_per_s
    begins = world.bucket.reserve(now, count * stretch) - stretch
    task.lapses_at = max(asked, begins) + HOLD_S
    return {"grants": asked, "bucket": begins}


def _partition(world: _World, chunk: _Chunk, units: float) -> float:
    count = len(world.partitions)
    if world.setting.layout == "spread":
        return world.partitions[0].reserve(world.now, units / PARTITION_UNITS / count)
    total = -(-world.setting.rows // world.setting.chunk_rows)
    return world.partitions[chunk.number * count // total].reserve(world.now, units / PARTITION_UNITS)


def _written(world: _World, task: _Task) -> None:
    """The journal is told while the next page is written."""
    costs, setting, now = world.costs, world.setting, world.now
    took = now - task.began
    if took > 0:  # towards pages of page_s, at most twice or half as large as the last
        wanted = task.rows * setting.page_s / took
        task.page = int(min(max(wanted, task.page / 2, LEAST_PAGE), task.page * 2, LARGEST_PAGE))
    task.unkept.append(task.rows)
    task.rows = 0
    kept = max(now + costs.checkpoint_s, world.journal.reserve(now, costs.journal_cpu_s))
    world.at(kept, task, "kept")
    if task.left:
        begin = max(now, task.ahead_at)
        world.hold("source", begin - now)
        world.at(begin, task, "write")
    else:
        world.hold("journal", kept - now)


def _kept(world: _World, task: _Task) -> None:
    assert task.chunk is not None
    rows = task.unkept.popleft()
    task.chunk.left -= rows
    world.done += rows
    world.pages += 1
    if task.chunk.left == 0:
        world.at(world.now, task, "claim")


def _begin(world: _World, task: _Task, now: float) -> None:
    """A task starts, and dies when its time has come."""
    world.at(now, task, "claim")
    if rate := world.setting.kills_per_task_hour / 3600:
        world.at(now + world.chance.expovariate(rate), task, "kill")


def _kill(world: _World, task: _Task) -> None:
    """What the journal was not told is done again, by whoever takes the chunk when the lease is over."""
    world.kills += 1
    world.again += task.rows + sum(task.unkept)
    if task.chunk is not None:
        world.serial += 1
        heapq.heappush(world.leased, (world.now + world.setting.lease_s, world.serial, task.chunk))
    task.chunk, task.rows, task.unkept, task.page = None, 0, deque(), FIRST_PAGE
    task.life, task.granted = task.life + 1, 0.0
    _begin(world, task, world.now + world.setting.restart_s)


def _result(world: _World) -> Result:
    setting, now = world.setting, max(world.now, 1e-12)
    whole = sum(world.held.values()) or 1.0
    share = world.done / setting.rows
    rate, bounds = world.done / now, bound(world.costs, setting)
    tightest = min(bounds, key=lambda name: bounds[name])
    return Result(
        seconds=now / share,
        simulated=share,
        held={name: seconds / whole for name, seconds in sorted(world.held.items())},
        pages=world.pages,
        kills=world.kills,
        rows_again=world.again,
        rows_done=world.done,
        peak_units_per_s=max(world.spent.values(), default=0.0) / 10,
        limited_by=tightest if rate > 0.95 * bounds[tightest] else max(world.held, key=lambda name: world.held[name]),
    )
