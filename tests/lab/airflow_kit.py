"""A whole Airflow of a test's own: API server, DAG processor, scheduler and triggerer as processes, on a fresh metadata database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
from conftest import ROOT

from tests.lab.rds_kit import free_port

PROCESSES = ("api-server", "dag-processor", "scheduler", "triggerer")
UP_S = 120.0
POLL_S = 0.5


class Airflow:
    """Its environment, its database, and what its processes said."""

    def __init__(self, home: Path, dags: tuple[str, ...], **environment: str) -> None:
        self.home, self.logs = home, home / "processes"
        folder = home / "dags"
        for made in (self.logs, folder):
            made.mkdir(parents=True)
        for dag in dags:
            (folder / f"{dag}.py").symlink_to(ROOT / "dags" / f"{dag}.py")
        port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, of the length that SHA-512 wants, and then some",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # nobody changes a DAG meanwhile
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT)]),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **environment,
        }

    def command(self, *arguments: str) -> str:
        """Output of ``airflow ...``; fails with what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"airflow {' '.join(arguments)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def query(self, statement: str, *arguments: str) -> list[tuple[str, ...]]:
        """Rows of the metadata database."""
        with closing(sqlite3.connect(f"file:{self.home / 'airflow.db'}?mode=ro", uri=True, timeout=30)) as connection:
            return [tuple(map(str, row)) for row in connection.execute(statement, arguments)]

    def said(self, process: str) -> str:
        """Everything that a process has printed."""
        return (self.logs / f"{process}.log").read_text(errors="replace")

    def until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait; fails with the end of every log."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                tails = "\n".join(f"== {name}\n{self.said(name)[-3000:]}" for name in PROCESSES)
                raise AssertionError(f"{what}: not after {seconds:g} s\n{tails}")
            time.sleep(POLL_S)

    def trigger_log(self, run_id: str, task: str) -> str:
        """What the triggerer logged for a task; empty when it never waited there."""
        found = sorted(self.home.glob(f"logs/*/run_id={run_id}/task_id={task}/*.log.trigger.*.log"))
        return "".join(path.read_text() for path in found)

    def states(self, run_id: str) -> dict[str, str]:
        """Task -> state."""
        return dict(self.query("SELECT task_id, state FROM task_instance WHERE run_id = ?", run_id))  # type: ignore[arg-type]


@contextmanager
def running(home: Path, dags: tuple[str, ...], **environment: str) -> Iterator[Airflow]:
    """An Airflow with these DAGs, unpaused; every process of it is ended afterwards."""
    made = Airflow(home, dags, **environment)
    made.command("db", "migrate")
    processes = []
    try:
        for name in PROCESSES:
            with (made.logs / f"{name}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "airflow", name], env=made.environment, cwd=home, stdout=log, stderr=log,
                        start_new_session=True,
                    )
                )  # fmt: skip
        made.until("DAGs are parsed", lambda: len(made.query("SELECT dag_id FROM dag")) == len(dags), UP_S)
        for dag in dags:
            made.command("dags", "unpause", dag)
        yield made
    finally:
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        try:
            each.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(family, timeout=15)
    for each in alive:
        each.kill()
    process.wait()
