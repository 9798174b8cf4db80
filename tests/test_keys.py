"""Ranges over keys, evaluated by SQLite against its own row values; the order of MySQL's types is a matter of the lab tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops import keys
from dbops.keys import Key, KeyColumn, RowKey, UnusableKey
from dbops.mysql import Column, Index, Table

WIDTHS = st.integers(1, 4)
NUMBERS = st.integers(-2, 2)


def key_of(width: int) -> RowKey:
    return RowKey("PRIMARY", tuple(KeyColumn(f"k{i}", f"k{i}") for i in range(width)))


@st.composite
def tables(draw: st.DrawFn) -> tuple[RowKey, list[tuple[int, ...]], Key, Key]:
    width = draw(WIDTHS)
    row = st.tuples(*[NUMBERS] * width)
    rows = draw(st.lists(row, unique=True, max_size=30))
    low, high = draw(row), draw(row)
    return key_of(width), rows, tuple(map(str, low)), tuple(map(str, high))


@given(tables())
def test_ranges_select_what_row_values_select(made: tuple[RowKey, list[tuple[int, ...]], Key, Key]) -> None:
    key, rows, low, high = made
    names = ", ".join(key.names)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE TABLE t ({names})")
        db.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(key.names))})", rows)

        def select(where: str) -> list[tuple[int, ...]]:
            return db.execute(f"SELECT * FROM t WHERE {where} ORDER BY {key.order_by}").fetchall()

        def values(bound: Key) -> str:
            return f"({', '.join(bound)})"

        assert select(key.above(low)) == select(f"({names}) > {values(low)}")
        assert select(key.up_to(high)) == select(f"({names}) <= {values(high)}")
        assert select(key.between(low, high)) == select(f"({names}) > {values(low)} AND ({names}) <= {values(high)}")
        assert select(key.between(None, high)) == select(key.up_to(high))
        assert select(key.above(None)) == sorted(rows)
        assert select(key.equals(low)) == [tuple(map(int, low))] * (tuple(map(int, low)) in rows)
        # AND binds tighter than OR: a range stays whole when a predicate is added to it.
        assert select(f"{key.between(low, high)} AND FALSE") == []
        assert select(f"{key.above(low)} AND FALSE") == []


def test_a_range_begins_with_one_condition_on_the_leading_column() -> None:
    assert key_of(2).above(("1", "2")) == "(`k0` >= 1 AND ((`k0` > 1) OR (`k0` = 1 AND `k1` > 2)))"
    assert key_of(2).up_to(("1", "2")) == "(`k0` <= 1 AND ((`k0` < 1) OR (`k0` = 1 AND `k1` <= 2)))"
    assert key_of(1).between(("1",), ("5",)) == "`k0` > 1 AND `k0` <= 5"


def table(data_type: str, *, charset: str | None = None, index: Index | None = None) -> Table:
    column = Column("a`b", data_type, data_type, nullable=False, charset=charset)
    own = (index or Index("PRIMARY", ("a`b",), unique=True, nullable=False, has_prefix=False, index_type="BTREE"),)
    return Table("s", "t", "InnoDB", 0, 0, 0, 0, 0, (column,), own)


@pytest.mark.parametrize(
    ("data_type", "charset", "literal"),
    [
        ("bigint", None, "CAST(`a``b` + 0 AS CHAR)"),
        ("decimal", None, "CAST(`a``b` + 0 AS CHAR)"),
        ("year", None, "CAST(`a``b` + 0 AS CHAR)"),
        ("datetime", None, "CONCAT('''', CAST(`a``b` AS CHAR), '''')"),
        ("time", None, "CONCAT('''', CAST(`a``b` AS CHAR), '''')"),
        ("varchar", "latin1", "CONCAT('_latin1 X''', HEX(`a``b`), '''')"),
        ("char", "utf8mb4", "CONCAT('_utf8mb4 X''', HEX(`a``b`), '''')"),
        ("varbinary", None, "CONCAT('X''', HEX(`a``b`), '''')"),
    ],
)  # fmt: skip
def test_literal_of_each_supported_type(data_type: str, charset: str | None, literal: str) -> None:
    assert keys.row_key(table(data_type, charset=charset)).select_literals == literal


@pytest.mark.parametrize("data_type", ["enum", "set", "float", "double", "bit", "json", "text", "blob", "point"])
def test_a_type_whose_order_is_not_that_of_its_literal(data_type: str) -> None:
    with pytest.raises(UnusableKey, match=rf"s\.t: key column 'a`b' is of type {data_type}, whose order or equality"):
        keys.row_key(table(data_type))


def test_an_index_on_an_expression_is_no_key() -> None:
    index = Index("u", ("",), unique=True, nullable=False, has_prefix=False, index_type="BTREE")
    with pytest.raises(UnusableKey, match="is of type expression"):
        keys.row_key(table("int", index=index))


@pytest.mark.parametrize(
    ("unique", "nullable", "prefix"), [(False, False, False), (True, True, False), (True, False, True)]
)
def test_an_index_that_does_not_name_each_row(unique: bool, nullable: bool, prefix: bool) -> None:
    with pytest.raises(UnusableKey, match="has no PRIMARY KEY and no UNIQUE index of whole NOT NULL columns"):
        keys.row_key(table("int", index=Index("i", ("a`b",), unique, nullable, prefix, "BTREE")))


def _keys() -> Iterator[st.SearchStrategy[Key | None]]:
    yield st.none()
    yield st.lists(st.text(max_size=5), min_size=1, max_size=4).map(tuple)


KEYS = st.one_of(*_keys())


@given(KEYS, KEYS)
def test_stored_keys_are_read_back_and_differ_when_the_keys_differ(a: Key | None, b: Key | None) -> None:
    assert keys.parse(keys.dump(a)) == a
    assert (keys.dump(a) == keys.dump(b)) == (a == b)


def test_a_key_from_a_raw_row() -> None:
    assert keys.from_row((b"12", "'x'", 7)) == ("12", "'x'", "7")
