"""Operations of the RDS API that moto does not have, or answers with less than AWS; `install` adds them to moto's own."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.rds.exceptions import InvalidParameterCombination, RDSClientError
from moto.rds.responses import RDSResponse

from lab.rds import catalogue, parameters

LOG_LINES = 10_000


def _page(self: Any, answer: dict[str, list[Any]]) -> ActionResult:
    """The part of a long answer that the marker of the one before leads to."""
    ((key, rows),) = answer.items()
    begin, size = int(self.params.get("Marker") or 0), int(self.params.get("MaxRecords") or 100)
    more = {"Marker": str(begin + size)} if begin + size < len(rows) else {}
    return ActionResult({key: rows[begin : begin + size], **more})


def describe_db_engine_versions(self: Any) -> ActionResult:
    asked = (self.params.get(name) for name in ("Engine", "EngineVersion", "DBParameterGroupFamily"))
    return _page(self, {"DBEngineVersions": catalogue.engine_versions(*asked, bool(self.params.get("DefaultOnly")))})


def describe_orderable_db_instance_options(self: Any) -> ActionResult:
    asked = (self.params.get(name) for name in ("Engine", "EngineVersion", "DBInstanceClass"))
    return _page(self, {"OrderableDBInstanceOptions": catalogue.orderable(*asked)})


def describe_account_attributes(self: Any) -> ActionResult:
    used = self.backend.used()
    quotas = [
        {"AccountQuotaName": name, "Used": used.get(name, 0), "Max": limit}
        for name, limit in self.backend.quotas().items()
    ]
    return ActionResult({"AccountQuotas": quotas})


def describe_pending_maintenance_actions(self: Any) -> ActionResult:
    return ActionResult({"PendingMaintenanceActions": []})


def describe_db_cluster_parameters(self: Any) -> ActionResult:
    group = parameters.cluster_group(self.backend, self.params["DBClusterParameterGroupName"])
    rows = parameters.described(group, group.db_parameter_group_family, self.params.get("Source"))
    return _page(self, {"Parameters": rows})


def describe_db_parameters(self: Any) -> ActionResult:
    group = parameters.instance_group(self.backend, self.params["DBParameterGroupName"])
    return _page(self, {"Parameters": parameters.described(group, group.family, self.params.get("Source"))})


def delete_db_cluster(self: Any) -> ActionResult:
    _require_no_snapshot(self.params)
    return ActionResult({"DBCluster": self.backend.delete_db_cluster(self.params["DBClusterIdentifier"])})


def delete_db_instance(self: Any) -> ActionResult:
    found = self.backend.databases.get(self.params["DBInstanceIdentifier"])
    if found is not None and found.db_cluster_identifier is None:
        _require_no_snapshot(self.params)
    return ActionResult({"DBInstance": self.backend.delete_db_instance(**self.params)})


def _require_no_snapshot(asked: Any) -> None:
    if asked.get("FinalDBSnapshotIdentifier"):
        raise InvalidParameterCombination(
            "The lab takes no final snapshots: create one first, and set SkipFinalSnapshot."
        )
    if not asked.get("SkipFinalSnapshot"):
        raise InvalidParameterCombination(
            "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified."
        )


def download_db_log_file_portion(self: Any) -> ActionResult:
    """So many lines from the marker on; without a marker, the last ones of the file."""
    name, marker = self.params["LogFileName"], self.params.get("Marker")
    logs = self.backend.logs(self.params["DBInstanceIdentifier"])
    if name not in logs:
        raise RDSClientError("DBLogFileNotFoundFault", f"DBLog File: {name} is not found on the DB instance")
    lines = logs[name].splitlines(keepends=True)
    count = int(self.params.get("NumberOfLines") or LOG_LINES)
    begin = int(marker) if marker is not None else max(0, len(lines) - count)
    end = min(len(lines), begin + count)
    pending = end < len(lines)
    return ActionResult(
        {"LogFileData": "".join(lines[begin:end]), "Marker": str(end), "AdditionalDataPending": pending}
    )


OPERATIONS = (
    delete_db_cluster,
    delete_db_instance,
    describe_account_attributes,
    describe_db_cluster_parameters,
    describe_db_parameters,
    describe_db_engine_versions,
    describe_orderable_db_instance_options,
    describe_pending_maintenance_actions,
    download_db_log_file_portion,
)


def install() -> None:
    """Add the operations, and let no answer be made while a background thread renames or adds what it is about."""
    for operation in OPERATIONS:
        setattr(RDSResponse, operation.__name__, operation)
    call, serialize = RDSResponse.call_action, RDSResponse.serialized

    def call_action(self: Any) -> Any:
        if self._get_action().startswith(("Describe", "List")):
            with self.backend.lock:
                return call(self)
        return call(self)

    def serialized(self: Any, result: Any) -> Any:
        with self.backend.lock:
            return serialize(self, result)

    RDSResponse.call_action, RDSResponse.serialized = call_action, serialized
