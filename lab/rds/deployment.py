"""One Blue/Green deployment: it clones and upgrades the blue side, replicates to green, switches over or rolls back."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import MySQLdb
from moto.rds import models
from moto.rds.exceptions import InvalidParameterCombination, RDSClientError

from lab import config
from lab.rds import catalogue, clone, parameters, prechecks
from lab.rds.server import ADMIN, Server

State = models.BlueGreenDeployment.SupportedStates
POLL_S = 0.1
CATCH_UP_S = 3600  # a green side that is not level with blue by then is INVALID_CONFIGURATION
LONG_WRITE_S = 5  # an active write or DDL of that age holds a switchover up
LAG_LIMIT = 0.5  # part of the SwitchoverTimeout: AWS says only that the limit follows from the timeout
DURABLE = ("sync-binlog", "innodb-flush-log-at-trx-commit")
WRITES = r"^[[:space:]]*(insert|update|delete|replace|load|alter|create|drop|truncate|rename|optimize|analyze)"


class CanceledError(Exception):
    """The switchover cannot go on; the text is the reason that the events give."""


@dataclass
class Pair:
    """A member of the blue side and its green counterpart; both keep their servers under every name."""

    blue: Any  # DBInstance of moto
    green: Any
    status: str = "PROVISIONING"


class Deployment(models.BlueGreenDeployment):
    """State of a deployment; `provision` and `switch` run in threads of their own and never raise."""

    resource_type = "deployment"

    def __init__(self, backend: Any, blue_green_deployment_name: str, source: str, **kwargs: Any) -> None:
        self.plane = backend.plane
        self.pairs: list[Pair] = []
        self.ended = threading.Event()
        self.shown: tuple[float, str] = (0.0, "PROVISIONING")
        self.blue: Any = None
        self.backend = backend
        blue = self._get_valid_instance_or_raise(source)
        self._require_supported(blue, kwargs.get("target_engine_version"))
        self._choose_groups(blue, kwargs)
        backend.is_green.yes = True
        try:
            super().__init__(backend, blue_green_deployment_name, source, **kwargs)
        finally:
            backend.is_green.yes = False
        self.blue, self.green = blue, self._get_valid_instance_or_raise(self.target)
        if self.is_cluster:
            self.pairs = [Pair(*both) for both in zip(blue.members, self.green.members, strict=True)]
            for pair in self.pairs:
                pair.green.is_cluster_writer = pair.blue.is_cluster_writer
        else:
            self.pairs = [Pair(blue, self.green)]
        upgrade = ["DB_ENGINE_VERSION_UPGRADE"] if blue.engine_version != self.green.engine_version else []
        last = "CREATE_DB_INSTANCES_FOR_CLUSTER" if self.is_cluster else "CONFIGURE_BACKUPS"
        self.tasks = [
            models.BlueGreenDeploymentTask(name, "PENDING")
            for name in ("CREATING_READ_REPLICA_OF_SOURCE", *upgrade, last)
        ]
        self.set_status(State.PROVISIONING)

    @property
    def is_cluster(self) -> bool:
        return isinstance(self.blue, models.DBCluster)

    @property
    def writer(self) -> Pair:
        return next((pair for pair in self.pairs if getattr(pair.blue, "is_cluster_writer", True)), self.pairs[0])

    def holds(self, instance: Any) -> bool:
        """Whether an instance is a member of either side."""
        return any(instance in (pair.blue, pair.green) for pair in self.pairs)

    def server(self, instance: Any) -> Server:
        return self.plane.servers[instance.dbi_resource_id]  # type: ignore[no-any-return]

    def set_status(self, value: Any, members: str | None = None) -> None:
        """Status of the deployment and, in step with it unless told otherwise, of every member."""
        self.shown = (time.monotonic(), getattr(self, "status", value.name))
        self.status = value.name
        for pair in self.pairs:
            pair.status = members or value.name

    @property
    def switchover_details(self) -> list[Any]:
        head = [models.SwitchoverDetails(self.source, self.target, self.status)] if self.is_cluster else []
        return head + [models.SwitchoverDetails(pair.blue.arn, pair.green.arn, pair.status) for pair in self.pairs]

    def view(self, stale_s: float = 0) -> Any:
        """What a call shows of it now; for so many seconds after a change, the status that was before."""
        shown = copy.copy(self)
        shown.tasks, shown.pairs = copy.deepcopy(self.tasks), [copy.copy(pair) for pair in self.pairs]
        if time.monotonic() - self.shown[0] < stale_s:
            shown.status = self.shown[1]
        return shown

    def require_deletable_target(self) -> None:
        for resource in (self.green, *(pair.green for pair in self.pairs)):
            if resource.deletion_protection:
                raise InvalidParameterCombination(
                    "Cannot delete protected target, please disable deletion protection and try again."
                )

    def provision(self) -> None:
        """Fill the green side and follow blue; AVAILABLE, or INVALID_CONFIGURATION with the reason."""
        step = "CREATING_READ_REPLICA_OF_SOURCE"
        try:
            if reason := self.plane.fault("create_fails"):
                raise CanceledError(reason)
            self._task(step, "IN_PROGRESS")
            source, target = self.server(self.writer.blue), self._new_server(self.writer.green)
            self._task(step, "COMPLETED")
            step = "DB_ENGINE_VERSION_UPGRADE" if len(self.tasks) > 2 else step
            self._task(step, "IN_PROGRESS")  # rows and definitions enter the new version here, which may refuse them
            self._precheck(source)
            self.copy_and_follow(source, target, self.plane.folder / f"copy-{self.blue_green_deployment_identifier}")
            if target.is_80:  # as in Aurora, read_only does not hold the master user of a green side
                master = (self.blue.master_username,)
                target.sql("GRANT CONNECTION_ADMIN ON *.* TO %s@'%%'", master)
            self._task(step, "COMPLETED")
            step = self.tasks[-1].Name
            self._task(step, "IN_PROGRESS")
            for pair in self.pairs:
                if pair is not self.writer:
                    folder = self.plane.folder / f"copy-{pair.green.dbi_resource_id}"
                    self.copy_and_follow(target, self._new_server(pair.green), folder)
            self._catch_up(CATCH_UP_S)
            for pair in self.pairs:
                self.server(pair.green).sql("SET GLOBAL read_only = 1")
                self._make_durable(self.server(pair.green))
                self.backend.connect_endpoints(pair.green)
                pair.green.status = "available"
            self._task(step, "COMPLETED")
            self._topology("AVAILABLE")
            self.set_status(State.AVAILABLE)
            self._event("creation", "Blue/green deployment tasks completed. You can make more modifications to the green environment "
                        "databases or switch over the deployment.")  # fmt: skip
        except (CanceledError, MySQLdb.Error, OSError, config.LabError) as error:
            self._task(step, "FAILED")
            self.status_details = f"Creation of blue/green deployment failed: {error}"
            for pair in self.pairs:
                pair.green.status = "available" if pair.green.dbi_resource_id in self.plane.servers else "failed"
            self.set_status(State.INVALID_CONFIGURATION)
            self._event("failure", self.status_details)
            return
        self._keep_faults()

    def _precheck(self, source: Server) -> None:
        """Write the log of the upgrade's prechecks; an error in it ends the upgrade, as in Aurora."""
        green = self.writer.green
        if len(self.tasks) > 2 and catalogue.series(self.blue.engine_version) != catalogue.series(green.engine_version):
            content = prechecks.check(source, self.blue.engine_version, green.engine_version)
            green.extra_logs = {prechecks.LOG: prechecks.text(content)}
            if found := prechecks.errors(content):
                raise CanceledError(f"the upgrade prechecks found errors, see {prechecks.LOG}: {found}")

    @classmethod
    def copy_and_follow(cls, source: Server, target: Server, folder: Path) -> None:
        """Make a fresh server a copy of another one, and let it follow from the position of the copy."""
        clone.clone(source, target, folder)
        cls.follow(source, target)

    @staticmethod
    def follow(source: Server, target: Server) -> None:
        """Let a server replicate from another one, from what it has on."""
        with target.cursor() as cursor:
            cursor.execute("STOP SLAVE")
            cursor.execute(
                "CHANGE MASTER TO MASTER_HOST = %s, MASTER_PORT = %s, MASTER_USER = %s, MASTER_PASSWORD = %s, "
                "MASTER_AUTO_POSITION = 1, MASTER_CONNECT_RETRY = 1",
                (config.HOST, source.port, ADMIN, config.MYSQL_PASSWORD),
            )
            cursor.execute("START SLAVE")

    def switch(self, timeout_s: int) -> None:
        """Switch over within the timeout, or put everything back as it was."""
        deadline = time.monotonic() + timeout_s * float(self.plane.fault("timeout_scale"))
        self._note("switchover_started", timeout_s=timeout_s)
        self._announce("started")
        blue, green = self.server(self.writer.blue), self.server(self.writer.green)
        try:
            self._topology("SWITCHOVER_INITIATED")
            self._guardrails(blue, green, timeout_s)
            self._await_writes(blue, deadline)
            self._topology("SWITCHOVER_IN_PROGRESS")
            self._stop_writes(blue, green, deadline)
            self._drop_connections(blue, deadline)
            self._catch_up(deadline - time.monotonic())
        except (CanceledError, MySQLdb.Error, OSError) as error:
            self._roll_back(blue, green, f"{error}")
            return
        # From here on there is no way back; nothing of it depends on the load.
        try:
            self._note("caught_up")
            self._promote(green)
            time.sleep(float(self.plane.fault("rename_s")))
            self._rename()
            self._allow_writes(green)
        except (MySQLdb.Error, OSError) as error:
            self.status_details = f"Switchover failed: {error}"
            self.set_status(State.SWITCHOVER_FAILED)
            self._note("switchover_broken", reason=self.status_details)

    def _guardrails(self, blue: Server, green: Server, timeout_s: int) -> None:
        """What ends a switchover at once: it would not get better by waiting.

        Raises:
            CanceledError: a check failed
        """
        if blue.rows("SHOW SLAVE STATUS"):
            raise CanceledError("the blue environment is an external replica; stop that replication first.")
        state = green.rows("SHOW SLAVE STATUS")[0]
        if "No" in (state["Slave_IO_Running"], state["Slave_SQL_Running"]):
            raise CanceledError(
                f"replication to the green environment is not healthy: {state['Last_Error'] or state['Last_IO_Error']}"
            )
        lag, limit = state["Seconds_Behind_Master"], timeout_s * LAG_LIMIT
        if lag is None or lag > limit:
            raise CanceledError(f"the replica lag of {lag} s is above the limit of {limit:.0f} s for this timeout.")
        if found := _writers(green, 0):
            raise CanceledError(f"the green environment has active writes: {found}.")

    def _await_writes(self, blue: Server, deadline: float) -> None:
        """Let long writes and DDL of blue end, while it still serves."""
        while found := _writers(blue, LONG_WRITE_S):
            if time.monotonic() >= deadline:
                raise CanceledError(
                    f"the timeout was exceeded while long-running writes or DDL were active on blue: {found}."
                )
            time.sleep(POLL_S)

    def _stop_writes(self, blue: Server, green: Server, deadline: float) -> None:
        """Refuse writes on both sides; a statement that still runs may hold this up.

        Raises:
            CanceledError: it did so up to the deadline
        """
        for server in (green, blue):
            with server.cursor() as cursor:
                cursor.execute("SET lock_wait_timeout = %s", (max(1, int(deadline - time.monotonic())),))
                if (
                    server is blue
                ):  # waiting for running statements also keeps new ones waiting: here the downtime begins
                    self._note("writes_stopping")
                try:
                    cursor.execute("SET GLOBAL super_read_only = 1")
                except MySQLdb.OperationalError as error:
                    raise CanceledError(
                        f"the timeout was exceeded while running statements held up the stop of writes: {_writers(server, 0)}"
                    ) from error
        self._note("writes_refused")

    def _drop_connections(self, blue: Server, deadline: float) -> None:
        """Cut every client of both sides and refuse new ones."""
        cut = sum(endpoint.refuse() for endpoint in self._endpoints(both=True))
        for pair in self.pairs:
            for instance in (pair.blue, pair.green):
                _kill_clients(self.server(instance))
        self._note("connections_dropped", connections=cut)
        tables = blue.sql("SELECT COUNT(*) FROM information_schema.tables WHERE table_type = 'BASE TABLE'")[0][0]
        for count, what in ((cut, "connection"), (tables, "table")):
            self._spend(count / 1000 * float(self.plane.fault(f"{what}_cost_s")), deadline, f"{count} {what}s")

    @staticmethod
    def _spend(seconds: float, deadline: float, what: str) -> None:
        """Take as long as AWS may take for something that the lab does at once."""
        time.sleep(max(0.0, min(seconds, deadline - time.monotonic())))
        if time.monotonic() >= deadline:
            raise CanceledError(f"the timeout was exceeded while {what} were taken care of")

    def _catch_up(self, seconds: float) -> None:
        """Wait until every green member has what its source has executed.

        Raises:
            CanceledError: not within these seconds, or the replication stopped
        """
        deadline = time.monotonic() + seconds
        wanted = self.server(self.writer.blue).value("@@GLOBAL.gtid_executed")
        for pair in (self.writer, *(pair for pair in self.pairs if pair is not self.writer)):
            server = self.server(pair.green)
            while not server.value(f"GTID_SUBSET('{wanted}', @@GLOBAL.gtid_executed)"):
                state = server.rows("SHOW SLAVE STATUS")[0]
                if "No" in (state["Slave_SQL_Running"], state["Slave_IO_Running"]):
                    raise CanceledError(
                        f"replication to the green environment failed: {state['Last_Error'] or state['Last_IO_Error']}"
                    )
                if time.monotonic() >= deadline:
                    raise CanceledError("the timeout was exceeded while the green environment was catching up with blue "
                                        f"(lag {state['Seconds_Behind_Master']} s).")  # fmt: skip
                time.sleep(POLL_S / 5)

    def _roll_back(self, blue: Server, green: Server, reason: str) -> None:
        broken = ""
        for server, read_only in ((blue, 0), (green, 1)):
            try:
                server.sql("SET GLOBAL super_read_only = 0")
                server.sql(f"SET GLOBAL read_only = {read_only}")
            except MySQLdb.Error as error:
                broken = f"; {server} is out of reach: {error}"
        for endpoint in self._endpoints(both=True):
            endpoint.serve()
        self._topology("AVAILABLE")
        self._note("writes_allowed", rolled_back=True, reason=reason + broken)
        self.status_details = f"Switchover was canceled: {reason}{broken}"
        self._announce("canceled", reason)
        self.set_status(State["SWITCHOVER_FAILED" if broken else self.plane.fault("rollback_status")])

    def _promote(self, green: Server) -> None:
        coordinates = green.rows("SHOW MASTER STATUS")[0]
        with green.cursor() as cursor:
            cursor.execute("STOP SLAVE")
            cursor.execute("RESET SLAVE ALL")
            cursor.execute("SET GLOBAL super_read_only = 0")  # but read_only stays until the names have moved
        self._topology("SWITCHOVER_IN_POST_PROCESSING")
        self.backend.record(
            self.writer.green.db_instance_identifier, self.writer.green.arn, "db-instance", "notification",
            "Binary log coordinates in green environment after switchover: "
            f"file {coordinates['File']} and position {coordinates['Position']}",
        )  # fmt: skip

    def _rename(self) -> None:
        """Give blue's names and endpoints to green; blue becomes ``-oldN``, with one N for all members."""
        number = 1
        while any(f"{pair.blue.db_instance_identifier}-old{number}" in self.backend.databases for pair in self.pairs):
            number += 1
        left = self._left_behind()
        with self.backend.lock:
            for pair in self.pairs:
                if pair is not left:
                    self._swap(self.backend.databases, "db", "db_instance_identifier", pair.blue, pair.green, number)
            if self.is_cluster:
                members = [(pair, side) for pair in self.pairs for side in ("blue", "green")]
                self._swap(self.backend.clusters, "cluster", "db_cluster_identifier", self.blue, self.green, number)
                for pair, side in members:
                    getattr(pair, side).db_cluster_identifier = getattr(self, side).db_cluster_identifier
            for blue, green in (
                (self.blue, self.green),
                *((pair.blue, pair.green) for pair in self.pairs if pair is not left),
            ):
                green.tags = copy.deepcopy(blue.tags)  # tags of blue overwrite those of green
            self.source, self.target = self.blue.arn, self.green.arn
            self.set_status(State.SWITCHOVER_IN_PROGRESS)
        if left is not None:
            left.status = "SWITCHOVER_FAILED"
        self._note("endpoints_flipped")

    def _swap(self, held: Any, kind: str, field: str, blue: Any, green: Any, number: int) -> None:
        name, past = getattr(blue, field), getattr(green, field)
        old = f"{name}-old{number}"
        for key in (name, past):
            held.pop(key)
        for resource, identifier in ((blue, old), (green, name)):
            setattr(resource, field, identifier)
            held[identifier] = resource
        for each in (kind, "reader") if kind == "cluster" else (kind,):
            self.plane.swap(each, name, past, old)
        blue.port, green.port = self.plane.endpoint(kind, old).port, self.plane.endpoint(kind, name).port

    def _left_behind(self) -> Pair | None:
        readers = [pair for pair in self.pairs if pair is not self.writer]
        return readers[-1] if readers and self.plane.fault("member_fails") else None

    def _allow_writes(self, green: Server) -> None:
        green.sql("SET GLOBAL super_read_only = 0")
        green.sql("SET GLOBAL read_only = 0")
        for endpoint in self._endpoints(both=True):
            endpoint.serve()
        self._note("writes_allowed", rolled_back=False)
        self._topology("SWITCHOVER_COMPLETED")
        failed = [pair for pair in self.pairs if pair.status == "SWITCHOVER_FAILED"]
        self.set_status(State.SWITCHOVER_COMPLETED)
        for pair in failed:
            pair.status = "SWITCHOVER_FAILED"
        self.status_details = "Switchover completed"
        self._announce("completed")

    def _endpoints(self, both: bool) -> list[Any]:
        sides = ("blue", "green") if both else ("blue",)
        found = [
            self.plane.endpoint("db", getattr(pair, side).db_instance_identifier)
            for pair in self.pairs
            for side in sides
        ]
        if self.is_cluster:
            names = [getattr(self, side).db_cluster_identifier for side in sides]
            found += [self.plane.endpoint(kind, name) for kind in ("cluster", "reader") for name in names]
        return found

    def _new_server(self, instance: Any) -> Server:
        server = self.backend.new_server(instance, is_replica=True)
        for name in DURABLE:  # the copy may be lost with the machine, as it would be made anew
            server.sql(f"SET GLOBAL {name.replace('-', '_')} = 0")
        return server  # type: ignore[no-any-return]

    @staticmethod
    def _make_durable(server: Server) -> None:
        for name in DURABLE:
            server.sql(f"SET GLOBAL {name.replace('-', '_')} = {server.option(name)}")

    def _keep_faults(self) -> None:
        """Follow the switch for replica lag as long as green is a replica of blue."""
        delay = 0
        while not self.ended.wait(POLL_S) and self.status != "SWITCHOVER_COMPLETED":
            wanted = int(self.plane.fault("replica_lag_s"))
            server = self.plane.servers.get(self.writer.green.dbi_resource_id)
            if server is None:
                return
            if wanted != delay and self.status != "SWITCHOVER_IN_PROGRESS":
                with (
                    contextlib.suppress(MySQLdb.Error),
                    server.cursor() as cursor,
                ):  # it restarts, or is deleted just now
                    cursor.execute("STOP SLAVE SQL_THREAD")
                    cursor.execute(f"CHANGE MASTER TO MASTER_DELAY = {wanted}")
                    cursor.execute("START SLAVE SQL_THREAD")
                    delay = wanted

    def _task(self, name: str, status: str) -> None:
        for task in self.tasks:
            if task.Name == name:
                task.Status = status

    def _event(self, category: str, message: str) -> None:
        identifier = self.blue_green_deployment_identifier
        self.backend.record(identifier, self.arn, "blue-green-deployment", category, message)

    def _announce(self, what: str, reason: str = "") -> None:
        """Events of a switchover: those of the deployment, and of the clusters when it is about clusters."""
        category = {"started": "notification", "completed": "notification", "canceled": "failure"}[what]
        because = f" due to {reason}" if reason else ""
        self._event(
            category, f"Switchover {'was canceled' if what == 'canceled' else what} on blue/green deployment{because}"
        )
        if self.is_cluster:
            blue, green = self.blue.db_cluster_identifier, self.green.db_cluster_identifier
            verb = "was canceled" if what == "canceled" else what
            self.backend.record(blue, self.blue.arn, "db-cluster", category,
                                f"Switchover from DB cluster {blue} to {green} {verb}{because}")  # fmt: skip

    def _topology(self, status: str) -> None:
        """What a client sees of the deployment in `mysql.rds_topology`; Aurora MySQL 2 has no such table."""
        rows = [
            (side.upper(), config.HOST, getattr(self.writer, side).port, f"BLUE_GREEN_DEPLOYMENT_{role}", status, "1.0")
            for side, role in (("blue", "SOURCE"), ("green", "TARGET"))
        ]
        for instance in (self.writer.blue, self.writer.green):
            server = self.server(instance)
            if server.is_80 or not self.is_cluster:
                with (
                    contextlib.suppress(MySQLdb.Error),
                    server.cursor() as cursor,
                ):  # super_read_only holds the lab as well
                    cursor.executemany("REPLACE INTO mysql.rds_topology VALUES (%s, %s, %s, %s, %s, %s)", rows)

    def _note(self, event: str, **facts: Any) -> None:
        self.plane.note(event, deployment=self.blue_green_deployment_identifier, **facts)

    def _require_supported(self, blue: Any, version: str | None) -> None:
        """Raise the fault with which AWS refuses a source."""
        is_cluster = isinstance(blue, models.DBCluster)
        members = blue.members if is_cluster else [blue]
        if reason := self._unsupported(blue, members, is_cluster):
            fault = "SourceClusterNotSupportedFault" if is_cluster else "SourceDatabaseNotSupportedFault"
            raise RDSClientError(fault, f"{blue.arn} isn't supported for a blue/green deployment: {reason}.")
        if version and not catalogue.known(blue.engine, version):
            raise InvalidParameterCombination(f"Cannot find version {version} for {blue.engine}")
        order = catalogue.VERSIONS[blue.engine]
        if version and order.index(version) < order.index(blue.engine_version):
            raise InvalidParameterCombination(f"Cannot upgrade {blue.engine} from {blue.engine_version} to {version}")

    def _unsupported(self, blue: Any, members: list[Any], is_cluster: bool) -> str:
        """Why a source has no blue/green deployment, or ""."""
        if any(blue.arn in (other.source, other.target) for other in self.backend.blue_green_deployments.values()):
            return "it is part of another deployment"
        if waiting := [each.db_instance_identifier for each in members if each.status != "available"] or not members:
            return f"its instances are not available ({waiting})"
        kinds = ("cluster", "instance") if is_cluster else ("instance",)
        for member, kind in itertools.product(members, kinds):
            if parameters.status(member, kind) != "in-sync":
                return f"{member.db_instance_identifier} is not in sync with its {kind} parameter group; reboot it"
        writer = next((member for member in members if getattr(member, "is_cluster_writer", True)), members[0])
        if parameters.value(writer, "binlog_format") == "OFF":
            return "binary logging is off; set binlog_format in a custom DB cluster parameter group"
        if not blue.backup_retention_period:
            return "automated backups are off"
        if self.server(writer).rows("SHOW SLAVE STATUS"):
            return "it is a replica of an external server"
        return "a database has the name tmp" if self.server(writer).sql("SHOW DATABASES LIKE 'tmp'") else ""

    def _choose_groups(self, blue: Any, asked: dict[str, Any]) -> None:
        """Parameter groups of green: those asked for, blue's own, or after a major upgrade the default ones of the new family."""
        version = asked.get("target_engine_version") or blue.engine_version
        family = catalogue.family(blue.engine, version)
        if family != catalogue.family(blue.engine, blue.engine_version):
            for name in ("target_db_parameter_group_name", "target_db_cluster_parameter_group_name"):
                asked.setdefault(name, f"default.{family}")
        if name := asked.get("target_db_parameter_group_name"):
            parameters.require_family(parameters.instance_group(self.backend, name), blue.engine, version)
        if isinstance(blue, models.DBCluster) and (name := asked.get("target_db_cluster_parameter_group_name")):
            parameters.require_family(parameters.cluster_group(self.backend, name), blue.engine, version)


def _writers(server: Server, age_s: float) -> str:
    """Sessions that hold writes or run a write or DDL for at least so many seconds, in words; "" when there is none."""
    found = server.rows(
        "SELECT p.id, p.user, GREATEST(IFNULL(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), 0), IF(p.command = 'Query', p.time, 0)) AS age, "
        "IFNULL(t.trx_rows_modified, 0) AS modified, LEFT(IFNULL(p.info, 'idle in transaction'), 100) AS statement "
        "FROM information_schema.processlist p LEFT JOIN information_schema.innodb_trx t ON t.trx_mysql_thread_id = p.id "
        "WHERE p.user NOT IN (%s, 'system user', 'event_scheduler') "
        "AND (t.trx_rows_modified > 0 OR p.command = 'Query' AND p.info REGEXP %s) "
        "HAVING age >= %s ORDER BY age DESC",
        (ADMIN, WRITES, age_s),
    )
    return "; ".join("connection {id} of {user}, {age} s, {modified} rows: {statement}".format(**row) for row in found)


def _kill_clients(server: Server) -> None:
    for row in server.rows(
        "SELECT id FROM information_schema.processlist WHERE user NOT IN (%s, 'system user', 'event_scheduler')",
        (ADMIN,),
    ):
        try:
            server.sql(f"KILL {row['id']}")
        except MySQLdb.OperationalError as error:
            if error.args[0] != 1094:  # it ended by itself
                raise
