"""Every state that a key of Redis ever had, told by the server itself: this connects as a replica and keeps what it is sent.

For the oracle only: it has no client library and nothing of dbops between itself and the server.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, BinaryIO

from lab.config import LabError
from lab.migration.oracle import Item, Kinds, document, plain

ACK_S = 1.0
BARRIER_S = 30.0
State = dict[bytes, bytes]


class Replica:
    """Follows all writes from the moment at which it is made.

    Args:
        host: of the server
        port: of the server
        prefix: of the keys that are kept
    """

    def __init__(self, host: str, port: int, prefix: str) -> None:
        self.prefix, self.address = prefix.encode(), (host, port)
        self.state: dict[bytes, State] = {}
        self.changes: list[tuple[bytes, State | None, State | None]] = []
        self.failure: BaseException | None = None
        self._barriers: set[bytes] = set()
        self._reached = threading.Condition()
        self._ended = threading.Event()
        self._socket = socket.create_connection(self.address, timeout=60)
        self._file = self._socket.makefile("rb")
        self._synchronise()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._read, self._acknowledge)]
        for thread in self._threads:
            thread.start()

    def settle(self) -> None:
        """Return when all that had been written has been told.

        Raises:
            LabError: it was not in time
        """
        barrier = self.prefix + f"barrier:{time.monotonic_ns()}".encode()
        with socket.create_connection(self.address, timeout=10) as asking:
            asking.sendall(_command(b"SET", barrier, b"1") + _command(b"DEL", barrier))
            asking.recv(100)
        with self._reached:
            if not self._reached.wait_for(lambda: barrier in self._barriers or self.failure, BARRIER_S):
                raise LabError(f"Redis told its replica nothing for {BARRIER_S:.0f} s")
        if self.failure is not None:
            raise LabError(f"the replica of the oracle ended: {self.failure!r}") from self.failure

    def close(self) -> None:
        self._ended.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._file.close()
        self._socket.close()

    def _synchronise(self) -> None:
        self._socket.sendall(_command(b"PSYNC", b"?", b"-1"))
        answer = self._line()
        if not answer.startswith(b"+FULLRESYNC"):
            raise LabError(f"Redis takes no replica: {answer.decode(errors='replace')}")
        size = self._line()
        if not size.startswith(b"$") or not size[1:].isdigit():
            raise LabError(f"Redis sends its data as {size.decode(errors='replace')}")
        self._file.read(int(size[1:]))  # what was there before; nothing of it has the prefix

    def _line(self) -> bytes:
        while not (line := self._file.readline().strip()):  # newlines keep the connection alive
            if self._file.closed:
                raise LabError("Redis closed the connection")
        return line

    def _acknowledge(self) -> None:
        while not self._ended.wait(ACK_S):
            with suppress(OSError):
                self._socket.sendall(_command(b"REPLCONF", b"ACK", b"0"))

    def _read(self) -> None:
        try:
            group: list[list[bytes]] | None = None
            while True:
                words = self._words()
                name = words[0].upper()
                if name == b"MULTI":
                    group = []
                elif name == b"EXEC":
                    self._apply(group or [])
                    group = None
                elif group is not None:
                    group.append(words)
                else:
                    self._apply([words])
        except BaseException as error:
            if not self._ended.is_set():
                self.failure = error
                with self._reached:
                    self._reached.notify_all()

    def _words(self) -> list[bytes]:
        count = self._file.readline()
        if not count.startswith(b"*"):
            raise LabError(f"no command: {count!r}")
        found = []
        for _ in range(int(count[1:])):
            size = int(self._file.readline()[1:])
            found.append(self._file.read(size + 2)[:-2])
        return found

    def _apply(self, commands: Sequence[Sequence[bytes]]) -> None:
        """What happened at once."""
        before: dict[bytes, State | None] = {}
        for name, *words in commands:
            if not words or not words[0].startswith(self.prefix):
                continue
            if words[0].startswith(self.prefix + b"barrier:"):
                with self._reached:
                    self._barriers.add(words[0])
                    self._reached.notify_all()
                continue
            before.setdefault(words[0], self._copy(words[0]))
            self._one(name.upper(), words[0], words[1:])
        for key, old in before.items():
            if old != (new := self._copy(key)):
                self.changes.append((key, old, new))

    def _copy(self, key: bytes) -> State | None:
        return dict(self.state[key]) if key in self.state else None

    def _one(self, name: bytes, key: bytes, words: Sequence[bytes]) -> None:
        if name in (b"HSET", b"HMSET"):
            self.state.setdefault(key, {}).update(zip(words[::2], words[1::2], strict=True))
        elif name == b"HDEL":
            for each in words:
                self.state.get(key, {}).pop(each, None)
        elif name in (b"DEL", b"UNLINK"):
            self.state.pop(key, None)
        elif name not in (b"PERSIST", b"EXPIREAT", b"PEXPIREAT"):
            raise LabError(f"the oracle does not know what {name.decode()} does to a key")


def item_of(fields: State, kinds: Kinds) -> Item:
    """A hash in the form in which the oracle compares: as an item of DynamoDB."""
    made: Item = {}
    for name, value in fields.items():
        column = name.decode()
        if column == "_v":
            made["_v"] = {"N": str(int(value[1:]))}
        elif column == "_deleted":
            made["_deleted"] = {"BOOL": True}
        elif column in ("_bf", "_exp"):
            made[column] = {"S": value.decode()}
        elif column in kinds:
            made[column] = _attribute(kinds[column], value)
        else:
            made[column] = {"B": value}  # nobody's: it makes a difference
    return made


def _attribute(kind: str, value: bytes) -> dict[str, Any]:
    if kind == "binary":
        return {"B": value}
    text = value.decode()
    if kind in ("integer", "number"):
        return {"N": plain(Decimal(text))}
    if kind == "boolean":
        return {"BOOL": text == "1"}
    if kind == "set":
        return {"SS": sorted(text.split(","))}
    if kind == "json":
        return document(json.loads(text, parse_float=Decimal))
    return {"S": text}


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def scan(host: str, port: int, prefix: str) -> dict[bytes, State]:
    """All hashes with a prefix."""
    with socket.create_connection((host, port), timeout=30) as connection, connection.makefile("rb") as answers:
        cursor, found = b"0", {}
        while True:
            connection.sendall(_command(b"SCAN", cursor, b"MATCH", prefix.encode() + b"*", b"COUNT", b"1000"))
            cursor, keys = _answer(answers)
            for key in keys:
                connection.sendall(_command(b"HGETALL", key))
                flat = _answer(answers)
                found[key] = dict(zip(flat[::2], flat[1::2], strict=True))
            if cursor == b"0":
                return found


def _answer(answers: BinaryIO) -> Any:
    line = answers.readline()
    kind, rest = line[:1], line[1:].strip()
    if kind == b"*":
        return [_answer(answers) for _ in range(int(rest))]
    if kind == b"$":
        return answers.read(int(rest) + 2)[:-2]
    if kind == b"-":
        raise LabError(f"Redis refused it: {rest.decode()}")
    return rest
