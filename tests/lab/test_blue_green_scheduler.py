"""The rehearsal as a deployment runs it: scheduler, workers and a triggerer, in which it waits for green and for each switchover."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dbops import connections
from dbops.blue_green.journal import Journal
from dbops.blue_green.operators import RECORDINGS_VARIABLE, rehearsal_name
from lab import config
from lab.rds import leak, plane
from tests.lab import airflow_kit

pytestmark = pytest.mark.lab
DAG = "blue_green_rehearsal"
RUN_S = 500.0
FAST = 0.2  # a SwitchoverTimeout of 30 seconds lasts 6


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    plane.set_faults(plane.folder(), timeout_scale=FAST)
    yield
    plane.set_faults(plane.folder())


@pytest.mark.timeout(900)
def test_a_rehearsal_waits_in_the_triggerer(tmp_path: Path) -> None:
    spec = f"s_{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "specs" / "blue_green"
    folder.mkdir(parents=True)
    values = {
        "description": "a test", "owner": "tests",
        "source": {"kind": "synthetic", "engine_version": "5.7.mysql_aurora.2.11.4"},
        "target": {"engine_version": "8.0.mysql_aurora.3.08.2"},
        "placement": {"region": config.AWS_REGION, "accounts": [config.AWS_ACCOUNT], "instance_class": "db.r6g.large"},
        "data": {"gigabytes": 0.01, "tables": 2, "connections": 5}, "ladder": [30, 180], "post_run_minutes": 0.02,
        "faults": [{"attempt": 1, "kind": "long_transaction"}], "gate": {"max_transaction_s": 6, "wait_minutes": 5},
        "max_cost_usd": 50,
    }  # fmt: skip
    (folder / f"{spec}.yaml").write_text(yaml.safe_dump(values))
    extra = {
        "DBOPS_SPECS_DIR": str(tmp_path / "specs"), RECORDINGS_VARIABLE: str(tmp_path / "recordings"), "DBOPS_POLL_S": "1",
    }  # fmt: skip
    with airflow_kit.running(tmp_path / "airflow", (DAG,), **extra) as airflow:
        conf = {"spec": spec, "dry_run": False, "confirm": spec}
        airflow.command("dags", "trigger", DAG, "--run-id", "one", "--conf", json.dumps(conf))
        states = ("success", "failed")
        airflow.until(
            "the run is over",
            lambda: airflow.query("SELECT state FROM dag_run WHERE run_id = 'one'")[0][0] in states, RUN_S,
        )  # fmt: skip
        found = airflow.states("one")
        assert airflow.query("SELECT state FROM dag_run WHERE run_id = 'one'") == [("success",)], found
        for task in ("await_green", "attempt_1.switchover", "attempt_2.switchover"):
            assert airflow.trigger_log("one", task), f"{task} did not wait in the triggerer"
    assert found["attempt_3.gate"] == "skipped"
    steps = Journal(connections.engine(connections.STORE), rehearsal_name(spec, f"{DAG}/one")).steps()
    assert [steps[f"attempt_{n}"]["outcome"] for n in (1, 2)] == ["ROLLED_BACK", "COMPLETED"]
    assert steps["verify"]["findings"] == []
    assert leak.left() == []
