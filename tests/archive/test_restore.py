"""Selections, scratch tables and values of a restore; whole restores are lab tests."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, In, LessThan

from dbops.archive import codec, restore
from dbops.archive.checksum import Checksum
from dbops.archive.ledger import Batch, Plan
from dbops.archive.restore import Restored, RestoreError, Selection
from dbops.mysql import Column

AT = datetime(2026, 1, 2, tzinfo=UTC)
KINDS = {
    "id": Column("id", "bigint", "bigint(20) unsigned", nullable=False), "n": Column("n", "int", "int(11)", nullable=True),
    "Day": Column("Day", "date", "date", nullable=True), "at": Column("at", "datetime", "datetime(6)", nullable=True),
    "ts": Column("ts", "timestamp", "timestamp(6)", nullable=True), "v": Column("v", "varchar", "varchar(9)", nullable=True, max_octets=36),
    "m": Column("m", "decimal", "decimal(10,2)", nullable=True, numeric_precision=10, numeric_scale=2),
    "d": Column("d", "double", "double", nullable=True),
}  # fmt: skip
PLAN = Plan(
    "p'1",
    "t",
    "s.t",
    "done",
    "r",
    "u",
    AT,
    "TRUE",
    tuple(map(codec.codec_for, KINDS.values())),
    "",
    "lake.s.t",
    0,
    1,
    0,
    "run",
    AT,
)
MINE = "\"_archive_plan\" = 'p''1'"


def chosen(
    column: str | None = None, low: str | None = None, high: str | None = None, chunks: tuple[int, ...] = ()
) -> tuple[str, Any]:
    return restore.conditions(PLAN, restore.selection(chunks=chunks, column=column, low=low, high=high))


def test_everything_and_chunks() -> None:
    assert chosen() == (MINE, EqualTo("_archive_plan", "p'1"))
    text, expression = chosen(chunks=(3, 5))
    assert text == f'{MINE} AND "_archive_chunk" IN (3, 5)'
    assert expression == And(EqualTo("_archive_plan", "p'1"), In("_archive_chunk", {3, 5}))


@pytest.mark.parametrize(
    ("column", "low", "high", "text", "values"),
    [
        ("n", "-5", "7", '"n" >= -5 AND "n" < 7', (-5, 7)),
        ("ID", "18446744073709551615", None, "\"id\" >= DECIMAL '18446744073709551615'", (Decimal(2**64 - 1),)),
        ("m", "1", "2.5", "\"m\" >= DECIMAL '1.00' AND \"m\" < DECIMAL '2.50'", (Decimal("1.00"), Decimal("2.50"))),
        ("m", "1e3", None, "\"m\" >= DECIMAL '1000.00'", (Decimal("1000.00"),)),
        ("day", "2025-01-01", None, "\"Day\" >= DATE '2025-01-01'", ("2025-01-01",)),
        ("at", None, "2025-01-01T10:00", "\"at\" < TIMESTAMP '2025-01-01 10:00:00.000000'", ("2025-01-01T10:00:00.000000",)),
        ("ts", "2025-01-01", None, "\"ts\" >= TIMESTAMP '2025-01-01 00:00:00.000000 UTC'", ("2025-01-01T00:00:00.000000+00:00",)),
        ("ts", "2025-01-01T01:00:00+02:00", None, "\"ts\" >= TIMESTAMP '2024-12-31 23:00:00.000000 UTC'",
        ("2024-12-31T23:00:00.000000+00:00",)),
    ],
)  # fmt: skip
def test_ranges_are_the_same_in_trino_and_in_pyiceberg(
    column: str, low: str | None, high: str | None, text: str, values: tuple[Any, ...]
) -> None:
    found, expression = chosen(column, low, high)
    assert found == f"{MINE} AND {text}"
    name = next(c for c in KINDS if c.lower() == column.lower())
    terms = [
        t(name, v) for t, v in zip([GreaterThanOrEqual] * bool(low) + [LessThan] * bool(high), values, strict=True)
    ]
    assert expression == And(EqualTo("_archive_plan", "p'1"), *terms)


@pytest.mark.parametrize(
    ("column", "kind"),
    [("v", "string"), ("d", "float64"), ("gone", "not a column of the archive"), ("_archive_at", "not a column")],
)
def test_columns_that_do_not_compare_alike_on_both_sides(column: str, kind: str) -> None:
    with pytest.raises(RestoreError, match=f"column {column!r} is {kind}.*select by chunks instead"):
        chosen(column, "1")


@pytest.mark.parametrize(
    ("column", "value"),
    [("n", "x"), ("n", "1.5"), ("m", "1.005"), ("m", "NaN"), ("m", "Infinity"), ("m", "abc"), ("day", "31.12.2025"), ("day", "2025-02-30"),
     ("at", "soon"), ("day", "2025-01-01T12:00"), ("day", "2025-01-01T00:00+02:00"), ("at", "2025-01-01T00:00:00Z")],
)  # fmt: skip
def test_bounds_that_are_no_values_of_the_column(column: str, value: str) -> None:
    with pytest.raises(RestoreError, match="is not a value of column"):
        chosen(column, value)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"chunks": [1], "column": "n", "low": "1"}, "give chunks or a column range, not both"),
        ({"low": "1"}, "from and to need a column"),
        ({"high": "1"}, "from and to need a column"),
        ({"column": "n"}, "needs from, to or both"),
    ],
)  # fmt: skip
def test_selections_that_mean_nothing(form: dict[str, Any], message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        restore.selection(**{"chunks": [], "column": None, "low": None, "high": None, **form})
    assert restore.selection(chunks=[1, 2], column=None, low=None, high=None) == Selection((1, 2))


CREATED = """CREATE TABLE `we``ird` (
  `id` int(11) NOT NULL,
  `CONSTRAINT ``x`` FOREIGN KEY ` varchar(20) DEFAULT 'CONSTRAINT `a` FOREIGN KEY (b),',
  `g` int(11) GENERATED ALWAYS AS ((`id` + 1)) VIRTUAL,
  PRIMARY KEY (`id`),
  KEY `k` (`g`),
  CONSTRAINT `a` FOREIGN KEY (`id`) REFERENCES `other` (`id`) ON DELETE CASCADE,
  CONSTRAINT `b``c` FOREIGN KEY (`g`) REFERENCES `other` (`g`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='x\\n)'
/*!50100 PARTITION BY HASH (`id`)
PARTITIONS 4 */"""


def test_the_scratch_table_is_the_source_under_another_name_without_foreign_keys() -> None:
    made = restore.scratch_ddl(CREATED, ("scratch", "t_1"), "p'1")
    assert (
        made
        == """CREATE TABLE `scratch`.`t_1` (
  `id` int(11) NOT NULL,
  `CONSTRAINT ``x`` FOREIGN KEY ` varchar(20) DEFAULT 'CONSTRAINT `a` FOREIGN KEY (b),',
  `g` int(11) GENERATED ALWAYS AS ((`id` + 1)) VIRTUAL,
  PRIMARY KEY (`id`),
  KEY `k` (`g`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='x\\n)' COMMENT='dbops restore of p\\'1'
/*!50100 PARTITION BY HASH (`id`)
PARTITIONS 4 */"""
    )


def test_the_tail_of_a_scratch_tables_name_is_never_cut() -> None:
    assert restore.scratch_name("t", "_r1_1") == "t_r1_1"
    names = {restore.scratch_name("n" * 64, f"_r12345678_{number}") for number in range(12)}
    assert len(names) == 12
    assert {len(name) for name in names} == {64}
    assert "n" * 64 not in names


def test_batches_of_an_open_plan_are_selected_in_runs() -> None:
    done = [Batch(c, b, None, ("1",), Checksum()) for c, b in ((0, 0), (0, 1), (0, 3), (2, 4), (2, 5))]
    ranges = restore.batch_ranges(done)
    assert ranges == [(0, 0, 1), (0, 3, 3), (2, 4, 5)]
    text, expression = restore.conditions(PLAN, Selection(), ranges[:2])
    run = '("_archive_chunk" = 0 AND "_archive_batch" BETWEEN'
    assert text == f"{MINE} AND ({run} 0 AND 1) OR {run} 3 AND 3))"
    assert expression.left == EqualTo("_archive_plan", "p'1")
    assert restore.conditions(PLAN, Selection(), ranges[:1])[0] == f"{MINE} AND ({run} 0 AND 1))"


@pytest.mark.parametrize("text", ["CREATE VIEW `t` AS SELECT 1", "CREATE TEMPORARY TABLE `t` (", "DROP TABLE `t`", ""])
def test_a_stored_definition_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(RestoreError, match="expected CREATE TABLE"):
        restore.scratch_ddl(text, ("s", "t"), "p1")


def test_the_live_table_is_never_a_scratch_table() -> None:
    with pytest.raises(RestoreError, match=r"scratch table s\.t is the live table"):
        restore.restore(None, None, None, PLAN, ("s", "t"), Selection(), None)  # type: ignore[arg-type]


def test_values_go_to_mysql_without_loss() -> None:
    cases: list[tuple[pa.Array, list[Any]]] = [
        (pa.array([Decimal(2**64 - 1), None], pa.decimal128(20, 0)), [2**64 - 1, None]),
        (pa.array([Decimal("0.10")], pa.decimal128(4, 2)), [Decimal("0.10")]),
        (pa.array([date(1, 1, 1), None], pa.date32()), ["0001-01-01", None]),
        (pa.array([datetime(1582, 10, 10, 1, 2, 3, 4)], pa.timestamp("us")), ["1582-10-10 01:02:03.000004"]),
        (pa.array([datetime(2038, 1, 19, 3, 14, 7, 999999, UTC)], pa.timestamp("us", "UTC")), ["2038-01-19 03:14:07.999999"]),
        (pa.array(["é", None]), ["é", None]),
        (pa.array([-0.0, 5e-324]), [-0.0, 5e-324]),
        (pa.array([b"\xff\0"]), [b"\xff\0"]),
    ]  # fmt: skip
    for column, expected in cases:
        assert restore._values(column, as_hex=False) == expected
    assert restore._values(pa.array([b"\xa2\xe3", None, b""]), as_hex=True) == ["a2e3", None, ""]


@pytest.mark.parametrize(
    ("in_mysql", "in_lake", "manifest", "equal"),
    [
        (Checksum(1, 1, 1, 1), Checksum(1, 1, 1, 1), None, True), (Checksum(1, 1, 1, 1), Checksum(1, 1, 1, 1), Checksum(1, 1, 1, 1), True),
        (Checksum(1, 1, 1, 1), Checksum(1, 1, 1, 2), None, False), (Checksum(1, 1, 1, 1), Checksum(1, 1, 1, 1), Checksum(2, 2, 1, 1),
        False),
    ],
)  # fmt: skip
def test_a_restore_is_equal_only_if_all_three_agree(
    in_mysql: Checksum, in_lake: Checksum, manifest: Checksum | None, equal: bool
) -> None:
    assert Restored(("s", "t"), 1, in_mysql, in_lake, manifest, 0).equal is equal
