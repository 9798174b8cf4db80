"""DynamoDB, Redis and memory as stores of items under the rules. Clients are arguments; nothing here opens one."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from dbops import asking
from dbops.keyvalue import rules
from dbops.keyvalue.codec import ColumnCodec
from dbops.keyvalue.items import Attribute, Item, Reject, canonical, json_dumps, json_loads
from dbops.keyvalue.rules import Change, Condition, Names, Outcome, Version, Write
from dbops.keyvalue.views import View

PUT_LUA = (Path(__file__).parent / "lua" / "put.lua").read_text()
ATTEMPTS = 16
"""Of a step that another writer overtook."""
_TOO_LARGE = "item size"
_NULLS = "_null"
_TEXTS = frozenset({"S", "N"})
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([Ee][-+]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"([0-9a-f]{2})*")
_SHA = hashlib.sha1(PUT_LUA.encode(), usedforsecurity=False).hexdigest()


class Contended(RuntimeError):
    """Other writers overtook a step each time it was tried; nothing was written, and it may be tried again."""


class Store(Protocol):
    """A table of items. Every write is conditional; there is no other on purpose."""

    def get(self, key: Item) -> Item | None:
        """The item, live or tombstone, as of now (a consistent read); None when there is none."""

    def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Version | None = None) -> Outcome:
        """Write the whole item if the condition holds, in one step.

        Raises:
            Reject: the store takes no such item
        """

    def change(self, asked: Change) -> Outcome:
        """Change part of an item that is there, in one step; the outcome has the item as it is then.

        Raises:
            Reject: the store takes no such item
        """


@dataclass
class MemoryStore:
    """A dict under the very functions of the rules: for tests of applications, and for the model of the rule table."""

    names: Names = field(default_factory=Names)
    items: dict[str, Item] = field(default_factory=dict)
    """By canonical text of the key."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, key: Item) -> Item | None:
        """See :class:`Store`."""
        return self.items.get(canonical(key))

    def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Version | None = None) -> Outcome:
        """See :class:`Store`."""
        with self._lock:
            there, outcome = rules.put(condition, self.get(write.key), write, self.names, seen=seen)
            self._keep(write.key, there)
        return outcome

    def change(self, asked: Change) -> Outcome:
        """See :class:`Store`."""
        with self._lock:
            there, outcome = rules.change(self.get(asked.key), asked, self.names)
            self._keep(asked.key, there)
        return outcome

    def _keep(self, key: Item, item: Item | None) -> None:
        if item is not None:
            self.items[canonical(key)] = item


@dataclass(frozen=True)
class DynamoStore:
    """A table of DynamoDB."""

    client: Any
    """boto3's low-level client (not the resource: it rounds what it converts)."""
    table: str
    names: Names = field(default_factory=Names)

    def get(self, key: Item) -> Item | None:
        """See :class:`Store`."""
        found: Item | None = self.client.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        return found

    def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Version | None = None) -> Outcome:
        """See :class:`Store`."""
        asked = rules.put_request(self.table, write, self.names, condition=condition, seen=seen)
        refused = self._refused("put_item", asked)
        if refused is None:
            return Outcome()
        return Outcome(rules.classify(refused or None, write.version, self.names), refused or None)

    def change(self, asked: Change) -> Outcome:
        """See :class:`Store`."""
        answer: dict[str, Any] = {}
        refused = self._refused("update_item", rules.update_request(self.table, asked, self.names), answer)
        if refused is None:
            return Outcome(None, answer.get("Attributes"))
        return Outcome(rules.refused_change(refused or None, self.names), refused or None)

    def _refused(
        self, operation: str, arguments: Mapping[str, Any], answer: dict[str, Any] | None = None
    ) -> Item | None:
        """The item that was there when the condition was not met ({} for none), or None when the call was carried out."""
        try:
            found = getattr(self.client, operation)(**arguments)
        except Exception as error:
            response = getattr(error, "response", None) or {}
            if asking.code(error) == "ConditionalCheckFailedException":
                return dict(response.get("Item") or {})
            if asking.code(error) == "ValidationException" and _TOO_LARGE in asking.text(error).lower():
                raise Reject("the item is larger than DynamoDB's limit of 400 KB") from error
            raise
        if answer is not None:
            answer.update(found)
        return None


@dataclass(frozen=True)
class RedisStore:
    """Keys of Redis, Valkey or MemoryDB, each an item; writes are one Lua script."""

    client: Any
    """Of redis-py (or another with its calls) that does not decode responses: values may be bytes."""
    view: View
    prefix: str
    """Before each key, such as ``user:``."""
    layout: Literal["hash", "string"] = "hash"
    """A hash with a field for each column, or one JSON document."""

    def __post_init__(self) -> None:
        if len(self.view.keys.parts) != 1:
            raise ValueError("a key of Redis is one text: give the view one key template")
        if _NULLS in self.view.by_name:
            raise ValueError(f"a column is called {_NULLS}, which is taken: select it under another name")
        pool = getattr(self.client, "connection_pool", None)
        if (getattr(pool, "connection_kwargs", None) or {}).get("decode_responses"):
            raise ValueError(
                "the client decodes responses, so bytes would not survive: open it with decode_responses=False"
            )

    @property
    def names(self) -> Names:
        """Of the attributes that are not columns."""
        return self.view.names

    def key(self, key: Item) -> bytes:
        """The key in Redis."""
        ((_, attribute),) = key.items()
        ((kind, value),) = attribute.items()
        return f"{self.prefix}{value.hex() if kind == 'B' else value}".encode()

    def item_key(self, key: bytes) -> Item | None:
        """The key of the item under a key in Redis: `key` backwards; None for a key that is not of this prefix.

        A key of the prefix that the template does not make comes as text.
        """
        prefix = self.prefix.encode()
        if not key.startswith(prefix):
            return None
        ((name, template),) = self.view.keys.parts
        text, kind = key[len(prefix) :].decode("utf-8", "replace"), str(template.kind)
        if kind == "N" and not _NUMBER.fullmatch(text):
            kind = "S"
        if kind == "B" and not _HEXADECIMAL.fullmatch(text):
            kind = "S"
        return {name: {kind: bytes.fromhex(text) if kind == "B" else text}}

    def get(self, key: Item) -> Item | None:
        """See :class:`Store`."""
        return self.item(key, self.client.execute_command(*self.get_command(key)))

    def get_command(self, key: Item) -> tuple[str, bytes]:
        """The command that reads an item, for a pipeline; `item` reads its answer."""
        return ("HGETALL" if self.layout == "hash" else "GET", self.key(key))

    def item(self, key: Item, answer: Any) -> Item | None:
        """The item in the answer to `get_command`: fields and values in turn or by name, or the text; None when there is none."""
        if self.layout == "string":
            return None if answer is None else self._of_text(key, answer)
        if isinstance(answer, list | tuple):
            answer = dict(zip(answer[::2], answer[1::2], strict=True))
        return self._of_hash(key, answer) if answer else None

    def put_command(self, write: Write, condition: Condition = Condition.NEWER) -> list[bytes | str]:
        """The command that puts an item, for a pipeline; `outcome` reads its answer. The server has to know `PUT_LUA`."""
        return ["EVALSHA", _SHA, "1", *self._arguments(write, condition, None)]

    def insert_command(self, write: Write) -> list[bytes | str] | None:
        """A cheaper command for `Condition.ABSENT`, where the layout has one: it answers nil when something is there."""
        if self.layout != "string":
            return None
        expires = [] if write.expires_s is None else ["EXAT", str(write.expires_s)]
        return ["SET", self.key(write.key), self._text(rules.document(write, self.names)), "NX", *expires]

    def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Version | None = None) -> Outcome:
        """See :class:`Store`."""
        arguments = self._arguments(write, condition, seen)
        try:
            answer = self.client.evalsha(_SHA, 1, *arguments)
        except Exception as error:
            if not _is_unknown_script(error):
                raise
            # A server that was restarted, or failed over: EVAL runs the script there and leaves it known.
            answer = self.client.eval(PUT_LUA, 1, *arguments)
        return self.outcome(write, answer)

    def put_many(self, writes: Sequence[Write], condition: Condition = Condition.NEWER) -> list[Outcome]:
        """Put items in one pipeline; each is on its own, and the order of the outcomes is theirs.

        Raises:
            Exception: the first error of the server; what was not written may simply be put again
        """
        answers = self._pipelined([self._arguments(write, condition, None) for write in writes])
        return [self.outcome(write, answer) for write, answer in zip(writes, answers, strict=True)]

    def change(self, asked: Change) -> Outcome:
        """See :class:`Store`. Compares and swaps: Lua's JSON would round numbers.

        Raises:
            Contended: other writers overtook it `ATTEMPTS` times
        """
        for _ in range(ATTEMPTS):
            there = self.get(asked.key)
            made, outcome = rules.change(there, asked, self.names)
            if made is None or not outcome.is_written:
                return outcome
            write = self._write_of(asked.key, made)
            if self.put(write, Condition.UNCHANGED, rules.version_of(there, self.names)).is_written:
                return outcome
        raise Contended(f"{self.prefix}...: the item changed {ATTEMPTS} times while it was being changed")

    def _pipelined(self, calls: Sequence[list[bytes | str]]) -> list[Any]:
        for _ in range(2):
            pipeline = self.client.pipeline(transaction=False)
            for arguments in calls:
                pipeline.execute_command("EVALSHA", _SHA, 1, *arguments)  # a cluster's pipeline has no evalsha
            answers: list[Any] = pipeline.execute(raise_on_error=False)
            errors = [each for each in answers if isinstance(each, Exception)]
            if not errors:
                return answers
            if not any(map(_is_unknown_script, errors)):
                raise errors[0]
            self.client.script_load(
                PUT_LUA
            )  # then all of them again: a write that was taken is equal now, or taken once more
        raise errors[0]

    def _arguments(self, write: Write, condition: Condition, seen: Version | None) -> list[bytes | str]:
        item = rules.document(write, self.names)
        payload: list[bytes | str] = [self._text(item)] if self.layout == "string" else list(self._fields(item))
        return [
            self.key(write.key), self.layout, condition.value, rules.token(write.version), rules.token(seen) if seen else "",
            "1" if write.is_tombstone else "0", "" if write.expires_s is None else str(write.expires_s), self.names.version,
            self.names.deleted, *payload,
        ]  # fmt: skip

    def outcome(self, write: Write, answer: Any) -> Outcome:
        """What a put came to, from the script's answer."""
        if answer == 1:
            return Outcome()
        kind, found = bytes(answer[1]).decode(), answer[2]
        there: Item | None = None
        if kind == "hash":
            there = self._of_hash(write.key, dict(zip(found[::2], found[1::2], strict=True)))
        elif kind == "string":
            there = self._of_text(write.key, found)
        elif kind == "other":
            there = dict(write.key)
        return Outcome(rules.classify(there, write.version, self.names), there)

    def _write_of(self, key: Item, item: Item) -> Write:
        version = rules.version_of(item, self.names)
        assert version is not None  # noqa: S101 - the rules have just given it one
        kept = {name: value for name, value in item.items() if name not in self.names.all and name not in key}
        return Write(key, version, kept, item.get(self.names.stamp, {}).get("S", ""))

    @cached_property
    def _columns(self) -> frozenset[str]:
        return frozenset(self.view.attribute_names)

    @cached_property
    def _sorted(self) -> tuple[tuple[str, ColumnCodec], ...]:
        return tuple((name, self.view.by_name[name]) for name in sorted(self._columns))

    def _text(self, item: Item) -> str:
        made = {name: self.view.by_name[name].to_json(item[name]) for name in item.keys() & self._columns}
        return json_dumps({**made, **{name: value.decode() for name, value in self._marks(item)}})

    def _fields(self, item: Item) -> Iterator[bytes | str]:
        nulls = []
        for name, codec in self._sorted:
            if (attribute := item.get(name)) is None:
                continue
            ((kind, value),) = attribute.items()
            if kind == "NULL" and codec.kind != "json":
                nulls.append(name)
            else:
                yield name
                yield value if kind in _TEXTS and codec.kind != "json" else codec.to_field(attribute)
        for name, value in self._marks(item):
            yield from (name, value)
        if nulls:
            yield from (_NULLS, json_dumps(nulls))

    def _marks(self, item: Item) -> Iterator[tuple[str, bytes]]:
        """Names and texts of what is not a column."""
        names, version = self.names, rules.version_of(item, self.names)
        if version is not None:
            yield names.version, rules.token(version).encode()
        if names.deleted in item:
            yield names.deleted, b"1"
        for name, kind in ((names.expires, "N"), (names.stamp, "S")):
            if name in item:
                yield name, str(item[name][kind]).encode()

    def _of_marks(self, found: Mapping[str, str]) -> Item:
        names, made = self.names, Item()
        if (version := rules.from_token(found.get(names.version, ""))) is not None:
            made[names.version] = version.attribute
        if names.deleted in found:
            made[names.deleted] = {"BOOL": True}
        if names.expires in found:
            made[names.expires] = {"N": found[names.expires]}
        if names.stamp in found:
            made[names.stamp] = {"S": found[names.stamp]}
        return made

    def _of_hash(self, key: Item, found: Mapping[bytes, bytes]) -> Item:
        fields = {name.decode("utf-8", "replace"): value for name, value in found.items()}
        marks = {name: fields[name].decode("utf-8", "replace") for name in fields.keys() & self.names.all}
        columns: dict[str, Attribute] = {}
        for name in fields.keys() & self._columns:
            columns[name] = _attribute(self.view.by_name[name].from_field, fields[name])
        for name in _names(fields.get(_NULLS, b"[]")):
            columns[name] = {"NULL": True}
        return {**key, **columns, **self._of_marks(marks)}

    def _of_text(self, key: Item, text: bytes) -> Item:
        try:
            found = json_loads(text, "the item")
        except Reject:
            found = None
        if not isinstance(found, dict):  # somebody else's
            return dict(key)
        columns = {
            name: _attribute(self.view.by_name[name].from_json, found[name]) for name in found.keys() & self._columns
        }
        marks = {name: str(found[name]) for name in found.keys() & self.names.all}
        return {**key, **columns, **self._of_marks(marks)}


def _attribute(read: Callable[[Any], Attribute], value: Any) -> Attribute:
    """The attribute of a value; what no writer of the view makes is text, so that it differs and holds nobody up."""
    try:
        return read(value)
    except (ValueError, ArithmeticError):
        return {"S": value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)}


def _names(text: bytes) -> list[str]:
    """Columns that are NULL; none where it is no list of texts."""
    try:
        found = json_loads(text, _NULLS)
    except Reject:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _is_unknown_script(error: Exception) -> bool:
    """NOSCRIPT: the server does not know the script. By name, so that no client library has to be installed for another."""
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")
