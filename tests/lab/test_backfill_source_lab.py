"""Views on MySQL 5.7 and 8.0: what a page reads, how MySQL runs it, and keys that come back to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbops.backfill import source
from dbops.backfill.source import Source, ViewError
from dbops.keys import Key
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.views import Loaded
from dbops.sql import ident
from tests.lab.backfill_source_kit import DYNAMO, JOIN, KEY, LAST, fleet, opened, run, server
from tests.lab.test_keyvalue_types import COLUMNS

__all__ = ["server"]
pytestmark = pytest.mark.lab


def pages(found: Source, server: Any, limit: int, high: Key = LAST) -> Iterator[source.Page]:
    low: Key | None = None
    while True:
        page = found.page(server, low, high, limit, "plan")
        yield page
        if page.is_end:
            return
        low = page.last


@pytest.mark.parametrize("join", ["LEFT JOIN", "JOIN"])
def test_pages_are_every_row_of_the_view_once_and_bounded_by_driving_rows(server: Any, join: str) -> None:
    fleet(server)
    found = opened(server, JOIN.format(join=join), **KEY)
    seen, sizes = [], []
    for page in pages(found, server, 70):
        seen += page.rows
        sizes.append(len(page.rows))
    expected = [n for n in range(1, 1001) if "abc"[n % 3] != "c" and (join == "LEFT JOIN" or n % 5 in (1, 2, 3))]
    assert [row.key for row in seen] == [(str(3 * n),) for n in expected]
    assert max(sizes) <= 70
    assert len(sizes) == 15  # 1,000 driving rows, whatever the view leaves out
    for row, n in zip(seen, expected, strict=True):
        version = max(n, {1: 50, 2: 5000, 3: 70}.get(n % 5, 0))
        assert row.write is not None
        assert row.write.version == rules.Version(version)
        assert row.write.is_tombstone == (n % 10 == 0)
        if n % 10:
            assert row.write.stamp == "plan"
            assert "is_deleted" not in row.write.attributes
            assert "version" not in row.write.attributes
            assert ("member" in row.write.attributes) == (n % 5 in (1, 2, 3))


def test_mysql_reads_a_range_of_the_key_without_sort_or_temporary_table(server: Any) -> None:
    """Also where an index of another condition, or the small table that is joined, looks better to it."""
    fleet(server, 5000)
    for join, where in (("LEFT JOIN", ""), ("JOIN", ""), ("JOIN", " AND m.full_name = 'Ann'")):
        found = opened(server, JOIN.replace("<> 'c'", "= 'a'").format(join=join) + where, **KEY)
        for low, high in ((None, ("1500",)), (("300",), ("600",)), (None, LAST)):
            with server.cursor() as cursor:
                cursor.execute(f"EXPLAIN {found.page_sql(low, high)}")
                names = [column[0] for column in cursor.description]
                plan = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            assert (plan[0]["table"], plan[0]["type"], plan[0]["key"]) == ("r", "range", "PRIMARY"), plan
            assert {row["select_type"] for row in plan} == {"SIMPLE"}, plan
            assert not any("filesort" in (row["Extra"] or "") or "temporary" in (row["Extra"] or "") for row in plan)


def test_rows_by_key_are_those_of_the_pages_whatever_is_cold(server: Any) -> None:
    fleet(server)
    cold = {"where": "r.version < 100", "only": True}
    found = opened(server, JOIN.format(join="LEFT JOIN"), **KEY)
    of_cold = opened(server, JOIN.format(join="LEFT JOIN"), cold=cold, **KEY)
    everything = {row.key: row for page in pages(found, server, 999) for row in page.rows}
    assert {row.key for page in pages(of_cold, server, 50) for row in page.rows} == {
        key for key in everything if int(key[0]) < 300
    }
    asked = [(str(n),) for n in range(1, 3100)]
    assert of_cold.rows(server, asked, "plan") == everything
    assert of_cold.rows(server, []) == {}


def test_counts_and_keys_of_a_walk(server: Any) -> None:
    fleet(server)
    found = opened(server, JOIN.format(join="JOIN"), cold={"where": "r.version < 100", "only": False}, **KEY)
    assert found.nth_key(server, None, 400) == ("1200",)
    assert found.nth_key(server, ("1200",), 400) == ("2400",)
    assert found.nth_key(server, ("2400",), 400) is None
    assert found.last_key(server, ("2400",)) == ("3000",)
    assert found.last_key(server, ("3000",)) is None
    assert found.count(server, None, ("1200",)) == source.Counted(400, 99, 160, 160)
    assert found.size(server, ("300",), ("1200",)) == 300
    only = opened(server, JOIN.format(join="JOIN"), cold={"where": "r.version < 100"}, **KEY)
    assert only.last_key(server) == ("297",)
    assert only.count(server, None, LAST).rows == only.size(server, None, LAST) == 99


def test_a_join_that_finds_two_partners_is_refused_when_it_is_read(server: Any) -> None:
    fleet(server, 20)
    run(server, "ALTER TABLE members DROP PRIMARY KEY", "INSERT INTO members VALUES (2, 'Bob again', 1)")
    found = opened(server, JOIN.format(join="LEFT JOIN"), **KEY)
    with pytest.raises(ViewError, match="with key 21 is in it more than once"):
        found.page(server, None, LAST, 100, "")
    with pytest.raises(ViewError, match="with key 21 is in it more than once"):
        found.rows(server, [("21",)])
    counted = found.count(server, None, LAST)
    assert counted.view_rows > counted.view_keys


def test_a_reader_that_missed_gets_the_row_by_mysqls_equality_or_nothing(server: Any) -> None:
    run(
        server,
        "CREATE TABLE users (name VARCHAR(20) NOT NULL PRIMARY KEY, n INT, version INT NOT NULL, gone TINYINT) COLLATE utf8mb4_general_ci",
        "INSERT INTO users VALUES ('Ann', 1, 7, 0), ('Bob', 2, 8, 1)",
    )
    target = {**DYNAMO, "key": {"pk": "USER#{name}"}}
    found = opened(
        server, "SELECT u.name, u.n, u.version, u.gone FROM shop.users AS u WHERE {chunk}", "users", "u", target=target,
        tombstone={"column": "gone"},
    )  # fmt: skip
    assert (
        found.load(server, {"name": "Ann"}) == found.load(server, {"name": "ANN"}) == Loaded({"name": "Ann", "n": 1}, 7)
    )
    assert found.load(server, {"name": "Bob"}) is None
    assert found.load(server, {"name": "Cid"}) is None
    ann, wrong = (found.driving_key(server, {"pk": {"S": f"USER#{name}"}}) for name in ("Ann", "ANN"))
    assert ann is not None
    assert wrong is not None
    assert list(found.rows(server, [ann, wrong])) == [ann]


def test_what_mysql_refuses_is_said_before_a_page_is_read(server: Any) -> None:
    fleet(server, 1)
    with pytest.raises(ViewError, match=r"view.sql: MySQL refuses it: FUNCTION .*NO_SUCH does not exist"):
        opened(
            server,
            "SELECT r.id, r.version, NO_SUCH(r.id) AS x FROM shop.rides AS r WHERE {chunk}",
            view={"types": {"x": "int"}},
        )
    with pytest.raises(ViewError, match="nothing does not exist"):
        opened(server, "SELECT r.id, r.version FROM shop.nothing AS r WHERE {chunk}", "nothing")


KEY_TYPES = [
    "TINYINT", "SMALLINT UNSIGNED", "MEDIUMINT(6) ZEROFILL", "INT", "BIGINT", "BIGINT UNSIGNED", "DECIMAL(10,2)", "DECIMAL(65,30)", "YEAR",
    "DATE", "DATETIME", "DATETIME(3)", "DATETIME(6)", "TIMESTAMP(6)", "TIME", "TIME(6)", "CHAR(10)", "VARCHAR(20)",
    "VARCHAR(20) CHARACTER SET latin1", "VARCHAR(20) CHARACTER SET utf8", "VARCHAR(20) CHARACTER SET ascii",
    "VARCHAR(20) CHARACTER SET utf16", "VARCHAR(20) CHARACTER SET ucs2", "VARCHAR(20) CHARACTER SET gbk", "BINARY(8)", "VARBINARY(20)",
]  # fmt: skip
NUMBERS = [
    0,
    1,
    42,
    127,
    -1,
    -128,
    255,
    65535,
    2**31 - 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    "1.50",
    "-0.01",
    "99999999.99",
    "1e-30",
]
TIMES = [
    "2026-11-29", "1970-01-01 00:00:01", "2000-02-29 23:59:59.999999", "0001-01-01", "9999-12-31", "-838:59:59", "00:00:00", "12:30:00.5",
    "2038-01-19 03:14:07.000001", "1901", "2155",
]  # fmt: skip
TEXTS = ["a", "A b", "a'b\\", "#%25#", "é", "ß", "€", "漢字", "🚲", "\x00", " lead", "\x81\x8d"]


@pytest.mark.parametrize("kind", KEY_TYPES)
@pytest.mark.parametrize("second", [False, True], ids=["single", "composite"])
def test_keys_of_every_type_come_back_from_items_and_tombstones(server: Any, kind: str, second: bool) -> None:
    """The literal that is made of an item's key is the one that MySQL makes, so rows are found and compared by it."""
    values = NUMBERS + TIMES + TEXTS
    extra = ", s INT NOT NULL" if second else ""
    run(
        server,
        f"CREATE TABLE t (k {kind} NOT NULL{extra}, version INT NOT NULL, PRIMARY KEY (k{', s' if second else ''}))",
    )
    with server.cursor() as cursor:
        for value in values:
            cursor.execute(f"INSERT IGNORE INTO t VALUES (%s{', 7' if second else ''}, 1)", (value,))
    template = {"pk": "K#{k}#{s}#"} if second else {"pk": "K#{k}"}
    listed = "t.k, t.s, t.version" if second else "t.k, t.version"
    found = opened(
        server, f"SELECT {listed} FROM shop.t AS t WHERE {{chunk}}", "t", "t", target={**DYNAMO, "key": template},
        view={"policy": {"zero_dates": "text"}},
    )  # fmt: skip
    end = found.last_key(server)
    assert end is not None
    rows = [row for page in pages(found, server, 4, end) for row in page.rows]
    with server.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM t")
        assert cursor.fetchone() == (len(rows),)
    assert len(rows) > 3
    good = [row for row in rows if row.write is not None]
    assert len(good) >= len(rows) - 1  # the empty text, or a year that is out of the type
    for row in good:
        assert row.write is not None
        live = rules.document(row.write, found.names)
        gone = rules.document(rules.Write(row.write.key, row.write.version), found.names)
        assert found.driving_key(server, live) == found.driving_key(server, gone) == row.key
        assert found.rows(server, [row.key])[row.key].write == rules.Write(
            row.write.key, row.write.version, row.write.attributes
        )


def test_every_type_arrives_as_its_codec_wants_it(server: Any) -> None:
    """Through the derived table the same items as from the table itself."""
    definitions = ", ".join(f"{ident(name)} {ddl}" for name, (ddl, _) in COLUMNS.items())
    run(server, f"CREATE TABLE t (id INT NOT NULL PRIMARY KEY, version INT NOT NULL DEFAULT 1, {definitions})")
    with server.cursor() as cursor:
        for number in range(max(len(edges) for _, edges in COLUMNS.values())):
            values = ", ".join(edges[number % len(edges)] for _, edges in COLUMNS.values())
            cursor.execute(f"INSERT INTO t (id, {', '.join(map(ident, COLUMNS))}) VALUES ({number}, {values})")
    listed = ", ".join(f"t.{ident(name)}" for name in ["id", *COLUMNS, "version"])
    found = opened(
        server, f"SELECT {listed} FROM shop.t AS t WHERE {{chunk}}", "t", "t",
        view={"policy": {"zero_dates": "text", "enum_error": "text"}, "policies": {"js_text": {"json_as": "text", "zero_dates": "text"}}},
    )  # fmt: skip
    page = found.page(server, None, ("1000",), 100, "")
    assert page.is_end
    assert not [row.reject for row in page.rows if row.reject]
    expressions = ", ".join(codec.select_sql for codec in found.view.codecs)
    with server.cursor() as cursor:
        cursor.execute(f"SELECT {expressions} FROM t ORDER BY id")
        plain = [found.view.item(dict(zip(found.view.by_name, row, strict=True))) for row in cursor.fetchall()]
    assert len(plain) == len(page.rows)
    for item, row in zip(plain, page.rows, strict=True):
        assert row.write is not None
        assert row.write.attributes is not None
        assert canonical(item) == canonical({**row.write.key, **row.write.attributes})


def test_the_greatest_of_text_versions_is_that_of_the_store(server: Any) -> None:
    run(
        server,
        "CREATE TABLE rides (id BIGINT PRIMARY KEY, m BIGINT, v VARCHAR(4) NOT NULL, b VARCHAR(4) COLLATE utf8mb4_bin NOT NULL)",
        "CREATE TABLE members (id BIGINT PRIMARY KEY, n INT, v VARCHAR(4) NOT NULL, b VARCHAR(4) COLLATE utf8mb4_bin NOT NULL)",
        "INSERT INTO members VALUES (1, 1, 'B001', 'B001')",
        "INSERT INTO rides VALUES (1, 1, 'a001', 'a001')",
    )
    joined = (
        "SELECT r.id, m.n, GREATEST({}, {}) AS v FROM shop.rides r JOIN shop.members m ON m.id = r.m WHERE {{chunk}}"
    )
    version = {"column": "v", "kind": "text", "widths": [4], "scope": "shared"}
    with pytest.raises(ViewError, match=r"by the collation of r\.v"):
        opened(server, joined.format("r.v", "m.v"), version=version)
    for pair in (("CAST(r.v AS BINARY)", "CAST(m.v AS BINARY)"), ("r.b", "m.b")):
        (row,) = opened(server, joined.format(*pair), version=version).page(server, None, LAST, 9, "").rows
        assert row.write is not None
        assert row.write.version.value == "a001"


def test_a_page_of_large_rows_after_small_ones_is_cut(server: Any) -> None:
    run(server, "CREATE TABLE rides (id BIGINT PRIMARY KEY, note LONGTEXT NOT NULL, version INT NOT NULL)")
    with server.cursor() as cursor:
        large = "x" * 300_000
        cursor.executemany(
            "INSERT INTO rides VALUES (%s, %s, 1)", [(n, "" if n <= 50 else large) for n in range(1, 251)]
        )
    found = opened(server, "SELECT r.id, r.note, r.version FROM shop.rides r WHERE {chunk}")
    read = list(pages(found, server, 10_000, ("250",)))
    assert [row.key for page in read for row in page.rows] == [(str(n),) for n in range(1, 251)]
    assert all(len(page.rows) <= 50 + 75 for page in read)  # 16 MiB, and no more than 25 rows beyond
    assert [page.is_end for page in read] == [False] * (len(read) - 1) + [True]
