"""The operators and sensors of DMS on tasks that copy: MySQL 5.7 to 8.0, from the first call to the last, in the worker and deferred."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import DAG
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
from dbops.dms.aws.sensors import DmsCdcHealthySensor, DmsFullLoadSensor, DmsTaskEndedSensor, DmsValidationSensor
from tests.dms.aws.dms_fake import TaskInstance, TaskState, again
from tests.lab import dms_kit
from tests.lab.dms_kit import Dms, mappings

pytestmark = pytest.mark.lab

SETTINGS: dict[str, Any] = {
    "FullLoadSettings": {"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD"},
    "ValidationSettings": {"EnableValidation": True},
}
QUICK: dict[str, Any] = {"waiter_delay": 0.2, "waiter_max_attempts": 300}
POKED: dict[str, Any] = {"poke_interval": 0.2, "timeout": 60}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dms]:
    with dms_kit.account(tmp_path_factory.mktemp("dms")) as made:
        yield made


@pytest.fixture
def aws(lab: Dms, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Airflow connection of this account, and no other."""
    extra = {"region_name": "eu-central-1", "endpoint_url": lab.endpoint}
    connection = {"conn_type": "aws", "login": "lab", "password": "lab", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    return lab.endpoint


@pytest.fixture
def schema(lab: Dms) -> str:
    """A new schema of the source: two tables with rows."""
    tables = (
        "orders (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20))",
        "customers (id INT PRIMARY KEY, v VARCHAR(20))",
    )
    name = lab.schema(*(f"CREATE TABLE {{s}}.{table}" for table in tables))
    rows = ", ".join(f"({number}, 'row {number}')" for number in range(1, 501))
    lab.write(f"INSERT INTO {name}.orders VALUES {rows}", f"INSERT INTO {name}.customers VALUES (1, 'one')")
    return name


Run = Callable[..., Any]


@pytest.fixture(params=[False, True], ids=["worker", "deferrable"])
def run(request: pytest.FixtureRequest, aws: str) -> Run:
    """Run a task to its end; deferred ones with aiobotocore in a triggerer's loop, each hop on an object of its own."""

    def to_the_end(kind: type[Any], **arguments: Any) -> Any:
        given = {"task_id": "t", "deferrable": request.param, **arguments}
        of: Any = {"ti": TaskInstance(), "task_state_store": TaskState()}
        step: Callable[[], Any] = lambda: kind(**given).execute(of)  # noqa: E731
        for _ in range(20):
            try:
                found = step()
            except TaskDeferred as deferred:
                step = _resumed(kind(**given), of, deferred)
            else:
                json.dumps(found)  # it goes to XCom
                return found
        raise AssertionError("still deferred after 20 times")

    return to_the_end


def _resumed(task: Any, of: Any, deferred: TaskDeferred) -> Callable[[], Any]:
    async def fired() -> Any:
        return (await anext(again(deferred.trigger).run())).payload

    payload = json.loads(json.dumps(asyncio.run(fired())))
    return lambda: getattr(task, deferred.method_name)(of, event=payload)


@contextmanager
def heartbeat(lab: Dms, schema: str) -> Iterator[None]:
    """Commits on the source until the block ends: a stop at a commit time is seen by a later commit."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.2):
            lab.write(f"UPDATE {schema}.customers SET v = UUID_SHORT() % 1000000 WHERE id = 1")

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()


def table(schema: str, name: str = "orders") -> list[dict[str, str]]:
    return [{"SchemaName": schema, "TableName": name}]


def test_a_task_from_its_first_call_to_its_last(lab: Dms, schema: str, run: Run) -> None:
    declared: dict[str, Any] = {
        "replication_task_id": f"flow-{schema.replace('_', '-')}",
        "source_endpoint_arn": lab.made["mysql57"],
        "target_endpoint_arn": lab.made["mysql80"],
        "replication_instance_arn": lab.instance,
        "migration_type": "full-load-and-cdc",
        "table_mappings": mappings(schema),
        "replication_task_settings": SETTINGS,
        **QUICK,
    }
    arn = run(DmsEnsureTaskOperator, **declared)
    assert run(DmsEnsureTaskOperator, **declared) == arn  # a retry takes it up
    other = {"ValidationSettings": {"EnableValidation": False}}
    with pytest.raises(AirflowFailException, match=r"ValidationSettings\.EnableValidation becomes false"):
        run(DmsEnsureTaskOperator, **{**declared, "replication_task_settings": other})
    of: dict[str, Any] = {"replication_task_arn": arn, **QUICK}
    sensed: dict[str, Any] = {"replication_task_arn": arn, **POKED}

    tested = run(DmsTestConnectionOperator, **of)
    assert tested["endpoint_arns"] == [lab.made["mysql57"], lab.made["mysql80"]]
    with pytest.raises(AirflowFailException, match="use start-replication"):
        run(DmsStartTaskOperator, **of, start_replication_task_type="resume-processing")
    started = run(DmsStartTaskOperator, **of, start_replication_task_type="start-replication")
    assert (started["was_started"], started["status"]) == (True, "running")
    full = run(DmsFullLoadSensor, **sensed, min_tables=2)
    assert (full["statistics"]["tables"], full["statistics"]["rows"]) == (2, 501)
    assert lab.differences(schema, "orders") == []
    run(DmsValidationSensor, **sensed)
    # One point of now: the lab puts one every two seconds, AWS one a minute.
    run(DmsCdcHealthySensor, **sensed, min_points=1, max_age=10, max_latency_source=30, max_latency_target=30)

    before = lab.tables(arn)["orders"]["FullLoadStartTime"]
    assert run(DmsReloadTablesOperator, **of, tables_to_reload=table(schema))["tables"] == [f"{schema}.orders"]
    after = lab.tables(arn)["orders"]
    assert (after["TableState"], after["FullLoadReloaded"], after["FullLoadStartTime"] >= before) == (
        "Table completed", True, True
    )  # fmt: skip

    lab.write(f"INSERT INTO {schema}.orders (v) VALUES ('while it ran')")
    lab.until(lambda: lab.differences(schema, "orders") == [])
    stopped = run(DmsStopTaskOperator, **of)
    assert (stopped["was_running"], stopped["status"]) == (True, "stopped")
    assert stopped["checkpoint"].startswith("checkpoint:V1#")
    assert {row["table"] for row in stopped["statistics"]["by_table"]} == {f"{schema}.orders", f"{schema}.customers"}
    assert run(DmsStopTaskOperator, **of)["was_running"] is False
    with pytest.raises(AirflowFailException, match="use resume-processing, or reload-target"):
        run(DmsStartTaskOperator, **of, start_replication_task_type="start-replication")

    lab.write(f"INSERT INTO {schema}.orders (v) VALUES ('while it stood')")
    run(DmsStartTaskOperator, **of, start_replication_task_type="resume-processing")
    lab.until(lambda: lab.differences(schema, "orders") == [])
    assert run(DmsStartTaskOperator, **of, start_replication_task_type="resume-processing")["was_started"] is False

    with heartbeat(lab, schema):
        drained = run(DmsDrainTaskOperator, **of)
    assert drained["stop_reason"] == "Stop Reason STOPPED_AT_COMMIT_TIME"
    assert run(DmsTaskEndedSensor, **sensed, stop_reasons=["STOPPED_AT_COMMIT_TIME"])["status"] == "stopped"
    deleted = run(DmsDeleteTaskOperator, **of)
    assert (deleted["was_deleted"], deleted["checkpoint"]) == (True, drained["checkpoint"])
    assert run(DmsDeleteTaskOperator, **of)["was_deleted"] is False


def test_a_stale_completed_is_not_taken_for_the_reload(lab: Dms, schema: str, run: Run) -> None:
    """Statistics that are seconds old show the load before, as AWS's may."""
    arn = lab.task(schema, FullLoadSettings=SETTINGS["FullLoadSettings"])
    lab.run(arn)
    lab.replicating(arn)
    lab.sink.sql(f"DELETE FROM {schema}.orders WHERE id <= 100")
    with lab.faults(stats_delay_s=2):
        run(DmsReloadTablesOperator, replication_task_arn=arn, tables_to_reload=table(schema), **QUICK)
    assert lab.differences(schema, "orders") == []
    lab.stop(arn)


def test_a_table_that_the_target_refuses_fails_the_load_and_the_reload(lab: Dms, schema: str, run: Run) -> None:
    arn = lab.task(schema, FullLoadSettings=SETTINGS["FullLoadSettings"])
    of: dict[str, Any] = {"replication_task_arn": arn, **QUICK}
    with lab.faults(table_error=[f"{schema}.orders"]):
        run(DmsStartTaskOperator, **of, start_replication_task_type="start-replication")
        with pytest.raises(AirflowFailException, match=f"table {schema}.orders is in state Table error"):
            run(DmsFullLoadSensor, replication_task_arn=arn, **POKED)
        with pytest.raises(AirflowException, match=f"table {schema}.orders is in state Table error"):
            run(DmsReloadTablesOperator, **of, tables_to_reload=table(schema))
    assert run(DmsReloadTablesOperator, **of, tables_to_reload=table(schema))["tables"] == [f"{schema}.orders"]
    assert lab.differences(schema, "orders") == []
    run(DmsStopTaskOperator, **of)


def test_a_fatal_error_that_shows_stopped_is_no_end(lab: Dms, schema: str, run: Run) -> None:
    arn = lab.task(schema, FullLoadSettings=SETTINGS["FullLoadSettings"])
    lab.run(arn)
    lab.replicating(arn)
    with lab.faults(fatal_is_stopped=True, bad_event=True):
        lab.write(f"INSERT INTO {schema}.orders (v) VALUES ('unreadable')")
        assert lab.ended(arn)["Status"] == "stopped"
        with pytest.raises(AirflowFailException, match="FATAL_ERROR"):
            run(DmsTaskEndedSensor, replication_task_arn=arn, **POKED)


def test_a_task_is_modified_moved_and_assessed(lab: Dms, schema: str, run: Run) -> None:
    lab.client("s3").create_bucket(
        Bucket=f"r-{schema.replace('_', '-')}", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    arn = lab.task(schema)
    of: dict[str, Any] = {"replication_task_arn": arn, **QUICK}
    given = {"service_access_role_arn": dms_kit.ROLE, "result_location_bucket": f"r-{schema.replace('_', '-')}"}
    with lab.faults(slow_s=0.5):
        assessed = run(DmsAssessmentRunOperator, **of, **given, assessment_run_name="first")
        assert assessed["status"] in ("passed", "warning")
        assert (
            run(DmsAssessmentRunOperator, **of, **given, assessment_run_name="first")["run_arn"] == assessed["run_arn"]
        )
        changed = run(DmsModifyTaskOperator, **of, replication_task_settings={"Logging": {"EnableLogging": True}})
        assert changed["changes"] == ["settings: Logging.EnableLogging becomes true, was false"]
        run(DmsStartTaskOperator, **of, start_replication_task_type="start-replication")
        with pytest.raises(AirflowFailException, match="stop it first"):
            run(DmsModifyTaskOperator, **of, replication_task_settings={"Logging": {"EnableLogging": False}})
        lab.replicating(arn)
        run(DmsStopTaskOperator, **of)
        other = lab.make_instance(f"to-{schema.replace('_', '-')}", "3.5.5")
        moved = run(DmsMoveTaskOperator, **of, target_replication_instance_arn=other)
        assert (moved["was_moved"], lab.described(arn)["ReplicationInstanceArn"]) == (True, other)
        assert run(DmsMoveTaskOperator, **of, target_replication_instance_arn=other)["was_moved"] is False
        run(DmsTestConnectionOperator, **of)
        run(DmsStartTaskOperator, **of, start_replication_task_type="resume-processing")
        run(DmsStopTaskOperator, **of)


def test_a_connection_that_fails_is_told(lab: Dms, aws: str, run: Run) -> None:
    bad = lab.make_endpoint("target", EngineName="mysql", ServerName="127.0.0.1", Port=1, Username="dms", Password="x")
    with pytest.raises(AirflowException, match="Test Endpoint failed"):
        run(
            DmsTestConnectionOperator,
            replication_instance_arn=lab.instance,
            endpoint_arns=[lab.made["mysql57"], bad],
            **QUICK,
        )


def test_a_serverless_replication_from_its_first_call_to_its_last(lab: Dms, schema: str, run: Run) -> None:
    with lab.faults(slow_s=0.7):
        arn = run(
            DmsEnsureTaskOperator,
            replication_task_id=f"less-{schema.replace('_', '-')}",
            source_endpoint_arn=lab.made["mysql57"],
            target_endpoint_arn=lab.made["mysql80"],
            compute_config={"MaxCapacityUnits": 4},
            migration_type="full-load-and-cdc",
            table_mappings=mappings(schema),
            replication_task_settings={"FullLoadSettings": SETTINGS["FullLoadSettings"]},
            **QUICK,
        )
        of: dict[str, Any] = {"replication_config_arn": arn, **QUICK}
        run(DmsStartTaskOperator, **of, start_replication_task_type="start-replication")
        assert run(DmsFullLoadSensor, replication_config_arn=arn, **POKED)["statistics"]["tables"] == 2
        run(DmsReloadTablesOperator, **of, tables_to_reload=table(schema))
        assert run(DmsStopTaskOperator, **of)["checkpoint"].startswith("checkpoint:V1#")
        # Its capacity is given back a while after it has stopped; a start and a deletion wait for that.
        lab.write(f"INSERT INTO {schema}.orders (v) VALUES ('while it stood')")
        run(DmsStartTaskOperator, **of, start_replication_task_type="resume-processing")
        lab.until(lambda: lab.differences(schema, "orders") == [])
        run(DmsStopTaskOperator, **of)
        assert run(DmsDeleteTaskOperator, **of)["was_deleted"] is True


def test_a_dag_that_airflow_runs_deferred(lab: Dms, aws: str, schema: str, run_dag: Callable[..., Any]) -> None:
    """Templates, the task state store, links, and kwargs and events that go through Airflow's own serialisation."""
    common: dict[str, Any] = {"deferrable": True, **QUICK}
    arn = "{{ ti.xcom_pull('ensure') }}"
    with DAG(f"dms_{schema}", schedule=None, start_date=datetime(2026, 3, 1, tzinfo=UTC)) as dag:
        ensure = DmsEnsureTaskOperator(
            task_id="ensure",
            replication_task_id=f"dag-{schema.replace('_', '-')}",
            source_endpoint_arn=lab.made["mysql57"],
            target_endpoint_arn=lab.made["mysql80"],
            replication_instance_arn=lab.instance,
            migration_type="full-load-and-cdc",
            table_mappings=mappings(schema),
            replication_task_settings=SETTINGS,
            **common,
        )
        connect = DmsTestConnectionOperator(task_id="connect", replication_task_arn=arn, **common)
        start = DmsStartTaskOperator(
            task_id="start", replication_task_arn=arn, start_replication_task_type="start-replication", **common
        )
        load = DmsFullLoadSensor(task_id="load", replication_task_arn=arn, min_tables=2, deferrable=True, **POKED)
        reload = DmsReloadTablesOperator(
            task_id="reload", replication_task_arn=arn, tables_to_reload=table(schema), **common
        )
        stop = DmsStopTaskOperator(task_id="stop", replication_task_arn=arn, **common)
        delete = DmsDeleteTaskOperator(task_id="delete", replication_task_arn=arn, **common)
        ensure >> connect >> start >> load >> reload >> stop >> delete
    with lab.faults(slow_s=1, row_delay_s=1):
        ran = run_dag(dag)
    assert {ti.task_id: ti.state for ti in ran.get_task_instances()} == dict.fromkeys(dag.task_ids, "success")
    assert lab.differences(schema, "orders") == []


def test_throttled_calls_end_nothing(lab: Dms, schema: str, run: Run) -> None:
    arn = lab.task(schema, FullLoadSettings=SETTINGS["FullLoadSettings"])
    lab.run(arn)
    with lab.faults(api_throttle=40, row_delay_s=2):
        assert run(DmsFullLoadSensor, replication_task_arn=arn, **POKED)["statistics"]["tables"] == 2
    lab.stop(arn)
