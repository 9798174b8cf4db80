"""Digests, samples and definitions as real servers print them, read back by the parser, the fingerprint and the catalog."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import MySQLdb
import pytest
import tenacity

from dbops.inventory import catalog, parse, text
from dbops.inventory.fingerprint import fingerprint, normalise
from dbops.inventory.model import Analysis, Program, Reference, TableName, TableRef
from dbops.inventory.resolve import resolve
from tests.inventory.corpus import CASES, Case
from tests.lab.inventory_kit import Mysqld

pytestmark = pytest.mark.lab

VERSIONS = {"mysql57": "5.7", "mysql80": "8.0"}
MAX_DIGEST_LENGTH = 1024

# 8.0 reads information_schema through views, and prints the view's body in place of the statement: documented in `fingerprint`.
OVER_VIEWS = ("SELECT TABLE_NAME FROM information_schema.TABLES", "SHOW TABLES", "SHOW TABLE STATUS")


@dataclass(frozen=True)
class Seen:
    """A statement of the corpus as one server shows it."""

    case: Case
    digest_text: str
    sample: str | None

    @property
    def over_view(self) -> bool:
        return self.case.sql.startswith(OVER_VIEWS)

    def analysis(self) -> Analysis:
        cut = text.is_truncated(self.digest_text, MAX_DIGEST_LENGTH)
        return parse.analyse(self.digest_text, is_digest=True, truncated=cut)


class Schema:
    """Runs statements in a schema of its own and reads what performance_schema says about them."""

    def __init__(self, server: Mysqld) -> None:
        self.server = server
        self.name = f"t{uuid.uuid4().hex[:10]}"
        self.version = server.server.version[:3]
        server.sql(f"CREATE DATABASE `{self.name}`")

    def send(self, statement: str) -> str | None:
        """Run a statement in a new session of this schema; its digest, or None when the server shows none. Errors do not matter."""
        with closing(self.server.connect(database=self.name)) as session, session.cursor() as cursor:
            with suppress(MySQLdb.Error):
                cursor.execute(statement)
                cursor.fetchall()
            with suppress(LookupError):
                return self._digest(session.thread_id(), statement.rstrip(";"))
        return None

    @tenacity.retry(
        wait=tenacity.wait_fixed(0.01),
        stop=tenacity.stop_after_delay(3),
        retry=tenacity.retry_if_exception_type(LookupError),
        reraise=True,
    )
    def _digest(self, session: int, statement: str) -> str | None:
        """The server publishes a statement a moment after it has answered."""
        found = self.server.sql(
            "SELECT h.DIGEST, h.SQL_TEXT FROM performance_schema.events_statements_history AS h"
            " JOIN performance_schema.threads AS t USING (THREAD_ID) WHERE t.PROCESSLIST_ID = %s",
            (session,),
        )
        for digest, sql in found:
            if sql is not None and sql[:200] == statement[:200]:
                return digest
        raise LookupError(statement)

    def summary(self) -> dict[str, tuple[str, str | None]]:
        """Digest -> (its text, a sample) of this schema."""
        sample = "NULL" if self.version == "5.7" else "QUERY_SAMPLE_TEXT"
        found = self.server.sql(
            f"SELECT DIGEST, DIGEST_TEXT, {sample} FROM performance_schema.events_statements_summary_by_digest WHERE SCHEMA_NAME = %s",
            (self.name,),
        )
        return {digest: (digest_text, sampled) for digest, digest_text, sampled in found}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Mysqld]]:
    """Private servers: the lab's own may have no room left for digests."""
    made = {name: Mysqld(name, tmp_path_factory.mktemp(name)) for name in VERSIONS}
    try:
        for server in made.values():
            server.start()
        yield made
    finally:
        for server in made.values():
            server.stop()


@pytest.fixture(scope="module", params=list(VERSIONS))
def schema(request: pytest.FixtureRequest, servers: dict[str, Mysqld]) -> Schema:
    return Schema(servers[request.param])


@pytest.fixture(scope="module")
def seen(schema: Schema) -> list[Seen]:
    """The corpus as this server shows it. What has no digest is not in it."""
    digests = [(case, schema.send(case.sql)) for case in CASES if case.on(schema.version)]
    summary = schema.summary()
    return [Seen(case, *summary[digest]) for case, digest in digests if digest is not None]


def _lower(uses: frozenset[tuple[str | None, str, str]]) -> set[tuple[str | None, str, str]]:
    # Keywords that are names lose their letter case in a digest.
    return {(schema.lower() if schema else None, table.lower(), how) for schema, table, how in uses}


def _triples(found: Analysis) -> set[tuple[str | None, str, str]]:
    return {(name.schema.lower() if name.schema else None, name.table.lower(), how) for name, how in found.uses}


def test_nearly_every_statement_has_a_digest(schema, seen):
    expected = sum(case.on(schema.version) for case in CASES)
    assert expected >= 270
    assert len(seen) >= expected - 2  # a PREPARE that fails has none, nor has ORDER BY after WITH ROLLUP on 5.7


def test_tables_of_real_digests(seen):
    """At least 95 % right, method or reason for each, and no write lost."""
    wrong = [
        (s.case.sql, s.digest_text[:200], found.method)
        for s in seen
        if _triples(found := s.analysis()) != _lower(s.case.uses)
        or {r.lower() for r in found.routines} != {r.lower() for r in s.case.routines}
    ]
    print(f"{len(seen) - len(wrong)} of {len(seen)} digests right")
    assert len(wrong) <= 0.05 * len(seen), wrong
    assert all(case.startswith(OVER_VIEWS) for case, _, _ in wrong), wrong
    assert not [s.digest_text for s in seen if not s.over_view and s.analysis().method == "unparsed"]


def test_no_delete_is_lost(seen):
    deletes = [s for s in seen if text.kind_of(s.case.sql) == "delete"]
    assert len(deletes) >= 20
    for s in deletes:
        found = s.analysis()
        assert found.kind == "delete"
        assert {use for use in _triples(found) if use[2] == "write"} == {
            use for use in _lower(s.case.uses) if use[2] == "write"
        }


def test_fingerprints_of_digest_sample_and_text_agree(seen):
    differing = [
        (normalise(s.case.sql), normalise(s.digest_text, is_digest=True))
        for s in seen
        if not s.over_view
        and len({
            fingerprint(s.case.sql), fingerprint(text.mask_literals(s.case.sql)), fingerprint(s.digest_text, is_digest=True),
            fingerprint(text.mask_literals(s.digest_text), is_digest=True),
        }) > 1
    ]  # fmt: skip
    assert differing == []


def test_fingerprints_of_samples_agree(schema, seen):
    sampled = [s for s in seen if s.sample and not s.over_view]
    assert len(sampled) >= (0 if schema.version == "5.7" else 250)  # 5.7 keeps none
    # One sample stands for all statements of a digest, which may differ in values.
    assert [s.sample for s in sampled if fingerprint(s.sample or "") != fingerprint(s.case.sql)] == []


@pytest.mark.parametrize(
    ("statement", "written", "read"),
    [
        ("DELETE FROM long_table WHERE " + " OR ".join(f"column_number_{n} = {n}" for n in range(90)), {"long_table"}, set()),
        ("UPDATE long_table SET " + ", ".join(f"column_number_{n} = {n}" for n in range(90)), {"long_table"}, set()),
        ("DELETE a, b FROM t1 a JOIN t2 b ON " + " AND ".join(f"a.column_{n} = b.column_{n}" for n in range(90)), {"t1", "t2"}, set()),
        ("INSERT INTO t1 SELECT " + ", ".join(f"column_number_{n}" for n in range(90)) + " FROM t2", {"t1"}, set()),
        ("SELECT a.x FROM t1 a JOIN t2 b ON " + " AND ".join(f"a.column_{n} = b.column_{n}" for n in range(90)), set(), {"t1", "t2"}),
    ],
    ids=["delete", "update", "delete of two", "insert", "select"],
)  # fmt: skip
def test_cut_digests(schema, statement, written, read):
    digest = schema.send(statement)
    digest_text, sample = schema.summary()[digest]
    assert text.is_truncated(digest_text, MAX_DIGEST_LENGTH), text.digest_bytes(digest_text)
    found = parse.analyse(digest_text, is_digest=True, truncated=True)
    assert found.method == "truncated-regex"
    assert found.tables("write") == {TableName(None, name) for name in written}
    assert found.tables("read") >= {TableName(None, name) for name in read}
    assert fingerprint(digest_text, is_digest=True, truncated=True) != fingerprint(statement)
    if sample:
        assert sample.endswith("...")


def test_whole_digests_are_not_taken_for_cut(seen):
    assert [
        s.digest_text for s in seen if text.is_truncated(s.digest_text, MAX_DIGEST_LENGTH) and not s.over_view
    ] == []


def test_every_cut_is_noticed(schema):
    """Statements that grow over the limit, by identifiers of many lengths."""
    sent = set()
    for length in (1, 7, 20, 40, 64):
        column = "c".ljust(length, "x")
        for condition in (f"{column} = 1", f"({column} IN (1, 2))", f"UPPER({column}) > {column}"):
            size = text.digest_bytes(condition.replace(column, f"`{column}`")) + 2
            for padding in range(1, 60, 4):
                for count in range((MAX_DIGEST_LENGTH - 60) // size, (MAX_DIGEST_LENGTH + 20) // size):
                    start = f"SELECT {'p' * padding} FROM t WHERE "
                    sent.add(schema.send(start + " AND ".join([condition] * count) + " AND last_of_all"))
    summary = schema.summary()
    cut = {summary[digest][0] for digest in sent if "last_of_all" not in summary[digest][0]}
    whole = {summary[digest][0] for digest in sent} - cut
    assert len(cut) > 60
    assert len(whole) > 60
    assert [digest_text for digest_text in cut if not text.is_truncated(digest_text, MAX_DIGEST_LENGTH)] == []
    # The other error is possible only where the buffer is nearly full.
    assert all(text.digest_bytes(w) > MAX_DIGEST_LENGTH - 200 for w in whole if text.is_truncated(w, MAX_DIGEST_LENGTH))


def test_both_versions_have_one_fingerprint(servers):
    """The same statement on 5.7 and on 8.0: digests differ, fingerprints do not."""
    shown: dict[str, list[str]] = {}
    for server in servers.values():
        made = Schema(server)
        digests = {case.sql: made.send(case.sql) for case in CASES if not case.only}
        summary = made.summary()
        for statement, digest in digests.items():
            if digest and not statement.startswith(OVER_VIEWS):
                shown.setdefault(statement, []).append(summary[digest][0])
    both = [texts for texts in shown.values() if len(texts) == 2]
    assert len(both) >= 250
    assert any(old.strip() != new.strip() for old, new in both)
    assert [texts for texts in both if len({fingerprint(digest, is_digest=True) for digest in texts}) > 1] == []


# -- the catalog -------------------------------------------------------------------------------------------------------------

DEFINITIONS = (
    "CREATE TABLE parent (id INT UNSIGNED AUTO_INCREMENT, name VARCHAR(40) NOT NULL, note TEXT, PRIMARY KEY (id), UNIQUE u (name),"
    " KEY p (note(10))) CHARSET utf8mb4",
    "CREATE TABLE child (id INT PRIMARY KEY, parent_id INT UNSIGNED, qty INT, twice INT AS (qty * 2),"
    " CONSTRAINT `{0}_fk` FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL)",
    "CREATE TABLE log (what VARCHAR(20))",
    "CREATE VIEW both_of AS SELECT p.name AS title, c.qty FROM parent p JOIN child c ON c.parent_id = p.id",
    "CREATE TRIGGER logged AFTER DELETE ON parent FOR EACH ROW INSERT INTO log VALUES ('gone')",
    "CREATE PROCEDURE sweep(IN a INT) BEGIN DELETE FROM parent WHERE id = a; END",
    "CREATE FUNCTION total(a INT) RETURNS INT READS SQL DATA RETURN (SELECT SUM(qty) FROM child WHERE parent_id = a)",
    "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM log",
)


@pytest.fixture(scope="module")
def defined(schema: Schema) -> Schema:
    made = Schema(schema.server)
    with closing(made.server.connect(database=made.name)) as session, session.cursor() as cursor:
        for statement in DEFINITIONS:
            cursor.execute(statement.replace("{0}", made.name))
    return made


@pytest.fixture
def conn(defined: Schema) -> Iterator[Any]:
    with closing(defined.server.connect()) as opened:
        yield opened


def test_catalog(defined, conn):
    schema = defined.name
    found, gaps = catalog.read(conn, [schema])
    assert gaps == []
    assert set(found.tables) == {TableRef(schema, name) for name in ("parent", "child", "log")}
    parent = found.tables[TableRef(schema, "parent")]
    assert [(c.name, c.data_type, c.nullable, c.is_auto_increment) for c in parent.columns] == [
        ("id", "int", False, True), ("name", "varchar", False, False), ("note", "text", True, False),
    ]  # fmt: skip
    assert [(i.name, i.columns, i.unique, i.has_prefix) for i in parent.indexes] == [
        ("PRIMARY", ("id",), True, False), ("p", ("note",), False, True), ("u", ("name",), True, False),
    ]  # fmt: skip
    assert [c.is_generated for c in found.tables[TableRef(schema, "child")].columns] == [False, False, False, True]
    assert parent.engine == "InnoDB"
    assert parent.data_bytes > 0
    assert found.references == (
        Reference(
            f"{schema}_fk",
            TableRef(schema, "child"),
            TableRef(schema, "parent"),
            "CASCADE",
            "SET NULL",
            ("parent_id",),
            ("id",),
        ),
    )
    assert {(p.kind, p.name, p.event, p.table) for p in found.programs} == {
        ("procedure", "sweep", "", None), ("function", "total", "", None), ("event", "nightly", "EVERY 1 DAY", None),
        ("trigger", "logged", "DELETE", TableRef(schema, "parent")),
    }  # fmt: skip
    assert Program("event", schema, "nightly", "DELETE FROM log", None, "EVERY 1 DAY") in found.programs
    assert not found.folds_case


def test_catalog_is_the_same_as_the_room_s_shared_reader(defined, conn):
    from dbops import mysql as facts

    found, _ = catalog.read(conn, [defined.name])
    for ref, table in found.tables.items():
        assert table == facts.read_table(conn, ref.schema, ref.table)


def test_system_schemas_are_read_only_when_named(defined, conn):
    found, _ = catalog.read(conn)
    schemas = {ref.schema for ref in (*found.tables, *found.views)}
    assert defined.name in schemas
    assert not schemas & set(catalog.SYSTEM_SCHEMAS)
    named, _ = catalog.read(conn, ["sys"])
    assert {ref.schema for ref in (*named.tables, *named.views)} == {"sys"}


def test_real_definitions_resolve(defined, conn):
    schema = defined.name
    found, _ = catalog.read(conn, [schema])

    def uses(sql: str) -> set[tuple[str, str, str]]:
        return {(u.table.table, u.access, u.via) for u in resolve(parse.analyse(sql), schema, found)[0]}

    fk, log = f"foreign key {schema}_fk", f"trigger {schema}.logged"
    assert uses("SELECT title FROM both_of") == {
        ("both_of", "read", ""), ("parent", "read", f"view {schema}.both_of"), ("child", "read", f"view {schema}.both_of"),
    }  # fmt: skip
    assert uses("CALL sweep(1)") == {
        ("parent", "write", f"procedure {schema}.sweep"),
        ("child", "write", fk),
        ("log", "write", log),
    }
    assert uses("SELECT total(id) FROM parent") == {
        ("parent", "read", ""),
        ("child", "read", f"function {schema}.total"),
    }
    columns = resolve(parse.analyse("SELECT title FROM both_of"), schema, found)[1]
    assert {(c.table.table, c.column) for c in columns} >= {("parent", "id"), ("child", "parent_id")}
    assert resolve(parse.analyse("SELECT * FROM no_such"), schema, found)[2] == (f"{schema}.no_such",)


def test_what_the_user_may_not_see_is_a_gap(defined):
    schema, user = defined.name, f"u{defined.name[1:10]}"
    defined.server.sql(f"CREATE USER '{user}'@'%' IDENTIFIED WITH mysql_native_password BY 'x'")
    try:
        defined.server.sql(f"GRANT SELECT, EXECUTE ON `{schema}`.* TO '{user}'@'%'")
        with closing(defined.server.connect(user, password="x")) as limited:
            found, gaps = catalog.read(limited, [schema])
    finally:
        defined.server.sql(f"DROP USER '{user}'@'%'")
    assert len(found.tables) == 3
    assert found.views == {TableRef(schema, "both_of"): ""}
    what = " | ".join(gap.what for gap in gaps)
    assert f"definition of 1 views: {schema}.both_of" in what
    assert f"procedure {schema}.sweep" in what
    assert f"triggers in 1 schemas: {schema}" in what
    assert f"events in 1 schemas: {schema}" in what
    assert all(gap.why and gap.remedy for gap in gaps)
    unresolved = resolve(parse.analyse("SELECT title FROM both_of"), schema, found)[2]
    assert unresolved == (f"definition of view {schema}.both_of",)
