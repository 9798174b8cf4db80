"""The recommended timeout, the ranking of causes, and the price of a rehearsal."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.blue_green import cost, ladder
from dbops.blue_green.ladder import Attempt, Evidence
from dbops.prices import PriceError

USAGE = cost.Usage("us-east-1", "db.r5.large", 2, blue_hours=4, green_hours=3, storage_gb=73, io_millions=10)


def test_the_rule_with_its_numbers() -> None:
    found = ladder.recommend([Attempt(60, "ROLLED_BACK", 61), Attempt(180, "COMPLETED", 72.4)])
    assert found.timeout_s == 240
    assert "3 x p95 72.4 s of 1 successes" in found.rule
    assert ladder.recommend([Attempt(60, "COMPLETED", 9)]).timeout_s == 180
    assert ladder.recommend([Attempt(60, "ROLLED_BACK", 61), Attempt(90, "STUCK", 120)]).timeout_s is None
    assert ladder.recommend([Attempt(3600, "COMPLETED", 3000)]).timeout_s == 3600


ATTEMPTS = st.builds(
    Attempt, st.integers(30, 3600), st.sampled_from(["COMPLETED", "ROLLED_BACK", "STUCK"]), st.floats(1, 3600)
)


@given(st.lists(ATTEMPTS, max_size=10))
def test_a_recommendation_is_what_aws_takes_and_covers_what_was_measured(attempts: list[Attempt]) -> None:
    found = ladder.recommend(attempts).timeout_s
    took = [a.duration_s for a in attempts if a.outcome == "COMPLETED"]
    assert (found is None) == (not took)
    if found is not None:
        assert 180 <= found <= 3600
        assert found % 30 == 0
        assert found >= min(3600, sorted(took)[len(took) // 2])


def test_causes_are_ranked_by_evidence_and_by_what_aws_says() -> None:
    seen = Evidence(max_lag_s=20, longest_transaction_s=55, connections=200, writes_without_key=1000)
    assert [c.name for c in ladder.causes(Attempt(60, "ROLLED_BACK", 61, "", seen))] == [
        "transaction",
        "lag",
        "no key",
        "connections",
    ]
    named = ladder.causes(
        Attempt(60, "ROLLED_BACK", 61, "canceled due to replica lag", Evidence(max_lag_s=40, longest_transaction_s=55))
    )
    assert named[0].name == "lag"
    assert ladder.causes(Attempt(60, "ROLLED_BACK", 61)) == []


def test_the_price_of_a_rehearsal() -> None:
    found = cost.price(USAGE, cost.load(), date(2026, 2, 1))
    items = dict(found.items)
    assert items["instances"] == pytest.approx(7 * 0.29 * 2)
    assert items["extended support of blue"] == pytest.approx(4 * 2 * 0.10 * 2)
    assert items["storage"] == pytest.approx(7 * 73 * 0.10 / 730)
    assert items["I/O"] == pytest.approx(2.0)
    assert found.total == pytest.approx(sum(items.values()))
    assert found.per_hour == pytest.approx(2 * (0.58 + 73 * 0.121 / 730) + 0.4)
    assert found.warnings == ("nobody has compared the price file with AWS's list",)
    assert "days old" in cost.price(USAGE, cost.load(), date(2027, 2, 1)).warnings[1]


def test_what_has_no_price_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    for wrong, word in (
        (replace(USAGE, region="mars-1"), "region 'mars-1'"),
        (replace(USAGE, instance_class="db.x"), "'db.x'"),
    ):
        with pytest.raises(PriceError, match=word):
            cost.price(wrong, cost.load(), date(2026, 2, 1))
    with pytest.raises(ValueError, match="negative"):
        cost.price(replace(USAGE, blue_hours=-1), cost.load(), date(2026, 2, 1))
    (tmp_path / "p.yaml").write_text("as_of: never\n")
    with pytest.raises(PriceError, match="as_of"):
        cost.load(tmp_path / "p.yaml")
    with pytest.raises(PriceError, match="put the price file there"):
        cost.load(tmp_path / "none.yaml")
