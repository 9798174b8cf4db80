"""Giving up a plan, and everything that may happen around it: rows are in exactly one place, whoever dies, races or rewrites files.

Also what may come between the preflight and a DELETE that is hours later: keys, triggers, another server, a withdrawn approval.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import archive_source
import pytest
from archive_kit import RUN_AFTER
from archive_source import Source, abandon, finish_worker, nth_call, purge_all, restored, start_worker, stop_midway
from worker import Kill

from dbops import guardrails
from dbops.archive import codec, export, lake, ledger, manifest, purge, steps
from dbops.mysql import read_server, read_table
from lab import mysql

pytestmark = pytest.mark.lab

ENDING, LEDGER = "dbops.archive.ending", "dbops.archive.ledger:Ledger"
ELSEWHERE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """A filled source; parametrize it indirectly with {"conn_id": ..., "purge": {...}}."""
    with archive_source.filled(dict(getattr(request, "param", {}))) as source:
        yield source


both_servers = pytest.mark.parametrize(
    "source", [{"conn_id": "mysql_default"}, {"conn_id": "mysql80"}], ids=["57", "80"], indirect=True
)


# -- an abandon that dies --------------------------------------------------------------------------------------------------------


@both_servers
def test_an_abandon_killed_at_every_arrow_is_finished_by_the_next_run(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(source, monkeypatch)
    purged = source.expected.keys() - source.live().keys()
    for number, (what, kill) in enumerate({
        "before the first change": Kill(f"{LEDGER}.begin_abandon", "before"),
        "fenced": Kill(f"{LEDGER}.begin_abandon", "after"),
        "files are out of the lake": Kill("dbops.archive.lake:drop_files", "after"),
        "all is out of the lake": Kill(f"{ENDING}:withdraw", "after"),
        "objects are swept": Kill(f"{ENDING}:sweep", "after"),
        "the manifest is written": Kill(f"{ENDING}:write_manifest", "after"),
        "before the plan is closed": Kill(f"{LEDGER}.close_plan", "before"),
    }.items()):  # fmt: skip
        # Once begun, the next run goes on with it, whether or not it is asked to.
        process = start_worker(source, kill, abandon=number < 2)
        assert finish_worker(source, process) == -signal.SIGKILL, what
        assert source.plans() == ["open" if number == 0 else "abandoning"], what
        assert source.expected.keys() - source.live().keys() == purged, what
        source.assert_nothing_lost(what)
        if number:
            with pytest.raises(ledger.LedgerError, match="is abandoning"):
                purge_all(source)
    first = source.plan_id
    source.to("reconcile")
    source.assert_whole()
    assert source.plans() == ["abandoned", "done"]
    cold = source.cold()
    assert restored(source) == {k: v for k, v in source.expected.items() if k in cold}
    told = read_manifest(source, first)
    assert sum(int(c["n"]) for c in told["deleted_rows"].values()) == len(purged)


def read_manifest(source: Source, plan_id: str) -> dict[str, Any]:
    with closing(source.services.source()) as conn:
        plan = ledger.Ledger(conn).plan(plan_id)
    where = urlsplit(manifest.uri(str(source.services.catalog().properties["warehouse"]), plan))
    body = source.services.s3().get_object(Bucket=where.netloc, Key=where.path.lstrip("/"))["Body"]
    return dict(json.loads(body.read()))


def test_rows_of_a_plan_that_appear_in_the_lake_by_other_hands_keep_it_abandoning(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(source, monkeypatch)
    table = f'lake."{source.bench.namespace}".t'
    doubled = f'"{export.CHUNK_COLUMN}" = 0 AND "{export.BATCH_COLUMN}" = 0'
    source.bench.trino(f"INSERT INTO {table} SELECT * FROM {table} WHERE {doubled}")
    with pytest.raises(steps.StepError, match=r"stays `abandoning`: .* holds 400 rows of it, MySQL deleted 300"):
        abandon(source)
    assert source.plans() == ["abandoning"]
    source.assert_nothing_lost("while it stays")


# -- an abandon beside another run -----------------------------------------------------------------------------------------------


@both_servers
def test_an_abandon_during_a_purge_stops_it(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("verify")
    with monkeypatch.context() as patch:
        hooked = nth_call(3, lambda: abandon(source), purge.Purger._adjacent)
        patch.setattr(purge.Purger, "_adjacent", staticmethod(hooked))
        with pytest.raises(ledger.LedgerError, match="is abandoned"):
            purge_all(source, workers=1)
    assert source.plans() == ["abandoned", "open"]
    source.assert_nothing_lost("after the abandon")
    source.to("reconcile")
    source.assert_whole()


def test_an_abandon_while_the_publisher_waits_for_its_lock(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("export")
    original = ledger.Ledger.exclusive

    @contextmanager
    def overtaken(self: ledger.Ledger, name: str, wait_s: int = 0) -> Iterator[bool]:
        monkeypatch.setattr(ledger.Ledger, "exclusive", original)
        abandon(source)
        with self.exclusive(name, wait_s) as mine:
            yield mine

    monkeypatch.setattr(ledger.Ledger, "exclusive", overtaken)
    with pytest.raises(ledger.LedgerError, match="is abandoned"):
        steps.publish_plan(source.services, source.plan_id)
    assert source.archived() == []
    source.to("reconcile")
    source.assert_whole()


def test_an_abandon_between_two_commits_of_a_publish(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("export")
    with monkeypatch.context() as patch:
        patch.setattr(lake, "FILES_PER_COMMIT", 4)

        def fence() -> None:
            # The abandon itself waits for the commit lock; its first act does not.
            with closing(source.services.source()) as conn:
                ledger.Ledger(conn).begin_abandon(source.plan_id)

        record = nth_call(2, fence, ledger.Ledger.record_published)
        patch.setattr(ledger.Ledger, "record_published", lambda *args: record(*args))
        with pytest.raises(ledger.LedgerError, match="is abandoning"):
            steps.publish_plan(source.services, source.plan_id)
    assert source.archived()
    source.to("reconcile")
    assert source.plans() == ["abandoned", "done"]
    source.assert_whole()


def test_a_late_exporter_does_not_replace_what_is_being_published(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.to("export")
    other = source.spec.model_copy(update={"purge": source.spec.purge.model_copy(update={"batch_rows": 70})})
    listed = ledger.Ledger.chunks

    def stale(self: ledger.Ledger, plan_id: str, *args: Any) -> list[ledger.Chunk]:
        """The first look was before the other run exported them."""
        monkeypatch.setattr(ledger.Ledger, "chunks", listed)
        return self.chunks(plan_id)

    monkeypatch.setattr(ledger.Ledger, "chunks", stale)
    moved = steps.export_group(source.services, other, source.plan_id, (0, 99))
    assert moved.rows == 0
    with closing(source.services.source()) as conn, pytest.raises(ledger.LedgerError, match=r"chunk 0 .* is exported"):
        ledger.Ledger(conn).record_export(source.plan_id, 0, [], [], 0)
    source.to("reconcile")
    source.assert_whole()


# -- the lake is rewritten, or lies elsewhere ------------------------------------------------------------------------------------


def optimize(source: Source) -> None:
    source.bench.trino(f'ALTER TABLE lake."{source.bench.namespace}".t EXECUTE optimize')


def test_an_optimize_before_the_purge_stops_it_and_the_abandon_finds_the_rows(source: Source) -> None:
    source.to("verify")
    optimize(source)
    with pytest.raises(steps.StepError, match="is not in the current snapshot; nothing was deleted"):
        source.to("purge")
    assert source.live() == source.expected
    source.to("reconcile", abandon=True)
    source.assert_whole()


def test_an_optimize_in_the_middle_of_the_purge(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_midway(source, monkeypatch)
    optimize(source)
    source.to("reconcile", abandon=True)
    assert source.plans() == ["abandoned", "done"]
    source.assert_whole()


def test_a_table_whose_location_is_written_s3a_keeps_its_objects(source: Source) -> None:
    catalog = source.services.catalog()
    with closing(source.services.source()) as conn:
        table = read_table(conn, source.bench.schema, "t")
    assert table is not None
    catalog.create_namespace(source.bench.namespace)
    warehouse = str(catalog.properties["warehouse"]).replace("s3://", "s3a://").rstrip("/")
    definition = lake._definition(codec.codecs(table), source.spec.target.partition)
    catalog.create_table(
        (source.bench.namespace, "t"), location=f"{warehouse}/{source.bench.namespace}/t", **definition
    )
    source.to("reconcile")
    source.assert_whole()
    assert source.plans() == ["done"]


# -- what comes after the preflight ----------------------------------------------------------------------------------------------

CHILD = "CREATE TABLE child (id INT PRIMARY KEY, t_id BIGINT UNSIGNED, KEY (t_id))"
REACHES: dict[str, list[str]] = {
    "cascade": [CHILD, "ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (t_id) REFERENCES t (id) ON DELETE CASCADE"],
    "set null": [CHILD, "ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (t_id) REFERENCES t (id) ON DELETE SET NULL"],
    "trigger": ["CREATE TABLE told (id BIGINT)", "CREATE TRIGGER late AFTER DELETE ON t FOR EACH ROW INSERT INTO told VALUES (OLD.id)"],
}  # fmt: skip


@both_servers
@pytest.mark.parametrize("what", REACHES)
def test_what_a_delete_would_set_off_stops_the_purge(
    source: Source, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> None:
        with closing(mysql.root_connection(source.bench.server, source.bench.schema)) as other:
            for statement in REACHES[what]:
                other.cursor().execute(statement)

    source.to("verify")
    with monkeypatch.context() as patch:
        patch.setattr(purge.Purger, "_adjacent", staticmethod(nth_call(3, make, purge.Purger._adjacent)))
        with pytest.raises(purge.PurgeStopped, match=r"would also set off (foreign key|trigger) .*late"):
            purge_all(source, workers=1)
    assert source.is_partly_purged()
    before = source.live()
    with pytest.raises(guardrails.Refused, match=r"may not be purged: .*late"):
        purge_all(source)
    assert source.live() == before


def test_a_harmless_child_does_not_stop_the_purge(source: Source) -> None:
    source.to("verify")
    source.bench.sql(CHILD)
    source.bench.sql("ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (t_id) REFERENCES t (id)")
    source.to("reconcile")
    source.assert_whole()


@pytest.mark.parametrize(
    "step",
    [
        lambda s: steps.make_plan(s.services, s.spec, RUN_AFTER, dry_run=False),
        abandon,
        lambda s: steps.export_group(s.services, s.spec, s.plan_id, (0, 99)),
        lambda s: steps.publish_plan(s.services, s.plan_id),
        lambda s: steps.verify_group(s.services, s.plan_id, (0, 99)),
        purge_all,
        lambda s: steps.reconcile(s.services, s.plan_id),
    ],
    ids=["plan", "abandon", "export", "publish", "verify", "purge", "reconcile"],
)
def test_a_clone_may_not_go_on_with_the_plan_of_the_original(source: Source, step: Callable[[Source], Any]) -> None:
    source.to("verify")
    archived = sorted(source.archived(), key=itemgetter(0))
    source.bench.sql(
        "UPDATE dbops_archive.archive_plan SET server_uuid = %s WHERE plan_id = %s", (ELSEWHERE, source.plan_id)
    )
    with pytest.raises(guardrails.Refused, match=f"was made on server {ELSEWHERE}"):
        step(source)
    assert source.live() == source.expected
    assert sorted(source.archived(), key=itemgetter(0)) == archived


def test_a_new_writer_adopts_the_plan_when_it_is_named(source: Source) -> None:
    source.to("verify")
    source.bench.sql(
        "UPDATE dbops_archive.archive_plan SET server_uuid = %s WHERE plan_id = %s", (ELSEWHERE, source.plan_id)
    )
    with closing(source.services.source()) as conn:
        here = read_server(conn).server_uuid
    with pytest.raises(guardrails.Refused, match=f"adopt_server: {here}"):
        steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False, adopt_server=ELSEWHERE)
    planned = steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False, adopt_server=here)
    assert planned.plan is not None
    assert (planned.plan.plan_id, planned.resumed) == (source.plan_id, True)
    source.to("reconcile")
    source.assert_whole()
    with closing(source.services.source()) as conn:
        told = [e.message for e in ledger.Ledger(conn).events(source.plan_id) if e.stage == "adopt"]
    assert told == [f"server {ELSEWHERE} -> {here}"]


@pytest.mark.parametrize("source", [{"purge": {"approval": True}}], indirect=True)
def test_an_approval_does_not_outlive_a_later_question_or_a_no(source: Source) -> None:
    source.to("verify")
    digest, first = steps.ask_approval(source.services, source.plan_id)
    steps.approve(source.services, source.plan_id, "Ada", digest, first)
    again, second = steps.ask_approval(source.services, source.plan_id)
    assert again == digest
    with pytest.raises(guardrails.Refused, match="needs an approval"):
        purge_all(source)
    # The answer to the first question, written down once more by a task that was cleared.
    with pytest.raises(guardrails.Refused, match="by Ada came too late"):
        steps.approve(source.services, source.plan_id, "Ada", digest, first)
    steps.approve(source.services, source.plan_id, "Ada", digest, second)
    steps.reject(source.services, source.plan_id)
    for nonce in (first, second):
        with pytest.raises(guardrails.Refused, match="came too late"):
            steps.approve(source.services, source.plan_id, "Ada", digest, nonce)
    with pytest.raises(guardrails.Refused, match="needs an approval"):
        purge_all(source)
    assert source.live() == source.expected
    digest, third = steps.ask_approval(source.services, source.plan_id)
    for _ in range(2):  # repeating the same answer is harmless
        steps.approve(source.services, source.plan_id, "Grace", digest, third)
    source.to("reconcile")
    source.assert_whole()


def test_a_task_that_times_out_stops_between_transactions(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("verify")

    def time_out(*args: Any, **kwargs: Any) -> None:
        # What Airflow's execution_timeout does: an exception in the main thread, wherever it stands.
        while not source.told()[0]:
            pass
        raise TimeoutError("execution_timeout")

    with monkeypatch.context() as patch:
        patch.setattr(purge, "wait", time_out)
        with pytest.raises(TimeoutError):
            purge_all(source)
    assert source.is_partly_purged()
    source.to("reconcile")
    source.assert_whole()
