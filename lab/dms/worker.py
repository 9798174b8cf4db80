"""The process of one task: it copies tables, then follows the binary log until it is told to end.

``python -m lab.dms.worker DIR``: the folder holds ``job.json`` (what to do), ``state.json`` (how far it came) and ``commands.json``
(tables to load again). SIGTERM is StopReplicationTask. After any other end, the same call goes on from the state.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.dms import faults
from lab.dms.mappings import Mappings
from lab.dms.source import (
    SYSTEM_SCHEMAS,
    Change,
    FatalError,
    Follower,
    LostError,
    Position,
    Source,
    Table,
    Transaction,
)
from lab.dms.state import State, TableState
from lab.dms.targets import Mapped, Row, RowError, TableError, Target
from lab.dms.targets.mysql import MySQLTarget

QUEUED = 500  # transactions that are read ahead
IDLE_S = 0.1
THROTTLED_S = 0.2
DELAY_S = 0.05
SHORTEST_PAUSE_S = 0.2
KILOBYTE = 1024
WRITING = ("INSERT_RECORD", "UPDATE_RECORD")  # policies by which the row is written all the same
UNLOADED = ("Before load", "Full load", "Table cancelled")
NOTHING = (
    "No tables were found at task initialization. Either the selected table(s) or schema(s) no longer exist or no match was found for "
    "the table selection pattern(s). If you would like to start a Task that does not initially capture any tables, set Task Setting "
    "FailOnNoTablesCaptured to false and restart task."
)


class Stopped(Exception):
    """The task ends now; the text is its StopReason without the words in front."""


class Worker:
    """One task from its start to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: dict[str, Any] = json.loads((folder / "job.json").read_text())
        self.state = State.load(folder / "state.json")
        self.state.ended, self.state.pid, self.state.stop_reason = False, os.getpid(), ""
        self.settings: dict[str, Any] = self.job["settings"]
        self.errors: dict[str, Any] = self.settings["ErrorBehavior"]
        self.name: str = self.job["task"]
        self.mappings = Mappings(self.job["mappings"])
        self.source = Source(**self.job["source"])
        self.mapped: dict[str, Mapped] = {}
        self.target: Target
        self.told_to_stop = threading.Event()
        self.tolerant_until = Position("", 0)
        self.delivered = Position("", 0)  # everything before it is in the queue, or was
        self.switches = faults.Switches(Path(self.job["faults"]), self.name)
        self.parent = os.getppid()
        self.oldest_s = 0  # commit of the transaction that waits longest
        self.follower: Follower | None = None
        self.queue: queue.Queue[Transaction | Exception] = queue.Queue(QUEUED)

    def fault(self, name: str) -> Any:
        """Value of a switch as it is now."""
        return self.switches[name]

    def run(self) -> None:
        """Work until the end, whatever it is; the state says which one."""
        while True:
            try:
                self._work()
            except Stopped as reason:
                self._end(str(reason), "")
                return
            except FatalError as error:
                self._end("FATAL_ERROR", f"Last Error {error} Stop Reason FATAL_ERROR Error Level FATAL")
                return
            except LostError as error:
                self.state.recoveries += 1
                limit = self.errors["RecoverableErrorCount"]
                text = f"Last Error {error} Stop Reason RECOVERABLE_ERROR Error Level RECOVERABLE"
                if 0 <= limit < self.state.recoveries:
                    self._end("RECOVERABLE_ERROR", text)
                    return
                self.state.failure, self.state.metrics = text, {}
                self.state.note("failure", f"Recoverable error {self.state.recoveries}: {error}")
                self.state.save()
                if self._is_stopped_within(self._pause()):
                    self._end("NORMAL", "")
                    return

    def _is_stopped_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._require_parent()
            if self.told_to_stop.wait(min(0.5, seconds)):
                return True
        return False

    def _require_parent(self) -> None:
        """A task has no life of its own: without the account it is gone."""
        if os.getppid() != self.parent:
            os._exit(1)

    def _pause(self) -> float:
        """Seconds before the next try; they grow from try to try."""
        interval = max(SHORTEST_PAUSE_S, float(self.errors["RecoverableErrorInterval"]))
        if not self.errors["RecoverableErrorThrottling"]:
            return interval
        return min(interval * self.state.recoveries, float(self.errors["RecoverableErrorThrottlingMax"]))

    def _end(self, reason: str, failure: str) -> None:
        self.state.end(reason, failure)
        self.state.save()

    def _work(self) -> None:
        self.mapped = {}
        self._check()
        kind = self.job["migration_type"]
        if kind != "full-load":
            self.source.require_cdc()
        self._find_tables()
        self.target = _target(self.job, self.settings, self.name)
        is_missing = any(each.TableState in UNLOADED for each in self.state.tables.values())
        if kind != "cdc" and (is_missing or not self.state.loaded):
            self._full_load()
        if kind == "full-load":
            self._validate()
            raise Stopped("FULL_LOAD_ONLY_FINISHED")
        if self.settings["FullLoadSettings"]["StopTaskCachedChangesNotApplied"] and self.state.phase == "full load":
            self.state.phase = "cached"
            raise Stopped("STOPPED_AFTER_FULL_LOAD")
        self._follow()

    def _check(self) -> None:
        """Raise what somebody or a fault switch has ordered."""
        if self.told_to_stop.is_set():
            raise Stopped("NORMAL")
        self._require_parent()
        if reason := self.fault("stop_reason"):
            if reason in {"FATAL_ERROR", "RECOVERABLE_ERROR"}:
                raise FatalError("Task error notification received from subtask 0, thread 0")
            raise Stopped(reason)
        if self.fault("source_down"):
            raise LostError("Cannot connect to ODBC provider: Can't connect to MySQL server (fault switch source_down)")

    def _find_tables(self) -> None:
        tables = self.source.tables(self.mappings.takes)
        if not tables and self.errors["FailOnNoTablesCaptured"]:
            raise FatalError(NOTHING)
        for table in tables:
            self._take(table)
        found = {table.full_name for table in tables}
        for name, each in self.state.tables.items():
            if name not in found and each.TableState != "Table error":
                each.TableState = "Table does not exist"
        self.state.save()

    def _take(self, table: Table) -> TableState:
        lob = {
            **self.settings["TargetMetadata"],
            **{_pascal(k): v for k, v in self.mappings.lob(table.schema, table.name).items()},
        }
        limited = not lob["FullLobMode"] and str(lob.get("Mode", "limited")) == "limited"
        limit = int(lob.get("BulkMaxSize") or lob["LobMaxSize"]) * KILOBYTE
        names = self.mappings.names(table.schema, table.name, [column.name for column in table.columns])
        if schema := self.settings["TargetMetadata"]["TargetSchema"]:
            names.schema = schema
        filters = tuple(self.mappings.filters(table.schema, table.name))
        rule = self.mappings.object(table.schema, table.name)
        self.mapped[table.full_name] = Mapped(table, names, rule, filters, limit if limited else None)
        stored = self.state.tables.get(table.full_name)
        if stored is None:
            first = "Table completed" if self.job["migration_type"] == "cdc" else "Before load"
            stored = self.state.tables[table.full_name] = TableState(table.schema, table.name, first)
            if self.settings["ValidationSettings"]["EnableValidation"]:
                stored.ValidationState = "Pending validation"
        return stored

    # The full load

    def _full_load(self) -> None:
        if self.job["migration_type"] != "full-load" and self.state.begin is None:
            self.state.begin = _pair(self.source.position())
        self.state.phase = "full load"
        self.state.note("state change", "Full load started")
        for name in list(self.mapped):
            if self.state.tables[name].TableState not in {"Table completed", "Table error"}:
                try:
                    self._load(name, "Full load")
                except LostError:
                    if not (self.fault("silent_source_loss") and self._source_is_gone()):
                        raise
                    self._silently_lost()
                    break
        self.state.loaded = True
        self.state.note("state change", "Full load finished")
        self.state.save()

    def _source_is_gone(self) -> bool:
        try:
            self.source.connect().close()
        except LostError:
            return True
        return bool(self.fault("source_down"))

    def _silently_lost(self) -> None:
        """What AWS documents: the task ends as if all were well, and so do its tables."""
        for each in self.state.tables.values():
            if each.TableState in {"Full load", "Before load"}:
                each.TableState = "Table completed"
                each.FullLoadEndTime = time.time()
        if self.job["migration_type"] == "full-load":
            self.state.loaded = True
            raise Stopped("FULL_LOAD_ONLY_FINISHED")

    def _load(self, name: str, during: str) -> None:
        """Load one table from its begin."""
        mapped, table = self.mapped[name], self.state.tables[name]
        table.TableState, table.FullLoadStartTime, table.FullLoadEndTime = during, time.time(), None
        table.FullLoadRows = table.FullLoadErrorRows = table.FullLoadCondtnlChkFailedRows = table.errors = 0
        self.state.save()
        try:
            self._require_no_fault(name)
            self.target.prepare(mapped, self.settings["FullLoadSettings"]["TargetTablePrepMode"])
            for rows in self._read(mapped):
                self._check()
                self._require_no_fault(name)
                self._write(mapped, table, rows)
                table.LastUpdateTime = time.time()
                self._measure()
                self.state.save(now=bool(self.fault("row_delay_s")))
                self._delay(len(rows))
        except (TableError, RowError) as error:
            self._suspend(name, str(error))
            return
        if self.job["migration_type"] != "full-load":
            table.loaded_until = _pair(self.source.position())
        table.TableState, table.FullLoadEndTime = "Table completed", time.time()
        self.state.recoveries, self.state.failure = 0, ""
        self.state.save()

    def _delay(self, rows: int) -> None:
        """Take as long for rows of a load as the switch says now."""
        begin = time.monotonic()
        while time.monotonic() - begin < float(self.fault("row_delay_s")) * rows / 1000:
            self._check()
            self._measure()
            self.state.save(now=False)
            time.sleep(DELAY_S)

    def _read(self, mapped: Mapped) -> Iterator[list[Row]]:
        wheres = [each.sql() for each in mapped.filters]
        where = f" WHERE {' AND '.join(text for text, _ in wheres)}" if wheres else ""
        columns = [column.name for column in mapped.table.columns]
        for batch in self.source.read(mapped.table, where, [arg for _, args in wheres for arg in args]):
            yield [self._row(mapped, dict(zip(columns, values, strict=True)), "SOURCE_UNLOAD  ") for values in batch]

    def _row(self, mapped: Mapped, values: Row, component: str) -> Row:
        """Values by their names on the target; what is cut is a line of the log, and nothing else."""
        row, cut = mapped.row(values)
        for text in cut:
            self._log(component, "W", text)
        return row

    def _log(self, component: str, level: str, text: str) -> None:
        self.state.note("log", f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S} [{component}]{level}:  {text}")

    def _write(self, mapped: Mapped, table: TableState, rows: list[Row]) -> None:
        size = self.target.batch
        for begin in range(0, len(rows), size):
            self._throttle()
            self._write_batch(mapped, table, rows[begin : begin + size])

    def _write_batch(self, mapped: Mapped, table: TableState, rows: list[Row]) -> None:
        try:
            done = self.target.load(mapped, rows)
        except RowError as error:
            if len(rows) > 1:
                for row in rows:
                    self._write_batch(mapped, table, [row])
                return
            table.FullLoadErrorRows += 1
            policy = "DataTruncationErrorPolicy" if error.truncated else "DataErrorPolicy"
            self._obey(mapped, table, self.errors[policy], error)
            return
        table.FullLoadRows += done.rows
        table.FullLoadCondtnlChkFailedRows += done.condition_failed

    def _throttle(self) -> None:
        """Each refusal costs the time of a retry."""
        refused = 0
        while random.random() * 100 < float(self.fault("throttle")):
            self._check()
            if not refused:
                self._log("TARGET_APPLY   ", "W", "The target throttles: ProvisionedThroughputExceededException")
            refused += 1
            self._measure()
            self.state.save(now=False)
            time.sleep(THROTTLED_S)

    def _require_no_fault(self, name: str) -> None:
        if name in self.fault("table_error"):
            raise TableError(f"Failed to write to table {name} (fault switch table_error)")

    # Errors and what the settings make of them

    def _obey(self, mapped: Mapped, table: TableState, policy: str, error: RowError) -> None:
        """Do what an error policy says; those that change the statement have been tried before."""
        table.errors += 1
        self._log("TARGET_APPLY   ", "W", f"{mapped.table.full_name}: {error}")
        count = self.errors["DataErrorEscalationCount"]
        if policy in {"LOG_ERROR", "IGNORE_RECORD"} and 0 < count < table.errors:
            policy = self.errors["DataErrorEscalationPolicy"]
        if policy == "STOP_TASK":
            raise FatalError(f"{mapped.table.full_name}: {error}")
        if policy == "SUSPEND_TABLE":
            raise TableError(str(error))
        if policy != "IGNORE_RECORD":
            self.target.exception(mapped, error.statement, str(error))

    def _suspend(self, name: str, why: str) -> None:
        """The task goes on without the table, or ends."""
        self.state.tables[name].TableState = "Table error"
        self.state.tables[name].LastUpdateTime = time.time()
        self.state.note("failure", f"Table {name} was suspended: {why}")
        self._log("TASK_MANAGER   ", "E", f"Table '{name}' was errored/suspended: {why}")
        errors = sum(each.TableState == "Table error" for each in self.state.tables.values())
        count = self.errors["TableErrorEscalationCount"]
        policy = self.errors["TableErrorPolicy"]
        if 0 < count < errors:
            policy = self.errors["TableErrorEscalationPolicy"]
        self.state.save()
        if policy == "STOP_TASK":
            raise FatalError(f"Table {name} was suspended: {why}")

    # Changes

    def _first(self) -> Position:
        """Where to begin to read the log."""
        if self.state.checkpoint:
            return Position(*self.state.checkpoint)
        if self.state.begin:
            return Position(*self.state.begin)
        if text := self.job.get("start_position"):
            return self.source.oldest() if text == "oldest" else Position.parse(text)
        return self.source.position()

    def _follow(self) -> None:
        first = self._first()
        self.tolerant_until = self.source.position() if self.state.checkpoint else first
        self.state.checkpoint = _pair(first)
        cached_until = self.source.position()
        self.follower = Follower(self.source, first, self.job["server_id"], self._describe)
        self.follower.ignored = self._ignored
        self.queue, self.delivered = queue.Queue(QUEUED), first
        reader = threading.Thread(target=self._read_log, args=(self.follower, self.queue), daemon=True)
        reader.start()
        self.state.phase = "cdc"
        self.state.note("state change", "Task is running ongoing replication")
        self.state.save()
        try:
            self._apply_all(cached_until)
        finally:
            self.follower.stop.set()

    def _describe(self, schema: str, name: str, anew: bool = True) -> Table | None:
        """For the reader: the table of a row event, or None when the task does not take it."""
        if not anew and f"{schema}.{name}" in self.mapped:
            return self.mapped[f"{schema}.{name}"].table
        if schema in SYSTEM_SCHEMAS or not self.mappings.takes(schema, name):
            return None
        table = self.source.table(schema, name)
        return table if table.columns else None

    def _ignored(self, schema: str, name: str, statement: str) -> None:
        """For the reader: a session of the source writes statements into the log, from which DMS gets no rows."""
        if schema not in SYSTEM_SCHEMAS and self.mappings.takes(schema, name):
            text = (
                f"A statement instead of rows was read from the binary log for table '{schema}'.'{name}' and is ignored"
            )
            self._log("SOURCE_CAPTURE ", "W", f"{text}: binlog_format of its session is not ROW ({statement[:80]})")

    def _read_log(self, follower: Follower, into: queue.Queue[Transaction | Exception]) -> None:
        since = self.job.get("start_time") or 0
        try:
            for transaction in follower.transactions():
                if transaction is not None and transaction.committed_s >= since:
                    self._deliver(transaction, follower, into)
                if not follower.stop.is_set():
                    self.delivered = follower.here
        except Exception as error:  # the applier raises it
            into.put(error)

    def _deliver(
        self, transaction: Transaction, follower: Follower, into: queue.Queue[Transaction | Exception]
    ) -> None:
        """Put it into the queue: late, when a fault switch says so, and when there is room."""
        while not follower.stop.is_set():
            if time.time() < transaction.committed_s + float(self.fault("read_lag_s")):
                time.sleep(IDLE_S)
                follower.lag_s, follower.read_at = time.time() - transaction.committed_s, time.time()
                continue
            try:
                into.put(transaction, timeout=IDLE_S)
                return
            except queue.Full:
                continue

    def _apply_all(self, cached_until: Position) -> None:
        stops_after_cached = self.settings["FullLoadSettings"]["StopTaskCachedChangesApplied"]
        while True:
            self._check()
            self._reload()
            self._measure()
            self._require_time_left()
            if stops_after_cached and self._is_past(cached_until) and self.queue.empty():
                raise Stopped("STOPPED_AFTER_CACHED_EVENTS")
            try:
                item = self.queue.get(timeout=IDLE_S)
            except queue.Empty:
                self.oldest_s = 0
                self._validate()
                self.state.save(now=False)
                continue
            if isinstance(item, Exception):
                raise item
            self._apply(item)

    def _is_past(self, position: Position) -> bool:
        return self.delivered >= position

    def _require_time_left(self) -> None:
        kind, _, text = str(self.job.get("stop_position") or "").partition(":")
        if kind == "server_time" and time.time() >= seconds(text):
            raise Stopped("STOPPED_AT_SERVER_TIME")

    def _apply(self, transaction: Transaction) -> None:
        kind, _, text = str(self.job.get("stop_position") or "").partition(":")
        if kind == "commit_time" and transaction.committed_s > seconds(text):
            raise Stopped("STOPPED_AT_COMMIT_TIME")
        self.oldest_s = transaction.committed_s
        while time.time() < transaction.committed_s + float(self.fault("lag_s")):
            self._check()
            self._measure()
            self.state.save(now=False)
            time.sleep(IDLE_S)
        if self.fault("bad_event"):
            raise FatalError("Bad event read from the binary log (fault switch bad_event)")
        if transaction.changes:
            self._throttle()
        self.target.begin(transaction)
        for change in transaction.changes:
            self._apply_change(change)
        self.target.commit()
        self.state.checkpoint = _pair(transaction.end)
        self.state.recoveries, self.state.failure = 0, ""
        self.state.save(now=False)

    def _apply_change(self, change: Change) -> None:
        name = f"{change.schema}.{change.table}"
        if change.statement:
            self._apply_ddl(name, change)
            return
        table = self.state.tables.get(name) or self._new_table(change.schema, change.table)
        if table is None or table.TableState == "Table error":
            return
        _count(table, "", change.kind)
        mapped = self.mapped[name]
        after = change.after if mapped.takes(change.after) else None
        before = change.before if mapped.takes(change.before) else None
        if before is None and after is None:
            return
        try:
            self._require_no_fault(name)
            self._apply_row(mapped, table, change, before, after)
        except TableError as error:
            self._suspend(name, str(error))

    def _apply_row(
        self, mapped: Mapped, table: TableState, change: Change, before: Row | None, after: Row | None
    ) -> None:
        was = mapped.row(before)[0] if before is not None else None
        now = self._row(mapped, after, "SOURCE_CAPTURE ") if after is not None else None
        if change.kind == "update" and was is None:  # a filter lets it in, or keeps it out, from now on
            change = Change("insert", change.schema, change.table, change.position, None, after)
        elif change.kind == "update" and now is None:
            change = Change("delete", change.schema, change.table, change.position, before, None)
        edge = max(self.tolerant_until, Position(*table.loaded_until)) if table.loaded_until else self.tolerant_until
        try:
            self.target.apply(mapped, change, was, now, tolerant=change.position <= edge)
        except RowError as error:
            policy = self.errors[
                "DataTruncationErrorPolicy" if error.truncated else f"ApplyError{change.kind.title()}Policy"
            ]
            if policy not in WRITING:
                self._obey(mapped, table, policy, error)
                return
            self.target.apply(mapped, change, was, now, tolerant=True)
        _count(table, "Applied", change.kind)

    def _new_table(self, schema: str, name: str) -> TableState | None:
        """A table that was made after the task began."""
        described = self._describe(schema, name)
        if described is None:
            return None
        table = self._take(described)
        table.TableState = "Table completed"
        try:
            self.target.prepare(self.mapped[described.full_name], "DO_NOTHING")
        except (TableError, RowError) as error:
            self._suspend(described.full_name, str(error))
        return table

    def _apply_ddl(self, name: str, change: Change) -> None:
        known = self.mapped.get(name)
        if known is None:
            if change.kind == "create":
                self._new_table(change.schema, change.table)
            return
        table, policy = self.state.tables[name], self.settings["ChangeProcessingDdlHandlingPolicy"]
        table.Ddls += 1
        setting = {"drop": "Dropped", "truncate": "Truncated", "alter": "Altered"}.get(change.kind)
        described = self.source.table(change.schema, change.table)
        if described.columns:
            self._take(described)
        if setting and policy[f"HandleSourceTable{setting}"] and table.TableState != "Table error":
            try:
                self.target.ddl(self.mapped[name], change.kind, change.statement)
                table.AppliedDdls += 1
            except (RowError, TableError) as error:
                self._suspend(name, str(error))

    # Validation: rows of both sides, as soon as the target has everything that the source has

    def _validate(self) -> None:
        if not isinstance(self.target, MySQLTarget) or not self.settings["ValidationSettings"]["EnableValidation"]:
            return
        before = self._level()
        for name, mapped in self.mapped.items():
            table = self.state.tables[name]
            if table.TableState == "Table completed" and table.validated_s <= table.LastUpdateTime:
                self._compare(mapped, table, before)

    def _level(self) -> Position | None:
        """Where both sides are the same; None when the target is behind."""
        if self.job["migration_type"] == "full-load":
            return Position("", 0)
        here = self.source.position()
        return here if self.delivered == here and self.queue.empty() else None

    def _compare(self, mapped: Mapped, table: TableState, level: Position | None) -> None:
        if not mapped.key:
            table.ValidationState = "No primary key"
            return
        begin = time.time()
        found = (
            self.target.mismatches(mapped, self._read(mapped)) if level and isinstance(self.target, MySQLTarget) else []
        )
        if level is None or level != self._level():
            table.ValidationState, table.ValidationPendingRecords = (
                "Pending records",
                max(1, table.ValidationPendingRecords),
            )
            return
        table.ValidationPendingRecords, table.ValidationFailedRecords = 0, len(found)
        table.ValidationState = "Mismatched records" if found else "Validated"
        table.validated_s = begin

    # Orders, and numbers

    def _reload(self) -> None:
        path = self.folder / "commands.json"
        if not path.is_file():
            return
        for command in json.loads(path.read_text())[self.state.handled :]:
            for name in command["tables"]:
                if name in self.mapped:
                    self._reload_table(name, command["validate_only"])
            self.state.handled = command["number"]
            self.state.save()

    def _reload_table(self, name: str, validate_only: bool) -> None:
        if validate_only:
            self.state.tables[name].validated_s = 0.0
            self.state.tables[name].ValidationState = "Pending revalidation"
            return
        self._take(self.source.table(*name.split(".", 1)))
        self._load(name, "Table is being reloaded")
        self.state.tables[name].FullLoadReloaded = True

    def _measure(self) -> None:
        now, follower = time.time(), self.follower
        self.state.measured_s = now
        if self.state.phase != "cdc":
            return
        reading = follower is not None and now - follower.read_at < 1
        source = follower.lag_s if follower is not None and reading else 0.0
        self.state.metrics = {
            "CDCLatencySource": round(source, 3),
            "CDCLatencyTarget": round(max(source, now - self.oldest_s if self.oldest_s else 0.0), 3),
            "CDCIncomingChanges": float(self.queue.qsize() + (self.oldest_s > 0)),
        }


def _count(table: TableState, prefix: str, kind: str) -> None:
    name = f"{prefix}{kind.title()}s"
    setattr(table, name, getattr(table, name) + 1)
    table.LastUpdateTime = time.time()


def _pair(position: Position) -> list[Any]:
    return [position.file, position.offset]


def _pascal(name: str) -> str:
    return "".join(part.title() for part in name.split("-"))


def seconds(text: str) -> float:
    """A time of DMS (UTC unless it says otherwise) in seconds since 1970."""
    at = dt.datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()


def _target(job: dict[str, Any], settings: dict[str, Any], task: str) -> Target:
    given = job["target"]
    if given["engine"] in {"mysql", "aurora", "mariadb"}:
        return MySQLTarget(given["address"], task, settings["ControlTablesSettings"]["ControlSchema"], given["initial"])
    return _aws_target(given, settings, task)


def _aws_target(given: dict[str, Any], settings: dict[str, Any], task: str) -> Target:
    """Imported here: a task between two MySQL servers starts twice as fast without boto3."""
    from lab import aws
    from lab.dms.targets.dynamodb import DynamoDBTarget
    from lab.dms.targets.kinesis import KinesisTarget
    from lab.dms.targets.s3 import S3Target

    client = aws.client(given["engine"], given["url"])
    if given["engine"] == "dynamodb":
        return DynamoDBTarget(client)
    if given["engine"] == "kinesis":
        return KinesisTarget(client, given["settings"], task, settings["BeforeImageSettings"])
    return S3Target(client, given["settings"])


if __name__ == "__main__":
    made = Worker(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: made.told_to_stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    made.run()
    os._exit(0)  # not waiting for the reader
