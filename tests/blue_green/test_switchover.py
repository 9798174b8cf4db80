"""The judge of a switchover: each way it can end, and that no sequence of answers makes it claim a success that was not seen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.blue_green import switchover
from dbops.blue_green.switchover import Event, Memory, Observation

T0 = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
CLUSTER, WRITER = (
    "arn:aws:rds:eu-central-1:123456789012:cluster:shop",
    "arn:aws:rds:eu-central-1:123456789012:db:shop-1",
)
BOTH = (CLUSTER, WRITER)
OPEN, RUNNING, DONE, FAILED = "AVAILABLE", "SWITCHOVER_IN_PROGRESS", "SWITCHOVER_COMPLETED", "SWITCHOVER_FAILED"


def begun(**more: Any) -> Memory:
    return switchover.begin(T0, 60, 30, BOTH, **more)


def seen(second: float, status: str | None, *members: str, events: tuple[Event, ...] = ()) -> Observation:
    return Observation(
        T0 + timedelta(seconds=second), status, members=tuple(zip(BOTH, members, strict=False)), events=events
    )


def follow(*observations: Observation, memory: Memory | None = None) -> Memory:
    memory = memory or begun()
    for observation in observations:
        memory = switchover.advance(switchover.load(json.loads(json.dumps(switchover.dump(memory)))), observation)
    return memory


def event(second: float, event_id: str, message: str = "lag was too high") -> Event:
    return Event(event_id, message, T0 + timedelta(seconds=second))


def test_completed_needs_every_member_several_times() -> None:
    steps = [seen(1, OPEN), seen(2, RUNNING), seen(3, DONE, DONE, DONE), seen(4, DONE, DONE, DONE)]
    assert follow(*steps).outcome == "WAITING"
    assert follow(*steps, seen(5, DONE, DONE, DONE)).outcome == "COMPLETED"


@pytest.mark.parametrize("members", [(), (DONE,), (DONE, RUNNING), (DONE, ""), (DONE, "NEW_WORD")])
def test_a_member_that_is_missing_or_unknown_is_no_success(members: tuple[str, ...]) -> None:
    memory = follow(*(seen(s, DONE, *members) for s in range(1, 95)))
    assert memory.outcome == "STUCK"
    assert "not certain" in memory.reason


@pytest.mark.parametrize("bad", [FAILED, "MISSING_TARGET", "MISSING_SOURCE"])
def test_a_failed_member_of_a_completed_deployment_is_stuck(bad: str) -> None:
    memory = follow(*(seen(s, DONE, DONE, bad) for s in range(3)))
    assert (memory.outcome, bad in memory.reason, WRITER in memory.reason) == ("STUCK", True, True)


@pytest.mark.parametrize("back", [OPEN, FAILED])
def test_in_progress_and_then_back_is_rolled_back(back: str) -> None:
    memory = follow(seen(1, RUNNING), *(seen(s, back) for s in (62, 63, 64)))
    assert memory.outcome == "ROLLED_BACK"
    assert "no event says why" in memory.reason


def test_the_event_gives_the_reason_even_when_progress_was_never_seen() -> None:
    canceled = event(5, "RDS-EVENT-0261")
    memory = follow(*(seen(s, OPEN, events=(canceled,)) for s in (6, 7, 8)))
    assert (memory.outcome, memory.reason) == ("ROLLED_BACK", "RDS-EVENT-0261: lag was too high")


def test_an_event_of_an_earlier_attempt_counts_for_nothing() -> None:
    old = event(-5, "RDS-EVENT-0249")
    assert follow(*(seen(s, OPEN, events=(old,)) for s in range(80))).outcome == "WAITING"


def test_available_before_it_begins_and_an_old_answer_in_between_are_waited_out() -> None:
    memory = follow(
        seen(1, OPEN), seen(2, OPEN), seen(3, OPEN), seen(4, RUNNING), seen(5, OPEN), seen(6, RUNNING), seen(7, OPEN)
    )
    assert memory.outcome == "WAITING"
    assert follow(*(seen(s, DONE, DONE, DONE) for s in (8, 9, 10)), memory=memory).outcome == "COMPLETED"


def test_available_until_the_deadline_without_an_event_is_stuck_not_rolled_back() -> None:
    memory = follow(*(seen(s, OPEN) for s in range(0, 100, 5)))
    assert memory.outcome == "STUCK"
    assert "never seen in progress" in memory.reason


def test_a_switched_member_of_a_failed_deployment_is_stuck() -> None:
    assert follow(*(seen(s, FAILED, DONE, FAILED) for s in range(3))).outcome == "STUCK"


@pytest.mark.parametrize(("status", "event_id"), [(DONE, "RDS-EVENT-0249"), (OPEN, "RDS-EVENT-0248")])
def test_status_and_event_that_contradict_each_other_are_stuck_at_the_deadline(status: str, event_id: str) -> None:
    contradiction = (event(1, event_id),)
    memory = follow(
        seen(1, RUNNING),
        *(
            seen(s, status, DONE, DONE, events=contradiction)
            if status == DONE
            else seen(s, status, events=contradiction)
            for s in range(2, 100)
        ),
    )
    assert memory.outcome == "STUCK"


@pytest.mark.parametrize("status", ["NOT_FOUND", "INVALID_CONFIGURATION", "DELETING"])
def test_a_deployment_that_cannot_be_switched_is_stuck(status: str) -> None:
    assert follow(*(seen(s, status) for s in range(3))).outcome == "STUCK"


def test_failed_calls_neither_confirm_nor_reset_and_end_as_stuck() -> None:
    throttled = Observation(T0 + timedelta(seconds=4), None, error="Throttling: Rate exceeded")
    memory = follow(seen(2, DONE, DONE, DONE), seen(3, DONE, DONE, DONE), throttled)
    assert memory.outcome == "WAITING"
    assert follow(seen(5, DONE, DONE, DONE), memory=memory).outcome == "COMPLETED"
    late = Observation(T0 + timedelta(seconds=95), None, error="Throttling: Rate exceeded")
    assert "Rate exceeded" in follow(seen(1, RUNNING), late).reason


def test_boto3_answers_are_taken() -> None:
    answer = {
        "BlueGreenDeployments": [
            {
                "Status": RUNNING,
                "SwitchoverDetails": [{"SourceMember": CLUSTER, "TargetMember": "t", "Status": RUNNING}],
            }
        ]
    }
    message = "Switchover from DB cluster shop to shop-green was canceled due to: replica lag"
    taken = switchover.observe(answer, [{"Message": message, "Date": T0, "EventCategories": ["failure"]}], T0)
    assert (taken.status, taken.members) == (RUNNING, ((CLUSTER, RUNNING),))
    assert taken.events[0].event_id in switchover.CANCELED_EVENTS
    assert (
        switchover.observe({"BlueGreenDeployments": [{"Status": OPEN, "SwitchoverDetails": None}]}, [], T0).members
        == ()
    )
    assert switchover.observe({"BlueGreenDeployments": []}, [], T0).status == "NOT_FOUND"
    assert switchover.observe(None, [], T0, error="x").error == "x"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((T0, 29, 30, BOTH), "30 to 3600"),
        ((T0, 3601, 30, BOTH), "30 to 3600"),
        ((T0, 60, 30, ()), "expected is empty"),
        ((T0.replace(tzinfo=None), 60, 30, BOTH), "time zone"),
        ((T0, 60, -1, BOTH), "grace_s"),
    ],
)
def test_a_switchover_that_could_not_be_judged_is_refused(arguments: tuple[Any, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        switchover.begin(*arguments)


WORDS = st.sampled_from(
    [OPEN, RUNNING, DONE, FAILED, "INVALID_CONFIGURATION", "DELETING", "PROVISIONING", "NOT_FOUND", "", "NEW_WORD"]
)
IDS = sorted(switchover.CANCELED_EVENTS | switchover.COMPLETED_EVENTS | {"RDS-EVENT-0247"})
EVENTS = st.lists(st.builds(event, st.integers(-50, 90), st.sampled_from(IDS)), max_size=2)


@st.composite
def histories(draw: st.DrawFn) -> list[Observation]:
    second, found = 0, []
    for _ in range(draw(st.integers(0, 40))):
        second += draw(st.integers(0, 10))
        members = draw(st.lists(WORDS, max_size=2))
        status = draw(st.none() | WORDS | st.sampled_from([DONE, OPEN]))
        if draw(st.booleans()):
            members = [status or ""] * 2
        found.append(seen(second, status, *members, events=tuple(draw(EVENTS)) if draw(st.integers(0, 3)) == 0 else ()))
    return found


@settings(max_examples=600, deadline=None)
@given(histories(), st.integers(1, 4))
def test_whatever_aws_says(history: list[Observation], confirmations: int) -> None:
    memory, answered = begun(confirmations=confirmations), []
    for observation in history:
        after = switchover.advance(memory, observation)
        if memory.is_over:
            assert after == memory  # an outcome never changes
            continue
        memory = after
        answered += [observation] if observation.status is not None else []
        last = answered[-confirmations:]
        fresh = {e.event_id for e in memory.events}
        if memory.outcome == "COMPLETED":
            assert len(last) == confirmations
            assert all(o.status == DONE and dict(o.members) == dict.fromkeys(BOTH, DONE) for o in last)
            assert not fresh & switchover.CANCELED_EVENTS
        if memory.outcome == "ROLLED_BACK":
            assert len(last) == confirmations
            assert all(o.status in (OPEN, FAILED) and DONE not in dict(o.members).values() for o in last)
            assert fresh & switchover.CANCELED_EVENTS or memory.in_progress or FAILED in {o.status for o in last}
        if memory.is_over:
            assert memory.reason
        assert memory.is_over or observation.at < memory.deadline  # never waits beyond its deadline
        assert all(e.at >= T0 for e in memory.events)


@settings(deadline=None)
@given(histories())
def test_a_memory_survives_its_serialisation(history: list[Observation]) -> None:
    memory = begun()
    for observation in history:
        memory = switchover.advance(memory, observation)
        assert switchover.load(json.loads(json.dumps(switchover.dump(memory)))) == memory
