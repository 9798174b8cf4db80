"""Operators of DMS tasks and serverless replications that may be repeated, judge what they waited for, and tell why.

Each takes ``replication_task_arn`` for a task or ``replication_config_arn`` for a serverless replication. A retry after a crash looks at
AWS first, and at what the task noted before its call, so nothing is called twice whose second time does harm.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.amazon.aws.utils.tags import format_tags
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, conf
from airflow.utils.helpers import prune_dict

from dbops import asking
from dbops.dms import starting, waits
from dbops.dms.aws.hook import DmsTaskHook, utc_now
from dbops.dms.aws.links import DmsTaskLink
from dbops.dms.aws.notes import Notes
from dbops.dms.aws.triggers import DmsWaitTrigger
from dbops.dms.definition import Definition, creation, differences, modification
from dbops.dms.mappings import MappingError, Table
from dbops.dms.plan import RELOAD_AT_ONCE
from dbops.dms.settings import SettingsError
from dbops.dms.states import TRANSIENT, TableStatistics, Task
from dbops.dms.waits import Reloading, Seen, Wait, is_serverless

if TYPE_CHECKING:
    from airflow.sdk import Context

# The number of looks ends a wait; a deferred task waits a little longer, should the triggerer be late.
DEFER_MARGIN = timedelta(minutes=5)
STANDING = ("ready", "stopped", "failed")


class DmsWaitingOperator(AwsBaseOperator[DmsTaskHook]):
    """Base of operators that make calls about DMS and wait for what they began.

    :param wait_for_completion: If True, waits for completion. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
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
    operator_extra_links: Collection[BaseAwsLink] = (DmsTaskLink(),)
    ui_color = "#eeaa88"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        waiter_delay: float = 30,
        waiter_max_attempts: int = 120,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Take up the event of the trigger."""
        return self._ended(context, self._of(event), validate_execute_complete_event(event)["result"])

    def execute_again(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after something else has passed: look again at what there is, and do what is left."""
        self._require(context, self._of(event))
        return self.execute(context)

    def on_kill(self) -> None:
        """Leave AWS alone: what was asked for goes on there, and a retry of the task takes it up."""
        self.log.warning("Killed; what was asked of DMS goes on there, and a retry of this task takes it up")

    def _complete(self, context: Context, wait: Wait, result: Any) -> Any:
        """Wait as asked for, and give the result."""
        if not (self.wait_for_completion or self.deferrable):
            return result
        return self._ended(context, self._wait(wait, "execute_complete", result), result)

    def _wait(self, wait: Wait, method_name: str, result: Any = None) -> Wait:
        """The wait at its end. In deferrable mode it comes back only when the first look ends it."""
        if self.deferrable:
            wait = self.hook.wait(wait, delay=0, max_attempts=1)
            if wait.is_over:
                return wait
            self.defer(
                trigger=DmsWaitTrigger(
                    wait=waits.dump(wait),
                    result=result,
                    waiter_delay=self.waiter_delay,
                    waiter_max_attempts=self.waiter_max_attempts,
                    aws_conn_id=self.aws_conn_id,
                    region_name=self.region_name,
                    verify=self.verify,
                    botocore_config=self.botocore_config,
                ),
                method_name=method_name,
                timeout=timedelta(seconds=self.waiter_delay * self.waiter_max_attempts) + DEFER_MARGIN,
            )
        return self.hook.wait(wait, delay=self.waiter_delay, max_attempts=self.waiter_max_attempts)

    @staticmethod
    def _of(event: dict[str, Any] | None) -> Wait:
        wait: Wait = waits.load(validate_execute_complete_event(event)["wait"])
        return wait

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        """What the operator returns after its last wait."""
        self._require(context, wait)
        return result

    def _require(self, context: Context, wait: Wait) -> None:
        """Raises unless the wait is good."""
        if wait.outcome == "bad":
            self._forget(context)
            raise AirflowException(f"{self._subject()}: {wait.reason}")
        if wait.outcome == "open":
            looks = f"{self.waiter_max_attempts} looks every {self.waiter_delay:g} s"
            raise AirflowException(f"{self._subject()}: not over after {looks}: {wait.reason}")

    def _link(self, context: Context, identifier: str, *, is_serverless: bool) -> None:
        DmsTaskLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            fragment=DmsTaskLink.fragment(identifier, is_serverless=is_serverless),
        )

    def _forget(self, context: Context) -> None:
        """Nothing of this try matters to the next one any more."""

    def _subject(self) -> str:
        return type(self).__name__


class DmsTaskOperator(DmsWaitingOperator):
    """Base of operators of one task that exists, or of one serverless replication.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    """

    def __init__(
        self, *, replication_task_arn: str | None = None, replication_config_arn: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if (replication_task_arn is None) == (replication_config_arn is None):
            raise ValueError("Give either replication_task_arn or replication_config_arn.")
        self.replication_task_arn = replication_task_arn
        self.replication_config_arn = replication_config_arn

    @property
    def _arn(self) -> str:
        return str(self.replication_task_arn or self.replication_config_arn)

    @property
    def _of_task(self) -> dict[str, str]:
        return {"ReplicationConfigArn" if is_serverless(self._arn) else "ReplicationTaskArn": self._arn}

    def _subject(self) -> str:
        return self._arn

    def _seen(self, context: Context, *, tables: bool = False, settings: bool = False) -> Seen:
        """The task now. Raises when there is none."""
        seen = self.hook.look(self._arn, tables=tables, settings=settings)
        if seen.task.status == "missing":
            raise AirflowFailException(f"{self._arn}: AWS has no such task; correct the ARN, or create it first")
        self._link(context, seen.task.identifier, is_serverless=seen.task.is_serverless)
        return seen

    def _standing(self, context: Context, statuses: Sequence[str] = STANDING) -> Seen:
        """The task when it stands: what passes by itself is waited for first. A task that runs comes back as it is."""
        seen = self._seen(context)
        if seen.task.status in TRANSIENT or (seen.task.status in statuses and seen.holds_capacity):
            ended = self._wait(waits.Standing(arn=self._arn, statuses=tuple(statuses)), "execute_again")
            if ended.outcome != "bad":  # a bad one is told by who asked, with its own words
                self._require(context, ended)
            seen = self._seen(context)
        return seen

    def _refuse(self, text: str) -> NoReturn:
        raise AirflowFailException(f"{self._arn}: {text}")

    def _notes(self, context: Context) -> Notes:
        return Notes(context, f"dms-{type(self).__name__}-{self._arn.rpartition(':')[2]}")

    def _forget(self, context: Context) -> None:
        self._notes(context).clear()


class _Declaring:
    """What makes the definition out of the parameters."""

    @staticmethod
    def _difference(declared: Definition, task: Task) -> list[Any]:
        try:
            return list(differences(declared, task))
        except (MappingError, SettingsError) as error:
            raise AirflowFailException(f"{declared.identifier}: {error}") from error


class DmsEnsureTaskOperator(_Declaring, DmsWaitingOperator):
    """Ensures that a DMS task, or a serverless replication, of this definition exists.

    One that is missing is created, and one that exists with this definition is taken up, so a retry after a crash neither fails nor
    creates a second one. One that exists with another definition fails the task, which names each difference. Mappings are compared by
    their meaning, settings only on the keys that are given: AWS answers them with every default.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.create_replication_task`
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.create_replication_config`

    :param replication_task_id: Identifier of the task, or of the replication configuration (templated)
    :param source_endpoint_arn: Source endpoint ARN (templated)
    :param target_endpoint_arn: Target endpoint ARN (templated)
    :param table_mappings: Table mappings: JSON, the object ``{"rules": [...]}``, or the list of rules (templated)
    :param replication_instance_arn: Replication instance ARN; either this or compute_config (templated)
    :param compute_config: ComputeConfig of a serverless replication (templated)
    :param migration_type: Migration type ('full-load'|'cdc'|'full-load-and-cdc'), full-load by default. (templated)
    :param replication_task_settings: Task settings; the keys that are not given are AWS's own matter (templated)
    :param tags: Tags of a new one: a dictionary or a list in format `[{"Key": "...", "Value": "..."},]` (templated)
    :param create_task_kwargs: More named arguments of the call that creates it (templated)
    :param wait_for_completion: If True, waits until it can be started. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The ARN
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_id",
        "source_endpoint_arn",
        "target_endpoint_arn",
        "table_mappings",
        "replication_instance_arn",
        "compute_config",
        "migration_type",
        "replication_task_settings",
        "tags",
        "create_task_kwargs",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "table_mappings": "json",
        "compute_config": "json",
        "replication_task_settings": "json",
        "tags": "json",
        "create_task_kwargs": "json",
    }

    def __init__(
        self,
        *,
        replication_task_id: str,
        source_endpoint_arn: str,
        target_endpoint_arn: str,
        table_mappings: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        replication_instance_arn: str | None = None,
        compute_config: dict[str, Any] | None = None,
        migration_type: str = "full-load",
        replication_task_settings: dict[str, Any] | str | None = None,
        tags: Sequence[dict[str, str]] | dict[str, str] | None = None,
        create_task_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (replication_instance_arn is None) == (compute_config is None):
            raise ValueError("Give either replication_instance_arn or compute_config.")
        self.replication_task_id = replication_task_id
        self.source_endpoint_arn = source_endpoint_arn
        self.target_endpoint_arn = target_endpoint_arn
        self.table_mappings = table_mappings
        self.replication_instance_arn = replication_instance_arn
        self.compute_config = compute_config
        self.migration_type = migration_type
        self.replication_task_settings = replication_task_settings
        self.tags = tags
        self.create_task_kwargs = create_task_kwargs or {}

    def execute(self, context: Context) -> str:
        """Create it, or take up the one that is there."""
        declared = Definition(
            self.replication_task_id,
            self.source_endpoint_arn,
            self.target_endpoint_arn,
            self.migration_type,
            self.table_mappings,
            self.replication_task_settings,
            self.replication_instance_arn,
            self.compute_config,
        )
        self._link(context, declared.identifier, is_serverless=declared.is_serverless)
        found = self.hook.find(declared.identifier, is_serverless=declared.is_serverless)
        arn = self._taken_up(declared, found) if found is not None else self._created(declared)
        statuses = (*STANDING, "running", "failed-move")
        wait = waits.Standing(arn=arn, statuses=statuses, may_hold_capacity=True)
        return str(self._complete(context, wait, arn))

    def _created(self, declared: Definition) -> str:
        try:
            method, given = creation(declared)
        except (MappingError, SettingsError) as error:
            raise AirflowFailException(f"{declared.identifier}: {error}") from error
        tags = {"Tags": format_tags(self.tags)} if self.tags else {}
        self.log.info("Creating %s", declared.identifier)
        try:
            answer = getattr(self.hook.conn, method)(**given, **tags, **self.create_task_kwargs)
        except Exception as error:
            # Somebody was faster, or the client repeated a call whose answer was lost.
            if asking.code(error) != "ResourceAlreadyExistsFault":
                raise
            found = self.hook.find(declared.identifier, is_serverless=declared.is_serverless)
            if found is None:
                raise
            return self._taken_up(declared, found)
        if declared.is_serverless:
            return str(answer["ReplicationConfig"]["ReplicationConfigArn"])
        return str(answer["ReplicationTask"]["ReplicationTaskArn"])

    def _taken_up(self, declared: Definition, found: Task) -> str:
        if found.status == "deleting":
            raise AirflowException(f"{found.identifier} is being deleted; repeat the task when it is gone")
        if wrong := self._difference(declared, found):
            cures = {
                "modify": "DmsModifyTaskOperator changes settings, mappings and ComputeConfig",
                "move": "DmsMoveTaskOperator moves it to another instance",
                "new": "AWS changes endpoints and type at no task: save its checkpoint, delete it and create it anew",
            }
            said = [str(one) for one in wrong] + [cures[cure] for cure in dict.fromkeys(one.cure for one in wrong)]
            raise AirflowFailException(f"{found.identifier} exists with another definition: {'; '.join(said)}")
        self.log.info("%s is there already (%s); taken up", found.identifier, found.raw_status or found.status)
        return found.arn

    def _subject(self) -> str:
        return str(self.replication_task_id)


class DmsModifyTaskOperator(_Declaring, DmsTaskOperator):
    """Modifies a DMS task, or a serverless replication, that stands, where it differs from what is given.

    Unlike the provider's operator of this name it compares first and calls nothing when there is nothing to change, sends settings over
    those that AWS has, also changes serverless replications, never waits in the worker when deferrable, and looks at the end whether the
    task is as it should be: the provider's waiter takes any task that stands, or runs, for modified.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.modify_replication_task`
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.modify_replication_config`

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param table_mappings: New table mappings. If not provided, existing mappings are kept. (templated)
    :param replication_task_settings: Settings to change; keys that are not given are kept. (templated)
    :param compute_config: ComputeConfig of a serverless replication; keys that are not given are kept. (templated)
    :param wait_for_completion: If True, waits until it is modified. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: ``arn``, ``checkpoint`` before the change, and ``changes`` in words, empty when there was nothing to change
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_arn",
        "replication_config_arn",
        "table_mappings",
        "replication_task_settings",
        "compute_config",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "table_mappings": "json",
        "replication_task_settings": "json",
        "compute_config": "json",
    }

    def __init__(
        self,
        *,
        table_mappings: str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        replication_task_settings: dict[str, Any] | str | None = None,
        compute_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table_mappings = table_mappings
        self.replication_task_settings = replication_task_settings
        self.compute_config = compute_config

    def execute(self, context: Context) -> dict[str, Any]:
        """Modify what differs."""
        self._standing(context)
        task = self._seen(context, settings=True).task
        declared = self._declared()
        wrong = self._difference(declared, task)
        noted = self._notes(context).load()
        result = {"arn": self._arn, "checkpoint": task.checkpoint, "changes": [str(one) for one in wrong]} | noted
        if not wrong:
            self.log.info("%s is as it should be", self._arn)
            self._forget(context)
            return result
        if task.status not in STANDING:
            self._refuse(
                f"the task is {task.raw_status}; only one that is {', '.join(STANDING)} can be modified: stop it first"
            )
        self._notes(context).save({"checkpoint": task.checkpoint, "changes": result["changes"]})
        method, given = modification(declared, task)
        getattr(self.hook.conn, method)(**given)
        self.log.info("Modifying %s: %s", self._arn, "; ".join(result["changes"]))
        done: dict[str, Any] = self._complete(context, waits.Standing(arn=self._arn), result)
        return done

    def _declared(self) -> Definition:
        return Definition(
            self._arn,
            table_mappings=self.table_mappings,
            task_settings=self.replication_task_settings,
            compute=self.compute_config,
        )

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        self._require(context, wait)
        left = self._difference(self._declared(), self._seen(context, settings=True).task)
        if left:
            raise AirflowException(f"{self._arn}: still not as it should be: {'; '.join(map(str, left))}")
        self._forget(context)
        return result


class DmsMoveTaskOperator(DmsTaskOperator):
    """Moves a DMS task to another replication instance. One that is there already is no error.

    AWS moves a task that is stopped, failed or whose last move failed, to an instance of the same or a later version.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.move_replication_task`

    :param replication_task_arn: ARN of the task (templated)
    :param target_replication_instance_arn: ARN of the instance to which it is moved (templated)
    :param wait_for_completion: If True, waits until it has moved. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: ``arn``, ``checkpoint``, and ``was_moved``: False when it was on that instance already
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "target_replication_instance_arn")
    movable: ClassVar[tuple[str, ...]] = ("stopped", "failed", "failed-move")

    def __init__(self, *, replication_task_arn: str, target_replication_instance_arn: str, **kwargs: Any) -> None:
        super().__init__(replication_task_arn=replication_task_arn, **kwargs)
        self.target_replication_instance_arn = target_replication_instance_arn

    def execute(self, context: Context) -> dict[str, Any]:
        """Move it unless it is there."""
        task = self._standing(context, (*STANDING, "failed-move")).task
        result = {"arn": self._arn, "checkpoint": task.checkpoint, "was_moved": False}
        if task.instance_arn == self.target_replication_instance_arn and task.status != "failed-move":
            self.log.info("%s is on %s", self._arn, task.instance_arn)
            return result
        if task.status not in self.movable:
            right = (
                "start and stop it once, or delete it and create it there"
                if task.status == "ready"
                else "stop it first"
            )
            self._refuse(
                f"the task is {task.raw_status}; only one that is {', '.join(self.movable)} can be moved: {right}"
            )
        self.hook.conn.move_replication_task(
            ReplicationTaskArn=self._arn, TargetReplicationInstanceArn=self.target_replication_instance_arn
        )
        self.log.info("Moving %s from %s to %s", self._arn, task.instance_arn, self.target_replication_instance_arn)
        wait = waits.Standing(arn=self._arn, instance_arn=self.target_replication_instance_arn)
        done: dict[str, Any] = self._complete(context, wait, {**result, "was_moved": True})
        return done


class DmsTestConnectionOperator(DmsWaitingOperator):
    """Tests the connections of endpoints from a replication instance, anew at every call; each has to be successful.

    The tests need an instance; a serverless replication makes its own when it starts.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.test_connection`

    :param replication_task_arn: ARN of a task, whose instance and endpoints are taken; either this or the next two (templated)
    :param replication_instance_arn: ARN of the instance from which the endpoints are tested (templated)
    :param endpoint_arns: ARNs of the endpoints (templated)
    :param wait_for_completion: If True, waits until the tests are over. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: ``replication_instance_arn`` and ``endpoint_arns``
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_arn", "replication_instance_arn", "endpoint_arns"
    )
    operator_extra_links = ()

    def __init__(
        self,
        *,
        replication_task_arn: str | None = None,
        replication_instance_arn: str | None = None,
        endpoint_arns: Sequence[str] | None = None,
        waiter_delay: float = 5,
        waiter_max_attempts: int = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(waiter_delay=waiter_delay, waiter_max_attempts=waiter_max_attempts, **kwargs)
        if (replication_task_arn is None) == (replication_instance_arn is None or endpoint_arns is None):
            raise ValueError("Give either replication_task_arn, or replication_instance_arn and endpoint_arns.")
        self.replication_task_arn = replication_task_arn
        self.replication_instance_arn = replication_instance_arn
        self.endpoint_arns = endpoint_arns

    def execute(self, context: Context) -> dict[str, Any]:
        """Begin the tests."""
        instance, endpoints = str(self.replication_instance_arn), [str(one) for one in self.endpoint_arns or ()]
        if self.replication_task_arn is not None:
            task = self.hook.look(self.replication_task_arn).task
            if task.status == "missing" or task.is_serverless:
                raise AirflowFailException(f"{self.replication_task_arn}: no task with a replication instance")
            instance, endpoints = task.instance_arn, [task.source_arn, task.target_arn]
        if not endpoints:
            raise AirflowFailException("endpoint_arns is empty; name at least one endpoint")
        for arn in endpoints:
            try:
                self.hook.conn.test_connection(ReplicationInstanceArn=instance, EndpointArn=arn)
            except Exception as error:
                # A test of it is running already, as after a crash: its result is as good.
                if not (asking.code(error).startswith("InvalidResourceState") and "test" in str(error).lower()):
                    raise
        wait = waits.Connected(instance_arn=instance, endpoint_arns=tuple(endpoints))
        result = {"replication_instance_arn": instance, "endpoint_arns": endpoints}
        done: dict[str, Any] = self._complete(context, wait, result)
        return done

    def _subject(self) -> str:
        return f"connections of {self.replication_task_arn or self.replication_instance_arn}"


class DmsAssessmentRunOperator(DmsTaskOperator):
    """Runs a premigration assessment of a DMS task and judges it: a failed one fails the task, a warning is told.

    A run of this name that goes on, or that ended well, is taken up, so a retry after a crash starts no second one. After one that ended
    badly the next one gets a number behind its name.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.start_replication_task_assessment_run`

    :param replication_task_arn: ARN of the task, which must not run (templated)
    :param assessment_run_name: Name of the run (templated)
    :param service_access_role_arn: ARN of the role with which DMS writes the result (templated)
    :param result_location_bucket: S3 bucket of the result (templated)
    :param result_location_folder: Folder in it (templated)
    :param assessment_kwargs: More named arguments of the call, such as IncludeOnly or Exclude (templated)
    :param wait_for_completion: If True, waits until it is over. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: ``run_arn``, ``name``, ``status`` (passed or warning), ``findings`` and where the result is
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_arn",
        "assessment_run_name",
        "service_access_role_arn",
        "result_location_bucket",
        "result_location_folder",
        "assessment_kwargs",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"assessment_kwargs": "json"}

    def __init__(
        self,
        *,
        replication_task_arn: str,
        assessment_run_name: str,
        service_access_role_arn: str,
        result_location_bucket: str,
        result_location_folder: str | None = None,
        assessment_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(replication_task_arn=replication_task_arn, **kwargs)
        self.assessment_run_name = assessment_run_name
        self.service_access_role_arn = service_access_role_arn
        self.result_location_bucket = result_location_bucket
        self.result_location_folder = result_location_folder
        self.assessment_kwargs = assessment_kwargs or {}

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the run, or take up the one of this name."""
        runs = [row for row in self.hook.ask(waits.assessment_runs(self._arn)) if self._is_ours(row)]
        arn = str(runs[0]["ReplicationTaskAssessmentRunArn"]) if runs else ""
        if arn and self.hook.wait(waits.Assessed(run_arn=arn), delay=0, max_attempts=1).outcome != "bad":
            self.log.info("Assessment run %s is there already; taken up", arn)
        else:
            arn = self._start(context, len(runs))
        done: dict[str, Any] = self._complete(context, waits.Assessed(run_arn=arn), {"run_arn": arn})
        return done

    def _start(self, context: Context, runs_before: int) -> str:
        task = self._standing(context).task
        if task.status not in STANDING:
            self._refuse(f"the task is {task.raw_status}; an assessment needs one that does not run: stop it first")
        name = f"{self.assessment_run_name}-{runs_before + 1}" if runs_before else self.assessment_run_name
        given = {"ResultLocationFolder": self.result_location_folder}
        answer = self.hook.conn.start_replication_task_assessment_run(
            ReplicationTaskArn=self._arn,
            AssessmentRunName=name,
            ServiceAccessRoleArn=self.service_access_role_arn,
            ResultLocationBucket=self.result_location_bucket,
            **prune_dict(given),
            **self.assessment_kwargs,
        )
        return str(answer["ReplicationTaskAssessmentRun"]["ReplicationTaskAssessmentRunArn"])

    def _is_ours(self, row: Mapping[str, Any]) -> bool:
        name = str(row.get("AssessmentRunName") or "")
        number = name.removeprefix(f"{self.assessment_run_name}-")
        return name == self.assessment_run_name or (number != name and number.isdigit())

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        if wait.outcome == "bad" and wait.told.get("status") == "failed":
            # Another look at the same source would find the same.
            raise AirflowFailException(f"{self._arn}: {wait.reason}")
        self._require(context, wait)
        if wait.told.get("status") == "warning":
            self.log.warning("%s: %s", self._arn, wait.reason)
        return wait.told


class DmsStartTaskOperator(DmsTaskOperator):
    """Starts a DMS task or a serverless replication, and waits until it runs or has ended well.

    It chooses nothing: the start type is given, and one that AWS does not allow now fails the task, which names the right one. What
    passes by itself (a modification, a stop, capacity that is given back) is waited for first. A task that runs already is taken up, other
    than with ``reload-target``. The start is noted before it is called, so a retry after a crash does not start it a second time.

    Unlike the provider's operators it waits until the task runs, judges one that has ended (``stopped`` may be a fatal error), and fails
    when it can not be started, where the provider's for serverless replications succeeds.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.start_replication_task`
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.start_replication`

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param start_replication_task_type: 'start-replication'|'resume-processing'|'reload-target' (templated)
    :param cdc_start_position: Where the changes begin: a checkpoint, a log position or a date (templated)
    :param cdc_start_time: When the changes begin; either this or cdc_start_position (templated)
    :param cdc_stop_position: When the changes end: ``server_time:...`` or ``commit_time:...`` (templated)
    :param grace: Seconds in which it may still show what it was before
    :param max_error_rows: Rows that may fail to load when it has ended already
    :param wait_for_completion: If True, waits until it runs or has ended. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end (``status``, ``checkpoint``, ``started_at``, ...), and ``was_started``
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_arn",
        "replication_config_arn",
        "start_replication_task_type",
        "cdc_start_position",
        "cdc_start_time",
        "cdc_stop_position",
    )

    def __init__(
        self,
        *,
        start_replication_task_type: str,
        cdc_start_position: str | None = None,
        cdc_start_time: datetime | str | None = None,
        cdc_stop_position: str | None = None,
        grace: float = 300,
        max_error_rows: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if cdc_start_position is not None and cdc_start_time is not None:
            raise ValueError("Give only one of cdc_start_position and cdc_start_time.")
        self.start_replication_task_type = start_replication_task_type
        self.cdc_start_position = cdc_start_position
        self.cdc_start_time = cdc_start_time
        self.cdc_stop_position = cdc_stop_position
        self.grace = grace
        self.max_error_rows = max_error_rows

    def execute(self, context: Context) -> dict[str, Any]:
        """Start it unless it was started."""
        notes, seen = self._notes(context), self._seen(context)
        noted = notes.load()
        if noted and _was_started(seen, noted):
            self.log.info("%s was started by a try before this one; taken up", self._arn)
        elif self._runs(seen):
            self.log.info("%s is %s already; nothing is started", self._arn, seen.task.raw_status)
            noted = {"since": waits.iso(utc_now()), "before": "-", "was_started": False}
        else:
            noted = self._start(context, notes)
        wait = waits.Started(
            arn=self._arn,
            since=noted["since"],
            before=noted["before"],
            grace_s=self.grace,
            max_error_rows=self.max_error_rows,
        )
        result = {"arn": self._arn, "was_started": noted["was_started"]}
        done: dict[str, Any] = self._complete(context, wait, result)
        return done

    def _runs(self, seen: Seen) -> bool:
        if seen.task.status not in ("running", "starting"):
            return False
        if self.start_replication_task_type == "reload-target":
            self._refuse(f"the task is {seen.task.raw_status}; reload-target needs one that stands: stop it first")
        return True

    def _start(self, context: Context, notes: Notes) -> dict[str, Any]:
        task = self._standing(context).task
        kind, has_position = self.start_replication_task_type, bool(self.cdc_start_position or self.cdc_start_time)
        if why := starting.refusal(task, kind, has_position=has_position):
            self._refuse(why)
        noted = {"since": waits.iso(utc_now()), "before": waits.iso(task.started_at), "was_started": True}
        notes.save(noted)
        given = prune_dict({
            "CdcStartPosition": self.cdc_start_position,
            "CdcStartTime": self.cdc_start_time,
            "CdcStopPosition": self.cdc_stop_position,
        })  # fmt: skip
        self.log.info("Starting %s with %s %s", self._arn, kind, given or "")
        if task.is_serverless:
            self.hook.once.start_replication(**self._of_task, StartReplicationType=kind, **given)
        else:
            self.hook.once.start_replication_task(**self._of_task, StartReplicationTaskType=kind, **given)
        return noted

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        self._require(context, wait)
        self._forget(context)
        return {**wait.told, **result}


class DmsReloadTablesOperator(DmsTaskOperator):
    """Reloads tables of a running DMS task or serverless replication, and waits until each one has been loaded anew.

    Any number of tables, ten a call. Unlike the provider's operator it knows the load before from the one that it asked for, so the
    ``Table completed`` from before the call is not taken for its end, and it looks at all tables at once. A table in an error fails the
    task, which names them. The tables are noted before the call: a retry after a crash reloads none that was loaded anew since.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.reload_tables`
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.reload_replication_tables`

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param tables_to_reload: Tables, each with ``SchemaName`` and ``TableName`` (templated)
    :param max_error_rows: Rows of them that may fail to load
    :param wait_for_completion: If True, waits until all are loaded. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: ``arn`` and ``tables``, the names of the tables
    """

    template_fields: Sequence[str] = aws_template_fields(
        "replication_task_arn", "replication_config_arn", "tables_to_reload"
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"tables_to_reload": "json"}

    def __init__(
        self, *, tables_to_reload: Sequence[Mapping[str, str]], max_error_rows: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tables_to_reload = tables_to_reload
        self.max_error_rows = max_error_rows

    def execute(self, context: Context) -> dict[str, Any]:
        """Reload the tables that were not reloaded yet."""
        wanted = sorted({Table(one["SchemaName"], one["TableName"]) for one in self.tables_to_reload})
        notes, seen = self._notes(context), self._seen(context, tables=True)
        noted = [Reloading(*one) for one in notes.load().get("before") or ()]
        before = self._before(wanted, noted, seen)
        found = {one.table: one for one in seen.tables or ()}
        # Without a note nothing is known of a try before; with one, what it asked for and began is left alone.
        left = [one for one in before if not (one in noted and one.is_anew(found[one.table]))]
        if left and seen.task.status != "running":
            self._refuse(
                f"the task is {seen.task.raw_status}; tables can only be reloaded while it runs: start it first"
            )
        notes.save({"before": [list(one) for one in before]})
        for first in range(0, len(left), RELOAD_AT_ONCE):
            self._reload(seen.task, [one.table for one in left[first : first + RELOAD_AT_ONCE]])
        wait = waits.Reloaded(arn=self._arn, before=tuple(before), max_error_rows=self.max_error_rows)
        done: dict[str, Any] = self._complete(context, wait, {"arn": self._arn, "tables": [str(one) for one in wanted]})
        return done

    def _before(self, wanted: Iterable[Table], noted: Iterable[Reloading], seen: Seen) -> list[Reloading]:
        if seen.task.task_type == "cdc":
            self._refuse("a task of type cdc loads no table")
        if seen.tables is None:
            raise AirflowException(f"{self._arn}: the statistics of its tables cannot be had, so nothing is reloaded")
        known: dict[Table, TableStatistics] = {one.table: one for one in seen.tables}
        kept = {one.table: one for one in noted}
        if missing := [str(one) for one in wanted if one not in known]:
            self._refuse(f"tables_to_reload: the task has no {', '.join(missing)}")
        return [kept.get(one) or Reloading.of(known[one]) for one in wanted]

    def _reload(self, task: Task, tables: list[Table]) -> None:
        self.log.info("Reloading %s of %s", ", ".join(map(str, tables)), self._arn)
        given = {
            "TablesToReload": [{"SchemaName": one.schema, "TableName": one.name} for one in tables],
            "ReloadOption": "data-reload",
        }
        method = self.hook.once.reload_replication_tables if task.is_serverless else self.hook.once.reload_tables
        method(**self._of_task, **given)

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        self._require(context, wait)
        self._forget(context)
        return result


class DmsStopTaskOperator(DmsTaskOperator):
    """Stops a DMS task or a serverless replication, and returns its checkpoint and the statistics of its tables.

    Both are read before the stop, and again after it. One that does not run is no error. A task that stopped with an error is stopped as
    well; how it ended is returned, and logged as a warning.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.stop_replication_task`
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.stop_replication`

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param wait_for_completion: If True, waits until it has stopped. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end: ``status``, ``stop_reason``, ``checkpoint``, ``statistics``, ...; ``was_running``, and
        ``ending``, the reasons in words
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn")

    def execute(self, context: Context) -> dict[str, Any]:
        """Stop it unless it does not run."""
        seen = self._seen(context, tables=True)
        result = {**seen.document(), "was_running": seen.task.status in ("running", "starting", "stopping")}
        if not result["was_running"]:
            if seen.task.status == "unknown":
                self._refuse(f"the task is {seen.task.raw_status}, which is not known here; look at it in the console")
            self.log.info("%s is %s, so there is nothing to stop", self._arn, seen.task.raw_status)
            return {**result, "ending": [f"the task is {seen.task.raw_status}"]}
        if seen.task.status != "stopping":
            self._stop(seen.task)
        done: dict[str, Any] = self._complete(context, waits.Stopped(arn=self._arn), result)
        return done

    def _stop(self, task: Task) -> None:
        self.log.info("Stopping %s, checkpoint %s", self._arn, task.checkpoint or "unknown")
        try:
            if task.is_serverless:
                self.hook.conn.stop_replication(**self._of_task)
            else:
                self.hook.conn.stop_replication_task(**self._of_task)
        except Exception as error:
            # It ended between the look and the call.
            if not asking.code(error).startswith("InvalidResourceState") or self.hook.look(self._arn).task.status in (
                "running",
                "starting",
            ):
                raise

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        self._require(context, wait)
        told = {key: value for key, value in wait.told.items() if value or key not in ("checkpoint", "statistics")}
        if wait.told.get("status") == "failed" or "ERROR" in str(wait.told.get("stop_reason")).upper():
            self.log.warning("%s: %s", self._arn, wait.reason)
        return {**result, **told, "ending": list(wait.reasons)}


class DmsDrainTaskOperator(DmsTaskOperator):
    """Lets a DMS task or a serverless replication apply everything that was committed by a moment.

    With the method ``commit_time`` the task is stopped, resumed with a CdcStopPosition, and has to stop by itself with
    STOPPED_AT_COMMIT_TIME. AWS sees that the moment is past by a later commit, so the source has to be written after it: a heartbeat row
    is enough. With the method ``lag`` the task runs on, and both latencies have to be zero in points after the moment; a latency is zero
    as well when the source is not read, so it proves less.

    A retry looks at AWS first: a task that runs with this stop position is not stopped again.

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param drain_at: The moment, ISO 8601, to the second; default: when the task begins (templated)
    :param method: 'commit_time'|'lag'
    :param min_points: With ``lag``: points in a row that have to be zero
    :param grace: Seconds in which it may still show what it was before it was resumed
    :param wait_for_completion: If False, returns as soon as it was resumed. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks of each of its waits
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen at the end, with its ``checkpoint``, and ``drained_at``
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn", "drain_at")

    def __init__(
        self,
        *,
        drain_at: str | None = None,
        method: str = "commit_time",
        min_points: int = 3,
        grace: float = 300,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if method not in ("commit_time", "lag"):
            raise ValueError(f"method={method!r}: expected commit_time or lag.")
        self.drain_at = drain_at
        self.method = method
        self.min_points = min_points
        self.grace = grace

    def execute(self, context: Context) -> dict[str, Any]:
        """Do what is left: stop, resume with a stop position, wait for the end."""
        notes, seen = self._notes(context), self._seen(context)
        noted = notes.load()
        if not noted:
            noted = {"at": self._moment(), "resumed": "", "before": "-"}
            notes.save(noted)
        if seen.task.task_type == "full-load":
            self._refuse("a task of type full-load follows no changes, so nothing can be drained")
        at = f"{datetime.fromisoformat(noted['at']):%Y-%m-%dT%H:%M:%S}"
        result = {"arn": self._arn, "drained_at": f"{at}Z"}
        if self.method == "lag":
            wait: Wait = waits.CdcHealthy(
                arn=self._arn, max_source_s=0, max_target_s=0, min_points=self.min_points, not_before=noted["at"]
            )
        else:
            stop_at = f"commit_time:{at}"
            noted = self._resumed(context, seen, stop_at, noted)
            wait = waits.Ended(
                arn=self._arn,
                since=noted["resumed"],
                grace_s=self.grace,
                before=noted["before"],
                stop_at=stop_at,
                stop_reasons=("STOPPED_AT_COMMIT_TIME",),
            )
        done: dict[str, Any] = self._complete(context, wait, result)
        return done

    def _moment(self) -> str:
        given = datetime.fromisoformat(self.drain_at) if self.drain_at else utc_now()
        return waits.iso(given.replace(microsecond=0))

    def _resumed(self, context: Context, seen: Seen, stop_at: str, noted: dict[str, Any]) -> dict[str, Any]:
        """Bring the task to run with this stop position; the note says since when, and of which start it no longer is."""
        runs = seen.task.status in ("running", "starting", "stopping")
        if noted["resumed"] and _was_started(seen, noted):
            self.log.info("%s was resumed by a try before this one; taken up", self._arn)
            return noted
        if seen.stop_at == stop_at and runs:
            self.log.info("%s is being drained already", self._arn)
            return {**noted, "resumed": waits.iso(utc_now()), "before": "-"}
        if runs:
            self._stop(seen.task, stop_at)
            self._require(context, self._wait(waits.Stopped(arn=self._arn), "execute_again"))
        task = self._standing(context).task
        if why := starting.refusal(task, "resume-processing"):
            self._refuse(why)
        noted = {**noted, "resumed": waits.iso(utc_now()), "before": waits.iso(task.started_at)}
        self._notes(context).save(noted)
        self.log.info("Resuming %s with %s", self._arn, stop_at)
        given = {**self._of_task, "CdcStopPosition": stop_at}
        if task.is_serverless:
            self.hook.once.start_replication(**given, StartReplicationType="resume-processing")
        else:
            self.hook.once.start_replication_task(**given, StartReplicationTaskType="resume-processing")
        return noted

    def _stop(self, task: Task, stop_at: str) -> None:
        self.log.info("Stopping %s at checkpoint %s, to resume it with %s", self._arn, task.checkpoint, stop_at)
        if task.status != "stopping":
            method = self.hook.conn.stop_replication if task.is_serverless else self.hook.conn.stop_replication_task
            method(**self._of_task)

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        self._require(context, wait)
        self._forget(context)
        return {**wait.told, **result}


class DmsDeleteTaskOperator(DmsTaskOperator):
    """Deletes a DMS task, or a serverless replication with its configuration, and returns its checkpoint. One that is gone is no error.

    The checkpoint is where a new task can begin (CdcStartPosition); it is noted before the call, so a retry after a crash returns it as
    well. A task that runs is refused: stop it first.

    .. seealso::
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.delete_replication_task`
        - :external+boto3:py:meth:`DatabaseMigrationService.Client.delete_replication_config`

    :param replication_task_arn: ARN of the task; either this or replication_config_arn (templated)
    :param replication_config_arn: ARN of the configuration of a serverless replication (templated)
    :param wait_for_completion: If True, waits until it is gone. (default: True)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires aiobotocore module to be installed. (default: False)
    :param waiter_delay: Time (in seconds) to wait between two consecutive looks
    :param waiter_max_attempts: The maximum number of looks
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    :return: The task as it was seen last, with its ``checkpoint``, and ``was_deleted``: False when it was gone already
    """

    template_fields: Sequence[str] = aws_template_fields("replication_task_arn", "replication_config_arn")
    deletable: ClassVar[tuple[str, ...]] = (*STANDING, "failed-move")

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete it unless it is gone."""
        notes, seen = self._notes(context), self.hook.look(self._arn)
        noted = notes.load()
        if seen.task.status == "missing":
            self.log.info("%s is gone already", self._arn)
            notes.clear()
            return noted or {"arn": self._arn, "checkpoint": "", "was_deleted": False}
        if seen.task.status == "deleting":
            result = noted or {**seen.document(), "was_deleted": True}
        else:
            self._standing(context, self.deletable)
            seen = self._seen(context, tables=True)
            if seen.task.status not in self.deletable:
                self._refuse(f"the task is {seen.task.raw_status}; stop it first, then delete it")
            result = {**seen.document(), "was_deleted": True}
            notes.save(result)
            self._delete(seen.task)
        done: dict[str, Any] = self._complete(context, waits.Gone(arn=self._arn), result)
        return done

    def _delete(self, task: Task) -> None:
        self.log.info("Deleting %s, checkpoint %s", self._arn, task.checkpoint or "unknown")
        try:
            if task.is_serverless:
                self.hook.conn.delete_replication_config(**self._of_task)
            else:
                self.hook.conn.delete_replication_task(**self._of_task)
        except Exception as error:
            if not asking.is_missing(error):
                raise

    def _ended(self, context: Context, wait: Wait, result: Any) -> Any:
        self._require(context, wait)
        self._forget(context)
        plain: dict[str, Any] = json.loads(json.dumps(result))
        return plain


def _was_started(seen: Seen, noted: Mapping[str, Any]) -> bool:
    """Whether the start that was noted before its call has been carried out, so far as AWS shows it."""
    return seen.task.status in ("running", "starting") or waits.iso(seen.task.started_at) != noted["before"]
