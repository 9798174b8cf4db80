"""What a repeated run must not repeat, and what must not be forgotten between two analyses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops import alerting, connections
from dbops.inventory import catalog, operators, steps
from dbops.inventory.analysis import Inventory
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History
from dbops.inventory.model import Instance, Sighting, Snapshot
from dbops.inventory.steps import Services
from tests.inventory import shop
from tests.inventory.test_analysis import READ, analysed, spec

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
