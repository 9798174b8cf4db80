"""Airflow's metadata database and pools; everything else about Airflow is in the environment (lab/env.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

from lab import config, env
from lab.config import LabError


def provision() -> None:
    """Migrate the metadata database and create the pools; once for each Airflow version and definition of the pools."""
    home = config.home() / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    pools = {
        name: {"slots": slots, "description": text, "include_deferred": False}
        for name, (slots, text) in config.POOLS.items()
    }
    wanted = json.dumps({"airflow": version("apache-airflow"), "pools": pools}, indent=1)
    marker = home / "provisioned.json"
    if marker.is_file() and marker.read_text() == wanted and (home / "airflow.db").is_file():
        return
    definition = home / "pools.json"
    definition.write_text(json.dumps(pools))
    _airflow("db", "migrate")
    _airflow("pools", "import", str(definition))
    marker.write_text(wanted)


def _airflow(*arguments: str) -> None:
    command = [sys.executable, "-m", "airflow", *arguments]
    environment = {**os.environ, **env.environment()}
    done = subprocess.run(command, env=environment, cwd=config.home(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"`airflow {' '.join(arguments)}` failed:\n{(done.stdout + done.stderr).strip()[-3000:]}")
