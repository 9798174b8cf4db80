"""A clone of a 5.7 server in an 8.0 server holds the same rows, whatever their types."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.rds.clone import clone, dump
from lab.rds.server import Server

TABLE = """CREATE TABLE d.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, a INT, f FLOAT, j JSON, e ENUM('x', 'é'), b VARBINARY(20),
s VARCHAR(400), l VARCHAR(20) CHARACTER SET latin1,
g INT GENERATED ALWAYS AS (a + 1), bt BIT(64), p POINT, d DATETIME DEFAULT '0000-00-00')"""
ROWS = """INSERT INTO d.t (a, f, j, e, b, s, l, bt, p) VALUES
(1, RAND() * 1e6, JSON_OBJECT('k', 'é'), 2, x'00FF0A095C27', 'é\\n\\t\\\\😀', 'ü', 0xFF000000090A5C00, POINT(1, 2)),
(2, 1/7, NULL, '', '', '', NULL, 0, NULL)"""
SUM = """SELECT MD5(GROUP_CONCAT(CONCAT_WS('#', id, a, IFNULL(f + 0e0, 'N'), IFNULL(j, 'N'),
IFNULL(e + 0, 'N'), IFNULL(HEX(b), 'N'), HEX(s), IFNULL(HEX(l), 'N'), g, bt + 0, IFNULL(HEX(p), 'N'), d) ORDER BY id)) FROM d.t"""


def test_every_type_arrives_unchanged_at_the_position_of_the_source(tmp_path: Path) -> None:
    blue, green = Server(tmp_path / "blue", "5.7.22", 1), Server(tmp_path / "green", "8.0.15", 2)
    with ExitStack() as stack:
        for server in (blue, green):
            stack.callback(server.delete)
            server.initialise()
            server.start()
        with blue.cursor(init_command="SET sql_mode = ''") as cursor:
            for statement in ("CREATE DATABASE d", TABLE, ROWS, "CREATE VIEW d.v AS SELECT id FROM d.t"):
                cursor.execute(statement)
        assert clone(blue, green, tmp_path / "copy") == blue.value("@@GLOBAL.gtid_executed").replace("\n", "")
        assert blue.sql(SUM) == green.sql(SUM)
        assert green.sql("SELECT COUNT(*) FROM d.v") == ((2,),)
        assert green.value("@@GLOBAL.gtid_executed") == blue.value("@@GLOBAL.gtid_executed")
        assert "utf8mb4_general_ci" in green.sql("SHOW CREATE TABLE d.t")[0][1]


def test_a_copy_waits_for_a_long_statement_without_holding_up_writes_for_long(tmp_path: Path) -> None:
    source = Server(tmp_path / "source", "5.7.22", 1)
    with ExitStack() as stack:
        stack.callback(source.delete)
        source.initialise()
        source.start()
        for statement in (
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT)",
            "INSERT INTO d.t VALUES (1)",
            "CREATE TABLE d.u (id INT)",
        ):
            source.sql(statement)
        reader = threading.Thread(target=lambda: source.sql("SELECT SLEEP(5) FROM d.t"))
        reader.start()
        copier = threading.Thread(target=lambda: dump(source, tmp_path / "dump"))
        copier.start()
        longest = 0.0
        while copier.is_alive():
            began = time.monotonic()
            source.sql("INSERT INTO d.u VALUES (1)")
            longest = max(longest, time.monotonic() - began)
        reader.join()
    assert (tmp_path / "dump" / "dump.json").is_file()
    assert longest < 3


def test_servers_of_one_template_are_servers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Server(tmp_path / "one", "8.0.15", 1), Server(tmp_path / "other", "8.0.15", 2)
    with ExitStack() as stack:
        for server in (one, other):
            stack.callback(server.delete)
        one.initialise()
        monkeypatch.setattr(Server, "_make", None)  # there is nothing left to make
        other.initialise()
        for server in (one, other):
            server.start()
        one.sql("CREATE DATABASE mine")
        assert one.value("@@GLOBAL.server_uuid") != other.value("@@GLOBAL.server_uuid")
        assert other.value("@@GLOBAL.gtid_executed") == ""
        assert other.sql("SHOW DATABASES LIKE 'mine'") == ()
        assert other.value("@@GLOBAL.innodb_log_file_size") == 128 * 2**20


def test_other_options_that_a_data_directory_is_made_with_are_another_template(tmp_path: Path) -> None:
    server = Server(tmp_path / "lower", "8.0.15", 1, {"loose-lower-case-table-names": "1"})
    with ExitStack() as stack:
        stack.callback(server.delete)
        server.initialise()
        server.start()  # it refuses another value than that of its making
        assert server.value("@@GLOBAL.lower_case_table_names") == 1
