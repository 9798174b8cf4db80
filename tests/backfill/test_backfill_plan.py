"""The plan: every row is in one chunk, and the tasks share what is left."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import plan
from dbops.backfill.records import Chunk, PlannedChunk, Tally
from dbops.backfill.source import Counted, ViewError
from tests.backfill.journal_kit import NOW
from tests.backfill.source_kit import declared


class Rows:
    """A source of whole numbers as keys, of which some are cold and some have several rows in the view."""

    def __init__(self, ids: list[int], cold: set[int] | None = None, twice: set[int] | None = None) -> None:
        self.ids, self.cold, self.twice = sorted(ids), set(ids) if cold is None else cold, twice or set()
        self.spec = declared()

    def _after(self, low: Any) -> list[int]:
        return [each for each in self.ids if low is None or each > int(low[0])]

    def nth_key(self, conn: Any, low: Any, rows: int) -> Any:
        left = self._after(low)
        return (str(left[rows - 1]),) if len(left) >= rows else None

    def last_key(self, conn: Any, low: Any = None) -> Any:
        left = self._after(low)
        return (str(left[-1]),) if left else None

    def count(self, conn: Any, low: Any, high: Any) -> Counted:
        found = [each for each in self._after(low) if each <= int(high[0])]
        several = len(found) + len(self.twice.intersection(found))
        return Counted(len(found), len(self.cold.intersection(found)), several, len(found))


@given(st.sets(st.integers(0, 200)), st.integers(1, 30))
def test_every_row_is_in_one_chunk(ids, chunk_rows) -> None:
    seen: list[PlannedChunk] = []
    found = plan.walk(None, Rows(list(ids)), chunk_rows, progress=seen.append)
    assert seen == found.chunks
    assert found.rows == found.view_rows == found.cold_rows == len(ids)
    assert [chunk.number for chunk in seen] == [*range(len(seen))]
    assert [chunk.low for chunk in seen] == [None, *(chunk.high for chunk in seen[:-1])][: len(seen)]
    assert [chunk.rows for chunk in seen[:-1]] == [chunk_rows] * (len(seen) - 1)
    assert sum(chunk.rows for chunk in seen) == len(ids)
    assert len(seen) == -(-len(ids) // chunk_rows)


def test_a_chunk_is_cold_when_half_of_its_rows_are() -> None:
    found = plan.walk(None, Rows([*range(9)], cold={0, 1, 2, 3, 6}), 3)
    assert [chunk.is_cold for chunk in found.chunks] == [True, False, False]
    assert (found.rows, found.cold_rows) == (9, 5)


def test_several_rows_of_one_are_refused() -> None:
    with pytest.raises(
        ViewError, match=re.escape("gives 4 rows for 3 rows of shop.rides after key ('2',) up to ('5',)")
    ):
        plan.walk(None, Rows([*range(9)], twice={4}), 3)
    with pytest.raises(ValueError, match="chunk_rows=0"):
        plan.walk(None, Rows([]), 0)


def chunk(position: int, rows: int = 10, **more: Any) -> Chunk:
    made = Chunk("p", position, position, None, ("1",), rows, True, "planned", None, Tally(), 0, None, None, None)
    return replace(made, **more)


@given(st.lists(st.integers(0, 1_000), max_size=60), st.integers(1, 20), st.data())
def test_spans_hold_every_chunk_that_is_left_once(rows, tasks, data) -> None:
    chunks = [chunk(at, n, state=data.draw(st.sampled_from(["planned", "done"]))) for at, n in enumerate(rows)]
    left = [each for each in chunks if each.state == "planned"]
    spans = plan.groups(chunks, tasks)
    assert len(spans) == min(tasks, len(left))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    inside = [[each for each in left if first <= each.position < end] for first, end in spans]
    assert [each for some in inside for each in some] == left
    assert all(inside)


def test_spans_share_the_rows_that_are_left() -> None:
    chunks = [chunk(at, 100) for at in range(8)]
    assert plan.groups(chunks, 4) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    half = [replace(each, tally=Tally(read=100)) if each.position < 4 else each for each in chunks]
    assert plan.groups(half, 2) == [(0, 6), (6, 8)]


def test_a_plan_is_made_of_a_walk() -> None:
    spec = declared()
    found = plan.walk(None, Rows([*range(25)]), 10)
    made = plan.new_plan(spec, found, server_uuid="u", log_position="f:1", now=NOW, estimate={"usd": 1})
    assert re.fullmatch(r"rides-20260501-[0-9a-f]{8}", made.plan_id)
    assert (made.rows, made.chunks, made.state, made.rule_digest) == (25, 3, "planned", spec.rule_digest())
    assert plan.new_plan_id("rides", NOW) != plan.new_plan_id("rides", NOW)
