"""What a rehearsal waits for, when its task is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbops import asking
from dbops.blue_green import readiness, steps, waits
from dbops.blue_green.readiness import Readiness, Sample
from dbops.blue_green.steps import StepError
from tests.blue_green.steps_kit import NAME, Kit


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    made = Kit(tmp_path)
    made.standing()
    return made


def look(kit: Kit, monkeypatch: pytest.MonkeyPatch, *statuses: str) -> None:
    """Each look sees the next of these statuses, the last one for ever."""
    seen = list(statuses)
    monkeypatch.setattr(asking, "ask", lambda *_: Sample(kit.clock(), seen.pop(0) if len(seen) > 1 else seen[0]))
    monkeypatch.setattr(steps, "adopt", lambda *_: None)


def test_green_is_waited_for_through_several_looks(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    look(kit, monkeypatch, "PROVISIONING", "AVAILABLE")
    waits.await_green(kit.services, NAME)
    assert waits.green_state(kit.services, NAME).outcome == "READY"


def test_a_creation_that_failed_is_looked_at_anew_when_its_task_is_cleared(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have corrected what was invalid; what was seen of the tasks stays."""
    look(kit, monkeypatch, "INVALID_CONFIGURATION")
    with pytest.raises(StepError, match="INVALID_CONFIGURATION"):
        waits.await_green(kit.services, NAME)
    look(kit, monkeypatch, "AVAILABLE")
    waits.await_green(kit.services, NAME)
    assert waits.green_state(kit.services, NAME).outcome == "READY"


def test_a_trigger_goes_on_from_what_was_seen_and_not_from_a_failure(kit: Kit) -> None:
    tasks = (("2026-03-01T03:00:00", "CREATING_READ_REPLICA_OF_SOURCE", "COMPLETED"),)
    waits.keep_green(
        kit.services, NAME, readiness.dump(Readiness(outcome="FAILED", reason="x", missing=3, steps=tasks))
    )
    assert waits.green_state(kit.services, NAME) == Readiness(steps=tasks)
