"""Every type of MySQL, exact to DynamoDB and Redis and back; what has no form is refused with the reason."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from cdc_apply import values
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.keyvalue import items
from dbops.keyvalue.codec import ColumnCodec, Policy, UnknownType, codec_for, is_double_encoded
from dbops.keyvalue.items import Digest, Reject
from tests.keyvalue.keyvalue_kit import column

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


def codec(kind: str, *, nullable: bool = True, **policy: Any) -> ColumnCodec:
    return codec_for(column("c", kind, nullable=nullable), Policy(**policy))


def round_trip(found: ColumnCodec, value: Any) -> Any:
    """Through DynamoDB's wire form, through JSON and through a hash field, which all have to give the same."""
    attribute = found.encode(value)
    assert attribute is not None
    ((kind, _),) = attribute.items()
    if kind == "N":
        TypeDeserializer().deserialize(attribute)  # raises where a number is not exact in 38 digits
    by_json = found.from_json(items.json_loads(items.json_dumps(found.to_json(attribute))))
    by_field = found.from_field(found.to_field(attribute))
    assert items.canonical({"c": attribute}) == items.canonical({"c": by_json}) == items.canonical({"c": by_field})
    return found.decode(by_json)


@pytest.mark.parametrize("bits", [8, 16, 24, 32, 64])
@pytest.mark.parametrize("unsigned", ["", " unsigned"])
@given(data=st.data())
@settings(deadline=None)
def test_integers(bits: int, unsigned: str, data: st.DataObject) -> None:
    name = {8: "tinyint(4)", 16: "smallint(6)", 24: "mediumint(9)", 32: "int(11)", 64: "bigint(20)"}[bits]
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    found = codec(name + unsigned)
    value = data.draw(st.one_of(st.integers(low, high), st.sampled_from([low, high, 0])))
    assert found.encode(value) == {"N": str(value)}
    assert round_trip(found, value) == value
    assert round_trip(found, Decimal(value)) == value
    for wrong in (low - 1, high + 1):
        with pytest.raises(Reject, match="out of range"):
            found.encode(wrong)


@given(st.integers(1, 65), st.data())
@settings(deadline=None)
def test_decimals_of_every_precision(digits: int, data: st.DataObject) -> None:
    scale = data.draw(st.integers(0, min(30, digits)))
    number = data.draw(st.integers(-(10**digits) + 1, 10**digits - 1))
    value = Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale))
    found = codec(f"decimal({digits},{scale})")
    back = round_trip(found, value)
    assert back == value
    assert back.as_tuple().exponent == -scale
    assert set(found.encode(value) or {}) == ({"N"} if digits <= 38 else {"S"})


def test_decimals_at_the_ends() -> None:
    nines = Decimal("9" * 35 + "." + "9" * 30)
    assert round_trip(codec("decimal(65,30)"), nines.copy_negate()) == nines.copy_negate()  # - rounds to 28 digits
    assert codec("decimal(65,30)").encode(Decimal("-0E-30")) == {"S": f"0.{'0' * 30}"}
    assert codec("decimal(10,2)").encode(Decimal("0E-10")) == {"N": "0"}
    assert codec("decimal(10,2)").encode(Decimal("1.50")) == {"N": "1.5"}
    for wrong in (Decimal("1.005"), Decimal("1e8"), Decimal("NaN"), 1.5, True, "1"):
        with pytest.raises(Reject):
            codec("decimal(10,2)").encode(wrong)


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_doubles(value: float) -> None:
    assert round_trip(codec("double"), value) == value


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
@settings(deadline=None)
def test_floats_have_the_digits_of_single_precision(value: float) -> None:
    found = codec("float")
    assert round_trip(found, value) == value
    text = next(iter((found.encode(value) or {}).values()))
    assert len(Decimal(text).normalize().as_tuple().digits) <= 9


def test_floats_at_the_ends() -> None:
    assert codec("float").encode(struct.unpack("<f", struct.pack("<f", 0.1))[0]) == {"N": "0.1"}
    assert codec("double").encode(1.7976931348623157e308) == {"S": "1.7976931348623157E+308"}
    assert codec("double").encode(5e-324) == {"S": "5E-324"}
    assert codec("double").encode(-0.0) == {"N": "0"}
    for wrong in (math.nan, math.inf, "1", 1e39):
        with pytest.raises(Reject):
            codec("float").encode(wrong)


@given(st.integers(1, 64), st.data())
@settings(deadline=None)
def test_bits(width: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, 2**width - 1)).to_bytes((width + 7) // 8, "big")
    found = codec(f"bit({width})")
    assert round_trip(found, value) == value
    assert set(found.encode(value) or {}) == ({"BOOL"} if width == 1 else {"N"})
    with pytest.raises(Reject):
        found.encode(2**width)


def test_years() -> None:
    for year in (0, 1901, 2155):
        assert round_trip(codec("year(4)"), year) == year
    for wrong in (1900, 2156, 1):
        with pytest.raises(Reject):
            codec("year(4)").encode(wrong)


@given(st.dates())
@settings(deadline=None)
def test_dates(value: date) -> None:
    found = codec("date")
    assert round_trip(found, value) == value
    assert round_trip(found, value.isoformat()) == value
    assert found.encode(value) == {"S": value.isoformat()}


@pytest.mark.parametrize("kind", ["datetime", "timestamp"])
@given(value=st.datetimes(), scale=st.integers(0, 6))
@settings(deadline=None)
def test_times_of_a_day_at_every_precision(kind: str, value: datetime, scale: int) -> None:
    value = value.replace(microsecond=value.microsecond // 10 ** (6 - scale) * 10 ** (6 - scale))
    found = codec(f"{kind}({scale})" if scale else kind)
    assert round_trip(found, value) == value
    as_mysql_prints = value.isoformat(" ", "seconds") + (f".{value.microsecond:06d}"[: scale + 1] if scale else "")
    assert found.encode(as_mysql_prints) == found.encode(value)
    assert len((found.encode(value) or {})["S"]) == 20 + (scale + 1 if scale else 0)


def test_times_of_a_day_at_the_ends() -> None:
    assert codec("datetime(3)").encode("2026-11-29 10:00:00.120") == {"S": "2026-11-29T10:00:00.120Z"}
    with pytest.raises(Reject, match="has more than 3 decimals: MySQL would round it"):
        codec("datetime(3)").encode(datetime(2026, 1, 1, microsecond=1))
    aware = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert codec("timestamp").encode(aware) == {"S": "2026-01-01T10:00:00Z"}
    with pytest.raises(Reject, match="has a time zone"):
        codec("datetime").encode(aware.astimezone(UTC))
    for wrong in ("2026-01-01", "2026-01-01 24:00:00", "yesterday", 5):
        with pytest.raises(Reject):
            codec("datetime").encode(wrong)


ZERO_DATES = [
    ("date", "0000-00-00"),
    ("date", "2026-00-10"),
    ("date", "2026-02-31"),
    ("datetime(6)", "0000-00-00 00:00:00.000000"),
]


@pytest.mark.parametrize(("kind", "text"), ZERO_DATES)
def test_zero_dates_by_policy(kind: str, text: str) -> None:
    with pytest.raises(Reject, match="set zero_dates to text or null"):
        codec(kind).encode(text)
    assert codec(kind, zero_dates="null").encode(text) is None
    assert codec(kind, zero_dates="null", nulls="null").encode(text) == {"NULL": True}
    assert round_trip(codec(kind, zero_dates="text"), text) == text


def test_a_driver_that_hides_zero_dates_is_noticed() -> None:
    """Mysqlclient gives None for them unless they are read as text."""
    with pytest.raises(Reject, match="read it by select_sql"):
        codec("datetime", nullable=False).encode(None)
    assert codec("datetime").encode(None) is None
    assert codec("date").select_sql == "CAST(`c` AS CHAR)"


@given(st.integers(-838 * 3600 * 10**6, 838 * 3600 * 10**6), st.integers(0, 6))
@settings(deadline=None)
def test_spans(micros: int, scale: int) -> None:
    value = timedelta(microseconds=micros // 10 ** (6 - scale) * 10 ** (6 - scale))
    found = codec(f"time({scale})" if scale else "time")
    assert round_trip(found, value) == value


def test_spans_at_the_ends() -> None:
    end = timedelta(hours=838, minutes=59, seconds=59)
    assert codec("time(6)").encode(-end) == {"S": "-838:59:59.000000"}
    assert round_trip(codec("time"), "-838:59:59") == -end
    assert codec("time").encode("-00:00:00") == {"S": "00:00:00"}
    assert codec("time").encode(timedelta(hours=-1, minutes=30)) == {"S": "-00:30:00"}
    with pytest.raises(Reject, match="longer than 838:59:59"):
        codec("time").encode(end + timedelta(seconds=1))


@given(TEXTS)
@settings(deadline=None)
def test_texts(value: str) -> None:
    assert round_trip(codec("varchar(20)"), value) == value
    assert round_trip(codec("longtext"), value.encode()) == value


def test_texts_as_mysql_keeps_them() -> None:
    assert codec("char(4)").encode("a  ") == {"S": "a"}
    assert codec("varchar(4)").encode("a  ") == {"S": "a  "}
    assert codec("varchar(4)").encode("") == {"S": ""}
    with pytest.raises(Reject, match="half a surrogate pair"):
        codec("text").encode("\ud800")
    with pytest.raises(Reject, match="charset utf8mb4"):
        codec("text").encode(b"\xff")
    assert is_double_encoded("Ã¼ber")
    assert not any(map(is_double_encoded, ["über", "uber", "日本", "Ã"]))


@given(st.binary(max_size=20))
@settings(deadline=None)
def test_bytes(value: bytes) -> None:
    assert round_trip(codec("varbinary(20)"), value) == value
    assert round_trip(codec("binary(20)"), value) == value.ljust(20, b"\0")
    assert round_trip(codec("longblob"), bytearray(value)) == value


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(1e-100, 1e100).map(lambda value: Decimal(repr(value))),
    st.decimals(-(10**15), 10**15, allow_nan=False, places=10),
)
DOCUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS.filter(bool), inner, max_size=3)),
    max_leaves=12,
)


@pytest.mark.parametrize("form", ["document", "text"])
@given(value=DOCUMENTS)
@settings(deadline=None)
def test_documents_are_exact_whatever_their_numbers(form: Any, value: Any) -> None:
    text = items.json_dumps(value)
    assert round_trip(codec("json", json=form), text) == text


def test_documents_that_dynamodb_has_not() -> None:
    assert codec("json").encode('{"a": 18446744073709551615, "b": 1.10}') == {
        "M": {"a": {"N": "18446744073709551615"}, "b": {"N": "1.1"}}
    }
    assert codec("json").decode({"NULL": True}) == "null"
    assert codec("json", json="text", nulls="null").decode({"NULL": True}) is None
    deep = "[" * 33 + "]" * 33
    for wrong, reason in [
        ('{"": 1}', "a member without a name"), (deep, "nested deeper than 31"), ("1e200", "a number that DynamoDB has not"),
        ("[1.123456789012345678901234567890123456789]", "a number that DynamoDB has not"), ("{", "not JSON"), ("NaN", "not JSON"),
    ]:  # fmt: skip
        with pytest.raises(Reject, match=reason):
            codec("json").encode(wrong)
    assert round_trip(codec("json", json="text"), deep) == deep
    assert codec("json").encode({"a": [1.5, None]}) == codec("json").encode('{"a": [1.5, null]}')
    with pytest.raises(Reject, match="would read as NULL"):
        codec("json", nulls="null").encode("null")


def test_enums() -> None:
    found = codec("enum('a','it''s','ü')")
    assert found.members == ("a", "it's", "ü")
    assert round_trip(found, "it's") == "it's"
    with pytest.raises(Reject, match="index 0"):
        found.encode("")
    assert round_trip(codec("enum('a')", enum_error="text"), "") == ""
    assert round_trip(codec("enum('','a')"), "") == ""
    with pytest.raises(Reject, match="none of its members"):
        found.encode("A")


@given(st.sets(st.sampled_from(["c", "a", "it's", "ü"])))
@settings(deadline=None)
def test_sets_keep_mysqls_order(members: set[str]) -> None:
    found = codec("set('c','a','it''s','ü')")
    text = ",".join(member for member in found.members if member in members)
    assert round_trip(found, text) == text


def test_the_empty_set() -> None:
    assert codec("set('a')").encode("") == {"L": []}
    assert codec("set('a')", empty_set="null").encode("") is None
    with pytest.raises(Reject):
        codec("set('a')").encode("b")
    with pytest.raises(UnknownType):
        codec("set('','a')")


@pytest.mark.parametrize("kind", ["int(11)", "varchar(3)", "date", "json", "set('a')", "bit(1)"])
def test_nulls_by_policy(kind: str) -> None:
    assert codec(kind).encode(None) is None
    assert codec(kind).decode(None) is None
    assert codec(kind, nulls="null").encode(None) == {"NULL": True}
    assert codec(kind, nulls="null").decode({"NULL": True}) is None


@pytest.mark.parametrize("kind", ["point", "geometry", "geomcollection", "vector(3)"])
def test_what_has_no_form_is_refused(kind: str) -> None:
    with pytest.raises(UnknownType, match="select"):
        codec(kind)


@pytest.mark.parametrize("attribute", [{"S": "x"}, {"M": {}}, {"B": b"1"}])
def test_what_is_no_value_of_the_column_is_said(attribute: Any) -> None:
    for kind in ("int(11)", "decimal(5,2)", "double", "bit(8)", "date", "datetime", "time"):
        with pytest.raises(Reject):
            codec(kind).decode(attribute)


DMS = [
    ("bigint(20) unsigned", 2**64 - 1, '"18446744073709551615"', "integer"), ("int(11)", -5, "-5", ""), ("year(4)", 2026, "2026", ""),
    ("decimal(10,2)", Decimal("1.50"), "1.50", ""), ("decimal(65,30)", Decimal("1.5"), f"1.5{'0' * 29}", "string"),
    ("double", 1e100, "1e+100", "number"), ("double", 0.1, "0.1", "number"), ("bit(1)", b"\1", "true", "boolean"),
    ("date", date(2026, 11, 29), '"2026-11-29"', "string"),
    ("datetime(6)", datetime(2026, 11, 29, 10, 0, 0, 5), '"2026-11-29T10:00:00.000005Z"', "string"),
    ("timestamp", datetime(2026, 11, 29, 10), '"2026-11-29T10:00:00Z"', "string"),
    ("time", timedelta(hours=-838), '"-838:00:00"', "string"), ("varchar(9)", "é|", '"é|"', ""), ("enum('a')", "a", '"a"', "string"),
    ("varbinary(9)", b"\0\xff", '"0x00ff"', "binary"), ("json", '{"a": [1.50, null]}', r'"{\"a\": [1.50, null]}"', "json"),
    ("set('b','a')", "b,a", '"b,a"', "set"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "text", "declared"), DMS, ids=[case[0] for case in DMS])
def test_cdc_apply_makes_the_same_attribute_of_what_dms_writes(kind: str, value: Any, text: str, declared: str) -> None:
    theirs = values.convert(values.loads(text), declared, "c")
    assert items.canonical({"c": theirs or {}}) == items.canonical({"c": codec(kind).encode(value) or {}})


def test_cdc_apply_has_the_empty_set_as_null() -> None:
    assert values.convert("", "set", "c") is codec("set('a')", empty_set="null").encode("") is None


# --- items --------------------------------------------------------------------------------------------------------------


def test_canonical_items_differ_only_where_they_hold_something_else() -> None:
    one = {"b": {"N": "1.50"}, "a": {"SS": ["y", "x"]}, "c": {"M": {"z": {"N": "0E-10"}, "a": {"L": [{"N": "100"}]}}}}
    other = {"c": {"M": {"a": {"L": [{"N": "1E2"}]}, "z": {"N": "-0"}}}, "a": {"SS": ["x", "y"]}, "b": {"N": "1.5"}}
    assert items.canonical(one) == items.canonical(other)
    assert items.item_hash({**one, "_v": {"N": "1"}}, {"_v"}) == items.item_hash(other)
    differing: list[Callable[[], Any]] = [
        lambda: {"a": {"S": "1"}}, lambda: {"a": {"N": "1"}}, lambda: {"a": {"B": b"1"}}, lambda: {"A": {"S": "1"}},
        lambda: {"a": {"L": []}}, lambda: {"a": {"M": {}}}, lambda: {"a": {"NULL": True}}, lambda: {}, lambda: {"a": {"S": ""}},
    ]  # fmt: skip
    assert len({items.item_hash(make()) for make in differing}) == len(differing)


@given(st.lists(st.integers(0, 2**64 - 1)), st.data())
@settings(deadline=None)
def test_digests_do_not_depend_on_order_and_see_pairs(hashes: list[int], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(hashes))
    cut = data.draw(st.integers(0, len(hashes)))
    assert Digest.of(shuffled[:cut]) + Digest.of(shuffled[cut:]) == Digest.of(hashes)
    assert Digest.of([5, 5]) != Digest.of([7, 7])
    assert Digest().add(3) == Digest.of([3])


def test_sizes_count_names_and_digits() -> None:
    assert items.item_size({"pk": {"S": "ü"}, "n": {"N": "1"}}) == 2 + 2 + 1 + 2
    assert items.value_size({"M": {"ab": {"L": [{"NULL": True}]}}}) == 3 + 1 + 2 + 3 + 1 + 1
    assert items.write_units({"pk": {"S": "x" * 1022}}) == 1
    assert items.write_units({"pk": {"S": "x" * 1023}}) == 2
    exact = {"pk": {"S": "k"}, "v": {"B": b"x" * (items.ITEM_BYTES - 4)}}
    assert items.check_size(exact) == items.ITEM_BYTES
    with pytest.raises(Reject, match=r"409,601 bytes.*largest: v 409,597"):
        items.check_size({**exact, "v": {"B": b"x" * (items.ITEM_BYTES - 3)}})


@given(DOCUMENTS)
@settings(deadline=None)
def test_canonical_json_is_json(value: Any) -> None:
    assert items.json_loads(items.json_dumps(value)) == value
    json.loads(items.json_dumps(value))


@given(
    st.integers(-(10**45), 10**45)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**9), 10**9).map(lambda n: Decimal(n) / 1000)
    | st.integers(0, 40).map(lambda n: 10**n)
)
@settings(deadline=None)
def test_short_numbers_are_counted_as_any_other(number: int | Decimal) -> None:
    """What is read from the text of a number is what its normal form says."""
    exact = Decimal(number).normalize(items.EXACT)
    sign, digits, exponent = exact.as_tuple()
    magnitude = items.SMALLEST <= exact.copy_abs() <= items.LARGEST
    assert items.fits_number(number) == (not exact or (len(digits) <= items.DIGITS and magnitude))
    text = items.number_text(number)
    assert Decimal(text) == exact
    assert items.number_text(Decimal(text)) == text
    size = 1 if not exact else -(-(len(digits) + int(exponent) % 2) // 2) + 1 + sign
    assert items.value_size({"N": text}) == items.value_size({"N": str(number)}) == size
