"""The hook: finding deployments, observing, its waiters and the client that never repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import WaiterError
from botocore.stub import Stubber
from moto import mock_aws
from rds_fake import (
    BGD,
    CLUSTER,
    DONE,
    OPEN,
    T0,
    TASKS,
    WRITER,
    FakeRds,
    canceled,
    deployment,
    event,
    fault,
    throttled,
)

from dbops.blue_green.aws.hook import RdsBlueGreenHook

REGION = "eu-central-1"
AT_ONCE = {"Delay": 0, "MaxAttempts": 2}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[RdsBlueGreenHook]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield RdsBlueGreenHook(aws_conn_id=None, region_name=REGION)


@pytest.fixture
def rds(hook: RdsBlueGreenHook) -> FakeRds:
    hook.__dict__["conn"] = FakeRds()
    return hook.__dict__["conn"]  # type: ignore[no-any-return]


def test_find_and_get_against_moto(hook: RdsBlueGreenHook) -> None:
    rds = hook.conn
    arns = []
    for name in ("blue", "other"):
        made = rds.create_db_instance(
            DBInstanceIdentifier=name, Engine="mysql", EngineVersion="5.7.44", DBInstanceClass="db.m5.large",
            AllocatedStorage=20, MasterUsername="root", MasterUserPassword="not-a-secret", BackupRetentionPeriod=1,
        )  # fmt: skip
        arns.append(made["DBInstance"]["DBInstanceArn"])
        rds.create_blue_green_deployment(
            BlueGreenDeploymentName=f"rehearsal-{name}", Source=arns[-1], TargetEngineVersion="8.0.35"
        )
    found = hook.find("rehearsal-blue")
    assert found is not None
    assert (found["BlueGreenDeploymentName"], found["Source"]) == ("rehearsal-blue", arns[0])
    assert hook.get(found["BlueGreenDeploymentIdentifier"]) == found
    assert hook.members(found) == (arns[0],)
    assert hook.find("rehearsal") is None
    assert hook.get("bgd-0000000000000000") is None


def test_find_takes_only_the_very_name(hook: RdsBlueGreenHook, rds: FakeRds) -> None:
    rds.deployments(deployment(BlueGreenDeploymentName="rehearsal-2"))
    assert hook.find("rehearsal") is None


def test_a_failed_call_is_not_a_missing_deployment(hook: RdsBlueGreenHook, rds: FakeRds) -> None:
    rds.deployments(throttled())
    for ask in (hook.get, hook.find):
        with pytest.raises(Exception, match="Rate exceeded"):
            ask(BGD)
    rds.deployments(fault("BlueGreenDeploymentNotFoundFault", 404))
    assert hook.get(BGD) is None


def test_members_and_events(hook: RdsBlueGreenHook, rds: FakeRds) -> None:
    rds.events = [canceled(-10), event(1, "Backing up", "db-instance", "shop-1"), event(1, "x", "db-instance", "y")]
    assert hook.members(deployment()) == (CLUSTER, WRITER)
    assert [e["Message"] for e in hook.events(deployment(), T0)] == ["Backing up"]


def test_an_observation_of_a_throttled_call_has_no_status(hook: RdsBlueGreenHook, rds: FakeRds) -> None:
    rds.deployments(throttled(), deployment(DONE, renamed=True))
    seen = hook.observation(BGD, T0, (CLUSTER, WRITER), T0)
    assert (seen.status, seen.error) == (None, "Throttling: Rate exceeded (request r-1)")
    seen = hook.observation(BGD, T0, (CLUSTER, WRITER))
    assert seen.at.tzinfo is not None
    assert (seen.status, dict(seen.members)) == (DONE, {CLUSTER: DONE, WRITER: DONE})


def test_the_client_for_calls_that_must_not_be_repeated(hook: RdsBlueGreenHook) -> None:
    assert hook.once.meta.config.retries["total_max_attempts"] == 1
    assert hook.conn.meta.config.retries != hook.once.meta.config.retries
    assert hook.once.meta.region_name == REGION


def waiting(hook: RdsBlueGreenHook, name: str, *answers: Any) -> None:
    with Stubber(hook.conn) as stubber:
        for answer in answers:
            if isinstance(answer, str):
                stubber.add_client_error("describe_blue_green_deployments", answer, http_status_code=404)
            else:
                found = [] if answer is None else [{key: value for key, value in answer.items() if value is not None}]
                stubber.add_response("describe_blue_green_deployments", {"BlueGreenDeployments": found})
        hook.get_waiter(name).wait(BlueGreenDeploymentIdentifier=BGD, WaiterConfig=AT_ONCE)
        stubber.assert_no_pending_responses()


def test_the_waiter_for_available_waits_for_the_tasks(hook: RdsBlueGreenHook) -> None:
    name = "blue_green_deployment_available"
    unfinished = deployment(Tasks=[{"Name": TASKS[0], "Status": "IN_PROGRESS"}])
    waiting(hook, name, unfinished, deployment())
    waiting(hook, name, deployment("PROVISIONING", Tasks=None), deployment(Tasks=None))
    with pytest.raises(WaiterError, match="Max attempts"):
        waiting(hook, name, unfinished, unfinished)


@pytest.mark.parametrize(
    "answer",
    [
        *(deployment(s) for s in ("INVALID_CONFIGURATION", "DELETING", DONE, "SWITCHOVER_FAILED")),
        deployment(OPEN, Tasks=[{"Name": TASKS[0], "Status": "COMPLETED"}, {"Name": TASKS[1], "Status": "FAILED"}]),
        "BlueGreenDeploymentNotFoundFault",
    ],
    ids=["invalid", "deleting", "switched", "switchover failed", "task failed", "not found"],
)
def test_the_waiter_for_available_fails_fast(hook: RdsBlueGreenHook, answer: Any) -> None:
    with pytest.raises(WaiterError, match="terminal failure"):
        waiting(hook, "blue_green_deployment_available", answer)


def test_the_waiter_for_deleted(hook: RdsBlueGreenHook) -> None:
    name = "blue_green_deployment_deleted"
    waiting(hook, name, deployment("DELETING"), "BlueGreenDeploymentNotFoundFault")
    waiting(hook, name, deployment("DELETING"), None)


def test_every_waiter_of_the_provider_is_still_there(hook: RdsBlueGreenHook) -> None:
    listed = hook.list_waiters()
    assert {"blue_green_deployment_available", "db_instance_stopped", "db_cluster_available"} <= set(listed)
    for name in listed:
        assert hook.get_waiter(name).name
    overridden = hook.get_waiter("blue_green_deployment_deleted", config_overrides={"delay": 7})
    assert overridden.config.delay == 7
    with pytest.raises(ValueError, match="client must be provided"):
        hook.get_waiter("blue_green_deployment_deleted", deferrable=True)
