"""Rules that hold for all rows: three checksums agree, any change of a cell is seen, and a walk meets every row exactly once.

Trino is asked once an example, about hundreds of rows; MySQL is asked for every change.
"""

from __future__ import annotations

import itertools
import json
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import MySQLdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from dbops import keys
from dbops import mysql as facts
from dbops.archive import checksum, codec, plan, steps
from dbops.archive.checksum import Checksum
from dbops.archive.ledger import Ledger
from dbops.sql import ident, ident_trino
from lab import config
from tests.lab import archive_kit
from tests.lab.archive_kit import COLD, Bench

pytestmark = pytest.mark.lab


def bounded(examples: int) -> settings:
    """No shrinking: it would repeat whole runs against the lab for minutes; the failing example is printed all the same."""
    return settings(
        max_examples=examples,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@dataclass(frozen=True)
class Kind:
    """A column type, and values that the driver can bind."""

    ddl: str
    values: SearchStrategy[Any]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", " ", "a", "A", "a ", "á", "N", "|", "N|N", "\\", "'", "\0", "%s", "🚲", "ß", "ss", "\n"]
)
BYTES = st.binary(max_size=12) | st.sampled_from([b"", b"\0", b"a\0", b"|", b"N"])
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
TIMES = st.timedeltas(timedelta(0), timedelta(hours=23)).map(str) | st.sampled_from(
    ["-838:59:59", "-00:00:00.000001", "24:00:00"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT.filter(lambda t: "\0" not in t),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)


def _decimal(precision: int, scale: int) -> SearchStrategy[Decimal]:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-scale))


KINDS = {
    "int": Kind("INT", st.integers(-(2**31), 2**31 - 1)),
    "ubigint": Kind("BIGINT UNSIGNED", st.integers(0, 2**64 - 1)),
    "decimal": Kind("DECIMAL(18,2)", _decimal(18, 2)),
    "wide_decimal": Kind("DECIMAL(27,20)", _decimal(27, 20)),
    "double": Kind("DOUBLE", st.floats(allow_nan=False, allow_infinity=False)),
    "float": Kind("FLOAT", st.floats(allow_nan=False, allow_infinity=False, width=32)),
    "bit": Kind("BIT(10)", st.integers(0, 1023)),
    "year": Kind("YEAR", st.integers(1901, 2155) | st.just(0)),
    "date": Kind("DATE", DATES.map(date.isoformat)),
    "datetime": Kind("DATETIME(6)", st.datetimes().map(lambda d: d.isoformat(" "))),
    "timestamp": Kind("TIMESTAMP(3) NULL", st.datetimes(datetime(1971, 1, 1), datetime(2037, 1, 1)).map(lambda d: d.isoformat(" "))),
    "time": Kind("TIME(6)", TIMES),
    "varchar": Kind("VARCHAR(40)", TEXT),
    "char": Kind("CHAR(40)", TEXT),
    "ci": Kind("VARCHAR(40) COLLATE utf8mb4_unicode_ci", TEXT),
    "long_varchar": Kind("VARCHAR(500)", TEXT),
    "latin1": Kind("VARCHAR(40) CHARACTER SET latin1", st.text(st.characters(max_codepoint=255), max_size=12)),
    "text": Kind("TEXT", TEXT),
    "varbinary": Kind("VARBINARY(40)", BYTES),
    "binary": Kind("BINARY(12)", BYTES),
    "blob": Kind("BLOB", BYTES),
    "json": Kind("JSON", JSON),
    "enum": Kind("ENUM('a','A ','é')", st.integers(1, 3)),
    "set": Kind("SET('x','y','z')", st.integers(0, 7)),
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A table: kinds of its columns, some values of each, and what decides how rows are made from them."""

    kinds: tuple[str, ...]
    pools: tuple[tuple[Any, ...], ...]
    seed: int

    def rows(self, count: int) -> list[tuple[Any, ...]]:
        choose = random.Random(self.seed)
        return [
            (i, COLD, *(None if choose.random() < 0.15 else choose.choice(pool) for pool in self.pools))
            for i in range(count)
        ]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=6, max_size=14))
    pools = tuple(tuple(draw(st.lists(KINDS[kind].values, min_size=2, max_size=8))) for kind in kinds)
    return Sample(tuple(kinds), pools, draw(st.integers(0, 2**32)))


@pytest.fixture(params=["mysql_default", "mysql80"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with archive_kit.bench(request.param) as made:
        yield made


class Source:
    """One transaction on the source that is always rolled back, with values as stored bytes."""

    def __init__(self, bench: Bench, table: str) -> None:
        self.bench, self.table = bench, table
        self.conn = MySQLdb.connect(
            host=config.HOST, port=config.port(bench.server), user="root", database=bench.schema, conv={}, use_unicode=False,
            charset="utf8mb4", autocommit=False, binary_prefix=True,
        )  # fmt: skip
        self.sql("SET time_zone = '+00:00', sql_mode = '', character_set_results = NULL")
        with closing(bench.services.source()) as conn:
            described = facts.read_table(conn, bench.schema, table)
        assert described is not None
        self.described = described
        self.codecs = codec.codecs(described)
        exact = [f"{ident(c.name)} + 0e0" for c in described.columns if c.data_type in ("float", "double")]
        self.select = (
            f"SELECT {', '.join([*(ident(c.name) for c in described.columns), *exact])} FROM {ident(table)} ORDER BY id"
        )

    def sql(self, statement: str, args: Sequence[Any] | None = None) -> list[tuple[bytes | None, ...]]:
        encoders = {int: lambda v, _: str(v).encode(), float: lambda v, _: f"{v!r}e0".encode() if "e" not in repr(v) else repr(v).encode(),
                    Decimal: lambda v, _: f"{v:f}".encode(), type(None): lambda v, _: b"NULL"}  # fmt: skip
        self.conn.encoders = encoders
        with self.conn.cursor() as cursor:
            cursor.execute(statement, args)
            return list(cursor.fetchall())

    def stored(self) -> list[tuple[bytes | None, ...]]:
        return self.sql(self.select)

    def checksum(self, where: str = "TRUE") -> Checksum:
        statement = checksum.mysql_statement((self.bench.schema, self.table), codec.mysql_row_text(self.codecs), where)
        return Checksum.from_row(*(None if v is None else v.decode() for v in self.sql(statement)[0]))


def _table(bench: Bench, number: int, sample: Sample, count: int) -> str:
    columns = ", ".join(f"c{i} {KINDS[kind].ddl}" for i, kind in enumerate(sample.kinds))
    return bench.fresh_table(f"(id INT PRIMARY KEY, day DATE, {columns})", sample.rows(count), f"t{number}")


def test_checksums_of_mysql_exporter_and_trino_agree_on_random_rows(bench: Bench) -> None:
    numbers = itertools.count()

    @bounded(4)
    @given(samples())
    def check(sample: Sample) -> None:
        table = _table(bench, next(numbers), sample, 300)
        spec = bench.spec(table, purge={"batch_rows": 37})
        ran = archive_kit.run_all(bench.services, spec, purge=False)
        source = Source(bench, table)
        with closing(source.conn), closing(bench.services.source()) as conn:
            book = Ledger(conn)
            key = keys.row_key(source.described)
            batches = [b for chunk in range(ran.planned.chunks) for b in book.batches(ran.plan_id, chunk)]
            assert sum(b.source.n for b in batches) == 300
            for batch in batches:
                assert batch.state == "verified", sample
                in_mysql = source.checksum(f"{key.between(batch.lower, batch.upper)} AND {ran.planned.predicate}")
                assert in_mysql == batch.source == batch.lake, sample

    check()


def _changes(source: Source, sample: Sample) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """(what, UPDATE, values) that change one cell, or exchange two."""
    choose = random.Random(sample.seed + 1)
    for i, (kind, pool) in enumerate(zip(sample.kinds, sample.pools, strict=True)):
        c, row = f"c{i}", choose.randrange(20)
        yield f"{kind} to NULL", f"UPDATE {source.table} SET {c} = NULL WHERE id = %s", (row,)
        yield f"{kind} to another", f"UPDATE {source.table} SET {c} = %s WHERE id = %s", (choose.choice(pool), row)
        yield f"{kind} exchanged between two rows", (
            f"UPDATE {source.table} AS a INNER JOIN {source.table} AS b ON b.id = %s SET a.{c} = b.{c}, b.{c} = a.{c} WHERE a.id = %s"
        ), ((row + 1) % 20, row)  # fmt: skip
        for what, value in _nearby(kind, c):
            yield f"{kind} {what}", f"UPDATE {source.table} SET {c} = {value} WHERE id = %s", (row,)
        for j in range(i):
            if sample.kinds[j] == kind:
                yield f"{kind} exchanged between two columns", (
                    f"UPDATE {source.table} AS a INNER JOIN {source.table} AS b ON a.id = b.id"
                    f" SET a.c{j} = b.{c}, a.{c} = b.c{j} WHERE a.id = %s"
                ), (row,)  # fmt: skip


def _nearby(kind: str, c: str) -> Iterator[tuple[str, str]]:
    """Expressions for the smallest changes of a value that users have lost rows to."""
    if kind in ("varchar", "char", "ci", "long_varchar", "latin1", "text"):
        yield "with a trailing space", f"CONCAT({c}, ' ')"
        yield "in upper case", f"UPPER({c})"
        yield "empty", "''"
        yield "without its accents", f"CONVERT({c} USING ascii)"
    if kind in ("varbinary", "binary", "blob"):
        yield "with a trailing zero", f"CONCAT({c}, X'00')"
        yield "empty", "''"
    if kind in ("decimal", "wide_decimal"):
        yield "one cent", f"{c} + 0.01"
        yield "last digit", f"{c} + 1e-20"
    if kind in ("int", "bit"):
        yield "one more", f"{c} + 1"
    if kind == "ubigint":
        # Not + 1: after the largest value that is an error, whatever the SQL mode.
        yield "lowest bit", f"{c} ^ 1"
    if kind in ("datetime", "timestamp", "time"):
        yield "one microsecond", f"ADDTIME({c}, '00:00:00.000001')"
        yield "one millisecond", f"ADDTIME({c}, '00:00:00.001')"
    if kind == "date":
        yield "one day", f"{c} + INTERVAL 1 DAY"
    if kind == "json":
        yield "null in place of NULL", "'null'"
        yield "wrapped", f"JSON_ARRAY({c})"


def test_any_change_of_a_cell_changes_the_checksum(bench: Bench) -> None:
    """Exactly when the stored bytes of a row differ, so that neither a change nor an unchanged row is mistaken."""
    numbers = itertools.count()
    seen: set[str] = set()

    @bounded(15)
    @given(samples())
    def check(sample: Sample) -> None:
        table = _table(bench, next(numbers), sample, 20)
        source = Source(bench, table)
        with closing(source.conn):
            before, was = source.stored(), source.checksum()
            assert was.is_whole
            source.conn.commit()
            for what, statement, values in _changes(source, sample):
                source.sql(statement, values)
                changed = source.stored() != before
                assert (source.checksum() != was) == changed, (what, statement, values, sample)
                if changed:
                    seen.add(what)
                source.conn.rollback()
        bench.sql(f"DROP TABLE {table}")

    check()
    assert len(seen) > 40, sorted(seen)


@pytest.mark.parametrize("kind", ["double", "float"])
def test_one_ulp_changes_the_checksum(bench: Bench, kind: str) -> None:
    pack, unpack = ("<d", "<q") if kind == "double" else ("<f", "<i")
    numbers = itertools.count()

    @bounded(10)
    @given(st.lists(KINDS[kind].values.filter(lambda v: abs(v) > 1e-30 and abs(v) < 1e30), min_size=5, max_size=20))
    def check(values: list[float]) -> None:
        table = bench.fresh_table(
            f"(id INT PRIMARY KEY, v {kind.upper()})", list(enumerate(values)), f"u{next(numbers)}"
        )
        source = Source(bench, table)
        with closing(source.conn):
            was = source.checksum()
            for i, value in enumerate(values):
                (bits,) = struct.unpack(unpack, struct.pack(pack, value))
                (next_one,) = struct.unpack(pack, struct.pack(unpack, bits + 1))
                source.sql(f"UPDATE {table} SET v = %s WHERE id = %s", (next_one, i))
                assert source.checksum() != was, (value, next_one)
                source.sql(f"UPDATE {table} SET v = %s WHERE id = %s", (value, i))
                assert source.checksum() == was
        bench.sql(f"DROP TABLE {table}")

    check()


# Each batch of two rows (ids 2n and 2n + 1) gets one of these in the lake; the last says which columns of which row must be named.
LAKE_CHANGES: list[tuple[dict[int, dict[str, str]], set[tuple[int, str]]]] = [
    ({}, set()),
    ({2: {"m": "m + DECIMAL '0.01'"}}, {(2, "m")}),
    ({4: {"a": "a || ' '"}}, {(4, "a")}),
    ({6: {"a": "upper(a)"}}, {(6, "a")}),
    ({8: {"a": "''"}}, {(8, "a")}),
    ({10: {"e": "NULL"}}, {(10, "e")}),
    ({12: {"a": "b", "b": "a"}}, {(12, "a"), (12, "b")}),
    ({14: {"a": "'fifteen'"}, 15: {"a": "'fourteen'"}}, {(14, "a"), (15, "a")}),
    ({16: {"d": "DOUBLE '0.10000000000000002'"}}, {(16, "d")}),
    ({18: {"t": "t || ' '"}}, {(18, "t")}),
    ({20: {"n": "0"}}, {(20, "n")}),
    ({22: {"at": "at + INTERVAL '0.001' SECOND"}}, {(22, "at")}),
    ({24: {"x": "X'00'"}}, {(24, "x")}),
]  # fmt: skip


def test_every_change_in_the_lake_is_refused_by_row_and_column(bench: Bench) -> None:
    names = {14: "fourteen", 15: "fifteen"}
    rows = [
        (i, COLD, names.get(i, f"a{i}"), f"b{i}", "", "10.00", 0.1, f"long {i}", None, "2026-01-01 00:00:00", b"\0\0")
        for i in range(26)
    ]
    bench.fresh_table(
        "(id INT PRIMARY KEY, day DATE, a VARCHAR(20), b VARCHAR(20), e VARCHAR(20), m DECIMAL(10,2), d DOUBLE, t TEXT, n INT,"
        " at DATETIME(6), x VARBINARY(9))",
        rows,
    )
    spec = bench.spec(purge={"batch_rows": 2})
    assert not steps.check(bench.services, spec, purging=False)
    planned = steps.make_plan(bench.services, spec, archive_kit.RUN_AFTER, dry_run=False)
    assert planned.plan is not None
    span = (0, planned.chunks - 1)
    steps.export_group(bench.services, spec, planned.plan.plan_id, span)
    steps.publish_plan(bench.services, planned.plan.plan_id)
    cases: dict[str, list[str]] = {}
    for changes, _ in LAKE_CHANGES:
        for row, cells in changes.items():
            for column, value in cells.items():
                cases.setdefault(column, []).append(f"WHEN {row} THEN {value}")
    sets = ", ".join(
        f"{ident_trino(c)} = CASE id {' '.join(whens)} ELSE {ident_trino(c)} END" for c, whens in cases.items()
    )
    bench.trino(f"UPDATE {ident_trino(planned.plan.lake)} SET {sets}")

    steps.verify_group(bench.services, planned.plan.plan_id, span)

    with closing(bench.services.source()) as conn:
        book = Ledger(conn)
        states = [b.state for n in range(planned.chunks) for b in book.batches(planned.plan.plan_id, n)]
        named = {(int(r["row_key"]), r["column_name"]) for r in book.refused_rows(planned.plan.plan_id)}
    assert states == ["refused" if changes else "verified" for changes, _ in LAKE_CHANGES]
    assert named == set().union(*(expected for _, expected in LAKE_CHANGES))


KEY_KINDS = {
    "INT": st.integers(-3, 3),
    "BIGINT UNSIGNED": st.integers(2**64 - 4, 2**64 - 1) | st.integers(0, 2),
    "DECIMAL(10,2)": _decimal(3, 2),
    "SMALLINT(6) ZEROFILL": st.integers(0, 3),
    "YEAR": st.sampled_from([0, 1901, 1970, 2000, 2001, 2155]),
    "VARCHAR(10) COLLATE utf8mb4_unicode_ci": TEXT.map(lambda t: t[:10]),
    "VARCHAR(10) COLLATE utf8mb4_general_ci": st.sampled_from(["", "a", "A", "á", "b", "B ", "ß", "s", "ss", "|", "'", "\\", "🚲", "_"]),
    "VARCHAR(10) COLLATE utf8mb4_0900_ai_ci": TEXT.map(lambda t: t[:10]),
    "VARCHAR(10) COLLATE utf8mb4_bin": TEXT.map(lambda t: t[:10]),
    "VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_german2_ci": st.sampled_from(["", "ä", "ae", "AE", "af", "z", "ü", "ÿ", "ß", "ss"]),
    "CHAR(5) CHARACTER SET utf16": st.sampled_from(["", "a", "b", "é", "z"]),
    "VARBINARY(4)": st.binary(max_size=4),
    "BINARY(3)": st.binary(max_size=3),
    "DATE": st.dates(date(2024, 1, 1), date(2024, 1, 5)).map(date.isoformat) | st.sampled_from(["0001-01-01", "9999-12-31"]),
    "DATETIME(6)": st.sampled_from(["2024-01-01", "2024-01-01 00:00:00.000001", "1582-10-10", "9999-12-31 23:59:59.999999"]),
    "TIMESTAMP(3)": st.sampled_from(["1970-01-01 00:00:01", "2024-03-31 02:30:00.001", "2038-01-19 03:14:07.999"]),
    "TIME(2)": st.sampled_from(["-838:59:59", "-00:00:00.01", "00:00:00", "00:00:00.01", "24:00:00", "838:59:59"]),
}  # fmt: skip


@dataclass(frozen=True)
class Keyed:
    """A table with that key; which of two rows are cold; how it is cut."""

    kinds: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    chunk_rows: int


@st.composite
def keyed(draw: st.DrawFn) -> Keyed:
    kinds = draw(st.lists(st.sampled_from(sorted(KEY_KINDS)), min_size=1, max_size=3))
    row = st.tuples(*(KEY_KINDS[kind] for kind in kinds), st.booleans())
    rows = draw(st.lists(row, min_size=1, max_size=40))
    return Keyed(tuple(kinds), tuple(rows), draw(st.integers(1, 9)))


def test_a_walk_meets_every_cold_row_exactly_once_in_mysql_order(bench: Bench) -> None:
    numbers = itertools.count()
    hit = {"rows": 0, "kinds": set[str]()}

    @bounded(60)
    @given(keyed(), st.randoms(use_true_random=False))
    def check(made: Keyed, choose: random.Random) -> None:
        table = f"k{next(numbers)}"
        names = [f"k{i}" for i in range(len(made.kinds))]
        listed = ", ".join(names)
        columns = ", ".join(f"{name} {kind} NOT NULL" for name, kind in zip(names, made.kinds, strict=True))
        if bench.server == "mysql57":  # the default collation of 8.0 is unknown there
            columns = columns.replace("0900_ai_ci", "unicode_520_ci")
        bench.sql(f"CREATE TABLE {table} ({columns}, cold BOOL NOT NULL, PRIMARY KEY ({listed}))")
        holes = ", ".join(["%s"] * (len(names) + 1))
        with bench.root.cursor() as cursor:
            cursor.executemany(f"INSERT IGNORE INTO {table} VALUES ({holes})", made.rows)
        with (
            closing(bench.services.reader()) as reader,
            closing(bench.services.source()) as conn,
            reader.cursor() as cursor,
        ):
            described = facts.read_table(conn, bench.schema, table)
            assert described is not None
            key = keys.row_key(described)
            full = f"`{bench.schema}`.{table}"

            def fetch(where: str) -> list[keys.Key]:
                cursor.execute(f"SELECT {key.select_literals} FROM {full} WHERE {where} ORDER BY {listed}")
                return [keys.from_row(row) for row in cursor.fetchall()]

            everything, cold = fetch("TRUE"), fetch("cold")
            assert len(set(everything)) == len(everything)
            walk = plan.walk(reader, described, key, "cold", chunk_rows=made.chunk_rows)
            assert walk.rows == len(cold)
            assert [c.planned_rows for c in walk.chunks[:-1]] == [made.chunk_rows] * (len(walk.chunks) - 1)
            parts = [fetch(f"{key.between(c.lower, c.upper)} AND cold") for c in walk.chunks]
            assert [len(part) for part in parts] == [c.planned_rows for c in walk.chunks], made
            assert [k for part in parts for k in part] == cold, made
            assert [c.lower for c in walk.chunks[1:]] == [c.upper for c in walk.chunks[:-1]]
            # Any two keys bound exactly the rows between them, and a key names exactly its row.
            for _ in range(6):
                low, high = choose.randrange(len(everything)), choose.randrange(len(everything))
                assert fetch(key.between(everything[low], everything[high])) == everything[low + 1 : high + 1], (
                    made,
                    low,
                    high,
                )
                assert fetch(key.equals(everything[low])) == [everything[low]], made
            if len(everything) > 1:
                # Keys that no row has any more bound them all the same. The oracle is ORDER BY, not (a, b) > (1, 2): MySQL compares a
                # negative TIME with a fraction wrongly in a row constructor.
                at = choose.randrange(len(everything))
                gone = everything[at]
                bench.sql(f"DELETE FROM {table} WHERE {key.equals(gone)}")
                assert fetch(key.above(gone)) == everything[at + 1 :], made
                assert fetch(key.up_to(gone)) == everything[:at], made
        hit["rows"] += len(everything)
        hit["kinds"] |= set(made.kinds)
        bench.sql(f"DROP TABLE {table}")

    check()
    assert hit["rows"] > 60  # more than one a table: most tables are of several rows
    assert len(hit["kinds"]) > 10
