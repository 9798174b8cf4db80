"""Canonical text of hand-made rows decodes to exactly the values that it was made from."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from dbops.archive import codec
from dbops.archive.codec import Codec, UnknownType
from dbops.mysql import Column, Table

SHORT_NAMES = ["int32", "int64", "decimal(20,0)", "decimal(38,30)", "float32", "float64", "date32", "timestamp", "timestamptz",
    "string", "binary"]  # fmt: skip


def column(data_type: str, column_type: str = "", *, name: str = "c", nullable: bool = True, **facts: Any) -> Column:
    return Column(name=name, data_type=data_type, column_type=column_type or data_type, nullable=nullable, **facts)


def made(data_type: str, column_type: str = "", **facts: Any) -> Codec:
    return codec.codec_for(column(data_type, column_type, **facts))


@given(st.lists(st.none() | st.floats(allow_nan=False)), st.integers(0, 3))
def test_doubles_from_their_ieee_bits(values: list[float | None], skip: int) -> None:
    bits = [None if v is None else struct.pack("<d", v).hex().upper() for v in values]
    found = made("double").decode(pa.array([None] * skip + bits, pa.string()).slice(skip))
    assert found.type == pa.float64()
    assert [repr(v) for v in found.to_pylist()] == [repr(v) for v in values]


@given(st.lists(st.none() | st.floats(allow_nan=False, width=32)))
def test_floats_from_the_bits_of_their_double(values: list[float | None]) -> None:
    bits = [None if v is None else struct.pack("<d", v).hex() for v in values]
    found = made("float").decode(pa.array(bits, pa.string()))
    assert found.type == pa.float32()
    assert [repr(v) for v in found.to_pylist()] == [repr(v) for v in values]


def test_negative_zero_and_denormals_keep_their_bits() -> None:
    found = made("double").decode(pa.array(["0000000000000080", "0100000000000000", "FFFFFFFFFFFFEF7F"])).to_pylist()
    assert math.copysign(1, found[0]) == -1
    assert found[0] == 0
    assert found[1:] == [5e-324, 1.7976931348623157e308]


@given(st.lists(st.none() | st.binary(max_size=20)), st.integers(0, 9))
def test_unhex_of_bytes(values: list[bytes | None], skip: int) -> None:
    wire = pa.array(["FF"] * skip + [None if v is None else v.hex().upper() for v in values], pa.string()).slice(skip)
    found = made("varbinary", max_octets=20).decode(wire)
    found.validate(full=True)
    assert found.type == pa.binary()
    assert found.to_pylist() == values


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]))), st.integers(0, 9))
def test_unhex_of_text(values: list[str | None], skip: int) -> None:
    wire = pa.array([None] * skip + [None if v is None else v.encode().hex() for v in values], pa.string()).slice(skip)
    found = made("varchar", max_octets=400).decode(wire)
    found.validate(full=True)
    assert found.type == pa.string()
    assert found.to_pylist() == values


def test_long_values_are_taken_as_they_are_and_wrong_utf8_is_an_error() -> None:
    assert made("longtext").decode_long(["é|N".encode(), None, b""]).to_pylist() == ["é|N", None, ""]
    assert made("blob").decode_long([b"\xff\0", None, b""]).to_pylist() == [b"\xff\0", None, b""]
    with pytest.raises(pa.ArrowInvalid):
        made("text").decode_long([b"\xff"])


@given(st.lists(st.tuples(st.none() | st.binary(), st.none() | st.binary())))
def test_long_values_end_the_row_text_as_their_md5(rows: list[tuple[bytes | None, bytes | None]]) -> None:
    def cell(value: bytes | None) -> str:
        return "N" if value is None else hashlib.md5(value, usedforsecurity=False).hexdigest()

    texts = [f"{i}|x".encode() for i in range(len(rows))]
    found = codec.append_long(texts, [[a for a, _ in rows], [b for _, b in rows]])
    assert found == [f"{i}|x|{cell(a)}|{cell(b)}".encode() for i, (a, b) in enumerate(rows)]


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_arrow_and_iceberg_types_are_the_same_type(name: str) -> None:
    field = schema_to_pyarrow(Schema(NestedField(1, "c", codec.iceberg_type(name), required=False))).field("c")
    kinds = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    assert kinds.get(field.type, field.type) == codec.arrow_type(name)


@pytest.mark.parametrize(
    ("facts", "arrow"),
    [
        (("tinyint", "tinyint(1)"), "int32"), (("int", "int(11)"), "int32"), (("int", "int(10) unsigned"), "int64"),
        (("mediumint", "mediumint(8) unsigned"), "int32"), (("bigint", "bigint(20)"), "int64"),
        (("bigint", "bigint(20) unsigned"), "decimal(20,0)"), (("bigint", "bigint(20) unsigned zerofill"), "decimal(20,0)"),
        (("bit", "bit(1)"), "decimal(20,0)"), (("year", "year(4)"), "int32"), (("float", "float"), "float32"),
        (("double", "double"), "float64"), (("date", "date"), "date32"), (("datetime", "datetime(6)"), "timestamp"),
        (("timestamp", "timestamp(3)"), "timestamptz"), (("time", "time(6)"), "string"), (("enum", "enum('a')"), "string"),
        (("set", "set('a')"), "string"), (("json", "json"), "string"), (("longtext", "longtext"), "string"),
        (("binary", "binary(4)"), "binary"), (("tinyblob", "tinyblob"), "binary"), (("point", "point"), "binary"),
        (("geomcollection", "geomcollection"), "binary"),
    ],
)  # fmt: skip
def test_archived_type_of_each_mysql_type(facts: tuple[str, str], arrow: str) -> None:
    assert made(*facts).arrow == arrow


@pytest.mark.parametrize(("precision", "scale", "arrow"), [(38, 38, "decimal(38,38)"), (38, 0, "decimal(38,0)"), (39, 0, "string"), (65,
    30, "string")])  # fmt: skip
def test_decimals_beyond_38_digits_are_text(precision: int, scale: int, arrow: str) -> None:
    found = made("decimal", f"decimal({precision},{scale})", numeric_precision=precision, numeric_scale=scale)
    assert found.arrow == arrow


@pytest.mark.parametrize("kind", ["vector", "inet6", "uuid", "tinyint_but_not", ""])
def test_an_unknown_type_is_refused_and_says_what_to_do(kind: str) -> None:
    with pytest.raises(UnknownType, match="has no exact archived form; convert the column, or move it"):
        made(kind, "vector(3)")


def test_the_unknown_column_is_named() -> None:
    table = Table(
        "s", "t", "InnoDB", 0, 0, 0, 0, 0, (column("int"), column("vector", "vector(3)", name="embedding")), ()
    )
    with pytest.raises(UnknownType, match=r"s\.t\.embedding: type vector\(3\) has no exact"):
        codec.codecs(table)


def test_wide_columns_travel_beside_the_row_text_and_end_it() -> None:
    columns = [made("text", name="t"), made("int", name="i"), made("varchar", name="w", max_octets=1025), made("varchar", name="v",
        max_octets=1024)]  # fmt: skip
    assert [c.name for c in codec.hash_order(columns)] == ["i", "v", "t", "w"]
    assert [c.is_long for c in columns] == [True, False, True, False]
    assert (
        codec.mysql_short_text(columns)
        == "CONCAT_WS('|', IFNULL(CAST(`i` AS CHAR), 'N'), IFNULL(HEX(CONVERT(`v` USING utf8mb4)), 'N'))"
    )
    assert codec.mysql_row_text(columns).endswith(
        "IFNULL(MD5(CONVERT(`t` USING utf8mb4)), 'N'), IFNULL(MD5(CONVERT(`w` USING utf8mb4)), 'N'))"
    )
    assert codec.trino_row_text(columns).startswith("array_join(ARRAY[coalesce(CAST(\"i\" AS varchar), 'N'), ")


def test_not_null_columns_need_no_ifnull_and_names_are_quoted() -> None:
    found = codec.mysql_row_text([made("int", name="a`b", nullable=False), made("int", name='c"d')])
    assert found == "CONCAT_WS('|', CAST(`a``b` AS CHAR), IFNULL(CAST(`c\"d` AS CHAR), 'N'))"
    assert '"c""d"' in codec.trino_row_text([made("int", name='c"d')])


def test_conversions_that_a_spec_asks_for() -> None:
    when = codec.codec_for(column("timestamp"), zero_dates_as_text=True)
    assert (when.arrow, when.form, when.trino_text) == ("string", "plain", '"c"')
    text = codec.codec_for(column("varchar", max_octets=8, charset="gbk"), lossy_as_binary=True)
    assert (text.arrow, text.form) == ("binary", "long_binary")
    assert "CONVERT" not in (text.payload_sql or "")


def test_zerofill_is_undone_because_it_is_only_a_display() -> None:
    assert made("int", "int(6) unsigned zerofill").mysql_text == "CAST(`c` + 0 AS CHAR)"
