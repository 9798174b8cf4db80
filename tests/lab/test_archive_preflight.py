"""Every refusal of the preflight, provoked on a real server: which check, which column, how many rows, a sample key, and the fix."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import MySQLdb
import pytest

from dbops import connections
from dbops.archive import preflight, steps
from dbops.archive.preflight import Refusal
from lab import config, env, mysql, processes
from tests.lab import archive_kit
from tests.lab.archive_kit import COLD, RUN_AFTER, WARM, Bench

pytestmark = pytest.mark.lab

GOOD = "(id INT PRIMARY KEY, day DATE, v VARCHAR(20), KEY (day))"


@pytest.fixture(params=["mysql_default", "mysql80"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with archive_kit.bench(request.param) as made:
        yield made


@pytest.fixture
def bench57() -> Iterator[Bench]:
    with archive_kit.bench("mysql_default") as made:
        yield made


def checked(bench: Bench, *, purging: bool = False, table: str = "t", **over: Any) -> list[Refusal]:
    return steps.check(bench.services, bench.spec(table, **over), purging=purging)


def planned(bench: Bench, table: str = "t", **over: Any) -> steps.Planned:
    """The plan of a table whose definition nothing refuses."""
    spec = bench.spec(table, **over)
    assert steps.check(bench.services, spec, purging=True) == []
    return steps.make_plan(bench.services, spec, RUN_AFTER, dry_run=False)


def only(refusals: list[Refusal], check: str, *parts: str, column: str | None = None) -> Refusal:
    """The one refusal; its whole text names every part."""
    assert [r.check for r in refusals] == [check], [str(r) for r in refusals]
    (refusal,) = refusals
    assert refusal.column == column
    text = str(refusal)
    assert [part for part in parts if part not in text] == [], text
    assert "Fix: " in text
    assert refusal.fix
    return refusal


def test_a_good_table_is_not_refused(bench: Bench) -> None:
    bench.fresh_table(GOOD, [(1, COLD, "x")])
    assert checked(bench, purging=True, full_scan=False) == []
    assert planned(bench).plan is not None


def test_a_table_that_is_missing_or_a_view(bench: Bench) -> None:
    only(checked(bench), "table", f"{bench.schema}.t does not exist, is a view, or", "GRANT SELECT")
    bench.sql("CREATE VIEW t AS SELECT 1 AS id, CURRENT_DATE AS day")
    only(checked(bench), "table", "is a view")


def test_another_engine(bench: Bench) -> None:
    bench.fresh_table(f"{GOOD} ENGINE=MyISAM")
    only(checked(bench), "engine", f"{bench.schema}.t is MyISAM", f"ALTER TABLE `{bench.schema}`.`t` ENGINE=InnoDB")


@pytest.mark.parametrize(
    ("ddl", "message"),
    [
        ("(id INT, day DATE)", "has no PRIMARY KEY and no UNIQUE index of whole NOT NULL columns"),
        ("(id INT, day DATE, UNIQUE (id))", "has no PRIMARY KEY and no UNIQUE index of whole NOT NULL columns"),
        ("(v VARCHAR(50) NOT NULL, day DATE, UNIQUE (v(10)))", "has no PRIMARY KEY and no UNIQUE index of whole NOT NULL columns"),
        ("(e ENUM('b','a') PRIMARY KEY, day DATE)", "key column 'e' is of type enum('b','a'), whose order or equality"),
        ("(f DOUBLE, day DATE, PRIMARY KEY (day, f))", "key column 'f' is of type double"),
        ("(b BIT(4) PRIMARY KEY, day DATE)", "key column 'b' is of type bit(4)"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_walked(bench57: Bench, ddl: str, message: str) -> None:
    bench57.fresh_table(ddl)
    only(checked(bench57), "key", message, f"{bench57.schema}.t", "add a PRIMARY KEY of a supported type")


def test_a_reserved_column_name(bench57: Bench) -> None:
    bench57.fresh_table("(id INT PRIMARY KEY, day DATE, _Archive_plan INT)")
    only(checked(bench57), "reserved_name", "_archive belong to the archive", "rename it", column="_Archive_plan")


@pytest.mark.parametrize(
    ("over", "check", "column", "parts"),
    [
        ({"zero_dates_as_text": ["v"]}, "spec", "v", ["zero_dates_as_text names 'v', which is varchar(20)", "date, datetime, timestamp"]),
        ({"zero_dates_as_text": ["gone"]}, "spec", "gone", ["not a column of the table"]),
        ({"lossy_text_as_binary": ["day"]}, "spec", "day", ["lossy_text_as_binary names 'day', which is date", "varchar"]),
        ({"cold": {"column": "gone", "older_than_days": 1}}, "cold", "gone", ["is not a column of the table", "correct cold.column"]),
        ({"cold": {"column": "v", "older_than_days": 1}}, "cold", "v", ["is varchar(20)", "unit datetime needs date, datetime, timestamp"]),
        ({"cold": {"column": "id", "older_than_days": 1}}, "cold", "id", ["is int"]),
        ({"cold": {"column": "day", "older_than_days": 1, "unit": "epoch_s"}}, "cold", "day", ["is date", "unit epoch_s needs bigint"]),
        ({"full_scan": False}, "index", "day", ["no index begins with it", "ADD INDEX (`day`)", "full_scan: true"]),
        ({"part": "month(v)"}, "partitioning", "v", ["month(v) needs a column of type date", "correct target.partitioning"]),
        ({"part": "hour(day)"}, "partitioning", "day", ["hour(day) needs"]),
        ({"part": "month(day)", "zero_dates_as_text": ["DAY"]}, "partitioning", "day",
        ["month(day) needs a column that is archived in its own"]),
        ({"part": "identity(v)", "lossy_text_as_binary": ["v"]}, "partitioning", "v", ["archived in its own type"]),
        ({"part": "identity(gone)"}, "partitioning", "gone", ["identity(gone) needs a column of type"]),
    ],
)  # fmt: skip
def test_a_spec_that_does_not_fit_the_table(
    bench57: Bench, over: dict[str, Any], check: str, column: str, parts: list[str]
) -> None:
    bench57.fresh_table("(id INT PRIMARY KEY, day DATE, v VARCHAR(20), KEY (v, day))")
    if partition := over.pop("part", None):
        over = {**over, "target": {"namespace": bench57.namespace, "partitioning": [partition]}}
    only(checked(bench57, **over), check, *parts, column=column)


@pytest.mark.parametrize(("action", "shown"), [("CASCADE", "CASCADE"), ("SET NULL", "SET NULL")])
def test_children_that_a_delete_would_change(bench: Bench, action: str, shown: str) -> None:
    bench.fresh_table(GOOD)
    bench.sql(
        f"CREATE TABLE child (c INT PRIMARY KEY, p INT, CONSTRAINT fk1 FOREIGN KEY (p) REFERENCES t (id) ON DELETE {action})"
    )
    refusal = only(
        checked(bench),
        "cascade",
        f"foreign key fk1 of {bench.schema}.child is ON DELETE {shown}",
        "archive child first",
        column="id",
    )
    assert "ON DELETE RESTRICT" in refusal.fix


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER"])
def test_a_delete_trigger(bench: Bench, timing: str) -> None:
    bench.fresh_table(GOOD)
    bench.sql("CREATE TRIGGER fine BEFORE INSERT ON t FOR EACH ROW SET @x = 1")
    assert checked(bench) == []
    bench.sql(f"CREATE TRIGGER audit {timing} DELETE ON t FOR EACH ROW SET @x = 1")
    only(checked(bench), "trigger", f"{timing} DELETE trigger audit would run for every purged row", "drop it")


def test_binlog_format_that_lets_replicas_differ(bench: Bench) -> None:
    bench.fresh_table(GOOD)

    def source() -> MySQLdb.Connection:
        conn = mysql.root_connection(bench.server, bench.schema)
        with conn.cursor() as cursor:
            cursor.execute("SET SESSION binlog_format = 'STATEMENT'")
        return conn

    changed = replace(bench, services=replace(bench.services, source=source))
    only(
        checked(changed),
        "binlog_format",
        "is STATEMENT, so replicas could delete other rows",
        "SET GLOBAL binlog_format = 'ROW'",
    )


def test_unobservable_lag_and_a_table_off_the_allow_list(bench57: Bench) -> None:
    bench57.fresh_table(GOOD)
    assert not connections.is_defined(connections.MYSQL_REPLICA)
    lag = {"purge": {"max_lag_s": 10}}
    only(
        checked(bench57, purging=True, **lag),
        "lag",
        "replica lag cannot be seen",
        "mysql_replica",
        "purge.max_lag_s: null",
    )
    # The lab's server is nobody's replica: asked for its lag, it has no answer.
    lag["purge"]["lag_connection"] = "mysql80"
    only(checked(bench57, purging=True, **lag), "lag", "replica lag cannot be seen")
    assert checked(bench57, purging=False, **lag) == []
    closed = replace(bench57, services=replace(bench57.services, purge_allowed=("carshare.*",)))
    only(
        checked(closed, purging=True), "allow_list", f"'{bench57.schema}.t' is not on the allow-list", "dbops_purge_allow", "carshare.*",
        "let the owner of the connection add the table",
    )  # fmt: skip


class User:
    """A MySQL user with no privilege but those that a test grants, and its Airflow connection."""

    def __init__(self, bench: Bench, patch: pytest.MonkeyPatch) -> None:
        self.bench, self.name = bench, f"u{uuid.uuid4().hex[:12]}"
        self.conn_id = self.name
        bench.sql(
            f"CREATE USER '{self.name}'@'%%' IDENTIFIED WITH mysql_native_password BY 'a-secret-word'".replace(
                "%%", "%"
            )
        )
        connection = {
            **env.connections()[bench.conn_id], "login": self.name, "password": "a-secret-word", "schema": "information_schema",
        }  # fmt: skip
        connection["extra"] = {"charset": "utf8mb4", "dbops_purge_allow": [f"{bench.schema}.*"]}
        patch.setenv(f"AIRFLOW_CONN_{self.conn_id.upper()}", json.dumps(connection))

    def grant(self, privileges: str, on: str) -> None:
        self.bench.sql(f"GRANT {privileges} ON {on} TO '{self.name}'@'%'")

    def checked(self, table: str = "t", **over: Any) -> list[Refusal]:
        services = archive_kit.services(self.conn_id, purge_allowed=self.bench.services.purge_allowed)
        return steps.check(services, self.bench.spec(table, connection=self.conn_id, **over), purging=True)


@pytest.fixture
def user(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    made = User(bench, monkeypatch)
    yield made
    bench.sql(f"DROP USER '{made.name}'@'%'")


def test_each_missing_grant_is_named_until_the_documented_ones_are_there(user: User) -> None:
    bench = user.bench
    table = f"`{bench.schema}`.`t`"
    bench.fresh_table(GOOD)
    found = user.checked()
    assert [r.check for r in found] == ["ledger", "table"]
    assert "GRANT ALL" in found[0].fix
    assert "may not see it" in found[1].message
    user.grant("ALL PRIVILEGES", "dbops_archive.*")
    user.grant("SELECT", table)
    found = {r.check: str(r) for r in user.checked()}
    if bench.server == "mysql57":  # 8.0 shows InnoDB's foreign keys to everybody
        text = found.pop("foreign_keys")
        assert "cannot be listed completely" in text
        assert "GRANT PROCESS ON *.*" in text
    assert sorted(found) == ["grant", "triggers"]
    assert f"may not delete from {bench.schema}.t" in found["grant"]
    assert f"GRANT SELECT, DELETE ON {table}" in found["grant"]
    assert f"GRANT TRIGGER ON {table}" in found["triggers"]
    user.grant("DELETE, TRIGGER", table)
    user.grant("PROCESS", "*.*")
    assert user.checked() == []


@pytest.mark.parametrize("table", ["t", "a$b", "Upper"])
def test_a_cascade_that_the_user_may_not_see(user: User, table: str) -> None:
    bench = user.bench
    bench.fresh_table(GOOD, table=table)
    user.grant("ALL PRIVILEGES", "dbops_archive.*")
    user.grant("SELECT, DELETE, TRIGGER", f"`{bench.schema}`.`{table}`")
    user.grant("PROCESS", "*.*")
    bench.sql(
        f"CREATE TABLE {bench.restore_schema}.child (c INT PRIMARY KEY, p INT,"
        f" FOREIGN KEY (p) REFERENCES `{bench.schema}`.`{table}` (id) ON DELETE CASCADE)"
    )
    only(
        user.checked(table), "foreign_keys", f"1 foreign keys of tables that this user may not see point at {bench.schema}.{table}",
        "GRANT SELECT on the child tables",
    )  # fmt: skip
    user.grant("SELECT", f"`{bench.restore_schema}`.child")
    only(user.checked(table), "cascade", f"{bench.restore_schema}.child is ON DELETE CASCADE", column="id")


def _closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((config.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("field", "over", "check", "fix"),
    [
        ("connection", {"port": 0}, "source", "check the Airflow connection"),
        ("trino_connection", {"port": 0}, "trino", "and that Trino has the catalog 'lake'"),
        ("iceberg_connection", {"port": 0}, "iceberg", "check the Airflow connection"),
        ("iceberg_connection", {"extra": {"catalog": "nowhere", "type": "sql", "warehouse": config.WAREHOUSE}}, "trino", "'nowhere'"),
        ("iceberg_connection", {"extra": {"catalog": "lake", "type": "sql", "warehouse": "s3://no-such-bucket/x"}}, "s3", "s3:PutObject"),
        ("aws_connection", {"endpoint": True}, "s3", "s3:PutObject and s3:DeleteObject on the warehouse"),
    ],
)  # fmt: skip
def test_a_service_that_does_not_answer(
    bench57: Bench, monkeypatch: pytest.MonkeyPatch, field: str, over: dict[str, Any], check: str, fix: str
) -> None:
    bench57.fresh_table(GOOD)
    base = {"connection": "mysql_default", "trino_connection": "trino_default", "iceberg_connection": "iceberg_default",
            "aws_connection": "aws_default"}[field]  # fmt: skip
    connection = {**env.connections()[base], **over}
    if connection.get("port") == 0:
        connection["port"] = _closed_port()
    if connection.pop("endpoint", None):
        retries = {"config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 2}}
        connection["extra"] = {
            **connection["extra"],
            "endpoint_url": f"http://{config.HOST}:{_closed_port()}",
            **retries,
        }
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps(connection))
    from dbops.archive.operators import build_services

    spec = bench57.spec(**{field: "broken"})
    refusals = steps.check(build_services(spec, run="test"), spec, purging=False)

    named = [r for r in refusals if r.check == check]
    assert named, [str(r) for r in refusals]
    assert fix in named[0].fix
    assert ": " in named[0].message, "the driver's own words"
    assert "lab-secret" not in str(refusals)


def test_zero_and_partial_dates_are_counted(bench: Bench) -> None:
    bench.sql("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'")
    bench.fresh_table(
        "(id INT PRIMARY KEY, day DATE, d DATE, dt DATETIME(3), ts TIMESTAMP NULL, fine DATE)",
        [
            (1, COLD, "2024-01-01", "2024-01-01", "2024-01-01", None),
            (2, COLD, "0000-00-00", "0000-00-00", "0000-00-00", "0001-01-01"),
            (3, COLD, "2020-00-00", "2020-00-01", None, None),
            (4, COLD, "2020-05-00", None, None, "9999-12-31"),
            (5, COLD, "0000-01-01", None, None, None),
            (6, COLD, None, None, None, None),
            (7, WARM, "0000-00-00", "0000-00-00", "0000-00-00", None),
        ],
    )
    found = {r.column: r for r in planned(bench).refusals}
    assert {c: (r.check, r.rows, r.sample_key) for c, r in found.items()} == {
        "d": ("zero_date", 4, "2"),
        "dt": ("zero_date", 2, "2"),
        "ts": ("zero_date", 1, "2"),
    }
    text = str(found["d"])
    assert text.startswith(
        "[zero_date] column d 4 rows: zero or partial dates have no counterpart in the lake (first key 2). Fix: "
    )
    assert "zero_dates_as_text: [d]" in text
    as_text = {"zero_dates_as_text": ["d", "DT", "ts"]}
    assert planned(bench, **as_text).plan is not None


def test_a_refused_plan_writes_nothing(bench57: Bench) -> None:
    bench57.fresh_table("(id INT PRIMARY KEY, day DATE, d DATE)", [(1, COLD, "0000-00-00")])
    found = planned(bench57)
    assert found.plan is None
    assert [r.check for r in found.refusals] == ["zero_date"]
    assert bench57.sql(
        "SELECT COUNT(*) FROM dbops_archive.archive_plan WHERE source_table = %s", (f"{bench57.schema}.t",)
    ) == ((0,),)
    assert (bench57.namespace,) not in bench57.services.catalog().list_namespaces()


def test_text_that_utf8mb4_cannot_hold_is_counted(bench: Bench) -> None:
    bench.fresh_table(
        "(id INT PRIMARY KEY, day DATE, g VARCHAR(9) CHARACTER SET gbk, l VARCHAR(256) CHARACTER SET latin1, n INT)"
    )
    every_byte = bytes(range(256)).hex()
    bench.sql(
        f"INSERT INTO t VALUES (1, '{COLD}', '中文', _latin1 X'{every_byte}', 1), (2, '{COLD}', _gbk X'A2E3', NULL, 1),"
        f" (3, '{COLD}', _gbk X'A2E3', NULL, 1), (4, '{WARM}', _gbk X'A2E3', NULL, 1)"
    )
    refusal = only(
        planned(bench).refusals, "charset", "characters of gbk that utf8mb4 does not hold would become '?'", column="g"
    )
    assert (refusal.rows, refusal.sample_key) == (2, "2")
    assert refusal.fix == "archive the column as bytes: lossy_text_as_binary: [g]"
    assert planned(bench, lossy_text_as_binary=["g"]).plan is not None


def test_nulls_in_the_partition_column_are_counted(bench57: Bench) -> None:
    bench57.fresh_table(
        "(a VARCHAR(5), b INT, day DATE, p DATE, PRIMARY KEY (a, b))",
        [("x", 1, COLD, None), ("x", 0, COLD, None), ("y", 1, COLD, COLD)],
    )
    target = {"namespace": bench57.namespace, "partitioning": ["month(p)"]}
    refusal = only(
        planned(bench57, target=target).refusals, "partition_null", "a NULL has no partition", "NOT NULL", column="p"
    )
    assert (refusal.rows, refusal.sample_key) == (2, "_utf8mb4 X'78', 0")
    assert planned(bench57, target=target, where="p IS NOT NULL").rows == 1


@pytest.mark.parametrize("rule", ["RESTRICT", "NO ACTION"])
def test_rows_that_children_still_point_at_are_counted_or_skipped(bench: Bench, rule: str) -> None:
    bench.fresh_table(
        "(id INT PRIMARY KEY, k INT UNIQUE, day DATE)", [(1, 10, COLD), (2, 20, COLD), (3, 30, COLD), (4, 40, WARM)]
    )
    bench.sql(
        f"CREATE TABLE child (c INT PRIMARY KEY, p INT, CONSTRAINT fk1 FOREIGN KEY (p) REFERENCES t (id) ON DELETE {rule})"
    )
    bench.sql(
        f"CREATE TABLE other (c INT PRIMARY KEY, p INT, CONSTRAINT fk2 FOREIGN KEY (p) REFERENCES t (k) ON DELETE {rule})"
    )
    bench.sql("INSERT INTO child VALUES (1, 2), (2, 2), (3, NULL), (4, 4)")
    bench.sql("INSERT INTO other VALUES (1, 20), (2, 30)")
    found = {r.column: r for r in planned(bench).refusals}
    assert {c: (r.check, r.rows, r.sample_key) for c, r in found.items()} == {
        "id": ("referenced", 1, "2"),
        "k": ("referenced", 2, "2"),
    }
    assert f"rows of {bench.schema}.child still point at them (fk1, ON DELETE {rule})" in found["id"].message
    assert found["id"].fix == "archive child first, or leave those rows: referenced_rows: skip"
    ran = archive_kit.run_all(bench.services, bench.spec(referenced_rows="skip"))
    assert ran.reconciled is not None
    assert ran.reconciled.problems == []
    assert bench.sql("SELECT id FROM t ORDER BY id") == ((2,), (3,), (4,))


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], MySQLdb.Connection]]:
    """A server that nobody else uses, for settings that are global: opens connections of the product's user."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_MYSQL57_PORT", str(_closed_port()))
    monkeypatch.setenv("LAB_MYSQL_BUFFER_POOL", "64M")
    monkeypatch.setattr(mysql, "LOG_FILE_SIZE", "32M")
    processes.start(mysql.service(config.MYSQL57))
    try:
        mysql.provision(config.MYSQL57)
        connection = env.connections()["mysql_default"]
        monkeypatch.setenv("AIRFLOW_CONN_OWN_SERVER", json.dumps(connection))
        yield lambda: connections.mysql("own_server")
    finally:
        processes.stop("mysql57")


def test_a_read_only_server_is_refused_for_a_purge_only(own_server: Callable[[], MySQLdb.Connection]) -> None:
    spec = archive_kit.make_spec(connection="own_server")
    with closing(mysql.root_connection("mysql57", "carshare")) as root, root.cursor() as cursor:
        cursor.execute(f"CREATE TABLE t {GOOD}")
        for setting in ("super_read_only = ON", "binlog_format = 'MIXED'"):
            cursor.execute(f"SET GLOBAL {setting}")
    with closing(own_server()) as conn:
        reading = preflight.check_table(conn, spec, purging=False)
        purging = preflight.check_table(conn, spec, purging=True)
    only(reading, "binlog_format", "is MIXED")
    assert [r.check for r in purging][:2] == ["binlog_format", "writer"]
    assert "the server of 'own_server' is read-only" in str(purging[1])
    assert "point the connection at the writer" in purging[1].fix
