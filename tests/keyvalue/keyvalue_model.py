"""A model of one key while rows move: MySQL, the store, and processes whose steps interleave in every way.

The store obeys `dbops.keyvalue.rules` and the processes are the paths of `dbops.keyvalue.repository`: nothing of the library is written
again here. What the rules forbid (an unconditional put, a plain delete, an UpdateItem that makes half an item) exists here only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dbops.keyvalue import repository, rules, views
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.repository import Get, Load, Put
from dbops.keyvalue.rules import Change, Condition, Write
from dbops.keyvalue.views import Loaded
from dbops.mysql import Column

VIEW = views.view(
    [
        Column("id", "bigint", "bigint(20)", nullable=False),
        Column("a", "varchar", "varchar(20)", nullable=True),
        Column("b", "varchar", "varchar(20)", nullable=True),
    ],
    {"pk": "USER#{id}"},
)
NAMES = VIEW.names
KEY = {"id": 5}


@dataclass(frozen=True)
class Commit:
    """MySQL commits the next change of the history."""


@dataclass(frozen=True)
class Overwrite:
    """A put without condition; None for a plain delete."""

    item: Item | None


@dataclass(frozen=True)
class Upsert:
    """UpdateItem without condition: on nothing it makes an item of what it sets."""

    values: Item


@dataclass(frozen=True)
class Changed:
    """One change of the row in MySQL: what it is afterwards, None when it is gone, and the version of that."""

    version: int
    row: dict[str, Any] | None

    @property
    def write(self) -> Write:
        """The versioned write of it."""
        if self.row is None:
            return VIEW.tombstone(KEY, self.version)
        return VIEW.write(Loaded(self.row, self.version))


Path = Generator[Any, Any, Any]


@dataclass(frozen=True)
class Process:
    """Steps in order. Step n may begin when MySQL has committed `needs[n]` changes (the last number counts for all later steps)."""

    name: str
    path: Callable[[], Path]
    needs: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Scenario:
    """A row, what happens to it in MySQL, and who else is about."""

    history: tuple[Changed, ...]
    """The first is what is there before anything begins."""
    processes: tuple[Process, ...]
    judge: Callable[[Scenario, Item | None, dict[str, Any]], str]
    """What is wrong with the item when all have ended, given their results; "" for nothing."""
    is_monotone: bool = True
    """No step may take the item to an older version, or from a tombstone to a row of its age."""


@dataclass
class Explored:
    """What all interleavings of a scenario came to."""

    states: int = 0
    fault: str = ""
    trace: list[str] = field(default_factory=list)


State = tuple[int, int, tuple[tuple[int, ...], ...]]
"""Commits so far, number of the item, numbers of the answers that each process had: which is all that decides what can follow."""


class Explorer:
    """Every state that can be reached, each once."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.values: list[Any] = [None]
        self.numbers: dict[str, int] = {"None": 0}
        self.next: dict[tuple[int, tuple[int, ...]], tuple[bool, Any]] = {}
        self.moves: dict[tuple[int, tuple[int, ...], int, int], tuple[int, int, tuple[int, ...], str] | None] = {}

    def run(self) -> Explored:
        """Go through all of them; stops at the first fault."""
        first: State = (0, 0, tuple(() for _ in self.scenario.processes))
        origin: dict[State, tuple[State, int] | None] = {first: None}
        waiting = [first]
        while waiting:
            state = waiting.pop()
            commits, item, answers = state
            is_last = True
            for index, mine in enumerate(answers):
                move = self.move(index, mine, commits, item)
                if move is None:
                    continue
                is_last = False
                new_commits, new_item, now, fault = move
                following = (new_commits, new_item, (*answers[:index], now, *answers[index + 1 :]))
                if following not in origin:
                    origin[following] = (state, index)
                    waiting.append(following)
                if fault:
                    return Explored(len(origin), fault, self.trace(origin, following))
            if is_last and (fault := self.ended(state)):
                return Explored(len(origin), fault, self.trace(origin, state))
        return Explored(len(origin))

    def move(
        self, index: int, mine: tuple[int, ...], commits: int, item: int
    ) -> tuple[int, int, tuple[int, ...], str] | None:
        """What the next step of a process makes: commits, item, its answers, the fault. None when it has none, or has to wait."""
        at = (index, mine, commits, item)
        if at not in self.moves:
            process, (done, step) = self.scenario.processes[index], self.step(index, mine)
            if done or commits < process.needs[min(len(mine), len(process.needs) - 1)]:
                self.moves[at] = None
            else:
                new_commits, new_item, answer = self.carry_out(step, commits, self.values[item])
                fault = older_over_newer(self.values[item], new_item) if self.scenario.is_monotone else ""
                self.moves[at] = (new_commits, self.number(new_item), (*mine, self.number(answer)), fault)
        return self.moves[at]

    def step(self, index: int, answers: tuple[int, ...]) -> tuple[bool, Any]:
        """(True, result) of a process that has ended, (False, next step) of one that has not."""
        if (index, answers) not in self.next:
            path = self.scenario.processes[index].path()
            try:
                step = next(path)
                for answer in answers:
                    step = path.send(self.values[answer])
                self.next[index, answers] = (False, step)
            except StopIteration as end:
                self.next[index, answers] = (True, end.value)
        return self.next[index, answers]

    def carry_out(self, step: Any, commits: int, item: Item | None) -> tuple[int, Item | None, Any]:
        match step:
            case Commit():
                return commits + 1, item, None
            case Load():
                now = self.scenario.history[commits]
                return commits, item, None if now.row is None else Loaded(now.row, now.version)
            case Get():
                return commits, item, item
            case Put():
                there, outcome = rules.put(step.condition, item, step.write, NAMES, seen=step.seen)
                return commits, there, outcome
            case Change():
                there, outcome = rules.change(item, step, NAMES)
                return commits, there, outcome
            case Overwrite():
                return commits, step.item, None
            case Upsert():
                return commits, {**VIEW.key(KEY), **(item or {}), **step.values}, None
        raise TypeError(step)

    def ended(self, state: State) -> str:
        results = {}
        for index, process in enumerate(self.scenario.processes):
            done, result = self.step(index, state[2][index])
            if not done:
                return f"{process.name} waits for ever"
            results[process.name] = result
        return self.scenario.judge(self.scenario, self.values[state[1]], results)

    def number(self, value: Any) -> int:
        text = repr(value)
        if text not in self.numbers:
            self.numbers[text] = len(self.values)
            self.values.append(value)
        return self.numbers[text]

    def trace(self, origin: dict[State, tuple[State, int] | None], state: State) -> list[str]:
        """The steps that led to a state, in words."""
        lines: list[str] = []
        while (came := origin[state]) is not None:
            before, index = came
            _, step = self.step(index, before[2][index])
            lines.append(f"{self.scenario.processes[index].name}: {told(step, self.values[state[2][index][-1]])}")
            state = before
        return lines[::-1]


def told(step: Any, answer: Any) -> str:
    """A step in a line."""
    match step:
        case Commit():
            return "commits in MySQL"
        case Load():
            return f"reads MySQL: {'nothing' if answer is None else f'version {answer.version}'}"
        case Get():
            return f"reads the store: {shown(answer)}"
        case Put():
            verdict = "written" if answer.is_written else f"refused, {answer.reason}"
            return f"puts {shown(rules.document(step.write, NAMES))} if {step.condition.value}: {verdict}"
        case Change():
            return f"changes {', '.join(step.put)} of the item: {answer.reason or 'done'}"
        case Overwrite():
            return f"puts {shown(step.item)} without condition" if step.item else "deletes the item"
    return f"sets {', '.join(step.values)} without condition"


def shown(item: Item | None) -> str:
    if item is None:
        return "nothing"
    version = rules.version_of(item, NAMES)
    return (
        f"{'tombstone' if rules.is_tombstone(item, NAMES) else 'row'} {version.value if version else 'without version'}"
    )


def older_over_newer(before: Item | None, after: Item | None) -> str:
    was, now = rules.version_of(before, NAMES), rules.version_of(after, NAMES)
    if before is None or was is None or after is None or canonical(before) == canonical(after):
        return ""  # a plain delete is judged by what comes after it
    if now is None or now.value < was.value:  # type: ignore[operator]
        return f"older over newer: {shown(after)} over {shown(before)}"
    if now == was and not rules.is_tombstone(after, NAMES):
        return f"of equal age: {shown(after)} over {shown(before)}"
    return ""


# --- histories of MySQL ------------------------------------------------------------------------------------------------


def history(operations: str, *, lives: bool, delete_raises: bool) -> tuple[Changed, ...]:
    """The row before and after each of insert, update, delete.

    Args:
        operations: letters i, u, d
        lives: whether the row is there before
        delete_raises: a deletion has a version of its own (a place in the log), or the row's last one (a column of the row)
    """
    version = 1
    made = [Changed(version, row_of(version) if lives else None)]
    for letter in operations:
        version += 1 if letter != "d" or delete_raises else 0
        made.append(Changed(version, None if letter == "d" else row_of(version)))
    return tuple(made)


def row_of(version: int) -> dict[str, Any]:
    return {**KEY, "a": f"a{version}", "b": f"b{version}"}


def operations(longest: int = 3) -> list[tuple[str, bool]]:
    """Every sequence that MySQL takes, and whether the row is there before."""
    found = []
    for lives in (True, False):
        level = [("", lives)]
        for _ in range(longest + 1):
            found += [(text, lives) for text, _ in level if text or lives]
            level = [
                (text + letter, letter != "d")
                for text, alive in level
                for letter in ("ud" if alive else "i")
                if len(text) < longest
            ]
    return found


# --- processes ---------------------------------------------------------------------------------------------------------


def conditional(change: Changed) -> Path:
    """The second half of a dual write as the library does it."""
    if change.row is None:
        return repository.remove_path(VIEW, KEY, change.version)
    return repository.save_path(VIEW, Loaded(change.row, change.version))


def unconditional(change: Changed, *, tombstones: bool) -> Path:
    """The second half of a dual write without a version in its condition."""
    is_deletion = change.row is None and not tombstones
    yield Overwrite(None if is_deletion else rules.document(change.write, NAMES))


def app_in_order(changes: Sequence[Changed], write: Callable[[Changed], Path], lost: int = -1) -> Process:
    """One writer: commit, write the store, and so on; one second half may be lost."""

    def path() -> Path:
        for position, change in enumerate(changes):
            yield Commit()
            if position != lost:
                yield from write(change)

    return Process("app", path)


def app_reordered(changes: Sequence[Changed], write: Callable[[Changed], Path], lost: int = -1) -> tuple[Process, ...]:
    """Commits in order, second halves in any order after their commit."""

    def commits() -> Path:
        for _ in changes:
            yield Commit()

    def second(change: Changed) -> Callable[[], Path]:
        return lambda: write(change)

    halves = [
        Process(f"app's write {position + 1}", second(change), (position + 1,))
        for position, change in enumerate(changes)
        if position != lost
    ]
    return (Process("app", commits), *halves)


def backfill(condition: Condition | None) -> Process:
    """Reads a row, writes it later. None is the unconditional put."""

    def path() -> Path:
        loaded = yield Load(KEY)
        if loaded is not None:
            write = VIEW.write(loaded)
            yield Overwrite(rules.document(write, NAMES)) if condition is None else Put(write, condition)

    return Process("backfill", path)


def reader(condition: Condition = Condition.NEWER) -> Process:
    """The library's read path, its write-through with that condition."""

    def path() -> Path:
        steps = repository.read_path(VIEW, KEY)
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                answer = yield replace(step, condition=condition) if isinstance(step, Put) else step
        except StopIteration as end:
            return end.value

    return Process("reader", path)


def change_stream(changes: Sequence[Changed]) -> Process:
    """Every change again, in order, versioned, some time after its commit."""

    def path() -> Path:
        for change in changes:
            yield from conditional(change)

    return Process("change stream", path, tuple(range(1, len(changes) + 1)) or (0,))


# --- judges ------------------------------------------------------------------------------------------------------------


def as_mysql(scenario: Scenario, item: Item | None, results: dict[str, Any], *, may_lack: bool = False) -> str:
    """The item is what MySQL has: the row, or a tombstone or nothing where there is none."""
    truth = scenario.history[-1]
    is_there = item is not None and not rules.is_tombstone(item, NAMES)
    if truth.row is None:
        return f"resurrected: {shown(item)}" if is_there else ""
    if not is_there:
        if item is None and may_lack:
            return ""
        return f"lost: {shown(item)} where MySQL has version {truth.version}"
    expected = rules.document(truth.write, NAMES)
    return "" if canonical(item or {}) == canonical(expected) else f"stale: {shown(item)}, MySQL has {truth.version}"


def as_mysql_or_nothing(scenario: Scenario, item: Item | None, results: dict[str, Any]) -> str:
    """As MySQL, or nothing, which a reader would fall back from."""
    return as_mysql(scenario, item, results, may_lack=True)
