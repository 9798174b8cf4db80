"""The rule table of a move under dual writes, row by row: one key, up to three operations of the application, a backfill, a read-through.

Each UNSAFE row has a counterexample, which is printed; each SAFE row is right in every state that any interleaving reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from dbops.keyvalue import repository, rules
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.repository import Load
from dbops.keyvalue.rules import Condition, Outcome
from tests.keyvalue import keyvalue_model as model
from tests.keyvalue.keyvalue_model import (
    KEY,
    NAMES,
    VIEW,
    Changed,
    Explored,
    Explorer,
    Path,
    Process,
    Scenario,
    Upsert,
    app_in_order,
    app_reordered,
    backfill,
    change_stream,
    conditional,
    reader,
    row_of,
    unconditional,
)

ABSENT, NEWER = Condition.ABSENT, Condition.NEWER
plain = partial(unconditional, tombstones=False)
tombstoned = partial(unconditional, tombstones=True)
Histories = Iterator[tuple[Changed, ...]]
Cases = Callable[[], Iterator[Scenario]]


def histories(longest: int = 3) -> Histories:
    for text, lives in model.operations(longest):
        for delete_raises in (True, False) if "d" in text else (True,):
            yield model.history(text, lives=lives, delete_raises=delete_raises)


def in_order(write: Callable[[Changed], Path], *others: Process) -> Iterator[Scenario]:
    for found in histories():
        yield Scenario(found, (app_in_order(found[1:], write), *others), model.as_mysql)


def only_reading() -> Iterator[Scenario]:
    for found in histories():
        yield Scenario(found, (app_in_order(found[1:], plain), reader()), model.as_mysql_or_nothing)


def reordered(write: Callable[[Changed], Path], *others: Process) -> Iterator[Scenario]:
    for found in histories():
        yield Scenario(found, (*app_reordered(found[1:], write), *others), model.as_mysql)


def with_a_loss(*others: Process, repaired: bool) -> Iterator[Scenario]:
    for found in histories():
        for lost in range(len(found) - 1):
            stream = (change_stream(found[1:]),) if repaired else ()
            yield Scenario(found, (*app_reordered(found[1:], conditional, lost), *stream, *others), model.as_mysql)


@dataclass(frozen=True)
class Rule:
    """A row of the table."""

    name: str
    cases: Cases
    is_safe: bool
    fewest_states: int = 0
    """Of all cases together, so that a model that has stopped exploring is noticed."""


RULES = [
    Rule("put/delete in order, backfill unconditional", lambda: in_order(plain, backfill(None)), False),
    Rule("put/delete in order, backfill attribute_not_exists", lambda: in_order(plain, backfill(ABSENT)), False),
    Rule("put/tombstone in order, backfill attribute_not_exists", lambda: in_order(tombstoned, backfill(ABSENT)), True, 1_000),
    Rule(
        "put/tombstone in order, backfill and read-through attribute_not_exists",
        lambda: in_order(tombstoned, backfill(ABSENT), reader(ABSENT)), True, 11_000,
    ),
    Rule("plain delete, no backfill, read-through only", only_reading, False),
    Rule("tombstones, dual writes cross, backfill attribute_not_exists", lambda: reordered(tombstoned, backfill(ABSENT)), False),
    Rule(
        "versions and tombstones, dual writes cross, backfill attribute_not_exists",
        lambda: reordered(conditional, backfill(ABSENT), reader(ABSENT)), True, 40_000,
    ),
    Rule(
        "versions and tombstones, dual writes cross, backfill version compare",
        lambda: reordered(conditional, backfill(NEWER), reader()), True, 40_000,
    ),
    Rule("one dual write lost, backfill version compare", lambda: with_a_loss(backfill(NEWER), repaired=False), False),
    Rule(
        "one lost, change stream, backfill attribute_not_exists",
        lambda: with_a_loss(backfill(ABSENT), reader(ABSENT), repaired=True), True, 500_000,
    ),
    Rule(
        "one lost, change stream, backfill version compare",
        lambda: with_a_loss(backfill(NEWER), reader(), repaired=True), True, 500_000,
    ),
    Rule("one lost, change stream, backfill unconditional", lambda: with_a_loss(backfill(None), repaired=True), False),
]  # fmt: skip


# --- the store is written first, MySQL takes no writes of the row any more --------------------------------------------------

FROZEN = (Changed(1, row_of(1)),)
Operation = Callable[[], Path]


def update(column: str, value: str) -> Operation:
    return lambda: repository.update_path(VIEW, KEY, {column: value})


def delete() -> Path:
    return repository.delete_path(VIEW, KEY)


def create() -> Path:
    return repository.create_path(VIEW, {**KEY, "a": "new", "b": "new"})


OPERATIONS: dict[str, Operation] = {"a": update("a", "x"), "b": update("b", "y"), "d": delete, "c": create}


def expected(letters: Sequence[str]) -> dict[str, Any] | None:
    row: dict[str, Any] | None = row_of(1)
    for letter in letters:
        if letter == "d":
            row = None
        elif letter == "c":
            row = row if row is not None else {**KEY, "a": "new", "b": "new"}
        elif row is not None:
            row = {**row, letter: {"a": "x", "b": "y"}[letter]}
    return row


def is_row(item: Item | None, row: dict[str, Any] | None) -> bool:
    if row is None:
        return item is not None and rules.is_tombstone(item, NAMES)
    if item is None or rules.is_tombstone(item, NAMES):
        return False
    return canonical(item, NAMES.all) == canonical(VIEW.item(row))


def in_turn(letters: str) -> Path:
    outcome: Outcome = Outcome()
    for letter in letters:
        outcome = yield from OPERATIONS[letter]()
    return outcome


def one_after_another(*others: Process) -> Iterator[Scenario]:
    for letters in (f"{a}{b}{c}" for a in "abdc" for b in "abdc" for c in "abdc"):

        def judge(scenario: Scenario, item: Item | None, results: Any, letters: str = letters) -> str:
            return "" if is_row(item, expected(letters)) else f"{letters}: {item}"

        yield Scenario(FROZEN, (Process("app", partial(in_turn, letters)), *others), judge)


def merged(one: str, other: str) -> list[str]:
    """Every order of two sequences that keeps the order of each."""
    if not one or not other:
        return [one + other]
    return [one[0] + rest for rest in merged(one[1:], other)] + [other[0] + rest for rest in merged(one, other[1:])]


def at_once(*others: Process) -> Iterator[Scenario]:
    """Two writers: the end is what one order of their operations would have left, and no update of two columns is lost."""
    for one, other in (("a", "b"), ("ab", "d"), ("d", "d"), ("d", "c"), ("a", "c")):

        def judge(scenario: Scenario, item: Item | None, results: Any, one: str = one, other: str = other) -> str:
            if (one, other) == ("a", "b") and not (results["one"].is_written and results["other"].is_written):
                return f"one of two updates was refused: {results}"
            return (
                "" if any(is_row(item, expected(order)) for order in merged(one, other)) else f"{one}, {other}: {item}"
            )

        processes = (Process("one", partial(in_turn, one)), Process("other", partial(in_turn, other)))
        yield Scenario(FROZEN, (*processes, *others), judge)


def naive(*, deletes: bool) -> Iterator[Scenario]:
    """UpdateItem on what may not be there, or a plain delete."""

    def path() -> Path:
        if deletes:
            yield from OPERATIONS["a"]()
            yield model.Overwrite(None)
        else:
            yield Upsert({"a": {"S": "x"}})

    def judge(scenario: Scenario, item: Item | None, results: Any) -> str:
        if deletes:
            return "" if item is None or rules.is_tombstone(item, NAMES) else f"resurrected: {item}"
        return "" if is_row(item, expected("a")) else f"columns are lost: {item}"

    yield Scenario(FROZEN, (Process("app", path), backfill(ABSENT), reader()), judge, is_monotone=False)


def late_stream() -> Process:
    """The last change that MySQL took, delivered again at any time."""
    return Process("change stream", lambda: conditional(FROZEN[0]))


def before_the_repair() -> Iterator[Scenario]:
    """The switch to the store while a lost dual write is still on its way: its version is taken by then."""
    found = model.history("u", lives=True, delete_raises=True)

    def path() -> Path:
        yield model.Commit()
        yield from OPERATIONS["a"]()

    def judge(scenario: Scenario, item: Item | None, results: Any) -> str:
        return "" if is_row(item, {**row_of(2), "a": "x"}) else f"stale for ever: {item}"

    yield Scenario(found, (Process("app", path), backfill(NEWER), change_stream(found[1:])), judge)


RULES += [
    Rule("store first: before the change stream has repaired a lost write", before_the_repair, False),
    Rule("store first: UpdateItem without attribute_exists", lambda: naive(deletes=False), False),
    Rule("store first: plain delete", lambda: naive(deletes=True), False),
    Rule(
        "store first: whole row, then update on condition; tombstones",
        lambda: one_after_another(backfill(NEWER), reader(), late_stream()), True, 60_000,
    ),
    Rule("store first: with attribute_not_exists", lambda: one_after_another(backfill(ABSENT), reader(ABSENT)), True, 15_000),
    Rule("store first: two writers at once", lambda: at_once(backfill(NEWER), reader(), late_stream()), True, 30_000),
]  # fmt: skip


def explore(rule: Rule) -> Explored:
    """All cases of a row; ends at the first fault."""
    states = 0
    for scenario in rule.cases():
        found = Explorer(scenario).run()
        states += found.states
        if found.fault:
            return Explored(states, found.fault, found.trace)
    return Explored(states)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.is_safe], ids=lambda rule: rule.name)
def test_what_the_table_calls_unsafe_has_a_counterexample(rule: Rule) -> None:
    found = explore(rule)
    print(f"\nUNSAFE {rule.name}: {found.fault}", *found.trace, sep="\n  ")
    assert found.fault
    assert found.trace


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.is_safe], ids=lambda rule: rule.name)
def test_what_the_table_calls_safe_is_right_in_every_state(rule: Rule) -> None:
    found = explore(rule)
    print(f"\nSAFE {rule.name}: {found.states:,} states")
    assert not found.fault, "\n  ".join([found.fault, *found.trace])
    assert found.states >= rule.fewest_states
    assert rule.fewest_states


# --- a rule that is broken is found ----------------------------------------------------------------------------------------

_holds, _can_change = rules.holds, rules.can_change


def newer_is_always(condition: Condition, there: Any, write: Any, names: Any, *, seen: Any = None) -> bool:
    return condition is NEWER or _holds(condition, there, write, names, seen=seen)


def absent_passes_over_tombstones(
    condition: Condition, there: Any, write: Any, names: Any, *, seen: Any = None
) -> bool:
    gone = condition is ABSENT and there is not None and rules.is_tombstone(there, names)
    return gone or _holds(condition, there, write, names, seen=seen)


def tombstones_of_equal_age_lose(condition: Condition, there: Any, write: Any, names: Any, *, seen: Any = None) -> bool:
    found = rules.version_of(there, names)
    return found != write.version and _holds(condition, there, write, names, seen=seen)


def unchanged_is_anything(condition: Condition, there: Any, write: Any, names: Any, *, seen: Any = None) -> bool:
    return _holds(condition, there, write, names, seen=rules.version_of(there, names))


def reads_pass_over_tombstones(view: Any, row: Any, *, falls_back: bool = True) -> Path:
    item = yield repository.Get(view.key(row))
    if item is None or rules.is_tombstone(item, view.names):
        loaded = yield Load(row)
        if loaded is not None:
            number = rules.version_of(item, view.names) or view.domain.version(loaded.version)
            yield repository.Put(rules.Write(view.key(row), view.domain.after(number), view.attributes(loaded.row)))


def by_name(name: str) -> Rule:
    (found,) = (rule for rule in RULES if rule.name == name)
    return found


@pytest.mark.parametrize(
    ("place", "name", "broken", "row"),
    [
        (rules, "holds", newer_is_always, "versions and tombstones, dual writes cross, backfill version compare"),
        (rules, "holds", absent_passes_over_tombstones, "put/tombstone in order, backfill attribute_not_exists"),
        (
            rules,
            "holds",
            tombstones_of_equal_age_lose,
            "versions and tombstones, dual writes cross, backfill version compare",
        ),
        (rules, "holds", unchanged_is_anything, "store first: two writers at once"),
        (
            repository,
            "read_path",
            reads_pass_over_tombstones,
            "store first: whole row, then update on condition; tombstones",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_rule_turns_a_safe_row_red(
    place: Any, name: str, broken: Any, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, broken)
    found = explore(by_name(row))
    print(f"\n{broken.__name__}, {row}: {found.fault}", *found.trace, sep="\n  ")
    assert found.fault
