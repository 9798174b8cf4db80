"""Preflight against MySQL 5.7 and 8.0: plans, what raises the version, cascades, the binary log, a reader that is behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from dbops.backfill import estimate, liveness, preflight
from dbops.backfill.preflight import Services
from dbops.backfill.source import Source
from dbops.backfill.target import TargetFacts
from lab import mysql
from tests.backfill.preflight_kit import NOW, TABLE, Heard, ids
from tests.backfill.source_kit import declared
from tests.lab import replica_kit
from tests.lab.backfill_source_kit import JOIN, KEY, fleet, opened, run, server

__all__ = ["server"]
pytestmark = pytest.mark.lab

PLAIN = "SELECT r.id, r.status, r.price, r.version FROM shop.rides AS r WHERE {chunk}"
RAISES = "CREATE TRIGGER raise_version BEFORE UPDATE ON rides FOR EACH ROW SET NEW.version = OLD.version + 1"


def test_a_good_view_has_a_good_plan_and_a_bad_one_is_named(server: Any) -> None:
    fleet(server, 2000)
    assert ids(preflight.check_plan(server, opened(server, JOIN.format(join="LEFT JOIN"), **KEY))) == []
    run(server, "ALTER TABLE members DROP PRIMARY KEY", "ANALYZE TABLE members")
    found = ids(preflight.check_plan(server, opened(server, JOIN.format(join="LEFT JOIN"), **KEY)))
    assert "join_scan" in found
    run(server, "TRUNCATE TABLE rides")
    assert ids(preflight.check_plan(server, opened(server, PLAIN))) == ["empty?"]


def test_a_table_that_ends_with_its_first_page_has_a_good_plan(server: Any) -> None:
    fleet(server, 6)
    for rows in (5, 6, 7):
        source = opened(server, PLAIN, limits={"page_rows": rows})
        assert ids(preflight.check_plan(server, source)) == [], f"pages of {rows} rows"


def test_a_condition_that_fixes_another_key_does_not_sort_pages(server: Any) -> None:
    """Where MySQL is sure of one row of the joined table it may read that first; the page begins at the key all the same."""
    fleet(server, 2000)
    for where in ("m.id = 2", "m.id IN (1, 2)", "r.member_id = 2", "r.id > 5"):
        source = opened(server, JOIN.format(join="JOIN") + f" AND {where}", **KEY)
        assert [each for each in ids(preflight.check_plan(server, source)) if each != "join_unique?"] == [], where


@pytest.mark.parametrize(
    ("ddl", "version", "more", "expected"),
    [
        ((), "r.version", {}, ["version_raised", "version_reinsert?"]),
        ((RAISES,), "r.version", {}, ["version_reinsert?"]),
        ((RAISES.replace("UPDATE", "INSERT").replace("OLD.version + 1", "1"),), "r.version", {}, ["version_raised", "version_reinsert?"]),
        ((RAISES.replace("NEW.version", "NEW.price"),), "r.version", {}, ["version_raised", "version_reinsert?"]),
        ((), "r.version", {"raised_by": "the ORM"}, ["version_declared?"]),
        (("ALTER TABLE rides MODIFY id BIGINT UNSIGNED AUTO_INCREMENT", RAISES), "r.version", {}, []),
        (
            ("ALTER TABLE rides ADD at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)",),
            "CAST(UNIX_TIMESTAMP(r.at) * 1000000 AS UNSIGNED)", {}, ["version_time?", "version_reinsert?"],
        ),
        (
            ("ALTER TABLE rides ADD at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",),
            "CAST(UNIX_TIMESTAMP(r.at) * 1000000 AS UNSIGNED)", {}, ["version_ties", "version_reinsert?"],
        ),
    ],
    ids=["nothing", "trigger", "insert only", "another column", "declared", "automatic key", "time", "seconds"],
)  # fmt: skip
def test_something_has_to_raise_the_version(
    server: Any, ddl: tuple[str, ...], version: str, more: dict[str, Any], expected: list[str]
) -> None:
    fleet(server, 5)
    run(server, *ddl)
    source = opened(server, PLAIN.replace("r.version", f"{version} AS version"), version=more)
    assert ids(preflight.check_version(server, source)) == expected


def test_joins_filters_and_cascades_are_named(server: Any) -> None:
    fleet(server, 5)
    run(
        server,
        "UPDATE rides SET member_id = NULL",
        "ALTER TABLE rides ADD CONSTRAINT of_member FOREIGN KEY (member_id) REFERENCES members (id) ON DELETE SET NULL",
    )
    key = {**KEY, "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "{status}#{ride}"}}}
    source = opened(server, JOIN.format(join="JOIN"), **key)
    found = list(preflight.check_view(server, source))
    assert ids(found) == [
        "collation?",
        "key_changes?",
        "view_filter?",
        "version_order?",
        "join_stream?",
        "join_delete?",
        "cascade",
    ]
    assert "of_member" in found[-1].text
    run(server, "ALTER TABLE rides DROP FOREIGN KEY of_member")
    assert ids(preflight.check_view(server, opened(server, PLAIN))) == []


def test_versions_are_looked_at_twice(server: Any) -> None:
    fleet(server, 50)
    source = opened(server, PLAIN)
    keys = [(str(3 * n),) for n in range(1, 51)]
    before = preflight.versions(server, source, keys)
    run(server, "UPDATE rides SET version = version + 1", "DELETE FROM rides WHERE id = 3")
    assert ids(preflight.judge_versions(before, preflight.versions(server, source, keys))) == []
    run(server, "UPDATE rides SET version = 1 WHERE id = 9")
    assert ids(preflight.judge_versions(before, preflight.versions(server, source, keys))) == ["version_falls"]


@pytest.mark.parametrize(
    ("changed", "hours", "expected"),
    [
        ({}, 1.0, []),
        ({}, None, []),
        ({"log_bin": "OFF"}, 1.0, ["binlog"]),
        ({"binlog_format": "MIXED"}, 1.0, ["binlog_format"]),
        ({"binlog_row_image": "MINIMAL"}, 1.0, ["binlog_row_image"]),
        ({"binlog_expire_logs_seconds": "3600", "expire_logs_days": "0"}, 0.5, []),
        ({"binlog_expire_logs_seconds": "3600", "expire_logs_days": "0"}, 0.6, ["binlog_retention"]),
        ({"aurora_version": "3.04"}, 1.0, ["binlog_retention"]),
    ],
)
def test_the_log_has_whole_rows_and_is_kept(
    server: Any, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], hours: float | None, expected: list[str]
) -> None:
    """Of the lab's own servers, with single variables as another server would have them."""
    asked = liveness.mysql.global_variables
    monkeypatch.setattr(liveness.mysql, "global_variables", lambda *a: {**asked(*a), **changed})
    assert ids(liveness.check_log(server, hours)) == expected


def test_the_writer_is_its_own_reader_and_a_stranger_is_none(server: Any) -> None:
    def now() -> datetime:
        return NOW

    assert ids(liveness.check_replica(server, server, NOW, now)) == []
    with closing(mysql.root_connection("mysql57")) as writer, closing(mysql.root_connection("mysql80")) as reader:
        assert ids(liveness.check_replica(writer, reader, NOW, now, 0.1)) == ["replica"]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[replica_kit.Side, replica_kit.Side]]:
    with replica_kit.pair(tmp_path_factory.mktemp("replica"), "shop") as found:
        yield found


def test_a_reader_has_to_have_applied_what_the_writer_had(
    sides: tuple[replica_kit.Side, replica_kit.Side],
) -> None:
    blue, green = sides
    blue.run("CREATE TABLE IF NOT EXISTS shop.t (id INT PRIMARY KEY)")
    replica_kit.settle(blue, green)
    with closing(blue.connect()) as writer, closing(green.connect()) as reader:
        assert ids(liveness.check_replica(writer, reader, NOW, lambda: NOW, 10)) == []
        green.server.sql("STOP SLAVE SQL_THREAD")
        blue.run("INSERT INTO shop.t VALUES (1)")
        assert ids(liveness.check_replica(writer, reader, NOW, lambda: NOW, 1)) == ["replica"]
        green.server.sql("START SLAVE SQL_THREAD")
        assert ids(liveness.check_replica(writer, reader, NOW, lambda: NOW, 20)) == []


def services(server: Any, name: str, facts: TargetFacts = TABLE) -> Services:
    def connect() -> Any:
        made = mysql.root_connection(name)
        with made.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
        return made

    return Services(
        connect, connect, lambda _: facts, lambda: None, lambda: None, lambda: [Heard()], lambda: NOW, "us-east-1"
    )


def name_of(server: Any) -> str:
    return "mysql57" if server.get_server_info().startswith("5.7") else "mysql80"


def spec_of(server: Any, sql: str, **more: Any) -> Any:
    view = {"table": f"{server.schema}.rides", "alias": "r"}
    return declared(sql.replace("shop.", f"{server.schema}."), view=view, **more)


def test_the_whole_of_it(server: Any) -> None:
    fleet(server, 5000)
    run(server, RAISES)
    found = preflight.check(services(server, name_of(server)), spec_of(server, PLAIN), rows=5000)
    assert sorted(ids(found.findings)) == ["estimate?", "stream?", "version_reinsert?"]
    assert found.sample is not None
    assert found.estimate is not None
    assert found.sample.rows == 50 * 40
    assert found.estimate.units == 5000
    assert found.estimate.usd > 0
    assert [row.column for row in found.types] == ["id", "status", "price"]
    wrong = preflight.check(services(server, name_of(server)), spec_of(server, PLAIN.replace("r.price", "r.nothing")))
    assert ids(wrong.findings) == ["view"]
    away = replace(services(server, name_of(server)), facts=lambda _: {}["nothing"])
    assert "target" in ids(preflight.check(away, spec_of(server, PLAIN)).findings)


def test_a_sample_comes_from_all_over_the_range(server: Any) -> None:
    """The largest rows are the last ones here, and keys have a gap of a million."""
    fleet(server, 3000)
    run(
        server,
        "ALTER TABLE rides MODIFY status VARCHAR(5000) NOT NULL, DROP KEY status",
        "UPDATE rides SET id = id + 1000000, status = REPEAT('x', 4000) WHERE id > 6000 ORDER BY id DESC",
        "ANALYZE TABLE rides",
    )
    source = opened(server, PLAIN)
    lows = estimate.spread(server, source, 20)
    found = estimate.measure(server, source, lows, rows_a_point=30)
    assert found.percentile(1) > 4000
    assert found.percentile(0.5) < 200
    assert len(found.sizes) == found.rows == len(found.versions)


@pytest.mark.parametrize("key", ["k", "a, k"])
def test_keys_that_are_no_numbers_are_sampled_all_over_as_well(server: Any, key: str) -> None:
    run(server, f"CREATE TABLE t (a INT NOT NULL, k VARCHAR(20) NOT NULL, version INT NOT NULL, PRIMARY KEY ({key}))")
    with server.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s, 1)", [(n % 3, f"k{n:06d}") for n in range(2000)])
    run(server, "ANALYZE TABLE t")
    source = textual(server)
    lows = estimate.spread(server, source, 10)
    assert 8 <= len(lows) <= 13
    found = estimate.measure(server, source, lows, rows_a_point=20)
    assert found.rows == pytest.approx(20 * len(lows), abs=20)
    assert estimate.spread(server, source, 100_000)[1] is not None


def textual(server: Any) -> Source:
    target = {"kind": "dynamodb", "table": "rides", "key": {"pk": "{a}#{k}"}}
    return opened(server, "SELECT t.a, t.k, t.version FROM shop.t AS t WHERE {chunk}", "t", "t", target=target)


def test_a_table_without_rows_has_no_sample(server: Any) -> None:
    fleet(server, 1)
    run(server, "TRUNCATE TABLE rides")
    source = opened(server, PLAIN)
    assert estimate.spread(server, source) == []
    found = preflight.check(services(server, name_of(server)), spec_of(server, PLAIN), rows=0)
    assert "empty?" in ids(found.findings)
    assert found.estimate is not None
    assert found.estimate.usd == 0
    assert timedelta(hours=found.estimate.hours) == timedelta()
