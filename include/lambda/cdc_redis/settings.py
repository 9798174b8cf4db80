"""What the function is told: JSON in ``CDC_SETTINGS``, or the name of a file beside this one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_apply import settings as cdc
from cdc_apply.settings import SettingsError

from dbops.keyvalue import views
from dbops.keyvalue.codec import ColumnCodec, Policy, UnknownType
from dbops.keyvalue.keys import TemplateError
from dbops.keyvalue.rules import Names
from dbops.keyvalue.views import View
from dbops.mysql import Column

KEY = "key"
"""Attribute of the key, as a backfill names it."""
OWN = frozenset({"prefix", "layout", "key", "columns", "rename", "policy", "policies", "tombstone"})
OF_CDC = frozenset({"version", "lobs", "load_position", "tombstone_days"})
POLICY = frozenset({"nulls", "zero_dates", "enum_error", "empty_set", "json"})
ADDRESS = frozenset({"host", "port", "ssl", "cluster", "username", "secret"})
KINDS = {
    "integer": "integer", "decimal": "number", "decimal_text": "string", "float": "number", "double": "number", "date": "string",
    "moment": "string", "time": "string", "text": "string", "binary": "binary", "json": "json", "enum": "string", "set": "set",
}  # fmt: skip
"""Kind of a codec -> kind of cdc_apply."""


@dataclass(frozen=True)
class Table:
    """How rows of one source table become keys."""

    view: View
    prefix: str
    layout: str
    rename: Mapping[str, str]
    """Column -> attribute."""
    version: str
    """Column; empty for the position in the log."""
    tombstone: str
    """Column; a row in which it is true stands for a deletion. Empty for none."""


@dataclass(frozen=True)
class Address:
    """Where the server is. A password is never in the settings: `secret` names one of AWS Secrets Manager."""

    host: str
    port: int = 6379
    ssl: bool = True
    cluster: bool = True
    username: str = ""
    secret: str = ""


@dataclass(frozen=True)
class Settings:
    """Everything that the function is told."""

    cdc: cdc.Settings
    """For the records."""
    tables: Mapping[str, Table]
    """By ``schema.table`` as the records name it."""
    redis: Address


def read(text: str, folder: Path) -> Settings:
    """Settings from JSON, or from the file of that name in a folder.

    Raises:
        SettingsError: they are wrong; one line for each error
    """
    if text.strip() and not text.lstrip().startswith("{"):
        path = folder / text.strip()
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise SettingsError(f"CDC_SETTINGS names the file {path.name}, which cannot be read: {error}") from error
    try:
        return parse(json.loads(text or "null"))
    except json.JSONDecodeError as error:
        raise SettingsError(f"CDC_SETTINGS is not JSON: {error}") from error


def parse(plain: Any) -> Settings:
    """Settings from JSON values.

    Raises:
        SettingsError: they are wrong; one line for each error
    """
    if not isinstance(plain, dict) or not isinstance(plain.get("tables"), dict):
        raise SettingsError("CDC_SETTINGS: expected an object with tables")
    errors: list[str] = []
    shared = {name: value for name, value in plain.items() if name not in ("tables", "redis")}
    names = Names(*(str(shared.get(name, default)) for name, default in
                    (("version", "_v"), ("deleted", "_deleted"), ("expires", "_exp"))))  # fmt: skip
    tables, told = dict[str, Table](), dict[str, Any]()
    for name, table in plain["tables"].items():
        try:
            tables[name], told[name] = _table(table, names)
        except (UnknownType, TemplateError, ValueError, TypeError) as error:
            errors.append(f"tables.{name}: {error}")
    address = _address(plain.get("redis"), errors)
    if errors:
        raise SettingsError("\n".join(errors))
    return Settings(cdc.parse({**shared, "tables": told}), tables, address)


def _table(plain: Any, names: Names) -> tuple[Table, dict[str, Any]]:
    """The table, and what cdc_apply is told of it."""
    _known(plain, OWN | OF_CDC)
    rename, columns = dict(plain.get("rename", {})), plain.get("columns")
    if not isinstance(columns, dict) or not columns:
        raise ValueError("columns: name each column of the item with its type as MySQL writes it")
    version = plain.get("version", "log")
    version_column = "" if version == "log" else str(version.get("column", ""))
    tombstone = str(plain.get("tombstone", ""))
    if taken := sorted({version_column, tombstone} & {*columns}):
        raise ValueError(f"columns: {', '.join(taken)} is the version or the tombstone and no attribute: leave it out")
    if plain.get("layout", "hash") not in ("hash", "string"):
        raise ValueError(f"layout: {plain['layout']!r} is neither hash nor string")
    view = views.view(
        [_column(rename.get(column, column), kind) for column, kind in columns.items()],
        {KEY: str(plain.get("key", ""))},
        names=names,
        policy=_policy(plain.get("policy", {})),
        policies={rename.get(column, column): _policy(each) for column, each in plain.get("policies", {}).items()},
    )
    kinds = {codec.name: _kind(codec) for codec in view.codecs}
    ((_, template),) = view.keys.parts
    of_cdc = {name: plain[name] for name in OF_CDC & plain.keys()}
    of_cdc["lobs"] = {rename.get(column, column): kb for column, kb in of_cdc.get("lobs", {}).items()}
    told = {"target": "redis", "key": {KEY: template.for_cdc_apply}, "columns": kinds, **of_cdc}
    if version_column:
        told["exclude"] = [version_column]
    prefix, layout = str(plain.get("prefix", "")), str(plain.get("layout", "hash"))
    return Table(view, prefix, layout, rename, version_column, tombstone), told


def _column(name: str, kind: Any) -> Column:
    text = re.sub(r"\s+", " ", str(kind)).strip()
    plain = re.sub(r" not null$", "", text, flags=re.IGNORECASE)
    return Column(name, re.split(r"[( ]", plain)[0].lower(), plain, nullable=plain == text)


def _kind(codec: ColumnCodec) -> str:
    if codec.kind == "bit":
        return "boolean" if codec.digits == 1 else "integer"
    return "string" if codec.kind == "json" and codec.policy.json == "text" else KINDS[codec.kind]


def _policy(plain: Any) -> Policy:
    _known(plain, POLICY)
    return Policy(**plain)


def _address(plain: Any, errors: list[str]) -> Address:
    try:
        _known(plain, ADDRESS)
        return Address(**plain)
    except (TypeError, ValueError) as error:
        errors.append(f"redis: {error}")
        return Address("")


def _known(plain: Any, allowed: frozenset[str]) -> None:
    if not isinstance(plain, dict):
        raise TypeError("expected an object")
    if strange := sorted(plain.keys() - allowed):
        raise ValueError(f"unknown {', '.join(strange)}; there are {', '.join(sorted(allowed))}")
