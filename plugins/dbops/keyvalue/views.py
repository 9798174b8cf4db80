"""A row of a query as an item, and back: columns, key, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dbops.keyvalue.codec import ColumnCodec, Policy, codec_for
from dbops.keyvalue.items import Item, check_size
from dbops.keyvalue.keys import KeyMap, key_map
from dbops.keyvalue.rules import Domain, Names, Write, document
from dbops.mysql import Column

Row = Mapping[str, Any]
"""MySQL values by column."""


@dataclass(frozen=True)
class Loaded:
    """A row as MySQL has it, and how new it is."""

    row: Row
    version: object
    """Of the table's domain."""


@dataclass(frozen=True)
class View:
    """How rows of one query become items of one table. Made by :func:`view`."""

    codecs: tuple[ColumnCodec, ...]
    keys: KeyMap
    domain: Domain = field(default_factory=Domain)
    names: Names = field(default_factory=Names)

    @cached_property
    def by_name(self) -> dict[str, ColumnCodec]:
        """Codec by column."""
        return {codec.name: codec for codec in self.codecs}

    @cached_property
    def attribute_names(self) -> tuple[str, ...]:
        """Attributes that an item may have beside key and version."""
        return tuple(name for name in self.by_name if name not in self.keys.names)

    def key(self, row: Row) -> Item:
        """The key of a row; it needs the key's columns only.

        Raises:
            Reject: the row has no usable key
        """
        return self.keys.key(row)

    def attributes(self, row: Row, *, only: Iterable[str] | None = None) -> Item:
        """The attributes of a row beside its key.

        Args:
            row: all columns, or those of `only`
            only: columns to encode

        Raises:
            Reject: a value has no form
            KeyError: the row lacks a column: a row that is not whole must not be written
        """
        found: Item = {}
        for name in self.attribute_names if only is None else only:
            if (attribute := self.by_name[name].encode(row[name])) is not None:
                found[name] = attribute
        return found

    def item(self, row: Row) -> Item:
        """Key and attributes of a row, without version: what is compared with the store.

        Raises:
            Reject: the row has no item
        """
        return {**self.key(row), **self.attributes(row)}

    def row(self, item: Item) -> dict[str, Any]:
        """The MySQL values of an item; columns that it does not have are None.

        Raises:
            Reject: an attribute is none that `item` makes
        """
        return {name: codec.decode(item.get(name)) for name, codec in self.by_name.items()}

    def write(self, loaded: Loaded, *, stamp: str = "") -> Write:
        """The write of a whole row.

        Raises:
            Reject: the row has no item, or one that is larger than 400 KB
            VersionError: its version is not of the domain
        """
        made = Write(self.key(loaded.row), self.domain.version(loaded.version), self.attributes(loaded.row), stamp)
        check_size(document(made, self.names))
        return made

    def tombstone(self, row: Row, version: object, *, expires_s: int | None = None) -> Write:
        """The write that says that a row is gone; it needs the key's columns only.

        Raises:
            Reject: the row has no usable key
            VersionError: the version is not of the domain
        """
        return Write(self.key(row), self.domain.version(version), None, "", expires_s)


def view(
    columns: Iterable[Column],
    keys: Mapping[str, str],
    *,
    domain: Domain | None = None,
    names: Names | None = None,
    policy: Policy | None = None,
    policies: Mapping[str, Policy] | None = None,
) -> View:
    """A view of columns.

    Args:
        columns: of the query, in order; those of a table from `dbops.mysql.read_table`
        keys: key attribute -> template, the partition key first
        domain: of the versions; whole numbers unless said otherwise
        names: of the attributes that are not columns
        policy: for values that the store has not
        policies: the same for single columns

    Raises:
        UnknownType: a column has no exact form
        TemplateError: a key template does not fit
        ValueError: a column has the name of an attribute that is taken
    """
    codecs = tuple(codec_for(column, (policies or {}).get(column.name, policy)) for column in columns)
    found, taken = key_map(keys, codecs), names or Names()
    if clash := sorted({codec.name for codec in codecs} & taken.all):
        raise ValueError(
            f"columns {', '.join(clash)} have the names of attributes of the rules: select them under other names"
        )
    for name, template in found.parts:
        if any(codec.name == name for codec in codecs) and not (template.is_plain and template.columns == (name,)):
            raise ValueError(f"key attribute {name!r} has the name of a column but not its value: call it otherwise")
    return View(codecs, found, domain or Domain(), taken)
