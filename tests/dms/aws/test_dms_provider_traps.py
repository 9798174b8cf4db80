"""Four faults of the Amazon provider's DMS classes, each beside ours.

The first half of each test runs the provider's own class and documents what is wrong with it. When the provider mends one, that half fails
with a message that says so: then drop it, and think about whether ours is still needed. Seen in apache-airflow-providers-amazon 9.39.0.
"""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.dms import DmsHook
from airflow.providers.amazon.aws.operators import dms as provider
from airflow.providers.amazon.aws.sensors.dms import DmsTaskCompletedSensor
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from botocore.exceptions import ClientError

from dbops import connections
from dbops.dms.aws.operators import DmsEnsureTaskOperator, DmsReloadTablesOperator, DmsStartTaskOperator
from dbops.dms.aws.sensors import DmsTaskEndedSensor
from tests.dms.aws.dms_fake import (
    AWS,
    CONFIG_ARN,
    QUICK,
    TASK,
    FakeDms,
    connect,
    context,
    loaded,
    run,
    running,
    stopped,
)
from tests.dms.dms_kit import SELECT_ALL, TASK_ARN, of_shape

MENDED = "the provider has mended this: drop its half of the test"
TABLE = {"SchemaName": "shop", "TableName": "orders"}
FATAL = stopped(
    "FATAL_ERROR",
    LastFailureMessage="Task 'SHOP' was suspended after 9 successive unexpected failures",
    stats={"TablesLoaded": 0, "TablesErrored": 3},
)


@pytest.fixture
def dms(monkeypatch: pytest.MonkeyPatch) -> FakeDms:
    return connect(monkeypatch, FakeDms())


def test_the_providers_sensor_takes_a_fatal_error_for_completed(dms: FakeDms) -> None:
    dms.tasks(FATAL).tables([loaded(state="Table error")])
    theirs = DmsTaskCompletedSensor(task_id="theirs", replication_task_arn=TASK_ARN, **AWS)
    assert theirs.poke({}) is True, MENDED

    ours = DmsTaskEndedSensor(task_id="ours", replication_task_arn=TASK_ARN, **AWS)
    why = "FATAL_ERROR.*successive unexpected failures.*shop.orders is in state Table error"
    with pytest.raises(AirflowFailException, match=why):
        ours.poke(context())


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_the_providers_reload_takes_the_load_before_for_the_one_it_asked_for(dms: FakeDms, deferrable: bool) -> None:
    """ReloadTables is asynchronous: just after it the statistics are those from before."""
    stale, anew = loaded(started=1), loaded(started=50)
    dms.script("reload_tables", {"ReplicationTaskArn": TASK_ARN}).tables([stale])
    arguments: dict[str, Any] = {"tables_to_reload": [TABLE], "deferrable": deferrable}
    theirs = provider.DmsReloadTablesOperator(
        task_id="theirs", replication_task_arn=TASK_ARN, waiter_delay=0, **AWS, **arguments
    )
    assert run(theirs, {}) == TASK_ARN, MENDED
    assert dms.count("describe_table_statistics") == 1, MENDED  # it looked once, at what was there before the reload

    with pytest.raises(AirflowException, match=r"not over after 12 looks.*not loaded anew: shop\.orders"):
        run(DmsReloadTablesOperator(**TASK, **arguments), context())
    dms.tables([stale], [stale], [loaded(state="Table is being reloaded", started=50)], [anew])
    assert run(DmsReloadTablesOperator(**TASK, **arguments), context())["tables"] == ["shop.orders"]


def test_the_providers_create_fails_at_its_retry(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies after the call, or a waiter that gives up, makes every retry fail."""
    monkeypatch.setattr(DmsHook, "wait_for_task_status", lambda *_: None)  # a task of moto stays in creation
    client = connections.aws_client("dms")
    made = client.create_replication_instance(
        ReplicationInstanceIdentifier="rep-1", ReplicationInstanceClass="dms.t3.medium"
    )
    arguments: dict[str, Any] = {"replication_instance_arn": made["ReplicationInstance"]["ReplicationInstanceArn"]}
    for side in ("source", "target"):
        made = client.create_endpoint(EndpointIdentifier=side, EndpointType=side, EngineName="mysql")
        arguments[f"{side}_endpoint_arn"] = made["Endpoint"]["EndpointArn"]
    arguments |= {"replication_task_id": "shop-orders", "table_mappings": {"rules": [SELECT_ALL]}}
    once: dict[str, Any] = {**arguments, "wait_for_completion": False}
    theirs = provider.DmsCreateTaskOperator(task_id="theirs", **arguments)
    arn = theirs.execute({})
    with pytest.raises(ClientError, match="ResourceAlreadyExistsFault"):
        pytest.fail(f"{theirs.execute({})}: {MENDED}")

    ours = DmsEnsureTaskOperator(task_id="ours", **once)
    assert [ours.execute(context()), ours.execute(context())] == [arn, arn]
    new = DmsEnsureTaskOperator(task_id="new", **{**once, "replication_task_id": "shop-others"})
    assert new.execute(context()) == new.execute(context()) != arn
    assert len(client.describe_replication_tasks()["ReplicationTasks"]) == 2


def test_the_providers_start_of_a_replication_that_cannot_start_succeeds(dms: FakeDms) -> None:
    config = {"ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop", "ReplicationType": "cdc"}
    replication = {"ReplicationConfigArn": CONFIG_ARN, "Status": "modifying", "ReplicationType": "cdc"}
    dms.script("describe_replication_configs", {"ReplicationConfigs": [config]})
    dms.script("describe_replications", {"Replications": [replication]})
    theirs = provider.DmsStartReplicationOperator(
        task_id="theirs", replication_config_arn=CONFIG_ARN, replication_start_type="start-replication", **AWS
    )
    theirs.execute({})  # a green task
    assert dms.changes() == [], MENDED  # and nothing was started

    ours = DmsStartTaskOperator(
        task_id="ours", replication_config_arn=CONFIG_ARN, start_replication_task_type="start-replication", **QUICK
    )
    with pytest.raises(AirflowException, match=r"not over after 12 looks.*the task is modifying"):
        ours.execute(context())
    dms.script("describe_replications", {"Replications": [{**replication, "Status": "deleting"}]})
    with pytest.raises(AirflowFailException, match="deleting; only one that is ready, stopped, failed can be started"):
        ours.execute(context())
    assert dms.changes() == []


def test_the_rows_of_these_tests_are_what_aws_answers() -> None:
    for row in (FATAL, running(), stopped()):
        assert of_shape("ReplicationTask", row) == []
    assert of_shape("TableStatistics", loaded()) == []
