"""A table of its own in MySQL, a target, a spec and an application that reports: what the tests of the backfill's DAGs share."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dbops import connections
from dbops.backfill import tables
from dbops.backfill.journal import Journal
from dbops.backfill.records import Plan
from dbops.keyvalue.counting import Reporter
from dbops.keyvalue.repository import Counters
from dbops.store import Store
from lab import aws, config, dynamodb, mysql, redis
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
LIMITS: dict[str, Any] = {
    "units_per_s": 20000, "chunk_rows": 100, "page_rows": 50, "tasks": 2, "look_again_s": 1, "max_lag_s": None, "max_threads_running": None
}  # fmt: skip


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
    queue: str = ""
    """Where alerts arrive."""

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

    def photo(self, size: int = 500_000) -> int:
        """Id of a new row whose photo makes its item too large."""
        self.execute(f"INSERT INTO {{s}}.rides (member_id, photo) VALUES (1, REPEAT('x', {size}))")
        return int(self.rows()[-1][0])

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

    def stamps(self) -> dict[int, str | None]:
        """By id, the plan that has written the item; None: somebody else."""
        if self.prefix:
            return {key: fields[b"_bf"].decode() if b"_bf" in fields else None for key, fields in self.items().items()}
        return {key: item["_bf"]["S"] if "_bf" in item else None for key, item in self.items().items()}

    def put(self, number: int, item: dict[str, Any]) -> None:
        """As a client without a condition does."""
        self.client.put_item(TableName=self.table, Item={**item, "pk": {"S": f"RIDE#{number}"}})

    def remove(self, number: int) -> None:
        """As a client without a condition does."""
        self.client.delete_item(TableName=self.table, Key={"pk": {"S": f"RIDE#{number}"}})

    def written_by_an_application(self, updated: int, deleted: int) -> dict[int, dict[str, Any]]:
        """Change one row and delete another, in both stores, as an application does; the two items as they are then."""
        self.execute(
            f"UPDATE {{s}}.rides SET price = 5 WHERE id = {updated}", f"DELETE FROM {{s}}.rides WHERE id = {deleted}"
        )
        if self.prefix:
            import redis as redis_py

            with redis_py.Redis(HOST, config.port("redis")) as client:
                for number, fields in ((updated, {"price": "5"}), (deleted, {"_deleted": "1"})):
                    key = f"{self.prefix}{number}"
                    client.hdel(key, "_bf")
                    client.hset(key, "_v", f"n{2:020d}")
                    client.hset(key, mapping=fields)
        else:
            item = {name: value for name, value in self.items()[updated].items() if name != "_bf"}
            self.put(updated, {**item, "price": {"N": "5"}, "_v": {"N": "2"}})
            self.put(deleted, {"_v": {"N": "2"}, "_deleted": {"BOOL": True}})
        return {key: item for key, item in self.items().items() if key in (updated, deleted)}

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

    def until(self, holds: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, f"{what} did not come true"
            time.sleep(0.1)
        return found

    def events(self, kind: str) -> list[str]:
        """Reasons of the events of a kind, of the newest plan."""
        plans = self.journal.plans(self.name, limit=1)
        return [each.reason for each in self.journal.events(plans[0].plan_id) if each.kind == kind] if plans else []

    def lapse(self) -> None:
        """Let the leases of workers that are dead run out."""
        with connections.engine(connections.STORE).begin() as connection:
            mine = tables.CHUNK.c.plan_id == self.plan().plan_id
            connection.execute(sa.update(tables.CHUNK).where(mine).values(leased_until=datetime(2026, 1, 1)))

    def alerts(self) -> list[dict[str, Any]]:
        """Messages that came since the last look."""
        found: list[dict[str, Any]] = []
        sqs = aws.client("sqs")
        while batch := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                found.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def only_alert(self) -> str:
        """The text of the one task that failed; any_failure and the run have alerts of their own."""
        alerts = [each for each in self.alerts() if "run failed" not in each["Subject"]]
        tasks = [each for each in alerts if each["MessageAttributes"]["task_id"]["Value"] != "any_failure"]
        assert len(tasks) == 1, [each["Subject"] for each in alerts]
        return str(tasks[0]["Message"])

    def report(self, dag_id: str = "backfill") -> dict[str, Any]:
        found = Store.open().latest(dag_id, self.name)
        assert found is not None
        return found.document

    def html(self, dag_id: str = "backfill") -> str:
        """The newest report as it is shown."""
        found = Store.open().latest(dag_id, self.name)
        assert found is not None
        return str(Store.open().report_html(found.report_id))

    def heard_all_day(self, **counts: int) -> None:
        """A process of the application has reported without a hole since the day before yesterday, and ends now."""
        now = datetime.now(UTC).replace(tzinfo=None)
        row = {
            "spec": self.name, "application": APPLICATION, "instance": uuid.uuid4().hex, "counted_from": now - timedelta(days=2),
            "counted_to": now, "counts": {"hits": 5, "fallback_hits": 0, **counts}, "is_last": True,
        }  # fmt: skip
        with connections.engine(connections.STORE).begin() as connection:
            connection.execute(sa.insert(tables.COUNTER), row)

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
        options = {key[1:]: conf.pop(key) for key in list(conf) if key.startswith("_")}
        return self.run_dag(dag_of(dag_id), run_conf={"spec": self.name, **conf}, **options)

    def copy(self, **conf: Any) -> Any:
        return self.run(**self.asked(**conf))

    def verify(self, **conf: Any) -> Any:
        return self.copy(copy=False, **conf)

    def roll_back(self, **conf: Any) -> Any:
        return self.run("backfill_roll_back", **self.asked(**conf))

    def asked(self, **conf: Any) -> dict[str, Any]:
        """Conf of a run that writes."""
        return {"spec": self.name, "dry_run": False, "confirm": self.name, **conf}


def dag_of(dag_id: str) -> Any:
    """The DAG of a file."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(config.ROOT / "dags" / f"{dag_id}.py"))
    assert not bag.import_errors
    return bag.dags[dag_id]


def run_in_worker(dag_id: str, conf: dict[str, Any]) -> None:
    """What a worker process runs: ``airflow dags test`` of a DAG that is in the metadata database."""
    run = dag_of(dag_id).test(run_conf=conf)
    assert str(run.state) == "success", states(run)


def states(run: Any) -> dict[str, str]:
    """State by task, the worst of a mapped one."""
    found: dict[str, str] = {}
    for ti in run.get_task_instances():
        if found.get(ti.task_id) != "failed":
            found[ti.task_id] = str(ti.state)
    return found


@contextmanager
def stage(folder: Path, run_dag: Callable[..., Any], kind: str = "dynamodb", rows: int = 0) -> Iterator[Stage]:
    """A table with rows, and an empty target."""
    tag = uuid.uuid4().hex[:8]
    made = Stage(f"rides_{tag}", f"stage_{tag}", folder, run_dag)
    made.queue = _subscribed(made.name)
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
        limits=LIMITS,
        live={"since": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(), "applications": [APPLICATION], "stream": "no stream"},
        verify={"drain_s": 1, "shared_table": kind == "redis"},
    )  # fmt: skip
    assert made.journal  # its tables are there before anybody reports
    made.heard()
    made.fill(rows)
    try:
        yield made
    finally:
        made.execute("DROP DATABASE {s}")
        for host in ("%", "localhost", HOST):  # grants outlive their schema
            made.execute(f"REVOKE SELECT, TRIGGER ON {{s}}.* FROM '{MYSQL_USER}'@'{host}'")
        if made.table:
            made.client.delete_table(TableName=made.table)
        else:
            for key, _ in list(made._hashes()):
                redis.ask(f"DEL {key.decode()}")


def _subscribed(name: str) -> str:
    """A queue of the topic that alerts go to from now on."""
    sns, sqs = aws.client("sns"), aws.client("sqs")
    topic, queue = sns.create_topic(Name=name)["TopicArn"], sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = f"arn:aws:sqs:{config.AWS_REGION}:{config.AWS_ACCOUNT}:{name}"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    connection["extra"] |= {"dbops_sns_topic_arn": topic}
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(connection)  # which the test's own fixture takes back
    return queue
