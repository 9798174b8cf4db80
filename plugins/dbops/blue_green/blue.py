"""Make blue: the cluster or instance that a rehearsal upgrades, with parameter groups of its own and plain users for probes.

Every call is repeated harmlessly: what is there under the rehearsal's name is taken up if its tags are the rehearsal's, else refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dbops import sql
from dbops.blue_green import rails
from dbops.blue_green.resources import Kind
from dbops.blue_green.spec import RehearsalSpec, Snapshot, Synthetic

SCHEMA = "dbops_rehearsal"
"""Schema of the made-up data and of the probes' table on blue."""
PROBE_USER = "dbops_probe"
BINLOG_RETENTION_HOURS = 24
BACKUP_DAYS = 1
_EXISTS = frozenset({"DBClusterParameterGroupAlreadyExistsFault", "DBParameterGroupAlreadyExists"})
_NO_PROCEDURE, _NO_SCHEMA, _DENIED = 1305, 1049, 1045


class BlueError(RuntimeError):
    """Blue cannot be made; the text says why, and what is standing."""


@dataclass(frozen=True)
class Member:
    """An instance: AWS moves its name at a switchover, and never its resource id."""

    identifier: str
    resource_id: str
    arn: str
    host: str
    port: int
    is_writer: bool


@dataclass(frozen=True)
class Side:
    """A cluster with its members, or one instance. ``host`` and ``port`` are what clients use to write."""

    identifier: str
    resource_id: str
    arn: str
    host: str
    port: int
    engine_version: str
    members: tuple[Member, ...]
    parameter_group: str
    reader: tuple[str, int] | None = None
    """Where clients read from, if the cluster has readers."""

    @property
    def address(self) -> tuple[str, int]:
        """Where clients write to."""
        return self.host, self.port

    @property
    def resource_ids(self) -> dict[str, str]:
        """Identifier -> resource id, of the cluster and each instance."""
        return {self.identifier: self.resource_id, **{m.identifier: m.resource_id for m in self.members}}

    def document(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return asdict(self)


def side(document: Mapping[str, Any]) -> Side:
    """The side that :meth:`Side.document` gave."""
    reader = document.get("reader")
    members = tuple(Member(**member) for member in document["members"])
    return Side(**{**document, "members": members, "reader": reader and (reader[0], reader[1])})


@dataclass(frozen=True)
class Maker:
    """What making takes: a boto3 client, the rehearsal's name, tags of everything, and a call that waits a little before the next look."""

    rds: Any
    spec: RehearsalSpec
    name: str
    tags: Sequence[Mapping[str, str]]
    wait: Callable[[], None]
    now: Callable[[], datetime]

    @property
    def is_cluster(self) -> bool:
        """Aurora, not a single instance."""
        return self.spec.form == "cluster"

    @property
    def _group_words(self) -> tuple[str, Kind]:
        """How AWS calls the kind of parameter group that carries the settings, and how the rails do."""
        if self.is_cluster:
            return "DBClusterParameterGroup", "cluster_parameter_group"
        return "DBParameterGroup", "parameter_group"

    def parameter_groups(self, blue_version: str) -> None:
        """The groups of both sides: row-based binary log on blue, no event scheduler on green until it has taken over."""
        for suffix, version, wanted in (
            ("blue", blue_version, {"binlog_format": "ROW"}),
            ("green", self.spec.target.engine_version, {"event_scheduler": "OFF", **self.spec.target.parameters}),
        ):
            self._parameter_group(f"{self.name}-{suffix}", version, wanted)

    def _parameter_group(self, group: str, version: str, wanted: Mapping[str, str]) -> None:
        of, kind = self._group_words
        calls = f"db_{kind}"
        family = f"{self.spec.engine}{'.'.join(version.split('.')[:2])}"
        try:
            getattr(self.rds, f"create_{calls}")(
                **{f"{of}Name": group}, DBParameterGroupFamily=family, Tags=list(self.tags),
                Description=f"rehearsal {self.name}",
            )  # fmt: skip
        except self.rds.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in _EXISTS:
                raise
        described = getattr(self.rds, f"describe_{calls}s")(**{f"{of}Name": group})[f"{of}s"][0]
        rails.require_ours(self.rds, kind, described[f"{of}Arn"], self.name, self.now())
        # Static parameters take effect with the next start; those of a group that nothing uses yet, with the first.
        changes = [
            {"ParameterName": name, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
            for name, value in wanted.items()
        ]
        getattr(self.rds, f"modify_{calls}")(**{f"{of}Name": group}, Parameters=changes)

    def create(self, login: tuple[str, str]) -> None:
        """Ask for blue and its members, from what the spec names; returns before they are available."""
        if self.is_cluster:
            if not self._is_there("cluster"):
                self._create_cluster(login)
            for number in range(1 + self.spec.placement.readers):
                self._create_member(f"{self.name}-{number + 1}")
        elif not self._is_there("instance"):
            self._create_instance(login)

    def _is_there(self, kind: Kind, identifier: str = "") -> bool:
        name = identifier or self.name
        found = _described(self.rds, kind, name)
        if found is None:
            return False
        rails.require_ours(self.rds, kind, _resource_id(kind, found), self.name, self.now())
        return True

    def _network(self) -> dict[str, Any]:
        where = self.spec.placement
        found: dict[str, Any] = {}
        if where.subnet_group:
            found["DBSubnetGroupName"] = where.subnet_group
        if where.security_groups:
            found["VpcSecurityGroupIds"] = where.security_groups
        return found

    def _create_cluster(self, login: tuple[str, str]) -> None:
        common = {
            "DBClusterIdentifier": self.name, "DBClusterParameterGroupName": f"{self.name}-blue",
            "Tags": list(self.tags), "DeletionProtection": False, "CopyTagsToSnapshot": True, **self._network(),
        }  # fmt: skip
        source = self.spec.source
        if isinstance(source, Synthetic):
            self.rds.create_db_cluster(
                **common, Engine=self.spec.engine, EngineVersion=source.engine_version, MasterUsername=login[0],
                MasterUserPassword=login[1], BackupRetentionPeriod=BACKUP_DAYS,
            )  # fmt: skip
        elif isinstance(source, Snapshot):
            self.rds.restore_db_cluster_from_snapshot(
                **common, Engine=self.spec.engine, SnapshotIdentifier=source.snapshot
            )
        else:
            self.rds.restore_db_cluster_to_point_in_time(
                **common,
                SourceDBClusterIdentifier=source.cluster,
                RestoreType="copy-on-write",
                UseLatestRestorableTime=True,
            )

    def _create_member(self, identifier: str) -> None:
        if not self._is_there("instance", identifier):
            self.rds.create_db_instance(
                DBInstanceIdentifier=identifier, DBClusterIdentifier=self.name, Engine=self.spec.engine,
                DBInstanceClass=self.spec.placement.instance_class, Tags=list(self.tags), PubliclyAccessible=False,
            )  # fmt: skip

    def _create_instance(self, login: tuple[str, str]) -> None:
        common = {
            "DBInstanceIdentifier": self.name, "DBParameterGroupName": f"{self.name}-blue", "Tags": list(self.tags),
            "DBInstanceClass": self.spec.placement.instance_class, "DeletionProtection": False, "PubliclyAccessible": False,
            **self._network(),
        }  # fmt: skip
        source = self.spec.source
        if isinstance(source, Snapshot):
            self.rds.restore_db_instance_from_db_snapshot(**common, DBSnapshotIdentifier=source.snapshot)
            return
        assert isinstance(source, Synthetic)  # noqa: S101 - the spec allows no clone of an instance
        self.rds.create_db_instance(
            **common, Engine=self.spec.engine, EngineVersion=source.engine_version, MasterUsername=login[0],
            MasterUserPassword=login[1], BackupRetentionPeriod=BACKUP_DAYS,
            AllocatedStorage=max(20, round(3 * self.spec.data.gigabytes) + 10),
        )  # fmt: skip

    def settle(self) -> Side:
        """Wait until every member is available and runs with its parameter group; reboot those that wait for it."""
        rebooted: set[str] = set()
        while True:
            found = describe(self.rds, self.name, self.is_cluster)
            if found is not None and not (waiting := _unsettled(found, self.is_cluster)):
                return to_side(found, self.is_cluster)
            if found is not None and all(m["DBInstanceStatus"] == "available" for m in found["Members"]):
                for member in found["Members"]:
                    if (identifier := member["DBInstanceIdentifier"]) in rebooted or identifier not in waiting:
                        continue
                    rails.require_ours(self.rds, "instance", member["DbiResourceId"], self.name, self.now())
                    self.rds.reboot_db_instance(DBInstanceIdentifier=identifier)
                    rebooted.add(identifier)
            self.wait()

    def let_in(self, blue: Side, login: tuple[str, str], connect: Callable[[tuple[str, int]], Any]) -> None:
        """See to it that the connection's user is blue's master user; a restored server may have another password.

        Raises:
            BlueError: the master user has another name, which nobody can change
        """
        import MySQLdb

        found = describe(self.rds, self.name, self.is_cluster) or {}
        if (master := found.get("MasterUsername")) != login[0]:
            raise BlueError(
                f"connection {self.spec.connection}: login is {login[0]!r}, the master user of {self.name} is {master!r}; "
                "correct the connection"
            )
        changed = False
        while True:
            try:
                connect(blue.address).close()
            except MySQLdb.Error as error:
                if error.args[0] != _DENIED:
                    raise
                if not changed:
                    self._set_password(blue, login[1])
                    changed = True
                self.wait()
            else:
                return

    def _set_password(self, blue: Side, password: str) -> None:
        rails.require_ours(self.rds, kind_of(self.spec), blue.resource_id, self.name, self.now())
        if self.is_cluster:
            self.rds.modify_db_cluster(
                DBClusterIdentifier=self.name, MasterUserPassword=password, ApplyImmediately=True,
                BackupRetentionPeriod=BACKUP_DAYS,
            )  # fmt: skip
        else:
            self.rds.modify_db_instance(
                DBInstanceIdentifier=self.name, MasterUserPassword=password, ApplyImmediately=True
            )


def kind_of(spec: RehearsalSpec) -> Kind:
    """Kind of blue and green themselves."""
    return "cluster" if spec.form == "cluster" else "instance"


def prepare(conn: Any, password: str) -> None:
    """On blue, as its master user: keep the binary log long enough, make the schema, the probes' table and their plain user."""
    import MySQLdb

    from dbops.blue_green import arms, probes

    with conn.cursor() as cursor:
        try:
            cursor.execute("CALL mysql.rds_set_configuration('binlog retention hours', %s)", (BINLOG_RETENTION_HOURS,))
        except MySQLdb.Error as error:
            if error.args[0] not in (_NO_PROCEDURE, _NO_SCHEMA):
                raise  # a managed server has the procedure; preflight says what another one lacks
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {sql.ident(SCHEMA)} CHARACTER SET utf8mb4")
        # Not IF NOT EXISTS alone: a restored server may have the user with another password.
        cursor.execute(
            "CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED WITH mysql_native_password BY %s", (PROBE_USER, password)
        )
        cursor.execute("ALTER USER %s@'%%' IDENTIFIED WITH mysql_native_password BY %s", (PROBE_USER, password))
    probes.create_table(conn, SCHEMA)
    arms.create_table(conn, SCHEMA)
    with conn.cursor() as cursor:
        for table in (probes.TABLE, arms.TABLE):
            cursor.execute(f"GRANT SELECT, INSERT ON {sql.ident((SCHEMA, table))} TO %s@'%%'", (PROBE_USER,))


def probe_password(login: tuple[str, str], name: str) -> str:
    """Password of the probes' user: derived from the master's, so that it need be kept nowhere; other in each rehearsal."""
    key = hmac.new(login[1].encode(), f"dbops probe of {name}".encode(), hashlib.sha256).hexdigest()[:28]
    return f"Dp1-{key}"  # with every class of character that a password policy may ask for


def source_version(rds: Any, spec: RehearsalSpec) -> str:
    """Engine version that blue will have. Raises BlueError when the snapshot or cluster does not exist."""
    source = spec.source
    if isinstance(source, Synthetic):
        return source.engine_version
    try:
        if not isinstance(source, Snapshot):
            found = rds.describe_db_clusters(DBClusterIdentifier=source.cluster)["DBClusters"]
        elif spec.form == "cluster":
            found = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=source.snapshot)["DBClusterSnapshots"]
        else:
            found = rds.describe_db_snapshots(DBSnapshotIdentifier=source.snapshot)["DBSnapshots"]
    except rds.exceptions.ClientError as error:
        raise BlueError(f"source of {spec.name}: {error.response['Error']['Message']}; correct the spec") from error
    if not found:
        raise BlueError(f"source of {spec.name} does not exist: {source}; correct the spec")
    return str(found[0]["EngineVersion"])


def describe(rds: Any, identifier: str, is_cluster: bool) -> dict[str, Any] | None:
    """The answer for a cluster or instance, with ``Members``: the answers for its instances. None when it does not exist."""
    head = _described(rds, "cluster" if is_cluster else "instance", identifier)
    if head is None:
        return None
    if not is_cluster:
        return {**head, "Members": [head]}
    roles = {member["DBInstanceIdentifier"]: member["IsClusterWriter"] for member in head["DBClusterMembers"]}
    members = [_described(rds, "instance", member) for member in roles]
    return {
        **head, "Members": [{**m, "IsWriter": roles[m["DBInstanceIdentifier"]]} for m in members if m is not None],
        "Expected": len(roles),
    }  # fmt: skip


def to_side(found: Mapping[str, Any], is_cluster: bool) -> Side:
    """What :func:`describe` found, without AWS's words."""
    members = tuple(
        Member(
            m["DBInstanceIdentifier"], m["DbiResourceId"], m["DBInstanceArn"], m.get("Endpoint", {}).get("Address", ""),
            int(m.get("Endpoint", {}).get("Port", 0)), bool(m.get("IsWriter", True)),
        )
        for m in found["Members"]
    )  # fmt: skip
    if not is_cluster:
        one = members[0]
        groups = [group["DBParameterGroupName"] for group in found.get("DBParameterGroups", ())]
        return Side(
            one.identifier,
            one.resource_id,
            one.arn,
            one.host,
            one.port,
            found["EngineVersion"],
            members,
            groups[0] if groups else "",
        )
    return Side(
        found["DBClusterIdentifier"], found["DbClusterResourceId"], found["DBClusterArn"], found["Endpoint"], int(found["Port"]),
        found["EngineVersion"], members, found.get("DBClusterParameterGroup", ""),
        (found["ReaderEndpoint"], int(found["Port"])) if len(members) > 1 and found.get("ReaderEndpoint") else None,
    )  # fmt: skip


def of_arn(rds: Any, arn: str, is_cluster: bool) -> Side:
    """The side of an ARN. Raises BlueError when it does not exist."""
    found = describe(rds, arn.rsplit(":", 1)[-1], is_cluster)
    if found is None:
        raise BlueError(f"{arn} does not exist any more; see what the teardown lists")
    return to_side(found, is_cluster)


def _unsettled(found: Mapping[str, Any], is_cluster: bool) -> list[str]:
    """Members, or the head, that are not available, or that wait for a reboot to follow their group."""
    members = found["Members"]
    if not members or len(members) < found.get("Expected", 1):
        return [str(found.get("DBClusterIdentifier", "members"))]
    waiting = [m["DBInstanceIdentifier"] for m in members if m["DBInstanceStatus"] != "available"]
    if is_cluster:
        if found["Status"] != "available":
            waiting.append(found["DBClusterIdentifier"])
        waiting += [
            m["DBInstanceIdentifier"]
            for m in found["DBClusterMembers"]
            if m.get("DBClusterParameterGroupStatus", "in-sync") == "pending-reboot"
        ]
    else:
        waiting += [
            found["DBInstanceIdentifier"]
            for group in found.get("DBParameterGroups", ())
            if group.get("ParameterApplyStatus") == "pending-reboot"
        ]
    return waiting


def _described(rds: Any, kind: str, identifier: str) -> dict[str, Any] | None:
    try:
        if kind == "cluster":
            found = rds.describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"]
        else:
            found = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    except rds.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in (
            "DBClusterNotFoundFault",
            "DBInstanceNotFound",
            "DBInstanceNotFoundFault",
        ):
            return None
        raise
    return found[0] if found else None


def _resource_id(kind: str, found: Mapping[str, Any]) -> str:
    return str(found["DbClusterResourceId" if kind == "cluster" else "DbiResourceId"])
