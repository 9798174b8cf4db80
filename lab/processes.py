"""Start, find and stop the lab's detached processes; nothing here knows what the processes do.

A process is known by its pid *and* the second after boot at which it started (.lab/run/<name>.json), so that a pid
which the kernel gave to somebody else is never signalled, and a changed wall clock does not lose our own process.
"""

from __future__ import annotations

import fcntl
import http
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import tenacity

from lab import config
from lab.config import LabError

STOP_DEADLINE_S = 30
LOG_TAIL_BYTES = 3000


class ProcessEndedError(LabError):
    """The process is gone, so there is nothing to wait for."""


@dataclass(frozen=True)
class Service:
    """How to run one process and how to see that it is ready.

    ``prepare`` writes what the process reads (only called when it does not run) and returns its argv;
    ``ready`` raises any exception as long as the service does not answer.
    """

    name: str
    prepare: Callable[[], Sequence[str]]
    ready: Callable[[], None]
    deadline_s: float
    cwd: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def exclusive() -> Iterator[None]:
    """One command at a time changes the lab; a second one waits here."""
    config.home().mkdir(parents=True, exist_ok=True)
    with (config.home() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another lab command to end", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def log_path(name: str) -> Path:
    return config.home() / "log" / f"{name}.log"


def find(name: str) -> psutil.Process | None:
    """The running process of this service, or None."""
    try:
        record = json.loads(_record(name).read_text())
        process = psutil.Process(record["pid"])
        ours = abs(_started(process) - record["started_after_boot_s"]) < 0.05
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def start(service: Service) -> bool:
    """Start the service unless it runs; return once it is ready.

    Returns:
        True when this call started it.

    Raises:
        LabError: the port is taken, or the process ended or was not ready in time (with the end of its log)
    """
    process, log = find(service.name), log_path(service.name)
    fresh = process is None
    if process is None:
        require_free_port(service.name)
        argv = service.prepare()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=service.cwd,
                env={**os.environ, **service.environment},
                start_new_session=True,
            )
        process = psutil.Process(child.pid)
        record = _record(service.name)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"pid": child.pid, "started_after_boot_s": _started(process)}))
    _await_ready(service, process)
    return fresh


def stop(name: str) -> bool:
    """SIGTERM, then SIGKILL after STOP_DEADLINE_S; True when there was a process to stop."""
    process = find(name)
    if process is not None:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_DEADLINE_S)
    _record(name).unlink(missing_ok=True)
    return process is not None


def require_free_port(name: str) -> None:
    """Check that the port of this service can be bound.

    Raises:
        LabError: somebody has it; the text says who, and how to take another port
    """
    port = config.port(name)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.HOST, port))
        except OSError as error:
            raise LabError(
                f"port {port} of {name} is busy ({_listener(port)}): stop that process or set "
                f"{config.port_variable(name)} to a free port"
            ) from error


def http_get(name: str, path: str) -> bytes:
    """Body that the service answers with; never through a proxy.

    Raises:
        LabError: the status says that it failed
        OSError: it does not answer
    """
    connection = http.client.HTTPConnection(config.HOST, config.port(name), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
            raise LabError(f"{name} answers {answer.status} to GET {path}")
        return answer.read()
    finally:
        connection.close()


def _listener(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return f"pid {connection.pid} {psutil.Process(connection.pid).name()}"
    return "by a process of another user"


def _await_ready(service: Service, process: psutil.Process) -> None:
    def attempt() -> None:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise ProcessEndedError("ended while it started")
        service.ready()

    retry = tenacity.Retrying(
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(service.deadline_s),
        retry=tenacity.retry_if_not_exception_type(ProcessEndedError),
        reraise=True,
    )
    try:
        retry(attempt)
    except Exception as error:
        ended = isinstance(error, ProcessEndedError)
        problem = error if ended else f"is not ready after {service.deadline_s:.0f} s: {error}"
        raise LabError(
            f"{service.name} {problem}\n--- end of {log_path(service.name)}\n{_tail(service.name)}"
        ) from error


def _tail(name: str) -> str:
    with log_path(name).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace").strip()


def _record(name: str) -> Path:
    return config.home() / "run" / f"{name}.json"


def _started(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()
