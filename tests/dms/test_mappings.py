"""Table mappings: what they select, when two are the same, and what DMS would refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.dms import mappings
from dbops.dms.mappings import MappingError, Table


def rule(number: int, schema: str, table: str, action: str = "include", **more: Any) -> dict[str, Any]:
    where = {"schema-name": schema, "table-name": table}
    return {"rule-type": "selection", "rule-id": number, "object-locator": where, "rule-action": action, **more}


TABLES = [Table("shop", name) for name in ("orders", "order_items", "orderXitems", "tmp_1")] + [Table("ops", "log")]


def names(*rules: dict[str, Any]) -> list[str]:
    return [str(table) for table in mappings.selected(mappings.parse(rules), TABLES)]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("%", "orders", True), ("ord%", "orders", True), ("ord%", "Orders", False), ("order_items", "orderXitems", True),
        ("order[_]items", "orderXitems", False), ("order[_]items", "order_items", True), ("tmp_[1-3]", "tmp_2", True),
        ("tmp_[1-3]", "tmp_4", False), ("[ab]", "b", True), ("[ab]", "c", False), ("a.b", "axb", False), ("", "", True),
        ("[z-a]", "b", False), ("[^a]", "b", False), ("[^a]", "^", True), ("[", "[", True),
    ],
)  # fmt: skip
def test_wildcards(pattern: str, name: str, expected: bool) -> None:
    assert mappings.matches(pattern, name) is expected


@given(st.text(max_size=12))
def test_a_name_with_its_wildcards_escaped_matches_only_itself(name: str) -> None:
    escaped = "".join(f"[{character}]" if character in "%_[" else character for character in name)
    assert mappings.matches(escaped, name)
    assert not mappings.matches(escaped, f"{name}x")


def test_exclude_wins_wherever_it_stands_and_explicit_is_literal() -> None:
    assert names(rule(2, "shop", "tmp%", "exclude"), rule(1, "shop", "%")) == [
        "shop.orderXitems", "shop.order_items", "shop.orders",
    ]  # fmt: skip
    assert names(rule(1, "shop", "order_items", "explicit")) == ["shop.order_items"]
    assert names(rule(1, "%", "log")) == ["ops.log"]
    assert names(rule(1, "shop", "%", "exclude")) == []


def test_equal_mappings_have_one_json() -> None:
    ours = [rule(10, "shop", "%"), rule(2, "shop", "tmp%", "exclude")]
    theirs = json.dumps({"rules": [rule(2, "shop", "tmp%", "exclude", filters=[], **{"rule-name": "2"}), {
        **rule(10, "shop", "%"), "rule-id": "10", "rule-name": "10"}]}, indent=4)  # fmt: skip
    assert mappings.canonical(ours) == mappings.canonical(theirs)
    assert mappings.diff(ours, theirs) == ()


def test_the_difference_names_each_rule() -> None:
    changes = mappings.diff(
        [rule(1, "shop", "%"), rule(3, "ops", "%")], {"rules": [rule(1, "shop", "a%"), rule(2, "x", "%")]}
    )
    assert [change.rule for change in changes] == ["1", "2", "3"]
    assert [str(change).split(":")[0].split(" {")[0] for change in changes] == [
        "rule 1 becomes", "rule 2 is removed", "rule 3 is added",
    ]  # fmt: skip
    assert [change.rule for change in mappings.diff([rule(1, "shop", "%")], "no JSON")] == ["*"]


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ([rule(1, "a", "%"), rule(1, "b", "%")], "rule-id '1' is used twice"),
        ([rule(1, "a", "%", **{"rule-name": "x"}), rule(2, "b", "%", **{"rule-name": "x"})], "rule-name 'x' is used twice"),
        ([{**rule(1, "a", "%"), "rule-type": "selct"}], "rule-type 'selct'"),
        ([{**rule(1, "a", "%"), "rule-id": "one"}], "is not a number"),
        ([{**rule(1, "a", "%"), "object-locator": {}}], "schema-name"),
        ([rule(1, "a", "")], "table-name"),
        ([rule(1, "a", "%", "includes")], "rule-action 'includes'"),
        ([rule(1, "a", "t%", "explicit")], "takes no wildcard"),
        ([{**rule(1, "a", "t"), "rule-type": "object-mapping"}], "map-record-to-record"),
        ("{", "not JSON"),
        ("3", "list of rules"),
        ({"rulez": []}, "list of rules"),
    ],
)  # fmt: skip
def test_what_dms_would_refuse(rules: Any, word: str) -> None:
    with pytest.raises(MappingError, match=word):
        mappings.parse(rules)


def test_rules_of_a_table() -> None:
    mapped = {**rule(2, "shop", "order[_]%"), "rule-type": "object-mapping", "rule-action": "map-record-to-record"}
    rules = mappings.parse([rule(1, "shop", "%"), mapped])
    assert [r["rule-id"] for r in mappings.of_table(rules, "object-mapping", Table("shop", "order_items"))] == ["2"]
    assert mappings.of_table(rules, "object-mapping", Table("shop", "orders")) == ()
    assert [mappings.has_wildcard(one) for one in ("a[_]b", "a_b", "%", "a")] == [False, True, True, False]


def change(
    number: int, target: str, action: str, table: str = "orders", column: str = "", **more: Any
) -> dict[str, Any]:
    where = {"schema-name": "shop", **({"table-name": table} if target != "schema" else {})}
    locator = {**where, **({"column-name": column} if column else {})}
    made = rule(number, "shop", table, action, **more)
    return {**made, "rule-type": "transformation", "rule-target": target, "object-locator": locator}


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([], "shop.orders id=id name=name note=note"),
        ([change(2, "schema", "rename", value="new")], "new.orders id=id name=name note=note"),
        ([change(2, "table", "add-prefix", value="t_")], "shop.t_orders id=id name=name note=note"),
        ([change(2, "table", "add-prefix", table="items", value="t_")], "shop.orders id=id name=name note=note"),
        ([change(2, "table", "convert-uppercase")], "shop.ORDERS id=id name=name note=note"),
        ([change(2, "table", "replace-suffix", value="r", **{"old-value": "rs"})], "shop.order id=id name=name note=note"),
        ([change(2, "table", "replace-prefix", value="b", **{"old-value": "x"})], "shop.orders id=id name=name note=note"),
        ([change(2, "column", "rename", column="name", value="title")], "shop.orders id=id name=title note=note"),
        ([change(2, "column", "remove-suffix", column="n%", value="e")], "shop.orders id=id name=nam note=not"),
        ([change(2, "column", "remove-column", column="no%")], "shop.orders id=id name=name"),
        ([change(2, "column", "include-column", column="id")], "shop.orders id=id"),
        ([change(2, "column", "add-column", column="x", value="y"), change(3, "column", "change-data-type", column="id")],
         "shop.orders id=id name=name note=note"),
    ],
)  # fmt: skip
def test_names_on_the_target(rules: list[dict[str, Any]], wanted: str) -> None:
    parsed = mappings.parse([rule(1, "shop", "%"), *rules])
    found = mappings.resolve(parsed, Table("shop", "orders"), ["id", "name", "note"])
    assert f"{found.schema}.{found.table} " + " ".join(f"{a}={b}" for a, b in found.columns.items()) == wanted


def test_the_schema_of_the_task_settings_outranks_the_rules() -> None:
    parsed = mappings.parse([rule(1, "shop", "%"), change(2, "schema", "rename", value="new")])
    assert mappings.resolve(parsed, Table("shop", "orders"), [], target_schema="fixed").schema == "fixed"
