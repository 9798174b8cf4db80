"""The reporter of an application: every count arrives once, with the time that it covers, and never at the application's cost."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.keyvalue import counting
from dbops.keyvalue.counting import Reporter
from dbops.keyvalue.repository import Counters

START = datetime(2026, 11, 29, 10, tzinfo=UTC)
TABLE = """
CREATE TABLE backfill_counter (
    spec TEXT NOT NULL, application TEXT NOT NULL, instance TEXT NOT NULL, counted_to TEXT NOT NULL, counted_from TEXT NOT NULL,
    counts TEXT NOT NULL, is_last INTEGER NOT NULL, PRIMARY KEY (spec, application, instance, counted_to)
)
"""


class Base:
    """A database that can fail before or after it commits."""

    def __init__(self, path: Path) -> None:
        self.path, self.faults = path, list[str]()
        with sqlite3.connect(path) as connection:
            connection.execute(TABLE)

    def connect(self) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "connect":
            raise sqlite3.OperationalError("cannot connect")
        return Connection(sqlite3.connect(self.path), fault)

    def rows(self) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as connection:
            columns = "spec, application, instance, counted_from, counted_to, counts, is_last"
            return connection.execute(f"SELECT {columns} FROM backfill_counter ORDER BY counted_to").fetchall()

    def counts(self) -> dict[str, int]:
        return +sum((Counter(json.loads(row[5])) for row in self.rows()), Counter[str]())


class Connection:
    def __init__(self, connection: sqlite3.Connection, fault: str) -> None:
        self.connection, self.fault = connection, fault

    def cursor(self) -> sqlite3.Cursor:
        return self.connection.cursor()

    def commit(self) -> None:
        if self.fault != "lost":
            self.connection.commit()
        if self.fault:
            raise sqlite3.OperationalError("gone away")

    def close(self) -> None:
        self.connection.close()


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=60)
        return self.now


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path / "counters.db")


def reporter(base: Base, counters: Counters, **more: Any) -> Reporter:
    given = {"application": "shop", "spec": "rides", "paramstyle": "qmark", "clock": Clock(), **more}
    return Reporter(counters, base.connect, **given)


def test_each_report_has_what_came_since_the_last(base: Base) -> None:
    counters = Counters()
    counters.add("hits", "fallback_hits")
    one = reporter(base, counters, instance="a")
    assert one.report()
    counters.add("hits")
    assert one.close()
    assert one.close()  # once more changes nothing
    first, second = base.rows()
    assert first[:5] == ("rides", "shop", "a", "2026-11-29 10:01:00.000000", "2026-11-29 10:02:00.000000")
    assert second[3] == first[4]
    assert (first[6], second[6]) == (0, 1)
    assert json.loads(first[5])["writes"] == 0  # what is 0 is said, too
    assert [json.loads(row[5])["hits"] for row in base.rows()] == [1, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "connect", "lost", "unknown"]), max_size=8), st.integers(0, 3))
def test_every_count_arrives_once_and_the_time_has_no_hole(faults: list[str], at_once: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        base, counters = Base(Path(folder) / "c.db"), Counters()
        base.faults = list(faults)
        one = reporter(base, counters)
        for _ in range(len(faults) + 1):
            counters.add(*["hits"] * at_once)
            one.report()
        base.faults = []
        assert one.close()
        assert base.counts().get("hits", 0) == at_once * (len(faults) + 1)
        rows = base.rows()
        assert [row[3] for row in rows[1:]] == [row[4] for row in rows[:-1]]
        assert [row[6] for row in rows] == [0] * (len(rows) - 1) + [1]


def test_another_violation_is_not_taken_for_a_report_that_is_there(base: Base) -> None:
    with sqlite3.connect(base.path) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON backfill_counter BEGIN SELECT RAISE(ABORT, 'not today'); END"
        )
    counters = Counters()
    counters.add("hits")
    one = reporter(base, counters)
    assert not one.report()
    with sqlite3.connect(base.path) as connection:
        connection.execute("DROP TRIGGER no")
    assert one.report()
    assert base.counts() == {"hits": 1}


def test_a_clock_that_goes_back_makes_no_second_row_of_one_time(base: Base) -> None:
    counters = Counters()
    one = reporter(base, counters, clock=lambda: START)
    assert [one.report(), one.report(), one.close()] == [True] * 3
    assert len({row[4] for row in base.rows()}) == 3


def test_the_thread_reports_at_once_and_says_goodbye(base: Base) -> None:
    counters, is_there = Counters(), threading.Event()

    def connect() -> Any:
        is_there.set()
        return base.connect()

    one = Reporter(counters, connect, application="shop", spec="rides", paramstyle="qmark", every_s=3600)
    one.start()
    one.start()
    assert is_there.wait(10)
    counters.add("hits")
    assert one.close(10)
    assert base.counts() == {"hits": 1}
    assert base.rows()[-1][6] == 1


def test_a_database_that_hangs_does_not_hold_up_the_application(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    let_go = threading.Event()

    def connect() -> Any:
        let_go.wait(30)
        raise OSError("cannot connect to mysql://secret")

    one = Reporter(Counters(), connect, application="shop", spec="rides", every_s=3600)
    one.start()
    assert not one.close(0.05)
    let_go.set()
    assert one._thread is not None
    one._thread.join(10)
    assert "secret" not in caplog.text
    assert "OSError" in caplog.text


def test_failures_are_not_logged_each_minute(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    one = reporter(base, Counters())
    base.faults = ["connect"] * 100
    for _ in range(100):
        assert not one.report()
    assert len(caplog.records) == 7


def test_a_forked_worker_reports_for_itself_only(base: Base) -> None:
    counters = Counters()
    counters.add("hits", "hits")
    one = reporter(base, counters, instance="parent", clock=lambda: datetime.now(UTC))
    assert one.report()
    counters._lock.acquire()  # as a thread that counts just now
    try:
        child = os.fork()
        if child == 0:
            try:
                counters.add("hits")
                os._exit(0 if one.close() else 1)
            finally:
                os._exit(2)
    finally:
        counters._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    assert one.report()
    assert base.counts() == {"hits": 3}
    assert len({row[2] for row in base.rows()}) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("application", ""), ("spec", "x" * 101), ("table", "a; DROP"), ("every_s", 0), ("instance", "")],
)
def test_wrong_arguments_name_the_field(field: str, value: Any) -> None:
    given: dict[str, Any] = {"application": "shop", "spec": "rides", field: value}
    connect: Callable[[], Any] = lambda: None  # noqa: E731
    with pytest.raises(ValueError, match=field):
        Reporter(Counters(), connect, **given)


def test_the_statement_is_that_of_the_driver() -> None:
    one = Reporter(Counters(), lambda: None, application="shop", spec="rides", table="dbops.backfill_counter")
    assert one._insert.startswith(f"INSERT INTO dbops.{counting.TABLE} (spec, ")
    assert one._insert.count("%s") == 7
