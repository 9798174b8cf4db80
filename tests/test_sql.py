from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops import sql
from dbops.sql import SqlError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DBOPS_INCLUDE_DIR", str(tmp_path))
    (tmp_path / "sql" / "archive").mkdir(parents=True)
    return tmp_path / "sql" / "archive"


def test_render(folder):
    (folder / "count_rows.sql").write_text(
        "-- rows\nSELECT COUNT(*)\nFROM {{ (schema, table) | ident }}\n"
        "{% if where %}\nWHERE c = {{ where | lit }}\n{% endif %}\n"
    )
    text = sql.render("archive/count_rows", schema="car`share", table="trips", where="it's")
    assert text == "-- rows\nSELECT COUNT(*)\nFROM `car``share`.`trips`\nWHERE c = 'it\\'s'"


def test_errors_name_the_file_and_the_fix(folder):
    (folder / "needs.sql").write_text("SELECT {{ missing }}")
    (folder / "broken.sql").write_text("SELECT 1\n{% if %}")
    with pytest.raises(SqlError, match=r"needs\.sql: 'missing' is undefined; pass it to render"):
        sql.render("archive/needs")
    with pytest.raises(SqlError, match=r"broken\.sql:2: "):
        sql.render("archive/broken")
    with pytest.raises(SqlError, match=r"absent\.sql: no such SQL file"):
        sql.render("archive/absent")
    with pytest.raises(SqlError, match="no such SQL file"):
        sql.render("../../etc/passwd")


@pytest.mark.parametrize("bad", ["", "x" * 65, "a\0b", (), ("a", "")])
def test_ident_refuses_what_cannot_be_a_name(bad):
    with pytest.raises(SqlError, match="identifier"):
        sql.ident(bad)


def test_ident_does_not_split_dots():
    assert sql.ident("a.b") == "`a.b`"
    assert sql.ident_trino(("lake", 'x"y', "t")) == '"lake"."x""y"."t"'


@pytest.mark.parametrize(
    ("value", "mysql", "trino"),
    [
        (None, "NULL", "NULL"),
        (True, "TRUE", "TRUE"),
        (-7, "-7", "-7"),
        (Decimal("1E+3"), "1000", "1000"),
        ("a'b\\c\n", "'a\\'b\\\\c\\n'", "'a''b\\c\n'"),
        (b"\x00\xff", "X'00ff'", "X'00ff'"),
        (date(2024, 2, 29), "'2024-02-29'", "DATE '2024-02-29'"),
        (datetime(2024, 1, 2, 3, 4, 5, 6), "'2024-01-02 03:04:05.000006'", "TIMESTAMP '2024-01-02 03:04:05.000006'"),
        (
            datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            "'2024-01-02 01:00:00'",
            "TIMESTAMP '2024-01-02 01:00:00'",
        ),
        (datetime(2024, 1, 2, tzinfo=UTC), "'2024-01-02 00:00:00'", "TIMESTAMP '2024-01-02 00:00:00'"),
    ],
)
def test_literals(value, mysql, trino):
    assert (sql.lit(value), sql.lit_trino(value)) == (mysql, trino)


@pytest.mark.parametrize("value", [1.5, Decimal("NaN"), object(), ["a"]])
def test_values_without_an_exact_literal_are_refused(value):
    with pytest.raises(SqlError, match="has no SQL literal"):
        sql.lit(value)


def unquote_mysql(literal: str) -> str:
    """An independent reader of a MySQL string literal."""
    assert literal[0] == literal[-1] == "'"
    body, out, i = literal[1:-1], [], 0
    while i < len(body):
        assert body[i] != "'", "the literal ends early"
        if body[i] == "\\":
            i += 1
            out.append({"0": "\0", "n": "\n", "r": "\r", "Z": "\x1a"}.get(body[i], body[i]))
        else:
            out.append(body[i])
        i += 1
    return "".join(out)


@given(st.text())
def test_no_text_escapes_its_literal(text):
    assert unquote_mysql(sql.lit(text)) == text
    assert sql.lit_trino(text)[1:-1].replace("''", "'") == text
    assert "'" not in sql.lit_trino(text)[1:-1].replace("''", "")


@given(st.text(min_size=1, max_size=64).filter(lambda name: "\0" not in name))
def test_no_name_escapes_its_quotes(name):
    assert sql.ident(name)[1:-1].replace("``", "`") == name
    assert "`" not in sql.ident(name)[1:-1].replace("``", "")


@pytest.mark.lab
@pytest.mark.parametrize("conn_id", ["mysql_default", "mysql80"])
def test_mysql_reads_literals_back(conn_id):
    from dbops import connections

    values = ["it's", 'a"b', "back\\slash\\", "\0\n\r\x1a%_", "☃", b"\x00\xff'"]
    connection = connections.mysql(conn_id, raw=True)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(map(sql.lit, values))}")
        assert list(cursor.fetchone()) == [value.encode() if isinstance(value, str) else value for value in values]
