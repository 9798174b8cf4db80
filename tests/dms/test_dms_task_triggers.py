"""Waits in the triggerer: what they tell and when, how many failed looks they bear, and that they survive its restart."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from airflow.serialization.serialized_objects import BaseSerialization

from dbops.dms import carry, hook, plan
from dbops.dms.canary import Seen
from dbops.dms.spec import DmsSpec
from dbops.dms.triggers import MAX_ERRORS, DmsCanaryTrigger, DmsLatencyTrigger, DmsStepTrigger, DmsTaskTrigger
from tests.dms.dms_kit import table_row
from tests.dms.watch_kit import ARN, NOW, Cloud, of

SPEC = of("shop", canary={"schema_name": "shop", "table": "orders"})
STEP = carry.step_document(
    plan.Step("stop_task", "shop", "it is asked for", "stop_replication_task", {"ReplicationTaskArn": plan.TASK})
)
LATE = NOW + timedelta(minutes=10)
COMMON: dict[str, Any] = {"spec": SPEC, "deadline": LATE.isoformat(), "poll_s": 0}
TASK = f"{ARN}:task:shop"
ALL = [
    DmsStepTrigger(step=STEP, note={"noted_at": NOW.isoformat()}, **COMMON),
    DmsTaskTrigger(what="loaded", **COMMON),
    DmsLatencyTrigger(**COMMON),
    DmsCanaryTrigger(token="t", written_at=NOW.isoformat(), **COMMON),
]


FAILED = {"state": "failed", "text": "table shop.lines is in state Table error, 0 rows failed"}
OVER = {"state": "late", "text": f"the deadline {LATE.isoformat()} has passed"}


class Clock:
    """Every look takes a minute."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made, slept = Clock(), asyncio.sleep

    async def sleep(_: float) -> None:
        made.at += timedelta(minutes=1)
        await slept(0)

    monkeypatch.setattr(hook, "utc_now", made)
    monkeypatch.setattr("dbops.dms.triggers.asyncio.sleep", sleep)
    return made


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    made = Cloud("shop")

    class Async:
        def __getattr__(self, method: str) -> Any:
            async def call(**given: Any) -> Any:
                return getattr(made, method)(**given)

            return call

    @asynccontextmanager
    async def opened() -> Any:
        yield Async()

    async def client(service: str, spec: DmsSpec) -> Any:
        assert (service in ("dms", "cloudwatch"), spec.name) == (True, "shop")
        return opened()

    monkeypatch.setattr(hook, "async_client", client)
    return made


def told(trigger: Any) -> dict[str, Any]:
    async def first() -> Any:
        events = [event async for event in trigger.run()]
        assert len(events) == 1
        return events[0].payload

    return asyncio.run(first())


@pytest.mark.parametrize("trigger", ALL, ids=lambda one: type(one).__name__)
def test_a_trigger_is_made_again_from_what_it_serializes(trigger: Any) -> None:
    path, given = trigger.serialize()
    assert BaseSerialization.deserialize(BaseSerialization.serialize(given)) == given
    module, _, name = path.rpartition(".")
    again = getattr(import_module(module), name)(**json.loads(json.dumps(given)))
    assert type(again) is type(trigger)
    assert again.serialize() == (path, given)
    assert DmsSpec.model_validate(given["spec"]).name == "shop"


def test_a_step_is_told_when_its_effect_is_there(cloud: Cloud, clock: Clock) -> None:
    looks = iter(["running", "stopping", "stopping", "stopped"])
    describe = cloud._page

    def page(method: str, given: dict[str, Any]) -> dict[str, Any]:
        if method == "describe_replication_tasks":
            cloud.task("shop")["Status"] = next(looks)
        return describe(method, given)

    cloud._page = page
    assert told(ALL[0]) == {"state": "done", "text": "the task is stopped"}
    assert clock.at == NOW + timedelta(minutes=3)


def test_a_step_that_failed_is_told_at_once(cloud: Cloud, clock: Clock) -> None:
    cloud.task("shop").update(Status="failed-move", LastFailureMessage="no room")
    step = {**STEP, "kind": "move_task"}
    event = told(DmsStepTrigger(step=step, note={}, **COMMON))
    assert event == {"state": "failed", "text": "the task is failed-move: no room"}
    assert clock.at == NOW


@pytest.mark.parametrize(
    ("what", "status", "tables", "event"),
    [
        ("loaded", "running", [table_row()], {"state": "done", "text": "1 tables are complete"}),
        ("loaded", "running", [table_row("lines", "Table error")], FAILED),
        ("loaded", "running", [table_row("lines", "Full load")], OVER),
        ("drained", "running", [table_row()], OVER),
        ("drained", "failed", [table_row()], {"state": "failed", "text": "the task is failed"}),
    ],
)  # fmt: skip
def test_a_task_is_waited_for_until_it_is_done_has_failed_or_is_late(
    cloud: Cloud, clock: Clock, what: str, status: str, tables: list[dict[str, Any]], event: dict[str, Any]
) -> None:
    cloud.task("shop")["Status"] = status
    cloud.tables[TASK] = tables
    assert told(DmsTaskTrigger(what=what, **COMMON)) == event
    assert clock.at == (LATE + timedelta(minutes=1) if event["state"] == "late" else NOW)


def test_latencies_are_waited_for_until_they_are_known_and_small(cloud: Cloud, clock: Clock) -> None:
    cloud.latency["shop"] = 300
    assert told(ALL[2])["state"] == "late"
    cloud.latency["shop"] = 2
    clock.at = NOW
    assert told(ALL[2]) == {"state": "done", "text": "healthy"}


@pytest.mark.parametrize(("status", "state"), [("running", "Table error"), ("failed", "Table completed")])
def test_no_metric_is_waited_for_where_a_table_or_the_task_has_failed(
    cloud: Cloud, clock: Clock, status: str, state: str
) -> None:
    cloud.latency["shop"] = 300
    cloud.task("shop")["Status"] = status
    cloud.tables[TASK] = [table_row(), table_row("lines", state)]
    assert told(ALL[2]) == {"state": "done", "text": "unhealthy"}
    assert clock.at == NOW


def test_a_canary_is_told_with_its_times_and_its_reader_is_made_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, datetime]] = []
    seen = iter([None, None, Seen("t", NOW, NOW + timedelta(seconds=5))])

    class Reader:
        def seen(self, token: str) -> Seen | None:
            assert token == "t"
            return next(seen)

    def reader(spec: DmsSpec, since: datetime) -> Reader:
        made.append((spec.name, since))
        return Reader()

    monkeypatch.setattr(hook, "canary_reader", reader)
    event = told(DmsCanaryTrigger(token="t", written_at=NOW.isoformat(), **COMMON))
    times = {"written_at": NOW.isoformat(), "seen_at": (NOW + timedelta(seconds=5)).isoformat()}
    assert event == {"state": "done", "text": "seen", "token": "t", **times}
    assert made == [("shop", NOW)]


@pytest.mark.parametrize("trigger", [ALL[0], ALL[1], ALL[2]], ids=lambda one: type(one).__name__)
def test_failed_looks_are_borne_until_there_are_too_many_in_a_row(cloud: Cloud, clock: Clock, trigger: Any) -> None:
    cloud.fails["describe_replication_tasks"] = OSError("timed out")
    assert told(trigger) == {"state": "unknown", "text": "OSError: timed out"}
    assert cloud.calls["describe_replication_tasks"] == MAX_ERRORS


def test_a_good_look_begins_the_count_of_failed_ones_anew(cloud: Cloud, clock: Clock) -> None:
    describe, looks = cloud._page, iter(range(100))

    def page(method: str, given: dict[str, Any]) -> dict[str, Any]:
        if method == "describe_replication_tasks" and (next(looks) + 1) % MAX_ERRORS:
            raise OSError("timed out")
        return describe(method, given)

    cloud._page = page
    cloud.tables[TASK] = [table_row("lines", "Full load")]
    assert told(DmsTaskTrigger(what="loaded", **COMMON))["state"] == "late"


def test_the_deadline_holds_while_looks_fail(cloud: Cloud, clock: Clock) -> None:
    cloud.fails["describe_replication_tasks"] = OSError("timed out")
    soon = {**COMMON, "deadline": (NOW + timedelta(minutes=2)).isoformat()}
    assert told(DmsTaskTrigger(what="loaded", **soon))["state"] == "late"


def test_an_error_of_our_own_code_is_raised_at_once(cloud: Cloud, clock: Clock) -> None:
    cloud.fails["describe_replication_tasks"] = KeyError("no such field")
    with pytest.raises(KeyError, match="no such field"):
        told(ALL[1])
    assert cloud.calls["describe_replication_tasks"] == 1
