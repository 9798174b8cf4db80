"""Whatever dies, lies or gets in between: after a re-run every row is in exactly one of MySQL and the lake, and equal to what it was.

Rows are compared here value by value, as MySQL and Trino give them, never by the product's own checksums.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import archive_source
import MySQLdb
import pytest
import tenacity
from archive_source import COLUMNS, Row, Source, finish_worker, nth_call, start_worker
from worker import Kill

from dbops import guardrails
from dbops.archive import lake, ledger, purge, restore, steps, verify
from dbops.archive.checksum import Checksum
from lab import aws, config, mysql, processes, stack

pytestmark = pytest.mark.lab


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """A filled source; parametrize it indirectly with {"conn_id": ..., "purge": {...}}."""
    with archive_source.filled(dict(getattr(request, "param", {}))) as source:
        yield source


def on_both_levels(test: Any) -> Any:
    """Run on MySQL 5.7 under REPEATABLE READ and on 8.0 under READ COMMITTED."""
    return pytest.mark.parametrize(
        "source",
        [
            pytest.param(
                {"conn_id": "mysql_default", "purge": {"isolation": "repeatable-read"}}, id="57-repeatable-read"
            ),
            pytest.param({"conn_id": "mysql80", "purge": {"isolation": "read-committed"}}, id="80-read-committed"),
        ],
        indirect=True,
    )(test)


# -- kill -9 ---------------------------------------------------------------------------------------------------------------------

COMMIT = "MySQLdb.connections:Connection.commit"
FEW_FILES = {"dbops.archive.lake:FILES_PER_COMMIT": 4}
ICEBERG_COMMIT = "pyiceberg.catalog.sql:SqlCatalog.commit_table"
LEDGER = "dbops.archive.ledger:Ledger"
ADD_FILES = "pyiceberg.table:Table.add_files"
TRANSACTION = "dbops.archive.purge:Purger._transaction"

# Each chain is one table: a worker dies at the first point, the next one goes on and dies at the second, and so on.
# (what, where it dies, what the ledger says then)
CHAINS: dict[str, list[tuple[str, Kill, Callable[[Source], bool]]]] = {
    "plan and export": [
        ("lake table made, no plan", Kill("dbops.archive.lake:ensure_table", "after"), lambda s: not s.plans()),
        ("before the plan's COMMIT", Kill(COMMIT, "before", inside=f"{LEDGER}.create_plan"), lambda s: not s.plans()),
        (
            "after the plan's COMMIT", Kill(COMMIT, "after", inside=f"{LEDGER}.create_plan"),
            lambda s: s.plans() == ["open"] and set(s.chunks()) == {"planned"},
        ),
        ("in the middle of a chunk", Kill("dbops.archive.export:_arrow", "before"), lambda s: set(s.chunks()) == {"planned"}),
        ("before a PUT", Kill("dbops.archive.export:_upload", "before"), lambda s: set(s.chunks()) == {"planned"}),
        ("between the PUTs of a chunk", Kill("dbops.archive.export:_upload", "after"), lambda s: set(s.chunks()) == {"planned"}),
        ("after PUT, before the ledger", Kill(f"{LEDGER}.record_export", "before"), lambda s: set(s.chunks()) == {"planned"}),
        ("after the ledger", Kill(f"{LEDGER}.record_export", "after"), lambda s: set(s.chunks()) == {"planned", "exported"}),
    ],
    "publish and verify": [
        (
            "before an Iceberg commit", Kill(ICEBERG_COMMIT, "before", 2, inside=ADD_FILES, settings=FEW_FILES),
            lambda s: set(s.chunks()) == {"exported", "published"},
        ),
        (
            "after an Iceberg commit", Kill(ICEBERG_COMMIT, "after", 1, inside=ADD_FILES, settings=FEW_FILES),
            lambda s: set(s.chunks()) == {"exported", "published"},
        ),
        (
            "all is committed, before the ledger", Kill(f"{LEDGER}.record_published", "before"),
            lambda s: set(s.chunks()) == {"exported", "published"},
        ),
        ("after the ledger", Kill(f"{LEDGER}.record_published", "after"), lambda s: set(s.chunks()) == {"published"}),
        (
            "Trino has answered, nothing is recorded", Kill("dbops.archive.verify:lake_checksums", "after"),
            lambda s: set(s.chunks()) == {"published"},
        ),
        ("some chunks are recorded", Kill(f"{LEDGER}.record_verified", "after", 2), lambda s: set(s.chunks()) == {"published", "verified"}),
    ],
    "purge and reconcile": [
        ("after DELETE, before the audit", Kill("dbops.archive.purge:utcnow", "before", 3), lambda s: s.is_partly_purged()),
        ("before COMMIT", Kill(COMMIT, "before", inside=TRANSACTION), lambda s: s.is_partly_purged()),
        ("after COMMIT", Kill(COMMIT, "after", inside=TRANSACTION), lambda s: s.is_partly_purged() and s.change_one()),
        (
            "all is purged but one changed batch, no event", Kill(f"{LEDGER}.note", "before"),
            lambda s: s.plans() == ["open"] and s.batches().get("changed") == 1 and s.batches()["done"] > 20,
        ),
        ("changed rows have left the lake", Kill("dbops.archive.ending:withdraw", "after"), lambda s: s.plans() == ["open"]),
        ("before the plan is closed", Kill(f"{LEDGER}.close_plan", "before"), lambda s: s.plans() == ["open"]),
        ("after the plan is closed", Kill(f"{LEDGER}.close_plan", "after"), lambda s: s.plans() == ["done"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "chain"),
    [
        pytest.param({"export_workers": 1}, "plan and export", id="plan-export"),
        pytest.param({"conn_id": "mysql80"}, "publish and verify", id="publish-verify"),
        pytest.param({"conn_id": "mysql_default"}, "purge and reconcile", id="purge-reconcile-57"),
        pytest.param(
            {"conn_id": "mysql80", "purge": {"isolation": "read-committed"}}, "purge and reconcile", id="purge-reconcile-80"
        ),
    ],
    indirect=["source"],
)  # fmt: skip
def test_workers_killed_at_every_arrow_lose_and_double_nothing(source: Source, chain: str) -> None:
    for what, kill, left in CHAINS[chain]:
        process = start_worker(source, kill)
        assert finish_worker(source, process) == -signal.SIGKILL, f"the worker was not killed: {what}"
        assert left(source), (what, source.plans(), source.chunks())
        source.assert_nothing_lost(what)
    source.to("reconcile")
    source.assert_whole()
    assert set(source.plans()) <= {"done"}


# -- services that die or refuse ----------------------------------------------------------------------------------------------------


def kill_service(name: str) -> None:
    """SIGKILL one of the lab's own processes, found by its pid file."""
    process = processes.find(name)
    assert process is not None
    process.kill()
    process.wait(30)


@contextmanager
def lab_healed() -> Iterator[None]:
    """Whatever happens inside, the lab is up afterwards."""
    try:
        yield
    finally:
        stack.up()


def test_trino_killed_while_it_verifies(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("publish")
    with lab_healed():
        with monkeypatch.context() as patch:
            patch.setattr(verify, "lake_checksums", nth_call(1, lambda: kill_service("trino"), verify.lake_checksums))
            with pytest.raises(Exception, match=r"(?i)connection|refused|disconnected|aborted"):
                source.to("verify")
        assert source.chunks() == {"published": 4}
        assert [r.check for r in steps.check(source.services, source.spec, purging=True)] == ["trino"]
        _, outcome = steps.purge_group(
            source.services, source.spec, source.plan_id, (0, 99), confirm=source.spec.full_name
        )
        assert outcome.rows == 0
        assert source.live() == source.expected
    source.to("reconcile")
    source.assert_whole()


@on_both_levels
def test_mysql_killed_between_delete_and_commit(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("verify")
    with lab_healed(), monkeypatch.context() as patch:
        patch.setattr(purge, "utcnow", nth_call(3, lambda: kill_service(source.bench.server), purge.utcnow))
        with pytest.raises(MySQLdb.OperationalError):
            source.to("purge")
    source.bench.root = mysql.root_connection(source.bench.server, source.bench.schema)
    assert source.is_partly_purged()
    # Its own catalog lies in MySQL 8.0: until Trino has a new connection, preflight refuses.
    attempts = tenacity.Retrying(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.2), reraise=True)
    for attempt in attempts:
        with attempt:
            assert not steps.check(source.services, source.spec, purging=True)
    source.to("reconcile")
    source.assert_whole()


@on_both_levels
def test_connection_killed_between_delete_and_commit(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("verify")
    opened: list[int] = []

    def recording() -> Any:
        conn = source.services.source_transactional()
        opened.append(conn.thread_id())
        return conn

    def kill_it() -> None:
        with closing(mysql.root_connection(source.bench.server)) as root:
            for thread_id in opened:
                root.cursor().execute(f"KILL {thread_id}")

    with monkeypatch.context() as patch:
        patch.setattr(purge, "utcnow", nth_call(3, kill_it, purge.utcnow))
        with pytest.raises(MySQLdb.OperationalError):
            source.to("purge", services=replace(source.services, source_transactional=recording))
    assert source.is_partly_purged()
    source.to("reconcile")
    source.assert_whole()


def test_an_answer_to_commit_that_is_lost_leaves_the_ledger_to_decide(source: Source) -> None:
    source.to("verify")
    commits = [0]

    def losing() -> Any:
        conn = source.services.source_transactional()
        commit = conn.commit

        def commit_and_lose() -> None:
            commit()
            commits[0] += 1
            if commits[0] == 5:
                raise MySQLdb.OperationalError(2013, "Lost connection to MySQL server during query")

        conn.commit = commit_and_lose
        return conn

    with pytest.raises(MySQLdb.OperationalError, match="Lost connection"):
        source.to("purge", services=replace(source.services, source_transactional=losing))
    assert source.is_partly_purged()
    source.to("reconcile")
    source.assert_whole()


class Gate:
    """S3 clients whose requests go to a server that answers 503 SlowDown where `refuses` (of method and URL) says so."""

    def __init__(self) -> None:
        self.refuses: Callable[[str, str], bool] = lambda method, url: False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Overloaded)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def client(self) -> Any:
        client = aws.client("s3")
        client.meta.events.register("before-send.s3", self._choose)
        return client

    def _choose(self, request: Any, **_: Any) -> None:
        if self.refuses(request.method, request.url):
            request.url = request.url.replace(config.aws_endpoint(), self.endpoint)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Overloaded(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        answer = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        self.send_response(503)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_HEAD = do_DELETE = do_PUT

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


def test_s3_refuses_in_the_middle_of_the_export(source: Source, gate: Gate) -> None:
    puts = [0]

    def after_three(method: str, path: str) -> bool:
        puts[0] += method == "PUT" and path.endswith(".parquet")
        return method == "PUT" and puts[0] > 3

    gate.refuses = after_three
    behind_the_gate = replace(source.services, s3=gate.client)
    with pytest.raises(Exception, match="SlowDown"):
        source.to("export", services=behind_the_gate)
    assert source.chunks().get("planned", 0) >= 2
    gate.refuses = lambda method, path: method == "PUT"
    assert [r.check for r in steps.check(behind_the_gate, source.spec, purging=True)] == ["s3"]
    assert source.live() == source.expected
    source.to("reconcile")
    source.assert_whole()


def test_s3_refuses_before_the_purge(source: Source, gate: Gate) -> None:
    source.to("verify")
    gate.refuses = lambda method, path: method == "HEAD"
    with pytest.raises(steps.StepError, match=r"cannot be read.*nothing was deleted"):
        steps.purge_group(
            replace(source.services, s3=gate.client),
            source.spec,
            source.plan_id,
            (0, 99),
            confirm=source.spec.full_name,
        )
    assert source.live() == source.expected
    source.to("reconcile")
    source.assert_whole()


# -- the archive is not what it was -------------------------------------------------------------------------------------------------


def first_object(source: Source) -> tuple[str, str]:
    """(bucket, key) of a file of the first chunk."""
    (uri,) = source.bench.sql(
        "SELECT uri FROM dbops_archive.archive_file WHERE plan_id = %s ORDER BY chunk_no, file_no LIMIT 1",
        (source.plan_id,),
    )[0]
    where = urlsplit(uri)
    return where.netloc, where.path.lstrip("/")


def flip_a_byte(source: Source) -> None:
    """Flip one bit in the middle of a file's values of the column `speed`."""
    import io

    import pyarrow.parquet as pq

    s3, (bucket, key) = aws.client("s3"), first_object(source)
    body = bytearray(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    group = pq.read_metadata(io.BytesIO(body)).row_group(0)
    (column,) = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "speed"]
    start = column.dictionary_page_offset or column.data_page_offset
    body[start + column.total_compressed_size // 2] ^= 0x10
    s3.put_object(Bucket=bucket, Key=key, Body=bytes(body))


def drop_the_object(source: Source) -> None:
    s3, (bucket, key) = aws.client("s3"), first_object(source)
    s3.delete_object(Bucket=bucket, Key=key)


@pytest.mark.parametrize("damage", [flip_a_byte, drop_the_object])
def test_damage_before_verify_is_never_purged(source: Source, damage: Callable[[Source], None]) -> None:
    source.to("publish")
    damage(source)
    with suppress(Exception):  # Trino may give up on the file, or read other values
        source.to("verify")
    assert source.batches().get("refused", 0) >= 1 or source.batches() == {"exported": 27}
    _, outcome = steps.purge_group(source.services, source.spec, source.plan_id, (0, 0), confirm=source.spec.full_name)
    assert outcome.rows == 0
    assert source.live() == source.expected
    source.to("reconcile", abandon=True)
    assert source.plans() == ["abandoned", "done"]
    source.assert_whole()


@pytest.mark.parametrize("damage", [flip_a_byte, drop_the_object])
def test_damage_after_verify_stops_the_purge(source: Source, damage: Callable[[Source], None]) -> None:
    source.to("verify")
    damage(source)
    with pytest.raises(steps.StepError, match=r"chunk 0 .*(SHA-256|cannot be read).*nothing was deleted"):
        source.to("purge")
    assert source.live() == source.expected
    source.to("reconcile", abandon=True)
    assert source.plans() == ["abandoned", "done"]
    source.assert_whole()


def test_a_snapshot_that_is_rolled_back_stops_the_purge(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lake, "FILES_PER_COMMIT", 4)
        source.to("verify")
    name = f'"{source.bench.namespace}"."t'
    (first,) = source.bench.trino(f'SELECT snapshot_id FROM lake.{name}$snapshots" ORDER BY committed_at LIMIT 1')[0]
    source.bench.trino(f'ALTER TABLE lake.{name}" EXECUTE rollback_to_snapshot({first})')
    with pytest.raises(steps.StepError, match="is not in the current snapshot; nothing was deleted"):
        source.to("purge")
    assert source.live() == source.expected
    source.to("reconcile", abandon=True)
    assert source.plans() == ["abandoned", "done"]
    source.assert_whole()


# -- the source changes -------------------------------------------------------------------------------------------------------------


@on_both_levels
def test_rows_that_change_between_export_and_purge_stay_and_go_next_time(source: Source) -> None:
    source.to("verify")
    source.change("UPDATE t SET note = CONCAT(note, ' ') WHERE id = 310")  # a trailing space
    source.change("DELETE FROM t WHERE id = 913")
    source.change("INSERT INTO t VALUES (1517, '2026-01-01', 1, 'late', NULL)")  # a cold row in a gap
    source.change("UPDATE t SET day = '2026-07-01' WHERE id = 2410")  # is warm now
    source.change("INSERT INTO t VALUES (2717, '2026-07-01', 1, 'warm', NULL)")  # meets no predicate: harms nothing
    changed = {310, 1517}
    source.to("reconcile")
    assert source.batches() == {"changed": 4, "done": 23}
    plan_id = source.plan_id
    reasons = [r["reason"] for r in ledger.Ledger(source.services.source()).refused_rows(plan_id)]
    assert len(reasons) == 4
    assert sorted(r.split(": ")[1] for r in reasons) == [
        "100 rows were archived, 100 are there now, with other values",
        "100 rows were archived, 101 are there now",
        "100 rows were archived, 99 are there now",
        "100 rows were archived, 99 are there now",
    ]
    stay = source.live("day < '2026-06-30'").keys()
    assert changed <= stay
    assert len(stay) == 399
    source.assert_whole(cold_stay=frozenset(stay))
    assert source.to("reconcile") != plan_id
    source.assert_whole()
    assert source.plans() == ["done", "done"]


@on_both_levels
def test_a_row_that_comes_between_checksum_and_delete(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """REPEATABLE READ locks the gap; READ COMMITTED lets the row in, and the number of deleted rows gives it away."""
    source.to("verify")
    intruder = mysql.root_connection(source.bench.server, source.bench.schema)
    intruder.cursor().execute("SET SESSION innodb_lock_wait_timeout = 1")
    kept_out = []

    class Hooked(Checksum):
        calls = 0

        @classmethod
        def from_row(cls, *figures: Any) -> Checksum:
            Hooked.calls += 1
            if Hooked.calls == 1:
                try:
                    intruder.cursor().execute("INSERT INTO t VALUES (17, '2026-01-01', 5, 'intruder', NULL)")
                except MySQLdb.OperationalError as error:
                    kept_out.append(error.args[0])
            return Checksum.from_row(*figures)

    spec = source.spec.model_copy(update={"purge": source.spec.purge.model_copy(update={"workers": 1})})
    before = source.live()
    with monkeypatch.context() as patch, closing(intruder):
        patch.setattr(purge, "Checksum", Hooked)
        _, outcome = steps.purge_group(source.services, spec, source.plan_id, (0, 99), confirm=spec.full_name)
    if source.spec.purge.isolation == "repeatable-read":
        assert (kept_out, outcome.changed) == ([1205], [])
    else:
        assert (kept_out, outcome.changed) == ([], [(0, 0)])
        source.expected[17] = (17, datetime(2026, 1, 1), Decimal("5.00"), "intruder", None)
        assert len(source.live().keys() & before.keys()) == 400
    source.to("reconcile")
    source.to("reconcile")
    source.assert_whole()


def test_a_locked_row_stays_and_goes_next_time(source: Source) -> None:
    source.to("verify")
    other = mysql.root_connection(source.bench.server, source.bench.schema)
    with closing(other):
        other.begin()
        other.cursor().execute("SELECT * FROM t WHERE id = 310 FOR UPDATE")
        _, outcome = steps.purge_group(
            source.services, source.spec, source.plan_id, (0, 99), confirm=source.spec.full_name
        )
        assert (outcome.busy, outcome.changed, outcome.batches) == ([(0, 0)], [], 26)
        assert source.batches() == {"done": 26, "verified": 1}
        assert not steps.reconcile(source.services, source.plan_id).closed
        source.assert_nothing_lost("while locked")
        other.rollback()
    source.to("reconcile")
    source.assert_whole()
    assert source.plans() == ["done"]


def test_a_column_added_between_export_and_purge(source: Source) -> None:
    source.to("verify")
    source.bench.sql("ALTER TABLE t ADD COLUMN extra INT NULL DEFAULT 7")
    with pytest.raises(guardrails.Refused, match=r"altered after plan .* abandon_open_plan"):
        source.to("purge")
    assert source.live() == source.expected
    source.to("reconcile", abandon=True)
    source.assert_whole()
    assert source.plans() == ["abandoned", "done"]
    told = source.bench.trino(f'SELECT extra, count(*) FROM lake."{source.bench.namespace}".t GROUP BY extra')
    assert told == [[7, 2700]]


def test_a_column_added_while_the_purge_runs(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.to("verify")
    with closing(mysql.root_connection(source.bench.server, source.bench.schema)) as other:

        def alter() -> None:
            other.cursor().execute("ALTER TABLE t ADD COLUMN extra INT NULL")

        spec = source.spec.model_copy(update={"purge": source.spec.purge.model_copy(update={"workers": 1})})
        with monkeypatch.context() as patch:
            patch.setattr(purge.Purger, "_adjacent", staticmethod(nth_call(3, alter, purge.Purger._adjacent)))
            with pytest.raises(purge.PurgeStopped, match="has columns"):
                steps.purge_group(source.services, spec, source.plan_id, (0, 99), confirm=spec.full_name)
    assert source.is_partly_purged()
    source.to("reconcile", abandon=True)
    source.assert_whole()


def test_columns_that_change_between_runs(source: Source) -> None:
    source.to("reconcile")
    source.assert_whole()
    source.bench.sql("ALTER TABLE t ADD COLUMN extra INT NULL, MODIFY amount DECIMAL(20,2) NULL")
    source.bench.sql("UPDATE t SET day = '2026-03-01', extra = 1 WHERE day >= '2026-06-30' ORDER BY id LIMIT 50")
    source.expected |= source.live()
    source.to("reconcile")
    source.assert_whole()
    source.bench.sql("ALTER TABLE t MODIFY note VARBINARY(400) NULL")
    source.bench.sql("UPDATE t SET day = '2026-03-01' WHERE day >= '2026-06-30' ORDER BY id LIMIT 50")
    before = source.live("day < '2026-06-30'")
    assert len(before) == 50
    source.to("reconcile")
    moved = {r[0]: r for r in source.archived("t_g2")}
    assert moved == before
    assert len(source.archived("t")) == 2750
    assert not source.live("day < '2026-06-30'")


# -- two at once, and brakes --------------------------------------------------------------------------------------------------------


def test_two_runs_at_once(source: Source) -> None:
    both = [start_worker(source), start_worker(source)]
    assert 0 in [finish_worker(source, process) for process in both] or source.plans() == ["open"]
    source.assert_nothing_lost("after both")
    source.to("reconcile")
    source.assert_whole()
    assert set(source.plans()) == {"done"}


def test_a_pause_stops_the_purge_until_it_is_lifted(source: Source) -> None:
    source.to("verify")
    source.bench.sql(
        "INSERT INTO dbops_archive.archive_pause (source_table, reason) VALUES (%s, 'incident')", (source.source_table,)
    )
    try:
        with pytest.raises(guardrails.Refused, match="still blocked after 1 s: paused"):
            source.to("purge")
    finally:
        source.bench.sql("DELETE FROM dbops_archive.archive_pause WHERE source_table = %s", (source.source_table,))
    assert source.live() == source.expected
    source.to("reconcile")
    source.assert_whole()


def test_brakes_fail_closed(source: Source) -> None:
    source.to("verify")

    def purging(services: steps.Services, **limits: Any) -> None:
        spec = source.spec.model_copy(update={"purge": source.spec.purge.model_copy(update=limits)})
        steps.purge_group(services, spec, source.plan_id, (0, 99), confirm=spec.full_name)

    now = datetime.now(UTC)
    closed = guardrails.Window(start=f"{now + timedelta(hours=2):%H:%M}", end=f"{now + timedelta(hours=3):%H:%M}")
    with pytest.raises(guardrails.Refused, match="outside the window"):
        purging(source.services, window=closed)
    nowhere = replace(source.services, lag_source=lambda: None)
    with pytest.raises(guardrails.Refused, match="replica lag is unknown"):
        purging(nowhere, max_lag_s=10.0)
    no_replica = replace(source.services, lag_source=source.services.source)
    with pytest.raises(guardrails.Refused, match="replica lag is unknown"):
        purging(no_replica, max_lag_s=10.0)
    lagging = source.spec.model_copy(update={"purge": source.spec.purge.model_copy(update={"max_lag_s": 10.0})})
    assert [r.check for r in steps.check(nowhere, lagging, purging=True)] == ["lag"]
    lost = source.services.source()
    source.bench.sql(f"KILL {lost.thread_id()}")
    with pytest.raises(guardrails.Refused, match="replica_lag is unknown"):
        purging(replace(source.services, lag_source=lambda: lost), max_lag_s=10.0)
    for wrong in (None, "", "t", source.spec.full_name.upper()):
        with pytest.raises(guardrails.Refused, match="confirmation"):
            steps.purge_group(source.services, source.spec, source.plan_id, (0, 99), confirm=wrong)
    with pytest.raises(guardrails.Refused, match="allow-list"):
        purging(replace(source.services, purge_allowed=()))
    assert source.live() == source.expected
    source.to("reconcile")
    source.assert_whole()


# -- restore ------------------------------------------------------------------------------------------------------------------------


def test_restore_gives_back_what_was_there_and_never_touches_live_rows(source: Source) -> None:
    source.to("reconcile")
    plan_id, live = source.plan_id, source.live()
    archived = {k: v for k, v in source.expected.items() if k not in live}

    def restored(plan: str | None = plan_id, **select: Any) -> tuple[dict[int, Row], restore.Restored]:
        wanted = restore.selection(**{"chunks": [], "column": None, "low": None, "high": None, **select})
        ((_, done),) = steps.restore_rows(source.services, source.spec, wanted, plan_id=plan, suffix="r1")
        assert done.equal
        schema, table = done.scratch
        return {r[0]: r for r in source.bench.sql(f"SELECT {COLUMNS} FROM `{schema}`.`{table}`")}, done

    rows, whole = restored(None)
    assert rows == archived
    assert (whole.conflicts, whole.manifest is not None) == (0, True)
    upper = {c.chunk_no: int(c.upper[0]) for c in ledger.Ledger(source.services.source()).chunks(plan_id)}
    rows, chunks = restored(chunks=[1, 2])
    assert rows == {k: v for k, v in archived.items() if upper[0] < k <= upper[2]}
    assert chunks.manifest is not None
    rows, _ = restored(column="day", low="2026-01-01", high="2026-02-01")
    assert rows == {k: v for k, v in archived.items() if v[1].month == 1}
    rows, _ = restored(column="id", low="310", high="400")
    assert rows == {k: v for k, v in archived.items() if 310 <= k < 400}

    source.bench.sql("INSERT INTO t VALUES (310, '2026-06-30', 0, 'another row took the key', NULL)")
    now = source.live()
    rows, conflicting = restored(None)
    assert rows == archived
    assert (conflicting.conflicts, conflicting.sample_conflicts) == (1, ["310"])
    assert source.live() == now
    plan, services = ledger.Ledger(source.services.source()).plan(plan_id), source.services
    table = services.catalog().load_table(plan.lake[1:])
    with pytest.raises(restore.RestoreError, match="live table"):
        restore.restore(services.source(), services.trino(), table, plan, plan.source, restore.Selection(), None)
    assert source.live() == now
