"""The whole inventory against a workload whose truth is known: every statement is seen or a gap names it, and what it touches is right.

Between the statements the servers do what servers do: TRUNCATE with equal counts afterwards, a restart, a full digest table, a rename.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from dbops.inventory import summary
from dbops.inventory.analysis import Inventory
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History
from dbops.inventory.model import Statement
from dbops.inventory.spec import InventorySpec
from dbops.inventory.steps import Services, Taken, analyse, keep, take_snapshot
from dbops.reports import Verdict, render_html
from lab import config
from tests.inventory.workload import LINES, SCHEMA_STATEMENTS, VALUES, Line
from tests.lab.inventory_kit import NAMES, Mysqld, now, scratch_history

pytestmark = pytest.mark.lab

OVER_VIEWS = re.compile(r"\b(?:active_members|ride_costs)\b")
"""Before 5.7.36 such a statement has the digest of the view's body: only logs, samples and the statement history show it."""


class Cluster:
    """A server, a history, and the books of what was sent."""

    def __init__(self, server: Mysqld, history: History, **spec: Any) -> None:
        self.server, self.history = server, history
        values = {
            "name": "shop", "description": "a test", "owner": "tests", "schemas": ["shop", "crm"],
            "instances": [{"name": "writer", "connection": "writer"}], "cold_after_days": 1, "window_days": 30, **spec,
        }  # fmt: skip
        self.spec = InventorySpec.model_validate(values)
        self.services = Services(
            instance=lambda _: server.connect(), engine=lambda: history.engine, client=lambda _: None
        )
        self.sent: list[Line] = []
        self.count = 0
        self.open_statements: list[Any] = []

    def load_schema(self) -> None:
        with closing(self.server.connect()) as connection, connection.cursor() as cursor:
            for statement in SCHEMA_STATEMENTS:
                cursor.execute(statement)

    def run(self, lines: Iterable[Line], times: int = 1) -> None:
        """Send each line over its channel."""
        for schema in ("shop", None, "crm"):
            mine = [line for line in lines if line.schema == schema and line.channel in "tnx"]
            with closing(self.server.connect(**({"database": schema} if schema else {}))) as connection:
                for line in mine:
                    for _ in range(times):
                        with connection.cursor() as cursor:
                            cursor.execute(line.sql)
                            cursor.fetchall()
                            while cursor.nextset() not in (None, -1):
                                cursor.fetchall()
                        self.count += 1
        self.sent += lines

    def prepare(self, lines: Iterable[Line]) -> None:
        """Server-side prepared, executed twice and left open."""
        self.binary = mysql.connector.connect(
            host=config.HOST, port=self.server.port, user="root", database="shop", use_pure=True, autocommit=True
        )
        for line in lines:
            cursor = self.binary.cursor(prepared=True)
            for _ in range(2):
                cursor.execute(line.sql.replace("?", "%s"), VALUES[line.sql])
                if cursor.description:
                    cursor.fetchall()
                self.count += 1
            self.open_statements.append(cursor)
        self.sent += lines

    def snapshot(self, *, full: bool = False) -> Taken:
        return take_snapshot(self.services, self.spec, "writer", now, full=full)

    def analyse(self, run: str = "test/1") -> Inventory:
        found = analyse(self.services, self.spec, run, now())
        keep(self.services, found, run)
        return found


@pytest.fixture(scope="module", params=NAMES)
def mysqld(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mysqld]:
    server = Mysqld(request.param, tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


@pytest.fixture
def cluster(mysqld: Mysqld, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    mysqld.restart(*getattr(request, "param", ()))
    for schema in ("shop", "crm"):
        mysqld.sql(f"DROP DATABASE IF EXISTS {schema}")
    with scratch_history() as history:
        cluster = Cluster(mysqld, history)
        cluster.load_schema()
        yield cluster


def found_in(inventory: Inventory) -> dict[tuple[str | None, str], Statement]:
    return {(s.schema, s.fingerprint): s for s in inventory.statements}


def judged(lines: Iterable[Line], inventory: Inventory) -> tuple[list[Line], list[tuple[str, str, str]], int]:
    """(lines that were not seen, triples that are wrong, triples that are right)."""
    seen = found_in(inventory)
    bodies = {s.fingerprint: s for s in inventory.statements if s.activity.programs}
    unseen, wrong, right = [], [], 0
    for line in lines:
        print_ = fingerprint(line.sql)
        statement = bodies.get(print_) if line.channel == "b" else seen.get((line.schema, print_))
        if statement is None:
            unseen.append(line)
            continue
        views = {"shop.active_members", "shop.ride_costs"}
        uses = {(str(u.table), u.access) for u in statement.uses if str(u.table) not in views}
        uses |= {
            (name if "." in name else f"shop.{name}", "ddl")
            for name in statement.unresolved
            if ("ddl" in str(line.uses))
        }
        right += len(uses & line.uses)
        wrong += [(line.sql, "missing", f"{t} {a}") for t, a in sorted(line.uses - uses)]
        wrong += [(line.sql, "too much", f"{t} {a}") for t, a in sorted(uses - line.uses)]
    return unseen, wrong, right


def test_every_statement_is_seen_or_a_gap_names_it(cluster: Cluster) -> None:
    text = [line for line in LINES if line.channel in "tnx"]
    half = len(text) // 2
    cluster.snapshot(full=True)
    cluster.run(text[:half])
    cluster.snapshot()
    # As many executions of each as before: only FIRST_SEEN and the row that vanished tell of the reset.
    cluster.server.sql("TRUNCATE TABLE performance_schema.events_statements_summary_by_digest")
    reads = [line for line in text[:half] if line.sql.startswith("SELECT")]
    cluster.run(reads)
    resets = cluster.snapshot().recorded.resets
    assert any("digests" in reset for reset in resets), resets
    cluster.server.restart()
    cluster.run(text[half:])
    cluster.server.sql("RENAME TABLE shop.ledger_2025 TO shop.ledger_old")
    cluster.prepare([line for line in LINES if line.channel == "p"])
    cluster.server.sql("SET GLOBAL event_scheduler = OFF")
    # A restart within two seconds of the start before it is seen by the counters that went down.
    resets = cluster.snapshot(full=True).recorded.resets
    assert any("server" in reset or "events" in reset for reset in resets), resets
    inventory = cluster.analyse()

    unseen, wrong, right = judged(LINES, inventory)
    over_views = [line for line in LINES if OVER_VIEWS.search(line.sql)]
    assert [line.sql for line in unseen if line not in over_views] == []
    named = {gap.what: gap.executions or 0 for gap in inventory.gaps}
    if unseen:
        assert named["statements over views"] >= len(unseen)
    assert right / (right + len(wrong)) >= 0.98, wrong
    lost_deletes = [line for line in unseen if "DELETE" in line.sql]
    assert lost_deletes == []
    ledger = inventory.coverage
    assert ledger.explained + sum(gap.executions or 0 for gap in ledger.gaps) == ledger.executions_total
    hidden = len(over_views)
    outside = ledger.in_programs + 60  # the schema, the rename and other statements of the test itself
    assert cluster.count <= ledger.executions_total <= cluster.count + outside + hidden
    register = {(str(w.table), w.statement) for w in inventory.writers.writers}
    written = {
        (t, fingerprint(line.sql)[:12]) for line in LINES if line not in unseen for t, a in line.uses if a == "write"
    }
    assert written - register == set()
    assert inventory.writers.holes == ()
    assert summary.judge(inventory)[0] is not Verdict.FAILED
    html = render_html(summary.report(inventory, {"dag_id": "d", "run_id": "r", "provenance": "real AWS"}))
    assert "could not be drawn" not in html


@pytest.mark.parametrize(
    "cluster", [("--slow-query-log=ON", "--long-query-time=0", "--slow-query-log-file=slow.log")], indirect=True
)
def test_with_a_slow_log_nothing_is_left_to_a_gap(cluster: Cluster, tmp_path: Path) -> None:
    path = cluster.server.data / "slow.log"
    log = {"source": "file", "instance": "writer", "kind": "slow", "path": str(path)}
    cluster.spec = InventorySpec.model_validate({**cluster.spec.model_dump(), "logs": [log]})
    cluster.snapshot(full=True)
    text = [line for line in LINES if line.channel in "tnx"]
    half = len(text) // 2
    cluster.run(text[:half])
    cluster.snapshot(full=True)
    cluster.run(text[half:])
    cluster.prepare([line for line in LINES if line.channel == "p"])
    for statement in cluster.open_statements:
        statement.close()
    cluster.server.sql("SELECT 1")  # the last entry of a log may not be whole, and is left to the next read
    cluster.snapshot(full=True)
    inventory = cluster.analyse()
    unseen, wrong, right = judged(LINES, inventory)
    assert [line.sql for line in unseen] == []
    assert right / (right + len(wrong)) >= 0.98, wrong
    # What the log shows is no gap any more; the statements inside programs are known by their bodies.
    # 5.7: our own reading of the definitions opens both views in each of three full snapshots, and has the digests of their bodies.
    ours = 6 if cluster.server.server.version.startswith("5.") else 0
    # REPLACE INTO tariffs was sent as text too: what a digest names is not counted for the log, to be on the safe side.
    assert sum(gap.executions or 0 for gap in inventory.coverage.gaps) <= ours + 2, inventory.coverage.gaps
    # One row a statement: the log's schema, where it is that of the entry before, is corrected.
    prints = [s.fingerprint for s in inventory.statements if s.text.startswith("SELECT p.note")]
    assert len(prints) == 1
    plans = [w for found in inventory.witnesses.values() for w in found if w.plan]
    assert len(plans) > 15
    assert [w.differences for w in plans if any("unexplained" in d for d in w.differences)] == []
    once = found_in(inventory)["shop", fingerprint("DELETE FROM sessions WHERE token = 'zzz'")]
    assert (once.activity.executions, {"digest", "slow_log"} <= once.activity.sources) == (1, True)


@pytest.mark.parametrize("cluster", [("--performance-schema-digests-size=40",)], indirect=True)
def test_a_full_digest_table_is_named_with_what_it_hides(cluster: Cluster) -> None:
    cluster.snapshot(full=True)
    cluster.run([line for line in LINES if line.channel == "t"])
    taken = cluster.snapshot()
    ((told,),) = cluster.server.sql(
        "SELECT COUNT_STAR FROM performance_schema.events_statements_summary_by_digest WHERE DIGEST IS NULL"
    )
    ledger = taken.recorded.coverage
    hidden = next(g.executions for g in ledger.gaps if "NULL row" in g.what)
    assert hidden is not None
    # All that was sent: the 40 rows were taken by the schema and by the first snapshot.
    assert hidden == ledger.executions_total - ledger.named_digest - ledger.in_programs
    assert hidden <= told
    assert hidden >= cluster.count - 5
    assert ledger.explained + sum(gap.executions or 0 for gap in ledger.gaps) == ledger.executions_total
    inventory = cluster.analyse()
    assert summary.judge(inventory)[0] is Verdict.WARNING
    assert {a.store for a in inventory.advice} == {"not decidable"}


def test_a_full_snapshot_writes_nothing_and_waits_for_nothing(cluster: Cluster) -> None:
    """MySQL would run constant calls to make a plan, and would write through them."""
    cluster.server.sql("SET GLOBAL log_bin_trust_function_creators = 1")
    cluster.server.sql("CREATE TABLE shop.calls (n INT)")
    cluster.server.sql(
        "CREATE FUNCTION shop.acts() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO shop.calls VALUES (1); RETURN 1; END"
    )
    with closing(cluster.server.connect(database="shop")) as connection, connection.cursor() as cursor:
        for statement in (
            "UPDATE members SET name = 'x' WHERE id = acts()", "DELETE FROM sessions WHERE member_id = (SELECT acts())",
            "SELECT name FROM members WHERE id = acts()", "SELECT GET_LOCK('theirs', 0)", "SELECT RELEASE_LOCK('theirs')",
        ):  # fmt: skip
            cursor.execute(statement)
            cursor.fetchall()
        ((before,),) = cluster.server.sql("SELECT COUNT(*) FROM shop.calls")
        assert before
        cluster.snapshot(full=True)  # the connection is open, so that the statement history shows its texts on 5.7 too
        cluster.snapshot(full=True)
        assert cluster.server.sql("SELECT COUNT(*) FROM shop.calls") == ((before,),)
        assert cluster.server.sql("SELECT IS_FREE_LOCK('theirs')") == ((1,),)
