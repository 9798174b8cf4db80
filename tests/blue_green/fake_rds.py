"""RDS in memory where moto is wrong: things take their time to go, answers can be scripted, and tags come late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

PREFIX = "arn:aws:rds:eu-central-1:123456789012"
CREATED = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


class AwsError(Exception):
    """Shaped like botocore's ClientError."""

    def __init__(self, code: str, text: str = "no") -> None:
        super().__init__(f"An error occurred ({code}): {text}")
        self.response = {"Error": {"Code": code, "Message": text}}


@dataclass(eq=False)
class Thing:
    """One resource; ``id`` never changes. ``rounds``: so many waits until it is gone once its deletion began."""

    kind: str
    name: str
    id: str
    tags: dict[str, str] = field(default_factory=dict)
    status: str = "available"
    cluster: Thing | None = None
    writer: bool = False
    protected: bool = False
    source: Thing | None = None
    target: Thing | None = None
    group: str = ""
    rounds: int = 1

    @property
    def arn(self) -> str:
        return f"{PREFIX}:{self.kind}:{self.name}"

    @property
    def tag_list(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]


class FakeRds:
    """The calls that rails and teardown use. ``calls`` lists those that change something; ``before`` scripts what happens first."""

    def __init__(self, wait_s: int = 10) -> None:
        self.things: list[Thing] = []
        self.calls: list[str] = []
        self.clock = datetime(2026, 3, 1, 3, 0)
        self.wait_s = wait_s
        self.waits: list[Callable[[], None]] = []
        self.before: dict[str, list[Callable[[dict[str, Any]], None]]] = {}

    def add(self, kind: str, name: str, tags: list[dict[str, str]], **more: Any) -> Thing:
        thing = Thing(kind, name, f"{kind}-id-{len(self.things)}", {t["Key"]: t["Value"] for t in tags}, **more)
        self.things.append(thing)
        return thing

    def of(self, kind: str) -> list[Thing]:
        return [thing for thing in self.things if thing.kind == kind]

    def names(self) -> set[str]:
        return {thing.name for thing in self.things}

    def now(self) -> datetime:
        return self.clock

    def wait(self) -> None:
        """Time goes by: one scripted step, and what is being deleted comes nearer to its end."""
        self.clock += timedelta(seconds=self.wait_s)
        if self.waits:
            self.waits.pop(0)()
        for thing in list(self.things):
            if thing.status.lower() == "deleting":
                thing.rounds -= 1
                if thing.rounds <= 0:
                    self.things.remove(thing)

    def script(self, call: str, *steps: Callable[[dict[str, Any]], None] | None) -> None:
        """What happens at each of the next calls; None: nothing."""
        self.before.setdefault(call, []).extend(step or (lambda _: None) for step in steps)

    def fail(self, call: str, code: str, times: int = 1) -> None:
        def no(_: dict[str, Any]) -> None:
            raise AwsError(code)

        self.script(call, *[no] * times)

    def _begin(self, call: str, arguments: dict[str, Any]) -> None:
        if not call.startswith(("describe", "list")):
            self.calls.append(f"{call} {next(iter(arguments.values()))}")
        if steps := self.before.get(call):
            steps.pop(0)(arguments)

    def _find(self, kind: str, name: str, fault: str) -> Thing:
        for thing in self.of(kind):
            if thing.name == name:
                return thing
        raise AwsError(fault)

    # Reading

    def describe_blue_green_deployments(self, **arguments: Any) -> dict[str, Any]:
        self._begin("describe_blue_green_deployments", arguments)
        return {
            "BlueGreenDeployments": [
                {
                    "BlueGreenDeploymentIdentifier": d.id,
                    "BlueGreenDeploymentName": d.name,
                    "Status": d.status,
                    "CreateTime": CREATED,
                    "Source": d.source.arn if d.source else "",
                    "Target": d.target.arn if d.target else None,
                    "TagList": d.tag_list,
                }
                for d in self.of("deployment")
            ]
        }

    def describe_db_clusters(self, **arguments: Any) -> dict[str, Any]:
        self._begin("describe_db_clusters", arguments)
        return {
            "DBClusters": [
                {
                    "DBClusterIdentifier": c.name,
                    "DbClusterResourceId": c.id,
                    "DBClusterArn": c.arn,
                    "Status": c.status,
                    "TagList": c.tag_list,
                    "DeletionProtection": c.protected,
                    "EngineVersion": "8.0.mysql_aurora.3.04.0",
                    "AllocatedStorage": 1,
                    "DBClusterMembers": [
                        {"DBInstanceIdentifier": i.name, "IsClusterWriter": i.writer}
                        for i in self.of("db")
                        if i.cluster is c
                    ],
                }
                for c in self.of("cluster")
            ]
        }

    def describe_db_instances(self, **arguments: Any) -> dict[str, Any]:
        self._begin("describe_db_instances", arguments)
        return {
            "DBInstances": [
                {
                    "DBInstanceIdentifier": i.name,
                    "DbiResourceId": i.id,
                    "DBInstanceArn": i.arn,
                    "DBInstanceStatus": i.status,
                    "DBInstanceClass": "db.r5.large",
                    "TagList": i.tag_list,
                    "DeletionProtection": i.protected,
                    "ReadReplicaSourceDBInstanceIdentifier": i.source.name if i.source else None,
                    **({"DBClusterIdentifier": i.cluster.name} if i.cluster else {}),
                }
                for i in self.of("db")
            ]
        }

    def _snapshots(self, kind: str, prefix: str) -> dict[str, Any]:
        return {
            f"{prefix}s": [
                {f"{prefix}Identifier": s.name, f"{prefix}Arn": s.arn, "Status": s.status, "TagList": s.tag_list}
                for s in self.of(kind)
            ]
        }

    def describe_db_cluster_snapshots(self, **arguments: Any) -> dict[str, Any]:
        assert arguments["SnapshotType"] == "manual"
        self._begin("describe_db_cluster_snapshots", arguments)
        return self._snapshots("cluster-snapshot", "DBClusterSnapshot")

    def describe_db_snapshots(self, **arguments: Any) -> dict[str, Any]:
        assert arguments["SnapshotType"] == "manual"
        self._begin("describe_db_snapshots", arguments)
        return self._snapshots("snapshot", "DBSnapshot")

    def _groups(self, kind: str, prefix: str) -> dict[str, Any]:
        return {f"{prefix}s": [{f"{prefix}Name": g.name, f"{prefix}Arn": g.arn} for g in self.of(kind)]}

    def describe_db_cluster_parameter_groups(self, **arguments: Any) -> dict[str, Any]:
        self._begin("describe_db_cluster_parameter_groups", arguments)
        return self._groups("cluster-pg", "DBClusterParameterGroup")

    def describe_db_parameter_groups(self, **arguments: Any) -> dict[str, Any]:
        self._begin("describe_db_parameter_groups", arguments)
        return self._groups("pg", "DBParameterGroup")

    def list_tags_for_resource(self, **arguments: Any) -> dict[str, Any]:
        self._begin("list_tags_for_resource", arguments)
        for thing in self.things:
            if thing.arn == arguments["ResourceName"]:
                return {"TagList": thing.tag_list}
        raise AwsError("DBParameterGroupNotFound")

    # Changing

    def add_tags_to_resource(self, **arguments: Any) -> None:
        self._begin("add_tags_to_resource", arguments)
        for thing in self.things:
            if thing.arn == arguments["ResourceName"]:
                thing.tags |= {tag["Key"]: tag["Value"] for tag in arguments["Tags"]}

    def modify_db_cluster(self, **arguments: Any) -> None:
        self._begin("modify_db_cluster", arguments)
        cluster = self._find("cluster", arguments["DBClusterIdentifier"], "DBClusterNotFoundFault")
        cluster.protected = arguments["DeletionProtection"]

    def modify_db_instance(self, **arguments: Any) -> None:
        self._begin("modify_db_instance", arguments)
        instance = self._find("db", arguments["DBInstanceIdentifier"], "DBInstanceNotFound")
        instance.protected = arguments["DeletionProtection"]

    def delete_blue_green_deployment(self, **arguments: Any) -> None:
        self._begin("delete_blue_green_deployment", arguments)
        deployment = next(
            (d for d in self.of("deployment") if d.id == arguments["BlueGreenDeploymentIdentifier"]), None
        )
        if deployment is None:
            raise AwsError("BlueGreenDeploymentNotFoundFault")
        with_target = bool(arguments.get("DeleteTarget"))
        if deployment.status in ("PROVISIONING", "SWITCHOVER_IN_PROGRESS", "DELETING") or (
            with_target and deployment.status == "SWITCHOVER_COMPLETED"
        ):
            raise AwsError("InvalidBlueGreenDeploymentStateFault")
        green = deployment.target
        if with_target and green is not None:
            goes = [green, *(i for i in self.of("db") if i.cluster is green)]
            if any(thing.protected for thing in goes):
                raise AwsError("InvalidParameterCombination", "deletion protection")
            for thing in goes:
                thing.status = "deleting"
        deployment.status = "DELETING"

    def delete_db_instance(self, **arguments: Any) -> None:
        self._begin("delete_db_instance", arguments)
        instance = self._find("db", arguments["DBInstanceIdentifier"], "DBInstanceNotFound")
        alone = {"SkipFinalSnapshot", "DeleteAutomatedBackups"} <= set(arguments)
        if alone is (instance.cluster is not None):
            raise AwsError("InvalidParameterCombination", "final snapshots are those of the cluster")
        self._delete(instance, "InvalidDBInstanceState")

    def delete_db_cluster(self, **arguments: Any) -> None:
        self._begin("delete_db_cluster", arguments)
        assert arguments["SkipFinalSnapshot"]
        cluster = self._find("cluster", arguments["DBClusterIdentifier"], "DBClusterNotFoundFault")
        if any(i.cluster is cluster and i.status != "deleting" for i in self.of("db")):
            raise AwsError("InvalidDBClusterStateFault", "it still contains DB instances in non-deleting state")
        self._delete(cluster, "InvalidDBClusterStateFault")

    def delete_db_cluster_snapshot(self, **arguments: Any) -> None:
        self._begin("delete_db_cluster_snapshot", arguments)
        name = arguments["DBClusterSnapshotIdentifier"]
        self._delete(
            self._find("cluster-snapshot", name, "DBClusterSnapshotNotFoundFault"), "InvalidDBClusterSnapshotStateFault"
        )

    def delete_db_snapshot(self, **arguments: Any) -> None:
        self._begin("delete_db_snapshot", arguments)
        self._delete(
            self._find("snapshot", arguments["DBSnapshotIdentifier"], "DBSnapshotNotFound"), "InvalidDBSnapshotState"
        )

    def delete_db_cluster_parameter_group(self, **arguments: Any) -> None:
        self._begin("delete_db_cluster_parameter_group", arguments)
        self._delete_group("cluster-pg", arguments["DBClusterParameterGroupName"])

    def delete_db_parameter_group(self, **arguments: Any) -> None:
        self._begin("delete_db_parameter_group", arguments)
        self._delete_group("pg", arguments["DBParameterGroupName"])

    def _delete_group(self, kind: str, name: str) -> None:
        group = self._find(kind, name, "DBParameterGroupNotFound")
        if any(thing.group == name for thing in self.things):
            raise AwsError("InvalidDBParameterGroupState", "it is in use")
        self.things.remove(group)

    def _delete(self, thing: Thing, fault: str) -> None:
        if thing.protected:
            raise AwsError("InvalidParameterCombination", "Cannot delete protected resource")
        if thing.status not in ("available", "stopped"):
            raise AwsError(fault, f"it is {thing.status}")
        thing.status = "deleting"
