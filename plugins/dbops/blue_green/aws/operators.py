"""Operators of RDS Blue/Green deployments, and of clusters and their parameter groups where the Amazon provider has none."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.triggers.rds import RdsDbAvailableTrigger, RdsDbDeletedTrigger
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.amazon.aws.utils.rds import RdsDbType
from airflow.providers.amazon.aws.utils.tags import format_tags
from airflow.providers.amazon.aws.utils.waiter_with_logging import wait
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, conf
from airflow.utils.helpers import prune_dict

from dbops import asking
from dbops.blue_green import attempt, switchover
from dbops.blue_green.attempt import Keeper
from dbops.blue_green.aws.hook import RdsBlueGreenHook
from dbops.blue_green.aws.links import (
    BlueGreenDeploymentLink,
    RdsDbClusterLink,
    RdsDbClusterParameterGroupLink,
    RdsDbInstanceLink,
)
from dbops.blue_green.aws.switching import DEFER_MARGIN, SwitchoverMixin
from dbops.blue_green.aws.triggers import (
    BlueGreenDeploymentAvailableTrigger,
    BlueGreenDeploymentDeletedTrigger,
    RdsDbInstanceInSyncTrigger,
)
from dbops.blue_green.switchover import utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

IfExists = Literal["fail", "take_up"]
# ModifyDBClusterParameterGroup takes no more at once.
MAX_PARAMETERS = 20


class RdsWaitingOperator(AwsBaseOperator[RdsBlueGreenHook]):
    """Base of operators that make one call and wait for what it began.

    :param wait_for_completion: If True, waits for completion. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
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

    aws_hook_class = RdsBlueGreenHook
    ui_color = "#eeaa88"
    ui_fgcolor = "#ffffff"

    waiter_name: str
    failure_message: str
    status_args: Sequence[str]

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        waiter_delay: int = 30,
        waiter_max_attempts: int = 120,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = False if deferrable else wait_for_completion
        self.deferrable = deferrable
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts

    @abstractmethod
    def _trigger(self, result: Any) -> BaseTrigger:
        """The trigger that waits; its event carries the result."""

    def _complete(self, waiter_args: dict[str, Any], result: Any) -> Any:
        """Wait as asked for, and give the result."""
        if self.deferrable:
            self.defer(
                trigger=self._trigger(result),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.waiter_delay * self.waiter_max_attempts) + DEFER_MARGIN,
            )
        if self.wait_for_completion:
            try:
                wait(
                    waiter=self.hook.get_waiter(self.waiter_name),
                    waiter_delay=self.waiter_delay,
                    waiter_max_attempts=self.waiter_max_attempts,
                    args=waiter_args,
                    failure_message=self.failure_message,
                    status_message="Status is",
                    status_args=list(self.status_args),
                )
            except AirflowException as error:
                raise AirflowException(self._explain(self._told(str(error)), result)) from error
        return result

    def _told(self, error: str) -> str:
        told = " ".join(error.split())
        return told if self.failure_message in told else f"{self.failure_message}: {told}"

    def _explain(self, error: str, result: Any) -> str:
        """What the alert should say of a wait that failed."""
        return error

    def _result(self, event: dict[str, Any]) -> Any:
        return event["response"]

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Take up the event of the trigger."""
        validated_event = validate_execute_complete_event(event)
        result = self._result(validated_event)
        if validated_event["status"] != "success":
            raise AirflowException(self._explain(self._told(str(validated_event.get("message"))), result))
        return result

    def _aws(self) -> dict[str, Any]:
        """Parameters that go to every trigger."""
        return {
            "waiter_delay": self.waiter_delay,
            "waiter_max_attempts": self.waiter_max_attempts,
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": self.botocore_config,
        }

    def _link(self, link: type[Any], context: Context, **values: str) -> None:
        link.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            **values,
        )

    def on_kill(self) -> None:
        """Leave AWS alone: what was asked for goes on there, and a retry of the task takes it up."""
        self.log.warning("Killed; what was asked of AWS goes on there, and a retry of this task takes it up")


class CreateBlueGreenDeploymentOperator(RdsWaitingOperator):
    """Creates a Blue/Green deployment.

    Idempotent by name: a deployment of this name and source that exists is taken up, so a retry after a crash creates no second one.
    One of another source is refused.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.create_blue_green_deployment`

    :param blue_green_deployment_name: The name of the deployment, unique within account and region (templated)
    :param source: ARN of the cluster or instance that is the blue side (templated)
    :param target_engine_version: Engine version of the green side (templated)
    :param target_db_parameter_group_name: DB parameter group of the green instances (templated)
    :param target_db_cluster_parameter_group_name: DB cluster parameter group of the green cluster (templated)
    :param tags: A dictionary of tags or a list of tags in format `[{"Key": "...", "Value": "..."},]` (templated)
    :param rds_kwargs: More named arguments of boto3's ``create_blue_green_deployment`` (templated)
    :param wait_for_completion: If True, waits until it is available and its tasks are completed. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The identifier (``bgd-...``) of the deployment
    """

    template_fields: Sequence[str] = aws_template_fields(
        "blue_green_deployment_name",
        "source",
        "target_engine_version",
        "target_db_parameter_group_name",
        "target_db_cluster_parameter_group_name",
        "tags",
        "rds_kwargs",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"rds_kwargs": "json", "tags": "json"}
    operator_extra_links = (BlueGreenDeploymentLink(),)

    waiter_name = "blue_green_deployment_available"
    failure_message = "The Blue/Green deployment did not become available"
    status_args = ("BlueGreenDeployments[0].Status", "BlueGreenDeployments[0].StatusDetails")

    def __init__(
        self,
        *,
        blue_green_deployment_name: str,
        source: str,
        target_engine_version: str | None = None,
        target_db_parameter_group_name: str | None = None,
        target_db_cluster_parameter_group_name: str | None = None,
        tags: Sequence[dict[str, str]] | dict[str, str] | None = None,
        rds_kwargs: dict[str, Any] | None = None,
        waiter_max_attempts: int = 240,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.blue_green_deployment_name = blue_green_deployment_name
        self.source = source
        self.target_engine_version = target_engine_version
        self.target_db_parameter_group_name = target_db_parameter_group_name
        self.target_db_cluster_parameter_group_name = target_db_cluster_parameter_group_name
        self.tags = tags
        self.rds_kwargs = rds_kwargs or {}

    def execute(self, context: Context) -> str:
        """Create it, or take up the one that is there."""
        found = self._existing() or self._create()
        identifier = str(found["BlueGreenDeploymentIdentifier"])
        self._link(BlueGreenDeploymentLink, context, blue_green_deployment_identifier=identifier)
        result: str = self._complete({"BlueGreenDeploymentIdentifier": identifier}, identifier)
        return result

    def _create(self) -> dict[str, Any]:
        wanted = prune_dict({
            "BlueGreenDeploymentName": self.blue_green_deployment_name,
            "Source": self.source,
            "TargetEngineVersion": self.target_engine_version,
            "TargetDBParameterGroupName": self.target_db_parameter_group_name,
            "TargetDBClusterParameterGroupName": self.target_db_cluster_parameter_group_name,
            "Tags": format_tags(self.tags) or None,
        })  # fmt: skip
        self.log.info("Creating Blue/Green deployment %s of %s", self.blue_green_deployment_name, self.source)
        try:
            answer = self.hook.conn.create_blue_green_deployment(**wanted, **self.rds_kwargs)
        except Exception as error:
            # Somebody was faster, or the client repeated a call whose answer was lost.
            if asking.code(error) != "BlueGreenDeploymentAlreadyExistsFault" or not (found := self._existing()):
                raise
            return found
        created: dict[str, Any] = answer["BlueGreenDeployment"]
        return created

    def _existing(self) -> dict[str, Any] | None:
        found = self.hook.find(self.blue_green_deployment_name)
        if found is None:
            return None
        identifier, status = found["BlueGreenDeploymentIdentifier"], found.get("Status")
        if found.get("Source") != self.source:
            raise AirflowFailException(
                f"blue_green_deployment_name={self.blue_green_deployment_name!r} is that of {identifier}, whose source is "
                f"{found.get('Source')} and not {self.source}; choose another name, or delete that deployment"
            )
        if status == "DELETING":
            raise AirflowException(
                f"Blue/Green deployment {identifier} is being deleted; repeat the task when it is gone"
            )
        self.log.info("Blue/Green deployment %s is there already (%s); taken up", identifier, status)
        return found

    def _explain(self, error: str, result: Any) -> str:
        try:
            found = self.hook.get(result)
            if found is None:
                return f"{error}; {result} is gone"
            said = [str(event["Message"]) for event in self.hook.events(found, utc_now() - timedelta(hours=6))]
        except Exception as asked:
            if not asking.is_failure(asked):
                raise
            return f"{error}; why could not be asked: {asking.text(asked)}"
        failed = [message for message in said if "fail" in message.lower()]
        told = (f"{result} is {found.get('Status')}", str(found.get("StatusDetails") or ""), *failed)
        return "; ".join([error, *dict.fromkeys(part for part in told if part)])

    def _result(self, event: dict[str, Any]) -> Any:
        return event["blue_green_deployment_identifier"]

    def _trigger(self, result: Any) -> BaseTrigger:
        return BlueGreenDeploymentAvailableTrigger(blue_green_deployment_identifier=result, **self._aws())


class SwitchoverBlueGreenDeploymentOperator(SwitchoverMixin, AwsBaseOperator[RdsBlueGreenHook]):
    """Switches a Blue/Green deployment over, once, and tells how it ended.

    The time and the members are kept before the call is made. Whatever dies afterwards (worker, triggerer, connection), a retry of the
    task finds them, observes and never calls twice; a switchover that is in progress already is followed. The outcome is ``COMPLETED`` or
    ``ROLLED_BACK``; when neither is certain ``switchover_timeout`` + ``grace`` seconds after the call, it is ``STUCK``, which fails the
    task without a retry. Killing the task leaves the switchover alone.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.switchover_blue_green_deployment`

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment (templated)
    :param switchover_timeout: SwitchoverTimeout, in seconds: 30 to 3600; afterwards AWS rolls back (templated)
    :param grace: Seconds after the timeout in which the outcome has to become certain
    :param confirmations: Answers in a row that have to agree on an outcome
    :param store: Where the memory is kept: a :class:`~dbops.blue_green.attempt.Keeper`, or a function that makes one from the context.
        Default: the task state store. To switch over the same deployment once more, use another one
    :param fail_on_rollback: If True, a roll-back fails the task. (default: False: it is a result)
    :param wait_for_completion: If False, returns as soon as AWS took the call. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) between two looks. There is no maximum of attempts: timeout and grace end it
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The memory of the judge (:func:`dbops.blue_green.switchover.dump`): outcome, reason, members, events
    """

    aws_hook_class = RdsBlueGreenHook
    template_fields: Sequence[str] = aws_template_fields("blue_green_deployment_identifier", "switchover_timeout")
    operator_extra_links = (BlueGreenDeploymentLink(),)
    ui_color = "#eeaa88"
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
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        waiter_delay: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blue_green_deployment_identifier = blue_green_deployment_identifier
        self.switchover_timeout = switchover_timeout
        self.grace = grace
        self.confirmations = confirmations
        self.store = store
        self.fail_on_rollback = fail_on_rollback
        self.wait_for_completion = False if deferrable else wait_for_completion
        self.deferrable = deferrable
        self.waiter_delay = waiter_delay

    def execute(self, context: Context) -> dict[str, Any]:
        """Call it unless it was called, then look until it is over."""
        keeper, identifier = self._keeper(context), self.blue_green_deployment_identifier
        BlueGreenDeploymentLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            blue_green_deployment_identifier=identifier,
        )
        timeout_s = int(self.switchover_timeout)
        memory = attempt.begin(
            self.hook.once, keeper, identifier, timeout_s, self.grace, utc_now(), confirmations=self.confirmations
        )
        kept = attempt.require(keeper, identifier)
        self.log.info(
            "Switchover of %s with SwitchoverTimeout %s: %s (request %s); expecting %s",
            *(identifier, timeout_s, kept.called, kept.request_id or "unknown", ", ".join(memory.expected)),
        )
        if self.deferrable and not memory.is_over:
            self._wait_deferred(kept)
        while self.wait_for_completion and not memory.is_over:
            time.sleep(self.waiter_delay)
            memory = attempt.look(self.hook.conn, keeper, identifier, utc_now())
            self.log.info("Switchover of %s: %s (%s)", identifier, memory.outcome, memory.reason)
        return self._end(memory)

    def _delay(self) -> float:
        return self.waiter_delay

    def on_kill(self) -> None:
        """Leave the switchover alone: AWS has no call that cancels one, and half of it is worse than either end."""
        self.log.warning(
            "Killed; a switchover of %s that was called goes on in AWS until it is completed or rolled back. "
            "A retry of this task observes it and does not call again",
            self.blue_green_deployment_identifier,
        )


class DeleteBlueGreenDeploymentOperator(RdsWaitingOperator):
    """Deletes a Blue/Green deployment. One that is gone, or being deleted, is no error.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.delete_blue_green_deployment`

    :param blue_green_deployment_identifier: The identifier (``bgd-...``) of the deployment (templated)
    :param delete_target: If True, the green side is deleted as well. AWS refuses that after the switchover: then the green side is
        production. (default: False) (templated)
    :param wait_for_completion: If True, waits until it is gone. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The identifier (``bgd-...``) of the deployment
    """

    template_fields: Sequence[str] = aws_template_fields("blue_green_deployment_identifier", "delete_target")
    operator_extra_links = (BlueGreenDeploymentLink(),)

    waiter_name = "blue_green_deployment_deleted"
    failure_message = "The Blue/Green deployment was not deleted"
    status_args = ("BlueGreenDeployments[0].Status", "BlueGreenDeployments[0].StatusDetails")

    def __init__(self, *, blue_green_deployment_identifier: str, delete_target: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blue_green_deployment_identifier = blue_green_deployment_identifier
        self.delete_target = delete_target

    def execute(self, context: Context) -> str:
        """Delete it unless it is gone."""
        identifier = self.blue_green_deployment_identifier
        self._link(BlueGreenDeploymentLink, context, blue_green_deployment_identifier=identifier)
        found = self.hook.get(identifier)
        if found is None:
            self.log.info("Blue/Green deployment %s is gone already", identifier)
            return identifier
        if found.get("Status") == "SWITCHOVER_COMPLETED" and self.delete_target:
            raise AirflowFailException(
                f"delete_target=True: {identifier} was switched over, so its target is production now and AWS keeps it; "
                f"pass False, and delete the old side by its own name"
            )
        if found.get("Status") != "DELETING":
            try:
                self.hook.conn.delete_blue_green_deployment(
                    BlueGreenDeploymentIdentifier=identifier, **({"DeleteTarget": True} if self.delete_target else {})
                )
            except Exception as error:
                if asking.code(error) != attempt.NO_DEPLOYMENT:
                    raise
                return identifier
        result: str = self._complete({"BlueGreenDeploymentIdentifier": identifier}, identifier)
        return result

    def _result(self, event: dict[str, Any]) -> Any:
        return event["blue_green_deployment_identifier"]

    def _trigger(self, result: Any) -> BaseTrigger:
        return BlueGreenDeploymentDeletedTrigger(blue_green_deployment_identifier=result, **self._aws())


class _ClusterOperator(RdsWaitingOperator):
    """What the three ways to get a cluster have in common: the call, and what happens when the cluster is there already."""

    operator_extra_links = (RdsDbClusterLink(),)
    waiter_name = "db_cluster_available"
    failure_message = "The DB cluster did not become available"
    status_args = ("DBClusters[0].Status",)
    db_cluster_identifier: str

    def __init__(self, *, if_exists: IfExists = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.if_exists = if_exists

    def _get(self, context: Context, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        identifier = self.db_cluster_identifier
        self._link(RdsDbClusterLink, context, db_cluster_identifier=identifier)
        try:
            answer = getattr(self.hook.conn, operation)(DBClusterIdentifier=identifier, **prune_dict(arguments))
            made = answer["DBCluster"]
        except Exception as error:
            if asking.code(error) != "DBClusterAlreadyExistsFault" or self.if_exists != "take_up":
                raise
            self.log.info("DB cluster %s is there already; taken up", identifier)
            made = self.hook.conn.describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"][0]
        kept = (
            "DBClusterIdentifier",
            "DBClusterArn",
            "DbClusterResourceId",
            "Endpoint",
            "ReaderEndpoint",
            "EngineVersion",
        )
        result: dict[str, Any] = self._complete(
            {"DBClusterIdentifier": identifier}, {key: made[key] for key in kept if made.get(key)}
        )
        return result

    def _trigger(self, result: Any) -> BaseTrigger:
        return RdsDbAvailableTrigger(
            db_identifier=self.db_cluster_identifier, response=result, db_type=RdsDbType.CLUSTER, **self._aws()
        )


class RdsCreateDbClusterOperator(_ClusterOperator):
    """Creates a DB cluster. It has no instances yet: create them with RdsCreateDbInstanceOperator.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.create_db_cluster`

    :param db_cluster_identifier: The identifier of the cluster (templated)
    :param engine: The database engine, for example aurora-mysql (templated)
    :param engine_version: The version of the engine (templated)
    :param db_cluster_parameter_group_name: The cluster parameter group (templated)
    :param tags: A dictionary of tags or a list of tags in format `[{"Key": "...", "Value": "..."},]` (templated)
    :param rds_kwargs: More named arguments of boto3's ``create_db_cluster`` (templated)
    :param if_exists: ``fail``, or ``take_up`` a cluster of this identifier that exists, as a retry after a crash may want
    :param wait_for_completion: If True, waits until it is available. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: Identifier, ARN, resource id, endpoints and version of the cluster
    """

    template_fields: Sequence[str] = aws_template_fields(
        "db_cluster_identifier", "engine", "engine_version", "db_cluster_parameter_group_name", "tags", "rds_kwargs"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"rds_kwargs": "json", "tags": "json"}

    def __init__(
        self,
        *,
        db_cluster_identifier: str,
        engine: str,
        engine_version: str | None = None,
        db_cluster_parameter_group_name: str | None = None,
        tags: Sequence[dict[str, str]] | dict[str, str] | None = None,
        rds_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.db_cluster_identifier = db_cluster_identifier
        self.engine = engine
        self.engine_version = engine_version
        self.db_cluster_parameter_group_name = db_cluster_parameter_group_name
        self.tags = tags
        self.rds_kwargs = rds_kwargs or {}

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the cluster."""
        wanted = {
            "Engine": self.engine,
            "EngineVersion": self.engine_version,
            "DBClusterParameterGroupName": self.db_cluster_parameter_group_name,
            "Tags": format_tags(self.tags) or None,
            **self.rds_kwargs,
        }
        return self._get(context, "create_db_cluster", wanted)


class RdsRestoreDbClusterFromSnapshotOperator(_ClusterOperator):
    """Creates a DB cluster from a snapshot. It has no instances yet: create them with RdsCreateDbInstanceOperator.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.restore_db_cluster_from_snapshot`

    :param db_cluster_identifier: The identifier of the new cluster (templated)
    :param snapshot_identifier: The DB snapshot or DB cluster snapshot (templated)
    :param engine: The database engine, for example aurora-mysql (templated)
    :param engine_version: The version of the engine (templated)
    :param db_cluster_parameter_group_name: The cluster parameter group (templated)
    :param tags: A dictionary of tags or a list of tags in format `[{"Key": "...", "Value": "..."},]` (templated)
    :param rds_kwargs: More named arguments of boto3's ``restore_db_cluster_from_snapshot`` (templated)
    :param if_exists: ``fail``, or ``take_up`` a cluster of this identifier that exists, as a retry after a crash may want
    :param wait_for_completion: If True, waits until it is available. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: Identifier, ARN, resource id, endpoints and version of the cluster
    """

    template_fields: Sequence[str] = aws_template_fields(
        "db_cluster_identifier",
        "snapshot_identifier",
        "engine",
        "engine_version",
        "db_cluster_parameter_group_name",
        "tags",
        "rds_kwargs",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"rds_kwargs": "json", "tags": "json"}

    def __init__(
        self,
        *,
        db_cluster_identifier: str,
        snapshot_identifier: str,
        engine: str,
        engine_version: str | None = None,
        db_cluster_parameter_group_name: str | None = None,
        tags: Sequence[dict[str, str]] | dict[str, str] | None = None,
        rds_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.db_cluster_identifier = db_cluster_identifier
        self.snapshot_identifier = snapshot_identifier
        self.engine = engine
        self.engine_version = engine_version
        self.db_cluster_parameter_group_name = db_cluster_parameter_group_name
        self.tags = tags
        self.rds_kwargs = rds_kwargs or {}

    def execute(self, context: Context) -> dict[str, Any]:
        """Restore the cluster."""
        wanted = {
            "SnapshotIdentifier": self.snapshot_identifier,
            "Engine": self.engine,
            "EngineVersion": self.engine_version,
            "DBClusterParameterGroupName": self.db_cluster_parameter_group_name,
            "Tags": format_tags(self.tags) or None,
            **self.rds_kwargs,
        }
        return self._get(context, "restore_db_cluster_from_snapshot", wanted)


class RdsRestoreDbClusterToPointInTimeOperator(_ClusterOperator):
    """Creates a DB cluster as another one was at a point in time; with ``copy-on-write`` a clone that shares its storage.

    It has no instances yet: create them with RdsCreateDbInstanceOperator.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.restore_db_cluster_to_point_in_time`

    :param db_cluster_identifier: The identifier of the new cluster (templated)
    :param source_db_cluster_identifier: The cluster that is copied; it is only read (templated)
    :param restore_type: ``copy-on-write`` or ``full-copy`` (templated)
    :param restore_to_time: ISO 8601 time in UTC; default: the latest restorable time (templated)
    :param db_cluster_parameter_group_name: The cluster parameter group (templated)
    :param tags: A dictionary of tags or a list of tags in format `[{"Key": "...", "Value": "..."},]` (templated)
    :param rds_kwargs: More named arguments of boto3's ``restore_db_cluster_to_point_in_time`` (templated)
    :param if_exists: ``fail``, or ``take_up`` a cluster of this identifier that exists, as a retry after a crash may want
    :param wait_for_completion: If True, waits until it is available. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: Identifier, ARN, resource id, endpoints and version of the cluster
    """

    template_fields: Sequence[str] = aws_template_fields(
        "db_cluster_identifier",
        "source_db_cluster_identifier",
        "restore_type",
        "restore_to_time",
        "db_cluster_parameter_group_name",
        "tags",
        "rds_kwargs",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"rds_kwargs": "json", "tags": "json"}

    def __init__(
        self,
        *,
        db_cluster_identifier: str,
        source_db_cluster_identifier: str,
        restore_type: str = "full-copy",
        restore_to_time: str | None = None,
        db_cluster_parameter_group_name: str | None = None,
        tags: Sequence[dict[str, str]] | dict[str, str] | None = None,
        rds_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.db_cluster_identifier = db_cluster_identifier
        self.source_db_cluster_identifier = source_db_cluster_identifier
        self.restore_type = restore_type
        self.restore_to_time = restore_to_time
        self.db_cluster_parameter_group_name = db_cluster_parameter_group_name
        self.tags = tags
        self.rds_kwargs = rds_kwargs or {}

    def execute(self, context: Context) -> dict[str, Any]:
        """Restore the cluster."""
        when: dict[str, Any] = (
            {"RestoreToTime": self.restore_to_time} if self.restore_to_time else {"UseLatestRestorableTime": True}
        )
        wanted = {
            "SourceDBClusterIdentifier": self.source_db_cluster_identifier,
            "RestoreType": self.restore_type,
            "DBClusterParameterGroupName": self.db_cluster_parameter_group_name,
            "Tags": format_tags(self.tags) or None,
            **when,
            **self.rds_kwargs,
        }
        return self._get(context, "restore_db_cluster_to_point_in_time", wanted)


class RdsDeleteDbClusterOperator(RdsWaitingOperator):
    """Deletes a DB cluster, whose instances have to be deleted before. One that is gone, or being deleted, is no error.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.delete_db_cluster`

    :param db_cluster_identifier: The identifier of the cluster (templated)
    :param final_db_snapshot_identifier: The final snapshot that is made; None skips it (templated)
    :param rds_kwargs: More named arguments of boto3's ``delete_db_cluster`` (templated)
    :param wait_for_completion: If True, waits until it is gone. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The identifier of the cluster
    """

    template_fields: Sequence[str] = aws_template_fields(
        "db_cluster_identifier", "final_db_snapshot_identifier", "rds_kwargs"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"rds_kwargs": "json"}
    operator_extra_links = (RdsDbClusterLink(),)

    waiter_name = "db_cluster_deleted"
    failure_message = "The DB cluster was not deleted"
    status_args = ("DBClusters[0].Status",)

    def __init__(
        self,
        *,
        db_cluster_identifier: str,
        final_db_snapshot_identifier: str | None,
        rds_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.db_cluster_identifier = db_cluster_identifier
        self.final_db_snapshot_identifier = final_db_snapshot_identifier
        self.rds_kwargs = rds_kwargs or {}

    def execute(self, context: Context) -> str:
        """Delete the cluster unless it is gone."""
        identifier, final = self.db_cluster_identifier, self.final_db_snapshot_identifier
        self._link(RdsDbClusterLink, context, db_cluster_identifier=identifier)
        snapshot: dict[str, Any] = (
            {"SkipFinalSnapshot": False, "FinalDBSnapshotIdentifier": final} if final else {"SkipFinalSnapshot": True}
        )
        try:
            found = self.hook.conn.describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"]
            if found and found[0].get("Status") != "deleting":
                self.hook.conn.delete_db_cluster(DBClusterIdentifier=identifier, **snapshot, **self.rds_kwargs)
        except Exception as error:
            if asking.code(error) != "DBClusterNotFoundFault":
                raise
            self.log.info("DB cluster %s is gone already", identifier)
            return identifier
        result: str = self._complete({"DBClusterIdentifier": identifier}, identifier)
        return result

    def _trigger(self, result: Any) -> BaseTrigger:
        return RdsDbDeletedTrigger(
            db_identifier=self.db_cluster_identifier, response=result, db_type=RdsDbType.CLUSTER, **self._aws()
        )


class RdsRebootDbInstanceOperator(RdsWaitingOperator):
    """Reboots a DB instance and waits until it is available and its parameter groups are in sync.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.reboot_db_instance`

    :param db_instance_identifier: The identifier of the instance (templated)
    :param force_failover: Whether the reboot is done through a Multi-AZ failover
    :param wait_for_completion: If True, waits until it is back. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive calls to check the status
    :param waiter_max_attempts: The maximum number of attempts to check the status
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The identifier of the instance
    """

    template_fields: Sequence[str] = aws_template_fields("db_instance_identifier")
    operator_extra_links = (RdsDbInstanceLink(),)

    waiter_name = "db_instance_in_sync"
    failure_message = "The DB instance did not become available"
    status_args = ("DBInstances[0].DBInstanceStatus", "DBInstances[0].DBParameterGroups")

    def __init__(
        self,
        *,
        db_instance_identifier: str,
        force_failover: bool | None = None,
        waiter_max_attempts: int = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_max_attempts=waiter_max_attempts, **kwargs)
        self.db_instance_identifier = db_instance_identifier
        self.force_failover = force_failover

    def execute(self, context: Context) -> str:
        """Reboot the instance."""
        identifier = self.db_instance_identifier
        self._link(RdsDbInstanceLink, context, db_instance_identifier=identifier)
        asked = prune_dict({"ForceFailover": self.force_failover})
        self.hook.conn.reboot_db_instance(DBInstanceIdentifier=identifier, **asked)
        result: str = self._complete({"DBInstanceIdentifier": identifier}, identifier)
        return result

    def _result(self, event: dict[str, Any]) -> Any:
        return event["db_instance_identifier"]

    def _trigger(self, result: Any) -> BaseTrigger:
        return RdsDbInstanceInSyncTrigger(db_instance_identifier=result, **self._aws())


class _ParameterGroupOperator(AwsBaseOperator[RdsBlueGreenHook]):
    """What the operators of DB cluster parameter groups have in common. Their calls take effect at once, so nothing is waited for."""

    aws_hook_class = RdsBlueGreenHook
    operator_extra_links = (RdsDbClusterParameterGroupLink(),)
    ui_color = "#eeaa88"
    ui_fgcolor = "#ffffff"

    def __init__(self, *, db_cluster_parameter_group_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.db_cluster_parameter_group_name = db_cluster_parameter_group_name

    def _link(self, context: Context) -> None:
        RdsDbClusterParameterGroupLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            db_cluster_parameter_group_name=self.db_cluster_parameter_group_name,
        )

    def _modify(self, parameters: dict[str, str], apply_method: str) -> None:
        rows = iter(
            {"ParameterName": name, "ParameterValue": str(value), "ApplyMethod": apply_method}
            for name, value in sorted(parameters.items())
        )
        while batch := list(islice(rows, MAX_PARAMETERS)):
            self.hook.conn.modify_db_cluster_parameter_group(
                DBClusterParameterGroupName=self.db_cluster_parameter_group_name, Parameters=batch
            )


class RdsCreateDbClusterParameterGroupOperator(_ParameterGroupOperator):
    """Creates a DB cluster parameter group, with parameters.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.create_db_cluster_parameter_group`

    :param db_cluster_parameter_group_name: The name of the group (templated)
    :param db_parameter_group_family: The family of the group, for example aurora-mysql8.0 (templated)
    :param description: The description of the group (templated)
    :param parameters: Values over the family's defaults; they apply at the next reboot of each instance (templated)
    :param tags: A dictionary of tags or a list of tags in format `[{"Key": "...", "Value": "..."},]` (templated)
    :param if_exists: ``fail``, or ``take_up`` a group of this name that exists and has the same family
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The name of the group
    """

    template_fields: Sequence[str] = aws_template_fields(
        "db_cluster_parameter_group_name", "db_parameter_group_family", "description", "parameters", "tags"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "tags": "json"}

    def __init__(
        self,
        *,
        db_parameter_group_family: str,
        description: str = "made by Airflow",
        parameters: dict[str, str] | None = None,
        tags: Sequence[dict[str, str]] | dict[str, str] | None = None,
        if_exists: IfExists = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.db_parameter_group_family = db_parameter_group_family
        self.description = description
        self.parameters = parameters or {}
        self.tags = tags
        self.if_exists = if_exists

    def execute(self, context: Context) -> str:
        """Create the group, then set its parameters."""
        name = self.db_cluster_parameter_group_name
        self._link(context)
        wanted = prune_dict({
            "DBParameterGroupFamily": self.db_parameter_group_family,
            "Description": self.description,
            "Tags": format_tags(self.tags) or None,
        })  # fmt: skip
        try:
            self.hook.conn.create_db_cluster_parameter_group(DBClusterParameterGroupName=name, **wanted)
        except Exception as error:
            if asking.code(error) != "DBParameterGroupAlreadyExists" or self.if_exists != "take_up":
                raise
            self._require_family()
        self._modify(self.parameters, "pending-reboot")
        return name

    def _require_family(self) -> None:
        name = self.db_cluster_parameter_group_name
        answer = self.hook.conn.describe_db_cluster_parameter_groups(DBClusterParameterGroupName=name)
        family = answer["DBClusterParameterGroups"][0]["DBParameterGroupFamily"]
        if family != self.db_parameter_group_family:
            raise AirflowFailException(
                f"db_cluster_parameter_group_name={name!r} exists with family {family}, not "
                f"{self.db_parameter_group_family}; choose another name"
            )


class RdsModifyDbClusterParameterGroupOperator(_ParameterGroupOperator):
    """Sets parameters of a DB cluster parameter group, 20 a call.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.modify_db_cluster_parameter_group`

    :param db_cluster_parameter_group_name: The name of the group (templated)
    :param parameters: Name to value (templated)
    :param apply_method: ``pending-reboot``, or ``immediate`` (dynamic parameters only) (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The name of the group
    """

    template_fields: Sequence[str] = aws_template_fields(
        "db_cluster_parameter_group_name", "parameters", "apply_method"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}

    def __init__(self, *, parameters: dict[str, str], apply_method: str = "pending-reboot", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parameters = parameters
        self.apply_method = apply_method

    def execute(self, context: Context) -> str:
        """Set the parameters."""
        self._link(context)
        self._modify(self.parameters, self.apply_method)
        return self.db_cluster_parameter_group_name


class RdsDeleteDbClusterParameterGroupOperator(_ParameterGroupOperator):
    """Deletes a DB cluster parameter group. One that is gone is no error.

    .. seealso::
        - :external+boto3:py:meth:`RDS.Client.delete_db_cluster_parameter_group`

    :param db_cluster_parameter_group_name: The name of the group, which no cluster may use (templated)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The name of the group
    """

    template_fields: Sequence[str] = aws_template_fields("db_cluster_parameter_group_name")

    def execute(self, context: Context) -> str:
        """Delete the group unless it is gone."""
        name = self.db_cluster_parameter_group_name
        self._link(context)
        try:
            self.hook.conn.delete_db_cluster_parameter_group(DBClusterParameterGroupName=name)
        except Exception as error:
            if not asking.is_missing(error):
                raise
            self.log.info("DB cluster parameter group %s is gone already", name)
        return name
