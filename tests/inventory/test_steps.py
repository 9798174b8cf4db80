"""What a repeated run must not repeat, and what must not be forgotten between two analyses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import MySQLdb
import pytest
import sqlalchemy as sa

from dbops import alerting, connections
from dbops.inventory import catalog, operators, steps, upgrade
from dbops.inventory.access import Plan, PlanTable
from dbops.inventory.analysis import Inventory
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History
from dbops.inventory.model import Instance, Sighting, Snapshot
from dbops.inventory.results import LOG_ONLY, Results
from dbops.inventory.steps import Services
from dbops.inventory.trials import Trial
from dbops.inventory.upgrade import Finding
from tests.inventory import shop
from tests.inventory.test_analysis import READ, TWO, analysed, spec

DELETE, TRUNCATE = "DELETE FROM carts WHERE token = 'x'", "TRUNCATE TABLE carts"


class Closing:
    def close(self) -> None:
        return None


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db")
    History(engine).migrate()
    yield Services(instance=lambda name: Closing(), engine=lambda: engine, client=lambda name: None)
    engine.dispose()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []

    def notify(severity: str, subject: str, message: str, conn_id: str) -> bool:
        messages.append(message)
        return True

    monkeypatch.setattr(alerting, "notify", notify)
    return messages


def alarm(services: Services, found: Inventory, run: str = "query_inventory/1") -> None:
    task = operators.AnalyseOperator(task_id="analyse", window={"spec": "shop", "until": shop.NOW.isoformat()})
    task._alarm(services, found, run)


def test_a_new_write_is_told_once_however_often_the_task_is_repeated(services: Services, sent: list[str]) -> None:
    found = analysed(READ, DELETE, before=analysed(READ))
    for run in ("query_inventory/1", "query_inventory/1", "query_inventory/2"):
        alarm(services, found, run)
    assert len(sent) == 1
    alarm(services, analysed(READ, DELETE, TRUNCATE, before=analysed(READ)))
    assert len(sent) == 2
    assert "TRUNCATE" in sent[1]
    assert "DELETE" not in sent[1]


def test_an_alert_that_nobody_took_is_sent_again(
    services: Services, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = analysed(READ, DELETE, before=analysed(READ))
    with monkeypatch.context() as broken:
        broken.setattr(alerting, "notify", lambda *args: False)
        broken.setattr(connections, "extra", lambda name: {alerting.TOPIC_EXTRA: "arn:aws:sns:eu-west-1:1:t"})
        with pytest.raises(RuntimeError, match="SNS did not take the alert about 1 new writes"):
            alarm(services, found)
    alarm(services, found)
    alarm(services, found)
    assert len(sent) == 1


def shot(at: Any, text: str) -> Snapshot:
    digest = Sighting(
        "digest", "d", text, "shop", is_digest=True, digest="d", executions=3, first_seen=at, last_seen=at
    )
    started = shop.NOW - timedelta(days=99)
    return Snapshot(
        Instance("writer", "8.0.15", "u", started, False, {}), at, (digest,), {"statement/sql/delete": 3}, 0, 0, 0, (),
        read=frozenset(("statements",)), definitions_read=True,
    )  # fmt: skip


def test_a_snapshot_that_came_too_late_for_the_last_analysis_is_new_to_the_next(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "read", lambda conn: (shop.CATALOG, []))
    first = steps.analyse(services, spec(), "dag/1", shop.NOW)
    steps.keep(services, first, "dag/1")
    # taken before the window's end, and in the store when the analysis had been made
    History(services.engine()).record(
        "shop", shot(shop.NOW - timedelta(seconds=5), "DELETE FROM `carts` WHERE `token` = ?")
    )
    second = steps.analyse(services, spec(), "dag/2", shop.NOW + timedelta(days=1))
    assert [(c.kind, list(map(str, c.writes))) for c in second.changes if c.text] == [("new", ["shop.carts"])]
    assert len(second.alarms) == 1
    steps.keep(services, replace(second, statements=[]), "dag/2")
    later = steps.analyse(services, spec(), "dag/3", shop.NOW + timedelta(days=40))
    assert [c.kind for c in later.changes if c.text] == []
    assert fingerprint("DELETE FROM carts WHERE token = 1") == second.alarms[0].statement[0]


class Asked(Closing):
    """A connection to an 8.0 server, which may be lost."""

    lost = False

    def ping(self) -> None:
        if self.lost:
            raise MySQLdb.OperationalError(2006, "MySQL server has gone away")

    def get_server_info(self) -> str:
        return "8.0.15"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, services: Services) -> list[str]:
    """An instance with one digest; gives the texts that were tried on the 8.0 server."""
    asked: list[str] = []
    monkeypatch.setattr(catalog, "read", lambda conn: (shop.CATALOG, []))
    monkeypatch.setattr(
        steps.snapshot, "take", lambda conn, name, now, **_: replace(shot(now, "SELECT ?"), own_executions=0)
    )

    def check(conn: Any, text: str, schema: str | None) -> list[Finding]:
        asked.append(text)
        if len(asked) == 2:
            conn.lost = True
            raise MySQLdb.OperationalError(2013, "Lost connection to MySQL server during query")
        return []

    monkeypatch.setattr(upgrade, "check_on_server", lambda conn, text, schema: check(conn, text, schema))
    return asked


def logged(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    read = [Sighting("slow_log", t, t, "shop", executions=1, first_seen=shop.NOW, last_seen=shop.NOW) for t in texts]
    monkeypatch.setattr(steps, "_read_logs", lambda *args: ([steps._LogRead(read, [])], {}))


def taken(services: Services, minutes: int, *, full: bool) -> steps.Taken:
    given = spec(upgrade_connection="mysql80")
    return steps.take_snapshot(
        replace(services, instance=lambda name: Asked()), given, "writer", lambda: shop.NOW + timedelta(minutes=minutes), full=full
    )  # fmt: skip


def test_a_log_is_tried_on_the_8_0_server_when_it_is_read(
    services: Services, server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot of every 15 minutes reads it, the daily one has only what was written since the last of those."""
    taken(services, 0, full=True)
    logged(monkeypatch, "DELETE FROM carts WHERE token = 'x'")
    assert taken(services, 15, full=False).tried == 1
    assert taken(services, 30, full=False).tried == 0
    assert server == ["DELETE FROM carts WHERE token = 'x'"]
    assert len(Results(services.engine()).trials("shop")) == 1


def test_an_8_0_server_that_is_lost_costs_no_snapshot(
    services: Services, server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged(monkeypatch, "DELETE FROM carts", "DELETE FROM orders", "DELETE FROM products")
    found = taken(services, 0, full=True)
    assert (found.recorded.is_new, len(server)) == (True, 2)
    (gap,) = found.gaps
    assert f"after {found.tried}: OperationalError: (20" in gap.why
    assert found.tried < 3
    assert taken(services, 15, full=True).tried == 3 - found.tried


def test_definitions_that_cannot_be_read_cost_no_snapshot(
    services: Services, server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(conn: Any) -> Any:
        raise MySQLdb.OperationalError(1193, "Unknown system variable 'max_execution_time'")

    monkeypatch.setattr(catalog, "read", denied)
    found = taken(services, 0, full=True)
    assert (found.recorded.is_new, found.recorded.coverage.explained) == (True, 0)
    assert [g.what for g in found.gaps] == ["definitions (views)"]


def test_the_analysis_takes_the_definitions_of_an_instance_that_answers(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def instance(name: str) -> Any:
        if name == "a":
            raise MySQLdb.OperationalError(2003, "Can't connect to MySQL server")
        return Closing()

    monkeypatch.setattr(catalog, "read", lambda conn: (shop.CATALOG, []))
    two = spec(instances=TWO)
    found = steps.analyse(replace(services, instance=instance), two, "dag/1", shop.NOW)
    assert (len(found.heats), found.gaps[0].what) == (
        len(shop.CATALOG.tables),
        "definitions on instance writer",
    )
    with pytest.raises(MySQLdb.OperationalError, match="Can't connect"):
        steps.analyse(replace(services, instance=lambda name: instance("a")), two, "dag/1", shop.NOW)


def test_a_plan_outlives_a_trial_that_looked_for_none(services: Services) -> None:
    results, key = Results(services.engine()), ("f" * 64, "shop")
    plan = Plan((PlanTable("carts", "const", "PRIMARY", ("token",), ("PRIMARY",), 1, False, False),))
    results.add_trials("s", shop.NOW, "8.0.15", {key: Trial(plan, ())})
    finding = Finding("r", "breaks", "e", "f")
    results.add_trials("s", shop.NOW + timedelta(1), f"8.0.15{LOG_ONLY}", {key: Trial(None, (finding,))})
    assert results.trials("s") == {key: Trial(plan, (finding,))}
    results.add_trials("s", shop.NOW + timedelta(2), "8.0.15", {key: Trial(None, ())})
    assert results.trials("s") == {key: Trial(None, ())}
