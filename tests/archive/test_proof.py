"""How the lake stands against what left MySQL: what is whole, what is a loss that a person may accept, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_summary import PLAN

from dbops.archive import preflight, proof
from dbops.archive.checksum import Checksum
from dbops.archive.proof import Broken, Standing
from dbops.mysql import ForeignKey, Table

DONE = {0: Checksum(3, 3, 10, 1), 1: Checksum(2, 2, 20, 2)}
GONE = "if they are gone for good, run once with accept_loss: t-20260101-abc"


@pytest.mark.parametrize(
    ("found", "expected", "whole", "lossy"),
    [
        (DONE, Standing(5, 5), True, False),
        ({0: DONE[0]}, Standing(3, 5, missing={1: 2}), False, True),
        ({}, Standing(0, 5, missing={0: 3, 1: 2}), False, True),
        ({**DONE, 1: Checksum(2, 2, 20, 3)}, Standing(5, 5, changed={1: 2}), False, True),
        # as many rows, but without hashes: a column is gone
        ({**DONE, 1: Checksum(2)}, Standing(5, 5, changed={1: 2}), False, True),
        ({**DONE, 1: Checksum(4, 4, 40, 0)}, Standing(7, 5, extra={1: 2}), False, False),
        ({**DONE, 7: Checksum(1, 1, 1, 1)}, Standing(6, 5, extra={7: 1}), False, False),
        ({**DONE, -1: Checksum(1, 1, 1, 1)}, Standing(6, 5, extra={-1: 1}), False, False),
        # too many in one chunk do not make up for too few in another
        ({0: Checksum(4, 4, 11, 1), 1: Checksum(1, 1, 1, 1)}, Standing(5, 5, extra={0: 1}, missing={1: 1}), False, False),
    ],
)  # fmt: skip
def test_a_plan_is_whole_only_if_every_chunk_is(
    found: dict[int, Checksum], expected: Standing, whole: bool, lossy: bool
) -> None:
    made = proof.compare(DONE, found)
    assert made == expected
    assert (made.whole, made.lossy) == (whole, lossy)
    assert bool(made.problems(PLAN)) is not whole


@given(st.dictionaries(st.integers(0, 3), st.integers(1, 9)), st.dictionaries(st.integers(0, 3), st.integers(1, 9)))
def test_rows_too_many_and_too_few_explain_the_difference(done: dict[int, int], found: dict[int, int]) -> None:
    made = proof.compare(
        {n: Checksum(c, c, c, c) for n, c in done.items()}, {n: Checksum(c, c, c, c) for n, c in found.items()}
    )
    assert made.rows - made.deleted == sum(made.extra.values()) - sum(made.missing.values())
    assert made.whole is (done == found)


def test_what_is_said_tells_more_from_fewer() -> None:
    (fewer,) = Standing(3, 5, missing={1: 2}).problems(PLAN)
    assert fewer.startswith(
        "2 purged rows are missing from lake.shop.t, by chunk {1: 2}: if a snapshot was rolled back, roll it forward before"
    )
    assert GONE in fewer
    (more,) = Standing(7, 5, extra={1: 2}).problems(PLAN)
    assert (
        "holds 7 rows of it, MySQL deleted 5, too many by chunk {1: 2}: no row is lost; find who else writes to the table"
        in more
    )
    assert "accept_loss" not in more
    both = Standing(5, 5, extra={0: 1}, missing={1: 1}).problems(PLAN)
    assert len(both) == 2
    assert "no row is lost" not in both[0]
    (file,) = Standing(0, 5, broken=(Broken("s3://b/k", "cannot be read", alone=True, chunk_no=1),)).problems(PLAN)
    assert file == f"file s3://b/k of chunk 1 cannot be read: restore the object; {GONE}"


def test_a_broken_file_alone_is_not_what_a_person_may_accept() -> None:
    made = replace(Standing(3, 5, missing={1: 2}), broken=(Broken("s3://b/k", "is gone", alone=True),))
    assert not made.lossy
    assert str(made.broken[0]) == "file s3://b/k is gone"


def test_the_purge_reads_child_rows_as_they_are_now() -> None:
    table = Table("a)b", "t`x", "InnoDB", 0, 0, 0, 0, 0, (), ())
    keys = [
        ForeignKey("f", "c)", "d", ("a", "b)"), ("p", "q"), "RESTRICT"),
        ForeignKey("g", "c", "d", ("a",), ("p",), "RESTRICT"),
    ]
    written = [preflight.referenced(table, key) for key in keys]
    locked = preflight.locking("x = 1" + "".join(f" AND NOT {text}" for text in written))
    assert locked == "x = 1" + "".join(f" AND NOT {text[:-1]} LOCK IN SHARE MODE)" for text in written)
    assert preflight.locking("note = 'EXISTS (SELECT 1 FROM t)'") == "note = 'EXISTS (SELECT 1 FROM t)'"
