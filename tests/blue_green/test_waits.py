"""What a rehearsal waits for, when its task is repeated."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dbops import asking
from dbops.blue_green import companion, operators, readiness, resources, steps, waits
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


def over(kit: Kit) -> list[Path]:
    """The rehearsal is torn down, and its probes have left their files; beside them is one that nobody knows."""
    kit.services.recordings.mkdir(exist_ok=True)
    kit.journal.enter("teardown", kit.clock())
    kit.put("teardown", {"left": [], "findings": []})
    names = ("blue.jsonl", "blue.jsonl.log", "green.jsonl", "arms.jsonl", "witness.jsonl", "witness.jsonl.stop")
    files = [kit.services.recordings / f"{NAME}-{name}" for name in names]
    for path in (*files, kit.services.recordings / "dbops-other-00000002-blue.jsonl"):
        path.touch()
    return files


def swept(kit: Kit, *, dry_run: bool = False) -> set[str]:
    """Files that are left after a sweep; it says what it takes away."""
    said: list[str] = []
    assert waits.sweep(kit.services, dry_run=dry_run, say=said.append) == []
    left = {path.name for path in kit.services.recordings.iterdir()}
    assert [text for text in said if text.startswith("recordings of")] == (
        [f"recordings of {NAME}: 6 files"] if dry_run or len(left) == 1 else []
    )
    return left


def test_recordings_of_a_rehearsal_that_is_long_over_are_unlinked_and_no_others(kit: Kit) -> None:
    files = {path.name for path in over(kit)}
    kit.clock.at = steps.expires_at(kit.journal) + waits.KEEP_RECORDINGS
    assert swept(kit) > files, "it has not been over for long enough"
    kit.clock.at += timedelta(seconds=1)
    assert swept(kit, dry_run=True) > files
    assert swept(kit) == {"dbops-other-00000002-blue.jsonl"}


def test_recordings_stay_while_something_stands_or_a_prober_runs(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path.name for path in over(kit)}
    kit.clock.at = steps.expires_at(kit.journal) + 2 * waits.KEEP_RECORDINGS
    until = kit.clock.at + timedelta(days=1)  # somebody has moved it
    cluster = kit.rds.add("cluster", NAME, resources.tags(NAME, "dba-team", until))
    assert swept(kit) > files
    kit.rds.things.remove(cluster)
    monkeypatch.setattr(companion, "is_running", lambda path: path.name.endswith("green.jsonl"))
    assert swept(kit) > files
    monkeypatch.undo()
    assert swept(kit) == {"dbops-other-00000002-blue.jsonl"}


def test_recordings_of_a_rehearsal_of_another_region_or_without_a_teardown_stay(kit: Kit) -> None:
    files = {path.name for path in over(kit)}
    kit.clock.at = steps.expires_at(kit.journal) + 2 * waits.KEEP_RECORDINGS
    kit.rds.meta.region_name = "us-east-1"  # type: ignore[attr-defined]
    assert swept(kit) > files
    kit.rds.meta.region_name = kit.spec.placement.region  # type: ignore[attr-defined]
    kit.forget("teardown")
    assert swept(kit) > files


def test_green_is_adopted_before_the_trigger_takes_over(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the triggerer never come back, the janitor has to know what AWS had made by then."""
    from airflow.sdk.exceptions import TaskDeferred

    done: list[str] = []
    monkeypatch.setattr(steps, "adopt", lambda *_: done.append("adopted"))
    waiting = operators.AwaitGreenOperator(task_id="await_green", deferrable=True)
    for name, value in (("chosen_spec", kit.spec), ("services", kit.services), ("name", NAME)):
        monkeypatch.setattr(waiting, name, lambda *_, value=value: value)
    with pytest.raises(TaskDeferred):
        waiting.execute({})  # type: ignore[typeddict-item]
    assert done == ["adopted"]
