"""RDS for the tests of rails: moto with what it gets wrong set right, and a specification to check against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest import mock

import boto3
from conftest import ACCOUNT, REGION
from moto import mock_aws
from moto.rds import models

from dbops.blue_green import resources
from dbops.blue_green.spec import RehearsalSpec

NOW = datetime(2026, 3, 1, 3, 0)
EXPIRES = datetime(2026, 3, 1, 9, 0)
NAME = "shop-1"
TAGS = resources.tags(NAME, "dba-team", EXPIRES)
OTHER = resources.tags("other-1", "dba-team", EXPIRES)
OLD, NEW = "5.7.mysql_aurora.2.11.4", "8.0.mysql_aurora.3.04.0"


@contextmanager
def moto_rds() -> Iterator[Any]:
    """A client of moto's RDS in which every instance has a resource id of its own (moto gives all of them the same)."""
    made, numbers = models.DBInstance.__init__, itertools.count(1)

    def with_id(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.dbi_resource_id = f"db-{next(numbers):026d}"

    with mock_aws(), mock.patch.object(models.DBInstance, "__init__", with_id):
        yield boto3.client("rds", REGION, aws_access_key_id="a", aws_secret_access_key="b")


def cluster(rds: Any, name: str, tags: list[dict[str, str]], members: int = 2) -> str:
    """A cluster with a parameter group; returns its ARN."""
    group = f"{name}-blue"
    rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName=group, DBParameterGroupFamily="aurora-mysql5.7", Description="blue", Tags=tags
    )
    made = rds.create_db_cluster(
        DBClusterIdentifier=name, Engine="aurora-mysql", EngineVersion=OLD, MasterUsername="master",
        MasterUserPassword="a-password", DBClusterParameterGroupName=group, BackupRetentionPeriod=1, Tags=tags,
    )  # fmt: skip
    for number in range(1, members + 1):
        rds.create_db_instance(
            DBInstanceIdentifier=f"{name}-{number}", DBClusterIdentifier=name, Engine="aurora-mysql",
            DBInstanceClass="db.r5.large", Tags=tags,
        )  # fmt: skip
    return str(made["DBCluster"]["DBClusterArn"])


def spec(**more: Any) -> RehearsalSpec:
    values: dict[str, Any] = {
        "name": "shop", "description": "the shop", "owner": "dba-team",
        "source": {"kind": "synthetic", "engine_version": OLD}, "target": {"engine_version": NEW},
        "placement": {"region": REGION, "accounts": [ACCOUNT], "instance_class": "db.r5.large", "readers": 1},
        "max_cost_usd": 20,
    }  # fmt: skip
    return RehearsalSpec.model_validate(values | more)
