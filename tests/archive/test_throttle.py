"""The brake of the purge with signals made by hand, and how transactions find their size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops import guardrails
from dbops.archive import throttle
from dbops.archive.purge import Pace
from dbops.archive.spec import Purge
from dbops.archive.throttle import Brake


@dataclass
class Servers:
    """What the servers would answer, and a clock that only sleeping moves."""

    lag: float | None = 0.0
    threads: float | None = 1.0
    history: float | None = 0.0
    aurora: tuple[float, float] | None = None
    pause: str | None = None
    now: float = 1000.0
    looks: list[str] = field(default_factory=list)
    after_sleep: list[dict[str, Any]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for name, value in (self.after_sleep.pop(0) if self.after_sleep else {}).items():
            setattr(self, name, value)

    def look(self, what: str, value: Any) -> Any:
        self.looks.append(what)
        return value


SOURCE, REPLICA = object(), object()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()

    def lag(conn: object) -> float | None:
        assert conn is REPLICA
        return made.look("lag", made.lag)

    monkeypatch.setattr(throttle.mysql, "replica_lag_seconds", lag)
    monkeypatch.setattr(throttle.mysql, "threads_running", lambda conn: made.look("threads", made.threads))
    monkeypatch.setattr(throttle.mysql, "history_list_length", lambda conn: made.look("history", made.history))
    monkeypatch.setattr(throttle.mysql, "aurora_commit_counters", lambda conn: made.look("aurora", made.aurora))
    monkeypatch.setattr(throttle.Ledger, "paused", lambda self, table: made.look("paused", made.pause))
    return made


def brake(servers: Servers, *, lag_source: object | None = REPLICA, **purge: Any) -> Brake:
    return Brake(
        Purge.model_validate({"max_wait_s": 60, **purge}), "s.t", SOURCE, lag_source,  # type: ignore[arg-type]
        monotonic=lambda: servers.now, sleep=servers.sleep,
    )  # fmt: skip


def test_quiet_servers_stop_nobody_and_are_asked_once_a_second(servers: Servers) -> None:
    stop = brake(servers)
    stop()
    assert sorted(servers.looks) == ["aurora", "history", "lag", "paused", "threads"]
    stop()
    servers.now += 0.99
    stop()
    assert len(servers.looks) == 5
    servers.now += 0.02
    stop()
    assert len(servers.looks) == 10
    assert stop.waited == []


@pytest.mark.parametrize(
    ("blocked", "free", "reason"),
    [
        ({"lag": 10.1}, {"lag": 10.0}, "replica lag is 10.1 s, limit 10 s"),
        ({"lag": None}, {"lag": 0.0}, "replica lag is unknown (limit 10 s)"),
        ({"lag": float("nan")}, {"lag": 0.0}, "replica lag is unknown (limit 10 s)"),
        ({"threads": 51.0}, {"threads": 50.0}, "threads running is 51, limit 50"),
        ({"threads": None}, {"threads": 0.0}, "threads running is unknown (limit 50)"),
        ({"history": 2_000_001.0}, {"history": 1.0}, "history list is 2e+06 records, limit 2e+06 records"),
        ({"history": None}, {"history": 1.0}, "history list is unknown (limit 2e+06 records)"),
        ({"pause": "holiday"}, {"pause": None}, "paused by a person"),
    ],
)  # fmt: skip
def test_a_signal_over_its_limit_or_unknown_holds_until_it_is_gone(
    servers: Servers, blocked: dict[str, Any], free: dict[str, Any], reason: str
) -> None:
    for name, value in blocked.items():
        setattr(servers, name, value)
    servers.after_sleep = [{}, free]
    stop = brake(servers)
    stop()
    assert [event.reasons for event in stop.waited] == [(reason,)]
    assert servers.now == 1000 + 2 * 5


def test_without_a_place_where_lag_is_seen_nothing_is_deleted(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    _short_wait(monkeypatch)
    with pytest.raises(guardrails.Refused, match="replica lag is unknown"):
        brake(servers, lag_source=None)()
    brake(servers, lag_source=None, max_lag_s=None)()


def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting at all: the wall clock of the throttle does not move with the tests' sleep."""
    wait = throttle.Throttle.wait
    monkeypatch.setattr(throttle.Throttle, "wait", lambda self, deadline: wait(self, 0))


def test_a_probe_that_fails_blocks_like_one_that_is_unknown(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(conn: object) -> float:
        raise ConnectionError("gone away")

    _short_wait(monkeypatch)
    monkeypatch.setattr(throttle.mysql, "threads_running", broken)
    with pytest.raises(guardrails.Refused, match=r"threads_running is unknown \(ConnectionError: gone away\)"):
        brake(servers)()


def test_limits_that_are_switched_off_are_not_looked_at(servers: Servers) -> None:
    servers.lag = servers.threads = servers.history = None
    off = {"max_lag_s": None, "max_threads_running": None, "max_history_list": None, "max_commit_latency_ms": None}
    brake(servers, **off)()
    assert servers.looks == ["paused"]


def test_slow_commits_of_our_own_hold_for_one_look(servers: Servers) -> None:
    stop = brake(servers)
    stop.committed(0.15)
    stop.committed(0.25)
    servers.now += 2
    stop()
    assert [event.reasons for event in stop.waited] == [("commit latency is 200 ms, limit 100 ms",)]
    stop.committed(0.01)
    servers.now += 2
    stop()
    assert len(stop.waited) == 1


def test_slow_commits_of_the_whole_cluster_count_on_aurora(servers: Servers) -> None:
    stop = brake(servers)
    servers.aurora = (1000.0, 5_000_000.0)
    assert stop.commit_latency().value == 0, "one reading is no rate"
    servers.aurora = (1010.0, 5_000_000.0 + 10 * 250_000)
    assert stop.commit_latency().value == pytest.approx(250)
    assert stop.commit_latency().value == 0, "no commit since"
    servers.aurora = (5.0, 0.0)
    assert stop.commit_latency().value == 0, "the counters began anew"


def test_the_window_is_part_of_the_brake(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    _short_wait(monkeypatch)
    monkeypatch.setattr(guardrails.Window, "contains", lambda self, now: False)
    with pytest.raises(guardrails.Refused, match="outside the window 01:00-05:00 UTC"):
        brake(servers, window={"start": "01:00", "end": "05:00"})()


def test_pace_grows_by_doubling_and_shrinks_at_once() -> None:
    pace = Pace(0.1, 10_000)
    sizes = []
    for _ in range(6):
        pace.learn(0.001 * pace.batches, pace.batches, 100 * pace.batches)
        sizes.append(pace.batches)
    assert sizes == [2, 4, 8, 16, 32, 64]
    pace.learn(1.0, 64, 6400)
    assert pace.batches == 6
    pace.learn(100.0, 6, 600)
    assert pace.batches == 1


def test_pace_never_passes_the_row_limit() -> None:
    pace = Pace(10.0, 10_000, batches=8)
    pace.learn(0.001, 8, 8000)
    assert pace.batches == 10
    pace.learn(0.001, 1, 50_000)
    assert pace.batches == 1


@given(st.floats(-1, 1e6), st.integers(0, 500), st.integers(0, 10**6), st.integers(1, 100))
def test_pace_stays_in_bounds_whatever_it_learns(elapsed: float, batches: int, rows: int, now: int) -> None:
    pace = Pace(0.1, 10_000, batches=now)
    pace.learn(elapsed, batches, rows)
    assert 1 <= pace.batches <= 2 * now
