"""backfill as Airflow runs it: a dry run, a copy, its proof, repair, roll-back and gate; held back, refused, killed and repeated."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dbops.backfill import operators, preflight
from tests.lab import approval_kit, backfill_stage, worker
from tests.lab.backfill_stage import LIMITS, VIEW, Stage, states

pytestmark = pytest.mark.lab

ROWS = 350


@pytest.fixture(params=["dynamodb", "redis"])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    with backfill_stage.stage(tmp_path, run_dag, request.param, rows=ROWS) as made:
        yield made


on_dynamodb = pytest.mark.parametrize("stage", ["dynamodb"], indirect=True)


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why tasks gave their worker away."""
    found, original = list[str](), operators._WorkOperator.look_again

    def look_again(operator: Any, spec: Any, by: str, reason: str) -> None:
        found.append(by)
        original(operator, spec, by, reason)

    monkeypatch.setattr(operators._WorkOperator, "look_again", look_again)
    return found


def succeeded(stage: Stage, run: Any) -> None:
    assert str(run.state) == "success", (states(run), stage.report()["reasons"])
    assert stage.alerts() == []


def failed(stage: Stage, run: Any, task: str) -> str:
    """The alert of the only task that failed by itself."""
    assert str(run.state) == "failed", states(run)
    bad = [name for name, state in states(run).items() if state == "failed" and name != "any_failure"]
    assert bad == [task], states(run)
    return stage.only_alert()


def tables_of(report: dict[str, Any]) -> dict[str, list[list[Any]]]:
    return {each["title"]: each["rows"] for each in report["sections"] if "rows" in each}


def test_a_dry_run_writes_nothing_and_says_what_would_be(stage: Stage) -> None:
    succeeded(stage, stage.run())
    assert stage.items() == {}
    assert stage.journal.plans(stage.name) == []
    report = stage.report()
    assert report["verdict"] == "DRY_RUN", report["reasons"]
    figures = {each["label"]: each["value"] for each in report["figures"]}
    assert (figures["Rows"], figures["Refusals"]) == (str(ROWS), "0")
    assert figures["Cost"] == "0.00 USD"
    assert figures["Time"].endswith(" h")
    found = tables_of(report)
    columns = {row[0]: row[1:] for row in found["Columns as attributes"]}
    assert columns["price"][:2] == ["decimal(10,2)", "N"]
    assert columns["photo"][:2] == ["longblob", "B"]
    sizes = dict(found["Estimate"])["item size: half, 99 %, all up to"]
    assert [30 < int(size) < 200 for size in sizes.removesuffix(" bytes").split(", ")] == [True] * 3
    assert "longblob" in stage.html()


def test_a_copy_is_whole_proven_and_repeated_without_a_change(stage: Stage) -> None:
    succeeded(stage, stage.copy())
    assert stage.versions() == dict(stage.rows())
    first = stage.plan()
    assert first.state == "verified"
    assert set(stage.stamps().values()) == {first.plan_id}
    assert stage.report()["verdict"] in ("OK", "WARNING"), stage.report()["reasons"]
    tally = stage.journal.tally(first.plan_id)
    assert (tally.read, tally.written, tally.checked) == (ROWS, ROWS, ROWS)
    before = stage.items()

    succeeded(stage, stage.copy())
    second = stage.plan()
    assert second.plan_id != first.plan_id
    tally = stage.journal.tally(second.plan_id)
    assert (tally.read, tally.written, tally.equal) == (ROWS, 0, ROWS)
    assert stage.items() == before
    assert second.state == "verified"

    # A run that is refused does not report the plan of the one before.
    last = stage.html()
    assert "confirmation is 'rides'" in failed(stage, stage.copy(confirm="rides"), "look")
    assert stage.html() == last


@on_dynamodb
def test_what_is_refused(stage: Stage) -> None:
    """Nothing is written, one task says why, and no report of another run takes its place."""
    name, target = stage.name, stage.document["target"]
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, {"confirm": None}, "confirmation is None"),
        ({}, {"confirm": "rides"}, f"type '{name}' exactly"),
        ({}, {"dryrun": False}, "unknown conf key 'dryrun'"),
        ({}, {"spec": None}, "spec is empty"),
        ({}, {"spec": "no_such"}, "no_such"),
        ({"target": target | {"table": "other_rides"}}, {}, "'other_rides' is not on the allow-list in extra dbops_backfill_allow"),
        ({"target": target | {"key": {"id": "{id}"}}}, {}, "[target_key]"),
        ({"live": stage.document["live"] | {"applications": ["booking", "billing"]}}, {}, "billing"),
    ]  # fmt: skip
    right = dict(stage.document)
    for changes, conf, said in cases:
        stage.declare(**right | changes)
        run = stage.copy(**conf)
        assert said in failed(stage, run, "look"), conf
        assert (stage.items(), stage.journal.plans(name)) == ({}, []), conf
    report = stage.report()
    assert report["verdict"] == "REFUSED"
    assert any("billing" in reason for reason in report["reasons"])


@on_dynamodb
def test_rejects(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that cannot be an item is refused before, ends a copy, is passed over on request; its plan waits for the same rules."""
    large = stage.photo()
    assert "[rejects]" in failed(stage, stage.copy(), "look")

    # The sample has missed it.
    monkeypatch.setattr(preflight, "check_sample", lambda spec, sample: iter(()))
    stage.declare(rejects={"policy": "stop"})
    assert "cannot be" in failed(stage, stage.copy(), "copy")
    plan = stage.plan()
    assert [each.key for each in stage.journal.rejects(plan.plan_id)] == [(str(large),)]
    assert stage.journal.live_leases(plan.plan_id) == 0
    stage.declare(rejects={"max_rows": 0})
    assert "rejects.max_rows" in failed(stage, stage.copy(), "copy")

    # Other rules do not go on with it.
    view = stage.document["view"]
    stage.declare(view=view | {"sql": VIEW.format(s=stage.schema).replace("r.photo, ", "")})
    assert "open under other rules" in failed(stage, stage.copy(), "plan")

    stage.declare(view=view, rejects={"max_rows": 1})
    run = stage.copy()
    succeeded(stage, run)
    assert (stage.plan().plan_id, stage.plan().state) == (plan.plan_id, "verified")
    assert stage.versions() == {key: version for key, version in stage.rows() if key != large}
    report = stage.report()
    assert report["verdict"] == "WARNING"
    assert tables_of(report)["Rows that cannot be items"][0][0] == str(large)


@on_dynamodb
def test_a_plan_of_other_rules_is_given_up_on_request(stage: Stage) -> None:
    stage.declare(limits=LIMITS | {"budget_usd": 0})
    assert "nobody has approved" in failed(stage, stage.copy(_mark_success_pattern="approve"), "record_approvals")
    old = stage.plan()
    view = stage.document["view"] | {"sql": VIEW.format(s=stage.schema).replace("r.photo, ", "")}
    stage.declare(view=view, limits=LIMITS)
    assert "open under other rules" in failed(stage, stage.copy(), "plan")
    succeeded(stage, stage.copy(abandon_open_plan=True))
    assert stage.journal.plan(old.plan_id).state == "abandoned"
    assert stage.plan().state == "verified"
    assert stage.versions() == dict(stage.rows())


# dag.test() waits for an answer for ever.
@pytest.mark.timeout(240, method="signal")
@on_dynamodb
def test_approval(stage: Stage) -> None:
    stage.declare(limits=LIMITS | {"budget_usd": 0})
    with approval_kit.api_server() as address:
        for choice in ("Reject", "Approve"):
            heard: list[Any] = []
            person = Thread(target=approval_kit.answer, args=(address, choice, heard), daemon=True)
            person.start()
            run = stage.copy()
            person.join(30)
            assert heard[0]["subject"].startswith(f"Copy {ROWS} rows into dynamodb::{stage.table} for about 0.00 USD?")
            assert stage.plan().plan_id in heard[0]["body"]
            assert any("waits for approval" in each["Subject"] for each in stage.alerts())
            written = ROWS if choice == "Approve" else 0
            assert (str(run.state), len(stage.items())) == ("success" if written else "failed", written), states(run)
    assert len(stage.journal.plans(stage.name)) == 1
    assert "dba" in [row[1] for row in tables_of(stage.report())["Plan"]]


@on_dynamodb
def test_a_pause_in_the_middle_keeps_the_checkpoint_and_frees_the_worker(stage: Stage, deferred: list[str]) -> None:
    stage.declare(limits=LIMITS | {"units_per_s": 100, "page_rows": 10})
    seen: dict[str, Any] = {}

    def person() -> None:
        journal = stage.journal
        plan_id = stage.until(lambda: stage.journal.plans(stage.name), "a plan")[0].plan_id
        stage.until(lambda: journal.tally(plan_id).read, "a checkpoint")
        journal.pause(stage.name, "incident", "dba")
        stage.until(lambda: deferred, "a deferral")
        seen.update(leases=journal.live_leases(plan_id), tally=journal.tally(plan_id), events=stage.events("pause"))
        journal.unpause(stage.name)

    one = Thread(target=person, daemon=True)
    one.start()
    run = stage.copy()
    one.join(30)
    succeeded(stage, run)
    assert 0 < seen["tally"].read < ROWS
    assert seen["leases"] <= 1  # the other task may hold one still
    assert "incident" in seen["events"][0]
    assert set(deferred) == {"pause"}
    tally = stage.journal.tally(stage.plan().plan_id)
    assert (tally.read, tally.written) == (ROWS, ROWS)
    assert stage.versions() == dict(stage.rows())


@on_dynamodb
def test_outside_of_its_window_it_waits_without_a_worker(stage: Stage, deferred: list[str]) -> None:
    later = datetime.now(UTC) + timedelta(hours=3)
    stage.declare(limits=LIMITS | {"window": {"start": f"{later:%H:%M}", "end": f"{later + timedelta(hours=1):%H:%M}"}})

    def person() -> None:
        stage.until(lambda: deferred, "a deferral")
        assert stage.items() == {}
        stage.declare(limits=LIMITS)

    one = Thread(target=person, daemon=True)
    one.start()
    run = stage.copy()
    one.join(30)
    succeeded(stage, run)
    assert set(deferred) == {"window"}
    assert stage.versions() == dict(stage.rows())


@on_dynamodb
def test_a_worker_that_is_killed_is_followed_by_a_run_that_does_the_rest(stage: Stage) -> None:
    stage.run()  # so that the DAG is in the metadata database
    kill = worker.Kill("dbops.backfill.journal:Journal.finish", "after", nth=2)
    process = worker.start(backfill_stage.run_in_worker, "backfill", stage.asked(), kill=kill)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    plan = stage.plan()
    before = {each.number: each for each in stage.journal.chunks(plan.plan_id)}
    assert sorted(each.state for each in before.values()) == ["done", "done", "planned", "planned"]
    stage.lapse()
    succeeded(stage, stage.copy())
    assert stage.plan().plan_id == plan.plan_id
    for each in stage.journal.chunks(plan.plan_id):
        was = before[each.number]
        assert each.attempt == was.attempt + (was.state == "planned")
        assert each.tally == was.tally or was.state == "planned"
    assert stage.journal.tally(plan.plan_id).read == ROWS
    assert stage.versions() == dict(stage.rows())


@on_dynamodb
def test_two_runs_share_a_plan(stage: Stage) -> None:
    stage.run()
    stage.declare(limits=LIMITS | {"units_per_s": 100, "page_rows": 10, "chunk_rows": 25})
    process = worker.start(backfill_stage.run_in_worker, "backfill", stage.asked())
    plan_id = stage.until(lambda: stage.journal.plans(stage.name), "a plan")[0].plan_id
    run = stage.copy()
    process.join(300)
    assert process.exitcode == 0
    assert str(run.state) == "success", (states(run), stage.report()["reasons"])
    runs = {each.owner.split("/")[1] for each in stage.journal.chunks(plan_id) if each.owner}
    assert len(runs) == 2
    tally = stage.journal.tally(plan_id)
    assert (tally.read, tally.written) == (ROWS, ROWS)
    assert stage.versions() == dict(stage.rows())


@on_dynamodb
def test_each_kind_of_fault_is_found_and_what_can_be_is_repaired(stage: Stage) -> None:
    succeeded(stage, stage.copy())
    items = stage.items()
    stage.remove(1)
    stage.execute("UPDATE {s}.rides SET price = 7 WHERE id IN (2, 6)")  # of which the store does not hear
    stage.put(3, {**items[3], "price": {"N": "99"}})
    stage.put(4, {name: value for name, value in items[4].items() if name != "_v"})
    stage.execute("DELETE FROM {s}.rides WHERE id = 5")
    wrong = {"missing": 1, "source_newer": 2, "converter": 1, "unversioned": 1, "extra": 1}

    def differing() -> dict[str, int]:
        found: dict[str, int] = {}
        for each in {each.key: each for each in stage.journal.differences(stage.plan().plan_id)}.values():
            found[each.classed] = found.get(each.classed, 0) + 1
        return found

    alert = failed(stage, stage.verify(), "report")
    assert "1 row missing: " in alert
    assert differing() == wrong
    report = stage.report()
    assert report["verdict"] == "FAILED"
    shown = {row[0] for row in tables_of(report)["Rows and items that differ"]}
    assert shown == set(wrong)
    assert "99" not in " ".join(str(row) for row in tables_of(report)["Rows and items that differ"])

    alert = failed(stage, stage.verify(repair=True), "report")
    assert differing() == {"converter": 1, "unversioned": 1, "extra": 1}
    rows, now = dict(stage.rows()), stage.items()
    assert [int(now[key]["_v"]["N"]) for key in (1, 2, 6)] == [rows[key] for key in (1, 2, 6)]
    assert now[3]["price"] == {"N": "99"}
    assert "the item lives without a row" in stage.events("repair")[-1]
    assert "find who converts differently" in stage.events("repair")[-1]

    # A person does the rest.
    stage.remove(4)
    stage.execute("UPDATE {s}.rides SET note = 'again' WHERE id = 3")
    succeeded(stage, stage.verify(repair=True, bury_extra=True))
    assert differing() == {}
    assert "_deleted" in stage.items()[5]
    assert stage.items()[3]["price"] != {"N": "99"}
    assert stage.report()["verdict"] == "OK", stage.report()["reasons"]


@on_dynamodb
def test_a_sample_for_a_spec_that_wants_all_verifies_nothing(stage: Stage) -> None:
    assert "has no plan: nothing was copied" in failed(stage, stage.verify(), "plan")
    stage.declare(verify=stage.document["verify"] | {"sample_rows": 100})
    succeeded(stage, stage.copy(verify="sample"))
    assert stage.plan().state == "copied"
    report = stage.report()
    assert report["verdict"] == "WARNING"
    assert any("only a sample was compared" in reason for reason in report["reasons"]), report["reasons"]
    succeeded(stage, stage.copy())
    assert stage.plan().state == "verified"
    assert len(stage.journal.plans(stage.name)) == 1


@on_dynamodb
def test_a_sample_says_what_it_cannot_know(stage: Stage) -> None:
    stage.declare(verify=stage.document["verify"] | {"mode": "sample", "sample_rows": 100})
    succeeded(stage, stage.copy())
    report = stage.report()
    assert report["verdict"] == "WARNING"
    assert any("a sample of" in reason and "95 %" in reason for reason in report["reasons"]), report["reasons"]
    proof = stage.journal.verification(stage.plan().plan_id)
    assert proof is not None
    assert (proof.mode, proof.verdict) == ("sample", "clean")
    assert 0 < (proof.bound or 0) < 0.2


def test_a_roll_back_removes_what_nobody_has_written_since(stage: Stage) -> None:
    succeeded(stage, stage.copy())
    plan = stage.plan()
    stage.execute("UPDATE {s}.rides SET price = 1 WHERE id = 1", "DELETE FROM {s}.rides WHERE id = 2")
    before = stage.items()

    succeeded(stage, stage.run("backfill_roll_back"))
    assert stage.items() == before
    assert stage.report("backfill_roll_back")["verdict"] == "DRY_RUN"
    assert f"plan_id is None; plans of {stage.name}: {plan.plan_id}" in failed(stage, stage.roll_back(), "choose_plan")
    assert "confirmation" in failed(stage, stage.roll_back(plan_id=plan.plan_id, confirm=None), "choose_plan")
    assert stage.items() == before

    mine = stage.written_by_an_application(3, 4)
    succeeded(stage, stage.roll_back(plan_id=plan.plan_id))
    assert stage.items() == mine
    assert stage.plan().state == "rolled_back"
    report = stage.report("backfill_roll_back")
    assert report["verdict"] == "OK", report["reasons"]
    assert [each["value"] for each in report["figures"]][:2] == [str(ROWS - 2), "1"]  # the tombstone has no row


@on_dynamodb
def test_the_gate(stage: Stage) -> None:
    stage.declare(gate={"quiet_days": 1})

    def gate(**conf: Any) -> dict[str, Any]:
        run = stage.run("backfill_gate", **conf)
        assert str(run.state) == "success", states(run)
        return stage.report("backfill_gate")

    report = gate()
    assert report["verdict"] == "WARNING"
    assert any("there is no plan" in reason for reason in report["reasons"])
    succeeded(stage, stage.copy())
    report = gate(stream_is_drained=True)
    assert report["figures"][0]["value"] == "closed"
    assert [reason for reason in report["reasons"] if "its reports begin at" in reason]
    stage.heard_all_day()
    report = gate()
    assert report["figures"][0]["value"] == "closed"
    assert report["reasons"][0] == "the state of the change stream no stream is unknown"
    report = gate(stream_is_drained=True)
    assert (report["verdict"], report["figures"][0]["value"]) == ("OK", "open"), report["reasons"]
    stage.heard(fallback_hits=2)
    report = gate(stream_is_drained=True)
    assert any("2 reads needed MySQL" in reason for reason in report["reasons"])
    assert stage.alerts() == []
