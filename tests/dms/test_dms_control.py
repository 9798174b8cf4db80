"""From what is known to a plan: what is refused before anybody is asked, what is asked when, and a plan that became another one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dbops import asking
from dbops.dms import account, control, lint
from dbops.dms.carry import CarryError
from dbops.dms.control import ControlError, Wanted
from dbops.dms.facts import Check
from dbops.dms.ledger import Claimed
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec
from tests.dms.dms_kit import CHECKPOINT, LOG, SAFE, SOURCE_ARN, table_row
from tests.dms.watch_kit import ARN, NOW, World, of, world

RUN = "dms_task_control/one"
ORDERS, LINES = Table("shop", "orders"), Table("shop", "lines")
SPEC = DmsSpec.model_validate(of("shop"))
TASK = f"{ARN}:task:shop"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return world(tmp_path, monkeypatch, "shop")


def spec(**more: Any) -> DmsSpec:
    return DmsSpec.model_validate(of("shop", **more))


def held(made: World, one: DmsSpec = SPEC) -> account.Account:
    return asking.ask(made.cloud, account.look([one]))


def judged(made: World, one: DmsSpec = SPEC, **wanted: Any) -> control.Judged:
    return control.judge(made.services, one, held(made, one), Wanted(**wanted))


def looked(made: World, one: DmsSpec = SPEC, run: str = RUN, **wanted: Any) -> dict[str, Any]:
    seen = control.look(made.services, [one], held(made, one), Wanted(**wanted), run, {})
    return seen[one.name]


def asked_tables(made: World) -> int:
    return made.cloud.calls["describe_table_statistics"]


# Wrong before anything is asked


@pytest.mark.parametrize(
    ("more", "wanted", "text"),
    [
        ({}, {"action": "ensure", "tables": (ORDERS,)}, "tables: shop.orders are named, but action is ensure; leave them out"),
        ({}, {"action": "stop", "tables": (ORDERS, LINES)}, "tables: shop.orders, shop.lines are named, but action is stop"),
        ({"task_type": "full-load"}, {"action": "drain"}, "action: drain is for a task that follows changes; shop is full-load"),
        ({"task_type": "cdc"}, {"action": "reload_target"}, "action: reload_target needs a load; shop is cdc"),
        ({"task_type": "cdc"}, {"action": "reload_tables"}, "action: reload_tables needs a load; shop is cdc"),
        ({"overrides": {"no_such_rule": "why"}}, {}, "overrides: no_such_rule is no rule and no check; correct the spec"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_asked(
    made: World, more: dict[str, Any], wanted: dict[str, Any], text: str
) -> None:
    seen = held(made)
    made.cloud.calls.clear()
    with pytest.raises(ControlError) as error:
        control.judge(made.services, spec(**more), seen, Wanted(**wanted))
    assert text in str(error.value)
    assert (made.asked, made.cloud.calls.total()) == ([], 0)


def test_an_override_of_a_check_of_either_server_is_known() -> None:
    from dbops.dms import checks, target

    for known in sorted(checks.ids() | target.ids()):
        control.check(spec(overrides={known: "we know"}), Wanted())


# Statistics are asked for where counts do not suffice


def test_counts_that_say_complete_cost_no_question(made: World) -> None:
    found = judged(made)
    assert (found.statistics, asked_tables(made)) == (None, 0)
    assert found.plan.is_empty
    assert found.decision.action == "none"


@pytest.mark.parametrize(
    "counts",
    [
        {"TablesErrored": 1}, {"TablesLoading": 1}, {"TablesQueued": 1}, {"TablesLoaded": 0},
        {"TablesErrored": None}, {"TablesLoading": None}, {"TablesQueued": None}, {"TablesLoaded": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_count_that_is_missing_or_not_zero_is_looked_into(made: World, counts: dict[str, Any]) -> None:
    made.cloud.count("shop", **counts)
    assert judged(made).statistics is not None
    assert asked_tables(made) == 1


@pytest.mark.parametrize("status", ["stopped", "failed", "ready", "starting", "something new"])
def test_counts_of_a_task_that_does_not_run_prove_nothing(made: World, status: str) -> None:
    made.cloud.task("shop")["Status"] = status
    assert judged(made).statistics is not None


def test_tables_that_differ_or_are_in_quarantine_are_looked_into_whatever_the_counts_say(made: World) -> None:
    made.ledger.save_comparison("shop", [comparison(ORDERS, "differ")], NOW)
    found = judged(made)
    assert asked_tables(made) == 1
    assert (found.decision.action, [one.kind for one in found.plan.steps]) == ("reload_tables", ["reload_tables"])
    made.ledger.save_comparison("shop", [comparison(ORDERS, "equal")], NOW + timedelta(minutes=1))
    assert judged(made).statistics is None


def comparison(table: Table, status: str) -> Any:
    return SimpleNamespace(
        table=table, status=status, source_rows=1, target_rows=0, missing=1, extra=0, differing=0, sample=(), reason=""
    )


def test_rows_compared_before_the_last_load_say_nothing_of_it(made: World) -> None:
    made.ledger.save_comparison("shop", [comparison(ORDERS, "differ")], NOW)
    made.cloud.tables[TASK] = [table_row("orders", FullLoadStartTime=NOW + timedelta(minutes=5))]
    assert judged(made).decision.action == "none"


@pytest.mark.parametrize("action", ["status", "stop", "start", "resume", "reload_tables"])
def test_a_person_who_acts_on_one_task_sees_its_tables(made: World, action: Any) -> None:
    assert judged(made, action=action).statistics is not None


# The source


def test_a_running_task_needs_no_source(made: World) -> None:
    judged(made)
    assert made.asked == []


def test_a_source_that_cannot_be_asked_is_unknown_and_said(made: World) -> None:
    made.cloud.task("shop").update(Status="stopped", StopReason="Stop Reason RECOVERABLE_ERROR")
    made.is_source_down = True
    found = judged(made)
    assert found.source_error == "the source (mysql_default) could not be asked: no route to host"
    assert found.source_error in found.document["notes"], "the report shows the notes"
    assert found.decision.action == "refuse"
    assert "nobody knows whether the source has its log" in found.decision.reason


def test_a_task_that_stands_is_resumed_when_the_source_has_its_log(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.cloud.task("shop").update(Status="stopped", StopReason="Stop Reason RECOVERABLE_ERROR")
    assert (judged(made).decision.action, judged(made).source_error) == ("resume", "")
    monkeypatch.setattr(control.source, "binary_logs", lambda *_: (LOG.replace("000002", "000003"),))
    found = judged(made)
    assert (found.decision.action, found.decision.proposed) == ("refuse", "reload_target")
    assert found.plan.approvals
    assert not found.approved.approvals
    assert [one.kind for one in found.approved.steps] == ["start_task"]


def test_restarts_without_progress_come_to_an_end(made: World) -> None:
    made.cloud.task("shop").update(Status="stopped", StopReason="Stop Reason RECOVERABLE_ERROR")
    for number in range(SPEC.limits.restarts):
        assert judged(made).decision.action == "resume"
        made.ledger.restarted("shop", CHECKPOINT, NOW + timedelta(minutes=number), restart_id=str(number))
    assert "restarted too often without progress" in judged(made).decision.reason
    made.cloud.task("shop")["RecoveryCheckpoint"] = CHECKPOINT.replace(":4:", ":9:")
    assert judged(made).decision.action == "resume"


def test_a_server_that_dms_cannot_read_from_stops_a_start_and_not_a_task_that_runs(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Check("binlog_format", "stop", "server", "STATEMENT", "set ROW")
    warn = Check("retention", "warning", "server", "3 h", "raise it")
    monkeypatch.setattr(control.source, "check", lambda *_, **__: (stop, warn))
    assert judged(made).plan.is_empty
    made.cloud.rows["describe_replication_tasks"].clear()
    found = judged(made)
    assert [one for one in found.plan.refusals if "binlog_format" in one]
    assert found.checks == (stop, warn)
    assert str(warn) in found.notes


def test_the_position_of_the_task_before_is_asked_for_where_none_has_run(made: World) -> None:
    of_before = SimpleNamespace(
        identifier="shop", source_arn=SOURCE_ARN, status="stopped", raw_status="", stop_reason="", raw_stop_reason="",
        checkpoint=CHECKPOINT,
    )  # fmt: skip
    made.ledger.save_checkpoint("shop", of_before, None, NOW)
    made.cloud.rows["describe_replication_tasks"].clear()
    found = judged(made, spec(task_type="cdc"))
    assert found.decision.action == "cdc_from_checkpoint"
    assert found.plan.steps[-1].arguments["CdcStartPosition"] == CHECKPOINT
    with_load = judged(made)
    assert with_load.decision.proposed == "start", "its predecessor has loaded the target"


# Tables that fail


def test_a_failure_counts_once_and_a_table_that_fails_too_often_is_left_to_a_person(made: World) -> None:
    made.cloud.count("shop", TablesErrored=1)
    for number in range(1, SPEC.quarantine_after + 1):
        began = NOW + timedelta(hours=number)
        made.cloud.tables[TASK] = [table_row("orders"), table_row("lines", "Table error", FullLoadStartTime=began)]
        for again in ("a", "b"):
            document = looked(made, run=f"{RUN}{number}{again}")
            assert [one.failures for one in made.ledger.failing("shop")] == [number], again
    assert made.ledger.quarantined("shop", SPEC.quarantine_after) == (LINES,)
    document = looked(made, run="after")
    assert document["steps"] == []
    assert "tables that failed too often" in document["refusals"][0]
    # Whoever names it takes it out.
    assert [one["kind"] for one in looked(made, run="named", action="reload_tables", tables=(LINES,))["steps"]] == [
        "reload_tables"
    ]
    made.ledger.release("shop", LINES, "dba")
    assert [one["kind"] for one in looked(made, run="released")["steps"]] == ["reload_tables"]


def test_a_load_that_ended_well_ends_the_count(made: World) -> None:
    made.ledger.table_failed("shop", ORDERS, "Table error", NOW)
    made.cloud.count("shop", TablesLoaded=0)
    made.cloud.tables[TASK] = [table_row("orders", FullLoadEndTime=NOW + timedelta(minutes=30))]
    looked(made, run="soon")
    assert made.ledger.failing("shop") != (), "it may fail as soon as changes are applied"
    made.cloud.tables[TASK] = [table_row("orders", FullLoadEndTime=NOW + timedelta(hours=2))]
    looked(made, run="later")
    assert made.ledger.failing("shop") == ()


# Approvals and digests


def test_what_is_approved_is_the_digest_of_the_plan_as_it_is_when_approved(made: World) -> None:
    found = judged(made, spec(protected=True), action="stop")
    assert found.plan.approvals == ("stopping needs an approval, because the spec declares the task as protected",)
    assert found.approved.approvals == ()
    assert found.document["digest"] == found.approved.digest
    assert [one["kind"] for one in found.document["steps"]] == ["save_checkpoint", "stop_task"]
    assert judged(made, spec(protected=True), action="stop").document["digest"] == found.document["digest"]
    assert judged(made, action="stop").plan.approvals == ()
    assert judged(made, action="delete").document["digest"] != found.document["digest"]


def test_draining_goes_on_until_the_moment_that_was_given(made: World) -> None:
    at = datetime(2026, 3, 1, 11, 59, 30, tzinfo=UTC)
    document = looked(made, action="drain", drain_at=at)
    assert [one["kind"] for one in document["steps"]] == ["save_checkpoint", "stop_task", "start_task"]
    assert document["steps"][-1]["arguments"]["CdcStopPosition"] == "commit_time:2026-03-01T11:59:30"
    assert document["drain_at"] == at.isoformat()
    control.require_unchanged(made.services, SPEC, document)
    other = {**document, "drain_at": (at + timedelta(seconds=1)).isoformat()}
    with pytest.raises(ControlError, match="has changed since the plan was made"):
        control.require_unchanged(made.services, SPEC, other)


# A plan that became another one


def changed(made: World) -> None:
    made.cloud.tables[TASK] = [table_row("orders", "Table error"), table_row("lines", "Table error")]


def stopped(made: World) -> None:
    made.cloud.task("shop").update(Status="stopped", StopReason="Stop Reason NORMAL")


def repaired(made: World) -> None:
    made.cloud.count("shop", TablesErrored=0)
    made.cloud.tables[TASK] = [table_row("orders")]


@pytest.mark.parametrize("change", [changed, stopped, repaired])
def test_a_plan_that_would_be_another_one_now_is_not_begun(made: World, change: Any) -> None:
    made.cloud.count("shop", TablesErrored=1)
    made.cloud.tables[TASK] = [table_row("orders", "Table error"), table_row("lines")]
    document = looked(made)
    control.require_unchanged(made.services, SPEC, document)
    change(made)
    with pytest.raises(ControlError, match=r"the task has changed .* planned was .*reload_tables.*; now it would be"):
        control.require_unchanged(made.services, SPEC, document)


def test_another_task_under_the_same_name_is_not_touched(made: World) -> None:
    document = looked(made, action="stop")
    made.cloud.task("shop")["ReplicationTaskArn"] = f"{TASK}-another"
    with pytest.raises(CarryError, match=f"is {TASK}-another now, planned was {TASK}; run again"):
        control.require_unchanged(made.services, SPEC, document)


def test_settings_that_somebody_changed_meanwhile_make_another_plan(made: World) -> None:
    document = looked(made, action="resume")
    wrong = {**SAFE, "Logging": {"EnableLogging": False}}
    made.cloud.task("shop")["ReplicationTaskSettings"] = json.dumps(wrong)
    with pytest.raises(ControlError, match="modify_task"):
        control.require_unchanged(made.services, SPEC, document)


# What a run keeps


def test_a_spec_of_another_run_is_left_to_it_in_a_run_over_many(made: World) -> None:
    refused = {"shop": Claimed("shop", "dms_task_control/other", NOW + timedelta(hours=1))}
    made.cloud.count("shop", TablesErrored=1)
    seen = control.look(made.services, [SPEC], held(made), Wanted(), RUN, {}, refused=refused)["shop"]
    assert seen["decision"]["action"] == "wait"
    assert "dms_task_control/other" in seen["decision"]["reason"]
    assert [seen[key] for key in ("error", "steps", "carry", "compare", "prove")] == ["", [], False, False, False]
    assert asked_tables(made) == 0
    assert [one.kind for one in made.ledger.events("shop")] == ["decision"]


def test_what_one_spec_cannot_be_asked_is_raised_for_one_and_kept_for_many(made: World) -> None:
    made.cloud.fails["describe_table_statistics"] = OSError("timed out")
    made.cloud.count("shop", TablesErrored=1)
    with pytest.raises(OSError, match="timed out"):
        looked(made)
    assert made.ledger.plan(RUN, "shop") is None
    kept = control.look(made.services, [SPEC], held(made), Wanted(), RUN, {}, refused={})["shop"]
    assert kept["error"] == "OSError: timed out"
    assert kept["carry"]
    assert kept["health"]["verdict"] == "unknown"


def test_the_plan_is_kept_with_its_decision_in_one_line(made: World) -> None:
    document = looked(made)
    assert made.ledger.plan(RUN, "shop") == json.loads(json.dumps(document))
    (event,) = made.ledger.events("shop")
    assert event.reason == control.headline(document)
    assert event.reason == "none, because the task is running, and every table is complete: no step"
    assert event.document == document["decision"]


@pytest.mark.parametrize(
    ("more", "action", "kinds", "waits"),
    [
        ({}, "ensure", ["start_task"], "loaded"), ({}, "ensure", ["reload_tables"], "loaded"),
        ({}, "ensure", ["modify_endpoint"], ""), ({}, "stop", ["save_checkpoint", "stop_task"], ""),
        ({"task_type": "cdc"}, "ensure", ["start_task"], ""), ({}, "drain", ["stop_task", "start_task"], "drained"),
        ({"task_type": "cdc"}, "drain", ["start_task"], "drained"), ({}, "drain", [], ""), ({}, "ensure", [], ""),
    ],
)  # fmt: skip
def test_what_a_run_waits_for(more: dict[str, Any], action: str, kinds: list[str], waits: str) -> None:
    document = {"action": action, "steps": [{"kind": kind} for kind in kinds]}
    assert control.awaited(spec(**more), document) == waits


# What is to be compared


def test_a_table_is_compared_once_after_each_load(made: World) -> None:
    def due() -> tuple[Table, ...]:
        one = judged(made, action="status")
        return control.to_compare(made.services, SPEC, one.task, one.statistics)

    made.cloud.tables[TASK] = [
        table_row("orders", FullLoadEndTime=NOW), table_row("lines", "Full load"), table_row("bad", "Table error", FullLoadEndTime=NOW),
        table_row("never"),
    ]  # fmt: skip
    assert due() == (ORDERS,)
    made.ledger.save_comparison("shop", [comparison(ORDERS, "unsettled")], NOW + timedelta(minutes=1))
    assert due() == (ORDERS,), "rows that still change are compared again"
    made.ledger.save_comparison("shop", [comparison(ORDERS, "equal")], NOW + timedelta(minutes=2))
    assert due() == ()
    made.cloud.tables[TASK][0]["FullLoadEndTime"] = NOW + timedelta(hours=1)
    assert due() == (ORDERS,)


def test_without_statistics_the_end_of_the_whole_load_tells(made: World) -> None:
    made.cloud.count("shop", FullLoadFinishDate=NOW)
    assert looked(made, run="a")["compare"]
    made.ledger.save_comparison("shop", [comparison(ORDERS, "equal")], NOW + timedelta(minutes=1))
    assert not looked(made, run="b")["compare"]
    made.cloud.count("shop", FullLoadFinishDate=NOW + timedelta(hours=1))
    assert looked(made, run="c")["compare"]
    assert asked_tables(made) == 0
    assert not control.to_compare(made.services, spec(task_type="cdc"), held(made).task(SPEC), None)


def test_the_linter_speaks_in_every_plan(made: World) -> None:
    loud = spec(settings={})
    assert lint.lint(loud)
    assert looked(made, loud)["findings"]
