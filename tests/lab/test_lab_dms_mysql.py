"""Tasks of the simulated DMS from MySQL 5.7 to MySQL 8.0: full load, changes, and what survives a kill."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.dms_kit import NEVER, Dms

pytestmark = pytest.mark.lab
SOON = {"RecoverableErrorInterval": 0, "RecoverableErrorThrottling": False}

TYPES = """CREATE TABLE {s}.t (
  id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, i INT, tu TINYINT UNSIGNED, m MEDIUMINT, d DECIMAL(30,10), f FLOAT, g DOUBLE,
  c CHAR(10), v VARCHAR(100), l VARCHAR(20) CHARACTER SET latin1, x TEXT, b BLOB, vb VARBINARY(20), fb BINARY(8), e ENUM('a','b''c'),
  z SET('x','y','z'), dt DATETIME(6), ts TIMESTAMP NULL, da DATE, ti TIME(3), y YEAR, bt BIT(12), j JSON)"""
ROW = (
    "INSERT INTO {s}.t VALUES ({id}, -5, 255, -8388608, 12345678901234567890.0123456789, 0.1, 1e-300, 'pad', 'zwölf €', "
    "'Grüße', REPEAT('x', 100), x'00ff10', x'', x'01', 'b''c', 'x,z', '2024-02-29 23:59:59.123456', '2024-03-31 02:30:00', "
    "'0000-00-00', '-838:59:59.000', 1901, b'101010101010', '{{\"k\": [1, \"ü\", null], \"aa\": {{\"b\": 1.5}}}}')"
)


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


def test_a_full_load_and_the_changes_after_it_end_in_the_same_rows(lab: Dms) -> None:
    schema = lab.schema(TYPES)
    lab.write(
        "SET sql_mode = ''", ROW.format(s=schema, id=18446744073709551000), f"INSERT INTO {schema}.t (i) VALUES (NULL)"
    )
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    assert lab.differences(schema, "t") == []
    lab.write(
        "SET sql_mode = ''",
        ROW.format(s=schema, id=7),
        f"UPDATE {schema}.t SET v = 'changed', z = '', f = 16777217, dt = '0000-00-00' WHERE id = 18446744073709551000",
        f"INSERT INTO {schema}.t (i, e) VALUES (1, 'b''c'), (2, 'a')",
        f"UPDATE {schema}.t SET id = id + 100 WHERE i = 2",
        f"DELETE FROM {schema}.t WHERE i IS NULL",
    )
    lab.until(lambda: lab.differences(schema, "t") == [])
    lab.until(lambda: lab.table(task)["AppliedDeletes"] == 1)
    table = lab.table(task)
    assert (table["TableState"], table["FullLoadRows"], table["Inserts"]) == ("Table completed", 2, 3)
    assert (table["AppliedInserts"], table["AppliedUpdates"], table["AppliedDeletes"]) == (3, 2, 1)
    stopped = lab.stop(task)
    assert (stopped["Status"], stopped["StopReason"]) == ("stopped", "Stop Reason NORMAL")
    assert stopped["RecoveryCheckpoint"].startswith("checkpoint:V1#")


@contextmanager
def writing(lab: Dms, schema: str) -> Iterator[None]:
    """A client that inserts, changes and deletes rows of the table ``t`` all the time, also when its server restarts."""
    over = threading.Event()

    def write() -> None:
        number = 1_000_000
        while not over.is_set():
            number += 1
            try:
                lab.write(
                    f"INSERT INTO {schema}.t VALUES ({number}, 'new'), ({number + 500_000}, 'second')",
                    f"UPDATE {schema}.t SET v = CONCAT(v, '+') WHERE id IN ({number - 3}, {number % 1000})",
                    f"DELETE FROM {schema}.t WHERE id = {number + 500_000 - 10}",
                )
            except Exception:  # its server restarts
                over.wait(0.1)
            over.wait(0.005)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def filled(lab: Dms, rows: int = 3000) -> str:
    """A schema whose table ``t`` has so many rows."""
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(2000))")
    lab.write(*(f"INSERT INTO {schema}.t VALUES {values(begin)}" for begin in range(0, rows, 1000)))
    return schema


def values(begin: int) -> str:
    return ", ".join(f"({number}, 'row {number}')" for number in range(begin, begin + 1000))


def applied(lab: Dms, task: str) -> int:
    return int(sum(lab.table(task)[f"Applied{kind}"] for kind in ("Inserts", "Updates", "Deletes")))


def test_under_writes_a_killed_task_a_restarted_source_and_a_rotated_log_lose_nothing(lab: Dms) -> None:
    schema = filled(lab)
    task = lab.task(schema, ErrorBehavior=SOON)

    def goes_on() -> None:
        before = applied(lab, task)
        lab.until(lambda: applied(lab, task) > before)

    with writing(lab, schema):
        with lab.faults(row_delay_s=NEVER):
            lab.run(task)
            lab.until(lambda: lab.tables(task) and lab.table(task)["FullLoadRows"] > 0)
            lab.until(lambda: lab.status(task) == "running")  # it is told a moment later than its rows
            os.kill(lab.pid(task), signal.SIGKILL)  # in the middle of a table, which is loaded again from its begin
            lab.until(lambda: any("started again" in event for event in lab.events(task)))
            recovering = lab.described(task)
            assert recovering["Status"] == "running"
            assert "ended unexpectedly. Stop Reason RECOVERABLE_ERROR" in recovering["LastFailureMessage"]
        lab.replicating(task)
        goes_on()
        os.kill(lab.pid(task), signal.SIGKILL)
        lab.source.sql("FLUSH BINARY LOGS")
        goes_on()
        lab.source.stop()
        lab.source.start()
        goes_on()
        lab.source.sql("FLUSH BINARY LOGS")
        goes_on()
    lab.until(lambda: lab.differences(schema, "t") == [])
    assert lab.status(task) == "running"
    assert lab.table(task)["TableState"] == "Table completed"
    assert any("Lost connection to the source" in event or "Cannot connect" in event for event in lab.events(task))
    lab.until(lambda: "LastFailureMessage" not in lab.described(task))


def test_a_killed_task_that_may_not_recover_has_failed_and_goes_on_from_its_checkpoint(lab: Dms) -> None:
    schema = filled(lab, 1000)
    task = lab.task(schema, ErrorBehavior={"RecoverableErrorCount": 0})
    lab.run(task)
    lab.replicating(task)
    with writing(lab, schema):
        lab.until(lambda: applied(lab, task) > 0)
        os.kill(lab.pid(task), signal.SIGKILL)
        failed = lab.ended(task)
        written = lab.source.rows("SHOW MASTER STATUS")[0]["Position"]
        lab.until(lambda: lab.source.rows("SHOW MASTER STATUS")[0]["Position"] > written)
    assert (failed["Status"], failed["StopReason"]) == (
        "failed",
        "Stop Reason RECOVERABLE_ERROR Error Level RECOVERABLE",
    )
    assert "Replication task process ended unexpectedly" in failed["LastFailureMessage"]
    assert failed["RecoveryCheckpoint"].startswith("checkpoint:V1#")
    assert any(event.startswith("Replication task has failed") for event in lab.events(task))
    assert lab.differences(schema, "t")
    lab.run(task, "resume-processing")
    lab.until(lambda: lab.differences(schema, "t") == [])
    assert (lab.table(task)["FullLoadRows"], lab.status(task)) == (1000, "running")


def test_a_stopped_task_goes_on_from_its_checkpoint_and_a_new_one_can_begin_there(lab: Dms) -> None:
    schema = filled(lab, 1000)
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    checkpoint = lab.stop(task)["RecoveryCheckpoint"]
    lab.write(f"UPDATE {schema}.t SET v = 'while it was stopped' WHERE id = 5", f"DELETE FROM {schema}.t WHERE id = 6")
    assert len(lab.differences(schema, "t")) == 3
    lab.run(task, "resume-processing")
    lab.until(lambda: lab.differences(schema, "t") == [])
    assert lab.table(task)["FullLoadRows"] == 1000
    lab.stop(task)
    lab.sink.sql(f"UPDATE {schema}.t SET v = 'old' WHERE id = 5")
    other = lab.task(schema, kind="cdc")
    lab.run(other, CdcStartPosition=checkpoint)
    lab.until(lambda: lab.differences(schema, "t") == [])
    assert lab.described(other)["CdcStartPosition"] == checkpoint
    lab.stop(other)


def test_reload_target_loads_everything_again(lab: Dms) -> None:
    schema = filled(lab, 1000)
    task = lab.task(schema, FullLoadSettings={"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD"}, kind="full-load")
    lab.run(task)
    ended = lab.ended(task)
    assert (ended["Status"], ended["StopReason"]) == ("stopped", "Stop Reason FULL_LOAD_ONLY_FINISHED")
    assert ended["ReplicationTaskStats"]["FullLoadProgressPercent"] == 100
    lab.write(f"DELETE FROM {schema}.t WHERE id < 10")
    lab.run(task, "reload-target")
    assert lab.ended(task)["StopReason"] == "Stop Reason FULL_LOAD_ONLY_FINISHED"
    assert lab.table(task)["FullLoadRows"] == 990
    assert lab.differences(schema, "t") == []


def test_a_reloaded_table_has_a_new_start_time(lab: Dms) -> None:
    schema = filled(lab, 1000)
    task = lab.task(schema, FullLoadSettings={"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD"})
    lab.run(task)
    lab.replicating(task)
    before = lab.table(task)["FullLoadStartTime"]
    lab.sink.sql(f"UPDATE {schema}.t SET v = 'wrong'")
    with writing(lab, schema):
        lab.dms.reload_tables(ReplicationTaskArn=task, TablesToReload=[{"SchemaName": schema, "TableName": "t"}])
        lab.until(lambda: lab.table(task)["FullLoadReloaded"])
    lab.until(lambda: lab.differences(schema, "t") == [])
    assert lab.table(task)["FullLoadStartTime"] > before
    lab.stop(task)


def test_mappings_choose_rename_and_filter(lab: Dms) -> None:
    schema = lab.schema(
        "CREATE TABLE {s}.keep (id INT PRIMARY KEY, a INT, secret INT)", "CREATE TABLE {s}.leave (id INT PRIMARY KEY)"
    )
    lab.write(f"INSERT INTO {schema}.keep VALUES (1, 10, 0), (2, 20, 0)")
    where = {"schema-name": schema, "table-name": "keep"}
    rules = [
        {
            "rule-type": "selection",
            "rule-action": "exclude",
            "object-locator": {"schema-name": schema, "table-name": "leave"},
        },
        {
            "rule-type": "transformation",
            "rule-action": "rename",
            "rule-target": "table",
            "object-locator": where,
            "value": "kept",
        },
        {
            "rule-type": "transformation",
            "rule-action": "remove-column",
            "rule-target": "column",
            "object-locator": {**where, "column-name": "secret"},
        },
    ]
    task = lab.task(schema, rules=rules)
    lab.run(task)
    lab.replicating(task)
    lab.write(f"INSERT INTO {schema}.keep VALUES (3, 30, 0)", f"ALTER TABLE {schema}.keep ADD COLUMN later INT")
    lab.write(f"INSERT INTO {schema}.keep VALUES (4, 40, 0, 4)")
    lab.until(lambda: len(lab.sink.sql(f"SELECT * FROM {schema}.kept")) == 4)
    assert lab.sink.sql(f"SELECT * FROM {schema}.kept ORDER BY id") == (
        (1, 10, None),
        (2, 20, None),
        (3, 30, None),
        (4, 40, 4),
    )
    assert set(lab.tables(task)) == {"keep"}
    lab.until(lambda: lab.table(task)["AppliedDdls"] == 1)
    lab.stop(task)


def test_validation_finds_what_somebody_changed_on_the_target(lab: Dms) -> None:
    schema = filled(lab, 1000)
    task = lab.task(schema, ValidationSettings={"EnableValidation": True})
    lab.run(task)
    lab.replicating(task)
    lab.until(lambda: lab.table(task)["ValidationState"] == "Validated")
    lab.sink.sql(f"UPDATE {schema}.t SET v = 'wrong' WHERE id < 3")
    again = {"ReplicationTaskArn": task, "TablesToReload": [{"SchemaName": schema, "TableName": "t"}]}
    lab.dms.reload_tables(**again, ReloadOption="validate-only")
    lab.until(lambda: lab.table(task)["ValidationState"] == "Mismatched records")
    assert lab.table(task)["ValidationFailedRecords"] == 3
    lab.stop(task)
    keyless = lab.schema("CREATE TABLE {s}.t (id INT)")
    other = lab.task(keyless, kind="full-load", ValidationSettings={"EnableValidation": True})
    lab.run(other)
    lab.ended(other)
    assert lab.table(other)["ValidationState"] == "No primary key"
