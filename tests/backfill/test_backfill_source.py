"""What of a view is refused, and how keys go from an item back to MySQL."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import source
from dbops.backfill.source import ViewError
from dbops.keyvalue.rules import document
from dbops.keyvalue.views import Loaded
from tests.backfill.source_kit import PLAIN, RIDES, TABLES, built, declared

COLUMNS = "SELECT r.id, r.version{more} FROM shop.rides AS r WHERE {{chunk}}"
DYNAMO = {"kind": "dynamodb", "table": "rides"}


def selecting(more: str) -> str:
    return COLUMNS.format(more=f", {more}")


def test_a_join_reads_the_range_by_the_driving_key_and_hides_version_and_tombstone() -> None:
    found = built(declared(RIDES, tombstone={"column": "is_deleted"}))
    assert list(found.view.by_name) == ["id", "status", "price", "member"]
    assert found.view.by_name["member"].column.nullable  # by the LEFT JOIN
    assert found.key.between(("1",), ("9",)) == "`r`.`id` > 1 AND `r`.`id` <= 9"
    statement = found.page_sql(("1",), ("9",))
    assert "shop.rides AS r FORCE INDEX (`PRIMARY`)\n" in statement
    assert "WHERE (`r`.`id` > 1 AND `r`.`id` <= 9)" in statement
    assert "`is_deleted` IS TRUE" in statement
    assert "STRAIGHT_JOIN" in statement


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT r.id FROM shop.rides r WHERE ({chunk}", "cannot be parsed"),
        (f"{PLAIN} UNION SELECT 1, 2, 3", "not one SELECT"),
        (f"{PLAIN}; SELECT 1", "not one SELECT"),
        ("UPDATE shop.rides AS r SET r.status = 1 WHERE {chunk}", "not one SELECT"),
        (f"{PLAIN} LIMIT 10", "has LIMIT"),
        (f"{PLAIN} GROUP BY r.id", "has GROUP BY"),
        (f"{PLAIN} ORDER BY r.id", "has ORDER BY"),
        (f"{PLAIN} FOR UPDATE", "has FOR UPDATE"),
        (f"{PLAIN} LOCK IN SHARE MODE", "has FOR UPDATE"),
        (PLAIN.replace("SELECT", "SELECT DISTINCT"), "has DISTINCT"),
        (PLAIN.replace("SELECT", "SELECT SQL_NO_CACHE"), "has a modifier"),
        (PLAIN.replace("SELECT", "SELECT /*+ BKA(r) */"), r"has an optimizer hint|/\*\+ is run"),
        (f"{PLAIN} /*!50700 OR TRUE */", r"/\*! is run by MySQL"),
        (f"WITH a AS (SELECT 1) {PLAIN}", "has WITH"),
        (PLAIN.replace("r.id, r.status", "r.*"), r"has \*"),
        (selecting("?"), "parameter or variable"),
        (selecting("@x AS x"), "parameter or variable"),
        (selecting("@@time_zone AS x"), "parameter or variable"),
        (selecting("NOW(6) AS at"), r"has NOW\(\)"),
        (selecting("UTC_DATE AS at"), "has UTC_DATE"),
        (selecting("CURRENT_TIMESTAMP AS at"), r"has CURRENT_TIMESTAMP\(\)"),
        (selecting("RAND() AS at"), r"has RAND\(\)"),
        (selecting("UUID() AS at"), r"has UUID\(\)"),
        (selecting("UNIX_TIMESTAMP() AS at"), r"has UNIX_TIMESTAMP\(\)"),
        (selecting("COUNT(r.id) AS n"), "has 'COUNT"),
        (selecting("JSON_ARRAYAGG(r.id) AS n"), r"has JSON_ARRAYAGG\(\)"),
        (selecting("ROW_NUMBER() OVER () AS n"), "has 'ROW_NUMBER"),
        (selecting("(SELECT MAX(p.version) FROM shop.parts AS p WHERE p.ride_id = r.id) AS n"), "has a subquery"),
        ("SELECT r.id, r.version FROM (SELECT * FROM shop.rides) AS r WHERE {chunk}", "tables by name only"),
        (f"{PLAIN} AND EXISTS (SELECT 1 FROM shop.parts)", "has a subquery"),
        (PLAIN.replace("shop.rides", "rides"), "without its schema"),
        (PLAIN.replace("AS r", "AS r FORCE INDEX (x)"), "take out what follows"),
        (RIDES.replace("LEFT JOIN", "RIGHT JOIN"), "no RIGHT"),
        (RIDES.replace("LEFT JOIN", "NATURAL JOIN"), "no RIGHT"),
        (RIDES.replace("ON m.id = r.member_id", "USING (id)"), "no RIGHT"),
        ("SELECT r.id, r.version FROM shop.members AS m JOIN shop.rides AS r ON m.id = r.id WHERE {chunk}", "view.table: .* not the first"),
        (PLAIN.replace("AS r", "AS q"), "view.table: .* not the first"),
        (selecting("x.id"), "there is no alias 'x'"),
        (selecting("shop.r.id"), "write alias.column"),
        (RIDES.replace("r.status", "status"), "without alias"),
        (selecting("r.status + 1"), "without a name"),
        (selecting("r.status AS ID"), "selects 'ID' twice"),
        ("SELECT r.id, r.version, {chunk} AS x FROM shop.rides AS r", "is not a condition of WHERE"),
        (f"{PLAIN} OR r.id = 1", "is not a condition of WHERE"),
        (PLAIN.replace("{chunk}", "NOT {chunk}"), "is not a condition of WHERE"),
        (PLAIN.replace("WHERE {chunk}", "-- WHERE {chunk}"), "is not a condition of WHERE"),
    ],
)  # fmt: skip
def test_what_breaks_a_copy_by_ranges_is_refused(sql: str, message: str) -> None:
    with pytest.raises(ViewError, match=message):
        built(declared(sql))


@pytest.mark.parametrize(
    ("sql", "more", "message"),
    [
        (selecting("r.nothing"), {}, "shop.rides AS r has no column 'nothing'"),
        (selecting("r.area"), {}, "polygon: a store has no geometry"),
        ("SELECT r.status, r.version FROM shop.rides AS r WHERE {chunk}", {}, "does not select r.id of the key PRIMARY"),
        ("SELECT r.id + 0 AS id, r.version FROM shop.rides AS r WHERE {chunk}", {}, "does not select r.id of the key PRIMARY"),
        ("SELECT r.id, r.status FROM shop.rides AS r WHERE {chunk}", {}, "version.column: 'version' is not selected"),
        ("SELECT r.id, r.loose_version AS version FROM shop.rides AS r WHERE {chunk}", {}, "version.column: 'version' may be NULL"),
        ("SELECT r.id, ABS(r.version) AS version FROM shop.rides AS r WHERE {chunk}", {}, "version.column: 'version' may be NULL"),
        ("SELECT r.id, 1 AS version FROM shop.rides AS r WHERE {chunk}", {}, "has no version of r"),
        ("SELECT r.id, r.updated_at AS version FROM shop.rides AS r WHERE {chunk}", {}, r"timestamp\(6\), and version.kind int needs"),
        ("SELECT r.id, r.price AS version FROM shop.rides AS r WHERE {chunk}", {}, "may be NULL"),
        (PLAIN, {"version": {"kind": "text", "widths": [20]}}, "version.kind text needs"),
        (RIDES, {"version": {"scope": "row"}}, "version.scope: is 'row', and the view joins tables"),
        (RIDES.replace("COALESCE(m.version, 0)", "m.version"), {}, "version.column: 'version' may be NULL"),
        (RIDES.replace("GREATEST(r.version, COALESCE(m.version, 0))", "r.version"), {}, "has no version of m"),
        (RIDES.replace("GREATEST", "LEAST"), {}, "has no version of r, m"),
        (RIDES.replace("GREATEST(r.version, COALESCE(m.version, 0))", "r.version + COALESCE(m.version, 0)"), {}, "has no version of r, m"),
        (selecting("r.price * 2 AS double_price"), {}, "view.types: 'double_price' is no plain column"),
        (PLAIN, {"view": {"types": {"status": "text"}}}, "view.types: 'status' is a plain column"),
        (PLAIN, {"view": {"types": {"nothing": "text"}}}, "view.types: 'nothing' is no column of view.sql"),
        (PLAIN, {"view": {"policies": {"nothing": {}}}}, "view.policies: 'nothing' is no column of view.sql"),
        (selecting("r.id * 2 AS x"), {"view": {"types": {"x": "uuid"}}}, "x is of type uuid, which has no exact form"),
        (selecting("r.status AS _v"), {}, "columns _v have the names of attributes of the rules"),
        (PLAIN, {"target": {**DYNAMO, "key": {"pk": "RIDE#{status}"}}}, r"target.key: RIDE#{status} has no {id}"),
        (PLAIN, {"target": {**DYNAMO, "key": {"pk": "RIDE#{nothing}"}}}, "target.key: .* there is no column 'nothing'"),
        (PLAIN, {"target": {**DYNAMO, "key": {"pk": "{version}#{id}"}}}, "target.key: .* there is no column 'version'"),
        (PLAIN, {"tombstone": {"column": "nothing"}}, "tombstone.column: 'nothing' is not selected"),
        (PLAIN, {"tombstone": {"column": "version"}}, "tombstone.column: 'version' is the version"),
        (PLAIN, {"tombstone": {"column": "status"}}, "tombstone.column: 'status' is enum"),
        (PLAIN, {"cold": {"where": "r.nothing < 1"}}, "cold.where: shop.rides has no column 'nothing'"),
        (PLAIN, {"cold": {"where": "id < 1"}}, "cold.where: id: write r.id"),
        (PLAIN, {"cold": {"where": "r.id < 1) OR (r.id > 5"}}, "more than one expression"),
        (PLAIN, {"cold": {"where": "r.id IN (SELECT 1)"}}, "more than one expression"),
        (PLAIN, {"cold": {"where": "r.id < @x"}}, "variable or parameter"),
        (PLAIN, {"cold": {"where": "r.id <"}}, "is no SQL expression"),
        (PLAIN, {"cold": {"where": "r.id < 1 /*!80000 OR TRUE */"}}, "is run by MySQL"),
    ],
)  # fmt: skip
def test_what_could_give_a_row_another_version_or_key_is_refused(sql: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ViewError, match=message):
        built(declared(sql, **more))


@pytest.mark.parametrize(
    "sql",
    [
        PLAIN + ";",
        PLAIN + " -- the end",
        selecting("r.note COLLATE utf8mb4_bin AS note"),
        selecting("TIMESTAMPDIFF(SECOND, r.updated_at, r.updated_at) AS note"),
        selecting("UNIX_TIMESTAMP(r.updated_at) AS note"),
        selecting("CONVERT(r.note USING utf8mb4) AS note"),
        selecting("CASE r.status WHEN 'booked' THEN 1 ELSE 0 END AS note"),
        selecting("IF(r.price > 5, 'a', \"b\") AS note"),
        PLAIN.replace("{chunk}", "r.status <> 'now()' AND {chunk} AND (r.id > 1 OR r.id < 0)"),
        "SELECT id, version FROM shop.rides AS r WHERE {chunk}",
        "SELECT r.id, CAST(UNIX_TIMESTAMP(r.updated_at) * 1000000 AS UNSIGNED) AS version FROM shop.rides AS r WHERE {chunk}",
        RIDES.replace("LEFT JOIN", "JOIN"),
    ],
)  # fmt: skip
def test_good_views_are_taken(sql: str) -> None:
    types = {"note": "varchar(200)"} if "AS note" in sql else {}
    found = built(declared(sql, view={"types": types}))
    assert "FORCE INDEX (`PRIMARY`)" in found.page_sql(None, ("5",))


def test_a_view_tells_whether_it_leaves_rows_out() -> None:
    assert not built(declared(PLAIN)).query.has_filter
    assert not built(declared(RIDES)).query.has_filter
    assert built(declared(RIDES.replace("LEFT JOIN", "JOIN"))).query.has_filter
    assert built(declared(PLAIN + " AND r.id > 7")).query.has_filter


def test_cold_rows_are_a_condition_of_pages_only_when_only_they_are_copied() -> None:
    only, first = ({"where": "r.version < 5 -- old", "only": only} for only in (True, False))
    assert "AND (r.version < 5 -- old\n)" in built(declared(cold=only)).page_sql(None, ("5",))
    assert "r.version < 5" not in built(declared(cold=first)).page_sql(None, ("5",))
    assert source.walk_sql(built(declared(cold=only)), None, 10).nth_key.count("r.version < 5 -- old\n") == 1


PARTS = "SELECT p.ride_id, p.code AS part, p.version FROM shop.parts AS p WHERE {chunk}"


def parts(**more: Any) -> source.Source:
    target = {**DYNAMO, "key": {"pk": "RIDE#{ride_id}", "sk": "PART#{part}"}}
    return built(declared(PARTS, view={"table": "shop.parts", "alias": "p"}, target=target, **more))


@given(
    ride_id=st.integers(0, 2**64 - 1),
    part=st.text(st.characters(exclude_categories=["C"], max_codepoint=255), min_size=1, max_size=10),
)
def test_the_driving_key_of_row_item_and_tombstone_is_one(ride_id: int, part: str) -> None:
    found = parts()
    row = {"ride_id": ride_id, "part": part}
    live = document(found.view.write(Loaded(row, 1)), found.names)
    gone = document(found.view.tombstone(row, 1), found.names)
    expected = (str(ride_id), f"_latin1 X'{part.encode('cp1252').hex().upper()}'") if is_cp1252(part) else None
    keys = [found.driving_key(None, each) for each in (row, live, gone)]
    assert keys[0] == keys[1] == keys[2]
    if expected:
        assert keys[0] == expected


def is_cp1252(text: str) -> bool:
    try:
        return bool(text.encode("cp1252"))
    except UnicodeError:
        return False


@pytest.mark.parametrize(
    "item",
    [
        {"pk": {"S": "RIDE#1"}, "sk": {"S": "PAYMENT#1"}},
        {"pk": {"S": "RIDE#01"}, "sk": {"S": "PART#a"}},
        {"pk": {"S": "RIDE#-1"}, "sk": {"S": "PART#a"}},
        {"pk": {"S": "RIDE#99999999999999999999999"}, "sk": {"S": "PART#a"}},
        {"pk": {"S": "RIDE#1"}, "sk": {"S": "PART#漢"}},
        {"pk": {"N": "1"}, "sk": {"S": "PART#a"}},
    ],
    ids=["other", "zero", "negative", "large", "charset", "number"],
)
def test_an_item_of_no_row_has_no_driving_key(item: dict[str, Any]) -> None:
    assert parts().driving_key(None, item) is None


def test_the_two_parts_of_a_key_have_to_name_one_row() -> None:
    target = {**DYNAMO, "key": {"pk": "{id}", "sk": "RIDE#{id:pad}"}}
    found = built(declared(target=target))
    assert found.driving_key(None, {"pk": {"N": "7"}, "sk": {"S": f"RIDE#{7:020d}"}}) == ("7",)
    assert found.driving_key(None, {"pk": {"N": "8"}, "sk": {"S": f"RIDE#{7:020d}"}}) is None


def test_tables_of_the_kit_are_whole() -> None:
    assert all(table.row_key for table in TABLES.values())
