"""What a stranger's production would suffer from: a look, a plan and a carrying out against histories that went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops import asking
from dbops.dms import account, apply_exceptions, carry, control, plan, proving
from dbops.dms.carry import CarryError
from dbops.dms.control import ControlError, Judged, Services, Wanted
from dbops.dms.ledger import Ledger
from dbops.dms.mappings import Table
from dbops.dms.reconcile import Comparison
from dbops.dms.spec import DmsSpec
from tests.dms.dms_kit import CHECKPOINT, LOG, MYSQL, ROLE, spec, table_row
from tests.dms.fake_dms import START, FakeDms

RUN = "dms_task_control/one"
CDC: dict[str, Any] = {"task_type": "cdc"}


class World:
    """A DMS, a ledger and a source with its logs."""

    def __init__(self, path: Path) -> None:
        self.dms = FakeDms(1)
        self.dms.tables = [table_row("orders", FullLoadStartTime=START, FullLoadEndTime=START)]
        self.engine = sa.create_engine(f"sqlite:///{path}/store.db")
        self.ledger = Ledger.open(self.engine, self.dms.now)
        self.logs: tuple[str, ...] | None = (LOG,)
        self.services = Services(self.dms, None, self.ledger, self._connect, self.dms.now)

    @contextmanager
    def _connect(self, _: str) -> Iterator[World]:
        yield self

    def judge(self, of: DmsSpec, action: Any = "ensure", tables: tuple[Table, ...] = ()) -> Judged:
        held = self.held(of)
        self.ledger.saw({of.name: held.task(of)}, self.dms.now())
        found = control.judge(self.services, of, held, Wanted(action, tables))
        control.remember(self.services, found, self.ledger.recall([of.name]))
        return found

    def held(self, of: DmsSpec) -> account.Account:
        return asking.ask(self.dms, account.look([of]))

    def carry(self, of: DmsSpec, steps: Any, run: str = RUN) -> None:
        for _ in range(200):
            if carry.advance(self.dms, self.ledger, of, run, list(steps), self.dms.now) is None:
                return
        pytest.fail("it never came to its end")

    def made(self, of: DmsSpec) -> dict[str, Any]:
        """The task, made and started; returns its row."""
        self.carry(of, self.judge(of).approved.steps, "before")
        self.dms.changed.clear()
        return self.row(of)

    def row(self, of: DmsSpec) -> dict[str, Any]:
        return self.dms.tasks[of.task_identifier]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    monkeypatch.setattr(control.source, "binary_logs", lambda connection: connection.logs)
    monkeypatch.setattr(control, "_preflight", lambda *_: ((), (), ()))
    yield made
    made.engine.dispose()


def action(found: Judged) -> tuple[str, str | None]:
    return found.decision.action, found.decision.proposed


# A task that somebody deleted ---------------------------------------------------------------------------------------


def test_a_task_that_follows_changes_and_was_deleted_in_the_console_begins_where_it_was_seen(world: World) -> None:
    of = spec(**CDC)
    world.made(of)
    assert world.judge(of).plan.is_empty
    world.dms.tasks.clear()
    found = world.judge(of)
    assert found.decision.action == "cdc_from_checkpoint", found.decision
    assert found.approved.steps[-1].arguments["CdcStartPosition"] == CHECKPOINT


@pytest.mark.parametrize("task_type", ["full-load", "full-load-and-cdc"])
def test_a_load_is_not_repeated_without_approval_because_its_task_was_deleted(world: World, task_type: str) -> None:
    of = spec(task_type=task_type, protected=False)
    world.made(of)["RecoveryCheckpoint"] = None
    world.judge(of)
    world.dms.tasks.clear()
    assert action(world.judge(of)) == ("refuse", "start")
    assert world.judge(of).plan.approvals


def test_a_task_that_was_made_and_never_ran_is_no_predecessor(world: World) -> None:
    of = spec()
    world.carry(of, world.judge(of).approved.steps[:-1])
    world.judge(of)
    world.dms.tasks.clear()
    assert world.judge(of).decision.action == "start"


def test_a_task_before_without_a_checkpoint_is_not_passed_over(world: World) -> None:
    of = spec(**CDC)
    world.made(of)["RecoveryCheckpoint"] = None
    world.judge(of)
    world.dms.tasks.clear()
    for asked in ("ensure", "start"):
        found = world.judge(of, asked)
        assert any("left no checkpoint" in one for one in found.approved.refusals), found.approved
    other = spec(**CDC, cdc_start=f"{LOG}:900")
    assert world.judge(other).approved.steps[-1].arguments["CdcStartPosition"] == f"{LOG}:900"


def test_a_checkpoint_of_another_source_is_not_begun_from(world: World) -> None:
    of = spec(**CDC)
    world.made(of)
    world.judge(of)
    world.dms.tasks.clear()
    other = spec(**CDC, source={**MYSQL, "identifier": "shop-other"})
    for asked in ("ensure", "start"):
        found = world.judge(other, asked)
        assert any("is of source endpoint" in one for one in found.approved.refusals), found.approved


@pytest.mark.parametrize(
    ("declared", "begins"),
    [(f"{LOG}:2", CHECKPOINT), (f"{LOG}:900", f"{LOG}:900"), ("2026-01-01T00:00:00", CHECKPOINT)],
)
def test_a_declared_position_is_for_the_first_task_and_does_not_go_back(
    world: World, declared: str, begins: str
) -> None:
    of = spec(**CDC, cdc_start=declared)
    world.carry(of, world.judge(of, "start").approved.steps, "before")
    world.judge(of)
    world.dms.tasks.clear()
    assert world.judge(of).approved.steps[-1].arguments["CdcStartPosition"] == begins


# Steps ----------------------------------------------------------------------------------------------------------------


def test_a_whole_new_load_is_not_done_because_somebody_else_resumed_the_task(world: World) -> None:
    of = spec(protected=False)
    row = world.made(of)
    row.update(Status="stopped", StopReason="Stop Reason NORMAL")
    (start,) = (step for step in world.judge(of, "reload_target").approved.steps if step.kind == "start_task")
    assert start.arguments["StartReplicationTaskType"] == "reload-target"
    world.ledger.step(
        RUN, of.name, 0, "noted", {"noted_at": START.isoformat(), **asking.ask(world.dms, carry.before(of, start))}
    )
    world.carry(of, world.judge(of).approved.steps, "watch")
    assert row["Status"] == "running"
    with pytest.raises(CarryError, match="AWS refuses it"):
        world.carry(of, [start])


def test_a_connection_is_tested_again_when_the_task_is_cleared_after_a_failed_test(world: World) -> None:
    of, dms = spec(), world.dms
    steps = world.judge(of).approved.steps
    dms.test_result = "failed"
    with pytest.raises(CarryError, match="no route"):
        world.carry(of, steps)
    with pytest.raises(CarryError, match="no route"):
        world.carry(of, steps)
    dms.test_result = "successful"
    world.carry(of, steps)
    assert world.row(of)["Status"] == "running"


def test_a_step_called_long_after_it_was_noted_has_its_whole_time(world: World) -> None:
    of, dms = spec(), world.dms
    world.made(of).update(Status="stopped", StopReason="Stop Reason NORMAL")
    steps = world.judge(of).approved.steps
    assert [step.kind for step in steps] == ["start_task"]
    world.ledger.step(
        RUN, of.name, 0, "noted", {"noted_at": dms.now().isoformat(), **asking.ask(dms, carry.before(of, steps[0]))}
    )
    dms._clock += timedelta(minutes=of.limits.start_minutes + 5)
    dms.looks = 5
    world.carry(of, steps)
    assert dms.changed == {"start_replication_task": 1}


def test_a_table_that_was_loaded_before_the_last_fresh_start_is_not_taken_for_loaded(world: World) -> None:
    of = spec()
    stats = world.made(of)["ReplicationTaskStats"]
    stats["FreshStartDate"] = START + timedelta(hours=1)
    found = asking.ask(world.dms, carry.loaded(of))
    assert (found.state, "shop.orders" in found.text) == ("under way", True), found
    world.dms.tables[0] |= {
        "FullLoadStartTime": START + timedelta(hours=2),
        "FullLoadEndTime": START + timedelta(hours=3),
    }
    assert asking.ask(world.dms, carry.loaded(of)).state == "done"


# A look that is old, a message that is old -------------------------------------------------------------------------------


def unchanged(world: World, of: DmsSpec, document: dict[str, Any]) -> None:
    control.require_unchanged(world.services, of, document)


def event(text: str, at: datetime, of: DmsSpec) -> dict[str, Any]:
    return {"SourceIdentifier": of.task_identifier, "SourceType": "replication-task", "Message": text, "Date": at}


def test_a_plan_that_follows_from_an_event_is_the_same_when_it_is_carried_out(world: World) -> None:
    of = spec(protected=False)
    world.made(of).update(Status="failed", StopReason="Stop Reason FATAL_ERROR")
    world.dms.events = [event("Could not find first log file name in binary log index file", world.dms.now(), of)]
    found = world.judge(of)
    assert action(found) == ("refuse", "reload_target")
    unchanged(world, of, found.document)


def test_what_was_said_before_the_last_start_holds_nothing_back(world: World) -> None:
    of = spec()
    world.dms.events = [
        event("Could not find first log file name in binary log index file", START - timedelta(hours=2), of)
    ]
    world.made(of).update(Status="failed", StopReason="Stop Reason RECOVERABLE_ERROR")
    assert world.judge(of).decision.action == "resume"


def test_what_a_task_of_the_same_name_said_holds_no_new_one_back(world: World) -> None:
    of = spec()
    world.dms.events = [event("Cannot connect to the source", START - timedelta(hours=2), of)]
    assert world.judge(of).decision.action == "start"
    row = world.made(of)
    for name in ("ReplicationTaskStartDate", "ReplicationTaskStats", "RecoveryCheckpoint"):
        row.pop(name, None)
    row.update(Status="ready", ReplicationTaskCreationDate=START)
    assert world.judge(of).decision.action == "start"
    row.update(ReplicationTaskCreationDate=START - timedelta(hours=3))
    assert world.judge(of).decision.action == "refuse"


def test_a_table_that_was_loaded_since_it_was_named_is_not_loaded_again(world: World) -> None:
    of = spec()
    world.made(of)
    world.row(of)["ReplicationTaskStats"] |= {"TablesLoading": None}
    said = world.dms.now()
    world.dms.events = [event("Table 'shop'.'orders': LOB column truncated to 32768 bytes", said, of)]
    assert world.judge(of).decision.action == "reload_tables"
    world.dms.tables[0] |= {
        "FullLoadStartTime": said + timedelta(minutes=1),
        "FullLoadEndTime": said + timedelta(minutes=2),
    }
    assert world.judge(of).decision.action == "none"


def test_a_plan_that_was_begun_is_not_gone_on_with_at_another_task_or_days_later(world: World) -> None:
    of = spec()
    row = world.made(of)
    row.update(Status="stopped", StopReason="Stop Reason NORMAL")
    document = world.judge(of, "delete").document
    world.ledger.step(RUN, of.name, 0, "done", {"noted_at": world.dms.now().isoformat()})
    control.require_same(world.services, of, document, world.ledger.steps(RUN, of.name))
    row["ReplicationTaskArn"] += "OTHER"
    with pytest.raises(CarryError, match="run again"):
        control.require_same(world.services, of, document, world.ledger.steps(RUN, of.name))
    row["ReplicationTaskArn"] = row["ReplicationTaskArn"].removesuffix("OTHER")
    world.dms._clock += timedelta(hours=30)
    with pytest.raises(ControlError, match="start a new run"):
        control.require_same(world.services, of, document, world.ledger.steps(RUN, of.name))


def test_a_task_that_the_plan_stops_is_not_asked_to_prove_that_it_runs(world: World) -> None:
    of = spec(protected=False, canary={"schema_name": "shop", "table": "canary"})
    world.made(of)
    assert proving.is_running(of, world.judge(of).document)
    stands = spec(protected=False, wanted="stopped", canary={"schema_name": "shop", "table": "canary"})
    found = world.judge(stands)
    assert [step.kind for step in found.approved.steps] == ["save_checkpoint", "stop_task"]
    assert not proving.is_running(stands, found.document)


# Who else is there ------------------------------------------------------------------------------------------------------


def test_a_status_neither_claims_nor_waits_for_the_run_that_works(world: World) -> None:
    of = spec()
    world.made(of)
    world.ledger.claim(of.name, "dms_task_watch/now", world.dms.now() + timedelta(hours=9), world.dms.now())
    asked = Wanted("status", is_looking=True)
    found = control.look(world.services, [of], world.held(of), asked, RUN, {})[of.name]
    assert found["decision"]["reason"].startswith("only looked")
    world.ledger.claim(of.name, "dms_task_watch/now", world.dms.now() + timedelta(hours=9), world.dms.now())


def test_two_specs_of_one_task_are_refused(world: World) -> None:
    one, other = spec(), spec(name="shop_lines", identifier="shop-orders", task_type="full-load")
    held = asking.ask(world.dms, account.look([one, other]))
    for of in (one, other):
        with pytest.raises(ControlError, match=r"shop_lines, shop_orders.*shop-orders"):
            control.judge(world.services, of, held, Wanted())


# What is kept -----------------------------------------------------------------------------------------------------------


def test_the_last_place_of_each_spec_is_kept_however_old(world: World) -> None:
    of = spec(**CDC)
    world.made(of)
    for _ in range(3):
        world.judge(of)
        world.dms._clock += timedelta(hours=1)
    world.row(of)["RecoveryCheckpoint"] = None
    world.judge(of)
    assert world.ledger.prune(world.dms.now() + timedelta(days=400)) > 0
    assert world.ledger.last_checkpoint(of.name) == CHECKPOINT
    assert world.ledger.has_run(of.name)
    with world.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT COUNT(*) FROM dms_checkpoint")).scalar_one() == 2


def test_plans_go_before_events_and_once_a_day(world: World) -> None:
    at = [datetime(2026, 5, 1, tzinfo=UTC)]
    ledger = Ledger(world.engine, lambda: at[0])
    ledger.note("s", "r", "decision", "none")
    ledger.keep_plan("r", "s", {"steps": []})
    at[0] += timedelta(days=30)
    assert ledger.tidy(at[0]) == 1
    assert (ledger.plan("r", "s"), ledger.count_events("s")) == (None, 1)
    ledger.keep_plan("r", "s", {"steps": []})
    at[0] += timedelta(hours=23)
    assert ledger.tidy(at[0]) == 0
    at[0] += timedelta(days=90)
    assert ledger.tidy(at[0]) >= 2
    assert ledger.count_events("s") == 0


def test_a_table_whose_reload_never_begins_comes_into_quarantine(world: World) -> None:
    of, dms = spec(protected=False), world.dms
    world.made(of)
    dms.tables.append(table_row("gone", "Table does not exist"))
    world.row(of)["ReplicationTaskStats"] |= {"TablesErrored": 1}
    dms._reload_tables = lambda given: None  # type: ignore[method-assign]
    dms._task = lambda given, *allowed: world.row(of)  # type: ignore[method-assign]
    reloads = 0
    for number in range(10):
        found = world.judge(of)
        if found.decision.action != "reload_tables":
            break
        reloads += 1
        run = f"watch/{number}"
        assert carry.advance(dms, world.ledger, of, run, list(found.approved.steps), dms.now) is not None
        dms._clock += timedelta(minutes=of.limits.start_minutes + 1)
        with pytest.raises(CarryError, match="load before is still the last"):
            carry.advance(dms, world.ledger, of, run, list(found.approved.steps), dms.now)
    assert reloads < of.quarantine_after + 1
    assert found.decision.action == "refuse"
    assert world.ledger.quarantined(of.name, of.quarantine_after) == (Table("shop", "gone"),)


# What a person has done -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["stop", "drain", "delete"])
def test_scheduled_runs_leave_alone_what_a_person_has_stopped_until_it_is_given_back(world: World, action: str) -> None:
    of = spec()
    row = world.made(of)
    control.remember_hand(world.services, of, RUN, {"action": action, "tables": []})
    if action == "delete":
        world.dms.tasks.clear()
    else:
        row |= {"Status": "stopped", "StopReason": "Stop Reason NORMAL"}
    watch = Wanted(is_watch=True)
    left = control.judge(world.services, of, world.held(of), watch)
    assert left.plan.is_empty
    assert f"{action} at" in left.decision.reason
    assert RUN in left.decision.reason
    assert control.look(world.services, [of], world.held(of), watch, "watch/1", {})[of.name]["carry"] is False
    world.ledger.prune(world.dms.now() + timedelta(days=1000))
    assert control.judge(world.services, of, world.held(of), watch).held_by
    assert world.judge(of).approved.steps, "a person's own run does what it is asked for"
    control.remember_hand(world.services, of, "dms_task_control/two", {"action": "ensure", "tables": []})
    assert control.judge(world.services, of, world.held(of), watch).approved.steps


def test_a_table_that_a_person_has_reloaded_has_left_its_quarantine(world: World) -> None:
    of, table = spec(), Table("shop", "orders")
    for number in range(of.quarantine_after):
        world.ledger.table_failed(of.name, table, "Table error", world.dms.now(), failure_id=str(number))
    assert world.ledger.quarantined(of.name, of.quarantine_after) == (table,)
    control.remember_hand(world.services, of, RUN, {"action": "reload_tables", "tables": ["shop.orders"]})
    assert world.ledger.quarantined(of.name, of.quarantine_after) == ()


def test_a_failed_assessment_is_repeated_under_another_name(world: World) -> None:
    of = spec(assessment={"bucket": "results", "role_arn": ROLE})
    step = plan.Step(
        "assess", of.task_identifier, "before its first start", "start_replication_task_assessment_run",
        {
            "ReplicationTaskArn": plan.TASK, "AssessmentRunName": plan.assessment_name(of), "ServiceAccessRoleArn": ROLE,
            "ResultLocationBucket": "results", "ResultLocationFolder": "dms-assessments",
        },
    )  # fmt: skip
    world.made(spec())
    world.dms.assessments = [{"AssessmentRunName": plan.assessment_name(of), "Status": "failed"}]
    world.dms.next_assessment = "failed"
    with pytest.raises(CarryError, match="assessment is failed"):
        world.carry(of, [step])
    world.dms.next_assessment = "passed"
    world.carry(of, [step])
    names = [one["AssessmentRunName"] for one in world.dms.assessments]
    assert names == [plan.assessment_name(of) + end for end in ("", "-2", "-3")]


# Rows that never come right ---------------------------------------------------------------------------------------------


def differs(world: World, of: DmsSpec, at: datetime, source: int = 10, target: int = 7) -> None:
    found = Comparison(Table("shop", "orders"), "differ", source_rows=source, target_rows=target, missing=3)
    world.ledger.save_comparison(of.name, [found], at)


def test_a_table_whose_rows_differ_after_each_reload_comes_into_quarantine(world: World) -> None:
    of = spec(protected=False)
    world.made(of)
    for number in range(1, of.quarantine_after + 1):
        began = START + timedelta(hours=number)
        world.dms.tables[0] |= {"FullLoadStartTime": began, "FullLoadEndTime": began + timedelta(minutes=1)}
        differs(world, of, began + timedelta(minutes=2))
        for _ in range(2):
            found = world.judge(of)
        assert [one.failures for one in world.ledger.failing(of.name)] == [number]
    assert world.ledger.quarantined(of.name, of.quarantine_after) == (Table("shop", "orders"),)
    found = world.judge(of)
    assert not found.approved.steps
    assert "failed too often" in found.decision.reason


def test_a_comparison_that_found_rows_missing_is_told_as_a_load_that_was_cut_short(world: World) -> None:
    of = spec()
    world.made(of)
    differs(world, of, START + timedelta(hours=1))
    (failure,) = world.judge(of).failures
    assert failure.kind == "load_cut_short"
    assert "7 rows at the target and 10 at the source" in str(failure)
    assert failure.tables == (Table("shop", "orders"),)


def test_rows_that_were_only_noted_at_the_target_are_found_although_every_count_is_fine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = spec(target_connection="mysql80", protected=False)
    world.made(of)
    assert world.judge(of).statistics is None
    seen = {("shop", "orders"): apply_exceptions.Noted(2, START + timedelta(days=1))}
    monkeypatch.setattr(apply_exceptions, "read", lambda *_: seen)
    found = world.judge(of)
    assert [one.kind for one in found.failures] == ["rows_absent"]
    assert [step.kind for step in found.approved.steps] == ["reload_tables"]
    assert world.ledger.failing(of.name)[0].reason == "its rows differ"


def test_a_target_that_cannot_be_asked_is_said_and_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    of = spec(target_connection="mysql80")
    world.made(of)

    def refuse(*_: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(apply_exceptions, "read", refuse)
    found = world.judge(of)
    assert found.plan.is_empty
    assert found.notes == ("rows that were not applied are unknown: the target (mysql80) says no route",)
