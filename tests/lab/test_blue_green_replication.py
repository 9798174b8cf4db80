"""Changes that arrive on a real 8.0.15 that follows a real 5.7.22, and changes that end replication."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dbops.blue_green import replication
from dbops.blue_green.replication import Arrival
from tests.lab.replica_kit import Side, pair

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    with pair(tmp_path_factory.mktemp("replication"), "shop") as both:
        yield both


def run(sides: tuple[Side, Side], deadline_s: float = 30, **more: Any) -> list[Arrival]:
    with closing(sides[0].connect()) as blue, closing(sides[1].connect()) as green:
        return replication.run(blue, green, "shop", deadline_s, **more)


def test_every_change_arrives_and_is_timed(sides: tuple[Side, Side]) -> None:
    found = run(sides)
    assert {arrival.name: arrival.error for arrival in found} == dict.fromkeys(
        [c.name for c in replication.CHANGES], ""
    )
    assert all(arrival.seconds is not None and arrival.seconds < 30 for arrival in found)
    assert sides[1].value("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop'") == 0
    assert {arrival.kind for arrival in found} == {"dml", "ddl"}


def test_an_interrupted_run_is_begun_again(sides: tuple[Side, Side]) -> None:
    sides[0].run("CREATE TABLE shop.dbops_arrival (other INT)", "INSERT INTO shop.dbops_arrival VALUES (1)")
    assert [arrival.error for arrival in run(sides) if arrival.error] == []


def test_a_delay_shows_in_the_figures(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "CHANGES", replication.CHANGES[:5])
    with delayed(sides[1], 1):
        found = run(sides)
    assert [arrival.error for arrival in found if arrival.error] == []
    # MASTER_DELAY counts whole seconds from the beginning of the statement on blue.
    assert statistics.median(arrival.seconds or 0 for arrival in found) > 0.5


def test_what_does_not_arrive_is_named_with_its_reason(sides: tuple[Side, Side]) -> None:
    with delayed(sides[1], 3600):
        found = run(sides, deadline_s=0.3)
    assert "not on green after 0.3 s" in found[0].error
    assert found[0].seconds is None
    assert all(arrival.error.startswith("not tried: not on green") for arrival in found[1:])
    sides[1].server.sql("STOP SLAVE SQL_THREAD")
    found = run(sides, deadline_s=5)
    sides[1].server.sql("START SLAVE SQL_THREAD")
    assert all("replication has stopped" in arrival.error for arrival in found)


def test_a_server_that_follows_nobody_is_told(sides: tuple[Side, Side]) -> None:
    with closing(sides[0].connect()) as blue:
        assert replication.replica_state(blue) == replication.ReplicaState(False, False, None, "green is not a replica")
    with closing(sides[1].connect()) as green:
        state = replication.replica_state(green)
    assert (state.configured, state.running, state.error) == (True, True, "")


def test_known_breakers_and_what_they_do(sides: tuple[Side, Side]) -> None:
    def repair(_: Any, side: str) -> None:
        if side == "blue":  # what rds_skip_repl_error does: an empty transaction in the place of the one that fails
            state = sides[1].server.rows("SHOW SLAVE STATUS")[0]
            missing = sides[1].server.value(f"GTID_SUBTRACT('{state['Retrieved_Gtid_Set']}', @@GLOBAL.gtid_executed)")
            uuid, numbers = missing.split(":")
            with sides[1].server.cursor(init_command="SET sql_log_bin = 1") as cursor:
                cursor.execute("SET gtid_next = %s", (f"{uuid}:{numbers.split('-')[0]}",))
                cursor.execute("COMMIT")
                cursor.execute("SET gtid_next = 'AUTOMATIC'")
        sides[1].server.sql("START SLAVE")

    with closing(sides[0].connect()) as blue, closing(sides[1].connect()) as green:
        found = {b.name: b for b in replication.breaking(blue, green, "shop", 10, repair=repair)}
    assert {name: breakage.verdict for name, breakage in found.items()} == {
        "new column at the end of green": "replicates",
        "renamed column on green": "replicates",  # rows are matched by position
        "new column in the middle of green": "wrong data",
        "other type on green": "broke",
        "renamed table on green": "broke",
        "word that 8.0 reserves, on blue": "broke",
        "partitions of another engine, on blue": "broke",
    }
    assert all(breakage.repaired for breakage in found.values())
    assert "1677" in found["other type on green"].error or "cannot be converted" in found["other type on green"].error
    assert "rank" in found["word that 8.0 reserves, on blue"].error
    assert [arrival.error for arrival in run(sides) if arrival.error] == []


class delayed:
    """Green applies everything so many seconds later."""

    def __init__(self, green: Side, seconds: int) -> None:
        self.green, self.seconds = green, seconds

    def __enter__(self) -> None:
        self.set(self.seconds)

    def __exit__(self, *_: object) -> None:
        self.set(0)

    def set(self, seconds: int) -> None:
        with self.green.server.cursor() as cursor:
            cursor.execute("STOP SLAVE SQL_THREAD")
            cursor.execute(f"CHANGE MASTER TO MASTER_DELAY = {seconds}")
            cursor.execute("START SLAVE SQL_THREAD")
