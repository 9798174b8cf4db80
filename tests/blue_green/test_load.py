"""What a specification of made-up data comes to, before a server is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbops.blue_green import load
from dbops.blue_green.spec import Data

DATA = st.builds(
    Data, gigabytes=st.floats(0.001, 50), tables=st.integers(1, 300), without_key=st.booleans(), seed=st.integers(0, 9)
)


@given(DATA)
def test_a_plan_has_the_tables_and_the_size_that_were_asked_for(data: Data) -> None:
    tables = load.plan(data)
    assert len({table.name for table in tables}) == len(tables) == data.tables
    assert [table.shape for table in tables].count("keyless") == int(data.without_key)
    size = sum(table.rows * load.BYTES_PER_ROW[table.shape] for table in tables)
    assert abs(size - data.gigabytes * load.GIGABYTE) <= 1300 * data.tables
    for table in tables:
        assert sum(map(table.rows_of, table.chunks)) == table.rows
        assert all(0 < table.rows_of(chunk) <= load.NUMBER_ROWS for chunk in table.chunks)


def test_a_spec_without_data_makes_none_and_asks_nobody() -> None:
    def connect() -> None:
        raise AssertionError("asked")

    assert load.fill(connect, Data(gigabytes=0), "shop") == load.Filled((), 0, 0, 0.0)


def test_eight_tables_have_every_shape() -> None:
    assert {table.shape for table in load.plan(Data())} == set(load.BYTES_PER_ROW)
    assert [table.shape for table in load.plan(Data(tables=1))] == ["keyless"]


def test_a_total_adds_up() -> None:
    assert load.total([load.Checksum(1, 5), load.Checksum(2, 6)]) == load.Checksum(3, 11)
