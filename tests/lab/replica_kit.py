"""What the tests of the data plane share: a real 5.7.22, a real 8.0.15 that follows it, and the accounts that RDS would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import MySQLdb
import tenacity

from lab.config import HOST
from lab.rds.deployment import Deployment
from lab.rds.plane import MASTER_PRIVILEGES
from lab.rds.server import Server

MASTER, PLAIN, PASSWORD = "rehearsal", "probe", "not secret here"
SMALL = {
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "64M",
    "sync-binlog": "0",
    "innodb-flush-log-at-trx-commit": "0",
}


class Side:
    """A server as clients of a rehearsal see it: through its master user and a plain user."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect(self, user: str = MASTER, **options: Any) -> MySQLdb.Connection:
        """A connection as the product opens them: utf8mb4, UTC, sql_mode ''."""
        return MySQLdb.connect(
            host=HOST, port=self.server.port, user=user, password=PASSWORD,
            **{"charset": "utf8mb4", "autocommit": True, "init_command": "SET time_zone = '+00:00', sql_mode = ''", **options},
        )  # fmt: skip

    def run(self, *statements: str, user: str = MASTER) -> None:
        with closing(self.connect(user)) as conn, conn.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def value(self, statement: str) -> Any:
        with closing(self.connect()) as conn, conn.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0]


@contextmanager
def one(folder: Path, version: str, server_id: int = 1, **options: str) -> Iterator[Side]:
    """A server of its own with the accounts."""
    server = Server(folder, version, server_id, {**SMALL, **options})
    with ExitStack() as stack:
        stack.callback(_end, server)
        server.initialise()
        server.start()
        _accounts(server)
        yield Side(server)


@contextmanager
def pair(
    folder: Path, schema: str, prepare: Callable[[Side], None] | None = None, **options: str
) -> Iterator[tuple[Side, Side]]:
    """Blue and a green that follows it, read-only for the plain user, as a Blue/Green deployment has them.

    The schema is there; `prepare` may fill it on blue before green is made.
    """
    with one(folder / "blue", "5.7.22", 1, **options) as blue, ExitStack() as stack:
        blue.run(f"CREATE DATABASE {schema} CHARACTER SET utf8mb4")
        if prepare is not None:
            prepare(blue)
        green = Server(folder / "green", "8.0.15", 2, {**SMALL, **options})
        stack.callback(_end, green)
        green.initialise()
        green.start()
        Deployment.copy_and_follow(blue.server, green, folder / "copy")
        green.sql("GRANT CONNECTION_ADMIN ON *.* TO %s@'%%'", (MASTER,))
        green.sql("SET GLOBAL read_only = 1")
        yield blue, Side(green)


def settle(blue: Side, green: Side, seconds: float = 30) -> None:
    """Wait until green has what blue has executed."""
    wanted = blue.server.value("@@GLOBAL.gtid_executed")
    done = green.server.value(f"WAIT_FOR_EXECUTED_GTID_SET('{wanted}', {seconds:g})")
    assert done == 0, green.server.rows("SHOW SLAVE STATUS")[0]["Last_Error"]


def soon(seconds: float = 10) -> tenacity.Retrying:
    """Tries again until an assertion holds; seldom enough for InnoDB, which makes INNODB_TRX anew when nobody read it for 0.1 s."""
    return tenacity.Retrying(
        wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_delay(seconds), reraise=True,
        retry=tenacity.retry_if_exception_type(AssertionError),
    )  # fmt: skip


def _end(server: Server) -> None:
    """Nobody needs its data any more, so it need not shut down in order."""
    if server.process is not None:
        server.process.kill()
    server.delete()


def _accounts(server: Server) -> None:
    with server.cursor() as cursor:
        for user in (MASTER, PLAIN):
            cursor.execute("CREATE USER %s@'%%' IDENTIFIED WITH mysql_native_password BY %s", (user, PASSWORD))
        cursor.execute(f"GRANT {MASTER_PRIVILEGES} ON *.* TO %s@'%%'", (MASTER,))
        cursor.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO %s@'%%'", (PLAIN,))
