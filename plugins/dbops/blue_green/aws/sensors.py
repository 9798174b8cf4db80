"""Sensors of RDS Blue/Green deployments. Fail-closed: what is unknown is not success."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, PokeReturnValue, conf

from dbops import asking
from dbops.blue_green import attempt, readiness, switchover
from dbops.blue_green.attempt import Keeper
from dbops.blue_green.aws import lagging
from dbops.blue_green.aws.hook import RdsBlueGreenHook
from dbops.blue_green.aws.links import BlueGreenDeploymentLink
from dbops.blue_green.aws.switching import DEFER_MARGIN, SwitchoverMixin, TaskStateKeeper
from dbops.blue_green.aws.triggers import BlueGreenReadyTrigger, RdsReplicaLagTrigger
from dbops.blue_green.readiness import Readiness
from dbops.blue_green.switchover import utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context


class _Remembered:
    """What a sensor remembers from one poke to the next: in the process, and with mode `reschedule` in the task state store."""

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = None

    def load(self) -> dict[str, Any] | None:
        """The document, or None at the first poke."""
        return self.document

    def save(self, document: dict[str, Any]) -> None:
        """Replace the document."""
        self.document = document


class BlueGreenDeploymentSensor(AwsBaseSensor[RdsBlueGreenHook]):
    """Waits until a Blue/Green deployment is ready: its status, all its tasks and every member on both sides, several times in a row.

    Fails at once when it cannot become so: INVALID_CONFIGURATION, a failed task, the event of a failed creation, a deployment that is gone.

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment (templated)
    :param target_status: The status that the deployment and its members should have (templated)
    :param consecutive: Looks in a row that have to find it so
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds until ``timeout``. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
        If this is ``None`` or empty then the default boto3 behaviour is used. If
        running Airflow in a distributed manner and aws_conn_id is None or
        empty, then default boto3 configuration would be used (and must be
        maintained on each worker node).
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates. See:
        https://boto3.amazonaws.com/v1/documentation/api/latest/reference/core/session.html
    :param botocore_config: Configuration dictionary (key-values) for botocore client. See:
        https://botocore.amazonaws.com/v1/documentation/api/latest/reference/config.html
    :return: What was seen (:func:`dbops.blue_green.readiness.dump`); ``steps`` tells how long each task took
    """

    aws_hook_class = RdsBlueGreenHook
    template_fields: Sequence[str] = aws_template_fields("blue_green_deployment_identifier", "target_status")
    operator_extra_links = (BlueGreenDeploymentLink(),)
    ui_color = "#ddbb77"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        blue_green_deployment_identifier: str,
        target_status: str = "AVAILABLE",
        consecutive: int = readiness.CONSECUTIVE,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blue_green_deployment_identifier = blue_green_deployment_identifier
        self.target_status = target_status
        self.consecutive = consecutive
        self.deferrable = deferrable
        self._remembered = _Remembered()

    def execute(self, context: Context) -> Any:
        """Poke, or defer."""
        BlueGreenDeploymentLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            blue_green_deployment_identifier=self.blue_green_deployment_identifier,
        )
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=BlueGreenReadyTrigger(
                blue_green_deployment_identifier=self.blue_green_deployment_identifier,
                state=readiness.dump(Readiness(self.target_status, self.consecutive)),
                waiter_delay=self.poke_interval,
                waiter_max_attempts=_attempts(self),
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + DEFER_MARGIN,
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        memory = _memory(self, context, self._remembered)
        kept = memory.load()
        state = readiness.load(kept) if kept else Readiness(self.target_status, self.consecutive)
        question = readiness.checking(self.blue_green_deployment_identifier, state.target, utc_now())
        state = readiness.advance(state, asking.ask(self.hook.conn, question))
        memory.save(readiness.dump(state))
        self.log.info("%s: %s (%s)", self.blue_green_deployment_identifier, state.outcome, state.reason)
        return PokeReturnValue(self._is_ready(state), readiness.dump(state))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take up what the trigger saw."""
        state = readiness.load(validate_execute_complete_event(event)["state"])
        if not self._is_ready(state):
            raise AirflowException(
                f"Blue/Green deployment {self.blue_green_deployment_identifier} was not ready within {self.timeout:g} s: "
                f"{state.reason}"
            )
        return readiness.dump(state)

    def _is_ready(self, state: Readiness) -> bool:
        if state.outcome == "FAILED":
            raise AirflowFailException(
                f"Blue/Green deployment {self.blue_green_deployment_identifier} cannot become {self.target_status}: "
                f"{state.reason}"
            )
        return state.outcome == "READY"


class ReplicaLagSensor(AwsBaseSensor[lagging.CloudWatch]):
    """Waits until a replica's lag is small: by heartbeat and by CloudWatch, both known, several samples in a row.

    Each of the two has been seen at 0 while the other told of seconds or minutes, so both have to hold.

    :param db_instance_identifier: The replica, such as the writer instance of the green side; its metric is read (templated)
    :param mysql_conn_id: The Airflow connection with the login for both sides; its host and port are replaced
    :param blue: Host and port of the side that is written (templated)
    :param green: Host and port of the side that follows (templated)
    :param schema: The schema of the heartbeat table (templated)
    :param run: The run whose heartbeats are read (templated)
    :param metric_name: ``AuroraBinlogReplicaLag``, or ``ReplicaLag`` for RDS for MySQL
    :param max_lag: The limit, in seconds
    :param samples: Samples in a row that have to hold it
    :param max_age: Seconds after which the newest datapoint of CloudWatch counts as unknown
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds until ``timeout``. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The last sample (:func:`dbops.blue_green.aws.lagging.dump`)
    """

    aws_hook_class = lagging.CloudWatch
    template_fields: Sequence[str] = aws_template_fields("db_instance_identifier", "blue", "green", "schema", "run")
    ui_color = "#ddbb77"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        db_instance_identifier: str,
        mysql_conn_id: str,
        blue: Sequence[Any],
        green: Sequence[Any],
        schema: str,
        run: str,
        metric_name: str = lagging.METRICS[0],
        max_lag: float = 1.0,
        samples: int = 3,
        max_age: int = 300,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.db_instance_identifier = db_instance_identifier
        self.mysql_conn_id = mysql_conn_id
        self.blue = blue
        self.green = green
        self.schema = schema
        self.run = run
        self.metric_name = metric_name
        self.max_lag = max_lag
        self.samples = samples
        self.max_age = max_age
        self.deferrable = deferrable
        self._remembered = _Remembered()

    def execute(self, context: Context) -> Any:
        """Poke, or defer."""
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=RdsReplicaLagTrigger(
                gate=asdict(self._gate()),
                waiter_delay=self.poke_interval,
                waiter_max_attempts=_attempts(self),
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + DEFER_MARGIN,
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Take one sample of both."""
        memory, gate = _memory(self, context, self._remembered), self._gate()
        kept = memory.load()
        metric = asking.ask(self.hook.conn, lagging.metric(gate, utc_now()))
        lag = lagging.advance(lagging.Lag(**kept) if kept else lagging.Lag(), gate, lagging.heartbeat(gate), metric)
        memory.save(lagging.dump(lag))
        self.log.info("Lag of %s: %s", gate.db_instance_identifier, lag.reason)
        return PokeReturnValue(lag.is_open, lagging.dump(lag))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take up what the trigger saw."""
        lag: dict[str, Any] = validate_execute_complete_event(event)["lag"]
        if not lag["is_open"]:
            raise AirflowException(
                f"Lag of {self.db_instance_identifier} was not small enough within {self.timeout:g} s: {lag['reason']}"
            )
        return lag

    def _gate(self) -> lagging.Gate:
        return lagging.Gate(
            db_instance_identifier=self.db_instance_identifier,
            mysql_conn_id=self.mysql_conn_id,
            blue=(str(self.blue[0]), int(self.blue[1])),
            green=(str(self.green[0]), int(self.green[1])),
            schema=self.schema,
            run=self.run,
            metric_name=self.metric_name,
            max_lag_s=self.max_lag,
            samples=self.samples,
            max_age_s=self.max_age,
        )


class SwitchoverSensor(SwitchoverMixin, AwsBaseSensor[RdsBlueGreenHook]):
    """Waits until it is certain how a switchover ended: ``COMPLETED`` or ``ROLLED_BACK``; ``STUCK`` fails.

    It never calls one. With the `store` of a SwitchoverBlueGreenDeploymentOperator it goes on with that one's memory; without, it follows
    a switchover that somebody else calls, from its first poke on.

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment (templated)
    :param switchover_timeout: The SwitchoverTimeout with which it was called, in seconds (templated)
    :param grace: Seconds after the timeout in which the outcome has to become certain
    :param confirmations: Answers in a row that have to agree on an outcome
    :param store: Where the memory is kept: a :class:`~dbops.blue_green.attempt.Keeper`, or a function that makes one from the context.
        Default: the task state store
    :param fail_on_rollback: If True, a roll-back fails the task. (default: False: it is a result)
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The memory of the judge (:func:`dbops.blue_green.switchover.dump`): outcome, reason, members, events
    """

    aws_hook_class = RdsBlueGreenHook
    template_fields: Sequence[str] = aws_template_fields("blue_green_deployment_identifier", "switchover_timeout")
    operator_extra_links = (BlueGreenDeploymentLink(),)
    ui_color = "#ddbb77"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        blue_green_deployment_identifier: str,
        switchover_timeout: int | str = 300,
        grace: int = 300,
        confirmations: int = switchover.CONFIRMATIONS,
        store: Keeper | Callable[[Context], Keeper] | None = None,
        fail_on_rollback: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blue_green_deployment_identifier = blue_green_deployment_identifier
        self.switchover_timeout = switchover_timeout
        self.grace = grace
        self.confirmations = confirmations
        self.store = store
        self.fail_on_rollback = fail_on_rollback
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Poke, or defer."""
        BlueGreenDeploymentLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            blue_green_deployment_identifier=self.blue_green_deployment_identifier,
        )
        if not self.deferrable:
            return super().execute(context)
        keeper = self._followed(context)
        seen = attempt.require(keeper, self.blue_green_deployment_identifier)
        if not seen.memory.is_over:
            self._wait_deferred(seen)
        return self._end(seen.memory)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        keeper, identifier = self._followed(context), self.blue_green_deployment_identifier
        memory = attempt.look(self.hook.conn, keeper, identifier, utc_now())
        self.log.info("Switchover of %s: %s (%s)", identifier, memory.outcome, memory.reason)
        return PokeReturnValue(memory.is_over, self._end(memory) if memory.is_over else None)

    def _followed(self, context: Context) -> Keeper:
        keeper = self._keeper(context)
        attempt.follow(
            self.hook.conn,
            keeper,
            self.blue_green_deployment_identifier,
            int(self.switchover_timeout),
            self.grace,
            utc_now(),
            confirmations=self.confirmations,
        )
        return keeper

    def _delay(self) -> float:
        return float(self.poke_interval)


def _attempts(sensor: Any) -> int:
    return max(1, math.ceil(sensor.timeout / sensor.poke_interval))


def _memory(sensor: Any, context: Context, here: Keeper) -> Keeper:
    if sensor.mode != "reschedule":
        return here
    store = context.get("task_state_store")
    if store is None:
        raise AirflowFailException(
            "mode='reschedule': there is no task state store here, so what was seen would be forgotten; use mode='poke'"
        )
    return TaskStateKeeper(store, f"seen-{type(sensor).__name__}")
