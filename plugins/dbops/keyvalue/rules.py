"""What may be written over what: versions, tombstones, conditions. Pure functions, and the same as arguments of DynamoDB's calls.

The law is the rule table of `docs/keyvalue.md`; `tests/keyvalue/test_keyvalue_interleavings.py` proves it row by row over every
interleaving:

* Every write carries a version and is refused unless it is newer: ``attribute_not_exists(pk) OR #v < :v``. An item without a version, or
  with one of another domain, makes that false, so the live item stays.
* A deletion writes a tombstone (keys, version, deleted, expires), never nothing: a reader that misses would write the old row back. Of
  one version the tombstone is the newer one, since a DELETE does not raise the row's own column.
* A tombstone may expire only after the backfill and the fall-back reads are over.
* Versions of one table are of one domain: a number of the row, or a text of fixed width, such as a place in the binary log. They are never
  compared with each other.
* A change of part of an item (`Change`) is made only on an item that is there, alive and whole.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import total_ordering
from typing import Any, Literal

from dbops.keyvalue.items import EXACT, Attribute, Item

Reason = Literal["newer", "equal", "tombstone", "unversioned", "older", "missing"]
"""Why a condition was not met, by the item that is there: see :func:`classify`."""

_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_TOKEN_DIGITS = 20
_TEXT_WIDTH_LIMIT = 256


class VersionError(ValueError):
    """A value is no version of the table's domain; the text says which domain it is."""


class MixedVersions(TypeError):
    """Two versions of different domains were compared, which no order of writes could justify."""


@total_ordering
@dataclass(frozen=True)
class Version:
    """How new a row is: a whole number, or a text that is compared by its bytes."""

    value: int | Decimal | str

    @property
    def attribute(self) -> Attribute:
        """In wire form."""
        return {"S": self.value} if isinstance(self.value, str) else {"N": str(self.value)}

    @property
    def kind(self) -> Literal["N", "S"]:
        """Type of the attribute."""
        return "S" if isinstance(self.value, str) else "N"

    def __lt__(self, other: Version) -> bool:
        if isinstance(self.value, str) and isinstance(other.value, str):
            return self.value.encode() < other.value.encode()
        if isinstance(self.value, str) or isinstance(other.value, str):
            raise MixedVersions(f"versions {self.value!r} and {other.value!r} are of different domains")
        return self.value < other.value

    def is_of(self, other: Version) -> bool:
        """Whether the two are of one domain."""
        return self.kind == other.kind


@dataclass(frozen=True)
class Domain:
    """Which versions a table has; one for all of its writers."""

    kind: Literal["int", "text"] = "int"
    widths: tuple[int, ...] = ()
    """Characters of a text; several when shorter ones are made to sort right, as those of cdc_apply's full load."""

    def __post_init__(self) -> None:
        if (self.kind == "text") != bool(self.widths) or not all(0 < n <= _TEXT_WIDTH_LIMIT for n in self.widths):
            raise VersionError("a domain of texts needs its widths (1 to 256 characters), one of numbers has none")

    def version(self, value: object) -> Version:
        """The version of a value of the version column or expression.

        Raises:
            VersionError: it is NULL, a float (which is not exact), or of another domain
        """
        if self.kind == "int":
            if isinstance(value, Decimal) and value == value.to_integral_value(context=EXACT):
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int) or not _LOWEST <= value <= _HIGHEST:
                raise VersionError(
                    f"a version of this table is a whole number of 64 bits, not {type(value).__name__} {value!r}"
                )
            return Version(value)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if not isinstance(value, str) or len(value) not in self.widths or not re.fullmatch(r"[!-~]+", value):
            widths = " or ".join(map(str, self.widths))
            raise VersionError(
                f"a version of this table is a text of {widths} ASCII characters, not {type(value).__name__} {value!r}"
            )
        return Version(value)

    def after(self, version: Version | None) -> Version:
        """The next version, for a store that has become the only writer of a row.

        Raises:
            VersionError: versions are places in a log, and the log has no next place for a write that it does not see
        """
        if self.kind != "int":
            raise VersionError("writes to the store first need a version of numbers: a text has no next one")
        return Version(int(version.value) + 1 if version else 1)


@dataclass(frozen=True)
class Names:
    """Attributes that are not columns of the row. The defaults are those of cdc_apply."""

    version: str = "_v"
    deleted: str = "_deleted"
    expires: str = "_exp"
    stamp: str = "_bf"

    @property
    def all(self) -> frozenset[str]:
        """Every one of them: what is not compared between row and item."""
        return frozenset({self.version, self.deleted, self.expires, self.stamp})


@dataclass(frozen=True)
class Write:
    """One item as it has to be from a version on."""

    key: Item
    version: Version
    attributes: Item | None = None
    """All that the item has beside key and version; None for a tombstone."""
    stamp: str = ""
    """Of the run that wrote it, so that the run can be rolled back."""
    expires_s: int | None = None
    """Unix time at which a tombstone may go; None for never."""

    @property
    def is_tombstone(self) -> bool:
        """The row is gone."""
        return self.attributes is None


@dataclass(frozen=True)
class Change:
    """Some attributes of an item that is there; the rest stays, the version becomes the next one."""

    key: Item
    put: Item
    remove: frozenset[str] = frozenset()


class Condition(enum.Enum):
    """When a write is taken."""

    ABSENT = "absent"
    """Nothing is there, not even a tombstone: attribute_not_exists. For a backfill, and PartiQL's INSERT."""
    NEWER = "newer"
    """Nothing is there, or something older. For every writer."""
    UNCHANGED = "unchanged"
    """What is there is alive and has the version that was seen. For a store that compares and swaps."""


@dataclass(frozen=True)
class Outcome:
    """What a write came to."""

    reason: Reason | None = None
    """None when it was written."""
    there: Item | None = None
    """The item that was there instead (DynamoDB's ALL_OLD); after a `Change` that was made, the item that is there now."""

    @property
    def is_written(self) -> bool:
        """The write was taken."""
        return self.reason is None


def version_of(item: Mapping[str, Attribute] | None, names: Names) -> Version | None:
    """The version of an item; None when it has none, or one that is neither number nor text."""
    attribute = (item or {}).get(names.version) or {}
    if "N" in attribute:
        number = Decimal(attribute["N"])
        return Version(int(number) if number == number.to_integral_value(context=EXACT) else number)
    return Version(attribute["S"]) if "S" in attribute else None


def is_tombstone(item: Mapping[str, Attribute], names: Names) -> bool:
    """Whether the item says that the row is gone."""
    return names.deleted in item


def holds(condition: Condition, there: Item | None, write: Write, names: Names, *, seen: Version | None = None) -> bool:
    """Whether a write is taken, given what is there. The conditions of all stores are this function.

    Args:
        condition: of the write
        there: the item under the key; None when there is none
        write: what is to be written
        names: of the attributes that are not columns
        seen: for `UNCHANGED`, the version that was read
    """
    if there is None:
        return condition is not Condition.UNCHANGED
    found = version_of(there, names)
    match condition:
        case Condition.ABSENT:
            return False
        case Condition.UNCHANGED:
            return found is not None and found == seen and not is_tombstone(there, names)
    if found is None or not found.is_of(write.version):
        return False
    ends = write.is_tombstone and not is_tombstone(there, names)
    return found < write.version or (found == write.version and ends)


def classify(there: Item | None, version: Version, names: Names) -> Reason:
    """Why a condition was not met, from the item that was there (ALL_OLD), without another read.

    Returns:
        ``newer`` or ``equal`` live item; ``tombstone`` of this version or a newer one; ``unversioned`` when it has no version or one
        of another domain; ``older`` when only `ABSENT` or `UNCHANGED` was asked for (put it again with `NEWER`); ``missing`` when there
        was none
    """
    if there is None:
        return "missing"
    found = version_of(there, names)
    if found is None or not found.is_of(version):
        return "unversioned"
    if found < version:
        return "older"
    if is_tombstone(there, names):
        return "tombstone"
    return "equal" if found == version else "newer"


def document(write: Write, names: Names) -> Item:
    """The whole item of a write: keys, columns, version, and what a tombstone or a run adds."""
    made: Item = {**write.key, names.version: write.version.attribute}
    if write.attributes is None:
        made[names.deleted] = {"BOOL": True}
        if write.expires_s is not None:
            made[names.expires] = {"N": str(write.expires_s)}
    else:
        made |= write.attributes
    if write.stamp:
        made[names.stamp] = {"S": write.stamp}
    return made


def put(
    condition: Condition, there: Item | None, write: Write, names: Names, *, seen: Version | None = None
) -> tuple[Item | None, Outcome]:
    """What is there after a conditional write, and what the write came to."""
    if holds(condition, there, write, names, seen=seen):
        return document(write, names), Outcome()
    return there, Outcome(classify(there, write.version, names), there)


def can_change(there: Item | None, names: Names) -> bool:
    """Whether a `Change` may be made: the item is there, is no tombstone, and has a version that counts."""
    found = version_of(there, names)
    return there is not None and not is_tombstone(there, names) and found is not None and found.kind == "N"


def change(there: Item | None, asked: Change, names: Names) -> tuple[Item | None, Outcome]:
    """What is there after a change of part of an item, and what it came to."""
    found = version_of(there, names)
    if there is None or found is None or not can_change(there, names):
        return there, Outcome(refused_change(there, names), there)
    made = {name: value for name, value in there.items() if name not in asked.remove} | asked.put
    made[names.version] = Version(int(found.value) + 1).attribute
    return made, Outcome(None, made)


def refused_change(there: Item | None, names: Names) -> Reason:
    """Why a change was not made, from the item that is there."""
    if there is None:
        return "missing"
    return "tombstone" if is_tombstone(there, names) else "unversioned"


# --- as arguments of DynamoDB's calls ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expression:
    """A condition in DynamoDB's language, with its names and values."""

    text: str
    names: dict[str, str] = field(default_factory=dict)
    values: dict[str, Attribute] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """For PutItem, UpdateItem and DeleteItem."""
        made: dict[str, Any] = {"ConditionExpression": self.text, "ExpressionAttributeNames": self.names}
        if self.values:
            made["ExpressionAttributeValues"] = self.values
        return {**made, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


def expression(condition: Condition, write: Write, names: Names, *, seen: Version | None = None) -> Expression:
    """The condition of a write; it holds exactly where :func:`holds` does."""
    key = {"#key": next(iter(write.key))}
    if condition is Condition.ABSENT:
        return Expression("attribute_not_exists(#key)", key)
    # attribute_type keeps an item whose version is of another domain, as the comparison alone does on DynamoDB but not everywhere.
    kind = {":kind": {"S": (seen or write.version).kind}}
    if condition is Condition.UNCHANGED:
        return Expression(
            "attribute_type(#version, :kind) AND #version = :seen AND attribute_not_exists(#deleted)",
            {"#version": names.version, "#deleted": names.deleted},
            {":seen": (seen or write.version).attribute, **kind},
        )
    is_newer, used = "#version < :version", {**key, "#version": names.version}
    if write.is_tombstone:
        used["#deleted"] = names.deleted
        is_newer = f"({is_newer} OR (#version = :version AND attribute_not_exists(#deleted)))"
    text = f"attribute_not_exists(#key) OR (attribute_type(#version, :kind) AND {is_newer})"
    return Expression(text, used, {":version": write.version.attribute, **kind})


def put_request(
    table: str, write: Write, names: Names, *, condition: Condition = Condition.NEWER, seen: Version | None = None
) -> dict[str, Any]:
    """Arguments of PutItem."""
    asked = expression(condition, write, names, seen=seen)
    return {"TableName": table, "Item": document(write, names), **asked.arguments}


def update_request(table: str, asked: Change, names: Names) -> dict[str, Any]:
    """Arguments of UpdateItem: on an item that is there, alive and versioned; never one that makes a part of an item.

    Raises:
        ValueError: it names a key attribute or one that is not a column
    """
    _check_change(asked, names)
    used = {"#version": names.version, "#deleted": names.deleted, "#key": next(iter(asked.key))}
    values: dict[str, Attribute] = {":one": {"N": "1"}, ":number": {"S": "N"}}
    sets, removes = ["#version = #version + :one"], []
    for position, (name, value) in enumerate(sorted(asked.put.items())):
        used[f"#p{position}"], values[f":p{position}"] = name, value
        sets.append(f"#p{position} = :p{position}")
    for position, name in enumerate(sorted(asked.remove)):
        used[f"#r{position}"] = name
        removes.append(f"#r{position}")
    return {
        "TableName": table,
        "Key": asked.key,
        "UpdateExpression": f"SET {', '.join(sets)}" + (f" REMOVE {', '.join(removes)}" if removes else ""),
        "ConditionExpression": "attribute_exists(#key) AND attribute_not_exists(#deleted) AND attribute_type(#version, :number)",
        "ExpressionAttributeNames": used,
        "ExpressionAttributeValues": values,
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def partiql_insert(table: str, write: Write, names: Names) -> dict[str, Any]:
    """A statement of BatchExecuteStatement or ExecuteStatement: INSERT, which is `Condition.ABSENT` for each item.

    DuplicateItem says that something is there: classify it, and put ``older`` ones again by :func:`put_request`.
    """
    item = document(write, names)
    members = ", ".join(f"'{_quoted(name)}': ?" for name in item)
    return {
        "Statement": f'INSERT INTO "{table}" VALUE {{{members}}}',
        "Parameters": list(item.values()),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def partiql_replace(table: str, write: Write, columns: Collection[str], names: Names) -> dict[str, Any]:
    """A statement that makes an older item this one: UPDATE ... WHERE key AND version < ?. For an item that is there.

    UPDATE keeps what it does not name, so `columns` has to hold every attribute that an item of the table may have.

    Args:
        table: of DynamoDB
        write: a live item; a tombstone has to be put
        columns: attributes of the table's items, without keys
        names: of the attributes that are not columns
    """
    if write.attributes is None:
        raise ValueError("a tombstone has nothing but keys and version: put it")
    item = {name: value for name, value in document(write, names).items() if name not in write.key}
    gone = sorted({*columns, names.deleted, names.expires, names.stamp} - {*item})
    clauses = "".join(f' SET "{_named(name)}"=?' for name in item) + "".join(
        f' REMOVE "{_named(name)}"' for name in gone
    )
    where = " AND ".join(f'"{_named(name)}"=?' for name in write.key)
    version = f'"{_named(names.version)}"'
    return {
        "Statement": f'UPDATE "{table}"{clauses} WHERE {where} AND attribute_type({version}, ?) AND {version} < ?',
        "Parameters": [*item.values(), *write.key.values(), {"S": write.version.kind}, write.version.attribute],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


# --- as text, for stores that have no numbers of 64 bits ----------------------------------------------------------------


def token(version: Version) -> str:
    """A version as text whose bytes sort as versions do.

    ``n`` and 20 digits (below zero a minus and the ten's complement), or ``t`` and the text. Redis compares
    these: a number of Lua has 53 bits.
    """
    if isinstance(version.value, str):
        return f"t{version.value}"
    number = int(version.value)
    if not _LOWEST <= number <= _HIGHEST or number != version.value:
        raise VersionError("a version has 64 bits")
    return f"n{number:0{_TOKEN_DIGITS}d}" if number >= 0 else f"n-{10**_TOKEN_DIGITS + number:0{_TOKEN_DIGITS}d}"


def from_token(text: str) -> Version | None:
    """The version of a :func:`token`; None when it is none."""
    if text.startswith("t") and len(text) > 1:
        return Version(text[1:])
    if not re.fullmatch(rf"n-?[0-9]{{{_TOKEN_DIGITS}}}", text):
        return None
    return Version(int(text[2:]) - 10**_TOKEN_DIGITS if text[1] == "-" else int(text[1:]))


def _check_change(asked: Change, names: Names) -> None:
    if taken := sorted((asked.put.keys() | asked.remove) & (asked.key.keys() | names.all)):
        raise ValueError(f"{', '.join(taken)}: a change cannot touch the key or what belongs to the rules")


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def _named(name: str) -> str:
    return name.replace('"', '""')
