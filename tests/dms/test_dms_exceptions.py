"""Rows that DMS did not apply and only noted at the target."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from dbops.dms import apply_exceptions, states
from dbops.dms.apply_exceptions import Noted
from dbops.dms.mappings import Table
from tests.dms.dms_kit import SELECT_ALL, spec, table_row
from tests.dms.fake_dms import START

RENAME: dict[str, Any] = {
    "rule-type": "transformation", "rule-id": "2", "rule-name": "2", "rule-action": "rename", "rule-target": "schema",
    "object-locator": {"schema-name": "shop"}, "value": "shop_new",
}  # fmt: skip


def tables(**more: Any) -> list[states.TableStatistics]:
    return [states.table_statistics(table_row("orders", **more)), states.table_statistics(table_row("lines", **more))]


def noted(schema: str, newest: datetime) -> dict[tuple[str, str], Noted]:
    return {(schema, "orders"): Noted(3, newest)}


def test_they_are_named_by_the_table_of_the_source() -> None:
    assert apply_exceptions.of_tables(spec(), noted("shop", START), tables()) == {Table("shop", "orders"): 3}
    renamed = spec(mappings=[SELECT_ALL, RENAME])
    assert apply_exceptions.of_tables(renamed, noted("shop_new", START), tables()) == {Table("shop", "orders"): 3}
    assert apply_exceptions.of_tables(renamed, noted("shop", START), tables()) == {}


def test_those_from_before_the_last_load_are_repaired_by_it() -> None:
    later = START + timedelta(minutes=1)
    assert apply_exceptions.of_tables(spec(), noted("shop", START), tables(FullLoadStartTime=later)) == {}
    assert apply_exceptions.of_tables(spec(), noted("shop", later), tables(FullLoadStartTime=START)) != {}
