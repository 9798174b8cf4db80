"""A table of DynamoDB as the target of a copy: conditional writes in batches, reads, removal, scan.

The fast path is BatchExecuteStatement with up to 25 INSERTs (field rule 5.2). An INSERT is `Condition.ABSENT`, so it never overwrites: an
item that is there gives DuplicateItem, is classified by what is there, and only an older one is put again under `Condition.NEWER`.
BatchWriteItem is as quick and has no conditions, so nothing here calls it.

What AWS says and this module relies on:

* A batch answers 200 though statements of it failed; each has an error of its own. A malformed statement fails the whole call, and so
  does one key twice.
* A statement has up to 8,192 characters, a call 25 statements. A call of 25 items of 400 KB is below the 16 MB of a request.
* An error inside a batch has a code only. PutItem's says why as well (``ThrottlingReasons``), so the first row that was turned away is
  sent by PutItem next.
* After a timeout, a broken connection or InternalServerError a write may have been made. It is sent again: if it was made, what is there
  now is exactly what was sent, and it counts as written.
"""

from __future__ import annotations

import base64
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from dbops import asking
from dbops.backfill.target import (
    Index,
    Overloaded,
    Pace,
    Pressure,
    PressureKind,
    Reads,
    ScanPage,
    Sent,
    TargetError,
    TargetFacts,
)
from dbops.keyvalue import rules
from dbops.keyvalue.items import ITEM_BYTES, WRITE_UNIT_BYTES, Item, canonical, item_size, read_units
from dbops.keyvalue.rules import Names, Outcome, Version, Write
from dbops.keyvalue.views import View

STATEMENTS, STATEMENT_CHARACTERS = 25, 8192  # BatchExecuteStatement
BATCH_BYTES = 4 * 1024 * 1024
"""Of the items of one call: far below the limit of a request, so that a call that is sent again is not a large one."""
READ_KEYS = 100  # BatchGetItem
CONNECT_S, READ_S = 5.0, 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
_THROTTLED = frozenset({
    "ThrottlingError", "ThrottlingException", "Throttling", "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestLimitExceededException",
})  # fmt: skip
_FAULTS = frozenset({"InternalServerError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException"})
_CONFLICTS = frozenset({"TransactionConflict", "TransactionConflictException", "TransactionInProgressException"})
_THERE = frozenset({"DuplicateItem", "ConditionalCheckFailed", "ConditionalCheckFailedException"})
_INVALID = frozenset({
    "ValidationError", "ValidationException", "ItemCollectionSizeLimitExceeded", "ItemCollectionSizeLimitExceededException",
})  # fmt: skip
_REASON = re.compile(r"\b(?:Table|Index)(?:Write|Read)?\w*(?:ThroughputExceeded|LimitExceeded)\b")
# What the service says about a value of a row, without the value, which may follow in its text.
_TOLD = (
    "Item size has exceeded", "Number overflow", "Number underflow", "cannot be converted to a numeric value",
    "Attempting to store more than 38 significant digits", "cannot contain an empty string", "An string set may not be empty",
    "Input collection", "Nesting Levels have exceeded supported limits", "collection size limit",
)  # fmt: skip
_KEY_SCHEMA = ("Type mismatch for key", "Missing the key", "data type should match", "does not match the schema")
Kind = Literal["written", "there", "refused", "unknown", "invalid"]


def client_config(threads: int) -> Any:
    """Configuration of a client for so many threads.

    The target sends again by itself, with what it knows of each row, so the client does not. Parameters are not checked twice: what
    the codec made is in wire form.
    """
    from botocore.config import Config

    return Config(
        max_pool_connections=threads + 2,
        retries={"mode": "standard", "total_max_attempts": 1},
        parameter_validation=False,
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        tcp_keepalive=True,
    )


@dataclass
class _Row:
    """A write on its way."""

    position: int
    write: Write
    item: Item
    bytes: int
    statement: dict[str, Any]
    by_put: bool = False
    may_be_written: bool = False

    @property
    def units(self) -> int:
        return max(1, -(-self.bytes // WRITE_UNIT_BYTES))


@dataclass
class _Result:
    """What became of the rows of one batch so far."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    rejects: dict[int, str] = field(default_factory=dict)
    pressures: Counter[Pressure] = field(default_factory=Counter)
    units: float = 0.0
    requests: int = 0

    def reject(self, row: _Row, reason: str) -> None:
        self.rejects[row.position] = reason
        self.outcomes[row.position] = Outcome("missing")


@dataclass
class _Answer:
    """What the service said of one row."""

    kind: Kind
    code: str = ""
    text: str = ""
    there: Item | None = None
    pressure: Pressure | None = None


class DynamoTarget:
    """A table of DynamoDB. See :class:`dbops.backfill.target.Target`.

    Args:
        client: boto3's low-level client, made with :func:`client_config`
        table: name of it
        view: its keys and the attributes' names
        threads: requests under way at once
        reads: pace of consistent reads; None: nobody limits them
        max_wait_s: so long the store may turn a batch away, without any progress, before :class:`Overloaded` is raised
        monotonic: a clock
        pause: waits so many seconds; ends early, with True, when the copy is stopped
        jitter: a random number from 0 to 1
    """

    def __init__(
        self,
        client: Any,
        table: str,
        view: View,
        *,
        threads: int = 8,
        reads: Pace | None = None,
        max_wait_s: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
        jitter: Callable[[], float] = random.random,  # noqa: S311 - spreads calls, keeps no secret
    ) -> None:
        self.client, self.table, self.view = client, table, view
        self._max_wait_s, self._monotonic, self._jitter = max_wait_s, monotonic, jitter
        self._closed = threading.Event()
        self._pause = pause or self._closed.wait
        self._pool = ThreadPoolExecutor(threads, "dynamodb")
        self._units_factor = 1.0
        self._reads = Reads(reads)

    @property
    def names(self) -> Names:
        """See :class:`~dbops.backfill.target.Target`."""
        return self.view.names

    def close(self) -> None:
        """End the threads; a batch that waits to be sent again gives up."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> DynamoTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing -------------------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        """See :class:`~dbops.backfill.target.Target`.

        Raises:
            Overloaded: the store turned writes away for `max_wait_s`
            TargetError: the table cannot be written as it is, or two writes have one key (then nothing was written)
        """
        result = _Result()
        batches = self._batches(writes, result)
        parts = [_Result() for _ in batches]
        futures = [
            self._pool.submit(self._deliver, batch, pace, part) for batch, part in zip(batches, parts, strict=True)
        ]
        self._all_done(futures)
        for part in parts:
            result.outcomes |= part.outcomes
            result.rejects |= part.rejects
            result.pressures += part.pressures
            result.units += part.units
            result.requests += part.requests
        outcomes = [result.outcomes[position] for position in range(len(writes))]
        size = sum(row.bytes for batch in batches for row in batch)
        return Sent(outcomes, result.units, size, result.requests, result.pressures, result.rejects)

    def _all_done(self, futures: Sequence[Future[None]]) -> None:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in done if future.exception()), None)
        if failed is None:
            return
        for future in futures:
            future.cancel()
        wait(futures)  # what is under way is not left behind
        failed.result()

    def _batches(self, writes: Sequence[Write], result: _Result) -> list[list[_Row]]:
        """Rows by call, within the limits of one; what is too large for an item is rejected here, before it can spoil a call."""
        made: list[list[_Row]] = []
        keys: set[tuple[str, ...]] = set()
        size = BATCH_BYTES
        for position, write in enumerate(writes):
            item = rules.document(write, self.names)
            row = _Row(position, write, item, item_size(item), rules.partiql_insert(self.table, write, self.names))
            if (key := _flat(write.key)) in keys:
                raise TargetError(
                    f"two rows of one page have the key {key}: the view gives one item twice; nothing of the page was written"
                )
            keys.add(key)
            if row.bytes > ITEM_BYTES:
                result.reject(row, f"the item has {row.bytes:,} bytes, DynamoDB's limit is {ITEM_BYTES:,}")
                continue
            row.by_put = len(row.statement["Statement"]) > STATEMENT_CHARACTERS
            size += row.bytes
            if size > BATCH_BYTES or len(made[-1]) == STATEMENTS:
                made.append([])
                size = row.bytes
            made[-1].append(row)
        return made

    def _deliver(self, rows: list[_Row], pace: Pace, result: _Result) -> None:
        """Send rows until each has its outcome.

        A round sends what is left; between rounds in which something was refused it pauses with full jitter, longer each time.
        """
        rounds, progress_at = 0, self._monotonic()
        while rows:
            left = self._round(rows, pace, result)
            if len(left) < len(rows):
                rounds, progress_at = 0, self._monotonic()
            refused = [answer.pressure for _, answer in left if answer.pressure]
            for pressure in refused:
                result.pressures[pressure] += 1
            rows = [row for row, _ in left]
            if not refused:
                continue
            waited = self._monotonic() - progress_at
            if waited > self._max_wait_s or self._closed.is_set():
                raise Overloaded(
                    f"{self.table}: {len(rows)} writes were turned away for {waited:.0f} s ({refused[0].reason} of "
                    f"{refused[0].resource or self.table}); they may have been made or not, and can be sent again",
                    refused[0],
                )
            self._pause(self._jitter() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**rounds))
            rounds += 1

    def _round(self, rows: Sequence[_Row], pace: Pace, result: _Result) -> list[tuple[_Row, _Answer]]:
        """Send each row once; returns those without an outcome, with what was said of them."""
        inserts, puts = [row for row in rows if not row.by_put], [row for row in rows if row.by_put]
        answers = self._insert(inserts, pace, result) if inserts else []
        there = [(row, answer) for row, answer in zip(inserts, answers, strict=True) if answer.kind == "there"]
        self._look(there)
        said = list(zip(inserts, answers, strict=True))
        said += [(row, self._put(row, pace, result)) for row in puts]
        left = [(row, answer) for row, answer in said if not self._settled(row, answer, result)]
        self._eased(left, pace)
        return left

    def _insert(self, rows: Sequence[_Row], pace: Pace, result: _Result) -> list[_Answer]:
        estimated = sum(row.units for row in rows)
        pace.spend(estimated * self._units_factor)
        result.requests += 1
        try:
            answer = self.client.batch_execute_statement(
                Statements=[row.statement for row in rows], ReturnConsumedCapacity="TOTAL"
            )
        except Exception as error:
            whole = self._error(error)
            if whole.kind != "invalid":
                return [whole] * len(rows)
            # One malformed statement fails all: each goes by itself, and the one is found.
            for row in rows:
                row.by_put = True
            return [_Answer("refused")] * len(rows)
        self._spent(answer.get("ConsumedCapacity"), estimated, result)
        return [self._statement(each.get("Error")) for each in answer["Responses"]]

    def _put(self, row: _Row, pace: Pace, result: _Result) -> _Answer:
        pace.spend(row.units * self._units_factor)
        result.requests += 1
        asked = rules.put_request(self.table, row.write, self.names)
        try:
            answer = self.client.put_item(**asked, ReturnConsumedCapacity="TOTAL")
        except Exception as error:
            found = self._error(error)
            if found.kind == "there":
                result.units += (
                    row.units * self._units_factor
                )  # a condition that is not met costs as much as one that is
            return found
        self._spent(answer.get("ConsumedCapacity"), row.units, result)
        return _Answer("written")

    def _look(self, there: Sequence[tuple[_Row, _Answer]]) -> None:
        """Find out what is there where an INSERT was refused without saying so. A read costs less than another refused write."""
        unknown = [(row, answer) for row, answer in there if answer.there is None]
        if unknown:
            found = self.read([row.write.key for row, _ in unknown])
            for (_, answer), item in zip(unknown, found, strict=True):
                answer.there = item

    def _settled(self, row: _Row, answer: _Answer, result: _Result) -> bool:
        """Whether the row has its outcome now; if not, how it is sent next is noted."""
        match answer.kind:
            case "written":
                result.outcomes[row.position] = Outcome()
                return True
            case "invalid":
                result.reject(row, answer.text)
                return True
            case "there":
                reason = rules.classify(answer.there, row.write.version, self.names)
                if row.may_be_written and canonical(answer.there or {}) == canonical(row.item):
                    result.outcomes[row.position] = Outcome()
                    return True
                ends = reason == "equal" and row.write.is_tombstone
                if not row.by_put and (reason in ("older", "missing") or ends):
                    row.by_put = True
                    return False
                # A condition of PutItem that was not met is final, except where nothing was there any more when it said so.
                if reason in ("older", "missing"):
                    answer.pressure = Pressure("server", answer.code, self.table)
                    return False
                result.outcomes[row.position] = Outcome(reason, answer.there)
                return True
            case "unknown":
                row.may_be_written = True
        return False

    def _eased(self, left: Sequence[tuple[_Row, _Answer]], pace: Pace) -> None:
        refused: Counter[Pressure] = Counter()
        for row, answer in left:
            if answer.pressure:
                refused[answer.pressure] += row.units
        for pressure, units in refused.items():
            pace.eased(pressure, units)
        first = next((row for row, answer in left if answer.kind == "refused" and not row.by_put), None)
        if first and refused:
            first.by_put = True  # PutItem says why

    def _spent(self, consumed: Any, estimated: float, result: _Result) -> None:
        """Count the units of a call, and learn what indexes add to the estimate of the next."""
        units = _units(consumed)
        if units > 0 and estimated > 0:
            self._units_factor += 0.2 * (max(1.0, units / estimated) - self._units_factor)
        result.units += units or estimated

    def _statement(self, error: Mapping[str, Any] | None) -> _Answer:
        """What one statement of a batch came to."""
        if not error:
            return _Answer("written")
        return self._answer(str(error.get("Code")), str(error.get("Message") or ""), error.get("Item") or None, error)

    def _error(self, error: Exception) -> _Answer:
        """What an error of a whole call says of its rows.

        Raises:
            TargetError: the call can never succeed as it is
            Exception: a mistake in our own code
        """
        if not asking.is_failure(error):
            raise error
        response = getattr(error, "response", None) or {}
        if not response:  # a timeout, a reset: nobody knows
            return _Answer("unknown", pressure=Pressure("server", type(error).__name__, self.table))
        message = str((response.get("Error") or {}).get("Message") or "")
        item = response.get("Item") or None
        if asking.status(error) >= 500 and asking.code(error) not in _THROTTLED:
            return _Answer("unknown", pressure=Pressure("server", asking.code(error), self.table))
        return self._answer(asking.code(error), message, item, response)

    def _answer(self, code: str, message: str, item: Item | None, said: Mapping[str, Any]) -> _Answer:
        if code in _THERE:
            return _Answer("there", code, there=item)
        if code in _THROTTLED:
            return _Answer("refused", code, pressure=_pressure(code, message, said, self.table))
        if code in _FAULTS:
            return _Answer("unknown", code, pressure=Pressure("server", code, self.table))
        if code in _CONFLICTS:
            return _Answer("refused", code, pressure=Pressure("key_range", code, self.table))
        if code in _INVALID and not any(text in message for text in _KEY_SCHEMA):
            told = next((text for text in _TOLD if text in message), "")
            return _Answer("invalid", code, f"DynamoDB refuses the item: {code}{told and f' ({told})'}")
        raise TargetError(
            f"{self.table}: {code}: {message[:300]}. Check the table's name, its key schema against the spec's target.key, and that "
            "the role may PartiQLInsert, PutItem, BatchGetItem, Scan and DeleteItem; rows that were acknowledged are in the table"
        )

    # --- reading -------------------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[Item]) -> list[Item | None]:
        """See :class:`~dbops.backfill.target.Target`.

        Raises:
            Overloaded: the store turned reads away for `max_wait_s`
        """
        found: dict[tuple[str, ...], Item] = {}
        names = self.view.keys.names
        for begin in range(0, len(keys), READ_KEYS):
            for item in self._read(list(keys[begin : begin + READ_KEYS])):
                found[_flat({name: item[name] for name in names})] = item
        return [found.get(_flat({name: key[name] for name in names})) for key in keys]

    def _read(self, keys: list[Item]) -> Iterator[Item]:
        patience = _Patience(self)
        while keys:
            asked = {self.table: {"Keys": keys, "ConsistentRead": True}}
            self._reads.pay()
            call = partial(self.client.batch_get_item, RequestItems=asked, ReturnConsumedCapacity="TOTAL")
            answer = self._patiently(patience, call)
            found = (answer.get("Responses") or {}).get(self.table) or []
            rest = ((answer.get("UnprocessedKeys") or {}).get(self.table) or {}).get("Keys") or []
            self._reads.owe(
                _units(answer.get("ConsumedCapacity"))
                or sum(read_units(item_size(item)) for item in found) + len(keys) - len(rest) - len(found)
            )
            yield from found
            if len(rest) < len(keys):
                patience = _Patience(self)
            keys = rest
            if keys:
                patience.again(Pressure("table", "UnprocessedKeys", self.table))

    def _patiently(self, patience: _Patience, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer of a call that may be made again.

        Raises:
            Overloaded: it was turned away for `max_wait_s`
            TargetError: it can never succeed as it is
        """
        while True:
            try:
                return call()
            except Exception as error:
                said = self._error(error)
                if said.pressure is None:
                    raise
                patience.again(said.pressure)

    def remove(self, key: Item, version: Version, stamp: str) -> bool:
        """See :class:`~dbops.backfill.target.Target`.

        Raises:
            Overloaded: the store turned it away for `max_wait_s`; it may have been made or not
        """
        names, patience, may_be_removed = self.names, _Patience(self, "removals"), False
        while True:
            try:
                self.client.delete_item(
                    TableName=self.table,
                    Key=key,
                    ConditionExpression="#stamp = :stamp AND #version = :version AND attribute_not_exists(#deleted)",
                    ExpressionAttributeNames={
                        "#stamp": names.stamp,
                        "#version": names.version,
                        "#deleted": names.deleted,
                    },
                    ExpressionAttributeValues={":stamp": {"S": stamp}, ":version": version.attribute},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except Exception as error:
                said = self._error(error)
                if said.kind == "there":  # nothing is: then it was this very call whose answer was lost
                    return may_be_removed and said.there is None
                if said.pressure is None:
                    raise
                may_be_removed = may_be_removed or said.kind == "unknown"
                patience.again(said.pressure)
            else:
                return True

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage]:
        """See :class:`~dbops.backfill.target.Target`.

        Raises:
            Overloaded: the store turned reads away for `max_wait_s`
        """
        start = _loads(after) if after else None
        while True:
            asked: dict[str, Any] = {"ExclusiveStartKey": start} if start else {}
            asked |= {"TableName": self.table, "Segment": segment, "TotalSegments": segments, "ConsistentRead": True}
            asked["ReturnConsumedCapacity"] = "TOTAL"
            self._reads.pay()
            answer = self._patiently(_Patience(self), partial(self.client.scan, **asked))
            start, items = answer.get("LastEvaluatedKey"), answer.get("Items") or []
            # A page is rounded up as a whole.
            self._reads.owe(_units(answer.get("ConsumedCapacity")) or read_units(sum(map(item_size, items))))
            yield ScanPage(items, _dumps(start) if start else None)
            if not start:
                return

    def facts(self) -> TargetFacts:
        """See :class:`~dbops.backfill.target.Target`."""
        try:
            found = self.client.describe_table(TableName=self.table)["Table"]
        except Exception as error:
            if asking.is_missing(error):
                return TargetFacts(False, "missing")
            raise
        types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
        schema = sorted(found["KeySchema"], key=lambda each: each["KeyType"])  # HASH before RANGE
        provisioned = (found.get("ProvisionedThroughput") or {}).get("WriteCapacityUnits") or None
        warm = (found.get("WarmThroughput") or {}).get("WriteUnitsPerSecond")
        billing = (found.get("BillingModeSummary") or {}).get("BillingMode") or "PROVISIONED"
        capacity = provisioned if billing == "PROVISIONED" else warm
        return TargetFacts(
            True,
            found["TableStatus"],
            key=tuple((each["AttributeName"], types[each["AttributeName"]]) for each in schema),
            billing=billing,
            write_capacity=None if capacity is None else float(capacity),
            indexes=tuple(
                Index(each["IndexName"], each.get("IndexStatus", ""))
                for each in found.get("GlobalSecondaryIndexes") or []
            ),
            point_in_time_recovery=self._recovery(),
            ttl_attribute=self._ttl(),
            replicas=len(found.get("Replicas") or []),
            items=found.get("ItemCount"),
        )

    def _recovery(self) -> bool | None:
        try:
            found = self.client.describe_continuous_backups(TableName=self.table)["ContinuousBackupsDescription"]
        except Exception as error:
            if asking.is_failure(error):  # unknown: DynamoDB Local has no such call, a role may not be allowed it
                return None
            raise
        return bool((found.get("PointInTimeRecoveryDescription") or {}).get("PointInTimeRecoveryStatus") == "ENABLED")

    def _ttl(self) -> str:
        found = self.client.describe_time_to_live(TableName=self.table)["TimeToLiveDescription"]
        return str(found.get("AttributeName") or "") if found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING") else ""


class _Patience:
    """How long a call is made again that is not a batch of writes."""

    def __init__(self, target: DynamoTarget, what: str = "reads") -> None:
        self._target, self._what, self._since, self._rounds = target, what, target._monotonic(), 0

    def again(self, pressure: Pressure) -> None:
        """Return when it may be made again: full jitter. Raises Overloaded when that was tried for long enough."""
        target = self._target
        waited = target._monotonic() - self._since
        if waited > target._max_wait_s or target._closed.is_set():
            raise Overloaded(
                f"{target.table}: {self._what} were turned away for {waited:.0f} s ({pressure.reason} of "
                f"{pressure.resource or target.table})", pressure,
            )  # fmt: skip
        if self._what == "reads":
            target._reads.eased(pressure)
        target._pause(target._jitter() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._rounds))
        self._rounds += 1


def _units(consumed: Any) -> float:
    """Of a ``ConsumedCapacity``, which some calls give as a list; 0.0 where there is none."""
    listed = consumed if isinstance(consumed, list) else [consumed] if consumed else []
    return sum(float(each.get("CapacityUnits") or 0) for each in listed)


def _flat(key: Item) -> tuple[str, ...]:
    """A key that can be looked up; numbers by their value."""
    return tuple(canonical({name: value}) if "S" not in value else value["S"] for name, value in key.items())


def _pressure(code: str, message: str, said: Mapping[str, Any], table: str) -> Pressure:
    listed = said.get("ThrottlingReasons") or said.get("throttlingReasons") or []
    if listed:
        reason, resource = str(listed[0].get("reason") or code), str(listed[0].get("resource") or table)
    else:
        found = _REASON.search(message)
        reason, resource = found[0] if found else code, table
    return Pressure(_pressure_kind(reason), reason, resource.rsplit("table/", 1)[-1])


def _pressure_kind(reason: str) -> PressureKind:
    if reason.startswith("Index"):
        return "index"
    if "KeyRange" in reason:
        return "key_range"
    if "Account" in reason or reason.startswith("RequestLimitExceeded"):
        return "account"
    return "on_demand_limit" if "OnDemand" in reason else "table"


def _dumps(key: Item) -> str:
    return json.dumps(
        {
            name: {kind: base64.b64encode(value).decode() if kind == "B" else value}
            for name, attribute in key.items()
            for kind, value in attribute.items()
        }
    )


def _loads(text: str) -> Item:
    return {
        name: {kind: base64.b64decode(value) if kind == "B" else value}
        for name, attribute in json.loads(text).items()
        for kind, value in attribute.items()
    }
