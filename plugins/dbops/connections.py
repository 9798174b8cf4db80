"""Airflow connections of dbops: their default ids and how each becomes a client.

Every host, key and password comes from an Airflow connection (AIRFLOW_CONN_*, secrets backend or UI). The functions
work in tasks, in the API server and in a plain process that has the AIRFLOW_CONN_* variables. Heavy imports stay
inside the functions, because DAG files import this module.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import MySQLdb.connections
    import sqlalchemy
    from airflow.sdk import Connection
    from pyiceberg.catalog import Catalog
    from trino.dbapi import Connection as TrinoConnection

log = logging.getLogger(__name__)

AWS = "aws_default"
MYSQL = "mysql_default"
MYSQL_REPLICA = "mysql_replica"
TRINO = "trino_default"
STORE = "dbops_store"
ICEBERG = "iceberg_default"
REDIS = "memorydb_default"

REAL_AWS = "real AWS"
SIMULATED_AWS = "simulated AWS, real MySQL"

CONNECT_TIMEOUT_S = 10
# Checksums compare text that MySQL renders, so rendering must not depend on the server's defaults
# (PAD_CHAR_TO_FULL_LENGTH changes CHAR values, the time zone changes TIMESTAMP values). SQLAlchemy engines write, so
# they keep strict mode.
_SESSION = "SET time_zone='+00:00', sql_mode='{sql_mode}'"
_STRICT = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_REDIS_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_REDIS_TIMEOUT_S = 30.0
_AWS_DOMAINS = ("amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws")


class ConnectionUndefined(LookupError):
    """An Airflow connection that a run needs does not exist or cannot be read."""


class ConnectionInvalid(ValueError):
    """An Airflow connection exists but lacks a field or has a value that dbops cannot use."""


@contextmanager
def closing(resource: Any) -> Iterator[Any]:
    """contextlib.closing for connections that may be lost: the step's own error matters more than that of closing."""
    try:
        yield resource
    finally:
        with suppress(Exception):
            if resource is not None:
                resource.close()


def mysql(
    conn_id: str = MYSQL,
    *,
    raw: bool = False,
    autocommit: bool = True,
    schema: str | None = None,
    address: tuple[str, int] | None = None,
    read_timeout_s: int | None = None,
) -> MySQLdb.connections.Connection:
    """Open a mysqlclient connection through MySqlHook, so that ssl, ssl_mode and iam in the connection's extra work.

    The session is pinned: utf8mb4, time_zone '+00:00', sql_mode ''. With raw=True every value arrives as bytes (NULL
    as None). `schema` overrides the connection's schema, `address` its host and port. LOAD DATA LOCAL and
    multi-statement strings are off. `read_timeout_s` is how long a statement may go without an answer; None: for ever.
    The caller closes it.

    Raises ConnectionUndefined for an unknown id, MySQLdb.Error when the server refuses.
    """
    return _connect(
        conn_id, raw=raw, autocommit=autocommit, schema=schema, address=address, read_timeout_s=read_timeout_s
    )


def lag_source(source: str, replica: str | None = None) -> MySQLdb.connections.Connection | None:
    """Open the connection that shows how far the replicas of `source` are behind; None where no connection shows it.

    It is `replica` where one is named, `source` itself on Aurora, which sees its readers, else `mysql_replica`. The caller closes it.

    Raises ConnectionUndefined for an unknown id, MySQLdb.Error when a server refuses.
    """
    from dbops.mysql import read_server

    if replica:
        return mysql(replica)
    with closing(mysql(source)) as conn:
        is_aurora = read_server(conn).is_aurora
    if is_aurora:
        return mysql(source)
    return mysql(MYSQL_REPLICA) if is_defined(MYSQL_REPLICA) else None


def login(conn_id: str) -> tuple[str, str]:
    """User and password of a connection whose host is not used, because a run makes the server itself.

    Raises ConnectionUndefined for an unknown id, ConnectionInvalid when either is empty.
    """
    conn = _get(conn_id)
    for field, value in (("login", conn.login), ("password", conn.password)):
        if not value:
            raise ConnectionInvalid(f"connection {conn_id!r}: field {field!r} is empty; set it in the connection")
    return str(conn.login), str(conn.password)


def is_defined(conn_id: str) -> bool:
    """Whether the connection exists in any configured secrets backend, the environment or the metadata database."""
    try:
        _get(conn_id)
    except ConnectionUndefined:
        return False
    return True


def extra(conn_id: str) -> dict[str, Any]:
    """The connection's extra field as a dict. Raises ConnectionUndefined for an unknown id."""
    return dict(_get(conn_id).extra_dejson)


def patterns(conn_id: str, name: str) -> tuple[str, ...]:
    """An allow-list of the connection's extra: none where the extra does not have it; one that is written as text is one pattern.

    Args:
        conn_id: Airflow connection
        name: of the list in its extra

    Raises:
        ConnectionUndefined: an unknown id
        ConnectionInvalid: it is neither a text nor a list of texts
    """
    given = extra(conn_id).get(name)
    # Taken apart into its letters, a text with a * in it would allow everything.
    listed = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ConnectionInvalid(
            f'connection {conn_id!r}: extra {name!r} is {given!r}; write a list of patterns, as in ["carshare.*"]'
        )
    return tuple(each for each in listed if each)


def trino(conn_id: str = TRINO) -> TrinoConnection:
    """Open a Trino DB-API connection through TrinoHook (auth, verify, roles, session_properties from the extra)."""
    _get(conn_id)
    from airflow.providers.trino.hooks.trino import TrinoHook

    return TrinoHook(trino_conn_id=conn_id).get_conn()


def aws_client(service: str, conn_id: str = AWS, region: str | None = None, config: Any = None) -> Any:
    """A boto3 client with the connection's credentials, role, region and endpoint_url; `config` is a botocore Config.

    An undefined connection is an error here: falling back to whatever credentials the machine happens to hold could
    act on the wrong account. To use the instance or task role say so: AIRFLOW_CONN_AWS_DEFAULT='{"conn_type":
    "aws"}'.
    """
    return _aws_hook(conn_id, region, service, config).get_conn()


def redis(conn_id: str = REDIS, *, connections: int = 16) -> Any:
    """A redis-py client of MemoryDB, ElastiCache, Valkey or Redis that leaves bytes as they are; the caller closes it.

    Login and password are those of the server's user. Extra: `ssl` (true for MemoryDB) with `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
    `ssl_cert_reqs` and `ssl_check_hostname`; `db` where there is no cluster; `socket_timeout` in seconds (default 30); `cluster`: whether
    keys lie on several nodes, asked of the server where it is not said.

    Args:
        conn_id: Airflow connection
        connections: that may be open to one node at a time

    Raises:
        ConnectionUndefined: an unknown id
        ConnectionInvalid: no host, or a database in cluster mode
        redis.exceptions.ConnectionError: the server does not answer, or refuses the login
    """
    import redis as redis_py
    from redis.exceptions import RedisError

    conn = _get(conn_id)
    options = conn.extra_dejson
    shared: dict[str, Any] = {
        "host": _need(conn, "host"),
        "port": int(conn.port or 6379),
        "username": conn.login or None,
        "password": conn.password or None,
        "ssl": bool(options.get("ssl", False)),
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": float(options.get("socket_timeout", _REDIS_TIMEOUT_S)),
        "max_connections": connections,
        "decode_responses": False,
        **{name: options[name] for name in _REDIS_TLS if name in options},
    }
    try:
        single = redis_py.Redis(**shared, db=int(options.get("db", 0)))
        is_cluster = options.get("cluster")
        if is_cluster is None:
            is_cluster = bool(single.info("cluster").get("cluster_enabled"))
        if not is_cluster:
            single.ping()
            return single
        single.close()
        if int(options.get("db", 0)):
            raise ConnectionInvalid(
                f"connection {conn_id!r}: extra 'db' is {options['db']}; a cluster has database 0 only"
            )
        # A cluster's endpoint is a name that follows the nodes, and stays good when their addresses change.
        return redis_py.RedisCluster(**shared, dynamic_startup_nodes=False)
    except RedisError as error:
        error.add_note(f"Airflow connection {conn_id!r}, host {conn.host}:{conn.port or 6379}, user {conn.login}")
        raise


def audited(client: Any) -> Any:
    """The boto3 client, which logs every call that changes something with its request id: what AWS's support asks for."""

    def note(http_response: Any, parsed: Any, model: Any, **_: Any) -> None:
        if not model.name.startswith("Describe"):
            request = parsed.get("ResponseMetadata", {}).get("RequestId", "")
            log.info("AWS call %s: HTTP %s, request id %s", model.name, http_response.status_code, request)

    client.meta.events.register("after-call", note)
    return client


def engine(conn_id: str = STORE, *, schema: str | None = None) -> sqlalchemy.Engine:
    """A SQLAlchemy engine whose connections are opened as by mysql(), but in strict sql_mode and with manual commit.

    `schema` overrides the connection's schema. conn_type "sqlite" (host = path of the file) is accepted for trials
    without a server.
    """
    import sqlalchemy

    conn = _get(conn_id)
    if conn.conn_type == "sqlite":
        return sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=conn.host))
    return sqlalchemy.create_engine(
        "mysql+mysqldb://",
        creator=lambda: _connect(conn_id, autocommit=False, schema=schema, sql_mode=_STRICT, found_rows=True),
        pool_pre_ping=True,
        pool_recycle=600,  # seconds, below the idle limits of proxies and firewalls
    )


def iceberg_catalog(conn_id: str = ICEBERG, aws_conn_id: str = AWS) -> Catalog:
    """The PyIceberg catalog that the connection describes.

    Extra: `catalog` (name), `warehouse`, `type` (default glue):
      glue  region, endpoint and credentials from the AWS connection
      sql   `uri`, or MySQL from host, port, login, password and schema
      rest  `uri`, or the host field; password as OAuth2 token, or login and password as client credential
    Keys that start with `s3.` or `glue.` go to PyIceberg as they are, keys that start with `catalog.` without that
    prefix, and win over what is derived. S3 credentials are a snapshot of the AWS session: open a catalog per unit of
    work, do not keep it for hours.
    """
    from pyiceberg.catalog import load_catalog

    conn = _get(conn_id)
    options = conn.extra_dejson
    name, kind, warehouse = _need(conn, "catalog"), options.get("type", "glue"), _need(conn, "warehouse")
    hook = _aws_hook(aws_conn_id, None, "s3")
    properties: dict[str, Any] = {"type": kind, "warehouse": warehouse, **_aws_properties(hook, "s3")}
    if kind == "glue":
        properties |= _aws_properties(hook, "glue")
    elif kind == "sql":
        properties["uri"] = options.get("uri") or _sql_uri(conn)
        properties["pool_pre_ping"] = "true"
    elif kind == "rest":
        properties["uri"] = options.get("uri") or _need(conn, "host")
        if conn.password:
            properties |= {"credential": f"{conn.login}:{conn.password}"} if conn.login else {"token": conn.password}
    else:
        raise ConnectionInvalid(f"connection {conn_id!r}: extra 'type' is {kind!r}; allowed: glue, sql, rest")
    for key, value in options.items():
        if key.startswith(("s3.", "glue.")):
            properties[key] = value
        elif key.startswith("catalog."):
            properties[key.removeprefix("catalog.")] = value
    return load_catalog(name, **properties)


def iceberg_trino_catalog(conn_id: str = ICEBERG) -> str:
    """Name of the same catalog in Trino: extra `trino_catalog`, else extra `catalog`."""
    conn = _get(conn_id)
    return str(conn.extra_dejson.get("trino_catalog") or _need(conn, "catalog"))


def aws_provenance(conn_id: str = AWS) -> str:
    """What the figures of a report stand for.

    "real AWS", or "simulated AWS, real MySQL" if any endpoint lies outside AWS.
    """
    options = extra(conn_id)
    services = options.get("service_config") or {}
    endpoints = [
        options.get("endpoint_url"),
        *(service.get("endpoint_url") for service in services.values() if isinstance(service, dict)),
        *(value for key, value in os.environ.items() if key.startswith("AWS_ENDPOINT_URL")),
    ]
    hosts = [urlsplit(str(url)).hostname or "" for url in endpoints if url]
    real = all(host.endswith(tuple(f".{domain}" for domain in _AWS_DOMAINS)) for host in hosts)
    return REAL_AWS if real else SIMULATED_AWS


def _get(conn_id: str) -> Connection:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConnectionUndefined(
            f"Airflow connection {conn_id!r} is not defined or cannot be parsed. "
            f"Define it in the secrets backend, under Admin > Connections, "
            f"or as JSON in the environment variable AIRFLOW_CONN_{conn_id.upper()}, for MySQL as in "
            f"""'{{"conn_type": "mysql", "host": "db.example.com", "login": "dbops", "password": "..."}}'; """
            "README.md has an example of each kind"
        ) from error


def _need(conn: Connection, field: str) -> str:
    value = conn.host if field == "host" else conn.schema if field == "schema" else conn.extra_dejson.get(field)
    if not value:
        where = "field" if field in {"host", "schema"} else "extra"
        raise ConnectionInvalid(f"connection {conn.conn_id!r}: {where} {field!r} is empty; set it in the connection")
    return str(value)


def _connect(
    conn_id: str,
    *,
    raw: bool = False,
    autocommit: bool = True,
    schema: str | None = None,
    sql_mode: str = "",
    found_rows: bool = False,
    address: tuple[str, int] | None = None,
    read_timeout_s: int | None = None,
) -> MySQLdb.connections.Connection:
    from airflow.providers.mysql.hooks.mysql import MySqlHook
    from MySQLdb.constants import CLIENT
    from MySQLdb.converters import conversions

    conn = _get(conn_id)
    if conn.extra_dejson.get("client", "mysqlclient") != "mysqlclient":
        raise ConnectionInvalid(
            f"connection {conn_id!r}: extra 'client' must be mysqlclient or absent, dbops reads raw bytes through it"
        )

    class Hook(MySqlHook):
        """MySqlHook takes neither a timeout nor a converter, so they are added where it builds the arguments."""

        def _get_conn_config_mysql_client(self, conn: Connection) -> dict[str, Any]:
            config = super()._get_conn_config_mysql_client(conn)
            config.pop("cursorclass", None)  # callers choose the cursor; one from the extra would change what they read
            config |= {
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_TIMEOUT_S,
                "autocommit": autocommit,
                "multi_statements": False,
                "client_flag": CLIENT.FOUND_ROWS if found_rows else 0,
                "init_command": _SESSION.format(sql_mode=sql_mode),
            }
            if read_timeout_s is not None:
                config["read_timeout"] = read_timeout_s
            if address is not None:
                config |= {"host": address[0], "port": address[1]}
            if raw:  # only the encoders stay: parameters can still be passed, no value is decoded
                config |= {
                    "conv": {k: v for k, v in conversions.items() if not isinstance(k, int)},
                    "use_unicode": False,
                }
            return config

    import MySQLdb

    try:
        return cast("MySQLdb.connections.Connection", Hook(mysql_conn_id=conn_id, schema=schema).get_conn())
    except MySQLdb.Error as error:
        error.add_note(f"Airflow connection {conn_id!r}, host {conn.host}:{conn.port or 3306}, user {conn.login}")
        raise


def _aws_hook(conn_id: str, region: str | None, service: str, config: Any = None) -> Any:
    _get(conn_id)
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    return AwsBaseHook(aws_conn_id=conn_id, region_name=region, client_type=service, config=config)


def _aws_properties(hook: Any, prefix: str) -> dict[str, str]:
    session = hook.get_session()
    credentials = session.get_credentials()
    frozen = credentials.get_frozen_credentials() if credentials else None
    values = {
        "region": session.region_name,
        "endpoint": hook.conn_config.get_service_endpoint_url(prefix),
        "access-key-id": frozen and frozen.access_key,
        "secret-access-key": frozen and frozen.secret_key,
        "session-token": frozen and frozen.token,
    }
    return {f"{prefix}.{key}": value for key, value in values.items() if value}


def _sql_uri(conn: Connection) -> str:
    from sqlalchemy import URL

    url = URL.create(
        "mysql+mysqldb",
        username=conn.login,
        password=conn.password,
        host=_need(conn, "host"),
        port=int(conn.port or 3306),
        database=_need(conn, "schema"),
        query={"charset": "utf8mb4"},
    )
    return url.render_as_string(hide_password=False)
