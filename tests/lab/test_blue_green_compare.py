"""The same statements on a real 5.7.22 and a real 8.0.15 with the same rows: each verdict from a statement that deserves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dbops.blue_green import compare, load
from dbops.blue_green.compare import Comparison, Statement
from dbops.blue_green.spec import Data
from tests.lab.replica_kit import Side, pair, settle

pytestmark = pytest.mark.lab
ORDERS = "dbops_load_00001_keyed"


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with pair(tmp_path_factory.mktemp("compare"), "shop") as both:
        load.fill(both[0].connect, Data(gigabytes=0.06, tables=3), "shop")
        both[0].run(
            "CREATE TABLE shop.few (id INT PRIMARY KEY, `rank` INT, f DOUBLE, t VARCHAR(20) CHARACTER SET utf8)",
            "INSERT INTO shop.few VALUES (1, 5, 0.1, 'é'), (2, 4, 0.2, 'x'), (3, 5, NULL, NULL), (4, 1, 1e300, '')",
        )
        settle(*both)
        yield both


@pytest.fixture(autouse=True)
def _times_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts about answers must not depend on how busy the machine is."""
    monkeypatch.setattr(compare, "MIN_DIFFERENCE_S", 3600.0)


def run(
    sides: tuple[Side, Side], *statements: str, repeats: int = 2, limit_s: float = 20, **more: Any
) -> list[Comparison]:
    named = [Statement(f"q{n}", text, "shop") for n, text in enumerate(statements)]
    with closing(sides[0].connect()) as blue, closing(sides[1].connect()) as green:
        return compare.compare(blue, green, named, repeats, limit_s, wait=lambda _: None, **more)


def one(sides: tuple[Side, Side], statement: str, **more: Any) -> Comparison:
    return run(sides, statement, **more)[0]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM few",
        f"SELECT state, COUNT(*), SUM(amount), AVG(customer), MIN(created_at) FROM {ORDERS} GROUP BY state ORDER BY state",
        "SELECT NOW(6), CURDATE(), UNIX_TIMESTAMP()",
        "SELECT attributes, payload, flags, ratio FROM dbops_load_00003_wide WHERE id <= 50 ORDER BY id",
        f"SELECT SUM(f), STDDEV(customer / 7) FROM few JOIN {ORDERS} ON few.id = {ORDERS}.id",
    ],
)
def test_the_same_answer_is_the_same(sides: tuple[Side, Side], statement: str) -> None:
    found = one(sides, statement)
    assert found.verdict == "same", found
    assert found.note == ""
    assert found.rows == found.rows_green
    assert (found.rows or 0) > 0
    assert (found.error_blue, found.error_green) == ("", "")
    assert found.time_ratio == pytest.approx((found.seconds_green or 0) / (found.seconds_blue or 1))


def test_words_and_syntax_that_8_0_does_not_take_are_broken(sides: tuple[Side, Side]) -> None:
    found = run(
        sides,
        "SELECT rank FROM few",
        "SELECT SQL_CACHE id FROM few",
        "SELECT rank + 0 AS r FROM few GROUP BY few.t DESC",
    )
    assert [comparison.verdict for comparison in found] == ["broken"] * 3
    assert [comparison.error_green[:6] for comparison in found] == ["1064: ", "1054: ", "1064: "]
    assert all(not comparison.error_blue for comparison in found)
    assert [comparison.rows for comparison in found] == [4, 4, 4]
    assert all(comparison.rows_green is None and comparison.time_ratio is None for comparison in found)
    assert any(warning.startswith("1681: ") for warning in found[1].warnings_blue)


def test_group_by_no_longer_sorts_which_is_an_order_and_not_other_rows(sides: tuple[Side, Side]) -> None:
    found = one(sides, "SELECT few.`rank`, COUNT(*) FROM few GROUP BY few.`rank`")
    assert found.verdict == "order only"
    assert any("filesort" in difference for difference in found.plan_differences)
    assert one(sides, "SELECT few.`rank`, COUNT(*) FROM few GROUP BY few.`rank` ORDER BY 1").verdict == "same"


def test_other_rows_are_different_even_if_there_are_as_many(sides: tuple[Side, Side]) -> None:
    with sides[1].server.cursor() as cursor:
        cursor.execute("UPDATE shop.few SET f = 0.3 WHERE id = 1")
        found = run(sides, "SELECT f FROM few", "SELECT id FROM few", "SELECT COUNT(*) FROM few WHERE f = 0.1")
        cursor.execute("UPDATE shop.few SET f = 0.1 WHERE id = 1")
    assert [comparison.verdict for comparison in found] == ["different", "same", "different"]
    assert found[0].rows == found[0].rows_green == 4
    assert one(sides, "SELECT f FROM few").verdict == "same"
    with sides[1].server.cursor() as cursor:
        cursor.execute("UPDATE shop.few SET f = 0.3 WHERE id = 1")
        limited, ordered = run(sides, "SELECT f FROM few LIMIT 1", "SELECT f FROM few ORDER BY id LIMIT 1")
        cursor.execute("UPDATE shop.few SET f = 0.1 WHERE id = 1")
    assert (limited.verdict, ordered.verdict, ordered.note) == ("different", "different", "")
    assert "LIMIT without ORDER BY" in limited.note
    version = one(sides, "SELECT VERSION()")
    assert (version.verdict, version.rows) == ("different", 1)


def test_what_blue_answers_otherwise_each_time_says_nothing(sides: tuple[Side, Side]) -> None:
    found = one(sides, "SELECT UUID()")
    assert (found.verdict, found.note) == ("not compared", "blue itself answers otherwise each time")


def test_a_green_that_was_behind_for_a_moment_is_asked_again(sides: tuple[Side, Side]) -> None:
    with sides[1].server.cursor() as cursor:
        cursor.execute("STOP SLAVE SQL_THREAD")
        sides[0].run("INSERT INTO shop.few VALUES (9, 9, 9, '9')")

        def catch_up(_: float) -> None:
            cursor.execute("START SLAVE SQL_THREAD")
            settle(*sides)

        with closing(sides[0].connect()) as blue, closing(sides[1].connect()) as green:
            found = compare.compare(blue, green, [Statement("q", "SELECT * FROM shop.few")], 1, 5, wait=catch_up)[0]
    sides[0].run("DELETE FROM shop.few WHERE id = 9")
    settle(*sides)
    assert found.verdict == "same"
    assert "differed at first" in found.note


def test_a_statement_over_the_limit_is_stopped_and_named(sides: tuple[Side, Side]) -> None:
    found = one(sides, f"SELECT COUNT(*) FROM {ORDERS} a JOIN {ORDERS} b ON a.note < b.note", limit_s=0.2)
    assert (found.verdict, found.note) == ("not compared", "it takes longer than the limit on both sides")
    assert found.error_blue.startswith("3024: ")


def test_a_slower_green_is_worse_with_the_plan_that_makes_it_so(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "MIN_DIFFERENCE_S", 0.005)
    statement = f"SELECT id, note FROM {ORDERS} WHERE customer BETWEEN 1000 AND 1050 ORDER BY id"
    with sides[1].server.cursor() as cursor:
        cursor.execute(f"ALTER TABLE shop.{ORDERS} DROP INDEX customer")
        found = one(sides, statement, repeats=3)
        cursor.execute(f"ALTER TABLE shop.{ORDERS} ADD INDEX customer (customer, created_at)")
    assert found.verdict == "worse", found
    assert (found.time_ratio or 0) > compare.RATIO
    assert f"{ORDERS}: access range -> ALL" in found.plan_differences or "key customer" in " ".join(
        found.plan_differences
    )


def test_nothing_is_written_and_the_session_is_as_it_was(sides: tuple[Side, Side]) -> None:
    with sides[0].server.cursor() as cursor:
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        cursor.execute(
            "CREATE FUNCTION shop.sneak() RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM shop.few; RETURN 1; END"
        )
    with closing(sides[0].connect()) as blue, closing(sides[1].connect()) as green:
        with blue.cursor() as cursor:
            cursor.execute("SET SESSION max_execution_time = 1234")
        statements = [
            Statement("a", "SELECT shop.sneak()", "shop"),
            Statement("b", "DELETE FROM few", "shop"),
            Statement("c", "SELECT DATABASE()"),
            Statement("d", "SELECT DATABASE()", "shop"),
            Statement("e", "SELECT 1", "nosuch"),
        ]
        done: list[int] = []
        found = compare.compare(blue, green, statements, 1, 5, on_progress=done.append)
        with blue.cursor() as cursor:
            cursor.execute(
                "SELECT @@SESSION.max_execution_time, NOW() > '2020-01-01', @@timestamp > 0, SLEEP(0.01), @@timestamp"
            )
            row = cursor.fetchone()
    sides[0].server.sql("DROP FUNCTION shop.sneak")
    assert [comparison.name for comparison in found] == ["a", "b", "c", "d", "e"]
    assert found[0].error_blue.startswith("1792: ")
    assert (found[1].verdict, found[1].note) == ("not compared", "it begins with DELETE, not with SELECT or WITH")
    assert [comparison.verdict for comparison in found[2:]] == ["same", "same", "not compared"]
    assert found[4].error_green.startswith("1049: ")
    assert done == [1, 2, 3, 4, 5]
    assert row[0] == 1234
    assert sides[0].value("SELECT COUNT(*) FROM shop.few") == 4
