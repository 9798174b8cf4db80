"""One replication task: its status as the API shows it, AWS's rules about what may be done when, and the process behind it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from moto.dms import models
from moto.dms.exceptions import DmsClientError, InvalidParameterCombinationException, InvalidResourceStateFault
from moto.dms.utils import random_id

from lab import config
from lab.config import LabError
from lab.dms import settings
from lab.dms.mappings import Mappings
from lab.dms.source import Position
from lab.dms.state import State
from lab.dms.worker import seconds

POLL_S = 0.05
RESTART_S = 0.3
STARTABLE = {"ready", "stopped", "failed"}
FAILURES = {"FATAL_ERROR", "RECOVERABLE_ERROR"}
CRASHED = "Replication task process ended unexpectedly."
RECOVERABLE = "Stop Reason RECOVERABLE_ERROR Error Level RECOVERABLE"
VERSION = "3.5.4"  # of an instance that names none
TYPES = ("full-load", "cdc", "full-load-and-cdc")


def invalid(text: str) -> DmsClientError:
    return DmsClientError("InvalidParameterValueException", text)


class Task(models.FakeReplicationTask):
    """A task; ``_work`` runs in a thread of its own as long as the task runs."""

    def __init__(self, backend: Any, given: dict[str, Any]) -> None:
        self.backend = backend
        self.id = given["ReplicationTaskIdentifier"]
        self.region = backend.region_name
        self.resource_id = given.get("ResourceIdentifier") or random_id(True, 26)
        self.arn = f"arn:aws:dms:{self.region}:{backend.account_id}:task:{self.resource_id}"
        self.source_endpoint_arn = given["SourceEndpointArn"]
        self.target_endpoint_arn = given["TargetEndpointArn"]
        self.replication_instance_arn = given["ReplicationInstanceArn"]
        self.migration_type = given["MigrationType"]
        if self.migration_type not in TYPES:
            raise invalid(f"Migration type {self.migration_type} is not one of {', '.join(TYPES)}")
        self.table_mappings = self._mappings(given["TableMappings"])
        self.settings = self._settings(given.get("ReplicationTaskSettings"), None)
        self.start_position, self.start_time = given.get("CdcStartPosition"), given.get("CdcStartTime")
        self.stop_position: str | None = given.get("CdcStopPosition")
        _require_one(self.start_position, self.start_time)
        self.folder: Path = backend.folder / self.resource_id
        self.folder.mkdir(parents=True)
        self.creation_date = time.time()
        self.started: list[float] = []
        self.fresh: float | None = None
        self.stopped: float | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.commands: list[
            dict[str, Any]
        ] = []  # all since the state was made anew; the process knows which it has obeyed
        self.seen_events, self.taking, self.ending = 0, threading.Lock(), False
        self.state, self.written, self.reading = State(self.folder / "state.json"), (0, 0), threading.Lock()
        self.was_run = False
        self.history: list[tuple[float, list[dict[str, Any]]]] = []
        self.status = "creating"
        self._later("ready", "created", "Replication task has been created.")

    # What the API shows

    def refresh(self) -> State:
        """The newest that the process has said."""
        path = self.folder / "state.json"
        with self.reading, contextlib.suppress(OSError, ValueError):  # else an older one might come last
            written = path.stat()
            if (written.st_mtime_ns, written.st_ino) != self.written:
                self.state, self.written = State.load(path), (written.st_mtime_ns, written.st_ino)
        return self.state

    def dimensions(self) -> dict[str, str]:
        """By which CloudWatch knows the task: its instance by name, itself by the last part of its ARN."""
        instance = self.backend.replication_instances.get(self.replication_instance_arn)
        named = {"ReplicationInstanceIdentifier": instance.id} if instance else {}
        return {**named, "ReplicationTaskIdentifier": self.resource_id}

    def shown_tables(self, now: float, delay_s: float) -> list[dict[str, Any]]:
        """Rows of DescribeTableStatistics; with a delay, those that could be seen so many seconds ago."""
        fresh = [each.described() for _, each in sorted(self.state.tables.items())]
        self.history.append((now, fresh))
        old = [rows for at, rows in self.history if at <= now - delay_s]
        self.history = self.history[max(0, len(old) - 1) :]
        return old[-1] if old else self.history[0][1]

    def to_dict(self) -> dict[str, Any]:
        state = self.refresh()
        made = {
            "ReplicationTaskIdentifier": self.id,
            "ReplicationTaskArn": self.arn,
            "SourceEndpointArn": self.source_endpoint_arn,
            "TargetEndpointArn": self.target_endpoint_arn,
            "ReplicationInstanceArn": self.replication_instance_arn,
            "MigrationType": self.migration_type,
            "TableMappings": self.table_mappings,
            "ReplicationTaskSettings": json.dumps(self.settings),
            "Status": self.status,
            "LastFailureMessage": state.failure or None,
            "StopReason": self._stop_reason(state),
            "ReplicationTaskCreationDate": self.creation_date,
            "ReplicationTaskStartDate": self.started[-1] if self.started else None,
            "CdcStartPosition": self.start_position,
            "CdcStopPosition": self.stop_position,
            "RecoveryCheckpoint": Position(*state.checkpoint).checkpoint() if state.checkpoint else None,
            "ReplicationTaskStats": self._stats(state) if self.was_run else None,
        }
        return {name: value for name, value in made.items() if value is not None}

    def _stop_reason(self, state: State) -> str | None:
        if (
            self.status not in {"stopped", "failed", "modifying", "moving", "failed-move", "testing"}
            or not state.stop_reason
        ):
            return None
        level = {"FATAL_ERROR": " Error Level FATAL", "RECOVERABLE_ERROR": " Error Level RECOVERABLE"}
        return f"Stop Reason {state.stop_reason}{level.get(state.stop_reason, '')}"

    def _stats(self, state: State) -> dict[str, Any]:
        tables = list(state.tables.values())
        by_state: dict[str, int] = {}
        for each in tables:
            by_state[each.TableState] = by_state.get(each.TableState, 0) + 1
        done = by_state.get("Table completed", 0)
        begins = [each.FullLoadStartTime for each in tables if each.FullLoadStartTime]
        ends = [each.FullLoadEndTime for each in tables if each.FullLoadEndTime]
        until = self.stopped if self.stopped and self.status in STARTABLE else time.time()
        made = {
            "FullLoadProgressPercent": 100 * done // len(tables) if tables else 100 * state.loaded,
            "ElapsedTimeMillis": int(1000 * (until - self.started[-1])) if self.started else 0,
            "TablesLoaded": done,
            "TablesLoading": by_state.get("Full load", 0) + by_state.get("Table is being reloaded", 0),
            "TablesQueued": by_state.get("Before load", 0),
            "TablesErrored": by_state.get("Table error", 0),
            "FreshStartDate": self.fresh,
            "StartDate": self.started[-1] if self.started else None,
            "StopDate": self.stopped,
            "FullLoadStartDate": min(begins, default=None),
            "FullLoadFinishDate": max(ends, default=None) if state.loaded else None,
        }
        return {name: value for name, value in made.items() if value is not None}

    # What the API does

    def begin(self, given: dict[str, Any]) -> None:
        """StartReplicationTask."""
        kind = given["StartReplicationTaskType"]
        self._require(STARTABLE, "started")
        self._require_start_type(kind, given)
        self._require_tested()
        self._keep_range(given)
        if kind != "resume-processing":
            with self.reading:
                for name in ("state.json", "commands.json"):
                    (self.folder / name).unlink(missing_ok=True)
                self.commands = []
                self.state, self.written = State(self.folder / "state.json"), (0, 0)
        self._write_job(kind)
        self.status, self.was_run, self.ending = "starting", True, False
        self.started.append(time.time())
        self.fresh = self.fresh if kind == "resume-processing" else self.started[-1]
        self.stopped = None
        threading.Thread(target=self._work, daemon=True).start()

    def _require_tested(self) -> None:
        self.backend.require_connections(self)

    def _require_start_type(self, kind: str, given: dict[str, Any]) -> None:
        is_from_position = given.get("CdcStartPosition") or given.get("CdcStartTime")
        _require_one(given.get("CdcStartPosition"), given.get("CdcStartTime"))
        name = kind.upper().replace("-", "_")
        if kind not in {"start-replication", "resume-processing", "reload-target"}:
            raise invalid(f"Start Type : {kind} is not valid")
        if not self.was_run and kind != "start-replication":
            raise InvalidParameterCombinationException(f"Start Type : {name}, valid only for tasks running previously")
        if self.was_run and kind == "start-replication" and not (self.migration_type == "cdc" and is_from_position):
            raise InvalidParameterCombinationException(
                f"Start Type : {name}, valid only for tasks running for the first time"
            )
        if kind == "reload-target" and self.migration_type == "cdc":
            raise InvalidParameterCombinationException(f"Start Type : {name}, not valid for tasks of the type cdc")
        if is_from_position and (self.migration_type == "full-load" or kind != "start-replication"):
            raise InvalidParameterCombinationException(
                "CdcStartTime and CdcStartPosition are valid only for CDC that starts"
            )

    def _keep_range(self, given: dict[str, Any]) -> None:
        """CdcStartPosition, CdcStartTime and CdcStopPosition, which stay with the task."""
        for text in (given.get("CdcStartPosition"), self.start_position):
            if text and not _is_time(text):
                try:
                    Position.parse(text)
                except LabError as error:
                    raise invalid(str(error)) from error
        if stop := given.get("CdcStopPosition"):
            kind, _, at = stop.partition(":")
            if kind not in {"server_time", "commit_time"} or not _is_time(at):
                raise invalid(f"CdcStopPosition {stop!r} is neither server_time: nor commit_time: with a time")
            self.stop_position = stop
        if given.get("CdcStartPosition") or given.get("CdcStartTime"):
            self.start_position, self.start_time = given.get("CdcStartPosition"), given.get("CdcStartTime")

    def end(self) -> None:
        """StopReplicationTask."""
        if self.status not in {"running", "starting"}:
            raise InvalidResourceStateFault(f"Replication Task {self.arn} is currently not running")
        self.status, self.ending = "stopping", True

        def stop() -> None:
            self.backend.delay(self.id)
            if self.process is not None:
                self.process.terminate()

        threading.Thread(target=stop, daemon=True).start()

    def modify(self, given: dict[str, Any]) -> None:
        self._require(STARTABLE, "modified")
        if given.get("MigrationType", self.migration_type) != self.migration_type:
            raise InvalidParameterCombinationException("The migration type of a task cannot be changed")
        _require_one(given.get("CdcStartPosition"), given.get("CdcStartTime"))
        mappings = self._mappings(given["TableMappings"]) if "TableMappings" in given else self.table_mappings
        self.settings = self._settings(given.get("ReplicationTaskSettings"), self.settings)
        self.table_mappings = mappings
        self._keep_range(given)
        self.id = given.get("ReplicationTaskIdentifier", self.id)
        self.status = "modifying"
        self._later(
            "stopped" if self.was_run else "ready", "configuration change", "Replication task has been modified."
        )

    def move(self, instance: Any) -> None:
        """MoveReplicationTask."""
        self._require({"stopped", "failed", "failed-move"}, "moved")
        own = self.backend.instance(self.replication_instance_arn)
        if instance.arn == own.arn:
            raise InvalidParameterCombinationException("The task is on that replication instance already")
        if _version(instance.engine_version) < _version(own.engine_version):
            raise InvalidParameterCombinationException("The target replication instance has an earlier version")
        self.status = "moving"
        if self.backend.fault("move_fails", self.id):
            self._later("failed-move", "failure", "Replication task could not be moved.")
            return
        self.replication_instance_arn = instance.arn
        self._later("stopped", "configuration change", "Replication task has been moved.")

    def reload(self, tables: list[tuple[str, str]], validate_only: bool = False) -> None:
        """ReloadTables."""
        if self.status != "running":
            raise InvalidResourceStateFault("ReloadTables is only valid when the task is running")
        if self.migration_type == "cdc":
            raise InvalidResourceStateFault("ReloadTables is not valid for tasks of the type cdc")
        if validate_only and not self.settings["ValidationSettings"]["EnableValidation"]:
            raise InvalidParameterCombinationException("ReloadOption validate-only needs a task with validation")
        known = self.refresh().tables
        for schema, table in tables:
            if f"{schema}.{table}" not in known:
                raise invalid(f"Table {schema}.{table} is not a table of the task")
        names = [".".join(each) for each in tables]
        self.commands.append({"number": len(self.commands) + 1, "tables": names, "validate_only": validate_only})
        fresh = self.folder / "commands.new"
        fresh.write_text(json.dumps(self.commands))
        fresh.rename(self.folder / "commands.json")

    def remove(self) -> None:
        """DeleteReplicationTask: refused while it works; a task that moves may be deleted, and nothing else."""
        if self.status in {"running", "starting", "stopping", "testing", "modifying", "creating", "deleting"}:
            raise InvalidResourceStateFault(f"Replication Task {self.arn} is {self.status} and cannot be deleted")
        self.status = "deleting"

    def forget(self) -> None:
        """End the process at once, and remove the files."""
        self.ending = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # The process behind it

    def _work(self) -> None:
        """Start the process, begin it anew when something kills it, and keep the status in step until its end."""
        self.backend.delay(self.id)
        while self.backend.fault("stuck", self.id) and not self.ending:
            time.sleep(POLL_S)
        self.event("state change", "Replication task has started.")
        limit = int(self.settings["ErrorBehavior"]["RecoverableErrorCount"])
        while True:
            self._watch()
            if self.state.ended or self.ending:
                break
            # As with any recoverable error: the status stays, the message says it, and progress forgets it.
            state = self.state
            state.recoveries += 1
            state.failure, state.metrics = f"Last Error {CRASHED} {RECOVERABLE}", {}
            if 0 <= limit < state.recoveries:
                break
            with contextlib.suppress(OSError):  # it is deleted just now
                state.save()
            self.event("failure", f"Recoverable error {state.recoveries}: {CRASHED} It is started again.")
            time.sleep(RESTART_S)
        self._close()

    def _watch(self) -> None:
        """One process from its start to its end."""
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "lab.dms.worker", str(self.folder)]
            self.process = subprocess.Popen(command, cwd=config.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self.ending:
            self.process.terminate()
        while self.process.poll() is None:
            state = self.refresh()
            if self.status == "starting" and state.pid == self.process.pid and state.phase != "starting":
                self.status = "running"
            self.take_events()
            time.sleep(POLL_S)
        self.refresh()
        self.take_events()

    def _close(self) -> None:
        state = self.state
        if not state.ended:
            state.end("NORMAL" if self.ending else "RECOVERABLE_ERROR", "" if self.ending else state.failure)
            with contextlib.suppress(OSError):
                state.save()
        failed = state.stop_reason in FAILURES and not self.backend.fault("fatal_is_stopped", self.id)
        self.stopped = time.time()
        text = f"Replication task has {'failed' if failed else 'stopped'}. Stop Reason {state.stop_reason}"
        self.event("failure" if failed else "state change", text)
        self.status = "failed" if failed else "stopped"

    def take_events(self) -> None:
        """Record what the process has told since the last time. It tells before it saves, so a state that is seen has its events."""
        with self.taking:
            self._take_events()

    def _take_events(self) -> None:
        path = self.folder / "events.jsonl"
        lines = path.read_bytes()[self.seen_events :] if path.is_file() else b""
        whole = lines[: lines.rfind(b"\n") + 1]
        self.seen_events += len(whole)
        for line in whole.splitlines():
            at, category, text = json.loads(line)
            if category != "log":
                self.event(category, text)
            elif self.settings["Logging"]["EnableLogging"]:
                self.backend.log(self, at, text)

    def event(self, category: str, text: str) -> None:
        self.backend.record("replication-task", self.id, category, text)

    def _write_job(self, kind: str) -> None:
        start, since = self.start_position, None
        if start and _is_time(start):
            start, since = "oldest", seconds(start)
        elif self.start_time is not None and not start:
            at = self.start_time
            start, since = "oldest", at if isinstance(at, int | float) else seconds(str(at))
        job = {
            "task": self.id,
            "faults": str(self.backend.folder),
            "migration_type": self.migration_type,
            "start_type": kind,
            "start_position": start if kind == "start-replication" else None,
            "start_time": since if kind == "start-replication" else None,
            "stop_position": self.stop_position,
            "mappings": self.table_mappings,
            "settings": self.settings,
            "source": self.backend.address(self.source_endpoint_arn),
            "target": self.backend.target(self.target_endpoint_arn),
            "server_id": random.randrange(1 << 30, 1 << 31),
        }
        path = self.folder / "job.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(job))

    def _mappings(self, text: str) -> str:
        try:
            Mappings(text)
        except LabError as error:
            raise invalid(str(error)) from error
        return text

    @staticmethod
    def _settings(text: str | None, over: dict[str, Any] | None) -> dict[str, Any]:
        try:
            return settings.expanded(text, over)
        except LabError as error:
            raise invalid(str(error)) from error

    def _require(self, states: set[str], what: str) -> None:
        if self.status not in states:
            raise InvalidResourceStateFault(f"Replication Task {self.arn} cannot be {what}, as it is {self.status}")

    def _later(self, status: str, category: str, text: str) -> None:
        on_the_way = self.status

        def change() -> None:
            self.backend.delay(self.id)
            if self.status == on_the_way:  # it may be deleted meanwhile
                self.event(category, text)
                self.status = status

        threading.Thread(target=change, daemon=True).start()


def _require_one(position: Any, at: Any) -> None:
    if position and at:
        raise InvalidParameterCombinationException("Specify either CdcStartPosition or CdcStartTime, but not both")


def _is_time(text: str) -> bool:
    try:
        seconds(text)
    except ValueError:
        return False
    return True


def _version(text: str | None) -> list[int]:
    return [int(part) for part in (text or VERSION).split(".") if part.isdecimal()]
