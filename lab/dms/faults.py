"""The fault switches of the simulated DMS; they live in a file, so that any process can set them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.config import LabError

FAULTS: dict[str, Any] = {
    "source_down": False,  # nothing reaches the source, although its server runs
    "silent_source_loss": False,  # a source that goes away in a full load ends it "successfully", as AWS documents for MySQL
    "row_delay_s": 0,  # seconds for every 1,000 rows of a full load
    "lag_s": 0,  # a transaction is applied only so long after its commit
    "read_lag_s": 0,  # and this much of it shows as the latency of the source
    "throttle": 0,  # percent of writes to the target that are refused and tried again; 100 lets nothing through
    "table_error": [],  # tables (schema.table) that the target refuses from now on
    "bad_event": False,  # the next event of the binary log cannot be read
    "stop_reason": "",  # the task ends with this StopReason, such as STOPPED_DUE_TO_LOW_DISK
    "fatal_is_stopped": False,  # a task that ended with an error shows the status stopped, as AWS sometimes has it
    "instance_full": False,  # replication instances show the status storage-full, and have no free storage
    "move_fails": False,
    "stuck": False,  # a task that is started stays in the status starting
    "slow_s": 0,  # seconds that creating, starting, stopping, modifying, moving and deleting take
    "stats_delay_s": 0,  # DescribeTableStatistics shows what was so many seconds ago
    "connection_fails": [],  # identifiers of endpoints whose test fails
    "assessment": "",  # how assessment runs end: passed, warning, failed, error-executing, error-provisioning, invalid state
    "api_throttle": 0,  # percent of calls that end with ThrottlingException
    "drop_metrics": False,  # CloudWatch has no metric of DMS from now on
    "drop_events": False,  # nothing is recorded for DescribeEvents
}


def read(folder: Path) -> dict[str, Any]:
    path = folder / "faults.json"
    return {**FAULTS, **(json.loads(path.read_text()) if path.is_file() else {})}


def values(folder: Path, task: str = "") -> dict[str, Any]:
    """All switches; one that is set to ``{task identifier: value}`` is off for every other task."""
    found = read(folder)
    return {name: v.get(task, FAULTS[name]) if isinstance(v, dict) else v for name, v in found.items()}


class Switches:
    """Switches as one task sees them, read again whenever the file is another one: a switch holds from the moment at which it is set."""

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task = folder, task
        self.seen: tuple[int, ...] | None = None
        self.held = values(folder, task)

    def __getitem__(self, name: str) -> Any:
        try:
            found = (self.folder / "faults.json").stat()
        except FileNotFoundError:
            now: tuple[int, ...] = ()
        else:
            now = (found.st_mtime_ns, found.st_ino, found.st_size)
        if now != self.seen:
            self.held, self.seen = values(self.folder, self.task), now
        return self.held[name]


def value(folder: Path, name: str, task: str = "") -> Any:
    return values(folder, task)[name]


def set_faults(folder: Path, **switches: Any) -> None:
    """Replace all switches of the DMS that lives in this folder; without arguments, all are off.

    Raises:
        LabError: there is no such switch
    """
    if unknown := set(switches) - set(FAULTS):
        raise LabError(f"no fault switch {sorted(unknown)}: use one of {sorted(FAULTS)}")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / "faults.new"
    fresh.write_text(json.dumps(switches))
    fresh.rename(folder / "faults.json")
