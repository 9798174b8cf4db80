"""What a row and its item are to each other, and what has to happen before a difference under live traffic is a fault. Pure.

Two reads are never of one moment, so a pair that is not equal is only a question. It is looked at again, item first and row after it, and
:func:`settle` says what it owes until it is equal:

    arrive   the row has a version: the item has to reach it           else ``missing`` or ``source_newer``
    bury     the item lives, the row is gone: the item has to go       else ``extra``
    catch    the item is newer: MySQL has to reach it, or lose the row  else ``ahead``
    give_up  the row cannot be an item: whatever is there is stale     else ``source_newer``

Versions rise over the life of a key, so a debt that is paid stays paid, however hot the key is: it need not be caught at a moment when
both sides are equal. A debt has ``drain_s`` from the moment at which it was seen, and so has an item that does not move at all, whatever
the row does meanwhile: otherwise a row that comes and goes would hide it. A look counts against a debt only if it began after that time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

from dbops.backfill.records import Class
from dbops.keyvalue import rules
from dbops.keyvalue.items import Attribute, Item, canonical
from dbops.keyvalue.rules import Names, Version, Write

Kind = Literal["N", "S"]
"""Of the versions of a table, as attributes have it."""
Debt = Literal["arrive", "bury", "catch", "give_up"]
Rank = tuple[Version, bool]
"""Version, and whether it is a tombstone: of one version the tombstone is the newer one."""
MAX_TURNS = 50
"""So often a key may owe something else before it fails: nothing that keeps up comes near it."""

NEVER = float("inf")
"""Since when a key owes what was seen in the wrong order."""
_DEBTS: dict[Class, Debt] = {
    "missing": "arrive", "source_newer": "arrive", "extra": "bury", "target_newer": "catch",
}  # fmt: skip


def classify(write: Write | None, item: Item | None, names: Names, kind: Kind) -> Class:
    """What a row and an item are to each other at first sight; never ``ahead``, which takes time.

    Args:
        write: of the row, a tombstone where the row stands for a deletion; None for no row
        item: None for none
        names: of the attributes that are not columns
        kind: of the versions
    """
    theirs = rank_of(item, names)
    if item is not None and (theirs is None or theirs[0].kind != kind):
        return "unversioned"
    if write is None:
        return "equal" if theirs is None or theirs[1] else "extra"
    if item is None or theirs is None:
        return "missing"
    mine = (write.version, write.is_tombstone)
    if theirs < mine:
        return "source_newer"
    if write.is_tombstone and theirs[1]:
        return "equal"
    if theirs > mine:
        return "target_newer"
    return "equal" if has_content(write, item, names) else "converter"


def rank_of(item: Item | None, names: Names) -> Rank | None:
    """How new an item is; None for none and for one without version."""
    version = rules.version_of(item, names)
    return None if item is None or version is None else (version, rules.is_tombstone(item, names))


def has_content(write: Write, item: Item, names: Names) -> bool:
    """Whether an item holds exactly what the write would have put there, version and marks aside."""
    there = _columns(item, write.key, names)
    return there == write.attributes or canonical(there) == canonical(write.attributes or {})


def differing(write: Write | None, item: Item | None, names: Names) -> tuple[str, ...]:
    """Attributes that are not the same on both sides, in order; () when one side has none to compare."""
    if write is None or write.attributes is None or item is None or rules.is_tombstone(item, names):
        return ()
    there = _columns(item, write.key, names)
    every = there.keys() | write.attributes.keys()
    return tuple(sorted(name for name in every if not _same(there.get(name), write.attributes.get(name))))


@dataclass(frozen=True)
class Look:
    """Both sides of one key, the item read before the row: whatever the item is, MySQL had it earlier."""

    write: Write | None
    """Of the row; None for no row, for a row with another key, and with a `reject`."""
    item: Item | None
    began: float
    """Monotonic time before the first read."""
    ended: float
    """Monotonic time after the last."""
    reject: str = ""
    """There is a row, which cannot be an item."""
    row_first: bool = False
    """At first sight: the row was read before. Then an item that is newer, or has no row, says nothing yet."""


@dataclass(frozen=True)
class Watch:
    """A key that is looked at again. Holds no values of the row, only a hash."""

    owes: Debt
    rank: Rank | None
    """``arrive``: of the row; ``bury`` and ``catch``: of the item."""
    content: bytes
    """Hash of the side whose rank it is, if that is alive."""
    since: float
    seen: Rank | None
    """Of the item at the last look."""
    still_since: float | None
    """Since when the item has not moved while it owed something."""
    turns: int = 0
    looks: int = 1


@dataclass(frozen=True)
class Settled:
    """What became of a key."""

    classed: Class | None
    """None: the row cannot be an item, and there is none."""
    detail: str = ""


def settle(watch: Watch | None, look: Look, names: Names, kind: Kind, drain_s: float) -> Watch | Settled:
    """What a key is, or what it owes.

    Args:
        watch: what it owed so far; None at first sight
        look: what is there now
        names: of the attributes that are not columns
        kind: of the versions
        drain_s: time for a debt
    """
    if look.reject and look.item is None:
        return Settled(None, look.reject)
    classed = classify(look.write, look.item, names, kind)
    if classed == "unversioned" or (not look.reject and classed in ("equal", "converter")):
        return Settled(classed, _detail(classed, look, names))
    if watch is not None and watch.since == NEVER:
        return (
            replace(settled, looks=2)
            if isinstance(settled := settle(None, look, names, kind, drain_s), Watch)
            else settled
        )
    theirs = rank_of(look.item, names)
    paid = watch is not None and _is_paid(watch, look, theirs)
    if watch is not None and paid and (end := _moved_on(watch, look, classed, theirs, names)) is not None:
        return end
    owes: Debt = "give_up" if look.reject else _DEBTS[classed]
    after = _next(watch, look, owes, theirs, is_paid=paid, names=names)
    if watch is not None and (late := _late(after, look, drain_s)):
        final: Class = {"bury": "extra", "catch": "ahead"}.get(
            after.owes, "missing" if look.item is None else "source_newer"
        )  # type: ignore[assignment]
        return Settled(final, f"{_detail(final, look, names)}; {late}")
    return after


def _is_paid(watch: Watch, look: Look, theirs: Rank | None) -> bool:
    match watch.owes:
        case "arrive":
            return theirs is not None and watch.rank is not None and theirs >= watch.rank
        case "bury":
            return theirs is None or (watch.rank is not None and theirs > watch.rank)
        case "catch":
            mine = (look.write.version, look.write.is_tombstone) if look.write else None
            return mine is not None and watch.rank is not None and mine >= watch.rank
    return not look.reject


def _moved_on(watch: Watch, look: Look, classed: Class, theirs: Rank | None, names: Names) -> Settled | None:
    """The end of a hot key: what was seen on one side came to the other, which is further by now in the same direction."""
    if watch.owes == "arrive" and look.item is not None and watch.rank is not None:
        if theirs == watch.rank and watch.content and _item_hash(look.item, names) != watch.content:
            return Settled("converter", "one version, two contents; the row has changed since")
        if classed == "source_newer":
            return Settled("equal" if theirs == watch.rank else "target_newer", "the row has changed since")
    if watch.owes == "catch" and look.write is not None:
        is_same = (look.write.version, look.write.is_tombstone) == watch.rank
        if is_same and watch.content and _write_hash(look.write) != watch.content:
            return Settled("converter", "one version, two contents; the item has changed since")
        if classed == "target_newer":
            return Settled("target_newer", "the item has changed since")
    return None


def _next(watch: Watch | None, look: Look, owes: Debt, theirs: Rank | None, *, is_paid: bool, names: Names) -> Watch:
    waits_for_store = owes != "catch"
    if look.row_first and owes in ("bury", "catch"):
        return Watch(owes, None, b"", NEVER, theirs, None)
    fresh = Watch(owes, None, b"", look.ended, theirs, look.ended if waits_for_store else None)
    if owes == "arrive" and look.write is not None:
        content = b"" if look.write.is_tombstone else _write_hash(look.write)
        fresh = replace(fresh, rank=(look.write.version, look.write.is_tombstone), content=content)
    elif theirs is not None and look.item is not None:
        fresh = replace(fresh, rank=theirs, content=b"" if theirs[1] else _item_hash(look.item, names))
    if watch is None:
        return fresh
    is_still = watch.still_since is not None and waits_for_store and watch.seen == theirs
    still_since = watch.still_since if is_still else fresh.still_since
    if owes == watch.owes and not is_paid:
        return replace(watch, seen=theirs, still_since=still_since, looks=watch.looks + 1)
    return replace(fresh, still_since=still_since, turns=watch.turns + 1, looks=watch.looks + 1)


def _late(watch: Watch, look: Look, drain_s: float) -> str:
    if look.began - watch.since >= drain_s:
        return f"for {look.began - watch.since:.0f} s"
    if watch.still_since is not None and look.began - watch.still_since >= drain_s:
        return f"the item has not moved for {look.began - watch.still_since:.0f} s, though the row has"
    return f"it changed {watch.turns} times while it was looked at" if watch.turns >= MAX_TURNS else ""


def _detail(classed: Class, look: Look, names: Names) -> str:
    if look.reject:
        return f"the row cannot be an item ({look.reject}), what is there is stale"
    match classed:
        case "converter":
            return f"one version, other values of {', '.join(differing(look.write, look.item, names))}"
        case "unversioned":
            return f"{names.version} is missing or of another kind"
        case "ahead":
            gone = look.item is not None and rules.is_tombstone(look.item, names)
            return f"the {'tombstone' if gone else 'item'} is newer than the row, and MySQL does not reach it"
        case "extra":
            return "the item lives, the row is not there"
    if changed := differing(look.write, look.item, names):
        return f"other values of {', '.join(changed)}"
    return ""


def _columns(item: Item, key: Item, names: Names) -> Item:
    return {name: value for name, value in item.items() if name not in names.all and name not in key}


def _same(one: Attribute | None, other: Attribute | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or canonical({"": one}) == canonical({"": other})


def _write_hash(write: Write) -> bytes:
    return _hash({**write.key, **(write.attributes or {})})


def _item_hash(item: Item, names: Names) -> bytes:
    return _hash({name: value for name, value in item.items() if name not in names.all})


def _hash(item: Item) -> bytes:
    return blake2b(canonical(item).encode(), digest_size=16).digest()
