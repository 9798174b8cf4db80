"""Every row of the table of failures, made to happen in the simulated DMS, is recognised from what its API answers, with the right action.

`CASES` is that table: what goes wrong, by which switch or condition it is made, what has to be found and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, get_args

import MySQLdb
import pytest

from dbops import asking
from dbops.dms import apply_exceptions, failures, states
from dbops.dms.failures import ADVICE, Evidence, Kind
from dbops.dms.mappings import Table
from lab import config
from lab.rds.server import ADMIN
from tests.dms import dms_kit
from tests.lab.dms_kit import NEVER, Dms

pytestmark = pytest.mark.lab
SOON = {"RecoverableErrorInterval": 0, "RecoverableErrorThrottling": False}
LOGGED = {"EnableLogging": True}


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


@pytest.fixture
def schema(lab: Dms) -> str:
    name = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(50))")
    lab.write(f"INSERT INTO {name}.t VALUES (1, 'one'), (2, 'two')")
    return name


def evidence(lab: Dms, arn: str, schema: str, **more: Any) -> Evidence:
    """Everything that the API, the log of the task and the control table of the target say now."""
    task = states.task(lab.described(arn))
    instances = asking.ask(lab.dms, states.instances())
    (status,) = [each.status for each in instances if each.arn == task.instance_arn]
    tables = asking.ask(lab.dms, states.statistics(task))
    return Evidence(
        task,
        tables,
        instance_status=status,
        messages=(*lab.events(arn), *lab.log(arn)),
        apply_exceptions=exceptions(lab, task, tables, schema),
        **more,
    )


def exceptions(
    lab: Dms, task: states.Task, tables: tuple[states.TableStatistics, ...], schema: str
) -> dict[Table, int]:
    """As the product reads them at the target."""
    all_of_it = {**dms_kit.SELECT_ALL, "object-locator": {"schema-name": schema, "table-name": "%"}}
    of = dms_kit.spec(mappings=[all_of_it])
    login = {"host": config.HOST, "port": lab.sink.port, "user": ADMIN, "passwd": config.MYSQL_PASSWORD}
    with closing(MySQLdb.connect(**login, init_command="SET time_zone = '+00:00'")) as connection:
        return apply_exceptions.of_tables(of, apply_exceptions.read(connection, of, task), tables)


def counted(lab: Dms, schema: str) -> dict[str, Any]:
    """Rows of both sides after a load that has ended."""
    statement, table = f"SELECT COUNT(*) FROM {schema}.t", Table(schema, "t")
    source, target = (int(server.sql(statement)[0][0]) for server in (lab.source, lab.sink))
    return {"load_ended": True, "source_rows": {table: source}, "target_rows": {table: target}}


def followed(lab: Dms, schema: str, **settings: Any) -> str:
    """A task that has loaded and follows the log."""
    task = lab.task(schema, **settings)
    lab.run(task)
    lab.replicating(task)
    return task


# What goes wrong; each gives what is seen of it.


def suspended(lab: Dms, schema: str) -> Evidence:
    lab.write(f"CREATE TABLE {schema}.good (id INT PRIMARY KEY)")
    task = followed(lab, schema)
    with lab.faults(table_error=[f"{schema}.t"]):
        lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')")
        lab.until(lambda: lab.tables(task)["t"]["TableState"] == "Table error")
    return evidence(lab, task, schema)


def not_applied(lab: Dms, schema: str) -> Evidence:
    task = followed(lab, schema)
    lab.sink.sql(f"ALTER TABLE {schema}.t MODIFY v VARCHAR(4)")
    lab.write(f"INSERT INTO {schema}.t VALUES (3, 'too long for it'), (4, 'four')")
    lab.until(lambda: lab.table(task)["AppliedInserts"] == 1)
    return evidence(lab, task, schema)


def not_loaded(lab: Dms, schema: str) -> Evidence:
    lab.sink.sql(f"CREATE DATABASE {schema}")
    lab.sink.sql(f"CREATE TABLE {schema}.t (id INT PRIMARY KEY, v VARCHAR(2))")
    task = lab.task(schema, kind="full-load")
    lab.run(task)
    lab.ended(task)
    return evidence(lab, task, schema)


def cut(lab: Dms, schema: str) -> Evidence:
    lab.write(f"ALTER TABLE {schema}.t ADD x LONGTEXT", f"UPDATE {schema}.t SET x = REPEAT('x', 40000) WHERE id = 1")
    task = lab.task(schema, kind="full-load", Logging=LOGGED)
    lab.run(task)
    lab.ended(task)
    return evidence(lab, task, schema)


def purged(lab: Dms, schema: str) -> Evidence:
    task = followed(lab, schema)
    lab.stop(task)
    lab.source.sql("FLUSH BINARY LOGS")
    lab.source.sql(f"PURGE BINARY LOGS TO '{lab.source.rows('SHOW MASTER STATUS')[0]['File']}'")
    lab.run(task, "resume-processing")
    lab.ended(task)
    return evidence(lab, task, schema)


def logging(variable: str, wrong: str, right: str) -> Callable[[Dms, str], Evidence]:
    def made(lab: Dms, schema: str) -> Evidence:
        task = lab.task(schema)
        lab.source.sql(f"SET GLOBAL {variable} = {wrong}")
        try:
            lab.run(task)
            lab.ended(task)
        finally:
            lab.source.sql(f"SET GLOBAL {variable} = {right}")
        return evidence(lab, task, schema)

    return made


def unreadable(lab: Dms, schema: str) -> Evidence:
    """The log holds rows of a table that was changed since; DMS has its description of now."""
    task = followed(lab, schema)
    lab.stop(task)
    lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')", f"ALTER TABLE {schema}.t DROP COLUMN v")
    lab.run(task, "resume-processing")
    lab.ended(task)
    return evidence(lab, task, schema)


def unreadable_by_switch(lab: Dms, schema: str) -> Evidence:
    task = followed(lab, schema)
    with lab.faults(bad_event=True):
        lab.write(f"INSERT INTO {schema}.t VALUES (3, 'three')")
        lab.ended(task)
    return evidence(lab, task, schema)


def endless(lab: Dms, schema: str) -> Evidence:
    task = followed(lab, schema, ErrorBehavior=SOON)
    with lab.faults(source_down=True):
        lab.until(lambda: sum("Recoverable error" in event for event in lab.events(task)) >= 3)
        return evidence(lab, task, schema)


def given_up(lab: Dms, schema: str) -> Evidence:
    task = lab.task(schema, ErrorBehavior={**SOON, "RecoverableErrorCount": 1})
    with lab.faults(source_down=True):
        lab.run(task)
        lab.ended(task)
    return evidence(lab, task, schema)


def ended_with(reason: str) -> Callable[[Dms, str], Evidence]:
    def made(lab: Dms, schema: str) -> Evidence:
        task = followed(lab, schema)
        with lab.faults(stop_reason=reason):
            lab.ended(task)
        return evidence(lab, task, schema)

    return made


def full(lab: Dms, schema: str) -> Evidence:
    task = followed(lab, schema)
    with lab.faults(instance_full=True):
        return evidence(lab, task, schema)


def matching_nothing(kind: str, strict: bool) -> Callable[[Dms, str], Evidence]:
    def made(lab: Dms, schema: str) -> Evidence:
        task = lab.task(f"{schema}_is_not_there", kind=kind, ErrorBehavior={"FailOnNoTablesCaptured": strict})
        lab.run(task)
        # A load with nothing to load runs for a moment, too.
        lab.until(lambda: lab.status(task) in ({"running"} if kind == "cdc" else {"stopped", "failed"}))
        return evidence(lab, task, schema)

    return made


def loaded_twice(lab: Dms, schema: str) -> Evidence:
    lab.write(f"ALTER TABLE {schema}.t DROP PRIMARY KEY")
    task = lab.task(schema, kind="full-load")
    for kind in ("start-replication", "reload-target"):
        lab.run(task, kind)
        lab.ended(task)
    return evidence(lab, task, schema, **counted(lab, schema))


def cut_short(lab: Dms, schema: str) -> Evidence:
    lab.write(f"INSERT INTO {schema}.t VALUES {', '.join(f'({number}, NULL)' for number in range(10, 1010))}")
    task = lab.task(schema, kind="full-load")
    with lab.faults(row_delay_s=NEVER, silent_source_loss=True):
        lab.run(task)
        lab.until(lambda: lab.tables(task) and lab.table(task)["FullLoadRows"] > 0)
        with lab.faults(source_down=True, silent_source_loss=True):
            lab.ended(task)
    return evidence(lab, task, schema, **counted(lab, schema))


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    happens: Callable[[Dms, str], Evidence]
    kinds: set[Kind]
    status: states.Status
    word: str
    """Of the evidence."""
    action: str
    """Of what to do."""
    hindrance: str = "none"
    names_table: bool = False


CASES = [
    Case("table_error", suspended, {"table_error"}, "running", "Table error while the task is running", "reload this table", "none", True),
    Case("apply_exceptions", not_applied, {"rows_absent"}, "running", "1 rows in awsdms_apply", "reload the table", "none", True),
    Case("load_errors", not_loaded, {"rows_absent"}, "stopped", "2 rows that failed to load", "reload the table", "none", True),
    Case("lob", cut, {"lob_cut"}, "stopped", "was truncated to 32768 bytes", "LobMaxSize", "none", True),
    Case("purged", purged, {"binlog_purged"}, "failed", "Could not find first log file name", "target anew", "from_beginning"),
    Case("format", logging("binlog_format", "STATEMENT", "ROW"), {"cdc_settings"}, "failed", "binlog_format", "parameter", "fix_first"),
    Case("image", logging("binlog_row_image", "MINIMAL", "FULL"), {"cdc_settings"}, "failed", "binlog_row_image", "parameter", "fix_first"),
    Case("checksum", logging("binlog_checksum", "CRC32", "NONE"), {"cdc_settings"}, "failed", "binlog_checksum", "parameter", "fix_first"),
    Case("ddl", unreadable, {"bad_event"}, "failed", "Bad event", "DDL", "from_beginning"),
    Case("bad_event", unreadable_by_switch, {"bad_event"}, "failed", "Bad event", "DDL", "from_beginning"),
    Case("endless", endless, {"endless_restart"}, "running", "events of restarts", "bound RecoverableErrorCount"),
    Case("given_up", given_up, {"endless_restart", "connection"}, "failed", "Cannot connect", "security groups", "fix_first"),
    Case("low_disk", ended_with("STOPPED_DUE_TO_LOW_DISK"), {"instance_full"}, "stopped", "LOW_DISK", "larger instance", "fix_first"),
    Case("low_memory", ended_with("STOPPED_DUE_TO_LOW_MEMORY"), {"instance_full"}, "stopped", "LOW_MEMORY", "larger", "fix_first"),
    Case("storage_full", full, {"instance_full"}, "running", "is storage-full", "larger instance", "fix_first"),
    Case("nothing", matching_nothing("full-load", False), {"nothing_migrated"}, "stopped", "has no table", "selection rules", "fix_first"),
    Case("nothing_followed", matching_nothing("cdc", False), {"nothing_migrated"}, "running", "has no table", "selection", "fix_first"),
    Case("nothing_refused", matching_nothing("full-load", True), {"nothing_migrated"}, "failed", "No tables", "selection", "fix_first"),
    Case("twice", loaded_twice, {"duplicate_rows"}, "stopped", "4 rows at the target and only 2", "primary key", "none", True),
    Case("cut_short", cut_short, {"load_cut_short"}, "stopped", "and 1,002 at the source", "load the table again", "none", True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failure_is_recognised_with_what_to_do(lab: Dms, schema: str, case: Case) -> None:
    seen = case.happens(lab, schema)
    assert seen.task.status == case.status
    assert seen.task.stop_reason != "unknown"
    found = failures.recognise(seen)
    assert {failure.kind for failure in found} == case.kinds, found
    failure = next(each for each in found if case.word in each.evidence)
    assert case.action in failure.action
    assert failure.action == ADVICE[failure.kind].action
    assert failures.hindrance(found) == case.hindrance
    assert failure.tables == ((Table(schema, "t"),) if case.names_table else ())


def test_every_kind_of_failure_has_a_case() -> None:
    assert {kind for case in CASES for kind in case.kinds} == set(get_args(Kind))


def test_a_task_that_is_well_is_left_alone(lab: Dms, schema: str) -> None:
    task = followed(lab, schema, Logging=LOGGED)
    lab.write(f"UPDATE {schema}.t SET v = 'uno' WHERE id = 1", f"DELETE FROM {schema}.t WHERE id = 2")
    lab.until(lambda: lab.table(task)["AppliedDeletes"] == 1)
    assert failures.recognise(evidence(lab, task, schema, **counted(lab, schema))) == ()
