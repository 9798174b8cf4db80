"""Sensors of DMS tasks and serverless replications. Fail-closed: what is unknown is no success, what cannot become good fails at once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink
from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowFailException, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from dbops.dms import waits
from dbops.dms.aws.hook import DmsTaskHook, utc_now
from dbops.dms.aws.links import DmsTaskLink
from dbops.dms.aws.notes import Notes
from dbops.dms.aws.triggers import DmsWaitTrigger
from dbops.dms.waits import Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

# The number of looks ends a wait; a deferred task waits a little longer, should the triggerer be late.
DEFER_MARGIN = timedelta(minutes=5)


class DmsWaitSensor(AwsBaseSensor[DmsTaskHook]):
    """Base of sensors of one DMS task, or of one serverless replication.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
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
    """

    aws_hook_class = DmsTaskHook
    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn")
    operator_extra_links: Collection[BaseAwsLink] = (DmsTaskLink(),)
    ui_color = "#ddbb77"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        replication_task_arn: str | None = None,
        replication_config_arn: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (replication_task_arn is None) == (replication_config_arn is None):
            raise ValueError("Give either replication_task_arn or replication_config_arn.")
        self.replication_task_arn = replication_task_arn
        self.replication_config_arn = replication_config_arn
        self.deferrable = deferrable
        self._seen: Wait | None = None

    @abstractmethod
    def _wait(self, since: str) -> Wait:
        """What is waited for, since this moment (ISO 8601)."""

    def execute(self, context: Context) -> Any:
        """Poke, or defer."""
        if not self.deferrable:
            return super().execute(context)
        wait = self.hook.wait(self._wait(waits.iso(utc_now())), delay=0, max_attempts=1)
        self._link(context, wait)
        if wait.is_over:
            return self._end(wait)
        self.defer(
            trigger=DmsWaitTrigger(
                wait=waits.dump(wait),
                waiter_delay=self.poke_interval,
                waiter_max_attempts=max(1, math.ceil(self.timeout / self.poke_interval)),
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
        wait = self.hook.wait(self._remembered(context), delay=0, max_attempts=1)
        self._remember(context, wait)
        self._link(context, wait)
        return PokeReturnValue(wait.is_over, self._end(wait) if wait.is_over else None)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take up what the trigger saw."""
        wait: Wait = waits.load(validate_execute_complete_event(event)["wait"])
        if not wait.is_over:
            raise AirflowSensorTimeout(f"{self._arn}: not so within {self.timeout:g} s: {wait.reason}")
        return self._end(wait)

    @property
    def _arn(self) -> str:
        return str(self.replication_task_arn or self.replication_config_arn)

    def _end(self, wait: Wait) -> dict[str, Any]:
        if wait.outcome == "bad":
            # A retry would see the same.
            raise AirflowFailException(f"{self._arn}: {wait.reason}")
        return {**wait.told, "reasons": list(wait.reasons)}

    def _remembered(self, context: Context) -> Wait:
        """The wait of the poke before. Between pokes of mode `reschedule` the process ends, so the task state store keeps it."""
        if self.mode != "reschedule":
            return self._seen or self._wait(waits.iso(utc_now()))
        kept = self._notes(context).load()
        wait: Wait = waits.load(kept) if kept else self._wait(waits.iso(utc_now()))
        return wait

    def _remember(self, context: Context, wait: Wait) -> None:
        if self.mode != "reschedule":
            self._seen = wait
        elif wait.is_over:
            self._notes(context).clear()
        else:
            self._notes(context).save({**waits.dump(wait), "told": {}})

    def _notes(self, context: Context) -> Notes:
        if context.get("task_state_store") is None:
            raise AirflowFailException(
                "mode='reschedule': there is no task state store here, so what was seen would be forgotten; use mode='poke'"
            )
        return Notes(context, f"dms-{type(self).__name__}-{self._arn.rpartition(':')[2]}")

    def _link(self, context: Context, wait: Wait) -> None:
        identifier, is_serverless = str(wait.told.get("identifier") or ""), waits.is_serverless(self._arn)
        if identifier:
            DmsTaskLink.persist(
                context=context,
                operator=self,
                region_name=self.hook.conn_region_name,
                aws_partition=self.hook.conn_partition,
                fragment=DmsTaskLink.fragment(identifier, is_serverless=is_serverless),
            )


class DmsFullLoadSensor(DmsWaitSensor):
    """Waits until the full load is over: every table completed, none in error, no more rows that failed than are put up with.

    It judges tables, not the status: a task runs on when tables have failed, and ``stopped`` may be a fatal error. A task with changes may
    run on then; one of type full-load has to have ended as well, with the right reason. What DMS cannot see it does not either: a source
    that goes away within the load may end it "successfully", so compare rows.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param max_error_rows: Rows that may fail to load, over all tables
    :param min_tables: Tables that have to be there
    :param not_before: ISO 8601: loads of tables that began before this moment are older ones (templated)
    :param grace: Seconds in which the task has to be started
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds until ``timeout``. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end, with the ``statistics`` of its tables and the ``reasons``
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn", "not_before")

    def __init__(
        self,
        *,
        max_error_rows: int = 0,
        min_tables: int = 1,
        not_before: str | None = None,
        grace: float = 300,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_error_rows = max_error_rows
        self.min_tables = min_tables
        self.not_before = not_before
        self.grace = grace

    def _wait(self, since: str) -> Wait:
        return waits.Loaded(
            arn=self._arn,
            since=since,
            grace_s=self.grace,
            max_error_rows=self.max_error_rows,
            min_tables=max(1, self.min_tables),
            not_before=self.not_before or "",
        )


class DmsTaskEndedSensor(DmsWaitSensor):
    """Waits until a task has ended, and well: by its stop reason and its tables, never by the word ``stopped`` alone.

    Unlike the provider's DmsTaskCompletedSensor it fails when the task stopped with an error, or without tables, and gives a task that is
    ``ready`` the time to start.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param stop_reasons: Only these are good, such as ``["STOPPED_AT_COMMIT_TIME"]``; default: those that fit the type of the task
    :param max_error_rows: Rows that may fail to load, over all tables
    :param not_before: ISO 8601: an end before this moment is an older one (templated)
    :param grace: Seconds in which the task has to be started
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds until ``timeout``. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end, with the ``statistics`` of its tables and the ``reasons``
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn", "not_before")

    def __init__(
        self,
        *,
        stop_reasons: Sequence[str] = (),
        max_error_rows: int = 0,
        not_before: str | None = None,
        grace: float = 300,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stop_reasons = stop_reasons
        self.max_error_rows = max_error_rows
        self.not_before = not_before
        self.grace = grace

    def _wait(self, since: str) -> Wait:
        return waits.Ended(
            arn=self._arn,
            since=since,
            grace_s=self.grace,
            not_before=self.not_before or "",
            stop_reasons=tuple(self.stop_reasons),
            max_error_rows=self.max_error_rows,
        )


class DmsValidationSensor(DmsWaitSensor):
    """Waits until DMS has found the rows of every table equal. Validation has to be enabled; it is for relational targets and S3 only.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param tables: ``schema.table`` of those that matter; all of the task by default (templated)
    :param allow_no_primary_key: If True, tables that cannot be validated because they have no primary key are put up with
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds until ``timeout``. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end, with the ``statistics`` of its tables and the ``reasons``
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn", "tables")

    def __init__(self, *, tables: Sequence[str] = (), allow_no_primary_key: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tables = tables
        self.allow_no_primary_key = allow_no_primary_key

    def _wait(self, since: str) -> Wait:
        return waits.Validated(arn=self._arn, tables=tuple(self.tables), without_key=self.allow_no_primary_key)


class DmsCdcHealthySensor(DmsWaitSensor):
    """Waits until changes flow: the task runs, no table has failed, and both latencies are known and small several points in a row.

    Missing data is not healthy. CDCLatencySource is 0 as well when no event was read, so write a row on the source and look for it on the
    target where that matters.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param max_latency_source: The limit of CDCLatencySource, in seconds
    :param max_latency_target: The limit of CDCLatencyTarget, in seconds
    :param min_points: Points in a row, without a gap, that have to hold both
    :param period: Seconds of a point
    :param max_age: Seconds after which the newest point counts as unknown
    :param not_before: ISO 8601: points before this moment do not count (templated)
    :param metric_dimensions: Dimensions of the metrics; default: those of the task, by its instance and its ARN (templated)
    :param deferrable: If True, the sensor will wait asynchronously, every ``poke_interval`` seconds until ``timeout``. This mode
        requires aiobotocore module to be installed. (default: False)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end, with the ``latency`` of its last points and the ``reasons``
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_arn", "replication_config_arn", "not_before", "metric_dimensions"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"metric_dimensions": "json"}

    def __init__(
        self,
        *,
        max_latency_source: float = 60,
        max_latency_target: float = 60,
        min_points: int = 3,
        period: int = 60,
        max_age: int = 300,
        not_before: str | None = None,
        metric_dimensions: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_latency_source = max_latency_source
        self.max_latency_target = max_latency_target
        self.min_points = min_points
        self.period = period
        self.max_age = max_age
        self.not_before = not_before
        self.metric_dimensions = metric_dimensions

    def _wait(self, since: str) -> Wait:
        return waits.CdcHealthy(
            arn=self._arn,
            max_source_s=self.max_latency_source,
            max_target_s=self.max_latency_target,
            min_points=self.min_points,
            period_s=self.period,
            max_age_s=self.max_age,
            not_before=self.not_before or "",
            dimensions=tuple(sorted((self.metric_dimensions or {}).items())),
        )
