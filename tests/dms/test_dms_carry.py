"""The steps of a plan, carried out by a run that may die at any of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from dbops import asking
from dbops.dms import account, carry, decision, plan, states
from dbops.dms.carry import CarryError
from dbops.dms.mappings import Table
from dbops.dms.plan import Plan, Step
from dbops.dms.spec import DmsSpec
from tests.dms.dms_kit import CHECKPOINT, LOG, SAFE, spec, table_row
from tests.dms.fake_dms import START, FakeDms, FakeLedger, Killed

RUN = "dms_task_control/one"
MAX_LOOKS = 200


def made(of: DmsSpec, dms: FakeDms, **more: Any) -> Plan:
    held = asking.ask(dms, account.look([of]))
    task = held.task(of)
    seen = asking.ask(dms, states.statistics(task)) if task.arn else None
    tables = more.pop("tables", ())
    known = decision.known(task, of.task_type, statistics=seen, logs=[LOG], empties=False, approved=True, **more)
    return plan.make(of, held.world(of), known, tables=tables)


def carried(of: DmsSpec, dms: FakeDms, ledger: FakeLedger, steps: tuple[Step, ...], run: str = RUN) -> None:
    """As an operator does: look again until nothing is waited for."""
    for _ in range(MAX_LOOKS):
        if carry.advance(dms, ledger, of, run, list(steps), dms.now) is None:
            return
    pytest.fail("it never came to its end")


def running(of: DmsSpec | None = None, looks: int = 1) -> FakeDms:
    dms = FakeDms()
    dms.tables = [table_row("orders", FullLoadStartTime=START), table_row("lines", FullLoadStartTime=START)]
    of = of or spec()
    carried(of, dms, FakeLedger(), made(of, dms).steps, "before")
    dms.changed.clear()
    dms.looks = looks
    return dms


@pytest.mark.parametrize("looks", [1, 3, 7])
def test_everything_is_made_once_and_the_next_plan_is_empty(looks: int) -> None:
    dms, ledger, of = FakeDms(looks), FakeLedger(), spec()
    dms.tables = [table_row()]
    carried(of, dms, ledger, made(of, dms).steps)
    assert dms.changed == {
        "create_endpoint": 2, "test_connection": 2, "create_replication_task": 1, "start_replication_task": 1
    }  # fmt: skip
    assert made(of, dms).is_empty
    assert [kind for kind, _ in ledger.notes] == [
        "create_endpoint", "create_endpoint", "test_connection", "test_connection", "create_task", "start_task"
    ]  # fmt: skip


CHANGED = spec(settings={**SAFE, "Logging": {"EnableLogging": False}})
MOVED = spec(compute={"kind": "instance", "identifier": "dms-two"})


@pytest.mark.parametrize("kill_after", [True, False], ids=["after the call", "before the call"])
@pytest.mark.parametrize("kill_at", range(1, 7))
def test_a_run_killed_at_any_call_goes_on_and_calls_nothing_twice(kill_at: int, kill_after: bool) -> None:
    dms, ledger, of = FakeDms(2, kill_at, kill_after), FakeLedger(), spec()
    dms.tables = [table_row()]
    steps = made(of, dms).steps
    with pytest.raises(Killed):
        carried(of, dms, ledger, steps)
    carried(of, dms, ledger, steps)
    # A test of a connection changes nothing: the one whose answer was lost is made again.
    assert {name: n for name, n in dms.changed.items() if name != "test_connection"} == {
        "create_endpoint": 2, "create_replication_task": 1, "start_replication_task": 1
    }  # fmt: skip
    assert dms.changed["test_connection"] <= 3
    assert made(of, dms).is_empty


@pytest.mark.parametrize("kill_after", [True, False], ids=["after the call", "before the call"])
@pytest.mark.parametrize("kill_at", range(1, 4))
@pytest.mark.parametrize(("of", "change"), [(CHANGED, "modify_replication_task"), (MOVED, "move_replication_task")])
def test_a_change_killed_at_any_call_ends_with_a_running_task(
    of: DmsSpec, change: str, kill_at: int, kill_after: bool
) -> None:
    dms, ledger = running(), FakeLedger()
    steps = made(of, dms).steps
    assert [step.kind for step in steps if step.kind != "test_connection"][:2] == ["save_checkpoint", "stop_task"]
    dms.kill_at, dms.kill_after = kill_at, kill_after
    with pytest.raises(Killed):
        carried(of, dms, ledger, steps)
    carried(of, dms, ledger, steps)
    assert {name: n for name, n in dms.changed.items() if name != "test_connection"} == {
        "stop_replication_task": 1, change: 1, "start_replication_task": 1
    }  # fmt: skip
    assert ledger.checkpoints[0] == CHECKPOINT
    assert made(of, dms).is_empty
    assert len(ledger.restarts) == 1


def test_a_table_that_said_completed_before_its_reload_is_not_taken_for_reloaded() -> None:
    dms, ledger, of = running(looks=30), FakeLedger(), spec()
    steps = made(of, dms, wish="reload_tables", tables=[Table("shop", "orders")]).steps
    assert [step.kind for step in steps] == ["reload_tables"]
    waiting = carry.advance(dms, ledger, of, RUN, list(steps), dms.now)
    assert waiting is not None
    assert dms.tables[0]["TableState"] == "Table completed"
    assert "load before is still the last" in waiting.progress.text
    carried(of, dms, ledger, steps)
    assert dms.changed == {"reload_tables": 1}
    assert dms.tables[0]["FullLoadStartTime"] > START
    assert dms.tables[1]["FullLoadStartTime"] == START


def test_an_old_successful_connection_test_is_no_success() -> None:
    dms, ledger, of = running(), FakeLedger(), spec()
    known = asking.ask(dms, account.one(of))
    arn = plan.arns(of, known.world(of))[plan.TARGET]
    step = Step(
        "test_connection", "shop-green", "asked", "test_connection",
        {"ReplicationInstanceArn": plan.INSTANCE, "EndpointArn": plan.TARGET},
    )  # fmt: skip
    assert dms.tests[arn]["Status"] == "successful"
    dms.test_result = "failed"
    with pytest.raises(CarryError, match=r"shop-green was failed: no route"):
        carried(of, dms, ledger, (step,))
    assert dms.changed == {"test_connection": 1}


def test_what_aws_refuses_for_another_reason_is_said() -> None:
    dms, of = running(), spec()
    next(iter(dms.tasks.values()))["Status"] = "failed-move"
    start = plan.make(
        of, asking.ask(dms, account.one(of)).world(of),
        decision.known(states.task({**next(iter(dms.tasks.values())), "Status": "stopped", "StopReason": "NORMAL"}), of.task_type,
                       statistics=[states.table_statistics(table_row())], logs=[LOG], empties=False, approved=True),
    ).steps  # fmt: skip
    assert [step.kind for step in start] == ["start_task"]
    with pytest.raises(CarryError, match="AWS refuses it: InvalidResourceStateFault"):
        carried(of, dms, FakeLedger(), start)


def test_an_effect_that_never_comes_is_given_up_and_named() -> None:
    dms, ledger, of = FakeDms(10**6), FakeLedger(), spec()
    steps = list(made(of, dms).steps)
    waiting = carry.advance(dms, ledger, of, RUN, steps, dms.now)
    assert waiting is not None
    assert waiting.deadline <= dms.now() + timedelta(minutes=of.limits.start_minutes)
    dms._clock += timedelta(minutes=of.limits.start_minutes)
    with pytest.raises(CarryError, match=r"create_endpoint shop-blue: .*is creating since"):
        carry.advance(dms, ledger, of, RUN, steps, dms.now)


def test_another_task_under_the_planned_name_is_not_touched() -> None:
    dms, of = running(), spec()
    held = asking.ask(dms, account.one(of))
    carry.unchanged(of, held, held.task(of).arn)
    with pytest.raises(CarryError, match="run again"):
        carry.unchanged(of, held, "arn:aws:dms:eu-central-1:123456789012:task:OTHER")


def test_a_deleted_task_leaves_its_checkpoint() -> None:
    dms, ledger, of = running(), FakeLedger(), spec()
    next(iter(dms.tasks.values()))["Status"] = "stopped"
    task = asking.ask(dms, states.one_task(of.task_identifier))
    carried(of, dms, ledger, plan.delete(of, task, is_approved=True).steps)
    assert dms.tasks == {}
    assert ledger.checkpoints == [CHECKPOINT]


def test_a_step_is_the_same_after_it_was_kept() -> None:
    dms, of = FakeDms(), spec()
    for step in made(of, dms).steps:
        assert carry.step_of(json.loads(json.dumps(carry.step_document(step)))) == step


@pytest.mark.parametrize(
    ("rows", "task", "state", "said"),
    [
        ([table_row()], {}, "done", "1 tables are complete"),
        ([table_row(), table_row("lines", "Full load")], {}, "under way", "shop.lines"),
        ([table_row(), table_row("lines", "Table error")], {}, "failed", "shop.lines is in state Table error"),
        ([table_row(FullLoadErrorRows=3)], {}, "failed", "3 rows failed"),
        ([], {}, "under way", "0 left"),
        ([table_row()], {"Status": "starting"}, "under way", "starting"),
        ([table_row()], {"Status": "failed", "LastFailureMessage": "no binlog"}, "failed", "no binlog"),
        ([table_row()], {"Status": "stopped", "StopReason": "Stop Reason FATAL_ERROR"}, "failed", "FATAL_ERROR"),
        ([table_row()], {"Status": "stopped", "StopReason": "Stop Reason STOPPED_AFTER_FULL_LOAD"}, "done", "every table"),
        ([table_row()], {"ReplicationTaskStats": {"TablesErrored": 2}}, "failed", "2 tables with errors"),
    ],
)  # fmt: skip
def test_a_load_has_ended_well_only_when_every_table_says_so(
    rows: list[dict[str, Any]], task: dict[str, Any], state: str, said: str
) -> None:
    dms = running()
    dms.tables = rows
    next(iter(dms.tasks.values())).update(task)
    found = asking.ask(dms, carry.loaded(spec()))
    assert found.state == state, found
    assert said in found.text


@pytest.mark.parametrize(
    ("task", "state"),
    [
        ({"Status": "running"}, "under way"),
        ({"Status": "stopped", "StopReason": "Stop Reason STOPPED_AT_COMMIT_TIME"}, "done"),
        ({"Status": "stopped", "StopReason": "Stop Reason NORMAL"}, "failed"),
        ({"Status": "stopped", "StopReason": "Stop Reason FATAL_ERROR"}, "failed"),
        ({"Status": "failed"}, "failed"),
    ],
)
def test_a_task_is_drained_only_at_its_position(task: dict[str, Any], state: str) -> None:
    dms = running()
    next(iter(dms.tasks.values())).update(task)
    assert asking.ask(dms, carry.drained(spec())).state == state
