"""Purged rows that the lake does not give back any more: named, never closed over in silence, and never a plan that stays open for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import archive_kit
import archive_source
import pytest
from archive_kit import COLD, RUN_AFTER
from archive_source import COLUMNS, Source, abandon, purge_all, restored, stop_midway

from dbops import guardrails
from dbops.archive import ledger, restore, steps, summary, verify
from dbops.archive.restore import RestoreError
from dbops.reports import Verdict

pytestmark = pytest.mark.lab

EVERYTHING = restore.Selection()


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """A filled source; parametrize it indirectly with {"conn_id": ..., "purge": {...}}."""
    with archive_source.filled(dict(getattr(request, "param", {}))) as source:
        yield source


def in_lake(source: Source) -> str:
    return f'lake."{source.bench.namespace}".t'


def accept(source: Source, plan_id: str | None = None, *, give_up: bool = False) -> Any:
    """What a run does first whose accept_loss names the plan."""
    return steps.settle_open_plan(
        source.services, source.spec, abandon_open=give_up, accept_loss=plan_id or source.plan_id
    )


def losses(source: Source) -> list[str]:
    with closing(source.services.source()) as conn:
        return [e.message for e in ledger.Ledger(conn).events(source.plan_id) if e.stage == "loss"]


def purged_batch(source: Source) -> list[int]:
    """The ids of the first batch, which is purged."""
    table = in_lake(source)
    return [
        r[0] for r in source.bench.trino(f'SELECT id FROM {table} WHERE "_archive_chunk" = 0 AND "_archive_batch" = 0')
    ]


# -- rows that somebody deleted or changed in the lake ----------------------------------------------------------------------------


def test_purged_rows_that_vanish_from_the_lake_are_named_and_closed_only_by_hand(source: Source) -> None:
    source.to("purge")
    ids = purged_batch(source)
    source.bench.trino(f'DELETE FROM {in_lake(source)} WHERE "_archive_chunk" = 0 AND "_archive_batch" = 0')
    for _ in range(2):
        found = steps.reconcile(source.services, source.plan_id)
        assert not found.closed
        (problem,) = found.problems
        assert (
            f"{len(ids)} purged rows are missing from lake.{source.bench.namespace}.t, by chunk {{0: {len(ids)}}}"
            in problem
        )
        assert "roll it forward before it expires" in problem
        assert f"accept_loss: {source.plan_id}" in problem
        assert "No row is lost" not in problem
        assert summary.judge(source.spec, found, purging=True)[0] is Verdict.FAILED
    with pytest.raises(ledger.LedgerError, match="no archive plan 'another'"):
        accept(source, "another")
    loss = accept(source)
    assert loss.standing.missing == {0: len(ids)}
    assert source.plans() == ["done"]
    assert losses(source) == [f"{len(ids)} purged rows are missing, by chunk {{0: {len(ids)}}}; accepted"]
    report = summary.loss_report(source.spec, loss, {"dag_id": "d", "run_id": "r", "provenance": "real AWS"})
    assert report.verdict is Verdict.FAILED
    assert report.sections[0].rows[0][0] == 0
    assert report.sections[0].rows[0][3] == len(ids)
    # The same run, killed before its report, tells it once more; another run is told to leave the parameter empty.
    assert accept(source).standing.missing == {0: len(ids)}
    assert len(losses(source)) == 1
    with pytest.raises(guardrails.Refused, match="that is done; it must name the open plan"):
        steps.settle_open_plan(
            archive_kit.services(run="another", purge_allowed=()), source.spec, accept_loss=source.plan_id
        )
    # Later runs go on, and what is left can be read.
    source.bench.sql("INSERT INTO t (id, day) VALUES (1, '2026-01-15'), (2, '2026-01-15')")
    source.to("reconcile")
    assert source.plans() == ["done", "done"]


def test_purged_rows_that_were_changed_in_the_lake_are_not_taken_for_whole(source: Source) -> None:
    source.to("purge")
    source.bench.trino(
        f'UPDATE {in_lake(source)} SET note = \'anonymous\' WHERE "_archive_chunk" = 0 AND "_archive_batch" = 0'
    )
    found = steps.reconcile(source.services, source.plan_id)
    assert not found.closed
    assert "other values" in found.problems[0]
    assert "in chunks [0]" in found.problems[0]
    assert accept(source).standing.changed.keys() == {0}
    assert source.plans() == ["done"]


def test_a_dropped_column_is_a_loss(source: Source) -> None:
    source.to("purge")
    source.bench.trino(f"ALTER TABLE {in_lake(source)} DROP COLUMN note")
    found = steps.reconcile(source.services, source.plan_id)
    assert not found.closed
    assert "other values" in found.problems[0]
    assert accept(source).standing.changed.keys() == {0, 1, 2, 3}
    assert source.plans() == ["done"]


def test_an_abandon_proves_by_checksum_not_by_count(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_midway(source, monkeypatch)
    table = in_lake(source)
    ids = purged_batch(source)
    doubled = f'"_archive_chunk" = 0 AND "_archive_batch" = 0 AND id < {sorted(ids)[3]}'
    source.bench.trino(f"INSERT INTO {table} SELECT * FROM {table} WHERE {doubled}")
    source.bench.trino(
        f'DELETE FROM {table} WHERE "_archive_chunk" = 0 AND "_archive_batch" = 0 AND id >= {sorted(ids)[-3]}'
    )
    with pytest.raises(steps.StepError, match=r"stays `abandoning`: .*other values.*chunks \[0\].*accept_loss"):
        abandon(source)
    assert source.plans() == ["abandoning"]
    assert accept(source).standing.changed.keys() == {0}
    assert source.plans() == ["abandoned"]
    source.to("reconcile")
    assert source.plans() == ["abandoned", "done"]


def test_an_open_plan_is_closed_with_a_loss_only_when_it_is_given_up(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(source, monkeypatch)
    with pytest.raises(guardrails.Refused, match="open and unfinished; set abandon_open_plan: true as well"):
        accept(source)
    assert source.plans() == ["open"]
    # Nothing is lost: it is an abandon like any other.
    assert accept(source, give_up=True) is None
    assert source.plans() == ["abandoned"]
    assert losses(source) == []
    source.to("reconcile")
    source.assert_whole()


# -- objects and tables that are gone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["lost", "overwritten", "cut"])
def test_a_broken_object_of_a_partly_purged_chunk(source: Source, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_midway(source, monkeypatch)
    table = in_lake(source)
    ((uri, held),) = source.bench.trino(
        f'SELECT "$path", count(*) FROM {table} WHERE "_archive_chunk" = 0 AND "_archive_batch" < 3 GROUP BY 1 ORDER BY 1 LIMIT 1'
    )
    where, s3 = urlsplit(uri), source.services.s3()
    name = {"Bucket": where.netloc, "Key": where.path.lstrip("/")}
    body = s3.get_object(**name)["Body"].read()
    if damage == "lost":
        s3.delete_object(**name)
    else:
        s3.put_object(Body=body[:4] + bytes(96) + body[100:] if damage == "overwritten" else body[:-10], **name)
    with pytest.raises(
        steps.StepError, match=rf"file {uri} of chunk 0 .*nothing was deleted.*accept_loss: {source.plan_id}"
    ):
        purge_all(source)
    for _ in range(2):
        with pytest.raises(
            steps.StepError, match=rf"stays `abandoning`: file {uri} of chunk 0 .*accept_loss: {source.plan_id}"
        ):
            abandon(source)
    assert source.plans() == ["abandoning"]
    loss = accept(source)
    assert loss.standing.missing == {0: held}
    assert source.plans() == ["abandoned"]
    assert losses(source)[0].endswith("; taken out of the table")
    # What was not purged is archived anew; what was purged and is readable can be given back.
    first = source.plan_id
    source.to("reconcile")
    archived = {r[0]: r for r in source.archived()}
    live = source.live()
    assert not archived.keys() & live.keys()
    assert len(source.expected) == len(archived) + len(live) + held
    with closing(source.services.source()) as conn:
        plan = ledger.Ledger(conn).plan(first)
    with closing(source.services.trino()) as trino:
        assert sum(c.n for c in verify.plan_checksums(trino, plan).values()) == 300 - held


def test_a_copy_of_an_object_without_a_checksum_of_its_own_is_read(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(source, monkeypatch)
    s3 = source.services.s3()
    for (uri,) in source.bench.sql("SELECT uri FROM dbops_archive.archive_file WHERE plan_id = %s", (source.plan_id,)):
        name = {"Bucket": urlsplit(uri).netloc, "Key": urlsplit(uri).path.lstrip("/")}
        s3.put_object(Body=s3.get_object(**name)["Body"].read(), **name)
    source.to("reconcile")
    source.assert_whole()


@pytest.mark.parametrize("purged", [False, True])
def test_a_lake_table_that_was_dropped(source: Source, purged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("verify")
    if purged:
        purge_all(source)
    source.bench.trino(f"DROP TABLE {in_lake(source)}")
    if not purged:
        abandon(source)
        assert source.plans() == ["abandoned", "open"]
        assert source.live() == source.expected
        source.to("reconcile")
        source.assert_whole()
        return
    found = steps.reconcile(source.services, source.plan_id)
    assert (found.closed, found.lake_rows) == (False, 0)
    assert "2700 purged rows are missing" in found.problems[0]
    assert sum(accept(source).standing.missing.values()) == 2700
    assert source.plans() == ["done"]


# -- the source changes -----------------------------------------------------------------------------------------------------------


def test_a_source_that_is_gone_neither_keeps_a_plan_open_nor_its_rows_in_the_lake(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(source, monkeypatch)
    live = source.live()
    gone = {k: v for k, v in source.expected.items() if k not in live}
    source.bench.sql("DROP TABLE t")
    assert [r.check for r in steps.check(source.services, source.spec, purging=True)] == ["table"]
    # Only the purged rows of a plan that is open are given back: the others were in MySQL when it was dropped.
    assert restored(source) == gone
    assert steps.settle_open_plan(source.services, source.spec, abandon_open=True) is None
    assert source.plans() == ["abandoned"]
    assert {r[0] for r in source.archived()} == gone.keys()
    assert restored(source) == gone


def test_a_refused_row_that_the_application_deletes_does_not_keep_the_plan_open(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.to("publish")
    judge = verify.judge

    def one_refused(batches: Any, found: Any) -> Any:
        return [
            (b, there, "refused" if (b.chunk_no, b.batch_no) == (0, 2) else state)
            for b, there, state in judge(batches, found)
        ]

    with monkeypatch.context() as patch:
        patch.setattr(verify, "judge", one_refused)
        source.to("verify")
    purge_all(source)
    source.change("DELETE FROM t WHERE day < '2026-06-30' ORDER BY id LIMIT 1")
    found = steps.reconcile(source.services, source.plan_id)
    assert (found.closed, found.problems) == (True, [])
    assert len(found.warnings) == 1
    assert "100 rows were not purged, of which 99 are in" in found.warnings[0]
    assert source.plans() == ["done"]
    again = steps.reconcile(source.services, source.plan_id)
    assert (again.problems, again.warnings) == ([], [])


def test_a_plan_that_is_being_given_up_is_not_reported_as_closed(source: Source) -> None:
    source.to("purge")
    with closing(source.services.source()) as conn:
        ledger.Ledger(conn).begin_abandon(source.plan_id)
    found = steps.reconcile(source.services, source.plan_id)
    assert (found.closed, found.plan.state) == (False, "abandoning")
    verdict, (reason,) = summary.judge(source.spec, found, purging=True)
    assert verdict is Verdict.FAILED
    assert "is being given up" in reason
    first = source.plan_id
    assert source.to("reconcile") is None
    assert source.plans() == ["abandoned"]
    late = steps.reconcile(source.services, first)
    assert (late.closed, late.problems) == (True, [])
    assert summary.judge(source.spec, late, purging=True)[0] is Verdict.WARNING


# -- scratch tables ---------------------------------------------------------------------------------------------------------------


def test_scratch_tables_of_a_long_name_do_not_replace_each_other(source: Source) -> None:
    bench, name = source.bench, "n" * 60
    bench.fresh_table("(id INT PRIMARY KEY, day DATE) COMMENT='its own'", [(i, COLD) for i in range(1, 31)], table=name)
    spec = bench.spec(name)
    archive_kit.run_all(source.services, spec)
    bench.sql(f"INSERT INTO `{name}` VALUES (500, '{COLD}'), (501, '{COLD}')")
    archive_kit.run_all(source.services, spec)
    for _ in range(2):  # a cleared task makes them anew
        done = steps.restore_rows(source.services, spec, EVERYTHING, plan_id=None, suffix="r12345678")
        assert all(r.equal for _, r in done)
        assert len({r.scratch for _, r in done}) == 2
        counts = [
            bench.sql(f"SELECT COUNT(*) FROM `{schema}`.`{table}`")[0][0]
            for schema, table in (r.scratch for _, r in done)
        ]
        # On 5.7 nothing has an AUTO_INCREMENT here, so no row stays.
        assert counts == [30, 2]


def test_a_table_that_no_restore_made_is_not_replaced(source: Source) -> None:
    source.to("reconcile")
    name = f"`{source.bench.restore_schema}`.`t_all_1`"
    source.bench.sql(f"CREATE TABLE {name} (id INT) COMMENT = 'of the auditors'")
    with pytest.raises(RestoreError, match=r"t_all_1 exists, and its comment does not begin with 'dbops restore of '"):
        restored(source)
    source.bench.sql(f"DROP TABLE {name}")
    cold = source.cold()
    for _ in range(2):
        assert restored(source) == {k: v for k, v in source.expected.items() if k in cold}
    assert steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False).plan is None
    assert source.bench.sql(f"SELECT COUNT(*) FROM (SELECT {COLUMNS} FROM {name}) AS x") == ((len(cold),),)
