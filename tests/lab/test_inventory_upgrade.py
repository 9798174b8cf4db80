"""The upgrade check against the truth: every probe is really run by a 5.7.22 and by an 8.0.15 server, both made for this module."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import MySQLdb
import pytest

from dbops.inventory import text as sqltext
from dbops.inventory import trials, upgrade
from lab import config, mysql, processes
from tests.inventory.upgrade_probes import PROBES, SCHEMA

pytestmark = pytest.mark.lab


def refused(conn: Any, statement: str) -> tuple[int, str] | None:
    """The server's objection when the statement is really run, or None. Rows that do not exist or a missing file are no objection."""
    try:
        with conn.cursor() as cursor:
            cursor.execute(statement)
            cursor.fetchall()
    except MySQLdb.Error as error:
        return None if error.args[0] in _ABOUT_DATA else (int(error.args[0]), str(error.args[-1]))
    return None


# secure_file_priv, no such file, no such database, duplicate key ...: the grammar was read before
_ABOUT_DATA = {1290, 29, 13, 1049, 1062, 1133, 1269, 1410, 3162}


def fresh(conn: Any) -> None:
    """The probes' schema as it was: a probe may have changed it."""
    for statement in ("DROP DATABASE IF EXISTS probes", "CREATE DATABASE probes", "USE probes", *SCHEMA):
        conn.query(statement)
    for user in ("probe", "new"):
        with suppress(MySQLdb.Error):
            conn.query(f"DROP USER '{user}'@'localhost'")
    conn.query("CREATE USER 'probe'@'localhost' IDENTIFIED BY 'a'")
    conn.query("INSERT INTO t VALUES (7, 7, 'a car', NULL, NULL)")
    conn.query("INSERT INTO geo VALUES (7, ST_GeomFromText('POINT(1 1)'))")
    conn.query("SET SESSION sql_mode = DEFAULT")


@pytest.fixture(scope="module")
def servers(lab_is_up: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Name -> root connection of a server that only this module uses."""
    made: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(tmp_path_factory.mktemp("lab")))
        patch.setattr(mysql, "LOG_FILE_SIZE", "48M")
        patch.setattr(config, "mysql_buffer_pool", lambda: "64M")
        try:
            for server in config.MYSQL_SERVERS.values():
                with socket.create_server((config.HOST, 0)) as free:
                    port = int(free.getsockname()[1])
                patch.setenv(config.port_variable(server.name), str(port))
                processes.start(mysql.service(server))
                made[server.name] = mysql.root_connection(server.name)
                made[server.name].query("SET GLOBAL innodb_flush_log_at_trx_commit = 0, GLOBAL sync_binlog = 0")
            yield made
        finally:
            for name in made:
                processes.stop(name)


@pytest.fixture(scope="module")
def truth(servers: dict[str, Any]) -> dict[str, tuple[tuple[int, str] | None, tuple[int, str] | None]]:
    """Probe -> what 5.7 and 8.0 said when it was run."""
    found = {}
    for probe, _ in PROBES:
        said = []
        for conn in servers.values():
            fresh(conn)
            said.append(refused(conn, probe))
        found[probe] = (said[0], said[1])
    return found


def test_probes_are_what_two_real_servers_say(truth: dict[str, Any]) -> None:
    assert {probe: said[0] for probe, said in truth.items() if said[0]} == {}, "5.7 refuses a probe"
    wrong = {probe: truth[probe][1] for probe, breaks in PROBES if bool(truth[probe][1]) != breaks}
    assert wrong == {}
    assert len(PROBES) >= 82
    assert sum(breaks for _, breaks in PROBES) >= 47


def test_rules_find_what_breaks_and_nothing_else(truth: dict[str, Any]) -> None:
    said = {probe: any(f.severity == "breaks" for f in upgrade.check(probe, target=(8, 0, 15))) for probe in truth}
    assert {probe for probe, found in said.items() if found} == {probe for probe, (_, by_80) in truth.items() if by_80}


def test_server_finds_what_breaks_and_nothing_else(servers: dict[str, Any], truth: dict[str, Any]) -> None:
    conn = servers["mysql80"]
    fresh(conn)
    before = state(conn)
    said = {probe: upgrade.check_on_server(conn, probe, schema="probes") for probe in truth}
    found = {probe for probe, findings in said.items() if any(f.severity == "breaks" for f in findings)}
    assert found == {probe for probe, (_, by_80) in truth.items() if by_80}
    assert [p for p, findings in said.items() if any(f.severity == "not checked" for f in findings)] == []
    by_server = {
        probe for probe, findings in said.items() if any(f.by == "server" and f.severity == "breaks" for f in findings)
    }
    # Partitioning is looked at when CREATE TABLE runs, so that answer is a rule's.
    assert found - by_server == {p for p in found if "PARTITION BY" in p}
    assert state(conn) == before, "the check changed something"


def state(conn: Any) -> tuple[Any, ...]:
    """What a check that executes something would change."""
    with conn.cursor() as cursor:
        seen = []
        for query in (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'probes' ORDER BY 1",
            "SELECT * FROM t", "SELECT * FROM scores", "SELECT * FROM geo",
            "SELECT user, host, authentication_string FROM mysql.user ORDER BY 1, 2",
            "SELECT @@sql_mode, @@global.sync_binlog, @@global.sql_mode",
        ):  # fmt: skip
            cursor.execute(query)
            seen.append(cursor.fetchall())
    return tuple(seen)


def test_server_says_so_where_it_lacks_the_table(servers: dict[str, Any]) -> None:
    conn = servers["mysql80"]
    fresh(conn)
    (finding,) = upgrade.check_on_server(conn, "SELECT id FROM not_restored", schema="probes")
    assert (finding.severity, finding.by) == ("not checked", "server")
    assert "not_restored" in finding.evidence
    both = upgrade.check_on_server(conn, "SELECT PASSWORD(b) FROM not_restored", schema="probes")
    assert "breaks" in {f.severity for f in both}
    assert "not checked" in {f.severity for f in upgrade.check_on_server(conn, "SELECT 1 FROM t", schema="nowhere")}
    for text in (
        "SELECT id FROM event",
        "DELETE FROM proc WHERE id = 1",
        "SELECT id FROM innodb_locks",
        "SELECT x.f(1)",
    ):
        (finding,) = (f for f in upgrade.check_on_server(conn, text, schema="probes") if f.by == "server")
        assert finding.severity == "not checked", finding  # names of the application that 8.0 has removed elsewhere
    for text in (
        "SELECT * FROM mysql.proc",
        "SELECT * FROM mysql.event",
        "SELECT PASSWORD('a')",
        "SELECT X(g) FROM geo",
    ):
        assert "breaks" in {
            f.severity for f in upgrade.check_on_server(conn, text, schema="probes") if f.by == "server"
        }


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("SELECT CAST(a AS CHAR(?)) FROM t", "probes"),  # masked: no placeholder may stand there
        ("LOAD DATA INFILE ? INTO TABLE t", "probes"),
        ("LOAD DATA INFILE '/tmp/none.csv' INTO TABLE t", None),
        ("SELECT a FROM t", None),
        ("Quit", "probes"),
    ],
)
def test_what_the_server_cannot_be_asked_is_not_a_break(servers: dict[str, Any], text: str, schema: str | None) -> None:
    conn = servers["mysql80"]
    fresh(conn)
    conn.query("DROP DATABASE probes") if schema is None else None
    assert [f.severity for f in upgrade.check_on_server(conn, text, schema=schema, masked=True)] == ["not checked"]


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("SELECT a AS rank FROM t WHERE b = 'secret'", "near rank FROM t WHERE"),
        ("SELECT b AS description, 'secret' FROM t GROUP BY b desc", "near desc"),
        ("SELECT * FROM t WHERE b = 'O'Secret' AND a = 'x'", "near ?"),
        ("SELECT a FROM t WHERE", "near its end"),
        ("SET GLOBAL query_cache_size = 4711", "1193: Unknown system variable `query_cache_size`"),
        ("SELECT id FROM not_restored", "1146: Table `probes.not_restored` doesn"),
        ("SELECT a FROM t WHERE b REGEXP '[[:<:]]secret'", "3685: Illegal argument to a regular expression"),
    ],
)
def test_the_server_s_message_says_where_and_holds_no_value(servers: dict[str, Any], text: str, evidence: str) -> None:
    fresh(servers["mysql80"])
    found = trials.checker(servers["mysql80"])(text, "probes")
    (finding,) = (trials._masked(f) for f in found if f.by == "server")
    assert evidence in finding.evidence
    assert not any(value in finding.evidence.lower() for value in ("secret", "4711"))


def test_a_lost_connection_is_no_answer(servers: dict[str, Any]) -> None:
    conn = mysql.root_connection("mysql80")
    servers["mysql80"].query(f"KILL {conn.thread_id()}")
    with pytest.raises(MySQLdb.OperationalError):
        upgrade.check_on_server(conn, "SELECT 1")


def test_a_statement_that_costs_the_connection_does_not_stand_before_the_rest(servers: dict[str, Any]) -> None:
    """Longer than max_allowed_packet: the server hangs up. Where that is recorded, the next time begins behind it."""
    servers["mysql80"].query("SET GLOBAL max_allowed_packet = 1048576")
    try:
        check = trials.checker(mysql.root_connection("mysql80"))
        assert check("SELECT 1", None) == []
        long = "SELECT PASSWORD('a'), '" + "x" * (3 << 20) + "'"
        found = check(long, None)
        assert [(f.severity, f.by) for f in found] == [("not checked", "server"), ("breaks", "rule")]
        with pytest.raises(MySQLdb.Error):
            check("SELECT 2", None)
        with trials.Explainer(lambda: mysql.root_connection("mysql80")) as explain:
            assert explain("SELECT 1", None) is not None
            assert explain(long.replace("PASSWORD", "MD5"), None) is None
            assert explain("SELECT 3", None) is not None
    finally:
        servers["mysql80"].query("SET GLOBAL max_allowed_packet = DEFAULT")


def test_placeholders_of_a_prepared_statement_are_no_obstacle(servers: dict[str, Any]) -> None:
    conn = servers["mysql80"]
    fresh(conn)
    for text in ("SELECT a FROM t WHERE id = ? LIMIT ?", "INSERT INTO t (id, b) VALUES (?, ?)", "SET @x = ?"):
        assert upgrade.check_on_server(conn, text, schema="probes") == []
    (finding,) = upgrade.check_on_server(conn, "SELECT a AS rank FROM t WHERE id = ?", schema="probes")
    assert (finding.severity, finding.by) == ("breaks", "server")


def test_words_functions_variables_and_tables_are_those_of_the_servers(servers: dict[str, Any]) -> None:
    old, new = servers["mysql57"], servers["mysql80"]
    fresh(old)
    fresh(new)
    with new.cursor() as cursor:
        cursor.execute("SELECT word FROM information_schema.keywords")
        words = [row[0] for row in cursor.fetchall()]
    reserved = {
        w for w in words if refused(old, f"SELECT 1 AS {w}") is None and refused(new, f"SELECT 1 AS {w}") is not None
    }
    assert reserved == {w for w, since in upgrade.RESERVED.items() if since <= (8, 0, 15)}
    assert [
        w for w in reserved if refused(new, f"SELECT s.{w} FROM (SELECT 1 AS `{w}`) AS s")
    ] == []  # after a dot any word will do

    def variables(conn: Any) -> set[str]:
        with conn.cursor() as cursor:
            names: set[str] = set()
            for scope in ("GLOBAL", "SESSION"):
                cursor.execute(f"SHOW {scope} VARIABLES")
                names |= {row[0].lower() for row in cursor.fetchall()}
        return names

    assert variables(old) - variables(new) == upgrade.REMOVED_VARIABLES

    def tables(conn: Any) -> set[tuple[str, str]]:
        with conn.cursor() as cursor:
            cursor.execute("SELECT table_schema, table_name FROM information_schema.tables")
            return {
                (s.lower(), t.lower())
                for s, t in cursor.fetchall()
                if s in (*upgrade.REMOVED_TABLES, "INFORMATION_SCHEMA")
            }

    assert tables(old) - tables(new) == {(s, t) for s, listed in upgrade.REMOVED_TABLES.items() for t in listed}
    calls = ("", "1", "1,1", "'a'")
    for name in upgrade.REMOVED_FUNCTIONS:
        assert not any((said := refused(old, f"SELECT {name}({a})")) and said[0] == 1305 for a in calls), name
        assert {(refused(new, f"SELECT {name}({a})") or (0,))[0] for a in calls} <= {1305, 1064}, name
    for mode in upgrade.REMOVED_MODES:
        assert refused(old, f"SET SESSION sql_mode = '{mode}'") is None
        assert refused(new, f"SET SESSION sql_mode = '{mode}'") is not None


def test_digest_of_a_probe_finds_it_or_asks_for_the_raw_text(servers: dict[str, Any], truth: dict[str, Any]) -> None:
    """On 5.7 the digest is often all there is: what breaks is found, or named as not decidable; it is never silently fine."""
    conn = servers["mysql57"]
    silent, found, asked = [], 0, 0
    for probe, breaks in PROBES:
        if not breaks:
            continue
        fresh(conn)
        severities = {f.severity for f in upgrade.check(digest(conn, probe), is_digest=True, target=(8, 0, 15))}
        found += "breaks" in severities
        asked += "breaks" not in severities and "needs raw text" in severities
        if not severities & {"breaks", "needs raw text"}:
            silent.append(probe)
    assert all(r"\N" in probe for probe in silent), (
        silent
    )  # the digest prints ? for it as for every literal: documented
    assert (found, asked) == (50, 29)


def digest(conn: Any, statement: str) -> str:
    """MySQL's DIGEST_TEXT of a statement that is run: the newest in the history, because sql_text hides passwords."""
    refused(conn, "TRUNCATE performance_schema.events_statements_history")
    refused(conn, statement)
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT digest_text FROM performance_schema.events_statements_history AS h JOIN performance_schema.threads AS t"
            " USING (thread_id) WHERE t.processlist_id = CONNECTION_ID() ORDER BY event_id DESC LIMIT 1"
        )
        (text,) = cursor.fetchone()
    return str(text)


def test_masked_text_of_a_probe(truth: dict[str, Any]) -> None:
    """What the store keeps has no literals: only what stands in a literal asks for the raw text."""
    asked = set()
    for probe, breaks in PROBES:
        findings = upgrade.check(sqltext.mask_literals(probe), masked=True, target=(8, 0, 15))
        if breaks and not any(f.severity == "breaks" for f in findings) and r"\N" not in probe:
            assert any(f.severity == "needs raw text" for f in findings), probe
            asked.add(probe.split()[0])
        assert breaks or not any(f.severity == "breaks" for f in findings), probe
    assert asked == {"SET", "SELECT"}  # sql_mode and REGEXP
