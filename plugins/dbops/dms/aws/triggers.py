"""The trigger of every wait for DMS, on aiobotocore.

A triggerer that restarts begins again with what was serialised when the task was deferred. All that it loses are looks: what a wait must
not forget (what tables were like before they were reloaded, when a task was started) is in it from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.utils.helpers import prune_dict

from dbops import asking
from dbops.dms import waits
from dbops.dms.aws.hook import DmsTaskHook, utc_now


class DmsWaitTrigger(BaseTrigger):
    """Look at DMS until a wait is over, or looked at often enough.

    The event's ``status`` is ``success`` when the outcome is good, ``error`` when it is bad, and ``timeout`` when it is still open; its
    ``wait`` is the wait at the end, its ``message`` the reasons, its ``result`` what was given. A call that is throttled, fails in AWS or
    gets no answer is repeated at the next look; one that AWS refuses ends the wait.

    :param wait: What :func:`dbops.dms.waits.dump` gave.
    :param result: What the task wants to have back with the event; ``airflow dags test`` hands on nothing else of a deferred task.
    :param waiter_delay: The amount of time in seconds to wait between looks.
    :param waiter_max_attempts: The maximum number of looks.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the task is, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    def __init__(
        self,
        *,
        wait: dict[str, Any],
        result: Any = None,
        waiter_delay: float = 30,
        waiter_max_attempts: int = 120,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.wait = wait
        self.result = result
        self.waiter_delay = waiter_delay
        self.attempts = waiter_max_attempts
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Path of the class, and the arguments of which it can be made again."""
        optional = {"region_name": self.region_name, "verify": self.verify, "botocore_config": self.botocore_config}
        given = {
            "wait": self.wait,
            "result": self.result,
            "waiter_delay": self.waiter_delay,
            "waiter_max_attempts": self.attempts,
            "aws_conn_id": self.aws_conn_id,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", {**given, **prune_dict(optional)}

    def hook(self) -> DmsTaskHook:
        """The hook of this trigger."""
        return DmsTaskHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is over."""
        wait: waits.Wait = waits.load(self.wait)
        async with self.hook().async_clients() as clients:
            for number in range(max(1, self.attempts)):
                if number:
                    await asyncio.sleep(self.waiter_delay)
                wait = await asking.ask_async(clients, wait.looking(utc_now()))
                self.log.info("%s: %s (%s)", type(wait).__name__, wait.outcome, wait.reason)
                if wait.is_over:
                    break
        status = {"good": "success", "bad": "error", "open": "timeout"}[wait.outcome]
        told = {"wait": waits.dump(wait), "message": wait.reason, "result": self.result}
        yield TriggerEvent({"status": status, **told})
