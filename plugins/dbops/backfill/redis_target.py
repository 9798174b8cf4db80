"""MemoryDB, ElastiCache, Valkey or Redis behind the door of `target`: pipelines of conditional writes.

The server's user needs, on keys of the prefix: ``+evalsha +eval +script|load``, what the scripts call (``+type +hmget +hgetall +hkeys +hset
+hdel +get +set +del +expireat +persist``), ``+scan +info +dbsize +ping``, and of a cluster ``+cluster|slots +command``.

MemoryDB has written what it acknowledges to its log on several sites. ElastiCache and Redis copy it to replicas later, so a failover may
lose writes that were acknowledged: the verification finds them missing, and applications have the same gap.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from dbops import connections
from dbops.backfill import spec
from dbops.backfill.redis_wire import Command, Wire
from dbops.backfill.target import Overloaded, Pace, Pressure, Reads, ScanPage, Sent, TargetError, TargetFacts
from dbops.keyvalue import rules
from dbops.keyvalue.items import WRITE_UNIT_BYTES, Item, read_units
from dbops.keyvalue.rules import Names, Outcome, Version, Write
from dbops.keyvalue.stores import PUT_LUA, RedisStore
from dbops.keyvalue.views import View

REMOVE_LUA = (Path(__file__).parent / "lua" / "remove.lua").read_text()
PIPELINE_KEYS, PIPELINE_BYTES = 500, 1 << 20
"""Of one pipeline; the server keeps the answers in memory until it is done."""
SCAN_KEYS = 500
PATIENCE_S = 30.0
"""So long writes are sent again before the store counts as overloaded; a failover takes less."""
LONGEST_WAIT_S = 2.0
_FULL = "OOM"
_TRANSIENT = frozenset(
    {"LOADING", "BUSY", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "UNKILLABLE", "MISCONF"}
)
"""What a server says that will take writes again, or another in its place."""


@dataclass
class _Batch:
    """Writes of one pipeline, by their places among those that were asked for."""

    places: list[int] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    bytes: int = 0


@dataclass
class RedisTarget:
    """See :class:`dbops.backfill.target.Target`."""

    store: RedisStore
    threads: int = 8
    """Pipelines under way at once, each on a connection of its own."""
    reads: Pace | None = None
    """Of reads; a read unit is a key of up to 4 KB. None: nobody limits them."""
    patience_s: float = PATIENCE_S
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    random: Callable[[float, float], float] = random.uniform  # noqa: S311 - it spreads retries

    def __post_init__(self) -> None:
        self._wire = Wire(self.store.client)
        self._reads = Reads(self.reads)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="redis")

    def close(self) -> None:
        """End threads and connections."""
        self._pool.shutdown(cancel_futures=True)
        self.store.client.close()

    @property
    def names(self) -> Names:
        """See `Target`."""
        return self.store.names

    # --- what the store is ---------------------------------------------------------------------------------------------

    def facts(self) -> TargetFacts:
        """See `Target`. Memory and items are those of all nodes together, whatever their keys.

        Raises:
            TargetError: a node does not answer
        """
        try:
            nodes = self._wire.nodes()
            found = [node.client.info() for node in nodes]
            items = sum(node.client.dbsize() for node in nodes)
        except RedisError as error:
            raise TargetError(f"{self._where}: it cannot be asked what it is ({_named(error)})") from error
        limits = [int(info.get("maxmemory", 0)) for info in found]
        policies = sorted({str(info.get("maxmemory_policy", "")) for info in found})
        states = [_state(node.name, info) for node, info in zip(nodes, found, strict=True)]
        return TargetFacts(
            exists=True,
            state=next((state for state in states if state != "ACTIVE"), "ACTIVE"),
            key=tuple((name, template.kind) for name, template in self.store.view.keys.parts),
            items=items,
            memory_used=sum(int(info["used_memory"]) for info in found),
            memory_limit=sum(limits) if all(limits) else None,
            eviction=", ".join(policies),
        )

    # --- writing -------------------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        """See `Target`. A write unit is a kilobyte of the command.

        Raises:
            Overloaded: the server is full, or turned writes away for `patience_s`; some of the writes may have been made
            TargetError: the server takes no such writes from this user
        """
        batches = list(self._batches(writes))
        sent = Sent([Outcome()] * len(writes), bytes=sum(batch.bytes for batch in batches))
        run = self._pool.map if len(batches) > 1 else map
        for done in run(lambda batch: self._write_batch(batch, writes, pace), batches):
            for place, outcome in done.outcomes.items():
                sent.outcomes[place] = outcome
            sent.units += done.units
            sent.requests += done.requests
            sent.pressures.update(done.pressures)
        return sent

    def _batches(self, writes: Sequence[Write]) -> Iterator[_Batch]:
        batch = _Batch()
        for place, write in enumerate(writes):
            command = self.store.insert_command(write) or self.store.put_command(write)
            size = sum(map(len, command))
            if batch.places and (len(batch.places) == PIPELINE_KEYS or batch.bytes + size > PIPELINE_BYTES):
                yield batch
                batch = _Batch()
            batch.places.append(place)
            batch.commands.append(command)
            batch.units.append(-(-size // WRITE_UNIT_BYTES))
            batch.bytes += size
        if batch.places:
            yield batch

    def _write_batch(self, batch: _Batch, writes: Sequence[Write], pace: Pace) -> _Done:
        done, patience = _Done(), _Patience(self)
        waiting = dict(zip(batch.places, zip(batch.commands, batch.units, strict=True), strict=True))
        while waiting:
            places, units = list(waiting), sum(each for _, each in waiting.values())
            pace.spend(units)
            keys = [self.store.key(writes[place].key) for place in places]
            answers = self._wire.send([waiting[place][0] for place in places], keys)
            done.units += units
            done.requests += 1
            refused: dict[int, Exception] = {}
            for place, answer in zip(places, answers, strict=True):
                if isinstance(answer, Exception):
                    refused[place] = answer
                elif answer is None:  # SET NX: something is there, so the rules have to look at it
                    waiting[place] = (self.store.put_command(writes[place]), waiting[place][1])
                else:
                    del waiting[place]
                    is_inserted = answer in (b"OK", True)
                    done.outcomes[place] = Outcome() if is_inserted else self.store.outcome(writes[place], answer)
            if refused:
                self._after_refusals(refused, {place: waiting[place][1] for place in refused}, pace, done)
                patience.again(next(iter(refused.values())), f"{len(refused)} writes were turned away")
        return done

    def _after_refusals(self, refused: dict[int, Exception], units: dict[int, float], pace: Pace, done: _Done) -> None:
        """Make ready for sending again, or give up.

        Raises:
            Overloaded: the server is full, which waiting does not change
            TargetError: it will never take them
        """
        by_code: dict[str, list[int]] = {}
        for place, error in refused.items():
            by_code.setdefault(_code(error), []).append(place)
        for code, places in by_code.items():
            error = refused[places[0]]
            if code == "NOSCRIPT":
                self._load(PUT_LUA)
                continue
            if code == _FULL:
                pressure = Pressure("server", _FULL, self._where)
                pace.eased(pressure, sum(units[place] for place in places))
                raise Overloaded(
                    f"{self._where}: the memory is full, and with noeviction the writes of applications are refused too: raise "
                    "maxmemory or take a larger node, then run again",
                    pressure,
                ) from error
            if not _is_transient(error):
                raise TargetError(
                    f"{self._where}: the server takes no writes from this user or of this kind ({_named(error)})"
                ) from error
            pressure = Pressure("server", code, self._where)
            pace.eased(pressure, sum(units[place] for place in places))
            done.pressures[pressure] = done.pressures.get(pressure, 0) + len(places)
            self._wire.look_again()

    def _load(self, script: str) -> None:
        try:
            self._wire.load(script)
        except RedisError:
            return  # then it is said again that the server does not know it

    # --- reading -------------------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[Item]) -> list[Item | None]:
        """See `Target`. Reads of a primary see every write that it has taken.

        Raises:
            Overloaded: a server did not answer for `patience_s`
            TargetError: it lets this user not read
        """
        found: list[Item | None] = []
        for start in range(0, len(keys), PIPELINE_KEYS):
            found += self._read_some(keys[start : start + PIPELINE_KEYS])
        return found

    def _read_some(self, keys: Sequence[Item]) -> list[Item | None]:
        commands, places = [self.store.get_command(key) for key in keys], [self.store.key(key) for key in keys]
        patience = _Patience(self)
        self._reads.pay()
        while True:
            answers = self._wire.send(commands, places)
            # Somebody else's key of another type is an item without version, as the script of the writes takes it.
            errors = [each for each in answers if isinstance(each, Exception) and _code(each) != "WRONGTYPE"]
            if not errors:
                self._reads.owe(sum(read_units(_bytes(answer)) for answer in answers))
                return [
                    dict(key) if isinstance(answer, Exception) else self.store.item(key, answer)
                    for key, answer in zip(keys, answers, strict=True)
                ]
            if not _is_transient(errors[0]):
                raise TargetError(f"{self._where}: it cannot be read ({_named(errors[0])})") from errors[0]
            self._wire.look_again()
            self._reads.eased(Pressure("server", _code(errors[0]), self._where))
            patience.again(errors[0], "reads were turned away")

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage]:
        """See `Target`. A segment has whole nodes, since SCAN cannot divide one; more segments than nodes are empty.

        An item may come more than once, as SCAN says of itself; none that is there all the time is left out.

        Raises:
            TargetError: a node was started anew or slots moved meanwhile, so that items may have been passed over
        """
        try:
            yield from self._scan(segment, segments, after)
        except RedisError as error:
            raise TargetError(
                f"{self._where}: the scan broke off ({_named(error)}): go on after the last page"
            ) from error

    def _scan(self, segment: int, segments: int, after: str | None) -> Iterator[ScanPage]:
        layout, nodes = self._layout(), self._wire.nodes()[segment::segments]
        began, name, cursor = after.split("/") if after else (layout, nodes[0].name if nodes else "", "0")
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", self.store.prefix.encode()) + b"*"
        self._must_be(began, layout)
        names = [node.name for node in nodes]
        for position in range(names.index(name) if name in names else 0, len(nodes)):
            while True:
                found, keys = nodes[position].client.scan(cursor=int(cursor), match=pattern, count=SCAN_KEYS)
                cursor = str(int(found))
                is_last = cursor == "0" and position == len(nodes) - 1
                if cursor == "0":
                    self._must_be(began, self._layout())
                follows = nodes[position + (cursor == "0")].name if not is_last else ""
                yield ScanPage(self._items(keys), None if is_last else f"{began}/{follows}/{cursor}")
                if cursor == "0":
                    break

    def _items(self, keys: Sequence[bytes]) -> list[Item]:
        found = [key for each in dict.fromkeys(keys) if (key := self.store.item_key(each)) is not None]
        return [item for item in self.read(found) if item is not None]

    def _layout(self) -> str:
        """Names which process has which slots: a cursor of SCAN means nothing to another."""
        slots = self._wire.slots()
        runs = [(node.name, node.client.info("server")["run_id"]) for node in self._wire.nodes()]
        return hashlib.sha256(repr((slots, runs)).encode()).hexdigest()[:16]

    def _must_be(self, began: str, layout: str) -> None:
        if began != layout:
            raise TargetError(
                f"{self._where}: a node was started anew, or slots moved, since the scan began, so that items may have been "
                "passed over: scan again from the start"
            )

    # --- taking back ---------------------------------------------------------------------------------------------------

    def remove(self, key: Item, version: Version, stamp: str) -> bool:
        """See `Target`.

        Raises:
            TargetError: the server did not do it; what is there stays
        """
        names = self.names
        arguments = [self.store.layout, rules.token(version), stamp, names.version, names.deleted, names.stamp]
        try:
            return bool(self.store.client.eval(REMOVE_LUA, 1, self.store.key(key), *arguments))
        except RedisError as error:
            raise TargetError(f"{self._where}: an item was not removed ({_named(error)})") from error

    @property
    def _where(self) -> str:
        return f"redis {self.store.prefix}*"


@dataclass
class _Done:
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    units: float = 0.0
    requests: int = 0
    pressures: dict[Pressure, int] = field(default_factory=dict)


class _Patience:
    """How long something is tried again."""

    def __init__(self, target: RedisTarget) -> None:
        self._target, self._until, self._attempt = target, target.monotonic() + target.patience_s, 0

    def again(self, error: Exception, what: str) -> None:
        """Return when it may be tried again: full jitter, and at once where the server only has to be told the script.

        Raises:
            Overloaded: it was tried long enough
        """
        self._attempt += 1
        if self._target.monotonic() >= self._until:
            where = self._target._where
            raise Overloaded(
                f"{where}: {what} for {self._target.patience_s:.0f} s ({_named(error)}); what was made is harmless to make again",
                Pressure("server", _code(error), where),
            ) from error
        if not isinstance(error, NoScriptError):
            self._target.sleep(self._target.random(0, min(LONGEST_WAIT_S, 0.05 * 2 ** min(self._attempt, 10))))


def open_target(target: spec.RedisTarget, view: View, threads: int = 8, reads: Pace | None = None) -> RedisTarget:
    """The target that a spec declares.

    Args:
        target: of the spec
        view: of its rows
        threads: pipelines under way at once
        reads: pace of the reads

    Raises:
        dbops.connections.ConnectionUndefined: the connection is not defined
        TargetError: the server does not answer, or refuses the login
    """
    try:
        client = connections.redis(target.connection, connections=threads + 2)
    except (RedisError, OSError) as error:
        raise TargetError(
            f"target.connection {target.connection!r}: the server cannot be reached ({_named(error)}): "
            "see host, port, ssl and login of the connection, and the security group"
        ) from error
    return RedisTarget(RedisStore(client, view, target.prefix, target.layout), threads, reads)


def _state(name: str, info: dict[str, Any]) -> str:
    if info.get("loading"):
        return f"LOADING ({name})"
    if info.get("role", "master") != "master":
        return f"REPLICA ({name} takes no writes: connect to the primary)"
    return "ACTIVE"


def _bytes(answer: Any) -> int:
    """Of an answer to a read."""
    if isinstance(answer, bytes | str):
        return len(answer)
    if isinstance(answer, dict):
        answer = [*answer, *answer.values()]
    return sum(map(_bytes, answer)) if isinstance(answer, list | tuple) else 0


def _code(error: Exception) -> str:
    """The word by which a server names its error; the class where a connection broke."""
    if isinstance(error, NoScriptError):
        return "NOSCRIPT"
    if isinstance(error, BusyLoadingError):
        return "LOADING"
    if "non local key" in str(error):  # of a script whose slot has just moved away
        return "TRYAGAIN"
    first = str(error).split(" ", 1)[0].rstrip(":")
    # redis-py takes the word off where it has a class for it.
    named = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "ClusterDownError": "CLUSTERDOWN", "TryAgainError": "TRYAGAIN",
             "MasterDownError": "MASTERDOWN"}  # fmt: skip
    return named.get(type(error).__name__, first if first.isupper() and first.isalpha() else type(error).__name__)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return False
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return True
    return _code(error) in _TRANSIENT or not isinstance(error, ResponseError)


def _named(error: Exception) -> str:
    """The error without what it was about: a server's text may hold keys and values."""
    code = _code(error)
    if isinstance(error, MovedError):
        return "MOVED: keys lie on several nodes, so set extra 'cluster' of the connection to true"
    return type(error).__name__ if code == type(error).__name__ else f"{type(error).__name__} {code}"
