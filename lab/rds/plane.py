"""The data plane: which server and which endpoints belong to which name, the fault switches, and the log of the truth."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from lab import config
from lab.rds.endpoint import READER_HOST, Endpoint, Endpoints
from lab.rds.server import Server

KILL_S = 30
# Not SUPER and not FILE: a master user of RDS has neither.
MASTER_PRIVILEGES = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, SHOW DATABASES, CREATE TEMPORARY TABLES, "
    "LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, "
    "EVENT, TRIGGER"
)
FAULTS: dict[str, Any] = {
    "replica_lag_s": 0,  # the green side applies every event that much later (MASTER_DELAY), from the next poll on
    "create_fails": "",  # reason with which the next creation of a green side ends
    "timeout_scale": 1.0,  # a second of SwitchoverTimeout lasts so many seconds: for tests that have no minute
    "connection_cost_s": 0,  # seconds that a switchover takes for every 1,000 client connections that it drops
    "table_cost_s": 0,  # seconds that it takes for every 1,000 tables
    "rename_s": 0,  # seconds for which it refuses writes while it renames; from there on it cannot be rolled back any more
    "member_fails": False,  # one reader is left behind by the switchover, which nevertheless says COMPLETED
    "rollback_status": "AVAILABLE",  # what a rolled back deployment shows; AWS documents neither this nor SWITCHOVER_FAILED
    "drop_events": False,  # events of deployments are not recorded
    "drop_metrics": False,  # CloudWatch has no metric of RDS from now on
    "stale_describe_s": 0,  # DescribeBlueGreenDeployments shows a new status only after so many seconds
    "quotas": {},  # account quotas that differ from the usual ones, such as {"DBClusters": 1}
    "throttle": 0,  # percent of calls on deployments that end with ThrottlingException
}


class Plane:
    """Everything of the simulated RDS that is real. ``folder`` is emptied: a new process is a new account."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        end_servers_below(folder)
        for child in folder.glob("*"):
            if child.name != "faults.json":
                shutil.rmtree(child, ignore_errors=True) if child.is_dir() else child.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        self.endpoints = Endpoints()
        self.names: dict[tuple[str, str], Endpoint] = {}  # (db | cluster | reader, identifier)
        self.servers: dict[str, Server] = {}  # by resource id
        self.backends: list[Any] = []
        self.ended = threading.Event()
        self._ids, self._lock = itertools.count(1001), threading.Lock()
        atexit.register(self.end)

    def end(self) -> None:
        """End every server at once: there is nothing that the next process could use."""
        self.ended.set()
        end_servers_below(self.folder)

    def server(self, resource_id: str, version: str) -> Server:
        """A new server for an instance; neither initialised nor started."""
        server = Server(self.folder / resource_id, version, next(self._ids))
        self.servers[resource_id] = server
        return server

    def endpoint(self, kind: str, name: str) -> Endpoint:
        """The endpoint of a name, opened when it is new."""
        with self._lock:
            if (kind, name) not in self.names:
                if kind == "reader":
                    self.names[kind, name] = self.endpoints.open(READER_HOST, self.names["cluster", name].port)
                else:
                    self.names[kind, name] = self.endpoints.open()
            return self.names[kind, name]

    def swap(self, kind: str, blue: str, green: str, old: str) -> None:
        """The name of blue leads to the server of green; that of green becomes ``old`` and leads to the server of blue."""
        new, past = self.endpoint(kind, blue), self.endpoint(kind, green)
        target = new.target
        new.retarget(past.target)
        past.retarget(target)
        with self._lock:
            self.names[kind, old] = self.names.pop((kind, green))

    def forget(self, kind: str, name: str) -> None:
        with self._lock:
            endpoint = self.names.pop((kind, name), None)
        if endpoint is not None:
            endpoint.close()

    def forget_all(self) -> None:
        for kind, name in list(self.names):
            self.forget(kind, name)

    def fault(self, name: str) -> Any:
        """Value of a fault switch; it is read from faults.json at each use, so that another process can set it."""
        return {**FAULTS, **read_faults(self.folder)}[name]

    def note(self, event: str, **facts: Any) -> None:
        """Append to truth.jsonl; ``monotonic_s`` is of a clock that all processes of this machine share."""
        line = json.dumps({"monotonic_s": time.monotonic(), "wall_s": time.time(), "event": event, **facts})
        with self._lock, (self.folder / "truth.jsonl").open("a") as log:
            log.write(line + "\n")


def folder() -> Path:
    return config.home() / "rds"


def read_faults(where: Path) -> dict[str, Any]:
    path = where / "faults.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def set_faults(where: Path, **faults: Any) -> None:
    """Replace all fault switches of the RDS that lives in this folder; without arguments, all are off.

    Raises:
        LabError: there is no such switch
    """
    if unknown := set(faults) - set(FAULTS):
        raise config.LabError(f"no fault switch {sorted(unknown)}: use one of {sorted(FAULTS)}")
    where.mkdir(parents=True, exist_ok=True)
    fresh = where / "faults.new"
    fresh.write_text(json.dumps(faults))
    fresh.rename(where / "faults.json")


def read_truth(where: Path) -> list[dict[str, Any]]:
    """The log of what really happened, oldest first: when writes stopped, connections fell, and writes were served again."""
    path = where / "truth.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def end_servers_below(where: Path) -> None:
    """End what a killed process left: the mysqld processes whose data is below this folder."""
    found = servers_below(where)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, KILL_S)


def servers_below(where: Path) -> list[psutil.Process]:
    """The mysqld processes whose data is below this folder, whoever started them."""
    mark = f"--datadir={where}/"
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "mysqld" and any(part.startswith(mark) for part in process.info["cmdline"] or ())
    ]
