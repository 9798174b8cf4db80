"""Assessment runs: one is started whatever happens to the call, and only a run that says passed in every part passes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from dbops.asking import ask_async
from dbops.dms import assessment
from dbops.dms.assessment import Assessed
from dbops.dms.spec import Assessment
from tests.dms.dms_kit import ROLE, TASK_ARN, NotFound, ask, validate

NAME = "shop-orders-first-start"
GIVEN = Assessment(bucket="shop-assessments", folder="dms", role_arn=ROLE)
RUNS, SINGLE = "describe_replication_task_assessment_runs", "describe_replication_task_individual_assessments"
START = "start_replication_task_assessment_run"


def run(
    status: str = "passed", *, name: str = NAME, number: int = 1, task: str = TASK_ARN, **more: Any
) -> dict[str, Any]:
    return {
        "ReplicationTaskAssessmentRunArn": f"arn:run-{number}", "ReplicationTaskArn": task, "Status": status,
        "AssessmentRunName": name, "ReplicationTaskAssessmentRunCreationDate": datetime(2026, 7, number, tzinfo=UTC), **more,
    }  # fmt: skip


def single(*statuses: str) -> list[dict[str, Any]]:
    return [{"IndividualAssessmentName": f"check-{n}", "Status": status} for n, status in enumerate(statuses, 1)]


class Taken(Exception):
    response = {"Error": {"Code": "ResourceAlreadyExistsFault", "Message": "that name is taken"}}  # noqa: RUF012


class Running(Exception):
    response = {"Error": {"Code": "InvalidResourceStateFault", "Message": "the task is running"}}  # noqa: RUF012


class Account:
    """A client whose runs have one row a page; `fails` is what a start answers, and `lost` a start whose answer gets lost."""

    def __init__(
        self, *runs: dict[str, Any], single: list[dict[str, Any]] | None = None, fails: Exception | None = None
    ) -> None:
        self.runs, self.single, self.fails, self.started = list(runs), single or [], fails, list[str]()
        self.lost = False

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> dict[str, Any]:
            validate(operation, arguments)
            if operation == START:
                return self.start(arguments)
            if operation == SINGLE:
                return {"ReplicationTaskIndividualAssessments": self.single}
            assert operation == RUNS
            if not self.runs:
                raise NotFound
            first = int(arguments.get("Marker", 0))
            more = {"Marker": str(first + 1)} if first + 1 < len(self.runs) else {}
            return {"ReplicationTaskAssessmentRuns": self.runs[first : first + 1], **more}

        return call

    def start(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.lost:
            self.runs.append(run("starting", name=arguments["AssessmentRunName"], number=9))
        if self.fails:
            raise self.fails
        self.started.append(arguments["AssessmentRunName"])
        made = run("starting", name=arguments["AssessmentRunName"], number=len(self.runs) + 1)
        self.runs.append(made)
        return {"ReplicationTaskAssessmentRun": made}


@pytest.mark.parametrize(
    ("status", "parts", "verdict", "reason"),
    [
        ("starting", [], "open", "the run is starting"),
        ("provisioning", [], "open", "the run is provisioning"),
        ("running", ["passed", "pending"], "open", "the run is running"),
        ("passed", ["passed", "passed"], "passed", ""),
        ("passed", ["passed", "skipped"], "passed", ""),
        ("Passed", ["passed"], "passed", ""),
        ("warning", ["passed", "warning"], "warning", "check-2: warning"),
        ("warning", ["skipped", "skipped"], "warning", "every individual assessment was skipped"),
        ("passed", ["skipped"], "warning", "every individual assessment was skipped"),
        ("warning", ["passed"], "warning", "AWS warns without saying of what"),
        ("passed", ["passed", "warning"], "warning", "check-2: warning"),
        ("passed", ["passed", "failed"], "failed", "check-2: failed"),
        ("warning", ["error", "warning"], "failed", "check-1: error"),
        ("passed", ["cancelled"], "failed", "check-1: cancelled"),
        ("passed", ["pending"], "failed", "check-1: pending"),
        ("passed", ["splendid"], "failed", "check-1: splendid"),
        ("passed", [], "failed", "nothing was assessed"),
        ("failed", ["passed", "failed"], "failed", "the run is failed"),
        ("error-provisioning", [], "failed", "the run is error-provisioning"),
        ("error-executing", ["error"], "failed", "the run is error-executing"),
        ("cancelling", ["passed"], "failed", "the run is cancelling"),
        ("deleting", ["passed"], "failed", "the run is deleting"),
        ("invalid state", ["passed"], "failed", "the run is invalid state"),
        ("excellent", ["passed"], "failed", "the run is excellent"),
        ("", ["passed"], "failed", "the run is without a status"),
    ],
)
def test_every_status_is_judged(status: str, parts: list[str], verdict: str, reason: str) -> None:
    found = ask(Account(run(status), single=single(*parts)), assessment.judging("arn:run-1"))
    assert (found.verdict, found.arn, found.name) == (verdict, "arn:run-1", NAME)
    assert reason in found.reason
    assert bool(found.reason) == (verdict != "passed")
    assert {str(one) for one in found.findings} == {f"check-{n}: {word}" for n, word in enumerate(parts, 1)}


def test_what_a_person_has_to_read_comes_first_and_the_failure_is_told() -> None:
    account = Account(run("failed", LastFailureMessage="no S3"), single=single("passed", "warning", "failed"))
    found = ask(account, assessment.judging("arn:run-1"))
    assert found.reason == "the run is failed (check-2: warning; check-3: failed): no S3"
    assert [str(one) for one in found.findings] == ["check-2: warning", "check-3: failed", "check-1: passed"]
    assert [one.name for one in found.wrong] == ["check-2", "check-3"]


def test_a_run_that_is_gone_is_a_failure() -> None:
    for account in (Account(), Account(run(number=2))):
        found = ask(account, assessment.judging("arn:run-1"))
        assert (found.status, found.verdict) == ("missing", "failed")


def test_a_run_is_started_once() -> None:
    account = Account()
    first = ask(account, assessment.start(TASK_ARN, NAME, GIVEN))
    again = asyncio.run(ask_async(Awaited(account), assessment.start(TASK_ARN, NAME, GIVEN)))
    assert first == again == "arn:run-1"
    assert account.started == [NAME]


class Awaited:
    """The same client as aiobotocore gives it."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, operation: str) -> Any:
        async def call(**arguments: Any) -> Any:
            return getattr(self.client, operation)(**arguments)

        return call


def test_a_run_of_the_name_is_adopted_on_whatever_page_it_is_and_whatever_its_end() -> None:
    others = [run(number=1, name="by hand"), run(number=2, task="arn:other"), run(number=3, name=f"{NAME}-x")]
    account = Account(*others, run("failed", number=4))
    assert ask(account, assessment.start(TASK_ARN, NAME, GIVEN)) == "arn:run-4"
    assert account.started == []


def test_only_a_run_that_failed_is_repeated_and_under_another_name() -> None:
    account = Account(run("failed"))
    assert ask(account, assessment.start(TASK_ARN, NAME, GIVEN, again=True)) == "arn:run-2"
    assert ask(account, assessment.start(TASK_ARN, NAME, GIVEN, again=True)) == "arn:run-2"  # it is open
    account.runs[-1]["Status"] = "error-executing"
    assert ask(account, assessment.start(TASK_ARN, NAME, GIVEN, again=True)) == "arn:run-3"
    account.runs[-1]["Status"] = "warning"
    assert ask(account, assessment.start(TASK_ARN, NAME, GIVEN, again=True)) == "arn:run-3"
    assert account.started == [f"{NAME}-2", f"{NAME}-3"]


def test_a_start_whose_answer_was_lost_is_found_again() -> None:
    account = Account(fails=Taken())
    account.lost = True
    assert ask(account, assessment.start(TASK_ARN, NAME, GIVEN)) == "arn:run-9"


def test_a_name_that_another_task_holds_and_any_other_refusal_are_raised() -> None:
    with pytest.raises(Taken):
        ask(Account(fails=Taken()), assessment.start(TASK_ARN, NAME, GIVEN))
    with pytest.raises(Running):
        ask(Account(fails=Running()), assessment.start(TASK_ARN, NAME, GIVEN))


def test_the_last_run_is_judged() -> None:
    account = Account(run("failed"), run("passed", name=f"{NAME}-2", number=2), single=single("passed"))
    found = ask(account, assessment.last(TASK_ARN, NAME))
    assert (found.name, found.verdict) == (f"{NAME}-2", "passed")
    assert ask(Account(), assessment.last(TASK_ARN, NAME)) is None


CONFIG = "arn:aws:dms:eu-central-1:123456789012:replication-config:SHOP"


def serverless(status: str, counts: dict[str, int] | None, day: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "PremigrationAssessmentRunArn": f"arn:run-{day}", "Status": status, "ResultStatistic": counts,
        "PremigrationAssessmentRunCreationDate": datetime(2026, 7, day, tzinfo=UTC), **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "counts", "verdict"),
    [
        ("passed", {"Passed": 9}, "passed"),
        ("passed", {"Passed": 9, "Skipped": 1}, "passed"),
        ("passed", {"Passed": 9, "Failed": 1}, "failed"),
        ("passed", {"Passed": 9, "Error": 1}, "failed"),
        ("warning", {"Passed": 9, "Warning": 2}, "warning"),
        ("warning", {"Skipped": 9}, "warning"),
        ("passed", {}, "failed"),
        ("passed", None, "failed"),
        ("running", {}, "open"),
        ("error-provisioning", {}, "failed"),
        ("who knows", {"Passed": 9}, "failed"),
    ],
)
def test_runs_of_a_serverless_replication(status: str, counts: dict[str, int] | None, verdict: str) -> None:
    (found,) = assessment.of_replication({"PremigrationAssessmentStatuses": [serverless(status, counts)]})
    assert (found.verdict, found.arn) == (verdict, "arn:run-1")


def test_a_serverless_replication_is_asked_for_its_runs_oldest_first() -> None:
    rows = [
        {"ReplicationConfigArn": "arn:other", "PremigrationAssessmentStatuses": [serverless("failed", {})]},
        {
            "ReplicationConfigArn": CONFIG,
            "PremigrationAssessmentStatuses": [serverless("passed", {"Passed": 1}, 5), serverless("failed", {}, 4)],
        },
    ]

    class Client:
        def describe_replications(self, **arguments: Any) -> dict[str, Any]:
            validate("describe_replications", arguments)
            return {"Replications": rows}

    found: tuple[Assessed, ...] = ask(Client(), assessment.judging_replication(CONFIG))
    assert [one.verdict for one in found] == ["failed", "passed"]
    assert [str(one) for one in found[1].findings] == ["1 assessments: passed"]
    assert assessment.of_replication({}) == ()
