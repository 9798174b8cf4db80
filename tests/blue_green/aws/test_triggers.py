"""The triggers: what is serialised is all they need, and they fire what must not be forgotten."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.sdk.serde import deserialize, serialize
from rds_fake import (
    BGD,
    DONE,
    OPEN,
    RUNNING,
    FakeRds,
    Kept,
    again,
    connect,
    deployment,
    fired,
    lost,
    seconds,
    throttled,
)

from dbops.blue_green import attempt, readiness
from dbops.blue_green.aws import triggers
from dbops.blue_green.aws.triggers import (
    BlueGreenDeploymentAvailableTrigger,
    BlueGreenDeploymentDeletedTrigger,
    BlueGreenReadyTrigger,
    BlueGreenSwitchoverTrigger,
    RdsDbInstanceInSyncTrigger,
    RdsReplicaLagTrigger,
)
from dbops.blue_green.readiness import Readiness

FULL: dict[str, Any] = {
    "waiter_delay": 7,
    "aws_conn_id": "aws_rehearsal",
    "region_name": "eu-central-1",
    "verify": False,
    "botocore_config": {"read_timeout": 9},
}


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> FakeRds:
    made = FakeRds()
    connect(monkeypatch, made)
    clock = seconds()
    monkeypatch.setattr("dbops.blue_green.aws.triggers.utc_now", lambda: next(clock))
    return made


@pytest.fixture
def noted(rds: FakeRds) -> dict[str, Any]:
    keeper = Kept()
    attempt.begin(rds.deployments(deployment()), keeper, BGD, 60, 30, next(seconds(0)))
    assert keeper.document is not None
    return keeper.document


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (BlueGreenDeploymentAvailableTrigger, {"blue_green_deployment_identifier": BGD, "waiter_max_attempts": 3}),
        (BlueGreenDeploymentDeletedTrigger, {"blue_green_deployment_identifier": BGD, "waiter_max_attempts": 3}),
        (RdsDbInstanceInSyncTrigger, {"db_instance_identifier": "shop-1", "waiter_max_attempts": 3}),
        (BlueGreenSwitchoverTrigger, {"attempt": {"deployment_id": BGD}}),
        (
            BlueGreenReadyTrigger,
            {"blue_green_deployment_identifier": BGD, "state": {"streak": 1}, "waiter_max_attempts": 3},
        ),
        (RdsReplicaLagTrigger, {"gate": {"samples": 3}, "waiter_max_attempts": 3}),
    ],
)
def test_a_trigger_is_made_again_from_what_it_serialises(kind: Any, own: dict[str, Any]) -> None:
    trigger = kind(**own, **FULL)
    path, arguments = trigger.serialize()
    assert path == f"{triggers.__name__}.{kind.__name__}"
    assert arguments == {**own, **FULL}
    assert deserialize(json.loads(json.dumps(serialize(arguments)))) == arguments  # as Airflow keeps them
    assert again(trigger).serialize() == (path, arguments)
    hook = trigger.hook()
    assert (hook.aws_conn_id, hook._region_name, hook._verify) == ("aws_rehearsal", "eu-central-1", False)
    assert hook._config.read_timeout == 9


def test_it_fires_when_the_switchover_is_first_seen_in_progress(rds: FakeRds, noted: dict[str, Any]) -> None:
    rds.deployments(deployment(OPEN), throttled(), lost(), deployment(RUNNING))
    payload = fired(BlueGreenSwitchoverTrigger(attempt=noted, waiter_delay=0, aws_conn_id=None))
    assert (payload["status"], payload["attempt"]["memory"]["in_progress"]) == ("running", True)
    assert rds.count("describe_blue_green_deployments") == 5  # one by begin
    rds.deployments(deployment(RUNNING), deployment(DONE, renamed=True))
    payload = fired(BlueGreenSwitchoverTrigger(attempt=payload["attempt"], waiter_delay=0, aws_conn_id=None))
    assert (payload["status"], payload["attempt"]["memory"]["outcome"]) == ("over", "COMPLETED")


def test_its_own_deadline_ends_it(rds: FakeRds, noted: dict[str, Any]) -> None:
    rds.deployments(throttled())
    payload = fired(BlueGreenSwitchoverTrigger(attempt=noted, waiter_delay=0, aws_conn_id=None))
    assert (payload["status"], payload["attempt"]["memory"]["outcome"]) == ("over", "STUCK")


def test_it_waits_between_two_looks(rds: FakeRds, noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
    rds.deployments(deployment(OPEN), deployment(OPEN), deployment(RUNNING))
    fired(BlueGreenSwitchoverTrigger(attempt=noted, waiter_delay=7, aws_conn_id=None))
    assert slept == [7, 7]


def test_a_triggerer_that_is_stopped_leaves_aws_alone(rds: FakeRds, noted: dict[str, Any]) -> None:
    rds.deployments(deployment(OPEN))

    async def stopped() -> None:
        running = asyncio.ensure_future(anext(BlueGreenSwitchoverTrigger(attempt=noted, waiter_delay=60).run()))
        while rds.count("describe_blue_green_deployments") < 2:
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(stopped())
    assert {name for name, _ in rds.calls if not name.startswith("describe_")} == {"switchover_blue_green_deployment"}
    assert rds.count("switchover_blue_green_deployment") == 1


def test_our_own_mistake_is_raised_in_the_triggerer(rds: FakeRds, noted: dict[str, Any]) -> None:
    rds.deployments(KeyError("bug"))
    with pytest.raises(KeyError):
        fired(BlueGreenSwitchoverTrigger(attempt=noted, waiter_delay=0, aws_conn_id=None))


def test_ready_goes_on_with_the_state_that_it_was_given(rds: FakeRds) -> None:
    rds.script("describe_db_clusters", {"DBClusters": []}).script("describe_db_instances", {"DBInstances": []})
    rds.deployments(deployment("PROVISIONING"))
    state = readiness.dump(Readiness(missing=2, streak=2))
    trigger = BlueGreenReadyTrigger(
        blue_green_deployment_identifier=BGD, state=state, waiter_delay=0, waiter_max_attempts=2, aws_conn_id=None
    )
    payload = fired(trigger)
    assert (payload["status"], payload["state"]["streak"], payload["state"]["missing"]) == ("waiting", 0, 0)
    assert rds.count("describe_blue_green_deployments") == 2


def test_waiters_of_a_deployment(rds: FakeRds) -> None:
    rds.deployments(deployment("PROVISIONING"), throttled(), deployment())
    arguments: dict[str, Any] = {"blue_green_deployment_identifier": BGD, "waiter_delay": 0, "aws_conn_id": None}
    assert fired(BlueGreenDeploymentAvailableTrigger(waiter_max_attempts=3, **arguments)) == {
        "status": "success", "blue_green_deployment_identifier": BGD
    }  # fmt: skip
    rds.deployments(deployment("DELETING"))
    payload = fired(BlueGreenDeploymentDeletedTrigger(waiter_max_attempts=3, **arguments))
    assert (payload["status"], rds.count("describe_blue_green_deployments")) == ("error", 6)
