"""What a rehearsal has made in RDS, found by its tags and known by its resource ids.

Names move at a switchover, resource ids do not. A kind that has no resource id (snapshots, parameter groups) is known by its ARN; those are
never renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

REHEARSAL = "dbops:rehearsal"
NAME = "dbops:rehearsal-name"
OWNER = "dbops:owner"
EXPIRES = "dbops:expires-at"
YES = "true"

Kind = Literal[
    "deployment", "cluster", "instance", "cluster_parameter_group", "parameter_group", "cluster_snapshot", "snapshot"
]


@dataclass(frozen=True)
class Resource:
    """One resource, as AWS described it last.

    ``identifier`` is its name now, ``cluster`` the name of an instance's cluster; ``is_writer`` is true for the writer of a cluster and for
    an instance that is nobody's replica.
    """

    kind: Kind
    identifier: str
    resource_id: str
    arn: str
    status: str
    tags: Mapping[str, str]
    created_at: datetime | None = None
    """Aware."""
    instance_class: str = ""
    engine_version: str = ""
    cluster: str = ""
    is_writer: bool = False
    deletion_protection: bool = False
    storage_gb: float = 0.0
    """Allocated storage; Aurora says 1, since its storage grows by itself."""

    @property
    def is_ours(self) -> bool:
        """Tagged as part of a rehearsal."""
        return self.tags.get(REHEARSAL) == YES

    @property
    def rehearsal(self) -> str:
        """Name of its rehearsal, or ""."""
        return self.tags.get(NAME, "")

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.identifier}"


@dataclass(frozen=True)
class _Shape:
    """How the answers of one Describe call read. ``id``, ``status``: keys of the answer; a status of "" is always there."""

    call: str
    list: str
    name: str
    id: str
    arn: str
    status: str
    created: str
    more: Mapping[str, str] = field(default_factory=dict)


# Automated snapshots carry the tags of what they were taken of, but go with it and cannot be deleted: only manual ones count.
_MANUAL = {"SnapshotType": "manual"}
_SHAPES: dict[Kind, _Shape] = {
    "deployment": _Shape(
        "describe_blue_green_deployments", "BlueGreenDeployments", "BlueGreenDeploymentName",
        "BlueGreenDeploymentIdentifier", "", "Status", "CreateTime",
    ),
    "cluster": _Shape(
        "describe_db_clusters", "DBClusters", "DBClusterIdentifier",
        "DbClusterResourceId", "DBClusterArn", "Status", "ClusterCreateTime",
    ),
    "instance": _Shape(
        "describe_db_instances", "DBInstances", "DBInstanceIdentifier",
        "DbiResourceId", "DBInstanceArn", "DBInstanceStatus", "InstanceCreateTime",
    ),
    "cluster_snapshot": _Shape(
        "describe_db_cluster_snapshots", "DBClusterSnapshots", "DBClusterSnapshotIdentifier",
        "DBClusterSnapshotArn", "DBClusterSnapshotArn", "Status", "SnapshotCreateTime", _MANUAL,
    ),
    "snapshot": _Shape(
        "describe_db_snapshots", "DBSnapshots", "DBSnapshotIdentifier",
        "DBSnapshotArn", "DBSnapshotArn", "Status", "SnapshotCreateTime", _MANUAL,
    ),
    "cluster_parameter_group": _Shape(
        "describe_db_cluster_parameter_groups", "DBClusterParameterGroups", "DBClusterParameterGroupName",
        "DBClusterParameterGroupArn", "DBClusterParameterGroupArn", "", "",
    ),
    "parameter_group": _Shape(
        "describe_db_parameter_groups", "DBParameterGroups", "DBParameterGroupName",
        "DBParameterGroupArn", "DBParameterGroupArn", "", "",
    ),
}  # fmt: skip
KINDS = tuple(_SHAPES)


def utc(at: datetime) -> datetime:
    """The aware time of a naive one in UTC; an aware one is converted."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def tags(name: str, owner: str, expires_at: datetime) -> list[dict[str, str]]:
    """Tags of every resource of a rehearsal, as boto3 takes them; `expires_at` is naive UTC, or aware.

    Raises:
        ValueError: a name is empty
    """
    if not name.strip() or not owner.strip():
        raise ValueError(f"name={name!r}, owner={owner!r}: both are needed to know whose a resource is")
    until = utc(expires_at).isoformat(timespec="seconds").replace("+00:00", "Z")
    values = {REHEARSAL: YES, NAME: name, OWNER: owner, EXPIRES: until}
    return [{"Key": key, "Value": value} for key, value in values.items()]


def expires_at(resource: Resource) -> datetime | None:
    """When the resource may be removed by anybody, aware; None when its tag is missing or is not ISO 8601."""
    try:
        return utc(datetime.fromisoformat(resource.tags.get(EXPIRES, "").strip()))
    except ValueError:
        return None


def found(rds: Any, name: str | None = None, kinds: Iterable[Kind] = KINDS) -> list[Resource]:
    """Every resource with the tag of rehearsals; with `name`, those of this one. Reads all pages of every kind.

    Parameter groups cost a call each, since their tags are not in their description; `kinds` can leave them out.
    """
    everything = [resource for kind in kinds for resource in described(rds, kind)]
    return [r for r in everything if r.is_ours and name in (None, r.rehearsal)]


def by_id(rds: Any, kind: Kind, resource_id: str) -> Resource | None:
    """The resource of this id under the name and with the tags that it has now; None when there is none."""
    return next(iter(described(rds, kind, resource_id)), None)


def described(rds: Any, kind: Kind, resource_id: str | None = None) -> Iterator[Resource]:
    """Every resource of a kind, tagged or not; with `resource_id` only that one."""
    shape = _SHAPES[kind]
    writers = None
    for answer in pages(rds, shape.call, shape.list, **shape.more):
        if resource_id not in (None, answer[shape.id]) or str(answer[shape.name]).startswith("default."):
            continue
        if kind == "instance" and writers is None:
            writers = _writers(rds)
        yield _resource(rds, kind, answer, writers or frozenset())


def pages(rds: Any, call: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """What a Describe call lists under `key`, over all pages."""
    marker: dict[str, str] = {}
    while True:
        answer = getattr(rds, call)(**arguments, **marker)
        yield from answer.get(key) or ()
        if not answer.get("Marker"):
            return
        marker = {"Marker": answer["Marker"]}


def error_code(error: BaseException) -> str:
    """Code of an error that AWS answered, or "" when it is another one."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_throttled(error: BaseException) -> bool:
    """AWS asks to call later."""
    return error_code(error) in (
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
    )


def is_not_found(error: BaseException) -> bool:
    """What was asked for does not exist (the API ends some of these codes with Fault, some not)."""
    return "NotFound" in error_code(error)


def _writers(rds: Any) -> frozenset[str]:
    return frozenset(
        member["DBInstanceIdentifier"]
        for cluster in pages(rds, "describe_db_clusters", "DBClusters")
        for member in cluster.get("DBClusterMembers") or ()
        if member.get("IsClusterWriter")
    )


def _resource(rds: Any, kind: Kind, answer: Mapping[str, Any], writers: frozenset[str]) -> Resource:
    shape = _SHAPES[kind]
    name, cluster = answer[shape.name], answer.get("DBClusterIdentifier") or "" if kind == "instance" else ""
    arn = answer[shape.arn] if shape.arn else ""
    return Resource(
        kind, name, answer[shape.id], arn, str(answer.get(shape.status, "available")), _tags(rds, answer, arn),
        answer.get(shape.created), answer.get("DBInstanceClass") or "", answer.get("EngineVersion") or "", cluster,
        kind == "instance" and (name in writers if cluster else not answer.get("ReadReplicaSourceDBInstanceIdentifier")),
        bool(answer.get("DeletionProtection")), float(answer.get("AllocatedStorage") or 0),
    )  # fmt: skip


def _tags(rds: Any, answer: Mapping[str, Any], arn: str) -> dict[str, str]:
    """Tags in the answer itself, so that they are of the same moment as the name; parameter groups are described without."""
    listed = answer.get("TagList")
    if listed is None and arn:
        try:
            listed = rds.list_tags_for_resource(ResourceName=arn).get("TagList")
        except Exception as error:
            if not is_not_found(error):  # gone between the two calls
                raise
    return {tag["Key"]: tag.get("Value") or "" for tag in listed or ()}
