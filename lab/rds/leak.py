"""``python -m lab.rds.leak``: what rehearsals left behind in the simulated RDS; exit status 1 when there is anything.

Counted are all deployments, clusters, instances, snapshots and custom parameter groups, whoever made them and however they are tagged, and
beside the API the mysqld processes, data directories and dumps of the lab's RDS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lab import aws, config
from lab.config import LabError
from lab.rds import plane

KEPT = ("faults.json", "truth.jsonl", "dms")  # DMS has its state beside, and is not made by rehearsals
# operation, key of its answer, identifier, ARN
KINDS = (
    ("describe_blue_green_deployments", "BlueGreenDeployments", "BlueGreenDeploymentIdentifier", ""),
    ("describe_db_clusters", "DBClusters", "DBClusterIdentifier", "DBClusterArn"),
    ("describe_db_instances", "DBInstances", "DBInstanceIdentifier", "DBInstanceArn"),
    ("describe_db_cluster_snapshots", "DBClusterSnapshots", "DBClusterSnapshotIdentifier", "DBClusterSnapshotArn"),
    ("describe_db_snapshots", "DBSnapshots", "DBSnapshotIdentifier", "DBSnapshotArn"),
    ("describe_db_cluster_parameter_groups", "DBClusterParameterGroups", "DBClusterParameterGroupName",
     "DBClusterParameterGroupArn"),
    ("describe_db_parameter_groups", "DBParameterGroups", "DBParameterGroupName", "DBParameterGroupArn"),
    ("describe_event_subscriptions", "EventSubscriptionsList", "CustSubscriptionId", ""),
)  # fmt: skip


def left(rds: Any = None, folder: Path | None = None) -> list[str]:
    """What is left, a line each; nothing when all is gone.

    Args:
        rds: client of the simulated RDS; default that of the running lab
        folder: where its servers are; default that of the running lab

    Raises:
        LabError: the simulated AWS does not answer, so nothing is known
    """
    client = rds or aws.client("rds")
    try:
        found = [line for kind in KINDS for line in _resources(client, *kind)]
    except (BotoCoreError, ClientError) as error:
        raise LabError(f"cannot ask the simulated RDS ({error}): run `python -m lab up`") from error
    return [*found, *_on_this_machine(folder or plane.folder())]


def _resources(client: Any, operation: str, key: str, name: str, arn: str) -> Iterator[str]:
    for page in client.get_paginator(operation).paginate():
        for entry in page[key]:
            if not entry[name].startswith("default."):
                tags = entry.get("TagList") or (
                    client.list_tags_for_resource(ResourceName=entry[arn])["TagList"] if arn else []
                )
                shown = ", ".join(f"{tag['Key']}={tag['Value']}" for tag in tags) or "no tags"
                yield f"{key.removesuffix('List').removesuffix('s')} {entry[name]} {entry.get('Status', '')} ({shown})".replace(
                    "  ", " "
                )


def _on_this_machine(folder: Path) -> Iterator[str]:
    for process in plane.servers_below(folder):
        yield f"process {process.pid} {process.info['name']}"
    for entry in sorted(folder.glob("*")):
        if entry.name not in KEPT:
            yield f"folder {entry}"


def main() -> int:
    """Print what is left; returns the exit status."""
    try:
        found = left()
    except LabError as error:
        print(f"lab.rds.leak: {error}", file=sys.stderr)
        return 1
    for line in found:
        print(line)
    print(f"{len(found)} left in the simulated RDS at {config.aws_endpoint()}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
