"""What the tests of the inventory share: MySQL servers of their own, which they may restart, and a history of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import MySQLdb
import sqlalchemy as sa
import tenacity

from dbops.inventory.history import History
from lab import artifacts, config, mysql

NAMES = ("mysql57", "mysql80")


def now() -> datetime:
    """Naive UTC, as the domain has its times."""
    return datetime.now(UTC).replace(tzinfo=None)


class Mysqld:
    """A private mysqld of the lab's version `name` with a data directory under `folder`; root has no password."""

    def __init__(self, name: str, folder: Path) -> None:
        self.server = config.MYSQL_SERVERS[name]
        self.base = artifacts.unpacked(self.server.artifact)
        self.folder, self.data = folder, folder / "data"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        bootstrap = folder / "bootstrap.sql"
        bootstrap.write_text(mysql.BOOTSTRAP_SQL)
        initialise = ("--initialize-insecure", f"--init-file={bootstrap}", "--innodb-log-file-size=8M")
        done = subprocess.run([*self._argv(), *initialise], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _argv(self) -> list[str]:
        root = ["--user=root"] if os.geteuid() == 0 else []
        names = {"basedir": self.base, "lc-messages-dir": self.base / "share", "datadir": self.data}
        return [str(self.base / "bin" / "mysqld"), "--no-defaults", *root, *(f"--{k}={v}" for k, v in names.items())]

    def start(self, *options: str) -> None:
        """Start with these options on a port that nobody has; return when it answers."""
        with socket.create_server((config.HOST, 0)) as free:
            self.port = int(free.getsockname()[1])
        of_8 = ["--mysqlx=OFF", "--default-authentication-plugin=mysql_native_password"]
        settings = [
            f"--port={self.port}", f"--bind-address={config.HOST}", "--socket=mysqld.sock", "--pid-file=mysqld.pid", "--skip-name-resolve",
            "--server-id=1", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0",
            "--character-set-server=utf8mb4", "--performance-schema=ON", "--event-scheduler=OFF",
            *(of_8 if self.server.version.startswith("8.") else []), *options,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._argv(), *settings], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait = tenacity.Retrying(wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(60), reraise=True)
        wait(self._answers)

    def _answers(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text(errors="replace")[-3000:]
        self.connect().close()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def restart(self, *options: str) -> None:
        self.stop()
        self.start(*options)

    def connect(self, user: str = "root", **options: Any) -> MySQLdb.Connection:
        """mysqlclient; one ``SET NAMES`` is all that the server counts for it."""
        return MySQLdb.connect(
            host=config.HOST, port=self.port, user=user, **{"charset": "utf8mb4", "autocommit": True, **options}
        )  # fmt: skip

    def sql(self, statement: str, args: Any = None) -> tuple[tuple[Any, ...], ...]:
        """Run one statement as root over a connection of its own."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, args)
            return cursor.fetchall()


@contextmanager
def scratch_history() -> Iterator[History]:
    """A migrated history in a schema of its own on the lab's 8.0 server, where the store is; dropped at the end."""
    schema = f"inv{uuid.uuid4().hex[:12]}"
    with closing(mysql.root_connection("mysql80")) as root, root.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE `{schema}`")
        engine = sa.create_engine(
            f"mysql+mysqldb://root@{config.HOST}:{config.port('mysql80')}/{schema}?charset=utf8mb4"
        )
        try:
            history = History(engine)
            history.migrate()
            yield history
        finally:
            engine.dispose()
            cursor.execute(f"DROP DATABASE `{schema}`")
