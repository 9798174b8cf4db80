"""Attempts of the ladder with a made-up journal: called once, timed by the clock of their own end, examined as often as one likes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dbops.blue_green import acknowledged, attempt, attempts, checks, companion, recording, switchover
from dbops.blue_green import blue as blue_side
from dbops.blue_green.steps import StepError
from dbops.blue_green.switchover import Event, Outcome
from tests.blue_green.steps_kit import BEGAN, NAME, Kit, recorded, side
from tests.blue_green.steps_kit import attempts as probed

CALLED = BEGAN + timedelta(seconds=60)
DATA = {"t": ["1", "2"]}


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Blue and green stand, probes write every 100 ms for ten minutes, and blue is as it was."""
    made = Kit(tmp_path)
    made.standing()
    made.put("replication", {"data": DATA, "findings": []})
    made.put("compare", {"findings": []})
    lanes = {"blue_write": probed(600), "blue_read": probed(600), "green_read": probed(600)}
    monkeypatch.setattr(recording, "read", lambda _: recorded(lanes))
    monkeypatch.setattr(attempts, "data_of", lambda _: DATA)
    monkeypatch.setattr(checks, "is_writable", lambda *_: True)
    monkeypatch.setattr(acknowledged, "check", lambda *_: acknowledged.AcknowledgedCheck(9, (), (), 0, 9, 9))
    monkeypatch.setattr(blue_side, "describe", lambda *_: {})
    monkeypatch.setattr(blue_side, "to_side", lambda *_: side("blue"))
    return made


def note(
    kit: Kit,
    number: int,
    outcome: Outcome,
    after_s: float,
    *,
    called_at: datetime = CALLED,
    events: tuple[Event, ...] = (),
) -> None:
    """What is remembered of an attempt that was seen to be over so long after its call."""
    at = called_at.replace(tzinfo=UTC)
    memory = replace(switchover.begin(at, 60, 900, ["arn"]), outcome=outcome, reason="because", events=events)
    kit.clock.at = called_at + timedelta(seconds=after_s)
    kept = attempts.Kept(kit.journal, number, kit.clock())
    kept.save(attempt.dump(attempt.Attempt("bgd-1", 60, at, memory, "accepted")))
    kit.put(f"evidence_{number}", {"connections": 3})


def test_an_attempt_without_an_event_ends_when_it_was_seen_to_not_when_it_is_examined(kit: Kit) -> None:
    note(kit, 1, "COMPLETED", 20)
    kit.clock.at += timedelta(hours=2)  # the worker was killed, and the task cleared in the morning
    assert attempts.examine(kit.services, NAME, 1)["duration_s"] == pytest.approx(20)


def test_a_switchover_task_that_is_repeated_after_the_end_does_not_move_it(kit: Kit) -> None:
    note(kit, 1, "COMPLETED", 20)
    kit.clock.at += timedelta(hours=2)
    attempts.look(kit.services, NAME, 1)
    assert attempts.examine(kit.services, NAME, 1)["duration_s"] == pytest.approx(20)


def test_an_attempt_ends_with_the_event_that_says_so(kit: Kit) -> None:
    ended = Event("RDS-EVENT-0248", "Switchover completed", (CALLED + timedelta(seconds=12)).replace(tzinfo=UTC))
    note(kit, 1, "COMPLETED", 20, events=(ended,))
    assert attempts.examine(kit.services, NAME, 1)["duration_s"] == pytest.approx(12)


def test_an_earlier_attempt_that_is_examined_again_after_the_next_one_keeps_what_it_showed(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then blue's names lead to the new version, which says nothing of the roll-back before."""
    note(kit, 1, "ROLLED_BACK", 20)
    first = attempts.examine(kit.services, NAME, 1)
    assert (first["outcome"], first["findings"]) == ("ROLLED_BACK", [])
    note(kit, 2, "COMPLETED", 20, called_at=CALLED + timedelta(minutes=2))
    monkeypatch.setattr(blue_side, "to_side", lambda *_: side("green"))
    assert attempts.examine(kit.services, NAME, 1) == first
    assert attempts.examine(kit.services, NAME, 2)["outcome"] == "COMPLETED"


def test_a_blue_that_is_not_as_it_was_is_told(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    note(kit, 1, "ROLLED_BACK", 20)
    monkeypatch.setattr(blue_side, "to_side", lambda *_: side("green"))
    monkeypatch.setattr(checks, "is_writable", lambda *_: False)
    monkeypatch.setattr(acknowledged, "check", lambda *_: acknowledged.AcknowledgedCheck(9, (3,), (4,), 0, 9, 9))
    monkeypatch.setattr(attempts, "data_of", lambda _: {"t": ["1", "3"]})
    found = attempts.examine(kit.services, NAME, 1)["findings"]
    assert {each["weight"] for each in found} == {"blocker"}
    for words in (
        "names lead elsewhere",
        "not writable",
        "1 writes are lost, 1 doubled",
        "tables differ from before: t",
    ):
        assert any(words in each["text"] for each in found), words


def test_an_attempt_that_no_probe_saw_is_examined_all_the_same(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prober was killed before it; what AWS did is known nevertheless, and verify has to come."""
    monkeypatch.setattr(recording, "read", lambda _: recorded({"blue_write": probed(30), "blue_read": probed(30)}))
    note(kit, 1, "COMPLETED", 20)
    document = attempts.examine(kit.services, NAME, 1)
    assert (document["outcome"], document["phases"]) == ("COMPLETED", [])
    assert [f["weight"] for f in document["findings"]] == ["blocker"]
    assert "no probe" in document["findings"][0]["text"]


def test_the_gate_starts_probers_that_died_since(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them there is no heartbeat, so it would never open."""
    started = []
    monkeypatch.setattr(attempts.probes, "is_running", lambda path: "blue" in path.name)
    monkeypatch.setattr(attempts.probes, "start", lambda settings: started.append(settings.path.name))
    monkeypatch.setattr(attempts, "obstacles", lambda *_: [])
    assert attempts.gate(kit.services, NAME, 1)["passed"]
    assert started == [f"{NAME}-green.jsonl"]


def test_a_gate_that_does_not_open_names_who_stands_in_the_way(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts.probes, "is_running", lambda _: True)
    monkeypatch.setattr(attempts, "obstacles", lambda *_: ["transaction: connection 7 of root@app, 99 s"])
    with pytest.raises(StepError, match="connection 7 of root@app"):
        attempts.gate(kit.services, NAME, 1)
    assert kit.clock.at >= BEGAN + timedelta(minutes=15)


def test_a_gate_needs_its_samples_in_a_row_and_tells_what_it_waited_for(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[list[str]] = [
        ["lag by heartbeat: 9.0 s, limit 1 s"],
        [],
        [],
        ["lag by CloudWatch: unknown"],
        [],
        [],
        [],
    ]
    monkeypatch.setattr(attempts.probes, "is_running", lambda _: True)
    monkeypatch.setattr(attempts, "obstacles", lambda *_: answers.pop(0))
    document = attempts.gate(kit.services, NAME, 1)
    assert (answers, document["waited_for"]) == ([], ["lag by CloudWatch", "lag by heartbeat"])


def test_nothing_is_waited_for_once_aws_may_have_begun(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    note(kit, 1, "WAITING", 1)
    monkeypatch.setattr(attempts, "obstacles", lambda *_: pytest.fail("it is too late to wait"))
    assert attempts.gate(kit.services, NAME, 1) == {"passed": True}


@pytest.mark.parametrize(
    ("outcomes", "due"),
    [
        ([], True),
        (["ROLLED_BACK"], True),
        (["COMPLETED"], False),
        (["ROLLED_BACK", "COMPLETED"], False),
        (["ROLLED_BACK"] * 3, False),
    ],
)
def test_a_rung_is_due_while_the_ladder_has_one_and_none_succeeded(kit: Kit, outcomes: list[str], *, due: bool) -> None:
    for number, outcome in enumerate(outcomes, start=1):
        kit.put(f"attempt_{number}", {"outcome": outcome})
    assert attempts.is_due(kit.journal, len(outcomes) + 1) is due
    kit.put("breaking", {})
    assert not attempts.is_due(kit.journal, len(outcomes) + 1)


@pytest.mark.parametrize(("before", "said"), [(None, "left nothing"), ("STUCK", "is stuck")])
def test_no_rung_follows_one_that_is_stuck_or_unknown(kit: Kit, before: str | None, said: str) -> None:
    if before:
        kit.put("attempt_1", {"outcome": before, "reason": "x"})
    with pytest.raises(StepError, match=said):
        attempts.is_due(kit.journal, 2)


def verified(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, *, version: str = "8.0.39", old: str = "blue-old1", refuses: bool = True
) -> list[str]:
    """Green has taken over blue's name and address; what verify holds against it."""
    green = side("green")
    new = replace(green, identifier="blue", host=side("blue").host, engine_version="8.0.mysql_aurora.3.04.0")
    monkeypatch.setattr(blue_side, "to_side", lambda *_: new)
    monkeypatch.setattr(attempts.mysql, "scalar", lambda *_: version)
    monkeypatch.setattr(attempts, "_old_side", lambda *_: (replace(side("blue"), identifier=old), refuses))
    return [f["text"] for f in attempts.verify(kit.services, NAME)["findings"]]


def test_a_success_is_verified(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified(kit, monkeypatch) == []


@pytest.mark.parametrize("version", ["8.4.3", "5.7.44-log", "80.0.1"])
def test_another_version_behind_the_old_endpoint_is_told(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    assert verified(kit, monkeypatch, version=version) == [
        f"the old endpoint answers with version {version}, not {'.'.join(kit.spec.target.engine_version.split('.')[:2])}"
    ]


def test_an_old_side_that_takes_writes_or_has_kept_its_name_is_told(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified(kit, monkeypatch, refuses=False) == ["the old side blue-old1 accepts writes"]
    assert verified(kit, monkeypatch, old="blue-green-abcdef") == [
        "the old side is called blue-green-abcdef, not blue-oldN"
    ]


def test_lost_writes_and_none_at_all_are_told(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged, "check", lambda *_: acknowledged.AcknowledgedCheck(9, (3,), (), 0, 9, 9))
    assert verified(kit, monkeypatch) == ["1 acknowledged writes are lost, 0 are there more than once"]
    monkeypatch.setattr(acknowledged, "check", lambda *_: acknowledged.AcknowledgedCheck(0, (), (), 0, None, None))
    assert verified(kit, monkeypatch) == ["no write was acknowledged, so nothing is proven about lost writes"]


def test_tags_and_roles_that_did_not_come_along_are_told(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    callable_kit(kit, monkeypatch, Once(kit))
    before = {
        "TagList": [
            {"Key": "team", "Value": "shop"},
            {"Key": "cost", "Value": "7"},
            {"Key": "aws:stack", "Value": "x"},
        ],
        "AssociatedRoles": [{"RoleArn": "arn:aws:iam::1:role/load", "FeatureName": "s3Import"}],
    }
    monkeypatch.setattr(blue_side, "describe", lambda *_: before)
    attempts.call(kit.services, NAME, 1)
    assert verified(kit, monkeypatch) == []
    monkeypatch.setattr(blue_side, "describe", lambda *_: {"TagList": [{"Key": "team", "Value": "other"}]})
    assert verified(kit, monkeypatch) == [
        "tags of blue that the new production lacks: cost=7, team=shop",
        "IAM roles of blue that the new production lacks: arn:aws:iam::1:role/load s3Import",
    ]


class Once:
    """RDS whose switchover is counted; `then` happens after AWS has taken the call."""

    def __init__(self, kit: Kit, then: BaseException | None = None, status: str = "AVAILABLE") -> None:
        self.kit, self.then, self.status, self.called = kit, then, status, 0

    def describe_blue_green_deployments(self, **_: Any) -> dict[str, Any]:
        return {
            "BlueGreenDeployments": [{"Status": self.status, "Source": side("blue").arn, "Target": side("green").arn}]
        }

    def describe_db_clusters(self, **_: Any) -> dict[str, Any]:
        return {"DBClusters": [{"DBClusterMembers": [{"DBInstanceIdentifier": "blue-1"}]}]}

    def describe_events(self, **_: Any) -> dict[str, Any]:
        return {"Events": []}

    def switchover_blue_green_deployment(self, **arguments: Any) -> dict[str, Any]:
        self.called += 1
        assert arguments == {"BlueGreenDeploymentIdentifier": "bgd-1", "SwitchoverTimeout": 60}
        if self.then is not None:
            raise self.then
        return {}


def callable_kit(kit: Kit, monkeypatch: pytest.MonkeyPatch, once: Once) -> list[str]:
    """Rails, companions and SQL of the call say yes; what they were asked is listed."""
    asked: list[str] = []
    monkeypatch.setattr(attempts.rails, "require_ours", lambda *a, **_: asked.append(f"rails {a[1]}"))
    monkeypatch.setattr(attempts, "hold", lambda *_: asked.append("hold"))
    monkeypatch.setattr(attempts.holders, "evidence", lambda _: attempts.ladder.Evidence())
    monkeypatch.setattr(attempts.mysql, "scalar", lambda *_: 3)
    kit.services = replace(kit.services, once=once)
    return asked


def test_a_worker_that_is_killed_in_the_call_does_not_call_again(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Once(kit, SystemExit("kill -9"))
    asked = callable_kit(kit, monkeypatch, once)
    with pytest.raises(SystemExit):
        attempts.call(kit.services, NAME, 1)
    assert attempts.was_called(kit.journal, 1)
    assert attempts.call(kit.services, NAME, 1).outcome == "WAITING"
    assert once.called == 1
    assert asked == ["rails cluster", "rails deployment", "hold"], "what an attempt meets is set up once"


def test_a_worker_that_is_killed_before_the_call_calls_it_when_it_is_back(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Once(kit)
    asked = callable_kit(kit, monkeypatch, once)

    def killed(*_: Any) -> None:
        raise SystemExit("kill -9")

    monkeypatch.setattr(attempts, "hold", killed)
    with pytest.raises(SystemExit):
        attempts.call(kit.services, NAME, 1)
    assert (once.called, attempts.was_called(kit.journal, 1)) == (0, False)
    callable_kit(kit, monkeypatch, once)
    attempts.call(kit.services, NAME, 1)
    attempts.call(kit.services, NAME, 1)
    assert (once.called, asked.count("hold")) == (1, 0)


def test_what_the_rails_refuse_is_not_called(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Once(kit)
    callable_kit(kit, monkeypatch, once)

    def refused(*_: Any, **__: Any) -> None:
        raise attempts.rails.RailError("it is not of a rehearsal")

    monkeypatch.setattr(attempts.rails, "require_ours", refused)
    with pytest.raises(attempts.rails.RailError):
        attempts.call(kit.services, NAME, 1)
    assert once.called == 0


def test_a_switchover_that_somebody_else_has_called_is_followed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Once(kit, status="SWITCHOVER_IN_PROGRESS")
    callable_kit(kit, monkeypatch, once)
    attempts.call(kit.services, NAME, 1)
    assert (once.called, attempts.was_called(kit.journal, 1)) == (0, True)


def refused_by_aws() -> Exception:
    from botocore.exceptions import ClientError

    answer = {
        "Error": {"Code": "InvalidBlueGreenDeploymentStateFault", "Message": "it is being modified"},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RetryAttempts": 0},
    }
    return ClientError(answer, "SwitchoverBlueGreenDeployment")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("then", "status", "called", "said"),
    [
        (refused_by_aws(), "AVAILABLE", 1, "it is being modified"),
        (None, "INVALID_CONFIGURATION", 0, "is INVALID_CONFIGURATION"),
    ],
)
def test_what_aws_does_not_begin_ends_the_attempt_and_is_not_called_again_behind_an_old_gate(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, then: Exception | None, status: str, called: int, said: str
) -> None:
    once = Once(kit, then, status)
    asked = callable_kit(kit, monkeypatch, once)
    monkeypatch.setattr(attempts, "release", lambda *_: asked.append("release"))
    for _ in range(2):  # a task that is tried again
        assert attempts.call(kit.services, NAME, 1) is None
    assert once.called == called
    assert asked == ["rails cluster", "rails deployment", "hold", "release"]
    document = attempts.examine(kit.services, NAME, 1)
    assert (document["outcome"], document["duration_s"]) == ("REFUSED", 0.0)
    assert said in document["reason"]
    assert [f["weight"] for f in document["findings"]] == ["warning"]
    assert attempts.is_due(kit.journal, 2), "the next rung has a gate of its own"
    advice = attempts.conclude_ladder(kit.services, NAME)
    assert advice["recommended_s"] is None
    assert [f["weight"] for f in advice["findings"]] == ["warning", "blocker"]


def test_a_refused_attempt_is_called_again_once_its_gate_has_opened_again(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Once(kit, refused_by_aws())
    callable_kit(kit, monkeypatch, once)
    assert attempts.call(kit.services, NAME, 1) is None
    attempts.examine(kit.services, NAME, 1)
    once.then = None
    monkeypatch.setattr(attempts.probes, "is_running", lambda _: True)
    monkeypatch.setattr(attempts, "obstacles", lambda *_: [])
    attempts.gate(kit.services, NAME, 1)
    memory = attempts.call(kit.services, NAME, 1)
    assert memory is not None
    assert (once.called, memory.outcome) == (2, "WAITING")
    with pytest.raises(StepError, match="not over"):
        attempts.examine(kit.services, NAME, 1)


def test_a_fault_whose_process_has_died_is_not_waited_for(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    with_fault = {**kit.journal.require("begin")["spec"], "faults": [{"attempt": 1, "kind": "long_transaction"}]}
    kit.put("begin", {**kit.journal.require("begin"), "spec": with_fault})
    monkeypatch.setattr(attempts.arms, "start", lambda settings: settings.path.touch())
    monkeypatch.setattr(attempts.witness, "start", lambda _: pytest.fail("there is nothing to watch"))
    monkeypatch.setattr(attempts.holders, "in_the_way", lambda *_: [])
    began = kit.clock()
    with pytest.raises(companion.CompanionError, match="ended before it was"):
        attempts.hold(kit.services, NAME, 1)
    assert kit.clock() == began


def test_the_ladder_recommends_from_what_was_examined(kit: Kit) -> None:
    note(kit, 1, "ROLLED_BACK", 20)
    attempts.examine(kit.services, NAME, 1)
    note(kit, 2, "COMPLETED", 80, called_at=CALLED + timedelta(minutes=2))
    attempts.examine(kit.services, NAME, 2)
    document = attempts.conclude_ladder(kit.services, NAME)
    assert document["recommended_s"] == 240
    assert [f["weight"] for f in document["findings"]] == ["warning"], "60 s was not enough, and no fault was asked for"


def test_a_roll_back_that_was_asked_for_is_no_finding_and_no_success_is(tmp_path: Path) -> None:
    kit = Kit(tmp_path, faults=[{"attempt": 1, "kind": "long_transaction"}])
    evidence: dict[str, Any] = {}
    kit.put("attempt_1", {
        "timeout_s": 60, "outcome": "ROLLED_BACK", "duration_s": 60, "reason": "x", "causes": [], "findings": [], "evidence": evidence,
    })  # fmt: skip
    assert [f["weight"] for f in attempts.conclude_ladder(kit.services, NAME)["findings"]] == ["blocker"]
    assert attempts.conclude_ladder(kit.services, NAME)["recommended_s"] is None


def test_an_attempt_that_is_not_over_cannot_be_examined(kit: Kit) -> None:
    note(kit, 1, "WAITING", 1)
    with pytest.raises(StepError, match="not over"):
        attempts.examine(kit.services, NAME, 1)
    assert attempts.was_called(kit.journal, 1)
    assert not attempts.was_called(kit.journal, 2)


def test_the_longest_attempt_of_a_spec_can_be_held_and_watched(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a spec allows must not be refused when green has been paid for already."""
    from pydantic import ValidationError

    from tests.blue_green.rds_kit import spec

    with pytest.raises(ValidationError, match="max_transaction_s"):
        spec(gate={"max_transaction_s": 100_000})
    longest = spec(ladder=[3600], gate={"max_transaction_s": 3600})
    kit.put("begin", {**kit.journal.require("begin"), "spec": longest.model_dump(mode="json")})
    held: list[Any] = []
    monkeypatch.setattr(attempts.arms, "start", held.append)
    monkeypatch.setattr(attempts.witness, "start", held.append)
    attempts.hold(kit.services, NAME, 1)
    assert [each.max_seconds for each in held] == [7260, 8160]
