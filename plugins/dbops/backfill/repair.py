"""Differences of a verification, put right by the only way there is: a write under the condition, of rows that are read anew.

Rows that the store lacks, or has older, are written. An item without a row becomes a tombstone of its own version, if somebody has
approved that, the row is still not there and the item has not moved since: an insertion that comes later has a higher version and wins.
What the condition refuses is left, with what a person has to do; nothing is forced. Afterwards the keys are looked at once more
(:func:`look_again`).
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dbops.backfill import verify
from dbops.backfill.records import Compared, Difference
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.target import Pace, Target
from dbops.backfill.verify import Verifier, Wanted
from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.rules import Outcome, Write

_BY_HAND = {
    "converter": "the store has another content under this version: find who converts differently, then raise the row's version in MySQL",
    "ahead": "the item is newer than the row: raise the row's version in MySQL above it",
    "unversioned": "the item has no version of this table: find who writes it, and delete it by hand when that has ended",
}  # fmt: skip


@dataclass
class Repaired:
    """What a repair came to."""

    written: int = 0
    """Rows that the store has now."""
    buried: int = 0
    """Items that are tombstones now."""
    settled: int = 0
    """Not different any more when they were read anew, or overtaken by a newer write."""
    left: list[Difference] = field(default_factory=list)
    """What stays as it was; `detail` says what to do."""
    units: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """For an event of the journal."""
        return {"written": self.written, "buried": self.buried, "settled": self.settled, "left": len(self.left)}


def item_key(text: str) -> Item:
    """The key of an item, from its canonical text in a :class:`Difference`."""
    made = json.loads(text)
    return {
        name: {kind: base64.b64decode(value) if kind == "B" else value for kind, value in each.items()}
        for name, each in made.items()
    }


def repair(
    source: Source,
    target: Target,
    conn: Any,
    differences: Sequence[Difference],
    pace: Pace,
    *,
    stamp: str,
    may_bury: bool = False,
    hold: Callable[[], object] = lambda: None,
) -> Repaired:
    """Put differences right. May be repeated: what is right by then is left alone.

    Args:
        source: of all rows, cold or not
        target: the store
        conn: of the writer, autocommit; on a replica a row that is not there yet would look deleted
        differences: of a verification
        pace: of the writes
        stamp: of the plan
        may_bury: somebody has approved that these items become tombstones
        hold: see :class:`Verifier`

    Raises:
        Overloaded: the store turned writes away for too long; repeat it
    """
    done = Repaired()
    for begin in range(0, len(differences), verify.BATCH):
        hold()
        _repair(source, target, conn, differences[begin : begin + verify.BATCH], pace, stamp, may_bury, done)
    return done


def look_again(verifier: Verifier, number: int, differences: Sequence[Difference]) -> Compared:
    """The keys of differences once more, as a part of a verification.

    Args:
        verifier: with the time to drain
        number: of the part
        differences: that were repaired, or not
    """
    wanted = [
        Wanted(verifier.source.driving_key(verifier.conn, key), key)
        for key in (item_key(text) for text in dict.fromkeys(each.key for each in differences))
    ]
    return verifier.keys(number, wanted, name="repaired")


def _repair(
    source: Source,
    target: Target,
    conn: Any,
    differences: Sequence[Difference],
    pace: Pace,
    stamp: str,
    may_bury: bool,
    done: Repaired,
) -> None:
    by_key = {each.key: each for each in differences}
    driving = {text: source.driving_key(conn, item_key(text)) for text in by_key}
    rows = source.rows(conn, [key for key in driving.values() if key is not None], stamp)
    writes: dict[str, Write] = {}
    gone: list[Difference] = []
    for text, each in by_key.items():
        key = driving[text]
        row = _own(None if key is None else rows.get(key), text)
        if row is None:
            gone.append(each)
        elif row.write is None:
            done.left.append(
                replace(
                    each, detail=f"the row cannot be an item ({row.reject}): change the row, or bury the item by hand"
                )
            )
        else:
            writes[text] = row.write
    # The items are read after the rows: one that was written meanwhile belongs to a row that came back, and has another version.
    for each, item in zip(gone, target.read([item_key(each.key) for each in gone]), strict=True):
        if (tombstone := _tombstone(each, item, target, may_bury, done)) is not None:
            writes[each.key] = tombstone
    if not writes:
        return
    sent = target.write(list(writes.values()), pace)
    done.units += sent.units
    for (text, write), outcome in zip(writes.items(), sent.outcomes, strict=True):
        _count(by_key[text], write, outcome, done)


def _own(row: SourceRow | None, text: str) -> SourceRow | None:
    """The row, unless it is that of another key which MySQL takes for equal."""
    return None if row is not None and row.write is not None and canonical(row.write.key) != text else row


def _tombstone(each: Difference, item: Item | None, target: Target, may_bury: bool, done: Repaired) -> Write | None:
    if item is None or rules.is_tombstone(item, target.names):
        done.settled += 1
        return None
    version = rules.version_of(item, target.names)
    if version is None or each.classed == "unversioned":
        done.left.append(replace(each, detail=_BY_HAND["unversioned"]))
    elif each.classed != "extra" or str(version.value) != each.target_version:
        done.left.append(replace(each, detail="row or item have changed since the verification: verify again"))
    elif not may_bury:
        done.left.append(
            replace(
                each,
                detail="the item lives without a row: find how its deletion was lost, then repair with bury_extra",
            )
        )
    else:
        return Write(item_key(each.key), version)
    return None


def _count(each: Difference, write: Write, outcome: Outcome, done: Repaired) -> None:
    if outcome.is_written:
        done.buried += write.is_tombstone
        done.written += not write.is_tombstone
    elif outcome.reason == "unversioned":
        done.left.append(replace(each, detail=_BY_HAND["unversioned"]))
    elif outcome.reason in ("missing", "older"):
        done.left.append(replace(each, detail="the store did not take the item: see the rejects of the plan"))
    elif each.classed in _BY_HAND:
        done.left.append(replace(each, detail=_BY_HAND[each.classed]))
    else:
        done.settled += 1


def summary(done: Repaired) -> str:
    """One line for a log or an event."""
    why = Counter(each.detail for each in done.left)
    left = "".join(f"; {count:,} left: {detail}" for detail, count in why.most_common())
    return f"{done.written:,} written, {done.buried:,} buried, {done.settled:,} settled meanwhile{left}"
