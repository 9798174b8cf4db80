"""The lab as a whole: bring every service up in the order that it needs, take all down, say how it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from lab import airflow, artifacts, aws, config, dynamodb, env, mysql, processes, redis, trino
from lab.processes import Service
from lab.rds import plane

STATE = ("mysql57", "mysql80", "rds", "dynamodb", "redis", "trino", "airflow", "run", "log", "reports")


@dataclass(frozen=True)
class State:
    """What ``status`` shows of one service."""

    name: str
    port: int
    pid: int | None
    rss_mb: int | None
    ready: bool


def services() -> dict[str, Service]:
    return {
        **{name: mysql.service(server) for name, server in config.MYSQL_SERVERS.items()},
        "aws": aws.service(),
        "dynamodb": dynamodb.service(),
        "redis": redis.service(),
        "trino": trino.service(),
    }


def up() -> None:
    """Start what is not running and create what is missing; harmless when everything is there.

    Raises:
        LabError: a service cannot run; the others stay as they are
    """
    with processes.exclusive():
        artifacts.setup()
        env.write()
        all_services = services()

        def start(name: str) -> None:
            if processes.start(all_services[name]):
                print(f"{name} is ready on port {config.port(name)}", flush=True)

        def start_mysql(name: str) -> None:
            start(name)
            mysql.provision(config.MYSQL_SERVERS[name])

        def start_trino() -> None:
            servers[-1].result()
            if processes.find("trino") is None:
                trino.iceberg_catalog()  # Trino loads its catalogs when it starts, and wants these tables then
            start("trino")

        with ThreadPoolExecutor(max_workers=8) as pool:  # all wait at once, however few cores there are
            servers = [pool.submit(start_mysql, name) for name in ("mysql57", "mysql80")]
            others = [pool.submit(start, name) for name in ("aws", "dynamodb", "redis")]
            others += [pool.submit(start_trino), pool.submit(airflow.provision)]
        _raise_first([*servers, *others])
        if not aws.is_provisioned():
            forget_the_lake()
            aws.provision()


def forget_the_lake() -> None:
    """Empty the schemas that describe objects of a lake which is gone with the old aws process."""
    lost = [
        f"{server}.{schema}"
        for server, schema in (
            ("mysql80", config.CATALOG_SCHEMA),
            ("mysql57", config.LEDGER_SCHEMA),
            ("mysql80", config.LEDGER_SCHEMA),
        )
        if mysql.recreate_schema(server, schema)
    ]
    trino.iceberg_catalog()
    if any(config.LEDGER_SCHEMA in schema for schema in lost):
        print(
            f"the simulated S3 is new and empty: emptied {', '.join(lost)}, which described the lost objects",
            flush=True,
        )


def down() -> None:
    """Stop every service; what is on disk stays."""
    with processes.exclusive(), ThreadPoolExecutor() as pool:
        for name, stopped in zip(config.SERVICES, pool.map(processes.stop, config.SERVICES), strict=True):
            if stopped:
                print(f"{name} is stopped", flush=True)
        plane.end_servers_below(plane.folder())  # an aws process that had to be killed could not end its databases


def reset() -> None:
    """Stop every service, delete all state except the cache, and start anew."""
    down()
    with processes.exclusive():
        for name in STATE:  # by name: LAB_HOME may be a folder with other things in it
            shutil.rmtree(config.home() / name, ignore_errors=True)
        (config.home() / "env").unlink(missing_ok=True)
    up()


def status() -> list[State]:
    """State of every service, in the order of config.SERVICES."""
    all_services = services()
    return [_state(name, all_services[name].ready) for name in config.SERVICES]


def _state(name: str, ready: Callable[[], None]) -> State:
    process = processes.find(name)
    if process is None:
        return State(name, config.port(name), None, None, False)
    try:
        ready()
        answers = True
    except Exception:
        answers = False
    try:
        rss_mb = process.memory_info().rss // 2**20
    except psutil.NoSuchProcess:
        return State(name, config.port(name), None, None, False)
    return State(name, config.port(name), process.pid, rss_mb, answers)


def _raise_first(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()
