"""Samples: evenly drawn, looking where faults live, and bounds that hold."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import sampling
from dbops.backfill.records import Compared
from dbops.backfill.sampling import Stratum
from dbops.backfill.verify import Span, Verifier
from tests.backfill import verify_kit as kit


@pytest.mark.parametrize(
    ("defects", "seen", "expected"),
    [
        # Zero: the rule of three. Others: beta quantiles, BETA.INV(0.95; d + 1; n - d).
        (0, 300_000, 0.00001),
        (0, 2, 1.0),
        (1, 10, 0.394163),
        (2, 100, 0.061618),
        (5, 100, 0.102253),
        (10, 10, 1.0),
        (9, 10, 0.994884),
        (0, 0, 1.0),
    ],
)
def test_bounds(defects: int, seen: int, expected: float) -> None:
    assert sampling.bound(defects, seen) == pytest.approx(expected, abs=2e-6)


@given(st.integers(0, 40), st.integers(1, 400))
def test_the_bound_is_where_so_few_are_seen_once_in_twenty(defects: int, more: int) -> None:
    seen = defects + more
    upper = sampling.bound(defects, seen)
    exact = math.fsum(math.comb(seen, n) * upper**n * (1 - upper) ** (seen - n) for n in range(defects + 1))
    assert exact == pytest.approx(0.05, abs=1e-6) if defects else exact <= 0.0501
    assert upper > defects / seen
    assert upper <= sampling.bound(defects + 1, seen)
    assert sampling.bound(defects, seen, 0.99) >= (upper if defects else 0)


def test_bounds_of_large_samples() -> None:
    assert sampling.bound(5_000, 300_000) == pytest.approx(0.0170559, abs=2e-6)
    for wrong in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)):
        with pytest.raises(ValueError, match="defects in"):
            sampling.bound(*wrong)


def test_the_text_is_a_bound_not_a_verdict() -> None:
    clean = sampling.bound_of(Compared("sample", 0, {"equal": 299_000, "target_newer": 1_000}), 1_000_000_000)
    assert clean.text == (
        "no difference in 300,000 rows drawn evenly: with 95 % confidence at most 1e-05 of the rows (3/n), "
        "so up to 10,000 of 1,000,000,000, are wrong"
    )
    found = sampling.bound_of(Compared("sample", 0, {"equal": 98, "missing": 2}), 1000)
    assert found.text.startswith(
        "2 differences in 100 rows drawn evenly: with 95 % confidence at most 0.062 of the rows (Clopper-Pearson)"
    )


def rows(*numbers: int, **names: str) -> kit.Rows:
    made = kit.Rows()
    for number in numbers:
        made.put(number, 1, names.get(f"n{number}", ""))
    return made


def spans(found: kit.Rows, size: int) -> list[Span]:
    ids = sorted(found.loaded)
    cuts = [ids[at : at + size] for at in range(0, len(ids), size)]
    low: Any = None
    made = []
    for number, cut in enumerate(cuts):
        made.append(Span(number, low, (str(cut[-1]),), len(cut)))
        low = made[-1].high
    return made


def draw(found: kit.Rows, parts: list[Span], size: int, seed: int = 1) -> dict[str, Stratum]:
    return {each.name: each for each in sampling.draw(found, None, parts, size, Random(seed))}


def test_each_row_has_the_same_chance_whatever_the_gaps() -> None:
    found = rows(*range(1, 21), *range(1000, 1_000_000, 50_000))
    parts = spans(found, 7)
    drawn = Counter(
        each.driving for seed in range(600) for each in draw(found, parts, 10, seed)["uniform"].wanted if each.driving
    )
    assert set(drawn) == {(str(number),) for number in found.loaded}
    mean = sum(drawn.values()) / len(drawn)
    assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in drawn.values())


def test_a_sample_as_large_as_the_table_is_the_table() -> None:
    found = rows(*range(1, 40))
    strata = draw(found, spans(found, 10), 1000)
    assert [each.driving for each in strata["uniform"].wanted] == [(str(number),) for number in range(1, 40)]
    assert set(strata) == set(sampling.STRATA)
    for stratum in strata.values():
        assert len({each.driving for each in stratum.wanted}) == len(stratum.wanted)


def test_strata_look_where_faults_live() -> None:
    found = rows(*range(1, 1001), n17="äöü" * 3, n18="x" * 40, n19="")
    found.put(20, 2, "", note="GONE")
    found.put(21, 2, " padded ")
    for number in range(1, 1001):
        if number not in (20, 22):
            found.loaded[number].row["note"] = "n"  # type: ignore[index]
    strata = draw(found, spans(found, 100), 200)
    at = {name: {int(each.driving[0]) for each in stratum.wanted if each.driving} for name, stratum in strata.items()}
    assert at["non_ascii"] == {17}
    assert {17, 18} <= at["largest"]
    assert at["null_rich"] == {22}
    assert at["buried"] == {20}
    assert at["extreme"] == {21}
    assert at["newest"] == set(range(991, 1001))
    assert at["edges"] <= {number for edge in range(100, 1001, 100) for number in (edge, edge + 1)}
    assert strata["edges"].note == "of 5 of 10 chunks"
    assert strata["largest"].note == "of 1,000 rows in 10 places"
    assert 1001 in at["gaps"]
    assert len(strata["uniform"].wanted) == 200 - sum(
        len(each.wanted) for each in strata.values() if each.name != "uniform"
    )


def test_an_item_in_a_gap_is_found_and_a_gap_without_is_fine() -> None:
    found, store = rows(1, 1000), kit.MemoryTarget()
    for number in (1, 1000):
        store.put(kit.write(number, 1))
    gaps = draw(found, [Span(0, None, ("1000",), 2)], 2000)["gaps"]
    clock = kit.Clock()
    verifier = Verifier(found, store, None, drain_s=1, monotonic=clock, sleep=clock.sleep)
    assert set(verifier.keys(gaps.number, gaps.wanted, name=gaps.name).counts) == {"equal"}
    store.put(*(kit.write(number, 1) for number in range(2, 1000)))
    assert verifier.keys(gaps.number, gaps.wanted).failing >= len(gaps.wanted) - 3


def test_what_cannot_be_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(1, 2, 3)
    gaps = sampling._gaps(found, None, [Span(0, None, ("_utf8mb4 X'41'",), 3)], 100, Random(1))
    assert gaps.wanted == ()
    assert gaps.note.startswith("not drawn: only a key of one whole number")
    monkeypatch.setattr(found, "size", lambda *_: 5)  # when they were counted
    short = draw(found, [Span(0, None, ("3",), 5)], 100)["uniform"]
    assert (len(short.wanted), short.note) == (3, "2 of the rows that were drawn were deleted meanwhile")
    assert draw(kit.Rows(), [], 100)["uniform"].wanted == ()


def test_chunks_without_count_are_counted() -> None:
    found = rows(*range(1, 11))
    strata = draw(found, [Span(0, None, ("5",), 5), Span(1, ("5",), ("10",))], 1000)
    assert len(strata["uniform"].wanted) == 10


def test_rows_that_came_since_the_plan_have_the_same_chance() -> None:
    rows = kit.Rows()
    for number in range(1, 201):
        rows.put(number, 1)
    planned = [Span(0, None, ("100",), 50), Span(1, ("100",), ("200",), 50)]  # each has twice as many now
    *_, uniform = sampling.draw(rows, None, planned, 400, Random(1))
    assert {int(each.driving[0]) for each in uniform.wanted if each.driving} == set(range(1, 201))


def test_a_repeated_draw_is_the_same() -> None:
    found = rows(*range(1, 500))
    assert draw(found, spans(found, 50), 100, 3) == draw(found, spans(found, 50), 100, 3)
    assert draw(found, spans(found, 50), 100, 3) != draw(found, spans(found, 50), 100, 4)
