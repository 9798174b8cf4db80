"""Steps over a journal in a file and a store in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dbops.backfill import steps
from tests.backfill import steps_kit, verify_kit
from tests.backfill.steps_kit import SPEC, Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return steps_kit.stage(tmp_path, monkeypatch)


def test_a_roll_back_sweeps_and_closes_the_plan_when_every_chunk_is_rolled_back(stage: Stage) -> None:
    plan = stage.copied()
    stage.target.put(verify_kit.write(99, 1, stamp=plan.stamp))  # its row has gone since
    steps.begin_roll_back(stage.services, SPEC, plan.plan_id)
    assert steps.end_roll_back(stage.services, SPEC, plan.plan_id, stop=threading.Event()).plan is not None
    assert stage.journal.plan(plan.plan_id).state == "abandoned"
    assert stage.target.read([verify_kit.key(99)]) != [None]

    stage.roll_back_chunks(plan.plan_id)
    found = steps.end_roll_back(stage.services, SPEC, plan.plan_id, stop=threading.Event())
    assert found.plan is not None
    assert found.plan.state == "rolled_back"
    assert stage.target.read([verify_kit.key(99)]) == [None]
