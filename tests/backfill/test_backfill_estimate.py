"""Sizes, units, cost and time from a sample."""

from __future__ import annotations

from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import estimate
from dbops.backfill.target import Index, TargetFacts
from dbops.guardrails import Window
from dbops.prices import PriceError
from tests.backfill.preflight_kit import made, sample
from tests.backfill.source_kit import declared


def test_items_are_rounded_up_alone() -> None:
    found = made()
    assert (found.p50_bytes, found.p99_bytes, found.max_bytes) == (500, 500, 5000)
    assert found.units == pytest.approx(1_000_000 * (99 * 1 + 5) / 100)
    assert found.bytes == 545_000_000


def test_indexes_and_proof_cost_as_well() -> None:
    plain = made({"verify": {"reverse": False}})
    parts = dict(plain.items)
    assert parts["writes"] == pytest.approx(1.04)
    assert parts["reads after each write"] == parts["verification"] == pytest.approx(0.5 * 1.01)
    assert parts["scan for extra items"] == 0
    assert plain.usd == pytest.approx(1.04 + 1.01)
    indexed = made(
        facts=TargetFacts(
            True, "ACTIVE", billing="PAY_PER_REQUEST", indexes=(Index("a", "ACTIVE"), Index("b", "ACTIVE"))
        )
    )
    assert indexed.index_factor == 3
    assert dict(indexed.items)["writes"] == pytest.approx(3.12)
    assert dict(made().items)["scan for extra items"] == pytest.approx(545e6 / 4096 / 1e6 * 0.5)
    sampled = made({"verify": {"mode": "sample", "sample_rows": 1000}})
    assert dict(sampled.items)["verification"] == pytest.approx(1010 / 1e6 * 0.5)


@pytest.mark.parametrize(
    ("limits", "capacity", "seconds", "hours", "by"),
    [
        ({"units_per_s": 1000}, None, 1.0, 1_040_000 / 1000 / 3600, "limits.units_per_s"),
        ({"units_per_s": 1000}, 500.0, 1.0, 1_040_000 / 500 / 3600, "table"),
        ({"units_per_s": 1000, "read_units_per_s": 200}, None, 1.0, 1_010_000 / 200 / 3600, "limits.read_units_per_s"),
        ({"units_per_s": 100_000, "read_units_per_s": 100_000, "tasks": 2}, None, 1e9 / 1000, 1_000_000 / 2000 / 3600, "source"),
        ({"units_per_s": 1000, "window": {"start": "22:00", "end": "04:00"}}, None, 1.0, 4 * 1_040_000 / 1000 / 3600, "limits.units_per_s"),
    ],
    ids=["limit", "table", "reads", "source", "window"],
)  # fmt: skip
def test_the_slowest_part_says_how_long_it_takes(
    limits: dict[str, Any], capacity: float | None, seconds: float, hours: float, by: str
) -> None:
    found = made(
        {"limits": limits},
        TargetFacts(exists=True, state="ACTIVE", billing="PAY_PER_REQUEST", write_capacity=capacity),
        sample=sample(*[500] * 99, 5000, rows=10**9, seconds=seconds),
    )
    assert found.hours == pytest.approx(hours)
    assert found.limited_by == by


def test_the_verification_takes_as_long_as_its_reads() -> None:
    limits = {"limits": {"read_units_per_s": 100, "window": {"start": "22:00", "end": "04:00"}}}
    scan = 545e6 / 4096
    assert made(limits).verify_hours == pytest.approx(4 * (1_010_000 + scan) / 100 / 3600)
    redis = {"target": {"kind": "redis", "key": "ride:{id}"}}
    assert made({**limits, **redis}).verify_hours == pytest.approx(4 * 2 * 1_010_000 / 100 / 3600)


def test_other_engines_and_stores_have_other_prices() -> None:
    staged = {"staging_s3_uri": "s3://bucket/folder/"}
    imported = made({"engine": "import", **staged, "verify": {"reverse": False}}, TargetFacts(False, "absent"))
    assert dict(imported.items) == {
        "import": pytest.approx(1.09), "reads after each write": 0, "verification": pytest.approx(0.505), "scan for extra items": 0,
    }  # fmt: skip
    with pytest.raises(PriceError, match="no price of engine bulk"):
        made({"engine": "bulk", **staged})
    provisioned = made(facts=TargetFacts(True, "ACTIVE", billing="PROVISIONED"))
    assert dict(provisioned.items)["writes"] == pytest.approx(1_040_000 / 3600 * 0.36)
    redis = made({"target": {"kind": "redis", "key": "{id}"}}, TargetFacts(True, "ok"))
    assert (redis.usd, redis.units) == (0, pytest.approx(1_040_000))
    with pytest.raises(PriceError, match="no prices of region 'there'"):
        made(region="there")


def test_doubts_about_prices_are_said() -> None:
    assert made(today=date(2026, 2, 1)).warnings == ()
    (old,) = made(today=date(2026, 12, 1)).warnings
    assert old == "prices are 334 days old (as of 2026-01-01)"
    assert any("nobody has compared" in text for text in made(prices=estimate.load(), region="us-east-1").warnings)


def test_the_price_file_is_whole(tmp_path: Path) -> None:
    assert {"us-east-1", "eu-central-1"} <= set(estimate.load().regions)
    with pytest.raises(PriceError, match="put the price file there"):
        estimate.load(tmp_path / "none.yaml")
    (tmp_path / "wrong.yaml").write_text("as_of: never")
    with pytest.raises(PriceError, match="correct the price file"):
        estimate.load(tmp_path / "wrong.yaml")


def test_an_empty_sample_is_no_division_by_zero() -> None:
    found = made(sample=sample(seconds=0), rows=0)
    assert (found.units, found.hours, found.max_bytes) == (0, 0, 0)
    assert found.as_json()["items"] == found.items


@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_no_more_than_the_share_of_items_is_above_a_percentile(sizes: list[int], share: float) -> None:
    found = sample(*sizes).percentile(share)
    assert found in sizes
    assert sum(size <= found for size in sizes) >= share * len(sizes) - 1e-9
    assert sum(size < found for size in sizes) < share * len(sizes)


@given(st.integers(0, 24 * 60 - 1), st.integers(0, 24 * 60 - 1))
def test_the_share_of_a_day_is_what_the_window_lets_in(start: int, end: int) -> None:
    if start == end:
        return
    from datetime import UTC, datetime, timedelta

    window = Window(start=f"{start // 60:02d}:{start % 60:02d}", end=f"{end // 60:02d}:{end % 60:02d}")
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    minutes = sum(window.contains(midnight + timedelta(minutes=minute)) for minute in range(24 * 60))
    assert estimate.open_share(window) == pytest.approx(minutes / (24 * 60))


def test_only_reading_and_converting_is_timed() -> None:
    class Pages:
        spec, names = declared(), None
        clock = count()

        def nth_key(self, *_: Any) -> None:
            next(self.clock)

        def last_key(self, *_: Any) -> tuple[str]:
            next(self.clock)
            return ("9",)

        def page(self, *_: Any) -> Any:
            from dbops.backfill.source import Page

            return Page([], ("9",), is_end=True)

    pages: Any = Pages()
    found = estimate.measure(None, pages, [None, ("5",)], monotonic=lambda: float(next(pages.clock)))
    assert (found.rows, found.seconds) == (0, 2.0)
