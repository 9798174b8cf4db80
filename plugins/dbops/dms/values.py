"""Values of MySQL columns read as plain Python values, to be compared with what DMS makes of them outside MySQL.

Source of the rules: DMS user guide, "Target data types for DynamoDB": numbers become numbers, dates and times text, text stays text, NULL
is left out, bytes are not carried. In which form a time is written is not documented, so times are compared by their value.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from dbops.dms import forms
from dbops.mysql import Column
from dbops.sql import ident

NOT_CARRIED = frozenset({"binary", "geometry"})
"""Kinds of columns that DMS does not take to DynamoDB."""
_MAX_SINGLE = Decimal("3.4028235e38")
_EXACT = Context(prec=100)
"""DECIMAL has up to 65 digits; Python's own context would round to 28."""
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?)?(?:Z|\+00:?00)?")
_DURATION = re.compile(r"(-?\d{2,3}:\d{2}:\d{2})(?:\.(\d{1,9}))?")


@dataclass(frozen=True)
class Value:
    """A value with its kind (see :func:`dbops.dms.forms.kind`); `plain` is Decimal, float or text."""

    kind: str
    plain: Any
    is_single: bool = False
    """A FLOAT, which has 24 bits."""

    @property
    def raw(self) -> str:
        """As MySQL writes it."""
        return f"{self.plain:f}" if self.kind == "number" else str(self.plain)

    @property
    def text(self) -> str:
        """As text, equal for equal values of one column."""
        if self.kind == "number":
            return number(self.plain)
        if self.kind == "json":
            return str(forms.document(self.plain))
        return canonical(self.kind, str(self.plain))


def select(column: Column) -> str:
    """SQL of a value in the form that :func:`read` takes."""
    c, kind = ident(column.name), forms.kind(column)
    if kind == "number":
        return f"CAST({c} + 0 AS CHAR)" if column.data_type in forms.INTEGERS else f"CAST({c} AS CHAR)"
    if kind == "float":
        return f"SUBSTR(HEX(POINT({c} + 0e0, 0)), 19, 16)"
    if kind in NOT_CARRIED:
        return f"HEX({c})"
    if kind == "text":
        return f"CONVERT({c} USING utf8mb4)"
    return f"CAST({c} AS CHAR)"


def read(column: Column, found: Any) -> Value | None:
    """A value as :func:`select` gave it; None for NULL."""
    if found is None:
        return None
    text, kind = found.decode() if isinstance(found, bytes) else str(found), forms.kind(column)
    if kind == "number":
        return Value(kind, Decimal(text))
    if kind == "float":
        return Value(kind, struct.unpack("<d", bytes.fromhex(text))[0], column.data_type == "float")
    return Value(kind, text)


def number(value: Decimal) -> str:
    """A number without an exponent and without zeros at its end; there is one zero."""
    return f"{_EXACT.plus(_EXACT.normalize(value)):f}" if value else "0"


def canonical(kind: str, text: str) -> str:
    """A text of a number, a time, bytes or text as some file or item has it, equal for equal values."""
    if kind in ("number", "float"):
        try:
            return number(Decimal(text))
        except InvalidOperation:
            return text
    if kind == "time" and (found := _TIME.fullmatch(text)):
        return f"{found[1]} {found[2] or '00:00:00'}.{(found[3] or '').ljust(6, '0').rstrip('0')}"
    if kind == "duration" and (found := _DURATION.fullmatch(text)):
        return f"{found[1]}.{(found[2] or '').rstrip('0')}"
    if kind in NOT_CARRIED:
        return text.removeprefix("0x").upper()
    return text


def is_same(value: Value | None, attribute: Mapping[str, Any] | None) -> bool:
    """Whether an attribute of DynamoDB is what DMS makes of the value."""
    if value is None or attribute is None:
        return value is None and attribute is None
    (kind, held), *more = attribute.items()
    if more or kind not in ("S", "N", "BOOL"):
        return False
    if kind == "BOOL":
        return value.kind == "number" and value.plain in (0, 1) and bool(value.plain) == held
    if value.kind in ("number", "float"):
        return _is_same_number(value, str(held))
    if value.kind == "json":
        try:
            return forms.document(held) == forms.document(value.plain)
        except ValueError:
            return False
    return kind == "S" and canonical(value.kind, str(held)) == value.text


def _is_same_number(value: Value, text: str) -> bool:
    try:
        held = Decimal(text)
    except InvalidOperation:
        return False
    if not held.is_finite():
        return False
    if value.kind == "number":
        return bool(held == value.plain)
    if value.is_single and abs(held) < _MAX_SINGLE:
        return struct.pack("<f", float(held) + 0.0) == struct.pack("<f", value.plain + 0.0)
    return bool(float(held) == value.plain)
