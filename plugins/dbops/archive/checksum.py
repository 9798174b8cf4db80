"""The order-free checksum of a set of rows, equal in MySQL 5.7, MySQL 8.0, Trino and here.

A row's hash is the MD5 of its canonical text (see :mod:`dbops.archive.codec`). A set of rows has four figures: the number of rows,
the number of hashes that are not NULL (MySQL gives NULL without an error when a row's text exceeds max_allowed_packet), the sum of
the first 60 bits of the hashes and the XOR of their last 64 bits. Sum and XOR fail in different ways: a row twice cancels in XOR but
not in the sum. Checksums of disjoint sets add up, so batches can be joined without reading them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dbops import sql

U64 = (1 << 64) - 1
_MASK30 = (1 << 30) - 1


@dataclass(frozen=True)
class Checksum:
    """Row count, count of hashes, sum of 60-bit parts (unbounded int) and XOR of 64-bit parts (unsigned) of a set of rows."""

    n: int = 0
    nh: int = 0
    s: int = 0
    x: int = 0

    def __add__(self, other: Checksum) -> Checksum:
        return Checksum(self.n + other.n, self.nh + other.nh, self.s + other.s, self.x ^ other.x)

    @property
    def is_whole(self) -> bool:
        """False when a row has no hash: such a set proves nothing."""
        return self.n == self.nh

    @classmethod
    def from_row(cls, n: object, nh: object, s: object, x: object) -> Checksum:
        """From a result row of MySQL or Trino: NULL sums of an empty set become 0, Trino's signed XOR becomes unsigned."""
        return cls(int(str(n)), int(str(nh)), int(str(s or 0)), int(str(x or 0)) & U64)


def total(parts: Iterable[Checksum]) -> Checksum:
    """The checksum of the union of disjoint sets."""
    return sum(parts, Checksum())


def of_rows(canonical: Sequence[bytes | None]) -> Checksum:
    """The checksum of rows given as canonical text; None (a row too long for the server) counts as a row without hash."""
    import numpy as np

    md5 = hashlib.md5
    hashes = b"".join([md5(row, usedforsecurity=False).digest() for row in canonical if row is not None])
    words = np.frombuffer(hashes, dtype=">u8").reshape(-1, 2)
    first60 = words[:, 0] >> np.uint64(4)
    # Two halves, because a sum of 60-bit numbers overflows 64 bits after 16 rows.
    high = int((first60 >> np.uint64(30)).sum(dtype=np.uint64))
    low = int((first60 & np.uint64(_MASK30)).sum(dtype=np.uint64))
    x = int(np.bitwise_xor.reduce(words[:, 1])) if len(words) else 0
    return Checksum(len(canonical), len(words), (high << 30) + low, x)


def mysql_statement(table: Sequence[str], row_text: str, where: str, *, lock: bool = False) -> str:
    """SQL that gives (n, nh, s, x) of the rows of `table` that meet `where`; with `lock` the rows stay locked until the commit."""
    return sql.render("archive/checksum_mysql", table=table, row_text=row_text, where=where, lock=lock)


def trino_statement(
    table: Sequence[str], row_text: str, where: str, *, snapshot_id: int | None, group_by: Sequence[str] = ()
) -> str:
    """SQL that gives (group columns..., n, nh, s, x) of an Iceberg table at one snapshot."""
    return sql.render(
        "archive/checksum_trino",
        table=table,
        row_text=row_text,
        where=where,
        snapshot_id=snapshot_id,
        group_by=list(group_by),
    )
