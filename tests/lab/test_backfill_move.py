"""The whole move, judged by an oracle of its own; and that the oracle finds what writes without condition destroy."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.migration.move import VICTIMS, Move
from lab.migration.scene import SUBJECTS
from lab.migration.sides import DynamoSide
from lab.migration.worker import Arm

pytestmark = pytest.mark.lab
ARMS: tuple[Arm, ...] = ("conditional", "unconditional")


@contextmanager
def moving(folder: Path, **rows: int) -> Iterator[Move]:
    schema = f"move_{uuid.uuid4().hex[:8]}"
    move = Move(schema, DynamoSide(schema), folder, rows)
    try:
        move.begin()
        yield move
    finally:
        move.end()


def test_dual_writes_and_the_stream_end_right_without_a_backfill(tmp_path: Path) -> None:
    with moving(tmp_path, rides=0, payments=1) as move:
        move.work(800)
        move.traffic.pause()
        move.drain()
        for subject in SUBJECTS:
            verdict = move.judge(subject)
            assert verdict.findings == ()
            assert verdict.classes["equal"] > 20
        assert move.traffic.record.wrong == []
        assert move.repaired()["never"] == 0 < move.repaired()["by the stream"]


def test_writes_without_condition_fail_before_the_oracle_where_conditional_ones_hold(tmp_path: Path) -> None:
    found = {}
    with moving(tmp_path, rides=600, payments=600) as move:
        copied = {subject.name: move.copy(subject, arm) for subject, arm in zip(SUBJECTS, ARMS, strict=True)}
        move.traffic.pause()
        move.drain()
        for subject in SUBJECTS:
            found[subject.name] = move.judge(subject)
    held, destroyed = (found[subject.name] for subject in SUBJECTS)
    assert held.findings == ()
    assert copied["rides"].tally.newer >= VICTIMS <= copied["rides"].tally.tombstones
    what = Counter(each.what for each in destroyed.findings)
    assert what["older over newer"] >= VICTIMS <= what["source_newer"]
    assert what["resurrected"] >= VICTIMS <= what["extra"]
