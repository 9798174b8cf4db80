"""Recordings that were damaged, outages of a synthetic service whose truth is known, and lag by heartbeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.blue_green import lag, outages, recording
from dbops.blue_green.recording import Attempt, Recording, RecordingError

MS = 1_000_000
PERIOD = 100 * MS
HEADER = ["h", 1000, 2000, "boot", 1, "run", PERIOD, {"w": "write", "g": "read"}]


def written(path: Path, *lines: object, tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def of(attempts: list[Attempt], green: tuple[Attempt, ...] = ()) -> Recording:
    return Recording("run", PERIOD, {"w": tuple(attempts), "g": green}, {"w": "write", "g": "read"}, (), {}, 0, True)


def test_phases_of_another_machine_are_carried_over_by_the_wall_clock(tmp_path: Path) -> None:
    path = written(
        tmp_path / "r", HEADER, ["m", 5, 2500, "other", "create"], ["m", 1200, 9999, "boot", "load"], ["q", 3000]
    )
    found = recording.read([path])
    assert found.phases == ((1200, "load"), (1500, "create"))
    assert [found.phase_at(at) for at in (1100, 1200, 1499, 1500)] == [recording.NO_PHASE, "load", "load", "create"]
    assert found.ended


def test_only_the_line_that_a_kill_tore_is_dropped(tmp_path: Path) -> None:
    attempt = ["a", "w", 0, 1, 2, 3, 0, None, None]
    torn = written(tmp_path / "torn", HEADER, attempt, tail='["a","w",1')
    assert recording.read([torn]).torn_lines == 1
    assert not recording.read([torn]).ended
    damaged = written(tmp_path / "damaged", HEADER, tail='["a","w"\n' + json.dumps(attempt) + "\n")
    with pytest.raises(RecordingError, match="damaged:2"):
        recording.read([damaged])


@pytest.mark.parametrize(("at", "word"), [(3, "boots"), (5, "runs")])
def test_recordings_that_do_not_belong_together_are_refused(tmp_path: Path, at: int, word: str) -> None:
    other = [*HEADER[:at], "different", *HEADER[at + 1 :]]
    with pytest.raises(RecordingError, match=word):
        recording.read([written(tmp_path / "a", HEADER), written(tmp_path / "b", other)])


def test_what_was_recorded_before_the_machine_booted_again_is_carried_over_to_its_clock(tmp_path: Path) -> None:
    """The monotonic clock begins anew: what came first has the larger numbers."""
    lanes = {"w": "write", "g": "read"}
    old = ["h", 900_000, 1_000_000, "old", 1, "run", PERIOD, lanes]
    new = ["h", 50, 2_000_000, "new", 2, "run", PERIOD, lanes]
    blue = written(
        tmp_path / "blue", ["h", 900_000, 1_000_000, "old", 1, "run", PERIOD, lanes],
        ["a", "w", 0, 900_010, 900_011, 900_012, 0, None, None], ["m", 900_020, 1_000_020, "old", "before"],
        new, ["a", "w", 1, 60, None, 61, 2003, None, None], ["m", 70, 2_000_020, "new", "after"], ["q", 99],
    )  # fmt: skip
    green = written(
        tmp_path / "green", old, ["a", "g", 0, 900_030, 900_030, 900_031, 0, None, 900_010],
        new, ["a", "g", 1, 62, 62, 63, 0, None, 900_010], ["a", "g", 2, 64, 64, 65, 0, None, 60],
        ["a", "g", 3, 66, 66, 67, 0, None, 40],
    )  # fmt: skip
    found = recording.read([blue, green])
    assert found.boots == 2
    assert found.wall_offset == 1_999_950
    assert found.phases == ((-999_930, "before"), (70, "after"))
    assert [(a.seq, a.sent, a.connected, a.done) for a in found.lanes["w"]] == [
        (0, -999_940, -999_939, -999_938), (1, 60, None, 61)
    ]  # fmt: skip
    assert [a.sent + found.wall_offset for a in found.lanes["w"]] == [1_000_010, 2_000_010]
    assert [a.beat for a in found.lanes["g"]] == [-999_940, None, 60, None], "of the boot before, nothing is known"
    assert not found.ended, "the prober of the first boot was killed"
    assert recording.read([written(tmp_path / "one", old)]).boots == 1


def test_two_machines_at_one_time_are_refused(tmp_path: Path) -> None:
    old = ["h", 1000, 2000, "one", 1, "run", PERIOD, {"w": "write"}]
    other = ["h", 10, 2500, "two", 1, "run", PERIOD, {"w": "write"}]
    first = written(tmp_path / "a", old, ["a", "w", 0, 1600, 1600, 1601, 0, None, None])
    with pytest.raises(RecordingError, match=r"2 boots \(one, two\), two of them at one time"):
        recording.read([first, written(tmp_path / "b", other)])


def test_nothing_known_is_an_error_not_a_zero(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no prober has begun"):
        recording.read([written(tmp_path / "empty")])
    with pytest.raises(ValueError, match="no attempt in that time"):
        outages.measure(of([Attempt(0, 0, 1, 2, 0)]), "w", "write", since=5)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(400, 3000), st.integers(250, 5000)), max_size=5),
    st.integers(0, 99),
    st.integers(1, 20),
)
def test_the_truth_lies_within_the_error_that_is_stated(down: list[tuple[int, int]], shift: int, latency: int) -> None:
    """A service that is up for so many ms, down for so many, and so on; attempts every 100 ms fail at once while it is down."""
    truths, at = [], shift
    for up, gone in down:
        truths.append(((at + up) * MS, (at + up + gone) * MS))
        at += up + gone
    attempts = []
    for seq in range((at + 1000) // 100):
        sent = seq * PERIOD
        done = sent + latency * MS
        failed = any(begin <= done < end for begin, end in truths)
        attempts.append(Attempt(seq, sent, None if failed else sent, done, 2003 if failed else 0))
    found = outages.measure(of(attempts), "w", "write")
    assert len(found.outages) == len(truths)
    for outage, (begin, end) in zip(found.outages, truths, strict=True):
        assert outage.end is not None
        assert abs(outage.start - begin) <= outage.start_error + 1
        assert abs(outage.end - end) <= outage.end_error + 1
        assert outage.error_s <= PERIOD / 1e9 + 1e-6
        assert outage.errors[0][0] == 2003


def test_an_outage_that_is_not_over_is_said_to_be_open() -> None:
    found = outages.measure(of([Attempt(0, 0, 1, 2, 0), Attempt(1, PERIOD, None, PERIOD + 2, 1290)]), "w", "write")
    assert (found.is_over, found.outages[0].end, found.outages[0].seconds, found.total_s) == (False, None, None, 0.0)


def test_lag_is_between_what_was_acknowledged_and_what_green_shows() -> None:
    writes = [Attempt(n, n * PERIOD, n * PERIOD, n * PERIOD + MS, 0) for n in range(20)]
    at = 10 * PERIOD + 2 * MS
    green = (
        Attempt(0, at, at, at + MS, 0, "8.0.15 x", 10 * PERIOD),
        Attempt(1, at + 1, at, at + MS, 0, "8.0.15 x", 3 * PERIOD),
        Attempt(2, at + 2, None, at + MS, 2003),
        Attempt(3, at + 3, at, at + MS, 0, "8.0.15 x", None),
    )
    found = lag.samples(of(writes, green), "g")
    assert [sample.seconds for sample in found] == [0.0, 0.7, None, None]
    assert lag.summary(found) == lag.LagSummary(4, 2, 0.0, 0.7, 0.7)
    assert lag.held(found[:1], 1.0, 1)
    assert not lag.held(found[:1], 1.0, 2)
    assert not lag.held(found[:2], 0.5, 1)
    assert not lag.held(found, 1.0, 1)
