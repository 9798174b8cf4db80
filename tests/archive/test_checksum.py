"""The vectorised checksum against the definition written down slowly."""

from __future__ import annotations

import hashlib
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.archive import checksum
from dbops.archive.checksum import U64, Checksum

ROWS = st.lists(st.none() | st.binary(max_size=30), max_size=60)


def slow(rows: list[bytes | None]) -> Checksum:
    """Hexadecimal digits as in the SQL: the first 15 are summed, the last 16 are XORed."""
    hashes = [hashlib.md5(row, usedforsecurity=False).hexdigest() for row in rows if row is not None]
    return Checksum(
        len(rows),
        len(hashes),
        sum(int(h[:15], 16) for h in hashes),
        reduce(lambda a, b: a ^ b, (int(h[16:], 16) for h in hashes), 0),
    )


@given(ROWS)
def test_of_rows_is_the_definition(rows: list[bytes | None]) -> None:
    assert checksum.of_rows(rows) == slow(rows)


def test_a_sum_beyond_64_bits_is_exact() -> None:
    rows: list[bytes | None] = [str(i).encode() for i in range(5000)]
    found = checksum.of_rows(rows)
    assert found.s > 2**64
    assert found == slow(rows)


@given(ROWS, ROWS, ROWS)
def test_checksums_of_disjoint_sets_add_up_in_any_order(
    a: list[bytes | None], b: list[bytes | None], c: list[bytes | None]
) -> None:
    x, y, z = map(checksum.of_rows, (a, b, c))
    assert (
        x + y + z
        == x + (y + z)
        == checksum.total([z, y, x])
        == checksum.of_rows(a + b + c)
        == checksum.of_rows(c + b + a)
    )
    assert x + Checksum() == x
    assert checksum.total([]) == Checksum()


@given(ROWS.filter(lambda rows: any(r is not None for r in rows)), st.data())
def test_a_row_more_less_or_other_is_another_checksum(rows: list[bytes | None], data: st.DataObject) -> None:
    was = checksum.of_rows(rows)
    i = data.draw(st.sampled_from([i for i, r in enumerate(rows) if r is not None]))
    row = rows[i] or b""
    others = [
        rows[:i] + rows[i + 1 :],
        [*rows, row],
        [*rows, None],
        [*rows[:i], row + b" ", *rows[i + 1 :]],
        [*rows[:i], None, *rows[i + 1 :]],
    ]
    assert was not in [checksum.of_rows(other) for other in others]


def test_pairs_cancel_in_the_xor_but_not_in_the_sum() -> None:
    once, thrice = checksum.of_rows([b"a"]), checksum.of_rows([b"a", b"b", b"b"])
    assert once.x == thrice.x
    assert once.s != thrice.s


def test_a_row_without_hash_makes_the_set_prove_nothing() -> None:
    assert checksum.of_rows([b"a"]).is_whole
    assert not checksum.of_rows([b"a", None]).is_whole
    assert not (checksum.of_rows([b"a"]) + checksum.of_rows([None])).is_whole


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((0, 0, None, None), Checksum()),
        (("3", "2", "36893488147419103232", "5"), Checksum(3, 2, 2**65, 5)),
        ((1, 1, 7, -1), Checksum(1, 1, 7, U64)),
        ((1, 1, 7, -(2**63)), Checksum(1, 1, 7, 2**63)),
    ],
)  # fmt: skip
def test_rows_of_both_engines_are_read_alike(row: tuple[object, ...], expected: Checksum) -> None:
    assert Checksum.from_row(*row) == expected


def test_statements_keep_what_makes_them_right() -> None:
    plain = checksum.mysql_statement(("s", "t"), "TEXT", "id > 1")
    assert "LIMIT 18446744073709551615" in plain, "keeps MySQL from computing every MD5 twice"
    assert "FOR UPDATE" not in plain
    assert "FROM `s`.`t`" in plain
    assert "FOR UPDATE" in checksum.mysql_statement(("s", "t"), "TEXT", "id > 1", lock=True)
    trino = checksum.trino_statement(("c", "n", "t"), "TEXT", "TRUE", snapshot_id=42, group_by=["_archive_batch"])
    assert 'FROM "c"."n"."t" FOR VERSION AS OF 42' in trino
    assert 'GROUP BY "_archive_batch"' in trino
    assert "GROUP BY" not in checksum.trino_statement(("c", "n", "t"), "TEXT", "TRUE", snapshot_id=None)
