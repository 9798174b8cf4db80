from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dbops import guardrails
from dbops.guardrails import Refused, Signal, Throttle, ThrottleEvent, Window


def test_refuse_unknown_conf():
    guardrails.refuse_unknown_conf({"spec": "trips"}, ["spec", "dry_run"])
    guardrails.refuse_unknown_conf(None, [])
    with pytest.raises(Refused, match=r"unknown conf key 'dryrun', 'z'; allowed: dry_run, spec"):
        guardrails.refuse_unknown_conf({"z": 1, "dryrun": False}, ["spec", "dry_run"])


@pytest.mark.parametrize("given_text", [None, "", "Carshare.trips", "carshare.trips ", "yes"])
def test_confirmation_must_match_to_the_letter(given_text):
    guardrails.require_confirmation("carshare.trips", "carshare.trips")
    with pytest.raises(Refused) as caught:
        guardrails.require_confirmation(given_text, "carshare.trips")
    assert "type 'carshare.trips' exactly" in caught.value.reason


def test_an_empty_expectation_confirms_nothing():
    with pytest.raises(Refused):
        guardrails.require_confirmation("", "")


def test_allow_list():
    guardrails.require_allowed("carshare.trips", ["other.*", "carshare.*"], "extra")
    for resource, patterns in [
        ("carshare2.trips", ["carshare.*"]),
        ("CARSHARE.trips", ["carshare.*"]),
        ("x", []),
        ("", ["*"]),
    ]:
        with pytest.raises(Refused, match="allow-list in connection mysql_default, extra dbops_purge_allow"):
            guardrails.require_allowed(resource, patterns, "connection mysql_default, extra dbops_purge_allow")


def test_an_allow_list_written_as_text_is_one_pattern_not_its_letters():
    with pytest.raises(Refused):
        guardrails.require_allowed("carshare.trips", "*x", "extra")


MINUTES = st.integers(0, 24 * 60 - 1)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


def hh_mm(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(MINUTES, MINUTES, ZONES, INSTANTS)
def test_window_is_an_arc_of_the_local_clock(start, end, zone, now):
    if start == end:
        with pytest.raises(ValidationError, match="leave the window out"):
            Window(start=hh_mm(start), end=hh_mm(end), timezone=zone)
        return
    local = now.astimezone(ZoneInfo(zone))
    minute = local.hour * 60 + local.minute
    inside = (minute - start) % 1440 < (end - start) % 1440
    assert Window(start=hh_mm(start), end=hh_mm(end), timezone=zone).contains(now) is inside
    assert Window(start=hh_mm(end), end=hh_mm(start), timezone=zone).contains(now) is not inside


def test_window_on_the_days_the_clock_changes():
    window = Window(start="22:00", end="03:00", timezone="Europe/Berlin")
    # 2026-03-29 02:00 becomes 03:00 CEST = 01:00 UTC; 2026-10-25 03:00 becomes 02:00 CET = 01:00 UTC
    assert window.contains(datetime(2026, 3, 29, 0, 59, tzinfo=UTC))
    assert not window.contains(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert window.contains(datetime(2026, 10, 25, 0, 59, tzinfo=UTC))
    assert window.contains(datetime(2026, 10, 25, 1, 59, tzinfo=UTC))
    assert not window.contains(datetime(2026, 10, 25, 2, 0, tzinfo=UTC))


def test_window_accepts_any_offset_of_the_same_instant_and_no_naive_time():
    window = Window(start="08:00", end="09:00")
    assert window.contains(datetime(2026, 1, 1, 9, 30, tzinfo=ZoneInfo("Europe/Berlin")))
    with pytest.raises(ValueError, match="no time zone"):
        window.contains(datetime(2026, 1, 1, 8, 30))


@pytest.mark.parametrize("bad", ["8:00", "24:00", "08:60", "08:00:00", "noon", ""])
def test_window_times_are_hh_mm(bad):
    with pytest.raises(ValidationError, match="HH:MM"):
        Window(start=bad, end="09:00")


class Clock:
    """Time that passes only while the throttle sleeps."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 21, 59, tzinfo=UTC)
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


def throttle(clock, *probes, **arguments) -> Throttle:
    return Throttle(probes=probes, clock=clock, sleep=clock.sleep, poll_s=10, **arguments)


def test_go(clock):
    calm = throttle(clock, lambda: Signal("replica lag", 1.0, 1.0, "s"))
    assert calm.check() == []
    assert calm.wait(0) == []


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (Signal("replica lag", 12.5, 10, "s"), "replica lag is 12.5 s, limit 10 s"),
        (Signal("Threads_running", 65, 64), "Threads_running is 65, limit 64"),
        (Signal("replica lag", None, 10, "s"), "replica lag is unknown (limit 10 s)"),
        (Signal("replica lag", float("nan"), 10, "s"), "replica lag is unknown (limit 10 s)"),
    ],
)
def test_signals_fail_closed(clock, signal, reason):
    assert throttle(clock, lambda: signal).check() == [reason]


def test_a_failing_probe_or_switch_blocks(clock):
    def replica_lag():
        raise ConnectionError("gone")

    def switch():
        raise TimeoutError

    assert throttle(clock, replica_lag, paused=switch).check() == [
        "pause switch is unknown (TimeoutError)",
        "replica_lag is unknown (ConnectionError: gone)",
    ]


def test_every_reason_is_named(clock):
    blocked = throttle(
        clock, lambda: Signal("lag", 5, 1), window=Window(start="22:00", end="06:00"), paused=lambda: True
    )
    assert blocked.check() == [
        "outside the window 22:00-06:00 UTC (now 21:59)",
        "paused by a person",
        "lag is 5, limit 1",
    ]


def test_wait_reports_each_stretch_once(clock):
    lags = iter([5, 7, None, 0.5, 0.5, 0.5, 0.5])
    began = clock.now
    window = Window(start="22:00", end="06:00")
    waiting = throttle(clock, lambda: Signal("lag", next(lags), 1, "s"), window=window)
    outside = "outside the window 22:00-06:00 UTC (now 21:59)"
    assert waiting.wait(3600) == [
        ThrottleEvent(began, 30.0, (outside, "lag is 5 s, limit 1 s")),
        ThrottleEvent(began + timedelta(seconds=30), 30.0, (outside,)),
    ]
    assert clock.slept == [10] * 6


def test_wait_gives_up_at_the_deadline(clock):
    with pytest.raises(Refused, match=r"still blocked after 25 s: lag is 9, limit 1"):
        throttle(clock, lambda: Signal("lag", 9, 1)).wait(25)
    assert clock.slept == [10, 10, 5]
