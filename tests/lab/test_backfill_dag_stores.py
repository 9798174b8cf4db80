"""backfill on each of its stores, as Airflow runs it: a dry run, a copy, its proof, repair and roll-back; paused, killed and repeated."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dbops.backfill import brake
from dbops.backfill.journal import Journal
from tests.lab import backfill_stage, worker
from tests.lab.backfill_stage import LIMITS, Stage, failed, succeeded, tables_of
from tests.lab.worker import Kill

pytestmark = pytest.mark.lab

ROWS = 350
# Where a worker dies, and whether the store has rows then of which the journal does not know.
KILLS = [
    ("dynamodb", Kill("dbops.backfill.journal:Journal.finish", "after", nth=2), False),
    ("hash", Kill("dbops.backfill.redis_target:RedisTarget.write", "after", nth=3), True),
]


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    with backfill_stage.stage(tmp_path, run_dag, request.param, rows=ROWS) as made:
        yield made


def on(*stores: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", stores, indirect=True)


@on("dynamodb", "hash")
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


@on("dynamodb", "hash", "string")
def test_a_copy_is_whole_and_proven_repeated_without_a_change_and_rolled_back(stage: Stage) -> None:
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

    stage.execute("UPDATE {s}.rides SET price = 1 WHERE id = 1", "DELETE FROM {s}.rides WHERE id = 2")
    succeeded(stage, stage.run("backfill_roll_back", plan_id=first.plan_id))
    assert stage.items() == before
    assert stage.report("backfill_roll_back")["verdict"] == "DRY_RUN"

    mine = stage.written_by_an_application(3, 4)
    succeeded(stage, stage.roll_back(plan_id=first.plan_id))
    assert stage.items() == mine
    report = stage.report("backfill_roll_back")
    assert report["verdict"] == "OK", report["reasons"]
    assert [each["value"] for each in report["figures"]][:2] == [str(ROWS - 2), "1"]  # the tombstone has no row
    # What the second one had found equal is gone: its proof holds no more, and the next run copies it again.
    assert [stage.journal.plan(each.plan_id).state for each in (first, second)] == ["rolled_back", "copying"]
    assert stage.journal.counts(second.plan_id)["planned"] == second.chunks


@on("string")
def test_a_pause_in_the_middle_keeps_the_checkpoint_and_frees_the_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    deferred, seen = backfill_stage.watch_deferrals(monkeypatch), dict[str, Any]()
    monkeypatch.setattr(brake, "CHECK_EVERY_S", 0)  # a pause holds from the next page on
    stage.declare(limits=LIMITS | {"page_rows": 10, "chunk_rows": 2 * ROWS})

    keep = Journal.checkpoint

    def checkpoint(journal: Journal, *arguments: Any, **named: Any) -> Any:
        kept = keep(journal, *arguments, **named)
        if not deferred:
            journal.pause(stage.name, "incident", "dba")
        return kept

    def person() -> None:
        stage.until(lambda: deferred, "a deferral")
        journal, plan_id = stage.journal, stage.plan().plan_id
        seen.update(leases=journal.live_leases(plan_id), tally=journal.tally(plan_id), events=stage.events("pause"))
        journal.unpause(stage.name)

    monkeypatch.setattr(Journal, "checkpoint", checkpoint)
    one = Thread(target=person, daemon=True)
    one.start()
    run = stage.copy()
    one.join(30)
    succeeded(stage, run)
    assert 0 < seen["tally"].read < ROWS
    assert seen["leases"] == 0
    assert "incident" in seen["events"][0]
    assert set(deferred) == {"pause"}
    (chunk,) = stage.journal.chunks(stage.plan().plan_id)
    assert (chunk.attempt, chunk.tally.read, chunk.tally.written) == (2, ROWS, ROWS), "no row was read once more"
    assert stage.versions() == dict(stage.rows())


@pytest.mark.parametrize(
    ("stage", "kill", "is_within"), KILLS, ids=["between two chunks", "within a chunk"], indirect=["stage"]
)
def test_a_worker_that_is_killed_is_followed_by_a_run_that_does_the_rest(
    stage: Stage, kill: Kill, is_within: bool
) -> None:
    stage.run()  # so that the DAG is in the metadata database
    process = worker.start(backfill_stage.run_in_worker, "backfill", stage.asked(), kill=kill)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    plan = stage.plan()
    before = {each.number: each for each in stage.journal.chunks(plan.plan_id)}
    kept, there = stage.journal.tally(plan.plan_id), len(stage.items())
    assert {each.state for each in before.values()} == {"done", "planned"}
    assert (there > kept.read) is is_within
    stage.lapse()
    succeeded(stage, stage.copy())
    assert stage.plan().plan_id == plan.plan_id
    for each in stage.journal.chunks(plan.plan_id):
        was = before[each.number]
        assert each.attempt == was.attempt + (was.state == "planned")
        assert each.tally == was.tally or was.state == "planned"
    tally = stage.journal.tally(plan.plan_id)
    assert (tally.read, tally.equal, tally.written) == (ROWS, there - kept.read, ROWS - there + kept.read)
    assert stage.versions() == dict(stage.rows())


@on("dynamodb", "hash", "string")
def test_each_kind_of_fault_is_found_and_what_can_be_is_repaired(stage: Stage) -> None:
    succeeded(stage, stage.copy())
    stage.target.remove(1)
    stage.execute("UPDATE {s}.rides SET price = 7 WHERE id IN (2, 6)")  # of which the store does not hear
    stage.edit(3, price="99")
    stage.edit(4, without="_v")
    stage.execute("DELETE FROM {s}.rides WHERE id = 5")
    stage.edit(7, _v="3")
    by_hand = {"converter": 1, "unversioned": 1, "extra": 1, "ahead": 1}
    wrong = {"missing": 1, "source_newer": 2, **by_hand}

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
    assert differing() == by_hand
    rows, now = dict(stage.rows()), stage.items()
    assert [stage.target.text(now[key]["_v"]) for key in (1, 2, 6, 7)] == [*(str(rows[key]) for key in (1, 2, 6)), "3"]
    assert now[3]["price"] == stage.target.value("price", "99")
    (event,) = stage.events("repair")
    for advice in (
        "3 written, 0 buried, 0 settled",
        "the item lives without a row",
        "find who converts differently",
        "raise the row's version in MySQL above it",
        "find who writes it",
    ):
        assert advice in event

    # A person does the rest.
    stage.target.remove(4)
    stage.execute(*["UPDATE {s}.rides SET note = 'again' WHERE id IN (3, 7)"] * 3)
    succeeded(stage, stage.verify(repair=True, bury_extra=True))
    assert differing() == {}
    assert "_deleted" in stage.items()[5]
    assert stage.items()[3]["price"] != stage.target.value("price", "99")
    assert stage.versions() == {**dict(stage.rows()), 5: 1}
    assert stage.report()["verdict"] == "OK", stage.report()["reasons"]
