"""Ready means status, tasks and every member on both sides, several looks in a row; what cannot become ready fails at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from rds_fake import (
    BGD,
    CLUSTER,
    DONE,
    GREEN,
    OPEN,
    READER,
    RUNNING,
    T0,
    TASKS,
    WRITER,
    FakeRds,
    cluster,
    deployment,
    event,
    fault,
    instance,
    seconds,
    throttled,
)

from dbops import asking
from dbops.blue_green import readiness
from dbops.blue_green.readiness import Readiness


def whole(rds: FakeRds) -> FakeRds:
    """Both sides available, each with one instance."""
    rds.script("describe_db_clusters", {"DBClusters": [cluster(), cluster(GREEN[CLUSTER], members=(GREEN[WRITER],))]})
    return rds.script("describe_db_instances", {"DBInstances": [instance(WRITER), instance(GREEN[WRITER])]})


@pytest.fixture
def rds() -> FakeRds:
    return whole(FakeRds())


@pytest.fixture
def clock() -> Iterator[datetime]:
    return seconds()


def look(rds: FakeRds, clock: Iterator[datetime], times: int = 1, state: Readiness | None = None) -> Readiness:
    state = state or Readiness()
    for _ in range(times):
        sample = asking.ask(rds, readiness.checking(BGD, state.target, next(clock)))
        state = readiness.load(json.loads(json.dumps(readiness.dump(readiness.advance(state, sample)))))
    return state


def test_ready_three_times_in_a_row(rds: FakeRds, clock: Iterator[datetime]) -> None:
    rds.deployments(deployment("PROVISIONING"), deployment())
    assert look(rds, clock, 3).outcome == "WAITING"
    assert look(rds, clock, 4).outcome == "READY"
    chosen = rds.arguments("describe_db_instances")["Filters"]
    assert chosen == [{"Name": "db-instance-id", "Values": ["shop-1", "shop-1-green-abc123"]}]


def test_a_look_that_failed_or_saw_otherwise_begins_the_count_anew(rds: FakeRds, clock: Iterator[datetime]) -> None:
    good = deployment()
    rds.deployments(good, good, throttled(), good, good, deployment("PROVISIONING"), good, good)
    state = look(rds, clock, 8)
    assert (state.outcome, state.streak) == ("WAITING", 2)
    assert look(rds, clock, 1, state).outcome == "READY"


@pytest.mark.parametrize("operation", ["describe_db_clusters", "describe_db_instances", "describe_events"])
def test_what_could_not_be_asked_is_not_ready(rds: FakeRds, clock: Iterator[datetime], operation: str) -> None:
    rds.deployments(deployment()).script(operation, throttled())
    state = look(rds, clock, 9)
    assert (state.outcome, state.reason) == (
        "WAITING",
        "the last call failed: Throttling: Rate exceeded (request r-1)",
    )


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"Tasks": [{"Name": TASKS[0], "Status": "IN_PROGRESS"}]}, f"task {TASKS[0]} is IN_PROGRESS"),
        ({"Tasks": [{"Name": TASKS[0]}]}, f"task {TASKS[0]} is without a status"),
        ({"members": {CLUSTER: OPEN, WRITER: "PROVISIONING"}}, "shop-1 is PROVISIONING in SwitchoverDetails"),
        ({"members": {CLUSTER: OPEN, WRITER: ""}}, "shop-1 is without a status"),
        ({"SwitchoverDetails": None}, "no member yet"),
        ({"status": ""}, "without a status"),
        ({"status": "NEW_WORD"}, "NEW_WORD"),
    ],
)
def test_available_with_something_open_is_not_ready(
    rds: FakeRds, clock: Iterator[datetime], more: dict[str, Any], word: str
) -> None:
    state = look(rds.deployments(deployment(**more)), clock, 5)
    assert state.outcome == "WAITING"
    assert word in state.reason


@pytest.mark.parametrize(
    ("clusters", "instances", "word"),
    [
        ([cluster()], [instance(WRITER)], "cluster shop-green-abc123 is missing"),
        (
            [cluster(), cluster(GREEN[CLUSTER], "upgrading", members=(GREEN[WRITER],))],
            [instance(WRITER), instance(GREEN[WRITER])],
            "cluster shop-green-abc123 is upgrading",
        ),
        (
            [cluster(), cluster(GREEN[CLUSTER], members=())],
            [instance(WRITER), instance(GREEN[WRITER])],
            "cluster shop-green-abc123 has no instance",
        ),
        (
            [cluster(), cluster(GREEN[CLUSTER], members=(GREEN[WRITER], GREEN[READER]))],
            [instance(WRITER), instance(GREEN[WRITER]), instance(GREEN[READER], "creating")],
            "instance shop-2-green-abc123 is creating",
        ),
        (
            [cluster(), cluster(GREEN[CLUSTER], members=(GREEN[WRITER],))],
            [instance(WRITER)],
            "instance shop-1-green-abc123 is missing",
        ),
    ],
)
def test_a_member_that_is_not_available_is_named(
    rds: FakeRds, clock: Iterator[datetime], clusters: list[Any], instances: list[Any], word: str
) -> None:
    rds.deployments(deployment())
    rds.script("describe_db_clusters", {"DBClusters": clusters})
    rds.script("describe_db_instances", {"DBInstances": instances})
    state = look(rds, clock, 5)
    assert state.outcome == "WAITING"
    assert word in state.reason


@pytest.mark.parametrize("status", ["INVALID_CONFIGURATION", "DELETING", RUNNING, DONE])
def test_a_status_that_cannot_become_available_fails_at_once(
    rds: FakeRds, clock: Iterator[datetime], status: str
) -> None:
    state = look(rds.deployments(deployment(status, StatusDetails="the reason")), clock)
    assert (state.outcome, state.reason) == ("FAILED", f"the deployment is {status}: the reason")


def test_a_failed_task_fails_at_once(rds: FakeRds, clock: Iterator[datetime]) -> None:
    tasks = [{"Name": TASKS[1], "Status": "FAILED"}]
    state = look(rds.deployments(deployment("PROVISIONING", Tasks=tasks)), clock)
    assert (state.outcome, state.reason) == (
        "FAILED",
        f"task {TASKS[1]} failed; the deployment is PROVISIONING",
    )


def test_the_event_of_a_failed_creation_fails_at_once_with_its_text(rds: FakeRds, clock: Iterator[datetime]) -> None:
    message = "Creation of blue/green deployment failed: gtid_mode is OFF"
    rds.events = [
        event(1, "Switchover failed after creation", "blue-green-deployment"),
        event(1, message, "db-cluster", "shop"),
        event(1, message, source="bgd-other"),
    ]
    rds.deployments(deployment("PROVISIONING"))
    assert look(rds, clock, 2).outcome == "WAITING"
    rds.events.append(event(2, message))
    state = look(rds, clock)
    assert (state.outcome, state.reason) == ("FAILED", f"{message}; the deployment is PROVISIONING")


def test_a_new_deployment_may_be_unknown_for_a_while(rds: FakeRds, clock: Iterator[datetime]) -> None:
    missing = fault("BlueGreenDeploymentNotFoundFault", 404)
    rds.deployments(missing, None, deployment("PROVISIONING"), missing, missing)
    state = look(rds, clock, 5)
    assert (state.outcome, state.missing) == ("WAITING", 2)
    state = look(rds, clock, 1, state)
    assert state.outcome == "FAILED"
    assert "does not know the deployment" in state.reason


def test_a_missing_cluster_is_not_a_missing_deployment(rds: FakeRds, clock: Iterator[datetime]) -> None:
    rds.deployments(deployment()).script("describe_db_clusters", fault("DBClusterNotFoundFault", 404))
    assert look(rds, clock, 9).outcome == "WAITING"


def test_how_long_each_task_took_is_kept(rds: FakeRds, clock: Iterator[datetime]) -> None:
    first, then = (
        [{"Name": TASKS[0], "Status": "COMPLETED"}, {"Name": TASKS[1], "Status": "IN_PROGRESS"}],
        [{"Name": TASKS[0], "Status": "COMPLETED"}, {"Name": TASKS[1], "Status": "COMPLETED"}],
    )
    provisioning = deployment("PROVISIONING", Tasks=first)
    rds.deployments(provisioning, provisioning, deployment("PROVISIONING", Tasks=then))
    at = [(T0 + timedelta(seconds=second)).isoformat() for second in (1, 3)]
    assert look(rds, clock, 4).steps == (
        (at[0], TASKS[0], "COMPLETED"),
        (at[0], TASKS[1], "IN_PROGRESS"),
        (at[1], TASKS[1], "COMPLETED"),
    )


def test_another_target(rds: FakeRds, clock: Iterator[datetime]) -> None:
    rds.deployments(deployment(RUNNING), deployment(DONE))
    assert look(rds, clock, 4, Readiness(target=DONE)).outcome == "READY"


def test_an_instance_deployment_asks_for_no_cluster(rds: FakeRds, clock: Iterator[datetime]) -> None:
    rds.deployments(deployment(Source=WRITER, Target=GREEN[WRITER], members={WRITER: OPEN}))
    assert look(rds, clock, 3).outcome == "READY"
    assert rds.count("describe_db_clusters") == 0


def test_an_outcome_stays(rds: FakeRds, clock: Iterator[datetime]) -> None:
    state = look(rds.deployments(deployment()), clock, 3)
    assert look(rds.deployments(deployment("DELETING")), clock, 1, state) == state


def test_our_own_mistakes_are_raised(rds: FakeRds, clock: Iterator[datetime]) -> None:
    with pytest.raises(KeyError):
        look(rds.deployments(KeyError("bug")), clock)
