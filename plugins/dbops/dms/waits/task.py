"""Waits for the state of a task: that it stands, has started, has ended well, is stopped, is gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar, cast

from dbops.dms import states
from dbops.dms.states import TRANSIENT, Task, TaskType
from dbops.dms.waits.base import Judgement, Seen, TaskWait, has_grace, iso, parsed, status_text, tolerated

G = TypeVar("G", bound="Gone")
GRACE_S = 300
"""Seconds in which a task may still show what it was before it was started."""


@dataclass(frozen=True, kw_only=True)
class Standing(TaskWait):
    """Until the task stands, so that it may be started, changed, moved or deleted. A task that runs is bad: waiting does not stop it."""

    statuses: tuple[str, ...] = ("ready", "stopped", "failed")
    instance_arn: str = ""
    """When given, it has to be on this replication instance."""
    may_hold_capacity: bool = False
    """Whether a serverless replication is good as well before it has given its capacity back."""

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.status in self.statuses:
            if seen.holds_capacity and not self.may_hold_capacity:
                return "open", (f"{status_text(task)}, its capacity is {seen.provision}",)
            if self.instance_arn and task.instance_arn != self.instance_arn:
                return "open", (f"{status_text(task)}, still on {task.instance_arn}",)
            return "good", (status_text(task),)
        if task.status in TRANSIENT or task.status == "unknown":
            return "open", (status_text(task),)
        return "bad", (status_text(task),)


@dataclass(frozen=True, kw_only=True)
class Started(TaskWait):
    """Until a task that was started runs, or has ended already; an end is judged by :func:`dbops.dms.states.ending`."""

    since: str
    """When it was started, ISO 8601."""
    before: str
    """Its start before, ISO 8601: a status of that one proves nothing."""
    grace_s: float = GRACE_S
    max_error_rows: int = 0

    def _needs_tables(self) -> bool:
        return True

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.status == "running":
            return "good", (status_text(task),)
        if task.status in TRANSIENT or task.status == "unknown":
            return "open", (status_text(task),)
        if iso(task.started_at) == self.before and task.status in ("ready", "stopped", "failed"):
            if has_grace(self.since, self.grace_s, now):
                return "open", (f"{status_text(task)}, as before it was started",)
            return "bad", (f"{status_text(task)}; it did not start within {self.grace_s:g} s",)
        return _ending(seen, self.max_error_rows)


@dataclass(frozen=True, kw_only=True)
class Ended(TaskWait):
    """Until a task has ended, and how; ``running`` is no end."""

    since: str
    """When the waiting began, ISO 8601: for the grace of a task that nobody has started yet."""
    grace_s: float = GRACE_S
    not_before: str = ""
    """An end before this moment (ISO 8601) is an older one."""
    before: str = "-"
    """When given, an end of the run that was started then (ISO 8601, "" for none) is an older one."""
    stop_reasons: tuple[str, ...] = ()
    """When given, only these are good."""
    stop_at: str = ""
    """When given, the end has to be that of a run with this CdcStopPosition."""
    max_error_rows: int = 0

    def _needs_tables(self) -> bool:
        return True

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.status in TRANSIENT or task.status in ("running", "unknown"):
            return "open", (status_text(task),)
        if task.status == "ready" or self._is_older(seen):
            if has_grace(self.since, self.grace_s, now):
                return "open", (f"{status_text(task)}, and was not started yet",)
            return "bad", (f"{status_text(task)}, and was not started within {self.grace_s:g} s",)
        outcome, reasons = _ending(seen, self.max_error_rows)
        if outcome == "good" and self.stop_reasons and task.stop_reason not in self.stop_reasons:
            return "bad", (f"stopped with {task.stop_reason}, expected {' or '.join(self.stop_reasons)}",)
        return outcome, reasons

    def _is_older(self, seen: Seen) -> bool:
        if (self.stop_at and seen.stop_at != self.stop_at) or iso(seen.task.started_at) == self.before:
            return True
        begun, stopped = parsed(self.not_before), seen.task.stopped_at
        return begun is not None and seen.task.status != "failed" and (stopped is None or stopped < begun)


@dataclass(frozen=True, kw_only=True)
class Stopped(TaskWait):
    """Until a task that was told to stop no longer runs. How it ended is a matter of ``told``: stopping is what was asked for."""

    def _needs_tables(self) -> bool:
        return True

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.status in ("stopped", "failed"):
            return "good", _ending(seen, 0)[1]
        if task.status in TRANSIENT or task.status in ("running", "unknown"):
            return "open", (status_text(task),)
        if task.status == "ready":
            return "good", (status_text(task),)
        return "bad", (status_text(task),)


@dataclass(frozen=True, kw_only=True)
class Gone(TaskWait):
    """Until AWS does not know the task any more."""

    def advance(self: G, seen: Seen, now: datetime) -> G:
        """The wait after one more look."""
        if seen.task.status == "missing":
            return replace(self, outcome="good", reasons=("the task is gone",))
        return replace(self, reasons=(status_text(seen.task),), told=seen.document())


def _ending(seen: Seen, max_error_rows: int) -> Judgement:
    task: Task = seen.task
    ending = states.ending(task, tolerated(seen.tables, max_error_rows), cast(TaskType, task.task_type))
    return ending.verdict, ending.reasons
