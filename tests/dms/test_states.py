"""AWS's answers as values: every documented word, and that what is not documented is never taken for good."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from dbops.dms import states
from dbops.dms.mappings import Table
from dbops.dms.states import StopReason, TaskType
from tests.dms.dms_kit import INSTANCE_ARN, SOURCE_ARN, TARGET_ARN, TASK_ARN, NotFound, Paged, ask, table_row, task_row

T0 = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("running", "running"), ("failed-move", "failed-move"), ("Stopped", "stopped"), ("created", "ready"),
        ("calculating_capacity", "starting"), ("provisioning capacity", "starting"), ("replication starting", "starting"),
        ("", "unknown"), (None, "unknown"), ("recovering", "unknown"), ("missing", "unknown"), ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_status(word: str | None, expected: str) -> None:
    assert states.status(word) == expected


def test_every_stop_reason_of_the_api_is_known_and_no_other() -> None:
    for reason in get_args(StopReason):
        if reason not in ("", "unknown"):
            assert states.stop_reason(f"Stop Reason {reason}") == reason
            assert states.stop_reason(reason) == reason
            assert states.stop_reason(f"Stop Reason {reason} Error Level FATAL") == reason
    assert [states.stop_reason(text) for text in (None, "", "Stop Reason NEW_WORD", "oops")] == [
        "",
        "",
        "unknown",
        "unknown",
    ]


def test_table_states() -> None:
    assert states.table_state("Table Completed") == "Table completed"
    assert states.table_state("Table is being reloaded") == "Table is being reloaded"
    assert states.table_state("Table suspended") == "unknown"


def test_a_task_has_run_when_anything_says_so() -> None:
    fresh = states.task(task_row(Status="ready", ReplicationTaskStats={"TablesErrored": 0}))
    assert (fresh.status, fresh.has_run, fresh.tables_errored) == ("ready", False, 0)
    for row in (
        task_row(Status="ready", StopReason="Stop Reason NORMAL"), task_row(Status="stopped"), task_row(Status="failed"),
        task_row(Status="ready", ReplicationTaskStats={"FreshStartDate": T0}),
        task_row(Status="ready", RecoveryCheckpoint="checkpoint:V1#1"),
    ):  # fmt: skip
        assert states.task(row).has_run


def test_a_serverless_replication_in_the_words_of_a_task() -> None:
    config = {
        "ReplicationConfigIdentifier": "shop", "ReplicationConfigArn": "arn:c", "ReplicationType": "cdc",
        "TableMappings": "{}", "ReplicationSettings": "{}", "ComputeConfig": {"MaxCapacityUnits": 8},
    }  # fmt: skip
    row = {"ReplicationConfigArn": "arn:c", "Status": "preparing_metadata", "FailureMessages": ["a", "b"]}
    assert states.serverless(config).status == "ready"
    found = states.serverless(config, row)
    assert (found.status, found.failure, found.is_serverless, found.task_type) == ("starting", "a; b", True, "cdc")
    assert found.compute == (("MaxCapacityUnits", 8),)


def test_all_pages_are_read_once() -> None:
    client = Paged(describe_replication_tasks=[task_row(ReplicationTaskIdentifier=f"t{n}") for n in range(5)])
    assert sorted(ask(client, states.tasks())) == ["t0", "t1", "t2", "t3", "t4"]
    assert [call[1].get("Marker") for call in client.calls] == [None, "2", "4"]
    client = Paged(describe_table_statistics=[table_row(name) for name in "cba"])
    assert [one.table.name for one in ask(client, states.statistics(states.task(task_row())))] == ["a", "b", "c"]


def test_what_does_not_exist_is_missing_and_other_failures_are_raised() -> None:
    client = Paged(describe_replication_tasks=NotFound())
    assert ask(client, states.one_task("x")) == states.missing("x")
    assert ask(Paged(describe_replication_tasks=[]), states.one_task("x")).status == "missing"
    assert ask(Paged(), states.one_task("x", is_serverless=True)).status == "missing"
    with pytest.raises(RuntimeError, match="throttled"):
        ask(Paged(describe_replication_tasks=RuntimeError("throttled")), states.one_task("x"))


def test_serverless_statistics_and_the_rest() -> None:
    client = Paged(
        describe_replication_configs=[{"ReplicationConfigIdentifier": "s", "ReplicationConfigArn": "arn:s"}],
        describe_replications=[{"ReplicationConfigArn": "arn:s", "Status": "running"}],
        describe_replication_table_statistics=[table_row("a")],
        describe_endpoints=[{"EndpointIdentifier": "e", "EngineName": "kinesis", "KinesisSettings": {"StreamArn": "s"},
                             "MySQLSettings": {"Password": "x"}}],
        describe_replication_instances=[{"ReplicationInstanceIdentifier": "i", "ReplicationInstanceStatus": "available"}],
        describe_connections=[{"EndpointArn": "e", "ReplicationInstanceArn": "i", "Status": "failed", "LastFailureMessage": "no"}],
    )  # fmt: skip
    replication = ask(client, states.replications())["s"]
    assert (replication.status, ask(client, states.statistics(replication))[0].rows) == ("running", 10)
    assert client.calls[-1][1]["ReplicationConfigArn"] == "arn:s"
    (endpoint,) = ask(client, states.endpoints())
    assert (endpoint.settings, endpoint.engine) == ((("StreamArn", "s"),), "kinesis")
    assert ask(client, states.instances())[0].status == "available"
    assert ask(client, states.connection_tests())[0].failure == "no"


def ended(
    reason: str, *rows: dict[str, Any], task_type: TaskType = "full-load", errored: int | None = 0
) -> states.Ending:
    row = task_row(
        Status="stopped", StopReason=f"Stop Reason {reason}", ReplicationTaskStats={"TablesErrored": errored}
    )
    return states.ending(states.task(row), [states.table_statistics(one) for one in rows or [table_row()]], task_type)


def test_stopped_is_no_success_by_itself() -> None:
    assert ended("FULL_LOAD_ONLY_FINISHED").verdict == "good"
    fatal = ended("FATAL_ERROR", errored=3)
    assert fatal.verdict == "bad"
    assert fatal.reasons == ("stopped with Stop Reason FATAL_ERROR", "AWS counts 3 tables with errors")
    assert ended("NORMAL", table_row(state="Full load")).verdict == "bad"
    assert ended("FULL_LOAD_ONLY_FINISHED", table_row(state="Table error")).verdict == "bad"
    assert ended("FULL_LOAD_ONLY_FINISHED", table_row(FullLoadErrorRows=1)).verdict == "bad"
    assert ended("FULL_LOAD_ONLY_FINISHED", errored=None).verdict == "bad"
    assert ended("STOPPED_AT_COMMIT_TIME", task_type="cdc").verdict == "good"
    assert ended("FULL_LOAD_ONLY_FINISHED", task_type="full-load-and-cdc").verdict == "bad"
    assert (
        states.ending(states.task(task_row(Status="stopped", StopReason="NORMAL")), None, "full-load").verdict == "bad"
    )
    assert states.ending(states.task(task_row(Status="stopped", StopReason="NORMAL")), [], "cdc").verdict == "bad"


@pytest.mark.parametrize(("status", "verdict"), [("running", "open"), ("starting", "open"), ("ready", "open"),
                                                 ("failed", "bad"), ("deleting", "bad"), ("new-word", "bad")])  # fmt: skip
def test_what_has_not_ended(status: str, verdict: str) -> None:
    assert states.ending(states.task(task_row(Status=status)), [], "cdc").verdict == verdict


@pytest.mark.parametrize("reason", [*get_args(StopReason), "NEW_WORD"])
@pytest.mark.parametrize("task_type", get_args(TaskType))
def test_only_the_reasons_of_an_end_are_good(reason: str, task_type: TaskType) -> None:
    good = {
        "full-load": {"NORMAL", "FULL_LOAD_ONLY_FINISHED"},
        "cdc": {"NORMAL", *states.PLANNED_STOPS},
        "full-load-and-cdc": {"NORMAL", *states.PLANNED_STOPS},
    }
    assert (ended(reason, task_type=task_type).verdict == "good") == (reason in good[task_type])


def test_counts_of_a_table() -> None:
    one = states.table_statistics(
        table_row(FullLoadCondtnlChkFailedRows=3, Inserts=4, AppliedInserts=2, FullLoadReloaded=True)
    )
    assert (one.table, one.rows, one.condition_failed_rows, one.inserts, one.applied_inserts) == (
        Table("shop", "orders"),
        10,
        3,
        4,
        2,
    )
    assert (one.reloaded, one.is_failed, one.is_loading) == (True, False, False)
    assert json.loads(states.task(task_row()).settings)["Logging"] == {"EnableLogging": True}


def test_every_field_of_an_answer_is_taken() -> None:
    """A value that is lost on the way would be one that nobody compares."""
    row = task_row(
        StopReason="Stop Reason NORMAL", LastFailureMessage="m", RecoveryCheckpoint="c", CdcStartPosition="p",
        ReplicationTaskStartDate=T0, ReplicationTaskStats={
            "FreshStartDate": T0, "StopDate": T0, "FullLoadFinishDate": T0, "TablesLoaded": 1, "TablesLoading": 2,
            "TablesQueued": 3, "TablesErrored": 4, "FullLoadProgressPercent": 5},
    )  # fmt: skip
    task = states.task(row)
    assert task == states.Task(
        "shop-orders", TASK_ARN, "running", "full-load-and-cdc", raw_status="running", stop_reason="NORMAL",
        raw_stop_reason="Stop Reason NORMAL", failure="m", source_arn=SOURCE_ARN, target_arn=TARGET_ARN,
        instance_arn=INSTANCE_ARN, mappings=row["TableMappings"], settings=row["ReplicationTaskSettings"], checkpoint="c",
        cdc_start="p", fresh_start_at=T0, started_at=T0, stopped_at=T0, load_finished_at=T0, tables_loaded=1,
        tables_loading=2, tables_queued=3, tables_errored=4, progress_percent=5,
    )  # fmt: skip
    config = {"ReplicationConfigIdentifier": "s", "ReplicationConfigArn": "a", "ReplicationSettings": "{1}", "TableMappings": "{2}",
              "SourceEndpointArn": "x", "TargetEndpointArn": "y"}  # fmt: skip
    found = states.serverless(config, {"Status": "stopped", "ReplicationLastStopTime": T0, "StopReason": "NORMAL"})
    assert (found.settings, found.mappings, found.source_arn, found.target_arn) == ("{1}", "{2}", "x", "y")
    assert (found.stopped_at, found.stop_reason, found.raw_status) == (T0, "NORMAL", "stopped")
    one = states.table_statistics(table_row(
        FullLoadStartTime=T0, FullLoadEndTime=T0, LastUpdateTime=T0, ValidationState="Mismatched records", ValidationStateDetails="d",
        ValidationPendingRecords=1, ValidationFailedRecords=2, ValidationSuspendedRecords=3, Updates=4, Deletes=5, Ddls=6,
        AppliedUpdates=7, AppliedDeletes=8, AppliedDdls=9))  # fmt: skip
    assert (one.load_started_at, one.load_ended_at, one.refreshed_at) == (T0, T0, T0)
    assert (one.validation_state, one.validation_details) == ("Mismatched records", "d")
    assert (one.validation_pending, one.validation_failed, one.validation_suspended) == (1, 2, 3)
    assert (one.updates, one.deletes, one.ddls, one.applied_updates, one.applied_deletes, one.applied_ddls) == (
        4,
        5,
        6,
        7,
        8,
        9,
    )
    assert one.raw_state == "Table completed"
    assert states.endpoint({
        "EndpointIdentifier": "e", "EndpointArn": "a", "EndpointType": "SOURCE", "EngineName": "MYSQL", "Status": "active",
        "SslMode": "require",
        "CertificateArn": "c", "ExtraConnectionAttributes": "x=1", "MySQLSettings": {"ServerTimezone": "UTC"}, "S3Settings": None,
    }) == states.Endpoint("e", "a", "source", "mysql", "active", (("ServerTimezone", "UTC"),), "require", "c", "x=1")  # fmt: skip
    assert states.instance({
        "ReplicationInstanceIdentifier": "i", "ReplicationInstanceArn": "a", "ReplicationInstanceStatus": "available",
        "ReplicationInstanceClass": "dms.r6i.large", "AllocatedStorage": 50, "EngineVersion": "3.5.4", "MultiAZ": False,
    }) == states.Instance("i", "a", "available", "dms.r6i.large", 50, "3.5.4", False)  # fmt: skip
    assert states.connection_test({"EndpointArn": "e", "ReplicationInstanceArn": "i", "Status": "successful"}) == (
        states.ConnectionTest("e", "i", "successful")
    )
