"""Each check of the API fires on what it is for, stays silent without it, and is unknown when AWS does not answer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbops.blue_green import control, preflight
from dbops.blue_green.preflight import Result
from tests.blue_green import rds_kit
from tests.blue_green.fake_rds import PREFIX, AwsError
from tests.blue_green.rds_kit import NAME, NEW, OLD, OTHER, TAGS

Answers = dict[str, Any]
CLUSTER = {
    "DBClusterIdentifier": "blue", "DbClusterResourceId": "cluster-1", "DBClusterArn": f"{PREFIX}:cluster:blue", "Status": "available",
    "Engine": "aurora-mysql", "EngineVersion": OLD, "EngineMode": "provisioned", "DBClusterParameterGroup": "blue-pg",
    "BackupRetentionPeriod": 1, "BacktrackWindow": 0,
    "MasterUsername": "root", "TagList": TAGS, "AssociatedRoles": [], "DeletionProtection": False,
    "DBClusterMembers": [
        {"DBInstanceIdentifier": "blue-1", "IsClusterWriter": True, "DBClusterParameterGroupStatus": "in-sync"},
        {"DBInstanceIdentifier": "blue-2", "IsClusterWriter": False, "DBClusterParameterGroupStatus": "in-sync"},
    ],
}  # fmt: skip


def instance(name: str) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": name, "DbiResourceId": f"db-{name}", "DBInstanceArn": f"{PREFIX}:db:{name}",
        "DBInstanceStatus": "available",
        "TagList": [],
        "DBClusterIdentifier": "blue", "DBParameterGroups": [{"DBParameterGroupName": "pg", "ParameterApplyStatus": "in-sync"}],
        "BackupRetentionPeriod": 1,
    }  # fmt: skip


def parameters(**values: str) -> dict[str, Any]:
    listed: list[dict[str, str]] = [{"ParameterName": name, "ParameterValue": value} for name, value in values.items()]
    return {"Parameters": [*listed, {"ParameterName": "unset"}]}


GROUPS = {
    "blue-pg": parameters(binlog_format="ROW", sql_mode="ANSI"),
    "green-pg": parameters(binlog_format="ROW", sql_mode="ANSI"),
}


def versions(given: dict[str, Any]) -> dict[str, Any]:
    """As for a prefix: also another version, which is upgraded to nothing."""
    assert given["IncludeAll"] is True
    asked = given["EngineVersion"]
    targets = [{"EngineVersion": NEW}, {"EngineVersion": "8.0.mysql_aurora.3.08.2"}]
    listed = {
        "EngineVersion": asked,
        "DBParameterGroupFamily": f"aurora-mysql{asked[:3]}",
        "ValidUpgradeTarget": targets,
    }
    return {"DBEngineVersions": [{"EngineVersion": f"{asked}.1"}, listed]}


GOOD: Answers = {
    "describe_db_clusters": {"DBClusters": [CLUSTER]},
    "describe_db_instances": {"DBInstances": [instance("blue-1"), instance("blue-2"), instance("bystander")]},
    "describe_db_cluster_snapshots": {
        "DBClusterSnapshots": [{
            "Status": "available", "Engine": "aurora-mysql", "EngineVersion": OLD, "AllocatedStorage": 80, "EngineMode": "provisioned",
            "MasterUsername": "root",
            "DBClusterSnapshotIdentifier": "nightly", "DBClusterSnapshotArn": f"{PREFIX}:cluster-snapshot:nightly", "TagList": [],
        }]
    },
    "describe_db_snapshots": {"DBSnapshots": []},
    "describe_db_cluster_parameter_groups": {"DBClusterParameterGroups": []},
    "describe_db_parameter_groups": {"DBParameterGroups": []},
    "describe_blue_green_deployments": {"BlueGreenDeployments": []},
    "describe_db_engine_versions": lambda given: versions(given),
    "describe_orderable_db_instance_options": lambda given: {
        "OrderableDBInstanceOptions": [{"DBInstanceClass": given["DBInstanceClass"], "EngineVersion": given["EngineVersion"]}]
    },
    "describe_account_attributes": {"AccountQuotas": [
        {"AccountQuotaName": "DBInstances", "Used": 36, "Max": 40}, {"AccountQuotaName": "DBClusters", "Used": 38, "Max": 40},
        {"AccountQuotaName": "DBClusterParameterGroups", "Used": 48, "Max": 50},
        {"AccountQuotaName": "DBParameterGroups", "Used": 48, "Max": 50},
        {"AccountQuotaName": "AllocatedStorage", "Used": 0, "Max": 100_000},
    ]},
    "describe_db_subnet_groups": {"DBSubnetGroups": [{"SubnetGroupStatus": "Complete"}]},
    "describe_db_cluster_parameters": lambda given: GROUPS[given["DBClusterParameterGroupName"]],
    "describe_db_parameters": lambda given: GROUPS[given["DBParameterGroupName"]],
    "describe_db_proxies": {"DBProxies": [{"DBProxyName": "front", "Status": "available"}]},
    "describe_db_proxy_targets": {"Targets": [{"RdsResourceId": "their-db", "TrackedClusterId": "their-cluster"}]},
}  # fmt: skip


class Rds:
    """Answers from a table; an exception in it is raised."""

    def __init__(self, **changed: Any) -> None:
        self.answers = GOOD | changed

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def answer(**given: Any) -> Any:
            found = self.answers[call]
            if isinstance(found, Exception):
                raise found
            return found(given) if callable(found) else found

        return answer


def changed(call: str, key: str, **fields: Any) -> Rds:
    """The good answers, with fields of the first of a list changed."""
    answer = copy.deepcopy(GOOD[call])
    answer[key][0] |= fields
    return Rds(**{call: answer})


def spending(rds: Any, name: str = NAME, **more: Any) -> dict[str, Result]:
    return {result.id: result for result in control.before_spending(rds, rds_kit.spec(**more), name=name, login="root")}


def creating(rds: Any, group: str = "green-pg", **more: Any) -> dict[str, Result]:
    found = control.before_creating(rds, rds_kit.spec(**more), "blue", target_group=group)
    return {result.id: result for result in found}


def fired(found: dict[str, Result]) -> set[str]:
    return {result.id for result in found.values() if result.verdict not in ("ok", "not applicable")}


SNAPSHOT = {"source": {"kind": "snapshot", "snapshot": "nightly"}}
CLONE = {"source": {"kind": "clone", "cluster": "blue"}}
ALONE = {"form": "instance", "placement": rds_kit.spec().placement.model_dump() | {"readers": 0}}


def test_nothing_is_held_against_what_is_right() -> None:
    for source in ({}, SNAPSHOT, CLONE):
        found = spending(Rds(), **source)
        assert fired(found) == set()
        assert found["sourceAvailable"].verdict == ("ok" if source else "not applicable")
    assert found["subnetGroup"].verdict == "not applicable"
    assert {result.verdict for result in creating(Rds()).values()} == {"ok"}
    assert [r.id for r in control.before_creating(Rds(), rds_kit.spec(), "blue")] == [
        c.id for c in control.BEFORE_CREATING
    ]
    assert [r.id for r in control.before_spending(Rds(), rds_kit.spec())] == [c.id for c in control.BEFORE_SPENDING]


def quotas(**changes: tuple[int, int]) -> Rds:
    listed = [
        quota
        | (
            {"Used": changes[name][0], "Max": changes[name][1]}
            if (name := quota["AccountQuotaName"]) in changes
            else {}
        )
        for quota in GOOD["describe_account_attributes"]["AccountQuotas"]
    ]
    return Rds(describe_account_attributes={"AccountQuotas": listed})


SPENDING: list[tuple[str, Rds, dict[str, Any], str]] = [
    ("sourceAvailable", changed("describe_db_cluster_snapshots", "DBClusterSnapshots", Status="creating"), SNAPSHOT, "status creating"),
    ("sourceAvailable", changed("describe_db_cluster_snapshots", "DBClusterSnapshots", Engine="mysql"), SNAPSHOT, "not aurora-mysql"),
    ("sourceAvailable", changed("describe_db_clusters", "DBClusters", EngineMode="serverless"), CLONE, "engine mode serverless"),
    ("masterUser", changed("describe_db_cluster_snapshots", "DBClusterSnapshots", MasterUsername="admin"), SNAPSHOT, "is 'root'"),
    ("masterUser", changed("describe_db_clusters", "DBClusters", MasterUsername="admin"), CLONE, "is 'root'"),
    ("upgradeTarget", Rds(), {"target": {"engine_version": "8.0.mysql_aurora.3.99.0"}}, f"valid targets of {OLD}: 8.0.mysql"),
    ("orderableClass", Rds(describe_orderable_db_instance_options=lambda given: (
        {"OrderableDBInstanceOptions": []} if given["EngineVersion"] == NEW else GOOD["describe_orderable_db_instance_options"](given)
    )), {}, f"cannot be ordered with {NEW}"),
    ("quotas", quotas(DBInstances=(37, 40)), {}, "37 of 40 used, 4 more needed"),
    ("quotas", quotas(DBClusters=(39, 40)), {}, "39 of 40 used, 2 more needed"),
    ("quotas", quotas(DBClusterParameterGroups=(49, 50)), {}, "2 more needed"),
    ("quotas", quotas(AllocatedStorage=(99_900, 100_000)), ALONE | {"data": {"gigabytes": 60}}, "120 more needed"),
    ("namesFree", changed("describe_db_clusters", "DBClusters", DBClusterIdentifier="Shop-1-blue", TagList=OTHER), {}, "status available"),
    ("namesFree", changed("describe_db_clusters", "DBClusters", DBClusterIdentifier="shop-1", TagList=[]), {}, "status available"),
    ("subnetGroup", changed("describe_db_subnet_groups", "DBSubnetGroups", SubnetGroupStatus="Incomplete"),
     {"placement": rds_kit.spec().placement.model_dump() | {"subnet_group": "net"}}, "status Incomplete"),
    ("subnetGroup", Rds(describe_db_subnet_groups=AwsError("DBSubnetGroupNotFoundFault")),
     {"placement": rds_kit.spec().placement.model_dump() | {"subnet_group": "net"}}, "does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "rds", "more", "word"), SPENDING)
def test_what_would_fail_is_said_before_money_is_spent(check: str, rds: Rds, more: dict[str, Any], word: str) -> None:
    found = spending(rds, **more)
    assert fired(found) == {check}
    assert found[check].stops
    assert any(word in detail for _, detail in found[check].objects)


def test_a_source_that_does_not_exist_is_an_error_and_leaves_its_version_unknown() -> None:
    found = spending(Rds(describe_db_cluster_snapshots=lambda given: _missing(given)), **SNAPSHOT)
    assert found["sourceAvailable"].objects[0][1].startswith("does not exist")
    assert found["upgradeTarget"].verdict == "unknown"


def _missing(given: dict[str, Any]) -> dict[str, Any]:
    if "DBClusterSnapshotIdentifier" in given:
        raise AwsError("DBClusterSnapshotNotFoundFault")
    return {"DBClusterSnapshots": []}


def test_a_source_of_which_aws_tells_no_master_user_is_asked_when_blue_stands() -> None:
    rds = changed("describe_db_cluster_snapshots", "DBClusterSnapshots", MasterUsername="")
    assert spending(rds, **SNAPSHOT)["masterUser"].verdict == "not applicable"
    found = {r.id: r for r in control.before_spending(Rds(), rds_kit.spec(**SNAPSHOT), name=NAME)}
    assert found["masterUser"].verdict == "unknown", "a connection without a login"


def test_a_version_that_aws_does_not_know_is_an_error() -> None:
    found = spending(Rds(describe_db_engine_versions={"DBEngineVersions": []}))
    assert fired(found) == {"upgradeTarget", "parameterGroupFamily"}
    assert "no such version" in found["upgradeTarget"].objects[0][1]


def test_names_of_the_same_rehearsal_and_longer_numbers_are_free() -> None:
    for name, tags in (("shop-1-blue", TAGS), ("shop-10", OTHER), ("shop", OTHER)):
        rds = changed("describe_db_clusters", "DBClusters", DBClusterIdentifier=name, TagList=tags)
        assert spending(rds)["namesFree"].verdict == "ok"
    assert spending(Rds(), name="")["namesFree"].verdict == "unknown"


def blue(**fields: Any) -> Rds:
    return changed("describe_db_clusters", "DBClusters", **fields)


def group(name: str, **values: str) -> Rds:
    return Rds(describe_db_cluster_parameters=lambda given: (
        parameters(**values) if given["DBClusterParameterGroupName"] == name else GROUPS[given["DBClusterParameterGroupName"]]
    ))  # fmt: skip


def deployment(**fields: Any) -> Rds:
    listed = {
        "BlueGreenDeploymentName": "theirs",
        "Status": "AVAILABLE",
        "Source": CLUSTER["DBClusterArn"],
        "Target": "x",
        "TagList": [],
    }
    return Rds(describe_blue_green_deployments={"BlueGreenDeployments": [listed | fields]})


CREATING: list[tuple[str, Rds, str]] = [
    ("membersAvailable", changed("describe_db_instances", "DBInstances", DBInstanceStatus="rebooting"), "status rebooting"),
    ("membersAvailable", blue(Status="backing-up"), "status backing-up"),
    ("membersAvailable", blue(DBClusterMembers=CLUSTER["DBClusterMembers"][:1]), "1 instances, not 2"),  # type: ignore[index]
    ("customParameterGroup", Rds(
        describe_db_clusters={"DBClusters": [CLUSTER | {"DBClusterParameterGroup": "default.aurora-mysql5.7"}]},
        describe_db_cluster_parameters=GROUPS["blue-pg"],
    ), "default group"),
    ("parameterGroupInSync", blue(DBClusterMembers=[
        member | {"DBClusterParameterGroupStatus": "pending-reboot"} for member in CLUSTER["DBClusterMembers"]  # type: ignore[attr-defined]
    ]), "blue-pg is pending-reboot"),
    ("parameterGroupInSync", changed("describe_db_instances", "DBInstances", DBParameterGroups=[
        {"DBParameterGroupName": "pg", "ParameterApplyStatus": "applying"}
    ]), "pg is applying"),
    ("groupBinlogFormat", group("blue-pg", binlog_format="STATEMENT", sql_mode="ANSI"), "binlog_format is STATEMENT"),
    ("groupBinlogFormat", group("blue-pg", sql_mode="ANSI"), "binlog_format is OFF"),
    ("backups", blue(BackupRetentionPeriod=0), "0 days"),
    ("managedPassword", blue(MasterUserSecret={"SecretArn": "arn", "SecretStatus": "active"}), "secret status active"),
    ("otherDeployment", deployment(), "status AVAILABLE"),
    ("otherDeployment", deployment(Source="x", Target=CLUSTER["DBClusterArn"]), "status AVAILABLE"),
    ("otherDeployment", deployment(TagList=OTHER), "status AVAILABLE"),
    ("engineMode", blue(EngineMode="serverless"), "serverless"),
    ("replicationSource", blue(ReplicationSourceIdentifier="arn:x"), "replicates from arn:x"),
    ("stackManaged", blue(TagList=[*TAGS, {"Key": "aws:cloudformation:stack-id", "Value": "s"}]), "stack-id=s"),
    ("lowerCaseTableNames", group("green-pg", lower_case_table_names="1", sql_mode="ANSI"), "blue 0, green 1"),
    ("groupDifferences", group("green-pg", sql_mode="TRADITIONAL"), "blue ANSI, green TRADITIONAL"),
    ("groupDifferences", group("green-pg", sql_mode="ANSI", time_zone="UTC"), "blue (default), green UTC"),
    ("greenEventScheduler", group("green-pg", sql_mode="ANSI", event_scheduler="ON"), "event_scheduler is ON"),
    ("globalCluster", blue(GlobalClusterIdentifier="world"), "member of world"),
    ("backtrack", blue(BacktrackWindow=3600), "3600 s"),
    ("proxyTargets", Rds(describe_db_proxy_targets={"Targets": [{"TrackedClusterId": "blue"}]}), "status available"),
    ("associatedRoles", blue(AssociatedRoles=[{"RoleArn": "arn:role", "Status": "ACTIVE"}]), "ACTIVE"),
    ("pendingChanges", changed("describe_db_instances", "DBInstances", PendingModifiedValues={"Port": 1}), "Port"),
    ("deletionProtection", blue(DeletionProtection=True), "protected"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "rds", "word"), CREATING)
def test_what_would_fail_is_said_before_the_deployment(check: str, rds: Rds, word: str) -> None:
    found = creating(rds)
    assert fired(found) == {check}
    level = next(c.level for c in control.CHECKS if c.id == check)
    assert found[check].verdict == level
    assert any(word in detail for _, detail in found[check].objects)


def test_every_check_has_been_made_to_fire() -> None:
    assert {check for check, *_ in (*SPENDING, *CREATING)} | {"parameterGroupFamily"} == control.IDS


def test_a_parameter_that_the_spec_sets_is_no_surprise_but_case_of_names_is() -> None:
    rds = group("green-pg", sql_mode="TRADITIONAL", lower_case_table_names="1")
    target = {"engine_version": NEW, "parameters": {"sql_mode": "TRADITIONAL", "lower_case_table_names": "1"}}
    assert fired(creating(rds, target=target)) == {"lowerCaseTableNames"}


def test_the_deployment_of_the_same_rehearsal_is_the_one_to_take_up() -> None:
    assert fired(creating(deployment(TagList=TAGS))) == set()


def test_an_instance_by_itself() -> None:
    alone = instance("blue") | {
        "DBParameterGroups": [{"DBParameterGroupName": "blue-pg", "ParameterApplyStatus": "in-sync"}]
    }
    rds = Rds(describe_db_instances={"DBInstances": [alone]}, describe_db_parameters=parameters())
    assert fired(creating(rds, **ALONE)) == set()
    replica = Rds(describe_db_instances={"DBInstances": [alone | {"ReadReplicaSourceDBInstanceIdentifier": "src"}]})
    assert fired(creating(replica, **ALONE)) == {"replicationSource"}


@pytest.mark.parametrize("call", [call for call in GOOD if call != "describe_db_subnet_groups"])
def test_what_aws_does_not_answer_is_unknown_and_stops(call: str) -> None:
    rds = Rds(**{call: AwsError("Throttling", "Rate exceeded")})
    kinds: tuple[dict[str, Any], ...] = ({}, SNAPSHOT, CLONE, ALONE)
    found = [r for more in kinds for r in (*spending(rds, **more).values(), *creating(rds, **more).values())]
    unknown = [result for result in found if result.verdict == "unknown"]
    assert any("Throttling" in result.note for result in unknown)
    assert all(result.stops for result in unknown)


def test_a_quota_or_group_that_is_not_told_is_unknown() -> None:
    assert (
        spending(Rds(describe_account_attributes={"AccountQuotas": []}))["quotas"].note
        == "AWS told no quota DBInstances"
    )
    found = creating(Rds(), group="")
    assert {result.id for result in found.values() if result.verdict == "unknown"} == {
        "lowerCaseTableNames", "groupDifferences", "greenEventScheduler",
    }  # fmt: skip


def test_overrides_of_the_spec_are_applied_and_checked() -> None:
    rds = blue(BackupRetentionPeriod=0)
    eased = creating(rds, overrides={"backups": "a copy, nobody needs it back"})["backups"]
    assert (eased.verdict, eased.stops, eased.note) == ("overridden", False, "was error: a copy, nobody needs it back")
    control.require_known_overrides({"backups": "x", "schemaTmp": "y"})
    with pytest.raises(ValueError, match="override of nosuch: no such check"):
        control.require_known_overrides({"nosuch": "x"})
    with pytest.raises(ValueError, match="override of backups has no reason"):
        control.require_known_overrides({"backups": " "})


def test_no_id_is_used_twice() -> None:
    ids = [check.id for check in (*control.CHECKS, *preflight.CHECKS)]
    assert sorted(ids) == sorted(set(ids))


def test_facts_of_the_source() -> None:
    assert control.source_facts(Rds(), rds_kit.spec()) == (0.0, OLD)
    assert control.source_facts(Rds(), rds_kit.spec(**SNAPSHOT)) == (80.0, OLD)
    assert control.source_facts(Rds(), rds_kit.spec(**CLONE)) == (0.0, OLD)


@pytest.fixture
def rds() -> Iterator[Any]:
    with rds_kit.moto_rds() as client:
        yield client


def test_motos_answers_are_read(rds: Any) -> None:
    rds_kit.cluster(rds, "blue", TAGS)
    rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName="green-pg", DBParameterGroupFamily="aurora-mysql8.0", Description="x", Tags=TAGS
    )
    rds.modify_db_cluster_parameter_group(
        DBClusterParameterGroupName="blue-blue",
        Parameters=[{"ParameterName": "binlog_format", "ParameterValue": "ROW", "ApplyMethod": "pending-reboot"}],
    )
    assert fired(creating(rds)) == set()
    before = spending(rds, **CLONE)
    assert before["sourceAvailable"].verdict == "ok"
    assert before["quotas"].verdict == "unknown"  # moto does not know of quotas
