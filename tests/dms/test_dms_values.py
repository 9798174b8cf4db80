"""What a value is outside MySQL, what an item of DynamoDB is, and keys that are compared by their hashes."""

from __future__ import annotations

import json
import struct
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.dms import mappings, reconcile_dynamodb, reconcile_s3, values
from dbops.dms.mappings import Table
from dbops.dms.values import Value
from dbops.mysql import Column, Index
from dbops.mysql import Table as Described
from tests.dms import dms_kit


def column(name: str, kind: str) -> Column:
    return Column(name, kind, kind, nullable=True, charset="utf8mb4" if kind == "varchar" else None)


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**30), max_value=10**30)


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_numbers_are_equal_by_value(one: Decimal, other: Decimal) -> None:
    value = Value("number", one)
    assert values.is_same(value, {"N": f"{one:f}000"})
    assert values.is_same(value, {"N": str(one)})
    assert values.is_same(value, {"N": f"{other:f}"}) == (one == other)
    assert (values.canonical("number", f"{one:f}") == values.canonical("number", f"{other:f}")) == (one == other)
    assert Decimal(value.text) == one


def test_numbers_of_more_digits_than_python_keeps() -> None:
    digits = "1234567890" * 6 + "12345"
    assert values.canonical("number", digits) == digits
    assert values.canonical("number", f"-0.{digits}0") == f"-0.{digits}"
    assert values.canonical("number", "-0.00") == "0"
    assert values.canonical("number", "1E+3") == "1000"


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_are_equal_bit_by_bit_but_for_the_sign_of_zero(one: float, other: float) -> None:
    bits = struct.pack("<d", one).hex().upper()
    value = values.read(column("a", "double"), bits)
    assert value is not None
    assert values.is_same(value, {"N": repr(one)})
    assert values.is_same(value, {"N": repr(other)}) == (one == other)


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_is_equal_to_its_shortest_text(one: float) -> None:
    value = Value("float", one, is_single=True)
    assert values.is_same(value, {"N": f"{one:.9g}"})
    assert not values.is_same(value, {"N": f"{one * 1.001 + 1:.9g}"})


@pytest.mark.parametrize(
    ("kind", "plain", "attribute", "same"),
    [
        ("text", "x", {"S": "x"}, True), ("text", "x", {"S": "X"}, False), ("text", "", {"S": ""}, True), ("text", "", None, False),
        ("text", "1", {"N": "1"}, False), ("number", Decimal(1), {"BOOL": True}, True), ("number", Decimal(2), {"BOOL": True}, False),
        ("number", Decimal(1), {"S": "1"}, True), ("number", Decimal(1), {"S": "one"}, False), ("number", Decimal(1), {"N": "NaN"}, False),
        ("time", "2024-01-02 03:04:05.100000", {"S": "2024-01-02T03:04:05.1Z"}, True),
        ("time", "2024-01-02 03:04:05.100000", {"S": "2024-01-02T03:04:05.2Z"}, False),
        ("time", "2024-01-02", {"S": "2024-01-02 00:00:00"}, True), ("time", "0000-00-00", {"S": "0000-00-00"}, True),
        ("duration", "-838:59:59", {"S": "-838:59:59.000"}, True), ("duration", "01:00:00", {"S": "02:00:00"}, False),
        ("json", '{"a": 1.0}', {"S": '{"a":1}'}, True), ("json", "1", {"S": "no JSON"}, False), ("json", "[1]", {"L": [{"N": "1"}]}, False),
    ],
)  # fmt: skip
def test_what_dms_makes_of_a_value(kind: str, plain: Any, attribute: dict[str, Any] | None, same: bool) -> None:
    assert values.is_same(Value(kind, plain), attribute) is same


def test_null_is_left_out() -> None:
    assert values.is_same(None, None)
    assert not values.is_same(None, {"NULL": True})
    assert not values.is_same(None, {"S": ""})


def shape(keys: dict[str, str], **rule: Any) -> reconcile_dynamodb._Shape:
    columns = tuple(
        column(name, kind) for name, kind in (("id", "int"), ("city", "varchar"), ("at", "datetime"), ("raw", "blob"))
    )
    index = Index("PRIMARY", ("id",), unique=True, nullable=False, has_prefix=False, index_type="BTREE")
    described = Described("shop", "t", "InnoDB", 0, 0, 0, 0, 0, columns, (index,))
    names = mappings.resolve((), Table("shop", "t"), [one.name for one in columns])
    return reconcile_dynamodb._Shape.of(described, names, rule or None, keys)


def attribute(name: str, value: Any, kind: str = "string") -> dict[str, Any]:
    return {"target-attribute-name": name, "attribute-type": "scalar", "attribute-sub-type": kind, "value": value}


def test_the_key_by_the_default_mapping() -> None:
    found = shape({"id": "N"})
    assert found.key({"id": Value("number", Decimal(7)), "city": None, "at": None}) == (("id", "N", "7"),)
    assert found.key({"id": None, "city": None, "at": None}) is None
    assert found.not_compared == ("raw: DMS carries no blob to DynamoDB",)
    assert "raw" not in found.columns


@pytest.mark.parametrize(
    ("keys", "mapped", "reason"),
    [
        ({"at": "S"}, [], "key attribute at is made of at"),
        ({"pk": "S"}, [attribute("pk", "${at}/${id}")], "key attribute pk is made of at"),
        ({"pk": "S"}, [], "key attribute pk of the table no value"),
        ({"pk": "S"}, [attribute("pk", "${nothing}")], "made of nothing, which is no column"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_told(keys: dict[str, str], mapped: list[Any], reason: str) -> None:
    with pytest.raises(reconcile_dynamodb._Unknown, match=reason):
        shape(keys, **{"mapping-parameters": {"attribute-mappings": mapped}})


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.text(max_size=8))
def test_the_row_of_an_item_is_told_from_its_key(number: int, city: str) -> None:
    found = shape({"pk": "S"}, **{
        "mapping-parameters": {
            "attribute-mappings": [attribute("pk", "C#${city}#${id}")], "exclude-columns": ["id", "city"], "partition-key-name": "pk",
        }
    })  # fmt: skip
    row = {"id": Value("number", Decimal(number)), "city": Value("text", city), "at": None}
    key = found.key(row)
    assert key == (("pk", "S", f"C#{city}#{number}"),)
    assert found.row_texts({"pk": {"S": key[0][2]}}, ["id", "city"]) == {"id": str(number), "city": city}
    assert found.is_same(row, {"pk": {"S": key[0][2]}})
    assert not found.is_same(row, {"pk": {"S": key[0][2] + "x"}})


def test_two_texts_in_one_key_are_not_guessed() -> None:
    template = reconcile_dynamodb._Template("pk", "${a}#${b}", ("a", "b"))
    two = {"a": column("a", "varchar"), "b": column("b", "varchar")}
    assert reconcile_dynamodb._reversed(template, "x#y#z", two) == {}


def test_a_document_that_an_object_mapping_makes() -> None:
    document = {"M": {"name": {"S": "${city}"}, "n": {"N": "${id}"}, "list": {"L": [{"S": "x"}]}}}
    found = shape({"id": "N"}, **{"mapping-parameters": {"attribute-mappings": [attribute("d", document)]}})
    row = {"id": Value("number", Decimal(7)), "city": Value("text", "rome"), "at": None}
    held = json.loads(json.dumps(document).replace("${city}", "rome").replace("${id}", "7.0"))
    item = {"id": {"N": "7"}, "city": {"S": "rome"}, "d": held}
    assert found.is_same(row, item)
    held["M"]["name"]["S"] = "oslo"
    assert not found.is_same(row, item)


class Batches:
    """A table that leaves keys unprocessed, half of them at a time."""

    def __init__(self, stuck: bool) -> None:
        self.stuck, self.calls = stuck, list[int]()

    def batch_get_item(self, RequestItems: Any) -> Any:
        keys = RequestItems["t"]["Keys"]
        self.calls.append(len(keys))
        assert len(keys) <= 100
        done = 0 if self.stuck else max(1, len(keys) // 2)
        left = {"t": {**RequestItems["t"], "Keys": keys[done:]}} if keys[done:] else {}
        return {"Responses": {"t": keys[:done]}, "UnprocessedKeys": left}


def reading(client: Any, pauses: list[float]) -> reconcile_dynamodb._Items:
    patience = reconcile_dynamodb.Patience(wait=pauses.append)
    return reconcile_dynamodb._Items(client, "t", shape({"id": "N"}), patience)


def test_unprocessed_keys_are_asked_for_again() -> None:
    client, pauses = Batches(stuck=False), list[float]()
    keys = [(("id", "N", str(n)),) for n in range(150)]
    assert set(reading(client, pauses).get([*keys, keys[0]], is_consistent=True)) == set(keys)
    assert pauses
    stuck = Batches(stuck=True)
    with pytest.raises(RuntimeError, match="unprocessed after 12 tries"):
        reading(stuck, pauses).get(keys, is_consistent=True)
    assert len(stuck.calls) == 12


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.integers(0, 40), max_size=60))
def test_keys_on_one_side_only_are_counted_exactly(ours: list[int], theirs: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sides = [reconcile_s3._Hashes(Path(folder), name) for name in ("a", "b")]
        for side, keys in zip(sides, (ours, theirs), strict=True):
            side.add(map(str, keys))
        missing, extra, some = reconcile_s3._difference(*sides)
    only = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
    assert (missing, extra) == (only[0].total(), only[1].total())
    for found, counted in zip((some["missing"], some["extra"]), only, strict=True):
        assert found <= {reconcile_s3._hash(str(key)) for key in counted}
        assert len(found) == min(20, len(counted))


@settings(deadline=None)
@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_the_text_of_a_key_is_its_own(one: list[str], other: list[str]) -> None:
    assert (reconcile_s3._joined(one) == reconcile_s3._joined(other)) == (one == other)


def test_a_target_without_the_settings_that_it_needs() -> None:
    from dbops.dms import places

    existing = dms_kit.spec(target={"kind": "existing", "arn": dms_kit.TARGET_ARN, "engine": "s3"})
    with pytest.raises(places.PlaceUnknown, match="pass it as DescribeEndpoints shows it"):
        places.target_settings(existing)
    with pytest.raises(places.PlaceUnknown, match="no BucketName"):
        places.needed({}, "BucketName", existing)
