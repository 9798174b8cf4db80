"""Servers of the Redis protocol that end with the test, writes for them, and paces that are remembered."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from dbops.backfill.redis_target import RedisTarget
from dbops.backfill.target import Pressure
from dbops.keyvalue.stores import RedisStore
from dbops.keyvalue.views import Loaded, View
from tests.keyvalue import keyvalue_kit

VIEW = keyvalue_kit.users(policy=None)


@dataclass
class Server:
    """A redis-server that can be killed and started again, on the same port and empty."""

    port: int
    folder: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            pytest.fail("redis-server is missing: run `apt-get install -y redis-tools redis-server`", pytrace=False)
        command = [binary, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        until = time.monotonic() + 30
        while True:
            try:
                assert self.client().ping()
                return
            except RedisError:
                assert time.monotonic() < until, "redis-server did not answer within 30 s"
                assert self.process.poll() is None, "redis-server did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def client(self, **more: Any) -> Any:
        return redis.Redis("127.0.0.1", self.port, socket_timeout=5, **more)


def free_port() -> int:
    """A port with another one 10,000 above it, which a cluster's nodes talk on."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port < 55_000:
                try:
                    other.bind(("127.0.0.1", port + 10_000))
                except OSError:
                    continue
                return port


@contextmanager
def server(*options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        made = Server(free_port(), Path(folder), options)
        made.start()
        try:
            yield made
        finally:
            made.kill()


@contextmanager
def cluster(count: int = 2) -> Iterator[list[Server]]:
    """Nodes that share the slots out among them."""
    with tempfile.TemporaryDirectory() as folder:
        servers = []
        for number in range(count):
            place = Path(folder) / str(number)
            place.mkdir()
            servers.append(Server(free_port(), place, ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")))
            servers[-1].start()
        try:
            for number, each in enumerate(servers):
                first, end = 16384 * number // count, 16384 * (number + 1) // count
                each.client().execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
                each.client().execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number:
                    each.client().execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)
            until = time.monotonic() + 30
            while not all(_knows_all(each, count) for each in servers):
                assert time.monotonic() < until, "the cluster did not form within 30 s"
                time.sleep(0.05)
            yield servers
        finally:
            for each in servers:
                each.kill()


def _knows_all(each: Server, count: int) -> bool:
    info = each.client().execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(count)


def target(client: Any, prefix: str, layout: Any = "hash", view: View = VIEW, **more: Any) -> RedisTarget:
    return RedisTarget(RedisStore(client, view, prefix, layout), **{"threads": 2, "patience_s": 20.0, **more})


def row(number: int, name: str = "Ann") -> dict[str, Any]:
    return {
        "id": number, "name": name, "balance": None, "score": 1.5, "born": None, "seen": None, "photo": b"\0\xff",
        "tags": "a,c", "profile": '{"a": [1, 2.50, null]}', "active": b"\1",
    }  # fmt: skip


def write(number: int, version: int = 1, name: str = "Ann", stamp: str = "plan-1", view: View = VIEW) -> Any:
    return view.write(Loaded(row(number, name), version), stamp=stamp)


def tombstone(number: int, version: int = 1, view: View = VIEW) -> Any:
    return view.tombstone({"id": number}, version)


@dataclass
class Steady:
    """A pace that lets everything pass, and remembers."""

    units: float = 0.0
    pressures: list[Pressure] = field(default_factory=list)

    def spend(self, units: float) -> None:
        self.units += units

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        self.pressures.append(pressure)
