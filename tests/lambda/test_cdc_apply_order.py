"""Whatever the order, however often, and whatever fails on the way: the items end in the state of the newest version."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import cdc_kit
import pytest
from botocore.exceptions import ClientError
from cdc_apply import apply, changes
from cdc_apply.settings import Settings
from cdc_kit import FakeDynamo, Kept, change, load
from hypothesis import given, settings
from hypothesis import strategies as st

START = 1000
KEYS = st.integers(1, 4)
STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "update", "delete", "move"]), KEYS, KEYS, st.integers(0, 2)), max_size=12
)


class Source:
    """A table of a database with a binary log, read by a full load at any moment after the log began to be followed."""

    def __init__(self, using: Settings) -> None:
        self.using, self.rows, self.at, self.records = using, dict[int, dict[str, Any]](), START, list[Any]()
        self.ended: dict[int, int] = {}  # keys whose row is gone, and since when
        self.revision = 0

    def run(self, steps: Sequence[tuple[str, int, int, int]]) -> None:
        for operation, key, other, value in steps:
            self.step(operation, key, other, value)

    def step(self, operation: str, key: int, other: int, value: int) -> None:
        self.at += 50
        self.revision += 1
        there = self.rows.get(key)
        row = {"id": key, "value": value or None, "rev": self.revision}
        if operation == "insert" and there is None:
            self._put(row, change("insert", self.at, row))
        elif operation == "update" and there is not None:
            self._put(row, change("update", self.at, row))
        elif operation == "delete" and there is not None:
            self.ended[key] = self.at
            self.records.append(change("delete", self.at, self.rows.pop(key)))
        elif operation == "move" and there is not None and other not in self.rows:
            self.ended[key] = self.at
            self._put({**row, "id": other}, change("update", self.at, {**row, "id": other}, {"id": key}))
            del self.rows[key]

    def load(self, read_at: int) -> None:
        self.records += [load(row, f"2026-11-29T10:00:00.{read_at:06d}Z") for row in self.rows.values()]

    def _put(self, row: dict[str, Any], record: Any) -> None:
        self.rows[row["id"]] = row
        self.ended.pop(row["id"], None)
        self.records.append(record)

    def check(self, client: FakeDynamo) -> None:
        for key in range(1, 5):
            item = client.item({"N": str(key)})
            if key in self.rows:
                expected = {name: {"N": str(value)} for name, value in self.rows[key].items() if value is not None}
                assert item is not None
                assert {name: value for name, value in item.items() if name not in ("pk", "_v")} == expected
            else:
                assert item is None or set(item) == {"pk", "_v", "_deleted"}
                assert item is not None or key not in self.ended


class Flaky(FakeDynamo):
    """Fails at chosen puts, before the write or, as when the answer is lost, after it."""

    def __init__(self, failures: Iterator[int]) -> None:
        super().__init__()
        self.failures = failures

    def put_item(self, **asked: Any) -> None:
        failure = next(self.failures, 0)
        if failure != 1:
            super().put_item(**asked)
        if failure:
            raise cdc_kit.error("ThrottlingException")


def deliver(client: FakeDynamo, events: Sequence[Any], sizes: Iterator[int], using: Settings) -> None:
    """Batches as Lambda makes them with partial responses: again from the lowest reported sequence number on."""
    waiting, kept = [*events], Kept()
    while waiting:
        size = max(1, next(sizes, 3))
        batch: Any = cdc_kit.apply(client, waiting[:size], using, kept)
        failed = {each["itemIdentifier"] for each in batch.response["batchItemFailures"]}
        done = next((n for n, each in enumerate(waiting[:size]) if each["kinesis"]["sequenceNumber"] in failed), size)
        waiting = waiting[done:]
    assert kept.found == {}


def shuffled(data: st.DataObject, records: Sequence[Any]) -> list[Any]:
    """Every record at least once, in any order, with sequence numbers in that order."""
    again = data.draw(st.lists(st.sampled_from(records), max_size=6)) if records else []
    return [cdc_kit.event(each, 100 + n) for n, each in enumerate(data.draw(st.permutations([*records, *again])))]


def played(data: st.DataObject, records: Sequence[Any], using: Settings) -> FakeDynamo:
    client = Flaky(iter(data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), max_size=30))))
    deliver(client, shuffled(data, records), iter(data.draw(st.lists(st.integers(1, 9), max_size=12))), using)
    return client


@pytest.mark.parametrize("table", [{}, {"version": {"column": "rev"}}], ids=["by log", "by column"])
@given(before=STEPS, after=STEPS, data=st.data())
@settings(max_examples=150, deadline=None)
def test_changes_and_a_load_in_any_order_end_in_the_newest(
    table: Any, before: Any, after: Any, data: st.DataObject
) -> None:
    using = cdc_kit.settings({"load_position": f"mysql-bin-changelog.000007:{START}", **table}, threads=1)
    source = Source(using)
    source.run(before)
    source.load(1)
    source.run(after)
    source.load(2)  # a table that is loaded again
    source.check(played(data, source.records, using))


@given(lost=STEPS, after=STEPS, data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_reload_at_its_position_repairs_updates_and_inserts_that_were_lost(
    lost: Any, after: Any, data: st.DataObject
) -> None:
    source = Source(cdc_kit.settings(threads=1))
    source.run([("insert", key, key, 1) for key in (1, 2, 3)])
    first = source.records
    source.records = []
    source.run([step for step in lost if step[0] not in ("delete", "move")])
    source.records = []  # the table was suspended, and the log of it is gone
    position = source.at + 1
    source.load(3)
    source.run(after)
    using = cdc_kit.settings({"load_position": f"mysql-bin-changelog.000007:{position}"}, threads=1)
    source.check(played(data, [*first, *source.records], using))


# --- the rule table of a backfill under dual writes, one key, every interleaving ---------------------------------------

Version = int
HISTORIES = ["i", "iu", "id", "iuu", "iud", "idi"]
CONDITIONS = {"absent": "attribute_not_exists(#key)", "forced": "True"}


def told(history: str) -> list[tuple[Version, bool]]:
    """Versions and whether the row lives, of inserts, updates and deletes."""
    return [(number, letter != "d") for number, letter in enumerate(history, 1)]


def write(using: Settings, version: Version, *, lives: bool) -> dict[str, Any]:
    row = {"id": 5, "value": version, "rev": version}
    said = changes.record(json.dumps(change("update" if lives else "delete", version, row)).encode(), using)
    return apply.request(changes.writes(said, using)[0], using, 0.0)


def put(client: FakeDynamo, asked: dict[str, Any]) -> None:
    with suppress(ClientError):
        client.put_item(**asked)


def outcomes(
    history: list[tuple[Version, bool]], backfill: str, *, has_cdc: bool = True, lose: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Final item of every interleaving of dual writes (in any order), one backfill of any version that once was, and CDC in any order."""
    using = cdc_kit.settings({"version": {"column": "rev"}})
    wanted = {version: write(using, version, lives=lives) for version, lives in history}
    dual = [("dual", version) for version, _ in history if version != lose]
    applied = [("cdc", version) for version, _ in history] if has_cdc else []
    for read in (version for version, lives in history if lives):
        for order in itertools.permutations([*dual, *applied, ("backfill", read)]):
            client = FakeDynamo()
            for who, version in order:
                asked = wanted[version]
                if who == "backfill" and backfill != "version":
                    asked = {**asked, "ConditionExpression": CONDITIONS[backfill]}
                put(client, asked)
            yield order, client.item({"N": "5"})


def is_right(item: Any, history: list[tuple[Version, bool]]) -> bool:
    version, lives = history[-1]
    return item is not None and item["_v"] == {"N": str(version)} and ("_deleted" not in item) == lives


@pytest.mark.parametrize("backfill", ["absent", "version"])
@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_versions_and_tombstones_are_safe_when_dual_writes_cross(history: str, backfill: str) -> None:
    for order, item in outcomes(told(history), backfill, has_cdc=False):
        assert is_right(item, told(history)), order


@pytest.mark.parametrize("backfill", ["absent", "version"])
@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_the_function_repairs_a_dual_write_that_was_lost(history: str, backfill: str) -> None:
    for lose in range(1, len(history) + 1):
        for order, item in outcomes(told(history), backfill, lose=lose):
            assert is_right(item, told(history)), order


@pytest.mark.parametrize(
    ("history", "backfill", "has_cdc", "lose"),
    [
        ("iu", "version", False, 2),
        ("id", "version", False, 2),
        ("iu", "forced", True, None),
        ("id", "forced", True, None),
    ],
)
def test_what_the_rule_table_calls_unsafe_is_unsafe(
    history: str, backfill: str, has_cdc: bool, lose: int | None
) -> None:
    found = [is_right(item, told(history)) for _, item in outcomes(told(history), backfill, has_cdc=has_cdc, lose=lose)]
    assert False in found
