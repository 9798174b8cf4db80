"""The environment in which Airflow, the tests and the benches meet the lab: folders, connections, interpreter."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from lab import config
from lab.config import HOST, MYSQL_PASSWORD, MYSQL_USER, ROOT


def connections() -> dict[str, dict[str, object]]:
    """Airflow connections of the lab by connection id, in Airflow's JSON form."""

    def mysql(server: str, schema: str, **extra: object) -> dict[str, object]:
        return {
            "conn_type": "mysql",
            "host": HOST,
            "port": config.port(server),
            "login": MYSQL_USER,
            "password": MYSQL_PASSWORD,
            "schema": schema,
            "extra": {"charset": "utf8mb4", **extra},
        }

    purge = [f"{config.SOURCE_SCHEMA}.*"]
    return {
        "aws_default": {
            "conn_type": "aws",
            "login": config.AWS_KEY,
            "password": config.AWS_SECRET,
            "extra": {
                "region_name": config.AWS_REGION,
                "endpoint_url": config.aws_endpoint(),
                "service_config": {"dynamodb": {"endpoint_url": config.dynamodb_endpoint()}},
                "dbops_sns_topic_arn": config.ALERTS_TOPIC_ARN,
                "dbops_backfill_allow": ["carshare_*"],
            },
        },
        "mysql_default": mysql("mysql57", config.SOURCE_SCHEMA, dbops_purge_allow=purge),
        "mysql80": mysql("mysql80", config.SOURCE_SCHEMA, dbops_purge_allow=purge),
        "trino_default": {
            "conn_type": "trino",
            "host": HOST,
            "port": config.port("trino"),
            "login": MYSQL_USER,
            "schema": "default",
            "extra": {"protocol": "http", "catalog": config.CATALOG},
        },
        "dbops_store": mysql("mysql80", config.STORE_SCHEMA, reports_s3_uri=f"s3://{config.REPORTS_BUCKET}/"),
        # The rehearsal makes its databases itself, so it brings the name and the password only.
        "dbops_rehearsal": {
            "conn_type": "mysql",
            "login": config.RDS_USER,
            "password": MYSQL_PASSWORD,
            "extra": {"charset": "utf8mb4"},
        },
        "memorydb_default": {
            "conn_type": "redis",
            "host": HOST,
            "port": config.port("redis"),
            "extra": {"ssl": False, "dbops_backfill_allow": ["carshare:*"]},
        },
        "iceberg_default": {
            "conn_type": "generic",
            "host": HOST,
            "port": config.port("mysql80"),
            "login": MYSQL_USER,
            "password": MYSQL_PASSWORD,
            "schema": config.CATALOG_SCHEMA,
            "extra": {"catalog": config.CATALOG, "type": "sql", "warehouse": config.WAREHOUSE},
        },
    }


def environment() -> dict[str, str]:
    """Variables to add to a process's environment; PATH and its like are complete values."""
    airflow_home = config.home() / "airflow"
    return {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
        # Said explicitly, so that a setting in the caller's own environment never leads to another database.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home / 'airflow.db'}",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(config.port("airflow")),
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{config.port('airflow')}",
        **{f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(value) for conn_id, value in connections().items()},
        "DBOPS_SPECS_DIR": str(ROOT / "include" / "specs"),
        "PATH": _first(str(Path(sys.executable).parent), "PATH"),
        "PYTHONPATH": _first(str(ROOT), "PYTHONPATH"),
        "NO_PROXY": _first(HOST, "NO_PROXY", ","),
        "no_proxy": _first(HOST, "no_proxy", ","),
    }


def exports() -> str:
    """The environment as shell commands, one export a line."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment().items())


def write() -> Path:
    """Write the exports to `.lab/env`, and return its path."""
    path = config.home() / "env"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(exports())
    return path


def _first(entry: str, variable: str, separator: str = os.pathsep) -> str:
    rest = [part for part in os.environ.get(variable, "").split(separator) if part and part != entry]
    return separator.join([entry, *rest])
