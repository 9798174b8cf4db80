"""Constants, and how the environment moves them; the exported environment means the same to a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import config, env, mysql, trino


@pytest.fixture(autouse=True)
def _default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LAB_HOME", "DBOPS_CACHE", *map(config.port_variable, config.DEFAULT_PORTS)):
        monkeypatch.delenv(variable, raising=False)


def test_port_is_moved_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_MYSQL57_PORT", "28457")
    assert config.port("mysql57") == 28457
    assert config.port("mysql80") == config.DEFAULT_PORTS["mysql80"]


@pytest.mark.parametrize("text", ["", "abc", "0", "65536", "-1", "18457 "])
def test_wrong_port_names_variable_and_value(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TRINO_PORT", text)
    with pytest.raises(config.LabError, match=rf"LAB_TRINO_PORT='{text}' is not a port number"):
        config.port("trino")


def test_home_is_relative_to_the_repository_not_to_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.home() == config.ROOT / ".lab"
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "other"))
    assert config.home() == tmp_path / "other"


def test_a_lab_beside_this_one_shares_neither_ports_nor_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "it's here"))
    monkeypatch.setenv("LAB_AWS_PORT", "20000")
    labs = [config.beside(number) for number in range(3)]
    for name in ("LAB_HOME", *map(config.port_variable, config.DEFAULT_PORTS)):
        assert len({lab[name] for lab in labs}) == 3, name
    assert labs[0]["LAB_HOME"] == str(config.home())
    assert labs[0]["LAB_AWS_PORT"] == "20000"
    command = [sys.executable, "-m", "lab", "beside", "2"]
    script = subprocess.run(command, cwd=config.ROOT, capture_output=True, text=True, check=True).stdout
    show = f'{script}exec "{sys.executable}" -c "from lab import config; print(config.home(), config.port(\'aws\'))"'
    seen = subprocess.run(["sh", "-c", show], cwd=config.ROOT, capture_output=True, text=True, check=True).stdout
    assert seen == f"{tmp_path}/it's here/beside-2 22000\n"
    assert config.numbers_beside() == []
    Path(labs[2]["LAB_HOME"]).mkdir(parents=True)
    assert config.numbers_beside() == [2]


def test_options_of_the_environment_come_after_those_of_the_lab(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.delenv("LAB_TRINO_JVM_OPTIONS", raising=False)
    usual = trino._prepare()
    monkeypatch.setenv("LAB_TRINO_JVM_OPTIONS", " -XX:-UseG1GC  -XX:+UseSerialGC ")
    last = 1 + len(trino.JVM_OPTIONS)
    assert trino._prepare() == [*usual[:last], "-XX:-UseG1GC", "-XX:+UseSerialGC", *usual[last:]]


@pytest.mark.parametrize(
    ("coordinates", "filename"), [("g:tool:1.0", "tool-1.0.jar"), ("g:tool:1.0:tar.gz", "tool-1.0.tar.gz")]
)
def test_artifact_filename_is_what_maven_writes(coordinates: str, filename: str) -> None:
    assert config.Artifact(coordinates, "", "").filename == filename


def test_moved_ports_reach_every_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ports = {name: 30_001 + number for number, name in enumerate(config.DEFAULT_PORTS)}
    for name, port in ports.items():
        monkeypatch.setenv(config.port_variable(name), str(port))
    texts = [env.exports(), json.dumps(trino._configuration())]
    texts += [mysql._my_cnf(server, tmp_path, tmp_path) for server in config.MYSQL_SERVERS.values()]
    for name, default in config.DEFAULT_PORTS.items():
        assert not [text for text in texts if f":{default}" in text or f"= {default}\n" in text]
        assert any(str(ports[name]) in text for text in texts), name


def test_each_mysql_version_gets_only_settings_that_it_knows() -> None:
    old, new = (mysql._my_cnf(server, Path("/b"), Path("/d")) for server in (config.MYSQL57, config.MYSQL80))
    assert "expire_logs_days" in old
    assert "mysqlx" not in old
    assert "binlog_expire_logs_seconds" in new
    assert "default_authentication_plugin = mysql_native_password" in new


def test_exports_mean_the_same_to_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / 'it\'s a "home" $HOME `id`'))
    file = env.write()
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    script = f'. "$1" && exec "{sys.executable}" -c "{show}"'
    output = subprocess.run(["sh", "-c", script, "sh", file], capture_output=True, text=True, check=True).stdout
    seen, wanted = json.loads(output), env.environment()
    assert {name: seen.get(name) for name in wanted} == wanted


def test_environment_puts_this_interpreter_and_this_repository_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = env.environment()
    for name in ("PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, first[name])
    again = env.environment()
    assert again["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert again["PYTHONPATH"].split(os.pathsep)[0] == str(config.ROOT)
    assert again == first


def test_environment_never_leads_to_the_callers_own_airflow_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production/airflow")
    assert env.environment()["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{config.home()}/")


def test_connections_are_what_the_dags_look_for() -> None:
    connections = env.connections()
    assert set(connections) == {
        "aws_default", "mysql_default", "mysql80", "trino_default", "dbops_store", "dbops_rehearsal", "memorydb_default",
        "iceberg_default",
    }  # fmt: skip
    assert connections["mysql_default"] == {
        "conn_type": "mysql",
        "host": "127.0.0.1",
        "port": 18457,
        "login": "dbops",
        "password": "lab-secret",
        "schema": "carshare",
        "extra": {"charset": "utf8mb4", "dbops_purge_allow": ["carshare.*"]},
    }
    assert connections["dbops_rehearsal"] == {
        "conn_type": "mysql", "login": "rehearsal", "password": "lab-secret", "extra": {"charset": "utf8mb4"},
    }  # fmt: skip
    assert connections["aws_default"] == {
        "conn_type": "aws", "login": "labkey", "password": "lab-secret", "extra": {
            "region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:18450",
            "service_config": {"dynamodb": {"endpoint_url": "http://127.0.0.1:18400"}},
            "dbops_sns_topic_arn": "arn:aws:sns:eu-central-1:123456789012:dbops-alerts", "dbops_backfill_allow": ["carshare_*"],
        },
    }  # fmt: skip
    assert connections["memorydb_default"] == {
        "conn_type": "redis", "host": "127.0.0.1", "port": 18463, "extra": {"ssl": False, "dbops_backfill_allow": ["carshare:*"]},
    }  # fmt: skip
    assert connections["dbops_store"]["extra"] == {"charset": "utf8mb4", "reports_s3_uri": "s3://dbops-reports/"}
    assert connections["iceberg_default"]["extra"] == {
        "catalog": "lake", "type": "sql", "warehouse": "s3://dbops-lake/warehouse",
    }  # fmt: skip
