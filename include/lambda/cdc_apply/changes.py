"""From a record of DMS to what has to be written: pure functions over the rule that a version decides, never the order of arrival.

    load            the whole row, as old as the position at which the full load began
    insert, update  the whole row at its version; a changed primary key leaves a tombstone under the old one
    delete          a tombstone: keys, version, deleted
    control         nothing is written; what changes rows or columns is a reject, so that somebody looks

A version is a string of fixed width from the binary log (epoch, log, offset, record) or a number, the row's own column (a time is in
microseconds since 1970). The two are never compared: where they are mixed, the item that is there stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cdc_apply import values
from cdc_apply.settings import KeyPart, Settings, SettingsError, Table, position
from cdc_apply.values import Attribute, Item, RejectError

EXCEPTIONS = "awsdms_apply_exceptions"
OF_DMS = "awsdms_"
# At the start of a full load DMS makes its tables; the columns of later rows are told from the rows.
HARMLESS = frozenset({"create-table", "drop-table", "add-column"})
KEY_BYTES = (2048, 1024)
# A cut text ends before the character that does not fit.
UTF8_BYTES = 4


@dataclass(frozen=True)
class Record:
    """What DMS says in one record of the stream."""

    operation: str
    table: str
    """``schema.table``."""
    is_control: bool
    data: Mapping[str, Any]
    before: Mapping[str, Any] | None
    """The before image; None when the record has none."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Write:
    """One item as it has to be from a version on."""

    source: str
    table: Table
    key: Item
    version: Attribute
    attributes: Item | None
    """What the item has beside key and version; None for a tombstone."""

    @property
    def is_tombstone(self) -> bool:
        """The row is gone."""
        return self.attributes is None

    @property
    def identity(self) -> tuple[str, ...]:
        """Which item it is."""
        return (self.table.target, *(repr(sorted(value.items())) for value in self.key.values()))

    @property
    def rank(self) -> tuple[Decimal | str, bool]:
        """Of two writes to one item the one of the higher rank is the newer; at the same version the row is gone."""
        return Decimal(self.version["N"]) if "N" in self.version else self.version["S"], self.is_tombstone


def record(data: bytes, settings: Settings) -> Record:
    """The record in the data of a Kinesis record.

    Raises:
        RejectError: it is none of DMS
    """
    plain = values.loads(data)
    metadata = plain.get("metadata") if isinstance(plain, dict) else None
    if not isinstance(metadata, dict):
        raise RejectError("not a record of DMS: it has no metadata")
    kind, operation = metadata.get("record-type"), metadata.get("operation")
    schema, table = metadata.get("schema-name"), metadata.get("table-name")
    if kind not in ("data", "control") or not isinstance(operation, str) or not isinstance(table, str):
        raise RejectError("not a record of DMS: its metadata lacks record-type, operation or table-name")
    row = plain.get("data", {})
    before = plain.get(settings.before_image) if settings.before_image else None
    if not isinstance(row, dict) or not isinstance(before, dict | None):
        raise RejectError("not a record of DMS: data or the before image is no object")
    return Record(operation, f"{schema or ''}.{table}", kind == "control", row, before, metadata)


def writes(said: Record, settings: Settings) -> list[Write]:
    """What a record has to change, which may be nothing.

    Raises:
        RejectError: it cannot be applied
        SettingsError: a column has the name of an attribute that the settings have taken
    """
    table = settings.tables.get(said.table)
    if said.table.rpartition(".")[2].startswith(OF_DMS):
        return []
    if table is None:
        if settings.unmapped == "ignore":
            return []
        raise RejectError("the settings have no such table")
    if said.is_control:
        is_of_load = "stream-position" not in said.metadata
        if said.operation not in HARMLESS or (said.operation == "drop-table" and not is_of_load):
            raise RejectError(
                f"control record {said.operation}: rows of the target do not follow it, see to them by hand"
            )
        return []
    if said.operation not in ("load", "insert", "update", "delete"):
        raise RejectError(f"unknown operation {said.operation}")
    return _of_row(said, table, settings)


def ordered(found: Iterable[tuple[Write, str]]) -> list[list[tuple[Write, list[str]]]]:
    """Writes by item, the newest first, each with the sequence numbers of the records that want it.

    Of one item only the newest has to be written, whatever the order of arrival; the older ones are for when that is refused.
    """
    items: dict[tuple[str, ...], dict[tuple[Any, bool], tuple[Write, list[str]]]] = {}
    for write, sequence in found:
        items.setdefault(write.identity, {}).setdefault(write.rank, (write, []))[1].append(sequence)
    return [[versions[rank] for rank in sorted(versions, reverse=True)] for versions in items.values()]


def _of_row(said: Record, table: Table, settings: Settings) -> list[Write]:
    version, key = _version(said, table, settings), _key(said.data, table)
    if said.operation == "delete":
        return [Write(said.table, table, key, version, None)]
    found = [Write(said.table, table, key, version, _attributes(said, table, key, settings))]
    if said.operation == "update" and settings.before_image:
        if said.before is None:
            raise RejectError(
                "an update without before image: a changed primary key would not be seen, turn BeforeImageSettings on"
            )
        if (old := _key({**said.data, **said.before}, table)) != key:
            found.append(Write(said.table, table, old, version, None))
    return found


def _version(said: Record, table: Table, settings: Settings) -> Attribute:
    if table.version_column:
        value = said.data.get(table.version_column)
        if value is None:
            raise RejectError(f"it lacks the version column {table.version_column}")
        if table.version_kind == "timestamp":
            return {"N": str(values.microseconds(value, table.version_column))}
        return values.number(values.whole(value, table.version_column), table.version_column)
    if said.operation == "load":
        # Older than every change from the position on, which begins with a full stop; a row that was read later wins.
        read_at = said.metadata.get("timestamp")
        when = values.timestamp(read_at, "timestamp") if read_at is not None else ""
        return {"S": f"{_place(settings.epoch, *table.load_position)}-{when}"}
    place = position(str(said.metadata.get("stream-position", "")))
    offset = said.metadata.get("transaction-record-id")
    if place is None or offset is None:
        raise RejectError(
            "it lacks stream-position or transaction-record-id: set IncludeTransactionDetails on the endpoint"
        )
    return {"S": f"{_place(settings.epoch, *place)}.{values.whole(offset, 'transaction-record-id'):010d}"}


def _place(epoch: int, file: int, offset: int) -> str:
    return f"{epoch:04d}.{file:010d}.{offset:012d}"


def _key(row: Mapping[str, Any], table: Table) -> Item:
    found: Item = {}
    for part, limit in zip(table.key, KEY_BYTES, strict=False):
        for column in part.columns:
            if row.get(column) is None:
                raise RejectError(f"it lacks the key column {column}")
        value = _plain_key(row, part, table) if part.is_plain else {"S": _text_key(row, part)}
        if not value.keys() & {"S", "N", "B"}:
            raise RejectError(f"{part.attribute} cannot be a key: it is neither string, number nor binary")
        size = len(value["S"].encode()) if "S" in value else len(value.get("B", b"-"))
        if not 0 < size <= limit:
            raise RejectError(f"{part.attribute} has {size} bytes: a key has 1 to {limit}")
        found[part.attribute] = value
    return found


def _plain_key(row: Mapping[str, Any], part: KeyPart, table: Table) -> Attribute:
    (column,) = part.columns
    if isinstance(row[column], Decimal) and values.is_rounded(row[column]):
        raise RejectError(f"{column} came in scientific notation and may be rounded: it cannot be a key")
    return values.convert(row[column], table.columns.get(column, ""), column) or {}


def _text_key(row: Mapping[str, Any], part: KeyPart) -> str:
    text = ""
    for before, column, width in part.pieces:
        text += before
        if column and width:
            number = values.whole(row[column], column)
            if not 0 <= number < 10**width:
                raise RejectError(f"{column} does not fit into {width} digits of {part.attribute}")
            text += f"{number:0{width}d}"
        elif column:
            text += _escaped(_text(row[column], column), part.separators)
    return text


def _text(value: Any, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        if isinstance(value, Decimal) and not values.is_rounded(value):
            return str(values.number(value, column)["N"])
        return str(values.whole(value, column))
    raise RejectError(f"{column} cannot be part of a key")


def _escaped(value: str, separators: str) -> str:
    """The value with what separates values written as %XX, so that different values never give the same text."""
    if not separators:
        return value
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode()) if char == "%" or char in separators else char
        for char in value
    )


def _attributes(said: Record, table: Table, key: Item, settings: Settings) -> Item:
    if table.absent == "reject" and (lacking := sorted({*table.columns} - {*said.data} - table.exclude)):
        raise RejectError(
            f"it lacks {', '.join(lacking)}: set IncludeNullAndEmpty on the endpoint, or a LOB was not carried; read the row again"
        )
    found: Item = {}
    for column, value in said.data.items():
        if column in table.exclude:
            continue
        name = table.rename.get(column, column)
        if name in settings.reserved:
            raise SettingsError(
                f"column {column} of {said.table} is an attribute of the function: rename or exclude it"
            )
        attribute = {"NULL": True} if table.nulls == "null" else None
        if value is not None:
            kind = table.columns.get(column, "")
            _check_lob(value, kind, table.lobs.get(column), column)
            attribute = values.convert(value, kind, column) or attribute
        if name in key:
            if attribute != key[name]:
                raise SettingsError(
                    f"column {column} of {said.table} is the key attribute {name}: rename or exclude it"
                )
        elif attribute is not None:
            found[name] = attribute
    return found


def _check_lob(value: Any, kind: str, limit_kb: int | None, column: str) -> None:
    if limit_kb is None or not isinstance(value, str):
        return
    limit = limit_kb * 1024
    sizes = (
        (len(value.removeprefix("0x")) // 2,)
        if kind == "binary"
        else (len(value), len(value.encode()) + UTF8_BYTES - 1)
    )
    if max(sizes) >= limit:
        raise RejectError(
            f"{column} reaches the LOB limit of {limit_kb} KB: it may be cut, raise LobMaxSize and read the row again"
        )
