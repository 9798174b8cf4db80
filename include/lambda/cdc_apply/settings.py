"""What the function is told: JSON in the environment variable ``CDC_SETTINGS``, or the name of a file beside this one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, Literal, TypeVar

T = TypeVar("T")
KINDS = frozenset({"integer", "number", "string", "boolean", "binary", "json", "set"})
VERSION_KINDS = frozenset({"number", "timestamp"})
# A position as MySQL and DMS write it: the name of the log, its number, the offset; DMS appends more of its own.
POSITION = re.compile(r".*?\.(?P<file>\d{6,10})[:.](?P<offset>\d{1,12})(?!\d)")


class SettingsError(ValueError):
    """The settings are wrong; the text has one line per error."""


@dataclass(frozen=True)
class KeyPart:
    """One key attribute: ``{id}`` is the column's own value, anything else is text with values in it."""

    attribute: str
    pieces: tuple[tuple[str, str, int], ...]
    """Text, the column after it ("" for none), and the width that its integer is padded to (0 for none)."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it is made of."""
        return tuple(column for _, column, _ in self.pieces if column)

    @property
    def is_plain(self) -> bool:
        """It is one column and nothing else."""
        return len(self.pieces) == 1 and not self.pieces[0][0] and not self.pieces[0][2]

    @property
    def separators(self) -> str:
        """Characters between two values, which must not stand in a value unescaped."""
        return "".join(text for text, column, _ in self.pieces[1:] if column)


@dataclass(frozen=True)
class Table:
    """How rows of one source table become items."""

    target: str
    """Name of the DynamoDB table."""
    key: tuple[KeyPart, ...]
    """Partition key, then the sort key if there is one."""
    version_column: str = ""
    """Column that every write of the row raises; without it the version is the position in the binary log."""
    version_kind: str = "number"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Kind by column; what is not listed is told from the JSON value."""
    exclude: frozenset[str] = frozenset()
    rename: Mapping[str, str] = field(default_factory=dict)
    lobs: Mapping[str, int] = field(default_factory=dict)
    """LobMaxSize in KB by column: a value of that size may be a cut one."""
    nulls: Literal["omit", "null"] = "omit"
    absent: Literal["reject", "omit"] = "reject"
    """What a record means that lacks one of `columns`."""
    load_position: tuple[int, int] = (0, 0)
    """Binary log position at which the full load began; its rows are as old as that."""
    tombstone_days: int = 0
    """Days after which a tombstone expires; 0 for never. Only after backfill and fallback reads have ended."""


@dataclass(frozen=True)
class Settings:
    """Everything that the function is told."""

    tables: Mapping[str, Table]
    """By ``schema.table`` as the records name it."""
    epoch: int = 0
    """Raised when the source becomes another server, whose binary log positions do not go on from the old ones."""
    before_image: str = "before-image"
    """BeforeImageSettings.FieldName; "" accepts that changes of a primary key are not seen."""
    unmapped: Literal["reject", "ignore"] = "reject"
    rejects: str = ""
    """``s3://bucket/prefix`` for records that can never be applied; without it they are reported as failed."""
    version: str = "_v"
    deleted: str = "_deleted"
    expires: str = "_exp"
    threads: int = 8
    margin_ms: int = 3000
    """No write begins when the function has less time left; what is left over is reported as failed."""

    @property
    def reserved(self) -> frozenset[str]:
        """Attributes that are the function's own."""
        return frozenset({self.version, self.deleted, self.expires})


def read(text: str, folder: Path) -> Settings:
    """Settings from JSON, or from the file of that name in a folder.

    Raises:
        SettingsError: they are wrong
    """
    if not text.strip():
        raise SettingsError("CDC_SETTINGS is empty: set it to JSON or to the name of a file in the package")
    if not text.lstrip().startswith("{"):
        path = folder / text.strip()
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise SettingsError(f"CDC_SETTINGS names the file {path.name}, which cannot be read: {error}") from error
    try:
        return parse(json.loads(text))
    except json.JSONDecodeError as error:
        raise SettingsError(f"CDC_SETTINGS is not JSON: {error}") from error


def parse(plain: Any) -> Settings:
    """Settings from JSON values.

    Raises:
        SettingsError: they are wrong
    """
    reader = _Reader()
    values = reader.mapping("settings", plain)
    reader.known("settings", values, Settings)
    tables = reader.mapping("tables", values.get("tables"))
    if not tables:
        reader.errors.append("tables: name at least one source table as schema.table")
    made = {name: _table(reader, name, table) for name, table in tables.items()}
    settings = Settings(
        tables=made,
        epoch=reader.number("epoch", values.get("epoch", 0), 9999),
        before_image=reader.text("before_image", values.get("before_image", "before-image")),
        unmapped=reader.choice("unmapped", values.get("unmapped", "reject"), ("reject", "ignore")),
        rejects=reader.text("rejects", values.get("rejects", "")),
        version=reader.text("version", values.get("version", "_v"), is_needed=True),
        deleted=reader.text("deleted", values.get("deleted", "_deleted"), is_needed=True),
        expires=reader.text("expires", values.get("expires", "_exp"), is_needed=True),
        threads=max(1, reader.number("threads", values.get("threads", 8), 256)),
        margin_ms=reader.number("margin_ms", values.get("margin_ms", 3000), 900_000),
    )
    if len(settings.reserved) < 3:
        reader.errors.append("version, deleted, expires: they must be three different attributes")
    for name, table in made.items():
        if taken := sorted(settings.reserved & {part.attribute for part in table.key}):
            reader.errors.append(f"tables.{name}.key: {', '.join(taken)} is an attribute of the function")
    if settings.rejects and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?", settings.rejects):
        reader.errors.append("rejects: expected s3://bucket/prefix")
    if reader.errors:
        raise SettingsError("\n".join(reader.errors))
    return settings


def position(text: str) -> tuple[int, int] | None:
    """Number of the binary log and offset in it; None when the text holds none."""
    found = POSITION.match(text)
    return (int(found["file"]), int(found["offset"])) if found else None


def _table(reader: _Reader, name: str, plain: Any) -> Table:
    where = f"tables.{name}"
    if name.count(".") < 1:
        reader.errors.append(f"{where}: expected schema.table")
    values = reader.mapping(where, plain)
    allowed = {*Table.__dataclass_fields__} - {"version_column", "version_kind"} | {"version"}
    reader.unknown(where, values, allowed)
    keys = reader.mapping(f"{where}.key", values.get("key"))
    if len(keys) not in (1, 2):
        reader.errors.append(f"{where}.key: expected a partition key and at most a sort key")
    column, kind = _version(reader, f"{where}.version", values.get("version", "log"))
    columns = reader.mapping(f"{where}.columns", values.get("columns", {}))
    for each, is_a in columns.items():
        reader.choice(f"{where}.columns.{each}", is_a, tuple(sorted(KINDS)))
    lobs = reader.mapping(f"{where}.lobs", values.get("lobs", {}))
    start = reader.text(f"{where}.load_position", values.get("load_position", ""))
    found = position(start) if start else (0, 0)
    if found is None:
        reader.errors.append(f"{where}.load_position: expected a position such as mysql-bin-changelog.000024:373")
    return Table(
        target=reader.text(f"{where}.target", values.get("target", ""), is_needed=True),
        key=tuple(
            _part(reader, f"{where}.key.{attribute}", attribute, template) for attribute, template in keys.items()
        ),
        version_column=column,
        version_kind=kind,
        columns=columns,
        exclude=frozenset(reader.texts(f"{where}.exclude", values.get("exclude", []))),
        rename=reader.mapping(f"{where}.rename", values.get("rename", {})),
        lobs={each: reader.number(f"{where}.lobs.{each}", kb, 102_400) for each, kb in lobs.items()},
        nulls=reader.choice(f"{where}.nulls", values.get("nulls", "omit"), ("omit", "null")),
        absent=reader.choice(f"{where}.absent", values.get("absent", "reject"), ("reject", "omit")),
        load_position=found or (0, 0),
        tombstone_days=reader.number(f"{where}.tombstone_days", values.get("tombstone_days", 0), 36_500),
    )


def _version(reader: _Reader, where: str, plain: Any) -> tuple[str, str]:
    if plain == "log":
        return "", "number"
    values = reader.mapping(where, plain)
    reader.unknown(where, values, {"column", "kind"})
    column = reader.text(f"{where}.column", values.get("column", ""), is_needed=True)
    return column, reader.choice(f"{where}.kind", values.get("kind", "number"), tuple(sorted(VERSION_KINDS)))


def _part(reader: _Reader, where: str, attribute: str, template: Any) -> KeyPart:
    pieces: list[tuple[str, str, int]] = []
    try:
        for text, column, width, conversion in Formatter().parse(reader.text(where, template, is_needed=True)):
            if conversion or (width and not re.fullmatch(r"0?[1-9]\d?", width)) or column == "":
                raise ValueError("a value is written {column}, or {column:12} to pad an integer with zeros")
            if column and pieces and not text:
                raise ValueError("two values need text between them, or different rows get one key")
            if "%" in text:
                raise ValueError("% is what values are escaped with, so it cannot stand between them")
            pieces.append((text, column or "", int(width or 0)))
    except ValueError as error:
        reader.errors.append(f"{where}: {error}")
    if not any(column for _, column, _ in pieces):
        reader.errors.append(f"{where}: it names no column")
    return KeyPart(attribute, tuple(pieces))


class _Reader:
    """Collects errors, so that all of them are said at once."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def mapping(self, where: str, value: Any) -> dict[str, Any]:
        return self._expect(where, value, dict, {})

    def number(self, where: str, value: Any, highest: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
            self.errors.append(f"{where}: expected a whole number from 0 to {highest}")
            return 0
        return value

    def text(self, where: str, value: Any, *, is_needed: bool = False) -> str:
        if is_needed and value == "":
            self.errors.append(f"{where}: it must not be empty")
        return self._expect(where, value, str, "")

    def texts(self, where: str, value: Any) -> list[str]:
        return [self.text(where, each) for each in self._expect(where, value, list, [])]

    def choice(self, where: str, value: Any, allowed: tuple[str, ...]) -> Any:
        if value not in allowed:
            self.errors.append(f"{where}: expected one of {', '.join(allowed)}")
        return value

    def known(self, where: str, values: Mapping[str, Any], model: Any) -> None:
        self.unknown(where, values, {*model.__dataclass_fields__})

    def unknown(self, where: str, values: Mapping[str, Any], allowed: set[str]) -> None:
        if strange := sorted({*values} - allowed):
            self.errors.append(
                f"{where}: unknown {', '.join(strange)}; there are {', '.join(sorted(allowed - {'tables'}))}"
            )

    def _expect(self, where: str, value: Any, kind: type[T], default: T) -> T:
        if isinstance(value, kind):
            return value
        self.errors.append(f"{where}: expected {'an object' if kind is dict else f'a {kind.__name__}'}")
        return default
