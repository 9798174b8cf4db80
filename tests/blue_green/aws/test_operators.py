"""The operators, each through workers alone and through a triggerer: the same outcome either way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from rds_fake import (
    BGD,
    CLUSTER,
    DONE,
    FAILED,
    OPEN,
    RUNNING,
    T0,
    TASKS,
    WRITER,
    FakeRds,
    Kept,
    Killed,
    TaskState,
    again,
    canceled,
    cluster,
    connect,
    context,
    deployment,
    event,
    fault,
    fired,
    lost,
    run,
    seconds,
    throttled,
)

from dbops.blue_green import attempt, switchover
from dbops.blue_green.attempt import AttemptError
from dbops.blue_green.aws import links, operators
from dbops.blue_green.aws.operators import (
    CreateBlueGreenDeploymentOperator,
    DeleteBlueGreenDeploymentOperator,
    RdsCreateDbClusterOperator,
    RdsCreateDbClusterParameterGroupOperator,
    RdsDeleteDbClusterOperator,
    RdsDeleteDbClusterParameterGroupOperator,
    RdsModifyDbClusterParameterGroupOperator,
    RdsRebootDbInstanceOperator,
    RdsRestoreDbClusterFromSnapshotOperator,
    RdsRestoreDbClusterToPointInTimeOperator,
    SwitchoverBlueGreenDeploymentOperator,
)

CALL = "switchover_blue_green_deployment"
AWS: dict[str, Any] = {"aws_conn_id": None, "region_name": "eu-central-1"}
QUICK: dict[str, Any] = {**AWS, "waiter_delay": 0, "waiter_max_attempts": 5}
MISSING = fault("BlueGreenDeploymentNotFoundFault", 404)


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> FakeRds:
    made = FakeRds()
    connect(monkeypatch, made)
    clock = seconds()
    for module in ("operators", "switching", "sensors", "triggers"):
        monkeypatch.setattr(f"dbops.blue_green.aws.{module}.utc_now", lambda: next(clock))
    return made


@pytest.fixture(params=[False, True], ids=["worker", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# Create


def create(**more: Any) -> CreateBlueGreenDeploymentOperator:
    return CreateBlueGreenDeploymentOperator(
        task_id="create", blue_green_deployment_name="rehearsal", source=CLUSTER, **{**QUICK, **more}
    )


def test_create_waits_until_it_is_available(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(None, deployment("PROVISIONING"), throttled(), deployment())
    rds.script("create_blue_green_deployment", {"BlueGreenDeployment": deployment("PROVISIONING")})
    task = create(
        target_engine_version="8.0.mysql_aurora.3.08.2",
        target_db_cluster_parameter_group_name="green-cluster",
        target_db_parameter_group_name="green",
        tags={"dbops:rehearsal": "true"},
        rds_kwargs={"UpgradeTargetStorageConfig": True},
        deferrable=deferrable,
    )
    assert run(task, context()) == BGD
    assert rds.arguments("create_blue_green_deployment") == {
        "BlueGreenDeploymentName": "rehearsal",
        "Source": CLUSTER,
        "TargetEngineVersion": "8.0.mysql_aurora.3.08.2",
        "TargetDBClusterParameterGroupName": "green-cluster",
        "TargetDBParameterGroupName": "green",
        "Tags": [{"Key": "dbops:rehearsal", "Value": "true"}],
        "UpgradeTargetStorageConfig": True,
    }
    assert rds.count("describe_blue_green_deployments") == 4


def test_create_takes_up_what_a_crashed_try_has_created(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment("PROVISIONING"), deployment())
    assert run(create(deferrable=deferrable), context()) == BGD
    assert rds.count("create_blue_green_deployment") == 0


def test_create_whose_answer_was_lost_finds_it(rds: FakeRds) -> None:
    rds.deployments(None, deployment())
    rds.script("create_blue_green_deployment", fault("BlueGreenDeploymentAlreadyExistsFault"))
    assert run(create(), context()) == BGD


def test_create_dies_after_the_call_and_its_retry_creates_no_second_one(rds: FakeRds) -> None:
    rds.deployments(None, deployment())
    rds.script("create_blue_green_deployment", lost())
    with pytest.raises(Exception, match="Read timeout"):
        create().execute(context())
    assert run(create(), context()) == BGD
    assert rds.count("create_blue_green_deployment") == 1


def test_create_refuses_a_name_of_another_source(rds: FakeRds) -> None:
    rds.deployments(deployment(Source=f"{CLUSTER}-other"))
    with pytest.raises(AirflowFailException, match=r"whose source is .*shop-other and not .*shop"):
        create().execute(context())
    rds.deployments(deployment(DONE, renamed=True))
    with pytest.raises(AirflowFailException, match="shop-old1"):
        create().execute(context())
    rds.deployments(deployment("DELETING"))
    with pytest.raises(AirflowException, match="is being deleted"):
        create().execute(context())
    assert rds.count("create_blue_green_deployment") == 0


def test_create_tells_the_reason_of_aws(rds: FakeRds, deferrable: bool) -> None:
    reason = "Creation of blue/green deployment failed: binlog_format is OFF"
    bad = deployment(
        "INVALID_CONFIGURATION", StatusDetails="see events", Tasks=[{"Name": TASKS[0], "Status": "FAILED"}]
    )
    rds.deployments(deployment("PROVISIONING"), bad)
    rds.events = [event(0, reason)]
    with pytest.raises(AirflowException, match=f"INVALID_CONFIGURATION; see events; {reason}"):
        run(create(deferrable=deferrable), context())


def test_create_that_fails_tells_so_even_when_the_reason_cannot_be_asked(rds: FakeRds, deferrable: bool) -> None:
    bad = deployment("INVALID_CONFIGURATION")
    rds.deployments(deployment("PROVISIONING"), bad, throttled())
    with pytest.raises(AirflowException, match=r"did not become available.*why could not be asked: Throttling"):
        run(create(deferrable=deferrable), context())
    rds.deployments(deployment("PROVISIONING"), MISSING)
    with pytest.raises(AirflowException, match="is gone"):
        run(create(deferrable=deferrable), context())


def test_create_gives_up(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment("PROVISIONING"))
    with pytest.raises(AirflowException, match=r"max attempts reached.*is PROVISIONING"):
        run(create(deferrable=deferrable), context())


def test_create_passes_other_faults_on(rds: FakeRds) -> None:
    rds.deployments(None)
    rds.script("create_blue_green_deployment", fault("SourceClusterNotSupportedFault", message="gtid_mode is OFF"))
    with pytest.raises(Exception, match="gtid_mode is OFF"):
        create().execute(context())


def test_create_need_not_wait(rds: FakeRds) -> None:
    rds.deployments(deployment("PROVISIONING"))
    assert create(wait_for_completion=False).execute(context()) == BGD
    assert rds.count("describe_blue_green_deployments") == 1


# Switchover


def switch(**more: Any) -> SwitchoverBlueGreenDeploymentOperator:
    return SwitchoverBlueGreenDeploymentOperator(
        task_id="switch",
        **{
            "blue_green_deployment_identifier": BGD,
            "switchover_timeout": 60,
            "grace": 30,
            "waiter_delay": 0,
            **AWS,
            **more,
        },
    )


def test_switchover_completes_and_remembers(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(), deployment(OPEN), deployment(RUNNING), throttled(), deployment(DONE, renamed=True))
    kept = Kept()
    result = run(switch(store=kept, deferrable=deferrable), context())
    assert (result["outcome"], result["in_progress"]) == ("COMPLETED", True)
    assert switchover.load(result).members == ((CLUSTER, DONE), (WRITER, DONE))
    assert rds.arguments(CALL) == {"BlueGreenDeploymentIdentifier": BGD, "SwitchoverTimeout": 60}
    assert rds.count(CALL) == 1
    assert attempt.require(kept, BGD).memory == switchover.load(result)


def test_a_roll_back_is_a_result_unless_told_otherwise(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(), deployment(RUNNING), deployment(OPEN))
    rds.script(CALL, lambda **_: rds.events.append(canceled(50, "a long transaction")) or {})  # type: ignore[func-returns-value]
    kept = Kept()
    result = run(switch(store=kept, deferrable=deferrable), context())
    assert result["outcome"] == "ROLLED_BACK"
    assert "a long transaction" in result["reason"]
    with pytest.raises(AirflowFailException, match=r"ROLLED_BACK .*a long transaction"):
        run(switch(store=kept, deferrable=deferrable, fail_on_rollback=True), context())
    assert rds.count(CALL) == 1


def test_stale_answers_are_waited_out(rds: FakeRds, deferrable: bool) -> None:
    done = deployment(DONE, renamed=True)
    rds.deployments(
        deployment(), deployment(RUNNING), deployment(OPEN), deployment(RUNNING), done, deployment(RUNNING), done
    )
    assert run(switch(store=Kept(), deferrable=deferrable), context())["outcome"] == "COMPLETED"
    assert rds.count("describe_blue_green_deployments") == 9  # one before the call; three in a row at the end


def test_an_event_that_comes_late_gives_the_reason(rds: FakeRds, deferrable: bool) -> None:
    def late(**_: Any) -> dict[str, Any]:
        if rds.count("describe_blue_green_deployments") > 4 and not rds.events:
            rds.events.append(canceled(60, "replica lag"))
        return {"BlueGreenDeployments": [deployment()]}

    rds.deployments(late)
    result = run(switch(store=Kept(), deferrable=deferrable), context())
    assert (result["outcome"], result["in_progress"]) == ("ROLLED_BACK", False)
    assert "replica lag" in result["reason"]


def test_two_rehearsals_at_once_do_not_share_a_memory(rds: FakeRds) -> None:
    rds.deployments(deployment(), deployment(DONE, renamed=True))
    kept = Kept()
    run(switch(store=kept), context())
    with pytest.raises(AttemptError, match="holds an attempt of bgd-abcdefgh12345678"):
        run(switch(store=kept, blue_green_deployment_identifier="bgd-other"), context())
    assert rds.count(CALL) == 1


def test_a_roll_back_without_events_and_without_another_status(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(), deployment(RUNNING), deployment(FAILED, StatusDetails="timed out"))
    result = run(switch(store=Kept(), deferrable=deferrable), context())
    assert (result["outcome"], result["reason"]) == ("ROLLED_BACK", "no event says why; timed out")


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (deployment(DONE, {CLUSTER: DONE, WRITER: FAILED}), "shop-1 is SWITCHOVER_FAILED"),
        (deployment(DONE, {CLUSTER: DONE, WRITER: "MISSING_TARGET"}), "shop-1 is MISSING_TARGET"),
        (deployment(DONE, {CLUSTER: DONE}), "shop-1 is missing"),
        (deployment(FAILED, {CLUSTER: DONE, WRITER: FAILED}), "was switched over"),
        (deployment(OPEN), "never seen in progress"),
        (deployment(RUNNING), "SWITCHOVER_IN_PROGRESS"),
        (deployment("INVALID_CONFIGURATION"), "INVALID_CONFIGURATION"),
        (MISSING, "NOT_FOUND"),
        (throttled(), "Rate exceeded"),
    ],
    ids=[
        "member failed",
        "member missing",
        "member without row",
        "half",
        "never",
        "forever",
        "invalid",
        "gone",
        "mute",
    ],
)
def test_stuck_fails_without_a_retry(rds: FakeRds, deferrable: bool, last: Any, word: str) -> None:
    rds.deployments(deployment(), last)
    with pytest.raises(AirflowFailException, match=f"STUCK .*{word}"):
        run(switch(store=Kept(), deferrable=deferrable), context())
    assert rds.count(CALL) == 1


def test_the_worker_dies_before_during_and_after_the_call(rds: FakeRds, deferrable: bool) -> None:
    done = (deployment(), deployment(RUNNING), deployment(DONE, renamed=True))
    for kept, answer, calls, outcome in (
        (Kept(dies_at=1), {}, 0, "STUCK"),
        (Kept(), Killed(), 1, "COMPLETED"),
        (Kept(dies_at=2), {}, 1, "COMPLETED"),
        (Kept(dies_at=3), {}, 1, "COMPLETED"),
    ):
        rds.calls.clear()
        rds.deployments(*done).script(CALL, answer, AssertionError("called twice"))
        with pytest.raises(Killed):
            run(switch(store=kept, deferrable=deferrable), context())
        if outcome == "STUCK":
            rds.deployments(deployment())
            with pytest.raises(AirflowFailException, match="it was not repeated"):
                run(switch(store=kept, deferrable=deferrable), context())
        else:
            assert run(switch(store=kept, deferrable=deferrable), context())["outcome"] == outcome
        assert rds.count(CALL) == calls


def test_the_triggerer_dies_and_the_memory_lives(rds: FakeRds) -> None:
    """Seen in progress by the first triggerer only: without the memory, AVAILABLE would be "not begun yet" for ever."""
    rds.deployments(deployment(), deployment(RUNNING), deployment(OPEN))
    task, of = switch(store=Kept(), deferrable=True), context()
    with pytest.raises(TaskDeferred) as first:
        task.execute(of)
    seen = fired(first.value.trigger)
    assert (seen["status"], seen["attempt"]["memory"]["in_progress"]) == ("running", True)
    with pytest.raises(TaskDeferred) as second:
        task.execute_complete(of, event=seen)
    assert fired(second.value.trigger)["attempt"]["memory"]["outcome"] == "ROLLED_BACK"  # a triggerer that is killed
    assert fired(again(second.value.trigger))["attempt"]["memory"]["outcome"] == "ROLLED_BACK"  # and the one after it


def test_a_deferred_switchover_waits_no_longer_than_its_deadline(rds: FakeRds) -> None:
    rds.deployments(deployment())
    with pytest.raises(TaskDeferred) as deferred:
        switch(store=Kept(), deferrable=True).execute(context())
    assert deferred.value.timeout is not None
    assert timedelta(seconds=80) < deferred.value.timeout - operators.DEFER_MARGIN <= timedelta(seconds=90)


def test_the_memory_is_kept_in_the_task_state_store(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(), deployment(RUNNING), deployment(DONE, renamed=True))
    store = TaskState()
    for _ in range(2):  # a retry in another process
        result = run(switch(deferrable=deferrable), context(task_state_store=store))
        assert result["outcome"] == "COMPLETED"
    assert rds.count(CALL) == 1
    with pytest.raises(AirflowFailException, match="pass a store"):
        switch().execute({"ti": None})


def test_a_store_may_be_made_from_the_context(rds: FakeRds) -> None:
    rds.deployments(deployment(), deployment(DONE, renamed=True))
    kept = Kept()
    assert run(switch(store=lambda of: of["keeper"]), context(keeper=kept))["outcome"] == "COMPLETED"
    assert kept.document is not None


def test_a_refused_switchover_can_be_retried(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment())
    rds.script(CALL, fault("InvalidBlueGreenDeploymentStateFault", message="shop-1 is not in available state"), {})
    kept = Kept()
    with pytest.raises(AttemptError, match="not in available state"):
        run(switch(store=kept, deferrable=deferrable), context())
    rds.deployments(deployment(), deployment(DONE, renamed=True))
    assert run(switch(store=kept, deferrable=deferrable), context())["outcome"] == "COMPLETED"
    assert rds.count(CALL) == 2


def test_a_switchover_that_somebody_else_called_is_followed(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(RUNNING), deployment(DONE, renamed=True))
    assert run(switch(store=Kept(), deferrable=deferrable), context())["outcome"] == "COMPLETED"
    assert rds.count(CALL) == 0


def test_switchover_need_not_wait(rds: FakeRds) -> None:
    rds.deployments(deployment())
    assert switch(store=Kept(), wait_for_completion=False).execute(context())["outcome"] == "WAITING"


def test_a_templated_timeout_and_one_that_aws_refuses(rds: FakeRds) -> None:
    rds.deployments(deployment())
    switch(store=Kept(), switchover_timeout="180", wait_for_completion=False).execute(context())
    assert rds.arguments(CALL)["SwitchoverTimeout"] == 180
    with pytest.raises(ValueError, match="30 to 3600"):
        switch(store=Kept(), switchover_timeout=29).execute(context())


def test_a_kill_leaves_aws_alone(rds: FakeRds, caplog: pytest.LogCaptureFixture) -> None:
    for task in (
        switch(),
        create(),
        DeleteBlueGreenDeploymentOperator(task_id="d", blue_green_deployment_identifier=BGD),
    ):
        task.on_kill()
    assert rds.calls == []


# Delete


def delete(**more: Any) -> DeleteBlueGreenDeploymentOperator:
    return DeleteBlueGreenDeploymentOperator(
        task_id="delete", blue_green_deployment_identifier=BGD, **{**QUICK, **more}
    )


@pytest.mark.parametrize("target", [False, True])
def test_delete_waits_until_it_is_gone(rds: FakeRds, deferrable: bool, target: bool) -> None:
    rds.deployments(deployment(), deployment("DELETING"), MISSING)
    rds.script("delete_blue_green_deployment", {})
    assert run(delete(delete_target=target, deferrable=deferrable), context()) == BGD
    wanted = {"BlueGreenDeploymentIdentifier": BGD} | ({"DeleteTarget": True} if target else {})
    assert rds.arguments("delete_blue_green_deployment") == wanted
    assert rds.count("describe_blue_green_deployments") == 3


@pytest.mark.parametrize("answer", [MISSING, None], ids=["fault", "empty"])
def test_deleting_what_is_gone_is_no_error(rds: FakeRds, answer: Any) -> None:
    rds.deployments(answer)
    assert run(delete(), context()) == BGD
    assert rds.count("delete_blue_green_deployment") == 0


def test_deleting_what_is_being_deleted_only_waits(rds: FakeRds) -> None:
    rds.deployments(deployment("DELETING"), MISSING)
    assert run(delete(), context()) == BGD
    assert rds.count("delete_blue_green_deployment") == 0


def test_deleting_what_vanishes_meanwhile(rds: FakeRds) -> None:
    rds.deployments(deployment()).script("delete_blue_green_deployment", MISSING)
    assert run(delete(), context()) == BGD


def test_the_target_of_a_switchover_is_production(rds: FakeRds) -> None:
    rds.deployments(deployment(DONE, renamed=True))
    with pytest.raises(AirflowFailException, match="its target is production now"):
        run(delete(delete_target=True), context())
    assert rds.count("delete_blue_green_deployment") == 0
    rds.deployments(deployment(DONE, renamed=True), MISSING).script("delete_blue_green_deployment", {})
    assert run(delete(), context()) == BGD


def test_delete_passes_faults_on_and_gives_up(rds: FakeRds, deferrable: bool) -> None:
    rds.deployments(deployment(RUNNING))
    rds.script("delete_blue_green_deployment", fault("InvalidBlueGreenDeploymentStateFault", message="in progress"))
    with pytest.raises(Exception, match="in progress"):
        run(delete(), context())
    rds.deployments(deployment("DELETING"))
    with pytest.raises(AirflowException, match="max attempts reached"):
        run(delete(deferrable=deferrable), context())


# Clusters


GONE = fault("DBClusterNotFoundFault", 404)
THERE = fault("DBClusterAlreadyExistsFault")
WAYS: list[tuple[Any, str, dict[str, Any], dict[str, Any]]] = [
    (
        RdsCreateDbClusterOperator,
        "create_db_cluster",
        {"engine": "aurora-mysql", "engine_version": "5.7.mysql_aurora.2.11.4"},
        {"Engine": "aurora-mysql", "EngineVersion": "5.7.mysql_aurora.2.11.4"},
    ),
    (
        RdsRestoreDbClusterFromSnapshotOperator,
        "restore_db_cluster_from_snapshot",
        {"snapshot_identifier": "nightly", "engine": "aurora-mysql"},
        {"SnapshotIdentifier": "nightly", "Engine": "aurora-mysql"},
    ),
    (
        RdsRestoreDbClusterToPointInTimeOperator,
        "restore_db_cluster_to_point_in_time",
        {"source_db_cluster_identifier": "prod", "restore_type": "copy-on-write"},
        {"SourceDBClusterIdentifier": "prod", "RestoreType": "copy-on-write", "UseLatestRestorableTime": True},
    ),
]


@pytest.mark.parametrize(("kind", "operation", "given", "asked"), WAYS, ids=[way[1] for way in WAYS])
def test_a_cluster_is_made(
    rds: FakeRds, deferrable: bool, kind: Any, operation: str, given: dict[str, Any], asked: dict[str, Any]
) -> None:
    rds.script(operation, {"DBCluster": cluster(status="creating")})
    rds.script("describe_db_clusters", {"DBClusters": [cluster(status="creating")]}, {"DBClusters": [cluster()]})
    more = {"db_cluster_parameter_group_name": "blue", "tags": {"a": "b"}, "rds_kwargs": {"Port": 3306}}
    task = kind(task_id="c", db_cluster_identifier="shop", deferrable=deferrable, **given, **more, **QUICK)
    assert run(task, context()) == {
        "DBClusterIdentifier": "shop", "DBClusterArn": CLUSTER, "DbClusterResourceId": "cluster-ABC"
    }  # fmt: skip
    assert rds.arguments(operation) == {
        "DBClusterIdentifier": "shop",
        "DBClusterParameterGroupName": "blue",
        "Tags": [{"Key": "a", "Value": "b"}],
        "Port": 3306,
        **asked,
    }
    assert rds.count("describe_db_clusters") == 2


@pytest.mark.parametrize(("kind", "operation", "given"), [way[:3] for way in WAYS], ids=[way[1] for way in WAYS])
def test_a_cluster_that_is_there_is_taken_up_only_when_told_so(
    rds: FakeRds, kind: Any, operation: str, given: dict[str, Any]
) -> None:
    rds.script(operation, THERE)
    with pytest.raises(Exception, match="DBClusterAlreadyExistsFault"):
        run(kind(task_id="c", db_cluster_identifier="shop", **given, **QUICK), context())
    task = kind(task_id="d", db_cluster_identifier="shop", if_exists="take_up", **given, **QUICK)
    assert run(task, context())["DBClusterArn"] == CLUSTER


def test_a_time_to_restore_to(rds: FakeRds) -> None:
    rds.script("restore_db_cluster_to_point_in_time", {"DBCluster": cluster()})
    task = RdsRestoreDbClusterToPointInTimeOperator(
        task_id="r", db_cluster_identifier="shop", source_db_cluster_identifier="prod",
        restore_to_time="2026-03-01T03:00:00Z", **QUICK,
    )  # fmt: skip
    run(task, context())
    assert rds.arguments("restore_db_cluster_to_point_in_time") == {
        "DBClusterIdentifier": "shop",
        "SourceDBClusterIdentifier": "prod",
        "RestoreType": "full-copy",
        "RestoreToTime": "2026-03-01T03:00:00Z",
    }


@pytest.mark.parametrize("final", [None, "last"])
def test_a_cluster_is_deleted(rds: FakeRds, deferrable: bool, final: str | None) -> None:
    rds.script("describe_db_clusters", {"DBClusters": [cluster()]}, {"DBClusters": [cluster(status="deleting")]}, GONE)
    rds.script("delete_db_cluster", {})
    task = RdsDeleteDbClusterOperator(
        task_id="d", db_cluster_identifier="shop", final_db_snapshot_identifier=final, deferrable=deferrable, **QUICK
    )
    assert run(task, context()) == "shop"
    wanted: dict[str, Any] = (
        {"SkipFinalSnapshot": False, "FinalDBSnapshotIdentifier": "last"} if final else {"SkipFinalSnapshot": True}
    )
    assert rds.arguments("delete_db_cluster") == {"DBClusterIdentifier": "shop", **wanted}


@pytest.mark.parametrize("answers", [[GONE], [{"DBClusters": [cluster(status="deleting")]}, GONE]])
def test_deleting_a_cluster_that_goes_is_no_error(rds: FakeRds, answers: list[Any]) -> None:
    rds.script("describe_db_clusters", *answers)
    task = RdsDeleteDbClusterOperator(
        task_id="d", db_cluster_identifier="shop", final_db_snapshot_identifier=None, **QUICK
    )
    assert run(task, context()) == "shop"
    assert rds.count("delete_db_cluster") == 0


def test_deleting_a_cluster_with_members_tells_so(rds: FakeRds) -> None:
    rds.script("delete_db_cluster", fault("InvalidDBClusterStateFault", message="still has members"))
    task = RdsDeleteDbClusterOperator(
        task_id="d", db_cluster_identifier="shop", final_db_snapshot_identifier=None, **QUICK
    )
    with pytest.raises(Exception, match="still has members"):
        run(task, context())


def reboot_answers(*pairs: tuple[str, str]) -> Iterator[dict[str, Any]]:
    for status, applied in pairs:
        groups = [{"DBParameterGroupName": "g", "ParameterApplyStatus": applied}]
        yield {
            "DBInstances": [{"DBInstanceIdentifier": "shop-1", "DBInstanceStatus": status, "DBParameterGroups": groups}]
        }


def test_a_reboot_waits_until_the_parameters_are_in_sync(rds: FakeRds, deferrable: bool) -> None:
    rds.script("reboot_db_instance", {})
    steps = (
        ("available", "pending-reboot"),
        ("rebooting", "in-sync"),
        ("available", "applying"),
        ("available", "in-sync"),
    )
    rds.script("describe_db_instances", *reboot_answers(*steps))
    task = RdsRebootDbInstanceOperator(
        task_id="r", db_instance_identifier="shop-1", force_failover=False, deferrable=deferrable, **QUICK
    )
    assert run(task, context()) == "shop-1"
    assert rds.count("describe_db_instances") == 4
    assert rds.arguments("reboot_db_instance") == {"DBInstanceIdentifier": "shop-1", "ForceFailover": False}


@pytest.mark.parametrize("status", ["failed", "incompatible-parameters", "deleting"])
def test_a_reboot_that_breaks_the_instance_fails(rds: FakeRds, deferrable: bool, status: str) -> None:
    rds.script("reboot_db_instance", {})
    rds.script("describe_db_instances", *reboot_answers((status, "in-sync")))
    task = RdsRebootDbInstanceOperator(task_id="r", db_instance_identifier="shop-1", deferrable=deferrable, **QUICK)
    with pytest.raises(AirflowException, match="did not become available"):
        run(task, context())


# Parameter groups


NAMED: dict[str, Any] = {"db_cluster_parameter_group_name": "blue-57", **AWS}


def test_a_parameter_group_is_made_with_its_parameters_twenty_at_a_time(rds: FakeRds) -> None:
    rds.script("create_db_cluster_parameter_group", {}).script("modify_db_cluster_parameter_group", {})
    parameters = {f"p{number:02d}": str(number) for number in range(45)}
    task = RdsCreateDbClusterParameterGroupOperator(
        task_id="g", db_parameter_group_family="aurora-mysql5.7", parameters=parameters, tags={"a": "b"}, **NAMED
    )
    assert run(task, context()) == "blue-57"
    assert rds.arguments("create_db_cluster_parameter_group") == {
        "DBClusterParameterGroupName": "blue-57",
        "DBParameterGroupFamily": "aurora-mysql5.7",
        "Description": "made by Airflow",
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    batches = [asked["Parameters"] for name, asked in rds.calls if name == "modify_db_cluster_parameter_group"]
    assert [len(batch) for batch in batches] == [20, 20, 5]
    assert {row["ParameterName"]: row["ParameterValue"] for batch in batches for row in batch} == parameters
    assert {row["ApplyMethod"] for batch in batches for row in batch} == {"pending-reboot"}


def test_a_parameter_group_that_is_there(rds: FakeRds) -> None:
    rds.script("create_db_cluster_parameter_group", fault("DBParameterGroupAlreadyExists"))
    group = {"DBClusterParameterGroupName": "blue-57", "DBParameterGroupFamily": "aurora-mysql5.7"}
    rds.script("describe_db_cluster_parameter_groups", {"DBClusterParameterGroups": [group]})

    def task(family: str, if_exists: Any) -> Any:
        return RdsCreateDbClusterParameterGroupOperator(
            task_id="g", db_parameter_group_family=family, if_exists=if_exists, **NAMED
        )

    with pytest.raises(Exception, match="AlreadyExists"):
        run(task("aurora-mysql5.7", "fail"), context())
    assert run(task("aurora-mysql5.7", "take_up"), context()) == "blue-57"
    with pytest.raises(AirflowFailException, match=r"family aurora-mysql5.7, not aurora-mysql8.0"):
        run(task("aurora-mysql8.0", "take_up"), context())


def test_parameters_are_set(rds: FakeRds) -> None:
    rds.script("modify_db_cluster_parameter_group", {})
    task = RdsModifyDbClusterParameterGroupOperator(
        task_id="m", parameters={"binlog_format": "ROW"}, apply_method="immediate", **NAMED
    )
    assert run(task, context()) == "blue-57"
    assert rds.arguments("modify_db_cluster_parameter_group") == {
        "DBClusterParameterGroupName": "blue-57",
        "Parameters": [{"ParameterName": "binlog_format", "ParameterValue": "ROW", "ApplyMethod": "immediate"}],
    }


def test_a_parameter_group_is_deleted_once(rds: FakeRds) -> None:
    task = RdsDeleteDbClusterParameterGroupOperator(task_id="d", **NAMED)
    rds.script("delete_db_cluster_parameter_group", {}, fault("DBParameterGroupNotFound", 404))
    assert [run(task, context()) for _ in range(2)] == ["blue-57"] * 2
    rds.script("delete_db_cluster_parameter_group", fault("InvalidDBParameterGroupState", message="in use"))
    with pytest.raises(Exception, match="in use"):
        run(task, context())


# What every operator has


OPERATORS = [
    (kind, kind.template_fields)
    for kind in vars(operators).values()
    if isinstance(kind, type) and kind.__module__ == operators.__name__ and not kind.__name__.startswith("_")
]


def test_every_template_field_is_an_attribute(rds: FakeRds) -> None:
    made = [
        create(), switch(), delete(),
        *(kind(task_id="c", db_cluster_identifier="x", **given) for kind, _, given, _ in WAYS),
        RdsDeleteDbClusterOperator(task_id="d", db_cluster_identifier="x", final_db_snapshot_identifier=None),
        RdsRebootDbInstanceOperator(task_id="r", db_instance_identifier="x"),
        RdsCreateDbClusterParameterGroupOperator(task_id="g", db_parameter_group_family="f", **NAMED),
        RdsModifyDbClusterParameterGroupOperator(task_id="m", parameters={}, **NAMED),
        RdsDeleteDbClusterParameterGroupOperator(task_id="e", **NAMED),
    ]  # fmt: skip
    assert {type(one) for one in made} == {kind for kind, _ in OPERATORS} - {operators.RdsWaitingOperator}
    for one in made:
        assert {"aws_conn_id", "region_name", "verify"} <= set(one.template_fields)
        assert not [name for name in one.template_fields if not hasattr(one, name)]
        assert one.operator_extra_links


@pytest.mark.parametrize(
    ("link", "task", "url"),
    [
        (links.BlueGreenDeploymentLink, create, "#databases:"),
        (links.BlueGreenDeploymentLink, switch, "#databases:"),
    ],
)
def test_links_are_pushed_before_anything_is_waited_for(rds: FakeRds, link: Any, task: Any, url: str) -> None:
    rds.deployments(deployment("PROVISIONING"))
    of = context()
    with pytest.raises(Exception, match="PROVISIONING"):
        run(task(), of)
    pushed = of["ti"].pushed[link.key]
    assert pushed["blue_green_deployment_identifier"] == BGD
    assert link().format_link(**pushed) == f"https://console.aws.amazon.com/rds/home?region=eu-central-1{url}"


def test_links_of_clusters_instances_and_groups() -> None:
    base: dict[str, str] = {"region_name": "eu-central-1", "aws_domain": "aws.amazon.com"}
    home = "https://console.aws.amazon.com/rds/home?region=eu-central-1"
    assert (
        links.RdsDbClusterLink().format_link(db_cluster_identifier="a", **base)
        == f"{home}#database:id=a;is-cluster=true"
    )
    assert (
        links.RdsDbInstanceLink().format_link(db_instance_identifier="a", **base)
        == f"{home}#database:id=a;is-cluster=false"
    )
    named = links.RdsDbClusterParameterGroupLink().format_link(db_cluster_parameter_group_name="g", **base)
    assert named == f"{home}#parameter-groups-detail:ids=g;type=DbClusterParameterGroup;editing=false"


def test_the_time_of_the_call_is_that_of_the_clock(rds: FakeRds) -> None:
    rds.deployments(deployment())
    kept = Kept()
    switch(store=kept, wait_for_completion=False).execute(context())
    assert attempt.require(kept, BGD).asked_at == T0 + timedelta(seconds=1)


def test_operators_can_be_mapped_and_pass_their_aws_parameters_on() -> None:
    with DAG("mapped", schedule=None, start_date=T0) as dag:
        CreateBlueGreenDeploymentOperator.partial(task_id="create", blue_green_deployment_name="r", **AWS).expand(
            source=[CLUSTER, WRITER]
        )
        SwitchoverBlueGreenDeploymentOperator.partial(
            task_id="switch", blue_green_deployment_identifier=BGD, verify=False, **AWS
        ).expand(switchover_timeout=[60, 180])
    assert {task.is_mapped for task in dag.tasks} == {True}
    assert switch(verify=False, botocore_config={"read_timeout": 9})._hook_parameters == {
        "aws_conn_id": None, "region_name": "eu-central-1", "verify": False, "config": {"read_timeout": 9}
    }  # fmt: skip
