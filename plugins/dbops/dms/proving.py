"""Whether replication lives: latencies as CloudWatch has them, tables, and a canary row that was seen to arrive."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbops import asking
from dbops.dms import account, consumers, health, states
from dbops.dms.canary import Seen
from dbops.dms.health import Health, Measured
from dbops.dms.spec import DmsSpec
from dbops.dms.states import TableStatistics, Task

if TYPE_CHECKING:
    from dbops.dms.control import Services

METRIC_DELAY = timedelta(minutes=5)
"""How late CloudWatch may have the first points of a task that has just begun."""
_ENDING = frozenset({"stop", "drain", "delete"})


def preliminary(
    spec: DmsSpec, task: Task, measured: Measured | None, tables: Sequence[TableStatistics] | None, now: datetime
) -> Health:
    """The verdict of latencies and tables alone, before a canary is written."""
    without = spec.model_copy(update={"canary": None})
    is_counted = tables is None and account.is_counted_complete(task, spec)
    given = None if tables is None else tuple(tables)
    return health.judge(without, task, measured, tables=given, canary=None, now=now, counted_complete=is_counted)


def as_asked(document: Mapping[str, Any], task: Task) -> Health | None:
    """The verdict on a task that stands because the run was asked to stop or drain it; None where it does not stand like that."""
    reasons = {"stop": ("", "NORMAL"), "drain": ("STOPPED_AT_COMMIT_TIME", "STOPPED_AT_SERVER_TIME")}
    if task.status != "stopped" or task.stop_reason not in reasons.get(document.get("action", ""), ()):
        return None
    return Health("standing", (f"the task is {task.raw_status or task.status}, as {document['action']} asked",))


def is_running(spec: DmsSpec, document: Mapping[str, Any]) -> bool:
    """Whether the plan's task follows changes, or will after its steps."""
    if not spec.has_cdc or document["action"] in _ENDING:
        return False
    turns = [one["kind"] for one in document["steps"] if one["kind"] in ("start_task", "stop_task")]
    blocked = document["refusals"] or document["approvals"]
    if turns and not blocked:
        return bool(turns[-1] == "start_task")
    return bool(document["task"]["status"] == "running")


def token(run: str, try_number: int) -> str:
    """The canary's token of a try: the same for nobody else, so that an old row is never taken for a new one."""
    return hashlib.sha256(f"{run}#{try_number}".encode()).hexdigest()[:32]


def metrics_patience(spec: DmsSpec) -> timedelta:
    """How long a task that has just begun may be without the points that its verdict needs."""
    return METRIC_DELAY + timedelta(minutes=spec.limits.samples)


def seen(event: Mapping[str, Any]) -> Seen | None:
    """The canary as the trigger saw it."""
    if not event.get("seen_at"):
        return None
    return Seen(event["token"], datetime.fromisoformat(event["written_at"]), datetime.fromisoformat(event["seen_at"]))


def judge(services: Services, spec: DmsSpec, canary: Seen | None) -> Health:
    """The verdict of one task, asked anew: for a run about one spec."""
    held = asking.ask(services.dms, account.one(spec))
    task = held.task(spec)
    tables = asking.ask(services.dms, states.statistics(task)) if task.arn else None
    question = health.latencies([task], held.instances, until=services.now(), minutes=health.window(spec))
    measured = asking.ask(services.cloudwatch, question) if task.arn else {}
    return health.judge(spec, task, measured.get(task.arn), tables=tables, canary=canary, now=services.now())


def combined(spec: DmsSpec, found: Mapping[str, Any], canary: Seen | None) -> Health:
    """The verdict of the look, which was for all specs at once, with what became of the canary."""
    verdict, reasons = found["verdict"], tuple(found["reasons"])
    if spec.canary is None:
        return Health(verdict, reasons)
    if canary is None:
        text = f"the canary was not seen at the target within {spec.canary.max_age_s} s (canary.max_age_s)"
        return Health("unhealthy", (text, *(reasons if verdict == "unhealthy" else ())))
    age = (canary.seen_at - canary.written_at).total_seconds()
    return Health(verdict, (*reasons, f"the canary arrived after at most {age:.1f} s"))


def with_consumer(spec: DmsSpec, found: Health, stream_arn: str, client: Callable[[str], Any], now: datetime) -> Health:
    """The verdict with that on the function behind the stream; a task that is well is not, while nobody reads what it writes."""
    if spec.consumer is None or found.verdict not in ("healthy", "unhealthy"):
        return found
    if wrong := consumers.wrong(spec.consumer, stream_arn, client, now):
        return Health("unhealthy", (*wrong, *(found.reasons if found.verdict == "unhealthy" else ())))
    return Health(found.verdict, (*found.reasons, f"function {spec.consumer.function} reads the stream"))
