"""Clients and troubles that are there on purpose during an attempt: idle connections, a long transaction, running DDL.

They come from a process of its own (:mod:`companion`), so that they last while the worker that asked for them comes and goes. It opens
again what is cut, as applications do, and ends by itself after ``max_seconds``.

    idle connections     as many as an application's pools hold; a switchover has to drop them
    long_transaction     a row is changed and never committed
    running_ddl          an ALTER TABLE that waits for a reader of its table, and so runs until it is told to stop

Both troubles use tables of their own and leave them as they were.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dbops import mysql, sql
from dbops.blue_green import companion
from dbops.blue_green.probes import Endpoint

TABLE = "dbops_arm"
START_DEADLINE_S = 30.0
CONNECTIONS_PER_S = 50
"""What a server is expected to take at least; the deadline of the start grows with it."""
OPENERS = 8
LOOK_S = 0.1
Trouble = Literal["long_transaction", "running_ddl"]


class Settings(BaseModel):
    """What is held. ``json`` of it has the password: it goes through a pipe and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="file to write to what happens, on a local disk")
    endpoint: Endpoint
    schema_name: str = Field(min_length=1, max_length=64, description="schema of the table that a trouble uses")
    connections: int = Field(default=0, ge=0, le=15_000, description="idle connections")
    trouble: Trouble | None = None
    max_seconds: int = Field(ge=1, le=7 * 24 * 3600, description="the process ends by itself after so long")


def create_table(conn: Any, schema: str) -> None:
    """Create the table that the troubles use where it is missing; on blue, before green is made."""
    with conn.cursor() as cursor:
        cursor.execute(sql.render("blue_green/arm_table", table=(schema, TABLE)))
        cursor.execute(f"INSERT IGNORE INTO {sql.ident((schema, TABLE))} (id) VALUES (1)")


def start(settings: Settings) -> int:
    """Open the connections and begin the trouble, and return the pid of the process that holds them.

    Raises:
        companion.CompanionError: not everything could be held; the text says why. Nothing is held then.
    """
    if companion.is_running(settings.path):
        raise companion.CompanionError(f"{settings.path}: another process holds connections by it; stop that one first")
    deadline = START_DEADLINE_S + settings.connections / CONNECTIONS_PER_S
    begun = time.monotonic_ns()

    def armed(pid: int) -> bool:
        return any(e["event"] == "armed" and e["pid"] == pid and e["at"] >= begun for e in events(settings.path))

    return companion.start("dbops.blue_green.arms", settings.model_dump_json(), settings.path, armed, deadline)


def stop(path: Path, deadline_s: float = companion.STOP_DEADLINE_S) -> None:
    """End it: roll back, withdraw the DDL, close the connections. Nothing to do when none runs.

    Raises:
        companion.CompanionError: it still runs after the deadline
    """
    companion.stop(path, deadline_s)


def is_running(path: Path) -> bool:
    """Whether a process holds something by this file."""
    return companion.is_running(path)


def events(path: Path) -> list[dict[str, Any]]:
    """What happened, in order: ``at`` (monotonic ns), ``pid``, ``event`` (armed, lost, armed again, ended), ``what``, ``connections``."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


class Arms:
    """Holds it; :func:`main` runs one in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = settings.path.open("a")
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise companion.CompanionError(f"{settings.path}: another process holds connections by it") from error
        self._end = time.monotonic() + settings.max_seconds
        self._idle: list[Any] = []

    def run(self, stopping: threading.Event) -> None:
        """Hold everything until told to stop or until ``max_seconds`` have passed."""
        note = companion.stop_note(self._settings.path)
        hold = self._hold()
        try:
            self._open()
            if hold is not None:
                hold.begin()
            self._write("armed", self._settings.trouble)
            while not stopping.is_set() and not note.exists() and time.monotonic() < self._end:
                stopping.wait(LOOK_S)
                self._mend(hold)
        finally:
            if hold is not None:
                hold.end()
            for conn in self._idle:
                conn.close()
            self._idle = []
            self._write("ended", None)

    def _hold(self) -> _Transaction | _Ddl | None:
        if self._settings.trouble is None:
            return None
        kind = _Transaction if self._settings.trouble == "long_transaction" else _Ddl
        return kind(self._connect, (self._settings.schema_name, TABLE))

    def _open(self) -> None:
        """Open what is missing of the idle connections, several at a time; after the first refusal, no more."""
        import MySQLdb

        missing, refusal = self._settings.connections - len(self._idle), None
        with ThreadPoolExecutor(OPENERS, "open") as pool:
            openings = [pool.submit(self._connect) for _ in range(missing)]
            for opening in openings:  # not as_completed, which waits for ever for one that the shutdown has cancelled
                try:
                    self._idle.append(opening.result())
                except CancelledError:
                    continue
                except MySQLdb.Error as error:
                    refusal = error
                    pool.shutdown(wait=False, cancel_futures=True)
        if refusal is not None:
            raise refusal

    def _mend(self, hold: _Transaction | _Ddl | None) -> None:
        """Open and begin again what was cut; what the server refuses is tried again at the next look."""
        import MySQLdb

        poll = select.poll()
        by_number = {conn.fileno(): conn for conn in self._idle}
        for number in by_number:
            poll.register(number, select.POLLIN)
        # Nothing is asked on these connections, so whatever can be read is the end.
        if lost := [by_number[number] for number, _ in poll.poll(0)]:
            gone = set(map(id, lost))
            self._idle = [conn for conn in self._idle if id(conn) not in gone]
            for conn in lost:
                conn.close()
            self._write("lost", "connections")
        with suppress(MySQLdb.Error):
            if missing := self._settings.connections - len(self._idle):
                self._open()
                self._write("armed again", f"{missing} connections")
        if hold is not None and hold.is_lost:
            self._write("lost", self._settings.trouble)
            hold.end()
            with suppress(MySQLdb.Error):
                hold.begin()
                self._write("armed again", self._settings.trouble)

    def _connect(self) -> Any:
        import MySQLdb

        endpoint = self._settings.endpoint
        more = {"ssl": endpoint.ssl} if endpoint.ssl else {}
        conn = MySQLdb.connect(
            host=endpoint.host, port=endpoint.port, user=endpoint.user, password=endpoint.password.get_secret_value(),
            autocommit=True, connect_timeout=10, **more,
        )  # fmt: skip
        with conn.cursor() as cursor:
            seconds = self._settings.max_seconds + 3600  # outlasts this process, whatever the server's defaults are
            cursor.execute("SET SESSION wait_timeout = %s, lock_wait_timeout = %s", (seconds, seconds))
        return conn

    def _write(self, event: str, what: str | None) -> None:
        line = {"at": time.monotonic_ns(), "event": event, "what": what, "connections": len(self._idle)}
        self._log.write(json.dumps(line | {"pid": os.getpid()}) + "\n")
        self._log.flush()


class _Transaction:
    """A row is changed and never committed."""

    def __init__(self, connect: Callable[[], Any], table: tuple[str, str]) -> None:
        self._connect, self._table = connect, table
        self._conn: Any = None

    def begin(self) -> None:
        self._conn = self._connect()
        with self._conn.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute(f"INSERT INTO {sql.ident(self._table)} () VALUES ()")

    @property
    def is_lost(self) -> bool:
        return self._conn is None or _is_cut(self._conn)

    def end(self) -> None:
        if self._conn is not None:
            self._conn.close()  # the server rolls back
            self._conn = None


class _Ddl:
    """An ALTER TABLE that waits for a transaction which has read the table."""

    def __init__(self, connect: Callable[[], Any], table: tuple[str, str]) -> None:
        self._connect, self._table = connect, table
        self._open: list[Any] = []
        self._altering: threading.Thread | None = None
        self._thread_id = 0  # of the server; the connection itself is busy and must not be asked

    def begin(self) -> None:
        for _ in range(3):
            self._open.append(self._connect())
        reader, alterer, watcher = self._open
        with reader.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute(f"SELECT COUNT(*) FROM {sql.ident(self._table)}")
        self._thread_id = int(alterer.thread_id())
        self._altering = threading.Thread(target=self._alter, args=(alterer,), daemon=True)
        self._altering.start()
        for state in self._states(watcher):
            if state.startswith("Waiting for table metadata lock"):
                return

    def _states(self, watcher: Any) -> Iterator[str]:
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end and self._altering is not None and self._altering.is_alive():
            yield (
                mysql.scalar(
                    watcher, "SELECT STATE FROM information_schema.PROCESSLIST WHERE ID = %s", (self._thread_id,)
                )
                or ""
            )
            time.sleep(LOOK_S / 5)
        raise companion.CompanionError(f"ALTER TABLE {sql.ident(self._table)} did not come to wait; who else uses it?")

    def _alter(self, conn: Any) -> None:
        import MySQLdb

        with suppress(MySQLdb.Error), conn.cursor() as cursor:  # it ends by being killed; else it changes nothing
            cursor.execute(f"ALTER TABLE {sql.ident(self._table)} ENGINE = InnoDB")

    @property
    def is_lost(self) -> bool:
        return not self._open or self._altering is None or not self._altering.is_alive() or _is_cut(self._open[0])

    def end(self) -> None:
        import MySQLdb

        if self._altering is not None and self._altering.is_alive() and len(self._open) == 3:
            with suppress(MySQLdb.Error), self._open[2].cursor() as cursor:
                cursor.execute(f"KILL {self._thread_id}")
            self._altering.join(START_DEADLINE_S)
        for conn in self._open:
            conn.close()
        self._open, self._altering = [], None


def _is_cut(conn: Any) -> bool:
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def main() -> None:
    """Read :class:`Settings` as JSON from standard input and hold; SIGTERM and SIGINT end it in order."""
    settings = Settings.model_validate_json(sys.stdin.read())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a file for each connection
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    Arms(settings).run(stopping)


if __name__ == "__main__":
    main()
