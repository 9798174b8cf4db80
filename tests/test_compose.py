"""docker-compose.yaml is well formed and describes the lab: same images, ports, connections, configuration.

There is no Docker here, so the stack itself is not started. What the lab runs is compared with what the containers are
given, after the one difference that has to be: a service's name stands where the lab has 127.0.0.1.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lab import config, dynamodb, env, mysql, redis, trino

ROOT = config.ROOT
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = ["airflow-init", "api-server", "dag-processor", "scheduler", "triggerer"]
# What has to be said differently in a container: the image knows its folders, and Docker publishes the port.
NOT_IN_CONTAINERS = {
    "basedir", "bind_address", "datadir", "innodb_buffer_pool_size", "lc_messages_dir", "pid_file", "socket",
}  # fmt: skip


@pytest.fixture(autouse=True)
def default_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are written for the default ports, whatever the developer's lab uses."""
    for name in config.DEFAULT_PORTS:
        monkeypatch.delenv(config.port_variable(name), raising=False)


def in_containers(text: str) -> str:
    """The lab's configuration as a container sees it."""
    for name, port in config.DEFAULT_PORTS.items():
        text = text.replace(f"{config.HOST}:{port}", f"{name}:{port}")
    return text


def mounts() -> Iterator[tuple[str, str, str]]:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            yield name, source, target


def environment(name: str) -> dict[str, str]:
    return SERVICES[name]["environment"]


def settings(text: str) -> dict[str, str]:
    """The `name = value` lines of a my.cnf or of Java properties."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def test_follows_the_compose_specification() -> None:
    schema = json.loads(
        resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_services_have_a_health_check_and_wait_for_known_services() -> None:
    for name, service in SERVICES.items():
        assert "healthcheck" in service or name == "airflow-init", name
        for other, wait in service.get("depends_on", {}).items():
            done = "service_completed_successfully" if other == "airflow-init" else "service_healthy"
            assert other in SERVICES, f"{name} waits for {other}, which is no service"
            assert wait["condition"] == done, f"{name} waits for {other} to be {wait['condition']}"


@pytest.mark.parametrize("name", sorted(set(config.DOCKER_IMAGES) - {"airflow"}))
def test_images_are_those_of_the_lab(name: str) -> None:
    assert SERVICES[name]["image"] == config.DOCKER_IMAGES[name]


def test_airflow_image_is_built_from_the_locked_version() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (pin,) = re.findall(r"^apache-airflow==(.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert config.DOCKER_IMAGES["airflow"] == f"apache/airflow:{pin}-python3.11"
    assert re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE) == [
        (config.DOCKER_IMAGES["airflow"], "airflow"),
        ("airflow", "lab"),
    ]
    for name in ("aws", *AIRFLOW):
        target = SERVICES[name]["build"]["target"]
        assert SERVICES[name]["image"] == f"dbops-{target}"
    assert "_PIP_ADDITIONAL_REQUIREMENTS" not in (ROOT / "docker-compose.yaml").read_text()


def test_ports_are_those_of_the_lab_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        name: [f"{config.HOST}:${{{config.port_variable(lab_name)}:-{port}}}:{port}"]
        for lab_name, port in config.DEFAULT_PORTS.items()
        for name in ["api-server" if lab_name == "airflow" else lab_name]
    }


def test_connections_are_those_of_the_lab_with_service_names() -> None:
    names = {port: name for name, port in config.DEFAULT_PORTS.items()}
    expected = {}
    for conn_id, connection in env.connections().items():
        moved = json.loads(in_containers(json.dumps(connection)))
        if "host" in moved:
            moved["host"] = names[moved["port"]]
        expected[f"AIRFLOW_CONN_{conn_id.upper()}"] = moved
    lines = (ROOT / "docker/connections.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert {name: json.loads(value) for name, value in given.items()} == expected
    for name in AIRFLOW:
        assert SERVICES[name]["env_file"] == ["docker/connections.env"]


@pytest.mark.parametrize("name", AIRFLOW)
def test_airflow_components_share_one_secret_and_one_api(name: str) -> None:
    variables = environment(name)
    assert variables["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://api-server:8080/execution/"
    assert variables["AIRFLOW__API_AUTH__JWT_SECRET"].startswith("${AIRFLOW_SECRET:?")
    assert variables["AIRFLOW__CORE__LOAD_EXAMPLES"] == env.environment()["AIRFLOW__CORE__LOAD_EXAMPLES"]


def test_airflow_finds_dags_plugins_and_include_where_the_lab_has_them() -> None:
    for name in set(AIRFLOW) - {"airflow-init"}:
        targets = {source: target for service, source, target in mounts() if service == name}
        assert {
            f"./{folder}": f"/opt/airflow/{folder}" for folder in ("dags", "plugins", "include")
        }.items() <= targets.items()
        specs = Path(env.environment()["DBOPS_SPECS_DIR"]).relative_to(ROOT)
        assert environment(name)["DBOPS_SPECS_DIR"] == f"/opt/airflow/{specs}"


def test_every_mounted_path_and_volume_exists() -> None:
    named = set()
    for name, source, _ in mounts():
        if source.startswith("./"):
            assert (ROOT / source).exists(), f"{name} mounts {source}, which does not exist"
        else:
            named.add(source)
    assert named == set(COMPOSE["volumes"])


def test_every_variable_has_an_example_with_the_same_default() -> None:
    used = dict(
        re.findall(r"\$\{(\w+):[-?]([^}]*)\}", re.sub(r"\$\$\{", "", (ROOT / "docker-compose.yaml").read_text()))
    )
    used["AIRFLOW_SECRET"] = ""
    assert settings((ROOT / ".env.example").read_text()) == used


@pytest.mark.parametrize("server", config.MYSQL_SERVERS.values(), ids=lambda server: server.name)
def test_mysql_settings_are_those_of_the_lab(server: config.MySQLServer) -> None:
    lab = settings(mysql._my_cnf(server, Path("/base"), Path("/data")))
    wanted = {name: value for name, value in lab.items() if name not in NOT_IN_CONTAINERS}
    assert settings((ROOT / f"docker/{server.name}/my.cnf").read_text()) == wanted
    assert SERVICES[server.name]["command"] == [
        f"--innodb-buffer-pool-size=${{LAB_MYSQL_BUFFER_POOL:-{lab['innodb_buffer_pool_size']}}}"
    ]


@pytest.mark.parametrize("server", config.MYSQL_SERVERS.values(), ids=lambda server: server.name)
def test_mysql_users_and_privileges_are_those_of_the_lab(
    server: config.MySQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    monkeypatch.setattr(mysql, "execute", lambda _name, given: statements.extend(given))
    mysql.provision(server)
    assert (ROOT / f"docker/{server.name}/init.sql").read_text().splitlines()[1:] == [f"{s};" for s in statements]


def test_trino_is_configured_like_the_lab() -> None:
    folder = ROOT / "docker/trino"
    wanted = {name: {k: str(v) for k, v in properties.items()} for name, properties in trino._configuration().items()}
    given = {str(file.relative_to(folder)): settings(file.read_text()) for file in folder.rglob("*.properties")}
    for name, properties in wanted.items():
        # Trino finds itself on its own loopback; everything else is in another container.
        if name != "config.properties":
            wanted[name] = {key: in_containers(value) for key, value in properties.items()}
    assert given == wanted
    assert (folder / "jvm.config").read_text().splitlines() == list(trino.JVM_OPTIONS)


def test_pools_are_those_of_the_lab() -> None:
    assert json.loads((ROOT / "docker/pools.json").read_text()) == {
        name: {"slots": slots, "description": description, "include_deferred": False}
        for name, (slots, description) in config.POOLS.items()
    }


def test_redis_is_the_cluster_of_one_node_that_the_lab_has() -> None:
    (script,) = SERVICES["redis"]["command"]
    words = shlex.split(script.partition("exec redis-server ")[2].replace("\\\n", ""))
    port, given = config.DEFAULT_PORTS["redis"], dict(zip(words[::2], words[1::2], strict=True))
    assert {name: given[f"--{name}"] for name in redis.OPTIONS} == redis.OPTIONS
    assert given["--port"] == str(port)
    nodes = redis.NODES.format(host=config.HOST, port=port, bus=port + redis.BUS_OFFSET)
    assert environment("redis")["NODES"] == nodes.rstrip("\n")


def test_dynamodb_has_the_heap_of_the_lab_and_one_database_for_each_key_and_region() -> None:
    command = SERVICES["dynamodb"]["command"]
    assert f"-Xmx{dynamodb.HEAP}" == environment("dynamodb")["JAVA_TOOL_OPTIONS"]
    assert {"-inMemory", "-disableTelemetry"} <= {*command}
    assert "-sharedDb" not in command
    assert command[-2:] == ["-port", str(config.DEFAULT_PORTS["dynamodb"])]
