"""Everything that goes wrong with DMS tasks, made to happen: what the API shows then, and what the rows are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import config
from lab.rds.server import ADMIN
from tests.lab.dms_kit import NEVER, Dms

pytestmark = pytest.mark.lab
SOON = {"RecoverableErrorInterval": 0, "RecoverableErrorThrottling": False}


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


@pytest.fixture
def schema(lab: Dms) -> str:
    name = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(50))")
    lab.write(f"INSERT INTO {name}.t VALUES (1, 'one'), (2, 'two')")
    return name


def exceptions(lab: Dms, schema: str) -> list[Any]:
    if not lab.sink.rows("SHOW DATABASES LIKE 'awsdms_control'"):
        return []
    found = lab.sink.rows("SELECT error FROM awsdms_control.awsdms_apply_exceptions WHERE table_owner = %s", (schema,))
    return [row["error"] for row in found]


def test_a_task_runs_on_without_a_suspended_table(lab: Dms, schema: str) -> None:
    lab.write(f"CREATE TABLE {schema}.good (id INT PRIMARY KEY)")
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    with lab.faults(table_error=[f"{schema}.t"]):
        lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')")
        lab.until(lambda: lab.tables(task)["t"]["TableState"] == "Table error")
    lab.write(f"INSERT INTO {schema}.t VALUES (4, 'four')", f"INSERT INTO {schema}.good VALUES (1)")
    lab.until(lambda: lab.tables(task)["good"]["AppliedInserts"] == 1)
    described = lab.described(task)
    assert (described["Status"], described["ReplicationTaskStats"]["TablesErrored"]) == ("running", 1)
    assert len(lab.differences(schema, "t")) == 2
    assert any(f"Table {schema}.t was suspended" in event for event in lab.events(task))
    lab.dms.reload_tables(ReplicationTaskArn=task, TablesToReload=[{"SchemaName": schema, "TableName": "t"}])
    lab.until(lambda: lab.tables(task)["t"]["FullLoadReloaded"])
    # It was loaded over the rows that were there, as the preparation mode DO_NOTHING has it.
    assert lab.tables(task)["t"]["FullLoadErrorRows"] == 2
    assert lab.differences(schema, "t") == []
    lab.stop(task)


def test_an_error_of_a_table_may_stop_the_task(lab: Dms, schema: str) -> None:
    task = lab.task(schema, ErrorBehavior={"TableErrorPolicy": "STOP_TASK"})
    with lab.faults(table_error=[f"{schema}.t"]):
        lab.run(task)
        ended = lab.ended(task)
    assert (ended["Status"], ended["StopReason"]) == ("failed", "Stop Reason FATAL_ERROR Error Level FATAL")
    assert "was suspended" in ended["LastFailureMessage"]


def test_rows_are_absent_and_only_a_control_table_says_so(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    lab.sink.sql(f"ALTER TABLE {schema}.t MODIFY v VARCHAR(4)")
    lab.sink.sql(f"DELETE FROM {schema}.t WHERE id = 2")
    lab.write(
        f"INSERT INTO {schema}.t VALUES (3, 'too long for it'), (4, 'four')",
        f"UPDATE {schema}.t SET v = '2' WHERE id = 2",
    )
    lab.until(lambda: lab.table(task)["Updates"] == 1)
    table = lab.table(task)
    assert (table["TableState"], table["Inserts"], table["AppliedInserts"], table["AppliedUpdates"]) == (
        "Table completed",
        2,
        1,
        0,
    )
    assert lab.status(task) == "running"
    errors = exceptions(lab, schema)
    assert "Data too long" in errors[0]
    assert "0 rows affected" in errors[1]
    assert len(lab.differences(schema, "t")) == 2
    lab.stop(task)


@pytest.mark.parametrize(("setting", "policy"), [("Insert", "UPDATE_RECORD"), ("Update", "UPDATE_RECORD")])
def test_a_policy_may_write_a_row_all_the_same(lab: Dms, schema: str, setting: str, policy: str) -> None:
    task = lab.task(schema, ErrorBehavior={f"ApplyError{setting}Policy": policy})
    lab.run(task)
    lab.replicating(task)
    lab.sink.sql(f"INSERT INTO {schema}.t VALUES (3, 'in the way')")
    lab.sink.sql(f"DELETE FROM {schema}.t WHERE id = 2")
    lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')", f"UPDATE {schema}.t SET v = '2' WHERE id = 2")
    lab.until(lambda: lab.table(task)["Updates"] == 1)
    assert len(lab.differences(schema, "t")) == (1 if setting == "Insert" else 2)
    lab.stop(task)


def test_truncation_may_suspend_the_table(lab: Dms, schema: str) -> None:
    lab.sink.sql(f"CREATE DATABASE {schema}")
    lab.sink.sql(f"CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(2))")
    task = lab.task(schema, kind="full-load", ErrorBehavior={"DataTruncationErrorPolicy": "SUSPEND_TABLE"})
    lab.run(task)
    ended = lab.ended(task)
    # The word is stopped and the reason is that of success, and yet no row has arrived.
    assert (ended["Status"], ended["StopReason"]) == ("stopped", "Stop Reason FULL_LOAD_ONLY_FINISHED")
    assert ended["ReplicationTaskStats"]["TablesErrored"] == 1
    assert lab.sink.sql(f"SELECT COUNT(*) FROM {schema}.t") == ((0,),)


def test_long_values_are_cut_without_a_word(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, x LONGTEXT)")
    lab.write(f"INSERT INTO {schema}.t VALUES (1, REPEAT('x', 40000))")
    limited = lab.task(
        schema, FullLoadSettings={"TargetTablePrepMode": "DROP_AND_CREATE"}, Logging={"EnableLogging": True}
    )
    lab.run(limited)
    lab.replicating(limited)
    lab.write(f"INSERT INTO {schema}.t VALUES (2, REPEAT('y', 40000))")
    lab.until(lambda: lab.table(limited)["AppliedInserts"] == 1)
    lab.stop(limited)
    assert lab.sink.sql(f"SELECT LENGTH(x) FROM {schema}.t") == ((32768,), (32768,))
    assert lab.table(limited)["FullLoadErrorRows"] == 0
    assert len([line for line in lab.log(limited) if "was truncated to 32768 bytes" in line]) == 2
    full = lab.task(
        schema,
        TargetMetadata={"FullLobMode": True},
        FullLoadSettings={"TargetTablePrepMode": "DROP_AND_CREATE"},
        kind="full-load",
    )
    lab.run(full)
    lab.ended(full)
    assert lab.differences(schema, "t") == []


def test_a_purged_log_is_fatal_and_stays_so(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    lab.stop(task)
    lab.source.sql("FLUSH BINARY LOGS")
    lab.source.sql("FLUSH BINARY LOGS")
    lab.source.sql(f"PURGE BINARY LOGS TO '{lab.source.rows('SHOW MASTER STATUS')[0]['File']}'")
    for _ in range(2):
        lab.run(task, "resume-processing")
        ended = lab.ended(task)
        assert ended["Status"] == "failed"
        assert "Could not find first log file name in binary log index file" in ended["LastFailureMessage"]
    lab.run(task, "reload-target")
    lab.replicating(task)
    lab.stop(task)


def test_changes_need_a_binary_log_of_rows(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    lab.source.sql("SET GLOBAL binlog_row_image = MINIMAL")
    try:
        lab.run(task)
        ended = lab.ended(task)
    finally:
        lab.source.sql("SET GLOBAL binlog_row_image = FULL")
    assert ended["Status"] == "failed"
    assert "binlog_row_image" in ended["LastFailureMessage"]


def test_a_session_that_logs_statements_is_not_followed(lab: Dms, schema: str) -> None:
    task = lab.task(schema, Logging={"EnableLogging": True})
    lab.run(task)
    lab.replicating(task)
    lab.write("SET SESSION binlog_format = 'STATEMENT'", f"INSERT INTO {schema}.t VALUES (3, 'three')")
    lab.write(f"INSERT INTO {schema}.t VALUES (4, 'four')")
    lab.until(lambda: lab.table(task)["AppliedInserts"] == 1)
    assert len(lab.differences(schema, "t")) == 1
    assert lab.status(task) == "running"
    lab.until(lambda: any("A statement instead of rows" in line and "binlog_format" in line for line in lab.log(task)))


def test_an_event_that_cannot_be_read_is_fatal(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    with lab.faults(bad_event={lab.described(task)["ReplicationTaskIdentifier"]: True}):
        lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')")
        assert "Bad event" in lab.ended(task)["LastFailureMessage"]


def test_a_source_that_is_down_is_tried_again_and_bounded_by_a_setting(lab: Dms, schema: str) -> None:
    forever = lab.task(schema, ErrorBehavior=SOON)
    bounded = lab.task(schema, ErrorBehavior={**SOON, "RecoverableErrorCount": 2})
    for task in (forever, bounded):
        lab.run(task)
        lab.replicating(task)
    with lab.faults(source_down=True):
        ended = lab.ended(bounded)
        assert (ended["Status"], ended["StopReason"]) == (
            "failed",
            "Stop Reason RECOVERABLE_ERROR Error Level RECOVERABLE",
        )
        lab.until(lambda: len([event for event in lab.events(forever) if "Recoverable error" in event]) > 3)
        lab.until(lambda: lab.metric("CDCLatencyTarget", forever) is None)  # nothing is measured, so nothing is zero
        described = lab.described(forever)
        assert described["Status"] == "running"
        assert "RECOVERABLE_ERROR" in described["LastFailureMessage"]
    lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')")
    lab.until(lambda: lab.differences(schema, "t") == [])
    lab.until(lambda: "LastFailureMessage" not in lab.described(forever))


@pytest.mark.parametrize("silent", [True, False])
def test_a_source_that_stops_in_a_full_load_may_end_it_successfully(lab: Dms, silent: bool) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(1000))")
    rows = ", ".join(f"({number}, REPEAT('x', 1000))" for number in range(4000))
    lab.write(f"INSERT INTO {schema}.t VALUES {rows}")
    task = lab.task(schema, kind="full-load", ErrorBehavior={**SOON, "RecoverableErrorCount": 0})
    with lab.faults(row_delay_s=NEVER, silent_source_loss=silent):
        lab.run(task)
        lab.until(lambda: lab.tables(task) and lab.table(task)["FullLoadRows"] > 0)
        with lab.faults(source_down=True, silent_source_loss=silent):
            ended = lab.ended(task)
    table = lab.table(task)
    assert 0 < table["FullLoadRows"] < 4000
    if silent:
        assert (ended["Status"], ended["StopReason"]) == ("stopped", "Stop Reason FULL_LOAD_ONLY_FINISHED")
        assert (table["TableState"], ended["ReplicationTaskStats"]["FullLoadProgressPercent"]) == (
            "Table completed",
            100,
        )
    else:
        assert (ended["Status"], table["TableState"]) == ("failed", "Table cancelled")


def test_a_full_disk_ends_the_task(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    with lab.faults(instance_full=True):
        (instance,) = lab.dms.describe_replication_instances(
            Filters=[{"Name": "replication-instance-id", "Values": ["lab"]}]
        )["ReplicationInstances"]
        assert instance["ReplicationInstanceStatus"] == "storage-full"
    with lab.faults(stop_reason={lab.described(task)["ReplicationTaskIdentifier"]: "STOPPED_DUE_TO_LOW_DISK"}):
        assert lab.ended(task)["StopReason"] == "Stop Reason STOPPED_DUE_TO_LOW_DISK"


@pytest.mark.parametrize("strict", [True, False])
def test_mappings_that_match_nothing(lab: Dms, strict: bool) -> None:
    task = lab.task(f"nothing_{strict}", kind="full-load", ErrorBehavior={"FailOnNoTablesCaptured": strict})
    lab.run(task)
    ended = lab.ended(task)
    assert lab.tables(task) == {}
    if strict:
        assert (ended["Status"], ended["LastFailureMessage"][:34]) == ("failed", "Last Error No tables were found at")
    else:
        assert (ended["Status"], ended["StopReason"]) == ("stopped", "Stop Reason FULL_LOAD_ONLY_FINISHED")


def test_a_table_without_a_key_has_its_rows_twice_after_a_second_load(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (v INT)")
    lab.write(f"INSERT INTO {schema}.t VALUES (1), (2)")
    task = lab.task(schema, kind="full-load")
    for kind in ("start-replication", "reload-target"):
        lab.run(task, kind)
        lab.ended(task)
    assert lab.sink.sql(f"SELECT COUNT(*) FROM {schema}.t") == ((4,),)


def test_a_fatal_error_may_hide_behind_the_status_stopped(lab: Dms, schema: str) -> None:
    task = lab.task(schema, kind="full-load", ErrorBehavior={"TableErrorPolicy": "STOP_TASK"})
    with lab.faults(fatal_is_stopped=True, table_error=[f"{schema}.t"]):
        lab.run(task)
        ended = lab.ended(task)
    assert (ended["Status"], ended["StopReason"]) == ("stopped", "Stop Reason FATAL_ERROR Error Level FATAL")
    assert ended["ReplicationTaskStats"]["TablesErrored"] == 1


def test_statistics_may_be_of_the_load_before(lab: Dms, schema: str) -> None:
    task = lab.task(schema, FullLoadSettings={"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD"})
    lab.run(task)
    lab.replicating(task)
    before = lab.table(task)
    lab.sink.sql(f"UPDATE {schema}.t SET v = 'wrong'")
    with lab.faults(stats_delay_s=NEVER):
        lab.dms.reload_tables(ReplicationTaskArn=task, TablesToReload=[{"SchemaName": schema, "TableName": "t"}])
        lab.until(lambda: lab.differences(schema, "t") == [])
        stale = lab.table(task)
        assert (stale["TableState"], stale["FullLoadStartTime"]) == ("Table completed", before["FullLoadStartTime"])
    lab.until(lambda: lab.table(task)["FullLoadReloaded"])
    assert lab.table(task)["FullLoadStartTime"] > before["FullLoadStartTime"]


def test_a_throttled_target_falls_behind_and_catches_up(lab: Dms, schema: str) -> None:
    task = lab.task(schema, Logging={"EnableLogging": True})
    lab.run(task)
    lab.replicating(task)
    with lab.faults(throttle=100):
        lab.write(*(f"INSERT INTO {schema}.t VALUES ({number}, 'x')" for number in range(3, 9)))
        lab.until(lambda: (lab.metric("CDCLatencyTarget", task) or 0) > 2)
        assert len(lab.differences(schema, "t")) == 6
        lab.until(lambda: any("target throttles" in line for line in lab.log(task)))
        assert lab.status(task) == "running"
    lab.until(lambda: lab.differences(schema, "t") == [])


def test_a_connection_that_fails_says_why_and_keeps_the_task_from_its_start(lab: Dms) -> None:
    wrong = lab.make_endpoint(
        "source", EngineName="mysql", ServerName=config.HOST, Port=lab.source.port, Username=ADMIN, Password="wrong"
    )
    lab.dms.test_connection(ReplicationInstanceArn=lab.instance, EndpointArn=wrong)
    lab.until(lambda: lab.connection(wrong)["Status"] == "failed")
    assert "Access denied" in lab.connection(wrong)["LastFailureMessage"]
    lab.dms.modify_endpoint(EndpointArn=wrong, Password=config.MYSQL_PASSWORD)
    lab.test(wrong)


def test_a_task_may_be_stuck(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    with lab.faults(stuck=True):
        lab.run(task)
        time.sleep(0.5)
        assert lab.status(task) == "starting"
    lab.replicating(task)
