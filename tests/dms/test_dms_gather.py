"""Reading a source whose kind the lab does not have: Aurora, MySQL 8.4, a server of RDS that our login may ask nothing."""

from __future__ import annotations

from typing import Any

import MySQLdb
import pytest

from dbops.dms import source
from dbops.dms.facts import NEVER, SourceFacts
from tests.dms.dms_kit import spec

DENIED = MySQLdb.OperationalError(1142, "SELECT command denied")
NO_ROUTINE = MySQLdb.OperationalError(1370, "execute command denied")
NO_CLIENT = MySQLdb.OperationalError(1227, "you need (at least one of) the SUPER, REPLICATION CLIENT privilege(s)")
LOGS = [
    {"Log_name": "mysql-bin-changelog.000007", "File_size": 134},
    {"Log_name": "mysql-bin-changelog.000008", "File_size": 99},
]


class Scripted:
    """A connection whose answers are found by a part of the statement; the first that fits."""

    def __init__(self, variables: dict[str, str], **answers: Any) -> None:
        head = {"version": variables["version"], "server_uuid": "u", "read_only": 0, "innodb_read_only": 0, "log_bin": 1,
                "binlog_format": "ROW", "max_allowed_packet": 1}  # fmt: skip
        rows = [{"Variable_name": name, "Value": value} for name, value in variables.items()]
        self.answers = {
            **answers, "variable_name_in": rows, "aurora_version": [{"a": 1}] if "aurora_version" in variables else [],
            "@@server_uuid": [head],
        }  # fmt: skip
        self.asked: list[str] = []
        self.description: list[tuple[str]] = []
        self.found: list[tuple[Any, ...]] = []

    def cursor(self) -> Scripted:
        return self

    def get_server_info(self) -> str:
        return "8.0"

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def execute(self, statement: str, args: Any = None) -> None:
        self.asked.append(statement)
        key = next((key for key in self.answers if key.lower() in statement.lower().replace(" ", "_")), None)
        rows = self.answers[key] if key else []
        if isinstance(rows, Exception):
            raise rows
        self.description = [(name,) for name in rows[0]] if rows else [("nothing",)]
        self.found = [tuple(row.values()) for row in rows]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.found

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.found[0] if self.found else None

    def nextset(self) -> bool:
        return False


def gathered(variables: dict[str, str], **answers: Any) -> SourceFacts:
    return source.gather(Scripted({"version": "8.0.36", **variables}, **answers), spec())


def shown(hours: Any) -> list[dict[str, Any]]:
    return [
        {"name": "binlog retention hours", "value": hours, "description": ""},
        {"name": "other", "value": 1, "description": ""},
    ]


def test_aurora_shows_its_configuration_by_a_procedure() -> None:
    found = gathered(
        {"aurora_version": "3.04.0", "innodb_read_only": "ON"}, show_binary_logs=LOGS, rds_configuration_where=DENIED,
        call_mysql=shown("48"),
    )  # fmt: skip
    assert (found.is_aurora, found.is_aurora_reader, found.is_managed, found.retention_hours) == (True, True, True, 48)
    assert found.binary_logs == ("mysql-bin-changelog.000007", "mysql-bin-changelog.000008")


@pytest.mark.parametrize(
    "variables", [{"aurora_version": "2.11.2"}, {"basedir": "/rdsdbbin/mysql-8.0.36.R1/"}], ids=["aurora", "rds"]
)
def test_a_managed_server_that_tells_nothing_has_an_unknown_retention(variables: dict[str, str]) -> None:
    """Its variables say how long logs would be kept elsewhere, and must not be believed."""
    found = gathered(
        {**variables, "binlog_expire_logs_seconds": "2592000"}, rds_configuration_where=DENIED, call_mysql=NO_ROUTINE
    )
    assert (found.is_managed, found.retention_hours) == (True, None)


def test_a_configuration_without_the_row_is_unknown() -> None:
    assert gathered({}, rds_configuration_where=[]).retention_hours is None


@pytest.mark.parametrize(
    ("variables", "hours"),
    [
        ({"binlog_expire_logs_seconds": "7200", "expire_logs_days": "3"}, 2),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "3"}, 72),
        ({"binlog_expire_logs_seconds": "0", "expire_logs_days": "0"}, NEVER),
        ({"expire_logs_days": "1"}, 24),
        ({"binlog_expire_logs_seconds": "7200", "binlog_expire_logs_auto_purge": "OFF"}, NEVER),
        ({}, NEVER),
    ],
)
def test_how_long_a_server_of_ones_own_keeps_the_log(variables: dict[str, str], hours: float) -> None:
    found = gathered(variables, rds_configuration_where=DENIED, call_mysql=NO_ROUTINE)
    assert (found.is_managed, found.retention_hours) == (False, hours)


@pytest.mark.parametrize(
    ("version", "replica", "log"),
    [
        ("5.7.22-log", "SHOW SLAVE STATUS", "SHOW MASTER STATUS"),
        ("8.0.21", "SHOW SLAVE STATUS", "SHOW MASTER STATUS"),
        ("8.0.36", "SHOW REPLICA STATUS", "SHOW MASTER STATUS"),
        ("8.4.2", "SHOW REPLICA STATUS", "SHOW BINARY LOG STATUS"),
    ],
)
def test_commands_are_those_of_the_version(version: str, replica: str, log: str) -> None:
    connection = Scripted(
        {"version": version}, show_replica_status=[{"Seconds_Behind_Source": 3}],
        show_slave_status=[{"Seconds_Behind_Master": 3}],
        show_master_status=[{"Binlog_Do_DB": "shop,crm", "Binlog_Ignore_DB": ""}],
        show_binary_log_status=[{"Binlog_Do_DB": "shop,crm", "Binlog_Ignore_DB": ""}],
    )  # fmt: skip
    found = source.gather(connection, spec())
    assert {replica, log} <= set(connection.asked)
    assert (found.is_replica, found.replica_lag_s, found.log_filters) == (True, 3, (("shop", "crm"), ()))


def test_what_is_denied_is_unknown_and_a_server_that_is_gone_is_an_error() -> None:
    found = gathered({}, show_binary_logs=NO_CLIENT, status=NO_CLIENT, file_summary=DENIED)
    assert (found.logs, found.log_filters, found.is_replica, found.log_bytes_per_s) == (None, None, None, None)
    gone = MySQLdb.OperationalError(2013, "Lost connection to MySQL server during query")
    for part in (
        "show_binary_logs",
        "show_replica_status",
        "show_master_status",
        "file_summary",
        "rds_configuration_where",
    ):
        with pytest.raises(MySQLdb.OperationalError, match="Lost connection"):
            gathered({}, **{part: gone})
    assert source.binary_logs(Scripted({"version": "8.0.36"}, show_binary_logs=gone)) is None


@pytest.mark.parametrize("login", ["dms@10.%", "'dms'@'10.%'", "`dms`@`10.%`"])
def test_a_login_is_written_as_in_mysql(login: str) -> None:
    connection = Scripted({"version": "8.0.36"}, show_grants_for=[{"g": "GRANT USAGE ON *.* TO `dms`@`10.%`"}])
    found = source.read_login(connection, login, {})
    assert [one.name for one in found.accounts or ()] == ["'dms'@'10.%'"]
    assert connection.asked[-1] == "SHOW GRANTS FOR 'dms'@'10.%'"
