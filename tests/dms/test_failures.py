"""Each row of the failure table is recognised, with the table that it is about and the action; what is healthy is not."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from dbops.dms import decision, failures, states
from dbops.dms.failures import ADVICE, Evidence, Kind
from dbops.dms.mappings import Table
from tests.dms.dms_kit import table_row, task_row

ORDERS = Table("shop", "orders")


def evidence(*rows: dict[str, Any], task: dict[str, Any] | None = None, **more: Any) -> Evidence:
    seen = tuple(states.table_statistics(row) for row in rows or [table_row()])
    return Evidence(states.task(task_row(**(task or {}))), seen, **more)


FAILED = {"Status": "failed", "StopReason": "Stop Reason FATAL_ERROR"}


def said(text: str, **more: Any) -> Evidence:
    return evidence(task={**FAILED, "LastFailureMessage": text}, **more)


CASES: list[tuple[Kind, Evidence, str, tuple[Table, ...], str]] = [
    ("table_error", evidence(table_row(state="Table error")), "Table error while the task is running", (ORDERS,), "reload"),
    ("table_error", evidence(table_row(state="Table suspended by a new word")), "new word", (ORDERS,), "reload"),
    ("table_error", evidence(task={"ReplicationTaskStats": {"TablesErrored": 2}}), "AWS counts 2", (), "reload"),
    ("rows_absent", evidence(table_row(FullLoadErrorRows=3)), "3 rows that failed", (ORDERS,), "awsdms_apply_exceptions"),
    ("rows_absent", evidence(apply_exceptions={ORDERS: 2}), "2 rows in awsdms_apply_exceptions", (ORDERS,), "reload"),
    ("load_cut_short", evidence(
        task={"Status": "stopped", "StopReason": "Stop Reason FULL_LOAD_ONLY_FINISHED"}, load_ended=True,
        source_rows={ORDERS: 10_000}, target_rows={ORDERS: 9_000}), "9,000 rows at the target and 10,000", (ORDERS,), "load the table"),
    ("duplicate_rows", evidence(load_ended=True, source_rows={ORDERS: 10}, target_rows={ORDERS: 20}), "only 10", (ORDERS,), "primary key"),
    ("duplicate_rows", said("Duplicate entry '7' for key 'PRIMARY'"), "Duplicate entry", (), "primary key"),
    ("lob_cut", evidence(messages=(
        "[TARGET_LOAD ]W: Value of column 'note' in table 'shop.orders' was truncated to 32768 bytes, actual length: 40000 bytes",)),
     "truncated to 32768", (ORDERS,), "LobMaxSize"),
    ("lob_cut", evidence(messages=("Value in table 'shop'.'orders' was truncated to 32768 bytes",)), "truncated", (ORDERS,), "LobMaxSize"),
    ("binlog_purged", said("Error 1236: Could not find first log file name in binary log index file"), "1236", (), "retention"),
    ("binlog_purged", said("the master has purged binary logs containing GTIDs that the slave requires"), "purged", (), "anew"),
    ("cdc_settings", said("binlog_format is set to 'STATEMENT'"), "STATEMENT", (), "parameter group"),
    ("cdc_settings", said("MySQL binary Logging must be enabled for CDC"), "enabled", (), "parameter group"),
    ("bad_event", said("Reading binlog: Bad event at mysql-bin.000003:4711"), "Bad event", (), "DDL"),
    ("endless_restart", evidence(restarts=3), "3 restarts", (), "RecoverableErrorCount"),
    ("endless_restart", evidence(task={"Status": "stopped", "StopReason": "Stop Reason RECOVERABLE_ERROR"}), "RECOV", (), "Recover"),
    ("endless_restart", evidence(messages=("Task is being restarted after a recoverable error",) * 3), "3 events", (), "Recoverable"),
    ("instance_full", evidence(instance_status="storage-full"), "storage-full", (), "larger instance"),
    ("instance_full", evidence(task={"Status": "stopped", "StopReason": "Stop Reason STOPPED_DUE_TO_LOW_DISK"}), "LOW_DISK", (), "logs"),
    ("instance_full", said("write failed: No space left on device"), "No space", (), "logs"),
    ("nothing_migrated", said("No tables were found at task initialization"), "No tables", (), "selection rules"),
    ("nothing_migrated", Evidence(states.task(task_row()), ()), "has no table", (), "selection rules"),
    ("connection", said("Test connection failed: Can't connect to MySQL server on 'db' (110)"), "Can't connect", (), "secret"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "seen", "word", "tables", "action"), CASES)
def test_recognised(kind: Kind, seen: Evidence, word: str, tables: tuple[Table, ...], action: str) -> None:
    by_kind = {failure.kind: failure for failure in failures.recognise(seen)}
    assert kind in by_kind, by_kind
    failure = by_kind[kind]
    assert word in failure.evidence
    assert failure.tables == tables
    assert action in failure.action
    assert str(failure).startswith(failure.evidence)
    assert failure.hindrance == ADVICE[kind].hindrance


def test_every_kind_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(get_args(Kind)) == set(ADVICE)


@pytest.mark.parametrize(
    "seen",
    [
        evidence(),
        evidence(table_row(state="Full load"), table_row("b", "Before load")),
        evidence(task={"Status": "stopped", "StopReason": "Stop Reason FULL_LOAD_ONLY_FINISHED"}),
        evidence(task={"Status": "ready", "ReplicationTaskStats": {}}),
        Evidence(states.task(task_row(Status="ready", ReplicationTaskStats={})), ()),
        evidence(source_rows={ORDERS: 10}, target_rows={ORDERS: 5}),  # the load still runs
        evidence(source_rows={ORDERS: 10}, target_rows={ORDERS: 15}),
        evidence(messages=("binlog_format was checked: ROW",)),
        evidence(messages=("Task started",) * 5),
        evidence(load_ended=True, source_rows={ORDERS: 10}, target_rows={ORDERS: 10}),
        evidence(load_ended=True, source_rows={ORDERS: 10}),  # nobody counted the target
        evidence(restarts=2, apply_exceptions={ORDERS: 0}, instance_status="available"),
        evidence(messages=("Task started", "connection to the source was tested: access denied before, now granted")),
        Evidence(states.task(task_row()), None),
    ],
)
def test_what_is_healthy_is_left_alone(seen: Evidence) -> None:
    assert failures.recognise(seen) == ()


def test_what_helps_comes_first_and_says_what_to_do_with_the_task() -> None:
    seen = evidence(
        table_row(state="Table error"), task={**FAILED, "LastFailureMessage": "Could not find first log file name in binary log index"},
        instance_status="storage-full",
    )  # fmt: skip
    found = failures.recognise(seen)
    assert [failure.kind for failure in found] == ["binlog_purged", "instance_full", "table_error"]
    assert failures.hindrance(found) == "from_beginning"
    assert failures.hindrance(found[1:]) == "fix_first"
    assert failures.hindrance(found[2:]) == failures.hindrance(()) == "none"


def test_many_hits_are_shortened() -> None:
    (failure,) = failures.recognise(evidence(*(table_row(f"t{n}", "Table error") for n in range(9))))
    assert failure.evidence.endswith("and 6 more")
    assert len(failure.tables) == 9
    long = failures.recognise(said("Bad event " + "x" * 900))[0]
    assert len(long.evidence) < 400


def test_a_table_that_says_complete_and_is_not_is_loaded_again() -> None:
    """From what is seen to what is done: the load that ended well after its source was stopped."""
    row = task_row(Status="stopped", StopReason="Stop Reason FULL_LOAD_ONLY_FINISHED")
    seen = Evidence(states.task(row), (states.table_statistics(table_row()),), load_ended=True,
                    source_rows={ORDERS: 10}, target_rows={ORDERS: 9})  # fmt: skip
    found = failures.recognise(seen)
    assert failures.differing(found) == (ORDERS,)
    known = decision.known(
        seen.task, "full-load", statistics=seen.tables, logs=(), empties=False,
        differing=failures.differing(found), hindrance=failures.hindrance(found),
    )  # fmt: skip
    decided = decision.decide(known)
    assert (decided.action, decided.proposed) == ("refuse", "reload_target")


def test_a_table_that_failed_is_no_table_that_differs() -> None:
    assert failures.differing(failures.recognise(evidence(table_row(state="Table error")))) == ()
    counted = evidence(table_row(state="Table error"), task={"ReplicationTaskStats": {"TablesErrored": 1}})
    assert [failure.evidence for failure in failures.recognise(counted)] == [
        "table shop.orders is in state Table error while the task is running"
    ]
