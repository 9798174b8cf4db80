"""Rules that every DAG file keeps, whatever it does."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from conftest import ROOT

from dbops.alerting import SnsAlert

FILES = sorted((ROOT / "dags").glob("*.py"))
# More for a file than `import airflow.sdk` takes; asked for is less than 0.3 s.
IMPORT_LIMIT_S = 0.3
IMPORT_TRIES = 5
TAGS = {
    "archive",
    "backfill",
    "blue_green",
    "destructive",
    "dms",
    "inventory",
    "mysql",
    "read-only",
    "restore",
    "s3",
    "trino",
}


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(ROOT / "dags"))


@pytest.fixture(params=[file.stem for file in FILES])
def dag(request: pytest.FixtureRequest, bag: Any) -> Any:
    """The DAG of a file: each file defines one, of the same name."""
    assert request.param in bag.dags, bag.import_errors
    return bag.dags[request.param]


def test_every_file_imports(bag: Any) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == [file.stem for file in FILES], "a file defines one DAG of its own name"


def test_dag_policy(dag: Any) -> None:
    assert dag.description
    # Where runs are kept apart by what they claim (a spec, a chunk), one on a spec does not hold up an emergency on another.
    assert dag.max_active_runs == (16 if dag.dag_id in ("backfill", "dms_task_control") else 1)
    assert dag.catchup is False
    assert dag.dagrun_timeout is not None
    assert dag.start_date is not None
    assert dag.tags, "tags"
    assert set(dag.tags) <= TAGS
    assert isinstance(dag.on_failure_callback, SnsAlert) or SnsAlert in map(type, dag.on_failure_callback)
    assert dag.default_args["owner"] == "dba"


def test_doc_says_what_to_do_at_three_in_the_morning(dag: Any) -> None:
    doc = dag.doc_md
    assert doc
    assert f"### {dag.dag_id}" in doc
    head, found, night = doc.partition("### If this fails at 3 am")
    assert found
    assert len(night.strip()) > 100
    for name in dag.params:
        assert f"`{name}`" in head, f"parameter {name} is not explained"
    assert "Example" in head


def test_params_default_to_harmless(dag: Any) -> None:
    for name in dag.params:
        param, schema = dag.params.get_param(name).value, dag.params.get_param(name).schema
        assert schema.get("type"), f"{name} has no type"
        assert schema.get("title"), f"{name} has no title"
        if name == "dry_run":
            assert param is True
        if name in ("confirm", "approve", "force"):
            assert not param
    if "destructive" in dag.tags:
        assert "dry_run" in dag.params
        assert "confirm" in dag.params


def test_task_policy(dag: Any) -> None:
    assert dag.tasks
    for task in dag.tasks:
        arguments = getattr(task, "partial_kwargs", None) or task.__dict__
        where = f"{dag.dag_id}.{task.task_id}"
        assert task.owner == "dba", where
        assert task.retries is not None, where
        limit = task.execution_timeout or arguments.get("response_timeout")
        assert isinstance(limit, timedelta), where
        assert limit > timedelta(0), where
        callbacks = task.on_failure_callback
        callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        assert any(isinstance(c, SnsAlert) for c in callbacks), f"{where} does not alert"


def test_approvals_are_asked_once_and_default_to_no(dag: Any) -> None:
    """A retried approval would show the text of the first attempt, and a person may not answer at all."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    for task in dag.tasks:
        if not issubclass(getattr(task, "operator_class", type(task)), HITLOperator):
            continue
        arguments = getattr(task, "partial_kwargs", None) or vars(task)
        assert task.retries == 0
        assert arguments["defaults"] == ["Reject"]
        assert arguments["response_timeout"]
        assert any(isinstance(n, SnsAlert) for n in arguments["notifiers"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_import_is_quick(file: Any) -> None:
    """Scheduler and dag-processor execute a DAG file again and again."""
    code = (
        "import time, airflow.sdk, runpy; began = time.process_time();"
        f" runpy.run_path({str(file)!r}); print(time.process_time() - began)"
    )
    best = float("inf")
    for _ in range(IMPORT_TRIES):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "plugins")
        assert done.returncode == 0, done.stderr
        best = min(best, float(done.stdout.split()[-1]))
        if best < IMPORT_LIMIT_S:
            return
    pytest.fail(f"{file.name} takes {best:.2f} s beyond airflow.sdk; move heavy imports into functions")
