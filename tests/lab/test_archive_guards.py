"""What others may do between the steps of a plan, and in the middle of them: no row leaves MySQL that is not in the lake as it was proven.

Child rows that change sides, a lake that is edited, keys that come while the rows are locked, a publisher that lost its lock, a clone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import archive_kit
import archive_source
import MySQLdb
import pytest
import tenacity
from archive_kit import COLD, RUN_AFTER, Bench
from archive_source import Source, abandon, purge_all, stop_midway
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Transaction

from dbops import connections, guardrails, store
from dbops.archive import ledger, purge, steps
from dbops.archive.export import ExportError
from dbops.mysql import read_server
from lab import mysql

pytestmark = pytest.mark.lab

ELSEWHERE = "00000000-0000-0000-0000-000000000000"
CHILD = "CREATE TABLE child (id INT PRIMARY KEY, t_id BIGINT UNSIGNED, KEY (t_id), CONSTRAINT known FOREIGN KEY (t_id) REFERENCES t (id))"
CASCADE = "ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (t_id) REFERENCES t (id) ON DELETE CASCADE"

# INNODB_TRX is not made anew for who asks more than ten times a second.
until = tenacity.Retrying(stop=tenacity.stop_after_delay(20), wait=tenacity.wait_fixed(0.15), reraise=True)


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """A filled source; parametrize it indirectly with {"conn_id": ..., "purge": {...}}."""
    with archive_source.filled(dict(getattr(request, "param", {}))) as source:
        yield source


@pytest.fixture(params=["mysql_default", "mysql80"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with archive_kit.bench(request.param) as made:
        yield made


def key(i: int) -> int:
    """The id of row i of a source."""
    return int(archive_source.row(i)[0])


def in_lake(source: Source) -> str:
    return f'lake."{source.bench.namespace}".t'


@contextmanager
def another_session(source: Source) -> Iterator[Any]:
    """A cursor of an application, autocommit on, that does not wait for locks for long."""
    with closing(mysql.root_connection(source.bench.server, source.bench.schema)) as conn:
        conn.autocommit(True)
        cursor = conn.cursor()
        cursor.execute("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
        yield cursor


def after_nth(n: int, act: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, with `act` after its nth call."""
    calls = [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        result = original(*args, **kwargs)
        if calls[0] == n:
            act()
        return result

    return wrapper


# -- child rows -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["repeatable-read", "read-committed"])
@pytest.mark.parametrize("server", ["mysql_default", "mysql80"])
def test_a_child_row_that_changes_sides_during_the_checksum(server: str, isolation: str) -> None:
    limits = {"isolation": isolation, "lock_wait_s": 30, "workers": 1, "max_transaction_rows": 100}
    with archive_source.filled({"conn_id": server, "purge": limits, "referenced_rows": "skip"}) as source:
        # Row 7 has a child and is not archived; row 5 has none, is archived, and will get it.
        source.bench.sql(CHILD)
        source.bench.sql("INSERT INTO child VALUES (1, %s)", (key(7),))
        source.to("verify")
        with another_session(source) as holder, another_session(source) as application:
            holder.execute("BEGIN")
            holder.execute("SELECT * FROM t WHERE id = %s FOR UPDATE", (key(3),))

            moved: list[bool] = []

            def move_the_child() -> None:
                """Once the checksum has begun, because it waits for row 3."""
                try:
                    for attempt in until:
                        with attempt:
                            application.execute(
                                "SELECT 1 FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
                            )
                            assert application.fetchall(), "the purge does not wait"
                    with suppress(MySQLdb.OperationalError):  # repeatable-read has locked the gap that row 5 belongs to
                        application.execute("UPDATE child SET t_id = %s WHERE id = 1", (key(5),))
                        moved.append(True)
                finally:
                    holder.execute("ROLLBACK")

            mover = threading.Thread(target=move_the_child)
            mover.start()
            purge_all(source)
            mover.join()
        assert bool(moved) is (isolation == "read-committed")
        assert source.batches().get("changed", 0) == len(moved)
        assert ({key(5), key(7)} if moved else {key(7)}) <= source.live().keys()
        source.to("reconcile")
        source.assert_nothing_lost("after the plan is closed")
        assert not source.live().keys() & {r[0] for r in source.archived()}
        assert source.plans() == ["done"]


def test_a_child_row_that_comes_late_keeps_its_batch_and_no_other(bench: Bench) -> None:
    source = Source(bench, purge={"max_transaction_rows": 500, "transaction_ms": 1000})
    bench.sql(CHILD)
    source.to("verify")
    bench.sql("INSERT INTO child VALUES (1, %s)", (key(555),))
    outcome = purge_all(source, workers=1)
    ((chunk, batch),) = outcome.changed
    source.to("reconcile")
    assert source.plans() == ["done"]
    lower, upper, reason = bench.sql(
        "SELECT lower_key, upper_key, reason FROM dbops_archive.archive_batch WHERE plan_id = %s AND chunk_no = %s AND batch_no = %s",
        (source.plan_id, chunk, batch),
    )[0]
    assert reason.startswith("a child row points at it: ")
    low, high = (int(str(bound).strip('["]')) if bound else 0 for bound in (lower, upper))
    source.assert_whole(cold_stay=frozenset(k for k in source.cold() if low < k <= high))


def test_a_table_whose_rows_point_at_each_other_cannot_skip_those(bench: Bench) -> None:
    bench.fresh_table(
        "(id INT PRIMARY KEY, day DATE, parent INT, KEY (parent), CONSTRAINT own FOREIGN KEY (parent) REFERENCES t (id))",
        [(1, COLD, None), (2, COLD, 1)],
    )
    (refusal,) = steps.check(bench.services, bench.spec(referenced_rows="skip"), purging=True)
    assert (refusal.check, refusal.column) == ("self_reference", "parent")
    assert "foreign key own points at the table itself" in refusal.message
    assert not steps.check(bench.services, bench.spec(referenced_rows="refuse"), purging=True)


@pytest.mark.parametrize(
    "source", [{"conn_id": "mysql_default"}, {"conn_id": "mysql80"}], ids=["57", "80"], indirect=True
)
def test_a_cascade_that_comes_when_the_definition_was_looked_at(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.bench.sql("CREATE TABLE child (id INT PRIMARY KEY, t_id BIGINT UNSIGNED, KEY (t_id))")
    # Of rows that are there when the key comes, because two batches are gone by then.
    source.bench.sql("INSERT INTO child SELECT id, id FROM t WHERE id > %s", (key(250),))
    children = source.bench.count("child")
    source.to("verify")
    with another_session(source) as application:

        def add_the_key() -> None:
            with suppress(MySQLdb.OperationalError):  # MySQL 8.0 keeps it out as long as the transaction lasts
                application.execute(CASCADE)

        with monkeypatch.context() as patch:
            patch.setattr(
                purge.Purger, "_assert_definition", after_nth(3, add_the_key, purge.Purger._assert_definition)
            )
            if source.bench.server == "mysql57":
                with pytest.raises(purge.PurgeStopped, match=r"would also set off foreign key .*late"):
                    purge_all(source, workers=1)
                assert source.is_partly_purged()
            else:
                purge_all(source, workers=1)
    assert source.bench.count("child") == children


# -- the lake is edited -----------------------------------------------------------------------------------------------------------

EDITS = {
    "deleted rows": "DELETE FROM {t} WHERE id BETWEEN 1000 AND 1090",
    "changed rows": "UPDATE {t} SET note = 'anonymous' WHERE id BETWEEN 1000 AND 1090",
    "doubled rows": "INSERT INTO {t} SELECT * FROM {t} WHERE id BETWEEN 1000 AND 1090",
    "a dropped column": "ALTER TABLE {t} DROP COLUMN note",
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_lake_that_is_edited_after_the_verification_stops_the_purge(source: Source, edit: str) -> None:
    source.to("verify")
    source.bench.trino(EDITS[edit].format(t=in_lake(source)))
    with pytest.raises(steps.StepError, match=r"nothing was deleted from .*abandon_open_plan"):
        purge_all(source)
    assert source.live() == source.expected
    if edit == "doubled rows":
        return  # they are not this archive's: whoever wrote them removes them
    abandon(source)
    assert source.plans() == ["abandoned", "open"]
    assert source.live() == source.expected
    source.to("reconcile")
    source.assert_whole()


# -- a publisher that lost its lock -----------------------------------------------------------------------------------------------


def others(source: Source, last: str) -> None:
    """Another run of the same plan, as far as `last`."""
    steps.publish_plan(source.services, source.plan_id)
    source.to(last)


@pytest.mark.parametrize(
    "act",
    [abandon, lambda s: others(s, "verify"), lambda s: others(s, "purge"), lambda s: others(s, "reconcile")],
    ids=["abandons", "verifies", "purges", "closes"],
)
def test_a_publisher_that_lost_its_session_adds_nothing_after_another_run(
    source: Source, act: Callable[[Source], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source.to("export")
    with closing(source.services.source()) as conn:
        lock = ledger.lock_name(f"commit:{ledger.Ledger(conn).plan(source.plan_id).lake_table}")
    commit, met = Transaction.commit_transaction, []

    def overtaken(self: Transaction) -> Any:
        if not met and self._snapshot_producers:
            met.append(True)
            source.bench.sql(f"KILL {source.bench.sql('SELECT IS_USED_LOCK(%s)', (lock,))[0][0]}")
            for attempt in until:
                with attempt:
                    assert source.bench.sql("SELECT IS_USED_LOCK(%s)", (lock,)) == ((None,),)
            act(source)
        return commit(self)

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit_transaction", overtaken)
        with pytest.raises((CommitFailedException, MySQLdb.OperationalError)):
            steps.publish_plan(source.services, source.plan_id)
    ids = [r[0] for r in source.archived()]
    assert len(ids) == len(set(ids)), "rows are double in the lake"
    source.assert_nothing_lost("after the late commit")
    source.to("reconcile")
    source.assert_whole()


def test_a_table_of_an_older_release_gets_the_property_before_the_next_commit(source: Source) -> None:
    source.to("export")
    table = source.services.catalog().load_table((source.bench.namespace, "t"))
    assert table.properties["commit.retry.num-retries"] == "0"
    with table.transaction() as change:
        change.remove_properties("commit.retry.num-retries")
    source.to("reconcile")
    table = source.services.catalog().load_table((source.bench.namespace, "t"))
    assert table.properties["commit.retry.num-retries"] == "0"
    source.assert_whole()


# -- what utf8mb4 does not hold ---------------------------------------------------------------------------------------------------

HALF_PAIRS = {
    "ucs2": "0041D80000420043", "utf16": "0041D80000420043", "utf16le": "410000D842004300", "utf32": "000000410000D80000000042",
}  # fmt: skip


@pytest.mark.parametrize("charset", HALF_PAIRS)
def test_half_a_surrogate_pair_is_found_before_anything_is_written(bench: Bench, charset: str) -> None:
    bench.fresh_table(
        f"(id INT PRIMARY KEY, day DATE, v VARCHAR(20) CHARACTER SET {charset}, w TEXT CHARACTER SET {charset})"
    )
    wide = HALF_PAIRS[charset]
    with suppress(MySQLdb.Error):  # where the server refuses such a value there is nothing to lose
        bench.sql(
            f"INSERT INTO t VALUES (5, '{COLD}', _{charset} X'{wide}', NULL), (6, '{COLD}', NULL, _{charset} X'{wide}')"
        )
    stored = bench.sql("SELECT id FROM t WHERE HEX(v) = %s OR HEX(w) = %s ORDER BY id", (wide, wide))
    bench.sql(f"INSERT INTO t VALUES (1, '{COLD}', 'Straße 日本', 'é'), (9, '2026-06-30', 'warm', NULL)")
    assert stored or charset.startswith("utf16"), "these servers store it in ucs2 and utf32"
    planned = steps.make_plan(bench.services, bench.spec(), RUN_AFTER, dry_run=False)
    if stored and bench.server == "mysql57":
        # It converts them to bytes that are no UTF-8, and back.
        assert planned.plan is not None
        with pytest.raises(ExportError, match=r"row \('5',\): column v holds bytes that are not UTF-8"):
            archive_kit.run_all(bench.services, bench.spec())
        steps.make_plan(bench.services, bench.spec(), RUN_AFTER, dry_run=False, abandon_open=True)
        bench.sql(
            "DELETE FROM dbops_archive.archive_plan WHERE source_table = %s AND state = 'open'", (f"{bench.schema}.t",)
        )
    else:
        refused = [("charset", "vw"[i], str(number)) for i, (number,) in enumerate(stored)]
        assert [(r.check, r.column, r.sample_key) for r in planned.refusals] == refused
    bytes_too = bench.spec(lossy_text_as_binary=["v", "w"])
    ran = archive_kit.run_all(bench.services, bench.spec() if not stored else bytes_too)
    assert ran.reconciled is not None
    assert ran.reconciled.problems == []
    assert bench.count("t") == 1


@pytest.mark.parametrize("kind", ["VARCHAR(20)", "TEXT"])
def test_bytes_that_are_no_utf8_are_named_by_the_export(kind: str) -> None:
    with archive_kit.bench("mysql_default") as bench:
        bench.fresh_table(
            f"(id INT PRIMARY KEY, day DATE, v {kind})",
            [(1, COLD, "é"), (2, COLD, None), (3, COLD, "x"), (4, COLD, "y")],
        )
        bench.sql("UPDATE t SET v = _utf8mb4 X'61EDA080' WHERE id = 3")
        assert bench.sql("SELECT HEX(v) FROM t WHERE id = 3") == (("61EDA080",),)
        with pytest.raises(
            ExportError, match=r"row \('3',\): column v holds bytes that are not UTF-8.*lossy_text_as_binary: \[v\]"
        ):
            archive_kit.run_all(bench.services, bench.spec())
        assert bench.count("t") == 4
        spec = bench.spec(lossy_text_as_binary=["v"])
        steps.make_plan(bench.services, spec, RUN_AFTER, dry_run=False, abandon_open=True)
        archive_kit.run_all(bench.services, spec)
        assert bench.count("t") == 0 + (bench.server == "mysql57" and 0)
        assert bench.trino(f'SELECT to_hex(v) FROM lake."{bench.namespace}".t_g2 WHERE id = 3') == [["61EDA080"]]


# -- another server, another table ------------------------------------------------------------------------------------------------


def forget(source: Source) -> None:
    """What a backup from before the plan knows of it: nothing."""
    for table in ("event", "batch", "file", "chunk", "plan"):
        source.bench.sql(f"DELETE FROM dbops_archive.archive_{table} WHERE plan_id = %s", (source.plan_id,))


def refill(source: Source) -> None:
    """All rows are in MySQL again, as in a clone or after a restore from a backup."""
    source.bench.sql("DELETE FROM t")
    with source.bench.root.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s, %s, %s, %s)", [archive_source.row(i) for i in range(archive_source.ROWS)]
        )
    assert source.live() == source.expected


def test_a_clone_does_not_archive_what_the_original_archived(source: Source) -> None:
    source.to("reconcile")
    refill(source)
    source.bench.sql(
        "UPDATE dbops_archive.archive_plan SET server_uuid = %s WHERE plan_id = %s", (ELSEWHERE, source.plan_id)
    )
    before = len(source.archived())
    with closing(source.services.source()) as conn:
        here = read_server(conn).server_uuid
    with pytest.raises(guardrails.Refused, match=f"was made on server {ELSEWHERE}.*adopt_server: {here}"):
        steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False)
    assert len(source.archived()) == before
    assert source.plans() == ["done"]
    # A failover for good: said once, remembered.
    source.bench.sql("DELETE FROM t WHERE day < '2026-06-30'")
    source.bench.sql("INSERT INTO t (id, day) VALUES (1, '2026-01-15')")
    planned = steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False, adopt_server=here)
    assert planned.plan is not None
    assert planned.plan.server_uuid == here
    assert f"this server goes on where {ELSEWHERE} ended" in planned.notes
    assert steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False).resumed
    source.to("reconcile")
    assert source.plans() == ["done", "done"]


def test_a_server_restored_from_a_backup_does_not_archive_its_rows_again(source: Source) -> None:
    source.to("reconcile")
    gone = source.plan_id
    forget(source)
    refill(source)
    with pytest.raises(
        guardrails.Refused,
        match=rf"holds \d+ rows of {gone}, which dbops_archive of this server does not know",
    ) as refused:
        steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False)
    assert source.plans() == []
    # The statement that the message ends with is the way on.
    source.bench.trino(refused.value.reason[refused.value.reason.index("DELETE FROM") :])
    source.to("reconcile")
    source.assert_whole()


def test_a_spec_that_moves_to_another_table_does_not_leave_an_open_plan_behind(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_midway(source, monkeypatch)
    source.bench.sql("CREATE TABLE t2 LIKE t")
    moved = source.spec.model_copy(update={"table": "t2"})
    with pytest.raises(guardrails.Refused, match=rf"plan {source.plan_id} of {source.spec.full_name} is open"):
        steps.make_plan(source.services, moved, RUN_AFTER, dry_run=False)
    source.to("reconcile")
    source.assert_whole()
    assert steps.make_plan(source.services, moved, RUN_AFTER, dry_run=False).plan is None


def test_a_migration_of_the_ledger_that_was_killed_may_run_again(bench: Bench) -> None:
    def migrate() -> None:
        store.migrate(
            connections.engine(bench.conn_id, schema=bench.restore_schema), ledger.MIGRATIONS, ledger.VERSION_TABLE
        )

    def columns() -> list[str]:
        found = bench.sql(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = 'archive_plan'",
            (bench.restore_schema,),
        )
        return [name for (name,) in found]

    migrate()
    whole = columns()
    assert whole.count("approval_nonce") == 1
    version = f"`{bench.restore_schema}`.{ledger.VERSION_TABLE}"
    bench.sql(f"UPDATE {version} SET version_num = '0001'")  # killed between the ALTER and its own record
    migrate()
    assert columns() == whole
    bench.sql(f"UPDATE {version} SET version_num = '0001'")  # a ledger of the release before
    bench.sql(f"ALTER TABLE `{bench.restore_schema}`.archive_plan DROP COLUMN approval_nonce")
    migrate()
    assert sorted(columns()) == sorted(whole)
    assert bench.sql(f"SELECT version_num FROM {version}") == (("0002",),)
