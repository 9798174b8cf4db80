"""Detached processes: started once, found again, never confused with somebody else's, always stopped."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from lab import config, processes
from lab.config import LabError
from lab.processes import Service

NAME = "trino"  # any name that has a port
LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LISTEN}"


@pytest.fixture(autouse=True)
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A lab of its own, with a free port; whatever a test leaves running there ends with the test."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    with socket.create_server((config.HOST, 0)) as server:
        free = int(server.getsockname()[1])
    monkeypatch.setenv(config.port_variable(NAME), str(free))
    yield free
    processes.stop(NAME)


def service(code: str, deadline_s: float = 10, ready: Callable[[], None] | None = None) -> Service:
    def prepare() -> Sequence[str]:
        return [sys.executable, "-c", code, str(config.port(NAME))]

    def connect() -> None:
        socket.create_connection((config.HOST, config.port(NAME)), timeout=1).close()

    return Service(NAME, prepare, ready or connect, deadline_s)


def test_start_is_found_again_and_stop_leaves_nothing() -> None:
    assert processes.start(service(LISTEN))
    process = processes.find(NAME)
    assert process is not None
    assert not processes.start(service("raise SystemExit('started twice')"))
    assert processes.find(NAME) == process
    assert processes.stop(NAME)
    assert not process.is_running()
    assert processes.find(NAME) is None
    assert not processes.stop(NAME)


def test_process_has_its_own_session_so_that_ctrl_c_does_not_reach_it() -> None:
    processes.start(service(LISTEN))
    process = processes.find(NAME)
    assert process is not None
    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[3] == str(process.pid)


def test_a_reused_pid_is_neither_found_nor_killed() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        record = processes._record(NAME)
        record.parent.mkdir()
        started = processes._started(psutil.Process(stranger.pid))
        record.write_text(json.dumps({"pid": stranger.pid, "started_after_boot_s": started - 1}))
        assert processes.find(NAME) is None
        assert not processes.stop(NAME)
        assert stranger.poll() is None
        record.write_text(json.dumps({"pid": stranger.pid, "started_after_boot_s": started}))
        assert processes.find(NAME) is not None  # so it was the start that told them apart
    finally:
        record.unlink()
        stranger.kill()
        stranger.wait()


def test_a_changed_wall_clock_does_not_lose_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.start(service(LISTEN))
    boot = psutil.boot_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    assert processes.find(NAME) is not None


def test_a_process_that_ends_fails_at_once_with_the_end_of_its_log() -> None:
    begin = time.monotonic()
    with pytest.raises(LabError, match=r"(?s)trino ended while it started\n--- end of .*/trino\.log\n.*no such table"):
        processes.start(service("raise SystemExit('no such table')", deadline_s=60))
    assert time.monotonic() - begin < 10
    assert processes.find(NAME) is None


def test_a_process_that_is_not_ready_in_time_is_reported_and_can_be_stopped() -> None:
    def never() -> None:
        raise ValueError("starting=true")

    with pytest.raises(LabError, match=r"(?s)trino is not ready after 0 s: starting=true\n--- end of"):
        processes.start(service(LISTEN, deadline_s=0.3, ready=never))
    assert processes.stop(NAME)


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_DEADLINE_S", 0.3)
    processes.start(service(DEAF))
    process = processes.find(NAME)
    assert process is not None
    assert processes.stop(NAME)
    assert not process.is_running()


def test_a_busy_port_names_port_process_and_variable(port: int) -> None:
    with socket.create_server((config.HOST, port)), pytest.raises(LabError) as caught:
        processes.start(service(LISTEN))
    assert f"port {port} of trino is busy (pid {psutil.Process().pid} " in str(caught.value)
    assert "set LAB_TRINO_PORT to a free port" in str(caught.value)


def test_commands_that_change_the_lab_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with processes.exclusive():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with processes.exclusive():
        inside.set()
        while "waiting for another lab command" not in capsys.readouterr().err:
            assert thread.is_alive()
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_failing_answer_is_not_ready(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_AWS_PORT", moto_server.rpartition(":")[2])
    assert processes.http_get("aws", "/moto-api/config")
    with pytest.raises(LabError, match="aws answers 404 to GET /moto-api/nothing"):
        processes.http_get("aws", "/moto-api/nothing")
