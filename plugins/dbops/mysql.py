"""Facts about a MySQL or Aurora MySQL server that more than one room needs.

Plain functions over an open DB-API connection (see :func:`dbops.connections.mysql`); nothing here knows Airflow.
Reads ``information_schema`` and status only; the statements are in ``include/sql/mysql``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from dbops import sql


class MySqlFactError(RuntimeError):
    """A fact that a decision depends on could not be read; the message says which and why."""


@dataclass(frozen=True)
class Column:
    """One column as ``information_schema.COLUMNS`` describes it."""

    name: str
    data_type: str
    column_type: str
    nullable: bool
    charset: str | None = None
    collation: str | None = None
    max_chars: int | None = None
    max_octets: int | None = None
    numeric_precision: int | None = None
    numeric_scale: int | None = None
    is_generated: bool = False
    is_auto_increment: bool = False

    @property
    def unsigned(self) -> bool:
        """True for UNSIGNED (and ZEROFILL, which implies it) integer columns."""
        return "unsigned" in self.column_type.lower()


@dataclass(frozen=True)
class Index:
    """One index; ``columns`` in index order. ``has_prefix`` is true when a column is indexed by its first characters only."""

    name: str
    columns: tuple[str, ...]
    unique: bool
    nullable: bool
    has_prefix: bool
    index_type: str


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of a child table; ``delete_rule`` is CASCADE, SET NULL, RESTRICT or NO ACTION."""

    name: str
    child_schema: str
    child_table: str
    child_columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    delete_rule: str


@dataclass(frozen=True)
class Trigger:
    """A trigger: its name, event (INSERT, UPDATE, DELETE) and timing (BEFORE, AFTER)."""

    name: str
    event: str
    timing: str


@dataclass(frozen=True)
class Table:
    """One base table: storage, size in bytes (InnoDB's estimate), columns and indexes."""

    schema: str
    name: str
    engine: str
    row_estimate: int
    data_bytes: int
    index_bytes: int
    free_bytes: int
    average_row_bytes: int
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]

    @property
    def full_name(self) -> str:
        """``schema.table``, not quoted."""
        return f"{self.schema}.{self.name}"

    @property
    def row_key(self) -> Index | None:
        """The index that names each row: the primary key, else the first whole, NOT NULL, unique index, else None."""
        return next((i for i in self.indexes if i.unique and not i.nullable and not i.has_prefix), None)

    def column(self, name: str) -> Column | None:
        """The column of that name (MySQL compares column names without case), or None."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)


@dataclass(frozen=True)
class Server:
    """The server behind a connection."""

    version: str
    server_uuid: str
    read_only: bool
    log_bin: bool
    binlog_format: str
    max_allowed_packet: int
    is_aurora: bool

    @property
    def version_tuple(self) -> tuple[int, ...]:
        """(5, 7, 22) for '5.7.22-log', (8, 0) for '8.0.mysql_aurora.3.04.0'."""
        return version_tuple(self.version)


def version_tuple(version: str) -> tuple[int, ...]:
    """Numbers of a server's version: (5, 7, 22) for '5.7.22-log'."""
    return tuple(int(part) for part in takewhile(str.isdigit, version.split("-")[0].split(".")))


DENIED = frozenset({1044, 1142, 1143, 1227, 1370, 1410})
"""Errors by which a server says that the login may not: see a schema, table or column, do this, run a routine, grant."""
MISSING = frozenset({1049, 1146, 1305})
"""Errors by which a server says that a schema, table or routine does not exist."""
FOREVER = math.inf
"""Hours of a retention that never ends."""
_RETENTION = "binlog retention hours"
_COLUMN_FLAGS = ("nullable", "is_generated", "is_auto_increment")


def rows(conn: Any, statement: str, args: Mapping[str, Any] | Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Run one statement and return its rows as dicts with the names of the select list."""
    with conn.cursor() as cursor:
        cursor.execute(statement, args)
        names = [d[0] for d in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def scalar(conn: Any, statement: str, args: Mapping[str, Any] | Sequence[Any] | None = None) -> Any:
    """First column of the first row, or None when there is no row."""
    with conn.cursor() as cursor:
        cursor.execute(statement, args)
        row = cursor.fetchone()
        return None if row is None else row[0]


def read_server(conn: Any) -> Server:
    """Version, identity and write state of the server."""
    found = rows(conn, sql.render("mysql/server"))[0]
    aurora = rows(conn, "SHOW GLOBAL VARIABLES LIKE 'aurora_version'")
    return Server(
        version=found["version"],
        server_uuid=found["server_uuid"],
        read_only=bool(found["read_only"]) or bool(found["innodb_read_only"]),
        log_bin=bool(found["log_bin"]),
        binlog_format=found["binlog_format"],
        max_allowed_packet=int(found["max_allowed_packet"]),
        is_aurora=bool(aurora),
    )


def column_of(row: Mapping[str, Any]) -> Column:
    """A column from a row with the names of ``include/sql/mysql/columns.sql``."""
    return Column(**{**row, **{flag: bool(row[flag]) for flag in _COLUMN_FLAGS}})


def index_of(name: str, parts: Sequence[Mapping[str, Any]]) -> Index:
    """An index from its rows, in order, with the names of ``include/sql/mysql/indexes.sql``."""
    return Index(
        name=name,
        columns=tuple(p["column_name"] or "" for p in parts),
        unique=bool(parts[0]["is_unique"]),
        nullable=any(p["nullable"] for p in parts),
        has_prefix=any(p["prefix_chars"] is not None for p in parts),
        index_type=parts[0]["index_type"],
    )


def read_table(conn: Any, schema: str, table: str) -> Table | None:
    """Describe one base table; None when it does not exist, is a view, or this user may not see it."""
    names = {"schema": schema, "table": table}
    with conn.cursor() as cursor:
        # 8.0 answers from a cache of up to a day; the version comment keeps 5.7, which has neither, from seeing the variable.
        cursor.execute("SET @dbops_unused = 0 /*!80000 , SESSION information_schema_stats_expiry = 0 */")
    head = rows(conn, sql.render("mysql/table"), names)
    if not head:
        return None
    columns = tuple(column_of(c) for c in rows(conn, sql.render("mysql/columns"), names))
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in rows(conn, sql.render("mysql/indexes"), names):
        parts.setdefault(part["index_name"], []).append(part)
    indexes = tuple(index_of(name, of_index) for name, of_index in parts.items())
    size = head[0]
    return Table(
        schema=schema,
        name=table,
        engine=size["engine"] or "",
        row_estimate=int(size["row_estimate"] or 0),
        data_bytes=int(size["data_bytes"] or 0),
        index_bytes=int(size["index_bytes"] or 0),
        free_bytes=int(size["free_bytes"] or 0),
        average_row_bytes=int(size["average_row_bytes"] or 0),
        columns=columns,
        indexes=indexes,
    )


def referencing_keys(conn: Any, schema: str, table: str) -> list[ForeignKey]:
    """Foreign keys that point at this table."""
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows(conn, sql.render("mysql/referencing_keys"), {"schema": schema, "table": table}):
        grouped.setdefault((row["child_schema"], row["child_table"], row["name"]), []).append(row)
    return [
        ForeignKey(
            name=name,
            child_schema=child_schema,
            child_table=child_table,
            child_columns=tuple(p["child_column"] for p in parts),
            parent_columns=tuple(p["parent_column"] for p in parts),
            delete_rule=parts[0]["delete_rule"],
        )
        for (child_schema, child_table, name), parts in grouped.items()
    ]


def triggers(conn: Any, schema: str, table: str) -> list[Trigger]:
    """Triggers of this table."""
    found = rows(conn, sql.render("mysql/triggers"), {"schema": schema, "table": table})
    return [Trigger(name=t["name"], event=t["event"], timing=t["timing"]) for t in found]


def replica_lag_seconds(conn: Any) -> float | None:
    """Lag in seconds as this connection can see it; None means that it cannot be seen, which is never "no lag".

    On Aurora: the slowest reader by ``information_schema.REPLICA_HOST_STATUS`` (0.0 when the cluster has no reader).
    Elsewhere: ``SHOW SLAVE STATUS`` of this server, so the connection must be the replica's.
    """
    if read_server(conn).is_aurora:
        found = rows(conn, sql.render("mysql/aurora_replica_lag"))[0]
        return float(found["lag_seconds"]) if found["replicas"] else 0.0
    status = replica_status(conn)
    if status is None or status["Seconds_Behind_Source"] is None:
        return None
    return float(status["Seconds_Behind_Source"])


def replica_status(conn: Any) -> dict[str, Any] | None:
    """What the server says of its replication, under the names of 8.0.22 and later; None when it is no replica.

    Of several channels it is the first. Needs REPLICATION CLIENT.
    """
    new = read_server(conn).version_tuple >= (8, 0, 22)
    found = rows(conn, "SHOW REPLICA STATUS" if new else "SHOW SLAVE STATUS")
    if not found:
        return None
    return {name.replace("Master", "Source").replace("Slave", "Replica"): value for name, value in found[0].items()}


def log_status(conn: Any) -> dict[str, Any] | None:
    """Binary log that is written now, its position and its filters; None when there is none. Needs REPLICATION CLIENT."""
    new = read_server(conn).version_tuple >= (8, 4)
    found = rows(conn, "SHOW BINARY LOG STATUS" if new else "SHOW MASTER STATUS")
    return found[0] if found else None


def global_variables(conn: Any, names: Sequence[str]) -> dict[str, str]:
    """Global variables by their names in lower case; those that the version lacks are left out."""
    found = rows(conn, "SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (tuple(names),))
    return {str(row["Variable_name"]).lower(): str(row["Value"]) for row in found}


def asked(conn: Any, statement: str, args: Any = None) -> list[dict[str, Any]] | None:
    """Rows of a statement; None when the login may not run it, or when what it asks for does not exist."""
    import MySQLdb

    try:
        return rows(conn, statement, args)
    except MySQLdb.Error as error:
        if error.args[0] not in DENIED | MISSING:
            raise
        return None


RETENTION_VARIABLES = (
    "aurora_version", "basedir", "binlog_expire_logs_auto_purge", "binlog_expire_logs_seconds", "expire_logs_days",
)  # fmt: skip
"""Those that :func:`log_retention` looks at."""


def log_retention(conn: Any, variables: Mapping[str, str]) -> tuple[float | None, bool]:
    """Hours for which a binary log is kept, None when unknown, and whether the server is a managed one.

    RDS and Aurora keep them by their own configuration, whatever the variables say. A login that may read nothing of the schema mysql is
    told "denied" whether the table exists or not: then the server's folder shows what it is.

    Args:
        conn: of our login, in autocommit
        variables: of :func:`global_variables`, at least :data:`RETENTION_VARIABLES`
    """
    found = asked(conn, "SELECT value FROM mysql.rds_configuration WHERE name = %s", (_RETENTION,))
    if found is None:
        found = _rds_configuration(conn)
    if found is not None:
        return float(found[0]["value"] or 0) if found else None, True
    if "aurora_version" in variables or variables.get("basedir", "").startswith("/rdsdbbin"):
        return None, True
    return _expiry_hours(variables), False


def _rds_configuration(conn: Any) -> list[dict[str, Any]] | None:
    import MySQLdb

    try:
        with conn.cursor() as cursor:
            cursor.execute("CALL mysql.rds_show_configuration()")
            names = [each[0] for each in cursor.description]
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            while cursor.nextset():
                pass
    except MySQLdb.Error as error:
        if error.args[0] not in DENIED | MISSING:
            raise
        return None
    return [row for row in found if row["name"] == _RETENTION]


def _expiry_hours(variables: Mapping[str, str]) -> float:
    """Of a server that is its own master; 8.0 prefers seconds, and 0 of both is for ever."""
    if variables.get("binlog_expire_logs_auto_purge", "ON").upper() in ("OFF", "0"):
        return FOREVER
    seconds = float(variables.get("binlog_expire_logs_seconds") or 0)
    return seconds / 3600 or float(variables.get("expire_logs_days") or 0) * 24 or FOREVER


def _status(conn: Any, name: str) -> float | None:
    found = rows(conn, "SHOW GLOBAL STATUS LIKE %s", (name,))
    return float(found[0]["Value"]) if found else None


def threads_running(conn: Any) -> float | None:
    """``Threads_running`` without the thread that asks."""
    value = _status(conn, "Threads_running")
    return None if value is None else value - 1


def history_list_length(conn: Any) -> float | None:
    """Undo records that purge has not removed yet (``trx_rseg_history_len``); None when the metric is off or hidden."""
    value = scalar(
        conn, "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = %s", ("trx_rseg_history_len",)
    )
    return None if value is None else float(value)


def aurora_commit_counters(conn: Any) -> tuple[float, float] | None:
    """(commits, summed commit latency in microseconds) since start, on Aurora; None elsewhere."""
    commits = _status(conn, "AuroraDb_commits")
    latency = _status(conn, "AuroraDb_commit_latency")
    return None if commits is None or latency is None else (commits, latency)


def delete_effects(cursor: Any, server: Server, schema: str, table: str) -> tuple[list[str], list[str]]:
    """What a DELETE on this table depends on, in one statement: (columns in order, what else the DELETE would set off).

    The second list names DELETE triggers and foreign keys ON DELETE CASCADE or SET NULL. Columns come from ``information_schema``, which
    shows INVISIBLE ones too. Needs TRIGGER on the table and PROCESS.
    """
    cursor.execute(
        sql.render(
            "mysql/delete_effects",
            dictionary=_foreign_key_dictionary(server),
            rules_in_dictionary=server.version_tuple < (8,),
        ),
        {"schema": schema, "table": table, "referenced": _dictionary_names(schema, table)},
    )
    columns, effects = [], []
    for kind, _, name in cursor.fetchall():
        if kind == "column":
            columns.append(name)
        else:
            effects.append(f"{kind} {name}")
    return columns, effects


def _foreign_key_dictionary(server: Server) -> str:
    return "INNODB_SYS_FOREIGN" if server.version_tuple < (8,) else "INNODB_FOREIGN"


def _dictionary_names(schema: str, table: str) -> list[str]:
    # 5.7 writes names as those of files: a$b is a@0024b. (Letters beyond ASCII are written otherwise; no spec may name such a table.)
    as_file = "/".join(re.sub(r"\W", lambda c: f"@{ord(c[0]):04x}", name, flags=re.ASCII) for name in (schema, table))
    return [f"{schema}/{table}", as_file]


def hidden_foreign_keys(conn: Any, schema: str, table: str) -> int:
    """How many foreign keys point at the table beyond those that this user sees in ``information_schema.KEY_COLUMN_USAGE``.

    InnoDB's own dictionary shows all of them to a user with PROCESS. Raises MySqlFactError without that privilege, because an unseen
    ON DELETE CASCADE would let a DELETE reach tables that nobody looked at.
    """
    import MySQLdb

    dictionary = _foreign_key_dictionary(read_server(conn))
    try:
        total = scalar(
            conn,
            f"SELECT COUNT(*) FROM information_schema.{dictionary} WHERE REF_NAME IN %s",
            (_dictionary_names(schema, table),),
        )
    except MySQLdb.Error as error:
        raise MySqlFactError(
            f"information_schema.{dictionary} is not readable: {error.args[-1]}; GRANT PROCESS ON *.*"
        ) from error
    return int(total) - len(referencing_keys(conn, schema, table))


def has_privilege(conn: Any, privilege: str, schema: str, table: str) -> bool:
    """Whether SHOW GRANTS (with the active roles) gives the connected user a privilege on the table, at any level."""
    return granted(own_grants(conn), privilege, schema, table)


def own_grants(conn: Any) -> tuple[str, ...]:
    """Lines of SHOW GRANTS for the connected user, with the active roles."""
    statement = "SHOW GRANTS"
    if read_server(conn).version_tuple >= (8,):
        roles = scalar(conn, "SELECT CURRENT_ROLE()")
        if roles and roles != "NONE":
            statement = f"SHOW GRANTS FOR CURRENT_USER() USING {roles}"
    with conn.cursor() as cursor:
        cursor.execute(statement)
        return tuple(row[0] for row in cursor.fetchall())


def granted(grants: Iterable[str], privilege: str, schema: str, table: str) -> bool:
    """Whether lines of SHOW GRANTS give a privilege on the table, at any level. What is revoked in part of ``*.*`` does not count there."""
    lines = list(grants)
    revoked = any(
        _grants(line.replace("REVOKE ", "GRANT ", 1).replace(" FROM ", " TO ", 1), privilege, schema, table)
        for line in lines
        if line.startswith("REVOKE ")
    )
    return any(
        _grants(line, privilege, schema, table) and not (revoked and _ON_EVERYTHING.match(line)) for line in lines
    )


def granted_on_server(grants: Iterable[str], privilege: str) -> bool:
    """Whether lines of SHOW GRANTS give a privilege that is not of a schema, such as REPLICATION CLIENT."""
    return any(_ON_EVERYTHING.match(line) is not None and _grants(line, privilege, "", "") for line in grants)


_ON_EVERYTHING = re.compile(r"GRANT .+ ON \*\.\* TO ")


def _grants(grant: str, privilege: str, schema: str, table: str) -> bool:
    match = re.match(
        r"GRANT (?P<what>.+) ON (?:TABLE )?(?P<schema>\*|`(?:[^`]|``)+`)\.(?P<table>\*|`(?:[^`]|``)+`) TO ", grant
    )
    if match is None:
        return False
    listed = {part.strip().upper() for part in match["what"].split(",")}
    if privilege.upper() not in listed and "ALL PRIVILEGES" not in listed:
        return False
    return _matches(match["schema"], schema, wildcards=match["table"] == "*") and _matches(
        match["table"], table, wildcards=False
    )


def _matches(pattern: str, name: str, *, wildcards: bool) -> bool:
    if pattern == "*":
        return True
    text = pattern[1:-1].replace("``", "`")
    if not wildcards:
        return text == name
    # In a database-level grant % and _ are wildcards unless escaped.
    parts = re.findall(r"\\.|.", text, flags=re.DOTALL)
    regex = "".join({"%": ".*", "_": "."}.get(p, re.escape(p[-1])) for p in parts)
    return re.fullmatch(regex, name, flags=re.DOTALL) is not None
