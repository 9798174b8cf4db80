"""Steps over a journal in a file and a store in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from dbops.backfill import sampling, steps, tables, verify
from dbops.backfill.brake import Held
from dbops.backfill.journal import Journal
from dbops.backfill.plan import Walk
from dbops.backfill.preflight import Preflight
from dbops.backfill.records import Compared, Plan, Tally
from dbops.backfill.roll_back import Remover
from dbops.backfill.services import StepError
from dbops.backfill.spec import Rejects, Verify
from dbops.backfill.target import ScanPage
from dbops.guardrails import Refused
from tests.backfill import steps_kit, verify_kit
from tests.backfill.journal_kit import NOW, Clock, some_chunks
from tests.backfill.steps_kit import SPEC, Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return steps_kit.stage(tmp_path, monkeypatch)


def test_a_roll_back_sweeps_and_closes_the_plan_when_every_chunk_is_rolled_back(stage: Stage) -> None:
    plan = stage.copied()
    stage.target.put(verify_kit.write(99, 1, stamp=plan.stamp))  # its row has gone since
    steps.begin_roll_back(stage.services, SPEC, plan.plan_id)
    assert (
        steps.end_roll_back(stage.services, SPEC, plan.plan_id, confirm=SPEC.name, stop=threading.Event()).plan
        is not None
    )
    assert stage.journal.plan(plan.plan_id).state == "abandoned"
    assert stage.target.read([verify_kit.key(99)]) != [None]

    stage.roll_back_chunks(plan.plan_id)
    found = steps.end_roll_back(stage.services, SPEC, plan.plan_id, confirm=SPEC.name, stop=threading.Event())
    assert found.plan is not None
    assert found.plan.state == "rolled_back"
    assert stage.target.read([verify_kit.key(99)]) == [None]


def test_what_a_sweep_removed_before_it_was_held_back_is_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = stage.copied()
    steps.begin_roll_back(stage.services, SPEC, plan.plan_id)
    stage.roll_back_chunks(plan.plan_id)
    for number in (98, 99):  # their rows have gone since
        stage.target.put(verify_kit.write(number, 1, stamp=plan.stamp))
    scan = stage.target.scan

    def held(segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage]:
        for page in scan(segment, segments, after):
            yield ScanPage(page.items[:1], page.next)
            raise Held("pause", "paused: incident")

    monkeypatch.setattr(stage.target, "scan", held)
    with pytest.raises(Held):
        steps.end_roll_back(stage.services, SPEC, plan.plan_id, confirm=SPEC.name, stop=threading.Event())
    monkeypatch.setattr(stage.target, "scan", scan)
    found = steps.end_roll_back(stage.services, SPEC, plan.plan_id, confirm=SPEC.name, stop=threading.Event())
    assert found.swept == 2
    assert stage.target.read([verify_kit.key(98), verify_kit.key(99)]) == [None, None]


@pytest.mark.parametrize(
    ("allowed", "ids"), [((), ["target_allowed"]), (("other",), ["target_allowed"]), (("ri*",), [])]
)
def test_a_dry_run_tells_that_the_target_is_not_on_the_allow_list(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, allowed: tuple[str, ...], ids: list[str]
) -> None:
    monkeypatch.setattr(steps.preflight, "check", lambda *_, **__: Preflight(()))
    services = replace(stage.services, allowed=allowed, allowed_where="extra dbops_backfill_allow")
    found = steps.look(services, SPEC)
    assert [each.id for each in found.findings] == ids
    assert not found.refusals, "a dry run may look at it"
    assert all("'rides' is not on the allow-list in extra dbops_backfill_allow" in str(each) for each in found.findings)


def test_the_plan_that_is_rolled_back_is_verified_no_more(stage: Stage) -> None:
    plan = stage.verified()
    assert steps.begin_roll_back(stage.services, SPEC, plan.plan_id) == [(0, 1), (1, 2)]
    assert stage.journal.plan(plan.plan_id).state == "abandoned"
    assert steps.begin_roll_back(stage.services, SPEC, plan.plan_id), "a repeated task goes on"


def test_a_newer_plan_that_found_its_items_equal_has_to_be_verified_again(stage: Stage) -> None:
    older = stage.verified(made_at=NOW)
    newer = stage.verified(made_at=NOW + timedelta(days=1))
    steps.begin_roll_back(stage.services, SPEC, older.plan_id)
    assert stage.journal.plan(newer.plan_id).state == "copied"
    stage.journal.set_state(newer.plan_id, "verified", expected=("copied",))  # while items were still being removed
    stage.roll_back_chunks(older.plan_id)
    steps.end_roll_back(stage.services, SPEC, older.plan_id, confirm=SPEC.name, stop=threading.Event())
    assert stage.journal.plan(newer.plan_id).state == "copied"
    assert stage.journal.plan(older.plan_id).state == "rolled_back"


def test_the_run_after_a_roll_back_copies_what_a_newer_plan_had_found_equal(stage: Stage) -> None:
    older = stage.verified(made_at=NOW)
    newer = stage.planned(made_at=NOW + timedelta(days=1))
    for tally in (Tally(read=10, equal=10), Tally(read=10, written=10)):
        chunk = stage.journal.claim(newer.plan_id, "worker", 60)
        assert chunk is not None
        stage.journal.finish(chunk, "worker", tally)
    steps.finish_copy(stage.services, newer.plan_id)
    stage.journal.set_state(newer.plan_id, "verified", expected=("copied",))
    steps.begin_roll_back(stage.services, SPEC, older.plan_id)
    stage.roll_back_chunks(older.plan_id)
    for _ in range(2):  # a task that is cleared does it once more
        steps.end_roll_back(stage.services, SPEC, older.plan_id, confirm=SPEC.name, stop=threading.Event())
        assert stage.journal.plan(newer.plan_id).state == "copying"
        left = stage.journal.chunks(newer.plan_id)
        assert sorted((each.state, each.tally.equal, each.tally.written) for each in left) == [
            ("done", 0, 10),
            ("planned", 0, 0),
        ]


def test_items_of_other_rules_are_not_looked_for_in_the_wrong_place(stage: Stage) -> None:
    plan = stage.copied(rule_digest="of another table")
    with pytest.raises(Refused, match="was made under other rules"):
        steps.begin_roll_back(stage.services, SPEC, plan.plan_id)
    assert stage.journal.plan(plan.plan_id).state == "copied"


@pytest.mark.parametrize("state", ["copied", "verified"])
def test_a_task_that_comes_when_others_have_copied_all_has_nothing_to_do(stage: Stage, state: str) -> None:
    plan = stage.copied() if state == "copied" else stage.verified()
    done = steps.copy_span(stage.services, SPEC, plan.plan_id, (0, 1), "late", confirm="rides", stop=threading.Event())
    assert (done.end, done.chunks) == ("done", 0)


@pytest.mark.parametrize(("rejected", "verdict"), [(1, "clean"), (2, "differences")])
def test_more_rows_in_mysql_alone_than_allowed_are_no_proof(stage: Stage, rejected: int, verdict: str) -> None:
    plan = stage.copied(1)
    spec = SPEC.model_copy(update={"rejects": Rejects(max_rows=1), "verify": Verify(reverse=False)})
    for part in steps.list_parts(stage.services, spec, plan, "full"):
        for number in range(part.first, part.end):
            stage.journal.add_classes(
                part.verification_id, Compared("forward", number, {"equal": 9}, rejected=rejected if number == 0 else 0)
            )
    assert steps.end_verification(stage.services, spec, plan) == verdict


def _parts(*, chunks: int = 0, strata: Sequence[str] = (), segments: int = 8, of: int = 8) -> list[Compared]:
    return [
        *(Compared("forward", number) for number in range(chunks)),
        *(Compared("sample", number, name=name) for number, name in enumerate(strata)),
        *(Compared("reverse", number, name=verify.segment_name(number, of)) for number in range(segments)),
    ]


@pytest.mark.parametrize(
    ("mode", "parts", "lacks"),
    [
        ("full", _parts(chunks=3), ""),
        ("full", _parts(chunks=2), "1 of 3 chunks"),
        ("full", _parts(chunks=3, segments=7), "1 of 8 segments"),
        ("full", _parts(chunks=3, segments=8, of=16), "8 of 8 segments"),
        ("sample", _parts(strata=sampling.STRATA), ""),
        ("sample", _parts(strata=[name for name in sampling.STRATA if name != "newest"]), "newest of the sample"),
        ("sample", _parts(strata=["repaired"]), "uniform, gaps"),
    ],
    ids=["whole", "tail", "segment", "other-segments", "sample", "stratum", "repaired"],
)  # fmt: skip
def test_a_verification_ends_when_all_was_compared(stage: Stage, mode: str, parts: list[Compared], lacks: str) -> None:
    plan = stage.copied(2)
    number = stage.journal.begin_verification(plan.plan_id, "dag/run", mode)
    for part in parts:
        stage.journal.add_classes(number, part)
    if lacks:
        with pytest.raises(StepError, match=lacks):
            steps.end_verification(stage.services, SPEC, plan)
    else:
        assert steps.end_verification(stage.services, SPEC, plan) == "clean"


def test_each_part_of_a_verification_is_kept_also_where_nothing_was_inserted(stage: Stage) -> None:
    for number in range(1, 21):
        stage.target.put(stage.rows.put(number, 1) or verify_kit.tombstone(number, 1))
    plan = stage.copied(2)
    for part in steps.list_parts(stage.services, SPEC, plan, "full"):
        steps.verify_part(stage.services, SPEC, plan, part, stop=threading.Event())
    assert steps.end_verification(stage.services, SPEC, plan) == "clean"


def test_two_specs_of_one_table_share_its_pace(stage: Stage) -> None:
    stop, services = threading.Event(), replace(stage.services, region="eu-west-1")
    named = SPEC.model_copy(update={"target": SPEC.target.model_copy(update={"region": "eu-west-1"})})
    one, other = (steps._bucket(services, spec, stop).resource for spec in (SPEC, named))
    assert one == other
    assert steps._bucket(replace(services, region="eu-central-1"), SPEC, stop).resource != one


def test_a_roll_back_waits_for_the_chunk_of_a_worker_that_died(stage: Stage) -> None:
    plan = stage.copied()
    steps.begin_roll_back(stage.services, SPEC, plan.plan_id)
    clock = Clock()
    journal = Journal(stage.services.pool, clock)
    assert journal.claim_roll_back(plan.plan_id, "dead", 60) is not None
    remover = Remover(stage.rows, stage.target, None, plan.stamp, verify_kit.Free(), wait=clock.move)
    remover.chunks(journal, plan.plan_id, "retried")
    assert journal.counts(plan.plan_id)["rolled_back"] == 2


def test_the_slower_of_two_runs_goes_on_with_the_plan_of_the_faster(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster: list[Plan] = []

    def walk(*_: object) -> Walk:
        faster.append(stage.planned(server_uuid="a-server"))
        return Walk(some_chunks(2), 20, 20, 20)

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(facts=lambda: None)

    monkeypatch.setattr(steps, "open_source", lambda *_: SimpleNamespace(view=None))
    monkeypatch.setattr(steps, "opened", opened)
    monkeypatch.setattr(steps, "_position", lambda _: "")
    monkeypatch.setattr(steps.mysql, "read_server", lambda _: SimpleNamespace(server_uuid="a-server"))
    monkeypatch.setattr(steps.planning, "walk", walk)
    for name, made in (("spread", None), ("measure", None), ("estimate", steps_kit.estimate(20))):
        monkeypatch.setattr(steps.estimates, name, lambda *_, made=made, **__: made)
    services = replace(stage.services, source=lambda: None, reader=lambda: None)
    found = steps.make_plan(services, SPEC)
    assert (found.plan.plan_id, found.is_resumed) == (faster[0].plan_id, True)


@pytest.mark.parametrize(("minutes", "expected"), [(-1, "abandoned"), (1, "copying")])
def test_only_a_plan_that_was_open_when_the_run_began_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, minutes: int, expected: str
) -> None:
    plan = stage.planned(made_at=NOW + timedelta(minutes=minutes), server_uuid="a-server")
    monkeypatch.setattr(steps, "open_source", lambda *_: SimpleNamespace(view=None))
    monkeypatch.setattr(steps, "_position", lambda _: "")
    monkeypatch.setattr(steps.mysql, "read_server", lambda _: SimpleNamespace(server_uuid="a-server"))
    monkeypatch.setattr(steps.planning, "walk", lambda *_: Walk([], 0, 0, 0))
    services = replace(stage.services, source=lambda: None, reader=lambda: None)
    if expected == "abandoned":
        with pytest.raises(StepError, match="has no row"):  # it walks the table for another one
            steps.make_plan(services, SPEC, abandon_before=NOW)
    else:
        assert steps.make_plan(services, SPEC, abandon_before=NOW).is_resumed
    assert stage.journal.plan(plan.plan_id).state == expected


def test_the_gate_is_shut_by_a_roll_back_under_way_and_by_a_process_that_is_silent_for_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = stage.verified(made_at=NOW)
    stage.verified(made_at=NOW + timedelta(days=1))
    silent_since = datetime.now(UTC) - timedelta(days=90)
    row = {
        "spec": "rides", "application": "shop", "instance": "host-1", "counts": {"hits": 1, "fallback_hits": 0}, "is_last": False,
        "counted_from": (silent_since - timedelta(minutes=1)).replace(tzinfo=None), "counted_to": silent_since.replace(tzinfo=None),
    }  # fmt: skip
    with stage.journal.engine.begin() as connection:
        connection.execute(sa.insert(tables.COUNTER), row)
    monkeypatch.setattr(steps.liveness, "stream_state", lambda *_: None)
    services = replace(stage.services, aws=lambda _: None)
    shut = steps.decide_gate(services, SPEC)[0].reasons
    assert [each for each in shut if "host-1 fell silent" in each]
    assert not [each for each in shut if "being rolled back" in each]
    steps.begin_roll_back(stage.services, SPEC, older.plan_id)
    stage.roll_back_chunks(older.plan_id)
    shut = steps.decide_gate(services, SPEC, gone=["host-1"])[0].reasons
    assert f"plan {older.plan_id} is being rolled back" in shut
    assert not [each for each in shut if "host-1 fell silent" in each]
