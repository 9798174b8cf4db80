"""Triggers of Blue/Green deployments, on aiobotocore.

Those with a memory hand it over in their event, and fire early when they have seen what must not be forgotten: a triggerer that restarts
begins again with what was serialised when the task was deferred, so the task keeps the memory and defers anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.amazon.aws.triggers.base import AwsBaseWaiterTrigger
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow.utils.helpers import prune_dict

from dbops import asking
from dbops.blue_green import attempt, readiness
from dbops.blue_green.aws import lagging
from dbops.blue_green.aws.hook import RdsBlueGreenHook
from dbops.blue_green.switchover import utc_now


class BlueGreenDeploymentAvailableTrigger(AwsBaseWaiterTrigger):
    """Wait asynchronously until a Blue/Green deployment is available and all its tasks are completed.

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment.
    :param waiter_delay: The amount of time in seconds to wait between attempts.
    :param waiter_max_attempts: The maximum number of attempts to be made.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the deployment is, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    aws_hook_class = RdsBlueGreenHook

    def __init__(
        self,
        *,
        blue_green_deployment_identifier: str,
        waiter_delay: int = 30,
        waiter_max_attempts: int = 240,
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            serialized_fields={"blue_green_deployment_identifier": blue_green_deployment_identifier},
            waiter_name="blue_green_deployment_available",
            waiter_args={"BlueGreenDeploymentIdentifier": blue_green_deployment_identifier},
            failure_message="The Blue/Green deployment did not become available",
            status_message="Status of the Blue/Green deployment is",
            status_queries=["BlueGreenDeployments[0].Status", "BlueGreenDeployments[0].StatusDetails"],
            return_key="blue_green_deployment_identifier",
            return_value=blue_green_deployment_identifier,
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            aws_conn_id=aws_conn_id,
            **kwargs,
        )


class BlueGreenDeploymentDeletedTrigger(AwsBaseWaiterTrigger):
    """Wait asynchronously until a Blue/Green deployment is gone.

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment.
    :param waiter_delay: The amount of time in seconds to wait between attempts.
    :param waiter_max_attempts: The maximum number of attempts to be made.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the deployment is, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    aws_hook_class = RdsBlueGreenHook

    def __init__(
        self,
        *,
        blue_green_deployment_identifier: str,
        waiter_delay: int = 30,
        waiter_max_attempts: int = 120,
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            serialized_fields={"blue_green_deployment_identifier": blue_green_deployment_identifier},
            waiter_name="blue_green_deployment_deleted",
            waiter_args={"BlueGreenDeploymentIdentifier": blue_green_deployment_identifier},
            failure_message="The Blue/Green deployment was not deleted",
            status_message="Status of the Blue/Green deployment is",
            status_queries=["BlueGreenDeployments[0].Status", "BlueGreenDeployments[0].StatusDetails"],
            return_key="blue_green_deployment_identifier",
            return_value=blue_green_deployment_identifier,
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            aws_conn_id=aws_conn_id,
            **kwargs,
        )


class RdsDbInstanceInSyncTrigger(AwsBaseWaiterTrigger):
    """Wait asynchronously until a DB instance is available and its parameter groups are in sync.

    :param db_instance_identifier: The identifier of the DB instance.
    :param waiter_delay: The amount of time in seconds to wait between attempts.
    :param waiter_max_attempts: The maximum number of attempts to be made.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the DB is located, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    aws_hook_class = RdsBlueGreenHook

    def __init__(
        self,
        *,
        db_instance_identifier: str,
        waiter_delay: int = 30,
        waiter_max_attempts: int = 60,
        aws_conn_id: str | None = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            serialized_fields={"db_instance_identifier": db_instance_identifier},
            waiter_name="db_instance_in_sync",
            waiter_args={"DBInstanceIdentifier": db_instance_identifier},
            failure_message="The DB instance did not become available",
            status_message="Status of the DB instance is",
            status_queries=["DBInstances[0].DBInstanceStatus", "DBInstances[0].DBParameterGroups"],
            return_key="db_instance_identifier",
            return_value=db_instance_identifier,
            waiter_delay=waiter_delay,
            waiter_max_attempts=waiter_max_attempts,
            aws_conn_id=aws_conn_id,
            **kwargs,
        )


class _RememberingTrigger(BaseTrigger):
    """Parameters that every trigger with a memory has, and its loop."""

    def __init__(
        self,
        *,
        waiter_delay: float = 30,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.waiter_delay = waiter_delay
        self.aws_conn_id, self.region_name = aws_conn_id, region_name
        self.verify, self.botocore_config = verify, botocore_config

    def _fields(self) -> dict[str, Any]:
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Path of the class, and the arguments of which it can be made again."""
        optional = {"region_name": self.region_name, "verify": self.verify, "botocore_config": self.botocore_config}
        common = {"waiter_delay": self.waiter_delay, "aws_conn_id": self.aws_conn_id, **prune_dict(optional)}
        return f"{type(self).__module__}.{type(self).__qualname__}", {**self._fields(), **common}

    def hook(self) -> RdsBlueGreenHook:
        """The hook of this trigger."""
        return RdsBlueGreenHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )


class BlueGreenSwitchoverTrigger(_RememberingTrigger):
    """Watch a switchover that was called until it is known how it ended.

    The event's ``status`` is ``over`` when the outcome is known, and ``running`` when the switchover was first seen in progress: then
    the task has to keep the ``attempt`` of the event and defer again. The attempt's own deadline ends it, not a number of attempts.

    :param attempt: What :func:`dbops.blue_green.attempt.dump` gave.
    :param waiter_delay: The amount of time in seconds to wait between looks.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the deployment is, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    def __init__(self, *, attempt: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attempt = attempt

    def _fields(self) -> dict[str, Any]:
        return {"attempt": self.attempt}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the attempt is over, or for the first time in progress."""
        now = attempt.load(self.attempt)
        in_progress = now.memory.in_progress
        async with await self.hook().get_async_conn() as client:
            while True:
                now = await asking.ask_async(client, attempt.looking(now, utc_now()))
                memory = now.memory
                self.log.info("Switchover of %s: %s (%s)", now.deployment_id, memory.outcome, memory.reason)
                if memory.is_over or memory.in_progress != in_progress:
                    status = "over" if memory.is_over else "running"
                    yield TriggerEvent({"status": status, "attempt": attempt.dump(now)})
                    return
                await asyncio.sleep(self.waiter_delay)


class BlueGreenReadyTrigger(_RememberingTrigger):
    """Watch a Blue/Green deployment until it and all its members are ready several times in a row, or cannot become so.

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment.
    :param state: What :func:`dbops.blue_green.readiness.dump` gave.
    :param waiter_delay: The amount of time in seconds to wait between looks.
    :param waiter_max_attempts: The maximum number of looks.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the deployment is, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    def __init__(
        self,
        *,
        blue_green_deployment_identifier: str,
        state: dict[str, Any],
        waiter_max_attempts: int = 240,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blue_green_deployment_identifier = blue_green_deployment_identifier
        self.state, self.attempts = state, waiter_max_attempts

    def _fields(self) -> dict[str, Any]:
        return {
            "blue_green_deployment_identifier": self.blue_green_deployment_identifier,
            "state": self.state,
            "waiter_max_attempts": self.attempts,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is ready, failed, or looked at often enough."""
        state, identifier = readiness.load(self.state), self.blue_green_deployment_identifier
        async with await self.hook().get_async_conn() as client:
            for number in range(self.attempts):
                if number:
                    await asyncio.sleep(self.waiter_delay)
                seen = await asking.ask_async(client, readiness.checking(identifier, state.target, utc_now()))
                state = readiness.advance(state, seen)
                self.log.info("%s: %s (%s)", identifier, state.outcome, state.reason)
                if state.is_over:
                    break
        yield TriggerEvent({"status": state.outcome.lower(), "state": readiness.dump(state)})


class RdsReplicaLagTrigger(_RememberingTrigger):
    """Watch the lag of a replica until it is small enough several times in a row.

    :param gate: Arguments of :class:`dbops.blue_green.aws.lagging.Gate`.
    :param waiter_delay: The amount of time in seconds to wait between samples.
    :param waiter_max_attempts: The maximum number of samples.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region where the replica is, if different from the default one.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    def __init__(self, *, gate: dict[str, Any], waiter_max_attempts: int = 180, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate, self.attempts = gate, waiter_max_attempts

    def _fields(self) -> dict[str, Any]:
        return {"gate": self.gate, "waiter_max_attempts": self.attempts}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sample until the gate is open, or often enough."""
        gate, lag = lagging.Gate(**self.gate), lagging.Lag()
        hook = lagging.CloudWatch(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=self.botocore_config,
        )
        async with await hook.get_async_conn() as client:
            for number in range(self.attempts):
                if number:
                    await asyncio.sleep(self.waiter_delay)
                metric = await asking.ask_async(client, lagging.metric(gate, utc_now()))
                heartbeat = await asyncio.to_thread(lagging.heartbeat, gate)
                lag = lagging.advance(lag, gate, heartbeat, metric)
                self.log.info("Lag: %s", lag.reason)
                if lag.is_open:
                    break
        yield TriggerEvent({"status": "open" if lag.is_open else "closed", "lag": lagging.dump(lag)})
