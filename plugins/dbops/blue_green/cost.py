"""What a rehearsal costs: estimated before spending, computed again from actual hours. Prices come from a dated file, never from code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dbops import include_dir

HOURS_PER_MONTH = 730
STALE_DAYS = 180


class PriceError(ValueError):
    """A price is missing or the file is wrong; the text names file, field and fix."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassPrice(_Strict):
    """On-demand price of an instance class an hour, and its vCPUs (Extended Support is billed by them)."""

    hour: float = Field(gt=0)
    vcpu: int = Field(gt=0)


class RegionPrices(_Strict):
    """Prices of one region."""

    storage_gb_month: float = Field(ge=0)
    io_million: float = Field(ge=0)
    backup_gb_month: float = Field(ge=0)
    extended_support_vcpu_hour: float = Field(ge=0)
    classes: dict[str, ClassPrice]


class Prices(_Strict):
    """The price file. ``verified`` is set by whoever compared it with AWS's list on ``as_of``."""

    as_of: date
    verified: bool
    currency: str
    regions: dict[str, RegionPrices]


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
    import yaml

    file = path or include_dir() / "prices" / "rds.yaml"
    try:
        return Prices.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise PriceError(f"{file}: {error.strerror}; put the price file there") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise PriceError(f"{file}: {error}; correct the price file") from error


def price(usage: Usage, prices: Prices, today: date) -> Cost:
    """Cost of this usage. Green's storage is priced in full: it is a clone that grows with every change and wholly once blue is deleted.

    Raises:
        PriceError: the file has no price of the region or class
        ValueError: a quantity is negative, or no member
    """
    if usage.members < 1 or min(usage.blue_hours, usage.green_hours, usage.storage_gb, usage.io_millions) < 0:
        raise ValueError(f"{usage}: expected at least one member and no negative quantity")
    region = prices.regions.get(usage.region)
    if region is None:
        raise PriceError(
            f"no prices of region {usage.region!r} (known: {', '.join(prices.regions)}); add it to include/prices/rds.yaml"
        )
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
    age = (today - prices.as_of).days
    warnings = [] if prices.verified else ["nobody has compared the price file with AWS's list"]
    warnings += [f"prices are {age} days old (as of {prices.as_of})"] if age > STALE_DAYS else []
    return Cost(items, sum(amount for _, amount in items), per_hour, prices.currency, tuple(warnings))
