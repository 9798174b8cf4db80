"""Values of DMS's JSON as DynamoDB's attribute values, or the reason why they cannot be."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

Attribute = dict[str, Any]
Item = dict[str, Attribute]

DIGITS = 38
LARGEST, SMALLEST = Decimal("9.9999999999999999999999999999999999999E+125"), Decimal("1E-130")
NESTING = 31  # lists and maps in each other; the item itself is the 32nd level
EXACT_IN_DOUBLE = 2**53
DIGITS_OF_DOUBLE = 17
_ANY_PRECISION = Context(prec=1000)


class RejectError(ValueError):
    """A record can never be applied; the text says why, and holds no value of the row."""


def loads(text: str | bytes) -> Any:
    """JSON with exact numbers.

    Raises:
        RejectError: it is not JSON
    """
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
        json.dumps(found, ensure_ascii=False, default=str).encode()  # half a surrogate pair is no text
    except RecursionError as error:
        raise RejectError("the JSON is nested too deeply") from error
    except ValueError as error:  # also text that is not UTF-8
        raise RejectError(f"not JSON: {type(error).__name__}") from error
    return found


def is_rounded(number: Decimal) -> bool:
    """Whether digits of a whole number may be lost, as when DMS writes a BIGINT of more than 16 digits.

    That is scientific notation (``1.844674407370955E+19``), which is the only one to give a Decimal without decimals here, with fewer
    digits than the number has, or with so few that it may have been a double.
    """
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or exponent < 0:
        return False
    return exponent > 0 or (len(digits) <= DIGITS_OF_DOUBLE and abs(number) > EXACT_IN_DOUBLE)


def number(value: int | Decimal, name: str) -> Attribute:
    """A number attribute.

    Raises:
        RejectError: DynamoDB has no such number
    """
    exact = Decimal(value).normalize(_ANY_PRECISION)
    if len(exact.as_tuple().digits) > DIGITS:
        raise RejectError(f"{name} has more than {DIGITS} digits: declare it as string")
    if exact and not SMALLEST <= abs(exact) <= LARGEST:
        raise RejectError(f"{name} is beyond DynamoDB's numbers: declare it as string")
    return {"N": f"{exact:f}" if abs(exact.adjusted()) < DIGITS else str(exact)}


def whole(value: Any, name: str) -> int:
    """A whole number.

    Raises:
        RejectError: it is none, or digits may be lost
    """
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,65}", value):
            raise RejectError(f"{name} is no whole number")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RejectError(f"{name} is no whole number")
    if isinstance(value, Decimal):
        if is_rounded(value):
            raise RejectError(
                f"{name} came in scientific notation and may be rounded: set UseLargeIntegerValue on the endpoint"
            )
        if value != value.to_integral_value(context=_ANY_PRECISION):
            raise RejectError(f"{name} is no whole number")
    return int(value)


def convert(value: Any, kind: str, name: str) -> Attribute | None:
    """The attribute of a value that is not NULL; None when there is nothing to store (the empty set).

    Args:
        value: from the JSON
        kind: what the column is declared as; "" when it is not
        name: of the column, for the message
    """
    return _BY_KIND[kind](value, name)


def timestamp(value: Any, name: str) -> str:
    """A time at fixed width, so that its text sorts.

    Raises:
        RejectError: it is none
    """
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise RejectError(f"{name} is no time") from error
    return (at if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)).isoformat("T", "microseconds") + "Z"


def microseconds(value: Any, name: str) -> int:
    """A time in microseconds since 1970; UTC where it says nothing.

    Raises:
        RejectError: it is none
    """
    at = datetime.fromisoformat(timestamp(value, name))
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _told(value: Any, name: str, depth: int = 0, *, is_column: bool = True) -> Attribute:
    """What the JSON value says itself."""
    if depth >= NESTING and isinstance(value, list | dict):
        raise RejectError(f"{name} is nested deeper than {NESTING} levels")
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int():
            return number(value, name)
        case Decimal():
            if is_column and is_rounded(value):
                raise RejectError(
                    f"{name} came in scientific notation and may be rounded: set UseLargeIntegerValue on the endpoint, "
                    "or declare it as number if it is FLOAT or DOUBLE"
                )
            return number(value, name)
        case list():
            return {"L": [_told(each, name, depth + 1, is_column=False) for each in value]}
    if "" in value:
        raise RejectError(f"{name} has a member without a name: declare it as string")
    return {"M": {key: _told(each, name, depth + 1, is_column=False) for key, each in value.items()}}


def _number(value: Any, name: str) -> Attribute:
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?", value):
            raise RejectError(f"{name} is no number")
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RejectError(f"{name} is no number")
    return number(value, name)


def _string(value: Any, name: str) -> Attribute:
    if isinstance(value, Decimal) and is_rounded(value):
        raise RejectError(f"{name} came in scientific notation and may be rounded")
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise RejectError(f"{name} is no text")
    return {"S": f"{value:f}" if isinstance(value, Decimal) else str(value)}


def _boolean(value: Any, name: str) -> Attribute:
    # BIT(1) comes as a string of one byte or digit.
    values: dict[Any, bool] = {
        0: False,
        1: True,
        "0": False,
        "1": True,
        "\0": False,
        "\1": True,
        "false": False,
        "true": True,
    }
    if not isinstance(value, bool | int | str) or value not in values:
        raise RejectError(f"{name} is neither 0 nor 1")
    return {"BOOL": values[value]}


def _binary(value: Any, name: str) -> Attribute:
    try:
        return {"B": binascii.unhexlify(str(value).removeprefix("0x"))}
    except ValueError as error:
        raise RejectError(f"{name} is not hexadecimal") from error


def _json(value: Any, name: str) -> Attribute:
    return _told(loads(value) if isinstance(value, str) else value, name, is_column=False)


def _set(value: Any, name: str) -> Attribute | None:
    if not isinstance(value, str):
        raise RejectError(f"{name} is no SET")
    return {"SS": sorted({*value.split(",")})} if value else None


def _no_constant(text: str) -> Any:
    raise ValueError(text)


_BY_KIND: dict[str, Callable[[Any, str], Attribute | None]] = {
    "": _told,
    "integer": lambda value, name: number(whole(value, name), name),
    "number": _number,
    "string": _string,
    "boolean": _boolean,
    "binary": _binary,
    "json": _json,
    "set": _set,
}
