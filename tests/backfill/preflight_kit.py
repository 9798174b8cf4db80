"""Samples, prices, facts of targets and reports of applications for the checks before a copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dbops.backfill import estimate
from dbops.backfill.estimate import Prices, RegionPrices, Sample
from dbops.backfill.target import TargetFacts
from tests.backfill.source_kit import declared

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TABLE = TargetFacts(
    exists=True, state="ACTIVE", key=(("pk", "S"),), billing="PAY_PER_REQUEST", point_in_time_recovery=True
)
PRICES = Prices(
    as_of=date(2026, 1, 1), verified=True, currency="USD",
    regions={"here": RegionPrices(write_million=1, read_million=0.5, write_hour=0.36, read_hour=0.072, import_gb=2, bulk_gb=None)},
)  # fmt: skip
ON_DEMAND = TargetFacts(exists=True, state="ACTIVE", billing="PAY_PER_REQUEST")


def sample(*sizes: int, seconds: float = 1.0, rows: int | None = None) -> Sample:
    return Sample(len(sizes) if rows is None else rows, tuple(sorted(sizes)), 0, {}, seconds)


def made(spec: dict[str, Any] | None = None, facts: TargetFacts = ON_DEMAND, rows: int = 1_000_000, **more: Any) -> Any:
    given = {"sample": sample(*[500] * 99, 5000, rows=10**9), "region": "here", "prices": PRICES, **more}
    found = given.pop("sample")
    return estimate.estimate(declared(**(spec or {})), found, facts, rows=rows, **given)


@dataclass(frozen=True)
class Heard:
    application: str = "shop"
    since: datetime = datetime(2025, 12, 1, tzinfo=UTC)
    at: datetime = NOW - timedelta(minutes=1)
    counts: Mapping[str, int] = field(default_factory=lambda: {"writes": 3})


def ids(found: Any) -> list[str]:
    """Ids of findings; those that only warn have a question mark."""
    return [f"{finding.id}{'' if finding.stops else '?'}" for finding in found]
