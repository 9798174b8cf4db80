"""What holds a copy back, with signals made by hand and a clock that only waiting moves."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbops.backfill import brake as braking
from dbops.backfill.brake import Brake, Held
from dbops.backfill.spec import Limits

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SOURCE, REPLICA = object(), object()


@dataclass
class Servers:
    lag: float | None = 0.0
    threads: float | None = 1.0
    pause: str | None = None
    pause_error: Exception | None = None
    now: float = 1000.0
    looks: list[str] = field(default_factory=list)
    after_wait: list[dict[str, Any]] = field(default_factory=list)

    def look(self, what: str, value: Any) -> Any:
        self.looks.append(what)
        return value

    def paused(self) -> str | None:
        self.looks.append("pause")
        if self.pause_error:
            raise self.pause_error
        return self.pause


class Stop(threading.Event):
    """Waiting moves the clock, and what the test planned happens meanwhile."""

    def __init__(self, servers: Servers) -> None:
        super().__init__()
        self.servers = servers

    def wait(self, timeout: float | None = None) -> bool:
        self.servers.now += timeout or 0
        for name, value in (self.servers.after_wait.pop(0) if self.servers.after_wait else {}).items():
            if name == "stop":
                self.set()
            else:
                setattr(self.servers, name, value)
        return self.is_set()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    made = Servers()
    monkeypatch.setattr(braking.mysql, "replica_lag_seconds", lambda conn: made.look("lag", made.lag))
    monkeypatch.setattr(braking.mysql, "threads_running", lambda conn: made.look("threads", made.threads))
    return made


def brake(servers: Servers, *, lag_source: object | None = REPLICA, stop: Stop | None = None, **limits: Any) -> Brake:
    return Brake(
        Limits.model_validate({"max_wait_s": 60, **limits}), SOURCE, lag_source, servers.paused,  # type: ignore[arg-type]
        stop=stop or Stop(servers), monotonic=lambda: servers.now, clock=lambda: NOON + timedelta(seconds=servers.now - 1000),
    )  # fmt: skip


def test_quiet_servers_hold_nobody_and_are_asked_once_a_second(servers: Servers) -> None:
    ask = brake(servers)
    assert [ask() for _ in range(5)] == [0.0] * 5
    assert servers.looks == ["pause", "lag", "threads"]
    servers.now += 1
    ask()
    assert len(servers.looks) == 6


@pytest.mark.parametrize(
    ("name", "value"), [("lag", 11.0), ("threads", 41.0), ("lag", None), ("threads", None)], ids=str
)
def test_it_waits_until_the_signal_has_gone(servers: Servers, name: str, value: float | None) -> None:
    setattr(servers, name, value)
    servers.after_wait = [{}, {}, {name: 1.0}]
    ask = brake(servers)
    assert ask() == 3.0
    assert [event.seconds for event in ask.waited] == [3.0]


def test_it_ends_when_that_takes_too_long(servers: Servers) -> None:
    servers.lag = 11.0
    with pytest.raises(Held, match="still blocked after 60 s: replica lag is 11 s, limit 10 s") as held:
        brake(servers)()
    assert held.value.by == "limit"
    assert servers.now == 1060


def test_no_replica_connection_blocks_unless_the_spec_says_there_is_none(servers: Servers) -> None:
    with pytest.raises(Held, match="replica lag is unknown"):
        brake(servers, lag_source=None)()
    assert brake(servers, lag_source=None, max_lag_s=None)() == 0.0


def test_a_pause_ends_it_at_once(servers: Servers) -> None:
    servers.pause = "month end (by ann)"
    with pytest.raises(Held, match=r"paused: month end \(by ann\)") as held:
        brake(servers)()
    assert (held.value.by, servers.now) == ("pause", 1000)


def test_a_pause_switch_that_cannot_be_read_is_a_pause(servers: Servers) -> None:
    servers.pause_error = RuntimeError("no store")
    with pytest.raises(Held, match="cannot be read") as held:
        brake(servers)()
    assert held.value.by == "pause"


def test_a_pause_ends_a_wait(servers: Servers) -> None:
    servers.lag, servers.after_wait = 11.0, [{}, {"pause": "enough"}]
    with pytest.raises(Held) as held:
        brake(servers)()
    assert (held.value.by, servers.now) == ("pause", 1002)


@pytest.mark.parametrize(
    ("start", "end", "by"), [("11:00", "13:00", None), ("13:00", "11:00", "window")], ids=["in", "out"]
)
def test_outside_of_the_window_it_ends(servers: Servers, start: str, end: str, by: str | None) -> None:
    ask = brake(servers, window={"start": start, "end": end})
    if by is None:
        assert ask() == 0.0
        servers.now += 3600
    with pytest.raises(Held, match="outside the window") as held:
        ask()
    assert held.value.by == "window"


def test_a_stop_ends_it_between_two_looks(servers: Servers) -> None:
    stop = Stop(servers)
    ask = brake(servers, stop=stop)
    ask()
    stop.set()
    with pytest.raises(Held) as held:
        ask()
    assert held.value.by == "stop"


def test_a_stop_ends_a_wait(servers: Servers) -> None:
    servers.threads, servers.after_wait = 41.0, [{}, {"stop": True}]
    with pytest.raises(Held) as held:
        brake(servers, stop=Stop(servers))()
    assert (held.value.by, servers.now) == ("stop", 1002)
