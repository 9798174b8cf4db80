"""What a rehearsal comes to: teardown whatever fails beside it, hours that were paid for, figures of each attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from dbops.blue_green import attempts, operators, recording, resources, results, steps, summary, waits
from dbops.blue_green.companion import CompanionError
from dbops.blue_green.journal import Journal
from dbops.blue_green.recording import SECOND
from dbops.operators import Stopped
from tests.blue_green.rds_kit import EXPIRES
from tests.blue_green.steps_kit import BEGAN, NAME, Kit, recorded
from tests.blue_green.steps_kit import attempts as probed


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    made = Kit(tmp_path)
    made.standing()
    return made


def blue_stands(kit: Kit) -> None:
    tags = resources.tags(NAME, "dba-team", EXPIRES)
    cluster = kit.rds.add("cluster", NAME, tags)
    kit.rds.add("db", f"{NAME}-1", tags, cluster=cluster, writer=True)


def waiting_rds(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being deleted goes while the teardown sleeps."""
    monkeypatch.setattr(waits, "_pause", lambda _: kit.rds.wait)


@pytest.mark.parametrize("part", ["release", "stop_probes"])
def test_a_process_that_does_not_end_keeps_nothing_in_aws(kit: Kit, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def stubborn(*_: Any) -> None:
        raise CompanionError("the process of x.jsonl still runs after 60 s")

    monkeypatch.setattr(attempts if part == "release" else steps, part, stubborn)
    waiting_rds(kit, monkeypatch)
    blue_stands(kit)
    document = waits.tear_down(kit.services, NAME)
    assert kit.rds.names() == set()
    assert document["left"] == []
    assert [f["text"] for f in document["findings"]] == ["the process of x.jsonl still runs after 60 s"]


def test_the_teardown_is_red_for_what_lost_its_tags_as_well(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands and is paid for, although it cannot be listed as ours."""
    document = {
        "left": [], "kept": False, "per_hour": 0.0,
        "findings": [{"step": "teardown", "weight": "blocker", "text": "cluster x has lost its tags meanwhile and is left alone"}],
    }  # fmt: skip
    monkeypatch.setattr(waits, "tear_down", lambda *_: document)
    operator = operators.TeardownOperator(task_id="teardown")
    monkeypatch.setattr(operator, "chosen_spec", lambda _: kit.spec)
    monkeypatch.setattr(operator, "services", lambda *_: kit.services)
    monkeypatch.setattr(operator, "name", lambda _: NAME)
    with pytest.raises(Stopped, match="lost its tags"):
        operator.execute({})  # type: ignore[arg-type]


def tried(number: int, called_s: float, duration_s: float, outcome: str = "COMPLETED") -> dict[str, dict[str, Any]]:
    """Document of an attempt, by seconds since the rehearsal began."""
    at = (BEGAN + timedelta(seconds=called_s)).replace(tzinfo=UTC).isoformat()
    return {f"attempt_{number}": {"outcome": outcome, "called_at": at, "duration_s": duration_s, "findings": []}}


def measured(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, lanes: dict[str, Any], *documents: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    for each in documents:
        for step, document in each.items():
            kit.put(step, document)
    monkeypatch.setattr(recording, "read", lambda _: recorded(lanes))
    return results.measure(kit.services, NAME)


def test_downtime_is_measured_around_the_attempt(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = {"blue_write": probed(300, [(62, 65)]), "blue_read": probed(300), "green_read": probed(300)}
    document = measured(kit, monkeypatch, lanes, tried(1, 60, 20))
    assert document["findings"] == []
    assert document["downtime"]["1"]["write"]["longest_s"] == pytest.approx(3, abs=0.11)
    assert document["figures"]["write_downtime_s"] == document["downtime"]["1"]["write"]["longest_s"]
    assert (document["figures"]["switchover_s"], document["downtime"]["1"]["read"]["longest_s"]) == (20, 0)


def test_an_attempt_that_no_probe_saw_blocks_and_the_others_are_measured(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = {"blue_write": probed(120), "blue_read": probed(120), "green_read": probed(120)}
    document = measured(kit, monkeypatch, lanes, tried(1, 60, 20, "ROLLED_BACK"), tried(2, 300, 20))
    assert document["downtime"]["1"]["write"]["attempts"] > 0
    assert document["downtime"]["2"] == {}
    assert {f["text"] for f in document["findings"]} == {
        f"attempt 2: no probe looked ({w})" for w in ("write", "read", "connect")
    }
    assert "write_downtime_s" not in document["figures"]


def test_a_machine_that_booted_again_meanwhile_is_told(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = {"blue_write": probed(300), "blue_read": probed(300), "green_read": probed(300)}
    kit.put("attempt_1", tried(1, 60, 20)["attempt_1"])
    monkeypatch.setattr(recording, "read", lambda _: replace(recorded(lanes), boots=2))
    document = results.measure(kit.services, NAME)
    assert [(f["weight"], "booted 1 times" in f["text"]) for f in document["findings"]] == [("warning", True)]


def test_an_outage_counts_for_one_attempt_only(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first was rolled back at 80 s, and its outage ended at 84 s; the second was called at 90 s."""
    lanes = {"blue_write": probed(200, [(70, 84), (92, 93)]), "blue_read": probed(200), "green_read": probed(200)}
    document = measured(kit, monkeypatch, lanes, tried(1, 60, 20, "ROLLED_BACK"), tried(2, 90, 20))
    longest = {number: of["write"]["longest_s"] for number, of in document["downtime"].items()}
    assert longest == {"1": pytest.approx(14, abs=0.11), "2": pytest.approx(1, abs=0.11)}


def test_a_teardown_that_is_repeated_does_not_pay_for_what_was_gone(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting_rds(kit, monkeypatch)
    kit.journal.enter("provision", kit.clock())
    kit.clock.at += timedelta(hours=1)
    first = waits.tear_down(kit.services, NAME)["actual"]
    assert first["total"] > 0
    kit.clock.at += timedelta(hours=20)
    assert waits.tear_down(kit.services, NAME)["actual"] == first


def test_what_is_kept_is_paid_for_until_it_is_gone(tmp_path: Path) -> None:
    kit = Kit(tmp_path, keep_old=True)
    kit.standing()
    kit.journal.enter("provision", kit.clock())
    blue_stands(kit)
    kit.clock.at += timedelta(hours=1)
    first = waits.tear_down(kit.services, NAME)
    assert first["kept"]
    assert first["per_hour"] > 0
    assert first["findings"] == []
    kit.clock.at += timedelta(hours=20)
    assert waits.tear_down(kit.services, NAME)["actual"]["total"] > first["actual"]["total"]


def test_a_write_that_green_accepted_at_any_time_blocks(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the switchover that succeeds; what the name that green had leads to afterwards says nothing."""
    lanes = {lane: probed(200) for lane in ("blue_write", "blue_read", "green_read")}
    refused = [replace(a, errno=1290) for a in probed(200)]
    taken = [replace(a, errno=0 if 30 * SECOND <= a.sent < 31 * SECOND else 1290) for a in probed(200)]
    late = [replace(a, errno=0 if a.sent > 65 * SECOND else 1290) for a in probed(200)]
    found = [
        measured(kit, monkeypatch, {**lanes, "green_refused": its}, tried(1, 60, 20))["findings"]
        for its in (refused, taken, late)
    ]
    assert [[f["weight"] for f in each] for each in found] == [[], ["blocker"], []]
    assert "green accepted 10 writes" in found[1][0]["text"]


def text_of_runbook(kit: Kit, figures: dict[str, float]) -> str:
    kit.put("ladder", {"recommended_s": 180, "rule": "max(180)", "findings": []})
    kit.put("measured", {"figures": figures, "findings": []})
    shown = summary._runbook(kit.spec, kit.journal.steps(), results.conclude(kit.journal))
    return str(shown[0].model_dump()["body"])


def test_the_runbook_says_what_was_measured_and_what_was_not(kit: Kit) -> None:
    known = text_of_runbook(kit, {"write_downtime_s": 1.25, "switchover_s": 31, "green_creation_s": 600})
    for words in (
        "writes to fail for about 1.2 s",
        "the API to take about 31 s",
        "(here: 10 min)",
        "SwitchoverTimeout 180",
    ):
        assert words in known
    unknown = text_of_runbook(kit, {})
    assert " 0.0 s" not in unknown
    assert unknown.count("(not measured)") == 3


def test_figures_stand_beside_those_of_earlier_rehearsals(kit: Kit) -> None:
    for number in range(20):
        past = Journal(kit.store, f"dbops-shop-{number:08x}-past")
        past.begin("shop", f"run {number}", BEGAN - timedelta(days=20 - number))
        past.keep_figures({"write_downtime_s": float(number)})
    kit.put("measured", {"figures": {"write_downtime_s": 100.0}, "findings": []})
    table = summary._history(kit.journal, "shop", kit.journal.steps())[0].model_dump()
    assert table["rows"] == [["write_downtime_s", 100.0, 21, 19.0, 100.0]]


def test_a_rehearsal_without_an_attempt_is_measured_too(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    document = measured(kit, monkeypatch, {"blue_write": probed(20), "blue_read": probed(20), "green_read": probed(20)})
    assert (document["downtime"], document["findings"]) == ({}, [])
    assert results.spans(recorded({}), {}) == {}


def test_it_is_measured_when_clients_are_led_to_the_new_version(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def led(at_s: float, old: str, new: str) -> list[Any]:
        return [replace(a, server=old if a.sent < at_s * SECOND else new) for a in probed(200)]

    lanes = {
        "blue_write": probed(200), "blue_resolve": led(67, "10.0.0.1", "10.0.0.2"), "blue_read": led(63, "5.7.44 a", "8.0.39 b"),
        "green_read": probed(200),
    }  # fmt: skip
    figures = measured(kit, monkeypatch, lanes, tried(1, 60, 20))["figures"]
    assert figures["address_change_s"] == pytest.approx(7, abs=0.01)
    assert figures["server_change_s"] == pytest.approx(3, abs=0.01)
    same = {**lanes, "blue_resolve": led(500, "10.0.0.1", "")}
    assert "address_change_s" not in measured(kit, monkeypatch, same, tried(1, 60, 20))["figures"]
    assert steps.BLUE_LANES["blue_resolve"] == "resolve"
