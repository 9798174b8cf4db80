"""A person who answers the approvals of DAG runs: Airflow's API server on the tests' metadata database, and its REST API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import tenacity


@contextmanager
def api_server() -> Iterator[str]:
    """Address of an API server on the tests' metadata database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = Path(os.environ["AIRFLOW_HOME"]) / "api-server.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "airflow", "api-server", *place]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        patience = tenacity.Retrying(stop=tenacity.stop_after_delay(120), wait=tenacity.wait_fixed(0.3), reraise=True)
        for attempt in patience:
            with attempt:
                assert process.poll() is None, log.read_text()[-3000:]
                urlopen(f"{address}/api/v2/monitor/health", timeout=5).close()
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def call(method: str, url: str, body: Any = None, token: str | None = None) -> Any:
    """Answer of the API."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = Request(url, None if body is None else json.dumps(body).encode(), headers, method=method)
    with urlopen(request, timeout=30) as reply:
        return json.load(reply)


def answer(address: str, choice: str, heard: list[Any]) -> None:
    """Wait for the question and answer it as the user `dba`."""
    passwords = json.loads(
        (Path(os.environ["AIRFLOW_HOME"]) / "simple_auth_manager_passwords.json.generated").read_text()
    )
    token = call("POST", f"{address}/auth/token", {"username": "dba", "password": passwords["dba"]})["access_token"]
    for attempt in tenacity.Retrying(stop=tenacity.stop_after_delay(200), wait=tenacity.wait_fixed(0.3), reraise=True):
        with attempt:
            asked = call("GET", f"{address}/api/v2/dags/~/dagRuns/~/hitlDetails?response_received=false", token=token)[
                "hitl_details"
            ]
            # An answer that comes before the task is parked is recorded, and wakes nobody.
            assert [a["task_instance"]["state"] for a in asked] == ["awaiting_input"]
    ti = asked[0]["task_instance"]
    heard.append(asked[0])
    where = f"{address}/api/v2/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/{ti['map_index']}"
    call("PATCH", f"{where}/hitlDetails", {"chosen_options": [choice], "params_input": {}}, token)
