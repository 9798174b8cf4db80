"""The sensors, each poked, rescheduled and through a triggerer; unknown is never success."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSensorTimeout, TaskDeferred
from rds_fake import (
    BGD,
    CLUSTER,
    DONE,
    FAILED,
    GREEN,
    OPEN,
    RUNNING,
    T0,
    TASKS,
    WRITER,
    FakeRds,
    Kept,
    Killed,
    TaskState,
    canceled,
    cluster,
    connect,
    context,
    deployment,
    event,
    fired,
    instance,
    run,
    seconds,
    throttled,
)

from dbops.blue_green import switchover
from dbops.blue_green.aws import lagging
from dbops.blue_green.aws.lagging import Gate, Lag, Reading
from dbops.blue_green.aws.operators import SwitchoverBlueGreenDeploymentOperator
from dbops.blue_green.aws.sensors import BlueGreenDeploymentSensor, ReplicaLagSensor, SwitchoverSensor

AWS: dict[str, Any] = {"aws_conn_id": None, "region_name": "eu-central-1"}
QUICK: dict[str, Any] = {**AWS, "poke_interval": 0.001, "timeout": 0.009}


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> FakeRds:
    made = FakeRds()
    both = [cluster(), cluster(GREEN[CLUSTER], members=(GREEN[WRITER],))]
    made.script(
        "describe_db_clusters", lambda **asked: {"DBClusters": both[:1] if "DBClusterIdentifier" in asked else both}
    )
    made.script("describe_db_instances", {"DBInstances": [instance(WRITER), instance(GREEN[WRITER])]})
    connect(monkeypatch, made)
    clock = seconds()
    for module in ("operators", "switching", "sensors", "triggers"):
        monkeypatch.setattr(f"dbops.blue_green.aws.{module}.utc_now", lambda: next(clock))
    return made


@pytest.fixture(params=[False, True], ids=["worker", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# BlueGreenDeploymentSensor


def ready(**more: Any) -> BlueGreenDeploymentSensor:
    return BlueGreenDeploymentSensor(
        task_id="ready", blue_green_deployment_identifier=BGD, **{**QUICK, "timeout": 60, **more}
    )


def test_ready_is_told_with_the_steps_of_the_tasks(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment("PROVISIONING", Tasks=[]), deployment(), deployment(), throttled(), deployment())
    result = run(ready(deferrable=deferrable), context())
    assert (result["outcome"], result["streak"]) == ("READY", 3)
    assert [tuple(step[1:]) for step in result["steps"]] == [(name, "COMPLETED") for name in TASKS]
    assert rds.count("describe_blue_green_deployments") == 7


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (deployment("INVALID_CONFIGURATION", StatusDetails="binlog_format is OFF"), "binlog_format is OFF"),
        (deployment("PROVISIONING", Tasks=[{"Name": TASKS[0], "Status": "FAILED"}]), f"task {TASKS[0]} failed"),
        (None, "does not know the deployment"),
    ],
)
def test_what_cannot_become_ready_fails_without_a_retry(rds: FakeRds, deferrable: bool, answer: Any, word: str) -> None:
    rds.deployments(deployment("PROVISIONING"), answer)
    with pytest.raises(AirflowFailException, match=word):
        run(ready(deferrable=deferrable), context())


def test_the_event_of_a_failed_creation_fails(rds: FakeRds, deferrable: bool) -> None:
    rds.events = [event(0, "Creation of blue/green deployment failed: no binlog")]
    rds.deployments(deployment("PROVISIONING"))
    with pytest.raises(AirflowFailException, match="no binlog"):
        run(ready(deferrable=deferrable), context())


def test_not_ready_in_time(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(Tasks=[{"Name": TASKS[0], "Status": "IN_PROGRESS"}]))
    expected = (AirflowException, AirflowSensorTimeout)
    with pytest.raises(expected, match="IN_PROGRESS" if deferrable else "timeout|Snap|time is OUT|timed out"):
        run(ready(deferrable=deferrable, timeout=0.05, poke_interval=0.01), context())


def test_rescheduled_pokes_count_in_the_task_state_store(rds: FakeRds) -> None:
    rds.deployments(deployment())
    store = TaskState()
    for expected in (False, False, True):  # every poke in a process of its own
        assert ready(mode="reschedule").poke(context(task_state_store=store)).is_done is expected
    with pytest.raises(AirflowFailException, match="mode='poke'"):
        ready(mode="reschedule").poke({})


def test_pokes_of_another_task_do_not_count(rds: FakeRds) -> None:
    rds.deployments(deployment())
    first, second = ready(), ready()
    assert [first.poke(context()).is_done, first.poke(context()).is_done] == [False, False]
    assert second.poke(context()).is_done is False
    assert first.poke(context()).is_done is True


# SwitchoverSensor


def ended(**more: Any) -> SwitchoverSensor:
    return SwitchoverSensor(
        task_id="ended",
        blue_green_deployment_identifier=BGD,
        **{"switchover_timeout": 60, "grace": 30, **QUICK, "timeout": 60, **more},
    )


def test_the_sensor_goes_on_with_the_memory_of_the_operator(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(), deployment(RUNNING), deployment(DONE, renamed=True))
    kept = Kept()
    SwitchoverBlueGreenDeploymentOperator(
        task_id="switch", blue_green_deployment_identifier=BGD, switchover_timeout=60, grace=30, store=kept,
        wait_for_completion=False, **AWS,
    ).execute(context())  # fmt: skip
    result = run(ended(store=kept, deferrable=deferrable), context())
    assert result["outcome"] == "COMPLETED"
    assert rds.count("switchover_blue_green_deployment") == 1
    assert run(ended(store=kept, deferrable=deferrable), context()) == result  # a retry


def test_the_sensor_follows_what_somebody_else_calls(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(), deployment(), deployment(RUNNING), deployment(DONE, renamed=True))
    assert run(ended(deferrable=deferrable), context())["outcome"] == "COMPLETED"
    assert rds.count("switchover_blue_green_deployment") == 0


def test_a_roll_back_is_told(rds: FakeRds, deferrable: bool) -> None:
    steps = (deployment(), deployment(RUNNING), deployment(FAILED))
    rds.deployments(*steps)
    assert run(ended(deferrable=deferrable), context())["outcome"] == "ROLLED_BACK"
    rds.deployments(*steps)
    with pytest.raises(AirflowFailException, match="ROLLED_BACK"):
        run(ended(deferrable=deferrable, fail_on_rollback=True), context())


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (deployment(DONE, {CLUSTER: DONE, WRITER: FAILED}), "shop-1 is SWITCHOVER_FAILED"),
        (deployment(OPEN), "never seen in progress"),
        (throttled(), "Rate exceeded"),
        (None, "NOT_FOUND"),
    ],
    ids=["partial", "never", "mute", "gone"],
)
def test_stuck_fails(rds: FakeRds, deferrable: bool, last: Any, word: str) -> None:
    rds.deployments(deployment(), last)
    with pytest.raises(AirflowFailException, match=f"STUCK .*{word}"):
        run(ended(deferrable=deferrable), context())


def test_a_sensor_that_dies_remembers(rds: FakeRds, deferrable: bool) -> None:
    """In progress was seen before the crash; after it only AVAILABLE, which would otherwise mean "not begun"."""
    rds.deployments(deployment(), deployment(RUNNING), deployment(OPEN))
    kept = Kept(dies_at=2)
    with pytest.raises(Killed):
        run(ended(store=kept, deferrable=deferrable), context())
    assert run(ended(store=kept, deferrable=deferrable), context())["outcome"] == "ROLLED_BACK"


def test_rescheduled_pokes_share_the_memory(rds: FakeRds) -> None:
    rds.deployments(deployment(), deployment(RUNNING), deployment(OPEN))
    rds.events = []
    store = TaskState()
    seen = [ended(mode="reschedule").poke(context(task_state_store=store)) for _ in range(4)]
    assert [value.is_done for value in seen] == [False, False, False, True]
    assert switchover.load(seen[-1].xcom_value).outcome == "ROLLED_BACK"


def test_a_canceled_switchover_is_told_by_its_event(rds: FakeRds) -> None:
    rds.deployments(deployment())
    task, of = ended(), context()
    assert task.poke(of).is_done is False
    rds.events = [canceled(3)]
    assert [task.poke(of).is_done for _ in range(3)] == [False, False, True]


# ReplicaLagSensor


GATE = Gate("shop-1-green-abc123", "dbops_rehearsal", ("blue", 3306), ("green", 3307), "shop", "run-1")


def lag(**more: Any) -> ReplicaLagSensor:
    return ReplicaLagSensor(
        task_id="lag", db_instance_identifier="shop-1-green-abc123", mysql_conn_id="dbops_rehearsal",
        blue=("blue", 3306), green=("green", "3307"), schema="shop", run="run-1", **{**QUICK, "timeout": 60, **more},
    )  # fmt: skip


def datapoints(*seconds_and_age: tuple[float, float]) -> dict[str, Any]:
    return {
        "Datapoints": [
            {"Timestamp": T0 - timedelta(seconds=age), "Maximum": value, "Unit": "Seconds"}
            for value, age in seconds_and_age
        ]
    }


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> list[Reading]:
    """What the heartbeat says, one reading after another; the last one stays."""
    readings = [Reading(0.2)]
    monkeypatch.setattr(lagging, "heartbeat", lambda gate: readings[0] if len(readings) == 1 else readings.pop(0))
    return readings


def test_the_gate_opens_when_both_hold_three_times(rds: FakeRds, beats: list[Reading], deferrable: bool) -> None:
    rds.script("get_metric_statistics", datapoints((0, 30), (9, 90)))
    beats[:] = [Reading(0.2), Reading(5.0), Reading(None, "no heartbeat"), Reading(0.1)]
    result = run(lag(deferrable=deferrable), context())
    assert (result["is_open"], result["streak"], result["heartbeat_s"], result["metric_s"]) == (True, 3, 0.1, 0.0)
    assert rds.count("get_metric_statistics") == 6
    asked = rds.arguments("get_metric_statistics")
    assert (asked["MetricName"], asked["Namespace"]) == ("AuroraBinlogReplicaLag", "AWS/RDS")
    assert asked["Dimensions"] == [{"Name": "DBInstanceIdentifier", "Value": "shop-1-green-abc123"}]


@pytest.mark.parametrize(
    ("metric", "beat", "word"),
    [
        (datapoints((7, 30)), Reading(0.0), "AuroraBinlogReplicaLag 7.000 s"),
        (datapoints((0, 30)), Reading(1.2), "heartbeat 1.200 s"),
        (datapoints(), Reading(0.0), "AuroraBinlogReplicaLag unknown .no datapoint"),
        (datapoints((0, 9999)), Reading(0.0), "AuroraBinlogReplicaLag unknown .no datapoint"),
        (datapoints((-1, 30)), Reading(0.0), "does not replicate"),
        (throttled(), Reading(0.0), "Rate exceeded"),
        (datapoints((0, 30)), Reading(None, "OperationalError 2003"), "heartbeat unknown .OperationalError 2003"),
    ],
    ids=["metric", "heartbeat", "no datapoint", "old datapoint", "not replicating", "throttled", "no server"],
)
def test_one_that_is_large_or_unknown_keeps_the_gate_shut(
    rds: FakeRds, beats: list[Reading], metric: Any, beat: Reading, word: str
) -> None:
    rds.script("get_metric_statistics", metric)
    beats[:] = [beat]
    with pytest.raises(AirflowException, match=f"Lag of shop-1-green-abc123 was not small enough .*{word}"):
        run(lag(deferrable=True, timeout=0.005), context())


def test_the_newest_datapoint_counts(rds: FakeRds, beats: list[Reading]) -> None:
    rds.script("get_metric_statistics", datapoints((0, 200), (8, 20), (0, 140)))
    assert lag().poke(context()).xcom_value["metric_s"] == 8


def test_rescheduled_samples_count_in_the_task_state_store(rds: FakeRds, beats: list[Reading]) -> None:
    rds.script("get_metric_statistics", datapoints((0, 30)))
    store = TaskState()
    seen = [lag(mode="reschedule").poke(context(task_state_store=store)).is_done for _ in range(3)]
    assert seen == [False, False, True]


def test_the_trigger_carries_the_whole_gate(rds: FakeRds) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        lag(deferrable=True, metric_name="ReplicaLag", max_lag=2.5, samples=4, max_age=60).execute(context())
    carried = Gate(**deferred.value.trigger.serialize()[1]["gate"])
    assert (carried.metric_name, carried.max_lag_s, carried.samples, carried.max_age_s) == ("ReplicaLag", 2.5, 4, 60)
    assert (carried.blue, carried.green) == (("blue", 3306), ("green", 3307))


@pytest.mark.parametrize("wrong", [{"metric_name": "SecondsBehind"}, {"max_lag_s": 0}, {"samples": 0}])
def test_a_gate_that_could_not_hold_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Gate("i", "c", ("b", 1), ("g", 2), "s", "r", **wrong)


class Connection:
    def close(self) -> None:
        pass


def test_the_heartbeat_is_read_from_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    import MySQLdb

    opened: list[Any] = []

    def mysql(conn_id: str, *, address: tuple[str, int]) -> Connection:
        opened.append((conn_id, address))
        return Connection()

    monkeypatch.setattr(lagging.connections, "mysql", mysql)
    monkeypatch.setattr(lagging.lag, "now", lambda blue, green, schema, run: 0.25)
    assert lagging.heartbeat(GATE) == Reading(0.25)
    assert opened == [("dbops_rehearsal", ("blue", 3306)), ("dbops_rehearsal", ("green", 3307))]
    monkeypatch.setattr(lagging.lag, "now", lambda *_: None)
    assert lagging.heartbeat(GATE).seconds is None

    def refuse(*_: Any, **__: Any) -> Any:
        raise MySQLdb.OperationalError(1045, "Access denied for user 'x' (using password: YES)")

    monkeypatch.setattr(lagging.connections, "mysql", refuse)
    assert lagging.heartbeat(GATE) == Reading(None, "OperationalError 1045")


def test_a_sample_that_does_not_hold_begins_the_count_anew() -> None:
    state = Lag()
    for beat in (0.1, 0.1, 1.1, 0.1, 1.0):
        state = lagging.advance(state, GATE, Reading(beat), Reading(0.0))
    assert (state.streak, state.is_open) == (2, False)
    assert lagging.advance(state, GATE, Reading(0.0), Reading(0.0)).is_open


def test_the_client_is_of_cloudwatch() -> None:
    hook = lagging.CloudWatch(aws_conn_id=None, region_name="eu-central-1")
    assert hook.client_type == "cloudwatch"
    with closing(hook.get_client_type(region_name="eu-central-1")) as client:
        assert client.meta.service_model.service_name == "cloudwatch"


def test_the_event_of_a_trigger_that_ran_out_of_samples(rds: FakeRds, beats: list[Reading]) -> None:
    rds.script("get_metric_statistics", datapoints((7, 30)))
    with pytest.raises(TaskDeferred) as deferred:
        lag(deferrable=True, poke_interval=0.001, timeout=0.002).execute(context())
    payload = fired(deferred.value.trigger)
    assert (payload["status"], rds.count("get_metric_statistics")) == ("closed", 2)
