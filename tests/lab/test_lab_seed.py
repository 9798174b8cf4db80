"""The generated rows, without a server."""

from __future__ import annotations

import datetime as dt
import re
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from lab import seed
from lab.config import LabError
from lab.schema import TABLES

PERIOD = seed.Period(5000, dt.datetime(2024, 1, 1), dt.datetime(2024, 3, 1))
IDS = np.arange(1, PERIOD.rows + 1)
SOME = np.array([7, 9, 400])
GENERATORS = {
    "members": seed._members,
    "cars": seed._cars,
    "rides": partial(seed._rides, members=SOME, cars=SOME),
    "payments": partial(seed._payments, rides=[(7, PERIOD.begin, "1.25"), (9, PERIOD.end, "0.00")]),
    "positions": partial(seed._positions, cars=SOME, rides=SOME),
}


def made(table: str) -> dict[str, pa.Array]:
    return dict(GENERATORS[table](PERIOD, IDS, np.random.default_rng(1)))


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_generated(table: str) -> None:
    declared = re.findall(r"^  (\w+) +[A-Z]+", TABLES[table].split("PRIMARY KEY")[0], re.MULTILINE)
    columns = made(table)
    assert ["id", *columns] == declared
    assert {len(values) for values in columns.values()} == {PERIOD.rows}


@pytest.mark.parametrize("table", TABLES)
def test_the_same_request_gives_the_same_rows(table: str) -> None:
    assert seed._tsv(made(table)) == seed._tsv(made(table))


@pytest.mark.parametrize("table", TABLES)
def test_only_nullable_columns_hold_null(table: str) -> None:
    for name, values in made(table).items():
        nullable = re.search(rf"^  {name} .*(?<!NOT) NULL", TABLES[table], re.MULTILINE) is not None
        assert (values.null_count > 0) == nullable, name


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_times_stay_inside_of_the_period_and_are_not_sorted(unit: str) -> None:
    period = seed.Period(100_000, dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2))
    times = seed._times(np.random.default_rng(1), period, unit).to_numpy()
    assert times.min() >= np.datetime64(period.begin)
    assert times.max() < np.datetime64(period.end)
    assert (np.diff(times) < np.timedelta64(0)).any()
    assert times[:1000].max() < times[-1000:].min()


def test_ids_rise_with_gaps() -> None:
    gaps = seed._gaps(np.random.default_rng(1), 10_000)
    assert gaps.min() == 1
    assert 0 < (gaps > 1).mean() < 0.05


def test_tsv_escapes_what_load_data_reads() -> None:
    columns = {
        "a": pa.array(["C:\\x\ty\nz", None, "", "\\N"]),
        "b": pa.array([1, None, 3, 4]),
        "c": pa.array([dt.datetime(2024, 1, 2, 3, 4, 5, 6000)] * 4, pa.timestamp("ms")),
    }
    assert seed._tsv(columns).decode().split("\n") == [
        "C:\\\\x\\ty\\nz\t1\t2024-01-02 03:04:05.006",
        "\\N\t\\N\t2024-01-02 03:04:05.006",
        "\t3\t2024-01-02 03:04:05.006",
        "\\\\N\t4\t2024-01-02 03:04:05.006",
        "",
    ]


def test_decimals_keep_their_scale() -> None:
    assert seed._decimal(np.array([-70.669, 1e-7, 0.1 + 0.2]), 6).to_pylist() == ["-70.669000", "0.000000", "0.300000"]


@pytest.mark.parametrize(("rows", "hot"), [(0, None), (-1, None), (10, -1)])
def test_impossible_numbers_of_rows_are_refused(rows: int, hot: int | None) -> None:
    with pytest.raises(LabError, match=rf"--rows {rows} --hot-rows {hot}"):
        seed.seed("mysql57", rows, hot)
