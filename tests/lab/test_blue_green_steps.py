"""Steps of a rehearsal on the lab: each may be killed after any call and repeated, and a teardown after any of them leaves nothing."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dbops.blue_green import steps, waits
from dbops.blue_green.rails import RailError
from dbops.blue_green.steps import Services
from lab import aws
from lab.rds import leak
from tests.lab import rehearsal_kit as kit
from tests.lab import worker

pytestmark = pytest.mark.lab


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = kit.services(tmp_path)
    yield made
    assert leak.left() == []


@pytest.fixture
def name() -> str:
    return f"dbops-steps-{uuid.uuid4().hex[:8]}"


def until_it_lives(folder: Path, name: str, step: str) -> int:
    """Repeat a step in processes that die with their first call that changes something, then with the second one, and so on; its deaths."""
    for deaths in range(30):
        process = worker.start(kit.step_in_worker, folder, name, step, deaths + 1)
        process.join(300)
        if process.exitcode == 0:
            return deaths
        assert process.exitcode == -signal.SIGKILL, kit.failure_in_worker(folder)
    raise AssertionError(f"{step} never ends")


@pytest.mark.timeout(900)
def test_every_step_may_be_killed_after_each_of_its_calls(services: Services, name: str, tmp_path: Path) -> None:
    steps.begin(services, name, kit.spec(), dry_run=False)
    deaths = {step: until_it_lives(tmp_path, name, step) for step in kit.STEPS}
    assert deaths["provision"] >= 3
    assert (deaths["create_green"], deaths["call"]) == (1, 1)
    assert deaths["tear_down"] >= 3
    assert {
        step: count for step, count in deaths.items() if step in ("plan", "check", "fill", "verify")
    } == dict.fromkeys(("plan", "check", "fill", "verify"), 0)
    found = services.journal(name).steps()
    assert found["attempt_1"]["outcome"] == "COMPLETED"
    assert found["verify"]["findings"] == []
    assert found["teardown"]["findings"] == []


@pytest.mark.parametrize("last", ["provision", "start_probes", "create_green", "replicate", "call", "examine"])
def test_a_teardown_after_any_step_leaves_nothing(services: Services, name: str, last: str) -> None:
    steps.begin(services, name, kit.spec(), dry_run=False)
    for step, work in kit.STEPS.items():
        work(services, name)
        if step == last:
            break
    document = waits.tear_down(services, name)
    assert document["left"] == []
    assert document["findings"] == []


def test_two_rehearsals_at_once_do_not_touch_each_other(services: Services, name: str) -> None:
    other = f"{name}-b"
    for each in (name, other):
        steps.begin(services, each, kit.spec(), dry_run=False)
        steps.plan(services, each)
        steps.provision(services, each)
    assert waits.tear_down(services, name)["left"] == []
    rds = aws.client("rds")
    standing = [cluster["DBClusterIdentifier"] for cluster in rds.describe_db_clusters()["DBClusters"]]
    assert standing == [other]
    with services.connect(steps.blue_of(services.journal(other)).address) as conn:
        conn.ping()
    assert waits.tear_down(services, other)["left"] == []


def test_a_resource_whose_tags_were_taken_away_is_touched_no_more(
    services: Services, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.begin(services, name, kit.spec(), dry_run=False)
    steps.plan(services, name)
    steps.provision(services, name)
    blue = steps.blue_of(services.journal(name))
    rds = aws.client("rds")
    rds.remove_tags_from_resource(ResourceName=blue.arn, TagKeys=["dbops:rehearsal"])
    with pytest.raises(RailError, match="is not of a rehearsal"):
        steps.create_green(services, name)
    with monkeypatch.context() as patched:  # it waits for what may still go; here a person has to help
        patched.setattr(waits, "TEARDOWN_DEADLINE", timedelta(seconds=10))
        document = waits.tear_down(services, name)
    assert (
        any("has lost its tags" in f["text"] or "not of a rehearsal" in f["text"] for f in document["findings"])
        or document["left"]
    )
    rds.add_tags_to_resource(ResourceName=blue.arn, Tags=[{"Key": "dbops:rehearsal", "Value": "true"}])
    assert waits.tear_down(services, name)["left"] == []
