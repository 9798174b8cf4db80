"""The sensors, each poked, rescheduled and through a triggerer; unknown is never success."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from dbops.dms import waits
from dbops.dms.aws.hook import Clients, DmsTaskHook
from dbops.dms.aws.sensors import DmsCdcHealthySensor, DmsFullLoadSensor, DmsTaskEndedSensor, DmsValidationSensor
from tests.dms.aws.dms_fake import (
    AWS,
    CONFIG_ARN,
    FakeDms,
    TaskState,
    connect,
    context,
    denied,
    fault,
    fired,
    loaded,
    lost,
    ready,
    run,
    running,
    stopped,
    throttled,
)
from tests.dms.dms_kit import INSTANCE_ARN, TASK_ARN, validate

QUICK: dict[str, Any] = {"task_id": "t", "replication_task_arn": TASK_ARN, **AWS, "poke_interval": 0.001, "timeout": 60}
SENSORS = (DmsFullLoadSensor, DmsTaskEndedSensor, DmsValidationSensor, DmsCdcHealthySensor)
VALID = {"ValidationState": "Validated"}


@pytest.fixture
def dms(monkeypatch: pytest.MonkeyPatch) -> FakeDms:
    return connect(monkeypatch, FakeDms())


@pytest.fixture(params=[False, True], ids=["worker", "deferrable"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def metrics(*values: float, newest_s: float = 0, target: tuple[float, ...] | None = None) -> dict[str, Any]:
    """Points of a minute whose last one ended so many seconds ago."""

    def row(name: str, values: tuple[float, ...]) -> dict[str, Any]:
        end = datetime.now(UTC) - timedelta(seconds=newest_s)
        begins = [end - timedelta(seconds=60 * (len(values) - number)) for number in range(len(values))]
        return {"Id": name, "Timestamps": begins, "Values": list(values)}

    rows = [row("cdclatencysource", values), row("cdclatencytarget", values if target is None else target)]
    return {"MetricDataResults": rows}


def test_a_full_load_is_over_when_every_table_is_completed(dms: FakeDms, deferrable: bool) -> None:
    begun, half = [loaded("a", "Before load")], [loaded("a"), loaded("b", "Full load")]
    dms.tasks(ready(), throttled(), ready(Status="starting"), running())
    dms.tables([], begun, fault("ServiceUnavailable", 503), half, lost(), [loaded("a"), loaded("b")])
    result = run(DmsFullLoadSensor(**QUICK, deferrable=deferrable), context())
    assert (result["statistics"]["rows"], result["reasons"]) == (20, ["2 tables are completed"])


@pytest.mark.parametrize(
    ("row", "tables", "words"),
    [
        (running(), [loaded("a"), loaded("b", "Table error")], r"table shop\.b is in state Table error"),
        (running(), [loaded("a", FullLoadErrorRows=2)], r"2 rows failed to load, 0 are put up with: shop\.a"),
        (stopped("FATAL_ERROR"), [loaded("a")], "stopped with Stop Reason FATAL_ERROR"),
        (stopped(Status="failed", LastFailureMessage="no binlog"), [loaded("a")], "no binlog"),
        (running(MigrationType="cdc"), [loaded("a")], "a task of type cdc loads no table"),
        (None, [], "AWS does not know"),
        (denied(), [], "AWS refused the call: AccessDenied"),
    ],
)
def test_a_load_that_cannot_become_good_fails_at_once(
    dms: FakeDms, deferrable: bool, row: Any, tables: Any, words: str
) -> None:
    dms.tasks(row).tables(tables)
    with pytest.raises(AirflowFailException, match=words):
        run(DmsFullLoadSensor(**QUICK, deferrable=deferrable), context())


def test_a_task_that_nobody_starts_fails_after_its_grace(dms: FakeDms, deferrable: bool) -> None:
    dms.tasks(ready())
    with pytest.raises(AirflowFailException, match=r"was not started within 0\.05 s"):
        run(DmsFullLoadSensor(**QUICK, deferrable=deferrable, grace=0.05), context())


def test_an_end_is_judged_by_its_reason(dms: FakeDms, deferrable: bool) -> None:
    end = stopped("FULL_LOAD_ONLY_FINISHED", MigrationType="full-load")
    dms.tasks(ready(), running(), throttled(), end)
    assert run(DmsTaskEndedSensor(**QUICK, deferrable=deferrable), context())["status"] == "stopped"
    dms.tasks(running(), stopped("RECOVERABLE_ERROR"))
    with pytest.raises(AirflowFailException, match="RECOVERABLE_ERROR"):
        run(DmsTaskEndedSensor(**QUICK, deferrable=deferrable), context())
    dms.tasks(stopped("STOPPED_AT_SERVER_TIME"))
    drained = DmsTaskEndedSensor(**QUICK, deferrable=deferrable, stop_reasons=["STOPPED_AT_COMMIT_TIME"])
    with pytest.raises(AirflowFailException, match="expected STOPPED_AT_COMMIT_TIME"):
        run(drained, context())


def test_rows_are_validated_by_dms(dms: FakeDms, deferrable: bool) -> None:
    pending = [loaded("a", ValidationState="Pending records"), loaded("b", **VALID)]
    dms.tables(pending, throttled(), [loaded("a", **VALID), loaded("b", **VALID)])
    result = run(DmsValidationSensor(**QUICK, deferrable=deferrable), context())
    assert result["reasons"] == ["2 tables are validated"]
    dms.tables(pending, [loaded("a", ValidationState="Mismatched records", ValidationFailedRecords=4)])
    with pytest.raises(AirflowFailException, match=r"shop\.a: 4 rows differ"):
        run(DmsValidationSensor(**QUICK, deferrable=deferrable), context())


def test_changes_flow_when_both_latencies_are_small_long_enough(dms: FakeDms, deferrable: bool) -> None:
    dms.script(
        "get_metric_data",
        {"MetricDataResults": []},
        metrics(1, 1),
        metrics(1, 70, 1),
        metrics(1, 1, 1, target=()),
        throttled(),
        metrics(1, 1, 1, newest_s=400),
        metrics(70, 1, 2, 3, target=(4, 5, 6)),
    )
    result = run(DmsCdcHealthySensor(**QUICK, deferrable=deferrable), context())
    assert result["latency"] == {"CDCLatencySource": [70, 1, 2, 3], "CDCLatencyTarget": [4, 5, 6]}
    asked = dms.arguments("get_metric_data")
    validate_cloudwatch(asked)
    dimensions = asked["MetricDataQueries"][0]["MetricStat"]["Metric"]["Dimensions"]
    assert {one["Name"]: one["Value"] for one in dimensions} == {
        "ReplicationInstanceIdentifier": "rep-1", "ReplicationTaskIdentifier": "SHOP"
    }  # fmt: skip
    assert dms.count("describe_replication_instances") == 1  # asked once, then remembered


def validate_cloudwatch(arguments: dict[str, Any]) -> None:
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("cloudwatch").operation_model("GetMetricData")
    report = ParamValidator().validate(arguments, model.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_a_task_without_its_tables_is_not_healthy(dms: FakeDms, deferrable: bool) -> None:
    dms.script("get_metric_data", metrics(1, 1, 1)).tables([loaded("a"), loaded("b", "Table error")])
    with pytest.raises(AirflowFailException, match=r"shop\.b is in state Table error"):
        run(DmsCdcHealthySensor(**QUICK, deferrable=deferrable), context())
    dms.tasks(running(), stopped()).tables([loaded("a")]).script("get_metric_data", metrics(70, 70, 70))
    with pytest.raises(AirflowFailException, match="the task is stopped"):
        run(DmsCdcHealthySensor(**QUICK, deferrable=deferrable), context())


def test_metrics_are_paged_and_may_have_dimensions_of_their_own(dms: FakeDms) -> None:
    full = metrics(1, 1, 1)
    pages = [
        {"MetricDataResults": full["MetricDataResults"][:1], "NextToken": "more"},
        {"MetricDataResults": full["MetricDataResults"][1:]},
    ]
    dms.script("get_metric_data", *pages)
    sensor = DmsCdcHealthySensor(**QUICK, metric_dimensions={"ReplicationTaskIdentifier": "mine"})
    assert sensor.poke(context()).is_done
    assert dms.arguments("get_metric_data")["NextToken"] == "more"
    assert dms.count("describe_replication_instances") == 0


@pytest.mark.parametrize("kind", SENSORS)
def test_what_is_not_so_in_time(dms: FakeDms, deferrable: bool, kind: Callable[..., Any]) -> None:
    dms.tasks(running(Status="a new word of AWS"))
    given = {**QUICK, "timeout": 0.05, "poke_interval": 0.01, "deferrable": deferrable}
    with pytest.raises(
        AirflowSensorTimeout, match="a new word of AWS" if deferrable else "timeout|timed out|TIMED|time"
    ):
        run(kind(**given), context())


@pytest.mark.parametrize("kind", SENSORS)
def test_what_is_refused_fails_and_nothing_is_changed(dms: FakeDms, deferrable: bool, kind: Callable[..., Any]) -> None:
    dms.tasks(throttled(), denied())
    with pytest.raises(AirflowFailException, match="AccessDenied"):
        run(kind(**QUICK, deferrable=deferrable), context())
    assert dms.changes() == []


@pytest.mark.parametrize("kind", SENSORS)
def test_either_a_task_or_a_configuration(kind: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="either replication_task_arn or"):
        kind(**{**QUICK, "replication_config_arn": CONFIG_ARN})


def test_a_first_look_that_is_good_defers_nothing(dms: FakeDms) -> None:
    assert DmsFullLoadSensor(**QUICK, deferrable=True).execute(context())["status"] == "running"


def test_a_deferred_sensor_goes_on_with_what_it_has_seen(dms: FakeDms) -> None:
    dms.tasks(None, None, None)
    sensor = DmsFullLoadSensor(**{**QUICK, "poke_interval": 10, "timeout": 100}, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context())
    _, arguments = deferred.value.trigger.serialize()
    assert (arguments["wait"]["missing"], arguments["waiter_max_attempts"], arguments["waiter_delay"]) == (1, 10, 10)
    assert deferred.value.timeout is not None
    assert deferred.value.timeout.total_seconds() == 400


def test_soft_fail_skips(dms: FakeDms) -> None:
    dms.tasks(running(Status="a new word"))
    sensor = DmsFullLoadSensor(**{**QUICK, "timeout": 0.003}, deferrable=True, soft_fail=True)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context())
    payload = fired(deferred.value.trigger)
    with pytest.raises(AirflowSkipException):
        sensor.resume_execution("execute_complete", {"event": payload}, context())


def test_rescheduled_pokes_remember_in_the_task_state_store(dms: FakeDms) -> None:
    dms.tasks(None)
    store = TaskState()

    def poke() -> Any:  # each in a process of its own
        return DmsFullLoadSensor(**QUICK, mode="reschedule").poke(context(task_state_store=store))

    assert [poke().is_done, poke().is_done] == [False, False]
    with pytest.raises(AirflowFailException, match="3 times in a row"):
        poke()
    assert list(store.values.values()) == ["{}"]  # the next try begins anew
    with pytest.raises(AirflowFailException, match="mode='poke'"):
        DmsFullLoadSensor(**QUICK, mode="reschedule").poke({})


def test_a_serverless_replication_is_sensed_as_well(dms: FakeDms, deferrable: bool) -> None:
    config = {"ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop", "ReplicationType": "full-load"}
    dms.script("describe_replication_configs", {"ReplicationConfigs": [config]})
    row = {"ReplicationConfigArn": CONFIG_ARN, "Status": "fetching metadata"}
    end = {
        **row,
        "Status": "stopped",
        "StopReason": "Stop Reason FULL_LOAD_ONLY_FINISHED",
        "ReplicationStats": {"TablesErrored": 0},
    }
    dms.script("describe_replications", {"Replications": []}, {"Replications": [row]}, {"Replications": [end]})
    none = fault("InvalidResourceStateFault")
    dms.script("describe_replication_table_statistics", none, none, {"ReplicationTableStatistics": [loaded("a")]})
    given = {**QUICK, "replication_task_arn": None, "replication_config_arn": CONFIG_ARN}
    of = context()
    assert run(DmsFullLoadSensor(**given, deferrable=deferrable), of)["reasons"] == ["1 tables are completed"]
    assert of["ti"].pushed["dms_task"]["fragment"] == "serverlessReplications"
    json.dumps(of["ti"].pushed)


def test_the_hook_asks_two_services() -> None:
    clients = Clients(
        FakeDms().script("test_connection", {"of": "dms"}), FakeDms().script("get_metric_data", {"of": "cloudwatch"})
    )
    arguments = {"ReplicationInstanceArn": INSTANCE_ARN, "EndpointArn": TASK_ARN}
    validate("test_connection", arguments)
    assert clients.test_connection(**arguments) == {"of": "dms"}
    assert clients.get_metric_data() == {"of": "cloudwatch"}


@pytest.mark.parametrize(("row", "looks"), [(running(), 1), (stopped("FATAL_ERROR"), 1), (ready(), 4)])
def test_the_hook_sleeps_between_looks_only(dms: FakeDms, row: dict[str, Any], looks: int) -> None:
    slept: list[float] = []
    wait = waits.Loaded(arn=TASK_ARN, since=waits.iso(datetime.now(UTC)))
    dms.tasks(row)
    DmsTaskHook(**AWS).wait(wait, delay=7, max_attempts=4, sleep=slept.append)
    assert (dms.count("describe_replication_tasks"), slept) == (looks, [7] * (looks - 1))


def test_the_hook_makes_both_clients_from_one_connection(aws: str) -> None:
    hook = DmsTaskHook(config={"read_timeout": 7})
    assert hook.clients.cloudwatch.meta.service_model.service_name == "cloudwatch"
    assert hook.clients.cloudwatch.meta.endpoint_url == hook.clients.dms.meta.endpoint_url == aws
    assert hook.once.meta.config.retries["total_max_attempts"] == 1
    assert hook.look(TASK_ARN).task.status == "missing"
    assert hook.find("nothing") is None
