r"""A MySQL value as an attribute of an item, exact in both directions.

MySQL values are those that mysqlclient gives for :attr:`ColumnCodec.select_sql`. From an attribute in DynamoDB's wire form come the
JSON value and the hash field of Redis, so every store holds the same value. Form by type (dates as AWS DMS writes them to Kinesis, so
that a backfill and a change stream make the same item):

    integers, YEAR, BIT(n)     N                       DATE              S ``2026-11-29``
    BIT(1)                     BOOL                    DATETIME(p)       S ``2026-11-29T10:00:00.123456Z``, p decimals, wall clock
    DECIMAL up to 38 digits    N                       TIMESTAMP(p)      the same in UTC
    DECIMAL above              S, as MySQL prints it   TIME(p)           S ``-838:59:59.000000``
    FLOAT, DOUBLE              N; S beyond N's range   CHAR, TEXT, ENUM  S
    BINARY, BLOB               B                       SET               SS; the empty set is an empty L
    JSON                       M, L, ... or S          NULL              left out, or NULL
    spatial types              UnknownType

What is not kept: the sign of a zero, trailing zeros of numbers in JSON, and the difference of 1.0 and 1 there.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from dbops.keyvalue.items import (
    DIGITS,
    EXACT,
    NESTING,
    Attribute,
    Reject,
    fits_number,
    json_dumps,
    json_loads,
    number_text,
)
from dbops.mysql import Column
from dbops.sql import ident

Kind = Literal[
    "integer", "decimal", "decimal_text", "float", "double", "bit", "date", "moment", "time", "text", "binary", "json", "enum", "set",
]  # fmt: skip
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_BINARIES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_SPATIAL = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
    "geomcollection",
}  # fmt: skip
_NUMBERS = {"integer", "decimal", "float", "double", "bit"}
_YEAR = (1901, 2155)
_LONGEST_TIME = timedelta(hours=838, minutes=59, seconds=59)
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})[ T](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,6}))?Z?")
_TIME = re.compile(r"(-?)(\d{1,3}):(\d{2}):(\d{2})(?:\.(\d{1,6}))?")
_SINGLE = struct.Struct("<f")


class UnknownType(ValueError):
    """No exact form for a column of this type; the text says what to do instead."""


@dataclass(frozen=True)
class Policy:
    """What is done where MySQL has a value that the store has not."""

    nulls: Literal["omit", "null"] = "omit"
    """``omit`` the attribute, or write the type NULL where that must differ from an item that was written without the column."""
    zero_dates: Literal["reject", "null", "text"] = "reject"
    """For ``0000-00-00`` and dates that no calendar has: refuse the row, take them for NULL (not exact), or keep their text."""
    enum_error: Literal["reject", "text"] = "reject"
    """For index 0, which MySQL stores for a value that it did not know: refuse the row, or keep the empty text."""
    empty_set: Literal["list", "null"] = "list"
    """DynamoDB has no empty set: an empty list, or as NULL is written (not exact; cdc_apply does that)."""
    json: Literal["document", "text"] = "document"
    """A document of maps and lists, or one text (canonical JSON), which holds what DynamoDB's numbers and nesting cannot."""


@dataclass(frozen=True)
class ColumnCodec:
    """How values of one column travel. Made by :func:`codec_for`."""

    column: Column
    kind: Kind
    policy: Policy = Policy()
    low: int = 0
    high: int = 0
    """Range of an integer."""
    digits: int = 0
    """Of a DECIMAL: all of them; of BIT: its bits; of BINARY: its bytes."""
    scale: int = 0
    """Decimals of a DECIMAL, or of the seconds of a time."""
    members: tuple[str, ...] = field(default=(), repr=False)
    """Values of an ENUM or SET, in order."""

    @property
    def name(self) -> str:
        """Of the column, and of the attribute."""
        return self.column.name

    @property
    def select_sql(self) -> str:
        """The expression to read, of which the driver gives the exact value.

        As text a FLOAT has six digits, and mysqlclient makes None of a zero date, as it does of NULL.
        """
        c = ident(self.name)
        if self.kind in ("float", "double"):
            return f"{c} * 1e0"
        return f"CAST({c} AS CHAR)" if self.kind in ("date", "moment") else c

    @property
    def null(self) -> Attribute | None:
        """What NULL is written as; None for nothing."""
        return {"NULL": True} if self.policy.nulls == "null" else None

    def encode(self, value: Any) -> Attribute | None:
        """The attribute of a MySQL value; None when it is left out.

        Raises:
            Reject: the store has no such value, or the column has not
        """
        if value is None:
            if self.kind in ("date", "moment") and not self.column.nullable and self.policy.zero_dates == "reject":
                raise self.reject("is NULL in a column that has none: a zero date, read it by select_sql")
            return self.null
        return _ENCODE[self.kind](self, value)

    def decode(self, attribute: Attribute | None) -> Any:
        """The MySQL value of an attribute, as the driver gives it; dates that no calendar has are text.

        Raises:
            Reject: the attribute is none that `encode` makes
        """
        if attribute is None or ("NULL" in attribute and not self._has_json_null):
            return None
        try:
            return _DECODE[self.kind](self, attribute)
        except (KeyError, ArithmeticError, ValueError) as error:
            if isinstance(error, Reject):
                raise
            raise self.reject(f"holds {'/'.join(attribute)}, which is no value of {self.column.column_type}") from error

    def to_json(self, attribute: Attribute) -> Any:
        """Its value in a JSON document: bytes are base64, numbers are exact numbers."""
        found = _plain(attribute)
        return Decimal(found) if self.kind in ("float", "double") and isinstance(found, str) else found

    def from_json(self, value: Any) -> Attribute:
        """The attribute of a value of a JSON document.

        Raises:
            Reject: `to_json` makes no such value
        """
        if value is None:
            return {"NULL": True}
        if self.kind == "json":
            return {"S": value} if self.policy.json == "text" else _document(self, value)
        match value:
            case bool() if self.kind == "bit":
                return {"BOOL": value}
            case int() | Decimal() if self.kind in _NUMBERS and not isinstance(value, bool):
                return {"N" if fits_number(value) else "S": number_text(value)}
            case list() if self.kind == "set":
                return {"SS": value} if value else {"L": []}
            case str() if self.kind not in _NUMBERS:
                return {"B": base64.b64decode(value)} if self.kind == "binary" else {"S": value}
        raise self.reject(f"holds a {type(value).__name__}, which is no value of {self.column.column_type}")

    def to_field(self, attribute: Attribute) -> bytes:
        """Its value as a field of a hash: text as it is, bytes as they are, JSON as canonical JSON."""
        if self.kind == "json":
            return json_dumps(_plain(attribute)).encode()
        ((kind, value),) = attribute.items()
        match kind:
            case "B":
                return bytes(value)
            case "BOOL":
                return b"1" if value else b"0"
            case "SS":
                return ",".join(sorted(value)).encode()
            case "L":
                return b""
        return str(value).encode()

    def from_field(self, value: bytes) -> Attribute:
        """The attribute of a field of a hash.

        Raises:
            Reject: `to_field` makes no such value
        """
        if self.kind == "json":
            return self.from_json(json_loads(value, self.name))
        if self.kind == "binary":
            return {"B": value}
        text = value.decode()
        match self.kind:
            case "bit":
                return {"BOOL": text == "1"} if self.digits == 1 else {"N": text}
            case "integer" | "decimal" | "float" | "double":
                return self.from_json(Decimal(text))
            case "set":
                return {"SS": text.split(",")} if text else {"L": []}
        return {"S": text}

    @property
    def _has_json_null(self) -> bool:
        """Whether the type NULL is the JSON null, and not MySQL's NULL."""
        return self.kind == "json" and self.policy.json == "document" and self.policy.nulls == "omit"

    def reject(self, reason: str) -> Reject:
        """The error for a value of this column."""
        return Reject(f"{self.name} ({self.column.column_type}) {reason}")


def codec_for(column: Column, policy: Policy | None = None) -> ColumnCodec:
    """The codec of a column.

    Args:
        column: of `dbops.mysql.read_table`, or described by the caller for a column of a join: then `nullable` says whether the join may
            leave it out
        policy: for values that the store has not

    Raises:
        UnknownType: spatial columns, and types that are not of MySQL 5.7 or 8.0
    """
    kind = column.data_type.lower()
    if kind in _SPATIAL:
        raise UnknownType(
            f"{column.name} is of type {column.column_type}: a store has no geometry; select ST_AsText({column.name}) or "
            f"ST_AsGeoJSON({column.name}) instead"
        )
    make = _MAKE.get(kind)
    if make is None:
        raise UnknownType(f"{column.name} is of type {column.column_type}, which has no exact form: select it as text")
    return make(column, policy or Policy())


def is_double_encoded(text: str) -> bool:
    """Whether the text looks like UTF-8 that was read as latin1 and encoded again (``Ã¼`` for ``ü``): a fault of old data, to count."""
    if text.isascii():
        return False
    try:
        return text.encode("cp1252").decode() != text
    except UnicodeError:
        return False


# --- to attributes -----------------------------------------------------------------------------------------------------


def _text(codec: ColumnCodec, value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeError as error:
            raise codec.reject("is no UTF-8: open the connection with charset utf8mb4") from error
    if not isinstance(value, str):
        raise codec.reject(f"is a {type(value).__name__}, not text")
    return value


def _from_text(codec: ColumnCodec, value: Any) -> Attribute:
    text = _text(codec, value)
    try:
        text.encode()
    except UnicodeError as error:
        raise codec.reject("holds half a surrogate pair") from error
    # MySQL stores CHAR padded and gives it back without: an application's value must not differ from the one that is read.
    return {"S": text.rstrip(" ") if codec.column.data_type == "char" else text}


def _from_integer(codec: ColumnCodec, value: Any) -> Attribute:
    if isinstance(value, Decimal) and value == value.to_integral_value(context=EXACT):
        value = int(value)  # SUM() and the like give DECIMAL
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int):
        raise codec.reject(f"is a {type(value).__name__}, not a whole number")
    is_year = codec.column.data_type == "year"
    if not codec.low <= value <= codec.high or (is_year and 0 < value < _YEAR[0]):
        raise codec.reject("is out of range")
    return {"N": str(value)}


def _from_decimal(codec: ColumnCodec, value: Any) -> Attribute:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise codec.reject(f"is a {type(value).__name__}, not a Decimal")
    exact = Decimal(value)
    if not exact.is_finite():
        raise codec.reject("is no number")
    whole = exact.quantize(Decimal((0, (1,), -codec.scale)), context=EXACT)
    if exact.copy_abs() >= Decimal(10) ** (codec.digits - codec.scale) or exact != whole:
        raise codec.reject("is out of range or has more decimals than the column")
    if codec.kind == "decimal_text":
        return {"S": f"{whole if whole else whole.copy_abs():f}"}
    return {"N": number_text(exact)}


def _from_float(codec: ColumnCodec, value: Any) -> Attribute:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise codec.reject(f"is a {type(value).__name__}, not a float")
    exact = float(value)
    if exact != exact or exact in (float("inf"), float("-inf")):
        raise codec.reject("is no number")
    number = Decimal(_shortest_single(codec, exact) if codec.kind == "float" else repr(exact))
    return {"N" if fits_number(number) else "S": number_text(number)}


def _shortest_single(codec: ColumnCodec, value: float) -> str:
    """The fewest digits that are this value in single precision: 0.1, not 0.10000000149011612."""
    try:
        single = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError as error:
        raise codec.reject("is out of range") from error
    return next(
        text for text in (f"{single:.{n}g}" for n in range(6, 18)) if _SINGLE.pack(float(text)) == _SINGLE.pack(single)
    )


def _from_bit(codec: ColumnCodec, value: Any) -> Attribute:
    number = int.from_bytes(value, "big") if isinstance(value, bytes) else value
    if not isinstance(number, int) or not 0 <= number <= codec.high:
        raise codec.reject("is out of range, or not bytes or a whole number")
    return {"BOOL": bool(number)} if codec.digits == 1 else {"N": str(int(number))}


def _from_date(codec: ColumnCodec, value: Any) -> Attribute | None:
    if isinstance(value, datetime) or (isinstance(value, str | bytes) and not _DATE.fullmatch(_text(codec, value))):
        raise codec.reject("is no date")
    if isinstance(value, date):
        return {"S": value.isoformat()}
    text = _text(codec, value)
    return {"S": text} if _in_calendar(text) else _zero_date(codec, text)


def _from_moment(codec: ColumnCodec, value: Any) -> Attribute | None:
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            if codec.column.data_type == "datetime":
                raise codec.reject("has a time zone, which DATETIME has not: give the wall clock that MySQL stores")
            value = value.astimezone(UTC).replace(tzinfo=None)
        day, hours, minutes, seconds = value.date().isoformat(), value.hour, value.minute, value.second
        fraction = f"{value.microsecond:06d}"
    else:
        found = _MOMENT.fullmatch(_text(codec, value))
        if not found:
            raise codec.reject("is no date and time")
        day, hours, minutes, seconds = found[1], int(found[2]), int(found[3]), int(found[4])
        fraction = (found[5] or "").ljust(6, "0")
    if hours > 23 or minutes > 59 or seconds > 59:
        raise codec.reject("is no time of a day")
    text = f"{day}T{hours:02d}:{minutes:02d}:{seconds:02d}{_fraction(codec, fraction)}Z"
    return {"S": text} if _in_calendar(day) else _zero_date(codec, text)


def _from_time(codec: ColumnCodec, value: Any) -> Attribute:
    if not isinstance(value, timedelta):
        found = _TIME.fullmatch(_text(codec, value))
        if not found:
            raise codec.reject("is no time")
        micros = int((found[5] or "").ljust(6, "0"))
        span = timedelta(hours=int(found[2]), minutes=int(found[3]), seconds=int(found[4]), microseconds=micros)
        value = -span if found[1] else span
    sign, span = ("-", -value) if value < timedelta() else ("", value)
    if span > _LONGEST_TIME:
        raise codec.reject("is longer than 838:59:59")
    seconds = span.days * 86_400 + span.seconds
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return {"S": f"{sign}{clock}{_fraction(codec, f'{span.microseconds:06d}')}"}


def _fraction(codec: ColumnCodec, micros: str) -> str:
    if micros[codec.scale :].strip("0"):
        raise codec.reject(f"has more than {codec.scale} decimals: MySQL would round it")
    return f".{micros[: codec.scale]}" if codec.scale else ""


def _in_calendar(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def _zero_date(codec: ColumnCodec, text: str) -> Attribute | None:
    match codec.policy.zero_dates:
        case "text":
            return {"S": text}
        case "null":
            return codec.null
    raise codec.reject("is a zero date, or one that no calendar has: set zero_dates to text or null")


def _from_binary(codec: ColumnCodec, value: Any) -> Attribute:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise codec.reject(f"is a {type(value).__name__}, not bytes")
    found = bytes(value)
    if codec.digits and len(found) > codec.digits:
        raise codec.reject(f"has {len(found)} bytes")
    return {"B": found.ljust(codec.digits, b"\0")}


def _from_json(codec: ColumnCodec, value: Any) -> Attribute:
    found = json_loads(value, codec.name) if isinstance(value, str | bytes) else _exact(codec, value)
    if codec.policy.json == "text":
        return {"S": json_dumps(found)}
    if found is None and codec.policy.nulls == "null":
        raise codec.reject("is the JSON null, which would read as NULL: set json to text")
    return _document(codec, found)


def _exact(codec: ColumnCodec, value: Any) -> Any:
    """An application's document with its floats as MySQL would read their text."""
    match value:
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise codec.reject("holds a number that JSON has not")
            return Decimal(repr(value))
        case list() | tuple():
            return [_exact(codec, each) for each in value]
        case dict():
            return {str(name): _exact(codec, each) for name, each in value.items()}
    return value


def _document(codec: ColumnCodec, value: Any, depth: int = 0) -> Attribute:
    if depth >= NESTING and isinstance(value, list | dict):
        raise codec.reject(f"is nested deeper than {NESTING} levels: set json to text")
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int() | Decimal():
            if not fits_number(value):
                raise codec.reject("holds a number that DynamoDB has not: set json to text")
            return {"N": number_text(value)}
        case list():
            return {"L": [_document(codec, each, depth + 1) for each in value]}
        case dict():
            if "" in value:
                raise codec.reject("has a member without a name: set json to text")
            return {"M": {name: _document(codec, each, depth + 1) for name, each in value.items()}}
    raise codec.reject(f"holds a {type(value).__name__}, which JSON has not")


def _from_enum(codec: ColumnCodec, value: Any) -> Attribute:
    text = _text(codec, value)
    if text not in codec.members:
        if text:
            raise codec.reject("is none of its members")
        if codec.policy.enum_error == "reject":
            raise codec.reject(
                "has index 0, a value that MySQL did not know: correct the row, or set enum_error to text"
            )
    return {"S": text}


def _from_set(codec: ColumnCodec, value: Any) -> Attribute | None:
    found = _text(codec, ",".join(value) if isinstance(value, set | frozenset) else value)
    if not found:
        return {"L": []} if codec.policy.empty_set == "list" else codec.null
    members = set(found.split(","))
    if not members <= set(codec.members):
        raise codec.reject("has a member that it does not know")
    return {"SS": sorted(members)}


# --- back to MySQL -----------------------------------------------------------------------------------------------------


def _to_decimal(codec: ColumnCodec, attribute: Attribute) -> Decimal:
    found = Decimal(attribute["S" if codec.kind == "decimal_text" else "N"])
    return found.quantize(Decimal((0, (1,), -codec.scale)), context=EXACT)


def _to_float(codec: ColumnCodec, attribute: Attribute) -> float:
    ((kind, text),) = attribute.items()
    if kind not in ("N", "S"):
        raise KeyError(kind)
    found = float(text)
    return float(_SINGLE.unpack(_SINGLE.pack(found))[0]) if codec.kind == "float" else found


def _to_bit(codec: ColumnCodec, attribute: Attribute) -> bytes:
    number = int(attribute["BOOL"]) if codec.digits == 1 else int(attribute["N"])
    return number.to_bytes((codec.digits + 7) // 8, "big")


def _to_date(codec: ColumnCodec, attribute: Attribute) -> date | str:
    text = str(attribute["S"])
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text) if _in_calendar(text) else text


def _to_moment(codec: ColumnCodec, attribute: Attribute) -> datetime | str:
    text = str(attribute["S"])
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    plain = text.removesuffix("Z").replace("T", " ")
    return datetime.fromisoformat(plain.ljust(26, "0") if "." in plain else plain) if _in_calendar(text[:10]) else plain


def _to_time(codec: ColumnCodec, attribute: Attribute) -> timedelta:
    found = _TIME.fullmatch(str(attribute["S"]))
    if not found:
        raise ValueError(attribute["S"])
    micros = int((found[5] or "").ljust(6, "0"))
    span = timedelta(hours=int(found[2]), minutes=int(found[3]), seconds=int(found[4]), microseconds=micros)
    return -span if found[1] else span


def _to_json(codec: ColumnCodec, attribute: Attribute) -> str:
    return str(attribute["S"]) if codec.policy.json == "text" else json_dumps(_plain(attribute))


def _to_set(codec: ColumnCodec, attribute: Attribute) -> str:
    found = set(attribute["L"] if "L" in attribute else attribute["SS"])
    if not found <= set(codec.members):
        raise ValueError("an unknown member")
    return ",".join(member for member in codec.members if member in found)


def _plain(attribute: Attribute) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "NULL":
            return None
        case "N":
            number = Decimal(value)
            return int(number) if number == number.to_integral_value(context=EXACT) else number
        case "L":
            return [_plain(each) for each in value]
        case "M":
            return {name: _plain(each) for name, each in value.items()}
        case "SS":
            return sorted(value)
        case "B":
            return bytes(value)
    return value


def _precision(column: Column) -> tuple[int, int]:
    if column.numeric_precision is not None:
        return column.numeric_precision, column.numeric_scale or 0
    found = re.search(r"\((\d+)(?:,\s*(\d+))?\)", column.column_type)
    return (int(found[1]), int(found[2] or 0)) if found else (10, 0)


def _size(column: Column, default: int = 1) -> int:
    found = re.search(r"\((\d+)\)", column.column_type)
    return int(found[1]) if found else default


_ENCODE: dict[Kind, Callable[[ColumnCodec, Any], Attribute | None]] = {
    "integer": _from_integer,
    "decimal": _from_decimal,
    "decimal_text": _from_decimal,
    "float": _from_float,
    "double": _from_float,
    "bit": _from_bit,
    "date": _from_date,
    "moment": _from_moment,
    "time": _from_time,
    "text": _from_text,
    "binary": _from_binary,
    "json": _from_json,
    "enum": _from_enum,
    "set": _from_set,
}
_DECODE: dict[Kind, Callable[[ColumnCodec, Attribute], Any]] = {
    "integer": lambda _, attribute: int(attribute["N"]),
    "decimal": _to_decimal,
    "decimal_text": _to_decimal,
    "float": _to_float,
    "double": _to_float,
    "bit": _to_bit,
    "date": _to_date,
    "moment": _to_moment,
    "time": _to_time,
    "text": lambda _, attribute: str(attribute["S"]),
    "binary": lambda _, attribute: bytes(attribute["B"]),
    "json": _to_json,
    "enum": lambda _, attribute: str(attribute["S"]),
    "set": _to_set,
}


def _of_integer(column: Column, policy: Policy) -> ColumnCodec:
    bits = _BITS[column.data_type.lower()]
    low, high = (0, 2**bits - 1) if column.unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ColumnCodec(column, "integer", policy, low=low, high=high)


def _of_decimal(column: Column, policy: Policy) -> ColumnCodec:
    digits, scale = _precision(column)
    return ColumnCodec(column, "decimal" if digits <= DIGITS else "decimal_text", policy, digits=digits, scale=scale)


def _of_bit(column: Column, policy: Policy) -> ColumnCodec:
    return ColumnCodec(column, "bit", policy, digits=_size(column), high=2 ** _size(column) - 1)


def _of_members(column: Column, policy: Policy) -> ColumnCodec:
    kind: Kind = "enum" if column.data_type.lower() == "enum" else "set"
    members = tuple(m.replace("''", "'") for m in re.findall(r"'((?:[^']|'')*)'", column.column_type))
    if kind == "set" and "" in members:
        raise UnknownType(
            f"{column.name}: a SET with an empty member reads as the empty set: select {column.name} + 0 instead"
        )
    return ColumnCodec(column, kind, policy, members=members)


_MAKE: dict[str, Callable[[Column, Policy], ColumnCodec]] = {
    **dict.fromkeys(_BITS, _of_integer),
    **dict.fromkeys(_TEXTS, lambda column, policy: ColumnCodec(column, "text", policy)),
    **dict.fromkeys(_BINARIES, lambda column, policy: ColumnCodec(column, "binary", policy)),
    "binary": lambda column, policy: ColumnCodec(column, "binary", policy, digits=_size(column)),
    "decimal": _of_decimal,
    "float": lambda column, policy: ColumnCodec(column, "float", policy),
    "double": lambda column, policy: ColumnCodec(column, "double", policy),
    "year": lambda column, policy: ColumnCodec(column, "integer", policy, low=0, high=_YEAR[1]),
    "bit": _of_bit,
    "date": lambda column, policy: ColumnCodec(column, "date", policy),
    "datetime": lambda column, policy: ColumnCodec(column, "moment", policy, scale=_size(column, 0)),
    "timestamp": lambda column, policy: ColumnCodec(column, "moment", policy, scale=_size(column, 0)),
    "time": lambda column, policy: ColumnCodec(column, "time", policy, scale=_size(column, 0)),
    "json": lambda column, policy: ColumnCodec(column, "json", policy),
    "enum": _of_members,
    "set": _of_members,
}
