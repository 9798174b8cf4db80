"""A MySQL server as the source of DMS: what decides whether it can be read, and whether it is so.

:func:`gather` reads status, definitions and, within a budget, the longest values of LOB columns; it changes nothing. :func:`check` judges.
What our login may not read is None in the facts, and :mod:`checks` holds it against the server and names the grant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from dbops import mysql, sql
from dbops.dms import checks, lobs, mappings
from dbops.dms.facts import Account, BinaryLog, Check, Login, SourceFacts, SourceTable
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec
from dbops.dms.states import Endpoint

BUDGET_S = 60.0
"""How long the longest values of all LOB columns are looked for."""
VARIABLES = (
    "activate_all_roles_on_login", "aurora_enhanced_binlog", "aurora_version", "basedir", "binlog_checksum",
    "binlog_expire_logs_auto_purge", "binlog_expire_logs_seconds", "binlog_format", "binlog_row_image",
    "binlog_row_value_options", "binlog_transaction_compression", "expire_logs_days", "gtid_mode", "innodb_read_only",
    "log_bin", "log_replica_updates", "log_slave_updates", "lower_case_table_names", "max_allowed_packet", "max_execution_time",
    "net_read_timeout", "net_write_timeout", "read_only", "require_secure_transport", "server_id", "system_time_zone",
    "time_zone", "version", "version_comment", "wait_timeout",
)  # fmt: skip
_NO_LOG, _NO_GRANT = 1381, 1141


def gather(
    connection: Any,
    spec: DmsSpec,
    *,
    login: str | None = None,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> SourceFacts:
    """Everything that decides whether this server can be the source of the spec.

    Args:
        connection: of our login, in autocommit
        spec: whose mappings select the tables
        login: the one in DMS's secret, ``dms`` or ``dms@10.%``; None when nobody names it
        budget_s: how long all LOB columns are measured; the server itself ends a statement that would take longer
        clock: seconds that only grow

    Raises:
        MySQLdb.Error: the server is not there
    """
    variables = mysql.global_variables(connection, VARIABLES)
    logs = _logs(connection)
    is_replica, lag_s = _replica(connection)
    retention, is_managed = mysql.log_retention(connection, variables)
    tables = _names(connection)
    facts = SourceFacts(
        version=variables["version"],
        variables=variables,
        is_managed=is_managed,
        tables=tables,
        selected=read_tables(connection, mappings.selected(spec.rules, tables)),
        logs=logs,
        log_filters=_log_filters(connection),
        retention_hours=retention,
        is_replica=is_replica,
        replica_lag_s=lag_s,
        log_bytes_per_s=_log_rate(connection),
        own_grants=mysql.own_grants(connection),
        login=None if login is None else read_login(connection, login, variables),
    )
    measured = lobs.measure(connection, facts.selected, version=facts.version, budget_s=budget_s, clock=clock)
    return replace(facts, selected=measured)


def binary_logs(connection: Any) -> tuple[str, ...] | None:
    """Names of the binary logs that the server still has, oldest first; none when it writes none, None when it does not say."""
    import MySQLdb

    try:
        logs = _logs(connection)
    except MySQLdb.Error:
        return None
    return None if logs is None else tuple(log.name for log in logs)


def check(
    spec: DmsSpec,
    facts: SourceFacts,
    *,
    source_settings: Mapping[str, Any] | None = None,
    target_settings: Mapping[str, Any] | None = None,
    engine_version: str = "",
    bytes_per_s: float | None = None,
) -> tuple[Check, ...]:
    """What was looked at, stops first; among it what the linter says because of the tables, under the ids of its rules.

    Args:
        spec: what is declared; its overrides may name ids of these checks as well
        facts: from :func:`gather`
        source_settings: of a source endpoint that exists, from :func:`endpoint_settings`
        target_settings: of a target endpoint that exists
        engine_version: of the replication instance; "" when nobody knows it
        bytes_per_s: how fast a load of this task was measured to read; None: :data:`checks.ASSUMED_BYTES_PER_S`
    """
    return checks.of_source(
        spec,
        facts,
        source_settings=source_settings,
        target_settings=target_settings,
        engine_version=engine_version,
        bytes_per_s=bytes_per_s,
    )


def endpoint_settings(endpoint: Endpoint) -> dict[str, Any]:
    """Settings of an endpoint that exists, as :func:`check` takes them: with its extra connection attributes."""
    return {**dict(endpoint.settings), checks.EXTRA: endpoint.extra_attributes}


def read_tables(connection: Any, names: Iterable[Table]) -> tuple[SourceTable, ...]:
    """Definitions of base tables, sorted, in four statements whatever their number; one that is not there is left out."""
    wanted = set(names)
    if not wanted:
        return ()
    if not connection.get_server_info().startswith("5."):
        with connection.cursor() as cursor:
            # 8.0 answers from a cache of up to a day; 5.7 has neither the cache nor the variable.
            cursor.execute("SET SESSION information_schema_stats_expiry = 0")
    columns, indexes, cascades = (
        grouped(connection, name, wanted) for name in ("dms/columns", "dms/indexes", "dms/cascades")
    )
    return tuple(
        sorted(
            (
                _table(table, row, columns.get(table, []), indexes.get(table, []), cascades.get(table, []))
                for table, (row,) in grouped(connection, "dms/sizes", wanted).items()
            ),
            key=lambda one: one.table,
        )
    )


def read_login(connection: Any, login: str, variables: Mapping[str, str]) -> Login:
    """What a login is granted, with the roles that are active when it comes in; unknown when our login may not ask.

    Args:
        connection: of our login
        login: name of a user, ``dms``, whose accounts for all hosts are read, or of one account, ``dms@10.%``
        variables: global ones, for the roles
    """
    import MySQLdb

    user, host = _split(login)
    try:
        hosts = [host] if host else _hosts(connection, user)
        if not hosts:
            return Login(login, (), "there is no account of that name")
        accounts = [_account(connection, user, one, variables) for one in hosts]
    except MySQLdb.Error as error:
        if error.args[0] == _NO_GRANT:
            return Login(login, (), "there is no account of that name")
        if error.args[0] not in mysql.DENIED:
            raise
        return Login(login, None, str(error.args[-1]))
    return Login(login, tuple(accounts))


# Server --------------------------------------------------------------------------------------------------------------


def _logs(connection: Any) -> tuple[BinaryLog, ...] | None:
    import MySQLdb

    try:
        found = mysql.asked(connection, "SHOW BINARY LOGS")
    except MySQLdb.Error as error:
        if error.args[0] != _NO_LOG:
            raise
        return ()
    return None if found is None else tuple(BinaryLog(row["Log_name"], int(row["File_size"])) for row in found)


def _log_filters(connection: Any) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    import MySQLdb

    try:
        row = mysql.log_status(connection)
    except MySQLdb.Error as error:
        if error.args[0] not in mysql.DENIED:
            raise
        return None
    named = row or {}
    return _words(named.get("Binlog_Do_DB")), _words(named.get("Binlog_Ignore_DB"))


def _words(listed: Any) -> tuple[str, ...]:
    return tuple(word for word in str(listed or "").split(",") if word)


def _replica(connection: Any) -> tuple[bool | None, float | None]:
    """Whether it is a replica, None when unknown, and its lag, None when replication does not run."""
    import MySQLdb

    try:
        status = mysql.replica_status(connection)
    except MySQLdb.Error as error:
        if error.args[0] not in mysql.DENIED:
            raise
        return None, None
    if status is None:
        return False, None
    lag = status["Seconds_Behind_Source"]
    return True, None if lag is None else float(lag)


def _log_rate(connection: Any) -> float | None:
    found = mysql.asked(connection, sql.render("dms/log_rate"))
    return float(found[0]["bytes_per_s"]) if found else None


# Tables --------------------------------------------------------------------------------------------------------------


def _names(connection: Any) -> tuple[Table, ...]:
    found = mysql.rows(connection, sql.render("dms/base_tables"))
    return tuple(Table(text(row["table_schema"]), text(row["table_name"])) for row in found)


def grouped(connection: Any, statement: str, wanted: set[Table]) -> dict[Table, list[dict[str, Any]]]:
    """Rows of the wanted tables in their order, from a statement that takes schemas and returns table_schema and table_name."""
    schemas = tuple(sorted({table.schema for table in wanted}))
    found: dict[Table, list[dict[str, Any]]] = {}
    for row in mysql.rows(connection, sql.render(statement), {"schemas": schemas}):
        table = Table(text(row.pop("table_schema")), text(row.pop("table_name")))
        if table in wanted:
            found.setdefault(table, []).append(row)
    return found


def _table(
    table: Table,
    size: dict[str, Any],
    columns: list[dict[str, Any]],
    indexes: list[dict[str, Any]],
    cascades: list[dict[str, Any]],
) -> SourceTable:
    is_partitioned = bool(size.pop("is_partitioned"))
    engine = text(size.pop("engine"))
    invisible = tuple(text(row["name"]) for row in columns if row["is_invisible"])
    described = [{k: v for k, v in row.items() if k != "is_invisible"} for row in columns]
    shape = mysql.Table(
        schema=table.schema,
        name=table.name,
        engine=engine,
        **{name: int(value or 0) for name, value in size.items()},
        columns=tuple(mysql.column_of({**row, "column_type": text(row["column_type"])}) for row in described),
        indexes=tuple(
            mysql.index_of(name, list(parts)) for name, parts in groupby(indexes, lambda row: text(row["index_name"]))
        ),
    )
    return SourceTable(shape, is_partitioned, invisible, tuple(_cascade(row) for row in cascades))


def _cascade(row: Mapping[str, Any]) -> str:
    rules = [
        f"ON {event} {row[key]}"
        for event, key in (("DELETE", "delete_rule"), ("UPDATE", "update_rule"))
        if row[key] in ("CASCADE", "SET NULL")
    ]
    return f"{text(row['name'])} ({', '.join(rules)})"


def text(value: Any) -> str:
    """Text of a cell; names and sums may come as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


# Login ---------------------------------------------------------------------------------------------------------------


def _split(login: str) -> tuple[str, str]:
    """User and host of ``dms``, ``dms@10.%`` or ``'dms'@'10.%'``; the host is "" when there is none."""
    user, at, host = login.rpartition("@")
    if not at:
        user, host = login, ""
    return user.strip("'`\""), host.strip("'`\"")


def _hosts(connection: Any, user: str) -> list[str]:
    ours, _, host = str(mysql.scalar(connection, "SELECT CURRENT_USER()")).rpartition("@")
    found = mysql.asked(connection, "SELECT Host AS host FROM mysql.user WHERE User = %s ORDER BY Host", (user,))
    if found is None:  # we may ask for ourselves, and the commonest account is worth a try
        return [host] if ours == user else ["%"]
    return [text(row["host"]) for row in found]


def _account(connection: Any, user: str, host: str, variables: Mapping[str, str]) -> Account:
    named = f"{sql.lit(user)}@{sql.lit(host)}"
    if mysql.scalar(connection, "SELECT CURRENT_USER()") == f"{user}@{host}":
        return Account(named, mysql.own_grants(connection))
    statement = f"SHOW GRANTS FOR {named}"
    grants = _lines(connection, statement)
    roles = _roles(connection, user, host, grants, variables)
    return Account(named, _lines(connection, f"{statement} USING {', '.join(roles)}") if roles else grants)


def _lines(connection: Any, statement: str) -> tuple[str, ...]:
    return tuple(text(next(iter(row.values()))) for row in mysql.rows(connection, statement))


def _roles(
    connection: Any, user: str, host: str, grants: Iterable[str], variables: Mapping[str, str]
) -> tuple[str, ...]:
    """Roles of an account that are active after a login; 5.7 has none."""
    if "activate_all_roles_on_login" not in variables:
        return ()
    given = [role for line in grants for role in _granted_roles(line)]
    if not given or variables["activate_all_roles_on_login"].upper() in ("ON", "1"):
        return tuple(given)
    statement = "SELECT DEFAULT_ROLE_USER AS user, DEFAULT_ROLE_HOST AS host FROM mysql.default_roles WHERE USER = %s AND HOST = %s"
    found = mysql.rows(connection, statement, (user, host))
    return tuple(f"{sql.ident(text(row['user']))}@{sql.ident(text(row['host']))}" for row in found)


def _granted_roles(line: str) -> list[str]:
    """Roles of a line like ``GRANT `reader`@`%`,`writer`@`%` TO `dms`@`%```; a line that grants privileges has ON."""
    head, to, _ = line.removeprefix("GRANT ").rpartition(" TO ")
    return head.split(",") if to and line.startswith("GRANT `") and " ON " not in head else []
