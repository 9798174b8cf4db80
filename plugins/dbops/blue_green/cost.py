"""What a rehearsal costs: estimated before spending, computed again from actual hours. Prices come from a dated file, never from code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import Field

from dbops import prices as prices_of
from dbops.prices import PriceError, PriceFile, Strict

HOURS_PER_MONTH = 730
FILE = "rds"


class ClassPrice(Strict):
    """On-demand price of an instance class an hour, and its vCPUs (Extended Support is billed by them)."""

    hour: float = Field(gt=0)
    vcpu: int = Field(gt=0)


class RegionPrices(Strict):
    """Prices of one region."""

    storage_gb_month: float = Field(ge=0)
    io_million: float = Field(ge=0)
    backup_gb_month: float = Field(ge=0)
    extended_support_vcpu_hour: float = Field(ge=0)
    classes: dict[str, ClassPrice]


Prices = PriceFile[RegionPrices]


@dataclass(frozen=True)
class Usage:
    """What is billed. `members` counts the instances of each side; green is billed from its creation, `green_hours`."""

    region: str
    instance_class: str
    members: int
    blue_hours: float
    green_hours: float
    storage_gb: float
    io_millions: float = 0.0
    extended_support: bool = True
    """Blue runs a version past its standard support (5.7 does)."""


@dataclass(frozen=True)
class Cost:
    """Items in the currency of the price file, their total, what each hour costs while both sides stand, and what to doubt."""

    items: tuple[tuple[str, float], ...]
    total: float
    per_hour: float
    currency: str
    warnings: tuple[str, ...]


def load(path: Path | None = None) -> Prices:
    """Read ``include/prices/rds.yaml``, or another file. Raises PriceError."""
    return prices_of.load(FILE, Prices, path)


def price(usage: Usage, prices: Prices, today: date) -> Cost:
    """Cost of this usage. Green's storage is priced in full: it is a clone that grows with every change and wholly once blue is deleted.

    Raises:
        PriceError: the file has no price of the region or class
        ValueError: a quantity is negative, or no member
    """
    if usage.members < 1 or min(usage.blue_hours, usage.green_hours, usage.storage_gb, usage.io_millions) < 0:
        raise ValueError(f"{usage}: expected at least one member and no negative quantity")
    region = prices_of.of_region(FILE, prices, usage.region)
    of_class = region.classes.get(usage.instance_class)
    if of_class is None:
        known = ", ".join(region.classes)
        raise PriceError(
            f"no price of {usage.instance_class!r} in {usage.region} (known: {known}); add it to include/prices/rds.yaml"
        )
    hours = usage.blue_hours + usage.green_hours
    support = of_class.vcpu * region.extended_support_vcpu_hour * usage.members if usage.extended_support else 0.0
    storage = usage.storage_gb * region.storage_gb_month / HOURS_PER_MONTH
    backup = usage.storage_gb * region.backup_gb_month / HOURS_PER_MONTH
    items = (
        ("instances", hours * of_class.hour * usage.members),
        ("extended support of blue", usage.blue_hours * support),
        ("storage", hours * storage),
        ("I/O", usage.io_millions * region.io_million),
        ("backup", hours * backup),
    )
    per_hour = 2 * (of_class.hour * usage.members + storage + backup) + support
    warnings = prices_of.doubts(prices, today)
    return Cost(items, sum(amount for _, amount in items), per_hour, prices.currency, tuple(warnings))
