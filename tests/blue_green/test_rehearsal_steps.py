"""Steps of a rehearsal against made-up parts: what each holds against the upgrade, and what it does when it is repeated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import REGION

from dbops.blue_green import blue as blue_side
from dbops.blue_green import (
    compare,
    control,
    cost,
    findings,
    prechecks,
    preflight,
    rails,
    readiness,
    recording,
    resources,
    steps,
    summary,
)
from dbops.blue_green.findings import Finding
from dbops.blue_green.preflight import Result
from dbops.blue_green.readiness import Readiness
from dbops.blue_green.recording import SECOND, Attempt
from tests.blue_green.fake_rds import CREATED
from tests.blue_green.rds_kit import EXPIRES
from tests.blue_green.steps_kit import NAME, Kit, recorded, side


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    made = Kit(tmp_path)
    made.standing()
    return made


def compared(kit: Kit, monkeypatch: pytest.MonkeyPatch, *found: compare.Comparison) -> list[Finding]:
    monkeypatch.setattr(compare, "compare", lambda *_: list(found))
    return [Finding(**each) for each in steps.compare_sides(kit.services, NAME)["findings"]]


def test_a_statement_that_green_cannot_end_in_time_blocks(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    late = compare.Comparison(
        "q1", "worse", error_green="3024: time limit", note="it takes longer than the limit on green"
    )
    found = compared(kit, monkeypatch, late)
    assert [(f.weight, f.text) for f in found] == [
        ("blocker", "q1 is worse on green: it takes longer than the limit on green")
    ]


@pytest.mark.parametrize(("ratio", "weight"), [(1.6, "warning"), (3.0, "blocker")])
def test_a_slower_statement_weighs_by_how_much(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, ratio: float, weight: str
) -> None:
    found = compared(kit, monkeypatch, compare.Comparison("q1", "worse", time_ratio=ratio))
    assert [(f.weight, f.text) for f in found] == [(weight, f"q1 takes {ratio:.2f} times as long on green")]


@pytest.mark.parametrize(
    ("verdict", "weights"),
    [
        ("same", []), ("better", []), ("order only", ["warning"]), ("not compared", ["warning"]), ("different", ["blocker"]),
        ("broken", ["blocker"]),
    ],
)  # fmt: skip
def test_what_a_comparison_weighs(kit: Kit, monkeypatch: pytest.MonkeyPatch, verdict: Any, weights: list[str]) -> None:
    assert [f.weight for f in compared(kit, monkeypatch, compare.Comparison("q1", verdict))] == weights


def test_nothing_compared_is_said(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.weight for f in compared(kit, monkeypatch)] == ["warning"]


def watched(kit: Kit, monkeypatch: pytest.MonkeyPatch, errnos: list[int]) -> dict[str, Any]:
    def read(_: Any) -> recording.Recording:
        at = time.monotonic_ns() + SECOND
        after = [Attempt(n, at + n, at + n, at + n + 1000, errno) for n, errno in enumerate(errnos)]
        return recorded({"blue_write": after})

    monkeypatch.setattr(recording, "read", read)
    return steps.watch(kit.services, NAME)


@pytest.mark.parametrize(
    ("errnos", "weights"), [([0, 0], []), ([0, 1290], ["warning"]), ([1290, 1290], ["blocker"]), ([], ["blocker"])]
)
def test_a_new_version_that_takes_no_write_is_no_go(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, errnos: list[int], weights: list[str]
) -> None:
    document = watched(kit, monkeypatch, errnos)
    assert [f["weight"] for f in document["findings"]] == weights
    assert (document["writes"], document["failed"]) == (len(errnos), sum(map(bool, errnos)))


def test_a_success_that_nobody_watched_is_not_proven() -> None:
    shown = {step: {"findings": []} for step in findings.PROOFS}
    assert findings.conclude(shown).verdict == "GO"
    del shown["watch"]
    assert findings.conclude(shown).verdict == "NO-GO"


def test_what_two_steps_say_alike_is_told_once() -> None:
    twice = {"attempt_1": {"findings": [{"step": "ladder", "weight": "blocker", "text": "lost"}]}}
    twice["ladder"] = twice["attempt_1"]
    assert findings.conclude(twice).reasons.count("ladder: lost") == 1


def ready(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, words: Result, tasks: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
    """Green became available; `words` is what its own list of reserved words says of blue."""
    monkeypatch.setattr(steps, "adopt", lambda *_: None)
    monkeypatch.setattr(steps, "deployment", lambda *_: {"Target": side("green").arn, "Tasks": list(tasks)})
    monkeypatch.setattr(steps, "probe", lambda *_: {})
    monkeypatch.setattr(blue_side, "of_arn", lambda *_: _like(kit, side("green")))
    monkeypatch.setattr(preflight, "reserved_words", lambda _: frozenset({"RANK"}))
    monkeypatch.setattr(preflight, "run", lambda *_, **__: [words])
    monkeypatch.setattr(prechecks, "download", lambda *_: "")
    monkeypatch.setattr(prechecks, "parse", lambda _: None)
    monkeypatch.setattr(prechecks, "compare", lambda *_: [])
    return steps.green_ready(kit.services, NAME)


def _like(kit: Kit, green: blue_side.Side) -> blue_side.Side:
    return blue_side.side({**green.document(), "engine_version": kit.spec.target.engine_version})


def test_words_that_only_green_knows_as_reserved_are_findings(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Result("reservedKeywords", "ok", (), "quote it", "")
    kit.put("preflight", {"results": [steps._result(before)], "findings": []})
    late = Result("reservedKeywords", "warning", (("shop.rank", "RANK"),), "quote it", "")
    document = ready(kit, monkeypatch, late)
    assert [(f["step"], f["weight"]) for f in document["findings"]] == [("green", "warning")]
    assert "shop.rank" in document["findings"][0]["text"]
    assert findings.conclude({"green": document}).verdict == "NO-GO"


def test_words_that_the_preflight_told_are_not_told_again(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    same = Result("reservedKeywords", "warning", (("shop.rank", "RANK"),), "quote it", "")
    kit.put("preflight", {"results": [steps._result(same)], "findings": []})
    assert ready(kit, monkeypatch, same)["findings"] == []


def test_blue_that_is_being_modified_is_waited_for(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its instances are available; only the cluster is not, or has not got its instances yet."""
    member = {
        "DBInstanceIdentifier": f"{NAME}-1", "DbiResourceId": "db-1", "DBInstanceArn": "arn:db", "DBInstanceStatus": "available",
        "Endpoint": {"Address": "db.example.com", "Port": 3306}, "IsWriter": True,
    }  # fmt: skip
    head = {
        "DBClusterIdentifier": NAME, "DbClusterResourceId": "cluster-1", "DBClusterArn": "arn:cluster", "Endpoint": "c.example.com",
        "Port": 3306, "EngineVersion": "5.7", "DBClusterMembers": [{"DBInstanceIdentifier": f"{NAME}-1", "IsClusterWriter": True}],
        "Expected": 1,
    }  # fmt: skip
    answers = [
        {**head, "Status": "creating", "Members": []},
        {**head, "Status": "modifying", "Members": [member]},
        {**head, "Status": "available", "Members": [member]},
    ]
    monkeypatch.setattr(blue_side, "describe", lambda *_: answers.pop(0))
    made = steps.maker_of(kit.services, kit.journal).settle()
    assert (made.identifier, answers) == (NAME, [])
    assert kit.rds.calls == [], "nothing is rebooted that does not wait for it"


def planned(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(control, "source_facts", lambda *_: (0.0, "5.7.mysql_aurora.2.11.4"))
    monkeypatch.setattr(control, "before_spending", lambda *_, **__: [])
    monkeypatch.setattr(cost, "load", prices)
    return steps.plan(kit.services, NAME)


def prices() -> cost.Prices:
    of_class = {"db.r5.large": {"hour": 1.0, "vcpu": 2}}
    region = {
        "storage_gb_month": 0,
        "io_million": 0,
        "backup_gb_month": 0,
        "extended_support_vcpu_hour": 0,
        "classes": of_class,
    }
    return cost.Prices.model_validate(
        {"as_of": "2026-02-01", "verified": True, "currency": "USD", "regions": {REGION: region}}
    )


def test_a_plan_that_is_repeated_after_blue_was_begun_takes_it_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(tmp_path)
    kit.rds.add("cluster", NAME, resources.tags(NAME, "dba-team", EXPIRES))
    with pytest.raises(rails.RailError, match="another run"):
        planned(kit, monkeypatch)
    kit.journal.enter("provision", kit.clock())  # the worker was killed while blue was made
    assert planned(kit, monkeypatch)["findings"] == []


def test_what_is_kept_is_priced_until_it_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = {"expected_hours": 1, "max_hours": 10, "max_cost_usd": 20}
    assert planned(Kit(tmp_path, **hours), monkeypatch)["estimate"]["total"] == pytest.approx(4.0)
    with pytest.raises(rails.RailError, match=r"estimated at 40\.00 USD"):
        planned(Kit(tmp_path, **hours, keep_old=True), monkeypatch)


def test_the_creation_of_green_is_timed_by_tasks_and_not_again_when_its_task_is_repeated(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.put("preflight", {"results": [], "findings": []})
    kit.journal.put("green", {"green": side("green").document(), "creation_s": 60.0}, kit.clock())
    seen = (
        ("03:00:00", "COPY", "IN_PROGRESS"),
        ("03:01:30", "COPY", "COMPLETED"),
        ("03:01:30", "UPGRADE", "COMPLETED"),
    )
    kit.put("readiness", readiness.dump(Readiness(steps=tuple((f"2026-03-01T{at}", *of) for at, *of in seen))))  # type: ignore[misc]
    kit.clock.at += timedelta(hours=3)
    fine = Result("reservedKeywords", "ok", (), "quote it", "")
    tasks = [{"Name": "COPY", "Status": "COMPLETED"}, {"Name": "UPGRADE", "Status": "COMPLETED"}]
    document = ready(kit, monkeypatch, fine, tasks)
    assert document["creation_s"] == 60
    assert [(t["name"], t["seconds"]) for t in document["tasks"]] == [("COPY", 90), ("UPGRADE", None)]
    kit.put("plan", {**kit.journal.require("plan"), "results": []})
    assert summary._of_creation(kit.journal.steps())[0].model_dump()["rows"] == [
        ["COPY", "COMPLETED", 1.5],
        ["UPGRADE", "COMPLETED", None],
    ]


def test_a_deployment_that_is_taken_up_was_asked_for_when_aws_made_it(tmp_path: Path) -> None:
    """The worker was killed between AWS's answer and the note; two hours later its task is cleared."""
    kit = Kit(tmp_path)
    kit.standing()
    tags = resources.tags(NAME, "dba-team", EXPIRES)
    blue = kit.rds.add("cluster", "blue", tags)
    kit.put("provision", {"blue": {**side("blue").document(), "arn": blue.arn, "resource_id": blue.id}})
    kit.rds.add("deployment", NAME, tags, source=blue)
    kit.forget("deployment")
    kit.clock.at = CREATED.replace(tzinfo=None) + timedelta(hours=2)
    document = steps.create_green(kit.services, NAME)
    assert document["asked_at"] == CREATED.replace(tzinfo=None).isoformat()
    assert kit.rds.calls == [], "it is not asked for twice"


@pytest.mark.parametrize(
    "step", [steps.provision, steps.check, steps.start_probes, steps.create_green, steps.replicate, steps.compare_sides]
)
def test_nothing_goes_on_or_begins_anew_once_the_teardown_has_begun(kit: Kit, step: Any) -> None:
    """A cleared task would make blue again, beside a journal whose switchover was called long ago."""
    kit.journal.enter("teardown", kit.clock())
    with pytest.raises(steps.StepError, match="start a new run"):
        step(kit.services, NAME)
    assert kit.rds.calls == []


def test_what_is_kept_can_go_on_after_its_teardown(tmp_path: Path) -> None:
    kit = Kit(tmp_path, keep_old=True)
    kit.standing()
    kit.journal.enter("teardown", kit.clock())
    assert steps.blue_of(kit.journal) == side("blue")
