"""A table on MySQL 8.0 verified against one of DynamoDB while both are written; what is found, repaired and rolled back after faults."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from random import Random
from typing import Any

import pytest

from dbops.backfill import dynamodb, repair, sampling, source, verify
from dbops.backfill.records import Compared, Difference
from dbops.backfill.roll_back import Remover, RolledBack
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.verify import Span, Verifier
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Write
from dbops.keyvalue.stores import DynamoStore
from dbops.keyvalue.views import Loaded
from lab import dynamodb as lab_dynamodb
from lab import mysql
from tests.backfill import verify_kit as kit
from tests.keyvalue.keyvalue_kit import dynamodb_table

pytestmark = pytest.mark.lab
ROWS = 2_000
STAMP = kit.STAMP


class World:
    """A table, its rows in the store, and the means to break both."""

    def __init__(self, server: Any, schema: str, client: Any, table: str) -> None:
        self.server, self.schema, self.client, self.table = server, schema, client, table
        self.spec = BackfillSpec.model_validate(
            {
                "name": "rides", "description": "rides", "owner": "dba",
                "view": {"sql": f"SELECT r.id, r.name, r.version FROM {schema}.rides AS r WHERE {{chunk}}",
                         "table": f"{schema}.rides", "alias": "r"},
                "version": {"column": "version"},
                "target": {"kind": "dynamodb", "table": table, "key": {"pk": "RIDE#{id}"}},
                "live": {"since": "2026-01-01T00:00:00Z", "applications": ["shop"], "stream": "none"},
            }
        )  # fmt: skip
        self.source = source.open_source(server, self.spec)
        self.target = dynamodb.DynamoTarget(client, table, self.source.view, threads=4)
        self.store = DynamoStore(client, table)

    def run(self, statement: str, *values: Any) -> None:
        with self.server.cursor() as cursor:
            cursor.execute(statement.replace("rides", f"{self.schema}.rides", 1), values)

    def copy(self) -> None:
        page = self.source.page(self.server, None, ("99999999",), 10 * ROWS, STAMP)
        sent = self.target.write([row.write for row in page.rows if row.write], kit.Free())
        assert all(each.is_written for each in sent.outcomes)

    def spans(self) -> list[Span]:
        cuts = [(str(number),) for number in range(0, 4 * ROWS + 1, 1_000)]
        return [Span(number, *pair) for number, pair in enumerate(itertools.pairwise(cuts))]

    def verifier(self, drain_s: float = 2.0) -> Verifier:
        return Verifier(self.source, self.target, self.server, drain_s=drain_s)

    def both(self, drain_s: float = 2.0) -> list[Compared]:
        verifier = self.verifier(drain_s)
        return [*verifier.forward(self.spans()), *verifier.reverse(range(2), 2)]

    def differences(self) -> list[Difference]:
        return [each for part in self.both(1.0) for each in part.differences]


@pytest.fixture
def world() -> Iterator[World]:
    schema = f"k{uuid.uuid4().hex[:10]}"
    client = lab_dynamodb.client(f"k{uuid.uuid4().hex[:10]}")
    with (
        closing(mysql.root_connection("mysql80")) as server,
        dynamodb_table(client, kit.VIEW) as table,
        server.cursor() as cursor,
    ):
        cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
        cursor.execute(f"CREATE DATABASE {schema} DEFAULT CHARACTER SET utf8mb4")
        cursor.execute(
            f"CREATE TABLE {schema}.rides (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(40), version BIGINT UNSIGNED NOT NULL)"
        )
        rows = [(3 * number, f"ride {number}", 1) for number in range(1, ROWS + 1)]
        cursor.executemany(f"INSERT INTO {schema}.rides VALUES (%s, %s, %s)", rows)
        server.commit()
        try:
            made = World(server, schema, client, table)
            made.copy()
            yield made
            made.target.close()
        finally:
            cursor.execute(f"DROP DATABASE {schema}")


class Traffic(threading.Thread):
    """An application: MySQL first, then the store, some of it late and crossing; inserts, updates, deletes, inserts again."""

    def __init__(self, world: World, number: int, lag_s: float) -> None:
        super().__init__(daemon=True)
        self.world, self.random, self.lag_s = world, random.Random(number), lag_s
        self.keys = [3 * n + step for n in range(1, ROWS + 1) for step in (0, 1) if n % 2 == number]
        self.hot = self.keys[:5]
        self.ends, self.error, self.done = threading.Event(), None, Counter[str]()
        self.late: list[tuple[float, int, Write]] = []
        self.versions = itertools.count(100)

    def run(self) -> None:
        try:
            with closing(mysql.root_connection("mysql80")) as connection:
                connection.autocommit(True)
                alive = set(self.keys[::2])
                while not self.ends.is_set():
                    self._change(connection, alive)
                    self._deliver(time.monotonic())
            self._deliver(float("inf"))
        except Exception as error:  # seen by the test
            self.error = error

    def _change(self, connection: Any, alive: set[int]) -> None:
        key = self.random.choice(self.hot if self.random.random() < 0.3 else self.keys)
        table, version = f"{self.world.schema}.rides", next(self.versions)
        row = {"id": key, "name": f"v{version}"}
        with connection.cursor() as cursor:
            if key in alive and self.random.random() < 0.3:
                cursor.execute(f"DELETE FROM {table} WHERE id = %s", (key,))
                alive.discard(key)
                write = self.world.source.view.tombstone(row, version)
                self.done["delete"] += 1
            else:
                sql = f"INSERT INTO {table} VALUES (%s, %s, %s) ON DUPLICATE KEY UPDATE name = VALUES(name), version = VALUES(version)"
                cursor.execute(sql, (key, row["name"], version))
                self.done["update" if key in alive else "insert"] += 1
                alive.add(key)
                write = self.world.source.view.write(Loaded(row, version))
        delay = 0.0 if self.random.random() < 0.7 else self.random.uniform(0, self.lag_s)
        heapq.heappush(self.late, (time.monotonic() + delay, version, write))

    def _deliver(self, now: float) -> None:
        while self.late and self.late[0][0] <= now:
            self.world.store.put(heapq.heappop(self.late)[2])


def test_live_traffic_gives_no_false_alarm_and_a_fault_among_it_is_found(world: World) -> None:
    fault = 3 * ROWS + 300  # a key that the application does not touch
    world.run("INSERT INTO rides VALUES (%s, 'lost', 1)", fault)
    traffic = [Traffic(world, number, lag_s=1.0) for number in range(2)]
    for each in traffic:
        each.start()
    try:
        found = [part for _ in range(3) for part in world.both()]
    finally:
        for each in traffic:
            each.ends.set()
            each.join(30)
    assert [each.error for each in traffic] == [None, None]
    changes = sum((each.done for each in traffic), Counter[str]())
    assert all(changes[kind] > 20 for kind in ("insert", "update", "delete"))
    assert sum(part.looked_again for part in found) > 20
    failed = [(each.classed, each.key) for part in found for each in part.differences]
    assert failed == [("missing", f'{{"pk":{{"S":"RIDE#{fault}"}}}}')] * 3
    print(changes, sum(part.looked_again for part in found), sum(part.seen for part in found))


def test_each_fault_is_found_repaired_where_the_law_allows_it_and_gone(world: World) -> None:
    def item(number: int, version: int = 1, **more: Any) -> dict[str, Any]:
        made = world.source.view.write(Loaded({"id": number, "name": f"ride {number // 3}"}, version))
        return {**rules.document(made, world.store.names), **more}

    def force(found: dict[str, Any]) -> None:
        world.client.put_item(TableName=world.table, Item=found)

    world.client.delete_item(TableName=world.table, Key={"pk": {"S": "RIDE#3"}})
    world.run("UPDATE rides SET name = 'lost', version = 2 WHERE id = 6")
    world.run("DELETE FROM rides WHERE id = 9")
    world.run("UPDATE rides SET name = 'silent' WHERE id = 12")
    force({name: value for name, value in item(15).items() if name != "_v"})
    force(item(18, 9))
    force({"pk": {"S": "RIDE#21x"}, "_v": {"N": "1"}, "id": {"N": "21"}})
    found = world.differences()
    by_key = {each.key.split("RIDE#")[1].rstrip('"}'): each.classed for each in found}
    assert by_key == {
        "3": "missing", "6": "source_newer", "9": "extra", "12": "converter", "15": "unversioned", "18": "ahead", "21x": "extra",
    }  # fmt: skip
    assert "silent" not in str(found)
    once = list({each.key: each for each in found}.values())
    done = repair.repair(world.source, world.target, world.server, once, kit.Free(), stamp=STAMP, may_bury=True)
    assert (done.written, done.buried, sorted(each.classed for each in done.left)) == (
        2,
        2,
        ["ahead", "converter", "unversioned"],
    )
    assert repair.look_again(world.verifier(1.0), 0, once).counts == {
        "equal": 4,
        "converter": 1,
        "unversioned": 1,
        "ahead": 1,
    }
    world.run("UPDATE rides SET version = 20 WHERE id IN (12, 18)")
    world.client.delete_item(TableName=world.table, Key={"pk": {"S": "RIDE#15"}})
    left = world.differences()
    assert repair.repair(world.source, world.target, world.server, left, kit.Free(), stamp=STAMP).written == 3
    assert world.differences() == []


def test_a_sample_has_its_bound_and_finds_a_store_with_one_row_in_a_hundred_wrong(world: World) -> None:
    def sampled(seed: int) -> sampling.Bound:
        verifier = world.verifier(0.5)
        spans = [
            Span(each.number, each.low, each.high, world.source.count(world.server, each.low, each.high).rows)
            for each in world.spans()
        ]
        parts = [
            verifier.keys(each.number, each.wanted, name=each.name, note=each.note)
            for each in sampling.draw(world.source, world.server, spans, 600, Random(seed))
        ]
        assert {part.name for part in parts} == set(sampling.STRATA)
        return sampling.bound_of(parts[-1], sum(each.rows for each in spans))

    clean = sampled(1)
    assert (clean.defects, clean.rows) == (0, ROWS)
    assert clean.upper == pytest.approx(3 / clean.seen)
    world.run("UPDATE rides SET version = 2 WHERE id %% 300 = 0")
    wrong = sampled(2)
    assert wrong.defects > 0
    assert wrong.upper > 0.01


def test_roll_back_leaves_what_others_wrote(world: World) -> None:
    view = world.source.view
    world.run("UPDATE rides SET name = 'new', version = 2 WHERE id = 3")
    world.store.put(view.write(Loaded({"id": 3, "name": "new"}, 2)))
    world.run("DELETE FROM rides WHERE id IN (6, 9)")
    world.store.put(view.tombstone({"id": 6}, 1))
    remover = Remover(world.source, world.target, world.server, STAMP, kit.Free())
    found = sum(remover.span(None, ("99999999",)), RolledBack())
    assert found == RolledBack(removed=ROWS - 3, unstamped=1)
    swept = sum((page for segment in range(2) for page, _ in remover.sweep(segment, 2)), RolledBack())
    assert swept == RolledBack(removed=1)
    left = {canonical({"pk": item["pk"]}) for page in world.target.scan(0, 1) for item in page.items}
    assert left == {'{"pk":{"S":"RIDE#3"}}', '{"pk":{"S":"RIDE#6"}}'}


def test_a_connection_with_a_snapshot_is_refused(world: World) -> None:
    with closing(mysql.root_connection("mysql80")) as other:
        other.autocommit(False)
        with pytest.raises(ValueError, match="open it with autocommit"):
            verify.Verifier(world.source, world.target, other)
