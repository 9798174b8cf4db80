"""A worker of the backfill in a process of its own, which can be stopped at a step, and killed there.

It says at which step it is, and goes on when it is told to: what happens in between, happens between reading and writing, or between
writing and the checkpoint, every time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import redis
import sqlalchemy as sa

from dbops.backfill import copying, spec
from dbops.backfill.brake import Brake
from dbops.backfill.dynamodb import DynamoTarget
from dbops.backfill.journal import Journal
from dbops.backfill.pacing import Bucket
from dbops.backfill.redis_target import RedisTarget
from dbops.backfill.source import Source, open_source
from dbops.backfill.target import Pace, Sent
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Outcome, Write
from dbops.keyvalue.stores import RedisStore
from lab import config, dynamodb, mysql

LEAST_ROWS = 50
Arm = Literal["conditional", "unconditional"]


class Steps:
    """Where the process stops until it is told to go on."""

    def __init__(self, stops: Sequence[str], pipe: Connection) -> None:
        self.stops, self.pipe = set(stops), pipe
        self.counts: dict[str, int] = {}

    def at(self, name: str, keys: Sequence[str] = ()) -> None:
        """Be at a step for the n-th time; ``read`` and ``written`` have the keys of the page."""
        number = self.counts[name] = self.counts.get(name, 0) + 1
        if f"{name}:{number}" in self.stops:
            self.pipe.send({"at": f"{name}:{number}", "keys": list(keys)})
            self.pipe.recv()


@dataclass(frozen=True)
class Stopping:
    """A target that stops before and after it writes."""

    target: Any
    steps: Steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        if len(writes) < LEAST_ROWS:  # a rest of a chunk, too small for what is to happen meanwhile
            return self._written(writes, pace)
        keys = [canonical(each.key) for each in writes]
        self.steps.at("read", keys)
        sent = self._written(writes, pace)
        self.steps.at("written", keys)
        return sent

    def _written(self, writes: Sequence[Write], pace: Pace) -> Sent:
        sent: Sent = self.target.write(writes, pace)
        return sent


@dataclass(frozen=True)
class PlainItems:
    """What must not be done: the same items, put without a condition."""

    target: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        for each in writes:
            self.target.client.put_item(TableName=self.target.table, Item=rules.document(each, self.target.names))
        return Sent([Outcome() for _ in writes], requests=len(writes))


@dataclass(frozen=True)
class PlainHashes:
    """The same for Redis."""

    target: Any
    store: RedisStore

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        pipeline = self.store.client.pipeline(transaction=True)
        for each in writes:
            words = self.store.put_command(each)
            fields = words[words.index(self.store.names.deleted) + 1 :]
            pipeline.execute_command("DEL", self.store.key(each.key))
            pipeline.execute_command("HSET", self.store.key(each.key), *fields)
            pipeline.execute()
        return Sent([Outcome() for _ in writes], requests=len(writes))


def serve(job: dict[str, Any], pipe: Connection, log: str) -> None:
    """Copy what is left of a plan.

    Args:
        job: what, how, and at which steps to stop
        pipe: to whom it is said
        log: file for its errors
    """
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    declared = spec.BackfillSpec.model_validate(job["spec"])
    journal = Journal(sa.create_engine(job["journal"]))
    pace = Bucket(journal.engine, declared.target.resource(), declared.limits.units_per_s)
    with closing(connect()) as connection:
        source = open_source(connection, declared)
        brake = Brake(declared.limits, connection, None, lambda: journal.paused(declared.name))
        with opened(source, job["key"]) as target:
            copied = copying.copy(
                journal, source, connect, arm_of(target, job, pipe), pace, brake, job["plan"], f"worker {os.getpid()}",
                lease_s=job["lease_s"],
            )  # fmt: skip
    pipe.send({"done": copied.end, "reason": copied.reason})


def imported() -> None:
    """Nothing: the process from which workers are forked has imported this when it returns."""


def connect() -> Any:
    """To the source, with decoded values."""
    return mysql.root_connection("mysql57")


@contextmanager
def opened(source: Source, key: str) -> Iterator[Any]:
    """The target of a source.

    Args:
        source: what is read
        key: access key of the account; empty for Redis
    """
    to, threads = source.spec.target, source.spec.limits.threads
    if to.kind == "dynamodb":
        with DynamoTarget(dynamodb.client(key), to.table, source.view, threads=threads) as table:
            yield table
    else:
        store = RedisStore(redis.Redis(config.HOST, config.port("redis")), source.view, to.prefix, to.layout)
        with closing(RedisTarget(store, threads=threads)) as keys:
            yield keys


def arm_of(target: Any, job: dict[str, Any], pipe: Connection) -> Stopping:
    """The target as the job wants it to write, which stops where the job says."""
    if job["arm"] == "unconditional":
        target = PlainHashes(target, target.store) if isinstance(target, RedisTarget) else PlainItems(target)
    return Stopping(target, Steps(job["stops"], pipe))
