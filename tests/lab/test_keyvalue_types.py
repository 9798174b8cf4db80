"""Edge values of every type on real servers: read through mysqlclient, to an item and back, written to MySQL again, the same bytes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from dbops.keyvalue import views
from dbops.keyvalue.codec import Policy, UnknownType, codec_for
from dbops.keyvalue.items import Reject, canonical, json_dumps, json_loads
from dbops.keyvalue.stores import RedisStore
from dbops.keyvalue.views import Loaded, View
from dbops.mysql import Column, read_table
from dbops.sql import ident
from lab import mysql

pytestmark = pytest.mark.lab

NINES = "9" * 35 + "." + "9" * 30
COLUMNS: dict[str, tuple[str, list[str]]] = {
    **{
        f"{kind}{suffix}": (f"{kind}{sign}", edges)
        for kind, bits in (("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64))
        for suffix, sign, edges in (
            ("_s", "", [str(-(2 ** (bits - 1))), str(2 ** (bits - 1) - 1), "0", "-1"]),
            ("_u", " UNSIGNED", ["0", str(2**bits - 1), str(2 ** (bits - 1))]),
            ("_z", "(6) UNSIGNED ZEROFILL", ["0", "42", str(2**bits - 1)]),
        )
    },
    "dec65": ("DECIMAL(65,30)", [NINES, f"-{NINES}", "0", "1e-30", "-0.5"]),
    "dec38": ("DECIMAL(38,10)", ["9" * 28 + "." + "9" * 10, "-1.5", "0"]),
    "dec_zero": ("DECIMAL(12,3) ZEROFILL", ["0", "42.5", "999999999.999"]),
    "dbl": ("DOUBLE", ["1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "0.1e0", "1e23",
                      "9007199254740993e0", "1.0000000000000002e0", "0e0", "1e125", "1e126", "1e-130", "1e-131",
                      "2.2250738585072014e-308 / 4503599627370496"]),
    "dbl_ms": ("DOUBLE(10,3)", ["1234567.891", "-0.001"]),
    "flt": ("FLOAT", ["3.4028234663852886e38", "-3.4028234663852886e38", "1.1754943508222875e-38", "1e-45", "0.1", "16777216", "16777215",
                      "1.2345678", "1.17549e-40"]),
    "yr": ("YEAR", ["0", "1901", "2155"]),
    "bit1": ("BIT(1)", ["b'0'", "b'1'"]),
    "bit33": ("BIT(33)", ["0", "4294967296", "8589934591"]),
    "bit64": ("BIT(64)", ["0", "18446744073709551615"]),
    "d": ("DATE", ["'0000-00-00'", "'2026-00-10'", "'0001-01-01'", "'9999-12-31'", "'2000-02-29'"]),
    **{
        f"dt{p}": (f"DATETIME({p})", ["'0000-00-00 00:00:00'", "'0001-01-01 00:00:00'", f"'9999-12-31 23:59:59.{'9' * p}'"])
        for p in (0, 1, 3, 6)
    },
    **{
        f"ts{p}": (f"TIMESTAMP({p}) NULL", ["'0000-00-00 00:00:00'", "'1970-01-01 00:00:01'", f"'2038-01-19 03:14:07.{'9' * p}'"])
        for p in (0, 6)
    },
    **{
        f"tm{p}": (f"TIME({p})", ["'-838:59:59'", "'838:59:59'", f"'-00:00:00.{'9' * p}'", f"'23:59:59.{'1' * p}'", "'-12:30:00'", "'0'"])
        for p in (0, 6)
    },
    "ch": ("CHAR(10)", ["''", "'a  '", "'é 🚲'", "'|#%'"]),
    "vc": ("VARCHAR(40)", ["''", "'a  '", "'é 🚲'", "X'00'", "'O''Neil \\\\ \"q\"'"]),
    "vc_latin1": ("VARCHAR(40) CHARACTER SET latin1", ["'ÅÄÖ ß'", "''"]),
    "tx": ("TEXT", ["''", "REPEAT('é', 1000)"]),
    "bn": ("BINARY(8)", ["X''", "X'00ff'", "X'6162202000'"]),
    "vb": ("VARBINARY(40)", ["X''", "X'00ff'", "X'6162202000'"]),
    "bl": ("LONGBLOB", ["X''", "REPEAT(X'00ff0a7c', 1000)"]),
    "en": ("ENUM('small','LARGE','é','it''s')", ["0", "1", "2", "3", "4"]),
    "st": ("SET('c','a','it''s','é')", ["''", "'c'", "15", "5"]),
    "js": ("JSON", ["'null'", "'{}'", "'[]'", "'\"text\"'", "'18446744073709551615'", "'-9223372036854775808'", "'true'", "'0.1'",
                    "'{\"b\": 1, \"a\": {\"nested\": [1, {\"deep\": null}]}, \"é\": \"🚲\\\\n\"}'",
                    "CAST(CAST(0.10 AS DECIMAL(65,30)) AS JSON)"]),
    "js_text": ("JSON", [f"'{'[' * 50}{']' * 50}'", "'{\"\": 1}'", "'1e200'", "'[1.5]'"]),
}  # fmt: skip
POLICIES = {"js_text": Policy(json="text")}
POLICY = Policy(zero_dates="text", enum_error="text")


@pytest.fixture(params=["mysql57", "mysql80"])
def connection(request: pytest.FixtureRequest) -> Iterator[Any]:
    schema = f"k{uuid.uuid4().hex[:10]}"
    with closing(mysql.root_connection(request.param)) as made, made.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {schema} DEFAULT CHARACTER SET utf8mb4")
        cursor.execute(f"USE {schema}")
        cursor.execute("SET SESSION sql_mode = '', time_zone = '+00:00'")
        made.schema = schema
        try:
            yield made
        finally:
            cursor.execute(f"DROP DATABASE {schema}")


def table(connection: Any) -> View:
    """A table with a row for each edge value, and one of NULLs."""
    names = list(COLUMNS)
    definitions = ", ".join(f"{ident(name)} {ddl}" for name, (ddl, _) in COLUMNS.items())
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE t (id INT NOT NULL PRIMARY KEY, {definitions})")
        for number in range(max(len(edges) for _, edges in COLUMNS.values())):
            values = [edges[number % len(edges)] for _, edges in COLUMNS.values()]
            statement = f"INSERT INTO t (id, {', '.join(map(ident, names))}) VALUES ({number}, {', '.join(values)})"
            cursor.execute(statement)
        cursor.execute("INSERT INTO t (id) VALUES (1000)")
        cursor.execute("CREATE TABLE back LIKE t")
    described = read_table(connection, connection.schema, "t")
    assert described is not None
    return views.view(described.columns, {"pk": "ROW#{id:pad}"}, policy=POLICY, policies=POLICIES)


def rows(connection: Any, view: View, where: str = "TRUE") -> list[dict[str, Any]]:
    expressions = ", ".join(codec.select_sql for codec in view.codecs)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expressions} FROM t WHERE {where} ORDER BY id")
        return [dict(zip(view.by_name, row, strict=True)) for row in cursor.fetchall()]


@contextmanager
def bytes_of_cells(connection: Any, view: View) -> Iterator[Any]:
    """Every cell as MySQL stores it."""
    cells = ", ".join(
        f"HEX({ident(name)} + 0)" if codec.column.data_type in ("enum", "set")
        else f"{ident(name)} * 1e0" if codec.kind in ("float", "double")
        else f"HEX(CAST({ident(name)} AS CHAR))" if codec.kind in ("json", "moment", "date", "time", "integer", "decimal", "decimal_text")
        else f"HEX({ident(name)})"
        for name, codec in view.by_name.items()
    )  # fmt: skip

    def of(table: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {cells} FROM {table} ORDER BY id")
            return list(cursor.fetchall())

    yield of


def test_every_type_goes_to_an_item_and_back_to_the_same_bytes(connection: Any) -> None:
    view = table(connection)
    stores = [RedisStore(None, view, "t:", "hash"), RedisStore(None, view, "t:", "string")]
    found = rows(connection, view)
    assert len(found) == max(len(edges) for _, edges in COLUMNS.values()) + 1
    with connection.cursor() as cursor:
        for row in found:
            write = view.write(Loaded(row, 1))
            item = {**write.key, **(write.attributes or {})}
            # Through what Redis keeps, too: hash fields and JSON text.
            fields = [each if isinstance(each, bytes) else str(each).encode() for each in stores[0]._fields(item)]
            by_hash = stores[0]._of_hash(write.key, dict(zip(fields[::2], fields[1::2], strict=True)))
            by_text = stores[1]._of_text(write.key, stores[1]._text(item).encode())
            assert canonical(item) == canonical(by_hash) == canonical(by_text)
            back = view.row(by_text)
            assert canonical(view.item(back)) == canonical(item)
            holes = ", ".join(["%s"] * len(back))
            cursor.execute(f"INSERT INTO back ({', '.join(map(ident, back))}) VALUES ({holes})", list(back.values()))
    with bytes_of_cells(connection, view) as of:
        before, after = of("t"), of("back")
    wrong = [
        f"row {row[0]} {name}: {one!r:.80} became {other!r:.80}"
        for row, copy in zip(before, after, strict=True)
        for name, one, other in zip(view.by_name, row, copy, strict=True)
        if one != other and not same_json(name, one, other)
    ]
    assert not wrong, "\n".join(wrong)


def same_json(name: str, one: Any, other: Any) -> bool:
    """JSON keeps its numbers, not their texts: 0.10 as 0.1."""
    if not name.startswith("js") or one is None or other is None:
        return False
    return json_dumps(json_loads(bytes.fromhex(one))) == json_dumps(json_loads(bytes.fromhex(other)))


def test_plain_columns_would_lose_what_select_sql_keeps(connection: Any) -> None:
    """Why the select list is the codec's: as it comes, a FLOAT has six digits and a zero date is NULL."""
    table(connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT flt, flt * 1e0 FROM t WHERE flt BETWEEN 16777216 AND 16777216")
        assert cursor.fetchone() == (16777200.0, 16777216.0)
        cursor.execute("SELECT d, CAST(d AS CHAR) FROM t WHERE d = '0000-00-00' LIMIT 1")
        assert cursor.fetchone() == (None, "0000-00-00")


def test_decimals_in_json_keep_all_digits_in_the_item(connection: Any) -> None:
    """MySQL itself reads them back from text as doubles, so they go one way only."""
    column = Column("js", "json", "json", nullable=True)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT CAST(CAST({NINES} AS DECIMAL(65,30)) AS JSON)")
        ((value,),) = cursor.fetchall()
    assert codec_for(column, Policy(json="text")).encode(value) == {"S": NINES}
    with pytest.raises(Reject, match="a number that DynamoDB has not: set json to text"):
        codec_for(column).encode(value)


def test_spatial_columns_are_refused_with_what_to_select(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE places (id INT NOT NULL PRIMARY KEY, at POINT, area GEOMETRY)")
    described = read_table(connection, connection.schema, "places")
    assert described is not None
    with pytest.raises(UnknownType, match=r"at is of type point: .* select ST_AsText\(at\)"):
        views.view(described.columns, {"pk": "{id}"})


def test_keys_of_two_rows_are_two_keys_and_sort_as_mysql_sorts(connection: Any) -> None:
    """As many distinct keys as rows, and the padded number's order is MySQL's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE n (id BIGINT NOT NULL, a VARCHAR(20) COLLATE utf8mb4_bin NOT NULL, PRIMARY KEY (id, a))"
        )
        numbers = [-(2**63), 2**63 - 1, *range(-120, 120, 7)]
        pairs = [(number, text) for number in numbers for text in ("", "#", "%23", "1#2", "a ")]
        cursor.executemany("INSERT INTO n VALUES (%s, %s)", pairs)
        cursor.execute("SELECT id, a FROM n ORDER BY id")
        found = [{"id": number, "a": text} for number, text in cursor.fetchall()]
    described = read_table(connection, connection.schema, "n")
    assert described is not None
    view = views.view(described.columns, {"pk": "{a}#{id}", "sk": "{id:pad}"})
    keys = [(view.key(row)["pk"]["S"], view.key(row)["sk"]["S"]) for row in found]
    assert len({key for key, _ in keys}) == len(pairs)
    assert [key for _, key in keys] == sorted(key for _, key in keys)
