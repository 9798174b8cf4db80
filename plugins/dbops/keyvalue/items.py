"""What an item is apart from its meaning: numbers as DynamoDB has them, canonical text, hash, size.

An item is in the wire form of the low-level client: name -> ``{"S": "text"}``, ``{"N": "1.5"}``, ``{"B": b"..."}``, and so on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from hashlib import blake2b
from typing import Any

Attribute = dict[str, Any]
Item = dict[str, Attribute]

DIGITS = 38  # of a number of DynamoDB
LARGEST, SMALLEST = Decimal("9.9999999999999999999999999999999999999E+125"), Decimal("1E-130")
NESTING = 31  # lists and maps in each other; the item itself is the 32nd level
ITEM_BYTES = 400 * 1024
WRITE_UNIT_BYTES = 1024
READ_UNIT_BYTES = 4096
EXACT = Context(prec=1000)
_ALL_DIGITS = 10**DIGITS
_MODULUS = 2**64
_quoted = (
    json.encoder.encode_basestring
)  # what json.dumps(ensure_ascii=False) does to a text, without an encoder made for each


class Reject(ValueError):
    """A row cannot become an item; the text says which column and why, and holds no value of the row."""


def number_text(value: int | Decimal) -> str:
    """The one text of a number: no trailing zeros, no negative zero, scientific beyond 38 places (boto3 refuses to read more digits)."""
    if type(value) is int and -_ALL_DIGITS < value < _ALL_DIGITS:
        return str(value)
    exact = Decimal(value).normalize(EXACT)
    if not exact:
        return "0"
    return f"{exact:f}" if -DIGITS <= exact.adjusted() < DIGITS else str(exact)


def fits_number(value: int | Decimal) -> bool:
    """Whether DynamoDB has this number: 38 digits, magnitude 1E-130 to 9.99E+125."""
    if isinstance(value, int) and -_ALL_DIGITS < value < _ALL_DIGITS:
        return True
    if len(text := str(value)) <= DIGITS and "E" not in text:
        return True
    exact = Decimal(value).normalize(EXACT)
    return not exact or (len(exact.as_tuple().digits) <= DIGITS and SMALLEST <= exact.copy_abs() <= LARGEST)


def json_dumps(value: Any) -> str:
    """Canonical JSON: names sorted, no spaces, numbers of any length, text not escaped beyond need, bytes in base64."""
    match value:
        case None | bool():
            return "null" if value is None else "true" if value else "false"
        case int() | Decimal():
            return number_text(value)
        case str():
            return _quoted(value)
        case bytes():
            return _quoted(base64.b64encode(value).decode())
        case list() | tuple():
            return f"[{','.join([json_dumps(each) for each in value])}]"
        case dict():
            return f"{{{','.join([f'{_quoted(name)}:{json_dumps(value[name])}' for name in sorted(value)])}}}"
    raise TypeError(f"{type(value).__name__} has no JSON")


def json_loads(text: str | bytes, name: str = "the document") -> Any:
    """JSON with exact numbers.

    Raises:
        Reject: it is not JSON, or has NaN, Infinity or half a surrogate pair
    """
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
        if isinstance(text, str) and "\\u" not in text and text.isascii():
            return found
        json.dumps(found, ensure_ascii=False, default=str).encode()
    except RecursionError as error:
        raise Reject(f"{name}: the JSON is nested too deeply") from error
    except ValueError as error:  # also text that is not UTF-8, and whole numbers of more than 4,300 digits
        raise Reject(f"{name}: not JSON ({type(error).__name__})") from error
    return found


def canonical(item: Mapping[str, Attribute], without: Collection[str] = ()) -> str:
    """The text that two items have in common when they hold the same: sorted, numbers normalised, sets in order.

    Args:
        item: in wire form
        without: names that are not part of the row, such as version and run stamp (`rules.Names.all`)
    """
    # In wire form numbers are text, so the fast JSON of the standard library will do.
    plain = {name: _canonical(value) for name, value in item.items() if name not in without}
    return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def item_hash(item: Mapping[str, Attribute], without: Collection[str] = ()) -> int:
    """64 bits of the canonical text."""
    return int.from_bytes(blake2b(canonical(item, without).encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Digest:
    """Count and sum of the hashes of a chunk, which do not depend on order.

    A sum rather than XOR: the same row twice would vanish from that (field rule 6.2).
    """

    count: int = 0
    total: int = 0
    """Sum of the hashes modulo 2**64."""

    def add(self, item_hash: int) -> Digest:
        """With one item more."""
        return Digest(self.count + 1, (self.total + item_hash) % _MODULUS)

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.count + other.count, (self.total + other.total) % _MODULUS)

    @classmethod
    def of(cls, hashes: Iterable[int]) -> Digest:
        """Of these items."""
        found = list(hashes)
        return cls(len(found), sum(found) % _MODULUS)


def item_size(item: Mapping[str, Attribute]) -> int:
    """Bytes of an item by DynamoDB's rules: names count, a number is half a byte per digit and up to two more."""
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def value_size(attribute: Attribute) -> int:
    """Bytes of one value without its name."""
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value.encode())
        case "B":
            return len(value)
        case "N":
            return _number_size(value)
        case "BOOL" | "NULL":
            return 1
        case "SS":
            return sum(len(each.encode()) for each in value)
        case "NS":
            return sum(map(_number_size, value))
        case "BS":
            return sum(map(len, value))
        case "L":
            return 3 + sum(1 + value_size(each) for each in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + value_size(each) for name, each in value.items())
    raise ValueError(f"{kind} is no type of DynamoDB")


def write_units(item: Mapping[str, Attribute]) -> int:
    """Write units that one PutItem of it costs, written or refused; indexes and transactions cost more."""
    return max(1, -(-item_size(item) // WRITE_UNIT_BYTES))


def read_units(size: int) -> int:
    """Read units that one consistent read of so many bytes costs; of an item that is not there as well."""
    return max(1, -(-size // READ_UNIT_BYTES))


def check_size(item: Mapping[str, Attribute]) -> int:
    """The size of an item that fits.

    Raises:
        Reject: it is larger than DynamoDB's 400 KB; the text names the largest attributes
    """
    size = item_size(item)
    if size <= ITEM_BYTES:
        return size
    largest = sorted(item, key=lambda name: -value_size(item[name]))[:3]
    parts = ", ".join(f"{name} {value_size(item[name]):,}" for name in largest)
    raise Reject(
        f"the item has {size:,} bytes, DynamoDB's limit is {ITEM_BYTES:,} (largest: {parts}): compress, split by sort key, "
        "or keep the value in S3"
    )


def _canonical(attribute: Attribute) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "S" | "BOOL" | "NULL":
            return attribute
        case "N":
            return {"N": _canonical_number(value)}
        case "B":
            return {"B": base64.b64encode(value).decode()}
        case "SS":
            return {"SS": sorted(value)}
        case "L":
            return {"L": [_canonical(each) for each in value]}
        case "M":
            return {"M": {name: _canonical(each) for name, each in value.items()}}
        case "NS":
            return {"NS": sorted(map(_canonical_number, value))}
        case "BS":
            return {"BS": sorted(base64.b64encode(each).decode() for each in value)}
    raise ValueError(f"{kind} is no type of DynamoDB")


def _canonical_number(text: str) -> str:
    if len(text) <= DIGITS and text.isascii() and text.isdigit() and text[0] != "0":
        return text
    return number_text(Decimal(text))


def _number_size(text: str) -> int:
    # Most numbers are short and in the form of `number_text`, where their digits can be counted in the text.
    is_negative = text.startswith("-")
    whole, point, fraction = (text[1:] if is_negative else text).partition(".")
    if whole.isdigit() and whole[0] != "0" and (not point or (fraction.isdigit() and fraction[-1] != "0")):
        zeros = 0 if point else len(whole) - len(whole.rstrip("0"))
        count = len(whole) - zeros + len(fraction)
        return -(-(count + (zeros + len(fraction)) % 2) // 2) + 1 + is_negative
    sign, digits, exponent = Decimal(text).normalize(EXACT).as_tuple()
    if not any(digits):
        return 1
    # Two digits share a byte, at even places of the number: an odd exponent leaves half a byte free at the end.
    count = len(digits) + (int(exponent) % 2)
    return -(-count // 2) + 1 + sign


def _no_constant(text: str) -> Any:
    raise ValueError(text)
