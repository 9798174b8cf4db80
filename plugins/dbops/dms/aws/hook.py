"""DMS through boto3, where one look is not enough and a second call could do harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.dms import DmsHook
from botocore.config import Config

from dbops import asking
from dbops.asking import Question
from dbops.dms import states
from dbops.dms.states import Task
from dbops.dms.waits import Seen, Wait, seeing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")
W = TypeVar("W", bound=Wait)
CLOUDWATCH = frozenset({"get_metric_data"})


def utc_now() -> datetime:
    """The time; tests replace it."""
    return datetime.now(UTC)


class Clients:
    """A client of DMS whose questions about metrics go to a client of CloudWatch."""

    def __init__(self, dms: Any, cloudwatch: Any) -> None:
        self.dms, self.cloudwatch = dms, cloudwatch

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.cloudwatch if operation in CLOUDWATCH else self.dms, operation)


class DmsTaskHook(DmsHook):
    """Interact with tasks and serverless replications of AWS Database Migration Service (DMS).

    Provide thin wrapper around :external+boto3:py:class:`boto3.client("dms") <DatabaseMigrationService.Client>`.

    Additional arguments (such as ``aws_conn_id``, ``region_name``, ``verify`` and ``config``) are passed down to the
    underlying AwsBaseHook.

    .. seealso::
        - :class:`airflow.providers.amazon.aws.hooks.dms.DmsHook`
    """

    @cached_property
    def once(self) -> Any:
        """A client that never repeats a call by itself: for calls of which a second one could do harm."""
        config = self._get_config().merge(Config(retries={"total_max_attempts": 1}))
        return self.get_client_type(region_name=self.region_name, config=config)

    @cached_property
    def clients(self) -> Any:
        """Clients of DMS and of CloudWatch as one."""
        return Clients(self.conn, self._cloudwatch().conn)

    @asynccontextmanager
    async def async_clients(self) -> AsyncIterator[Any]:
        """The same for a trigger. Both are closed at the end, also when the trigger is cancelled."""
        async with AsyncExitStack() as stack:
            dms = await stack.enter_async_context(await self.get_async_conn())
            cloudwatch = await stack.enter_async_context(await self._cloudwatch().get_async_conn())
            yield Clients(dms, cloudwatch)

    def ask(self, question: Question[T]) -> T:
        """Drive a question with the clients of this hook."""
        return asking.ask(self.clients, question)

    def find(self, identifier: str, *, is_serverless: bool = False) -> Task | None:
        """The task of this identifier, or the serverless replication of this configuration, with settings; None when there is none."""
        found = self.ask(_finding(identifier, is_serverless=is_serverless))
        return None if found.status == "missing" else found

    def look(self, arn: str, *, tables: bool = False, settings: bool = False) -> Seen:
        """The task or serverless replication of this ARN now; its status is ``missing`` when there is none."""
        return self.ask(seeing(arn, tables=tables, settings=settings))

    def wait(self, wait: W, *, delay: float, max_attempts: int, sleep: Callable[[float], None] = time.sleep) -> W:
        """Look until the wait is over, or so many times; an open one comes back with the reason why it is not over.

        :param wait: What is waited for
        :param delay: Seconds between two looks
        :param max_attempts: The maximum number of looks
        :param sleep: How to pass the time
        """
        for number in range(max(1, max_attempts)):
            if number:
                sleep(delay)
            wait = self.ask(wait.looking(utc_now()))
            self.log.info("%s: %s (%s)", type(wait).__name__, wait.outcome, wait.reason)
            if wait.is_over:
                break
        return wait

    def _cloudwatch(self) -> Any:
        return AwsBaseHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self._region_name,
            verify=self._verify,
            config=self._config,
            client_type="cloudwatch",
        )


def _finding(identifier: str, *, is_serverless: bool) -> Question[Task]:
    """AWS may keep an identifier in lower case."""
    if is_serverless:
        chosen = [{"Name": "replication-config-id", "Values": [identifier]}]
        rows = yield from states.pages("describe_replication_configs", "ReplicationConfigs", Filters=chosen)
        arn = next(
            (
                str(row["ReplicationConfigArn"])
                for row in rows
                if str(row.get("ReplicationConfigIdentifier")).lower() == identifier.lower()
            ),
            "",
        )
        return (yield from seeing(arn)).task if arn else states.missing(identifier)
    chosen = [{"Name": "replication-task-id", "Values": [identifier]}]
    rows = yield from states.pages("describe_replication_tasks", "ReplicationTasks", Filters=chosen)
    found = (states.task(row) for row in rows)
    return next((one for one in found if one.identifier.lower() == identifier.lower()), states.missing(identifier))
