"""One attempt of a switchover that is called at most once, whatever dies in between.

Before SwitchoverBlueGreenDeployment is called, the time and blue's members are noted through a :class:`Keeper`; a second
:func:`begin` finds the note and calls nothing. :func:`look` observes and lets the judge of :mod:`dbops.blue_green.switchover` remember.
What is kept:

    noted     written, and no answer of the call: the process ended in between, or the answer was lost. It may or may not have begun
    accepted  AWS took the call
    found     the switchover is one that somebody else called, and is followed
    refused   AWS said that it did nothing; only then may `begin` call again
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from dbops import asking
from dbops.asking import Question
from dbops.blue_green import switchover
from dbops.blue_green.switchover import CONFIRMATIONS, Memory, Observation

Called = Literal["noted", "accepted", "found", "refused"]
_CAN_BEGIN = frozenset({"AVAILABLE", "SWITCHOVER_FAILED"})
_ALREADY = frozenset({"SWITCHOVER_IN_PROGRESS", "SWITCHOVER_COMPLETED"})
_NEVER_SENT = frozenset({"ParamValidationError", "NoCredentialsError", "PartialCredentialsError"})
_OLD = re.compile(r"-old\d+$")
# So much before the call is looked for events that belong to earlier attempts.
_BEFORE = timedelta(hours=1)


NO_DEPLOYMENT = "BlueGreenDeploymentNotFoundFault"


class AttemptError(RuntimeError):
    """The switchover was not called, or there is nothing to look at; the text says why and what to do."""


class RefusedError(AttemptError):
    """No switchover was begun: AWS refused the call, or the deployment is in no state in which it would take it."""


class Keeper(Protocol):
    """Keeps one JSON document durably: `save` has written it when it returns."""

    def load(self) -> dict[str, Any] | None:
        """The document, or None when nothing was saved yet."""

    def save(self, document: dict[str, Any]) -> None:
        """Replace the document."""


@dataclass(frozen=True)
class Attempt:
    """What is kept of an attempt. ``asked_at`` is our own clock; ``memory.called_at`` is AWS's, so that its events can be told apart."""

    deployment_id: str
    timeout_s: int
    asked_at: datetime
    memory: Memory
    called: Called = "noted"
    request_id: str = ""
    error: str = ""
    """Text of the call that failed or was refused."""
    failed_before: bool = False
    """The deployment was SWITCHOVER_FAILED before the call: the same answer afterwards proves nothing."""


def begin(
    rds: Any,
    keeper: Keeper,
    deployment_id: str,
    timeout_s: int,
    grace_s: int,
    now: datetime,
    *,
    confirmations: int = CONFIRMATIONS,
) -> Memory:
    """Call the switchover, unless a note says that it was called; a switchover that runs already is followed, not called.

    Args:
        rds: boto3 client of RDS, best one that repeats no call by itself (``retries={"total_max_attempts": 1}``): when a repetition is
            refused or throttled, nobody knows what the first try did, and the attempt is only observed
        keeper: of this attempt alone; each rung of a ladder has its own
        deployment_id: ``bgd-...``
        timeout_s: SwitchoverTimeout, 30 to 3600 s
        grace_s: so much later than the timeout, without certainty, it is STUCK
        now: the time; naive is UTC
        confirmations: answers in a row that an outcome needs

    Raises:
        RefusedError: it was not called because the deployment is not ready, or AWS says that it did nothing
        AttemptError: it was not called because the deployment is missing, or the note is of something else
        ValueError: the timeout is not one that AWS takes
        Exception: of the client, when the deployment could not be asked about; nothing was called
    """
    kept = recall(keeper, deployment_id)
    if kept is not None and kept.called != "refused":
        if kept.timeout_s != timeout_s:
            raise AttemptError(
                f"timeout_s={timeout_s}: this attempt was called with {kept.timeout_s}; give each attempt its own keeper"
            )
        return kept.memory
    status, attempt = _note(rds, deployment_id, timeout_s, grace_s, now, confirmations, _CAN_BEGIN | _ALREADY)
    if status in _ALREADY:
        # Its events are older than this note; the statuses of the members decide.
        return _follow(keeper, attempt, status)
    keeper.save(dump(attempt))
    attempt = _call(rds, attempt)
    keeper.save(dump(attempt))
    if attempt.called == "refused":
        raise RefusedError(
            f"AWS did not begin the switchover of {deployment_id}: {attempt.error}; repeat it when the cause is gone"
        )
    return attempt.memory


def follow(
    rds: Any,
    keeper: Keeper,
    deployment_id: str,
    timeout_s: int,
    grace_s: int,
    now: datetime,
    *,
    confirmations: int = CONFIRMATIONS,
) -> Memory:
    """Note a switchover that somebody else calls or has called, so that :func:`look` can tell how it ends; calls nothing.

    The arguments and errors are those of :func:`begin`; a note that is there stays. With this note :func:`begin` calls nothing either.
    """
    kept = recall(keeper, deployment_id)
    if kept is not None and kept.called != "refused":
        return kept.memory
    status, attempt = _note(rds, deployment_id, timeout_s, grace_s, now, confirmations)
    return _follow(keeper, attempt, status)


def look(rds: Any, keeper: Keeper, deployment_id: str, now: datetime) -> Memory:
    """Observe once, remember, and say what is known. A failed call never raises: it is one more answer that proves nothing.

    Raises:
        AttemptError: it was never begun, or refused
    """
    attempt = require(keeper, deployment_id)
    attempt = asking.ask(rds, looking(attempt, now))
    keeper.save(dump(attempt))
    return attempt.memory


def looking(attempt: Attempt, now: datetime) -> Question[Attempt]:
    """The question behind :func:`look`, for a client of either kind; nothing is saved."""
    if attempt.memory.is_over:
        return attempt
    memory = attempt.memory
    seen = yield from observing(attempt.deployment_id, now, memory.called_at, memory.expected)
    if attempt.failed_before:
        seen = _not_of_before(memory, seen)
    memory = switchover.advance(memory, seen)
    if memory.outcome == "STUCK" and attempt.called == "noted":
        lost = attempt.error or "the process ended before AWS answered"
        memory = replace(
            memory, reason=f"{memory.reason}; whether the call reached AWS is unknown ({lost}), it was not repeated"
        )
    return replace(attempt, memory=memory)


def recall(keeper: Keeper, deployment_id: str) -> Attempt | None:
    """What is kept, or None. Raises AttemptError when it is of another deployment."""
    document = keeper.load()
    if not document:
        return None
    attempt = load(document)
    if attempt.deployment_id != deployment_id:
        raise AttemptError(
            f"deployment_id={deployment_id}: this keeper holds an attempt of {attempt.deployment_id}; use another one"
        )
    return attempt


def require(keeper: Keeper, deployment_id: str) -> Attempt:
    """What is kept of a switchover that may be running. Raises AttemptError when there is none."""
    attempt = recall(keeper, deployment_id)
    if attempt is None:
        raise AttemptError(f"no switchover of {deployment_id} was begun; begin it first")
    if attempt.called == "refused":
        raise AttemptError(f"the switchover of {deployment_id} was refused: {attempt.error}; begin it again")
    return attempt


def observing(
    deployment_id: str, now: datetime, since: datetime, expected: Sequence[str] = ()
) -> Question[Observation]:
    """Status, members and events as the judge takes them; a call that fails becomes a status of None.

    Args:
        deployment_id: ``bgd-...``
        now: the time; naive is UTC
        since: aware; older events are not asked for
        expected: blue's members under the names that they had before the call, under which the answer gives them again
    """
    at = _aware(now)
    try:
        answer = yield "describe_blue_green_deployments", {"BlueGreenDeploymentIdentifier": deployment_id}
    except Exception as error:
        if not asking.is_failure(error):
            raise
        if asking.code(error) != NO_DEPLOYMENT:
            return switchover.observe(None, [], at, error=asking.text(error))
        answer = {"BlueGreenDeployments": []}
    heads = answer.get("BlueGreenDeployments") or []
    found, failed = [], ""
    try:
        found = yield from events(heads[0] if heads else {}, since, (deployment_id, *expected))
    except Exception as error:
        if not asking.is_failure(error):
            raise
        failed = asking.text(error)  # the status alone is judged more strictly, so it may be used
    renamed = [{**heads[0], "SwitchoverDetails": _as_before(heads[0], expected)}] if heads else []
    return replace(switchover.observe({"BlueGreenDeployments": renamed}, found, at), error=failed)


def events(head: Mapping[str, Any], since: datetime, also: Iterable[str] = ()) -> Question[list[dict[str, Any]]]:
    """RDS events since then (aware) of a deployment, its clusters and its instances, under their old and new names.

    One listing of every source type is read: three filtered ones would cost three times as many calls.

    Args:
        head: the deployment as it is described; may be empty
        since: older ones are not listed
        also: more identifiers or ARNs
    """
    rows = head.get("SwitchoverDetails") or []
    named = {
        *also,
        *(str(head.get(key) or "") for key in ("BlueGreenDeploymentIdentifier", "BlueGreenDeploymentName")),
        *(str(head.get(key) or "") for key in ("Source", "Target")),
        *(str(row.get(key) or "") for row in rows for key in ("SourceMember", "TargetMember")),
    }
    names = {_OLD.sub("", name.rsplit(":", 1)[-1]) for name in named} - {""}
    listed = yield from asking.pages("describe_events", "Events", StartTime=since)
    kinds = ("blue-green-deployment", "db-cluster", "db-instance")
    return [
        event
        for event in listed
        if event.get("SourceType") in kinds
        and any(
            _OLD.sub("", str(event.get(key) or "").rsplit(":", 1)[-1]) in names
            for key in ("SourceIdentifier", "SourceArn")
        )
    ]


def members(head: Mapping[str, Any], *, refresh: bool = False) -> Question[tuple[str, ...]]:
    """ARNs of blue's cluster and instances (form instance: of the instance and its replicas).

    Args:
        head: the deployment as it is described; its SwitchoverDetails may still be empty
        refresh: ask the cluster for its members too, so that one that has no row yet is not forgotten
    """
    source = str(head.get("Source") or "")
    found = {str(row.get("SourceMember") or "") for row in head.get("SwitchoverDetails") or []} | {source}
    prefix, kind, name = [*source.rsplit(":", 2), "", ""][:3]
    if refresh and kind == "cluster":
        clusters = yield from asking.pages("describe_db_clusters", "DBClusters", DBClusterIdentifier=name)
        found |= {
            f"{prefix}:db:{member['DBInstanceIdentifier']}"
            for cluster in clusters
            for member in cluster.get("DBClusterMembers") or []
        }
    return tuple(sorted(found - {""}))


def dump(attempt: Attempt) -> dict[str, Any]:
    """The attempt as JSON values; ``memory`` is what :func:`switchover.dump` gives."""
    values = {
        "deployment_id": attempt.deployment_id,
        "timeout_s": attempt.timeout_s,
        "asked_at": attempt.asked_at.isoformat(),
        "called": attempt.called,
        "request_id": attempt.request_id,
        "error": attempt.error,
        "failed_before": attempt.failed_before,
        "memory": switchover.dump(attempt.memory),
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))  # lists, not tuples: the task state store takes nothing else
    return plain


def load(document: Mapping[str, Any]) -> Attempt:
    """The attempt that :func:`dump` gave."""
    values = dict(document)
    values["asked_at"] = datetime.fromisoformat(values["asked_at"])
    values["memory"] = switchover.load(values["memory"])
    return Attempt(**values)


def _note(
    rds: Any,
    deployment_id: str,
    timeout_s: int,
    grace_s: int,
    now: datetime,
    confirmations: int,
    allowed: frozenset[str] | None = None,
) -> tuple[str, Attempt]:
    """Status of the deployment before the call, and what has to be kept of it."""
    at = _aware(now)
    answer = _deployment(rds, deployment_id)
    head = answer["BlueGreenDeployments"][0]
    status = str(head.get("Status") or "")
    if allowed is not None and status not in allowed:
        details = f" ({head['StatusDetails']})" if head.get("StatusDetails") else ""
        raise RefusedError(
            f"deployment {deployment_id} is {status or 'without a status'}{details}, so it was not switched over; "
            f"wait until it and its members are AVAILABLE"
        )
    expected = asking.ask(rds, members(head, refresh=True))
    memory = switchover.begin(at, timeout_s, grace_s, expected, confirmations=confirmations)
    memory = replace(memory, called_at=_called_at(rds, answer, head, at))
    return status, Attempt(deployment_id, timeout_s, at, memory, failed_before=status == "SWITCHOVER_FAILED")


def _follow(keeper: Keeper, attempt: Attempt, status: str) -> Memory:
    keeper.save(dump(replace(attempt, called="found", error=f"found {status}; not called here")))
    return attempt.memory


def _call(rds: Any, attempt: Attempt) -> Attempt:
    try:
        answer = rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=attempt.deployment_id, SwitchoverTimeout=attempt.timeout_s
        )
    except Exception as error:
        if not asking.is_failure(error):
            raise
        called: Called = "refused" if _did_nothing(error) else "noted"
        return replace(attempt, called=called, error=asking.text(error))
    return replace(attempt, called="accepted", request_id=asking.request_id(answer))


def _did_nothing(error: BaseException) -> bool:
    """Whether AWS says itself that no switchover was begun by this call.

    After a repetition by the client itself it does not: the first try may have begun what the second one is refused for.
    """
    if asking.retries(error):
        return False
    return asking.is_throttled(error) or 400 <= asking.status(error) < 500 or asking.code(error) in _NEVER_SENT


def _deployment(rds: Any, deployment_id: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = rds.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=deployment_id)
    except Exception as error:
        if asking.code(error) != NO_DEPLOYMENT:
            raise
        answer = {}
    if not answer.get("BlueGreenDeployments"):
        raise AttemptError(f"deployment_id={deployment_id}: RDS knows no such Blue/Green deployment; create it first")
    return answer


def _called_at(rds: Any, answer: Mapping[str, Any], head: Mapping[str, Any], at: datetime) -> datetime:
    """AWS's own time, in whole seconds, moved behind the events that exist already: those belong to earlier attempts."""
    headers = (answer.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    try:
        start = parsedate_to_datetime(headers["date"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        start = at
    past = asking.ask(rds, events(head, start - _BEFORE))
    return max([start, *(event["Date"] + timedelta(milliseconds=1) for event in past)])


def _as_before(head: Mapping[str, Any], expected: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of SwitchoverDetails, each under the name that blue's member had before the call: a switchover renames it to ``-oldN``."""
    rows = [dict(row) for row in head.get("SwitchoverDetails") or []]
    taken = {str(row.get("SourceMember") or "") for row in rows}
    for row in rows:
        name = str(row.get("SourceMember") or "")
        before = _OLD.sub("", name)
        if name not in expected and before in expected and before not in taken:
            row["SourceMember"] = before
            taken.add(before)
    return rows


def _not_of_before(memory: Memory, seen: Observation) -> Observation:
    """The answer without a SWITCHOVER_FAILED that may still be that of the attempt before."""
    running = "SWITCHOVER_IN_PROGRESS" in {status for _, status in seen.members}
    canceled = any(e.event_id in switchover.CANCELED_EVENTS and e.at >= memory.called_at for e in seen.events)
    if seen.status != "SWITCHOVER_FAILED" or memory.in_progress or running or canceled:
        return seen
    return replace(seen, status="AVAILABLE")


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
