"""Preflight through the RDS API: what can be known to fail before money is spent, and before the deployment is created.

Results are those of :mod:`preflight`, so they are overridden, judged and reported in the same way. A check whose question AWS did not
answer is ``unknown``, which stops a run like an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dbops.blue_green import preflight, rails, resources
from dbops.blue_green.preflight import Level, Result
from dbops.blue_green.spec import RehearsalSpec, Synthetic

# What changes results of statements, or refuses what was accepted before, when it differs between the two groups.
COMPARED = (
    "character_set_client", "character_set_connection", "character_set_database", "character_set_results", "character_set_server",
    "collation_connection", "collation_server", "default_storage_engine", "explicit_defaults_for_timestamp", "group_concat_max_len",
    "innodb_strict_mode", "max_allowed_packet", "sql_mode", "time_zone", "transaction_isolation", "tx_isolation",
)  # fmt: skip
LOGGED = frozenset({"ROW", "MIXED"})
_STACK = "aws:cloudformation:"

Found = list[tuple[str, str]]


class NotAskedError(Exception):
    """AWS answered, but not what was asked; the check is unknown."""


@dataclass(frozen=True)
class Check:
    """One question; ``asks`` says what is an answer that holds nothing against the run."""

    id: str
    level: Level
    asks: str
    fix: str


BEFORE_SPENDING = (
    Check(
        "sourceAvailable",
        "error",
        "the snapshot, or the cluster to clone, exists, is available and has the engine of the form",
        "correct source of the spec, or wait until it is available",
    ),
    Check(
        "masterUser",
        "error",
        "the login of the spec's connection is the master user of what blue is made from, whose name nobody can change",
        "correct the login of the connection",
    ),
    Check(
        "upgradeTarget",
        "error",
        "the target version is a ValidUpgradeTarget of the source version",
        "set target.engine_version to one of the valid targets",
    ),
    Check(
        "orderableClass",
        "error",
        "the instance class can be ordered for both versions",
        "set placement.instance_class to one that both versions have",
    ),
    Check(
        "parameterGroupFamily",
        "error",
        "both versions have a parameter group family",
        "correct the engine versions of the spec",
    ),
    Check(
        "quotas",
        "error",
        "the account's quotas leave room for both sides",
        "ask AWS for a higher quota, or delete what nobody needs",
    ),
    Check(
        "namesFree",
        "error",
        "no resource's name begins with the name of the rehearsal",
        "remove what has the name, or let the janitor do it",
    ),
    Check(
        "subnetGroup",
        "error",
        "the DB subnet group of the spec exists and is complete",
        "correct placement.subnet_group",
    ),
)
BEFORE_CREATING = (
    Check(
        "membersAvailable",
        "error",
        "blue and every member of it are available, and there are as many as the spec says",
        "wait until they are available",
    ),
    Check(
        "customParameterGroup",
        "error",
        "blue has a parameter group of its own, not a default one",
        "create a parameter group and give it to blue",
    ),
    Check("parameterGroupInSync", "error", "every member is in-sync with its parameter group", "reboot the member"),
    Check(
        "groupBinlogFormat",
        "error",
        "binlog_format in blue's parameter group is ROW or MIXED",
        "set binlog_format = ROW in blue's parameter group and reboot the writer",
    ),
    Check("backups", "error", "automated backups are on", "set the backup retention period to at least 1 day"),
    Check(
        "managedPassword",
        "error",
        "the master password is not managed in Secrets Manager",
        "give blue a master password of its own (ManageMasterUserPassword = false)",
    ),
    Check("otherDeployment", "error", "no other deployment has blue as a side", "delete the other deployment"),
    Check("engineMode", "error", "blue is not Aurora Serverless v1", "use a provisioned cluster or Serverless v2"),
    Check("replicationSource", "error", "blue replicates from no other instance or cluster", "promote blue first"),
    Check("stackManaged", "error", "blue is not managed by CloudFormation", "rehearse on a copy that no stack owns"),
    Check(
        "lowerCaseTableNames",
        "error",
        "lower_case_table_names is the same in blue's and green's groups",
        "set it in green's group as blue has it",
    ),
    Check(
        "groupDifferences",
        "warning",
        "parameters that change results are the same in both groups, but for those of target.parameters",
        "set them in target.parameters, or accept the difference",
    ),
    Check(
        "greenEventScheduler",
        "warning",
        "event_scheduler is not on in green's group",
        "event_scheduler = OFF in target.parameters until the switchover is over",
    ),
    Check(
        "globalCluster",
        "warning",
        "blue is in no global database",
        "take blue out of the global database; secondary regions are not rehearsed",
    ),
    Check("backtrack", "warning", "backtrack is off", "green has none: plan a snapshot instead"),
    Check(
        "proxyTargets",
        "warning",
        "no RDS Proxy leads to blue",
        "a proxy must have been registered before the deployment is created; test it by itself",
    ),
    Check(
        "associatedRoles",
        "warning",
        "no IAM roles are associated with blue",
        "associate them with green; the deployment does not copy them",
    ),
    Check("pendingChanges", "warning", "no modification of blue waits for its maintenance window", "apply it first"),
    Check("deletionProtection", "notice", "deletion protection is off", "the teardown lifts it"),
)
CHECKS = (*BEFORE_SPENDING, *BEFORE_CREATING)
IDS = frozenset(check.id for check in CHECKS)


def require_known_overrides(overrides: Mapping[str, str]) -> None:
    """Refuse an override that names no check of SQL or API, or gives no reason. Raises ValueError."""
    preflight.require_overrides(overrides, [check.id for check in (*CHECKS, *preflight.CHECKS)])


def before_spending(rds: Any, spec: RehearsalSpec, *, name: str = "", login: str = "") -> list[Result]:
    """Everything that can be asked before anything is created.

    Args:
        rds: client
        spec: the rehearsal; its overrides are applied
        name: of this rehearsal, with which the names of all that it will make begin
        login: user of the spec's connection
    """
    return _run(_BeforeSpending(rds, spec, name, login), BEFORE_SPENDING, spec)


def before_creating(rds: Any, spec: RehearsalSpec, identifier: str, *, target_group: str = "") -> list[Result]:
    """Everything that can be asked of blue before its deployment is created.

    Args:
        rds: client
        spec: the rehearsal; its overrides are applied
        identifier: blue's cluster, or instance in the form instance
        target_group: green's (cluster) parameter group; without it the checks of it are unknown
    """
    return _run(_BeforeCreating(rds, spec, identifier, target_group), BEFORE_CREATING, spec)


def source_facts(rds: Any, spec: RehearsalSpec) -> tuple[float, str]:
    """Size in GB and engine version of what blue is made from, for the estimate; (0, version) when it is made new.

    A cluster does not tell its size (Aurora's storage grows by itself), so that of a clone is 0 as well.
    """
    if isinstance(spec.source, Synthetic):
        return 0.0, spec.source.engine_version
    source = _BeforeSpending(rds, spec, "").source
    size = float(source.get("AllocatedStorage") or 0) if spec.source.kind == "snapshot" else 0.0
    return size, str(source.get("EngineVersion") or "")


def _run(asker: Any, checks: Iterable[Check], spec: RehearsalSpec) -> list[Result]:
    return [preflight.overridden(_ask(getattr(asker, _snake(check.id)), check), spec.overrides) for check in checks]


def _ask(question: Callable[[], Found | None], check: Check) -> Result:
    try:
        found = question()
    except Exception as error:  # whatever went wrong, the question has no answer, and that stops a run
        code = resources.error_code(error)
        text = str(error) if code or isinstance(error, NotAskedError) else f"{type(error).__name__}: {error}"
        return Result(check.id, "unknown", (), check.fix, text)
    if found is None:
        return Result(check.id, "not applicable", (), check.fix)
    return Result(check.id, check.level if found else "ok", tuple(found), check.fix)


def _snake(check_id: str) -> str:
    """The method that asks a check: the words of its id, with underscores."""
    return re.sub("[A-Z]", lambda letter: f"_{letter.group().lower()}", check_id)


class _BeforeSpending:
    def __init__(self, rds: Any, spec: RehearsalSpec, name: str, login: str = "") -> None:
        self.rds, self.spec, self.name, self.login = rds, spec, name, login

    @cached_property
    def source(self) -> Mapping[str, Any]:
        """The snapshot or cluster that blue is made from."""
        source = self.spec.source
        if source.kind == "clone":
            answer = self.rds.describe_db_clusters(DBClusterIdentifier=source.cluster)["DBClusters"]
        elif source.kind == "synthetic":
            answer = [{"EngineVersion": source.engine_version, "Engine": self.spec.engine, "Status": "available"}]
        elif self.spec.form == "cluster":
            answer = self.rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=source.snapshot)[
                "DBClusterSnapshots"
            ]
        else:
            answer = self.rds.describe_db_snapshots(DBSnapshotIdentifier=source.snapshot)["DBSnapshots"]
        if not answer:
            raise NotAskedError(f"source {source.kind} does not exist")
        found: Mapping[str, Any] = answer[0]
        return found

    @cached_property
    def versions(self) -> dict[str, Mapping[str, Any]]:
        """What AWS says of the two versions, source first; a version that it does not know is missing."""
        found: dict[str, Mapping[str, Any]] = {}
        for version in (str(self.source["EngineVersion"]), self.spec.target.engine_version):
            # An old version may be listed no longer, and still be upgraded from.
            listed = resources.pages(
                self.rds, "describe_db_engine_versions", "DBEngineVersions",
                Engine=self.spec.engine, EngineVersion=version, IncludeAll=True,
            )  # fmt: skip
            if known := [each for each in listed if each.get("EngineVersion") == version]:
                found[version] = known[0]
        return found

    def source_available(self) -> Found | None:
        if isinstance(self.spec.source, Synthetic):
            return None
        try:
            source = self.source
        except Exception as error:
            if not resources.is_not_found(error):
                raise
            return [(self.spec.source.kind, f"does not exist ({resources.error_code(error)})")]
        found: Found = []
        if source.get("Status") != "available":
            found.append((self.spec.source.kind, f"status {source.get('Status')}"))
        if source.get("Engine") != self.spec.engine:
            found.append((self.spec.source.kind, f"engine {source.get('Engine')}, not {self.spec.engine}"))
        if (mode := source.get("EngineMode", "provisioned")) != "provisioned":
            found.append((self.spec.source.kind, f"engine mode {mode}"))
        return found

    def master_user(self) -> Found | None:
        """Not applicable where AWS does not tell it of the source; blue itself is asked as soon as it stands."""
        if isinstance(self.spec.source, Synthetic) or not (master := self.source.get("MasterUsername")):
            return None
        if not self.login:
            raise NotAskedError(f"connection {self.spec.connection} has no login")
        return [] if master == self.login else [(str(master), f"login of {self.spec.connection} is {self.login!r}")]

    def upgrade_target(self) -> Found:
        source, target = str(self.source["EngineVersion"]), self.spec.target.engine_version
        if source not in self.versions:
            return [(source, f"{self.spec.engine} has no such version")]
        valid = sorted(str(each.get("EngineVersion")) for each in self.versions[source].get("ValidUpgradeTarget") or ())
        return [] if target in valid else [(target, f"valid targets of {source}: {', '.join(valid) or 'none'}")]

    def orderable_class(self) -> Found:
        wanted, found = self.spec.placement.instance_class, []
        for version in (str(self.source["EngineVersion"]), self.spec.target.engine_version):
            options = resources.pages(
                self.rds, "describe_orderable_db_instance_options", "OrderableDBInstanceOptions",
                Engine=self.spec.engine, EngineVersion=version, DBInstanceClass=wanted,
            )  # fmt: skip
            if not any(option.get("DBInstanceClass") == wanted for option in options):
                found.append((wanted, f"cannot be ordered with {version}"))
        return found

    def parameter_group_family(self) -> Found:
        wanted = (str(self.source["EngineVersion"]), self.spec.target.engine_version)
        return [
            (v, "no parameter group family")
            for v in wanted
            if not self.versions.get(v, {}).get("DBParameterGroupFamily")
        ]

    def quotas(self) -> Found:
        answer = self.rds.describe_account_attributes()["AccountQuotas"]
        listed = {quota["AccountQuotaName"]: quota for quota in answer}
        found = []
        for name, needed in self._needed().items():
            if name not in listed:
                raise NotAskedError(f"AWS told no quota {name}")
            used, most = int(listed[name]["Used"]), int(listed[name]["Max"])
            if used + needed > most:
                found.append((name, f"{used} of {most} used, {needed} more needed"))
        return found

    def _needed(self) -> dict[str, int]:
        spec = self.spec
        instances, groups = 2 * (1 + spec.placement.readers), 2
        if spec.form == "cluster":
            return {"DBInstances": instances, "DBClusters": 2, "DBClusterParameterGroups": groups}
        storage = 2 * max(20, int(spec.data.gigabytes))
        return {"DBInstances": instances, "DBParameterGroups": groups, "AllocatedStorage": storage}

    def names_free(self) -> Found:
        if not self.name:
            raise NotAskedError("the rehearsal has no name yet")
        begin = self.name.lower()
        return [
            (str(each), f"status {each.status}")
            for kind in resources.KINDS
            for each in resources.described(self.rds, kind)
            if f"{each.identifier.lower()}-".startswith(f"{begin}-")
            and not (each.is_ours and each.rehearsal == self.name)
        ]

    def subnet_group(self) -> Found | None:
        if (name := self.spec.placement.subnet_group) is None:
            return None
        try:
            groups = self.rds.describe_db_subnet_groups(DBSubnetGroupName=name)["DBSubnetGroups"]
        except Exception as error:
            if not resources.is_not_found(error):
                raise
            return [(name, "does not exist")]
        return [
            (name, f"status {g.get('SubnetGroupStatus')}") for g in groups if g.get("SubnetGroupStatus") != "Complete"
        ]


class _BeforeCreating:
    def __init__(self, rds: Any, spec: RehearsalSpec, identifier: str, target_group: str) -> None:
        self.rds, self.spec, self.identifier, self.target_group = rds, spec, identifier, target_group
        self.is_cluster = spec.form == "cluster"

    @cached_property
    def blue(self) -> Mapping[str, Any]:
        """Blue's cluster or instance."""
        if self.is_cluster:
            found: Mapping[str, Any] = self.rds.describe_db_clusters(DBClusterIdentifier=self.identifier)["DBClusters"][
                0
            ]
        else:
            found = self.rds.describe_db_instances(DBInstanceIdentifier=self.identifier)["DBInstances"][0]
        return found

    @cached_property
    def members(self) -> list[Mapping[str, Any]]:
        """Blue's instances."""
        if not self.is_cluster:
            return [self.blue]
        names = {member["DBInstanceIdentifier"] for member in self.blue.get("DBClusterMembers") or ()}
        listed = resources.pages(self.rds, "describe_db_instances", "DBInstances")
        return [each for each in listed if each["DBInstanceIdentifier"] in names]

    @property
    def arn(self) -> str:
        return str(self.blue["DBClusterArn" if self.is_cluster else "DBInstanceArn"])

    @cached_property
    def group(self) -> str:
        """Blue's (cluster) parameter group."""
        if self.is_cluster:
            return str(self.blue["DBClusterParameterGroup"])
        return str(self.blue["DBParameterGroups"][0]["DBParameterGroupName"])

    @cached_property
    def parameters(self) -> dict[str, str]:
        return self._parameters(self.group)

    @cached_property
    def target_parameters(self) -> dict[str, str]:
        if not self.target_group:
            raise NotAskedError("green's parameter group was not named")
        return self._parameters(self.target_group)

    def _parameters(self, group: str) -> dict[str, str]:
        if self.is_cluster:
            found = resources.pages(
                self.rds, "describe_db_cluster_parameters", "Parameters", DBClusterParameterGroupName=group
            )
        else:
            found = resources.pages(self.rds, "describe_db_parameters", "Parameters", DBParameterGroupName=group)
        return {
            each["ParameterName"]: each["ParameterValue"] for each in found if each.get("ParameterValue") is not None
        }

    def members_available(self) -> Found:
        found = [
            (str(member["DBInstanceIdentifier"]), f"status {member.get('DBInstanceStatus')}")
            for member in self.members
            if member.get("DBInstanceStatus") != "available"
        ]
        if self.is_cluster and self.blue.get("Status") != "available":
            found.append((self.identifier, f"status {self.blue.get('Status')}"))
        wanted = 1 + self.spec.placement.readers
        if len(self.members) != wanted:
            found.append((self.identifier, f"{len(self.members)} instances, not {wanted}"))
        return found

    def custom_parameter_group(self) -> Found:
        return [(self.group, "is a default group")] if self.group.startswith("default.") else []

    def parameter_group_in_sync(self) -> Found:
        found = [
            (
                str(member["DBInstanceIdentifier"]),
                f"{group['DBParameterGroupName']} is {group.get('ParameterApplyStatus')}",
            )
            for member in self.members
            for group in member.get("DBParameterGroups") or ()
            if group.get("ParameterApplyStatus") != "in-sync"
        ]
        return found + [
            (str(member["DBInstanceIdentifier"]), f"{self.group} is {member.get('DBClusterParameterGroupStatus')}")
            for member in self.blue.get("DBClusterMembers") or ()
            if member.get("DBClusterParameterGroupStatus") != "in-sync"
        ]

    def group_binlog_format(self) -> Found:
        # Without a value, Aurora writes no binlog, and RDS for MySQL writes MIXED as soon as backups are on.
        value = self.parameters.get("binlog_format", "OFF" if self.is_cluster else "MIXED")
        return [] if value.upper() in LOGGED else [(self.group, f"binlog_format is {value}")]

    def backups(self) -> Found:
        days = int(self.blue.get("BackupRetentionPeriod") or 0)
        return [] if days > 0 else [(self.identifier, "backup retention period is 0 days")]

    def managed_password(self) -> Found:
        secret = self.blue.get("MasterUserSecret")
        return [(self.identifier, f"secret status {secret.get('SecretStatus')}")] if secret else []

    def other_deployment(self) -> Found:
        own = {tag["Key"]: tag.get("Value") for tag in self.blue.get("TagList") or ()}.get(resources.NAME)
        found = []
        for each in rails.pages_of_deployments(self.rds):
            name = {tag["Key"]: tag.get("Value") for tag in each.get("TagList") or ()}.get(resources.NAME)
            # One of this rehearsal is the one that a repeated task takes up.
            if self.arn in (each.get("Source"), each.get("Target")) and not (own and name == own):
                found.append((str(each.get("BlueGreenDeploymentName")), f"status {each.get('Status')}"))
        return found

    def engine_mode(self) -> Found:
        mode = self.blue.get("EngineMode") or "provisioned"
        return [] if mode == "provisioned" else [(self.identifier, f"engine mode {mode}")]

    def replication_source(self) -> Found:
        keys = (
            "ReplicationSourceIdentifier",
            "ReadReplicaSourceDBInstanceIdentifier",
            "ReadReplicaSourceDBClusterIdentifier",
        )
        return [(self.identifier, f"replicates from {self.blue[key]}") for key in keys if self.blue.get(key)]

    def stack_managed(self) -> Found:
        tags = self.blue.get("TagList") or ()
        return [(self.identifier, f"{t['Key']}={t.get('Value')}") for t in tags if str(t["Key"]).startswith(_STACK)]

    def lower_case_table_names(self) -> Found:
        blue, green = (of.get("lower_case_table_names", "0") for of in (self.parameters, self.target_parameters))
        return [] if blue == green else [("lower_case_table_names", f"blue {blue}, green {green}")]

    def group_differences(self) -> Found:
        blue, green = self.parameters, self.target_parameters
        return [
            (name, f"blue {blue.get(name, '(default)')}, green {green.get(name, '(default)')}")
            for name in COMPARED
            if name not in self.spec.target.parameters and blue.get(name) != green.get(name)
        ]

    def green_event_scheduler(self) -> Found:
        value = self.target_parameters.get("event_scheduler", "OFF")
        return [(self.target_group, f"event_scheduler is {value}")] if value.upper() in ("ON", "1") else []

    def global_cluster(self) -> Found:
        name = self.blue.get("GlobalClusterIdentifier")
        return [(self.identifier, f"member of {name}")] if name else []

    def backtrack(self) -> Found:
        seconds = int(self.blue.get("BacktrackWindow") or 0)
        return [(self.identifier, f"backtrack window {seconds} s")] if seconds else []

    def proxy_targets(self) -> Found:
        ours = {self.identifier, *(str(member["DBInstanceIdentifier"]) for member in self.members)}
        found = []
        for proxy in resources.pages(self.rds, "describe_db_proxies", "DBProxies"):
            name = str(proxy["DBProxyName"])
            targets = resources.pages(self.rds, "describe_db_proxy_targets", "Targets", DBProxyName=name)
            if any(ours & {target.get("RdsResourceId"), target.get("TrackedClusterId")} for target in targets):
                found.append((name, f"status {proxy.get('Status')}"))
        return found

    def associated_roles(self) -> Found:
        return [(str(role.get("RoleArn")), str(role.get("Status"))) for role in self.blue.get("AssociatedRoles") or ()]

    def pending_changes(self) -> Found:
        everything = [(self.identifier, self.blue)] if self.is_cluster else []
        everything += [(str(member["DBInstanceIdentifier"]), member) for member in self.members]
        return [
            (name, ", ".join(sorted(each["PendingModifiedValues"])))
            for name, each in everything
            if each.get("PendingModifiedValues")
        ]

    def deletion_protection(self) -> Found:
        return [(self.identifier, "is protected")] if self.blue.get("DeletionProtection") else []
