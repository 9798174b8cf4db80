"""Runs of the backfill's DAGs, each in a process of its own, with the command that a DBA would type: `airflow dags test`."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lab import config, env, mysql
from lab.config import HOST, MYSQL_USER, LabError

RUN_S = 600
POLL_S = 0.05
DAGS = ("backfill", "backfill_gate")


class Runs:
    """An Airflow with specs, metadata and a store of its own, so that nothing of it is left in the lab's.

    Args:
        folder: for its files
        schema: of the source on MySQL 5.7, and of the store on MySQL 8.0; the lab's user gets what README documents
        specs: of backfills, as a DBA writes them
        key: access key of the account
    """

    def __init__(self, folder: Path, schema: str, specs: list[dict[str, Any]], key: str) -> None:
        self.folder, self.schema, self.key = folder, schema, key
        for made in ("specs/backfill", "airflow", "dags"):
            (folder / made).mkdir(parents=True)
        for spec in specs:
            (folder / "specs" / "backfill" / f"{spec['name']}.yaml").write_text(
                json.dumps({name: value for name, value in spec.items() if name != "name"}, indent=1)
            )
        for dag in DAGS:  # each run reads every file of the folder
            (folder / "dags" / f"{dag}.py").symlink_to(config.ROOT / "dags" / f"{dag}.py")
        with (
            closing(sqlite3.connect(config.home() / "airflow" / "airflow.db")) as there,
            closing(sqlite3.connect(self.database)) as here,
        ):
            there.backup(here)
        for host in ("%", "localhost", HOST):
            user = f"'{MYSQL_USER}'@'{host}'"
            mysql.execute("mysql57", [f"GRANT SELECT, TRIGGER ON `{schema}`.* TO {user}"])
            mysql.execute("mysql80", [f"GRANT ALL PRIVILEGES ON `{schema}`.* TO {user}"])

    @property
    def database(self) -> Path:
        """Of Airflow's metadata."""
        return self.folder / "airflow" / "airflow.db"

    def environment(self) -> dict[str, str]:
        """Of a run."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        known = env.connections()
        changed = {"dbops_store": {"schema": self.schema}, "aws_default": {"login": self.key}}
        return {
            **kept,
            **env.environment(),
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(known[name] | new) for name, new in changed.items()},
            "DBOPS_SPECS_DIR": str(self.folder / "specs"),
        }

    @contextmanager
    def run(self, dag_id: str, conf: Mapping[str, Any], told: Callable[[str], object] = print) -> Iterator[Run]:
        """A run that has been started; it is killed in the end if it has not ended by then."""
        shown = json.dumps(conf)
        told(f"$ airflow dags test {dag_id} -c '{shown}'")
        command = [str(Path(sys.executable).parent / "airflow"), "dags", "test", dag_id, "-c", shown]
        log = self.folder / f"{dag_id}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            # A session of its own: the kill below has to reach all of its processes, and Ctrl-C is for us to deal with.
            process = subprocess.Popen(
                command, env=self.environment(), stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        made = Run(dag_id, process, log)
        try:
            yield made
        finally:
            made.kill()

    def report(self, engine: sa.Engine, dag_id: str, spec: str) -> dict[str, Any]:
        """The newest report of a DAG."""
        statement = "SELECT document FROM report WHERE dag_id = :dag AND spec = :spec ORDER BY report_id DESC LIMIT 1"
        with engine.connect() as connection:
            found = connection.execute(sa.text(statement), {"dag": dag_id, "spec": spec}).scalar()
        if found is None:
            raise LabError(f"{dag_id} of {spec} has left no report")
        document: dict[str, Any] = json.loads(found)
        return document


class Run:
    """A process of `airflow dags test`."""

    def __init__(self, dag_id: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.dag_id, self.process, self.log = dag_id, process, log

    def require_alive(self) -> None:
        """Raises LabError when it has ended."""
        if self.process.poll() is not None:
            raise LabError(f"{self.dag_id} ended with exit code {self.process.returncode}:\n{self._said()}")

    def kill(self) -> None:
        """SIGKILL for it and for all that it started, unless it has ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self) -> None:
        """Until it has ended well.

        Raises:
            LabError: it failed, or was too slow
        """
        try:
            code = self.process.wait(RUN_S)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.dag_id} has not ended in {RUN_S} s:\n{self._said()}") from error
        if code:
            raise LabError(f"{self.dag_id} ended with exit code {code}:\n{self._said()}")

    def _said(self) -> str:
        return f"{self.log.read_text(errors='replace')[-3000:]}\n(all of it: {self.log})"
