"""backfill as Airflow runs it: refused, approved, held back, shared by two runs, sampled; its gate. Its stores have a file of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dbops.backfill import preflight
from tests.lab import approval_kit, backfill_stage, worker
from tests.lab.backfill_stage import LIMITS, VIEW, Stage, failed, states, succeeded, tables_of

pytestmark = pytest.mark.lab

ROWS = 350


@pytest.fixture
def stage(tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    with backfill_stage.stage(tmp_path, run_dag, rows=ROWS) as made:
        yield made


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

    # A run that is refused does not report the plan of the one before.
    last, items = stage.html(), stage.items()
    assert "confirmation is 'rides'" in failed(stage, stage.copy(confirm="rides"), "look")
    assert stage.html() == last

    # Nor does a roll-back take what it cannot tell.
    plans = f"plans of {stage.name}: {stage.plan().plan_id}, {old.plan_id}"
    for conf, said in (
        ({}, f"plan_id is None; {plans}"),
        ({"plan_id": stage.plan().plan_id, "confirm": None}, "confirmation is None"),
        ({"plan_id": old.plan_id}, "was made under other rules"),
    ):
        assert said in failed(stage, stage.roll_back(**conf), "choose_plan"), conf
    assert stage.items() == items
    assert stage.plan().state == "verified"


# dag.test() waits for an answer for ever.
@pytest.mark.timeout(240, method="signal")
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


def test_outside_of_its_window_it_waits_without_a_worker(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    deferred = backfill_stage.watch_deferrals(monkeypatch)
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
    fell_silent = [stage.fell_silent(days=0.1), stage.fell_silent(days=3)]  # the older one may still serve reads
    report = gate(gone=[fell_silent[0], "nobody"])
    assert report["figures"][0]["value"] == "closed"
    assert report["reasons"][0] == "the state of the change stream no stream is unknown"
    (silent,) = [reason for reason in report["reasons"] if "fell silent" in reason]
    assert f"process {fell_silent[1]} fell silent at" in silent
    assert "name it as gone" in silent
    report = gate(stream_is_drained=True)
    assert sum("name it as gone" in reason for reason in report["reasons"]) == 2
    told = tables_of(report)["Applications in these days"][0][-1].split(", ")
    assert sorted(told) == sorted(fell_silent)
    report = gate(stream_is_drained=True, gone=told)
    assert (report["verdict"], report["figures"][0]["value"]) == ("OK", "open"), report["reasons"]
    stage.heard(fallback_hits=2)
    report = gate(stream_is_drained=True, gone=told)
    assert any("2 reads needed MySQL" in reason for reason in report["reasons"])
    assert stage.alerts() == []
