"""Waits for what is checked before a task starts: connections of endpoints, premigration assessments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from dbops.asking import Question
from dbops.dms import states
from dbops.dms.waits.base import MISSING_LOOKS, Wait, iso

C = TypeVar("C", bound="Connected")
A = TypeVar("A", bound="Assessed")
CONFIRMATIONS = 2
"""AWS tells no time of a test, so a result has to be seen so often, or after ``testing``, before it is that of the newest test."""
_RUNNING = frozenset({"starting", "provisioning", "running"})
_FINE = frozenset({"passed", "pending", "running", "skipped"})


@dataclass(frozen=True, kw_only=True)
class Connected(Wait):
    """Until the tests of all endpoints from a replication instance are over; each has to be successful."""

    instance_arn: str
    endpoint_arns: tuple[str, ...]
    seen: tuple[tuple[str, str, int], ...] = ()
    """(endpoint, status, looks in a row that found it); ``testing`` makes the next look count at once."""

    def _look(self: C, now: datetime) -> Question[C]:
        chosen = [
            {"Name": "endpoint-arn", "Values": list(self.endpoint_arns)},
            {"Name": "replication-instance-arn", "Values": [self.instance_arn]},
        ]
        rows = yield from states.pages("describe_connections", "Connections", Filters=chosen)
        return self.advance(tuple(states.connection_test(row) for row in rows))

    def advance(self: C, tests: tuple[states.ConnectionTest, ...]) -> C:
        """The wait after one more look."""
        found = {one.endpoint_arn: one for one in tests if one.instance_arn == self.instance_arn}
        known = {arn: (status, times) for arn, status, times in self.seen}
        seen = []
        for arn in self.endpoint_arns:
            status = found[arn].status if arn in found else "unknown"
            before, times = known.get(arn, ("", 0))
            again = times + 1 if status == before else CONFIRMATIONS if before == "testing" else 1
            seen.append((arn, status, again))
        told = {arn: {"status": one.status, "failure": one.failure} for arn, one in sorted(found.items())}
        told = {arn: told[arn] for arn in self.endpoint_arns if arn in told}
        certain = {arn: status for arn, status, times in seen if times >= CONFIRMATIONS}
        after = replace(self, seen=tuple(seen), told=told)
        if failed := [
            f"endpoint {arn}: {found[arn].failure or 'failed'}" for arn, s in certain.items() if s == "failed"
        ]:
            return replace(after, outcome="bad", reasons=tuple(failed))
        if all(certain.get(arn) == "successful" for arn in self.endpoint_arns):
            return replace(after, outcome="good", reasons=(f"{len(seen)} endpoints can be reached",))
        return replace(after, reasons=tuple(f"endpoint {arn}: {status}" for arn, status, _ in seen))


@dataclass(frozen=True, kw_only=True)
class Assessed(Wait):
    """Until a premigration assessment run is over. ``told`` has its status and what it found; a warning is good, and told."""

    run_arn: str
    missing: int = 0

    def _look(self: A, now: datetime) -> Question[A]:
        chosen = [{"Name": "replication-task-assessment-run-arn", "Values": [self.run_arn]}]
        rows = yield from states.pages(
            "describe_replication_task_assessment_runs", "ReplicationTaskAssessmentRuns", Filters=chosen
        )
        found: list[dict[str, Any]] = []
        if rows and str(rows[0].get("Status")).lower() not in _RUNNING:
            found = yield from states.pages(
                "describe_replication_task_individual_assessments",
                "ReplicationTaskIndividualAssessments",
                Filters=chosen,
            )
        return self.advance(rows[0] if rows else None, found)

    def advance(self: A, run: Mapping[str, Any] | None, individual: list[dict[str, Any]]) -> A:
        """The wait after one more look."""
        if run is None:
            missing = self.missing + 1
            reason = f"AWS does not know the assessment run {self.run_arn}, {missing} times in a row"
            return replace(
                self, missing=missing, reasons=(reason,), outcome="bad" if missing >= MISSING_LOOKS else "open"
            )
        status = " ".join(str(run.get("Status") or "").lower().split())
        findings = tuple(
            f"{one.get('IndividualAssessmentName')}: {one.get('Status')}"
            for one in individual
            if str(one.get("Status")).lower() not in _FINE
        )
        told = {
            "run_arn": self.run_arn, "name": str(run.get("AssessmentRunName") or ""), "status": status, "findings": list(findings),
            "failure": str(run.get("LastFailureMessage") or ""), "created_at": iso(run.get("ReplicationTaskAssessmentRunCreationDate")),
            "bucket": str(run.get("ResultLocationBucket") or ""), "folder": str(run.get("ResultLocationFolder") or ""),
        }  # fmt: skip
        failure = (str(run["LastFailureMessage"]),) if run.get("LastFailureMessage") else ()
        after = replace(self, missing=0, told=told, reasons=(f"the assessment run is {status}", *findings, *failure))
        if status in ("passed", "warning"):
            return replace(after, outcome="good")
        ended = status in ("failed", "cancelling", "deleting", "invalid state") or status.startswith("error")
        return replace(after, outcome="bad" if ended else "open")


def assessment_runs(task_arn: str) -> Question[list[dict[str, Any]]]:
    """Assessment runs of a task, newest first."""
    chosen = [{"Name": "replication-task-arn", "Values": [task_arn]}]
    rows = yield from states.pages(
        "describe_replication_task_assessment_runs", "ReplicationTaskAssessmentRuns", Filters=chosen
    )
    return sorted(rows, key=lambda row: iso(row.get("ReplicationTaskAssessmentRunCreationDate")), reverse=True)
