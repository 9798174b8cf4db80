"""What the process of a DMS task does with rows, changes, errors and orders; source and target are lists in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.dms import faults, worker
from lab.dms.settings import expanded
from lab.dms.source import Change, Column, Follower, LostError, Position, Table, Transaction
from lab.dms.state import State
from lab.dms.targets import Loaded, RowError
from lab.dms.targets.mysql import after_name
from lab.dms.worker import Worker

COLUMNS = (Column("id", "int", "int(11)", None, 0), Column("v", "text", "text", "utf8mb4", 0))


class Source:
    """Two tables; the log is what a test puts into ``log``."""

    def __init__(self, **_: Any) -> None:
        self.rows: dict[str, list[tuple[Any, ...]]] = {"a": [(1, "one"), (2, "two")], "b": [(9, "nine")]}
        self.log: list[Transaction] = []
        self.failures = 0

    def tables(self, takes: Any) -> list[Table]:
        return [self.table("s", name) for name in self.rows if takes("s", name)]

    def table(self, schema: str, name: str) -> Table:
        return Table(schema, name, COLUMNS if name in self.rows else (), ("id",))

    def position(self) -> Position:
        return Position("binlog.000001", 1000)

    def require_cdc(self) -> None:
        pass

    def read(self, table: Table, where: str, args: list[str]) -> Iterator[list[tuple[Any, ...]]]:
        if self.failures:
            self.failures -= 1
            raise LostError("the source is gone")
        yield self.rows[table.name]


class Target:
    """Rows by table and key; what is in ``refused`` is not taken."""

    batch = 500

    def __init__(self) -> None:
        self.tables: dict[str, dict[Any, Any]] = {}
        self.refused: set[Any] = set()
        self.errors: list[str] = []
        self.tolerant: list[bool] = []

    def prepare(self, mapped: Any, mode: str) -> None:
        if mode != "DO_NOTHING" or mapped.table.name not in self.tables:
            self.tables[mapped.table.name] = {}

    def load(self, mapped: Any, rows: list[Any]) -> Loaded:
        for row in rows:
            if row["v"] in self.refused or row["id"] in self.tables[mapped.table.name]:
                raise RowError("Duplicate or refused")
        self.tables[mapped.table.name] |= {row["id"]: row["v"] for row in rows}
        return Loaded(len(rows))

    def begin(self, transaction: Transaction) -> None:
        pass

    def apply(self, mapped: Any, change: Change, before: Any, after: Any, tolerant: bool) -> None:
        self.tolerant.append(tolerant)
        rows = self.tables[mapped.table.name]
        if after is not None and after["v"] in self.refused:
            raise RowError("refused", truncated=True)
        if change.kind == "insert" and after["id"] in rows and not tolerant:
            raise RowError("Duplicate entry")
        if change.kind == "delete":
            rows.pop(before["id"], None)
        else:
            rows[after["id"]] = after["v"]

    def ddl(self, mapped: Any, kind: str, statement: str) -> None:
        if kind == "truncate":
            self.tables[mapped.table.name].clear()

    def commit(self) -> None:
        pass

    def exception(self, mapped: Any, statement: str, error: str) -> None:
        self.errors.append(error)


class Task:
    """A task in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str = "full-load", **settings: Any) -> None:
        rule = {"rule-type": "selection", "rule-id": "1", "rule-name": "1", "rule-action": "include"}
        mappings = json.dumps({"rules": [{**rule, "object-locator": {"schema-name": "s", "table-name": "%"}}]})
        job = {
            "task": "t", "faults": str(folder), "migration_type": kind, "start_type": "start-replication",
            "mappings": mappings, "settings": expanded(json.dumps(settings)), "source": {}, "target": {}, "server_id": 1,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        self.folder, self.source, self.target = folder, Source(), Target()
        monkeypatch.setattr(worker, "Source", lambda **_: self.source)
        monkeypatch.setattr(worker, "_target", lambda *_: self.target)
        monkeypatch.setattr(Follower, "transactions", lambda follower: self._transactions(follower))

    def _transactions(self, follower: Follower) -> Iterator[Transaction | None]:
        for each in self.source.log:
            if each.end > follower.begin:
                follower.here = each.end
                yield each
        follower.here = Position("binlog.000009", 0)
        yield None

    def run(self) -> State:
        """Let it work until its end."""
        Worker(self.folder).run()
        return self.state

    @property
    def state(self) -> State:
        return State.load(self.folder / "state.json")

    @property
    def events(self) -> list[str]:
        return [json.loads(line)[2] for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def commit(self, *changes: tuple[str, Any, Any], offset: int, statement: str = "") -> None:
        """A transaction of the table a at a place of the log."""
        here = Position("binlog.000001", offset)

        def row(value: Any) -> Any:
            return None if value is None else dict(zip(("id", "v"), value, strict=True))

        made = [Change(kind, "s", "a", here, row(before), row(after), statement) for kind, before, after in changes]
        self.source.log.append(Transaction(made, 1, here))


# A task that follows the log ends, in these tests, when it has read all of it.
ENDS = {"FullLoadSettings": {"StopTaskCachedChangesApplied": True}}


def test_a_full_load_ends_with_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(tmp_path, monkeypatch)
    state = task.run()
    assert (state.ended, state.stop_reason, state.loaded) == (True, "FULL_LOAD_ONLY_FINISHED", True)
    assert task.target.tables == {"a": {1: "one", 2: "two"}, "b": {9: "nine"}}
    assert [each.FullLoadRows for each in state.tables.values()] == [2, 1]


def test_a_refused_row_is_left_out_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(tmp_path, monkeypatch)
    task.target.refused = {"two"}
    table = task.run().tables["s.a"]
    assert (table.TableState, table.FullLoadRows, table.FullLoadErrorRows) == ("Table completed", 1, 1)
    assert task.target.errors == ["Duplicate or refused"]


@pytest.mark.parametrize(
    ("behaviour", "reason", "states"),
    [
        ({"DataErrorPolicy": "SUSPEND_TABLE"}, "FULL_LOAD_ONLY_FINISHED", ["Table error", "Table completed"]),
        ({"DataErrorPolicy": "STOP_TASK"}, "FATAL_ERROR", ["Table cancelled", "Before load"]),
        (
            {"DataErrorPolicy": "SUSPEND_TABLE", "TableErrorPolicy": "STOP_TASK"},
            "FATAL_ERROR",
            ["Table error", "Before load"],
        ),
        ({"DataErrorEscalationCount": 1}, "FULL_LOAD_ONLY_FINISHED", ["Table error", "Table completed"]),
    ],
)
def test_policies_suspend_or_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Any, reason: str, states: list[str]
) -> None:
    task = Task(tmp_path, monkeypatch, ErrorBehavior=behaviour)
    task.target.refused = {"one", "two"}
    state = task.run()
    assert state.stop_reason == reason
    assert [each.TableState for each in state.tables.values()] == states


def test_a_resumed_load_leaves_complete_tables_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(tmp_path, monkeypatch, ErrorBehavior={"DataErrorPolicy": "STOP_TASK"})
    task.target.refused = {"nine"}
    assert task.run().stop_reason == "FATAL_ERROR"
    begun = task.state.tables["s.a"].FullLoadStartTime
    task.target.refused = set()
    state = task.run()
    assert (state.stop_reason, state.failure) == ("FULL_LOAD_ONLY_FINISHED", "")
    assert state.tables["s.a"].FullLoadStartTime == begun
    assert task.target.tables["b"] == {9: "nine"}


@pytest.mark.parametrize(("count", "reason"), [(1, "RECOVERABLE_ERROR"), (2, "FULL_LOAD_ONLY_FINISHED")])
def test_recoverable_errors_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, reason: str
) -> None:
    task = Task(tmp_path, monkeypatch, ErrorBehavior={"RecoverableErrorCount": count, "RecoverableErrorInterval": 0})
    task.source.failures = 2
    assert task.run().stop_reason == reason
    assert "Recoverable error 1: the source is gone" in task.events


def test_changes_within_the_load_are_applied_with_tolerance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(tmp_path, monkeypatch, "full-load-and-cdc", **ENDS)
    monkeypatch.setattr(task.source, "position", iterator(Position("binlog.000001", n) for n in (100, 200, 200, 200)))
    task.commit(("insert", None, (2, "two")), ("update", (1, "one"), (1, "uno")), offset=150)
    task.commit(("insert", None, (3, "three")), ("delete", (2, "two"), None), offset=250)
    state = task.run()
    assert state.stop_reason == "STOPPED_AFTER_CACHED_EVENTS"
    assert task.target.tables["a"] == {1: "uno", 3: "three"}
    assert task.target.tolerant == [True, True, False, False]
    assert state.checkpoint == ["binlog.000001", 250]
    table = state.tables["s.a"]
    assert (table.AppliedInserts, table.AppliedUpdates, table.AppliedDeletes) == (2, 1, 1)


def iterator(values: Iterator[Position]) -> Any:
    """A function that gives one after the other, and the last one for ever."""
    seen: list[Position] = []

    def following() -> Position:
        seen.append(next(values, seen[-1] if seen else Position("", 0)))
        return seen[-1]

    return following


def test_a_conflict_is_noted_and_a_policy_may_write_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(tmp_path, monkeypatch, "full-load-and-cdc", **ENDS)
    task.commit(("insert", None, (1, "again")), offset=2000)
    state = task.run()
    assert (task.target.tables["a"][1], state.tables["s.a"].Inserts, state.tables["s.a"].AppliedInserts) == (
        "one",
        1,
        0,
    )
    assert task.target.errors == ["Duplicate entry"]
    other = tmp_path / "other"
    other.mkdir()
    task = Task(
        other, monkeypatch, "full-load-and-cdc", ErrorBehavior={"ApplyErrorInsertPolicy": "UPDATE_RECORD"}, **ENDS
    )
    task.commit(("insert", None, (1, "again")), offset=2000)
    assert task.run().tables["s.a"].AppliedInserts == 1
    assert task.target.tables["a"][1] == "again"


def test_tables_are_reloaded_in_the_order_of_all_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD", "StopTaskCachedChangesApplied": True}
    task = Task(tmp_path, monkeypatch, "full-load-and-cdc", FullLoadSettings=settings)
    task.run()
    task.target.tables = {"a": {5: "wrong"}, "b": {6: "wrong"}}
    commands = [
        {"number": 1, "tables": ["s.a", "s.nobody"], "validate_only": False},
        {"number": 2, "tables": ["s.b"], "validate_only": False},
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    state = task.run()
    assert task.target.tables == {"a": {1: "one", 2: "two"}, "b": {9: "nine"}}
    assert [each.FullLoadReloaded for each in state.tables.values()] == [True, True]
    assert state.handled == 2
    task.target.tables["a"] = {}
    task.run()  # does nothing twice
    assert task.target.tables["a"] == {}


def test_a_truncated_table_and_a_suspended_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(
        tmp_path, monkeypatch, "full-load-and-cdc", ErrorBehavior={"DataTruncationErrorPolicy": "SUSPEND_TABLE"}, **ENDS
    )
    task.target.refused = {"long"}
    task.commit(("truncate", None, None), offset=2000, statement="TRUNCATE s.a")
    task.commit(("insert", None, (7, "long")), offset=3000)
    task.commit(("insert", None, (8, "later")), offset=4000)
    state = task.run()
    assert task.target.tables["a"] == {}
    table = state.tables["s.a"]
    assert (table.TableState, table.Ddls, table.AppliedDdls, table.AppliedInserts) == ("Table error", 1, 1, 0)
    assert state.checkpoint == ["binlog.000001", 4000]  # the task goes on without it


def test_a_switch_ends_the_task_with_any_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(tmp_path, monkeypatch)
    faults.set_faults(tmp_path, stop_reason={"t": "STOPPED_DUE_TO_LOW_MEMORY"})
    assert task.run().stop_reason == "STOPPED_DUE_TO_LOW_MEMORY"


@pytest.mark.parametrize(
    ("statement", "rest"),
    [
        ("ALTER TABLE t ADD COLUMN t2 INT", "ADD COLUMN t2 INT"),
        ("alter table `s`.`t` drop column x", "drop column x"),
        ("ALTER TABLE s_t.t\n  ADD y INT", "ADD y INT"),
    ],
)
def test_a_changed_table_is_changed_under_its_own_name(statement: str, rest: str) -> None:
    assert after_name(statement) == rest
