"""Records of DMS as writes whose values are those of dbops.keyvalue, byte for byte as a backfill writes the row."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from cdc_apply import changes, values
from cdc_apply.changes import Record, Write
from cdc_apply.settings import Settings as CdcSettings
from cdc_apply.values import RejectError

from cdc_redis.settings import Table
from dbops.keyvalue import rules
from dbops.keyvalue.codec import ColumnCodec
from dbops.keyvalue.items import Item, Reject, check_size


def writes(said: Record, table: Table | None, settings: CdcSettings) -> list[Write]:
    """What a record has to change, as `cdc_apply.changes.writes` says it, with attributes by the codecs of the view.

    Raises:
        RejectError: it cannot be applied
        SettingsError: a column has a name that is taken
    """
    if table is None or said.is_control:
        return changes.writes(said, settings)
    row, before = _renamed(said.data, table), None if said.before is None else _renamed(said.before, table)
    lobs = settings.tables[said.table].lobs
    try:
        plain = replace(
            said, data=_for_cdc(row, table, lobs), before=None if before is None else _for_cdc(before, table, lobs)
        )
        return [_exact(write, row, table) for write in changes.writes(plain, settings)]
    except Reject as error:
        raise RejectError(str(error)) from error


def mysql_value(codec: ColumnCodec, value: Any) -> Any:
    """The value of MySQL in DMS's JSON, as `codec.encode` takes it.

    Raises:
        RejectError: it is none of this column
    """
    return None if value is None else _VALUES.get(codec.kind, _text)(codec, value)


def _renamed(found: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """Of all that the record carries, what the table wants."""
    made = {table.rename.get(name, name): value for name, value in found.items()}
    wanted = {*table.view.by_name, table.version, table.tombstone}
    return {name: value for name, value in made.items() if name in wanted}


def _for_cdc(row: Mapping[str, Any], table: Table, lobs: Collection[str]) -> dict[str, Any]:
    """The row as cdc_apply has to see it: version, key, and what is measured; of the rest only that it is there.

    Values of the key are the texts that the codec writes, whatever digits or decimals DMS has chosen.
    """
    made: dict[str, Any] = {}
    for name, value in row.items():
        if name in table.view.keys.columns and value is not None:
            codec = table.view.by_name[name]
            ((kind, text),) = (codec.encode(mysql_value(codec, value)) or {"S": ""}).items()
            made[name] = f"0x{text.hex()}" if kind == "B" else text
        elif name != table.tombstone:
            made[name] = value if name == table.version or name in lobs else None
    return made


def _exact(write: Write, row: Mapping[str, Any], table: Table) -> Write:
    if write.attributes is None:
        return write
    if table.tombstone:
        if table.tombstone not in row:
            raise RejectError(f"it lacks the tombstone column {table.tombstone}")
        if _is_true(row[table.tombstone], table.tombstone):
            return replace(write, attributes=None)
    view = table.view
    # A column that is not listed is not in the record's row; one that is listed and lacking was refused before.
    attributes = view.attributes(
        {name: mysql_value(view.by_name[name], row.get(name)) for name in view.attribute_names}
    )
    made = replace(write, attributes=attributes)
    check_size(rules.document(for_store(made), view.names))
    return made


def for_store(write: Write, expires_s: int | None = None) -> rules.Write:
    """The write as the stores of dbops.keyvalue take it."""
    attributes: Item | None = None if write.attributes is None else dict(write.attributes)
    version = rules.version_of({"v": write.version}, rules.Names(version="v"))
    assert version is not None  # noqa: S101 - cdc_apply makes numbers and texts only
    return rules.Write(write.key, version, attributes, "", expires_s if attributes is None else None)


def _is_true(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and len(value) == 1 and value not in "0123456789":  # BIT(1) as a byte
        return value != "\0"
    return values.whole(value, name) != 0


def _text(codec: ColumnCodec, value: Any) -> str:
    found = values.convert(value, "string", codec.name) or {}
    return str(found["S"])


def _date(codec: ColumnCodec, value: Any) -> str:
    day, rest = _text(codec, value)[:10], _text(codec, value)[10:]
    if rest.strip("T 0:.Z"):
        raise RejectError(f"{codec.name} is no date")
    return day


def _number(codec: ColumnCodec, value: Any) -> Decimal:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise InvalidOperation
        return Decimal(value)
    except InvalidOperation as error:
        raise RejectError(f"{codec.name} is no number") from error


def _bit(codec: ColumnCodec, value: Any) -> int:
    if codec.digits == 1:
        return int((values.convert(value, "boolean", codec.name) or {})["BOOL"])
    if isinstance(value, str) and value.startswith("0x"):
        return int(value, 16)
    return values.whole(value, codec.name)


def _binary(codec: ColumnCodec, value: Any) -> bytes:
    try:
        return binascii.unhexlify(str(value).removeprefix("0x"))
    except ValueError as error:
        raise RejectError(f"{codec.name} is not hexadecimal") from error


_VALUES: dict[str, Callable[[ColumnCodec, Any], Any]] = {
    "integer": lambda codec, value: values.whole(value, codec.name),
    "decimal": _number,
    "decimal_text": _number,
    "float": lambda codec, value: float(_number(codec, value)),
    "double": lambda codec, value: float(_number(codec, value)),
    "date": _date,
    "bit": _bit,
    "binary": _binary,
    "json": lambda codec, value: value,
}
