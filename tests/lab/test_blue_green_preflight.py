"""Each preflight check, asked of a real 5.7.22 that has what it looks for, and of one that has not."""

from __future__ import annotations

import shutil
import threading
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
CREATE DEFINER = 'nobody'@'nowhere' VIEW shop.lost_view AS SELECT 1 AS one;
SET SESSION sql_mode = 'MAXDB';
CREATE PROCEDURE shop.maxdb() SELECT 1;
SET SESSION sql_mode = '';
CREATE TRIGGER shop.twice BEFORE INSERT ON shop.keyless FOR EACH ROW SET NEW.a = NEW.a;
CREATE TRIGGER shop.TWICE BEFORE INSERT ON shop.ranks FOR EACH ROW SET NEW.z = NEW.z;
CREATE PROCEDURE shop.words() SELECT `rank`, 'groups', g.rank /* window */, lag FROM shop.ranks AS g JOIN empty;
CREATE PROCEDURE shop.dot() SELECT * FROM .good;
CREATE PROCEDURE shop.wide_space() SELECT 1 /*\u00a0*/ + 1;
CREATE TABLE shop.$price (id INT PRIMARY KEY);
CREATE TABLE shop.made (id INT PRIMARY KEY, a VARCHAR(9), g INT AS (CAST(a AS SIGNED)));
CREATE TABLE shop.prefixed (id VARCHAR(300) NOT NULL, b INT, PRIMARY KEY (id(10), b)) PARTITION BY KEY () PARTITIONS 2;
CREATE TABLE shop.slashes (d DATE PRIMARY KEY) PARTITION BY RANGE COLUMNS (d)
    (PARTITION a VALUES LESS THAN ('2020/01/01'), PARTITION b VALUES LESS THAN ('2021-01-01'));
CREATE TABLE shop.dashes (d DATE PRIMARY KEY) PARTITION BY RANGE COLUMNS (d) (PARTITION b VALUES LESS THAN ('2021-01-01'));
CREATE TABLE shop.floating (id DOUBLE AUTO_INCREMENT PRIMARY KEY);
CREATE TABLE shop.GIFTS (id INT PRIMARY KEY);
CREATE TABLE shop.big (id INT PRIMARY KEY, a VARCHAR(500), KEY k (a));
SET GLOBAL innodb_default_row_format = 'compact';
ALTER TABLE shop.big FORCE;
SET GLOBAL innodb_default_row_format = 'dynamic';
CREATE TABLE shop.places (id INT PRIMARY KEY, p POINT NOT NULL, q POINT NOT NULL, KEY k (p(10)), SPATIAL KEY s (q));
CREATE TABLE shop.texts (id INT PRIMARY KEY, t TEXT, FULLTEXT KEY f (t));
CREATE TABLE shop.dropped_text (id INT PRIMARY KEY, t TEXT, FULLTEXT KEY f (t));
ALTER TABLE shop.dropped_text DROP KEY f;
SET GLOBAL innodb_file_per_table = OFF;
CREATE TABLE shop.system_text (id INT PRIMARY KEY, t TEXT, FULLTEXT KEY f (t));
CREATE TABLE shop.system_parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2;
SET GLOBAL innodb_file_per_table = ON;
SET SESSION foreign_key_checks = 0;
CREATE TABLE shop.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES shop.parent (id));
CREATE TABLE shop.parent (id INT PRIMARY KEY) ENGINE = MyISAM;
CREATE PROCEDURE shop.lost() SELECT 1;
UPDATE mysql.proc SET db = 'gone' WHERE name = 'lost';
CREATE TABLE shop.brief (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES shop.good (id));
RENAME TABLE shop.brief TO shop.a_name_so_long_that_its_foreign_key_has_more_than_64_characters;
CREATE TABLE shop.elements (
    id INT PRIMARY KEY, e ENUM('LONG'), s SET('a', 'LONG')
);
CREATE TABLE shop.long_sets (id INT PRIMARY KEY, t SET('a_SHORT', 'b_SHORT'));
CREATE TABLE shop.defaults (id INT PRIMARY KEY, b GEOMETRY NOT NULL DEFAULT '');
CREATE USER 'via_socket'@'%' IDENTIFIED BY '';
UPDATE mysql.user SET plugin = 'auth_socket' WHERE User = 'via_socket';
CREATE TABLE mysql.rds_configuration (name VARCHAR(100) PRIMARY KEY, value VARCHAR(100));
INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', NULL), ('source delay', NULL);
CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1;
CREATE TABLE sys.mine (id INT PRIMARY KEY);
CREATE TABLE mysql.ddl_log_md_table (id INT PRIMARY KEY);
CREATE TABLE mysql.ddl_log_table (id INT PRIMARY KEY);
INSERT INTO mysql.ddl_log_md_table VALUES (1);
SET GLOBAL max_tmp_tables = 33;
SET GLOBAL event_scheduler = ON;
XA START 'x'; INSERT INTO shop.texts VALUES (1, 'x'); XA END 'x'; XA PREPARE 'x'
""".replace("LONG", "e" * 256).replace("_SHORT", "s" * 254)
FOUND = {
    "binlogRetention": "server",
    "externalReplica": "SHOW SLAVE STATUS",
    "partitionedTablesInSharedTablespaces": "shop.system_parts",
    "foreignKeyLength": "shop.a_name_so_long_that_its_foreign_key_has_more_than_64_characters",
    "enumSetElementLength": "shop.elements.e",
    "columnsWhichCannotHaveDefaults": "shop.defaults.b",
    "authenticationPlugin": "via_socket@%",
    "eventScheduler": "shop.tick",
    "triggerDefiner": "shop.orphan",
    "definer": "view shop.lost_view",
    "noPrimaryKey": "shop.keyless",
    "schemaTmp": "tmp",
    "engine": "shop.mine",
    "preparedXa": "XA RECOVER",
    "reservedKeywords": "column shop.ranks.rank",
    "routineSyntax": "procedure shop.words",
    "dollarSignName": "table shop.$price",
    "utf8mb3": "shop.ranks",
    "obsoleteSqlModeFlags": "procedure shop.modes",
    "maxdbSqlModeFlags": "procedure shop.maxdb",
    "removedFunctions": "procedure shop.old",
    "changedFunctionsInGeneratedColumns": "shop.made.g",
    "groupbyAscSyntax": "procedure shop.old",
    "depreciatedSyntaxCheck": "procedure shop.old",
    "emptyDotTableSyntax": "procedure shop.dot",
    "specialCharacters": "procedure shop.wide_space",
    "nonNativePartitioning": "shop.parted",
    "partitionsWithPrefixKeys": "shop.prefixed",
    "deprecatedTemporalDelimiter": "shop.slashes",
    "invalidEngineForeignKey": "shop.child",
    "columnDefinition": "shop.floating.id",
    "ftsInTablename": "shop.GIFTS",
    "zeroDates": "shop.dates.d",
    "indexTooLarge": "shop.big",
    "geometryPrefixIndex": "shop.places",
    "innodbRowFormat": "shop.big",
    "auroraGetDanglingFulltextIndex": "shop.dropped_text",
    "fulltextInSystemTablespace": "shop.system_text",
    "getDuplicateTriggers": "shop.twice",
    "orphanedObjects": "procedure gone.lost",
    "mysqlSchema": "mysql.catalogs",
    "sysSchemaObjects": "sys.mine",
    "auroraCheckDDLRecovery": "mysql.ddl_log_md_table",
    "removedSysVars": "max_tmp_tables",
    "zerofill": "shop.ranks.z",
}
# What a fresh 5.7 already has.
ALWAYS = {"sysVarsNewDefaults": "innodb_autoinc_lock_mode", "defaultAuthenticationPlugin": "server"}
INNOCENT = ("shop.good", "shop.texts", "shop.dashes")


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
    fired = {r.id: (r.verdict, r.objects, r.note) for r in clean.values() if r.verdict not in ("ok", "not applicable")}
    assert set(fired) == set(ALWAYS), fired
    assert all(name in [thing for thing, _ in clean[check].objects] for check, name in ALWAYS.items())
    for managed in ("binlogRetention", "auroraCheckDDLRecovery"):
        assert clean[managed].verdict == "not applicable"
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in TROUBLE.split(";"):
            cursor.execute(statement)
    found = results(server)
    for check, name in FOUND.items():
        assert name in [thing for thing, _ in found[check].objects], (check, found[check])
        assert not [thing for thing, _ in found[check].objects if thing.endswith(INNOCENT)]
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


BROKEN = {
    "oldTemporal": "files.old_time.d",
    "engineMixup": "files.mixed",
    "viewColumnNameLength": "files.names",
    "schemaInconsistency": "files.orphan",
    "invalid57Names": "#mysql50#lost+found",
}


def test_what_only_broken_files_can_show(server: Mysqld) -> None:
    """Old formats and damage, made by exchanging bytes of files: no statement of 5.7 makes them any more."""
    folder = server.data / "files"
    server.sql("CREATE DATABASE files")
    server.sql("CREATE TABLE files.old_time (d DATETIME) ENGINE = MyISAM")
    server.sql("CREATE TABLE files.mixed (id INT PRIMARY KEY)")
    server.sql("CREATE TABLE files.other (id INT PRIMARY KEY) ENGINE = MyISAM")
    server.sql("CREATE VIEW files.names AS SELECT 1 AS short_name")
    server.sql(f"CREATE TABLESPACE round_about ADD DATAFILE '{server.data}/../round_about.ibd' ENGINE = InnoDB")
    server.sql("CREATE TABLE files.around (id INT PRIMARY KEY) TABLESPACE round_about")
    server.sql("CREATE TABLE files.orphan (id INT PRIMARY KEY)")
    before = results(server)
    assert [before[check].objects for check in BROKEN] == [()] * len(BROKEN)
    definition = bytearray((folder / "old_time.frm").read_bytes())
    datetime2, datetime = 18, 12  # field types of 5.6 and of 5.5
    definition[definition.rindex(datetime2)] = datetime
    (folder / "old_time.frm").write_bytes(definition)
    for suffix in ("frm", "MYD", "MYI"):
        shutil.copy(folder / f"other.{suffix}", folder / f"mixed.{suffix}")
    view = (folder / "names.frm").read_text()
    (folder / "names.frm").write_text(view.replace("short_name", "c" * 65))
    (folder / "orphan.frm").unlink()
    (server.data / "lost+found").mkdir()
    server.sql("FLUSH TABLES")
    found = results(server)
    for check, name in {**BROKEN, "circularDirectory": "round_about"}.items():
        assert [thing for thing, _ in found[check].objects] == [name], found[check]
        assert found[check].stops
    server.sql("DROP TABLE files.old_time")


def test_ddl_that_runs_is_seen(server: Mysqld) -> None:
    server.sql("CREATE DATABASE IF NOT EXISTS ddl")
    server.sql("CREATE TABLE ddl.t (id INT PRIMARY KEY)")
    with closing(server.connect(autocommit=False)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT * FROM ddl.t")
        alter = threading.Thread(target=server.sql, args=("ALTER TABLE ddl.t ADD COLUMN a INT",))
        alter.start()  # and waits for the reader
        for attempt in tenacity.Retrying(
            wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(10), reraise=True
        ):
            with attempt:
                assert "ALTER TABLE ddl.t" in results(server)["runningDdl"].objects[0][1]
        reader.rollback()
    alter.join(30)
    assert results(server)["runningDdl"].verdict == "ok"


def test_every_check_is_made_to_fire_here() -> None:
    """binlogFormat, longTransactions, uncommittedRows and historyLength by test_open_transactions_and_settings_are_seen."""
    elsewhere = {
        "binlogFormat", "longTransactions", "uncommittedRows", "historyLength", "runningDdl", "nullDefiner", "circularDirectory",
        "lowerCaseNames",
    }  # fmt: skip
    assert {check.id for check in preflight.CHECKS} == set(FOUND) | set(ALWAYS) | set(BROKEN) | elsewhere


def test_an_event_without_a_definer(server: Mysqld) -> None:
    server.sql("CREATE DATABASE IF NOT EXISTS events")
    server.sql("CREATE EVENT events.nobodys ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM events.t")
    assert results(server)["nullDefiner"].verdict == "ok"
    server.sql("UPDATE mysql.event SET definer = '' WHERE name = 'nobodys'")
    found = results(server)
    assert found["nullDefiner"].objects == (("event events.nobodys", "no definer"),)
    assert found["routineSyntax"].verdict == "unknown"  # the server itself cannot read its events any more
    server.sql("DELETE FROM mysql.event WHERE name = 'nobodys'")


def test_open_transactions_and_settings_are_seen(server: Mysqld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LONG_TRANSACTION_S", 0)
    monkeypatch.setattr(preflight, "UNCOMMITTED_ROWS", 0)
    monkeypatch.setattr(preflight, "HISTORY_LENGTH", -1)
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
        assert "open transactions" in found["uncommittedRows"].objects[0][1]
        assert found["historyLength"].verdict == "warning"
    server.sql("SET GLOBAL binlog_format = 'ROW'")


def test_what_cannot_be_asked_is_unknown_and_stops(server: Mysqld) -> None:
    server.sql("CREATE USER 'blind'@'%' IDENTIFIED BY ''")
    with closing(server.connect("blind")) as connection:
        found = {result.id: result for result in preflight.run(connection)}
    assert found["longTransactions"].verdict == "unknown"
    assert found["longTransactions"].stops


def test_a_program_whose_text_is_hidden_is_not_called_sound(server: Mysqld) -> None:
    server.sql("CREATE DATABASE hidden")
    server.sql("CREATE PROCEDURE hidden.secret() SELECT 1")
    server.sql("CREATE USER 'nosy'@'%' IDENTIFIED BY ''")
    server.sql("GRANT PROCESS, EXECUTE ON *.* TO 'nosy'@'%'")
    with closing(server.connect("nosy")) as connection:
        found = {result.id: result for result in preflight.run(connection)}
    assert found["routineSyntax"].verdict == "unknown"
    assert "procedure hidden.secret" in found["routineSyntax"].note


def test_the_words_are_those_of_the_server(server: Mysqld) -> None:
    with closing(mysql.root_connection("mysql80")) as green, closing(mysql.root_connection("mysql57")) as blue:
        words, accepted = preflight.reserved_words(green), set()
        with blue.cursor() as cursor:
            for word in sorted(words):
                with suppress(MySQLdb.Error):  # reserved by 5.7 as well
                    cursor.execute(f"SELECT {word}.x FROM (SELECT 1 AS x) {word}")
                    accepted.add(word)
        assert facts.read_server(green).version.startswith("8.0.15")
    assert accepted - preflight.RESERVED_BY_8_0 == set()
    server.sql("CREATE DATABASE words")
    server.sql("CREATE TABLE words.t (id INT PRIMARY KEY, `lateral` INT, `intersect` INT)")
    server.sql("CREATE PROCEDURE words.p() SELECT lateral, intersect FROM words.t")
    found = results(server, words=words)  # 8.0.15 has LATERAL and not yet INTERSECT
    named = {thing for thing, _ in found["reservedKeywords"].objects}
    assert ("column words.t.lateral" in named, "column words.t.intersect" in named) == (True, False)
    assert ("procedure words.p", "uses LATERAL without quotes") in found["routineSyntax"].objects


def test_names_in_capitals_on_a_server_that_folds_them(tmp_path: Path) -> None:
    own = Mysqld("mysql57", tmp_path)
    own.start(*BINLOG)
    try:
        own.sql("CREATE DATABASE shop")
        own.sql("CREATE TABLE shop.Orders (id INT PRIMARY KEY)")
        assert results(own)["lowerCaseNames"].verdict == "ok"
        own.stop()
        own.start(*BINLOG, "--lower-case-table-names=1")
        assert [thing for thing, _ in results(own)["lowerCaseNames"].objects] == ["shop.Orders"]
    finally:
        own.stop()


@pytest.mark.parametrize(("overrides", "word"), [({"nosuch": "x"}, "no such check"), ({"engine": " "}, "no reason")])
def test_an_override_must_name_a_check_and_a_reason(server: Mysqld, overrides: dict[str, str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        results(server, overrides=overrides)
