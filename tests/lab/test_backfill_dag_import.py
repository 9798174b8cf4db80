"""Engine import as Airflow runs it: from a dry run to a verified table, over a worker that died and an import that failed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab import aws, config, dynamodb_import
from lab.dynamodb_import import Imports
from tests.lab import backfill_stage, worker
from tests.lab.backfill_stage import DynamoItems, Stage, failed, states, succeeded, tables_of
from tests.lab.worker import Kill

pytestmark = pytest.mark.lab

ROWS = 350
IMPORTED = "the table is imported: switch the change stream and the dual writes on, then run with copy: false"


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imports]:
    """Every DynamoDB client of a run goes through a door that knows ImportTable."""
    with dynamodb_import.serve(config.dynamodb_endpoint(), config.aws_endpoint()) as (address, made):
        connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
        connection["extra"]["service_config"] = {"dynamodb": {"endpoint_url": address}}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        yield made


@pytest.fixture
def stage(
    imports: Imports, tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    with backfill_stage.stage(tmp_path, run_dag, "import", rows=ROWS) as made:
        yield made


def staged(stage: Stage) -> list[str]:
    """Keys of the objects in the bucket."""
    bucket = stage.document["staging_s3_uri"].split("/")[2]
    return [each["Key"] for each in aws.client("s3").list_objects_v2(Bucket=bucket).get("Contents", ())]


def is_there(stage: Stage) -> bool:
    assert isinstance(stage.target, DynamoItems)
    return stage.target.exists()


def test_from_a_dry_run_to_a_verified_table(stage: Stage, imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    succeeded(stage, stage.run())
    assert (is_there(stage), staged(stage), stage.journal.plans(stage.name)) == (False, [], [])
    report = stage.report()
    assert report["verdict"] == "DRY_RUN", report["reasons"]
    assert "cost: import" in dict(tables_of(report)["Estimate"])

    # A worker dies when the import has begun, and before it has kept which one that is.
    imports.go.clear()
    kill = Kill("dbops.backfill.importing:_keep", "before", nth=2)
    process = worker.start(backfill_stage.run_in_worker, "backfill", stage.asked(), kill=kill)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    stage.until(lambda: is_there(stage), "the table")
    plan = stage.plan()
    assert (plan.state, len(imports.found)) == ("copying", 1)

    # The next run finds it, and waits without a worker. Meanwhile the application goes on.
    deferred = backfill_stage.watch_deferrals(monkeypatch)

    def others() -> None:
        stage.until(lambda: deferred, "a deferral")
        stage.execute("UPDATE {s}.rides SET price = 5 WHERE id = 1", "DELETE FROM {s}.rides WHERE id = 2")
        imports.go.set()

    one = Thread(target=others, daemon=True)
    one.start()
    run = stage.copy()
    one.join(30)
    succeeded(stage, run)
    assert set(deferred) == {"import"}
    assert {states(run)[task] for task in ("list_parts", "verify", "settle")} == {"skipped"}
    assert len(imports.found) == 1
    assert (stage.plan().plan_id, stage.plan().state) == (plan.plan_id, "copied")
    assert stage.versions() == dict.fromkeys(range(1, ROWS + 1), 1)
    assert set(stage.stamps().values()) == {plan.plan_id}
    report = stage.report()
    assert report["verdict"] == "WARNING"
    assert [reason for reason in report["reasons"] if reason.endswith(IMPORTED)], report["reasons"]
    assert stage.journal.verification(plan.plan_id) is None

    # The stream is applied.
    stage.edit(1, without="_bf", price="5", _v="2")
    stage.target.write(2, {"_v": {"N": "2"}, "_deleted": {"BOOL": True}})
    succeeded(stage, stage.verify())
    assert stage.plan().state == "verified"
    report = stage.report()
    assert report["verdict"] == "OK", report["reasons"]
    proof = stage.journal.verification(plan.plan_id)
    assert proof is not None
    assert {name: count for name, count in proof.counts["forward"].items() if count} == {"equal": ROWS - 1}
    assert "ImportTable makes a new one" in failed(stage, stage.copy(), "look")


def test_an_import_that_fails_is_named_and_done_anew(
    stage: Stage, imports: Imports, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")

    with monkeypatch.context() as patch:
        patch.setattr(imports, "_object", denied)
        assert "ended FAILED: AccessDenied no" in failed(stage, stage.copy(), "import_table")
    plan = stage.plan()
    assert plan.state == "copying"
    report = stage.report()
    assert report["verdict"] == "FAILED"
    assert [reason for reason in report["reasons"] if "the table is not imported" in reason], report["reasons"]

    # Half a table is never taken for a whole one, nor for somebody else's.
    assert "delete it, then run again" in failed(stage, stage.copy(), "import_table")
    assert "ImportTable makes a new one" in failed(stage, stage.copy(abandon_open_plan=True), "look")
    stage.target.drop()
    succeeded(stage, stage.copy())
    assert (stage.plan().plan_id, stage.plan().state) == (plan.plan_id, "copied")
    assert stage.versions() == dict(stage.rows())
    assert [reason for reason in stage.report()["reasons"] if reason.endswith(IMPORTED)]
