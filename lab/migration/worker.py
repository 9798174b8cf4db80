"""A worker of the backfill in a process of its own, which can be stopped at a step, and killed there.

``python -m lab.migration.worker JOB.json``. It says a line of JSON at each step that the job names, and goes on when it is sent a line:
what happens in between, happens between reading and writing, or between writing and the checkpoint, every time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dbops.backfill import spec
from dbops.backfill.dynamodb import DynamoTarget
from dbops.backfill.records import Tally
from dbops.backfill.source import Source, open_source
from dbops.backfill.target import Pace, Pressure, Sent
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Outcome, Write
from lab import dynamodb, mysql

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


class Unhurried:
    """No limit: the machine is small enough."""

    def spend(self, units: float) -> None:
        pass

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        pass


@dataclass
class Checkpoint:
    """How far it has come; a file stands for the journal."""

    path: Path
    reached: list[Any] | None = None
    tally: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        return cls(path, **json.loads(path.read_text())) if path.is_file() else cls(path)

    def add(self, name: str, count: int = 1) -> None:
        self.tally[name] = self.tally.get(name, 0) + count

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"reached": self.reached, "tally": self.tally}))
        new.replace(self.path)


def main(job: dict[str, Any]) -> None:
    """Copy one table from where the last worker left it."""
    declared = spec.BackfillSpec.model_validate(job["spec"])
    with closing(mysql.root_connection("mysql57")) as connection:
        source = open_source(connection, declared)
        with opened(source, job) as target:
            copy(connection, source, target, Checkpoint.load(Path(job["checkpoint"])))


@contextmanager
def opened(source: Source, job: dict[str, Any]) -> Iterator[Any]:
    """The target, which stops where the job says."""
    to = source.spec.target
    assert to.kind == "dynamodb"
    client = dynamodb.client(job["key"])
    with DynamoTarget(client, to.table, source.view, threads=THREADS) as target:
        arm = Unconditional(target, client, to.table) if job["arm"] == "unconditional" else target
        yield Stopping(arm, Steps(job["stops"]))


def copy(connection: Any, source: Source, target: Any, checkpoint: Checkpoint) -> None:
    """Page by page, in key order."""
    last = source.last_key(connection)
    low = tuple(checkpoint.reached) if checkpoint.reached else None
    is_end = last is None or low == last
    while not is_end and last is not None:
        page = source.page(connection, low, last, PAGE_ROWS, source.spec.name)
        writes = [row.write for row in page.rows if row.write is not None]
        sent = target.write(writes, Unhurried())
        for outcome in sent.outcomes:
            checkpoint.add(outcome.reason or "written")
        checkpoint.add("read", len(page.rows))
        checkpoint.add("chunks")
        low, is_end = page.last, page.is_end
        checkpoint.reached = list(low or ())
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
