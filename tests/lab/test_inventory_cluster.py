"""Two real servers as a cluster: what one of them cannot count, one under two names, and a failover and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest

from dbops.inventory import summary
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History, SecondNameError
from dbops.inventory.spec import InventorySpec
from dbops.inventory.steps import Services, analyse, take_snapshot
from tests.lab.inventory_kit import NAMES, Mysqld, now, scratch_history

pytestmark = pytest.mark.lab
EVER = datetime(2000, 1, 1)
TEXT = "SELECT total FROM orders WHERE id = 1"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Mysqld]]:
    servers = {name: Mysqld(name, tmp_path_factory.mktemp(name)) for name in NAMES}
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(params=NAMES)
def pair(request: pytest.FixtureRequest, started: dict[str, Mysqld]) -> tuple[Mysqld, Mysqld]:
    """(the one that the test is about, the other); every counter begins with the test."""
    for server in started.values():
        server.restart()
        server.sql("DROP DATABASE IF EXISTS shop")
        server.sql("CREATE DATABASE shop")
        server.sql("CREATE TABLE shop.orders (id INT PRIMARY KEY, total INT)")
        server.sql("DROP USER IF EXISTS 'nobody'@'127.0.0.1'")
        server.sql("CREATE USER 'nobody'@'127.0.0.1' IDENTIFIED WITH mysql_native_password BY ''")
        server.sql("GRANT SELECT ON shop.* TO 'nobody'@'127.0.0.1'")
    (other,) = (server for name, server in started.items() if name != request.param)
    return started[request.param], other


class Cluster:
    """A spec over connections that can be turned to other servers, and a history."""

    def __init__(self, history: History, **connections: Any) -> None:
        self.history, self.connections = history, connections
        instances = [{"name": name, "connection": name} for name in connections]
        values = {"name": "shop", "description": "d", "owner": "o", "schemas": ["shop"], "instances": instances}
        self.spec = InventorySpec.model_validate(values)
        self.services = Services(
            instance=lambda name: self.connections[name](), engine=lambda: history.engine, client=lambda _: None
        )

    def snapshot(self, name: str) -> Any:
        return take_snapshot(self.services, self.spec, name, now, full=True).recorded

    def executions(self) -> int:
        found = {o.fingerprint: o for o in self.history.window("shop", EVER, now())}
        return found[fingerprint(TEXT)].activity.executions


@pytest.fixture
def history() -> Iterator[History]:
    with scratch_history() as made:
        yield made


def run(server: Mysqld, times: int, **options: Any) -> None:
    with closing(server.connect(database="shop", **options)) as connection, connection.cursor() as cursor:
        for _ in range(times):
            cursor.execute(TEXT)


SET = "UPDATE performance_schema.setup_"


@pytest.mark.parametrize(
    ("off", "user", "why"),
    [
        ("", "nobody", "statements: not readable"),
        (f"{SET}consumers SET ENABLED = 'NO' WHERE NAME = 'global_instrumentation'", "root", "nothing is counted"),
        (
            f"{SET}instruments SET ENABLED = 'NO' WHERE NAME = 'statement/sql/select'",
            "root",
            "statement instruments: 1",
        ),
        (f"{SET}actors SET ENABLED = 'NO'", "root", "sessions of %@%: setup_actors excludes them"),
    ],
)
def test_a_reader_that_does_not_count_what_it_runs_leaves_the_writer_s_statements_and_no_figure(
    pair: tuple[Mysqld, Mysqld], history: History, off: str, user: str, why: str
) -> None:
    reader, writer = pair
    cluster = Cluster(history, writer=writer.connect, reader=lambda: reader.connect(user=user))
    if off:
        reader.sql(off)
    for name in ("writer", "reader"):
        cluster.snapshot(name)
    run(writer, 7)
    run(reader, 5, user="nobody")
    assert cluster.snapshot("writer").coverage.explained_percent == 100.0
    ledger = cluster.snapshot("reader").coverage
    assert (ledger.measured, ledger.explained_percent) == (False, 0.0)
    found = analyse(cluster.services, cluster.spec, "test/1", now())
    assert (found.window.coverage_percent, found.unseen) == (0.0, ("reader",))
    assert cluster.executions() == 7
    (reason,) = [r for r in summary.judge(found)[1] if r.startswith("instance reader")]
    assert why in reason
    assert {a.store for a in found.advice} == {"not decidable"}


def test_a_reader_without_performance_schema_leaves_the_writer_s_statements_and_no_figure(
    pair: tuple[Mysqld, Mysqld], history: History
) -> None:
    reader, writer = pair
    reader.restart("--performance-schema=OFF")
    cluster = Cluster(history, writer=writer.connect, reader=reader.connect)
    for _ in range(2):
        for name in ("writer", "reader"):
            cluster.snapshot(name)
        run(writer, 3)
    cluster.snapshot("writer")
    found = analyse(cluster.services, cluster.spec, "test/1", now())
    assert (found.window.coverage_percent, found.unseen) == (0.0, ("reader",))
    assert "performance_schema is OFF" in {gap.why for gap in found.gaps}
    assert cluster.executions() == 6


def test_what_still_counts_is_not_called_blind(pair: tuple[Mysqld, Mysqld], history: History) -> None:
    server, _ = pair
    cluster = Cluster(history, writer=server.connect)
    cluster.snapshot("writer")
    server.sql(f"{SET}consumers SET ENABLED = 'NO' WHERE NAME = 'thread_instrumentation'")
    run(server, 5)
    ledger = cluster.snapshot("writer").coverage
    assert ledger.measured
    assert cluster.executions() == 5
    server.sql(f"{SET}instruments SET ENABLED = 'NO' WHERE NAME = 'statement/com/Ping'")
    assert cluster.snapshot("writer").coverage.measured


def test_one_server_under_two_names_is_counted_once(pair: tuple[Mysqld, Mysqld], history: History) -> None:
    server, other = pair
    cluster = Cluster(history, writer=server.connect, reader=server.connect)
    run(server, 7)
    cluster.snapshot("writer")
    with pytest.raises(SecondNameError, match="instance reader is the server of instance writer"):
        cluster.snapshot("reader")
    assert cluster.executions() == 7
    cluster.connections["reader"] = other.connect
    run(other, 2)
    cluster.snapshot("reader")
    assert cluster.executions() == 9


def test_a_failover_and_back_counts_each_execution_once(pair: tuple[Mysqld, Mysqld], history: History) -> None:
    one, other = pair
    cluster = Cluster(history, writer=one.connect)
    run(one, 5)
    run(other, 100)  # its life before it takes over
    cluster.snapshot("writer")
    run(one, 2)
    cluster.connections["writer"] = other.connect
    assert cluster.snapshot("writer").coverage.since is None
    run(other, 3)
    assert cluster.snapshot("writer").coverage.explained_percent == 100.0
    cluster.connections["writer"] = one.connect
    run(one, 1)
    back = cluster.snapshot("writer")
    assert any("again" in reset for reset in back.resets)
    assert "the time before a failover" in {gap.what for gap in back.coverage.gaps}
    run(one, 4)
    cluster.snapshot("writer")
    assert cluster.executions() == 5 + 2 + 1 + 4 + 100 + 3
    found = analyse(cluster.services, cluster.spec, "test/1", now())
    assert (found.unseen, round(found.coverage.explained_percent)) == ((), 100)
    # What the other server ran at last is not known.
    assert found.window.coverage_percent < found.coverage.explained_percent
