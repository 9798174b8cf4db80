"""Whether a Blue/Green deployment is really ready: its status, its tasks and every member on both sides, several times in a row.

AVAILABLE alone is not enough: a switchover has been refused because "DB instance ...-green-... is not in available state" while the
deployment said AVAILABLE. Fail-closed: what is unknown is not ready, and a deployment that cannot become ready any more is FAILED at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from dbops import asking
from dbops.asking import Question
from dbops.blue_green import attempt

Outcome = Literal["WAITING", "READY", "FAILED"]
CONSECUTIVE = 3
_DEAD = frozenset({"INVALID_CONFIGURATION", "DELETING"})
_SWITCHED = frozenset({"SWITCHOVER_IN_PROGRESS", "SWITCHOVER_COMPLETED"})
# Events are kept for 14 days; a deployment is not created for longer than this.
_EVENTS_BACK = timedelta(days=2)


@dataclass(frozen=True)
class Sample:
    """One look. ``status`` is None when a call failed, ``NOT_FOUND`` when there is no such deployment."""

    at: datetime
    status: str | None
    details: str = ""
    tasks: tuple[tuple[str, str], ...] = ()
    waits_for: tuple[str, ...] = ()
    """Members that are not as they should be, each with what it is instead."""
    failed: tuple[str, ...] = ()
    """What can not become right any more: failed tasks, events of a failed creation."""
    error: str = ""


@dataclass(frozen=True)
class Readiness:
    """What several looks add up to. Plain values, so that a trigger can keep it (:func:`dump`, :func:`load`)."""

    target: str = "AVAILABLE"
    consecutive: int = CONSECUTIVE
    outcome: Outcome = "WAITING"
    reason: str = ""
    streak: int = 0
    missing: int = 0
    """Looks in a row in which the deployment did not exist: just after its creation AWS may not know it yet."""
    last_status: str = ""
    steps: tuple[tuple[str, str, str], ...] = ()
    """(when it was first seen, task, status) of each change of a task: how long each one takes."""

    @property
    def is_over(self) -> bool:
        """The outcome will not change any more."""
        return self.outcome != "WAITING"


def advance(state: Readiness, seen: Sample) -> Readiness:
    """State after one more look. One whose outcome is known comes back as it is."""
    if state.is_over:
        return state
    if seen.status is None:  # neither confirms nor contradicts, but a streak is of looks that saw something
        return replace(state, streak=0, reason=f"the last call failed: {seen.error}")
    missing = state.missing + 1 if seen.status == "NOT_FOUND" else 0
    state = replace(state, missing=missing, last_status=seen.status, steps=_steps(state, seen))
    if reason := _failed(state, seen):
        return replace(state, outcome="FAILED", reason=reason, streak=0)
    if reason := _not_yet(state, seen):
        return replace(state, reason=reason, streak=0)
    streak = state.streak + 1
    return replace(
        state,
        streak=streak,
        reason=f"the deployment, its {len(seen.tasks)} tasks and its members are ready, {streak} times in a row",
        outcome="READY" if streak >= state.consecutive else "WAITING",
    )


def checking(deployment_id: str, target: str, now: datetime) -> Question[Sample]:
    """Look at a deployment, both its sides and its events.

    Args:
        deployment_id: ``bgd-...``
        target: the status that it and its members should have
        now: the time; naive is UTC
    """
    at = now if now.tzinfo is not None else now.replace(tzinfo=UTC)
    try:
        answer = yield "describe_blue_green_deployments", {"BlueGreenDeploymentIdentifier": deployment_id}
        heads = answer.get("BlueGreenDeployments") or []
        if not heads:
            return Sample(at, "NOT_FOUND")
        waits_for = yield from _members(heads[0], target)
        created = heads[0].get("CreateTime") or at
        events = yield from attempt.events(heads[0], max(created, at - _EVENTS_BACK), (deployment_id,))
    except Exception as error:
        if not asking.is_failure(error):
            raise
        if asking.code(error) == attempt.NO_DEPLOYMENT:
            return Sample(at, "NOT_FOUND")
        return Sample(at, None, error=asking.text(error))
    head = heads[0]
    tasks = tuple((str(task.get("Name") or ""), str(task.get("Status") or "")) for task in head.get("Tasks") or [])
    failed = [f"task {name} failed" for name, status in tasks if status == "FAILED"]
    failed += [str(event.get("Message") or "") for event in events if _creation_failed(event)]
    return Sample(
        at,
        str(head.get("Status") or ""),
        str(head.get("StatusDetails") or ""),
        tasks,
        tuple(waits_for),
        tuple(failed),
    )


def dump(state: Readiness) -> dict[str, Any]:
    """The state as JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(state)))
    return plain


def load(plain: Mapping[str, Any]) -> Readiness:
    """The state that :func:`dump` gave."""
    return Readiness(
        **{**plain, "steps": tuple((str(at), str(name), str(status)) for at, name, status in plain["steps"])}
    )


def durations(state: Readiness) -> dict[str, float | None]:
    """Seconds that each task took, to the interval between two looks; None when its begin or its end was not seen."""
    begun: dict[str, datetime] = {}
    found: dict[str, float | None] = {}
    for at, name, status in state.steps:
        found.setdefault(name, None)
        if status == "IN_PROGRESS":
            begun.setdefault(name, datetime.fromisoformat(at))
        elif status == "COMPLETED" and name in begun:
            found[name] = (datetime.fromisoformat(at) - begun[name]).total_seconds()
    return found


def _failed(state: Readiness, seen: Sample) -> str:
    details = f": {seen.details}" if seen.details else ""
    if seen.status in _DEAD or (seen.status in _SWITCHED and state.target == "AVAILABLE"):
        return "; ".join([f"the deployment is {seen.status}{details}", *seen.failed])
    if seen.failed:
        return "; ".join([*seen.failed, f"the deployment is {seen.status}{details}"])
    if state.missing >= state.consecutive:
        return f"RDS does not know the deployment, {state.missing} times in a row"
    return ""


def _not_yet(state: Readiness, seen: Sample) -> str:
    if seen.status != state.target:
        return f"the deployment is {seen.status or 'without a status'}"
    pending = [f"task {name} is {status or 'without a status'}" for name, status in seen.tasks if status != "COMPLETED"]
    return "; ".join([*pending, *seen.waits_for])


def _steps(state: Readiness, seen: Sample) -> tuple[tuple[str, str, str], ...]:
    known = {name: status for _, name, status in state.steps}
    changed = [(seen.at.isoformat(), name, status) for name, status in seen.tasks if known.get(name) != status]
    return (*state.steps, *changed)


def _members(head: Mapping[str, Any], target: str) -> Question[list[str]]:
    """Members that keep the deployment from being ready, in words."""
    rows = head.get("SwitchoverDetails") or []
    if not rows:
        return ["SwitchoverDetails lists no member yet"]
    wrong = [
        f"{_name(str(row.get('SourceMember') or row.get('TargetMember') or 'a member'))} is "
        f"{row.get('Status') or 'without a status'} in SwitchoverDetails"
        for row in rows
        if row.get("Status") != target
    ]
    named = {str(row.get(key) or "") for row in rows for key in ("SourceMember", "TargetMember")}
    named = {arn for arn in named | {str(head.get("Source") or ""), str(head.get("Target") or "")} if arn}
    clusters = sorted(_name(arn) for arn in named if ":cluster:" in arn)
    instances = {_name(arn) for arn in named if ":cluster:" not in arn}
    if clusters:
        chosen = [{"Name": "db-cluster-id", "Values": clusters}]
        found = yield from asking.pages("describe_db_clusters", "DBClusters", Filters=chosen)
        wrong += _unavailable(clusters, found, "DBClusterIdentifier", "Status", "cluster")
        instances |= {
            str(member.get("DBInstanceIdentifier"))
            for cluster in found
            for member in cluster.get("DBClusterMembers") or []
        }
        wrong += [
            f"cluster {one['DBClusterIdentifier']} has no instance" for one in found if not one.get("DBClusterMembers")
        ]
    if instances:
        chosen = [{"Name": "db-instance-id", "Values": sorted(instances)}]
        found = yield from asking.pages("describe_db_instances", "DBInstances", Filters=chosen)
        wrong += _unavailable(sorted(instances), found, "DBInstanceIdentifier", "DBInstanceStatus", "instance")
    return wrong


def _unavailable(
    wanted: Iterable[str], found: Iterable[Mapping[str, Any]], name: str, status: str, kind: str
) -> list[str]:
    statuses = {str(one.get(name)): str(one.get(status) or "without a status") for one in found}
    return [
        f"{kind} {one} is {statuses.get(one, 'missing')}"
        for one in wanted
        if statuses.get(one, "missing") != "available"
    ]


def _creation_failed(event: Mapping[str, Any]) -> bool:
    """RDS-EVENT-0245; DescribeEvents carries no id, so the message tells."""
    if event.get("SourceType") != "blue-green-deployment":
        return False
    message = str(event.get("Message") or "").lower()
    told = "creat" in message and "fail" in message and "switchover" not in message
    return event.get("EventID") == "RDS-EVENT-0245" or told


def _name(arn: str) -> str:
    return arn.rsplit(":", 1)[-1]
