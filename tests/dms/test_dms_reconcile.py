from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.dms import forms, mappings, reconcile
from dbops.dms.mappings import Table
from dbops.dms.places import PlaceUnknown
from dbops.dms.settling import Settling
from dbops.mysql import Column
from tests.dms import dms_kit


@dataclass
class World:
    """Both sides, and what changes while somebody waits; time passes only then."""

    source: dict[int, int]
    target: dict[int, int]
    changes: list[tuple[str, int, int | None]] = field(default_factory=list)
    now: float = 0.0
    looks: int = 0

    def look(self, keys: Sequence[int]) -> dict[int, tuple[Any, Any]]:
        assert len(keys) <= 200
        self.looks += 1
        return {key: (self.source.get(key), self.target.get(key)) for key in keys}

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        if self.changes:
            side, key, value = self.changes.pop(0)
            rows = self.source if side == "source" else self.target
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value

    def settling(self, settle_s: float = 10, capacity: int = 100_000) -> Settling[int]:
        return Settling(self.look, str, settle_s, self.wait, lambda: self.now, capacity)


ROWS = st.dictionaries(st.integers(0, 12), st.integers(0, 2))
VALUES = st.one_of(st.none(), st.integers(0, 2))
CHANGES = st.lists(st.tuples(st.sampled_from(["source", "target"]), st.integers(0, 12), VALUES), max_size=20)


@settings(deadline=None)
@given(ROWS, ROWS, st.integers(1, 5), st.booleans())
def test_rows_that_stand_still_are_classified_exactly(
    source: dict[int, int], target: dict[int, int], capacity: int, patient: bool
) -> None:
    world = World(source, target)
    settling = world.settling(10 if patient else 0, capacity)
    settling.suspect(range(13))
    found = settling.finish()
    assert found.missing == len(source.keys() - target.keys())
    assert found.extra == len(target.keys() - source.keys())
    assert found.differing == sum(source[key] != target[key] for key in source.keys() & target.keys())
    assert found.unsettled == 0
    assert len(found.sample) == found.wrong
    assert set(found.sample) == {
        *(f"missing {key}" for key in source.keys() - target.keys()),
        *(f"extra {key}" for key in target.keys() - source.keys()),
        *(f"differing {key}" for key in source.keys() & target.keys() if source[key] != target[key]),
    }


@settings(deadline=None)
@given(ROWS, ROWS, CHANGES)
def test_only_rows_that_never_changed_are_called_different(
    source: dict[int, int], target: dict[int, int], changes: list[tuple[str, int, int | None]]
) -> None:
    world = World(dict(source), dict(target), list(changes))
    settling = world.settling()
    settling.suspect(range(13))
    found = settling.finish()
    still = {key for key in range(13) if all(key != changed for _, changed, _ in changes)}
    different = {key for key in still if source.get(key) != target.get(key)}
    assert {int(one.split()[1]) for one in found.sample if not one.startswith("unsettled")} >= different
    touched = {key for key in range(13) if source.get(key) != target.get(key)} - different
    assert found.wrong + found.unsettled <= len(different) + len(touched)


def test_a_target_that_is_behind_settles() -> None:
    world = World({1: 5, 2: 7}, {1: 4}, [("target", 1, 5), ("target", 2, 7)])
    settling = world.settling()
    settling.suspect([1, 2])
    found = settling.finish()
    assert (found.wrong, found.unsettled) == (0, 0)
    assert world.now < 10  # it does not wait longer than needed


def test_a_row_that_changes_all_the_time_is_unsettled() -> None:
    world = World({1: 0}, {}, [("source", 1, n) for n in range(1, 100)])
    settling = world.settling()
    settling.suspect([1])
    found = settling.finish()
    assert (found.wrong, found.unsettled, found.sample) == (0, 1, ("unsettled 1",))


def test_counts_are_exact_however_many_differ_and_the_wait_is_once() -> None:
    world = World(dict.fromkeys(range(5000), 1), {})
    settling = world.settling(capacity=400)
    settling.suspect(range(5_000))
    found = settling.finish()
    assert (found.missing, found.wrong, len(found.sample)) == (5_000, 5_000, 20)
    assert found.hurried == 4_600
    assert world.now == pytest.approx(10)


def test_lag_that_fills_the_memory_is_waited_for_each_time() -> None:
    world = World(dict.fromkeys(range(1000), 1), {}, [("target", key, 1) for key in range(400)])
    settling = world.settling(settle_s=10_000, capacity=200)
    settling.suspect(range(400))
    found = settling.finish()
    assert (found.wrong, found.unsettled, found.hurried) == (0, 0, 0)


def column(name: str, kind: str, column_type: str = "", **more: Any) -> Column:
    return Column(name, kind, column_type or kind, nullable=True, **more)


@pytest.mark.parametrize(
    ("source", "target", "texts"),
    [
        (column("a", "int"), column("b", "bigint"), ("CAST(`a` + 0 AS CHAR)", "CAST(`b` + 0 AS CHAR)")),
        (column("a", "bit"), column("b", "tinyint"), ("CAST(`a` + 0 AS CHAR)", "CAST(`b` + 0 AS CHAR)")),
        (column("a", "decimal", numeric_scale=2), column("b", "decimal", numeric_scale=2), ("CAST(`a` AS CHAR)", "CAST(`b` AS CHAR)")),
        (column("a", "int"), column("b", "decimal", numeric_scale=3),
         ("CAST(CAST(`a` + 0 AS DECIMAL(65,3)) AS CHAR)", "CAST(CAST(`b` AS DECIMAL(65,3)) AS CHAR)")),
        (column("a", "float"), column("b", "double"),
         ("SUBSTR(HEX(POINT(`a` + 0e0, 0)), 19, 16)", "SUBSTR(HEX(POINT(`b` + 0e0, 0)), 19, 16)")),
        (column("a", "date"), column("b", "datetime"),
         ("CAST(CAST(`a` AS DATETIME(6)) AS CHAR)", "CAST(CAST(`b` AS DATETIME(6)) AS CHAR)")),
        (column("a", "enum", charset="latin1", max_octets=9), column("b", "varchar", charset="utf8mb4", max_octets=40),
         ("HEX(CONVERT(`a` USING utf8mb4))", "HEX(`b`)")),
        (column("a", "varchar", charset="utf8", max_octets=40), column("b", "longtext", charset="utf8mb4", max_octets=1 << 32),
         ("MD5(`a`)", "MD5(`b`)")),
        (column("a", "blob", max_octets=65535), column("b", "longblob", max_octets=1 << 32), ("MD5(`a`)", "MD5(`b`)")),
        (column("a", "json"), column("b", "longtext", charset="utf8mb4"), ("MD5(CAST(`a` AS CHAR))", "MD5(`b`)")),
    ],
)  # fmt: skip
def test_the_form_of_a_pair(source: Column, target: Column, texts: tuple[str, str]) -> None:
    found = forms.form(source, target)
    assert found is not None
    assert (found.source_text, found.target_text) == texts


@pytest.mark.parametrize(
    ("source", "target"), [("int", "varchar"), ("time", "datetime"), ("float", "decimal"), ("vector", "vector")]
)
def test_a_pair_without_a_common_form(source: str, target: str) -> None:
    assert forms.form(column("a", source), column("b", target)) is None


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=3),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-15)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return bool(one == other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


@settings(deadline=None)
@given(JSON, JSON)
def test_documents_are_equal_when_their_values_are(one: Any, other: Any) -> None:
    assert forms.document(json.dumps(one)) == forms.document(json.dumps(one, indent=1))
    # A float is compared by the digits that it is written with, which are its own only.
    if same(one, other):
        assert forms.document(json.dumps(one)) == forms.document(json.dumps(other)) or "e+" in json.dumps([one, other])
    else:
        assert forms.document(json.dumps(one)) != forms.document(json.dumps(other))


@pytest.mark.parametrize(("one", "other", "equal"), [
    ("1.0", "1", True), ("-0.0", "0", True), ("-0", "0", True), ("1e3", "1000", True), ("1.5", "1.50", True), ("1.5", "1.51", False),
    # What MySQL makes of the text of its own DOUBLE, and one digit before that.
    ("0.9718017372971417", "0.9718017372971416", True), ("[0.971801737297141]", "[0.971801737297142]", False),
    ("123456789012345678", "123456789012345679", False),
    ('"1"', "1", False), ('{"a": 1, "bb": [2.0]}', '{"bb":[2],"a":1.0}', True), ("true", "1", False), ("[1,2]", "[2,1]", False),
])  # fmt: skip
def test_json_as_the_versions_write_it(one: str, other: str, equal: bool) -> None:
    assert (forms.document(one) == forms.document(other)) is equal


def selection(*filters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**dms_kit.SELECT_ALL, "filters": list(filters), **more}


def source_filter(column_name: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    return {"filter-type": "source", "column-name": column_name, "filter-conditions": list(conditions)}


@pytest.mark.parametrize(
    ("filters", "where"),
    [
        ([], "TRUE"),
        ([source_filter("a", {"filter-operator": "gte", "value": "5"})], "(`a` >= '5')"),
        ([source_filter("a", {"filter-operator": "eq", "value": "x'y"}, {"filter-operator": "null"})], r"(`a` = 'x\'y' OR `a` IS NULL)"),
        ([source_filter("a", {"filter-operator": "notbetween", "start-value": "1", "end-value": "2"}),
          source_filter("b", {"filter-operator": "noteq", "value": 3})], "(`a` NOT BETWEEN '1' AND '2') AND (`b` <> '3')"),
    ],
)  # fmt: skip
def test_source_filters(filters: list[dict[str, Any]], where: str) -> None:
    rules = mappings.parse([selection(*filters)])
    assert reconcile.filters(rules, Table("shop", "orders")) == where
    assert reconcile.filters(rules, Table("other", "orders")) == "TRUE"


def test_a_filter_that_is_not_known() -> None:
    rules = mappings.parse([selection(source_filter("a", {"filter-operator": "like", "value": "x"}))])
    with pytest.raises(PlaceUnknown, match="'like'"):
        reconcile.filters(rules, Table("shop", "orders"))


def test_a_stream_is_not_comparable() -> None:
    spec = dms_kit.spec(target=dms_kit.KINESIS)
    (found,) = reconcile.compare(spec, [Table("shop", "orders")], source=None, target=None)
    assert found.status == "not comparable"
    assert "a stream holds changes" in found.reason
