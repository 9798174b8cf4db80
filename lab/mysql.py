"""The MySQL servers: a data directory, a my.cnf, the schemas, and a user with the privileges the product documents."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import MySQLdb

from lab import artifacts, config
from lab.config import HOST, MYSQL_PASSWORD, MYSQL_USER, LabError, MySQLServer
from lab.processes import Service

# Settings of an Aurora-like source: GTIDs, row binlogs as DMS reads them (FULL, no checksum), durable commits, UTC.
MY_CNF = """\
[mysqld]
basedir = {base}
datadir = {data}
lc_messages_dir = {base}/share
# Relative to the data directory: an absolute path of a deep LAB_HOME would pass the limit of 107 bytes.
socket = mysqld.sock
pid_file = mysqld.pid
bind_address = {host}
port = {port}
skip_name_resolve
server_id = {server_id}
log_bin = binlog
binlog_format = ROW
binlog_row_image = FULL
binlog_checksum = NONE
sync_binlog = 1
max_binlog_size = 256M
gtid_mode = ON
enforce_gtid_consistency = ON
log_slave_updates = ON
character_set_server = utf8mb4
default_time_zone = '+00:00'
log_timestamps = UTC
local_infile = ON
max_allowed_packet = 64M
performance_schema = ON
innodb_buffer_pool_size = {buffer_pool}
innodb_log_file_size = {log_file_size}
innodb_flush_log_at_trx_commit = 1
innodb_flush_method = O_DIRECT
innodb_file_per_table = ON
"""
MY_CNF_57 = "expire_logs_days = 1\n"
MY_CNF_80 = """\
binlog_expire_logs_seconds = 7200
default_authentication_plugin = mysql_native_password
mysqlx = OFF
"""
LOG_FILE_SIZE = "512M"

# The server has no name resolution, so root@localhost of a new data directory cannot log in through TCP.
BOOTSTRAP_SQL = f"""\
CREATE USER 'root'@'{HOST}' IDENTIFIED WITH mysql_native_password BY '';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'{HOST}' WITH GRANT OPTION;
"""

# What the product needs, and nothing more: README documents the same list.
SERVER_PRIVILEGES = "PROCESS, REPLICATION CLIENT, REPLICATION SLAVE"
SOURCE_PRIVILEGES = "SELECT, DELETE, TRIGGER, EVENT, SHOW VIEW"


def service(server: MySQLServer) -> Service:
    """The mysqld process of this server; a data directory is initialised where there is none."""

    def prepare() -> list[str]:
        base, folder = artifacts.unpacked(server.artifact), config.home() / server.name
        if not (folder / "data").is_dir():
            _initialise(base, folder)
        (folder / "my.cnf").write_text(_my_cnf(server, base, folder / "data"))
        return _mysqld(base, f"--defaults-file={folder / 'my.cnf'}")

    def ready() -> None:
        root_connection(server.name).close()

    return Service(server.name, prepare, ready, deadline_s=120)


def root_connection(name: str, schema: str | None = None) -> MySQLdb.Connection:
    """Connection with every privilege, for the seed and for tests; autocommit, UTC, utf8mb4, LOAD DATA LOCAL allowed.

    Args:
        name: ``mysql57`` or ``mysql80``
        schema: default schema of the connection
    """
    return MySQLdb.connect(
        host=HOST,
        port=config.port(name),
        user="root",
        database=schema or "",
        charset="utf8mb4",
        init_command="SET time_zone = '+00:00'",
        local_infile=True,
        autocommit=True,
        connect_timeout=5,
    )


def provision(server: MySQLServer) -> None:
    """Create the schemas, the user and its privileges where they are missing."""
    statements = [f"CREATE DATABASE IF NOT EXISTS `{schema}`" for schema in (config.SOURCE_SCHEMA, *server.schemas)]
    for host in ("%", "localhost", HOST):
        user = f"'{MYSQL_USER}'@'{host}'"
        statements += [
            f"CREATE USER IF NOT EXISTS {user} IDENTIFIED WITH mysql_native_password BY '{MYSQL_PASSWORD}'",
            f"GRANT {SERVER_PRIVILEGES} ON *.* TO {user}",
            f"GRANT SELECT ON performance_schema.* TO {user}",
            f"GRANT {SOURCE_PRIVILEGES} ON `{config.SOURCE_SCHEMA}`.* TO {user}",
            *(f"GRANT ALL PRIVILEGES ON `{schema}`.* TO {user}" for schema in server.schemas),
        ]
    execute(server.name, statements)


def recreate_schema(name: str, schema: str) -> bool:
    """Empty a schema; True when it had tables."""
    connection = root_connection(name)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = %s", (schema,))
            (tables,) = cursor.fetchone()
    finally:
        connection.close()
    if tables:
        execute(name, [f"DROP DATABASE `{schema}`", f"CREATE DATABASE `{schema}`"])
    return bool(tables)


def execute(name: str, statements: list[str]) -> None:
    """Run statements on a server with every privilege."""
    connection = root_connection(name)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


def _initialise(base: Path, folder: Path) -> None:
    """Make a data directory; it appears under its name only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    bootstrap = folder / "bootstrap.sql"
    bootstrap.write_text(BOOTSTRAP_SQL)
    with artifacts.appears_whole(folder / "data") as scratch:
        done = subprocess.run(
            [
                *_mysqld(base, "--no-defaults"),
                "--initialize-insecure",
                f"--basedir={base}",
                f"--lc-messages-dir={base / 'share'}",
                f"--datadir={scratch}",
                f"--init-file={bootstrap}",
                f"--innodb-log-file-size={LOG_FILE_SIZE}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"mysqld --initialize-insecure failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def _mysqld(base: Path, defaults: str) -> list[str]:
    artifacts.require_library("libaio.so.1", "libaio1")
    # mysqld refuses to run as root unless it is told to.
    return [str(base / "bin" / "mysqld"), defaults, *(["--user=root"] if os.geteuid() == 0 else [])]


def _my_cnf(server: MySQLServer, base: Path, data: Path) -> str:
    common = MY_CNF.format(
        base=base,
        data=data,
        host=HOST,
        port=config.port(server.name),
        server_id=server.server_id,
        buffer_pool=config.mysql_buffer_pool(),
        log_file_size=LOG_FILE_SIZE,
    )
    return common + (MY_CNF_80 if server.version.startswith("8.") else MY_CNF_57)
