"""The estimate, the account afterwards, and the price of what is left."""

from __future__ import annotations

from datetime import date

import pytest
from conftest import ACCOUNT

from dbops.blue_green import cost, estimate
from dbops.blue_green.resources import Kind, Resource
from dbops.prices import PriceError
from tests.blue_green import rds_kit

TODAY = date(2026, 2, 1)
PLACEMENT = {"region": "us-east-1", "accounts": [ACCOUNT], "instance_class": "db.r5.large", "readers": 1}
PRICES = cost.load()


def test_the_estimate_takes_its_quantities_from_the_spec() -> None:
    spec = rds_kit.spec(placement=PLACEMENT, expected_hours=3, data={"gigabytes": 40})
    items = dict(estimate.estimate(spec, PRICES, TODAY).items)
    assert items["instances"] == pytest.approx(2 * 3 * 2 * 0.29)
    assert items["extended support of blue"] == pytest.approx(3 * 2 * 0.10 * 2)
    assert items["storage"] == pytest.approx(6 * 40 * 0.10 / 730)
    assert items["I/O"] == pytest.approx(40 * 0.25 * 0.20)


def test_what_was_restored_is_priced_too_and_small_clusters_at_the_least_that_is_billed() -> None:
    spec = rds_kit.spec(placement=PLACEMENT, expected_hours=1, data={"gigabytes": 1})
    storage = {gb: dict(estimate.estimate(spec, PRICES, TODAY, source_gb=gb).items)["storage"] for gb in (0, 99)}
    assert storage[99] == pytest.approx(10 * storage[0])
    instance = rds_kit.spec(
        form="instance", placement=PLACEMENT | {"readers": 0}, expected_hours=1, data={"gigabytes": 0}
    )
    assert dict(estimate.estimate(instance, PRICES, TODAY).items)["storage"] == pytest.approx(2 * 20 * 0.10 / 730)


@pytest.mark.parametrize(
    ("version", "past"),
    [
        ("5.7.44", True), ("5.7.mysql_aurora.2.11.4", True), ("8.0.36", False), ("8.0.mysql_aurora.3.08.2", False),
        ("8.4.3", False), ("10.1", False), ("", True), ("banana", True),
    ],
)  # fmt: skip
def test_extended_support_is_for_what_is_past_it(version: str, past: bool) -> None:
    assert estimate.is_past_support(version) is past
    spec = rds_kit.spec(placement=PLACEMENT, source={"kind": "snapshot", "snapshot": "s"})
    items = dict(estimate.estimate(spec, PRICES, TODAY, blue_version=version).items)
    assert (items["extended support of blue"] > 0) is past


def test_actual_hours_replace_the_expected_ones() -> None:
    spec = rds_kit.spec(placement=PLACEMENT, expected_hours=3)
    assert estimate.actual(spec, PRICES, TODAY, 3, 3) == estimate.estimate(spec, PRICES, TODAY)
    assert dict(estimate.actual(spec, PRICES, TODAY, 1.5, 0.5).items)["instances"] == pytest.approx(2 * 2 * 0.29)


def left(kind: Kind, storage_gb: float = 1, cluster: str = "", version: str = "8.0.mysql_aurora.3.04.0") -> Resource:
    return Resource(
        kind, "a", "id", "arn", "available", {}, instance_class="db.r5.large" if kind == "instance" else "",
        engine_version=version, cluster=cluster, storage_gb=storage_gb,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([], 0.0),
        ([left("cluster_parameter_group"), left("parameter_group"), left("deployment")], 0.0),
        ([left("instance", cluster="c")], 0.29),
        ([left("instance", cluster="c", version="5.7.44")], 0.29 + 2 * 0.10),
        ([left("instance", storage_gb=100)], 0.29 + 100 * 0.10 / 730),
        ([left("cluster")], 10 * 0.10 / 730),
        ([left("cluster_snapshot", storage_gb=50), left("snapshot", storage_gb=50)], 100 * 0.021 / 730),
    ],
)
def test_what_is_left_costs_by_the_hour(resources: list[Resource], expected: float) -> None:
    assert estimate.left_per_hour(resources, "us-east-1", PRICES) == pytest.approx(expected)


def test_what_has_no_price_is_said() -> None:
    with pytest.raises(PriceError, match="region 'mars-1'"):
        estimate.left_per_hour([left("cluster")], "mars-1", PRICES)
    with pytest.raises(PriceError, match=r"'db\.x9'"):
        estimate.left_per_hour(
            [Resource("instance", "a", "i", "a", "s", {}, instance_class="db.x9")], "us-east-1", PRICES
        )
