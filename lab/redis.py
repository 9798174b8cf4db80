"""Redis as a stand-in for MemoryDB: one node that has every slot of a cluster, as MemoryDB's clients see it.

Commands on keys of different slots are refused, and there is only database 0. Nothing is kept: a new process is an empty store.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from lab import config
from lab.config import HOST, LabError
from lab.processes import Service

BUS_OFFSET = 10_000  # Redis talks to other nodes of a cluster on this port above its own
OPTIONS = {
    "save": "",
    "appendonly": "no",
    "maxmemory": "512mb",
    "maxmemory-policy": "noeviction",  # MemoryDB's own
    "cluster-enabled": "yes",
}
NODES = (
    "0" * 39 + "1 {host}:{port}@{bus} myself,master - 0 0 0 connected 0-16383\nvars currentEpoch 0 lastVoteEpoch 0\n"
)
"""The file in which a node keeps its cluster: this one has found itself, and has all slots."""


def service() -> Service:
    """The process of Debian's redis-server."""
    folder = config.home() / "redis"

    def prepare() -> list[str]:
        port = config.port("redis")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dump.rdb").unlink(missing_ok=True)  # what a replica was sent; this process would load it
        (folder / "nodes.conf").write_text(NODES.format(host=HOST, port=port, bus=port + BUS_OFFSET))
        options = {"bind": HOST, "port": str(port), "dir": str(folder), "cluster-announce-ip": HOST, **OPTIONS}
        return [str(binary(folder)), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def ready() -> None:
        if b"cluster_state:ok" not in ask("CLUSTER INFO"):
            raise LabError("it does not take writes yet")

    return Service("redis", prepare, ready, deadline_s=30, cwd=config.home())


def ask(command: str) -> bytes:
    """What a command without spaces in its words is answered, as far as the first packet holds it."""
    with socket.create_connection((HOST, config.port("redis")), timeout=5) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(65_536)


def require() -> None:
    """Look for the binary.

    Raises:
        LabError: there is none; the text names the Debian package
    """
    if not (shutil.which("redis-server") or shutil.which("redis-check-rdb")):
        raise LabError("redis-server is missing: run `apt-get install -y redis-tools`")


def binary(folder: Path) -> Path:
    """redis-server. The package redis-tools has it under another name, which decides what it does."""
    require()
    if found := shutil.which("redis-server"):
        return Path(found)
    link = folder / "redis-server"
    link.unlink(missing_ok=True)
    link.symlink_to(str(shutil.which("redis-check-rdb")))
    return link
