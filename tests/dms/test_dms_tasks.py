"""Tasks of the DMS runs, each by its execute(): what they wait for in the triggerer, what they refuse, and what an alert says."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from dbops.alerting import Explained
from dbops.dms import canary, hook, operators, reconciling
from dbops.dms.control import CLAIM
from dbops.dms.ledger import Claimed
from dbops.dms.mappings import Table
from dbops.dms.operators import (
    APPROVE,
    QUIET,
    REJECT,
    AwaitTaskOperator,
    CarryOutOperator,
    HealthOperator,
    ListApprovalsOperator,
    LookOperator,
    ReconcileOperator,
    ReportOperator,
)
from dbops.dms.reconcile import Comparison
from dbops.operators import Stopped
from dbops.reports import Verdict
from tests.dms.dms_kit import CHECKPOINT, table_row
from tests.dms.fake_dms import FakeDms
from tests.dms.watch_kit import ARN, NOW, World, of, row, world

CONTROL, WATCH = "dms_task_control", "dms_task_watch"
ITEM = {"spec": "shop", "carry": True, "compare": True, "prove": True}
TASK = f"{ARN}:task:shop"
CANARY = {"schema_name": "shop", "table": "dms_canary"}
BAD = [table_row("orders"), table_row("lines", "Table error")]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return world(tmp_path, monkeypatch, "shop")


def control(made: World, action: str = "ensure", run: str = "one", **params: Any) -> Any:
    given = {"spec": "shop", "action": action, "dry_run": False, "confirm": "shop", "tables": None, **params}
    return made.context(run, CONTROL, **given)


def begun(made: World, action: str = "ensure", run: str = "one", **params: Any) -> Any:
    """A run of dms_task_control after its look."""
    context = control(made, action, run, **params)
    context["ti"].kept["look", -1, "return_value"] = LookOperator(task_id="look").execute(context)
    return context


def watched(made: World, run: str = "one") -> Any:
    context = made.context(run, WATCH)
    LookOperator(task_id="look", watch=True).execute(context)
    return context


def carry_out(**more: Any) -> CarryOutOperator:
    return CarryOutOperator(task_id="carry_out", item=ITEM, **more)


def claimed_until(made: World, run: str = f"{CONTROL}/one") -> Any:
    with pytest.raises(Claimed) as error:
        made.ledger.claim("shop", "another", made.now + timedelta(hours=1), made.now)
    assert error.value.run == run
    return error.value.until


def moving(made: World, looks: int = 2) -> FakeDms:
    """An account that takes time, with the running task and its table that failed."""
    dms = FakeDms(looks)
    dms.tasks["shop"] = row("shop")
    dms.tables = [table_row("orders"), table_row("lines")]
    dms.endpoints = {one["EndpointIdentifier"]: one for one in made.cloud.rows["describe_endpoints"]}
    dms.tests = {one["EndpointArn"]: one for one in made.cloud.rows["describe_connections"]}
    dms.get_metric_data = made.cloud.get_metric_data
    made.cloud = dms
    return dms


def again(trigger: Any) -> Any:
    """The trigger as the triggerer makes it: from JSON."""
    path, given = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(given)))


# Look


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"spec": None}, "spec is empty: name one; known specs: shop"), ({"spec": "shpo"}, "no spec named 'shpo'"),
        ({"action": "stop", "confirm": None}, "confirm is None: type 'shop' to let this run stop"),
        ({"action": "delete", "confirm": "shpo"}, "confirm is 'shpo': type 'shop' to let this run delete"),
        ({"action": "drain", "confirm": ""}, "to let this run drain"),
        ({"action": "reload_target", "confirm": ""}, "to let this run reload_target"),
        ({"action": "reload_tables", "confirm": ""}, "to let this run reload_tables"),
        ({"action": "reload_tables", "tables": ["orders"]}, "tables: 'orders' is not schema.table"),
        ({"action": "ensure", "tables": ["shop.orders"]}, "tables: shop.orders are named, but action is ensure"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_and_nothing_is_called(made: World, params: dict[str, Any], text: str) -> None:
    with pytest.raises(Stopped) as error:
        LookOperator(task_id="look").execute(control(made, **params))
    assert text in str(error.value)
    assert error.value.happened == "Nothing was written or deleted by this step."
    assert error.value.safe_next
    assert made.ledger.plan(f"{CONTROL}/one", "shop") is None


def test_an_unknown_key_of_the_conf_is_refused(made: World) -> None:
    context = control(made)
    context["dag_run"].conf = {"tabels": ["shop.orders"]}
    with pytest.raises(Stopped, match="tabels"):
        LookOperator(task_id="look").execute(context)


def test_a_dry_run_of_a_dangerous_action_needs_no_confirmation(made: World) -> None:
    begun(made, "delete", dry_run=True, confirm=None)


def test_a_run_of_one_spec_is_refused_while_another_run_has_it(made: World) -> None:
    made.ledger.claim("shop", f"{WATCH}/other", NOW + timedelta(minutes=5), NOW)
    with pytest.raises(Stopped, match=f"being worked on by {WATCH}/other until 2026-03-01 12:05:30"):
        begun(made)
    assert made.cloud.calls.total() == 0
    made.now = NOW + timedelta(minutes=5)
    begun(made)


def test_a_scheduled_run_leaves_a_spec_to_the_run_that_has_it(made: World) -> None:
    made.ledger.claim("shop", f"{CONTROL}/other", NOW + timedelta(minutes=5), NOW)
    made.cloud.count("shop", TablesErrored=1)
    assert LookOperator(task_id="look", watch=True).execute(made.context()) == []
    plan = made.ledger.plan(f"{WATCH}/one", "shop")
    assert plan is not None
    assert plan["decision"]["action"] == "wait"
    assert claimed_until(made, f"{CONTROL}/other") == NOW + timedelta(minutes=5)


def test_aws_that_does_not_answer_is_an_alert_that_is_tried_again(made: World) -> None:
    made.cloud.fails["describe_endpoints"] = OSError("timed out")
    with pytest.raises(Explained, match="OSError: timed out") as error:
        LookOperator(task_id="look", watch=True).execute(made.context())
    assert not isinstance(error.value, Stopped)


# A dry run


@pytest.mark.parametrize("action", ["ensure", "stop", "drain", "delete", "reload_tables", "status"])
def test_a_dry_run_calls_nothing_that_changes_anything(made: World, action: str) -> None:
    made.cloud.count("shop", TablesErrored=1)
    made.cloud.tables[TASK] = BAD
    made.spec("shop", canary=CANARY)
    context = begun(made, action, dry_run=True)
    assert ListApprovalsOperator(task_id="list").execute(context) == []
    for kind in (CarryOutOperator, AwaitTaskOperator, ReconcileOperator, HealthOperator):
        with pytest.raises(AirflowSkipException):
            kind(task_id="one", item=ITEM).execute(context)
    ReportOperator(task_id="report").execute(context)
    assert made.reports[0].title == f"DMS task shop: {action} (dry run)"
    assert made.ledger.steps(f"{CONTROL}/one", "shop") == {}
    assert not {name for name in made.cloud.calls if not name.startswith(("describe_", "get_"))}


def test_a_run_without_the_parameter_is_dry_unless_it_is_the_scheduled_one(made: World) -> None:
    context = begun(made)
    del context["params"]["dry_run"]
    assert carry_out().is_dry(context)
    assert not carry_out(watch=True).is_dry(context)


# Carry out


def test_steps_are_waited_for_in_the_triggerer_until_all_are_done(made: World) -> None:
    dms = moving(made)
    context = begun(made, "stop")
    with pytest.raises(TaskDeferred) as first:
        carry_out().execute(context)
    trigger, method = again(first.value.trigger), first.value.method_name
    assert (type(trigger).__name__, method) == ("DmsStepTrigger", "execute")
    assert (trigger.step["kind"], trigger.spec["name"], trigger.note["called"]) == ("stop_task", "shop", True)
    deadline = NOW + timedelta(minutes=30)  # limits.start_minutes
    assert trigger.deadline == deadline.isoformat()
    assert claimed_until(made) == deadline + CLAIM
    for _ in range(10):
        try:
            done = carry_out().execute(context, event={"state": "done", "text": ""})
            break
        except TaskDeferred:
            continue
    assert [one.split()[0] for one in done] == ["save_checkpoint", "stop_task"]
    assert dms.changed == {"stop_replication_task": 1}
    assert made.ledger.last_checkpoint("shop") == CHECKPOINT
    assert carry_out().execute(context) == done, "a cleared task finds everything done"
    assert dms.changed == {"stop_replication_task": 1}


def test_an_event_that_lies_does_no_harm_and_a_deadline_ends_the_wait(made: World) -> None:
    moving(made, looks=1000)
    context = begun(made, "stop")
    for event in (None, {"state": "done", "text": ""}, {"state": "unknown", "text": "timed out"}):
        with pytest.raises(TaskDeferred):
            carry_out().execute(context, event=event)
    made.now += timedelta(minutes=31)
    with pytest.raises(Stopped, match="longer than limits allow") as error:
        carry_out().execute(context, event={"state": "late", "text": ""})
    assert error.value.safe_next == operators.AGAIN
    assert error.value.target == "DMS task shop"


def test_a_plan_that_changed_before_its_first_step_is_not_begun(made: World) -> None:
    dms = moving(made)
    context = begun(made, "stop")
    dms.tasks["shop"]["Status"] = "failed"
    with pytest.raises(Stopped, match="the task has changed since the plan was made"):
        carry_out().execute(context)
    assert dms.changed == {}
    assert made.ledger.steps(f"{CONTROL}/one", "shop") == {}


def test_a_plan_without_a_step_is_skipped_and_one_of_another_run_unknown(made: World) -> None:
    with pytest.raises(AirflowSkipException, match="every table is complete"):
        carry_out().execute(begun(made))
    with pytest.raises(Stopped, match="this run has kept no plan for shop"):
        carry_out().execute(control(made, run="other"))


def test_a_spec_that_was_taken_over_meanwhile_is_not_touched(made: World) -> None:
    dms = moving(made)
    context = begun(made, "stop")
    made.now += CLAIM
    made.ledger.claim("shop", f"{WATCH}/other", made.now + timedelta(hours=1), made.now)
    with pytest.raises(Stopped, match=f"being worked on by {WATCH}/other"):
        carry_out().execute(context)
    assert dms.changed == {}


# Alerts


def test_an_alert_names_table_reason_and_what_is_safe(made: World) -> None:
    made.spec("shop", protected=True)
    made.cloud.count("shop", TablesErrored=1)
    for number in range(3):
        made.ledger.table_failed("shop", Table("shop", "lines"), "x", NOW, failure_id=str(number))
    made.cloud.tables[TASK] = BAD
    with pytest.raises(Stopped) as error:
        carry_out(watch=True).execute(watched(made))
    text = str(error.value)
    assert "tables that failed too often" in text
    assert "table shop.lines is in state Table error" in text
    assert "read the table's error in the task log" in text
    assert "reload it by hand with reload_tables" in error.value.safe_next
    assert error.value.happened == "Nothing was written or deleted by this step."
    assert [one.reason for one in made.ledger.events("shop", kind="alert")] == [text]


def alerts(made: World, run: str) -> str:
    """How the health of a scheduled run ends."""
    context = watched(made, run)
    try:
        HealthOperator(task_id="health", watch=True, item=ITEM).execute(context)
    except AirflowSkipException:
        return "skipped"
    except Stopped as error:
        return str(error)
    finally:
        made.ledger.release_claim("shop", f"{WATCH}/{run}")
    return "good"


def test_the_same_alert_is_raised_again_after_twelve_hours_and_another_one_at_once(made: World) -> None:
    made.cloud.count("shop", TablesErrored=1)
    made.cloud.tables[TASK] = [table_row("lines", "Full load"), table_row("orders", "Table error")]

    def carried(run: str) -> str:
        try:
            carry_out(watch=True).execute(watched(made, run))
        except AirflowSkipException as error:
            return str(error)
        except Stopped:
            return "alert"
        finally:
            made.ledger.release_claim("shop", f"{WATCH}/{run}")
        return "done"

    made.cloud.task("shop")["Status"] = "failed-move"
    assert carried("one") == "alert"
    assert carried("one") == "alert", "the same run, tried again, says it again"
    begin = made.now
    for number in range(6, 72, 6):
        made.now = begin + timedelta(minutes=10 * number)
        assert carried(f"run{number}").startswith("alerted before, not again: "), number
        for word in map(str, range(20)):  # what the runs between say
            made.ledger.note("shop", f"run{number}", "health", word)
    made.now = begin + QUIET
    assert carried("after") == "alert"
    made.now += timedelta(minutes=10)
    made.cloud.tables[TASK] = [table_row("lines", "Table error"), table_row("orders", "Table error")]
    assert carried("other") == "alert", "another table"


def test_a_number_that_differs_each_time_makes_no_other_alert(made: World) -> None:
    for number, latency in enumerate((61.0, 75.5, 1200.0)):
        made.cloud.latency["shop"] = latency
        ended = alerts(made, str(number))
        assert ended == "skipped" if number else f"CDCLatencySource was {latency:g} s" in ended


def test_an_alert_whose_text_is_masked_or_cut_is_known_again(made: World) -> None:
    spec = import_module("dbops.dms.spec").DmsSpec.model_validate(of("shop"))
    text = "cannot connect: mysql://dba:secret-word@db/shop " + "x" * 10_000
    one = carry_out(watch=True)
    with pytest.raises(Stopped):
        one.stop(made.context("a"), made.services, spec, text, "", "")
    with pytest.raises(AirflowSkipException):
        one.stop(made.context("b"), made.services, spec, text, "", "")


def test_tables_whose_names_end_in_other_numbers_are_other_tables() -> None:
    assert operators._about("table shop.orders_1: 5 rows") == operators._about("table shop.orders_1: 1,006 rows")
    for other in ("table shop.orders_2: 5 rows", "table shop.orders1: 5 rows", "table shop2.orders_1: 5 rows"):
        assert operators._about("table shop.orders_1: 5 rows") != operators._about(other)


def test_a_run_of_one_spec_alerts_each_time(made: World) -> None:
    made.cloud.task("shop")["Status"] = "failed-move"
    for run in ("one", "two"):
        with pytest.raises(Stopped, match="the move to another instance failed"):
            carry_out().execute(begun(made, run=run))
        ReportOperator(task_id="report").execute(control(made, run=run))


# Approvals


def approvable(made: World) -> tuple[Any, FakeDms]:
    made.spec("shop", protected=True)
    dms = moving(made)
    context = begun(made, "stop")
    (request,) = ListApprovalsOperator(task_id="list").execute(context)
    context["ti"].kept["list", -1, "asked"] = context["ti"].pushed["asked"]
    assert request["subject"] == "stop of DMS task shop?"
    plan = made.ledger.plan(f"{CONTROL}/one", "shop") or {}
    for told in ("stopping needs an approval", "- stop_task shop: it is asked for", plan["digest"]):
        assert told in request["body"]
    return context, dms


def answered(context: Any, *chosen: str) -> Any:
    context["ti"].kept["approve", 0, "return_value"] = {
        "chosen_options": list(chosen), "responded_by_user": {"id": "1", "name": "ann"},
    }  # fmt: skip
    return carry_out(asking_task_id="list", approval_task_id="approve").execute(context)


@pytest.mark.parametrize("chosen", [(), (REJECT,), (APPROVE, REJECT)], ids=str)
def test_what_nobody_approved_is_not_begun(made: World, chosen: tuple[str, ...]) -> None:
    context, dms = approvable(made)
    with pytest.raises(Stopped, match="nobody has approved it") as error:
        answered(context, *chosen)
    assert "approve its plan" in error.value.safe_next
    assert dms.changed == {}


def test_a_run_without_an_answer_begins_nothing(made: World) -> None:
    context, dms = approvable(made)
    for one in (carry_out(asking_task_id="list", approval_task_id="approve"), carry_out()):
        with pytest.raises(Stopped, match="nobody has approved it"):
            one.execute(context)
    assert dms.changed == {}


def test_an_approval_of_another_plan_is_none(made: World) -> None:
    context, dms = approvable(made)
    context["ti"].kept["list", -1, "asked"][0]["digest"] = "another"
    with pytest.raises(Stopped, match="what was approved is another plan"):
        answered(context, APPROVE)
    context["ti"].kept["list", -1, "asked"][0] = {"spec": "other", "digest": "another"}
    with pytest.raises(Stopped, match="nobody has approved it"):
        answered(context, APPROVE)
    assert dms.changed == {}


def test_what_was_approved_is_done(made: World) -> None:
    context, dms = approvable(made)
    with pytest.raises(TaskDeferred):
        answered(context, APPROVE)
    assert dms.changed == {"stop_replication_task": 1}


def test_an_approval_does_not_outlive_a_change_of_the_task(made: World) -> None:
    context, dms = approvable(made)
    dms.tasks["shop"]["ReplicationTaskArn"] = f"{TASK}-another"
    with pytest.raises(Stopped, match="run again"):
        answered(context, APPROVE)
    assert dms.changed == {}


def test_a_plan_that_is_refused_anyway_is_not_asked_about(made: World) -> None:
    made.spec("shop", protected=True)
    context = begun(made, "delete")
    assert ListApprovalsOperator(task_id="list").execute(context) == []
    with pytest.raises(Stopped, match="the task is running; stop it first"):
        carry_out().execute(context)


# Await


def reloading(made: World) -> Any:
    """A run whose steps are done, and whose load is under way."""
    made.cloud.count("shop", TablesErrored=1)
    made.cloud.tables[TASK] = BAD
    context = begun(made, "reload_tables")
    made.ledger.step(f"{CONTROL}/one", "shop", 0, "noted", {})
    made.ledger.step(f"{CONTROL}/one", "shop", 0, "done", {})
    made.cloud.count("shop", TablesErrored=0)
    made.cloud.tables[TASK] = [table_row("orders"), table_row("lines", "Table is being reloaded")]
    return context


def awaiting(context: Any, **more: Any) -> Any:
    return AwaitTaskOperator(task_id="await", item=ITEM).execute(context, **more)


def test_a_load_is_waited_for_in_the_triggerer(made: World) -> None:
    context = reloading(made)
    with pytest.raises(TaskDeferred) as deferred:
        awaiting(context)
    trigger, deadline = again(deferred.value.trigger), NOW + timedelta(hours=24)
    assert (type(trigger).__name__, trigger.what, trigger.deadline) == (
        "DmsTaskTrigger",
        "loaded",
        deadline.isoformat(),
    )
    assert claimed_until(made) == deadline + CLAIM
    with pytest.raises(TaskDeferred):
        awaiting(context, event={"state": "done", "text": "an event proves nothing"})
    made.cloud.tables[TASK] = [table_row("orders"), table_row("lines")]
    assert awaiting(context, event={"state": "done", "text": ""}) == "2 tables are complete"


def test_a_load_that_failed_says_so_and_is_not_tried_again(made: World) -> None:
    context = reloading(made)
    made.cloud.tables[TASK] = BAD
    with pytest.raises(Stopped, match=r"^loaded: table shop\.lines is in state Table error") as error:
        awaiting(context)
    assert "names cause and action for each" in error.value.safe_next
    assert error.value.happened == "The task at AWS was left as it is."


def test_a_load_that_is_late_says_so(made: World) -> None:
    context = reloading(made)
    made.now += timedelta(hours=24, seconds=1)
    with pytest.raises(Stopped, match=r"loading shop\.lines.*limits\.load_hours is 24"):
        awaiting(context, event={"state": "late", "text": ""})


def test_nothing_is_awaited_of_a_plan_that_was_not_carried_out_to_its_end(made: World) -> None:
    made.cloud.count("shop", TablesErrored=1)
    made.cloud.tables[TASK] = BAD
    context = begun(made, "reload_tables")
    with pytest.raises(AirflowSkipException, match="not carried out to its end"):
        awaiting(context)


# Reconcile


@pytest.fixture
def loaded(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    made.cloud.count("shop", FullLoadFinishDate=NOW - timedelta(minutes=1))
    made.cloud.tables[TASK] = [table_row("orders", FullLoadEndTime=NOW - timedelta(minutes=1))]
    made.spec("shop", target_connection="target_mysql")
    monkeypatch.setattr(hook, "client", lambda service, _spec: made.cloud if service == "dms" else pytest.fail(service))
    return made


@pytest.mark.parametrize("status", ["equal", "differ", "unsettled", "not comparable"])
def test_rows_are_compared_once_after_a_load(loaded: World, monkeypatch: pytest.MonkeyPatch, status: Any) -> None:
    found = Comparison(Table("shop", "orders"), status, 10, 9, 1, 0, 0, ("id=7",), "")
    monkeypatch.setattr(reconciling.reconcile, "compare", lambda *_, **__: (found,))
    context = begun(loaded)
    one = ReconcileOperator(task_id="reconcile", item=ITEM)
    if status in ("differ", "unsettled"):
        with pytest.raises(
            Stopped, match=rf"table shop\.orders: {status}; 10 rows at the source, 9 at the target; 1 missing.*id=7"
        ):
            one.execute(context)
    else:
        (line,) = one.execute(context)
        assert line.startswith(f"table shop.orders: {status}")
    assert claimed_until(loaded) == NOW + timedelta(hours=24) + CLAIM
    assert loaded.asked[-2:] == ["mysql_default", "target_mysql"]
    if status != "unsettled":
        with pytest.raises(AirflowSkipException, match="no load has ended"):
            one.execute(context)


def test_a_scheduled_run_compares_what_its_look_names(loaded: World) -> None:
    context = watched(loaded)
    loaded.asked.clear()  # the look asks the target for rows that were not applied
    one = ReconcileOperator(task_id="reconcile", watch=True, item={**ITEM, "compare": False})
    with pytest.raises(AirflowSkipException):
        one.execute(context)
    assert loaded.asked == []


# Health


@pytest.fixture
def proving_(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    made.spec("shop", canary=CANARY)
    made.written = []  # type: ignore[attr-defined]
    monkeypatch.setattr(
        canary, "write", lambda _connection, spec, token, at: made.written.append((spec.name, token, at))
    )  # type: ignore[attr-defined]
    return made


def proven(context: Any, watch: bool, event: dict[str, Any]) -> Any:
    return HealthOperator(task_id="health", watch=watch, item=ITEM).proven(context, event)


def arrived(seconds: float) -> dict[str, str]:
    seen = (NOW + timedelta(seconds=seconds)).isoformat()
    return {"state": "done", "token": "t", "written_at": NOW.isoformat(), "seen_at": seen}


def test_latency_is_waited_for_then_the_canary_is_written_and_waited_for(proving_: World) -> None:
    context = begun(proving_)
    one = HealthOperator(task_id="health", item=ITEM, wait_for_latency=True)
    with pytest.raises(TaskDeferred) as first:
        one.execute(context)
    trigger = again(first.value.trigger)
    assert (type(trigger).__name__, first.value.method_name) == ("DmsLatencyTrigger", "measured")
    assert trigger.deadline == (NOW + timedelta(minutes=8)).isoformat()
    assert claimed_until(proving_) == NOW + timedelta(minutes=8) + CLAIM
    assert proving_.written == []  # type: ignore[attr-defined]
    with pytest.raises(TaskDeferred) as second:
        one.measured(context, {"state": "done"})
    trigger = again(second.value.trigger)
    assert (type(trigger).__name__, second.value.method_name) == ("DmsCanaryTrigger", "proven")
    assert proving_.written == [("shop", trigger.token, NOW)]  # type: ignore[attr-defined]
    assert (trigger.written_at, trigger.deadline) == (NOW.isoformat(), (NOW + timedelta(seconds=120)).isoformat())
    proving_.now += timedelta(seconds=5)
    found = one.proven(context, arrived(5))
    assert (found["spec"], found["verdict"]) == ("shop", "healthy")


@pytest.mark.parametrize("watch", [False, True])
def test_a_canary_that_was_not_seen_is_unhealthy(proving_: World, watch: bool) -> None:
    context = watched(proving_) if watch else begun(proving_)
    with pytest.raises(Stopped, match=r"unhealthy: the canary .*not seen") as error:
        proven(context, watch, {"state": "late", "text": ""})
    assert "The source is not at risk" in error.value.safe_next
    assert proven(context, watch, arrived(5))["verdict"] == "healthy"


def test_a_canary_does_not_outweigh_latencies(proving_: World) -> None:
    proving_.cloud.latency["shop"] = 61
    for watch in (False, True):
        context = watched(proving_) if watch else begun(proving_, run="two")
        with pytest.raises(Stopped, match="CDCLatencySource was 61 s"):
            proven(context, watch, arrived(1))
        ReportOperator(task_id="report", watch=watch).execute(context)


def test_a_scheduled_run_goes_by_its_look_and_asks_nobody_again(proving_: World) -> None:
    context = watched(proving_)
    proving_.cloud.calls.clear()
    found = proven(context, True, arrived(3))
    assert found["reasons"][-1] == "the canary arrived after at most 3.0 s"
    assert proving_.cloud.calls == Counter()


def test_a_scheduled_run_that_changed_the_task_judges_it_anew(made: World) -> None:
    made.cloud.task("shop").update(Status="stopped", StopReason="Stop Reason RECOVERABLE_ERROR")
    context = watched(made)
    made.cloud.task("shop").update(Status="running", StopReason="")
    one = HealthOperator(task_id="health", watch=True, item=ITEM)
    with pytest.raises(TaskDeferred) as deferred:
        one.execute(context)
    assert deferred.value.method_name == "measured"
    assert one.measured(context, {"state": "done"})["verdict"] == "healthy"


@pytest.mark.parametrize("action", ["stop", "drain", "delete"])
def test_of_a_task_that_was_told_to_end_nothing_is_proven(made: World, action: str) -> None:
    with pytest.raises(AirflowSkipException, match="there is nothing to prove"):
        HealthOperator(task_id="health", item=ITEM).execute(begun(made, action))


# Report


def test_the_report_has_the_verdict_that_the_run_has_proven_and_gives_the_spec_back(made: World) -> None:
    context = begun(made, "ensure")
    assert claimed_until(made)
    context["ti"].kept["health", -1, "return_value"] = {
        "spec": "shop",
        "verdict": "unhealthy",
        "reasons": ["no canary"],
    }
    ReportOperator(task_id="report").execute(context)
    (report,) = made.reports
    assert (report.title, report.verdict) == ("DMS task shop: ensure", Verdict.FAILED)
    assert "unhealthy: no canary" in report.reasons
    made.ledger.claim("shop", "another", NOW + timedelta(hours=1), NOW)


@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
def test_the_report_of_a_scheduled_run_takes_verdicts_of_one_or_several_tasks(made: World, many: bool) -> None:
    context = watched(made)
    one = {"spec": "shop", "verdict": "unhealthy", "reasons": ["no canary"]}
    context["ti"].kept["health", -1, "return_value"] = [one, None] if many else one
    ReportOperator(task_id="report", watch=True).execute(context)
    assert made.reports[0].reasons == ["shop: unhealthy: no canary"]


def test_a_run_over_no_spec_has_nothing_to_report(made: World) -> None:
    made.spec("shop", enabled=False)
    assert LookOperator(task_id="look", watch=True).execute(made.context()) == []
    with pytest.raises(AirflowSkipException, match="no spec is enabled"):
        ReportOperator(task_id="report", watch=True).execute(made.context())


def test_services_are_those_of_the_spec_s_account(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(hook, "services", lambda *given: asked.append(given))
    look = LookOperator(task_id="look")
    look.services(SimpleNamespace(aws_connection="aws_other", region="eu-west-1"))  # type: ignore[arg-type]
    assert asked == [("aws_other", "eu-west-1")]


@pytest.mark.parametrize(
    ("action", "dry_run", "is_looking"), [("status", False, True), ("ensure", True, True), ("ensure", False, False)]
)
def test_a_run_that_only_looks_claims_nothing_and_no_run_of_a_person_is_a_scheduled_one(
    made: World, action: str, dry_run: bool, is_looking: bool
) -> None:
    context = control(made, action, dry_run=dry_run)
    _, wanted = LookOperator(task_id="look").asked(context)
    assert (wanted.action, wanted.is_looking, wanted.is_watch) == (action, is_looking, False)
    LookOperator(task_id="look").execute(context)
    refused = made.ledger.claim_many(["shop"], "another", NOW + timedelta(hours=1), NOW)
    assert bool(refused) is not is_looking
