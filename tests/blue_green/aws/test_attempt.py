"""A switchover is called at most once: crash before, during and after the call, lost and refused answers, and what a look makes of them."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from rds_fake import (
    BGD,
    CLUSTER,
    DONE,
    FAILED,
    OPEN,
    READER,
    RUNNING,
    T0,
    WRITER,
    AsyncRds,
    FakeRds,
    Kept,
    Killed,
    canceled,
    cluster,
    deployment,
    event,
    fault,
    lost,
    seconds,
    throttled,
)

from dbops import asking
from dbops.blue_green import attempt
from dbops.blue_green.attempt import AttemptError
from dbops.blue_green.switchover import Memory

CALL = "switchover_blue_green_deployment"


def begin(rds: FakeRds, keeper: Kept, timeout_s: int = 60, at: datetime = T0) -> Memory:
    return attempt.begin(rds, keeper, BGD, timeout_s, 30, at)


def follow(rds: FakeRds, keeper: Kept, looks: int = 200, start: float = 1) -> Memory:
    clock = seconds(start)
    for _ in range(looks):
        memory = attempt.look(rds, keeper, BGD, next(clock))
        if memory.is_over:
            break
    return memory


def test_the_members_are_noted_before_the_call_and_the_call_is_made_once() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script(CALL, lambda **_: noted.append(keeper.load()) or {})  # type: ignore[func-returns-value]
    noted: list[Any] = []
    begin(rds, keeper)
    assert noted[0]["called"] == "noted"
    assert noted[0]["memory"]["expected"] == [CLUSTER, WRITER]
    assert rds.arguments(CALL) == {"BlueGreenDeploymentIdentifier": BGD, "SwitchoverTimeout": 60}
    assert begin(rds, keeper) == begin(rds, keeper, at=T0 + timedelta(hours=1))
    assert rds.count(CALL) == 1
    kept = keeper.load()
    assert kept is not None
    assert (kept["called"], kept["request_id"][:2]) == ("accepted", "r-")
    assert json.loads(json.dumps(kept)) == kept


def test_a_member_without_a_row_is_expected_all_the_same() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script("describe_db_clusters", {"DBClusters": [cluster(members=(WRITER, READER))]})
    assert begin(rds, keeper).expected == (CLUSTER, WRITER, READER)
    rds.deployments(deployment(DONE, renamed=True))  # READER never gets a row
    memory = follow(rds, keeper)
    assert memory.outcome == "STUCK"
    assert "shop-2 is missing" in memory.reason


@pytest.mark.parametrize("details", [None, []])
def test_switchover_details_may_be_absent(details: Any) -> None:
    rds, keeper = FakeRds().deployments(deployment(SwitchoverDetails=details)), Kept()
    assert begin(rds, keeper).expected == (CLUSTER, WRITER)


def test_an_instance_has_no_cluster_to_ask() -> None:
    rds, keeper = FakeRds().deployments(deployment(Source=WRITER, members={WRITER: OPEN})), Kept()
    assert begin(rds, keeper).expected == (WRITER,)
    assert rds.count("describe_db_clusters") == 0


def test_completed_under_the_names_of_the_old_side() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    rds.deployments(deployment(RUNNING), deployment(DONE, renamed=True))
    memory = follow(rds, keeper)
    assert (memory.outcome, dict(memory.members)) == ("COMPLETED", {CLUSTER: DONE, WRITER: DONE})


@pytest.mark.parametrize("status", [FAILED, OPEN, RUNNING])
def test_a_member_that_was_not_switched_keeps_its_name_and_is_not_covered_by_another(status: str) -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    failed = deployment(DONE)
    failed["SwitchoverDetails"] = [
        {"SourceMember": f"{CLUSTER}-old1", "TargetMember": CLUSTER, "Status": DONE},
        {"SourceMember": WRITER, "TargetMember": f"{WRITER}-green-abc123", "Status": status},
        {"SourceMember": f"{WRITER}-old1", "TargetMember": "another", "Status": DONE},
    ]
    memory = follow(rds.deployments(failed), keeper)
    assert memory.outcome == "STUCK"
    assert dict(memory.members)[WRITER] == status


def test_crash_after_the_note_and_before_the_call_is_observed_not_repeated() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept(dies_at=1)
    with pytest.raises(Killed):
        begin(rds, keeper)
    assert rds.count(CALL) == 0
    assert begin(rds, keeper).outcome == "WAITING"
    memory = follow(rds, keeper)
    assert rds.count(CALL) == 0
    assert memory.outcome == "STUCK"
    assert "whether the call reached AWS is unknown (the process ended before AWS answered)" in memory.reason


def test_crash_during_the_call_is_observed_to_its_end() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script(CALL, Killed())
    with pytest.raises(Killed):
        begin(rds, keeper)
    rds.deployments(deployment(RUNNING), deployment(DONE, renamed=True))
    begin(rds, keeper)
    assert follow(rds, keeper).outcome == "COMPLETED"
    assert rds.count(CALL) == 1


def test_crash_after_the_call_and_before_it_is_kept() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept(dies_at=2)
    with pytest.raises(Killed):
        begin(rds, keeper)
    rds.deployments(deployment(RUNNING), deployment(OPEN))
    rds.events = [canceled(40)]
    begin(rds, keeper)
    memory = follow(rds, keeper, start=41)
    assert (memory.outcome, rds.count(CALL)) == ("ROLLED_BACK", 1)
    assert "replica lag" in memory.reason


@pytest.mark.parametrize(
    "error",
    [
        lost(),
        fault("InternalFailure", 500),
        fault("InvalidBlueGreenDeploymentStateFault", retries=1),
        throttled(retries=4),
    ],
    ids=["timeout", "500", "refused after a repetition", "throttled after a repetition"],
)
def test_an_answer_that_leaves_it_open_is_observed_and_never_repeated(error: Exception) -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script(CALL, error)
    assert begin(rds, keeper).outcome == "WAITING"
    rds.deployments(deployment(RUNNING), deployment(DONE, renamed=True))
    begin(rds, keeper)
    assert follow(rds, keeper).outcome == "COMPLETED"
    assert rds.count(CALL) == 1


@pytest.mark.parametrize(
    "error", [throttled(), fault("InvalidBlueGreenDeploymentStateFault"), fault("AccessDenied", 403)], ids=str
)
def test_a_refusal_is_told_and_the_next_begin_may_call(error: Exception) -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script(CALL, error, {})
    with pytest.raises(AttemptError, match="AWS did not begin the switchover"):
        begin(rds, keeper)
    with pytest.raises(AttemptError, match="was refused"):
        attempt.look(rds, keeper, BGD, T0)
    later = T0 + timedelta(minutes=9)
    assert begin(rds, keeper, at=later).deadline == later + timedelta(seconds=90)
    assert rds.count(CALL) == 2


def test_a_mistake_of_ours_is_no_answer_of_aws() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script(CALL, TypeError("unexpected keyword"))
    with pytest.raises(TypeError):
        begin(rds, keeper)
    assert begin(rds, keeper).outcome == "WAITING"
    assert rds.count(CALL) == 1
    rds.deployments(TypeError("bug"))
    with pytest.raises(TypeError):
        attempt.look(rds, keeper, BGD, T0)


@pytest.mark.parametrize("status", ["PROVISIONING", "INVALID_CONFIGURATION", "DELETING", ""])
def test_a_deployment_that_is_not_ready_is_not_switched(status: str) -> None:
    rds, keeper = FakeRds().deployments(deployment(status, StatusDetails="why")), Kept()
    with pytest.raises(AttemptError, match=r"\(why\), so it was not switched over"):
        begin(rds, keeper)
    assert (rds.count(CALL), keeper.saves) == (0, 0)


@pytest.mark.parametrize("answer", [None, fault("BlueGreenDeploymentNotFoundFault", 404)], ids=["empty", "fault"])
def test_a_missing_deployment_is_not_switched(answer: Any) -> None:
    rds, keeper = FakeRds().deployments(answer), Kept()
    with pytest.raises(AttemptError, match="knows no such"):
        begin(rds, keeper)


@pytest.mark.parametrize("operation", ["describe_blue_green_deployments", "describe_db_clusters", "describe_events"])
def test_nothing_is_called_while_something_about_it_is_unknown(operation: str) -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.script(operation, throttled())
    with pytest.raises(Exception, match="Rate exceeded"):
        begin(rds, keeper)
    assert (rds.count(CALL), keeper.saves) == (0, 0)


@pytest.mark.parametrize("status", [RUNNING, DONE])
def test_a_switchover_of_somebody_else_is_followed_not_called(status: str) -> None:
    rds, keeper = FakeRds().deployments(deployment(status, renamed=status == DONE)), Kept()
    if status == DONE:
        rds.script("describe_db_clusters", {"DBClusters": [cluster(f"{CLUSTER}-old1", members=(f"{WRITER}-old1",))]})
    begin(rds, keeper)
    kept = attempt.recall(keeper, BGD)
    assert kept is not None
    assert (kept.called, rds.count(CALL)) == ("found", 0)
    rds.deployments(deployment(DONE, renamed=True))
    assert follow(rds, keeper).outcome == "COMPLETED"


def test_each_attempt_needs_its_own_keeper() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    with pytest.raises(AttemptError, match="timeout_s=180"):
        begin(rds, keeper, timeout_s=180)
    with pytest.raises(AttemptError, match="holds an attempt of"):
        attempt.begin(rds, keeper, "bgd-other", 60, 30, T0)
    with pytest.raises(AttemptError, match="no switchover"):
        attempt.look(rds, Kept(), BGD, T0)
    with pytest.raises(ValueError, match="30 to 3600"):
        attempt.begin(rds, Kept(), BGD, 29, 30, T0)
    assert rds.count(CALL) == 1


def test_a_failure_of_the_attempt_before_is_not_taken_for_this_one() -> None:
    rds, keeper = FakeRds().deployments(deployment(FAILED)), Kept()
    begin(rds, keeper)
    rds.deployments(*[deployment(FAILED)] * 5, deployment(RUNNING), deployment(DONE, renamed=True))
    assert follow(rds, keeper).outcome == "COMPLETED"


def test_a_failure_after_a_failure_is_told_once_it_was_seen_running() -> None:
    rds, keeper = FakeRds().deployments(deployment(FAILED)), Kept()
    begin(rds, keeper)
    rds.deployments(*[deployment(FAILED)] * 5, deployment(RUNNING), deployment(FAILED))
    assert follow(rds, keeper).outcome == "ROLLED_BACK"


def test_events_of_the_attempt_before_count_for_nothing_even_within_the_same_second() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.date = format_datetime(T0, usegmt=True)
    rds.events = [canceled(0.4)]
    begin(rds, keeper, at=T0 + timedelta(seconds=0.6))
    assert follow(rds, keeper, looks=60).outcome == "WAITING"


@pytest.mark.parametrize("skew_s", [-600, 600])
def test_events_are_told_apart_by_the_clock_of_aws(skew_s: int) -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    rds.date = format_datetime(T0, usegmt=True)
    rds.events = [canceled(-300, "the attempt before"), canceled(5, "a long transaction")]
    ours = T0 + timedelta(seconds=skew_s)
    rds.script("describe_events", {"Events": rds.events[:1]}, rds._events)
    begin(rds, keeper, at=ours)
    memory = follow(rds, keeper, looks=3, start=skew_s + 6)
    assert memory.outcome == "ROLLED_BACK"
    assert "a long transaction" in memory.reason
    assert memory.deadline == ours + timedelta(seconds=90)


def test_events_of_others_and_later_pages() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    rds.page = 2
    other = "Switchover from DB cluster other to other-green was canceled due to lag"
    rds.events = [event(2, other, "db-cluster", "other")] * 5
    rds.events.append(event(3, "Backing up DB cluster", "db-cluster-snapshot", "shop"))
    assert follow(rds, keeper, looks=10, start=4).outcome == "WAITING"
    mine = "Switchover from DB cluster shop to shop-green-abc123 was canceled due to lag"
    rds.events.append(event(3, mine, "db-cluster", "shop"))
    memory = follow(rds, keeper, start=14)
    assert memory.outcome == "ROLLED_BACK"
    assert memory.reason.endswith(mine)


def test_without_its_events_a_roll_back_is_still_told() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    rds.deployments(deployment(RUNNING), deployment(OPEN))
    rds.script("describe_events", throttled())
    memory = follow(rds, keeper)
    assert (memory.outcome, memory.events) == ("ROLLED_BACK", ())


def test_throttled_answers_prove_nothing() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    rds.deployments(throttled())
    memory = follow(rds, keeper)
    assert memory.outcome == "STUCK"
    assert "Throttling: Rate exceeded" in memory.reason


def test_a_deployment_that_vanishes_is_stuck() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    rds.deployments(fault("BlueGreenDeploymentNotFoundFault", 404))
    assert follow(rds, keeper).outcome == "STUCK"


def test_an_outcome_is_not_asked_about_again() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    follow(rds.deployments(deployment(DONE, renamed=True)), keeper)
    calls = len(rds.calls)
    rds.deployments(deployment(FAILED))
    assert attempt.look(rds, keeper, BGD, T0).outcome == "COMPLETED"
    assert len(rds.calls) == calls


def test_a_naive_time_is_utc() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    assert begin(rds, keeper, at=T0.replace(tzinfo=None)).called_at == T0
    assert attempt.look(rds, keeper, BGD, T0.replace(tzinfo=None)).outcome == "WAITING"


def test_the_same_question_through_an_async_client() -> None:
    rds, keeper = FakeRds().deployments(deployment()), Kept()
    begin(rds, keeper)
    rds.deployments(deployment(RUNNING), throttled(), deployment(DONE, renamed=True))
    rds.events = [event(2, "Switchover started on blue/green deployment")] * 3
    rds.page = 2
    now = attempt.require(keeper, BGD)
    clock = seconds(3)
    for _ in range(5):
        now = asyncio.run(asking.ask_async(AsyncRds(rds), attempt.looking(now, next(clock))))
    assert now.memory.outcome == "COMPLETED"


def test_an_attempt_survives_its_serialisation() -> None:
    rds, keeper = FakeRds().deployments(deployment(FAILED)), Kept()
    begin(rds, keeper)
    kept = attempt.require(keeper, BGD)
    assert attempt.load(json.loads(json.dumps(attempt.dump(kept)))) == kept
    assert kept.failed_before


ANSWERS = st.sampled_from([
    {}, lost(), fault("InternalFailure", 500), throttled(), throttled(retries=2), Killed(),
    fault("InvalidBlueGreenDeploymentStateFault"), fault("InvalidBlueGreenDeploymentStateFault", retries=1),
])  # fmt: skip
HEADS = st.sampled_from([
    deployment(), deployment(RUNNING), deployment(FAILED), deployment(DONE, renamed=True), deployment("PROVISIONING"),
    deployment(DONE, {CLUSTER: DONE, WRITER: FAILED}), throttled(), lost(), None,
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ANSWERS, min_size=1, max_size=6), st.lists(HEADS, min_size=1, max_size=30), st.integers(0, 9), st.data()
)
def test_whatever_dies_it_is_called_again_only_when_aws_said_that_it_did_nothing(
    answers: list[Any], heads: list[Any], dies_at: int, data: st.DataObject
) -> None:
    rds, keeper, clock = FakeRds().deployments(*heads).script(CALL, *answers), Kept(dies_at), seconds(0, 4)
    open_calls = 0
    for _ in range(40):
        before = rds.count(CALL)
        try:
            if keeper.document is None or data.draw(st.booleans()):
                begin(rds, keeper, at=next(clock))
            else:
                attempt.look(rds, keeper, BGD, next(clock))
        except (Killed, AttemptError, ClientError, ReadTimeoutError):
            pass
        if rds.count(CALL) > before:
            assert open_calls == 0
            assert rds.count(CALL) == before + 1
            kept = keeper.load()
            open_calls += kept is None or kept["called"] != "refused"
    kept = attempt.recall(keeper, BGD)
    if kept is not None and kept.memory.outcome == "COMPLETED":
        assert {status for _, status in kept.memory.members} == {DONE}


def test_a_page_of_html_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asking.text(fault("500", 500, "<html>\n  <b>no</b>\n" + "x" * 5000))
    assert told.startswith("500: <html> <b>no</b> x")
    assert len(told) < 600


@pytest.mark.parametrize(
    ("error", "failure", "missing"),
    [
        (fault("DBInstanceNotFound", 404), True, True),
        (fault("DBClusterNotFoundFault", 404), True, True),
        (fault("ResourceNotFoundException", 400), True, True),
        (AirflowNotFoundException("connection"), False, False),
        (throttled(), True, False),
        (lost(), True, False),
        (ConnectionResetError(), True, False),
        (TimeoutError(), True, False),
        (KeyError("x"), False, False),
        (AssertionError(), False, False),
    ],
)
def test_errors_of_calls_and_errors_of_ours(error: Exception, failure: bool, missing: bool) -> None:
    assert (asking.is_failure(error), asking.is_missing(error)) == (failure, missing)
