"""One private mysqld: what stands behind a DB instance of the simulated RDS."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import MySQLdb
import MySQLdb.cursors
import tenacity

from lab import artifacts, config
from lab.config import HOST, LabError

ADMIN = "rdsadmin"  # the name that AWS gives to its own account; only the lab logs in with it
READY_S = 120
STOP_S = 60
LOG_TAIL_BYTES = 2000
# Replication of 5.7 to 8.0 needs what is listed here on both sides; durability is that of a production writer.
OPTIONS: dict[str, str] = {
    "socket": "mysqld.sock",
    "pid-file": "mysqld.pid",
    "bind-address": HOST,
    "skip-name-resolve": "ON",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    # DMS reads no log with checksums. AWS's own default is CRC32: there a parameter group has to say NONE.
    "binlog-row-image": "FULL",
    "binlog-checksum": "NONE",
    "gtid-mode": "ON",
    "enforce-gtid-consistency": "ON",
    "log-slave-updates": "ON",
    "master-info-repository": "TABLE",
    "relay-log-info-repository": "TABLE",
    "relay-log-recovery": "ON",
    "relay-log": "relay",
    "slave-net-timeout": "10",
    "skip-slave-start": "ON",
    "event-scheduler": "OFF",
    "character-set-server": "utf8mb4",
    "default-time-zone": "+00:00",
    "log-timestamps": "UTC",
    "secure-file-priv": "",  # clones go through files of the server
    "local-infile": "ON",
    "max-allowed-packet": "64M",
    "max-connections": "2000",
    "performance-schema": "ON",
    "innodb-buffer-pool-size": "256M",
    "innodb-log-file-size": "128M",
    "innodb-flush-method": "O_DIRECT",
    "innodb-use-native-aio": "OFF",  # the kernel has so many asynchronous requests for the whole machine, and there may be many servers
    "sync-binlog": "1",
    "innodb-flush-log-at-trx-commit": "1",
}
OPTIONS_80 = {"mysqlx": "OFF", "default-authentication-plugin": "mysql_native_password"}
# utf8mb4's default collation is another one in 8.0: a table without COLLATE would change on its way to the green side.
OPTIONS_57 = {"collation-server": "utf8mb4_general_ci"}
# Options that a data directory is made with.
FIXED = ("innodb-log-file-size", "innodb-use-native-aio", "loose-lower-case-table-names")
# What AWS puts into the schema mysql; a statement is one line in a file that mysqld reads.
BOOTSTRAP = (
    f"CREATE USER '{ADMIN}'@'{HOST}' IDENTIFIED WITH mysql_native_password BY '{config.MYSQL_PASSWORD}'",
    f"GRANT ALL PRIVILEGES ON *.* TO '{ADMIN}'@'{HOST}' WITH GRANT OPTION",
    "CREATE TABLE mysql.rds_configuration (name VARCHAR(100) NOT NULL PRIMARY KEY, value VARCHAR(100), "
    "description VARCHAR(300) NOT NULL)",
    "INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', NULL, "
    "'binlog retention hours specifies the duration in hours before binary logs are automatically deleted.')",
    f"CREATE DEFINER = '{ADMIN}'@'{HOST}' PROCEDURE mysql.rds_show_configuration() "
    "SELECT name, value, description FROM mysql.rds_configuration",
    f"CREATE DEFINER = '{ADMIN}'@'{HOST}' PROCEDURE mysql.rds_set_configuration(IN of_name VARCHAR(100), IN new_value INT) "
    "UPDATE mysql.rds_configuration SET value = new_value WHERE name = of_name",
    "CREATE TABLE mysql.rds_topology (id VARCHAR(100) NOT NULL PRIMARY KEY, endpoint VARCHAR(255) NOT NULL, port INT NOT NULL, "
    "role VARCHAR(100), status VARCHAR(100), version VARCHAR(100))",
)


def engine(version: str) -> config.MySQLServer:
    """The lab's server for an RDS or Aurora engine version, such as ``5.7.22`` or ``8.0.mysql_aurora.3.07.0``.

    Raises:
        LabError: the lab has no server of that series
    """
    series = ".".join(version.split(".")[:2])
    for server in config.MYSQL_SERVERS.values():
        if server.version.startswith(series + "."):
            return server
    have = ", ".join(server.version for server in config.MYSQL_SERVERS.values())
    raise LabError(f"EngineVersion {version!r} has no server in the lab: use a version of the series of {have}")


class Server:
    """A mysqld of its own data directory and port; it ends with the process that made it or when it is told to."""

    def __init__(self, folder: Path, version: str, server_id: int, options: Mapping[str, str] | None = None) -> None:
        self.folder, self.data, self.server_id = folder, folder / "data", server_id
        self.series = engine(version)
        self.base = artifacts.unpacked(self.series.artifact)
        self.is_80 = self.series.version.startswith("8.")
        self.configure(options or {})
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._gone, self._lock = False, threading.Lock()  # it may be deleted while another thread brings it up

    def __repr__(self) -> str:
        return f"{self.series.version} at port {self.port}"

    def configure(self, options: Mapping[str, str]) -> None:
        """Options over those of the lab, from the next start on."""
        self.options = {**OPTIONS, **(OPTIONS_80 if self.is_80 else OPTIONS_57), **options}

    def option(self, name: str) -> str:
        """What it was started with."""
        return self.options.get(f"loose-{name}") or self.options[name]

    def initialise(self) -> None:
        """Make the data directory with the account of the lab and no other.

        Raises:
            LabError: mysqld failed; with its message
        """
        fixed = [f"--{name}={self.options[name]}" for name in FIXED if name in self.options]
        with self._alive():
            self.folder.mkdir(parents=True, exist_ok=True)
            _copy(self._template(fixed), self.data)

    def _template(self, fixed: Sequence[str]) -> Path:
        """A data directory of this version and these options in the cache; mysqld takes seconds for one, a copy none.

        It has no auto.cnf, so each copy becomes a server of its own UUID.
        """
        made_of = repr((self.series.artifact, BOOTSTRAP, *fixed)).encode()
        name = f"data-{self.series.version}-{hashlib.sha256(made_of).hexdigest()[:12]}"
        template = config.cache() / name
        try:
            if not template.is_dir():
                with artifacts.appears_whole(template) as whole:
                    self._make(whole, fixed)
        except OSError:  # somebody else has made the same meanwhile
            if not template.is_dir():
                raise
        return template

    def _make(self, template: Path, fixed: Sequence[str]) -> None:
        bootstrap, data = template.parent / "bootstrap.sql", template.parent / "data"
        bootstrap.write_text("".join(f"{statement};\n" for statement in BOOTSTRAP))
        command = [*self._argv(data), "--initialize-insecure", f"--init-file={bootstrap}", *fixed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"mysqld --initialize-insecure failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
        (data / "auto.cnf").unlink()
        _copy(data, template)

    def start(self, **overrides: str) -> None:
        """Start, on the port that it had before or on a free one; return when it answers.

        Raises:
            LabError: it ended or did not answer; with the end of its log
        """
        if not self.port:
            with socket.create_server((HOST, 0)) as free:
                self.port = int(free.getsockname()[1])
        options = {**self.options, **overrides, "port": str(self.port), "server-id": str(self.server_id)}
        with self._alive(), (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._argv(self.data), *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ended = tenacity.retry_if_exception(lambda error: not isinstance(error, LabError))
        until = tenacity.stop_after_delay(READY_S)
        try:
            tenacity.Retrying(wait=tenacity.wait_fixed(0.05), stop=until, retry=ended, reraise=True)(self._answer)
        except MySQLdb.Error as error:
            self.stop()
            raise LabError(f"mysqld {self} does not answer after {READY_S} s: {error}\n{self._tail()}") from error

    def stop(self) -> None:
        """SIGTERM and, if that does not end it, SIGKILL."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def delete(self) -> None:
        """End it at once and remove its files; whoever brings it up just now gets a LabError."""
        self._gone = True
        with self._lock:
            process, self.process = self.process, None
            if process is not None:
                process.kill()
                process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        with self._lock:
            if self._gone:
                raise LabError(f"mysqld {self} is deleted")
            yield

    def connect(self, **options: Any) -> MySQLdb.Connection:
        """Connection of the lab's account; autocommit, and nothing that it does reaches the binlog unless asked."""
        return MySQLdb.connect(
            host=HOST,
            port=self.port,
            user=ADMIN,
            password=config.MYSQL_PASSWORD,
            connect_timeout=10,
            **{"charset": "utf8mb4", "autocommit": True, "init_command": "SET sql_log_bin = 0", **options},
        )

    @contextmanager
    def cursor(self, **options: Any) -> Iterator[MySQLdb.cursors.Cursor]:
        with closing(self.connect(**options)) as connection, connection.cursor() as cursor:
            yield cursor

    def sql(self, statement: str, args: Any = None) -> tuple[tuple[Any, ...], ...]:
        """Run one statement over a connection of its own, and return its rows."""
        with self.cursor() as cursor:
            cursor.execute(statement, args)
            return cursor.fetchall()

    def rows(self, statement: str, args: Any = None) -> list[dict[str, Any]]:
        """Like `sql`, with rows as dictionaries by column name."""
        with self.cursor(cursorclass=MySQLdb.cursors.DictCursor) as cursor:
            cursor.execute(statement, args)
            return list(cursor.fetchall())

    @staticmethod
    def quoted(text: str) -> str:
        """A string literal."""
        return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

    def value(self, expression: str) -> Any:
        """Value of one SQL expression."""
        return self.sql(f"SELECT {expression}")[0][0]

    def _argv(self, data: Path) -> list[str]:
        artifacts.require_library("libaio.so.1", "libaio1")
        root = ["--user=root"] if os.geteuid() == 0 else []  # mysqld refuses to run as root unless it is told to
        folders = {"basedir": self.base, "lc-messages-dir": self.base / "share", "datadir": data}
        return [str(self.base / "bin" / "mysqld"), "--no-defaults", *root, *(f"--{k}={v}" for k, v in folders.items())]

    def _answer(self) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            raise LabError(f"mysqld {self} ended while it started\n{self._tail()}")
        self.connect().close()

    def _tail(self) -> str:
        log = self.folder / "log"
        return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log.is_file() else "its log is gone"


def _copy(data: Path, target: Path) -> None:
    """Copy a data directory; its redo logs are nearly all zeros, which take no room and no time."""
    subprocess.run(["cp", "-a", "--sparse=always", str(data), str(target)], check=True, capture_output=True)
