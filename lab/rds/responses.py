"""Operations of the RDS API that moto does not have, or answers with less than AWS; `install` adds them to moto's own."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, PaginatedResult
from moto.rds.responses import RDSResponse

from lab.rds import catalogue


def describe_db_engine_versions(self: Any) -> ActionResult:
    asked = (self.params.get(name) for name in ("Engine", "EngineVersion", "DBParameterGroupFamily"))
    return PaginatedResult(
        {"DBEngineVersions": catalogue.engine_versions(*asked, bool(self.params.get("DefaultOnly")))}
    )


def describe_orderable_db_instance_options(self: Any) -> ActionResult:
    asked = (self.params.get(name) for name in ("Engine", "EngineVersion", "DBInstanceClass"))
    return PaginatedResult({"OrderableDBInstanceOptions": catalogue.orderable(*asked)})


def describe_account_attributes(self: Any) -> ActionResult:
    used = self.backend.used()
    quotas = [
        {"AccountQuotaName": name, "Used": used.get(name, 0), "Max": limit}
        for name, limit in self.backend.quotas().items()
    ]
    return ActionResult({"AccountQuotas": quotas})


def describe_pending_maintenance_actions(self: Any) -> ActionResult:
    return ActionResult({"PendingMaintenanceActions": []})


OPERATIONS = (
    describe_account_attributes,
    describe_db_engine_versions,
    describe_orderable_db_instance_options,
    describe_pending_maintenance_actions,
)


def install() -> None:
    for operation in OPERATIONS:
        setattr(RDSResponse, operation.__name__, operation)
