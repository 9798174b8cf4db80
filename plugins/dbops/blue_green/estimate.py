"""What a rehearsal is expected to cost, what it has cost, and what its remains cost an hour."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from dbops import prices as prices_of
from dbops.blue_green import cost
from dbops.blue_green.cost import HOURS_PER_MONTH, Cost, Prices, Usage
from dbops.blue_green.resources import Resource
from dbops.blue_green.spec import RehearsalSpec, Synthetic
from dbops.prices import PriceError

MIN_STORAGE_GB = 10
"""Least storage of an Aurora cluster that is billed; an instance of RDS for MySQL has at least 20 allocated."""
IO_MILLIONS_PER_GB = 0.25
"""Loading a gigabyte, replicating it and reading it again: 65,536 pages of 16 KiB, each moved about four times."""
_SUPPORTED_FROM = (8, 0)


def estimate(
    spec: RehearsalSpec, prices: Prices, today: date, *, source_gb: float = 0.0, blue_version: str = ""
) -> Cost:
    """What a rehearsal of this spec will cost; both sides are taken to stand for :func:`hours`.

    Args:
        spec: the rehearsal
        prices: the price file
        today: to say how old the prices are
        source_gb: size of the snapshot or of the cluster that is cloned, before made-up data is added
        blue_version: its engine version; unknown counts as one that is billed with Extended Support

    Raises:
        PriceError: the price file lacks the region or the class
    """
    stand = hours(spec)
    return actual(spec, prices, today, stand, stand, source_gb=source_gb, blue_version=blue_version)


def hours(spec: RehearsalSpec) -> float:
    """So long both sides are taken to stand: expected_hours; with keep_old until the janitor takes them, max_hours."""
    return spec.max_hours if spec.keep_old else spec.expected_hours


def actual(
    spec: RehearsalSpec,
    prices: Prices,
    today: date,
    blue_hours: float,
    green_hours: float,
    *,
    source_gb: float = 0.0,
    blue_version: str = "",
) -> Cost:
    """The same for the hours that each side really stood.

    Raises:
        PriceError: the price file lacks the region or the class
    """
    version = spec.source.engine_version if isinstance(spec.source, Synthetic) else blue_version
    usage = Usage(
        spec.placement.region,
        spec.placement.instance_class,
        1 + spec.placement.readers,
        blue_hours,
        green_hours,
        max(MIN_STORAGE_GB if spec.form == "cluster" else 2 * MIN_STORAGE_GB, source_gb + spec.data.gigabytes),
        spec.data.gigabytes * IO_MILLIONS_PER_GB,
        extended_support=is_past_support(version),
    )
    return cost.price(usage, prices, today)


def left_per_hour(resources: Iterable[Resource], region: str, prices: Prices) -> float:
    """What these resources cost an hour, in the currency of the price file; Aurora's storage, whose size is not told, at its least.

    Raises:
        PriceError: the price file lacks the region or a class
    """
    found = list(resources)
    of_region = prices_of.of_region(cost.FILE, prices, region)
    total = 0.0
    for resource in found:
        gigabytes = resource.storage_gb
        if resource.kind == "instance":
            price = of_region.classes.get(resource.instance_class)
            if price is None:
                raise PriceError(
                    f"no price of {resource.instance_class!r} in {region}; add it to include/prices/rds.yaml"
                )
            support = (
                price.vcpu * of_region.extended_support_vcpu_hour if is_past_support(resource.engine_version) else 0.0
            )
            total += price.hour + support
            gigabytes = 0 if resource.cluster else gigabytes
        if resource.kind == "cluster":
            gigabytes = max(gigabytes, MIN_STORAGE_GB)
        if resource.kind in ("cluster", "instance"):
            total += gigabytes * of_region.storage_gb_month / HOURS_PER_MONTH
        if resource.kind in ("cluster_snapshot", "snapshot"):
            total += gigabytes * of_region.backup_gb_month / HOURS_PER_MONTH
    return total


def is_past_support(version: str) -> bool:
    """The version (of MySQL or Aurora MySQL, like ``5.7.mysql_aurora.2.11.4``) is billed with Extended Support; an unknown one is."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        return True
    return (int(parts[0]), int(parts[1])) < _SUPPORTED_FROM
