"""Parameter groups of the backend: families, defaults, changes that reach running servers, groups that are in use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moto.rds import models

from lab.rds import parameters


class Groups(models.RDSBackend):
    """The part of the backend that is about parameter groups."""

    plane: Any

    def describe_db_cluster_parameter_groups(self, group_name: str | None = None) -> list[Any]:
        if group_name is None:
            return list(self.db_cluster_parameter_groups.values())
        return [parameters.cluster_group(self, group_name)]

    def describe_db_parameter_groups(self, db_parameter_group_kwargs: Any) -> list[Any]:
        name = db_parameter_group_kwargs.get("db_parameter_group_name")
        return [parameters.instance_group(self, name)] if name else list(self.db_parameter_groups.values())

    def modify_db_cluster_parameter_group(
        self, db_cluster_parameter_group_name: str, db_cluster_parameter_group_parameters: Iterable[dict[str, Any]]
    ) -> Any:
        group = parameters.cluster_group(self, db_cluster_parameter_group_name)
        self._change(group, group.db_parameter_group_family, "cluster", list(db_cluster_parameter_group_parameters))
        return group

    def modify_db_parameter_group(
        self, db_parameter_group_name: str, db_parameter_group_parameters: Iterable[dict[str, Any]]
    ) -> Any:
        group = parameters.instance_group(self, db_parameter_group_name)
        self._change(group, group.family, "instance", list(db_parameter_group_parameters))
        return group

    def _change(self, group: Any, family: str, kind: str, changes: list[dict[str, Any]]) -> None:
        parameters.require_changeable(group)
        parameters.require_valid(family, changes)
        for database in list(self.databases.values()):
            server = self.plane.servers.get(database.dbi_resource_id)
            applied = getattr(database, "applied", {}).get(kind, ("", {}))
            if server is not None and server.process is not None and applied[0] == group.name:
                parameters.apply_now(server, database, kind, changes)
        (group.update_cluster_parameters if kind == "cluster" else group.update_parameters)(changes)

    def delete_db_cluster_parameter_group(self, db_cluster_parameter_group_name: str) -> None:
        group = parameters.cluster_group(self, db_cluster_parameter_group_name)
        users = {name: each for name, each in self.clusters.items() if each.parameter_group == group.name}
        parameters.require_changeable(group, users)
        super().delete_db_cluster_parameter_group(db_cluster_parameter_group_name)

    def delete_db_parameter_group(self, db_parameter_group_name: str) -> Any:
        group = parameters.instance_group(self, db_parameter_group_name)
        users = {name: each for name, each in self.databases.items() if each.db_parameter_group_name == group.name}
        parameters.require_changeable(group, users)
        return super().delete_db_parameter_group(db_parameter_group_name)


def install() -> None:
    """Show the true apply status where moto always says in-sync, and the family of a version as AWS has it."""
    models.DBCluster.db_cluster_members = property(_members)
    models.DBInstance.db_parameter_group_status_list = property(_statuses)
    models.DBInstance.db_parameter_groups = _groups


def _members(cluster: Any) -> list[dict[str, Any]]:
    return [
        {
            "DBInstanceIdentifier": member.db_instance_identifier,
            "IsClusterWriter": member.is_cluster_writer,
            "DBClusterParameterGroupStatus": parameters.status(member, "cluster"),
            "PromotionTier": member.promotion_tier,
        }
        for member in cluster.members
    ]


def _statuses(database: Any) -> list[dict[str, str]]:
    (group,) = database.db_parameter_groups()
    return [{"DBParameterGroupName": group.name, "ParameterApplyStatus": parameters.status(database, "instance")}]


def _groups(database: Any) -> list[Any]:
    default = f"default.{parameters.catalogue.family(database.engine, database.engine_version)}"
    return [parameters.instance_group(database.backend, database.db_parameter_group_name or default)]
