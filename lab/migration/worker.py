"""A worker of the backfill in a process of its own, which can be stopped at a step, and killed there.

``python -m lab.migration.worker JOB.json``. It says a line of JSON at each step that the job names, and goes on when it is sent a line:
what happens in between, happens between reading and writing, or between writing and the checkpoint, every time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dbops.backfill.records import Tally
from dbops.backfill.target import Pace, Sent
from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.rules import Outcome, Write
from dbops.keyvalue.stores import DynamoStore
from dbops.keyvalue.views import Loaded, View
from dbops.sql import ident
from lab import dynamodb
from lab.migration.scene import SUBJECTS, VERSION, Subject, connect
from lab.migration.traffic import make_view

Arm = Literal["conditional", "unconditional"]
PAGE_ROWS = 250
THREADS = 4


class Steps:
    """Where the process stops until it is told to go on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = set(stops)
        self.counts: dict[str, int] = {}

    def at(self, name: str, keys: Sequence[str] = ()) -> None:
        """Be at a step for the n-th time; ``read`` and ``written`` have the keys of the page."""
        number = self.counts[name] = self.counts.get(name, 0) + 1
        if f"{name}:{number}" in self.stops:
            say({"at": f"{name}:{number}", "keys": list(keys)})
            if not sys.stdin.readline():
                raise SystemExit("nobody is there to go on for")


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


@dataclass(frozen=True)
class Stopping:
    """A target that stops before and after it writes."""

    target: Any
    steps: Steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        keys = [canonical(each.key) for each in writes]
        self.steps.at("read", keys)
        sent: Sent = self.target.write(writes, pace)
        self.steps.at("written", keys)
        return sent


@dataclass(frozen=True)
class Unconditional:
    """What must not be done: the same items, put without a condition."""

    target: Any
    client: Any
    table: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        for each in writes:
            self.client.put_item(TableName=self.table, Item=rules.document(each, self.target.names))
        return Sent([Outcome() for _ in writes], requests=len(writes))


class StoreTarget:
    """The rules, one item after the other."""

    def __init__(self, store: Any) -> None:
        self.store, self.names = store, store.names
        self.pool = ThreadPoolExecutor(THREADS)

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        return Sent(list(self.pool.map(self.store.put, writes)), requests=len(writes))

    def read(self, keys: Sequence[Item]) -> list[Item | None]:
        return list(self.pool.map(self.store.get, keys))


@dataclass
class Checkpoint:
    """How far it has come; a file stands for the journal."""

    path: Path
    reached: list[Any] | None = None
    tally: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        return cls(path, **json.loads(path.read_text())) if path.is_file() else cls(path)

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"reached": self.reached, "tally": self.tally}))
        new.replace(self.path)


def pages(
    schema: str, subject: Subject, view: View, reached: list[Any] | None
) -> Iterator[list[tuple[list[Any], Loaded]]]:
    """Rows in key order, with their keys."""
    keys = ", ".join(map(ident, subject.key_columns))
    expressions = ", ".join(codec.select_sql for codec in view.codecs)
    while True:
        after = f"WHERE ({keys}) > ({', '.join(['%s'] * len(subject.key_columns))})" if reached else ""
        statement = f"SELECT {keys}, {expressions}, {ident(VERSION)} FROM {ident(subject.name)} {after} ORDER BY {keys} LIMIT {PAGE_ROWS}"
        with closing(connect(schema)) as connection, connection.cursor() as cursor:
            cursor.execute(statement, reached or ())
            found = cursor.fetchall()
        if not found:
            return
        width = len(subject.key_columns)
        yield [
            (list(row[:width]), Loaded(dict(zip(view.by_name, row[width:-1], strict=True)), row[-1])) for row in found
        ]
        reached = list(found[-1][:width])


def main(job: dict[str, Any]) -> None:
    """Copy one table from where the last worker left it."""
    (subject,) = [each for each in SUBJECTS if each.name == job["subject"]]
    view = make_view(job["schema"], subject, subject.template)
    client = dynamodb.client(job["key"])
    target: Any = StoreTarget(DynamoStore(client, job["table"], view.names))
    if job["arm"] == "unconditional":
        target = Unconditional(target, client, job["table"])
    target = Stopping(target, Steps(job["stops"]))
    checkpoint = Checkpoint.load(Path(job["checkpoint"]))
    for page in pages(job["schema"], subject, view, checkpoint.reached):
        writes = [view.write(loaded, stamp=job["schema"]) for _, loaded in page]
        sent = target.write(writes, None)
        for outcome in sent.outcomes:
            name = outcome.reason or "written"
            checkpoint.tally[name] = checkpoint.tally.get(name, 0) + 1
        checkpoint.tally["read"] = checkpoint.tally.get("read", 0) + len(page)
        checkpoint.tally["chunks"] = checkpoint.tally.get("chunks", 0) + 1
        checkpoint.reached = page[-1][0]
        checkpoint.save()
    say({"done": checkpoint.tally})


def tally_of(told: dict[str, int]) -> Tally:
    """In the words of the journal."""
    return Tally(
        read=told.get("read", 0), written=told.get("written", 0), equal=told.get("equal", 0), newer=told.get("newer", 0),
        tombstones=told.get("tombstone", 0), unversioned=told.get("unversioned", 0),
    )  # fmt: skip


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
