"""The gate of the read switch opens on proof only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import gate
from dbops.backfill.gate import Gate, StreamState
from dbops.backfill.records import Beat, Plan, Verification
from dbops.backfill.spec import BackfillSpec, Cold

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
PLAN_ID = "rides-20261101-0a1b2c3d"
SPEC = BackfillSpec.model_validate(
    {
        "name": "rides",
        "description": "rides", "owner": "dba",
        "view": {"sql": "SELECT r.id, r.v FROM carshare.rides r WHERE {chunk}", "table": "carshare.rides", "alias": "r"},
        "version": {"column": "v"},
        "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "RIDE#{id}"}},
        "live": {"since": "2026-11-01T00:00:00Z", "applications": ["shop", "fleet"], "replication_task": "rides-cdc"},
        "gate": {"quiet_days": 2},
    }
)  # fmt: skip
PLAN = Plan(PLAN_ID, "rides", SPEC.rule_digest(), "verified", NOW - timedelta(days=20), "uuid", "gtid", 10, 1)
VERIFIED = Verification(1, PLAN_ID, "run", "full", NOW - timedelta(days=4), NOW - timedelta(days=3), "clean")
STREAM = StreamState(3.0, is_running=True)
COUNTS = {"hits": 10, "misses": 0, "tombstone_hits": 0, "fallback_hits": 0, "failed": 0}


def beats(
    application: str, instance: str = "a", days: float = 3, ends: datetime = NOW, minutes: int = 10
) -> list[Beat]:
    """Reports without a hole."""
    made, at = [], ends - timedelta(days=days)
    while at < ends:
        after = min(at + timedelta(minutes=minutes), ends)
        made.append(Beat(application, instance, at, after, COUNTS))
        at = after
    return made


ALL = [*beats("shop"), *beats("fleet", "f")]


def decide(found: list[Beat], **more: Any) -> Gate:
    given = {"plan": PLAN, "verification": VERIFIED, "stream": STREAM, "now": NOW, **more}
    ordered = sorted(found, key=lambda each: each.at)
    return gate.decide(
        SPEC, given.pop("plan"), given.pop("verification"), ordered, given.pop("stream"), given.pop("now"), **given
    )


def test_closed_where_rows_may_be_in_mysql_alone() -> None:
    cold = SPEC.model_copy(update={"cold": Cold(where="r.old = 1")})
    own = replace(PLAN, rule_digest=cold.rule_digest())
    found = gate.decide(cold, own, VERIFIED, sorted(ALL, key=lambda each: each.at), STREAM, NOW)
    assert not found.is_open
    assert len(found.reasons) == 1
    assert "only cold rows were copied" in found.reasons[0]
    both = SPEC.model_copy(update={"cold": Cold(where="r.old = 1", only=False)})
    own = replace(PLAN, rule_digest=both.rule_digest())
    assert gate.decide(both, own, VERIFIED, sorted(ALL, key=lambda each: each.at), STREAM, NOW).is_open


def test_closed_when_the_spec_means_other_rows_than_the_plan() -> None:
    found = decide(ALL, plan=replace(PLAN, rule_digest="other"))
    assert [each for each in found.reasons if "made under other rules" in each]


def test_open_with_all_proofs() -> None:
    found = decide(ALL)
    assert found.is_open
    assert (found.reasons, found.notes) == ((), ())
    assert found.opens_at == NOW
    assert [(each.application, each.reads, each.fallback_hits, each.processes) for each in found.applications] == [
        ("shop", 2880, 0, 1), ("fleet", 2880, 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"plan": None}, "there is no plan"),
        ({"plan": replace(PLAN, state="copied")}, "is copied, not verified"),
        ({"verification": None}, "has no verification"),
        ({"verification": replace(VERIFIED, verdict="differences")}, "is differences, not clean"),
        ({"verification": replace(VERIFIED, verdict="", ended_at=None)}, "is not over, not clean"),
        ({"verification": replace(VERIFIED, plan_id="other")}, "is of plan other"),
        ({"stream": None}, "the state of the change stream rides-cdc is unknown"),
        ({"stream": StreamState(1.0, is_running=False)}, "does not run"),
        ({"stream": StreamState(None, is_running=True)}, "is unknown, limit 60 s"),
        ({"stream": StreamState(61.0, is_running=True)}, "is 61 s, limit 60 s"),
        ({"stream": StreamState(-1.0, is_running=True)}, "is -1 s, limit 60 s"),
        ({"stream": StreamState(float("nan"), is_running=True)}, "is nan s, limit 60 s"),
    ],
    ids=["plan", "state", "verification", "verdict", "running", "other", "stream", "stopped", "lag", "late", "negative", "nan"],
)  # fmt: skip
def test_shut_without_plan_verification_or_stream(change: dict[str, Any], reason: str) -> None:
    found = decide(ALL, **change)
    assert not found.is_open
    assert len(found.reasons) == 1
    assert reason in found.reasons[0]


def test_shut_when_an_application_was_never_heard_of() -> None:
    found = decide(beats("shop"))
    assert found.reasons == ("fleet: nothing was heard of it: does it run dbops.keyvalue.counting.Reporter?",)
    assert found.opens_at is None


def test_shut_after_a_read_that_needed_mysql_and_when_it_may_open() -> None:
    shop = beats("shop")
    at = next(n for n, each in enumerate(shop) if each.at > NOW - timedelta(days=1))
    shop[at] = replace(shop[at], counts={**COUNTS, "fallback_hits": 2})
    found = decide([*shop, *beats("fleet", "f")])
    assert not found.is_open
    assert found.reasons == ("shop: 2 reads needed MySQL, the last before 2026-11-28 12:10",)
    assert found.opens_at == shop[at].at + timedelta(days=2)
    later = NOW + timedelta(days=1, minutes=10)
    longer = [*shop, *beats("shop", days=1.01, ends=later), *beats("fleet", "f", days=4, ends=later)]
    assert decide(longer, now=later - timedelta(minutes=1)).is_open is False
    assert decide(longer, now=later).is_open


def test_shut_when_a_report_is_missing() -> None:
    shop = beats("shop")
    del shop[300]
    found = decide([*shop, *beats("shop", "b"), *beats("fleet", "f")])
    assert not found.is_open
    assert found.reasons[0].startswith("shop: process a has no report from 2026-11-28 14:00:00 to 14:10:00")
    assert decide([*shop, *beats("shop", "b"), *beats("fleet", "f")], gone={"a"}).is_open


def test_shut_while_a_process_is_silent_until_a_person_says_that_it_is_dead() -> None:
    dead = beats("shop", "b", days=2.5, ends=NOW - timedelta(hours=1))
    found = decide([*ALL, *dead])
    assert found.reasons == (
        "shop: process b fell silent at 2026-11-29 11:00 without saying that it ends: see that it is dead, and name it as gone",
    )
    assert found.opens_at is None
    assert decide([*ALL, *dead], gone={"b"}).is_open
    said = [*dead[:-1], replace(dead[-1], is_last=True)]
    assert decide([*ALL, *said]).is_open


def test_a_process_whose_last_report_is_late_is_not_silent_yet() -> None:
    late = [*beats("shop", ends=NOW - timedelta(minutes=14)), *beats("fleet", "f")]
    assert decide(late).is_open
    silent = [*beats("shop", ends=NOW - timedelta(minutes=16)), *beats("fleet", "f")]
    assert "shop: silent since 2026-11-29 11:44" in decide(silent).reasons


def test_a_restart_is_no_hole_and_an_outage_is_one() -> None:
    first = beats("shop", "a", days=2, ends=NOW - timedelta(days=1))
    first[-1] = replace(first[-1], is_last=True)
    again = beats("shop", "a2", days=1 - 10 / 1440)
    assert decide([*first, *again, *beats("fleet", "f")]).is_open
    away = beats("shop", "a2", days=1 - 60 / 1440)
    found = decide([*first, *away, *beats("fleet", "f")])
    assert found.reasons == ("shop: no process reported from 2026-11-28 12:00 to 2026-11-28 13:00",)
    assert found.opens_at == NOW + timedelta(days=1, hours=1)
    same_name = [replace(each, instance="a") for each in away]
    assert decide([*first, *same_name, *beats("fleet", "f")]).reasons == found.reasons
    same_name = [replace(each, instance="a") for each in again]
    assert decide([*first, *same_name, *beats("fleet", "f")]).is_open


def test_a_report_that_covers_an_outage_of_the_database_is_no_hole() -> None:
    shop = beats("shop")
    merged = replace(shop[200], at=shop[260].at)
    assert decide([*shop[:200], merged, *shop[261:], *beats("fleet", "f")]).is_open


def test_shut_when_reports_begin_too_late_or_have_no_count_or_a_wrong_clock() -> None:
    found = decide([*beats("shop", days=1), *beats("fleet", "f")])
    assert found.reasons == ("shop: its reports begin at 2026-11-28 12:00, after 2026-11-27 12:00",)
    assert found.opens_at == NOW + timedelta(days=1)
    shop = beats("shop")
    shop[-5] = replace(shop[-5], counts={"hits": 1})
    assert "reports no fallback_hits" in decide([*shop, *beats("fleet", "f")]).reasons[0]
    ahead = replace(beats("shop")[-1], at=NOW + timedelta(minutes=5))
    assert "its clock is wrong" in decide([*ALL, ahead]).reasons[0]


def test_rows_that_cannot_be_items_are_told() -> None:
    found = decide(ALL, verification=replace(VERIFIED, rejected=5))
    assert found.is_open, "rejects.max_rows allowed them, or the verification would not be clean"
    assert found.notes == ("5 rows cannot be items and are in MySQL alone: readers will not find them",)


def test_shut_while_an_application_that_the_spec_does_not_know_needs_mysql() -> None:
    batch = [replace(each, counts={**COUNTS, "fallback_hits": 1}) for each in beats("batch", "x")]
    found = decide([*ALL, *batch])
    assert not found.is_open
    assert found.reasons == ("batch: 288 reads needed MySQL, and it is not in live.applications: name it there",)


def test_shut_when_nobody_reads_and_notes_of_what_a_person_should_know() -> None:
    idle = [replace(each, counts={**COUNTS, "hits": 0, "failed": 1}) for each in beats("fleet", "f")]
    one = decide(
        [*beats("shop"), *idle, *beats("batch", "x")], verification=replace(VERIFIED, mode="sample", bound=0.00001)
    )
    assert one.is_open
    assert one.notes == (
        "batch reports too, and is not in live.applications",
        "fleet read nothing in these days",
        "fleet: the store did not take 288 dual writes, which the stream repairs",
        "verified by a sample: up to 1e-05 of the rows may be wrong",
    )
    none = decide([*[replace(each, application="shop") for each in idle], *idle])
    assert none.reasons == ("no application has reported a read: nothing shows that the store answers",)


@given(st.sets(st.integers(0, len(ALL) - 1), min_size=1, max_size=40), st.sampled_from(["drop", "hit", "blank"]))
def test_nothing_in_the_quiet_days_may_be_wrong(which: set[int], how: str) -> None:
    """Whatever report of them is lost, has a hit or no count: the gate is shut. Only what is older does not matter."""
    made = []
    begin = NOW - timedelta(days=2)
    for number, each in enumerate(ALL):
        if number not in which:
            made.append(each)
        elif how != "drop":
            made.append(replace(each, counts={"fallback_hits": 1} if how == "hit" else {}))
    touches = any(ALL[number].at > begin for number in which)
    # A hole at the very end is a report that is late: 10 minutes of 15.
    is_late = how == "drop" and all(ALL[number].at == NOW for number in which if ALL[number].at > begin)
    assert decide(made).is_open == (not touches or is_late)
