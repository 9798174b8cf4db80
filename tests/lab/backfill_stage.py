"""A table of its own in MySQL, a target, a spec and an application that reports: what the tests of the backfill's DAGs share."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from conftest import ROOT

from dbops import connections
from dbops.backfill.journal import Journal
from dbops.backfill.records import Plan
from dbops.keyvalue.counting import Reporter
from dbops.keyvalue.repository import Counters
from dbops.store import Store
from lab import config, dynamodb, mysql, redis
from lab.config import HOST, MYSQL_USER

APPLICATION = "booking"
DDL = """CREATE TABLE {s}.rides (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, member_id INT NOT NULL, price DECIMAL(10,2), note VARCHAR(2000), ended_at DATETIME(3),
  photo LONGBLOB, row_version BIGINT UNSIGNED NOT NULL DEFAULT 1, PRIMARY KEY (id)
) CHARACTER SET utf8mb4"""
TRIGGER = """CREATE TRIGGER {s}.rides_version BEFORE UPDATE ON {s}.rides FOR EACH ROW SET NEW.row_version = OLD.row_version + 1"""
VIEW = (
    "SELECT r.id, r.member_id, r.price, r.note, r.ended_at, r.photo, r.row_version FROM {s}.rides AS r WHERE {{chunk}}"
)


@dataclass
class Stage:
    """Runs of the backfill's DAGs on one spec."""

    name: str
    schema: str
    folder: Path
    run_dag: Callable[..., Any]
    table: str = ""
    prefix: str = ""
    document: dict[str, Any] = field(default_factory=dict)
    client: Any = None

    # --- MySQL

    def execute(self, *statements: str) -> None:
        mysql.execute("mysql57", [statement.format(s=self.schema) for statement in statements])

    def rows(self, statement: str = "SELECT id, row_version FROM {s}.rides ORDER BY id") -> list[tuple[Any, ...]]:
        with closing(mysql.root_connection("mysql57")) as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(s=self.schema))
            return list(cursor.fetchall())

    def fill(self, count: int) -> None:
        """So many rows more; every seventh has NULLs."""
        with closing(mysql.root_connection("mysql57", self.schema)) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO rides (member_id, price, note, ended_at) VALUES (%s, %s, %s, %s)",
                [
                    (n % 50, None if n % 7 == 0 else n / 4, f"Köln 🚲 {n}", datetime(2026, 1, 1) + timedelta(minutes=n))
                    for n in range(count)
                ],
            )
            connection.commit()

    # --- the target, by a client of its own

    def items(self) -> dict[int, dict[str, Any]]:
        """Items by id, as the store has them; tombstones, too."""
        if self.prefix:
            return {int(key.rpartition(b":")[2]): fields for key, fields in self._hashes()}
        found: dict[int, dict[str, Any]] = {}
        start: dict[str, Any] = {}
        while True:
            answer = self.client.scan(TableName=self.table, ConsistentRead=True, **start)
            found |= {int(item["pk"]["S"].partition("#")[2]): item for item in answer["Items"]}
            if "LastEvaluatedKey" not in answer:
                return found
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def versions(self) -> dict[int, int]:
        """Version by id."""
        if self.prefix:
            return {key: int(fields[b"_v"][1:]) for key, fields in self.items().items()}
        return {key: int(item["_v"]["N"]) for key, item in self.items().items()}

    def _hashes(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        import redis as redis_py

        with redis_py.Redis(HOST, config.port("redis")) as client:
            for key in client.scan_iter(f"{self.prefix}*", count=1000):
                yield key, client.hgetall(key)

    # --- the store

    @property
    def journal(self) -> Journal:
        return Journal.open(connections.engine(connections.STORE))

    def plan(self) -> Plan:
        return self.journal.plans(self.name, limit=1)[0]

    def report(self, dag_id: str = "backfill") -> dict[str, Any]:
        found = Store.open().latest(dag_id, self.name)
        assert found is not None
        return found.document

    def heard(self, **counts: int) -> None:
        """The application reports these counts."""
        counters = Counters()
        for name, count in {"writes": 1, "hits": 5, **counts}.items():
            counters.add(*[name] * count)
        reporter = Reporter(
            counters,
            lambda: mysql.root_connection("mysql80", config.STORE_SCHEMA),
            application=APPLICATION,
            spec=self.name,
        )
        assert reporter.report(is_last=True)

    # --- runs

    def declare(self, **changes: Any) -> None:
        """Write the spec, with some parts of it replaced."""
        self.document |= changes
        (self.folder / "backfill").mkdir(parents=True, exist_ok=True)
        (self.folder / "backfill" / f"{self.name}.yaml").write_text(json.dumps(self.document))

    def run(self, dag_id: str = "backfill", **conf: Any) -> Any:
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(ROOT / "dags" / f"{dag_id}.py"))
        assert not bag.import_errors
        return self.run_dag(bag.dags[dag_id], run_conf={"spec": self.name, **conf})

    def copy(self, **conf: Any) -> Any:
        return self.run(dry_run=False, confirm=self.name, **conf)


def states(run: Any) -> dict[str, str]:
    """State by task, the worst of a mapped one."""
    found: dict[str, list[str]] = {}
    for ti in run.get_task_instances():
        found.setdefault(ti.task_id, []).append(str(ti.state))
    return {
        name: next((bad for bad in ("failed", "upstream_failed") if bad in all_of), all_of[0])
        for name, all_of in found.items()
    }


@contextmanager
def stage(folder: Path, run_dag: Callable[..., Any], kind: str = "dynamodb", rows: int = 0) -> Iterator[Stage]:
    """A table with rows, and an empty target."""
    tag = uuid.uuid4().hex[:8]
    made = Stage(f"rides_{tag}", f"stage_{tag}", folder, run_dag)
    made.execute("CREATE DATABASE {s}", DDL, TRIGGER)
    for host in ("%", "localhost", HOST):
        made.execute(f"GRANT SELECT, TRIGGER ON {{s}}.* TO '{MYSQL_USER}'@'{host}'")
    target: dict[str, Any] = {"kind": "redis", "prefix": f"carshare:{tag}:", "key": "{id}"}
    if kind == "dynamodb":
        target = {"kind": "dynamodb", "table": f"carshare_{tag}", "key": {"pk": "RIDE#{id}"}}
        made.table, made.client = target["table"], dynamodb.client()
        made.client.create_table(
            TableName=made.table, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )  # fmt: skip
    else:
        made.prefix = target["prefix"]
    made.declare(
        description="rides of a test", owner="dba", enabled=True,
        view={"table": f"{made.schema}.rides", "alias": "r", "sql": VIEW.format(s=made.schema)},
        version={"column": "row_version", "raised_by": "the trigger, and ids are never used again"}, target=target,
        limits={"units_per_s": 20000, "chunk_rows": 100, "page_rows": 50, "tasks": 2, "max_lag_s": None, "max_threads_running": None},
        live={"since": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(), "applications": [APPLICATION], "stream": "no stream"},
        verify={"drain_s": 2, "shared_table": kind == "redis"},
    )  # fmt: skip
    assert made.journal  # its tables are there before anybody reports
    made.heard()
    made.fill(rows)
    try:
        yield made
    finally:
        made.execute("DROP DATABASE {s}")
        if made.table:
            made.client.delete_table(TableName=made.table)
        else:
            for key, _ in list(made._hashes()):
                redis.ask(f"DEL {key.decode()}")
