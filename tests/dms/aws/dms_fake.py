"""A scripted DMS: what each call answers is a list; the last answer stays. Every call is checked against botocore's own model."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from airflow.providers.amazon.aws.hooks.dms import DmsHook
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger
from botocore.exceptions import ClientError, EndpointConnectionError

from dbops.dms.aws.hook import DmsTaskHook
from tests.dms import dms_kit
from tests.dms.dms_kit import INSTANCE_ARN, TASK_ARN, table_row, task_row

CONFIG_ARN = "arn:aws:dms:eu-central-1:123456789012:replication-config:SHOP"
NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
STATS = {"TablesLoaded": 2, "TablesLoading": 0, "TablesQueued": 0, "TablesErrored": 0}
CHECKPOINT = "checkpoint:V1#27#mysql-bin.000007:1975"


def fault(code: str, status: int = 400, message: str = "no") -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": 0, "RequestId": "r-1"},
    }
    return ClientError(answer, "Operation")


def throttled() -> ClientError:
    return fault("ThrottlingException", message="Rate exceeded")


def denied() -> ClientError:
    return fault("AccessDeniedException", message="not authorized to perform dms:Describe")


def lost() -> EndpointConnectionError:
    return EndpointConnectionError(endpoint_url="https://dms.eu-central-1.amazonaws.com")


def at(second: float) -> datetime:
    return NOW + timedelta(seconds=second)


def ready(**more: Any) -> dict[str, Any]:
    """A task that has never run."""
    row = task_row(**{"Status": "ready", **more})
    row.pop("ReplicationTaskStats")
    return row


def running(started: float = 0, **more: Any) -> dict[str, Any]:
    return task_row(ReplicationTaskStats={**STATS, "StartDate": at(started)}, **more)


def stopped(reason: str = "NORMAL", started: float = 0, **more: Any) -> dict[str, Any]:
    """A task that has run and stopped, with its checkpoint."""
    stats = {**STATS, "StartDate": at(started), "StopDate": at(started + 100), **more.pop("stats", {})}
    given = {"Status": "stopped", "StopReason": f"Stop Reason {reason}", "RecoveryCheckpoint": CHECKPOINT, **more}
    return task_row(ReplicationTaskStats=stats, **given)


def loaded(name: str = "orders", state: str = "Table completed", started: float = 1, **more: Any) -> dict[str, Any]:
    """Statistics of a table whose load began in that second."""
    ended = {} if "oad" in state and "Table" not in state else {"FullLoadEndTime": at(started + 1)}
    return table_row(name, state, **{"FullLoadStartTime": at(started), **ended, **more})


class FakeDms:
    """The client. `script(operation, *answers)`: a dict, an error to raise, or a function of the arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, list[Any]] = {}
        self.opened = self.closed = 0
        self.tasks(running())
        self.tables([loaded("customers"), loaded("orders")])
        instance = {"ReplicationInstanceIdentifier": "rep-1", "ReplicationInstanceArn": INSTANCE_ARN}
        self.script("describe_replication_instances", {"ReplicationInstances": [instance]})

    def script(self, operation: str, *answers: Any) -> FakeDms:
        self.answers[operation] = list(answers)
        return self

    def tasks(self, *answers: Any) -> FakeDms:
        """What describe_replication_tasks says: rows, errors, or None for a task that there is not."""
        return self.script("describe_replication_tasks", *map(_rows("ReplicationTasks"), answers))

    def tables(self, *answers: Any) -> FakeDms:
        """What describe_table_statistics says: lists of rows, or errors."""
        return self.script("describe_table_statistics", *map(_rows("TableStatistics"), answers))

    def then(self, operation: str, do: Callable[[FakeDms], Any], answer: dict[str, Any] | None = None) -> FakeDms:
        """What a call that changes something brings about."""

        def call(**_: Any) -> dict[str, Any]:
            do(self)
            return answer or {}

        return self.script(operation, call)

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)

    def changes(self) -> list[str]:
        """Calls that change something, in order."""
        return [name for name, _ in self.calls if not name.startswith(("describe_", "get_"))]

    def arguments(self, operation: str) -> dict[str, Any]:
        return next(arguments for name, arguments in reversed(self.calls) if name == operation)

    def _answer(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if operation != "get_metric_data":
            dms_kit.validate(operation, arguments)
        self.calls.append((operation, arguments))
        left = self.answers.get(operation)
        if not left:
            raise AssertionError(f"{operation} is not scripted")
        answer = left[0] if len(left) == 1 else left.pop(0)
        if callable(answer):
            answer = answer(**arguments)
        if isinstance(answer, BaseException):
            raise answer
        return copy.deepcopy(answer)  # type: ignore[no-any-return]

    @property
    def meta(self) -> Any:
        """Of a real client: hooks read it."""
        return _real().meta

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        if operation.startswith("_"):
            raise AttributeError(operation)
        return lambda **arguments: self._answer(operation, arguments)


def _rows(key: str) -> Callable[[Any], Any]:
    def wrapped(answer: Any) -> Any:
        if answer is None:
            return fault("ResourceNotFoundFault", message="No Replication Tasks found matching provided filter.")
        if isinstance(answer, BaseException) or callable(answer):
            return answer
        return {key: answer if isinstance(answer, list) else [answer]}

    return wrapped


@cache
def _real() -> Any:
    return boto3.client("dms", region_name="eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")


class AsyncDms:
    """The same client for `await`."""

    def __init__(self, dms: FakeDms) -> None:
        self.dms, self.meta = dms, dms.meta
        self._endpoint = SimpleNamespace(http_session=object())  # a waiter tells by it which event loop it runs on

    def __getattr__(self, operation: str) -> Any:
        async def call(**arguments: Any) -> dict[str, Any]:
            return getattr(self.dms, operation)(**arguments)  # type: ignore[no-any-return]

        return call


def connect(patch: pytest.MonkeyPatch, dms: FakeDms) -> FakeDms:
    """Let every hook made from now on, in a task or in a trigger, reach this client and no other."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncDms]:
        dms.opened += 1
        try:
            yield AsyncDms(dms)
        finally:
            dms.closed += 1

    async def get_async_conn(self: Any) -> Any:
        return opened()

    for name in ("conn", "once", "clients", "_client"):
        patch.setattr(DmsTaskHook, name, dms, raising=False)
    for name in ("conn", "_client"):
        patch.setattr(DmsHook, name, dms)  # the provider's own classes
    patch.setattr(AwsGenericHook, "get_async_conn", get_async_conn)
    return dms


class TaskState:
    """The task state store: JSON values that outlive a try of the task."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)
        assert json.loads(self.values[key]) == value, "Airflow's takes JSON only: no tuples"


class TaskInstance:
    """What operators push."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def context(**more: Any) -> Any:
    return {"ti": TaskInstance(), "task_state_store": TaskState(), **more}


def again(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as another triggerer makes it from what is in the metadata database."""
    path, arguments = trigger.serialize()
    return import_string(path)(**json.loads(json.dumps(arguments)))  # type: ignore[no-any-return]


def fired(trigger: BaseTrigger) -> dict[str, Any]:
    """The payload of its only event."""

    async def all_of() -> list[Any]:
        return [event.payload async for event in again(trigger).run()]

    events = asyncio.run(all_of())
    assert len(events) == 1
    return json.loads(json.dumps(events[0]))  # type: ignore[no-any-return]


def run(task: Any, of: Any, *, hops: int = 10, fresh: Callable[[], Any] | None = None) -> Any:
    """Run a task to its end, as workers and triggerers would; with `fresh`, each hop on an object of its own, as it is in Airflow."""
    step: Callable[[], Any] = lambda: task.execute(of)  # noqa: E731
    for _ in range(hops):
        try:
            return step()
        except TaskDeferred as deferred:
            if deferred.kwargs:
                pytest.fail("airflow dags test hands on the event and nothing else")
            payload, method = fired(deferred.trigger), getattr(fresh() if fresh else task, deferred.method_name)
            step = lambda method=method, payload=payload: method(of, event=payload)  # type: ignore[misc]  # noqa: E731
    raise AssertionError(f"still deferred after {hops} times")


AWS: dict[str, Any] = {"aws_conn_id": None, "region_name": "eu-central-1"}
QUICK: dict[str, Any] = {**AWS, "waiter_delay": 0, "waiter_max_attempts": 12}
TASK: dict[str, Any] = {"task_id": "t", "replication_task_arn": TASK_ARN, **QUICK}
