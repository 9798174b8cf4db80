"""What every wait is, and one look at a task with everything that the waits of tasks judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from dbops import asking
from dbops.asking import Question
from dbops.dms import states
from dbops.dms.states import TableStatistics, Task

Outcome = Literal["open", "good", "bad"]
Judgement = tuple[Outcome, tuple[str, ...]]
W = TypeVar("W", bound="Wait")
T = TypeVar("T", bound="TaskWait")

MISSING_LOOKS = 3
"""So many looks in a row have to miss a task before it counts as gone: just after its creation AWS may not list it yet."""
TABLES_TOLD = 500
"""Tables that a document lists one by one."""
_NO_ANSWER = frozenset({"HTTPClientError", "ConnectionError", "NoCredentialsError", "CredentialRetrievalError"})
_THEIRS = frozenset({"InternalFailure", "InternalError", "InternalServerError", "ServiceUnavailable"})


def passes(error: BaseException) -> bool:
    """Whether a failed call may succeed later by itself: throttled, AWS's own fault, or no answer; not one that AWS refused."""
    if asking.is_throttled(error) or asking.code(error) in _THEIRS:
        return True
    if getattr(error, "response", None):
        return asking.status(error) >= 500
    return isinstance(error, OSError) or any(kind.__name__ in _NO_ANSWER for kind in type(error).__mro__)


def iso(moment: datetime | None) -> str:
    """ISO 8601 in UTC; "" for None. Naive is UTC."""
    if moment is None:
        return ""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def parsed(text: str) -> datetime | None:
    """The moment that :func:`iso` gave, or any ISO 8601 time; None for "". Naive is UTC."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Seen:
    """One look at a task. ``tables`` is None when they were not asked for or could not be had."""

    task: Task
    tables: tuple[TableStatistics, ...] | None = None
    provision: str = ""
    """ProvisionState of a serverless replication; "" when it has no capacity."""
    stop_at: str = ""
    """CdcStopPosition."""

    @property
    def holds_capacity(self) -> bool:
        """Whether a serverless replication has not given its capacity back: then it can be neither started nor deleted."""
        return self.provision.lower() not in ("", "deprovisioned")

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        task = self.task
        found = {
            "identifier": task.identifier, "arn": task.arn, "status": task.raw_status or task.status, "task_type": task.task_type,
            "stop_reason": task.raw_stop_reason, "failure": task.failure, "checkpoint": task.checkpoint,
            "started_at": iso(task.started_at), "stopped_at": iso(task.stopped_at), "load_finished_at": iso(task.load_finished_at),
        }  # fmt: skip
        return found if self.tables is None else {**found, "statistics": statistics(self.tables)}


def statistics(tables: tuple[TableStatistics, ...]) -> dict[str, Any]:
    """Sums over all tables, and the tables one by one as far as they are not too many; those that failed come first."""
    ordered = sorted(tables, key=lambda one: (not one.is_failed, not one.error_rows, one.table))
    rows = [
        {
            "table": str(one.table), "state": one.raw_state or one.state, "rows": one.rows, "error_rows": one.error_rows,
            "condition_failed_rows": one.condition_failed_rows, "applied_inserts": one.applied_inserts,
            "applied_updates": one.applied_updates, "applied_deletes": one.applied_deletes, "validation": one.validation_state,
        }
        for one in ordered[:TABLES_TOLD]
    ]  # fmt: skip
    return {
        "tables": len(tables),
        "states": dict(sorted(Counter(one.raw_state or one.state for one in tables).items())),
        "rows": sum(one.rows for one in tables),
        "error_rows": sum(one.error_rows for one in tables),
        "condition_failed_rows": sum(one.condition_failed_rows for one in tables),
        "by_table": rows,
    }


def is_serverless(arn: str) -> bool:
    """Whether the ARN is that of a replication configuration."""
    return ":replication-config:" in arn


def seeing(arn: str, *, tables: bool = False, settings: bool = False) -> Question[Seen]:
    """Look at a task, or at a serverless replication, by its ARN; its task is ``missing`` when AWS has none.

    Args:
        arn: of the task or of the replication configuration
        tables: ask for the statistics of its tables as well
        settings: ask for its settings and mappings as well
    """
    if is_serverless(arn):
        seen = yield from _seeing_replication(arn)
    else:
        chosen = [{"Name": "replication-task-arn", "Values": [arn]}]
        rows = yield from states.pages(
            "describe_replication_tasks", "ReplicationTasks", Filters=chosen, WithoutSettings=not settings
        )
        row = next((one for one in rows if one.get("ReplicationTaskArn") == arn), None)
        if row is None:
            return Seen(states.missing(arn))
        seen = Seen(states.task(row), stop_at=str(row.get("CdcStopPosition") or ""))
    if not tables or seen.task.status == "missing":
        return seen
    try:
        found = yield from states.statistics(seen.task)
    except Exception as error:
        # A replication that has no capacity has no statistics either.
        if not (asking.is_failure(error) and asking.code(error).startswith("InvalidResourceState")):
            raise
        return seen
    return replace(seen, tables=found)


def _seeing_replication(arn: str) -> Question[Seen]:
    chosen = [{"Name": "replication-config-arn", "Values": [arn]}]
    configs = yield from states.pages("describe_replication_configs", "ReplicationConfigs", Filters=chosen)
    config = next((one for one in configs if one.get("ReplicationConfigArn") == arn), None)
    if config is None:
        return Seen(states.missing(arn))
    rows = yield from states.pages("describe_replications", "Replications", Filters=chosen)
    row = next((one for one in rows if one.get("ReplicationConfigArn") == arn), {})
    return Seen(
        states.serverless(config, row or None),
        provision=str((row.get("ProvisionData") or {}).get("ProvisionState") or ""),
        stop_at=str(row.get("CdcStopPosition") or ""),
    )


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Something that is waited for; ``told`` is what the last look saw, as JSON values."""

    outcome: Outcome = "open"
    reasons: tuple[str, ...] = ("nobody has looked yet",)
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """The outcome will not change any more."""
        return self.outcome != "open"

    @property
    def reason(self) -> str:
        """The reasons in one line."""
        return "; ".join(self.reasons)

    def looking(self: W, now: datetime) -> Question[W]:
        """One more look; one whose outcome is known comes back as it is."""
        if self.is_over:
            return self
        try:
            return (yield from self._look(now))
        except Exception as error:
            if not asking.is_failure(error):
                raise
            if passes(error):
                return replace(self, reasons=(f"the last call failed: {asking.text(error)}",))
            return replace(self, outcome="bad", reasons=(f"AWS refused the call: {asking.text(error)}",))

    def _look(self: W, now: datetime) -> Question[W]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TaskWait(Wait):
    """A wait for one task or serverless replication."""

    arn: str
    missing: int = 0
    """Looks in a row in which AWS did not know it."""

    def _look(self: T, now: datetime) -> Question[T]:
        seen = yield from seeing(self.arn, tables=True) if self._needs_tables() else seeing(self.arn)
        return self.advance(seen, now)

    def advance(self: T, seen: Seen, now: datetime) -> T:
        """The wait after one more look."""
        if seen.task.status == "missing":
            missing = self.missing + 1
            if missing < MISSING_LOOKS:
                return replace(
                    self, missing=missing, reasons=(f"AWS does not know {self.arn}, {missing} times in a row",)
                )
            reason = f"AWS does not know {self.arn}, {missing} times in a row"
            return replace(self, missing=missing, outcome="bad", reasons=(reason,))
        outcome, reasons = self._judge(seen, now)
        return replace(self, missing=0, outcome=outcome, reasons=reasons, told=seen.document())

    def _needs_tables(self) -> bool:
        return False

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        raise NotImplementedError


def status_text(task: Task) -> str:
    """The status in words, with the failure where there is one."""
    failure = f": {task.failure}" if task.failure and task.status in ("failed", "failed-move", "stopped") else ""
    return f"the task is {task.raw_status or task.status}{failure}"


def tolerated(tables: tuple[TableStatistics, ...] | None, error_rows: int) -> tuple[TableStatistics, ...] | None:
    """The statistics, without rows that failed where all tables together have no more of them than are put up with."""
    if tables is None or sum(one.error_rows for one in tables) > error_rows:
        return tables
    return tuple(replace(one, error_rows=0) for one in tables)


def has_grace(since: str, grace_s: float, now: datetime) -> bool:
    """Whether the grace since then is not over; no moment at all has no grace."""
    begun = parsed(since)
    return begun is not None and (now - begun).total_seconds() < grace_s
