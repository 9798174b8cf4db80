"""The running lab is what the DAGs rely on. Needs `python -m lab up`."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import MySQLdb
import pyarrow as pa
import pytest
import trino.dbapi

from lab import aws, config, mysql, processes, seed, stack
from lab import trino as lab_trino

pytestmark = pytest.mark.lab
SERVERS = sorted(config.MYSQL_SERVERS)


@pytest.fixture(autouse=True, scope="module")
def _running() -> None:
    down = [state.name for state in stack.status() if not state.ready]
    assert not down, f"not ready: {', '.join(down)}; start the lab with `python -m lab up`"


def rows(name: str, sql: str, **connect: Any) -> tuple[tuple[Any, ...], ...]:
    """Result of a statement, as root or as the user of the DAGs."""
    connection = (
        MySQLdb.connect(host=config.HOST, port=config.port(name), autocommit=True, **connect)
        if connect
        else mysql.root_connection(name)
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def query(sql: str) -> list[list[Any]]:
    connection = trino.dbapi.connect(host=config.HOST, port=config.port("trino"), user=config.MYSQL_USER)
    with closing(connection), closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_up_again_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = {state.name: state.pid for state in stack.status()}
    stack.up()
    assert {state.name: state.pid for state in stack.status()} == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", SERVERS)
def test_mysql_is_set_up_like_a_durable_replicated_source(name: str) -> None:
    server = config.MYSQL_SERVERS[name]
    wanted = {
        "version": server.version,
        "server_id": server.server_id,
        "gtid_mode": "ON",
        "enforce_gtid_consistency": "ON",
        "log_bin": 1,
        "binlog_format": "ROW",
        "binlog_row_image": "FULL",
        "sync_binlog": 1,
        "innodb_flush_log_at_trx_commit": 1,
        "innodb_file_per_table": 1,
        "innodb_log_file_size": 512 * 2**20,
        "max_allowed_packet": 64 * 2**20,
        "local_infile": 1,
        "performance_schema": 1,
        "character_set_server": "utf8mb4",
        "time_zone": "+00:00",
        "bind_address": config.HOST,
    }
    (values,) = rows(name, "SELECT " + ", ".join(f"@@global.{variable}" for variable in wanted))
    found = dict(zip(wanted, values, strict=True))
    found["version"] = found["version"].removesuffix("-log")
    assert found == wanted


@pytest.mark.parametrize("name", SERVERS)
def test_every_commit_gets_a_gtid(name: str, scratch: str) -> None:
    before = rows(name, "SELECT @@global.gtid_executed")
    rows(name, f"CREATE TABLE {scratch}.gtid (id INT PRIMARY KEY)")
    after = rows(name, "SELECT @@global.gtid_executed")
    assert after != before
    assert ":" in after[0][0]


@pytest.fixture
def scratch() -> Iterator[str]:
    """A schema of its own on both servers."""
    schema = f"lab_test_{uuid.uuid4().hex[:8]}"
    for name in SERVERS:
        rows(name, f"CREATE DATABASE {schema}")
    yield schema
    for name in SERVERS:
        rows(name, f"DROP DATABASE {schema}")


DBOPS = {"user": config.MYSQL_USER, "password": config.MYSQL_PASSWORD}


def _grant(text: str) -> tuple[str, frozenset[str]]:
    """(what it is on, privileges): each server lists the privileges of a grant in an order of its own."""
    privileges, _, target = text.removeprefix("GRANT ").partition(" ON ")
    return target, frozenset(privileges.split(", "))


@pytest.mark.parametrize("name", SERVERS)
def test_the_dags_user_has_exactly_the_documented_privileges(name: str) -> None:
    granted = [row[0].replace("`", "").replace("'", "").split(" TO ")[0] for row in rows(name, "SHOW GRANTS", **DBOPS)]
    # Tests that were killed may have left the schemas that they made for themselves; `lab dms` and `lab backfill` give more for theirs.
    other = r" ON (t[0-9a-f]{10}r?|(stage|import)_[0-9a-f]{8}|dbops_canary|carshare_dms|carshare_move)\.\*$"
    granted = [grant for grant in granted if not re.search(other, grant)]
    documented = [
        f"GRANT {mysql.SERVER_PRIVILEGES} ON *.*",
        f"GRANT {mysql.SOURCE_PRIVILEGES} ON carshare.*",
        "GRANT SELECT ON performance_schema.*",
        *(f"GRANT ALL PRIVILEGES ON {schema}.*" for schema in config.MYSQL_SERVERS[name].schemas),
    ]
    assert {_grant(text) for text in granted} == {_grant(text) for text in documented}
    with pytest.raises(MySQLdb.OperationalError, match="CREATE command denied"):
        rows(name, "CREATE TABLE carshare.forbidden (id INT)", **DBOPS)


def test_trino_offers_the_lake_and_both_servers() -> None:
    assert {"lake", "mysql", "mysql80"} <= {row[0] for row in query("SHOW CATALOGS")}
    for catalog in ("mysql", "mysql80"):
        assert [config.SOURCE_SCHEMA] in query(f"SHOW SCHEMAS FROM {catalog}")


def test_trino_asks_the_server_itself_in_utc_and_utf8mb4() -> None:
    passed = "SELECT @@version AS version, @@session.time_zone AS zone, ''🚗'' AS car"
    for catalog, server in (("mysql", config.MYSQL57), ("mysql80", config.MYSQL80)):
        ((version, zone, car),) = query(f"SELECT * FROM TABLE({catalog}.system.query(query => '{passed}'))")
        assert (version.removesuffix("-log"), zone, car) == (server.version, "+00:00", "🚗")


def test_what_pyiceberg_writes_trino_reads_and_the_other_way_round() -> None:
    namespace = f"lab_test_{uuid.uuid4().hex[:8]}"
    table = f"{config.CATALOG}.{namespace}.cars"
    catalog = lab_trino.iceberg_catalog()
    catalog.create_namespace(namespace)
    try:
        written = pa.table({"id": [1, 2], "name": ["Zoë 🚗", None]})
        catalog.create_table(f"{namespace}.cars", schema=written.schema).append(written)
        assert query(f"SELECT * FROM {table} ORDER BY id") == [[1, "Zoë 🚗"], [2, None]]
        query(f"INSERT INTO {table} VALUES (3, 'C')")
        assert catalog.load_table(f"{namespace}.cars").scan().to_arrow().num_rows == 3
        objects = aws.client("s3").list_objects_v2(Bucket=config.LAKE_BUCKET, Prefix=f"warehouse/{namespace}")
        assert objects["KeyCount"] > 0
    finally:
        query(f"DROP TABLE IF EXISTS {table}")
        catalog.drop_namespace(namespace)


def test_an_alert_reaches_the_queue() -> None:
    sqs, text = aws.client("sqs"), f"lab test {uuid.uuid4()}"
    aws.client("sns").publish(TopicArn=config.ALERTS_TOPIC_ARN, Subject="lab test", Message=text)
    url = sqs.get_queue_url(QueueName=config.ALERTS)["QueueUrl"]
    found = None
    # Others' alerts come back after five seconds; moto delivers within the call to publish.
    while found is None and (got := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=5)).get(
        "Messages"
    ):
        found = next((m for m in got["Messages"] if json.loads(m["Body"])["Message"] == text), None)
    assert found is not None, "the queue is not subscribed to the topic"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"])


@pytest.mark.parametrize("name", SERVERS)
def test_seed_tops_up_and_never_reuses_an_id(name: str, scratch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SOURCE_SCHEMA", scratch)
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    cold = f"{scratch}.positions WHERE recorded_at < '{now - dt.timedelta(days=90)}'"
    try:
        made = seed.seed(name, 2000, now=now)
        assert (made["positions"], made["rides"], made["payments"]) == (2200, 40, 40)
        ((count, last),) = rows(name, f"SELECT COUNT(*), MAX(id) FROM {cold}")
        assert count == 2000
        assert not any(seed.seed(name, 2000, now=now).values())
        ((last,),) = rows(name, f"SELECT MAX(id) FROM {scratch}.positions")
        rows(name, f"DELETE FROM {scratch}.positions")
        assert seed.seed(name, 2000, now=now)["positions"] == 2200
        assert rows(name, f"SELECT COUNT(*), MIN(id) > {last} FROM {cold}") == ((2000, 1),)
        comments = {comment for (comment,) in rows(name, f"SELECT comment FROM {scratch}.rides")}
        assert comments - {None} <= set(seed.COMMENTS)
    finally:
        (config.home() / name / f"seed-ids-{scratch}.json").unlink(missing_ok=True)


def test_nothing_is_written_beside_the_labs_own_folder() -> None:
    for name in ("mysql57", "mysql80", "trino"):
        process = processes.find(name)
        assert process is not None
        assert Path(process.cwd()).is_relative_to(config.home()), name
