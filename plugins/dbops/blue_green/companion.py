"""A process of its own that outlives whoever started it: told what to do through standard input, found and ended through a file.

It holds an exclusive lock on its file as long as it lives, so that nobody has to trust a pid.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import tenacity

STOP_DEADLINE_S = 60.0


class CompanionError(RuntimeError):
    """It could not be started or stopped; the text says why and what to do."""


def start(module: str, settings: str, path: Path, has_begun: Callable[[int], bool], deadline_s: float) -> int:
    """Run a module in a session of its own, and return its pid once it has begun.

    Args:
        module: for ``python -m``
        settings: text for its standard input; passwords belong there, never into argv
        path: its file
        has_begun: told the pid, asked again and again
        deadline_s: it is killed when it has not begun by then

    Raises:
        CompanionError: it ended or has not begun by then; the text has the end of its log
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stop_note(path).unlink(missing_ok=True)
    log = log_path(path)
    package_root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,
        )
    assert child.stdin is not None  # noqa: S101 - asked for above; tells the type checker
    with child.stdin as pipe:
        pipe.write(settings.encode())

    def begins() -> None:
        if child.poll() is not None:
            raise CompanionError(f"{module} of {path} ended with status {child.returncode}: {tail(log)}")
        if not has_begun(child.pid):
            raise BlockingIOError

    try:
        _await(begins, deadline_s)
    except BlockingIOError as error:
        child.kill()
        child.wait()
        raise CompanionError(f"{module} of {path} has not begun after {deadline_s:g} s: {tail(log)}") from error
    threading.Thread(target=child.wait, daemon=True).start()  # reaps it, should it end before this process
    return child.pid


def is_running(path: Path) -> bool:
    """Whether a process has the file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stop(path: Path, deadline_s: float = STOP_DEADLINE_S) -> None:
    """Ask it to end and wait until it has; nothing to do when it does not run.

    Raises:
        CompanionError: it still runs after the deadline
    """
    stop_note(path).touch()

    def gone() -> None:
        if is_running(path):
            raise BlockingIOError

    try:
        _await(gone, deadline_s)
    except BlockingIOError as error:
        raise CompanionError(
            f"the process of {path} still runs after {deadline_s:g} s; see {log_path(path)} and end it by its pid"
        ) from error
    stop_note(path).unlink(missing_ok=True)


def stop_note(path: Path) -> Path:
    """The file whose presence tells the process to end."""
    return path.with_name(f"{path.name}.stop")


def log_path(path: Path) -> Path:
    """Where its messages go."""
    return path.with_name(f"{path.name}.log")


def tail(log: Path) -> str:
    """The end of a log on one line."""
    if not log.exists():
        return "it has no log"
    return " ".join(log.read_text(errors="replace").split())[-800:] or "its log is empty"


def _await(ready: Callable[[], None], deadline_s: float) -> None:
    again, limit = tenacity.retry_if_exception_type(BlockingIOError), tenacity.stop_after_delay(deadline_s)
    tenacity.Retrying(wait=tenacity.wait_fixed(0.05), stop=limit, retry=again, reraise=True)(ready)
