"""An account with many tasks that counts its calls, and what an operator needs to run without Airflow, servers or AWS."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from dbops.dms import control, hook
from dbops.dms.control import Services
from dbops.dms.ledger import Ledger
from dbops.store import Store
from tests.dms import source_kit
from tests.dms.dms_kit import CHECKPOINT, INSTANCE_ARN, LOG, document, table_row, task_row, validate

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
ARN = "arn:aws:dms:eu-central-1:123456789012"
PAGE, METRICS_AT_ONCE = 100, 500
KEYS = {
    "describe_replication_tasks": "ReplicationTasks", "describe_endpoints": "Endpoints", "describe_events": "Events",
    "describe_replication_instances": "ReplicationInstances", "describe_connections": "Connections",
    "describe_table_statistics": "TableStatistics",
}  # fmt: skip


def existing(name: str, side: str) -> dict[str, Any]:
    return {"kind": "existing", "arn": f"{ARN}:endpoint:{name}-{side}", "engine": "mysql"}


def of(name: str, **more: Any) -> dict[str, Any]:
    """The document of an enabled spec with endpoints of its own."""
    ends = {"source": existing(name, "source"), "target": existing(name, "target")}
    return {**document(name=name), **ends, "enabled": True, "protected": False, **more}


def row(name: str, **more: Any) -> dict[str, Any]:
    """The task of such a spec, running and complete."""
    return task_row(
        ReplicationTaskIdentifier=name.replace("_", "-"), ReplicationTaskArn=f"{ARN}:task:{name}",
        SourceEndpointArn=f"{ARN}:endpoint:{name}-source", TargetEndpointArn=f"{ARN}:endpoint:{name}-target",
        RecoveryCheckpoint=CHECKPOINT, **more,
    )  # fmt: skip


class Cloud:
    """DMS and CloudWatch in one client: 100 rows a page, 500 series a question. What would change something fails the test.

    Attributes: `latency` by resource id of the task; `tables` by its ARN; `fails` is raised by the methods that it names.
    """

    def __init__(self, *names: str) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {
            "describe_replication_tasks": [row(name) for name in names],
            "describe_endpoints": [
                {
                    "EndpointIdentifier": f"{name}-{side}", "EndpointArn": f"{ARN}:endpoint:{name}-{side}",
                    "EndpointType": side.upper(), "EngineName": "mysql", "Status": "active",
                }
                for name in names for side in ("source", "target")
            ],
            "describe_replication_instances": [
                {
                    "ReplicationInstanceIdentifier": "dms-one", "ReplicationInstanceArn": INSTANCE_ARN,
                    "ReplicationInstanceStatus": "available",
                }
            ],
            "describe_connections": [
                {
                    "EndpointArn": f"{ARN}:endpoint:{name}-{side}", "ReplicationInstanceArn": INSTANCE_ARN,
                    "Status": "successful",
                }
                for name in names for side in ("source", "target")
            ],
            "describe_events": [
                {"Date": NOW, "SourceIdentifier": name.replace("_", "-"), "Message": "Replication task has started."}
                for name in names
            ],
        }  # fmt: skip
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.latency: dict[str, float] = {}
        self.fails: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()

    def task(self, name: str) -> dict[str, Any]:
        arn = f"{ARN}:task:{name}"
        return next(one for one in self.rows["describe_replication_tasks"] if one["ReplicationTaskArn"] == arn)

    def count(self, name: str, **counts: int) -> None:
        """Set counts of a task, for example TablesErrored=1."""
        self.task(name)["ReplicationTaskStats"].update(counts)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(**given: Any) -> dict[str, Any]:
            self.calls[method] += 1
            if method in self.fails:
                raise self.fails[method]
            if method == "get_metric_data":
                return self._metrics(given)
            validate(method, given)
            assert method in KEYS, f"{method} changes something"
            return self._page(method, given)

        return call

    def _page(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        tables = self.tables.get(given.get("ReplicationTaskArn", ""), [table_row()])
        found = self.rows.get(method, tables)
        wanted = [value for one in given.get("Filters", ()) for value in one["Values"]]
        if method == "describe_replication_tasks" and wanted:
            found = [one for one in found if one["ReplicationTaskIdentifier"] in wanted]
        assert given["MaxRecords"] <= PAGE
        first = int(given.get("Marker") or 0)
        last = first + given["MaxRecords"]
        return {KEYS[method]: found[first:last], **({"Marker": str(last)} if last < len(found) else {})}

    def _metrics(self, given: dict[str, Any]) -> dict[str, Any]:
        queries = given["MetricDataQueries"]
        assert 0 < len(queries) <= METRICS_AT_ONCE
        times = [NOW.replace(second=0) - timedelta(minutes=back) for back in range(1, 8)]
        results = []
        for query in queries:
            of_task = {one["Name"]: one["Value"] for one in query["MetricStat"]["Metric"]["Dimensions"]}
            is_latency = query["MetricStat"]["Metric"]["MetricName"].startswith("CDCLatency")
            value = self.latency.get(of_task["ReplicationTaskIdentifier"], 1.0) if is_latency else 0.0
            results.append({"Id": query["Id"], "Timestamps": times, "Values": [value] * len(times)})
        return {"MetricDataResults": results}


class Ti:
    """A task instance: XComs by (task, map index, key)."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int, str], Any] = {}
        self.pushed: dict[str, Any] = {}
        self.try_number = 1

    def xcom_pull(self, task_ids: str, key: str = "return_value", map_indexes: int = -1) -> Any:
        return self.kept.get((task_ids, map_indexes, key))

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@dataclass
class World:
    """Specs in a folder, an account, a ledger and a clock; operators that run in it."""

    folder: Path
    engine: sa.Engine
    cloud: Any
    now: datetime = NOW
    statements: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Connections that were opened."""
    is_source_down: bool = False
    reports: list[Any] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.engine, lambda: self.now)

    @property
    def services(self) -> Services:
        return Services(self.cloud, self.cloud, self.ledger, self.connect, lambda: self.now)

    @contextmanager
    def connect(self, conn_id: str) -> Iterator[Any]:
        self.asked.append(conn_id)
        if self.is_source_down:
            raise OSError("no route to host")
        yield SimpleNamespace()

    def spec(self, name: str, **more: Any) -> None:
        (self.folder / f"{name}.yaml").write_text(json.dumps(of(name, **more)))

    def context(self, run: str = "one", dag: str = "dms_task_watch", **params: Any) -> Any:
        dag_run = SimpleNamespace(dag_id=dag, conf={}, run_type="scheduled", start_date=self.now)
        return {
            "dag_run": dag_run, "run_id": run, "params": {"spec": None, **params}, "ti": Ti(),
            "dag": SimpleNamespace(params={"spec": None, **params}),
        }  # fmt: skip


@cache
def _migrated() -> bytes:
    """An empty store with its tables."""
    with tempfile.TemporaryDirectory() as folder:
        engine = sa.create_engine(f"sqlite:///{folder}/store.db")
        Ledger.open(engine)
        Store(engine).migrate()
        engine.dispose()
        return (Path(folder) / "store.db").read_bytes()


def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str, **more: Any) -> World:
    """A world with a running and complete task for each name."""
    folder = tmp_path / "specs" / "dms"
    folder.mkdir(parents=True)
    store = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "store.db")})
    monkeypatch.setenv("AIRFLOW_CONN_DBOPS_STORE", store)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": {"region_name": "eu"}}))
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path / "specs"))
    (tmp_path / "store.db").write_bytes(_migrated())
    engine = sa.create_engine(f"sqlite:///{tmp_path}/store.db")
    made = World(folder, engine, Cloud(*names))
    for name in names:
        made.spec(name, **more)
    sa.event.listen(engine, "before_cursor_execute", lambda _c, _cursor, sql, *_: made.statements.append(sql))
    monkeypatch.setattr(hook, "services", lambda *_: made.services)
    monkeypatch.setattr(control.source, "gather", lambda *_: source_kit.facts())
    monkeypatch.setattr(control.source, "binary_logs", lambda *_: (LOG,))
    monkeypatch.setattr(
        "dbops.dms.operators.ReportOperator.publish", lambda _self, _context, report, _aws: made.reports.append(report)
    )
    return made
