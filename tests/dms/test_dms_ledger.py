"""The ledger: repeated calls change nothing, two runs at once leave one winner, a failure counts once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops import connections
from dbops.dms import states
from dbops.dms.ledger import QUIET, VERSION_TABLE, Claimed, Ledger, LedgerError, failure_id
from dbops.dms.mappings import Table
from tests.dms import dms_kit

NOW = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
RIDES, PAYMENTS = Table("shop", "rides"), Table("shop", "payments")
TABLES = ("claim", "event", "plan", "step", "checkpoint", "restart", "table_failure", "comparison")


@dataclass(frozen=True)
class Comparison:
    table: Table
    status: str
    source_rows: int | None = None
    target_rows: int | None = None
    missing: int | None = None
    extra: int | None = None
    differing: int | None = None
    sample: tuple[str, ...] = ()
    reason: str = ""


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.lab)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with its tables: on SQLite, and on the lab's store."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db") if request.param == "sqlite" else connections.engine()
    yield Ledger.open(engine, lambda: NOW)
    if request.param == "mysql":
        with engine.begin() as connection:
            for table in TABLES:
                connection.execute(sa.text(f"DELETE FROM dms_{table} WHERE spec LIKE 't-ledger%'"))
    engine.dispose()


@pytest.fixture
def spec() -> str:
    return f"t-ledger-{uuid.uuid4().hex}"


def task(**more: Any) -> states.Task:
    return states.task(dms_kit.task_row(**more))


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returned or raised, all of them begun at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(30)
        try:
            return call()
        except LedgerError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


# The tables ---------------------------------------------------------------------------------------------------------


def test_the_tables_are_made_once(ledger: Ledger) -> None:
    seen: list[str] = []
    sa.event.listen(ledger.engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    Ledger.open(ledger.engine)
    assert len(seen) == 1
    assert {f"dms_{table}" for table in TABLES} | {VERSION_TABLE} <= set(sa.inspect(ledger.engine).get_table_names())


@pytest.mark.parametrize("lost", [(), ("comparison",), TABLES])
def test_a_killed_migration_continues(tmp_path: Path, lost: tuple[str, ...]) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db")
    Ledger.open(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM {VERSION_TABLE}"))
        for table in lost:
            connection.execute(sa.text(f"DROP TABLE dms_{table}"))
    assert Ledger.open(engine).note("s", "r", "decision", "it ran") == 1


# Claims -------------------------------------------------------------------------------------------------------------


def test_one_run_works_on_a_spec_and_others_are_told_who(ledger: Ledger, spec: str) -> None:
    until = NOW + timedelta(minutes=30)
    ledger.claim(spec, "watch/1", until, NOW)
    with pytest.raises(Claimed, match=r"watch/1 until 2026-05-01 12:30:00 UTC") as refused:
        ledger.claim(spec, "control/2", until, NOW)
    assert refused.value.run == "watch/1"
    ledger.claim(f"{spec}-other", "control/2", until, NOW)


def test_the_same_run_renews_its_claim(ledger: Ledger, spec: str) -> None:
    ledger.claim(spec, "watch/1", NOW + timedelta(minutes=1), NOW)
    ledger.claim(spec, "watch/1", NOW + timedelta(minutes=1), NOW)
    ledger.claim(spec, "watch/1", NOW + timedelta(minutes=20), NOW + timedelta(minutes=2))
    with pytest.raises(Claimed):
        ledger.claim(spec, "control/2", NOW + timedelta(hours=1), NOW + timedelta(minutes=19))


def test_an_expired_claim_is_taken_over_and_its_old_run_cannot_release_it(ledger: Ledger, spec: str) -> None:
    expiry = NOW + timedelta(minutes=1)
    ledger.claim(spec, "watch/1", expiry, NOW)
    ledger.claim(spec, "control/2", expiry + timedelta(hours=1), expiry)
    ledger.release_claim(spec, "watch/1")
    with pytest.raises(Claimed, match="control/2"):
        ledger.claim(spec, "watch/1", expiry + timedelta(hours=1), expiry)
    ledger.release_claim(spec, "control/2")
    ledger.release_claim(spec, "control/2")
    ledger.claim(spec, "watch/1", expiry + timedelta(hours=1), expiry)


def test_a_claim_has_to_last(ledger: Ledger, spec: str) -> None:
    with pytest.raises(ValueError, match="is not after now"):
        ledger.claim(spec, "watch/1", NOW, NOW)


@pytest.mark.parametrize("before", ["free", "expired"])
def test_of_two_runs_at_once_one_wins(ledger: Ledger, spec: str, before: str) -> None:
    for number in range(5):
        name = f"{spec}-{number}"
        if before == "expired":
            ledger.claim(name, "watch/0", NOW - timedelta(minutes=1), NOW - timedelta(minutes=2))
        until = NOW + timedelta(minutes=1)
        told = at_once(*(partial(ledger.claim, name, run, until, NOW) for run in "abcd"))
        assert [type(one) for one in told if one is not None] == [Claimed] * 3
        winner = "abcd"[told.index(None)]
        assert {one.run for one in told if one is not None} == {winner}


# Events -------------------------------------------------------------------------------------------------------------


def test_an_event_of_a_run_is_entered_once_and_the_newest_comes_first(ledger: Ledger, spec: str) -> None:
    first = ledger.note(spec, "watch/1", "decision", "wait: it loads", document={"status": "running", "at": NOW})
    assert ledger.note(spec, "watch/1", "decision", "wait: it loads") == first
    second = ledger.note(spec, "watch/1", "failure", "no row", subject=str(RIDES))
    assert ledger.note(spec, "watch/2", "decision", "wait: it loads") > second > first
    found = ledger.events(spec, 2)
    assert [event.run for event in found] == ["watch/2", "watch/1"]
    assert (found[1].subject, found[1].kind, found[1].reason, found[1].at) == ("shop.rides", "failure", "no row", NOW)
    assert ledger.events(spec)[-1].document == {"status": "running", "at": str(NOW)}
    assert ledger.count_events(spec) == 3


def test_an_event_of_two_tries_at_once_is_one(ledger: Ledger, spec: str) -> None:
    ids = at_once(*[lambda: ledger.note(spec, "watch/1", "decision", "start")] * 4)
    assert len(set(ids)) == ledger.count_events(spec) == 1


def test_no_secret_is_kept(ledger: Ledger, spec: str) -> None:
    ledger.note(spec, "r", "failure", "cannot connect: password=hunter2", document={"password": "hunter2"})
    ledger.table_failed(spec, RIDES, "mysql://dms:hunter2@db.example.com/shop", NOW)
    kept = repr(ledger.events(spec)) + repr(ledger.failing(spec))
    assert "hunter2" not in kept
    assert kept.count("***") == 3


def test_what_a_run_goes_on_from_is_kept_as_it_is(ledger: Ledger, spec: str) -> None:
    document = {"steps": [{"SecretsManagerSecretId": dms_kit.SECRET, "settings": '{"token": "t"}'}]}
    ledger.keep_plan("r", spec, document)
    ledger.step("r", spec, 0, "noted", {"token": "canary-1"})
    ledger.step("r", spec, 0, "done", {"password_of": "nothing"})
    assert ledger.plan("r", spec) == document
    assert ledger.steps("r", spec)[0]["document"] == {"token": "canary-1", "password_of": "nothing"}


def test_documents_hold_what_json_lacks(ledger: Ledger, spec: str) -> None:
    statistics = states.table_statistics(dms_kit.table_row())
    ledger.note(
        spec, "r", "decision", "start", document={"ratio": float("nan"), "table": RIDES, "statistics": statistics}
    )
    (event,) = ledger.events(spec)
    assert event.document["ratio"] is None
    assert event.document["table"] == ["shop", "rides"]
    assert event.document["statistics"]["state"] == "Table completed"


# Plans and steps ----------------------------------------------------------------------------------------------------


def test_a_plan_can_be_replaced_until_a_step_of_it_is_noted(ledger: Ledger, spec: str) -> None:
    assert ledger.plan("r", spec) is None
    ledger.keep_plan("r", spec, {"steps": ["create"]})
    ledger.keep_plan("r", spec, {"steps": ["start"]})
    ledger.step("r", spec, 0, "noted")
    ledger.keep_plan("r", spec, {"steps": ["start"]})
    with pytest.raises(LedgerError, match="run r has begun another plan"):
        ledger.keep_plan("r", spec, {"steps": ["delete"]})
    assert ledger.plan("r", spec) == {"steps": ["start"]}
    assert ledger.plan("other", spec) is None
    ledger.keep_plan("other", spec, {"steps": ["delete"]})


def test_a_step_keeps_what_was_noted_first_and_is_done_once(ledger: Ledger, spec: str) -> None:
    ledger.step("r", spec, 1, "noted", {"load_started_at": "before"})
    ledger.step("r", spec, 1, "noted", {"load_started_at": "a killed run looked again"})
    ledger.step("r", spec, 0, "done", {"arn": "a"})
    assert list(ledger.steps("r", spec)) == [0, 1]
    assert ledger.steps("r", spec)[1] == {
        "state": "noted", "document": {"load_started_at": "before"}, "noted_at": NOW, "done_at": None,
    }  # fmt: skip
    ledger.step("r", spec, 1, "done", {"rows": 5})
    ledger.step("r", spec, 1, "done", {"rows": 6})
    ledger.step("r", spec, 1, "noted")
    found = ledger.steps("r", spec)[1]
    assert (found["state"], found["document"], found["done_at"]) == (
        "done",
        {"load_started_at": "before", "rows": 5},
        NOW,
    )
    assert ledger.steps("r", f"{spec}-other") == {}


# Checkpoints and restarts -------------------------------------------------------------------------------------------


def test_the_last_checkpoint_is_the_newest_that_there_was(ledger: Ledger, spec: str) -> None:
    assert ledger.last_checkpoint(spec) == ""
    statistics = [states.table_statistics(dms_kit.table_row(FullLoadStartTime=NOW))]
    ledger.save_checkpoint(spec, task(RecoveryCheckpoint="checkpoint:2"), statistics, NOW)
    ledger.save_checkpoint(spec, task(RecoveryCheckpoint="checkpoint:9"), None, NOW)
    ledger.save_checkpoint(spec, task(RecoveryCheckpoint="checkpoint:1"), None, NOW - timedelta(hours=1))
    ledger.save_checkpoint(spec, task(RecoveryCheckpoint=""), (), NOW + timedelta(hours=1))
    assert ledger.last_checkpoint(spec) == "checkpoint:2"
    with ledger.engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT task, statistics FROM dms_checkpoint WHERE spec = :spec ORDER BY saved_at"), {"spec": spec}
        ).all()
    assert [row.task for row in rows] == ["shop-orders"] * 3
    assert rows[0].statistics is None
    assert '"shop.orders"' in rows[1].statistics
    assert str(NOW) in rows[1].statistics


def test_restarts_are_counted_in_a_row_at_one_checkpoint(ledger: Ledger, spec: str) -> None:
    for minute, checkpoint in enumerate(["a", "a", "b", "a", "a"]):
        ledger.restarted(spec, checkpoint, NOW + timedelta(minutes=minute))
        ledger.restarted(spec, checkpoint, NOW + timedelta(minutes=minute))
    assert [ledger.restarts(spec, one) for one in ("a", "b", "c")] == [2, 0, 0]
    assert ledger.restarts(f"{spec}-other", "a") == 0
    for minute in (10, 11):
        ledger.restarted(spec, "", NOW + timedelta(minutes=minute), restart_id="watch/1#2")
    assert ledger.restarts(spec, "") == 1


# Tables that fail ---------------------------------------------------------------------------------------------------


def failed(began: datetime | None = NOW, **more: Any) -> states.TableStatistics:
    return states.table_statistics(dms_kit.table_row("rides", "Table error", FullLoadStartTime=began, **more))


def test_a_failure_is_told_by_its_state_and_the_load_in_which_it_came() -> None:
    first, later = failed(), failed(NOW + timedelta(minutes=1))
    assert failure_id(first) == failure_id(failed(FullLoadErrorRows=7, LastUpdateTime=NOW + timedelta(hours=1)))
    assert failure_id(first) == failure_id(failed(NOW.astimezone(timezone(timedelta(hours=2)))))
    assert failure_id(first) != failure_id(later)
    started = [task(ReplicationTaskStats={"StartDate": NOW + timedelta(hours=hours)}) for hours in (0, 1)]
    assert len({failure_id(failed(None), one) for one in started}) == 2
    assert len({failure_id(failed(), one) for one in started}) == 1
    assert failure_id(failed(None)) == "Table error since ever"


def test_ten_looks_at_one_failure_count_once(ledger: Ledger, spec: str) -> None:
    for minute in range(10):
        seen = NOW + timedelta(minutes=minute)
        assert ledger.table_failed(spec, RIDES, "Table error", seen, failure_id=failure_id(failed())) == 1
    assert ledger.quarantined(spec, 2) == ()
    again = failed(NOW + timedelta(hours=1))
    assert ledger.table_failed(spec, RIDES, "once more", NOW + timedelta(hours=1), failure_id=failure_id(again)) == 2
    assert ledger.table_failed(spec, RIDES, "a late look", NOW, failure_id=failure_id(failed())) == 2
    assert ledger.table_failed(spec, PAYMENTS, "other", NOW) == 1
    assert ledger.quarantined(spec, 2) == (RIDES,)
    assert ledger.quarantined(spec, 1) == (PAYMENTS, RIDES)
    worst, _ = ledger.failing(spec)
    assert (worst.table, worst.failures, worst.reason) == (RIDES, 2, "once more")


def test_two_runs_that_see_one_failure_count_it_once(ledger: Ledger, spec: str) -> None:
    told = at_once(*[lambda: ledger.table_failed(spec, RIDES, "Table error", NOW, failure_id="one")] * 4)
    assert told == [1] * 4


def test_without_an_id_each_time_is_a_failure(ledger: Ledger, spec: str) -> None:
    for minute in (0, 0, 1):
        count = ledger.table_failed(spec, RIDES, "rows differ", NOW + timedelta(minutes=minute))
    assert count == 2


def test_a_loaded_table_begins_anew(ledger: Ledger, spec: str) -> None:
    ledger.table_failed(spec, RIDES, "x", NOW, failure_id="one")
    ledger.table_failed(spec, PAYMENTS, "x", NOW, failure_id="one")
    ledger.table_loaded(spec, RIDES)
    ledger.table_loaded(spec, RIDES)
    assert ledger.quarantined(spec, 1) == (PAYMENTS,)
    assert ledger.table_failed(spec, RIDES, "x", NOW, failure_id="two") == 1


def test_a_table_that_loads_and_fails_right_after_fails_in_a_row(ledger: Ledger, spec: str) -> None:
    ledger.table_failed(spec, RIDES, "x", NOW, failure_id="one")
    ledger.table_loaded(spec, RIDES, NOW + QUIET - timedelta(seconds=1))
    assert ledger.table_failed(spec, RIDES, "x", NOW, failure_id="two") == 2
    ledger.table_loaded(spec, RIDES, NOW + QUIET)
    assert ledger.quarantined(spec, 1) == ()
    ledger.table_loaded(spec, PAYMENTS, NOW)


def test_a_released_table_is_free_until_it_fails_anew(ledger: Ledger, spec: str) -> None:
    for number in range(3):
        ledger.table_failed(spec, RIDES, "x", NOW, failure_id=str(number))
    ledger.release(spec, RIDES, "anna")
    ledger.release(spec, RIDES, "ben")
    assert ledger.table_failed(spec, RIDES, "still seen", NOW, failure_id="2") == 0
    assert ledger.quarantined(spec, 1) == ()
    assert ledger.table_failed(spec, RIDES, "x", NOW, failure_id="3") == 1
    (event,) = ledger.events(spec)
    assert (event.kind, event.subject, event.run) == ("release", "shop.rides", "anna")
    assert "anna released it" in event.reason
    assert "3 failures" in event.reason


# Comparisons --------------------------------------------------------------------------------------------------------


def test_a_table_differs_until_it_is_found_equal(ledger: Ledger, spec: str) -> None:
    found = [
        Comparison(RIDES, "differ", 10, 8, 2, 0, 0, ("id=4", "id=7"), "2 rows are missing"),
        Comparison(PAYMENTS, "equal", 5, 5, 0, 0, 0),
    ]
    ledger.save_comparison(spec, found, NOW)
    ledger.save_comparison(spec, [Comparison(RIDES, "equal")], NOW)
    assert ledger.differing(spec) == (RIDES,)
    ledger.save_comparison(spec, [Comparison(RIDES, "unsettled", reason="writes go on")], NOW + timedelta(minutes=1))
    assert ledger.differing(spec) == (RIDES,)
    assert ledger.differing(spec, {RIDES: NOW + timedelta(seconds=1)}) == ()
    assert ledger.differing(spec, {RIDES: NOW - timedelta(seconds=1), PAYMENTS: NOW}) == (RIDES,)
    ledger.save_comparison(spec, [Comparison(RIDES, "equal", 10, 10, 0, 0, 0)], NOW + timedelta(minutes=2))
    assert ledger.differing(spec) == ()
    assert ledger.differing(f"{spec}-other") == ()


def test_old_events_go_and_what_counts_stays(tmp_path: Path) -> None:
    """On a file of its own: it would prune what another lab test has just written."""
    clock = [NOW]
    ledger = Ledger.open(sa.create_engine(f"sqlite:///{tmp_path}/store.db"), lambda: clock[0])
    for spec, at in (("old", NOW), ("new", NOW + timedelta(days=2))):
        clock[0] = at
        ledger.note(spec, "r", "decision", "start")
        ledger.keep_plan("r", spec, {"steps": []})
        ledger.step("r", spec, 0, "noted")
        ledger.table_failed(spec, RIDES, "x", at, failure_id="one")
        ledger.table_failed(spec, PAYMENTS, "x", at, failure_id="one")
        ledger.table_loaded(spec, PAYMENTS)
        ledger.save_comparison(spec, [Comparison(RIDES, "differ")], at)
        ledger.save_checkpoint(spec, task(RecoveryCheckpoint="checkpoint:2"), None, at)
    assert ledger.prune(NOW + timedelta(days=1)) == 4
    assert ledger.prune(NOW + timedelta(days=1)) == 0
    assert [ledger.count_events(spec) for spec in ("old", "new")] == [0, 1]
    assert (ledger.plan("r", "old"), ledger.steps("r", "old")) == (None, {})
    assert list(ledger.steps("r", "new")) == [0]
    assert ledger.quarantined("old", 1) == ledger.differing("old") == (RIDES,)
    assert ledger.last_checkpoint("old") == "checkpoint:2"


# Many specs at once


def test_many_specs_are_claimed_at_once_but_those_of_another_run(ledger: Ledger, spec: str) -> None:
    free, taken, expired, mine = specs = [f"{spec}-{word}" for word in ("free", "taken", "expired", "mine")]
    later = NOW + timedelta(hours=1)
    ledger.claim(taken, "watch/other", later, NOW)
    ledger.claim(expired, "watch/other", NOW - timedelta(minutes=1), NOW - timedelta(hours=1))
    ledger.claim(mine, "watch/one", NOW + timedelta(minutes=1), NOW)
    refused = ledger.claim_many(specs, "watch/one", later, NOW)
    assert {name: (error.run, error.until) for name, error in refused.items()} == {taken: ("watch/other", later)}
    for name in (free, expired, mine):
        with pytest.raises(Claimed, match="watch/one until 2026-05-01 13:00:00"):
            ledger.claim(name, "watch/third", later, NOW)
    ledger.release_claims(specs, "watch/one")
    assert list(ledger.claim_many(specs, "watch/third", later, NOW)) == [taken]
    assert ledger.claim_many([], "watch/one", later, NOW) == {}


def test_two_runs_that_claim_many_at_once_share_them_out(ledger: Ledger, spec: str) -> None:
    specs = [f"{spec}-{number}" for number in range(20)]
    start = threading.Barrier(2)

    def claim(run: str) -> set[str]:
        start.wait()
        return {*specs} - {*ledger.claim_many(specs, run, NOW + timedelta(hours=1), NOW)}

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(claim, ("watch/one", "watch/other"))
    assert one | other == {*specs}
    assert not one & other


def test_plans_of_many_are_kept_at_once_and_again(ledger: Ledger, spec: str) -> None:
    specs = [f"{spec}-{number}" for number in range(3)]
    plans = {name: ({"decision": {"action": "none"}, "of": name}, f"none, {name}") for name in specs}
    ledger.keep_plans("watch/one", plans)
    ledger.step("watch/one", specs[0], 0, "noted", {"a": 1})
    ledger.keep_plans("watch/one", plans)
    assert ledger.plans("watch/one", specs) == {name: document for name, (document, _) in plans.items()}
    assert [one.reason for name in specs for one in ledger.events(name)] == [f"none, {name}" for name in specs]
    assert list(ledger.steps_of("watch/one", specs)) == [specs[0]]
    assert ledger.steps_of("watch/one", specs)[specs[0]] == ledger.steps("watch/one", specs[0])
    changed = {name: ({**document, "of": "other"}, reason) for name, (document, reason) in plans.items()}
    with pytest.raises(LedgerError, match="has begun another plan"):
        ledger.keep_plans("watch/one", changed)


def test_what_is_recalled_of_many_is_what_each_has(ledger: Ledger, spec: str) -> None:
    specs = [f"{spec}-{number}" for number in range(3)]
    first, second, _ = specs
    for number in range(3):
        ledger.table_failed(first, RIDES, "Table error", NOW, failure_id=str(number))
        ledger.restarted(second, "here", NOW + timedelta(seconds=number))
    ledger.table_failed(second, PAYMENTS, "Table error", NOW)
    ledger.save_comparison(first, [Comparison(PAYMENTS, "differ"), Comparison(RIDES, "differ")], NOW)
    ledger.save_comparison(first, [Comparison(RIDES, "equal")], NOW + timedelta(hours=1))
    ledger.save_comparison(second, [Comparison(RIDES, "unsettled")], NOW + timedelta(hours=1))
    recall = ledger.recall(specs)
    for name in specs:
        assert recall.quarantined(name, 2) == ledger.quarantined(name, 2)
        assert recall.failing.get(name, ()) == ledger.failing(name)
        began = {PAYMENTS: NOW + timedelta(seconds=1)}
        assert recall.differing(name) == ledger.differing(name)
        assert recall.differing(name, began) == ledger.differing(name, began)
        assert recall.last_compared.get(name) == max(ledger.compared(name).values(), default=None)
        for checkpoint in ("here", "there", ""):
            assert recall.restarts(name, checkpoint) == ledger.restarts(name, checkpoint)
    assert (recall.quarantined(first, 3), recall.differing(first)) == ((RIDES,), (PAYMENTS,))
    assert recall.restarts(second, "here") == 3


def test_events_of_one_kind_since_a_moment(ledger: Ledger, spec: str) -> None:
    for number, kind in enumerate(("alert", "decision", "alert")):
        ledger.clock = partial(lambda minutes: NOW + timedelta(minutes=minutes), number)
        ledger.note(spec, f"watch/{number}", kind, "a reason")
    assert [one.run for one in ledger.events(spec, kind="alert")] == ["watch/2", "watch/0"]
    assert [one.run for one in ledger.events(spec, kind="alert", since=NOW)] == ["watch/2"]
