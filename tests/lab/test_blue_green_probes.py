"""Probers against a real server: they outlive whoever started them, a killed one is continued, and two never share a recording."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dbops import connections
from dbops.blue_green import acknowledged, companion, lag, outages, probes, recording
from lab import config

pytestmark = pytest.mark.lab
SCHEMA = config.STORE_SCHEMA


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[probes.Settings]:
    endpoint = probes.Endpoint(
        host=config.HOST, port=config.port("mysql80"), user=config.MYSQL_USER, password=config.MYSQL_PASSWORD
    )
    lanes = tuple(probes.Lane(name=kind, kind=kind, endpoint=endpoint) for kind in ("write", "read"))
    made = probes.Settings(
        run=tmp_path.name[-60:],
        path=tmp_path / "blue.jsonl",
        schema_name=SCHEMA,
        lanes=lanes,
        period_ms=20,
        max_seconds=120,
    )
    with closing(connections.mysql("mysql80", schema=SCHEMA)) as conn:
        probes.create_table(conn, SCHEMA)
        yield made
        probes.stop(made.path)
        with conn.cursor() as cursor:
            cursor.execute(f"DELETE FROM {probes.TABLE} WHERE run = %s", (made.run,))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def writes(settings: probes.Settings) -> int:
    return len(recording.read([settings.path]).lanes.get("write", ()))


def test_what_is_written_is_acknowledged_counted_and_shown_as_a_heartbeat(settings: probes.Settings) -> None:
    probes.start(settings)
    until(lambda: writes(settings) >= 30)
    with closing(connections.mysql("mysql80", schema=SCHEMA)) as conn:
        assert lag.now(conn, conn, SCHEMA, settings.run) == 0.0
        probes.stop(settings.path)
        assert not probes.is_running(settings.path)
        found = recording.read([settings.path])
        assert found.ended
        checked = acknowledged.check(conn, found, SCHEMA)
        assert checked.sound
        with conn.cursor() as cursor:
            cursor.execute(f"DELETE FROM {probes.TABLE} WHERE run = %s AND seq = 3", (settings.run,))
        assert acknowledged.check(conn, found, SCHEMA).lost == (3,)
    assert max(s.seconds for s in lag.samples(found, "read") if s.seconds is not None) < 1
    assert outages.measure(found, "write", "write").failed_attempts == 0


def test_a_prober_that_is_killed_is_continued_and_the_time_between_is_blind(settings: probes.Settings) -> None:
    pid = probes.start(settings)
    until(lambda: writes(settings) >= 10)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not probes.is_running(settings.path))
    before = writes(settings)
    probes.start(settings)
    until(lambda: writes(settings) >= before + 10)
    probes.stop(settings.path)
    found = recording.read([settings.path])
    assert not found.ended, "one of the two was killed"
    numbers = [a.seq for a in found.lanes["write"]]
    assert len(numbers) == len(set(numbers)), "no number is used twice"
    assert outages.measure(found, "write", "write").blind_s > 0


def test_a_second_prober_of_a_recording_is_refused(settings: probes.Settings) -> None:
    probes.start(settings)
    with pytest.raises(companion.CompanionError, match="another prober writes to it"):
        probes.start(settings)
    assert probes.is_running(settings.path)


def test_no_password_is_in_argv(settings: probes.Settings) -> None:
    pid = probes.start(settings)
    assert config.MYSQL_PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_server_that_is_not_there_is_recorded_as_an_outage(settings: probes.Settings) -> None:
    gone = probes.Endpoint(host=config.HOST, port=1, user="x", password="y")
    lanes = (*settings.lanes, probes.Lane(name="gone", kind="read", endpoint=gone))
    probes.start(settings.model_copy(update={"lanes": lanes}))
    until(lambda: len(recording.read([settings.path]).lanes.get("gone", ())) >= 5)
    probes.stop(settings.path)
    down = outages.measure(recording.read([settings.path]), "gone", "connect")
    assert not down.is_over
    assert down.failed_attempts == down.attempts
