"""Statements of the inventory become SELECTs that a server takes; what cannot be filled is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from dbops.blue_green.spec import Compare, Query
from dbops.blue_green.statements import choose, fill, of_inventory


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELECT * FROM `t` WHERE `id` = ?", "SELECT * FROM `t` WHERE `id` = 1"),
        ("SELECT `a` FROM `t` WHERE `b` IN (...) LIMIT ?", "SELECT `a` FROM `t` WHERE `b` IN (1) LIMIT 100"),
        ("SELECT `a` FROM `t` WHERE `n` LIKE ?", "SELECT `a` FROM `t` WHERE `n` LIKE 'a%'"),
        ("SELECT `a` FROM `t` LIMIT ? OFFSET ?", "SELECT `a` FROM `t` LIMIT 100 OFFSET 0"),
        ("WITH x AS (SELECT 1 AS n) SELECT n FROM x WHERE n > ?", "WITH x AS (SELECT 1 AS n) SELECT n FROM x WHERE n > 1"),
    ],
)  # fmt: skip
def test_placeholders_get_neutral_values(text: str, wanted: str) -> None:
    assert fill(text) == wanted


@pytest.mark.parametrize(
    "text", ["UPDATE `t` SET a = ?", "INSERT INTO t VALUES (...)", "WITH x AS (SELECT 1) DELETE FROM t", ""]
)
def test_what_writes_is_not_compared(text: str) -> None:
    assert fill(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("SELECT a FROM t WHERE (", "cannot be parsed"), ("SELECT a FROM t WHERE id = ? FOR UPDATE", "locks rows")],
)
def test_what_cannot_be_filled_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fill(text)


def test_a_second_text_of_a_fingerprint_counts_when_the_first_cannot_be_filled() -> None:
    found = of_inventory(
        [("f1", "SELECT a FROM t WHERE (", "s"), ("f1", "SELECT a FROM t", "s"), ("f2", "SELECT (", "s")]
    )
    assert [(s.name, s.sql, s.schema_name) for s in found.statements] == [("inventory_f1", "SELECT a FROM t", "s")]
    assert [name for name, _ in found.left_out] == ["f2"]


def test_a_store_without_an_inventory_says_so(tmp_path: Path) -> None:
    store = sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    compare = Compare(queries=[Query(name="one", sql="SELECT 1")], inventory="shop")
    found = choose(compare, store)
    assert [s.name for s in found.statements] == ["one"]
    assert found.left_out == (
        ("inventory shop", "the inventory of this spec holds no statement; run query_inventory first"),
    )


def test_the_inventory_of_the_spec_is_read_without_its_own_statements(tmp_path: Path) -> None:
    from dbops import store as shared
    from dbops.inventory import history

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    shared.migrate(engine, history.MIGRATIONS, history.VERSION_TABLE)
    with engine.begin() as connection:
        run = lambda text: connection.execute(sa.text(text))  # noqa: E731 - seven rows to write
        run("INSERT INTO inventory_watch VALUES (1, 'shop', 'i'), (2, 'other', 'i')")
        for number, watch in ((1, 1), (2, 1), (3, 2)):
            run(
                "INSERT INTO inventory_key (key_id, watch_id, source, source_key, schema_name, fingerprint, snapshot_id) "
                f"VALUES ({number}, {watch}, 'digest', 'k{number}', 'carshare', 'f{number}', 1)"
            )
        for spec, number in (("shop", 1), ("shop", 2), ("other", 3)):
            run(
                "INSERT INTO inventory_text (spec, fingerprint, source, truncated, is_digest, text, snapshot_id) "
                f"VALUES ('{spec}', 'f{number}', 'digest', 0, 1, 'SELECT {number} FROM t WHERE id = ?', 1)"
            )
        run("INSERT INTO inventory_origin VALUES ('shop', 'f2', 'carshare', 'own', '1', 1)")
    found = choose(Compare(inventory="shop"), engine)
    assert [(s.sql, s.schema_name) for s in found.statements] == [("SELECT 1 FROM t WHERE id = 1", "carshare")]
