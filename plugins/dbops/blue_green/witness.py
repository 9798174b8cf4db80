"""Looks at blue all through an attempt, from a process of its own: who holds transactions, runs DDL, how many are connected.

What stood in the way is gone once AWS has rolled back, because it cuts every connection; so it has to be seen while it stands.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dbops.blue_green import companion, holders, probes
from dbops.blue_green.holders import Baseline
from dbops.blue_green.ladder import Evidence
from dbops.blue_green.probes import Endpoint

START_DEADLINE_S = 30.0
PERIOD_S = 0.5
TIMEOUT_S = 5


class Settings(BaseModel):
    """Where to look. ``json`` of it has the password: it goes through a pipe and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(description="file to write what is seen to, on a local disk")
    endpoint: Endpoint
    max_seconds: int = Field(ge=1, le=24 * 3600, description="the process ends by itself after so long")


def start(settings: Settings) -> int:
    """Begin to look, and return the pid of the process. Raises companion.CompanionError when it cannot be started."""

    def looked(pid: int) -> bool:
        return any(line.get("pid") == pid for line in _lines(settings.path))

    return companion.start(
        "dbops.blue_green.witness", settings.model_dump_json(), settings.path, looked, START_DEADLINE_S
    )


def stop(path: Path) -> None:
    """End it; nothing to do when none runs. Raises companion.CompanionError when it does not end."""
    if path.exists():
        companion.stop(path)


def seen(path: Path, since: int, until: int) -> list[Evidence]:
    """What it saw between two instants (monotonic ns); looks that failed are not in it."""
    return [Evidence(**line["evidence"]) for line in _lines(path) if line["evidence"] and since <= line["at"] <= until]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}}")]


def _look(endpoint: Endpoint, since: Baseline | None) -> tuple[Evidence | None, Baseline | None]:
    """One look with a connection of its own, since those that are open get cut; None when blue does not answer.

    The first one makes the baseline that rows without a key are counted from.
    """
    import MySQLdb

    try:
        conn = probes.connect(endpoint, timeout_s=TIMEOUT_S)
        with closing(conn):
            since = since or holders.baseline(conn)
            return holders.evidence(conn, since), since
    except MySQLdb.Error:
        return None, since


def main() -> None:
    """Read :class:`Settings` as JSON from standard input and look until told to stop."""
    settings = Settings.model_validate_json(sys.stdin.read())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    note, end = companion.stop_note(settings.path), time.monotonic() + settings.max_seconds
    since: Baseline | None = None
    with settings.path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        while not stopping.is_set() and not note.exists() and time.monotonic() < end:
            at = time.monotonic_ns()
            found, since = _look(settings.endpoint, since)
            line = {"pid": os.getpid(), "at": at, "evidence": asdict(found) if found else {}}
            file.write(json.dumps(line) + "\n")
            file.flush()
            stopping.wait(PERIOD_S)


if __name__ == "__main__":
    main()
