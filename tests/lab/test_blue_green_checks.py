"""Whether blue and green hold the same rows, asked of real servers while others write; and who may write where."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from dbops.blue_green import checks, load, probes
from dbops.blue_green.spec import Data
from tests.lab.replica_kit import PLAIN, Side, pair, settle

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with pair(tmp_path_factory.mktemp("checks"), "shop") as both:
        load.fill(both[0].connect, Data(gigabytes=0.02, tables=6), "shop")
        both[0].run(
            "CREATE TABLE shop.busy (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
            "CREATE TABLE shop.small (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
            "INSERT INTO shop.small (a) VALUES (1), (2), (3)",
        )
        settle(*both)
        yield both


def same(sides: tuple[Side, Side], **more: object) -> checks.Comparison:
    return checks.same_data(sides[0].connect, sides[1].connect, "shop", **more)  # type: ignore[arg-type]


def test_the_rows_are_the_same_while_others_write(sides: tuple[Side, Side]) -> None:
    writing, stop, written = threading.Event(), threading.Event(), []

    def write() -> None:
        with closing(sides[0].connect(PLAIN)) as conn, conn.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("INSERT INTO shop.busy (a) VALUES (1)")
                cursor.execute("UPDATE shop.small SET a = a + 1 WHERE id = 1")
                written.append(1)
                writing.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert writing.wait(10)
        before = len(written)
        found = [same(sides) for _ in range(3)]
        assert len(written) > before
    finally:
        stop.set()
        thread.join()
    assert [str(difference) for comparison in found for difference in comparison.differences] == []
    assert all(comparison.is_same and comparison.proof == "gtid" for comparison in found)
    assert found[0].tables == 6 + 2 + 2
    assert found[0].rows >= sum(table.rows for table in load.plan(Data(gigabytes=0.02, tables=6)))
    assert all(comparison.locked_s < 10 for comparison in found)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["UPDATE shop.small SET a = a + 1 WHERE id = 2"], "small: 3 rows on blue, 3 on green, with other values"),
        (["DELETE FROM shop.small WHERE id = 2"], "small: 3 rows on blue, 2 on green"),
        (["CREATE TABLE shop.more (id INT)"], "more is only on green"),
        (["RENAME TABLE shop.small TO shop.smaller"], "small is only on blue; smaller is only on green"),
        (["ALTER TABLE shop.small ADD COLUMN b INT"], "small: only green has column b"),
    ],
)
def test_a_difference_is_found_and_named(sides: tuple[Side, Side], statements: list[str], expected: str) -> None:
    settle(*sides)
    for statement in (
        "CREATE TABLE shop.kept LIKE shop.small",
        "INSERT INTO shop.kept SELECT * FROM shop.small",
        *statements,
    ):
        sides[1].run(statement)
    found = same(sides, exclude={"kept", "busy"})
    sides[1].run("DROP TABLE IF EXISTS shop.small, shop.smaller, shop.more", "RENAME TABLE shop.kept TO shop.small")
    assert "; ".join(str(difference) for difference in found.differences) == expected
    assert not found.is_same
    assert same(sides).is_same


def test_a_green_that_does_not_catch_up_is_no_proof_and_blue_is_set_free(sides: tuple[Side, Side]) -> None:
    sides[1].server.sql("STOP SLAVE SQL_THREAD")
    try:
        sides[0].run("INSERT INTO shop.busy (a) VALUES (1)")
        with pytest.raises(checks.CheckError, match="replication to green has stopped"):
            same(sides)
    finally:
        sides[1].server.sql("START SLAVE SQL_THREAD")
    with closing(sides[1].connect()) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLES shop.busy READ")
        sides[0].run("INSERT INTO shop.busy (a) VALUES (1)")
        with pytest.raises(checks.CheckError, match="has not caught up"):
            same(sides, deadline_s=1)
    sides[0].run("SET lock_wait_timeout = 1", "INSERT INTO shop.busy (a) VALUES (1)")
    settle(*sides)


def test_an_open_transaction_on_blue_is_named_as_the_reason(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LOCK_WAIT_S", 1)
    with closing(sides[0].connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("UPDATE shop.small SET a = 9 WHERE id = 3")
        with pytest.raises(checks.CheckError, match="could not be locked within 1 s"):
            same(sides)
        assert same(sides, exclude={"small"}).is_same
        holder.rollback()


def test_the_table_of_the_probes_is_not_locked(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LOCK_WAIT_S", 1)
    with closing(sides[0].connect()) as conn:
        probes.create_table(conn, "shop")
    with closing(sides[0].connect(autocommit=False)) as prober, prober.cursor() as cursor:
        cursor.execute("INSERT INTO shop.dbops_probe (run, seq, sent_ns) VALUES ('r', 1, 1)")
        found = same(sides)
        assert found.is_same
        assert found.locked_s < 1
        prober.rollback()


def test_plain_users_are_refused_on_green_and_served_on_blue(sides: tuple[Side, Side]) -> None:
    with closing(sides[0].connect(PLAIN)) as blue, closing(sides[1].connect(PLAIN)) as green:
        assert checks.refuses_writes(green, "shop", "busy")
        assert not checks.is_writable(green, "shop", "busy")
        assert checks.is_writable(blue, "shop", "busy")
        assert not checks.refuses_writes(blue, "shop", "busy")
        count = sides[0].value("SELECT COUNT(*) FROM shop.busy")
        assert checks.is_writable(blue, "shop", "busy")
        assert sides[0].value("SELECT COUNT(*) FROM shop.busy") == count
        with pytest.raises(checks.CheckError, match=r"shop\.nosuch shows nothing.*1146"):
            checks.refuses_writes(blue, "shop", "nosuch")
    with closing(sides[1].connect()) as master:
        assert not checks.refuses_writes(master, "shop", "busy"), (
            "CONNECTION_ADMIN passes read_only: that is why a plain user is asked"
        )


def test_without_gtid_the_position_proves_it_and_without_that_a_row(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fill(blue: Side) -> None:
        load.fill(blue.connect, Data(gigabytes=0.02, tables=6), "shop")

    with pair(tmp_path_factory.mktemp("position"), "shop", fill) as sides:
        assert same(sides).is_same, "made-up data does not survive the copy to 8.0"
        without_gtid(*sides)
        sides[0].run("CREATE TABLE shop.small (id INT PRIMARY KEY)", "INSERT INTO shop.small VALUES (1)")
        assert [same(sides).proof for _ in range(2)] == ["position"] * 2
        sides[0].server.sql("FLUSH BINARY LOGS")
        assert same(sides, deadline_s=20).is_same
        sides[1].server.sql("STOP SLAVE SQL_THREAD")
        sides[0].run("INSERT INTO shop.small VALUES (2)")
        with pytest.raises(checks.CheckError, match="stopped"):
            same(sides)
        sides[1].server.sql("START SLAVE SQL_THREAD")
        sides[0].server.sql("REVOKE REPLICATION CLIENT ON *.* FROM 'rehearsal'@'%'")
        found = same(sides)
        assert (found.is_same, found.proof) == (True, "marker row")


def without_gtid(blue: Side, green: Side) -> None:
    """Let green follow by position, and both sides give up GTIDs, step by step as MySQL wants it."""
    settle(blue, green)
    position = blue.server.rows("SHOW MASTER STATUS")[0]
    with green.server.cursor() as cursor:
        cursor.execute("STOP SLAVE")
        cursor.execute(
            "CHANGE MASTER TO MASTER_AUTO_POSITION = 0, MASTER_LOG_FILE = %s, MASTER_LOG_POS = %s",
            (position["File"], position["Position"]),
        )
    for mode in ("ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"):
        for side in (blue, green):
            side.server.sql(f"SET GLOBAL gtid_mode = {mode}")
    green.server.sql("START SLAVE")
