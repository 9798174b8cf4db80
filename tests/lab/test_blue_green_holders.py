"""Who stands in the way, on real servers; and the process that stands there on purpose."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import MySQLdb
import psutil
import pytest

from dbops.blue_green import arms, companion, holders
from dbops.blue_green.probes import Endpoint
from lab.config import HOST
from lab.rds.endpoint import Endpoints
from tests.lab.replica_kit import MASTER, PASSWORD, PLAIN, Side, one, soon

pytestmark = pytest.mark.lab
CONTENT = """SELECT CONCAT(COUNT(*), '#', (SELECT table_comment FROM information_schema.tables WHERE table_name = 'dbops_arm'))
FROM shop.dbops_arm"""


@pytest.fixture(scope="module", params=["5.7.22", "8.0.15"])
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with one(tmp_path_factory.mktemp("holders"), request.param) as found:
        found.run(
            "CREATE DATABASE shop",
            "CREATE TABLE shop.t (id INT PRIMARY KEY, a INT)",
            "CREATE TABLE shop.keyless (a INT)",
        )
        found.run("INSERT INTO shop.t VALUES (1, 1), (2, 2)", "INSERT INTO shop.keyless VALUES (1), (2), (3)")
        with closing(found.connect()) as conn:
            arms.create_table(conn, "shop")
        yield found


def seen(side: Side, older_than_s: float = 0) -> dict[int, holders.Holder]:
    with closing(side.connect()) as conn:
        return {holder.connection: holder for holder in holders.in_the_way(conn, older_than_s)}


def test_nobody_is_in_the_way_of_an_idle_server(side: Side) -> None:
    with closing(side.connect(PLAIN)), closing(side.connect()) as conn:
        assert seen(side) == {}
        found = holders.evidence(conn)
        assert (found.longest_transaction_s, found.longest_ddl_s, found.writes_without_key) == (0.0, 0.0, None)


def test_a_transaction_a_wait_and_ddl_are_told_apart_and_named(side: Side) -> None:
    with (
        closing(side.connect(PLAIN, autocommit=False)) as holder,
        closing(side.connect(PLAIN)) as waiter,
        closing(side.connect()) as alterer,
    ):
        with holder.cursor() as cursor:
            cursor.execute("UPDATE shop.t SET a = a + 1 WHERE id IN (1, 2)")
        statements = {
            waiter: "UPDATE shop.t SET a = 5 WHERE id = 1",
            alterer: "/* why */ ALTER TABLE shop.t ADD COLUMN secret VARCHAR(9) DEFAULT 'hush'",
        }
        holding, waiting, altering = (conn.thread_id() for conn in (holder, waiter, alterer))
        threads = [threading.Thread(target=run, args=each) for each in statements.items()]
        try:
            # Behind DDL that waits, a write would wait for it and not for the row.
            for thread, connections in zip(threads, ({holding, waiting}, {holding, waiting, altering}), strict=True):
                thread.start()
                for attempt in soon():
                    with attempt:
                        found = seen(side)
                        assert set(found) == connections
                        assert found[waiting].kind == "lock wait"
            for attempt in soon():
                with attempt:
                    found = seen(side)
                    assert all(found[number].statement for number in (waiting, altering))
                    assert found[holding].seconds >= 1
            assert (found[holding].kind, found[holding].rows) == ("transaction", 2)
            assert (found[holding].user, found[holding].statement) == (PLAIN, "")
            assert found[waiting].kind == "lock wait"
            assert found[waiting].statement == "UPDATE shop.t SET a = ? WHERE id = ?"
            assert found[altering].kind == "ddl"
            assert found[altering].statement == "ALTER TABLE shop.t ADD COLUMN secret VARCHAR(?) DEFAULT ?"
            assert seen(side, older_than_s=600) == {}
            with closing(side.connect()) as conn:
                evidence = holders.evidence(conn)
            assert (evidence.longest_transaction_s or 0) >= 1
            assert evidence.longest_ddl_s is not None
            assert evidence.connections == 3
        finally:
            for number in (altering, waiting):
                side.server.sql(f"KILL QUERY {number}")
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            holder.rollback()


def test_who_has_only_read_is_named_but_is_no_evidence(side: Side) -> None:
    with closing(side.connect(PLAIN, autocommit=False)) as reader, closing(side.connect()) as conn:
        with reader.cursor() as cursor:
            cursor.execute("SELECT * FROM shop.t")
        for attempt in soon():
            with attempt:
                found = seen(side, older_than_s=1).get(reader.thread_id())
                assert found is not None
        assert (found.kind, found.rows, found.writes) == ("transaction", 0, False)
        assert holders.evidence(conn).longest_transaction_s == 0.0


def run(conn: MySQLdb.Connection, statement: str) -> None:
    with suppress(MySQLdb.Error), conn.cursor() as cursor:
        cursor.execute(statement)


def test_a_prepared_transaction_that_its_session_left_is_seen(side: Side) -> None:
    side.run("XA START 'left'", "INSERT INTO shop.t VALUES (3, 3)", "XA END 'left'", "XA PREPARE 'left'")
    try:
        for attempt in soon():
            with attempt:
                found = seen(side)
                assert [(h.kind, h.rows) for h in found.values()] == [("xa", 1)]
    finally:
        with side.server.cursor() as cursor:
            cursor.execute("XA ROLLBACK 'left'")


def test_without_the_privilege_it_is_an_error_and_not_nobody(side: Side) -> None:
    with closing(side.connect(PLAIN)) as conn, pytest.raises(MySQLdb.Error, match="PROCESS"):
        holders.in_the_way(conn, 0)


def test_rows_changed_without_a_key_are_counted_from_the_baseline(side: Side) -> None:
    with closing(side.connect()) as conn:
        side.run("UPDATE shop.keyless SET a = a + 10")
        since = holders.baseline(conn)
        assert since.tables == (("shop", "keyless"),)
        side.run(
            "UPDATE shop.keyless SET a = a + 1", "UPDATE shop.t SET a = 0", "DELETE FROM shop.keyless WHERE a = 12"
        )
        assert holders.evidence(conn, since).writes_without_key == 4
        assert holders.evidence(conn, holders.Baseline(since.tables, 10**6)).writes_without_key is None
        assert holders.evidence(conn, holders.Baseline(since.tables, None)).writes_without_key is None
        side.run("INSERT INTO shop.keyless VALUES (2)")


def settings(side: Side, path: Path, **values: object) -> arms.Settings:
    endpoint = Endpoint(host=HOST, port=side.server.port, user=MASTER, password=PASSWORD)
    return arms.Settings.model_validate(
        {"path": path, "endpoint": endpoint, "schema_name": "shop", "max_seconds": 60, **values}
    )


@pytest.mark.parametrize(("trouble", "kind"), [("long_transaction", "transaction"), ("running_ddl", "ddl")])
def test_arms_hold_until_they_are_told_to_stop_and_leave_nothing(
    side: Side, tmp_path: Path, trouble: str, kind: str
) -> None:
    before = side.value(CONTENT)
    path = tmp_path / "arms"
    pid = arms.start(settings(side, path, connections=30, trouble=trouble))
    try:
        found = [holder for holder in seen(side).values() if holder.kind == kind]
        assert [(holder.user, holder.rows > 0) for holder in found] == [(MASTER, kind == "transaction")]
        with closing(side.connect()) as conn:
            assert (holders.evidence(conn).connections or 0) >= 31
        # What a switchover does to everybody: the arms come back.
        for connection in clients(side):
            with suppress(MySQLdb.Error):
                side.run(f"KILL {connection}")
        for attempt in soon():
            with attempt:
                assert len(clients(side)) >= 31
                assert [h.kind for h in seen(side).values()].count(kind) == 1
        assert {"lost", "armed again"} <= {event["event"] for event in arms.events(path)}
        with pytest.raises(companion.CompanionError, match="another process"):
            arms.start(settings(side, path))
    finally:
        arms.stop(path)
    assert not arms.is_running(path)
    for attempt in soon():
        with attempt:
            assert clients(side) == []
            assert not psutil.pid_exists(pid)
    assert seen(side) == {}
    assert arms.events(path)[-1]["event"] == "ended"
    assert side.value(CONTENT) == before
    arms.stop(path)  # again: nothing to do


def test_arms_come_back_when_the_endpoint_serves_again_and_stop_while_it_refuses(side: Side, tmp_path: Path) -> None:
    endpoint, path = Endpoints().open(), tmp_path / "arms"
    endpoint.retarget(side.server.port)
    through = Endpoint(host=HOST, port=endpoint.port, user=MASTER, password=PASSWORD)
    arms.start(settings(side, path, connections=100, trouble="long_transaction", endpoint=through))
    try:
        for serve_again in (True, False):
            endpoint.refuse()
            for attempt in soon():
                with attempt:
                    assert clients(side) == []
            if serve_again:
                endpoint.serve()
                for attempt in soon():
                    with attempt:
                        assert len(clients(side)) == 101
    finally:
        arms.stop(path, 10)
        endpoint.close()
    assert arms.events(path)[-1]["event"] == "ended"


def clients(side: Side) -> list[int]:
    with side.server.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = %s", (MASTER,))
        return [row[0] for row in cursor.fetchall()]


def test_arms_end_by_themselves_and_a_killed_one_can_be_followed(side: Side, tmp_path: Path) -> None:
    path = tmp_path / "arms"
    pid = arms.start(settings(side, path, connections=3, trouble="running_ddl"))
    os.kill(pid, signal.SIGKILL)
    for attempt in soon():
        with attempt:
            assert not arms.is_running(path)
            assert clients(side) == []
    arms.start(settings(side, path, connections=3, max_seconds=1))
    for attempt in soon():
        with attempt:
            assert not arms.is_running(path)
    assert [event["event"] for event in arms.events(path)] == ["armed", "armed", "ended"]


def test_what_cannot_be_held_is_an_error_that_says_why(side: Side, tmp_path: Path) -> None:
    wrong = Endpoint(host=HOST, port=side.server.port, user=MASTER, password="wrong")
    with pytest.raises(companion.CompanionError, match="Access denied"):
        arms.start(settings(side, tmp_path / "a", connections=100, endpoint=wrong))
    assert not arms.is_running(tmp_path / "a")
    with pytest.raises(companion.CompanionError, match="nowhere"):
        arms.start(settings(side, tmp_path / "b", trouble="long_transaction", schema_name="nowhere"))
    assert "wrong" not in (tmp_path / "a.log").read_text().replace("using password", "")
