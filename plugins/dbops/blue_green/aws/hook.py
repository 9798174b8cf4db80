"""RDS Blue/Green deployments through boto3."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.amazon.aws.hooks.rds import RdsHook
from airflow.providers.amazon.aws.waiters.base_waiter import BaseBotoWaiter
from botocore.config import Config
from botocore.waiter import Waiter

from dbops import asking
from dbops.blue_green import attempt
from dbops.blue_green.switchover import Observation, utc_now

WAITERS = Path(__file__).parent / "waiters" / "rds_blue_green.json"


class RdsBlueGreenHook(RdsHook):
    """Interact with Blue/Green deployments of Amazon RDS and Aurora.

    Provide thin wrapper around :external+boto3:py:class:`boto3.client("rds") <RDS.Client>`.

    Additional arguments (such as ``aws_conn_id``, ``region_name``, ``verify`` and ``config``) are passed down to the
    underlying AwsBaseHook.

    .. seealso::
        - :class:`airflow.providers.amazon.aws.hooks.rds.RdsHook`
    """

    @cached_property
    def once(self) -> Any:
        """A client that never repeats a call by itself: for calls of which a second one could do harm."""
        config = self._get_config().merge(Config(retries={"total_max_attempts": 1}))
        return self.get_client_type(region_name=self.region_name, config=config)

    def find(self, name: str) -> dict[str, Any] | None:
        """The deployment of this name, or None. Names are unique within an account and region."""
        chosen = [{"Name": "blue-green-deployment-name", "Values": [name]}]
        question = asking.pages("describe_blue_green_deployments", "BlueGreenDeployments", Filters=chosen)
        found = asking.ask(self.conn, question)
        return next((one for one in found if one.get("BlueGreenDeploymentName") == name), None)

    def get(self, deployment_id: str) -> dict[str, Any] | None:
        """The deployment of this identifier (``bgd-...``), or None."""
        try:
            answer = self.conn.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=deployment_id)
        except Exception as error:
            if asking.code(error) != attempt.NO_DEPLOYMENT:
                raise
            return None
        found: list[dict[str, Any]] = answer.get("BlueGreenDeployments") or []
        return found[0] if found else None

    def members(self, deployment: dict[str, Any]) -> tuple[str, ...]:
        """ARNs of the cluster and the instances of the blue side."""
        return asking.ask(self.conn, attempt.members(deployment, refresh=True))

    def events(self, deployment: dict[str, Any], since: datetime) -> list[dict[str, Any]]:
        """RDS events since then (aware) of the deployment, its clusters and its instances."""
        return asking.ask(self.conn, attempt.events(deployment, since))

    def observation(
        self, deployment_id: str, since: datetime, expected: tuple[str, ...] = (), now: datetime | None = None
    ) -> Observation:
        """One answer for :func:`dbops.blue_green.switchover.advance`; a call that fails gives a status of None."""
        return asking.ask(self.conn, attempt.observing(deployment_id, now or utc_now(), since, expected))

    def get_waiter(
        self,
        waiter_name: str,
        parameters: dict[str, str] | None = None,
        config_overrides: dict[str, Any] | None = None,
        deferrable: bool = False,
        client: Any = None,
    ) -> Waiter:
        """A waiter of this hook, else one of RdsHook or of boto3."""
        model = json.loads(WAITERS.read_text())
        if waiter_name not in model["waiters"]:
            return super().get_waiter(waiter_name, parameters, config_overrides, deferrable, client)
        if deferrable and not client:
            raise ValueError("client must be provided for a deferrable waiter.")
        model["waiters"][waiter_name].update(config_overrides or {})
        made = BaseBotoWaiter(client=client or self.conn, model_config=model, deferrable=deferrable)
        return made.waiter(waiter_name)

    def _list_custom_waiters(self) -> list[str]:
        return [*super()._list_custom_waiters(), *json.loads(WAITERS.read_text())["waiters"]]
