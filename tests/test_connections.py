from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from conftest import REGION, ROOT

from dbops import connections
from dbops.connections import ConnectionInvalid, ConnectionUndefined


def define(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def test_an_undefined_connection_names_its_id_and_the_way_to_define_it(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_MYSQL_REPLICA", raising=False)
    assert not connections.is_defined(connections.MYSQL_REPLICA)
    for call in (
        connections.mysql,
        connections.engine,
        connections.trino,
        connections.redis,
        connections.extra,
        connections.iceberg_catalog,
    ):
        with pytest.raises(ConnectionUndefined, match=r"'mysql_replica'.*AIRFLOW_CONN_MYSQL_REPLICA"):
            call("mysql_replica")
    with pytest.raises(ConnectionUndefined, match="AIRFLOW_CONN_OTHER_AWS"):
        connections.aws_client("s3", "other_aws")


def test_extra_and_is_defined(monkeypatch):
    define(monkeypatch, "mysql_default", conn_type="mysql", extra={"dbops_purge_allow": ["carshare.*"]})
    assert connections.is_defined("mysql_default")
    assert connections.extra("mysql_default") == {"dbops_purge_allow": ["carshare.*"]}


@pytest.mark.parametrize(
    ("replica", "is_aurora", "others", "expected"),
    [
        ("reader", True, ["mysql_replica"], "reader"),
        (None, True, ["mysql_replica"], "writer"),
        (None, False, ["mysql_replica"], "mysql_replica"),
        (None, False, [], None),
    ],
    ids=["named", "aurora", "default", "nowhere"],
)
def test_lag_is_read_where_it_shows_and_only_that_connection_stays_open(
    monkeypatch, replica, is_aurora, others, expected
):
    opened: list[Any] = []

    class Opened:
        def __init__(self, conn_id: str) -> None:
            self.conn_id = conn_id
            opened.append(self)

        def close(self) -> None:
            opened.remove(self)

    monkeypatch.delenv("AIRFLOW_CONN_MYSQL_REPLICA", raising=False)
    for other in others:
        define(monkeypatch, other, conn_type="mysql", host="h")
    monkeypatch.setattr(connections, "mysql", Opened)
    monkeypatch.setattr("dbops.mysql.read_server", lambda _: SimpleNamespace(is_aurora=is_aurora))
    found = connections.lag_source("writer", replica)
    assert (found and found.conn_id) == expected
    assert opened == ([found] if found else [])


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ()),
        ({"allow": None}, ()),
        ({"allow": ["carshare.*", "shop.orders"]}, ("carshare.*", "shop.orders")),
        ({"allow": "carshare.*"}, ("carshare.*",)),  # not its letters, one of which allows everything
        ({"allow": ""}, ()),
    ],
    ids=["absent", "null", "list", "text", "empty"],
)
def test_an_allow_list_is_a_list_or_one_pattern(monkeypatch, given, found):
    define(monkeypatch, "mysql_default", conn_type="mysql", extra=given)
    assert connections.patterns("mysql_default", "allow") == found


@pytest.mark.parametrize("given", [{"carshare.*": True}, 7, ["carshare.*", 7]], ids=["mapping", "number", "mixed"])
def test_an_allow_list_of_another_form_is_refused_with_its_value(monkeypatch, given):
    define(monkeypatch, "mysql_default", conn_type="mysql", extra={"allow": given})
    with pytest.raises(ConnectionInvalid, match=r"'mysql_default': extra 'allow' is .*carshare.*|is 7; write a list"):
        connections.patterns("mysql_default", "allow")


def test_a_pattern_that_is_written_as_text_allows_no_other_purge_and_no_other_backfill(monkeypatch):
    from dbops import guardrails, specs
    from dbops.archive import operators as archive
    from dbops.archive.spec import ArchiveSpec
    from dbops.backfill import operators as backfill
    from dbops.backfill.spec import BackfillSpec

    define(monkeypatch, "mysql_default", conn_type="mysql", extra={"dbops_purge_allow": "other.*"})
    define(monkeypatch, "aws_default", conn_type="aws", extra={"dbops_backfill_allow": "other_*"})
    define(monkeypatch, "iceberg_default", conn_type="generic", extra={"catalog": "lake"})
    purges = archive.build_services(specs.load("archive", "rides", ArchiveSpec), run="r").purge_allowed
    writes = backfill.build_services(specs.load("backfill", "rides_dynamodb", BackfillSpec), run="r").allowed
    assert (purges, writes) == (("other.*",), ("other_*",))
    for resource, allowed in (("carshare.rides", purges), ("carshare_rides_items", writes)):
        with pytest.raises(guardrails.Refused, match=r"\(other[._]\*\)"):
            guardrails.require_allowed(resource, allowed, "extra")


@pytest.fixture
def connect_arguments(monkeypatch):
    """What would be handed to MySQLdb.connect."""
    import MySQLdb

    seen: dict[str, Any] = {}
    monkeypatch.setattr(MySQLdb, "connect", lambda **arguments: seen.update(arguments))
    return seen


def test_mysql_pins_the_session_and_keeps_the_options_of_the_connection(monkeypatch, connect_arguments):
    define(
        monkeypatch,
        "mysql_default",
        conn_type="mysql",
        host="db.example.com",
        login="dbops",
        password="pw",
        schema="carshare",
        extra={
            "ssl": {"ca": "/ca.pem"},
            "ssl_mode": "VERIFY_IDENTITY",
            "charset": "latin1",
            "cursor": "SSCursor",
            "local_infile": True,
        },
    )
    connections.mysql()
    expected = {
        "host": "db.example.com",
        "db": "carshare",
        "port": 3306,
        "ssl": {"ca": "/ca.pem"},
        "ssl_mode": "VERIFY_IDENTITY",
        "charset": "utf8mb4",
        "connect_timeout": connections.CONNECT_TIMEOUT_S,
        "init_command": "SET time_zone='+00:00', sql_mode=''",
        "autocommit": True,
        "multi_statements": False,
    }
    assert {key: connect_arguments[key] for key in expected} == expected
    assert not {"local_infile", "cursorclass", "conv"} & set(connect_arguments)
    connections.mysql(schema="other", autocommit=False, raw=True)
    assert (connect_arguments["db"], connect_arguments["autocommit"], connect_arguments["use_unicode"]) == (
        "other",
        False,
        False,
    )
    assert not [key for key in connect_arguments["conv"] if isinstance(key, int)]


def test_mysql_iam_token_replaces_the_password(monkeypatch, connect_arguments, aws):
    define(
        monkeypatch,
        "mysql_default",
        conn_type="mysql",
        host="db.example.com",
        port=3307,
        login="dbops",
        extra={"iam": True},
    )
    connections.mysql()
    assert "X-Amz-Signature" in connect_arguments["passwd"]


def test_mysql_refuses_another_client_library(monkeypatch):
    define(monkeypatch, "mysql_default", conn_type="mysql", host="h", extra={"client": "mysql-connector-python"})
    with pytest.raises(ConnectionInvalid, match="'client' must be mysqlclient"):
        connections.mysql()


def test_mysql_error_says_which_connection_failed_without_its_password(monkeypatch, unused_port):
    import MySQLdb

    define(
        monkeypatch,
        "mysql_default",
        conn_type="mysql",
        host="127.0.0.1",
        port=unused_port,
        login="dbops",
        password="s3cret-word",
    )
    with pytest.raises(MySQLdb.OperationalError) as caught:
        connections.mysql()
    notes = "\n".join(caught.value.__notes__)
    assert f"'mysql_default', host 127.0.0.1:{unused_port}, user dbops" in notes
    assert "s3cret-word" not in notes


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_redis_uses_the_connection_and_asks_whether_it_is_a_cluster(monkeypatch):
    import redis
    from redis.exceptions import ConnectionError

    seen = []

    class Single:
        def __init__(self, **options):
            seen.append(options)

        def info(self, section):
            return {"cluster_enabled": 1}

        def ping(self):
            raise ConnectionError("not there")

        def close(self):
            seen.append("closed")

    monkeypatch.setattr(redis, "Redis", Single)
    monkeypatch.setattr(redis, "RedisCluster", lambda **options: seen.append(options) or "cluster")
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False, "unknown": 1}
    fields = {"conn_type": "redis", "host": "m.example.com", "login": "dbops", "password": "s3cret-word"}
    define(monkeypatch, connections.REDIS, **fields, extra=tls)
    assert connections.redis(connections=5) == "cluster"
    options = {
        "host": "m.example.com", "port": 6379, "username": "dbops", "password": "s3cret-word", "ssl": True, "ssl_ca_certs": "/ca.pem",
        "ssl_check_hostname": False, "max_connections": 5, "decode_responses": False, "socket_timeout": 30.0,
        "socket_connect_timeout": connections.CONNECT_TIMEOUT_S,
    }  # fmt: skip
    assert seen == [{**options, "db": 0}, "closed", {**options, "dynamic_startup_nodes": False}]
    define(monkeypatch, connections.REDIS, **fields, extra={"cluster": True, "db": 2})
    with pytest.raises(ConnectionInvalid, match="'db' is 2; a cluster has database 0 only"):
        connections.redis()
    define(monkeypatch, connections.REDIS, **fields, port=7000, extra={"cluster": False, "db": 2})
    with pytest.raises(ConnectionError) as caught:
        connections.redis()
    assert (seen[-1]["port"], seen[-1]["db"]) == (7000, 2)
    assert caught.value.__notes__ == ["Airflow connection 'memorydb_default', host m.example.com:7000, user dbops"]


def test_trino_uses_the_connection(monkeypatch):
    define(
        monkeypatch,
        "trino_default",
        conn_type="trino",
        host="t.example.com",
        port=8443,
        login="dbops",
        extra={"protocol": "https", "catalog": "lake"},
    )
    connection = connections.trino()
    assert (connection.host, connection.port, connection.user, connection.catalog, connection.http_scheme) == (
        "t.example.com",
        8443,
        "dbops",
        "lake",
        "https",
    )


def test_aws_client_talks_to_the_endpoint_of_the_connection(aws):
    client = connections.aws_client("s3")
    client.create_bucket(Bucket="dbops-lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["dbops-lake"]
    assert connections.aws_client("sqs", region="us-west-2").meta.region_name == "us-west-2"


def test_aws_client_talks_to_the_endpoint_that_one_service_has_of_its_own(monkeypatch):
    own = {"dynamodb": {"endpoint_url": "http://127.0.0.1:18400"}}
    extra = {"region_name": REGION, "endpoint_url": "http://127.0.0.1:18450", "service_config": own}
    define(monkeypatch, "aws_default", conn_type="aws", login="key", password="secret", extra=extra)
    assert connections.aws_client("dynamodb").meta.endpoint_url == "http://127.0.0.1:18400"
    assert connections.aws_client("kinesis").meta.endpoint_url == "http://127.0.0.1:18450"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, connections.REAL_AWS),
        ({"endpoint_url": "https://vpce-1.s3.eu-central-1.vpce.amazonaws.com"}, connections.REAL_AWS),
        ({"endpoint_url": "https://s3.cn-north-1.amazonaws.com.cn"}, connections.REAL_AWS),
        ({"endpoint_url": "http://127.0.0.1:18450"}, connections.SIMULATED_AWS),
        ({"endpoint_url": "https://amazonaws.com.evil.example"}, connections.SIMULATED_AWS),
        ({"service_config": {"s3": {"endpoint_url": "http://minio:9000"}}}, connections.SIMULATED_AWS),
    ],
)
def test_aws_provenance(monkeypatch, extra, expected):
    define(monkeypatch, "aws_default", conn_type="aws", extra=extra)
    assert connections.aws_provenance() == expected


def test_aws_provenance_sees_an_endpoint_from_the_environment(monkeypatch):
    define(monkeypatch, "aws_default", conn_type="aws")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
    assert connections.aws_provenance() == connections.SIMULATED_AWS


@pytest.mark.parametrize("kind", ["sql", "glue"])
def test_iceberg_catalog_writes_and_reads_a_table(aws, monkeypatch, tmp_path, kind):
    connections.aws_client("s3").create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    extra = {"catalog": "lake", "type": kind, "warehouse": "s3://lake/warehouse"}
    if kind == "sql":
        extra["uri"] = f"sqlite:///{tmp_path}/catalog.db"
    define(monkeypatch, "iceberg_default", conn_type="generic", extra=extra)
    catalog = connections.iceberg_catalog()
    catalog.create_namespace("carshare")
    rows = pa.table({"id": [1, 2, 3]})
    catalog.create_table("carshare.trips", schema=rows.schema).append(rows)
    assert connections.iceberg_catalog().load_table("carshare.trips").scan().to_arrow().equals(rows)
    assert catalog.name == "lake"


def test_iceberg_properties_from_the_aws_session_and_the_extra(monkeypatch):
    import pyiceberg.catalog

    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        pyiceberg.catalog, "load_catalog", lambda name, **properties: seen.update(properties, name=name)
    )
    define(
        monkeypatch,
        "aws_default",
        conn_type="aws",
        login="key",
        password="secret",
        extra={
            "region_name": REGION,
            "aws_session_token": "token",
            "service_config": {"glue": {"endpoint_url": "http://glue"}},
        },
    )
    extra = {
        "catalog": "lake",
        "warehouse": "s3://w",
        "s3.connect-timeout": "5",
        "glue.id": "42",
        "catalog.client.profile-name": "p",
    }
    define(monkeypatch, "iceberg_default", conn_type="generic", extra=extra)
    connections.iceberg_catalog()
    assert seen == {
        "name": "lake",
        "type": "glue",
        "warehouse": "s3://w",
        "s3.region": REGION,
        "s3.access-key-id": "key",
        "s3.secret-access-key": "secret",
        "s3.session-token": "token",
        "glue.region": REGION,
        "glue.endpoint": "http://glue",
        "glue.access-key-id": "key",
        "glue.secret-access-key": "secret",
        "glue.session-token": "token",
        "s3.connect-timeout": "5",
        "glue.id": "42",
        "client.profile-name": "p",
    }


def test_iceberg_sql_uri_survives_every_character_of_a_password(monkeypatch, aws):
    import pyiceberg.catalog
    import sqlalchemy

    seen: dict[str, Any] = {}
    monkeypatch.setattr(pyiceberg.catalog, "load_catalog", lambda name, **properties: seen.update(properties))
    extra = {"catalog": "lake", "type": "sql", "warehouse": "s3://w"}
    define(
        monkeypatch,
        "iceberg_default",
        conn_type="generic",
        host="h",
        port=3307,
        login="u@x",
        password="p/@:?#%&=",
        schema="icecat",
        extra=extra,
    )
    connections.iceberg_catalog()
    url = sqlalchemy.make_url(seen["uri"])
    assert (url.username, url.password, url.host, url.port, url.database) == ("u@x", "p/@:?#%&=", "h", 3307, "icecat")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra": {"type": "glue", "warehouse": "s3://w"}}, "extra 'catalog' is empty"),
        ({"extra": {"catalog": "c"}}, "extra 'warehouse' is empty"),
        ({"extra": {"catalog": "c", "warehouse": "s3://w", "type": "hive"}}, "'hive'; allowed: glue, sql, rest"),
        ({"extra": {"catalog": "c", "warehouse": "s3://w", "type": "sql"}}, "field 'host' is empty"),
    ],
)
def test_iceberg_errors_name_the_field(monkeypatch, aws, fields, message):
    define(monkeypatch, "iceberg_default", conn_type="generic", **fields)
    with pytest.raises(ConnectionInvalid, match=message):
        connections.iceberg_catalog()


def test_iceberg_trino_catalog(monkeypatch):
    define(monkeypatch, "iceberg_default", conn_type="generic", extra={"catalog": "lake"})
    assert connections.iceberg_trino_catalog() == "lake"
    define(monkeypatch, "iceberg_default", conn_type="generic", extra={"catalog": "lake", "trino_catalog": "ice"})
    assert connections.iceberg_trino_catalog() == "ice"


def test_import_stays_light():
    """DAG files import these modules: no client library may come with them."""
    heavy = {
        "boto3",
        "botocore",
        "MySQLdb",
        "trino",
        "pyiceberg",
        "pyarrow",
        "sqlalchemy",
        "airflow.providers.amazon",
        "vl_convert",
        "jinja2",
    }
    code = (
        "import sys, airflow.sdk; from airflow.sdk import BaseNotifier, BaseOperatorLink; before = set(sys.modules);"
        "import dbops.alerting, dbops.connections, dbops.guardrails, dbops.reports, dbops.specs, dbops.sql;"
        f"print(sorted((set(sys.modules) - before) & {heavy!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.lab
@pytest.mark.parametrize("conn_id", ["mysql_default", "mysql80"])
class TestAgainstMySQL:
    def test_session(self, conn_id):
        connection = connections.mysql(conn_id)
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT @@time_zone, @@sql_mode, @@character_set_client, @@character_set_results, @@autocommit, '☃'"
            )
            assert cursor.fetchone() == ("+00:00", "", "utf8mb4", "utf8mb4", 1, "☃")

    def test_raw_values_are_bytes(self, conn_id):
        connection = connections.mysql(conn_id, raw=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 42, 1.50, DATE'2024-02-29', b'101', 'é☃', NULL, %s, %s", ("x'y", 7))
            assert cursor.fetchone() == (b"42", b"1.50", b"2024-02-29", b"\x05", "é☃".encode(), None, b"x'y", b"7")

    def test_engine_is_strict_and_transactional(self, conn_id):
        import sqlalchemy as sa

        engine = connections.engine(conn_id)
        with engine.connect() as connection:
            autocommit, mode = connection.execute(sa.text("SELECT @@autocommit, @@sql_mode")).one()
        engine.dispose()
        assert autocommit == 0
        assert "STRICT_ALL_TABLES" in mode

    def test_several_statements_in_one_string_are_refused(self, conn_id):
        import MySQLdb

        connection = connections.mysql(conn_id)
        with connection, connection.cursor() as cursor, pytest.raises(MySQLdb.ProgrammingError):
            cursor.execute("SELECT 1; SELECT 2")


def test_plugins_folder_keeps_the_package_from_the_scanner():
    assert (Path(ROOT) / "plugins" / ".airflowignore").read_text().split() == ["dbops/"]


@pytest.mark.parametrize(
    ("service", "asks", "changes", "given"),
    [
        (
            "rds", "describe_db_clusters", "create_db_cluster_parameter_group",
            {"DBClusterParameterGroupName": "g", "DBParameterGroupFamily": "aurora-mysql8.0", "Description": "d"},
        ),
        (
            "dms", "describe_endpoints", "create_endpoint",
            {"EndpointIdentifier": "e", "EndpointType": "source", "EngineName": "mysql"},
        ),
    ],
)  # fmt: skip
def test_calls_that_change_something_are_logged_with_their_request_id(
    caplog: pytest.LogCaptureFixture, service: str, asks: str, changes: str, given: dict[str, Any]
) -> None:
    import boto3
    from moto import mock_aws

    with mock_aws(), caplog.at_level("INFO", "dbops.connections"):
        plain = boto3.client(service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        client = connections.audited(plain)
        getattr(client, asks)()
        assert caplog.text == ""
        getattr(client, changes)(**given)
    name = "".join(part.capitalize() if part != "db" else "DB" for part in changes.split("_"))
    assert f"AWS call {name}: HTTP 200, request id" in caplog.text
