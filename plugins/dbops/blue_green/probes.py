"""Probes: what a client of each endpoint sees, at 10 Hz and more, from a process of its own that outlives whoever started it.

Each lane sends an attempt every period, whether or not earlier ones have ended, because a probe that waits for its last answer sees the
least where most goes wrong. Every attempt opens a new connection. Lanes by kind:

    write           connect, INSERT one row: the row is evidence afterwards (:mod:`acknowledged`) and a heartbeat (:mod:`lag`)
    read            connect, SELECT who answers and the newest heartbeat
    refused_write   connect, an INSERT that must be refused because green is read-only; rolled back should it be accepted
    resolve         look the host name up: when clients are sent elsewhere

The prober ends by itself after ``max_seconds``, or once :func:`stop` leaves its note. Its settings (and so the password) reach it through
standard input, never through argv.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer, model_validator

from dbops import sql
from dbops.blue_green import companion, recording
from dbops.blue_green.recording import OTHER_ERROR, SECOND, Kind, Writer

TABLE = "dbops_probe"
START_DEADLINE_S = 30.0
REFUSALS = frozenset({1290, 1792, 1836})
"""ER_OPTION_PREVENTS_STATEMENT (read_only), ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION, ER_READ_ONLY_MODE."""


class Endpoint(BaseModel):
    """Where a lane connects to, and as whom: a plain user, not one with SUPER or CONNECTION_ADMIN, which read_only does not stop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1)
    port: int = Field(default=3306, ge=1, le=65535)
    user: str = Field(min_length=1)
    password: SecretStr = SecretStr("")
    ssl: dict[str, str] | None = Field(default=None, description="as mysqlclient takes it: ca, cert, key")

    @field_serializer("password", when_used="json")
    def _reveal(self, password: SecretStr) -> str:
        return password.get_secret_value()


class Lane(BaseModel):
    """One thing that is tried every period."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)
    kind: Kind
    endpoint: Endpoint


class Settings(BaseModel):
    """What a prober does. ``json`` of it holds the passwords: it goes through a pipe and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(min_length=1, max_length=64, description="names the writes of this rehearsal in the table")
    path: Path = Field(description="recording to append to, on a local disk")
    schema_name: str = Field(min_length=1, max_length=64, description="schema of the probe's table on blue")
    lanes: tuple[Lane, ...] = Field(min_length=1)
    period_ms: int = Field(default=50, ge=5, le=100, description="between two attempts of a lane; 100 is 10 Hz")
    timeout_s: int = Field(default=2, ge=1, le=30, description="an attempt gives up after so long")
    max_seconds: int = Field(ge=1, le=7 * 24 * 3600, description="the prober ends by itself after so long")

    @model_validator(mode="after")
    def _distinct(self) -> Settings:
        if len({lane.name for lane in self.lanes}) != len(self.lanes):
            raise ValueError("two lanes have one name; name each lane differently")
        return self

    @property
    def table(self) -> tuple[str, str]:
        """The probe's table."""
        return (self.schema_name, TABLE)


def connect(endpoint: Endpoint, *, autocommit: bool = True, timeout_s: int = 10) -> Any:
    """A connection of mysqlclient; each of its waits ends after `timeout_s`. Raises MySQLdb.Error."""
    import MySQLdb

    more = {"ssl": endpoint.ssl} if endpoint.ssl else {}
    return MySQLdb.connect(
        host=endpoint.host, port=endpoint.port, user=endpoint.user, password=endpoint.password.get_secret_value(),
        autocommit=autocommit, connect_timeout=timeout_s, read_timeout=timeout_s, write_timeout=timeout_s, **more,
    )  # fmt: skip


def create_table(conn: Any, schema: str) -> None:
    """Create the table that write lanes insert into, where it is missing; on blue, before green is made."""
    with conn.cursor() as cursor:
        cursor.execute(sql.render("blue_green/probe_table", table=(schema, TABLE)))


def start(settings: Settings) -> int:
    """Start a prober in a session of its own; return its pid once it has begun.

    A recording that a prober still writes to is refused. One that a killed prober left is continued: writes keep counting up, and the
    time between is blind.

    Raises:
        companion.CompanionError: it ended or did not begin within START_DEADLINE_S; the text has the end of its log
    """
    begun = time.monotonic_ns()

    def begins(pid: int) -> bool:
        return _has_header(settings.path, pid, begun)

    return companion.start(
        "dbops.blue_green.probes", settings.model_dump_json(), settings.path, begins, START_DEADLINE_S
    )


def is_running(path: Path) -> bool:
    """Whether a prober writes to the recording."""
    return companion.is_running(path)


def stop(path: Path, deadline_s: float = companion.STOP_DEADLINE_S) -> None:
    """Ask the prober of a recording to end, and wait until it has; nothing to do when none runs.

    Raises:
        companion.CompanionError: it still runs after the deadline
    """
    if path.exists():
        companion.stop(path, deadline_s)


class Prober:
    """Sends the attempts and writes the recording; :func:`main` runs one in a process of its own."""

    def __init__(self, settings: Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._settings, self._clock = settings, clock
        self._writer = Writer(settings.path)
        try:
            fcntl.flock(self._writer.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise companion.CompanionError(
                f"{settings.path}: another prober writes to it; stop that one first"
            ) from error
        self._first_seq = _next_seq(settings.path)
        self._known: dict[str, int] = {}
        self._errors: set[int] = set()
        self._lock = threading.Lock()
        self._read = sql.render("blue_green/probe_read", table=settings.table)
        self._write = f"INSERT INTO {sql.ident(settings.table)} (run, seq, sent_ns) VALUES (%s, %s, %s)"

    def run(self, stopping: threading.Event) -> None:
        """Probe until told to stop or until ``max_seconds`` have passed."""
        settings = self._settings
        period = settings.period_ms * SECOND // 1000
        # As many attempts as can wait for their deadline at once (name look-ups have none of their own), so that none waits for a thread.
        workers = 2 * settings.timeout_s * SECOND // period + 4
        pools = {lane.name: ThreadPoolExecutor(workers, lane.name) for lane in settings.lanes}
        base = self._clock()
        end, tick, note = base + settings.max_seconds * SECOND, 0, companion.stop_note(settings.path)
        kinds = {lane.name: lane.kind for lane in settings.lanes}
        self._writer.line("h", base, time.time_ns(), recording.boot_id(), os.getpid(), settings.run, period, kinds)
        while not stopping.is_set() and not note.exists() and self._clock() < end:
            for position, lane in enumerate(settings.lanes):
                due = base + tick * period + position * period // len(settings.lanes)
                stopping.wait(max(0, due - self._clock()) / SECOND)
                pools[lane.name].submit(self._attempt, lane, self._first_seq + tick)
            # A machine that could not keep up skips ticks: the recording shows the gap instead of a burst that pretends otherwise.
            tick = max(tick + 1, (self._clock() - base) // period)
        for pool in pools.values():
            pool.shutdown(wait=True)
        self._writer.line("q", self._clock())
        self._writer.close()

    def _attempt(self, lane: Lane, seq: int) -> None:
        try:
            self._record(lane, seq)
        except BaseException:  # a thread of a pool would die unseen; a prober that cannot record must not look alive
            sys.excepthook(*sys.exc_info())
            os.kill(os.getpid(), signal.SIGKILL)

    def _record(self, lane: Lane, seq: int) -> None:
        import MySQLdb

        sent, seen = self._clock(), _Seen()
        errno, text = 0, ""
        try:
            if lane.kind == "resolve":
                found = socket.getaddrinfo(lane.endpoint.host, lane.endpoint.port, type=socket.SOCK_STREAM)
                seen.server = ", ".join(sorted({str(address[4][0]) for address in found}))
            else:
                self._ask(lane, seq, sent, seen)
        except MySQLdb.Error as error:
            errno, text = _number(error), str(error.args[-1])[:300]
        except OSError as error:
            errno, text = OTHER_ERROR, f"{type(error).__name__}: {error}"[:300]
        done = self._clock()
        with self._lock:
            if errno and errno not in self._errors:
                self._errors.add(errno)
                self._writer.line("e", errno, text)
            server = None if seen.server is None else self._number_of(seen.server)
            self._writer.line("a", lane.name, seq, sent, seen.connected, done, errno, server, seen.beat)

    def _ask(self, lane: Lane, seq: int, sent: int, seen: _Seen) -> None:
        connection = connect(lane.endpoint, autocommit=lane.kind != "refused_write", timeout_s=self._settings.timeout_s)
        seen.connected = self._clock()
        with closing(connection), connection.cursor() as cursor:
            if lane.kind == "read":
                cursor.execute(self._read, {"run": self._settings.run})
                uuid, version, seen.beat = cursor.fetchone()
                seen.server = f"{version} {uuid}"
            else:
                cursor.execute(self._write, (self._settings.run, seq, sent))
                if lane.kind == "refused_write":
                    connection.rollback()

    def _number_of(self, server: str) -> int:
        if server not in self._known:
            self._known[server] = len(self._known)
            self._writer.line("s", self._known[server], server)
        return self._known[server]


class _Seen:
    """What an attempt got to see before it ended or failed."""

    connected: int | None = None
    server: str | None = None
    beat: int | None = None


def main() -> None:
    """Read :class:`Settings` as JSON from standard input and probe; SIGTERM and SIGINT end it in order."""
    settings = Settings.model_validate_json(sys.stdin.read())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    Prober(settings).run(stopping)


def _number(error: Exception) -> int:
    number = error.args[0]
    return number if isinstance(number, int) and number else OTHER_ERROR


def _next_seq(path: Path) -> int:
    """One more than the highest number of an attempt in the recording."""
    with path.open("rb") as file:
        attempts = (json.loads(line) for line in file if line.startswith(b'["a"') and line.endswith(b"]\n"))
        return max((attempt[2] + 1 for attempt in attempts), default=0)


def _has_header(path: Path, pid: int, since: int) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        headers = (json.loads(line) for line in file if line.startswith(b'["h"') and line.endswith(b"]\n"))
        return any(header[4] == pid and header[1] >= since for header in headers)


if __name__ == "__main__":
    main()
