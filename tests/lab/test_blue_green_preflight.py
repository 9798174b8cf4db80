"""Each preflight check, asked of a real 5.7.22 that has what it looks for, and of one that has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import MySQLdb
import pytest
import tenacity

from dbops import mysql as facts
from dbops.blue_green import preflight
from lab import mysql
from tests.lab.inventory_kit import Mysqld

pytestmark = pytest.mark.lab
BINLOG = ("--log-bin=binlog", "--gtid-mode=ON", "--enforce-gtid-consistency=ON")
TROUBLE = """
CREATE DATABASE tmp;
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.good (id INT PRIMARY KEY, name VARCHAR(20));
CREATE TABLE shop.keyless (a INT);
CREATE TABLE shop.mine (id INT PRIMARY KEY) ENGINE = MyISAM;
CREATE TABLE shop.parted (id INT PRIMARY KEY) ENGINE = MyISAM PARTITION BY HASH (id) PARTITIONS 2;
CREATE TABLE shop.ranks (id INT PRIMARY KEY, `rank` INT, z INT(5) ZEROFILL, t VARCHAR(9) CHARACTER SET utf8);
SET SESSION sql_mode = '';
CREATE TABLE shop.dates (id INT PRIMARY KEY, d DATE NOT NULL DEFAULT '0000-00-00');
CREATE TABLE mysql.catalogs (id INT PRIMARY KEY) ENGINE = InnoDB;
CREATE PROCEDURE shop.old() SELECT SQL_NO_CACHE ENCODE(name, 'k') FROM shop.good GROUP BY name DESC;
SET SESSION sql_mode = 'ORACLE';
CREATE PROCEDURE shop.modes() SELECT 1;
SET SESSION sql_mode = '';
CREATE DEFINER = 'nobody'@'nowhere' TRIGGER shop.orphan BEFORE INSERT ON shop.good FOR EACH ROW SET NEW.id = NEW.id;
CREATE EVENT shop.tick ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.good WHERE id = 0;
SET GLOBAL event_scheduler = ON;
XA START 'x'; INSERT INTO shop.keyless VALUES (1); XA END 'x'; XA PREPARE 'x'
"""
FOUND = {
    "eventScheduler": "shop.tick",
    "triggerDefiner": "shop.orphan",
    "noPrimaryKey": "shop.keyless",
    "schemaTmp": "tmp",
    "engine": "shop.mine",
    "preparedXa": "XA RECOVER",
    "reservedKeywords": "column shop.ranks.rank",
    "utf8mb3": "shop.ranks",
    "obsoleteSqlModeFlags": "procedure shop.modes",
    "removedFunctions": "procedure shop.old",
    "groupbyAscSyntax": "procedure shop.old",
    "depreciatedSyntaxCheck": "procedure shop.old",
    "nonNativePartitioning": "shop.parted",
    "zeroDates": "shop.dates.d",
    "mysqlSchema": "mysql.catalogs",
    "zerofill": "shop.ranks.z",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mysqld]:
    found = Mysqld("mysql57", Path(tmp_path_factory.mktemp("preflight")))
    found.start(*BINLOG)
    yield found
    found.stop()


def results(server: Mysqld, **more: object) -> dict[str, preflight.Result]:
    with closing(server.connect()) as connection:
        return {result.id: result for result in preflight.run(connection, **more)}  # type: ignore[arg-type]


def test_a_server_without_trouble_and_then_with_all_of_it(server: Mysqld) -> None:
    clean = results(server)
    assert {
        r.id: (r.verdict, r.objects, r.note) for r in clean.values() if r.verdict not in ("ok", "not applicable")
    } == {}
    assert clean["binlogRetention"].verdict == "not applicable"
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in TROUBLE.split(";"):
            cursor.execute(statement)
    found = results(server)
    for check, name in FOUND.items():
        assert name in [thing for thing, _ in found[check].objects], (check, found[check])
        assert all("shop.good" not in thing for thing, _ in found[check].objects)
    assert "unknown" not in {result.verdict for result in found.values()}
    assert {r.id for r in found.values() if r.stops} == {
        c.id for c in preflight.CHECKS if c.level == "error" and c.id in FOUND
    }
    eased = results(server, overrides={"schemaTmp": "dropped on the evening of the upgrade"})["schemaTmp"]
    assert (eased.verdict, eased.stops, eased.note) == (
        "overridden",
        False,
        "was error: dropped on the evening of the upgrade",
    )


def test_open_transactions_and_settings_are_seen(server: Mysqld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LONG_TRANSACTION_S", 0)
    server.sql("CREATE DATABASE IF NOT EXISTS long_one")
    server.sql("CREATE TABLE IF NOT EXISTS long_one.t (id INT PRIMARY KEY)")
    server.sql("SET GLOBAL binlog_format = 'MIXED'")
    with closing(server.connect(autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("INSERT INTO long_one.t VALUES (1)")
        name, found = f"connection {holder.thread_id()}", {}
        # The server keeps its list of transactions for a tenth of a second.
        for attempt in tenacity.Retrying(
            wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_delay(5), reraise=True
        ):
            with attempt:
                found = results(server)
                assert name in [thing for thing, _ in found["longTransactions"].objects]
        assert found["binlogFormat"].verdict == "error"
    server.sql("SET GLOBAL binlog_format = 'ROW'")


def test_what_cannot_be_asked_is_unknown_and_stops(server: Mysqld) -> None:
    server.sql("CREATE USER 'blind'@'%' IDENTIFIED BY ''")
    with closing(server.connect("blind")) as connection:
        found = {result.id: result for result in preflight.run(connection)}
    assert found["longTransactions"].verdict == "unknown"
    assert found["longTransactions"].stops


def test_the_words_are_those_of_the_server() -> None:
    with closing(mysql.root_connection("mysql80")) as green, closing(mysql.root_connection("mysql57")) as blue:
        words, accepted = preflight.reserved_words(green), set()
        with blue.cursor() as cursor:
            for word in sorted(words):
                with suppress(MySQLdb.Error):  # reserved by 5.7 as well
                    cursor.execute(f"SELECT {word}.x FROM (SELECT 1 AS x) {word}")
                    accepted.add(word)
        assert facts.read_server(green).version.startswith("8.0.15")
    assert accepted - preflight.RESERVED_BY_8_0 == set()


@pytest.mark.parametrize(("overrides", "word"), [({"nosuch": "x"}, "no such check"), ({"engine": " "}, "no reason")])
def test_an_override_must_name_a_check_and_a_reason(server: Mysqld, overrides: dict[str, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        results(server, overrides=overrides)
