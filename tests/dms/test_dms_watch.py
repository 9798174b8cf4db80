"""One scheduled run over many specs: what it costs grows with pages of answers, not with tasks, and no slot waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from dbops.dms.operators import CarryOutOperator, HealthOperator, LookOperator, ReconcileOperator, ReportOperator
from dbops.operators import Stopped
from dbops.reports import Verdict
from tests.dms.dms_kit import table_row
from tests.dms.watch_kit import ARN, METRICS_AT_ONCE, NOW, PAGE, World, world

SERIES = 6
"""Metrics of a task."""
Make = Callable[..., World]


def names(count: int) -> list[str]:
    return [f"t{number:03}" for number in range(count)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda *given, **more: world(tmp_path, monkeypatch, *given, **more)


def pages(count: int) -> Counter[str]:
    """Calls of one look at so many tasks."""
    return Counter({
        "describe_replication_tasks": ceil(count / PAGE), "describe_endpoints": ceil(2 * count / PAGE),
        "describe_connections": ceil(2 * count / PAGE), "describe_replication_instances": 1,
        "describe_events": ceil(count / PAGE), "get_metric_data": ceil(SERIES * count / METRICS_AT_ONCE),
    })  # fmt: skip


def look(of: World, run: str = "one", **params: Any) -> list[dict[str, Any]]:
    return LookOperator(task_id="look", watch=True).execute(of.context(run, **params))


@pytest.mark.parametrize("count", [10, 200, 400])
def test_a_run_costs_pages_of_answers_and_hardly_a_statement_a_spec(make: Make, count: int) -> None:
    of = make(*names(count))
    of.ledger.tidy(NOW)  # once a day a run deletes what is old
    of.statements.clear()
    assert look(of) == []
    assert of.cloud.calls == pages(count)
    looked = len(of.statements)
    of.cloud.calls.clear()
    ReportOperator(task_id="report", watch=True).execute(of.context())
    assert of.cloud.calls == pages(count)
    assert [one.verdict for one in of.reports] == [Verdict.OK]
    # As many as for one spec: the store is read and written for all of them at once.
    assert (looked, len(of.statements) - looked) == (15, 10)
    assert of.asked == [], "no source is asked about a task that runs and is complete"
    plans = of.ledger.plans("dms_task_watch/one", names(count))
    assert {document["decision"]["action"] for document in plans.values()} == {"none"}
    assert len(plans) == count
    assert len(of.ledger.events(names(count)[-1])) == 1, "every decision is in the event log"


MISSING, ERROR, SLOW = "t003", "t007", "t011"
FEW = 12


def needy(of: World) -> World:
    """Three specs need something: a task that is gone, a table that failed, a latency over its limit."""
    of.cloud.rows["describe_replication_tasks"].remove(of.cloud.task(MISSING))
    of.cloud.count(ERROR, TablesErrored=1)
    of.cloud.tables[f"{ARN}:task:{ERROR}"] = [table_row("orders"), table_row("lines", "Table error")]
    of.cloud.latency[SLOW] = 61
    return of


@pytest.fixture
def three(make: Make) -> World:
    return needy(make(*names(FEW)))


def test_only_what_needs_something_becomes_an_item_and_costs_a_call_of_its_own(make: Make) -> None:
    three = needy(make(*names(200)))
    items = look(three)
    assert items == [
        {"spec": MISSING, "carry": True, "compare": False, "prove": True},
        {"spec": ERROR, "carry": True, "compare": False, "prove": True},
        {"spec": SLOW, "carry": False, "compare": False, "prove": True},
    ]
    assert three.cloud.calls == pages(200) + Counter(describe_table_statistics=1)
    assert set(three.asked) == {"mysql_default"}
    # Of the missing task: the checkpoint of the one before it. Of the failed table: its failures are counted, and so are its comparisons.
    assert len(three.statements) < 12 + 10
    kinds = {name: [one["kind"] for one in plan["steps"]] for name, plan in plans(three).items() if plan["steps"]}
    assert kinds == {MISSING: ["create_task", "start_task"], ERROR: ["reload_tables"]}
    assert [one.failures for one in three.ledger.failing(ERROR)] == [1]


def plans(of: World, run: str = "one") -> dict[str, dict[str, Any]]:
    return of.ledger.plans(f"dms_task_watch/{run}", names(200))


def test_specs_that_need_nothing_are_free_for_others_as_soon_as_they_are_looked_at(three: World) -> None:
    look(three)
    until = NOW + timedelta(minutes=1)
    refused = three.ledger.claim_many(names(FEW), "dms_task_control/other", until, NOW)
    assert sorted(refused) == [MISSING, ERROR, SLOW]
    ReportOperator(task_id="report", watch=True).execute(three.context())
    assert three.ledger.claim_many(names(FEW), "dms_task_control/other", until, NOW) == {}


def test_the_report_names_the_three_and_reads_the_events_of_these_alone(three: World) -> None:
    three.ledger.tidy(NOW)
    look(three)
    three.cloud.calls.clear()
    three.statements.clear()
    ReportOperator(task_id="report", watch=True).execute(three.context())
    assert three.cloud.calls == pages(FEW) + Counter(describe_table_statistics=1)
    assert len(three.statements) == 10 + 2 * 3
    (report,) = three.reports
    assert report.verdict is Verdict.FAILED
    told = "\n".join(report.reasons)
    assert [name for name in names(FEW) if name in told] == [MISSING, ERROR, SLOW]
    assert "shop.lines" in told
    assert "61 s" in told


def test_no_worker_slot_is_held_while_aws_works(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task of the run ends or leaves to the triggerer without a second of sleep."""
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("a worker sleeps"))
    ends: dict[tuple[str, str], str] = {}
    three.cloud.reload_tables = lambda **_: three.cloud.calls.update(reload_tables=1)
    three.cloud.create_replication_task = lambda **_: three.cloud.calls.update(create_replication_task=1)
    for item in look(three):
        for kind in (CarryOutOperator, ReconcileOperator, HealthOperator):
            try:
                kind(task_id="one", watch=True, item=item).execute(three.context())
                end = "done"
            except BaseException as error:
                end = type(error).__name__
            ends[item["spec"], kind.__name__.removesuffix("Operator")] = end
    skip, defer, alert = "AirflowSkipException", TaskDeferred.__name__, Stopped.__name__
    assert ends == {
        (MISSING, "CarryOut"): defer, (MISSING, "Reconcile"): skip, (MISSING, "Health"): defer,
        (ERROR, "CarryOut"): defer, (ERROR, "Reconcile"): skip, (ERROR, "Health"): defer,
        (SLOW, "CarryOut"): skip, (SLOW, "Reconcile"): skip, (SLOW, "Health"): alert,
    }  # fmt: skip
    assert {name: n for name, n in three.cloud.calls.items() if not name.startswith(("describe_", "get_"))} == {
        "reload_tables": 1, "create_replication_task": 1,
    }  # fmt: skip


def test_a_run_that_looks_again_decides_anew_and_says_nothing_twice(three: World) -> None:
    first = look(three)
    before = {name: len(three.ledger.events(name)) for name in names(FEW)}
    assert look(three) == first
    assert {name: len(three.ledger.events(name)) for name in names(FEW)} == before


def test_a_run_that_has_begun_a_plan_goes_on_with_that_one(three: World) -> None:
    look(three)
    kept = plans(three)[ERROR]
    three.ledger.step("dms_task_watch/one", ERROR, 0, "noted", {})
    three.cloud.count(ERROR, TablesErrored=0)
    items = {item["spec"]: item for item in look(three)}
    assert plans(three)[ERROR] == kept
    assert items[ERROR]["carry"]


def test_one_spec_that_cannot_be_judged_does_not_hold_up_the_others(three: World) -> None:
    three.is_source_down = True
    items = {item["spec"]: item for item in look(three)}
    assert set(items) == {MISSING, ERROR, SLOW}
    assert "no route to host" in plans(three)[MISSING]["error"]
    assert items[MISSING] == {"spec": MISSING, "carry": True, "compare": False, "prove": False}
    assert items[SLOW]["prove"]


def test_specs_of_two_accounts_are_asked_for_once_each(make: Make) -> None:
    of = make(*names(10))
    for name in names(10)[5:]:
        of.spec(name, region="us-east-1")
    assert look(of) == []
    assert of.cloud.calls == Counter({name: 2 * n for name, n in pages(10).items()})


def test_a_spec_that_is_not_enabled_is_not_looked_at(make: Make) -> None:
    of = make(*names(2))
    of.spec("t001", enabled=False)
    look(of)
    assert list(plans(of)) == ["t000"]
