"""The simulation of a backfill obeys its own limits: no run is faster than what limits it, no row is lost, one seed is one run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import simulation
from bench.simulation import Costs, Layout, Setting
from dbops.backfill.pacing import GRANT_S, HOLD_S

COSTS = Costs(
    read_s=20e-6, cpu_s=300e-6, call_s=0.01, claim_s=0.003, checkpoint_s=0.002, grant_s=0.001, units=1.0
)  # fmt: skip


def setting(**more: Any) -> Setting:
    return Setting(**{"rows": 400_000, "tasks": 4, "units_per_s": 40_000.0, "partitions": 40, **more})


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 120_000), tasks=st.integers(1, 40), units=st.sampled_from([200.0, 3_000.0, 1e9]),
    partitions=st.integers(1, 40), layout=st.sampled_from(["spread", "shuffled", "ordered"]), kills=st.sampled_from([0.0, 20.0]),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_every_row_is_done_once_and_no_limit_is_passed(
    rows: int, tasks: int, units: float, partitions: int, layout: Layout, kills: float, seed: int
) -> None:
    given_ = setting(
        rows=rows, tasks=tasks, units_per_s=units, partitions=partitions, layout=layout, kills_per_task_hour=kills, seed=seed
    )  # fmt: skip
    found = simulation.run(COSTS, given_)
    assert found.rows_done == rows
    assert found.simulated == 1
    bounds = simulation.bound(COSTS, given_)
    grants = units * (found.seconds + HOLD_S + GRANT_S)
    assert rows * COSTS.units <= grants * 1.001
    assert (
        rows / found.seconds <= min(limit for name, limit in bounds.items() if name not in ("bucket", "grants")) * 1.001
    )
    assert sum(found.held.values()) == pytest.approx(1)
    if not kills:
        assert (found.kills, found.rows_again) == (0, 0)


def test_one_seed_is_one_run() -> None:
    asked = setting(kills_per_task_hour=30.0, layout="shuffled")
    assert simulation.run(COSTS, asked) == simulation.run(COSTS, asked)
    assert simulation.run(COSTS, asked) != simulation.run(COSTS, replace(asked, seed=2))


LIMITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tasks", {"tasks": 1}, {}),
    ("bucket", {"tasks": 16, "units_per_s": 1_000.0}, {}),
    ("partitions", {"tasks": 16, "partitions": 2}, {}),
    ("partitions", {"tasks": 16, "partitions": 4, "layout": "ordered", "chunk_rows": 1_000}, {}),
    ("account", {"tasks": 64, "account_units": 5_000.0}, {}),
    ("source", {"tasks": 16, "source_rows_per_s": 2_000.0}, {}),
    ("cores", {"tasks": 16, "cores": 2.0}, {}),
    ("grants", {"tasks": 64}, {"grant_s": 0.05}),
    ("journal", {"tasks": 64, "chunk_rows": 1_000}, {"journal_cpu_s": 0.5}),
]


@pytest.mark.parametrize(
    ("limit", "more", "costs"), [pytest.param(*one, id=f"{one[0]}-{n}") for n, one in enumerate(LIMITS)]
)
def test_what_limits_is_named_and_reached(limit: str, more: dict[str, Any], costs: dict[str, Any]) -> None:
    found = simulation.run(replace(COSTS, **costs), setting(**more))
    assert found.limited_by == limit
    assert found.held[limit] > 0.4, found.held
    bounds = simulation.bound(replace(COSTS, **costs), setting(**more))
    if limit in bounds and "layout" not in more:
        assert found.rows_done / found.seconds == pytest.approx(bounds[limit], rel=0.3 if limit == "grants" else 0.15)


def test_more_tasks_help_until_the_limit() -> None:
    rates = [400_000 / simulation.run(COSTS, setting(tasks=n, units_per_s=8_000.0)).seconds for n in (1, 2, 4, 8)]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.05)
    assert rates[3] == pytest.approx(8_000, rel=0.05)


def test_chunks_in_key_order_fill_one_partition_and_shuffled_ones_many() -> None:
    asked = setting(tasks=16, partitions=8, chunk_rows=1_000)
    ordered = simulation.run(COSTS, replace(asked, layout="ordered"))
    shuffled = simulation.run(COSTS, replace(asked, layout="shuffled"))
    assert 400_000 / ordered.seconds == pytest.approx(1_000, rel=0.3)
    assert ordered.seconds > 3 * shuffled.seconds


def test_kills_cost_pages_and_leases_but_no_row() -> None:
    calm = simulation.run(COSTS, setting())
    killed = simulation.run(COSTS, setting(kills_per_task_hour=120.0, lease_s=20.0, restart_s=5.0))
    assert killed.kills > 3
    assert killed.rows_done == calm.rows_done
    assert calm.seconds < killed.seconds < 4 * calm.seconds
    assert killed.rows_again <= killed.kills * simulation.LARGEST_PAGE


def test_the_bucket_holds_in_every_stretch() -> None:
    found = simulation.run(COSTS, setting(tasks=16, units_per_s=1_000.0))
    assert found.peak_units_per_s <= 1_000 * 1.3
    assert found.seconds >= 400 - HOLD_S


def test_a_large_run_is_projected_from_its_first_pages() -> None:
    whole = simulation.run(COSTS, setting(rows=2_000_000))
    part = simulation.run(COSTS, setting(rows=2_000_000, max_pages=200))
    assert part.simulated < 1
    assert part.seconds == pytest.approx(whole.seconds, rel=0.1)
