"""Facts and checks of a source on real servers: the least grants, each grant taken away, variables set wrong, tables of every kind.

The servers are the tests' own, because global variables are changed; their schema mysql has what RDS puts there.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from dbops import sql
from dbops.dms import source, target
from dbops.dms.facts import NEVER, Check, SourceFacts
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec
from lab.config import HOST
from tests.dms.dms_kit import KINESIS, MYSQL_TARGET, SELECT_ALL, spec
from tests.lab import replica_kit
from tests.lab.replica_kit import PASSWORD, Side

pytestmark = pytest.mark.lab

SOUND = {"binlog-checksum": "NONE", "net-read-timeout": "300", "net-write-timeout": "300", "binlog-row-image": "FULL"}
CANARY = {"schema_name": "shop", "table": "dms_canary"}


@pytest.fixture(scope="module", params=["5.7.22", "8.0.15"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with replica_kit.one(tmp_path_factory.mktemp("source"), request.param, **SOUND) as made:
        made.server.sql("CALL mysql.rds_set_configuration('binlog retention hours', 72)")
        yield made


@pytest.fixture
def shop(server: Side) -> Iterator[Side]:
    """The schema shop with orders and the canary, and nothing of another test."""
    root(server, "DROP DATABASE IF EXISTS shop", "CREATE DATABASE shop CHARACTER SET utf8mb4", "USE shop",
         "CREATE TABLE orders (id BIGINT UNSIGNED PRIMARY KEY, at TIMESTAMP(3) NULL, note TEXT)",
         "CREATE TABLE dms_canary (id INT PRIMARY KEY, token VARCHAR(64) NOT NULL, written_at DATETIME(6) NOT NULL)")  # fmt: skip
    yield server
    root(server, "DROP DATABASE IF EXISTS shop")


def root(server: Side, *statements: str) -> None:
    with server.server.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def wanted(**more: Any) -> DmsSpec:
    return spec(**{"canary": CANARY, **more})


def logins(server: Side) -> tuple[str, str]:
    """Two new users without any grant: ours, and that of DMS."""
    names = tuple(f"{name}_{uuid.uuid4().hex[:8]}" for name in ("ours", "dms"))
    for name in names:
        root(server, f"CREATE USER '{name}'@'%' IDENTIFIED WITH mysql_native_password BY '{PASSWORD}'")
    return names[0], names[1]


def grant(server: Side, ours: str, theirs: str, **values: Any) -> None:
    """What include/sql/dms/grants.sql says, and nothing else."""
    given = {
        "ours": f"'{ours}'@'%'", "theirs": f"'{theirs}'@'%'", "schemas": ["shop"], "follows": True, "is_managed": True,
        "canary": ("shop", "dms_canary"), "target_schemas": [], "assessed": True, "has_roles": server.server.is_80, **values,
    }  # fmt: skip
    text = "\n".join(line for line in sql.render("dms/grants", **given).splitlines() if not line.startswith("--"))
    root(server, *(statement for statement in text.split(";") if statement.strip()))


@contextmanager
def connection(server: Side, user: str) -> Iterator[Any]:
    with closing(server.connect(user)) as conn:
        yield conn


def looked(server: Side, by: DmsSpec | None = None, user: str = "", **more: Any) -> SourceFacts:
    with closing(server.connect(user) if user else server.server.connect()) as conn:
        return source.gather(conn, by or wanted(), **more)


def wrong(facts: SourceFacts, by: DmsSpec | None = None, **more: Any) -> list[Check]:
    return [one for one in source.check(by or wanted(), facts, **more) if one.status != "ok"]


def test_the_least_grants_are_enough_for_both_logins(shop: Side) -> None:
    ours, theirs = logins(shop)
    grant(shop, ours, theirs)
    facts = looked(shop, user=ours, login=theirs)
    assert [str(one) for one in wrong(facts)] == []
    assert facts.tables == (Table("shop", "dms_canary"), Table("shop", "orders"))
    assert (facts.is_managed, facts.retention_hours, facts.is_replica) == (True, 72, False)
    assert facts.binary_logs == tuple(row[0] for row in shop.server.sql("SHOW BINARY LOGS"))
    assert facts.log_bytes_per_s is not None
    with connection(shop, theirs) as conn, conn.cursor() as cursor:  # the login of DMS can do its work
        cursor.execute("SELECT COUNT(*) FROM shop.orders")
        cursor.execute("SHOW BINARY LOGS")
    followed(shop, theirs)
    assert (looked(shop, user=ours).log_bytes_per_s or 0) > 0  # something was written


def followed(server: Side, user: str) -> None:
    """Read the row of a change from the binary log, as DMS does."""
    from pymysqlreplication import BinLogStreamReader, row_event

    (last,) = server.server.sql("SHOW BINARY LOGS")[-1:]
    root(server, "SET sql_log_bin = 1", "REPLACE INTO shop.orders (id, note) VALUES (7, 'seen')")
    stream = BinLogStreamReader(
        connection_settings={"host": HOST, "port": server.server.port, "user": user, "passwd": PASSWORD},
        server_id=4711, log_file=last[0], log_pos=4, resume_stream=True, only_events=[row_event.WriteRowsEvent], only_tables=["orders"],
    )  # fmt: skip
    with closing(stream):
        assert any(event.schema == "shop" for event in stream)


TAKEN: list[tuple[str, str, str, str]] = [
    ("REPLICATION CLIENT ON *.*", "ours", "binlog-filters", "GRANT REPLICATION CLIENT ON *.* to our login"),
    ("REPLICATION CLIENT ON *.*", "ours", "binlog-files", "GRANT REPLICATION CLIENT ON *.* to our login"),
    ("REPLICATION CLIENT ON *.*", "ours", "replica-source", "GRANT REPLICATION CLIENT ON *.* to our login"),
    ("SELECT ON mysql.*", "ours", "grants", "GRANT SELECT ON mysql.* to our login"),
    ("SELECT ON shop.*", "ours", "visibility", "GRANT SELECT ON shop.* to our login"),
    ("REPLICATION CLIENT ON *.*", "theirs", "grants", "GRANT REPLICATION CLIENT ON *.* TO"),
    ("REPLICATION SLAVE ON *.*", "theirs", "grants", "GRANT REPLICATION SLAVE ON *.* TO"),
    ("SELECT ON shop.*", "theirs", "grants", "GRANT SELECT ON `shop`.`dms_canary` TO"),
]


@pytest.mark.parametrize(("privilege", "whose", "name", "fix"), TAKEN)
def test_a_grant_that_is_missing_is_named(shop: Side, privilege: str, whose: str, name: str, fix: str) -> None:
    ours, theirs = logins(shop)
    grant(shop, ours, theirs)
    root(shop, f"REVOKE {privilege} FROM '{ours if whose == 'ours' else theirs}'@'%'")
    found = [one for one in wrong(looked(shop, user=ours, login=theirs)) if one.id == name]
    assert [fix in one.fix for one in found] == [True], [str(one) for one in found]


def test_a_login_without_any_grant_knows_nothing_and_passes_nothing(shop: Side) -> None:
    ours, theirs = logins(shop)
    facts = looked(shop, user=ours, login=theirs)
    assert (facts.logs, facts.log_filters, facts.is_replica, facts.log_bytes_per_s, facts.tables) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert facts.login is not None
    assert facts.login.accounts is None
    found = {one.id: one for one in wrong(facts)}
    assert found["nothing-selected"].stops
    assert found["binlog-files"].stops
    with connection(shop, ours) as conn:
        assert source.binary_logs(conn) is None


def test_how_long_rds_keeps_the_log_is_read_from_the_table_or_by_its_procedure(shop: Side) -> None:
    ours, theirs = logins(shop)
    root(shop, f"GRANT EXECUTE ON PROCEDURE mysql.rds_show_configuration TO '{ours}'@'%'")
    facts = looked(shop, user=ours)
    assert (facts.retention_hours, facts.is_managed) == (72, True)
    root(shop, "UPDATE mysql.rds_configuration SET value = NULL")
    try:
        facts = looked(shop)
        assert (facts.retention_hours, facts.is_managed) == (0, True)
        (found,) = [one for one in wrong(facts) if one.id == "retention"]
        assert (found.stops, "rds_set_configuration" in found.fix) == (True, True)
    finally:
        root(shop, "CALL mysql.rds_set_configuration('binlog retention hours', 72)")
    assert (
        looked(shop, user=theirs).is_managed is False
    )  # it may read nothing of mysql, and the folder is not that of RDS


def test_how_long_any_other_server_keeps_the_log_is_a_variable(shop: Side) -> None:
    root(
        shop,
        "RENAME TABLE mysql.rds_configuration TO mysql.rds_configuration_",
        "DROP PROCEDURE mysql.rds_show_configuration",
    )
    try:
        is_80 = shop.server.is_80
        root(shop, "SET GLOBAL binlog_expire_logs_seconds = 7200" if is_80 else "SET GLOBAL expire_logs_days = 2")
        facts = looked(shop)
        assert (facts.retention_hours, facts.is_managed) == (2 if is_80 else 48, False)
        root(shop, "SET GLOBAL expire_logs_days = 0", *(["SET GLOBAL binlog_expire_logs_seconds = 0"] if is_80 else []))
        assert looked(shop).retention_hours == NEVER
    finally:
        root(shop, "RENAME TABLE mysql.rds_configuration_ TO mysql.rds_configuration",
             "CREATE PROCEDURE mysql.rds_show_configuration() SELECT name, value, description FROM mysql.rds_configuration")  # fmt: skip


VARIABLES: list[tuple[str, str, str, str]] = [
    ("binlog_format", "STATEMENT", "binlog-format", "stop"),
    ("binlog_format", "MIXED", "binlog-format", "stop"),
    ("binlog_row_image", "MINIMAL", "binlog-row-image", "stop"),
    ("binlog_row_image", "NOBLOB", "binlog-row-image", "stop"),
    ("binlog_checksum", "CRC32", "binlog-checksum", "stop"),
    ("binlog_row_value_options", "PARTIAL_JSON", "binlog-json", "stop"),
    ("max_execution_time", "1000", "statement-limit", "warning"),
    ("time_zone", "+05:30", "time-zone", "stop"),
    ("require_secure_transport", "ON", "secure-transport", "stop"),
]


@pytest.mark.parametrize(("variable", "value", "name", "status"), VARIABLES)
def test_a_variable_that_is_set_wrong_is_found(shop: Side, variable: str, value: str, name: str, status: str) -> None:
    if variable == "binlog_row_value_options" and not shop.server.is_80:
        assert variable not in looked(shop).variables  # 5.7 has no such thing, so nothing is held against it
        return
    by = wanted(source={**MYSQL_TARGET, "ssl_mode": "none"}, target={**MYSQL_TARGET, "identifier": "other"})
    # One session for all: a new one would not come in while TLS is required.
    with closing(shop.server.connect()) as conn, conn.cursor() as cursor:
        cursor.execute(f"SELECT @@GLOBAL.{variable}")
        (before,) = cursor.fetchone()
        cursor.execute(f"SET GLOBAL {variable} = {value if value.isdigit() else sql.lit(value)}")
        try:
            facts = source.gather(conn, by)
        finally:
            cursor.execute(f"SET GLOBAL {variable} = {sql.lit(before)}")
    found = [one for one in wrong(facts, by) if one.id == name]
    assert [one.status for one in found] == [status], [str(one) for one in wrong(facts, by)]
    assert found[0].fix


TABLES = """
CREATE TABLE keyless (a INT, b INT);
CREATE TABLE prefixed (v VARCHAR(90) NOT NULL, UNIQUE (v(10)));
CREATE TABLE maybe (a INT NULL, UNIQUE (a));
CREATE TABLE named (a INT NOT NULL, b INT NOT NULL, UNIQUE (a, b));
CREATE TABLE old (id INT PRIMARY KEY) ENGINE = MyISAM;
CREATE TABLE computed (id INT PRIMARY KEY, a INT AS (id + 1) VIRTUAL, b INT AS (id + 2) STORED);
CREATE TABLE parted (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2;
CREATE TABLE parent (id INT PRIMARY KEY);
CREATE TABLE child (id INT PRIMARY KEY, p INT, q INT, r INT, CONSTRAINT gone FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE,
    CONSTRAINT moved FOREIGN KEY (q) REFERENCES parent (id) ON DELETE SET NULL ON UPDATE CASCADE,
    CONSTRAINT fine FOREIGN KEY (r) REFERENCES parent (id));
CREATE TABLE wide (id INT PRIMARY KEY, v VARCHAR(9) CHARACTER SET utf16, place POINT);
CREATE TABLE kinds (id INT PRIMARY KEY, e ENUM('a'), s SET('a', 'b'), y YEAR, t TIME);
CREATE TABLE `it's` (id INT PRIMARY KEY);
CREATE VIEW seen AS SELECT * FROM parent;
"""
EXPECTED = {
    ("row-key", "shop.keyless", "stop"), ("row-key", "shop.prefixed", "stop"), ("row-key", "shop.maybe", "stop"),
    *(("duplicate-rows", f"shop.{name}", "stop") for name in ("keyless", "prefixed", "maybe", "named")),  # the linter's
    ("engine", "shop.old", "warning"),
    ("generated-columns", "shop.computed.a", "warning"), ("generated-columns", "shop.computed.b", "warning"),
    ("partitions", "shop.parted", "warning"),
    ("cascades", "shop.child", "stop"),
    ("charsets", "shop.wide.v", "warning"), ("types", "shop.wide.place", "warning"),
    ("names", "shop.it's", "stop"),
}  # fmt: skip


def test_tables_of_every_kind(shop: Side) -> None:
    root(shop, "USE shop", *(statement for statement in TABLES.split(";") if statement.strip()))
    facts = looked(shop, login="rdsadmin@127.0.0.1")
    assert {(one.id, one.where, one.status) for one in wrong(facts)} == EXPECTED
    assert [one.found for one in wrong(facts) if one.id == "cascades"] == [
        f"has the foreign key {key}: InnoDB changes its rows without writing that to the binary log, so it is lost"
        for key in ("gone (ON DELETE CASCADE)", "moved (ON DELETE SET NULL, ON UPDATE CASCADE)")
    ]
    assert Table("shop", "seen") not in facts.tables
    notes = [one.found for one in source.check(wanted(), facts) if one.id == "types" and one.status == "ok"]
    assert len(notes) == 4


def test_a_cascade_is_not_in_the_binary_log(shop: Side) -> None:
    """Why it stops: the row that InnoDB deletes is in no event."""
    from pymysqlreplication import BinLogStreamReader, row_event

    root(shop, "USE shop", "CREATE TABLE parent (id INT PRIMARY KEY)",
         "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
         "INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (2, 1)")  # fmt: skip
    log, position = shop.server.sql("SHOW MASTER STATUS")[0][:2]
    root(shop, "SET sql_log_bin = 1", "DELETE FROM shop.parent")
    assert shop.value("SELECT COUNT(*) FROM shop.child") == 0
    stream = BinLogStreamReader(
        connection_settings={"host": HOST, "port": shop.server.port, "user": replica_kit.MASTER, "passwd": PASSWORD},
        server_id=4712, log_file=log, log_pos=position, resume_stream=True, only_events=[row_event.DeleteRowsEvent],
    )  # fmt: skip
    with closing(stream):
        assert [event.table for event in stream] == ["parent"]


def test_longest_values_are_measured_in_bytes(shop: Side) -> None:
    root(shop, "USE shop", "CREATE TABLE lobs (id INT PRIMARY KEY, a TEXT, b MEDIUMBLOB, c JSON, d TINYTEXT, e LONGTEXT, `f``g` TEXT)",
         "INSERT INTO lobs (id, a, b, c) VALUES (1, REPEAT('é', 20000), REPEAT(x'00', 70000), JSON_ARRAY(REPEAT('x', 5000)))",
         "INSERT INTO lobs (id, a) VALUES (2, 'short')")  # fmt: skip
    facts = looked(shop)
    (lobs,) = [one for one in facts.selected if one.table.name == "lobs"]
    assert lobs.longest == {"a": 40_000, "b": 70_000, "c": 5004, "d": 255, "e": 0, "f`g": 0}
    assert lobs.unmeasured == {}
    cut = {one.where for one in wrong(facts) if one.id == "lob-cut"}
    assert cut == {"shop.lobs.a", "shop.lobs.b"}


def test_a_measurement_that_does_not_finish_is_told_and_is_ended_by_the_server(shop: Side) -> None:
    root(shop, "USE shop", "CREATE TABLE large (id INT PRIMARY KEY AUTO_INCREMENT, doc MEDIUMTEXT)",
         "INSERT INTO large (doc) VALUES (REPEAT('x', 100000))",
         *["INSERT INTO large (doc) SELECT doc FROM large"] * 9,
         "CREATE TABLE small (id INT PRIMARY KEY, doc TEXT)", "ANALYZE TABLE large, small")  # fmt: skip
    facts = looked(shop, budget_s=0.001, clock=lambda: 0.0)  # each statement has a millisecond
    tables = {one.table.name: one for one in facts.selected}
    assert tables["large"].longest == {}
    assert tables["large"].unmeasured == {"doc": "it takes longer than what was left of 0.001 s"}
    assert tables["large"].newest == {}  # there is no time for them either
    assert {one.where for one in wrong(facts) if one.id == "lob-measured"} >= {"shop.large.doc"}
    ticks = itertools.chain([0.0] * 4, itertools.repeat(61.0))
    facts = looked(shop, clock=lambda: next(ticks))
    tables = {one.table.name: one for one in facts.selected}
    assert tables["large"].unmeasured == {"doc": "the budget of 60 s was spent on smaller tables"}
    assert tables["large"].newest == {"doc": 100_000}
    assert [one.status for one in wrong(facts) if one.id == "lob-measured" and one.where == "shop.large.doc"] == [
        "stop"
    ]
    assert looked(shop).selected != facts.selected  # with time enough it is measured
    assert {one.table.name: one.longest for one in looked(shop).selected}["large"] == {"doc": 100_000}


def test_a_table_that_our_login_may_see_and_not_read_is_told(shop: Side) -> None:
    ours, theirs = logins(shop)
    grant(shop, ours, theirs)
    root(shop, f"REVOKE SELECT ON shop.* FROM '{ours}'@'%'", f"GRANT INSERT ON shop.orders TO '{ours}'@'%'")
    facts = looked(shop, user=ours)
    why = {one.table.name: one.unmeasured for one in facts.selected}["orders"]
    assert "our login may not read it" in (why.get("note") or "") or why == {}
    assert any(one.id == "visibility" for one in wrong(facts))


def test_a_login_is_every_account_of_its_name(shop: Side) -> None:
    _, theirs = logins(shop)
    root(shop, f"CREATE USER '{theirs}'@'10.%'", f"GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO '{theirs}'@'%'",
         f"GRANT SELECT ON shop.* TO '{theirs}'@'%'")  # fmt: skip
    facts = looked(shop, login=theirs)
    assert facts.login is not None
    assert [one.name for one in facts.login.accounts or ()] == [f"'{theirs}'@'%'", f"'{theirs}'@'10.%'"]
    assert {one.where for one in wrong(facts) if one.id == "grants"} == {f"'{theirs}'@'10.%'"}
    assert [one for one in wrong(looked(shop, login=f"{theirs}@%")) if one.id == "grants"] == []
    for nobody in ("nobody", "nobody@%"):
        (found,) = [one for one in wrong(looked(shop, login=nobody)) if one.id == "grants"]
        assert (found.stops, "does not exist" in found.found) == (True, True)


def test_a_login_may_ask_for_itself(shop: Side) -> None:
    ours, _ = logins(shop)
    root(
        shop,
        f"GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO '{ours}'@'%'",
        f"GRANT SELECT ON shop.* TO '{ours}'@'%'",
    )
    assert [str(one) for one in wrong(looked(shop, user=ours, login=ours)) if one.id == "grants"] == []


def test_roles_count_when_they_are_active_after_a_login(shop: Side) -> None:
    if not shop.server.is_80:
        assert looked(shop, login="rdsadmin").login is not None  # 5.7 has no roles
        return
    ours, theirs = logins(shop)
    role, inner = f"role_{theirs}", f"inner_{theirs}"
    root(shop, f"CREATE ROLE {role}, {inner}", f"GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO {role}",
         f"GRANT SELECT ON shop.* TO {inner}", f"GRANT {inner} TO {role}", f"GRANT {role} TO '{theirs}'@'%'",
         f"GRANT SELECT ON mysql.* TO '{ours}'@'%'", f"GRANT {role} TO '{ours}'@'%'", f"SET DEFAULT ROLE ALL TO '{ours}'@'%'")  # fmt: skip

    def lacks() -> list[str]:
        return [one.found for one in wrong(looked(shop, user=ours, login=theirs)) if one.id == "grants"]

    assert len(lacks()) == 3  # granted, and not active
    root(shop, f"SET DEFAULT ROLE {role} TO '{theirs}'@'%'")
    assert lacks() == []
    root(shop, f"SET DEFAULT ROLE NONE TO '{theirs}'@'%'", "SET GLOBAL activate_all_roles_on_login = ON")
    try:
        assert lacks() == []
    finally:
        root(shop, "SET GLOBAL activate_all_roles_on_login = OFF")
    facts = looked(shop, user=ours, login=ours)  # our own roles count for what we see as well
    assert [one.id for one in wrong(facts) if one.id in ("grants", "visibility")] == []


def test_names_of_the_binary_logs(shop: Side) -> None:
    with closing(shop.server.connect()) as conn:
        before = source.binary_logs(conn)
        root(shop, "FLUSH BINARY LOGS")
        after = source.binary_logs(conn)
    assert before is not None
    assert after is not None
    assert (after[: len(before)], len(after)) == (before, len(before) + 1)


def test_a_look_at_two_hundred_tables_takes_as_many_statements_as_at_two(shop: Side) -> None:
    asked = statements(shop)
    root(shop, "USE shop", *(f"CREATE TABLE t{number} (id INT PRIMARY KEY)" for number in range(200)))
    assert len(looked(shop).selected) == 202
    assert statements(shop) == asked


def statements(server: Side) -> int:
    """How many statements one look takes."""
    with closing(server.server.connect()) as conn:
        before = _questions(conn)
        source.gather(conn, wanted())
        return _questions(conn) - before


def _questions(conn: Any) -> int:
    with conn.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
        return int(cursor.fetchone()[1])


# Other servers -------------------------------------------------------------------------------------------------------


def test_a_replica(tmp_path_factory: pytest.TempPathFactory) -> None:
    with replica_kit.pair(tmp_path_factory.mktemp("replica"), "shop") as (blue, green):
        blue.run("CREATE TABLE shop.orders (id INT PRIMARY KEY)")
        replica_kit.settle(blue, green)
        facts = looked(green, wanted(canary=None))
        assert facts.is_replica
        assert facts.replica_lag_s is not None
        assert "replica-source" in {one.id for one in wrong(facts, wanted(canary=None)) if not one.stops}
        assert "log-replica-updates" not in {one.id for one in wrong(facts, wanted(canary=None))}
        green.server.sql("STOP SLAVE")
        facts = looked(green, wanted(canary=None))
        assert (facts.is_replica, facts.replica_lag_s) == (True, None)
        (found,) = [one for one in wrong(facts, wanted(canary=None)) if one.id == "replica-source"]
        assert found.stops


def test_a_server_without_a_binary_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    off = {
        "gtid-mode": "OFF",
        "enforce-gtid-consistency": "OFF",
        "log-slave-updates": "OFF",
        "loose-disable-log-bin": "1",
    }
    with replica_kit.one(tmp_path_factory.mktemp("silent"), "5.7.22", **off) as server:
        del server.server.options["log-bin"]
        server.server.stop()
        server.server.start()
        root(server, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)")
        with closing(server.server.connect(init_command="SET @a = 1")) as conn:
            assert source.binary_logs(conn) == ()
            facts = source.gather(conn, wanted(canary=None))
        found = {one.id for one in wrong(facts, wanted(canary=None)) if one.stops}
        assert "log-bin" in found
        assert (facts.logs, facts.log_filters) == ((), ((), ()))


def test_a_schema_that_is_left_out_of_the_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    with replica_kit.one(
        tmp_path_factory.mktemp("filtered"), "8.0.15", **SOUND, **{"binlog-ignore-db": "shop"}
    ) as server:
        root(server, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)")
        facts = looked(server, wanted(canary=None))
        assert facts.log_filters == ((), ("shop",))
        assert "binlog-filters" in {one.id for one in wrong(facts, wanted(canary=None)) if one.stops}


# Target --------------------------------------------------------------------------------------------------------------

RENAMED = target.Unchanged("store", "sales", {"id": "id", "at": "moment", "note": "note"})


def test_a_target_that_takes_the_rows(shop: Side) -> None:
    ours, theirs = logins(shop)
    root(shop, "DROP DATABASE IF EXISTS store", "CREATE DATABASE store CHARACTER SET utf8mb4", "USE store",
         "CREATE TABLE sales (id BIGINT UNSIGNED PRIMARY KEY, moment TIMESTAMP(3) NULL, note TEXT)",
         "CREATE TABLE dms_canary LIKE shop.dms_canary")  # fmt: skip
    grant(shop, ours, theirs, target_schemas=["store"])
    facts = looked(shop)

    def names(table: Table, columns: Any) -> target.Names:
        return (
            RENAMED
            if table.name == "orders"
            else target.Unchanged("store", table.name, {name: name for name in columns})
        )

    def found() -> dict[str, Check]:
        with connection(shop, ours) as conn:
            seen = target.gather(conn, facts, names, login=theirs)
        return {one.id: one for one in target.check(wanted(), facts, seen) if one.status != "ok"}

    try:
        strict = "STRICT_TRANS_TABLES"
        before = shop.value("SELECT @@GLOBAL.sql_mode")
        root(shop, f"SET GLOBAL sql_mode = '{strict}'")
        assert {name: str(one) for name, one in found().items()} == {}
        root(shop, "SET GLOBAL sql_mode = ''", "SET GLOBAL local_infile = OFF", "ALTER TABLE store.sales DROP PRIMARY KEY, DROP note",
             "CREATE TRIGGER store.audit BEFORE INSERT ON store.sales FOR EACH ROW SET @a = 1",
             f"REVOKE DROP ON store.* FROM '{theirs}'@'%'")  # fmt: skip
        held = found()
        assert set(held) == {
            "target-sql-mode",
            "target-local-infile",
            "target-key",
            "target-columns",
            "target-triggers",
            "target-grants",
        }
        assert "BEFORE INSERT audit" in held["target-triggers"].found
        assert f"GRANT DROP ON `store`.* TO '{theirs}'@'%'" in held["target-grants"].fix
        root(shop, f"REVOKE TRIGGER ON store.* FROM '{ours}'@'%'")
        assert "does not see" in found()["target-triggers"].found
    finally:
        root(shop, f"SET GLOBAL sql_mode = '{before}'", "SET GLOBAL local_infile = ON", "DROP DATABASE store")


def test_a_stream_needs_no_more_than_the_source(shop: Side) -> None:
    by = wanted(target=KINESIS, mappings=[SELECT_ALL])
    assert [str(one) for one in wrong(looked(shop, by, login="rdsadmin"), by) if one.stops] == []
