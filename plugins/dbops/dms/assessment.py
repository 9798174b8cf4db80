"""Premigration assessment runs of AWS: started once, followed, and judged by their individual assessments too.

Fail-closed: a run passes when AWS says so *and* none of its individual assessments says otherwise; a run without any, a status that is not
documented and a run that is gone are failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbops import asking
from dbops.asking import Question
from dbops.dms import states
from dbops.dms.spec import Assessment

Verdict = Literal["passed", "warning", "failed", "open"]
OPEN = frozenset({"starting", "provisioning", "running"})
"""Statuses of a run that pass by themselves."""
ENDED: dict[str, Verdict] = {"passed": "passed", "warning": "warning"}
"""Statuses of a run after which a task may start; every other one is a failure."""
_HARMLESS = frozenset({"passed", "skipped"})


@dataclass(frozen=True)
class Finding:
    """An individual assessment; ``status`` is AWS's word: passed, skipped, warning, failed, error, cancelled, pending, running."""

    name: str
    status: str

    def __str__(self) -> str:
        return f"{self.name}: {self.status}"


@dataclass(frozen=True)
class Assessed:
    """A run and what it found. ``reason`` says why the verdict is not ``passed``, "" when it is."""

    status: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    arn: str = ""
    name: str = ""
    reason: str = ""

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings that a person has to read."""
        return tuple(finding for finding in self.findings if finding.status not in _HARMLESS)


def start(task_arn: str, name: str, given: Assessment, *, again: bool = False) -> Question[str]:
    """ARN of the task's run of this name, which is started when there is none; asking twice starts one run.

    Args:
        task_arn: the task; it must not be running
        name: of the run, the one of the plan's step
        given: where AWS writes the result
        again: a run that did not pass is repeated, as ``<name>-2`` and so on

    Raises:
        whatever the client raises: the task is running, or the role may not write to the bucket
    """
    runs = yield from _runs(task_arn, name)
    if runs and not (again and _verdict_of_run(runs[-1]) == "failed"):
        return str(runs[-1]["ReplicationTaskAssessmentRunArn"])
    wanted = f"{name}-{len(runs) + 1}" if runs else name
    arguments = {
        "ReplicationTaskArn": task_arn,
        "ServiceAccessRoleArn": given.role_arn,
        "ResultLocationBucket": given.bucket,
        "ResultLocationFolder": given.folder,
        "AssessmentRunName": wanted,
    }
    try:
        answer = yield "start_replication_task_assessment_run", arguments
    except Exception as error:
        # A call whose answer was lost may have started it.
        if not asking.code(error).startswith("ResourceAlreadyExists"):
            raise
        runs = [run for run in (yield from _runs(task_arn, name)) if run["AssessmentRunName"] == wanted]
        if not runs:  # the name belongs to another task
            raise
        return str(runs[-1]["ReplicationTaskAssessmentRunArn"])
    return str(answer["ReplicationTaskAssessmentRun"]["ReplicationTaskAssessmentRunArn"])


def judging(run_arn: str) -> Question[Assessed]:
    """How a run stands; ``open`` until it has ended. A run that AWS does not have is ``failed``."""
    chosen = [{"Name": "replication-task-assessment-run-arn", "Values": [run_arn]}]
    rows = yield from states.pages(
        "describe_replication_task_assessment_runs", "ReplicationTaskAssessmentRuns", Filters=chosen
    )
    run = next((row for row in rows if row.get("ReplicationTaskAssessmentRunArn") == run_arn), None)
    if run is None:
        return Assessed("missing", "failed", arn=run_arn, reason="AWS has no such assessment run")
    single = yield from states.pages(
        "describe_replication_task_individual_assessments", "ReplicationTaskIndividualAssessments", Filters=chosen
    )
    return judge(run, single)


def last(task_arn: str, name: str) -> Question[Assessed | None]:
    """The newest run of that name of the task; None when there was none."""
    runs = yield from _runs(task_arn, name)
    return (yield from judging(str(runs[-1]["ReplicationTaskAssessmentRunArn"]))) if runs else None


def judging_replication(config_arn: str) -> Question[tuple[Assessed, ...]]:
    """The runs of a serverless replication, which AWS starts with it; oldest first, none when it was started without."""
    chosen = [{"Name": "replication-config-arn", "Values": [config_arn]}]
    rows = yield from states.pages("describe_replications", "Replications", Filters=chosen)
    return of_replication(next((row for row in rows if row.get("ReplicationConfigArn") == config_arn), {}))


def judge(run: Mapping[str, Any], individual: Iterable[Mapping[str, Any]]) -> Assessed:
    """The verdict on a run and its individual assessments, as AWS answers them."""
    findings = tuple(
        sorted(
            (Finding(str(row.get("IndividualAssessmentName") or "?"), _word(row)) for row in individual),
            key=lambda finding: (finding.status in _HARMLESS, finding.name),
        )
    )
    status = _word(run)
    verdict, reason = _verdict_of_run(run), ""
    if verdict in ("passed", "warning"):
        verdict, reason = _weighed(verdict, findings)
    elif verdict == "failed":
        wrong = "; ".join(str(one) for one in findings if one.status not in _HARMLESS)
        reason = f"the run is {status or 'without a status'}" + (f" ({wrong})" if wrong else "")
    if verdict == "open":
        reason = f"the run is {status}"
    failure = str(run.get("LastFailureMessage") or "")
    return Assessed(
        status, verdict, findings, str(run.get("ReplicationTaskAssessmentRunArn") or ""),
        str(run.get("AssessmentRunName") or ""), f"{reason}: {failure}" if reason and failure else reason,
    )  # fmt: skip


def of_replication(row: Mapping[str, Any]) -> tuple[Assessed, ...]:
    """The runs of a row of DescribeReplications, oldest first. AWS gives counts there, and no individual assessment."""
    runs = sorted(
        row.get("PremigrationAssessmentStatuses") or (),
        key=lambda run: str(run.get("PremigrationAssessmentRunCreationDate") or ""),
    )
    return tuple(_serverless(run) for run in runs)


def _serverless(run: Mapping[str, Any]) -> Assessed:
    counts = run.get("ResultStatistic") or {}
    findings = tuple(
        Finding(f"{counts[word]} assessments", word.lower())
        for word in ("Failed", "Error", "Cancelled", "Warning", "Skipped", "Passed")
        if counts.get(word)
    )
    whole = {
        **run,
        "ReplicationTaskAssessmentRunArn": run.get("PremigrationAssessmentRunArn"),
        "AssessmentRunName": run.get("ResultLocationFolder"),
    }
    named = [{"IndividualAssessmentName": one.name, "Status": one.status} for one in findings]
    return judge(whole, named)


def _runs(task_arn: str, name: str) -> Question[list[dict[str, Any]]]:
    """Runs of the task with this name, or this name and a number, oldest first."""
    chosen = [{"Name": "replication-task-arn", "Values": [task_arn]}]
    rows = yield from states.pages(
        "describe_replication_task_assessment_runs", "ReplicationTaskAssessmentRuns", Filters=chosen
    )
    found = [row for row in rows if row.get("ReplicationTaskArn") == task_arn and _is_named(row, name)]
    return sorted(found, key=lambda row: str(row.get("ReplicationTaskAssessmentRunCreationDate") or ""))


def _is_named(row: Mapping[str, Any], name: str) -> bool:
    found = str(row.get("AssessmentRunName") or "")
    head, _, number = found.rpartition("-")
    return found == name or (head == name and number.isdigit())


def _word(row: Mapping[str, Any]) -> str:
    return " ".join(str(row.get("Status") or "").lower().split())


def _verdict_of_run(run: Mapping[str, Any]) -> Verdict:
    status = _word(run)
    return "open" if status in OPEN else ENDED.get(status, "failed")


def _weighed(verdict: Verdict, findings: tuple[Finding, ...]) -> tuple[Verdict, str]:
    """A verdict that AWS gives, held against what it says of the individual assessments."""
    if not findings:
        return "failed", "AWS knows no individual assessment of the run, so nothing was assessed"
    wrong = [str(one) for one in findings if one.status not in _HARMLESS and one.status != "warning"]
    if wrong:
        return "failed", "; ".join(wrong)
    warnings = [str(one) for one in findings if one.status == "warning"]
    if warnings:
        return "warning", "; ".join(warnings)
    if all(one.status == "skipped" for one in findings):
        return "warning", "every individual assessment was skipped"
    return verdict, "" if verdict == "passed" else "AWS warns without saying of what"
