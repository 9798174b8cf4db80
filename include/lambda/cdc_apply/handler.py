"""``cdc_apply.handler.lambda_handler``: one batch of a Kinesis stream, with partial batch responses.

A record that may succeed later (throttling, no network, no time left) is reported in ``batchItemFailures``. One that never will is
written to the bucket of rejects and counted; without a bucket it is reported as failed, and the event source mapping gives up on it.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TextIO

import boto3
from botocore.config import Config

from cdc_apply import apply, changes, values
from cdc_apply.changes import Record, Write
from cdc_apply.settings import Settings, SettingsError, read
from cdc_apply.values import RejectError

NAMESPACE = "dbops/cdc_apply"
Event = Mapping[str, Any]


@dataclass
class Batch:
    """One invocation: what it was given, what it has come to."""

    settings: Settings
    dynamodb: Any
    rejects: Rejects | None
    now_s: float
    remaining_ms: Callable[[], float]
    out: TextIO
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By source table."""
    lag_ms: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """Sequence numbers."""
    namespace: ClassVar[str] = NAMESPACE
    """Of the metrics."""

    def apply(self, records: Iterable[Event]) -> dict[str, Any]:
        """Apply the records; returns the partial batch response."""
        events = {str(each["kinesis"]["sequenceNumber"]): each for each in records}
        found = [(write, sequence) for sequence, event in events.items() for write in self._read(sequence, event)]
        with ThreadPoolExecutor(self.settings.threads) as pool:
            done = [*pool.map(self._put, changes.ordered(found))]
        for write, sequences, result in (each for results in done for each in results):
            self._settle(write, result, sequences, events)
        self._report()
        return {"batchItemFailures": [{"itemIdentifier": each} for each in sorted(self.failed, key=int)]}

    def _read(self, sequence: str, event: Event) -> list[Write]:
        said: Record | None = None
        try:
            said = changes.record(base64.b64decode(event["kinesis"]["data"]), self.settings)
            found = self._writes(said)
        except RejectError as error:
            self._reject(said.table if said else "", sequence, event, str(error))
            return []
        self._note(said, sequence)
        return found

    def _writes(self, said: Record) -> list[Write]:
        return changes.writes(said, self.settings)

    def _write(self, write: Write) -> str:
        return apply.put(self.dynamodb, write, self.settings, self.now_s)

    def _note(self, said: Record, sequence: str) -> None:
        if said.is_control:
            self.counts[said.table]["Control"] += 1
            self._log("INFO", f"control record {said.operation}", said.table, sequence)
        elif said.table.endswith(f".{changes.EXCEPTIONS}"):
            self.counts[said.table]["ApplyExceptions"] += 1
            self._log("ERROR", "DMS could not apply a change: read awsdms_apply_exceptions", said.table, sequence)
        else:
            self.counts[said.table]["Records"] += 1
            with suppress(RejectError):  # no time, no lag
                committed = values.microseconds(said.metadata.get("commit-timestamp"), "commit-timestamp")
                lag = self.now_s * 1000 - committed / 1000
                self.lag_ms[said.table] = max(lag, self.lag_ms.get(said.table, 0.0))

    def _put(self, versions: list[tuple[Write, list[str]]]) -> list[tuple[Write, list[str], str | Exception]]:
        """Put the newest version of an item; an older one only when a newer one is refused for good."""
        results: list[tuple[Write, list[str], str | Exception]] = []
        for position, (write, sequences) in enumerate(versions):
            result = self._try(write)
            results.append((write, sequences, result))
            if not isinstance(result, RejectError):
                rest = versions[position + 1 :]
                failed = isinstance(result, Exception)
                return [*results, *((write, seen, result if failed else "superseded") for write, seen in rest)]
        return results

    def _try(self, write: Write) -> str | Exception:
        if self.remaining_ms() < self.settings.margin_ms:
            return TimeoutError("no time left")
        try:
            return self._write(write)
        except Exception as error:  # whatever it is, the records have to be reported
            return error

    def _settle(self, write: Write, result: str | Exception, sequences: list[str], events: Mapping[str, Event]) -> None:
        if isinstance(result, RejectError):
            for sequence in sequences:
                self._reject(write.source, sequence, events[sequence], str(result))
        elif isinstance(result, Exception):
            self.failed.update(sequences)
            self.counts[write.source]["Failed"] += len(sequences)
            self._log("ERROR", f"not written: {_named(result)}", write.source, *sequences)
        else:
            self.counts[write.source][result.title()] += 1
            if write.is_tombstone and result == "written":
                self.counts[write.source]["Tombstones"] += 1
            if result == "foreign":
                self._log(
                    "WARNING", "kept an item whose version is missing or of another kind", write.source, *sequences
                )

    def _reject(self, table: str, sequence: str, event: Event, reason: str) -> None:
        name = table or "unknown"
        self._log("ERROR", f"rejected: {reason}", name, sequence)
        self.counts[name]["Rejected"] += 1
        if self.rejects is None:
            self.failed.add(sequence)
            return
        try:
            self.rejects.put(table, sequence, event, reason)
        except Exception as error:  # a record that is nowhere else must not be passed over
            self.failed.add(sequence)
            self._log("ERROR", f"the reject could not be kept: {_named(error)}", name, sequence)

    def _log(self, level: str, text: str, table: str, *sequences: str) -> None:
        line = {"level": level, "table": table, "message": text, "sequences": sequences[:10], "records": len(sequences)}
        self.out.write(json.dumps(line) + "\n")

    def _report(self) -> None:
        """Metrics in CloudWatch's embedded format, one line per table."""
        for table, counts in self.counts.items():
            metrics: dict[str, float] = {**counts}
            if table in self.lag_ms:
                metrics["CommitToApply"] = self.lag_ms[table]
            units = [{"Name": name, "Unit": "Milliseconds" if name == "CommitToApply" else "Count"} for name in metrics]
            directive = [{"Namespace": self.namespace, "Dimensions": [["Table"]], "Metrics": units}]
            line = {
                "_aws": {"Timestamp": int(self.now_s * 1000), "CloudWatchMetrics": directive},
                "Table": table,
                **metrics,
            }
            self.out.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Rejects:
    """Where records go that can never be applied: an object each, of the same name when it comes again."""

    s3: Any
    bucket: str
    prefix: str

    def put(self, table: str, sequence: str, event: Event, reason: str) -> None:
        """Keep the record as it came, with the reason."""
        shard = str(event.get("eventID", "")).partition(":")[0] or "shard"
        document = {"table": table, "reason": reason, "event": event}
        name = "/".join(each for each in (self.prefix, table or "unknown", shard, f"{sequence}.json") if each)
        self.s3.put_object(
            Bucket=self.bucket, Key=name, Body=json.dumps(document).encode(), ContentType="application/json"
        )


def lambda_handler(event: Event, context: Any) -> dict[str, Any]:
    """Entry point.

    Raises:
        SettingsError: the settings do not fit; nothing is applied, and the batch stays in the stream
    """
    settings, dynamodb, rejects = _resources(os.environ.get("CDC_SETTINGS", ""))
    batch = Batch(settings, dynamodb, rejects, time.time(), context.get_remaining_time_in_millis, sys.stdout)
    return batch.apply(event["Records"])


@lru_cache(maxsize=1)
def _resources(text: str) -> tuple[Settings, Any, Rejects | None]:
    settings = read(text, Path(__file__).parent)
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=settings.threads,
    )
    rejects = None
    if settings.rejects:
        bucket, _, prefix = settings.rejects.removeprefix("s3://").partition("/")
        rejects = Rejects(boto3.client("s3", config=config), bucket, prefix.strip("/"))
    return settings, boto3.client("dynamodb", config=config), rejects


def _named(error: Exception) -> str:
    """The error without values of the row: botocore's texts may hold some."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return f"{type(error).__name__} {code}".strip()


__all__ = ["Batch", "Rejects", "SettingsError", "lambda_handler"]
