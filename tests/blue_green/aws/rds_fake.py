"""A scripted RDS: what each call answers is a list; the last answer stays. Tests of the provider package drive it."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from aiobotocore.waiter import create_waiter_with_client as create_async_waiter
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger
from botocore import xform_name
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.waiter import WaiterModel, create_waiter_with_client

from dbops.blue_green.aws.hook import RdsBlueGreenHook
from dbops.blue_green.aws.lagging import CloudWatch

T0 = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
PREFIX = "arn:aws:rds:eu-central-1:123456789012"
CLUSTER, WRITER, READER = f"{PREFIX}:cluster:shop", f"{PREFIX}:db:shop-1", f"{PREFIX}:db:shop-2"
GREEN = {arn: f"{arn}-green-abc123" for arn in (CLUSTER, WRITER, READER)}
BGD = "bgd-abcdefgh12345678"
OPEN, RUNNING, DONE, FAILED = "AVAILABLE", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_COMPLETED", "SWITCHOVER_FAILED"
TASKS = ("CREATING_READ_REPLICA_OF_SOURCE", "DB_ENGINE_VERSION_UPGRADE", "CREATE_DB_INSTANCES_FOR_CLUSTER")


def fault(
    code: str, status: int = 400, message: str = "no", retries: int = 0, operation: str = "Operation"
) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": retries, "RequestId": "r-1"},
        },
        operation,
    )


def throttled(retries: int = 0) -> ClientError:
    return fault("Throttling", message="Rate exceeded", retries=retries)


def lost() -> ReadTimeoutError:
    return ReadTimeoutError(endpoint_url="https://rds.eu-central-1.amazonaws.com")


def deployment(
    status: str = OPEN, members: str | Mapping[str, str] | None = None, *, renamed: bool = False, **more: Any
) -> dict[str, Any]:
    """A deployment as described; every member has `members` (default: the status), or each its own; renamed: blue is -old1."""
    rows = dict.fromkeys((CLUSTER, WRITER), members) if isinstance(members, str) else members
    rows = dict.fromkeys((CLUSTER, WRITER), status) if rows is None else rows
    source = f"{CLUSTER}-old1" if renamed else CLUSTER
    return {
        "BlueGreenDeploymentIdentifier": BGD,
        "BlueGreenDeploymentName": "rehearsal",
        "Source": source,
        "Target": CLUSTER if renamed else GREEN[CLUSTER],
        "Status": status,
        "Tasks": [{"Name": name, "Status": "COMPLETED"} for name in TASKS],
        "SwitchoverDetails": [
            {
                "SourceMember": f"{arn}-old1" if renamed else arn,
                "TargetMember": arn if renamed else GREEN.get(arn, f"{arn}-green-abc123"),
                "Status": of,
            }
            for arn, of in rows.items()
        ],
        "CreateTime": T0 - timedelta(hours=1),
        **more,
    }


def event(second: float, message: str, kind: str = "blue-green-deployment", source: str = BGD) -> dict[str, Any]:
    return {
        "SourceIdentifier": source,
        "SourceType": kind,
        "Message": message,
        "EventCategories": ["notification"],
        "Date": T0 + timedelta(seconds=second),
        "SourceArn": f"{PREFIX}:deployment:{source}",
    }


def canceled(second: float, reason: str = "replica lag") -> dict[str, Any]:
    return event(second, f"Switchover was canceled on blue/green deployment due to {reason}")


def instance(arn: str, status: str = "available", **more: Any) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": arn.rsplit(":", 1)[-1],
        "DBInstanceArn": arn,
        "DBInstanceStatus": status,
        "DbiResourceId": f"db-{arn.rsplit(':', 1)[-1].upper()}",
        **more,
    }


def cluster(arn: str = CLUSTER, status: str = "available", members: tuple[str, ...] = (WRITER,)) -> dict[str, Any]:
    return {
        "DBClusterIdentifier": arn.rsplit(":", 1)[-1],
        "DBClusterArn": arn,
        "Status": status,
        "DbClusterResourceId": "cluster-ABC",
        "DBClusterMembers": [{"DBInstanceIdentifier": member.rsplit(":", 1)[-1]} for member in members],
    }


class FakeRds:
    """The client. `script(operation, *answers)`: a dict, an error to raise, or a function of the arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, list[Any]] = {}
        self.date = ""
        self.events: list[dict[str, Any]] = []
        self.page = 100
        self.script("describe_events", self._events)
        self.script("describe_db_clusters", {"DBClusters": [cluster()]})
        self.script("switchover_blue_green_deployment", {"BlueGreenDeployment": deployment(RUNNING)})

    def script(self, operation: str, *answers: Any) -> FakeRds:
        self.answers[operation] = list(answers)
        return self

    def deployments(self, *answers: Any) -> FakeRds:
        """What describe_blue_green_deployments says: deployments, errors, or None for an empty list."""
        wrapped = [
            answer
            if isinstance(answer, Exception) or callable(answer)
            else {"BlueGreenDeployments": [answer] if answer else []}
            for answer in answers
        ]
        return self.script("describe_blue_green_deployments", *wrapped)

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)

    def arguments(self, operation: str) -> dict[str, Any]:
        return next(arguments for name, arguments in reversed(self.calls) if name == operation)

    def _events(self, **arguments: Any) -> dict[str, Any]:
        since = arguments.get("StartTime")
        found = [e for e in self.events if since is None or e["Date"] >= since]
        start = int(arguments.get("Marker") or 0)
        answer: dict[str, Any] = {"Events": found[start : start + self.page]}
        return answer | ({"Marker": str(start + self.page)} if start + self.page < len(found) else {})

    def _answer(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((operation, arguments))
        left = self.answers.get(operation)
        if not left:
            raise AssertionError(f"{operation} is not scripted")
        answer = left[0] if len(left) == 1 else left.pop(0)
        if callable(answer):
            answer = answer(**arguments)
        if isinstance(answer, BaseException):
            raise answer
        headers = {"date": self.date} if self.date else {}
        found: dict[str, Any] = copy.deepcopy(answer)
        found.setdefault(
            "ResponseMetadata", {"RequestId": f"r-{len(self.calls)}", "HTTPStatusCode": 200, "HTTPHeaders": headers}
        )
        return found

    @property
    def meta(self) -> Any:
        """Of a real client: waiters and hooks read it."""
        return _real().meta

    def get_waiter(self, name: str) -> Any:
        """One of boto3's own."""
        model = WaiterModel(_real()._get_waiter_config())
        return create_waiter_with_client({xform_name(one): one for one in model.waiter_names}[name], model, self)

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        if operation.startswith("_"):
            raise AttributeError(operation)
        return lambda **arguments: self._answer(operation, arguments)


@cache
def _real() -> Any:
    return boto3.client("rds", region_name="eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing")


class AsyncRds:
    """The same client for `await`."""

    def __init__(self, rds: FakeRds) -> None:
        self.rds, self.meta = rds, rds.meta
        self._endpoint = SimpleNamespace(http_session=object())  # a waiter tells by it which event loop it runs on

    def get_waiter(self, name: str) -> Any:
        model = WaiterModel(_real()._get_waiter_config())
        return create_async_waiter({xform_name(one): one for one in model.waiter_names}[name], model, self)

    def __getattr__(self, operation: str) -> Any:
        async def call(**arguments: Any) -> dict[str, Any]:
            return getattr(self.rds, operation)(**arguments)  # type: ignore[no-any-return]

        return call


def connect(patch: pytest.MonkeyPatch, rds: FakeRds) -> None:
    """Let every AWS hook made from now on, in a task or in a trigger, reach this client and no other."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncRds]:
        yield AsyncRds(rds)

    async def get_async_conn(self: Any) -> Any:
        return opened()

    for name in ("conn", "once", "_client"):
        patch.setattr(RdsBlueGreenHook, name, rds, raising=False)
    patch.setattr(CloudWatch, "conn", rds, raising=False)
    patch.setattr(AwsGenericHook, "get_async_conn", get_async_conn)


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


def run(task: Any, of: Any, *, hops: int = 10) -> Any:
    """Run a task to its end, as workers and triggerers would."""
    step: Callable[[], Any] = lambda: task.execute(of)  # noqa: E731
    for _ in range(hops):
        try:
            return step()
        except TaskDeferred as deferred:
            payload, method = fired(deferred.trigger), getattr(task, deferred.method_name)
            step = lambda method=method, payload=payload: method(of, event=payload)  # type: ignore[misc]  # noqa: E731
    raise AssertionError(f"still deferred after {hops} times")


class Kept:
    """A keeper in memory; `dies_at` kills the process (an error that nobody catches) at the n-th save, after it was written."""

    def __init__(self, dies_at: int = 0) -> None:
        self.document: dict[str, Any] | None = None
        self.saves, self.dies_at = 0, dies_at

    def load(self) -> dict[str, Any] | None:
        return copy.deepcopy(self.document)

    def save(self, document: dict[str, Any]) -> None:
        self.document = json.loads(json.dumps(document))
        assert self.document == document
        self.saves += 1
        if self.saves == self.dies_at:
            raise Killed


class Killed(BaseException):
    """The worker process is gone."""


def seconds(start: float = 1, step: float = 1) -> Iterator[datetime]:
    second = start
    while True:
        yield T0 + timedelta(seconds=second)
        second += step
