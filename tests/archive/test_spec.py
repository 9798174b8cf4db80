"""Archive specs: what a predicate may be, which rows are cold, and what is refused with which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from dbops import specs
from dbops.archive.spec import ROOM, ArchiveSpec, check_predicate


def made(**over: Any) -> ArchiveSpec:
    values = {
        "name": "t", "description": "d", "owner": "o", "schema": "shop", "table": "Orders",
        "cold": {"column": "paid_at", "older_than_days": 30}, "target": {"namespace": "shop"},
    }  # fmt: skip
    return ArchiveSpec.model_validate({**values, **over})


@pytest.mark.parametrize(
    "text",
    [
        "status = 'done'", "a = 1 AND (b IS NULL OR c <> 'x;y')", "status IN ('finished', 'cancelled')", "method = 'voucher'",
        "amount > 10.5 AND NOT refunded", "JSON_EXTRACT(doc, '$.a') = 1", "YEAR(day) = 2020", "day < '2024-01-01' - INTERVAL 1 DAY",
        "note LIKE '%-- not a comment%'", "note = '/* neither */'", "`order` = 1", "kind = 'x' COLLATE utf8mb4_bin", "id % 2 = 0",
        "CASE WHEN a THEN b ELSE c END", "a REGEXP '^x'", "BINARY a = 'x'", "a BETWEEN 1 AND 2", "flags & 4", "day IS NOT NULL",
        "LOWER(TRIM(a)) = 'now()'", "(a, b) IN ((1, 2), (3, 4))", "COALESCE(a, 0) > 0", "a <=> NULL", "TRUE", "`utc_date` > 1",
        "HEX(a) = 'FF'", "ST_X(p) > 0", "CAST(a AS DECIMAL(10, 2)) > 1", "CONVERT(a, CHAR(3)) = 'x'", "CONVERT(a USING utf8mb4) = 'x'",
        "EXTRACT(YEAR FROM (day)) = 2020", "SUBSTRING(a FROM (1) FOR 2) = 'x'", "INTERVAL(a, 1, 2) > 0", "IF(a, b, c)", "a MEMBER OF (b)",
        "a DIV (b) = 1 XOR (c)", "'levenshtein(' = a", "doc->>'$.a' = 'x'", "day < '2024-01-01' - INTERVAL (1) DAY",
         "a IS TRUE OR b IS NOT UNKNOWN", "CRC32(a) % 7 = 0", "WEEKDAY(day) = 1",
    ],
)  # fmt: skip
def test_predicates_over_the_row_itself_are_taken_as_they_are(text: str) -> None:
    assert check_predicate(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not one SQL expression|must be"), ("a = 1 OR", "is not one SQL expression"), ("a = 1) OR (1 = 1",
        "is not one SQL expression"),
        ("a = 'open", "is not one SQL expression"), ("a = 1; DROP TABLE t", "is not one SQL expression|semicolon"),
        ("a = 1;", "semicolon"), ("a = 1 -- x", "comments"), ("a = 1 # x", "comments"), ("a = 1 /* x */", "comments"),
        ("a = 1 /*!50000 OR 1 = 1 */", "comments"), ("DROP TABLE t", "must be an expression that is true or false, not DROP"),
        ("DELETE FROM t", "not DELETE"), ("SELECT 1", "not SELECT"), ("a IN (SELECT id FROM o)", "subquery"),
        ("EXISTS (SELECT 1 FROM o)", "subquery"), ("(SELECT 1)", "subquery|not S"), ("a = (SELECT MAX(a) FROM t)", "subquery"),
        ("a = @x", "variables"), ("a = @@sql_mode", "variables"), ("a = ?", "placeholders"), ("a = :x", "placeholders"),
        ("a = %s", "is not one SQL expression|placeholders"),
        *[(f"day < {call}", "its value changes between plan and purge; use `cold` for age") for call in (
            "NOW()", "now(6)", "CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP(3)", "CURDATE()", "CURRENT_DATE", "CURRENT_DATE()", "CURTIME()",
            "CURRENT_TIME", "LOCALTIME", "LOCALTIME()", "LOCALTIMESTAMP", "LOCALTIMESTAMP(3)", "SYSDATE()", "UTC_DATE()", "UTC_TIME()",
            "UTC_TIMESTAMP()", "UTC_TIMESTAMP", "utc_date", "UTC_TIME","UNIX_TIMESTAMP()", "RAND()", "RAND(1)", "UUID()",
            "UUID_SHORT()", "CONNECTION_ID()",
            "CURRENT_USER()", "CURRENT_USER", "USER()", "SESSION_USER()", "SYSTEM_USER()", "LAST_INSERT_ID()", "FOUND_ROWS()",
            "ROW_COUNT()", "SLEEP(1)",
            "GET_LOCK('x', 1)", "RELEASE_LOCK('x')", "LOAD_FILE('/etc/passwd')", "BENCHMARK(1, 1)", "DATE_SUB(NOW(), INTERVAL 1 DAY)",
            "IF(a, NOW(), 1)",
        )],
        ("is_old(day)", r"must not call is_old\(\): not a built-in"), ("app.is_old(day) = 1", r"must not call is_old\(\)"),
        ("app.crc32(day) = 1", r"must not call crc32\(\)"),
        # names that MySQL does not know, but the parser does, from other databases
        *[(f"{call} > 1", rf"must not call {call.split('(')[0].strip('` ')}\(\): not a built-in") for call in (
            "levenshtein(a, b)", "safe_divide(a, b)", "hash(a)", "today()", "getdate()", "levenshtein (a, b)", "`crc32`(a)", "st_evil(a)",
            "VERSION()", "SUM(a)", "values(a)",
        )],
    ],
)  # fmt: skip
def test_predicates_that_could_mean_something_else_later_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_predicate(text)


@pytest.mark.parametrize(
    ("run_after", "expected"),
    [
        (datetime(2026, 3, 31, 23, 59, 59, 999999, UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        (datetime(2026, 3, 31, 0, 0, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        (datetime(2026, 3, 31, 1, 0, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 2, 28, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_the_cut_off_is_midnight_utc_of_the_runs_date(run_after: datetime, expected: datetime) -> None:
    assert made().cold.cutoff(run_after) == expected


def test_predicate_of_the_rows_that_leave() -> None:
    cutoff = datetime(2026, 3, 1, tzinfo=UTC)
    assert made().predicate(cutoff) == "`paid_at` < '2026-03-01 00:00:00'"
    held = made(
        where="a = 1 OR b = 2", hold=[{"reason": "law", "where": "c = 3 OR d IS NULL"}, {"reason": "x", "where": "e"}]
    )
    assert held.predicate(cutoff) == (
        "`paid_at` < '2026-03-01 00:00:00' AND (a = 1 OR b = 2) AND ((c = 3 OR d IS NULL) IS NOT TRUE) AND ((e) IS NOT TRUE)"
    )
    for unit, value in (("epoch_s", "1772323200"), ("epoch_ms", "1772323200000")):
        cold = {"column": "paid_at", "older_than_days": 30, "unit": unit}
        assert made(cold=cold).predicate(cutoff) == f"`paid_at` < {value}"


def test_names_that_follow_from_the_table() -> None:
    spec = made()
    assert (spec.full_name, spec.target_table, spec.scratch_schema) == ("shop.Orders", "orders", "shop_restore")
    own = made(
        target={"namespace": "shop", "table": "o2", "partitioning": ["month(paid_at)"]}, restore_schema="scratch"
    )
    assert (own.target_table, own.scratch_schema, own.target.partition) == ("o2", "scratch", ("month", "paid_at"))
    assert spec.target.partition is None


RULES: dict[str, Any] = {
    "schema": "other", "table": "o", "cold": {"column": "paid_at", "older_than_days": 31}, "where": "a = 1",
    "hold": [{"reason": "law", "where": "a = 1"}], "target": {"namespace": "shop", "table": "x"}, "zero_dates_as_text": ["a"],
    "lossy_text_as_binary": ["a"], "referenced_rows": "skip",
}  # fmt: skip
HOW: dict[str, Any] = {
    "chunk_bytes": 65536, "purge": {"batch_rows": 5, "workers": 9, "max_lag_s": None}, "export_workers": 1, "full_scan": True, "owner": "x",
    "description": "y", "read_connection": "r", "restore_schema": "s", "enabled": True,
}  # fmt: skip


def test_the_rule_digest_changes_with_the_rules_and_with_nothing_else() -> None:
    digests = [made().rule_digest(), *(made(**{field: value}).rule_digest() for field, value in RULES.items())]
    assert len(set(digests)) == len(digests)
    assert {made(**{field: value}).rule_digest() for field, value in HOW.items()} == {made().rule_digest()}
    assert made(name="another").rule_digest() == made().rule_digest()


def test_every_field_of_a_spec_is_known_to_be_a_rule_or_not() -> None:
    """A new field must be put on one side: a changed rule must not continue an old plan."""
    connections = {"connection", "aws_connection", "trino_connection", "iceberg_connection", "name", "schema_name"}
    assert set(ArchiveSpec.model_fields) == {*RULES, *HOW, *connections} - {"schema"}


@pytest.mark.parametrize(
    ("over", "at", "message"),
    [
        ({"tabel": "x"}, "tabel", "Extra inputs are not permitted"),
        ({"cold": {"column": "a b", "older_than_days": 1}}, "cold.column", "match pattern"),
        ({"cold": {"column": "a", "older_than_days": 0}}, "cold.older_than_days", "greater than or equal to 1"),
        ({"cold": {"column": "a", "older_than_days": 1, "unit": "days"}}, "cold.unit", "'datetime', 'epoch_s' or 'epoch_ms'"),
        ({"where": "NOW() > a"}, "where", "must not call"), ({"hold": [{"reason": "x", "where": "1;"}]}, "hold.0.where", "semicolons"),
        ({"hold": [{"where": "a"}]}, "hold.0.reason", "Field required"),
        ({"target": {"namespace": "Shop"}}, "target.namespace", "match pattern"),
        ({"target": {"namespace": "s", "partitioning": ["bucket(4, a)"]}}, "target.partitioning",
        "write identity|year|month|day|hour(column)"),
        ({"target": {"namespace": "s", "partitioning": ["day(a)", "day(b)"]}}, "target.partitioning", "at most 1 item"),
        ({"chunk_bytes": 1}, "chunk_bytes", "greater than or equal to 65536"), ({"purge": {"batch_rows": 0}}, "purge.batch_rows",
        "equal to 1"),
        ({"purge": {"max_lag_s": 0}}, "purge.max_lag_s", "greater than 0"), ({"purge": {"isolation": "serializable"}},
        "purge.isolation", "repeatable-read"),
        ({"purge": {"window": {"start": "25:00", "end": "06:00"}}}, "purge.window.start", "HH:MM"),
        ({"referenced_rows": "ignore"}, "referenced_rows", "'refuse' or 'skip'"), ({"schema": "a.b"}, "schema", "match pattern"),
        ({"restore_schema": "a`b"}, "restore_schema", "match pattern"),
    ],
)  # fmt: skip
def test_a_wrong_spec_says_where_and_what_is_allowed(over: dict[str, Any], at: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        made(**over)
    errors = caught.value.errors()
    assert [".".join(map(str, e["loc"])) for e in errors] == [at]
    assert message in errors[0]["msg"]


def test_defaults_are_safe() -> None:
    spec = made()
    assert not spec.enabled
    assert not spec.purge.allowed
    assert not spec.full_scan
    assert spec.referenced_rows == "refuse"
    assert spec.purge.max_lag_s == 10
    assert spec.zero_dates_as_text == spec.lossy_text_as_binary == []


def test_the_shipped_specs_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBOPS_SPECS_DIR", raising=False)
    assert {spec.name for spec in specs.load_all(ROOM, ArchiveSpec)} >= {"payments", "positions", "rides"}
