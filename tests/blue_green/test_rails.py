"""Every rail refuses what it is there for, and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from conftest import ACCOUNT, REGION

from dbops.blue_green import rails, resources
from dbops.blue_green.cost import Cost
from dbops.blue_green.rails import RailError
from tests.blue_green import rds_kit
from tests.blue_green.rds_kit import EXPIRES, NAME, NOW, OTHER, TAGS


@pytest.fixture
def rds() -> Iterator[Any]:
    with rds_kit.moto_rds() as client:
        yield client


def test_account_and_region_are_those_of_the_spec() -> None:
    placement = rds_kit.spec().placement
    rails.require_placement(ACCOUNT, REGION, placement)
    with pytest.raises(RailError, match="account '999999999999' is not in"):
        rails.require_placement("999999999999", REGION, placement)
    with pytest.raises(RailError, match="region 'us-west-2'"):
        rails.require_placement(ACCOUNT, "us-west-2", placement)


def instance(rds: Any, tags: list[dict[str, str]]) -> str:
    rds_kit.cluster(rds, "blue", tags, members=1)
    return str(rds.describe_db_instances()["DBInstances"][0]["DbiResourceId"])


def without(key: str, **more: str) -> list[dict[str, str]]:
    kept = [tag for tag in TAGS if tag["Key"] != key]
    return kept + [{"Key": name.replace("_", ":"), "Value": value} for name, value in more.items()]


def test_ours_comes_back_as_it_is_now(rds: Any) -> None:
    found = rails.require_ours(rds, "instance", instance(rds, TAGS), NAME, NOW)
    assert (found.identifier, found.rehearsal) == ("blue-1", NAME)


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ([], "dbops:rehearsal=None"),
        (without(resources.REHEARSAL, dbops_rehearsal="True"), "dbops:rehearsal='True'"),
        (OTHER, "not of the rehearsal 'shop-1'"),
        (without(resources.NAME), "dbops:rehearsal-name=''"),
        (without(resources.OWNER), "no tag dbops:owner"),
        (without(resources.EXPIRES), "ISO 8601"),
        ([*without(resources.EXPIRES), {"Key": resources.EXPIRES, "Value": "tomorrow"}], "='tomorrow'"),
        ([*TAGS, {"Key": "env", "Value": "prod"}], "env=prod"),
        ([*TAGS, {"Key": "Environment", "Value": "Production"}], "never touches production"),
    ],
)
def test_what_is_not_ours_is_left_alone(rds: Any, tags: list[dict[str, str]], word: str) -> None:
    identifier = instance(rds, tags)
    for expiry in get_args(rails.Expiry):
        with pytest.raises(RailError, match=word):
            rails.require_ours(rds, "instance", identifier, NAME, NOW, expiry=expiry)


def test_an_empty_name_matches_nothing(rds: Any) -> None:
    identifier = instance(rds, without(resources.NAME))
    with pytest.raises(RailError, match="not of the rehearsal"):
        rails.require_ours(rds, "instance", identifier, "", NOW)


@pytest.mark.parametrize(
    ("now", "expiry", "allowed"),
    [
        (EXPIRES - timedelta(seconds=1), "ahead", True),
        (EXPIRES, "ahead", False),
        (EXPIRES, "any", True),
        (NOW, "any", True),
        (EXPIRES, "past", True),
        (EXPIRES - timedelta(seconds=1), "past", False),
    ],
)
def test_an_expired_resource_may_only_be_deleted(rds: Any, now: datetime, expiry: rails.Expiry, allowed: bool) -> None:
    identifier = instance(rds, TAGS)
    if allowed:
        rails.require_ours(rds, "instance", identifier, NAME, now, expiry=expiry)
    else:
        with pytest.raises(RailError, match="2026-03-01 09:00 UTC"):
            rails.require_ours(rds, "instance", identifier, NAME, now, expiry=expiry)


def test_tags_are_read_anew_and_a_gone_resource_is_refused(rds: Any) -> None:
    identifier = instance(rds, TAGS)
    rails.require_ours(rds, "instance", identifier, NAME, NOW)
    arn = rds.describe_db_instances()["DBInstances"][0]["DBInstanceArn"]
    rds.remove_tags_from_resource(ResourceName=arn, TagKeys=[resources.REHEARSAL])
    with pytest.raises(RailError, match="left alone"):
        rails.require_ours(rds, "instance", identifier, NAME, NOW)
    rds.delete_db_instance(DBInstanceIdentifier="blue-1", SkipFinalSnapshot=True)
    with pytest.raises(RailError, match="does not exist"):
        rails.require_ours(rds, "instance", identifier, NAME, NOW)


def test_another_resource_that_took_the_name_is_not_touched(rds: Any) -> None:
    identifier = instance(rds, TAGS)
    rds.modify_db_instance(DBInstanceIdentifier="blue-1", NewDBInstanceIdentifier="blue-1-old1", ApplyImmediately=True)
    for automated in rds.describe_db_snapshots()["DBSnapshots"]:  # its name is that of the instance and the minute
        rds.delete_db_snapshot(DBSnapshotIdentifier=automated["DBSnapshotIdentifier"])
    rds.create_db_instance(
        DBInstanceIdentifier="blue-1", DBClusterIdentifier="blue", Engine="aurora-mysql", DBInstanceClass="db.r5.large"
    )
    assert rails.require_ours(rds, "instance", identifier, NAME, NOW).identifier == "blue-1-old1"


def cost(total: float, currency: str = "USD") -> Cost:
    return Cost((("instances", total * 0.9), ("storage", total * 0.1)), total, 1.0, currency, ())


def test_the_budget() -> None:
    spec = rds_kit.spec(max_cost_usd=20)
    rails.require_budget(cost(20), spec)
    with pytest.raises(
        RailError, match=r"estimated at 20.01 USD, over max_cost_usd \(20.00\); the largest item is instances \(18.01\)"
    ):
        rails.require_budget(cost(20.01), spec)
    with pytest.raises(RailError, match="nan USD"):
        rails.require_budget(cost(float("nan")), spec)
    with pytest.raises(RailError, match="EUR"):
        rails.require_budget(cost(1, "EUR"), spec)


def test_a_name_is_free_when_nothing_but_our_own_stands(rds: Any) -> None:
    rails.require_free(rds, NAME)
    rds_kit.cluster(rds, "blue", TAGS, members=1)
    rds_kit.cluster(rds, "foreign", OTHER, members=1)
    with pytest.raises(RailError, match="another run of the rehearsal 'shop-1' is not over: cluster blue"):
        rails.require_free(rds, NAME)
    rails.require_free(rds, NAME, mine=[r.resource_id for r in resources.found(rds, NAME)])


def deployed(rds: Any, tags: list[dict[str, str]]) -> str:
    """A deployment whose green side has no tags, as in AWS (moto copies those of blue)."""
    arn = rds_kit.cluster(rds, "blue", TAGS)
    made = rds.create_blue_green_deployment(
        BlueGreenDeploymentName="blue-bg", Source=arn, TargetEngineVersion=rds_kit.NEW, Tags=tags
    )["BlueGreenDeployment"]
    for green in rails.targets(rds, made):
        rds.remove_tags_from_resource(ResourceName=green.arn, TagKeys=[tag["Key"] for tag in TAGS])
    return str(made["BlueGreenDeploymentIdentifier"])


def green_names(rds: Any, name: str = NAME) -> set[str]:
    return {r.identifier.rsplit("-", 1)[0] for r in resources.found(rds, name) if "-green-" in r.identifier}


def test_what_a_deployment_of_ours_has_made_is_adopted(rds: Any) -> None:
    identifier = deployed(rds, TAGS)
    assert green_names(rds) == set()
    adopted = rails.adopt(rds, identifier, NAME, TAGS)
    assert [r.kind for r in adopted] == ["cluster", "instance", "instance"]
    assert green_names(rds) == {"blue-green", "blue-1-green", "blue-2-green"}
    assert rails.adopt(rds, identifier, NAME, TAGS) == []
    assert resources.found(rds, "other-1") == []


def test_a_reader_that_appears_later_is_adopted_then(rds: Any) -> None:
    identifier = deployed(rds, TAGS)
    rails.adopt(rds, identifier, NAME, TAGS)
    green = next(r for r in resources.found(rds, NAME) if r.kind == "cluster" and "-green-" in r.identifier)
    rds.create_db_instance(
        DBInstanceIdentifier="blue-3-green-abcdef", DBClusterIdentifier=green.identifier, Engine="aurora-mysql",
        DBInstanceClass="db.r5.large",
    )  # fmt: skip
    assert [r.identifier for r in rails.adopt(rds, identifier, NAME, TAGS)] == ["blue-3-green-abcdef"]


def test_a_source_is_never_taken_for_a_target(rds: Any) -> None:
    """Whatever an answer in the middle of a switchover says."""
    arn = rds_kit.cluster(rds, "blue", TAGS)
    instances = [each["DBInstanceArn"] for each in rds.describe_db_instances()["DBInstances"]]
    assert rails.targets(rds, {"Source": arn, "Target": arn}) == []
    details = [{"SourceMember": instances[0], "TargetMember": "arn:unknown"}]
    found = rails.targets(rds, {"Source": "arn:else", "Target": arn, "SwitchoverDetails": details})
    assert [r.arn for r in found] == [arn, instances[1]]


@pytest.mark.parametrize("tags", [OTHER, [], [tag for tag in TAGS if tag["Key"] != resources.REHEARSAL]])
def test_nothing_is_adopted_from_a_deployment_of_others(rds: Any, tags: list[dict[str, str]]) -> None:
    identifier = deployed(rds, tags)
    for wrong in (identifier, "bgd-none"):
        with pytest.raises(RailError, match="not of the rehearsal 'shop-1'"):
            rails.adopt(rds, wrong, NAME, TAGS)
    assert green_names(rds) == set()


@pytest.mark.parametrize(
    ("tags", "word"), [(OTHER, "the rehearsal 'other-1'"), ([{"Key": "env", "Value": "prod"}], "env=prod")]
)
def test_a_target_that_belongs_to_somebody_else_is_refused(rds: Any, tags: list[dict[str, str]], word: str) -> None:
    identifier = deployed(rds, TAGS)
    green = next(c for c in rds.describe_db_clusters()["DBClusters"] if "-green-" in c["DBClusterIdentifier"])
    rds.add_tags_to_resource(ResourceName=green["DBClusterArn"], Tags=tags)
    with pytest.raises(RailError, match=word):
        rails.adopt(rds, identifier, NAME, TAGS)
    assert green_names(rds) == set()
