"""Different rows never get one key, and padded numbers sort as numbers."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from cdc_apply import changes
from cdc_apply import settings as cdc_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.keyvalue import keys
from dbops.keyvalue.codec import ColumnCodec, codec_for
from dbops.keyvalue.items import Reject
from tests.keyvalue.keyvalue_kit import column

CODECS: dict[str, ColumnCodec] = {
    name: codec_for(column(name, kind, nullable=False))
    for name, kind in {
        "id": "bigint(20)", "uid": "bigint(20) unsigned", "tiny": "tinyint(4)", "name": "varchar(50)", "other": "varchar(50)",
        "price": "decimal(10,2)", "wide": "decimal(65,30)", "day": "date", "at": "datetime(6)", "span": "time(6)",
        "raw": "varbinary(20)", "doc": "json", "ratio": "double", "flag": "bit(1)",
    }.items()
}  # fmt: skip
SEPARATORS = ["#", "|", "-", "#-", "0", "9", "a", "ü", "::", "A2", "x5", ".", "\0", "}}", "{{"]
NASTY = st.text(st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("#%|-0925aAü:.x{}\0")), max_size=8)


def made(text: str, limit: int = keys.PARTITION_BYTES) -> keys.KeyTemplate:
    return keys.template(text, CODECS.values(), limit)


def values(name: str) -> st.SearchStrategy[Any]:
    codec = CODECS[name]
    match codec.kind:
        case "integer":
            return st.integers(codec.low, codec.high)
        case "decimal" | "decimal_text":
            top = 10**codec.digits - 1
            return st.integers(-top, top).map(lambda n: Decimal((n < 0, tuple(map(int, str(abs(n)))), -codec.scale)))
        case "date":
            return st.dates(date(1000, 1, 1))
        case "moment":
            return st.datetimes(datetime(1000, 1, 1))
        case "time":
            return st.timedeltas(-timedelta(hours=838), timedelta(hours=838))
        case "binary":
            return st.binary(max_size=6)
    return NASTY


FORMS = ["{id}", "{id:pad}", "{uid:20}", "{tiny:pad}", "{price}", "{price:pad}", "{wide:pad}", "{wide}", "{day}", "{at}", "{span}",
         "{span:pad}", "{name}", "{other}", "{raw}"]  # fmt: skip


@st.composite
def templates(draw: st.DrawFn) -> keys.KeyTemplate:
    forms = draw(st.lists(st.sampled_from(FORMS), min_size=1, max_size=4))
    text = draw(st.sampled_from(["", "USER#", "%", "0"])) + forms[0]
    for form in forms[1:]:
        text += draw(st.sampled_from(SEPARATORS)) + form
    return made(text + draw(st.sampled_from(["", "#END", "%", "0"])))


@given(st.data())
@settings(deadline=None)
def test_a_key_is_read_back_in_one_way_only(data: st.DataObject) -> None:
    """values(render(row)) is the row: so two rows cannot have one key."""
    template = data.draw(templates())
    row = {name: data.draw(values(name)) for name in template.columns}
    assert template.values(template.render(row)) == row


@given(st.data())
@settings(deadline=None)
def test_distinct_rows_have_distinct_keys(data: st.DataObject) -> None:
    template = data.draw(templates())
    rows = [{name: data.draw(values(name)) for name in template.columns} for _ in range(2)]
    if data.draw(st.booleans()):  # the likeliest to clash: a character moved over the separator
        clash = template.render(rows[0])
        name = data.draw(st.sampled_from(template.columns))
        if CODECS[name].kind == "text":
            rows[1] = {**rows[0], name: clash[: data.draw(st.integers(0, len(clash)))]}
    assert (template.render(rows[0]) == template.render(rows[1])) == (rows[0] == rows[1])


@pytest.mark.parametrize("name", ["id", "uid", "tiny", "price", "wide", "day", "at", "span"])
@given(data=st.data())
@settings(deadline=None)
def test_padded_keys_sort_as_their_values(name: str, data: st.DataObject) -> None:
    template = made(f"X#{{{name}:pad}}")
    low, high = sorted(data.draw(st.lists(values(name), min_size=2, max_size=2)))
    first, second = (template.render({name: value}).encode() for value in (low, high))
    assert (first < second) == (low < high)
    assert len(template.render({name: high})) - template.render({name: high}).count("-") <= 96


def test_the_ends_of_the_types_and_the_order_around_zero() -> None:
    template = made("{id:pad}")
    numbers = [-(2**63), -1000, -10, -2, -1, 0, 1, 9, 10, 2**63 - 1]
    found = [template.render({"id": number}) for number in numbers]
    assert found == sorted(found)
    assert found[4:6] == ["-9999999999999999999", "0000000000000000000"]
    assert made("{uid:pad}").render({"uid": 2**64 - 1}) == "18446744073709551615"


def test_examples() -> None:
    row = {"id": 42, "name": "50% #1", "at": datetime(2026, 11, 29, 10), "price": Decimal("-1.50")}
    assert made("USER#{id}").render(row) == "USER#42"
    assert made("ORDER#{at}#{id:pad}").render(row) == "ORDER#2026-11-29T10:00:00.000000Z#0000000000000000042"
    assert made("{name}#{id}").render(row) == "50%25 %231#42"
    assert made("{price:pad}").render(row) == "-9999999850"
    assert made("{id}").attribute(row) == {"N": "42"}
    assert made("U{id}").attribute(row) == {"S": "U42"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("USER#", "it names no column"),
        ("{id}{name}", "two values need text between them"),
        ("{id}%{name}", "% between values"),
        ("{nobody}", "there is no column 'nobody'; there are at"),
        ("{id", "expected '}'"),
        ("{id!r}", "{id:12} or {id:pad}"),
        ("{id:x}", "{id:12} or {id:pad}"),
        ("{price:12}", "{price:pad}"),
        ("{name:pad}", "is no number"),
        ("{doc}", "cannot be in a key"),
        ("{ratio}", "cannot be in a key"),
        ("{flag}", "cannot be in a key"),
    ],
)
def test_wrong_templates_are_refused_with_the_fix(text: str, reason: str) -> None:
    with pytest.raises(keys.TemplateError) as error:
        made(text)
    assert reason in str(error.value)


def test_limits_are_bytes_of_the_attribute() -> None:
    assert made("{name}").attribute({"name": "ü" * 1024}) == {"S": "ü" * 1024}
    with pytest.raises(Reject, match="has 2,050 bytes: DynamoDB takes 1 to 2,048"):
        made("{name}").attribute({"name": "ü" * 1025})
    with pytest.raises(Reject, match="has 1,025 bytes: DynamoDB takes 1 to 1,024"):
        made("#{name}", keys.SORT_BYTES).attribute({"name": "x" * 1024})
    with pytest.raises(Reject, match="has 0 bytes"):
        made("{raw}").attribute({"raw": b""})
    for missing in ({}, {"name": None}):
        with pytest.raises(Reject, match="name is NULL or missing"):
            made("{name}").attribute(missing)
    with pytest.raises(Reject, match="id does not fit into 3 digits"):
        made("{id:3}").render({"id": 1000})
    with pytest.raises(Reject, match="id does not fit"):
        made("{id:3}").render({"id": -1})


def test_a_key_has_one_or_two_attributes() -> None:
    found = keys.key_map({"pk": "USER#{id}", "sk": "{at}#{uid:pad}"}, CODECS.values())
    assert found.columns == ("id", "at", "uid")
    assert found.parts[1][1].limit == keys.SORT_BYTES
    with pytest.raises(keys.TemplateError, match="not 0"):
        keys.key_map({}, CODECS.values())


def test_what_is_no_key_of_the_template_is_said() -> None:
    template = made("USER#{name}#{tiny:pad}")
    for wrong in ("", "USER#", "user#a#001", "USER#a#1", "USER#a#999", "USER#a#001x", "USER#%41#001", "USER#%zz#001"):
        with pytest.raises(Reject):
            template.values(wrong)


@pytest.mark.parametrize(
    ("collation", "found"),
    [
        ("utf8mb4_general_ci", ["case", "trailing spaces"]),
        ("utf8mb4_bin", ["trailing spaces"]),
        ("utf8mb4_0900_ai_ci", ["case"]),
        ("utf8mb4_0900_bin", []),
        ("binary", []),
    ],
)
def test_collations_that_make_one_row_of_two_keys_are_told(collation: str, found: list[str]) -> None:
    codecs = [codec_for(column("email", "varchar(50)", collation=collation)), CODECS["id"]]
    told = keys.traps(codecs, ["email", "id"])
    assert len(told) == bool(found)
    assert all(word in told[0] for word in found)
    assert keys.traps(codecs, ["id"]) == ()


# --- the same keys as the function that applies the change stream ------------------------------------------------------


@given(st.data())
@settings(deadline=None)
def test_cdc_apply_makes_the_same_keys(data: st.DataObject) -> None:
    forms = data.draw(
        st.lists(st.sampled_from(["{name}", "{other}", "{uid}", "{uid:pad}", "{day}"]), min_size=1, max_size=3)
    )
    text = "USER#" + forms[0] + "".join(data.draw(st.sampled_from(["#", "|", "::", "ü"])) + form for form in forms[1:])
    template = made(text)
    row = {name: data.draw(values(name)) for name in template.columns}
    told = cdc_settings.parse({"tables": {"s.t": {"target": "t", "key": {"pk": template.for_cdc_apply}}}})
    theirs = changes._text_key(
        {**row, **({"day": row["day"].isoformat()} if "day" in row else {})}, told.tables["s.t"].key[0]
    )
    assert theirs == template.render(row)


def test_what_cdc_apply_cannot_pad_is_said() -> None:
    assert made("A#{uid:pad}{{}}#{name}").for_cdc_apply == "A#{uid:20}{{}}#{name}"
    with pytest.raises(keys.TemplateError, match="cdc_apply pads whole numbers that are not negative only, not id"):
        _ = made("A#{id:pad}").for_cdc_apply
