"""The operators: each in the worker and through a triggerer, each killed after its call and tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from dbops.dms.aws.operators import (
    DmsAssessmentRunOperator,
    DmsDeleteTaskOperator,
    DmsDrainTaskOperator,
    DmsEnsureTaskOperator,
    DmsModifyTaskOperator,
    DmsMoveTaskOperator,
    DmsReloadTablesOperator,
    DmsStartTaskOperator,
    DmsStopTaskOperator,
    DmsTestConnectionOperator,
)
from tests.dms.aws.dms_fake import (
    CHECKPOINT,
    CONFIG_ARN,
    NOW,
    QUICK,
    TASK,
    FakeDms,
    connect,
    context,
    denied,
    fault,
    loaded,
    lost,
    ready,
    run,
    running,
    stopped,
    throttled,
)
from tests.dms.dms_kit import INSTANCE_ARN, ROLE, SAFE, SELECT_ALL, SOURCE_ARN, TARGET_ARN, TASK_ARN

TRANSIENT = [throttled(), fault("InternalFailure", 500), lost()]


class Killed(BaseException):
    """The worker process is gone."""


@pytest.fixture
def dms(monkeypatch: pytest.MonkeyPatch) -> FakeDms:
    return connect(monkeypatch, FakeDms())


@pytest.fixture(params=[False, True], ids=["worker", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def killed(dms: FakeDms, call: str, do: Callable[[FakeDms], Any]) -> None:
    """AWS carries the call out, and the worker dies before it knows."""

    def die(**_: Any) -> dict[str, Any]:
        do(dms)
        raise Killed

    dms.script(call, die)


# DmsEnsureTaskOperator


def ensure(**more: Any) -> DmsEnsureTaskOperator:
    given: dict[str, Any] = {
        "replication_task_id": "shop-orders", "source_endpoint_arn": SOURCE_ARN, "target_endpoint_arn": TARGET_ARN,
        "replication_instance_arn": INSTANCE_ARN, "migration_type": "full-load-and-cdc",
        "table_mappings": {"rules": [SELECT_ALL]}, "replication_task_settings": {"Logging": {"EnableLogging": True}},
    }  # fmt: skip
    return DmsEnsureTaskOperator(task_id="t", **QUICK, **{**given, **more})


CREATED = {"ReplicationTask": ready(Status="creating")}


def test_a_task_that_is_missing_is_created_and_waited_for(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(None).then(
        "create_replication_task",
        lambda dms: dms.tasks(None, ready(Status="creating"), *TRANSIENT, ready()),
        CREATED,
    )
    made = ensure(deferrable=deferrable, tags={"team": "dba"}, create_task_kwargs={"CdcStartPosition": CHECKPOINT})
    assert run(made, context()) == TASK_ARN
    asked = dms.arguments("create_replication_task")
    assert (asked["Tags"], asked["CdcStartPosition"]) == ([{"Key": "team", "Value": "dba"}], CHECKPOINT)
    assert json.loads(asked["ReplicationTaskSettings"]) == {"Logging": {"EnableLogging": True}}


def test_one_that_exists_is_taken_up_whatever_it_does(dms: FakeDms, deferrable: bool) -> None:
    for row in (ready(), running(), stopped(), ready(ReplicationTaskIdentifier="SHOP-orders")):
        assert run(ensure(deferrable=deferrable), context()) == TASK_ARN, dms.tasks(row)
    assert dms.changes() == []


def test_a_crash_after_the_creation_creates_no_second_one(dms: FakeDms) -> None:
    dms.tasks(None)
    killed(dms, "create_replication_task", lambda dms: dms.tasks(ready(Status="creating"), ready()))
    with pytest.raises(Killed):
        ensure().execute(context())
    assert ensure().execute(context()) == TASK_ARN
    assert dms.changes() == ["create_replication_task"]


def test_somebody_who_was_faster_is_no_failure(dms: FakeDms) -> None:
    dms.tasks(None, ready()).script("create_replication_task", fault("ResourceAlreadyExistsFault"))
    assert ensure().execute(context()) == TASK_ARN


def test_another_definition_fails_and_names_every_difference(dms: FakeDms) -> None:
    other = {"Logging": {"EnableLogging": False}}
    dms.tasks(ready(SourceEndpointArn="other", ReplicationTaskSettings=json.dumps(other), ReplicationInstanceArn="rep"))
    with pytest.raises(AirflowFailException) as error:
        ensure().execute(context())
    told = str(error.value)
    for words in (
        "source endpoint is other", "replication instance is rep", "Logging.EnableLogging becomes true",
        "DmsModifyTaskOperator changes", "DmsMoveTaskOperator moves", "delete it and create it anew",
    ):  # fmt: skip
        assert words in told
    dms.tasks(ready(Status="deleting"))
    with pytest.raises(AirflowException, match="is being deleted"):
        ensure().execute(context())
    dms.tasks(ready())
    with pytest.raises(AirflowFailException, match="rule-id 'x' is not a number"):
        ensure(table_mappings=[{**SELECT_ALL, "rule-id": "x"}]).execute(context())


def test_a_serverless_replication_is_ensured_as_well(dms: FakeDms) -> None:
    dms.script("describe_replication_configs", fault("ResourceNotFoundFault")).script("describe_replications", {})
    made = {"ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop-orders", "ReplicationType": "cdc"}
    answer = {"ReplicationConfigs": [made]}
    dms.then(
        "create_replication_config",
        lambda dms: dms.script("describe_replication_configs", answer),
        {"ReplicationConfig": made},
    )
    operator = ensure(replication_instance_arn=None, compute_config={"MaxCapacityUnits": 8}, migration_type="cdc")
    assert operator.execute(context()) == CONFIG_ARN
    assert dms.arguments("create_replication_config")["ReplicationType"] == "cdc"
    with pytest.raises(ValueError, match="either replication_instance_arn or compute_config"):
        ensure(compute_config={})


# DmsStartTaskOperator


def start(kind: str = "start-replication", **more: Any) -> DmsStartTaskOperator:
    return DmsStartTaskOperator(**{**TASK, "start_replication_task_type": kind, "grace": 60, **more})


def test_a_start_waits_until_the_task_runs(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(ready()).then(
        "start_replication_task", lambda dms: dms.tasks(ready(), *TRANSIENT, ready(Status="starting"), running(50))
    )
    result = run(start(deferrable=deferrable, cdc_stop_position="server_time:2026-03-01T05:00:00"), context())
    assert (result["was_started"], result["status"]) == (True, "running")
    assert dms.arguments("start_replication_task")["CdcStopPosition"] == "server_time:2026-03-01T05:00:00"


def test_a_start_that_has_ended_already_is_judged_by_its_end(dms: FakeDms, deferrable: bool) -> None:
    end = stopped("FULL_LOAD_ONLY_FINISHED", started=50, MigrationType="full-load")
    dms.tasks(ready(MigrationType="full-load")).then("start_replication_task", lambda dms: dms.tasks(end))
    assert run(start(deferrable=deferrable), context())["status"] == "stopped"
    dms.tasks(stopped()).then("start_replication_task", lambda dms: dms.tasks(stopped("FATAL_ERROR", started=60)))
    with pytest.raises(AirflowException, match="stopped with Stop Reason FATAL_ERROR"):
        run(start("resume-processing", deferrable=deferrable), context())


def test_a_start_that_aws_forbids_is_refused_with_the_right_one(dms: FakeDms) -> None:
    for row, kind, words in (
        (ready(), "resume-processing", "use start-replication"),
        (stopped(), "start-replication", "use resume-processing, or reload-target"),
        (running(), "reload-target", "stop it first"),
        (ready(Status="deleting"), "start-replication", "the task is deleting"),
    ):
        dms.tasks(row)
        with pytest.raises(AirflowFailException, match=words):
            start(kind).execute(context())
    dms.tasks(None)
    with pytest.raises(AirflowFailException, match="AWS has no such task"):
        start().execute(context())
    assert dms.changes() == []
    with pytest.raises(ValueError, match="only one of"):
        start(cdc_start_position=CHECKPOINT, cdc_start_time=NOW)
    with pytest.raises(ValueError, match="either replication_task_arn or"):
        start(replication_config_arn=CONFIG_ARN)


def test_what_passes_by_itself_is_waited_for_first(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(stopped(Status="modifying"), stopped(Status="modifying"), stopped())
    dms.then("start_replication_task", lambda dms: dms.tasks(running(50)))
    assert run(start("resume-processing", deferrable=deferrable), context())["was_started"] is True


def test_a_task_that_runs_is_taken_up(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(running())
    assert run(start(deferrable=deferrable), context())["was_started"] is False
    dms.tasks(ready(Status="starting"), ready(Status="starting"), running())
    assert run(start("resume-processing", deferrable=deferrable), context())["was_started"] is False
    assert dms.changes() == []


@pytest.mark.parametrize("after", [[stopped(started=50)], [running(50)], [stopped(started=0), running(50)]])
def test_a_crash_after_the_start_starts_no_second_time(dms: FakeDms, after: list[Any]) -> None:
    of = context()
    dms.tasks(stopped())
    killed(dms, "start_replication_task", lambda dms: dms.tasks(*after))
    with pytest.raises(Killed):
        start("reload-target").execute(of)
    if len(after) > 1:
        dms.answers["describe_replication_tasks"].pop(0)  # time goes by until the retry
    assert start("reload-target").execute(of)["was_started"] is True
    assert dms.changes() == ["start_replication_task"]


def test_a_call_that_was_not_carried_out_is_made_again(dms: FakeDms) -> None:
    of = context()
    dms.tasks(stopped()).script("start_replication_task", throttled())
    with pytest.raises(Exception, match="Rate exceeded"):
        start("reload-target").execute(of)
    dms.then("start_replication_task", lambda dms: dms.tasks(running(50)))
    assert start("reload-target").execute(of)["was_started"] is True


def test_once_it_is_over_the_same_task_may_start_it_again(dms: FakeDms) -> None:
    of = context()
    dms.tasks(stopped()).then("start_replication_task", lambda dms: dms.tasks(running(50)))
    start("resume-processing").execute(of)
    dms.tasks(stopped(started=50)).then("start_replication_task", lambda dms: dms.tasks(running(90)))
    assert start("resume-processing").execute(of)["was_started"] is True
    assert dms.changes() == ["start_replication_task"] * 2


def test_a_wait_that_is_refused_ends_and_one_that_takes_too_long_too(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(ready()).then("start_replication_task", lambda dms: dms.tasks(ready(Status="starting"), denied()))
    with pytest.raises(AirflowException, match="AWS refused the call: AccessDeniedException"):
        run(start(deferrable=deferrable), context())
    dms.tasks(ready()).then("start_replication_task", lambda dms: dms.tasks(ready(Status="starting")))
    with pytest.raises(AirflowException, match="not over after 12 looks every 0 s: the task is starting"):
        run(start(deferrable=deferrable), context())


def test_a_deferred_start_goes_on_in_another_process(dms: FakeDms) -> None:
    dms.tasks(stopped(Status="modifying"), stopped(Status="modifying"), stopped())
    dms.then("start_replication_task", lambda dms: dms.tasks(stopped(), stopped(Status="starting"), running(50)))
    fresh = lambda: start("resume-processing", deferrable=True)  # noqa: E731
    assert run(fresh(), context(), fresh=fresh)["status"] == "running"
    assert dms.changes() == ["start_replication_task"]


def test_nothing_is_waited_for_where_nobody_wants_it(dms: FakeDms) -> None:
    dms.tasks(ready()).then("start_replication_task", lambda dms: dms.tasks(ready(Status="starting")))
    assert start(wait_for_completion=False).execute(context()) == {"arn": TASK_ARN, "was_started": True}


def test_a_deferred_wait_has_a_timeout(dms: FakeDms) -> None:
    dms.tasks(ready(Status="starting"))
    with pytest.raises(TaskDeferred) as deferred:
        start(deferrable=True, waiter_delay=10, waiter_max_attempts=6).execute(context())
    assert deferred.value.timeout is not None
    assert deferred.value.timeout.total_seconds() == 360


def serverless(dms: FakeDms, *rows: dict[str, Any], kind: str = "cdc") -> None:
    config = {"ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop", "ReplicationType": kind}
    dms.script("describe_replication_configs", {"ReplicationConfigs": [config]})
    dms.script(
        "describe_replications", *[{"Replications": [{"ReplicationConfigArn": CONFIG_ARN, **row}]} for row in rows]
    )
    dms.script(
        "describe_replication_table_statistics", {"ReplicationTableStatistics": [loaded("customers"), loaded("orders")]}
    )


OF_CONFIG: dict[str, Any] = {"replication_task_arn": None, "replication_config_arn": CONFIG_ARN}


def test_a_serverless_replication_is_started_once_it_has_given_its_capacity_back(
    dms: FakeDms, deferrable: bool
) -> None:
    given_back = {"Status": "stopped", "StopReason": "Stop Reason NORMAL"}
    holding = {**given_back, "ProvisionData": {"ProvisionState": "deprovisioning"}}
    serverless(dms, holding, holding, {**given_back, "ProvisionData": {"ProvisionState": "deprovisioned"}})
    dms.then(
        "start_replication",
        lambda dms: serverless(
            dms, {"Status": "initializing"}, {"Status": "provisioning_capacity"}, {"Status": "running"}
        ),
    )
    assert run(start("resume-processing", deferrable=deferrable, **OF_CONFIG), context())["status"] == "running"
    assert dms.arguments("start_replication") == {
        "ReplicationConfigArn": CONFIG_ARN, "StartReplicationType": "resume-processing"
    }  # fmt: skip


# DmsReloadTablesOperator


def tables(*names: str) -> list[dict[str, str]]:
    return [{"SchemaName": "shop", "TableName": name} for name in names]


def reload(*names: str, **more: Any) -> DmsReloadTablesOperator:
    return DmsReloadTablesOperator(**{**TASK, "tables_to_reload": tables(*names or ("orders",)), **more})


def test_tables_are_reloaded_ten_a_call(dms: FakeDms, deferrable: bool) -> None:
    names = [f"t{number:02}" for number in range(23)]
    dms.tables([loaded(name) for name in names]).then(
        "reload_tables", lambda dms: dms.tables([loaded(name, started=50) for name in names])
    )
    result = run(reload(*names, *names[:2], deferrable=deferrable), context())
    assert len(result["tables"]) == 23
    asked = [arguments["TablesToReload"] for name, arguments in dms.calls if name == "reload_tables"]
    assert ([len(one) for one in asked], sorted(t["TableName"] for one in asked for t in one)) == ([10, 10, 3], names)


def test_a_table_in_an_error_fails_with_its_name(dms: FakeDms, deferrable: bool) -> None:
    dms.tables([loaded("customers"), loaded("orders", "Table error")])
    dms.then(
        "reload_tables",
        lambda dms: dms.tables(
            [loaded("customers"), loaded("orders", "Table error")],
            [loaded("customers", started=50), loaded("orders", "Table is being reloaded", started=50)],
            [loaded("customers", started=50), loaded("orders", "Table error", started=50)],
        ),
    )
    with pytest.raises(AirflowException, match=r"table shop\.orders is in state Table error"):
        run(reload("customers", "orders", deferrable=deferrable), context())


def test_a_crash_after_the_reload_reloads_only_what_was_not(dms: FakeDms) -> None:
    of = context()
    dms.tables([loaded("a"), loaded("b")])
    killed(
        dms, "reload_tables", lambda dms: dms.tables([loaded("a", "Table is being reloaded", started=50), loaded("b")])
    )
    with pytest.raises(Killed):
        reload("a", "b").execute(of)
    dms.then("reload_tables", lambda dms: dms.tables([loaded("a", started=50), loaded("b", started=60)]))
    assert reload("a", "b").execute(of)["tables"] == ["shop.a", "shop.b"]
    assert [t["TableName"] for t in dms.arguments("reload_tables")["TablesToReload"]] == ["b"]
    # Once it is over, the same task may reload them again.
    dms.then("reload_tables", lambda dms: dms.tables([loaded("a", started=80), loaded("b", started=80)]))
    reload("a", "b").execute(of)
    assert len(dms.arguments("reload_tables")["TablesToReload"]) == 2


def test_a_reload_needs_a_running_task_that_knows_the_tables(dms: FakeDms) -> None:
    for row, names, words in (
        (stopped(), ("orders",), "tables can only be reloaded while it runs: start it first"),
        (running(), ("orders", "nothing"), r"the task has no shop\.nothing"),
        (running(MigrationType="cdc"), ("orders",), "a task of type cdc loads no table"),
    ):
        dms.tasks(row)
        with pytest.raises(AirflowFailException, match=words):
            reload(*names).execute(context())
    assert dms.changes() == []


def test_a_task_that_ends_within_the_reload_fails(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(running()).then("reload_tables", lambda dms: dms.tasks(running(), stopped("FATAL_ERROR")))
    with pytest.raises(AirflowException, match=r"the task is stopped; not loaded anew: shop\.orders"):
        run(reload(deferrable=deferrable), context())


def test_tables_of_a_serverless_replication_are_reloaded(dms: FakeDms) -> None:
    serverless(dms, {"Status": "running"}, kind="full-load-and-cdc")
    anew = {"ReplicationTableStatistics": [loaded("customers"), loaded("orders", started=50)]}
    dms.then("reload_replication_tables", lambda dms: dms.script("describe_replication_table_statistics", anew))
    assert reload(**OF_CONFIG).execute(context())["tables"] == ["shop.orders"]


# DmsStopTaskOperator


def stop(**more: Any) -> DmsStopTaskOperator:
    return DmsStopTaskOperator(**{**TASK, **more})


def test_a_stop_returns_checkpoint_and_statistics(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(running(RecoveryCheckpoint="checkpoint:before")).then(
        "stop_replication_task", lambda dms: dms.tasks(running(Status="stopping"), *TRANSIENT, stopped())
    )
    result = run(stop(deferrable=deferrable), context())
    assert (result["was_running"], result["status"], result["checkpoint"]) == (True, "stopped", CHECKPOINT)
    assert (result["statistics"]["tables"], result["statistics"]["rows"]) == (2, 20)
    assert "stopped with NORMAL" in result["ending"][0]
    json.dumps(result)


def test_what_was_read_before_the_stop_is_kept_where_nothing_is_told_after_it(dms: FakeDms) -> None:
    dms.tasks(running(RecoveryCheckpoint="checkpoint:before")).then(
        "stop_replication_task", lambda dms: dms.tasks(stopped(RecoveryCheckpoint=""))
    )
    assert stop().execute(context())["checkpoint"] == "checkpoint:before"


def test_a_task_that_does_not_run_is_no_error_and_says_so(dms: FakeDms) -> None:
    for row in (stopped(), ready(), stopped(Status="failed"), stopped(Status="modifying")):
        dms.tasks(row)
        result = stop().execute(context())
        assert (result["was_running"], result["checkpoint"]) == (False, row.get("RecoveryCheckpoint", ""))
    dms.tasks(running(Status="a new word"))
    with pytest.raises(AirflowFailException, match="a new word, which is not known here"):
        stop().execute(context())
    assert dms.changes() == []


def test_a_crash_after_the_stop_and_an_end_before_it_are_no_error(dms: FakeDms) -> None:
    dms.tasks(running())
    killed(dms, "stop_replication_task", lambda dms: dms.tasks(running(Status="stopping"), stopped()))
    with pytest.raises(Killed):
        stop().execute(context())
    assert stop().execute(context())["status"] == "stopped"
    dms.tasks(running(), stopped()).script("stop_replication_task", fault("InvalidResourceStateFault"))
    assert stop().execute(context())["status"] == "stopped"
    dms.tasks(running())
    with pytest.raises(Exception, match="InvalidResourceStateFault"):
        stop().execute(context())


def test_a_task_that_fails_within_its_stop_has_stopped(dms: FakeDms) -> None:
    dms.tasks(running()).then("stop_replication_task", lambda dms: dms.tasks(stopped("FATAL_ERROR")))
    assert "FATAL_ERROR" in stop().execute(context())["ending"][0]


# DmsDrainTaskOperator

STOP_AT = "commit_time:2026-03-01T03:00:00"


def drain(**more: Any) -> DmsDrainTaskOperator:
    return DmsDrainTaskOperator(**{**TASK, "drain_at": "2026-03-01T04:00:00+01:00", "grace": 60, **more})


def drained(dms: FakeDms, reason: str = "STOPPED_AT_COMMIT_TIME") -> None:
    """A task that runs, is stopped, resumed, and stops by itself."""
    dms.tasks(running())
    dms.then("stop_replication_task", lambda dms: dms.tasks(running(Status="stopping"), stopped()))
    end = stopped(reason, started=50, CdcStopPosition=STOP_AT)
    more = {"CdcStopPosition": STOP_AT}
    dms.then("start_replication_task", lambda dms: dms.tasks(stopped(**more), running(50, **more), *TRANSIENT, end))


def test_a_drain_stops_resumes_and_waits_for_the_stop(dms: FakeDms, deferrable: bool) -> None:
    drained(dms)
    fresh = lambda: drain(deferrable=deferrable)  # noqa: E731
    result = run(fresh(), context(), fresh=fresh)
    assert (result["drained_at"], result["checkpoint"]) == ("2026-03-01T03:00:00Z", CHECKPOINT)
    assert dms.changes() == ["stop_replication_task", "start_replication_task"]
    assert dms.arguments("start_replication_task") == {
        "ReplicationTaskArn": TASK_ARN, "StartReplicationTaskType": "resume-processing", "CdcStopPosition": STOP_AT
    }  # fmt: skip


def test_another_end_is_no_drain(dms: FakeDms, deferrable: bool) -> None:
    drained(dms, "NORMAL")
    with pytest.raises(AirflowException, match="stopped with NORMAL, expected STOPPED_AT_COMMIT_TIME"):
        run(drain(deferrable=deferrable), context())
    drained(dms, "FATAL_ERROR")
    with pytest.raises(AirflowException, match="FATAL_ERROR"):
        run(drain(deferrable=deferrable), context())


@pytest.mark.parametrize("call", ["stop_replication_task", "start_replication_task"])
def test_a_crash_within_a_drain_stops_and_resumes_nothing_twice(dms: FakeDms, call: str) -> None:
    of = context()
    drained(dms)
    (carried_out,) = dms.answers[call]
    killed(dms, call, lambda _: carried_out())
    with pytest.raises(Killed):
        drain().execute(of)
    if call == "start_replication_task":
        del dms.answers["describe_replication_tasks"][0]  # time goes by until the retry
    assert drain().execute(of)["drained_at"] == "2026-03-01T03:00:00Z"
    assert dms.changes() == ["stop_replication_task", "start_replication_task"]


def test_a_drain_is_for_changes_of_a_task_that_has_run(dms: FakeDms) -> None:
    for row, words in ((ready(), "use start-replication"), (stopped(MigrationType="full-load"), "follows no changes")):
        dms.tasks(row)
        with pytest.raises(AirflowFailException, match=words):
            drain().execute(context())
    with pytest.raises(ValueError, match="commit_time or lag"):
        drain(method="patience")


def metrics(*values: float) -> dict[str, Any]:
    """Points of the last minutes, both latencies the same."""
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    begins = [now - timedelta(seconds=60 * (len(values) - number)) for number in range(len(values))]
    rows = [
        {"Id": name, "Timestamps": begins, "Values": list(values)} for name in ("cdclatencysource", "cdclatencytarget")
    ]
    return {"MetricDataResults": rows}


def test_a_drain_by_lag_changes_nothing(dms: FakeDms, deferrable: bool) -> None:
    dms.script("get_metric_data", metrics(0, 3), metrics(3, 0), {"MetricDataResults": []}, metrics(3, 0, 0))
    assert run(drain(method="lag", min_points=2, deferrable=deferrable), context())["status"] == "running"
    assert (dms.changes(), dms.count("get_metric_data")) == ([], 4)


# DmsDeleteTaskOperator


def delete(**more: Any) -> DmsDeleteTaskOperator:
    return DmsDeleteTaskOperator(**{**TASK, **more})


def test_a_delete_returns_the_checkpoint_and_waits_until_the_task_is_gone(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(stopped()).then(
        "delete_replication_task", lambda dms: dms.tasks(stopped(Status="deleting"), *TRANSIENT, None)
    )
    result = run(delete(deferrable=deferrable), context())
    assert (result["checkpoint"], result["was_deleted"], result["statistics"]["tables"]) == (CHECKPOINT, True, 2)


def test_a_task_that_is_gone_is_no_error_and_one_that_runs_is_refused(dms: FakeDms) -> None:
    dms.tasks(None)
    assert delete().execute(context()) == {"arn": TASK_ARN, "checkpoint": "", "was_deleted": False}
    dms.tasks(running())
    with pytest.raises(AirflowFailException, match="stop it first, then delete it"):
        delete().execute(context())
    assert dms.changes() == []


def test_a_crash_after_the_delete_does_not_lose_the_checkpoint(dms: FakeDms) -> None:
    for after in ([None], [stopped(Status="deleting"), None]):
        of = context()
        dms.tasks(stopped())
        killed(dms, "delete_replication_task", lambda dms, after=after: dms.tasks(*after))  # type: ignore[misc]
        with pytest.raises(Killed):
            delete().execute(of)
        assert delete().execute(of)["checkpoint"] == CHECKPOINT
    dms.tasks(stopped()).script("delete_replication_task", fault("ResourceNotFoundFault"))
    dms.then("delete_replication_task", lambda dms: dms.tasks(None))
    assert delete().execute(context())["was_deleted"] is True


def test_a_serverless_replication_is_deleted_with_its_capacity_given_back(dms: FakeDms, deferrable: bool) -> None:
    row = {"Status": "stopped", "StopReason": "Stop Reason NORMAL"}
    holding = {**row, "ProvisionData": {"ProvisionState": "deprovisioning"}}
    serverless(dms, holding, holding, {**row, "ProvisionData": {"ProvisionState": "deprovisioned"}})
    gone = fault("ResourceNotFoundFault")
    dms.then("delete_replication_config", lambda dms: dms.script("describe_replication_configs", gone))
    assert run(delete(deferrable=deferrable, **OF_CONFIG), context())["was_deleted"] is True


# DmsMoveTaskOperator and DmsModifyTaskOperator


def move(**more: Any) -> DmsMoveTaskOperator:
    return DmsMoveTaskOperator(**{**TASK, "target_replication_instance_arn": "rep-2", **more})


def test_a_move_waits_until_the_task_is_there(dms: FakeDms, deferrable: bool) -> None:
    there = {"ReplicationInstanceArn": "rep-2"}
    dms.tasks(stopped()).then(
        "move_replication_task",
        lambda dms: dms.tasks(stopped(), stopped(Status="moving"), *TRANSIENT, stopped(**there)),
    )
    result = run(move(deferrable=deferrable), context())
    assert (result["was_moved"], result["checkpoint"]) == (True, CHECKPOINT)
    assert run(move(deferrable=deferrable), context())["was_moved"] is False
    assert dms.changes() == ["move_replication_task"]


def test_a_move_that_fails_fails_and_may_be_tried_again(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(stopped()).then("move_replication_task", lambda dms: dms.tasks(stopped(Status="failed-move")))
    with pytest.raises(AirflowException, match="the task is failed-move"):
        run(move(deferrable=deferrable), context())
    dms.then("move_replication_task", lambda dms: dms.tasks(stopped(ReplicationInstanceArn="rep-2")))
    assert run(move(deferrable=deferrable), context())["was_moved"] is True
    for row, words in ((running(), "stop it first"), (ready(), "start and stop it once")):
        dms.tasks(row)
        with pytest.raises(AirflowFailException, match=words):
            run(move(deferrable=deferrable), context())


def modify(**more: Any) -> DmsModifyTaskOperator:
    return DmsModifyTaskOperator(**{**TASK, "replication_task_settings": {"Logging": {"EnableLogging": False}}, **more})


def test_a_modification_sends_what_differs_and_looks_whether_it_is_so(dms: FakeDms, deferrable: bool) -> None:
    merged = {**SAFE, "Logging": {"EnableLogging": False}}
    done = stopped(ReplicationTaskSettings=json.dumps(merged))
    dms.tasks(stopped()).then(
        "modify_replication_task", lambda dms: dms.tasks(stopped(Status="modifying"), *TRANSIENT, done)
    )
    fresh = lambda: modify(deferrable=deferrable)  # noqa: E731
    result = run(fresh(), context(), fresh=fresh)
    assert result["changes"] == ["settings: Logging.EnableLogging becomes false, was true"]
    assert json.loads(dms.arguments("modify_replication_task")["ReplicationTaskSettings"]) == merged
    assert run(modify(deferrable=deferrable), context())["changes"] == []
    assert dms.changes() == ["modify_replication_task"]


def test_a_modification_that_is_not_there_at_the_end_fails(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(stopped()).then("modify_replication_task", lambda dms: dms.tasks(stopped(Status="modifying"), stopped()))
    with pytest.raises(AirflowException, match=r"still not as it should be: settings: Logging\.EnableLogging"):
        run(modify(deferrable=deferrable), context())
    dms.tasks(running())
    with pytest.raises(AirflowFailException, match="can be modified: stop it first"):
        run(modify(deferrable=deferrable), context())


# DmsTestConnectionOperator


def test(**more: Any) -> DmsTestConnectionOperator:
    return DmsTestConnectionOperator(**{**TASK, **more})


test.__test__ = False  # type: ignore[attr-defined]


def connections(*statuses: str) -> dict[str, Any]:
    rows = zip((SOURCE_ARN, TARGET_ARN), statuses, strict=True)
    return {
        "Connections": [
            {"EndpointArn": arn, "ReplicationInstanceArn": INSTANCE_ARN, "Status": status, "LastFailureMessage": "Access denied"}
            for arn, status in rows
        ]
    }  # fmt: skip


def test_both_endpoints_are_tested_anew(dms: FakeDms, deferrable: bool) -> None:
    """What is there from before proves nothing."""
    dms.script("test_connection", {})
    testing = connections("testing", "testing")
    half, good = connections("successful", "testing"), connections("successful", "successful")
    dms.script("describe_connections", testing, *TRANSIENT, half, good)
    assert run(test(deferrable=deferrable), context())["endpoint_arns"] == [SOURCE_ARN, TARGET_ARN]
    assert dms.changes() == ["test_connection"] * 2


def test_a_failed_test_fails_with_its_message(dms: FakeDms, deferrable: bool) -> None:
    dms.script("test_connection", {}).script("describe_connections", connections("successful", "failed"))
    given = {
        "replication_task_arn": None,
        "replication_instance_arn": INSTANCE_ARN,
        "endpoint_arns": [SOURCE_ARN, TARGET_ARN],
    }
    with pytest.raises(AirflowException, match="TARGET: Access denied"):
        run(test(deferrable=deferrable, **given), context())
    with pytest.raises(ValueError, match="either replication_task_arn, or"):
        test(endpoint_arns=[], replication_instance_arn=INSTANCE_ARN)


def test_a_test_that_runs_already_is_taken_up(dms: FakeDms) -> None:
    busy = fault("InvalidResourceStateFault", message="Connection test is already in progress")
    dms.script("test_connection", busy, {}).script("describe_connections", connections("successful", "successful"))
    test().execute(context())
    dms.script("test_connection", denied())
    with pytest.raises(Exception, match="AccessDenied"):
        test().execute(context())


# DmsAssessmentRunOperator

RUN = "arn:aws:dms:eu-central-1:123456789012:assessment-run:ONE"


def assess(**more: Any) -> DmsAssessmentRunOperator:
    given = {"assessment_run_name": "before", "service_access_role_arn": ROLE, "result_location_bucket": "results"}
    return DmsAssessmentRunOperator(**{**TASK, **given, **more})


def runs(*statuses: str, name: str = "before", arn: str = RUN) -> list[dict[str, Any]]:
    row = {
        "ReplicationTaskAssessmentRunArn": arn,
        "AssessmentRunName": name,
        "ReplicationTaskAssessmentRunCreationDate": NOW,
    }
    return [{"ReplicationTaskAssessmentRuns": [{**row, "Status": status}]} for status in statuses]


def assessed(dms: FakeDms, *answers: Any, findings: tuple[str, ...] = ()) -> None:
    """Nothing before the call; these answers after it."""
    dms.tasks(ready()).script("describe_replication_task_assessment_runs", fault("ResourceNotFoundFault"))
    found = [{"IndividualAssessmentName": one, "Status": "warning"} for one in findings]
    dms.script("describe_replication_task_individual_assessments", {"ReplicationTaskIndividualAssessments": found})
    dms.then(
        "start_replication_task_assessment_run",
        lambda dms: dms.script("describe_replication_task_assessment_runs", *answers),
        {"ReplicationTaskAssessmentRun": {"ReplicationTaskAssessmentRunArn": RUN}},
    )


def test_an_assessment_that_warns_is_told(dms: FakeDms, deferrable: bool) -> None:
    assessed(dms, *runs("starting", "running"), *TRANSIENT, *runs("warning"), findings=("unsupported-data-types",))
    result = run(assess(deferrable=deferrable, result_location_folder="dms"), context())
    assert (result["status"], result["findings"]) == ("warning", ["unsupported-data-types: warning"])
    assert dms.arguments("start_replication_task_assessment_run")["ResultLocationFolder"] == "dms"


@pytest.mark.parametrize(("status", "kind"), [("failed", AirflowFailException), ("error-executing", AirflowException)])
def test_an_assessment_that_fails_fails(dms: FakeDms, deferrable: bool, status: str, kind: type[Exception]) -> None:
    assessed(dms, *runs("running", status), findings=("binlog-row-image",))
    with pytest.raises(kind, match=f"the assessment run is {status}; binlog-row-image: warning"):
        run(assess(deferrable=deferrable), context())


def test_a_run_that_goes_on_is_taken_up_and_one_that_failed_is_not(dms: FakeDms) -> None:
    assessed(dms)
    dms.script("describe_replication_task_assessment_runs", *runs("running", "running", "running", "passed"))
    assert assess().execute(context())["status"] == "passed"
    assert dms.changes() == []
    assessed(dms, *runs("passed", name="before-2"))
    dms.script("describe_replication_task_assessment_runs", *runs("failed"))
    assert assess().execute(context())["status"] == "passed"
    assert dms.arguments("start_replication_task_assessment_run")["AssessmentRunName"] == "before-2"
    dms.tasks(running()).script("describe_replication_task_assessment_runs", {})
    with pytest.raises(AirflowFailException, match="stop it first"):
        assess().execute(context())


def test_links_lead_to_the_task(dms: FakeDms) -> None:
    of = context()
    dms.tasks(stopped())
    stop().execute(of)
    assert of["ti"].pushed["dms_task"]["fragment"] == "taskDetails/shop-orders"
