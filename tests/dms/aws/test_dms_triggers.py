"""The trigger: what is serialised is all it needs, it survives what passes, ends at what is refused, and leaves nothing open."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.sdk.serde import deserialize, serialize

from dbops.dms import waits
from dbops.dms.aws import triggers
from dbops.dms.aws.triggers import DmsWaitTrigger
from dbops.dms.waits import Reloading
from tests.dms.aws.dms_fake import (
    FakeDms,
    again,
    connect,
    denied,
    fault,
    fired,
    loaded,
    lost,
    running,
    stopped,
    throttled,
)
from tests.dms.dms_kit import INSTANCE_ARN, TASK_ARN

FULL: dict[str, Any] = {
    "waiter_delay": 7,
    "waiter_max_attempts": 3,
    "aws_conn_id": "aws_migration",
    "region_name": "eu-central-1",
    "verify": False,
    "botocore_config": {"read_timeout": 9},
}
SINCE = "2026-03-01T03:00:00+00:00"
WAITS: tuple[waits.Wait, ...] = (
    waits.Standing(arn=TASK_ARN, instance_arn=INSTANCE_ARN),
    waits.Started(arn=TASK_ARN, since=SINCE, before=""),
    waits.Ended(arn=TASK_ARN, since=SINCE, stop_reasons=("STOPPED_AT_COMMIT_TIME",)),
    waits.Stopped(arn=TASK_ARN),
    waits.Gone(arn=TASK_ARN),
    waits.Loaded(arn=TASK_ARN, since=SINCE),
    waits.Reloaded(arn=TASK_ARN, before=(Reloading("shop", "orders", SINCE, SINCE, False, False),), loading=("shop.orders",)),
    waits.Validated(arn=TASK_ARN, tables=("shop.orders",)),
    waits.CdcHealthy(arn=TASK_ARN, max_source_s=5, max_target_s=5, dimensions=(("Name", "value"),)),
    waits.Connected(instance_arn=INSTANCE_ARN, endpoint_arns=("one",), seen=(("one", "testing", 1),)),
    waits.Assessed(run_arn="run"),
)  # fmt: skip


@pytest.fixture
def dms(monkeypatch: pytest.MonkeyPatch) -> FakeDms:
    return connect(monkeypatch, FakeDms())


def trigger(wait: waits.Wait = WAITS[1], **more: Any) -> DmsWaitTrigger:
    given = {"waiter_delay": 0, "waiter_max_attempts": 9, "aws_conn_id": None, **more}
    return DmsWaitTrigger(wait=waits.dump(wait), **given)


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: type(wait).__name__)
def test_a_trigger_is_made_again_from_what_it_serialises(wait: waits.Wait) -> None:
    own = {"wait": waits.dump(wait), "result": {"arn": TASK_ARN}}
    made = DmsWaitTrigger(**own, **FULL)
    path, arguments = made.serialize()
    assert path == f"{triggers.__name__}.DmsWaitTrigger"
    assert arguments == {**own, **FULL}
    assert deserialize(json.loads(json.dumps(serialize(arguments)))) == arguments  # as Airflow keeps them
    assert again(made).serialize() == (path, arguments)
    assert waits.load(arguments["wait"]) == wait
    hook = made.hook()
    assert (hook.aws_conn_id, hook._region_name, hook._verify) == ("aws_migration", "eu-central-1", False)
    assert hook._config.read_timeout == 9


def test_what_passes_does_not_end_it(dms: FakeDms) -> None:
    starting = running(Status="starting")
    dms.tasks(starting, throttled(), lost(), fault("InternalFailure", 500), TimeoutError(), starting, running())
    payload = fired(trigger(result={"checkpoint": "mine"}))
    assert payload["result"] == {"checkpoint": "mine"}
    assert (payload["status"], payload["wait"]["outcome"], payload["message"]) == (
        "success",
        "good",
        "the task is running",
    )
    assert (dms.opened, dms.closed) == (2, 2)  # DMS and CloudWatch


def test_what_is_refused_ends_it(dms: FakeDms) -> None:
    dms.tasks(running(Status="starting"), denied(), running())
    payload = fired(trigger())
    assert (payload["status"], dms.count("describe_replication_tasks")) == ("error", 2)
    assert "AccessDeniedException: not authorized" in payload["message"]


def test_what_is_bad_ends_it_with_reasons(dms: FakeDms) -> None:
    dms.tasks(stopped("FATAL_ERROR", started=50)).tables([loaded("orders", "Table error")])
    payload = fired(trigger())
    assert payload["status"] == "error"
    assert payload["message"] == "stopped with Stop Reason FATAL_ERROR; table shop.orders is in state Table error"


def test_what_stays_open_ends_after_its_looks(dms: FakeDms) -> None:
    dms.tasks(running(Status="starting"))
    payload = fired(trigger(waiter_max_attempts=4))
    assert (payload["status"], payload["message"]) == ("timeout", "the task is starting")
    assert dms.count("describe_replication_tasks") == 4


def test_it_waits_between_two_looks(dms: FakeDms, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
    dms.tasks(running(Status="starting"), running(Status="starting"), running())
    fired(trigger(waiter_delay=7))
    assert slept == [7, 7]


def test_a_triggerer_that_is_stopped_leaves_aws_alone_and_nothing_open(dms: FakeDms) -> None:
    dms.tasks(running(Status="starting"))

    async def cancelled() -> None:
        looking = asyncio.ensure_future(anext(trigger(waiter_delay=60).run()))
        while not dms.calls:
            await asyncio.sleep(0)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking

    asyncio.run(cancelled())
    assert (dms.changes(), dms.opened, dms.closed) == ([], 2, 2)


def test_a_triggerer_that_begins_again_takes_no_load_from_before(dms: FakeDms) -> None:
    """All that was seen is lost with it, but not what was there before the call."""
    (stale,) = [loaded("orders", started=1)]
    wait = waits.Reloaded(
        arn=TASK_ARN, before=(Reloading("shop", "orders", waits.iso(stale["FullLoadStartTime"]), "", False, False),)
    )
    dms.tables([stale])
    first = trigger(wait, waiter_max_attempts=3)
    assert [fired(first)["status"], fired(again(first))["status"]] == ["timeout", "timeout"]
    dms.tables([stale], [loaded("orders", started=50)])
    assert fired(again(first))["status"] == "success"


def test_our_own_mistake_is_raised_in_the_triggerer(dms: FakeDms) -> None:
    dms.tasks(KeyError("bug"))
    with pytest.raises(KeyError):
        fired(trigger())
    assert dms.closed == dms.opened
