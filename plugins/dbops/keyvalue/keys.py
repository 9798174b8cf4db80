"""Key templates: ``USER#{id}``, ``ORDER#{created_at}#{id:pad}``. Different rows never get one key, by construction.

A template is text with columns in braces. Text between two columns separates them: its characters, and ``%``, are written as ``%XX``
where they stand in a value, so a key can be read back in one way only (:meth:`KeyTemplate.values`). The forms of a column:

    {id}       the value's text, as the attribute of the column has it (bytes: 0x and hexadecimal digits)
    {id:12}    a whole number that is not negative, with zeros to 12 digits
    {id:pad}   a number at the width of its type, so that keys sort as numbers do; a negative one begins with ``-``, which sorts first

They are the forms of cdc_apply's templates, which has no ``pad``: there the width is written out. `for_cdc_apply` says how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from string import Formatter
from typing import Any, Literal
from urllib.parse import unquote

from dbops.keyvalue.codec import ColumnCodec
from dbops.keyvalue.items import EXACT, Attribute, Item, Reject

PARTITION_BYTES, SORT_BYTES = 2048, 1024
_MICROSECOND = timedelta(microseconds=1)
_TIME_DIGITS = 13  # 838:59:59 in microseconds
_USABLE = {"integer", "decimal", "decimal_text", "date", "moment", "time", "text", "binary", "enum"}


class TemplateError(ValueError):
    """A key template is wrong, or could give two rows one key; the text says what to write instead."""


@dataclass(frozen=True)
class Piece:
    """Text, and the column after it."""

    text: str
    codec: ColumnCodec | None = None
    width: int = 0
    """Digits that a number is padded to; 0 for none."""
    is_typed: bool = False
    """The width is that of the type, and a negative number is allowed."""


@dataclass(frozen=True)
class KeyTemplate:
    """How the text of a key is made of columns. Made by :func:`template`."""

    text: str
    pieces: tuple[Piece, ...]
    limit: int = PARTITION_BYTES
    """Bytes that the store allows."""

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that it is made of, in order."""
        return tuple(piece.codec.name for piece in self.pieces if piece.codec)

    @cached_property
    def is_plain(self) -> bool:
        """It is one column and nothing else: the key is the column's own attribute, a number or bytes where it is one."""
        return len(self.pieces) == 1 and not self.pieces[0].text and not self.pieces[0].width

    @property
    def kind(self) -> Literal["S", "N", "B"]:
        """Type of the key attribute."""
        codec = self.pieces[0].codec if self.is_plain else None
        if codec is None:
            return "S"
        return "N" if codec.kind in ("integer", "decimal") else "B" if codec.kind == "binary" else "S"

    @cached_property
    def separators(self) -> str:
        """Characters between two values, which do not stand in a value unescaped."""
        return "".join(piece.text for piece in self.pieces[1:] if piece.codec)

    @property
    def for_cdc_apply(self) -> str:
        """The same template as cdc_apply takes it: with widths instead of ``pad``.

        Raises:
            TemplateError: it has a number that may be negative or has decimals, which cdc_apply does not pad
        """
        made = ""
        for piece in self.pieces:
            if piece.is_typed and piece.codec and (piece.codec.low < 0 or piece.codec.kind != "integer"):
                raise TemplateError(
                    f"{self.text!r}: cdc_apply pads whole numbers that are not negative only, not {piece.codec.name}"
                )
            form = f":{piece.width}" if piece.width else ""
            made += piece.text.replace("{", "{{").replace("}", "}}") + (
                f"{{{piece.codec.name}{form}}}" if piece.codec else ""
            )
        return made

    def attribute(self, row: Mapping[str, Any]) -> Attribute:
        """The key attribute of a row.

        Args:
            row: MySQL values by column; others than the template's are not looked at

        Raises:
            Reject: a column is missing, NULL or out of range, or the key is empty or longer than the store allows
        """
        if self.is_plain and self.pieces[0].codec:
            codec = self.pieces[0].codec
            if (plain := codec.encode(_value(codec, row))) is None:
                raise codec.reject("has no value that could be a key")
            found = plain
        else:
            found = {"S": self.render(row)}
        ((kind, value),) = found.items()
        size = len(value.encode()) if kind == "S" else len(value)
        if not 0 < size <= self.limit:
            raise Reject(f"the key {self.text!r} has {size:,} bytes: DynamoDB takes 1 to {self.limit:,}")
        return found

    def render(self, row: Mapping[str, Any]) -> str:
        """The text of the key of a row.

        Raises:
            Reject: a column is missing, NULL or out of range
        """
        separators = self.separators
        made = ""
        for piece in self.pieces:
            made += piece.text
            if piece.codec is None:
                continue
            value = _value(piece.codec, row)
            if piece.width:
                made += _padded(_whole(piece.codec, value), piece)
            else:
                made += _escaped(_text(piece.codec, value), separators)
        return made

    def values(self, key: str) -> dict[str, Any]:
        """The MySQL values that a key was made of: what shows that no two rows have one key.

        Raises:
            Reject: it is no key of this template
        """
        found: dict[str, Any] = {}
        rest = key
        for position, piece in enumerate(self.pieces):
            if not rest.startswith(piece.text):
                raise Reject(f"it is no key of {self.text!r}")
            rest = rest[len(piece.text) :]
            if piece.codec is None:
                continue
            taken = self._taken(rest, position, piece)
            rest = rest[len(taken) :]
            try:
                found[piece.codec.name] = _back(piece, taken if not self.separators else unquote(taken))
            except (ValueError, ArithmeticError) as error:
                raise Reject(f"it is no key of {self.text!r}: {piece.codec.name} cannot be read") from error
        if rest or self.render(found) != key:
            raise Reject(f"it is no key of {self.text!r}")
        return found

    def _taken(self, rest: str, position: int, piece: Piece) -> str:
        """The part of the rest of a key that is this piece's value."""
        if piece.width:
            return rest[: piece.width + (piece.is_typed and rest.startswith("-"))]
        after = self.pieces[position + 1] if position + 1 < len(self.pieces) else None
        if after is None:
            return rest
        if after.codec is None:  # text at the very end
            return rest.removesuffix(after.text)
        # A value has no character of a separator but in an escape, which is a % with two digits.
        return re.match(rf"(?:%[0-9A-F]{{2}}|[^%{re.escape(self.separators)}])*", rest, re.DOTALL)[0]  # type: ignore[index]


@dataclass(frozen=True)
class KeyMap:
    """The key attributes of a table: partition key, and the sort key if there is one."""

    parts: tuple[tuple[str, KeyTemplate], ...]
    """Name of the attribute, and its template."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the key attributes."""
        return tuple(name for name, _ in self.parts)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that name a row, each once."""
        return tuple(dict.fromkeys(column for _, template in self.parts for column in template.columns))

    def key(self, row: Mapping[str, Any]) -> Item:
        """The key of a row in wire form.

        Raises:
            Reject: the row has no usable key
        """
        return {name: template.attribute(row) for name, template in self.parts}


def template(text: str, codecs: Iterable[ColumnCodec], limit: int = PARTITION_BYTES) -> KeyTemplate:
    """Parse a template, once.

    Args:
        text: as at the head of this module; braces of its own are doubled
        codecs: of the columns that it may name
        limit: bytes of the key; `SORT_BYTES` for a sort key

    Raises:
        TemplateError: it cannot be parsed, names a column that is not there or cannot be in a key, or would give two rows one key
    """
    by_name = {codec.name: codec for codec in codecs}
    pieces: list[Piece] = []
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(f"{text!r}: {error}") from error
    literal = ""
    for before, column, form, conversion in parts:
        literal += before
        if column is None:  # only text, or a doubled brace
            continue
        if conversion:
            raise TemplateError(f"{text!r}: write {{{column}}}, {{{column}:12}} or {{{column}:pad}}")
        if pieces and not literal:
            raise TemplateError(f"{text!r}: two values need text between them, or different rows get one key")
        pieces.append(_piece(text, literal, column, form or "", by_name))
        literal = ""
    if not pieces:
        raise TemplateError(f"{text!r}: it names no column, so every row would have this key")
    if literal:
        pieces.append(Piece(literal))
    made = KeyTemplate(text, tuple(pieces), limit)
    if "%" in made.separators:
        raise TemplateError(
            f"{text!r}: % between values is the sign of an escape: separate them by another character, such as #"
        )
    return made


def key_map(keys: Mapping[str, str], codecs: Iterable[ColumnCodec]) -> KeyMap:
    """The key of a table from attribute -> template, partition key first.

    Raises:
        TemplateError: see :func:`template`, or there are none or more than two
    """
    if not 1 <= len(keys) <= 2:
        raise TemplateError(f"a key has one or two attributes, not {len(keys)}")
    found = list(codecs)
    limits = (PARTITION_BYTES, SORT_BYTES)
    parts = zip(keys.items(), limits, strict=False)
    return KeyMap(tuple((name, template(text, found, limit)) for (name, text), limit in parts))


def traps(codecs: Iterable[ColumnCodec], columns: Iterable[str]) -> tuple[str, ...]:
    """What MySQL takes for one value of a key column and a store does not, one sentence a column; () when there is nothing.

    MySQL's unique index keeps ``A``, ``a`` and ``a `` from being three rows where the collation says so; the store's keys are bytes.
    The key of a row is therefore made of the value that MySQL stores, never of the one that a caller typed (`Repository` does so after
    a fall back).
    """
    wanted = set(columns)
    found = []
    for codec in codecs:
        collation = (codec.column.collation or "").lower()
        if codec.name not in wanted or codec.kind not in ("text", "enum") or not collation or collation == "binary":
            continue
        same = []
        if not collation.endswith(("_bin", "_0900_as_cs")):
            same.append("letters that it holds equal (case, accents)")
        if "_0900_" not in collation:
            same.append("values with and without trailing spaces")
        if same:
            found.append(
                f"{codec.name} ({collation}): MySQL takes {' and '.join(same)} for one value, the store does not: "
                "make keys of stored values only"
            )
    return tuple(found)


def _piece(text: str, before: str, column: str, form: str, by_name: Mapping[str, ColumnCodec]) -> Piece:
    codec = by_name.get(column)
    if codec is None:
        raise TemplateError(f"{text!r}: there is no column {column!r}; there are {', '.join(sorted(by_name))}")
    if codec.kind not in _USABLE:
        raise TemplateError(
            f"{text!r}: {column} ({codec.column.column_type}) cannot be in a key: equal values may differ in their text, or have none"
        )
    if form == "pad":
        width = _type_width(codec)
        if not width and codec.kind not in ("date", "moment"):  # their text has one width
            raise TemplateError(f"{text!r}: {column} ({codec.column.column_type}) is no number: write {{{column}}}")
        return Piece(before, codec, width, bool(width))
    if form and not re.fullmatch(r"0?[1-9]\d?", form):
        raise TemplateError(f"{text!r}: write {{{column}}}, {{{column}:12}} or {{{column}:pad}}")
    if form and codec.kind != "integer":
        raise TemplateError(f"{text!r}: only whole numbers are padded to a given width: write {{{column}:pad}}")
    return Piece(before, codec, int(form or 0))


def _type_width(codec: ColumnCodec) -> int:
    match codec.kind:
        case "integer":
            return len(str(max(-codec.low, codec.high)))
        case "decimal" | "decimal_text":
            return codec.digits
        case "time":
            return _TIME_DIGITS
    return 0


def _value(codec: ColumnCodec, row: Mapping[str, Any]) -> Any:
    value = row.get(codec.name)
    if value is None:
        raise Reject(f"{codec.name} is NULL or missing: a key needs it")
    return value


def _whole(codec: ColumnCodec, value: Any) -> int:
    """The number that is padded: of a DECIMAL in units of its last decimal, of a TIME in microseconds."""
    attribute = codec.encode(value) or {}
    if codec.kind == "time":
        return int(codec.decode(attribute) // _MICROSECOND)
    exact = Decimal(attribute.get("N") or attribute["S"])
    return int(exact.scaleb(codec.scale, context=EXACT))


def _padded(number: int, piece: Piece) -> str:
    if number < 0 and piece.is_typed:
        # The ten's complement after a minus, which sorts before every digit: -1 -> -999, -2 -> -998.
        return f"-{10**piece.width + number:0{piece.width}d}"
    if not 0 <= number < 10**piece.width:
        raise Reject(f"{piece.codec.name if piece.codec else ''} does not fit into {piece.width} digits of the key")
    return f"{number:0{piece.width}d}"


def _text(codec: ColumnCodec, value: Any) -> str:
    ((kind, found),) = (codec.encode(value) or {"NULL": True}).items()
    if kind == "B":
        return f"0x{found.hex()}"
    if kind not in ("S", "N"):
        raise codec.reject("has no value that could be in a key")
    return str(found)


def _escaped(value: str, separators: str) -> str:
    if not separators:
        return value
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode()) if char == "%" or char in separators else char
        for char in value
    )


def _back(piece: Piece, text: str) -> Any:
    codec = piece.codec
    assert codec is not None  # noqa: S101 - said by the caller
    if piece.width:
        number = int(text[1:]) - 10**piece.width if text.startswith("-") else int(text)
        if codec.kind == "time":
            return number * _MICROSECOND
        if codec.kind == "integer":
            return number
        return Decimal(number).scaleb(-codec.scale, context=EXACT)
    if codec.kind == "binary":
        return bytes.fromhex(text.removeprefix("0x"))
    kind = "N" if codec.kind in ("integer", "decimal") else "S"
    return codec.decode({kind: text})
