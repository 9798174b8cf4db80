"""The janitor removes what has expired, and only that."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from dbops.blue_green import janitor, resources
from tests.blue_green.fake_rds import FakeRds, Thing
from tests.blue_green.rds_kit import EXPIRES

HOUR = timedelta(hours=1)


def standing(rds: FakeRds, name: str, until: datetime | str = EXPIRES) -> Thing:
    tags = resources.tags(name, "dba-team", EXPIRES if isinstance(until, str) else until)
    if isinstance(until, str):
        tags[3]["Value"] = until
    cluster = rds.add("cluster", name, tags)
    rds.add("db", f"{name}-1", tags, cluster=cluster, writer=True)
    return cluster


def swept(rds: FakeRds, at: datetime = EXPIRES) -> janitor.Sweep:
    rds.clock = at
    return janitor.sweep(rds, rds.now, rds.wait, HOUR)


@pytest.mark.parametrize(
    ("at", "over"), [(EXPIRES - timedelta(seconds=1), False), (EXPIRES, True), (EXPIRES + 100 * HOUR, True)]
)
def test_a_rehearsal_goes_when_its_time_is_over(at: datetime, over: bool) -> None:
    rds = FakeRds()
    standing(rds, "shop-1")
    sweep = swept(rds, at)
    assert (set(sweep.removals), rds.names()) == (({"shop-1"}, set()) if over else (set(), {"shop-1", "shop-1-1"}))
    assert sweep.is_clean


def test_each_by_its_own_time_and_nobody_elses() -> None:
    rds = FakeRds()
    standing(rds, "early", EXPIRES)
    standing(rds, "late", EXPIRES + HOUR)
    rds.add("cluster", "early-like", [])
    assert set(swept(rds).removals) == {"early"}
    assert rds.names() == {"late", "late-1", "early-like"}


def test_one_later_expiry_keeps_the_whole_rehearsal() -> None:
    rds = FakeRds()
    standing(rds, "shop-1").tags[resources.EXPIRES] = "2026-03-02T00:00:00Z"
    assert swept(rds).removals == {}
    assert rds.calls == []


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01T00:00:00Z"])
def test_an_unreadable_expiry_is_reported_and_not_deleted(text: str) -> None:
    rds = FakeRds()
    standing(rds, "odd", text)
    standing(rds, "shop-1")
    sweep = swept(rds, EXPIRES + 1000 * HOUR)
    assert rds.names() == {"odd", "odd-1"}
    assert {r.identifier for r in sweep.doubtful} == {"odd", "odd-1"}
    assert not sweep.is_clean


def test_a_resource_without_a_rehearsals_name_is_reported() -> None:
    rds = FakeRds()
    del standing(rds, "shop-1").tags[resources.NAME]
    sweep = swept(rds)
    assert [r.identifier for r in sweep.doubtful] == ["shop-1"]
    assert "shop-1" in rds.names()


def test_an_expiry_that_is_moved_meanwhile_is_obeyed() -> None:
    rds = FakeRds()
    cluster = standing(rds, "shop-1")

    def extend(_: dict[str, Any]) -> None:
        for thing in rds.things:
            thing.tags[resources.EXPIRES] = "2026-03-02T00:00:00Z"

    # Once for the janitor's list, once for the teardown's; then the owner needs it for longer.
    rds.script("describe_db_instances", None, None, extend)
    sweep = swept(rds)
    assert cluster in rds.things
    assert rds.calls == []
    assert any("expires only at" in text for text in sweep.removals["shop-1"].errors)


def test_one_that_is_stuck_does_not_keep_the_others() -> None:
    rds = FakeRds()
    cluster = standing(rds, "a-stuck")
    tags = [{"Key": key, "Value": value} for key, value in cluster.tags.items()]
    rds.add("deployment", "a-stuck-bg", tags, source=cluster, status="SWITCHOVER_IN_PROGRESS")
    standing(rds, "b-fine")
    sweep = swept(rds)
    assert rds.names() == {"a-stuck", "a-stuck-1", "a-stuck-bg"}
    assert [(name, removal.is_complete) for name, removal in sweep.removals.items()] == [
        ("a-stuck", False),
        ("b-fine", True),
    ]
    assert rds.now() - EXPIRES < 1.1 * HOUR
