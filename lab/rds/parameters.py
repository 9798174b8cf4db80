"""Parameter groups: what a family has, what of a group reaches mysqld, and whether it has already.

Names and defaults are those that the family's mysqld itself lists. A change reaches a running server at once where MySQL allows it and the
caller asked for it; everything else waits for the reboot, and until then the group is ``pending-reboot``.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from typing import Any

import MySQLdb
from moto.rds import models
from moto.rds.exceptions import (
    DBClusterParameterGroupNotFoundError,
    DBParameterGroupNotFoundError,
    InvalidParameterCombination,
    InvalidParameterValue,
    RDSClientError,
)

from lab.rds import catalogue, server
from lab.rds.server import Server

READ_ONLY_VARIABLE = 1238
STATIC = {"binlog_format", "lower_case_table_names", "innodb_log_file_size", "performance_schema"}
# What a DBA may set; the other options of `server.OPTIONS` hold the lab itself together.
FREE = {
    "binlog-format", "binlog-row-image", "binlog-checksum", "event-scheduler", "character-set-server", "collation-server",
    "max-allowed-packet", "max-connections", "performance-schema", "sync-binlog", "innodb-flush-log-at-trx-commit",
    "innodb-log-file-size", "local-infile",
}  # fmt: skip
PROTECTED = ({*server.OPTIONS, *server.OPTIONS_57, *server.OPTIONS_80} - FREE) | {
    "basedir", "datadir", "tmpdir", "plugin-dir", "lc-messages-dir", "port", "user", "init-file", "server-id", "read-only",
    "super-read-only",
    "log-error", "general-log-file", "slow-query-log-file", "innodb-data-home-dir", "innodb-log-group-home-dir", "innodb-undo-directory",
    "log-bin-index", "relay-log-index", "default-time-zone", "innodb-buffer-pool-size",
}  # fmt: skip


def defaults(family: str) -> dict[str, str | None]:
    """Every parameter of a family with its value in the lab, by name with underscores."""
    engine, version = family[:-3], family[-3:]
    extra = server.OPTIONS_80 if version == "8.0" else server.OPTIONS_57
    found = {
        **_listed(version),
        **{name.replace("-", "_"): value for name, value in {**server.OPTIONS, **extra}.items()},
    }
    # Aurora's readers and the green side need no binary log, so it is off there; what the lab copies through is not a matter of the API.
    binlog = "OFF" if engine == "aurora-mysql" else "MIXED" if version == "5.7" else "ROW"
    return {**found, "binlog_format": binlog, "lower_case_table_names": "0", "time_zone": "UTC"}


@functools.cache
def _listed(version: str) -> dict[str, str | None]:
    """What ``mysqld --verbose --help`` of a series says of its variables."""
    base = server.artifacts.unpacked(server.engine(f"{version}.0").artifact)
    command = [str(base / "bin" / "mysqld"), "--no-defaults", "--user=root", f"--lc-messages-dir={base / 'share'}"]
    done = subprocess.run([*command, "--verbose", "--help"], capture_output=True, text=True, check=True)
    rows = done.stdout.partition("\n-----")[2].splitlines()[1:]
    pairs = [row.split(None, 1) for row in rows[: rows.index("")] if row]
    return {name.replace("-", "_"): _value(rest[0] if rest else "") for name, *rest in pairs}


def _value(text: str) -> str | None:
    return None if text == "(No default value)" else {"TRUE": "1", "FALSE": "0"}.get(text, text)


def described(group: Any, family: str, source: str | None) -> list[dict[str, Any]]:
    """`Parameters` of a group: all of its family, the user's own values over them."""
    mine = {name: entry.get("ParameterValue") for name, entry in group.parameters.items()}
    rows = [
        {
            "ParameterName": name,
            "ParameterValue": mine.get(name, value),
            "Source": "user"
            if name in mine
            else "system"
            if name.replace("_", "-") in server.OPTIONS
            else "engine-default",
            "ApplyType": "static" if name in STATIC else "dynamic",
            "ApplyMethod": group.parameters[name].get("ApplyMethod", "pending-reboot")
            if name in mine
            else "pending-reboot",
            "DataType": "string",
            "IsModifiable": name.replace("_", "-") not in PROTECTED,
        }
        for name, value in sorted(defaults(family).items())
    ]
    return [row for row in rows if source in (None, row["Source"])]


def require_valid(family: str, changes: list[dict[str, Any]]) -> None:
    """Refuse what AWS refuses: a parameter that the family does not have, and a static one that is to change at once."""
    known = defaults(family)
    for change in changes:
        name = change["ParameterName"]
        if name not in known:
            raise InvalidParameterValue(f"Could not find parameter with name: {name}")
        if name in STATIC and change.get("ApplyMethod") == "immediate":
            raise InvalidParameterCombination(f"cannot use immediate apply method for static parameter: {name}")


def wanted(database: Any) -> dict[str, tuple[str, dict[str, str]]]:
    """Name and own values of the groups of an instance: ``cluster`` and ``instance``."""
    backend, cluster = database.backend, getattr(database, "cluster", None)
    groups = {"instance": database.db_parameter_groups()[0]}
    if cluster is not None:
        groups["cluster"] = cluster_group(backend, cluster.parameter_group)
    return {kind: (group.name, _own(group)) for kind, group in groups.items()}


def _own(group: Any) -> dict[str, str]:
    return {name: str(entry["ParameterValue"]) for name, entry in group.parameters.items() if "ParameterValue" in entry}


def status(database: Any, kind: str) -> str:
    """``in-sync``, or ``pending-reboot`` when the server was started with other values."""
    now, then = wanted(database)[kind], getattr(database, "applied", {}).get(kind)
    return "in-sync" if then in (None, now) else "pending-reboot"


def value(database: Any, name: str) -> str | None:
    """What a parameter is in the server as it runs, by the groups that it was started with."""
    family = catalogue.family(database.engine, database.engine_version)
    applied = getattr(database, "applied", {})
    own = {**applied.get("cluster", ("", {}))[1], **applied.get("instance", ("", {}))[1]}
    return own.get(name, defaults(family).get(name))


def start_options(database: Any) -> dict[str, str]:
    """Options of mysqld for an instance, which from now on counts as in sync."""
    database.applied = wanted(database)
    own = {name: text for _, values in database.applied.values() for name, text in values.items()}
    family = catalogue.family(database.engine, database.engine_version)
    own.setdefault("binlog_format", str(defaults(family)["binlog_format"]))
    return {
        f"loose-{name.replace('_', '-')}": text
        for name, text in own.items()
        if name.replace("_", "-") not in PROTECTED
        and text
        and "{" not in text
        and (name, text) != ("binlog_format", "OFF")
    } | ({"default-time-zone": own["time_zone"].replace("UTC", "+00:00")} if "time_zone" in own else {})


def apply_now(running: Server, database: Any, kind: str, changes: list[dict[str, Any]]) -> None:
    """Set on a running server what the caller wants at once."""
    name, values = database.applied[kind]
    for change in changes:
        parameter, text = change["ParameterName"], str(change["ParameterValue"])
        if change.get("ApplyMethod") != "immediate" or parameter.replace("_", "-") in PROTECTED:
            continue
        try:
            running.sql(f"SET GLOBAL {parameter} = {text if text.lstrip('-').isdecimal() else running.quoted(text)}")
        except MySQLdb.Error as error:
            static = error.args[0] == READ_ONLY_VARIABLE
            what = (
                "cannot use immediate apply method for static parameter"
                if static
                else f"Invalid value {text} of parameter"
            )
            raise InvalidParameterCombination(f"{what}: {parameter} ({error.args[1]})") from error
        values = {**values, parameter: text}
    database.applied = {**database.applied, kind: (name, values)}


def cluster_group(backend: Any, name: str) -> Any:
    """A cluster parameter group; the default one of a family comes into being when it is asked for."""
    if name in backend.db_cluster_parameter_groups:
        return backend.db_cluster_parameter_groups[name]
    family = _default_of(name)
    if not family or not family.startswith("aurora"):
        raise DBClusterParameterGroupNotFoundError(name)
    group = models.DBClusterParameterGroup(backend, name, f"Default cluster parameter group for {family}", family)
    backend.db_cluster_parameter_groups[name] = group
    return group


def instance_group(backend: Any, name: str) -> Any:
    """An instance parameter group; as `cluster_group`."""
    if name in backend.db_parameter_groups:
        return backend.db_parameter_groups[name]
    family = _default_of(name)
    if not family:
        raise DBParameterGroupNotFoundError(name)
    group = models.DBParameterGroup(backend, name, f"Default parameter group for {family}", family)
    backend.db_parameter_groups[name] = group
    return group


def _default_of(name: str) -> str:
    """Family of a default group's name, or ""."""
    families = {catalogue.family(engine, each) for engine, each in catalogue.DEFAULTS.items()}
    families |= {family[:-3] + "5.7" for family in families}
    family = name.removeprefix("default.")
    return family if name.startswith("default.") and family in families else ""


def require_family(group: Any, engine: str, version: str) -> None:
    has, needs = getattr(group, "db_parameter_group_family", None) or group.family, catalogue.family(engine, version)
    if has != needs:
        raise InvalidParameterCombination(
            f"The Parameter Group {group.name} with DBParameterGroupFamily {has} can't be used for this instance. "
            f"Please use a Parameter Group with DBParameterGroupFamily {needs}"
        )


def require_changeable(group: Any, users: Mapping[str, Any] | None = None) -> None:
    """Refuse to change or delete a default group, or to delete one with members."""
    if group.name.startswith("default."):
        raise RDSClientError(
            "InvalidDBParameterGroupStateFault", f"Default parameter group {group.name} cannot be changed or deleted."
        )
    if users:
        raise RDSClientError(
            "InvalidDBParameterGroupStateFault",
            f"One or more database instances are still members of this parameter group {group.name}, "
            "so the group cannot be deleted",
        )
