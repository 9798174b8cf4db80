"""What a switchover has come to, told from answers of DescribeBlueGreenDeployments and RDS events; a pure state machine with memory.

One answer cannot tell: AVAILABLE means "not begun yet", "rolled back" or "an old answer", and SWITCHOVER_COMPLETED is said while a member
has failed. So the judge remembers. It is fail-closed: whatever is unknown, missing or
contradictory is not success, and at the deadline it is STUCK.

    COMPLETED    the deployment and every expected member say SWITCHOVER_COMPLETED, in ``confirmations`` answers in a row
    ROLLED_BACK  no member was switched, and the deployment is AVAILABLE or SWITCHOVER_FAILED again: confirmed by a cancel event, or, where
                 the event is missing, after it was seen in progress (or failed), in ``confirmations`` answers in a row
    STUCK        members ended differently; the deployment vanished or cannot be switched; or nothing was certain at the deadline

Sources: Aurora user guide, "Switching a blue/green deployment" and "RDS event categories" (events 0247 to 0261); AWS does not document
whether a rolled-back deployment is AVAILABLE or SWITCHOVER_FAILED.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

Outcome = Literal["WAITING", "COMPLETED", "ROLLED_BACK", "STUCK"]
CONFIRMATIONS = 3
COMPLETED_EVENTS = frozenset({"RDS-EVENT-0248", "RDS-EVENT-0260"})
CANCELED_EVENTS = frozenset({"RDS-EVENT-0249", "RDS-EVENT-0261"})
MIN_TIMEOUT_S, MAX_TIMEOUT_S = 30, 3600
_UNUSABLE = frozenset({"INVALID_CONFIGURATION", "DELETING"})
_BACK = frozenset({"AVAILABLE", "SWITCHOVER_FAILED"})


@dataclass(frozen=True)
class Event:
    """One RDS event; `at` is aware."""

    event_id: str
    message: str
    at: datetime


@dataclass(frozen=True)
class Observation:
    """One answer. ``status`` is None when the call failed (throttled, no network), ``NOT_FOUND`` when the deployment does not exist.

    ``members`` maps each source ARN to its status; ``events`` are those of the deployment and of its clusters.
    """

    at: datetime
    status: str | None
    details: str = ""
    members: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Memory:
    """What the judge knows. Every field is plain, so that a trigger can keep it (:func:`dump`, :func:`load`)."""

    called_at: datetime
    """Aware time just before SwitchoverBlueGreenDeployment was called; older events are of earlier attempts."""
    deadline: datetime
    expected: tuple[str, ...]
    """ARNs of blue's members (cluster and instances), noted before the call: each must be COMPLETED."""
    confirmations: int = CONFIRMATIONS
    outcome: Outcome = "WAITING"
    reason: str = ""
    in_progress: bool = False
    """The deployment, or a member, was seen in SWITCHOVER_IN_PROGRESS."""
    leaning: str = ""
    """What the last answers in a row point at."""
    streak: int = 0
    last_status: str = ""
    members: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def is_over(self) -> bool:
        """The outcome will not change any more."""
        return self.outcome != "WAITING"


def begin(
    called_at: datetime, timeout_s: int, grace_s: int, expected: Iterable[str], *, confirmations: int = CONFIRMATIONS
) -> Memory:
    """Memory of a switchover that is about to be called with this SwitchoverTimeout; STUCK `grace_s` seconds after the timeout.

    Raises:
        ValueError: a time is naive, the timeout is not one that AWS takes, or no member is expected (then nothing could be proven)
    """
    from datetime import timedelta

    if called_at.tzinfo is None:
        raise ValueError(f"called_at={called_at.isoformat()} has no time zone; pass an aware datetime")
    if not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
        raise ValueError(f"timeout_s={timeout_s}: SwitchoverTimeout is {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} seconds")
    if grace_s < 0 or confirmations < 1:
        raise ValueError(f"grace_s={grace_s}, confirmations={confirmations}: expected at least 0 and 1")
    if not (names := tuple(sorted(set(expected)))):
        raise ValueError(
            "expected is empty: note blue's cluster and instances from SwitchoverDetails or DescribeDBClusters before the call"
        )
    return Memory(called_at, called_at + timedelta(seconds=timeout_s + grace_s), names, confirmations)


def observe(
    answer: Mapping[str, Any] | None, events: Iterable[Mapping[str, Any]], at: datetime, *, error: str = ""
) -> Observation:
    """Take what boto3 returned: DescribeBlueGreenDeployments and the `Events` of DescribeEvents.

    Args:
        answer: the whole answer; None when the call failed, an empty list of deployments (or the NotFound fault, as
            ``{"BlueGreenDeployments": []}``) when there is none
        events: of source types blue-green-deployment and db-cluster
        at: aware time of the answer
        error: text of the failed call
    """
    found = tuple(
        Event(str(e.get("EventID") or _event_id(str(e.get("Message", "")))), str(e.get("Message", "")), e["Date"])
        for e in events
    )
    if answer is None:
        return Observation(at, None, events=found, error=error or "the call failed")
    deployments = answer.get("BlueGreenDeployments") or []
    if not deployments:
        return Observation(at, "NOT_FOUND", events=found)
    head = deployments[0]
    rows = head.get("SwitchoverDetails") or []
    members = tuple(sorted((str(row.get("SourceMember") or ""), str(row.get("Status") or "")) for row in rows))
    return Observation(at, str(head.get("Status") or ""), str(head.get("StatusDetails") or ""), members, found)


def advance(memory: Memory, seen: Observation) -> Memory:
    """Memory after one more answer. A memory whose outcome is known comes back as it is."""
    if memory.is_over:
        return memory
    fresh = {(e.event_id, e.at, e.message): e for e in (*memory.events, *seen.events) if e.at >= memory.called_at}
    memory = replace(memory, events=tuple(sorted(fresh.values(), key=lambda e: (e.at, e.event_id, e.message))))
    if (
        seen.status is None
    ):  # nothing new about the status; what pointed somewhere before has to be confirmed by answers
        return _at_deadline(memory, seen)
    running = "SWITCHOVER_IN_PROGRESS" in (seen.status, *(status for _, status in seen.members))
    memory = replace(
        memory,
        in_progress=memory.in_progress or running,
        last_status=seen.status,
        members=seen.members or memory.members,
    )
    outcome, reason = _points_at(memory, seen)
    leaning = outcome if outcome != "WAITING" else ""
    streak = memory.streak + 1 if leaning and leaning == memory.leaning else int(bool(leaning))
    memory = replace(memory, leaning=leaning, streak=streak, reason=reason)
    if leaning and streak >= memory.confirmations:
        return replace(memory, outcome=outcome)
    return _at_deadline(memory, seen)


def _points_at(memory: Memory, seen: Observation) -> tuple[Outcome, str]:
    statuses = dict(seen.members)
    switched = [name for name, status in statuses.items() if status == "SWITCHOVER_COMPLETED"]
    canceled, completed = _last(memory.events, CANCELED_EVENTS), _last(memory.events, COMPLETED_EVENTS)
    if seen.status == "NOT_FOUND" or seen.status in _UNUSABLE:
        return "STUCK", f"the deployment is {seen.status} {seen.details}".strip()
    if seen.status == "SWITCHOVER_COMPLETED":
        return _completed(memory, statuses, canceled)
    if seen.status not in _BACK:
        return "WAITING", f"the deployment is {seen.status or 'without a status'}"
    if switched:
        return "STUCK", f"the deployment is {seen.status}, but {', '.join(switched)} was switched over"
    running = [name for name, status in statuses.items() if status == "SWITCHOVER_IN_PROGRESS"]
    if running:
        return "WAITING", f"the deployment is {seen.status}, but {', '.join(running)} is in progress"
    if completed and not canceled:
        return "WAITING", f"the deployment is {seen.status}, but {completed.event_id} says that it completed"
    why = canceled.message if canceled else seen.details
    if canceled or memory.in_progress or seen.status == "SWITCHOVER_FAILED":
        source = f"{canceled.event_id}: " if canceled else "no event says why; "
        return "ROLLED_BACK", f"{source}{why or f'the deployment is {seen.status} again'}"
    return "WAITING", "the deployment is AVAILABLE and was never seen in progress: not begun, or rolled back unseen"


def _completed(memory: Memory, statuses: Mapping[str, str], canceled: Event | None) -> tuple[Outcome, str]:
    open_members = {name: statuses.get(name, "missing") for name in memory.expected}
    open_members |= statuses
    bad = {name: status for name, status in open_members.items() if status != "SWITCHOVER_COMPLETED"}
    if not bad and canceled is None:
        return "COMPLETED", f"the deployment and {len(statuses)} members are SWITCHOVER_COMPLETED"
    listed = ", ".join(f"{name} is {status or 'without a status'}" for name, status in sorted(bad.items()))
    if any(status in ("SWITCHOVER_FAILED", "MISSING_SOURCE", "MISSING_TARGET") for status in bad.values()):
        return "STUCK", f"the deployment says SWITCHOVER_COMPLETED, but {listed}"
    if canceled is not None:
        return "WAITING", f"the deployment says SWITCHOVER_COMPLETED, but {canceled.event_id}: {canceled.message}"
    return "WAITING", f"the deployment says SWITCHOVER_COMPLETED; {listed}"


def _at_deadline(memory: Memory, seen: Observation) -> Memory:
    if seen.at < memory.deadline:
        return memory
    last = f"the last call failed: {seen.error}" if seen.status is None else memory.reason
    since = (seen.at - memory.called_at).total_seconds()
    return replace(memory, outcome="STUCK", reason=f"not certain {since:.0f} s after the call: {last or 'no answer'}")


def dump(memory: Memory) -> dict[str, Any]:
    """The memory as JSON values, for a trigger's `serialize` or the store."""
    plain = asdict(memory)
    plain |= {key: plain[key].isoformat() for key in ("called_at", "deadline")}
    plain["events"] = [{**event, "at": event["at"].isoformat()} for event in plain["events"]]
    return plain


def load(plain: Mapping[str, Any]) -> Memory:
    """The memory that :func:`dump` gave."""
    values = dict(plain)
    values |= {key: datetime.fromisoformat(values[key]) for key in ("called_at", "deadline")}
    values["expected"] = tuple(values["expected"])
    values["members"] = tuple((str(name), str(status)) for name, status in values["members"])
    values["events"] = tuple(
        Event(e["event_id"], e["message"], datetime.fromisoformat(e["at"])) for e in values["events"]
    )
    return Memory(**values)


def _last(events: Sequence[Event], ids: frozenset[str]) -> Event | None:
    return next((event for event in reversed(events) if event.event_id in ids), None)


# DescribeEvents carries no event id (only EventBridge and SNS do), so there it has to be told from the documented message. First words
# that decide, then the id of a deployment's event and that of its cluster's.
_MESSAGES = (
    (("canceled", "cancelled"), "RDS-EVENT-0249", "RDS-EVENT-0261"),
    (("completed",), "RDS-EVENT-0248", "RDS-EVENT-0260"),
    (("started",), "RDS-EVENT-0247", "RDS-EVENT-0259"),
)


def _event_id(message: str) -> str:
    text = message.lower()
    if "switchover" in text or "switch over" in text:
        for words, of_deployment, of_cluster in _MESSAGES:
            if any(word in text for word in words):
                return of_cluster if "from db cluster" in text else of_deployment
    return ""


def utc_now() -> datetime:
    """The aware time that callers pass as `at`."""
    return datetime.now(UTC)
