"""What a rehearsal has made is found by tags in every kind and on every page, and looked up by an id that outlives its name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from dbops.blue_green import resources
from dbops.blue_green.resources import Resource
from tests.blue_green import rds_kit
from tests.blue_green.rds_kit import EXPIRES, NAME, OTHER, TAGS


@pytest.fixture
def rds() -> Iterator[Any]:
    with rds_kit.moto_rds() as client:
        yield client


def test_tags_name_whose_and_until_when_in_utc() -> None:
    given = {tag["Key"]: tag["Value"] for tag in resources.tags("shop-1", "dba", datetime(2026, 3, 1, 9, 0))}
    assert given == {
        "dbops:rehearsal": "true",
        "dbops:rehearsal-name": "shop-1",
        "dbops:owner": "dba",
        "dbops:expires-at": "2026-03-01T09:00:00Z",
    }
    berlin = datetime(2026, 3, 1, 10, 0, tzinfo=timezone(timedelta(hours=1)))
    assert resources.tags("a", "b", berlin)[3]["Value"] == "2026-03-01T09:00:00Z"
    for name, owner in (("", "dba"), ("shop-1", " ")):
        with pytest.raises(ValueError, match="both are needed"):
            resources.tags(name, owner, EXPIRES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T09:00:00Z", datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),
        ("2026-03-01T10:00:00+01:00", datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),
        ("2026-03-01T09:00", datetime(2026, 3, 1, 9, 0, tzinfo=UTC)),
        ("soon", None),
        ("", None),
    ],
)
def test_expiry_is_read_or_unknown(text: str, expected: datetime | None) -> None:
    resource = Resource("instance", "a", "db-1", "arn", "available", {resources.EXPIRES: text})
    assert resources.expires_at(resource) == expected


def test_every_kind_is_found_by_its_tags_and_nothing_else_is(rds: Any) -> None:
    arn = rds_kit.cluster(rds, "blue", TAGS)
    rds_kit.cluster(rds, "foreign", OTHER, members=1)
    rds_kit.cluster(rds, "blue-like", [{"Key": "dbops:rehearsal", "Value": "false"}], members=1)
    rds.create_db_parameter_group(
        DBParameterGroupName="blue-instances", DBParameterGroupFamily="aurora-mysql5.7", Description="x", Tags=TAGS
    )
    rds.create_db_cluster_snapshot(DBClusterIdentifier="blue", DBClusterSnapshotIdentifier="blue-s", Tags=TAGS)
    rds.create_db_instance(
        DBInstanceIdentifier="solo", Engine="mysql", EngineVersion="5.7.44", DBInstanceClass="db.r5.large",
        AllocatedStorage=20, MasterUsername="master", MasterUserPassword="a-password", Tags=TAGS, CopyTagsToSnapshot=True,
    )  # fmt: skip
    rds.create_db_snapshot(DBInstanceIdentifier="solo", DBSnapshotIdentifier="solo-s", Tags=TAGS)
    rds.create_blue_green_deployment(
        BlueGreenDeploymentName="blue-bg", Source=arn, TargetEngineVersion=rds_kit.NEW, Tags=TAGS
    )
    ours = {(r.kind, r.identifier) for r in resources.found(rds, NAME) if "-green-" not in r.identifier}
    assert ours == {
        ("deployment", "blue-bg"),
        ("cluster", "blue"),
        ("instance", "blue-1"),
        ("instance", "blue-2"),
        ("instance", "solo"),
        ("cluster_parameter_group", "blue-blue"),
        ("parameter_group", "blue-instances"),
        ("cluster_snapshot", "blue-s"),
        ("snapshot", "solo-s"),  # and not the automated one, which has the same tags
    }
    everybodys = {r.identifier for r in resources.found(rds)}
    assert {"foreign", "foreign-1", "foreign-blue"} <= everybodys
    assert not any(name.startswith("blue-like") for name in everybodys)
    writers = {r.identifier: r.is_writer for r in resources.found(rds, NAME) if r.kind == "instance"}
    assert (writers["blue-1"], writers["blue-2"], writers["solo"]) == (True, False, True)


def test_the_id_finds_a_resource_under_its_new_name_with_its_new_tags(rds: Any) -> None:
    rds_kit.cluster(rds, "blue", TAGS, members=1)
    before = next(r for r in resources.found(rds, NAME) if r.kind == "instance")
    rds.modify_db_instance(DBInstanceIdentifier="blue-1", NewDBInstanceIdentifier="blue-1-old1", ApplyImmediately=True)
    rds.add_tags_to_resource(
        ResourceName=before.arn.replace("blue-1", "blue-1-old1"), Tags=[{"Key": "env", "Value": "prod"}]
    )
    after = resources.by_id(rds, "instance", before.resource_id)
    assert after is not None
    assert (after.identifier, after.resource_id, after.tags["env"]) == ("blue-1-old1", before.resource_id, "prod")
    assert resources.by_id(rds, "instance", "db-gone") is None


def test_tags_of_parameter_groups_are_asked_for(rds: Any) -> None:
    rds_kit.cluster(rds, "blue", TAGS, members=0)
    arn = rds.describe_db_cluster_parameter_groups()["DBClusterParameterGroups"][0]["DBClusterParameterGroupArn"]
    found = resources.by_id(rds, "cluster_parameter_group", arn)
    assert found is not None
    assert (found.rehearsal, found.status) == (NAME, "available")


class Pages:
    """Two pages of clusters, and a second call that is throttled at first."""

    def describe_db_clusters(self, Marker: str = "", **_: Any) -> dict[str, Any]:
        number = "2" if Marker else "1"
        listed = {
            "DBClusterIdentifier": f"c{number}",
            "DbClusterResourceId": f"id{number}",
            "DBClusterArn": "a",
            "TagList": TAGS,
        }
        return {"DBClusters": [listed]} if Marker else {"DBClusters": [listed], "Marker": "next"}


def test_all_pages_are_read() -> None:
    assert [r.identifier for r in resources.described(Pages(), "cluster")] == ["c1", "c2"]
    second = resources.by_id(Pages(), "cluster", "id2")
    assert second is not None
    assert second.identifier == "c2"
