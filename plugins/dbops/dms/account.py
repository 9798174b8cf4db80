"""What one account has of DMS, asked for once for every spec: calls grow with pages of AWS's answers, not with tasks.

Statistics of tables are the one answer that AWS gives per task only. They are asked for where the task's own counts do not already say
that every table is loaded and none has an error (:func:`is_counted_complete`), or where a person acts on one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dbops.asking import Question
from dbops.dms import states
from dbops.dms.plan import World
from dbops.dms.spec import DmsSpec
from dbops.dms.states import ConnectionTest, Endpoint, Instance, Task

EVENTS_MINUTES = 24 * 60
"""How far back events of tasks are read: a failure of the night is still told in the morning."""

TIME = "%Y-%m-%d %H:%M:%S"
"""How the time of an event stands before its text."""


@dataclass(frozen=True)
class Account:
    """Everything of one account and region, at one time."""

    tasks: Mapping[str, Task]
    """By identifier; serverless replications are in ``replications``."""
    replications: Mapping[str, Task]
    endpoints: tuple[Endpoint, ...]
    instances: tuple[Instance, ...]
    connections: tuple[ConnectionTest, ...]
    messages: Mapping[str, tuple[str, ...]]
    """Events of the last day by identifier of the task, oldest first, each with its time in UTC."""
    rivals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Identifier of a task that several specs declare -> their names."""

    def task(self, spec: DmsSpec) -> Task:
        """The task of a spec; ``missing`` when there is none."""
        held = self.replications if spec.compute.kind == "serverless" else self.tasks
        return held.get(spec.task_identifier) or states.missing(spec.task_identifier)

    def world(self, spec: DmsSpec) -> World:
        """What a plan of this spec is made against."""
        return World(self.task(spec), self.endpoints, self.instances, self.connections)

    def said(self, spec: DmsSpec) -> tuple[str, ...]:
        """Events of the task of a spec since its last start, or since it was made: what was said before holds nothing back.

        A failure before the last start was passed; one before the task was made is of another task that had its name.
        """
        task = self.task(spec)
        since = task.started_at or task.created_at
        if task.status == "missing":
            return ()
        told = self.messages.get(spec.task_identifier, ())
        return told if since is None else tuple(text for text in told if text[:19] >= f"{since.astimezone(UTC):{TIME}}")

    def instance_status(self, spec: DmsSpec) -> str:
        """Status of the replication instance of a spec; "" when it has none."""
        wanted = self.task(spec).instance_arn
        return next((one.status for one in self.instances if one.arn == wanted), "")


def look(specs: Iterable[DmsSpec]) -> Question[Account]:
    """Everything that plans of these specs are made against."""
    specs = list(specs)
    kinds = {spec.compute.kind for spec in specs}
    tasks = (yield from states.tasks()) if "instance" in kinds else {}
    replications = (yield from states.replications()) if "serverless" in kinds else {}
    endpoints = yield from states.endpoints()
    instances = (yield from states.instances()) if "instance" in kinds else ()
    tests = (yield from states.connection_tests()) if "instance" in kinds else ()
    messages = yield from _messages() if "instance" in kinds else _nothing()
    return Account(tasks, replications, endpoints, instances, tests, messages, rivals(specs))


def rivals(specs: Iterable[DmsSpec]) -> dict[str, tuple[str, ...]]:
    """Identifiers that several specs of one account and region declare, with their names."""
    found: dict[str, list[str]] = {}
    for spec in specs:
        found.setdefault(spec.task_identifier, []).append(spec.name)
    return {identifier: tuple(sorted(names)) for identifier, names in found.items() if len(names) > 1}


def one(spec: DmsSpec, *, events: bool = False) -> Question[Account]:
    """The same for one spec: its task alone, and its events only where they are asked for."""
    is_serverless = spec.compute.kind == "serverless"
    task = yield from states.one_task(spec.task_identifier, is_serverless=is_serverless)
    held = {} if task.status == "missing" else {task.identifier: task}
    endpoints = yield from states.endpoints()
    instances = () if is_serverless else (yield from states.instances())
    tests = () if is_serverless else (yield from states.connection_tests())
    messages = (yield from _messages(spec.task_identifier)) if events and not is_serverless else {}
    return Account({} if is_serverless else held, held if is_serverless else {}, endpoints, instances, tests, messages)


def _messages(identifier: str = "") -> Question[dict[str, tuple[str, ...]]]:
    chosen = {"SourceIdentifier": identifier} if identifier else {}
    rows = yield from states.pages(
        "describe_events", "Events", SourceType="replication-task", Duration=EVENTS_MINUTES, **chosen
    )
    found: dict[str, list[tuple[datetime, str]]] = {}
    for row in rows:
        at = row.get("Date")
        if isinstance(at, datetime):
            found.setdefault(str(row.get("SourceIdentifier") or ""), []).append((at, str(row.get("Message") or "")))
    return {
        identifier: tuple(f"{at.astimezone(UTC):{TIME}} {text}" for at, text in sorted(texts))
        for identifier, texts in found.items()
    }


def _nothing() -> Question[dict[str, tuple[str, ...]]]:
    yield from ()
    return {}


def is_counted_complete(task: Task, spec: DmsSpec) -> bool:
    """Whether the task's own counts say that every table is loaded and none has an error.

    A count that AWS does not give is no proof.
    """
    counts = (task.tables_loading, task.tables_queued, task.tables_errored)
    if task.status != "running" or any(count is None or count for count in counts):
        return False
    return not spec.has_load or bool(task.tables_loaded)
