"""What a task knows of itself, in a file that outlives its process: `lab.dms.worker` writes it, the API reads it."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SAVE_S = 0.1


@dataclass
class TableState:
    """A row of DescribeTableStatistics, in the names that it has there."""

    SchemaName: str
    TableName: str
    TableState: str = "Before load"
    Inserts: int = 0
    Updates: int = 0
    Deletes: int = 0
    Ddls: int = 0
    AppliedInserts: int = 0
    AppliedUpdates: int = 0
    AppliedDeletes: int = 0
    AppliedDdls: int = 0
    FullLoadRows: int = 0
    FullLoadCondtnlChkFailedRows: int = 0
    FullLoadErrorRows: int = 0
    FullLoadStartTime: float | None = None
    FullLoadEndTime: float | None = None
    FullLoadReloaded: bool = False
    LastUpdateTime: float = 0.0
    ValidationPendingRecords: int = 0
    ValidationFailedRecords: int = 0
    ValidationSuspendedRecords: int = 0
    ValidationState: str = "Not enabled"
    loaded_until: list[Any] | None = None  # position of the log up to which changes may be in the load already
    errors: int = 0
    validated_s: float = 0.0

    def described(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in asdict(self).items()
            if k not in {"loaded_until", "errors", "validated_s"} and v is not None
        }


@dataclass
class State:
    """Everything that a task resumes from, and what its metrics are made of."""

    path: Path
    tables: dict[str, TableState] = field(default_factory=dict)
    begin: list[Any] | None = None  # position at the begin of the full load
    checkpoint: list[Any] | None = None  # position up to which everything is applied
    loaded: bool = False  # the full load is over
    ended: bool = False  # the process ended on its own
    stop_reason: str = ""
    failure: str = ""
    recoveries: int = 0
    phase: str = "starting"
    pid: int = 0
    handled: int = 0  # the last command
    metrics: dict[str, float] = field(default_factory=dict)
    measured_s: float = 0.0  # when they were taken

    def __post_init__(self) -> None:
        self._lock, self._saved = threading.Lock(), 0.0

    @classmethod
    def load(cls, path: Path) -> State:
        """The state of a folder; a new one where there is none."""
        if not path.is_file():
            return cls(path)
        given = json.loads(path.read_text())
        given["tables"] = {name: TableState(**each) for name, each in given["tables"].items()}
        return cls(path, **given)

    def save(self, now: bool = True) -> None:
        """Write it; unless it has to be now, not more often than is of use."""
        with self._lock:
            if not now and time.monotonic() - self._saved < SAVE_S:
                return
            made = {k: v for k, v in asdict(self).items() if k != "path"}
            fresh = self.path.with_suffix(".new")
            fresh.write_text(json.dumps(made))
            fresh.rename(self.path)
            self._saved = time.monotonic()

    def end(self, reason: str, failure: str) -> None:
        """The task has ended; a table whose load is broken off is loaded again from its begin."""
        for each in self.tables.values():
            if each.TableState in {"Full load", "Table is being reloaded"}:
                each.TableState = "Table cancelled"
        self.ended, self.stop_reason, self.failure, self.metrics = True, reason, failure, {}

    def note(self, category: str, text: str) -> None:
        """Tell the API of an event, or with the category ``log`` of a line of the task's log."""
        with self.path.with_name("events.jsonl").open("a") as log:
            log.write(json.dumps([time.time(), category, text]) + "\n")
