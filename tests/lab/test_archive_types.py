"""Every MySQL column type and its edge values: archived, purged and restored on both servers, compared without the product's own code.

The comparison reads ``SELECT *`` of a copy kept aside and of the restored table with ``character_set_results = NULL``: the server then
sends the bytes of each cell as it stores them, in the column's own character set.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import MySQLdb
import pytest

from dbops.archive import restore, steps
from dbops.sql import ident, ident_trino
from lab import config
from tests.lab import archive_kit
from tests.lab.archive_kit import Bench

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Typed:
    """One column of the table of all types: its definition, and edge values as SQL."""

    name: str
    ddl: str
    edges: Sequence[str] = ()
    null: bool = True
    versions: tuple[str, ...] = ("mysql57", "mysql80")
    lossy: bool = False


def _quoted(*texts: str) -> list[str]:
    return [f"'{text}'" for text in texts]


def _hex(introducer: str, *values: bytes) -> list[str]:
    return [f"{introducer} X'{value.hex()}'" for value in values]


def _integers() -> Iterator[Typed]:
    for kind, bits in (("TINYINT", 8), ("SMALLINT", 16), ("MEDIUMINT", 24), ("INT", 32), ("BIGINT", 64)):
        low, high, top = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 2**bits - 1
        name = kind.lower()
        yield Typed(f"c_{name}", kind, [str(low), str(high), "0", "-1"])
        yield Typed(f"c_{name}_unsigned", f"{kind} UNSIGNED", ["0", str(top), str(high + 1)])
        yield Typed(f"c_{name}_zerofill", f"{kind}(6) UNSIGNED ZEROFILL", ["0", "42", str(top)])
    yield Typed("c_bool", "BOOL", ["TRUE", "FALSE"])


def _numbers() -> Iterator[Typed]:
    for width in (1, 7, 8, 33, 63, 64):
        yield Typed(f"c_bit{width}", f"BIT({width})", ["b'0'", f"b'{'1' * width}'", "b'1'", f"b'1{'0' * (width - 1)}'"])
    yield Typed("c_year", "YEAR", ["'0000'", "1901", "2155", "1970", "2000"])
    nines = "9" * 65
    yield Typed(
        "c_dec65_30",
        "DECIMAL(65,30)",
        [f"{nines[:35]}.{nines[:30]}", f"-{nines[:35]}.{nines[:30]}", "0", "1e-30", "-0.5"],
    )
    for scale in (0, 1, 10, 30):
        whole = nines[: 38 - scale]
        most = f"{whole}.{nines[:scale]}" if scale else whole
        yield Typed(f"c_dec38_{scale}", f"DECIMAL(38,{scale})", [most, f"-{most}", "0", f"{10**-scale:.30f}", "-7"])
    yield Typed("c_dec39_0", "DECIMAL(39,0)", [nines[:39], f"-{nines[:39]}", "0"])
    yield Typed("c_dec30_30", "DECIMAL(30,30)", [f"0.{nines[:30]}", f"-0.{nines[:30]}", "0", "1e-30"])
    yield Typed("c_dec_default", "DECIMAL", ["9999999999", "-9999999999"])
    yield Typed("c_dec_zerofill", "DECIMAL(12,3) ZEROFILL", ["0", "42.5", "999999999.999"])
    yield Typed("c_dec_unsigned", "DECIMAL(10,2) UNSIGNED", ["0", "99999999.99"])
    yield Typed("c_dec65_zerofill", "DECIMAL(65,2) ZEROFILL", ["0", "42.5", f"{nines[:63]}.99"])
    doubles = [
        "0e0", "-0e0", "1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "0.1e0", "1e23",
        "9007199254740993e0", "1.0000000000000002e0", "123456789.123456789e0",
    ]  # fmt: skip
    # The parser of MySQL reads denormals as 0; arithmetic does not.
    denormals = ["2.2250738585072014e-308 / 2", "-2.2250738585072014e-308 / 4503599627370496"]
    yield Typed("c_double", "DOUBLE", [*doubles, *denormals])
    yield Typed("c_real", "REAL", ["-1e0", "3.14e0"])
    yield Typed("c_double_zerofill", "DOUBLE ZEROFILL", ["0", "42.5", "1e100"])
    yield Typed("c_double_ms", "DOUBLE(10,3)", ["1234567.891", "-0.001"])
    yield Typed(
        "c_float",
        "FLOAT",
        ["0e0", "-0e0", "3.4028234663852886e38", "-3.4028234663852886e38", "1.1754943508222875e-38", "1e-45", "0.1", "16777216",
         "16777215", "1.2345678", "1.17549e-40"],
    )  # fmt: skip
    yield Typed("c_float_zerofill", "FLOAT ZEROFILL", ["0", "42.5"])
    yield Typed("c_float_ms", "FLOAT(7,2)", ["12345.67", "-0.01"])


def _times() -> Iterator[Typed]:
    yield Typed(
        "c_date", "DATE",
        _quoted("0001-01-01", "9999-12-31", "1582-10-04", "1582-10-05", "1582-10-10", "1582-10-15", "1970-01-01", "1900-02-28",
                "2000-02-29", "0004-02-29"),
    )  # fmt: skip
    for digits in range(7):
        fraction = f".{'9' * digits}" if digits else ""
        kind = f"({digits})"
        yield Typed(
            f"c_datetime{digits}", f"DATETIME{kind}",
            _quoted("0001-01-01 00:00:00", f"9999-12-31 23:59:59{fraction}", f"1582-10-10 12:34:56{fraction}",
                    f"1969-12-31 23:59:59{fraction}", f"2024-02-29 00:00:00{fraction}"),
        )  # fmt: skip
        yield Typed(
            f"c_timestamp{digits}", f"TIMESTAMP{kind} NULL",
            _quoted("1970-01-01 00:00:01", f"2038-01-19 03:14:07{fraction}", f"2024-03-31 02:30:00{fraction}",
                    f"2024-10-27 02:30:00{fraction}"),
        )  # fmt: skip
        yield Typed(
            f"c_time{digits}", f"TIME{kind}",
            _quoted("-838:59:59", "838:59:59", f"-838:59:58{fraction}", f"838:59:58{fraction}", "00:00:00", f"-00:00:00{fraction}",
                    f"23:59:59{fraction}", "24:00:00"),
        )  # fmt: skip
    yield Typed("n_timestamp", "TIMESTAMP(6) NOT NULL", _quoted("2024-01-01 00:00:00.000001"), null=False)


NASTY = [
    "", " ", "trailing   ", "  leading", "it's", 'say "x"', "a|b", "N", "|", "line\nbreak", "cr\r\n", "tab\t", "nul\0mid",
    "back\\slash", "\\N",
    "\\", "%s %d %", "emoji 🚲💩", "é vs e\u0301", "ÅÄÖ ß", "日本語", "\U0010ffff", "\ufeffbom", "a" * 40, "0", "NULL", "\x1a", "\x7f\x01",
    ",", '"', '""', "''", "{{ x }}", ":name", "-- c", "/* c */",
]  # fmt: skip


def _texts() -> Iterator[Typed]:
    nasty = _hex("_utf8mb4", *(text.encode() for text in NASTY))
    for name, kind in (("c_char", "CHAR(40)"), ("c_varchar", "VARCHAR(40)"), ("c_wide_varchar", "VARCHAR(300)"),
                       ("c_tinytext", "TINYTEXT"), ("c_text", "TEXT"), ("c_mediumtext", "MEDIUMTEXT"), ("c_longtext",
                       "LONGTEXT")):  # fmt: skip
        yield Typed(name, f"{kind} CHARACTER SET utf8mb4", nasty)
    yield Typed("c_ci", "VARCHAR(40) COLLATE utf8mb4_unicode_ci", _quoted("straße", "STRASSE", "Á", "a ", "A"))
    yield Typed("c_bin", "VARCHAR(40) COLLATE utf8mb4_bin", nasty)
    every_byte = bytes(range(256))
    latin1 = [every_byte[i : i + 32] for i in range(0, 256, 32)]
    yield Typed("c_latin1", "VARCHAR(40) CHARACTER SET latin1", _hex("_latin1", *latin1, b"x  "))
    yield Typed("c_latin1_text", "TEXT CHARACTER SET latin1", _hex("_latin1", every_byte))
    yield Typed("c_latin1_char", "CHAR(40) CHARACTER SET latin1 COLLATE latin1_german2_ci", _hex("_latin1", *latin1))
    yield Typed("c_ascii", "VARCHAR(130) CHARACTER SET ascii", _hex("_ascii", every_byte[:128], b""))
    for charset, codec in (
        ("utf8", "utf-8"),
        ("ucs2", "utf-16-be"),
        ("utf16", "utf-16-be"),
        ("utf16le", "utf-16-le"),
        ("utf32", "utf-32-be"),
    ):
        texts = [t for t in NASTY if charset not in ("utf8", "ucs2") or all(ord(c) < 0x10000 for c in t)]
        yield Typed(
            f"c_{charset}",
            f"VARCHAR(40) CHARACTER SET {charset}",
            _hex(f"_{charset}", *(t.encode(codec) for t in texts)),
        )
    yield Typed("c_cp1251", "VARCHAR(40) CHARACTER SET cp1251", _hex("_cp1251", "Привет, мир".encode("cp1251"), b""))
    yield Typed("c_sjis", "VARCHAR(40) CHARACTER SET sjis", _hex("_sjis", "日本".encode("shift_jis"), b"\xb1\xb2"))
    yield Typed("c_gbk", "VARCHAR(40) CHARACTER SET gbk", _hex("_gbk", "中文".encode("gbk"), b"\xa2\xe3"), lossy=True)
    yield Typed("c_gbk_text", "TEXT CHARACTER SET gbk", _hex("_gbk", b"\xa2\xe3", b""), lossy=True)
    yield Typed("c_binary_charset", "VARCHAR(40) CHARACTER SET binary", _hex("", every_byte[:40], b"a  "))
    yield Typed("c_enum", "ENUM('small','LARGE','é | N','it''s')", ["'small'", "'LARGE'", "3", "4", "0"])
    yield Typed("c_enum_latin1", "ENUM('ä','ö') CHARACTER SET latin1", ["1", "2"])
    members = ",".join(f"'m{i}'" for i in range(64))
    yield Typed("c_set", f"SET({members})", ["''", "'m0'", "'m63'", "18446744073709551615", "5"])
    yield Typed("n_varchar", "VARCHAR(40) NOT NULL", _quoted("", "N", " "), null=False)


def _bytes() -> Iterator[Typed]:
    edges = [b"", b"\0", b"\0\0", b"a\0\0", b"\xff\xfe", b"a  ", b"|N|", b"'\"\\", bytes(range(40))]
    yield Typed("c_binary", "BINARY(40)", _hex("", *edges))
    yield Typed("c_binary1", "BINARY", _hex("", b"\0", b"\xff"))
    yield Typed("c_varbinary", "VARBINARY(40)", _hex("", *edges))
    yield Typed("c_wide_varbinary", "VARBINARY(1025)", [*_hex("", *edges), "REPEAT(X'00ff', 512)"])
    for kind in ("TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB"):
        yield Typed(f"c_{kind.lower()}", kind, _hex("", *edges, bytes(range(255))))
    yield Typed("c_big_blob", "LONGBLOB", ["REPEAT(X'00ff0a7c', 100000)", "X''"])
    yield Typed("c_big_text", "LONGTEXT", ["REPEAT('é|N\\n', 60000)", "''"])
    yield Typed("n_blob", "BLOB NOT NULL", _hex("", b"", b"\0"), null=False)


JSONS = [
    "null", "true", "[]", "{}", '""', '"text"', "0", "-1", "18446744073709551615", "-9223372036854775808", "1.5", "-2.5e-10", "1e100",
    '{"b": 1, "a": {"nested": [1, 2, {"deep": null}]}, "longer key": "é 🚲", "": 0}', '{"ключ": "日本", "q": "\\"\\\\\\n\\u0000"}',
    '{"dup": 1, "dup": 2}', "[" * 50 + "]" * 50, '"N|"', "0.1", "123456789012345678901234567890",
]  # fmt: skip


def _rest() -> Iterator[Typed]:
    yield Typed("c_json", "JSON", [f"'{text.replace(chr(92), chr(92) * 2)}'" for text in JSONS])
    # 5.7 writes -0.0 as -0, which it reads as the integer 0: see the test of JSON without a text of its own.
    yield Typed("c_json_negative_zero", "JSON", ["'-0.0'", "'[1.0, -0.0]'"], versions=("mysql80",))
    shapes = {
        "POINT": "POINT(1.5 -2.25)",
        "LINESTRING": "LINESTRING(0 0, 1 1, 2 2)",
        "POLYGON": "POLYGON((0 0, 0 5, 5 5, 5 0, 0 0), (1 1, 1 2, 2 2, 2 1, 1 1))",
        "MULTIPOINT": "MULTIPOINT((0 0), (1 2))",
        "MULTILINESTRING": "MULTILINESTRING((0 0, 1 1), (2 2, 3 3))",
        "MULTIPOLYGON": "MULTIPOLYGON(((0 0, 0 1, 1 1, 1 0, 0 0)))",
        "GEOMETRYCOLLECTION": "GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 1 1))",
    }
    for kind, wkt in shapes.items():
        edges = [f"ST_GeomFromText('{wkt}')", f"ST_GeomFromText('{wkt}', 4326)"]
        yield Typed(f"c_{kind.lower()}", kind, edges)
    yield Typed("c_geometry", "GEOMETRY", [f"ST_GeomFromText('{wkt}', 3857)" for wkt in shapes.values()])
    yield Typed(
        "n_point_srid",
        "POINT NOT NULL SRID 4326",
        ["ST_GeomFromText('POINT(52.5 13.4)', 4326)"],
        null=False,
        versions=("mysql80",),
    )
    for name in ("with space", "UPPER", "select", "naïve_ü", "ключ", "back`quote", "per%cent", "%s", 'doub"le', "dot.ted", "semi;colon",
        "a'b",
                 "-- x", "{{ x }}", "day?", ":x", "comma,", "(paren", "slash/", "eq=al", "CamelCase", "0", "end\\"):  # fmt: skip
        yield Typed(name, "VARCHAR(8)", ["'x'", "''"])


COLUMNS = [*_integers(), *_numbers(), *_times(), *_texts(), *_bytes(), *_rest()]
GENERATED = [
    ("g_virtual", "VARCHAR(60) GENERATED ALWAYS AS (CONCAT('v|', id, `per%cent`)) VIRTUAL"),
    ("g_stored", "BIGINT GENERATED ALWAYS AS (id * 2) STORED"),
    ("g virtual %", "BIGINT AS (id + 1) VIRTUAL NOT NULL"),
    ("g_json", "VARCHAR(100) AS (JSON_UNQUOTE(JSON_EXTRACT(c_json, '$.b'))) VIRTUAL"),
]


def every_type(bench: Bench) -> list[Typed]:
    """Create the table `t` of all types with its edge rows, and `kept`, the same rows for the comparison."""
    columns = [c for c in COLUMNS if bench.server in c.versions]
    definitions = ["id INT NOT NULL", "day DATE NOT NULL"]
    definitions += [f"{ident(c.name)} {c.ddl}" for c in columns]
    definitions += [f"{ident(name)} {ddl}" for name, ddl in GENERATED]
    bench.fresh_table(f"({', '.join(definitions)}, PRIMARY KEY (id)) DEFAULT CHARSET utf8mb4")
    names = ", ".join(["id", "day", *(ident(c.name) for c in columns)])

    def edge(c: Typed, i: int) -> str:
        return c.edges[i % len(c.edges)]

    rows = [[edge(c, i) for c in columns] for i in range(max(len(c.edges) for c in columns))]
    rows.append(["NULL" if c.null else edge(c, 0) for c in columns])
    rows += [
        ["NULL" if j == i else edge(other, i) for j, other in enumerate(columns)]
        for i, c in enumerate(columns)
        if c.null
    ]
    for number, row in enumerate(rows, start=1):
        bench.sql(f"INSERT INTO t ({names}) VALUES ({number}, '{archive_kit.COLD}', {', '.join(row)})")
    bench.sql("ANALYZE TABLE t")  # chunks are cut by the mean row length
    bench.sql("CREATE TABLE kept LIKE t")
    bench.sql(f"INSERT INTO kept ({names}) SELECT {names} FROM t")
    return columns


def raw(
    bench: Bench, table: tuple[str, str], columns: Sequence[str], order_by: str = "id"
) -> list[tuple[bytes | None, ...]]:
    """Rows as stored bytes; FLOAT and DOUBLE also with all their digits, enums and sets also as number."""
    kinds = dict(
        bench.sql(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
            table,
        )
    )
    more = [f"{ident(c)} + 0e0" for c in columns if kinds[c] in ("float", "double")]
    more += [f"{ident(c)} + 0" for c in columns if kinds[c] in ("enum", "set")]
    conn = MySQLdb.connect(
        host=config.HOST, port=config.port(bench.server), user="root", conv={}, use_unicode=False, charset="utf8mb4",
    )  # fmt: skip
    with closing(conn), conn.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00', sql_mode = '', character_set_results = NULL")
        cursor.execute(f"SELECT {', '.join([*map(ident, columns), *more])} FROM {ident(table)} ORDER BY {order_by}")
        return list(cursor.fetchall())


def column_names(bench: Bench, table: tuple[str, str]) -> list[str]:
    return [
        name
        for (name,) in bench.sql(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
            table,
        )
    ]


EVERYTHING = restore.selection(chunks=[], column=None, low=None, high=None)


@pytest.fixture(params=["mysql_default", "mysql80"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with archive_kit.bench(request.param) as made:
        yield made


def assert_same_cells(bench: Bench, kept: tuple[str, str], other: tuple[str, str]) -> int:
    """Every cell of `other` has the stored bytes of `kept`; returns the number of rows."""
    names = column_names(bench, kept)
    assert column_names(bench, other) == names
    before, after = raw(bench, kept, names), raw(bench, other, names)
    assert len(after) == len(before)
    different = [
        f"row {b[0]!r} column {names[i] if i < len(names) else f'number {i}'}: {b[i]!r:.200} became {a[i]!r:.200}"
        for b, a in zip(before, after, strict=True)
        for i in range(len(b))
        if a[i] != b[i]
    ]
    assert not different, "\n".join(different[:30])
    return len(before)


def test_every_type_survives_archive_purge_and_restore(bench: Bench) -> None:
    columns = every_type(bench)
    kept = (bench.schema, "kept")
    total = bench.count("kept")
    assert total > len(columns), "a row with a NULL for each column"
    spec = bench.spec(
        lossy_text_as_binary=[c.name for c in columns if c.lossy], purge={"batch_rows": 40}, chunk_bytes=64 * 1024
    )
    assert assert_same_cells(bench, kept, (bench.schema, "t")) == total

    ran = archive_kit.run_all(bench.services, spec)

    assert ran.reconciled is not None
    assert ran.reconciled.problems == []
    assert ran.reconciled.refused == []
    assert ran.reconciled.closed
    assert ran.planned.chunks > 1
    assert bench.count("t") == 0
    ((plan, restored),) = steps.restore_rows(bench.services, spec, EVERYTHING, plan_id=None, suffix="all")
    assert assert_same_cells(bench, kept, restored.scratch) == total
    assert restored.equal
    assert restored.rows == total

    def body(table: tuple[str, str]) -> list[str]:
        return bench.sql(f"SHOW CREATE TABLE {ident(table)}")[0][1].split("\n")[1:]

    *definitions, options = body(kept)
    assert body(restored.scratch) == [*definitions, f"{options} COMMENT='dbops restore of {plan.plan_id}'"]
    # And the lake gives the columns back under their own names to anyone who asks in SQL.
    head = bench.trino(
        f"SELECT {', '.join(ident_trino(c.name) for c in columns)} FROM {ident_trino(plan.lake)} WHERE id = 1"
    )
    assert len(head) == 1


def test_zero_dates_as_text_and_undecodable_text_come_back(bench: Bench) -> None:
    bench.sql("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'")
    bench.fresh_table(
        "(id INT PRIMARY KEY, day DATE, d DATE, dt DATETIME(6), ts TIMESTAMP(3) NULL, g VARCHAR(9) CHARACTER SET gbk,"
        " e ENUM('中','文') CHARACTER SET gbk, b TEXT CHARACTER SET big5)"
    )
    bench.sql(
        f"INSERT INTO t VALUES (1, '{archive_kit.COLD}', '0000-00-00', '2020-00-10 01:02:03.000004', 0, _gbk X'A2E3', 2, _big5 X'A1C3'),"
        f" (2, '{archive_kit.COLD}', '2020-02-00', '0000-00-00', '2020-01-01 00:00:00.5', _gbk X'D6D0', 0, ''),"
        f" (3, '{archive_kit.COLD}', NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    bench.sql("CREATE TABLE kept LIKE t")
    bench.sql("INSERT INTO kept SELECT * FROM t")
    spec = bench.spec(zero_dates_as_text=["d", "dt", "ts"], lossy_text_as_binary=["g", "e", "b"])

    archive_kit.run_all(bench.services, spec)

    assert bench.count("t") == 0
    ((_, restored),) = steps.restore_rows(bench.services, spec, EVERYTHING, plan_id=None, suffix="all")
    assert assert_same_cells(bench, (bench.schema, "kept"), restored.scratch) == 3
    assert restored.equal


def test_json_without_a_text_of_its_own_is_kept_and_its_restore_is_reported(bench: Bench) -> None:
    """The text of a JSON decimal, and in 5.7 that of -0.0, reads back as another JSON value. The archive keeps the text."""
    bench.fresh_table("(id INT PRIMARY KEY, day DATE, j JSON)")
    bench.sql(
        f"INSERT INTO t VALUES (1, '{archive_kit.COLD}', JSON_ARRAY(CAST(1.50 AS DECIMAL(5,2)))), (2, '{archive_kit.COLD}', '-0.0')"
    )
    negative_zero = {"mysql57": "-0", "mysql80": "-0.0"}[bench.server]
    assert bench.sql("SELECT CAST(j AS CHAR) FROM t ORDER BY id") == (("[1.50]",), (negative_zero,))
    ran = archive_kit.run_all(bench.services, bench.spec())
    assert ran.planned.plan is not None
    assert bench.trino(f"SELECT j FROM {ident_trino(ran.planned.plan.lake)} ORDER BY id") == [
        ["[1.50]"],
        [negative_zero],
    ]
    for low, high, equal in (("1", "2", False), ("2", "3", bench.server == "mysql80")):
        chosen = restore.selection(chunks=[], column="id", low=low, high=high)
        ((_, restored),) = steps.restore_rows(bench.services, bench.spec(), chosen, plan_id=None, suffix="part")
        assert (restored.rows, restored.equal) == (1, equal)


@pytest.mark.parametrize(
    ("bench", "partitioning"),
    [
        *(("mysql_default", part) for part in ("month(day)", "day(at)", "hour(ts)", "identity(kind)", "identity(n)")),
        *(("mysql80", part) for part in ("year(at)", "identity(v)")),
    ],
    indirect=["bench"],
)
def test_partitioned_tables_restore_by_range(bench: Bench, partitioning: str) -> None:
    bench.fresh_table(
        "(id BIGINT UNSIGNED PRIMARY KEY, day DATE, at DATETIME(6) NOT NULL, ts TIMESTAMP(6) NOT NULL, kind ENUM('a','b') NOT NULL,"
        " n INT NOT NULL, v VARCHAR(40) NOT NULL, m DECIMAL(10,2))",
        [
            (2**63 + i, f"2025-{1 + i % 12:02}-28", f"1999-12-31 2{i % 4}:59:59.99999{i % 10}", f"2025-0{1 + i % 3}-01 0{i % 5}:00:00",
             "ab"[i % 2], i % 3, f"é|N/ beyond 16 = % {i % 2}", f"{i}.50")
            for i in range(60)
        ],
    )  # fmt: skip
    bench.sql("CREATE TABLE kept LIKE t")
    bench.sql("INSERT INTO kept SELECT * FROM t")
    spec = bench.spec(target={"namespace": bench.namespace, "partitioning": [partitioning]}, purge={"batch_rows": 7})
    ran = archive_kit.run_all(bench.services, spec)
    assert ran.reconciled is not None
    assert ran.reconciled.closed
    assert bench.count("t") == 0
    ((_, restored),) = steps.restore_rows(bench.services, spec, EVERYTHING, plan_id=None, suffix="all")
    assert assert_same_cells(bench, (bench.schema, "kept"), restored.scratch) == 60
    for column, low, high in (
        ("id", str(2**63 + 10), str(2**63 + 20)), ("day", "2025-03-01", "2025-05-28"), ("ts", "2025-01-01T04:00:00+02:00", None),
        ("at", "1999-12-31 21:00", "1999-12-31T23:59:59.999995"), ("m", "10.5", "20.51"), ("n", None, "2"),
    ):  # fmt: skip
        chosen = restore.selection(chunks=[], column=column, low=low, high=high)
        ((_, part),) = steps.restore_rows(bench.services, spec, chosen, plan_id=ran.plan_id, suffix="part")
        bounds = [
            f"{column} {sign} '{bound.replace('04:00:00+02:00', '02:00:00')}'"
            for sign, bound in ((">=", low), ("<", high))
            if bound
        ]
        wanted = bench.sql(f"SELECT id FROM kept WHERE {' AND '.join(bounds)} ORDER BY id")
        assert wanted
        assert bench.sql(f"SELECT id FROM {ident(part.scratch)} ORDER BY id") == wanted
        assert part.equal


def test_source_schema_changes_widen_the_lake_or_begin_a_generation(bench: Bench) -> None:
    bench.fresh_table(
        "(id INT PRIMARY KEY, day DATE, n INT, `dot.ted` VARCHAR(9), code VARCHAR(9), raw VARBINARY(9), gone INT)"
    )
    bench.sql(f"INSERT INTO t VALUES (1, '{archive_kit.COLD}', 7, 'x', 'c1', X'00FF', 1)")
    first = archive_kit.run_all(bench.services, bench.spec()).planned
    assert first.target is not None
    assert first.target.table == "t"

    bench.sql(
        "ALTER TABLE t MODIFY n BIGINT, MODIFY `dot.ted` TEXT, ADD COLUMN `new.col` DECIMAL(10,2), DROP COLUMN gone"
    )
    bench.sql(f"INSERT INTO t VALUES (2, '{archive_kit.COLD}', 9000000000, 'y', 'c2', X'01', 1.25)")
    second = archive_kit.run_all(bench.services, bench.spec()).planned
    assert second.target is not None
    assert (second.target.table, second.target.adds, second.target.widens) == ("t", ("new.col",), ("n",))
    assert bench.trino(f'SELECT id, n, "new.col", gone FROM lake."{bench.namespace}".t ORDER BY id') == [
        [1, 7, None, 1], [2, 9000000000, decimal.Decimal("1.25"), None],
    ]  # fmt: skip

    bench.sql("ALTER TABLE t MODIFY code INT, MODIFY raw TEXT, CHANGE n N BIGINT")
    bench.sql(f"INSERT INTO t VALUES (3, '{archive_kit.COLD}', 3, 'z', 33, 'text', 2.5)")
    ran = archive_kit.run_all(bench.services, bench.spec())
    assert ran.planned.target is not None
    assert ran.planned.target.table == "t_g2"
    assert "column code was string and is int32" in ran.planned.target.reason
    assert "column n is now written N" in ran.planned.target.reason
    assert f"view lake.{bench.namespace}.t_all shows all 2 generations" in ran.planned.notes
    view = bench.trino(
        f'SELECT id, n, "dot.ted", code, raw, "new.col", gone FROM lake."{bench.namespace}".t_all ORDER BY id'
    )
    assert view == [
        [1, 7, "x", "c1", "00FF", None, 1],
        [2, 9000000000, "y", "c2", "01", decimal.Decimal("1.25"), None],
        [3, 3, "z", "33", "text", decimal.Decimal("2.50"), None],
    ]
    # Later plans find generation 2 and keep the view up to date.
    bench.sql("ALTER TABLE t ADD COLUMN late INT")
    bench.sql(f"INSERT INTO t VALUES (4, '{archive_kit.COLD}', 4, 'z', 44, 'text', 2.5, 99)")
    again = archive_kit.run_all(bench.services, bench.spec()).planned
    assert again.target is not None
    assert (again.target.table, again.target.adds) == ("t_g2", ("late",))
    assert bench.trino(f'SELECT id, late FROM lake."{bench.namespace}".t_all ORDER BY id') == [
        [1, None],
        [2, None],
        [3, None],
        [4, 99],
    ]
    restored = steps.restore_rows(bench.services, bench.spec(), EVERYTHING, plan_id=None, suffix="all")
    assert [r.equal for _, r in restored] == [True] * 4
