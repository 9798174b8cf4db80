"""What every bench shares: CPU and memory of processes from /proc, waiting for a quiet server, tables, raw results."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lab import env, processes
from lab.config import ROOT, SERVICES, LabError

RAW = ROOT / "bench" / "results" / "raw"
POLL_S = 0.05
IDLE_CPU_SHARE = 0.04
IDLE_DEADLINE_S = 90


@dataclass
class Cpu:
    """CPU seconds of one measured stretch: by service of the lab, and of everything else on the machine."""

    services: dict[str, float] = field(default_factory=dict)
    machine: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True)
class Child:
    """A finished child process: what it printed, how long it ran, its CPU seconds and its peak resident memory."""

    output: str
    seconds: float
    cpu_s: float
    peak_rss_mb: int


def service(name: str) -> psutil.Process:
    """The running process of a service of the lab. Raises LabError when it is down."""
    found = processes.find(name)
    if found is None:
        raise LabError(f"{name} does not run: run `make lab-up`")
    return found


@contextmanager
def cpu_account() -> Iterator[Cpu]:
    """Measure the block: CPU seconds of the lab's services and busy seconds of the whole machine."""
    account, running = Cpu(), {name: service(name) for name in SERVICES}
    before = {name: _cpu(process) for name, process in running.items()}
    machine, began = _machine_busy(), time.monotonic()
    yield account
    account.wall = time.monotonic() - began
    account.machine = _machine_busy() - machine
    account.services = {name: _cpu(process) - before[name] for name, process in running.items()}


def run_child(command: Sequence[str], *, variables: Mapping[str, str] | None = None, text: str = "") -> Child:
    """Run a command in the lab's environment. Raises LabError with the end of its output when it fails.

    The peak is VmHWM, polled: unlike ru_maxrss it does not begin with the memory of the process that forked.
    """
    surroundings = {**os.environ, **env.environment(), **(variables or {})}
    surroundings["PYTHONPATH"] = os.pathsep.join([str(ROOT / "plugins"), surroundings["PYTHONPATH"]])
    began = time.monotonic()
    child = subprocess.Popen(
        list(command), cwd=ROOT, env=surroundings, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    peaks, errors = [0], [""]
    watch = threading.Thread(target=_watch_peak, args=(child.pid, peaks))
    drain = threading.Thread(target=lambda: errors.append(child.stderr.read() if child.stderr else ""))
    watch.start()
    drain.start()
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(text)
    child.stdin.close()
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    watch.join()
    drain.join()
    if child.returncode:
        raise LabError(f"`{' '.join(command)}` ended with {child.returncode}:\n{(output + errors[-1]).strip()[-3000:]}")
    return Child(output, seconds, usage.ru_utime + usage.ru_stime, max(peaks))


def until_idle(name: str, more: Callable[[], bool] = lambda: True) -> tuple[float, float]:
    """Wait until a service uses almost no CPU and `more` is true; returns (CPU seconds it used meanwhile, seconds waited)."""
    process, began = service(name), time.monotonic()
    first = last = _cpu(process)
    while True:
        # The one thing to wait for is that a second passes in which nothing happens.
        time.sleep(1.0)
        now = _cpu(process)
        waited = time.monotonic() - began
        if now - last < IDLE_CPU_SHARE and more():
            return last - first, waited - 1.0
        if waited > IDLE_DEADLINE_S:
            raise LabError(f"{name} is still busy after {waited:.0f} s: stop what else uses it and measure again")
        last = now


def peak_rss_mb() -> int:
    """Peak resident memory of this process so far."""
    return _peak_kib("self") // 1024


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in plain text: first column left, others right; floats with two decimals, large ones with none."""
    texts = [[str(h) for h in headers], *([_cell(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(headers))]
    lines = ["  ".join(t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True)))
             for row in texts]  # fmt: skip
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def spread(values: Sequence[float]) -> str:
    """Smallest to largest."""
    return f"{min(values):.2f}-{max(values):.2f}"


def median(values: Sequence[float]) -> float:
    """Median, named here so that every bench means the same by it."""
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpus": os.cpu_count(),
        "cpu_model": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def show_machine() -> None:
    """One line on the machine, and whether it is busy with something else."""
    m = machine()
    idle = psutil.cpu_times_percent(interval=1.0).idle
    print(
        f"{m['date']}; {m['cpus']} CPUs ({m['cpu_model']}), {m['memory_gib']} GiB, Linux {m['kernel']}, Python {m['python']};"
        f" load {m['load_1m']}, {idle:.0f} % idle before the start",
        flush=True,
    )


def record(name: str, results: Mapping[str, Any]) -> Path:
    """Keep the raw figures of one bench."""
    RAW.mkdir(parents=True, exist_ok=True)
    path = RAW / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1, default=str) + "\n")
    return path


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine_busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _watch_peak(pid: int, peaks: list[int]) -> None:
    while (peak := _peak_kib(str(pid))) >= 0:
        peaks.append(peak // 1024)
        time.sleep(POLL_S)


def _peak_kib(pid: str) -> int:
    """VmHWM; -1 when the process is gone or a zombie."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), -1)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
