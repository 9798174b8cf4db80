"""Texts of values that are equal on two MySQL servers exactly when the values are, whatever their versions and types.

A form is made for a pair of columns, since DMS may have given the target another type. Measured differences that it evens out: ZEROFILL,
scale of DECIMAL, fractions of seconds, character sets, FLOAT (as text it keeps six digits, so its IEEE 754 bits are compared), -0.0, and
JSON, whose text depends on the version (5.7 writes 1.0 as 1): where JSON texts differ, the documents are compared here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dbops.mysql import Column
from dbops.sql import ident

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit"})
_KINDS: dict[str, str] = {
    **dict.fromkeys(INTEGERS, "number"), "decimal": "number", "float": "float", "double": "float", "date": "time",
    "datetime": "time", "timestamp": "time", "time": "duration", "json": "json",
    **dict.fromkeys(("char", "varchar", "enum", "set", "tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "binary"),
    **dict.fromkeys(("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
                     "geometrycollection", "geomcollection"), "geometry"),
}  # fmt: skip
REL_TOL = 1e-15
"""Two DOUBLEs of JSON that differ by no more of their value are the same."""
KEY_TYPES = (INTEGERS - {"bit"}) | {
    "decimal",
    "char",
    "varchar",
    "binary",
    "varbinary",
    "date",
    "datetime",
    "timestamp",
    "time",
}
"""Types whose order and equality are those of their literals."""
_UNICODE = frozenset({"utf8", "utf8mb3", "utf8mb4", "ascii"})
"""Character sets whose bytes are those of utf8mb4."""
_SHORT_OCTETS = 1024


@dataclass(frozen=True)
class Form:
    """One column on both sides. Texts are NULL for NULL, and where a value is longer than the server can render."""

    source: Column
    target: Column
    source_text: str
    target_text: str
    is_json: bool = False

    def cell(self, *, is_source: bool) -> str:
        """The text as it stands in the text of a row: N for NULL, NULL where a value is too long."""
        column, text = (self.source, self.source_text) if is_source else (self.target, self.target_text)
        return f"IF({ident(column.name)} IS NULL, 'N', {text})" if column.nullable else text

    def value(self, *, is_source: bool) -> str:
        """SQL of a JSON document as text."""
        column = self.source if is_source else self.target
        return f"CAST({ident(column.name)} AS CHAR)"


def kind(column: Column) -> str:
    """number, float, time, duration, json, text, binary, geometry; the type itself when it is none of them."""
    return _KINDS.get(column.data_type, column.data_type)


def form(source: Column, target: Column) -> Form | None:
    """The form of a pair of columns; None when their types have no common one."""
    kinds = {kind(source), kind(target)}
    if kinds == {"text", "json"}:
        kinds = {"json"}
    if len(kinds) > 1 or not kinds & set(_KINDS.values()):
        return None
    one = kinds.pop()
    texts = [_text(one, column, (source, target)) for column in (source, target)]
    return Form(source, target, texts[0], texts[1], is_json=one == "json")


def _text(one: str, column: Column, both: Sequence[Column]) -> str:
    c = ident(column.name)
    if one == "number":
        return _number(c, column, both)
    if one == "float":
        return f"SUBSTR(HEX(POINT({c} + 0e0, 0)), 19, 16)"  # POINT is the one function that shows the bits
    if one == "time":
        return f"CAST(CAST({c} AS DATETIME(6)) AS CHAR)"
    if one == "duration":
        return f"CAST(CAST({c} AS TIME(6)) AS CHAR)"
    if one == "json":
        return f"MD5(CAST({c} AS CHAR))" if column.data_type == "json" else f"MD5({_utf8(c, column)})"
    value = _utf8(c, column) if one == "text" else c
    is_short = all(0 < (other.max_octets or 0) <= _SHORT_OCTETS for other in both)
    return f"HEX({value})" if is_short else f"MD5({value})"


def _number(c: str, column: Column, both: Sequence[Column]) -> str:
    scales = {other.numeric_scale or 0 for other in both}
    if all(other.data_type in INTEGERS for other in both):
        return f"CAST({c} + 0 AS CHAR)"  # undoes ZEROFILL, and turns BIT and YEAR into numbers
    whole = f"{c} + 0" if column.data_type in INTEGERS else c
    if (
        len(scales) == 1
        and all(other.data_type == "decimal" for other in both)
        and "zerofill" not in column.column_type
    ):
        return f"CAST({c} AS CHAR)"
    return f"CAST(CAST({whole} AS DECIMAL(65,{max(scales)})) AS CHAR)"


def _utf8(c: str, column: Column) -> str:
    return c if column.charset in _UNICODE else f"CONVERT({c} USING utf8mb4)"


def row_text(forms: Sequence[Form], *, is_source: bool) -> str:
    """SQL of the text of a row: its cells joined by ``|``; NULL when a value is longer than the server can render.

    Cells are digits, hexadecimal digits and times, so neither ``|`` nor N occurs in one.
    """
    cells = ", '|', ".join(form.cell(is_source=is_source) for form in forms)
    return f"CONCAT({cells})"


def key_literal(source: Column, target: Column, column: Column) -> str | None:
    """SQL that gives the SQL literal of a key column, the same text on both sides; None for a type that is no key."""
    pair = form(source, target)
    if pair is None or source.data_type not in KEY_TYPES or target.data_type not in KEY_TYPES:
        return None
    text = pair.source_text if column is source else pair.target_text
    one = kind(source)
    if one == "number":
        return text
    if one in ("time", "duration"):
        return f"CONCAT('''', {text}, '''')"
    c = ident(column.name)
    value = f"HEX({_utf8(c, column)})" if one == "text" else f"HEX({c})"
    return f"CONCAT('{'_utf8mb4 ' if one == 'text' else ''}X''', {value}, '''')"


class Document:
    """A JSON document, equal to every other that says the same: numbers by value, keys in any order.

    DMS carries a document as text, and MySQL (5.7, and 8.0 as well) reads the text of a DOUBLE with an error in its last digits. So
    two numbers with a fraction or an exponent are the same when they agree in 15 digits, which is what a DOUBLE holds for certain.
    """

    def __init__(self, text: str | bytes) -> None:
        self.value = json.loads(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and _is_same(self.value, other.value)

    def __hash__(self) -> int:
        return 0  # equal documents may look different; nobody keeps many of them in a set

    def __repr__(self) -> str:
        """A text that is the same for the same document, to the last digit."""
        return json.dumps(_plain(self.value), sort_keys=True, ensure_ascii=False)


def document(text: str | bytes | None) -> Document | None:
    """A JSON document that can be compared; None for NULL."""
    return None if text is None else Document(text)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=REL_TOL)
    if _is_number(one) and _is_number(other):
        return Decimal(repr(one)) == Decimal(repr(other))
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if _is_number(value):
        return {"\0number": str(Decimal(repr(value)).normalize() + 0)}  # + 0: there is one zero
    return value
