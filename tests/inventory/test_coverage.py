"""The ledger without a server: every execution is explained or in a named gap, and the figures are exact."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from dbops.inventory.coverage import Coverage, combined, coverage, with_logs
from dbops.inventory.model import Gap, Instance, Sighting, Snapshot

T0 = datetime(2026, 5, 4, 3, 0)
STARTED = T0 - timedelta(days=9)
SETTINGS = {"digests_size": "40", "max_digest_length": "1024"}


def digest(key: str, executions: int, **over: Any) -> Sighting:
    values = {
        "text": f"SELECT `{key}`",
        "is_digest": True,
        "digest": key,
        "first_seen": STARTED,
        "last_seen": STARTED,
        **over,
    }
    return Sighting("digest", key, executions=executions, **values)


def shot(minutes: float, *sightings: Sighting, sql: int = 0, errors: int = 0, **over: Any) -> Snapshot:
    events = {"statement/sql/select": sql, "statement/sql/error": errors, **over.pop("events", {})}
    values: dict[str, Any] = {
        "event_counts": events, "event_errors": 0, "digest_lost": 0, "null_row": 0, "table_io": (), "connection_id": minutes,
        "read": frozenset(("statements", "prepared", "programs", "table_io", "history")), **over,
    }  # fmt: skip
    started = values.pop("started", STARTED)
    return Snapshot(
        Instance("writer", "8.0.15", values.pop("uuid", "u"), started, False, SETTINGS),
        T0 + timedelta(minutes=minutes),
        sightings,
        **values,
    )


def gaps(ledger: Coverage) -> dict[str, int | None]:
    return {gap.what: gap.executions for gap in ledger.gaps}


def balanced(ledger: Coverage) -> bool:
    return ledger.explained + sum(gap.executions or 0 for gap in ledger.gaps) == ledger.executions_total


def test_digest_rows_and_event_counters_balance() -> None:
    """231 statements, 10 errors, 2 of our own polls: the figures that were measured."""
    ledger = coverage(None, shot(0, digest("a", 221), sql=221, errors=10))
    assert (ledger.executions_total, ledger.named_digest, ledger.errors, ledger.explained) == (221, 221, 10, 221)
    assert (ledger.explained_percent, ledger.gaps, ledger.since) == (100.0, (), None)


def test_every_kind_of_gap_at_once() -> None:
    before = shot(0, digest("a", 10), sql=10)
    sightings = [
        digest("a", 60),
        digest("execute", 7, text="EXECUTE `s` USING @?"),
        digest("view", 5, program="view shop.v"),
        digest("cut", 3, truncated=True),
        digest("dumb", 2, text=""),
        digest("ours", 4, own=True),
        Sighting("prepared", "h:7:1", "SELECT ?", executions=11),
        Sighting("prepared", "h:7:2:sql", "SELECT ?", executions=3),
        Sighting("routine", "procedure s.p:x", "SELECT 1", program="procedure s.p"),
    ]
    after = shot(
        15, *sightings, sql=10 + 50 + 7 + 5 + 3 + 2 + 4 + 30, errors=6, null_row=30,
        events={"statement/com/Execute": 20, "statement/sp/stmt": 9, "statement/sp/set": 4},
        program_statements={"procedure s.p": 8, "trigger s.t": 5}, own_executions=4,
    )  # fmt: skip
    ledger = coverage(before, after)
    assert ledger.executions_total == 50 + 7 + 5 + 3 + 2 + 30 + 20 + 9
    assert (ledger.named_digest, ledger.prepared, ledger.in_programs, ledger.null_row, ledger.errors, ledger.own) == (
        67,
        20,
        9,
        30,
        6,
        4,
    )
    assert gaps(ledger) == {
        "statements in the NULL row of the digest table": 30, "server-side prepared statements": 9, "SQL EXECUTE": 4,
        "statements over views": 5, "truncated digests": 5, "statements in stored programs": 5,
    }  # fmt: skip
    assert balanced(ledger)
    assert ledger.explained == 50 + 3 + 11 + 4
    assert [g.executions for g in ledger.gaps] == sorted((g.executions for g in ledger.gaps), reverse=True)
    assert all(gap.why and gap.remedy and gap.cost for gap in ledger.gaps)


def test_a_whole_sample_proves_one_execution_of_a_digest_that_was_cut() -> None:
    sample = Sighting("sample", "cut:x", "SELECT 1", digest="cut")
    ledger = coverage(None, shot(0, digest("cut", 1, truncated=True), sample, sql=1))
    assert (ledger.explained, ledger.gaps) == (1, ())
    ledger = coverage(None, shot(0, digest("cut", 3, truncated=True), sample, sql=3))
    assert gaps(ledger) == {"other statements may share a truncated digest": 3}
    assert balanced(ledger)
    cut = replace(sample, truncated=True)
    assert gaps(coverage(None, shot(0, digest("cut", 3, truncated=True), cut, sql=3))) == {"truncated digests": 3}


def test_programs_known_from_before() -> None:
    after = shot(0, events={"statement/sp/stmt": 9}, program_statements={"procedure s.p": 9})
    assert gaps(coverage(None, after)) == {"statements in stored programs": 9}
    assert coverage(None, after, programs=["procedure s.p"]).gaps == ()
    dropped = replace(after, program_statements={})
    (gap,) = coverage(None, dropped, programs=["procedure s.p"]).gaps
    assert (gap.executions, gap.why) == (9, "the program was dropped")


def test_prepared_statements_whose_text_was_cut() -> None:
    after = shot(
        0, digest("execute", 5, text="EXECUTE `s`"), Sighting("prepared", "h:7:1", "SELECT ?", executions=11, truncated=True),
        Sighting("prepared", "i:7:1", "SELECT a", executions=2),
        Sighting("prepared", "h:8:1:sql", "SELECT ?", executions=3, truncated=True),
        sql=5, events={"statement/com/Execute": 15},
    )  # fmt: skip
    ledger = coverage(None, after)
    assert gaps(ledger) == {"truncated prepared statements": 14, "server-side prepared statements": 2, "SQL EXECUTE": 2}
    assert (balanced(ledger), ledger.explained) == (True, 2)


def test_what_programs_build_is_not_explained() -> None:
    body = [
        Sighting("routine", f"procedure s.p:{n}", t, program="procedure s.p")
        for n, t in enumerate(("SET @s = ?", "PREPARE x FROM @s", "EXECUTE x"))
    ]
    after = shot(0, *body, events={"statement/sp/stmt": 9}, program_statements={"procedure s.p": 6, "procedure s.q": 3})
    assert gaps(coverage(None, after, programs=["procedure s.q"])) == {"SQL that programs build": 6}
    later = shot(15, events={"statement/sp/stmt": 11}, program_statements={"procedure s.p": 8, "procedure s.q": 3})
    ledger = coverage(after, later, programs=["procedure s.p"], building=["procedure s.p"])
    assert (gaps(ledger), balanced(ledger)) == ({"SQL that programs build": 2}, True)


def test_nothing_is_explained_before_the_views_are_known() -> None:
    ledger = coverage(None, shot(0, digest("a", 7), digest("cut", 2, truncated=True), sql=9), definitions_known=False)
    assert (ledger.explained, balanced(ledger)) == (0, True)
    assert gaps(ledger) == {"views are not known yet": 7, "truncated digests": 2}


def test_what_a_truncate_discarded_is_counted() -> None:
    ledger = coverage(shot(0, digest("a", 10), sql=10), shot(15, digest("b", 4, first_seen=T0), sql=34))
    assert (ledger.executions_total, ledger.explained, gaps(ledger)) == (24, 4, {"statements before a TRUNCATE": 20})
    assert ledger.resets[0].startswith("digests: ")
    assert balanced(ledger)


def test_digests_and_event_counters_truncated_together_leave_time_that_nobody_counted() -> None:
    ledger = coverage(shot(0, digest("a", 10), sql=10), shot(15, digest("b", 4, first_seen=T0), sql=4))
    assert [reset.split(":")[0] for reset in ledger.resets] == ["digests", "events"]
    (gap,) = [gap for gap in ledger.gaps if gap.what == "the time before a TRUNCATE"]
    assert "what ran between 2026-05-04 03:00:00 UTC and then is not known" in gap.why
    assert (ledger.explained, balanced(ledger)) == (4, True)


def test_no_gap_is_larger_than_what_ran() -> None:
    """On a busy server the rows are read after the counters, here all of them of a view; and our own may have been forgotten."""
    busy = coverage(shot(0), shot(15, digest("view", 110, program="view s.v"), sql=100))
    assert (busy.executions_total, busy.explained, gaps(busy)) == (100, 0, {"statements over views": 100})
    emptied = coverage(shot(0, sql=50, own_after=9), shot(15, sql=3, own_executions=2))
    assert (emptied.executions_total, emptied.own, emptied.named_digest, emptied.explained) == (0, 3, 0, 0)


def test_digests_truncated_before_the_first_snapshot() -> None:
    ledger = coverage(None, shot(0, digest("b", 4), sql=34))
    assert gaps(ledger) == {"statements before the first snapshot": 30}


def test_a_restart_has_a_gap_of_unknown_size() -> None:
    before = shot(0, digest("a", 10), sql=10)
    ledger = coverage(before, shot(15, digest("a", 3, first_seen=T0), sql=3, started=T0 + timedelta(minutes=1)))
    assert (ledger.executions_total, ledger.explained, gaps(ledger)) == (3, 3, {"the time before a restart": None})
    assert "what ran between 2026-05-04 03:00:00 UTC and the end" in ledger.gaps[0].why


@pytest.mark.parametrize(
    ("over", "minutes"),
    [
        ({}, 0),
        ({"started": T0 + timedelta(minutes=9)}, 9),  # 9 of the 15 minutes are gone with the former server
        ({"uuid": "v", "started": T0 + timedelta(minutes=9)}, 9),
        ({"uuid": "v"}, 15),  # what the other one counted is of another time
        (
            {"events": {"statement/sql/select": 4}},
            2,
        ),  # everything was truncated two minutes after the previous snapshot
        ({"events": {"statement/sql/select": 40}}, 0),  # the digest table alone: the event counters went on
    ],
)
def test_time_that_nobody_counted_is_measured(over: dict[str, Any], minutes: int) -> None:
    first = STARTED if not over else T0 + timedelta(minutes=2)
    after = shot(15, digest("a", 12 if not over else 4, first_seen=first), sql=12, **over)
    ledger = coverage(shot(0, digest("a", 10), sql=10), after)
    assert ledger.unmeasured_s == minutes * 60
    assert combined([ledger, ledger]).unmeasured_s == 2 * minutes * 60


def test_event_counters_truncated_apart() -> None:
    ledger = coverage(shot(0, digest("a", 10), sql=10), shot(15, digest("a", 40), sql=2))
    assert (ledger.executions_total, ledger.explained) == (30, 30)
    assert gaps(ledger) == {"part of the prepared statements and of statements in programs": None}


@pytest.mark.parametrize("drift", [-3, 3])
def test_statements_that_ran_while_the_counters_were_read(drift: int) -> None:
    """Rows read later than counters: too many in one interval, too few in the next; the totals add up."""
    first = shot(0, digest("a", 10), sql=10)
    second = shot(15, digest("a", 110 + drift), sql=110)
    third = shot(30, digest("a", 210), sql=210)
    parts = [coverage(first, second), coverage(second, third)]
    assert [p.executions_total for p in parts] == [100, 100]
    assert all(balanced(p) and p.named_digest <= 100 for p in parts)
    assert [gaps(p) for p in parts].count({"statements without a digest": 3}) == 1
    assert combined(parts).executions_total == 200


def test_our_own_statements_by_connection() -> None:
    """The previous snapshot's last 5 and this one's first 5, of which SET NAMES has no mark."""
    before = shot(0, digest("a", 10), digest("ours", 4, own=True), sql=14, own_after=5)
    after = shot(
        15, digest("a", 17), digest("names", 1), digest("ours", 13, own=True), sql=31, own_executions=5, own_unmarked=1
    )
    ledger = coverage(before, after)
    assert (ledger.own, ledger.executions_total, ledger.named_digest, ledger.explained) == (10, 7, 7, 7)


def test_our_own_statements_in_a_full_table_and_before_a_truncate() -> None:
    before = shot(0, digest("a", 10), sql=10, null_row=20, own_after=5)
    full = shot(15, digest("a", 17), sql=10 + 7 + 1 + 39, null_row=20 + 40, own_executions=5, own_unmarked=0)
    ledger = coverage(
        replace(before, event_counts={"statement/sql/select": 30}),
        replace(full, event_counts={"statement/sql/select": 77}),
    )
    assert (ledger.own, ledger.executions_total, ledger.named_digest, ledger.null_row) == (10, 37, 7, 30)
    before = shot(0, digest("a", 10), digest("ours", 4, own=True), sql=14, own_after=5)
    after = shot(15, digest("a", 2, first_seen=T0), digest("ours", 4, first_seen=T0, own=True), digest("names", 1, first_seen=T0),
                 sql=14 + 8 + 5 + 7, own_executions=5, own_unmarked=1)  # fmt: skip
    ledger = coverage(before, after)
    assert (ledger.own, ledger.executions_total, ledger.named_digest, gaps(ledger)) == (
        10,
        10,
        2,
        {"statements before a TRUNCATE": 8},
    )


def test_own_statements_of_other_connections_are_known_by_their_mark() -> None:
    before = shot(0, digest("a", 10), digest("ours", 4, own=True), sql=14, own_after=5)
    after = shot(
        15, digest("a", 10), digest("ours", 50, own=True), digest("names", 1), sql=61, own_executions=5, own_unmarked=1
    )
    assert coverage(before, after).own == 46
    assert coverage(before, after).executions_total == 1  # a driver's SET NAMES has no mark


def test_nothing_measured_is_nothing_explained() -> None:
    gap = Gap("every execution", "performance_schema is OFF", "set it ON", "a restart")
    ledger = coverage(None, shot(0, read=frozenset(), gaps=(gap, gap)))
    assert (ledger.measured, ledger.explained_percent, ledger.gaps) == (False, 0.0, (gap,))
    assert combined([]).explained_percent == 0.0
    idle = coverage(shot(0), shot(15))
    assert (idle.explained_percent, combined([idle, ledger]).explained_percent) == (100.0, 0.0)


def test_what_is_counted_nowhere_makes_every_share_unknown() -> None:
    gap = Gap("sessions of app@%", "setup_actors excludes them", "INSERT", "no restart", blind=True)
    ledger = coverage(shot(0), shot(15, digest("a", 6), sql=6, gaps=(gap,)))
    assert (ledger.executions_total, ledger.measured, ledger.explained_percent) == (6, False, 0.0)


def test_combined_adds_figures_and_equal_gaps() -> None:
    one = coverage(shot(0), shot(15, sql=4, null_row=4))
    two = coverage(shot(15, sql=4, null_row=4), shot(30, digest("a", 6), sql=13, null_row=7))
    both = combined([one, two])
    assert (both.executions_total, both.explained, both.null_row) == (13, 6, 7)
    assert gaps(both) == {"statements in the NULL row of the digest table": 7}
    assert (both.since, both.until) == (one.since, two.until)
    assert both.explained_percent == pytest.approx(100 * 6 / 13)


def _hidden(**executions: int) -> Coverage:
    gaps = tuple(Gap(what.replace("_", " "), "why", "remedy", "cost", n) for what, n in executions.items())
    return Coverage(100, 80, 10, 5, 0, 2, 1, 100 - sum(executions.values()), gaps)


@pytest.mark.parametrize(
    ("only_in_logs", "explained", "left"),
    [
        (0, 70, {"statements over views": 20, "statements in stored programs": 10}),
        (2, 70, {"statements over views": 20, "statements in stored programs": 10}),  # both are errors
        (7, 75, {"statements over views": 15, "statements in stored programs": 10}),
        (22, 90, {"statements in stored programs": 10}),
        (500, 90, {"statements in stored programs": 10}),  # a log does not show what runs inside programs
    ],
)
def test_a_log_closes_the_gaps_that_it_shows_and_no_more(
    only_in_logs: int, explained: int, left: dict[str, int]
) -> None:
    found = with_logs(_hidden(statements_over_views=20, statements_in_stored_programs=10), only_in_logs)
    assert (found.explained, {g.what: g.executions for g in found.gaps}) == (explained, left)
    assert found.explained + sum(g.executions or 0 for g in found.gaps) == found.executions_total
