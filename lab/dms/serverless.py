"""DMS Serverless: replication configs, and replications that get capacity before they start and give it back after they end."""

from __future__ import annotations

import json
import time
from typing import Any

from moto.dms.exceptions import InvalidParameterCombinationException, InvalidResourceStateFault

from lab.dms.source import Position
from lab.dms.task import STARTABLE, Task

ON_THE_WAY = (
    "initializing",
    "preparing_metadata",
    "testing_connection",
    "fetching_metadata",
    "calculating_capacity",
    "provisioning_capacity",
    "replication_starting",
)


def on_the_way(part: float) -> str:
    """The state that is shown when so much of the way to the start is over."""
    return ON_THE_WAY[min(len(ON_THE_WAY) - 1, int(part * len(ON_THE_WAY)))]


class Replication(Task):
    """A replication config and the replication that it describes; it is a task in all that it does."""

    def __init__(self, backend: Any, given: dict[str, Any]) -> None:
        names = {
            "ReplicationTaskIdentifier": given["ReplicationConfigIdentifier"],
            "ReplicationInstanceArn": "",
            "MigrationType": given["ReplicationType"],
            "ReplicationTaskSettings": given.get("ReplicationSettings"),
        }
        super().__init__(backend, {**given, **names})
        self.arn = f"arn:aws:dms:{self.region}:{backend.account_id}:replication-config:{self.resource_id}"
        self.compute, self.start_type, self.updated = given["ComputeConfig"], "", self.creation_date

    def config(self) -> dict[str, Any]:
        """As DescribeReplicationConfigs shows it."""
        return {
            "ReplicationConfigIdentifier": self.id,
            "ReplicationConfigArn": self.arn,
            "SourceEndpointArn": self.source_endpoint_arn,
            "TargetEndpointArn": self.target_endpoint_arn,
            "ReplicationType": self.migration_type,
            "ComputeConfig": self.compute,
            "ReplicationSettings": json.dumps(self.settings),
            "TableMappings": self.table_mappings,
            "ReplicationConfigCreateTime": self.creation_date,
            "ReplicationConfigUpdateTime": self.updated,
        }

    def to_dict(self) -> dict[str, Any]:
        state = self.refresh()
        made = {
            "ReplicationConfigIdentifier": self.id,
            "ReplicationConfigArn": self.arn,
            "SourceEndpointArn": self.source_endpoint_arn,
            "TargetEndpointArn": self.target_endpoint_arn,
            "ReplicationType": self.migration_type,
            "Status": self._shown_status(),
            "ProvisionData": self._provisioned(),
            "StopReason": self._stop_reason(state),
            "FailureMessages": [text] if (text := state.failure) else None,
            "ReplicationStats": self._stats(state) if self.was_run else None,
            "StartReplicationType": self.start_type or None,
            "CdcStartPosition": self.start_position,
            "CdcStopPosition": self.stop_position,
            "RecoveryCheckpoint": Position(*state.checkpoint).checkpoint() if state.checkpoint else None,
            "ReplicationCreateTime": self.creation_date,
            "ReplicationUpdateTime": self.updated,
            "ReplicationLastStopTime": self.stopped,
        }
        return {name: value for name, value in made.items() if value is not None}

    def begin(self, given: dict[str, Any]) -> None:
        """StartReplication."""
        kind = given["StartReplicationType"]
        if kind == "resume-processing" and self.migration_type == "full-load":
            raise InvalidParameterCombinationException("resume-processing is not applicable to a serverless full load")
        super().begin({**given, "StartReplicationTaskType": kind})
        self.start_type = kind

    def modify(self, given: dict[str, Any]) -> None:
        """ModifyReplicationConfig."""
        settings = {"ReplicationTaskSettings": given["ReplicationSettings"]} if "ReplicationSettings" in given else {}
        super().modify({**given, **settings})
        self.compute, self.updated = {**self.compute, **given.get("ComputeConfig", {})}, time.time()

    def remove(self) -> None:
        """DeleteReplicationConfig: refused before the capacity is given back."""
        if self.was_run and self._state_of_capacity() != "deprovisioned":
            raise InvalidResourceStateFault(f"Replication {self.arn} is not deprovisioned yet")
        super().remove()

    def _require_tested(self) -> None:
        """Serverless tests its connections on the way."""

    def _shown_status(self) -> str:
        if self.status == "ready":
            return "created"
        if self.status != "starting":
            return self.status
        return on_the_way((time.time() - self.started[-1]) / max(0.1, self._slow()))

    def _state_of_capacity(self) -> str:
        if self.status in STARTABLE:
            given_back = self.stopped is not None and time.time() > self.stopped + self._slow()
            return "deprovisioned" if given_back else "deprovisioning"
        return "provisioned" if self.status in {"running", "stopping"} else "provisioning"

    def _slow(self) -> float:
        return float(self.backend.fault("slow_s", self.id))

    def _provisioned(self) -> dict[str, Any] | None:
        if not self.was_run:
            return None
        units = self.compute.get("MinCapacityUnits") or 1
        return {"ProvisionState": self._state_of_capacity(), "ProvisionedCapacityUnits": units}
