"""A table of its own in MySQL, a target, a spec and an application that reports: what the tests of the backfill's DAGs share."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis as redis_py
import sqlalchemy as sa

from dbops import connections
from dbops.backfill import operators, tables
from dbops.backfill.journal import Journal
from dbops.backfill.records import Plan
from dbops.keyvalue.counting import Reporter
from dbops.keyvalue.repository import Counters
from dbops.store import Store
from lab import aws, config, dynamodb, mysql
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


class Items(Protocol):
    """The target as a client without conditions sees it; items by the id of their row."""

    def read(self) -> dict[int, dict[str, Any]]:
        """All, tombstones too, as the store has them."""

    def write(self, number: int, item: Mapping[str, Any]) -> None:
        """Put an item, whatever is there."""

    def remove(self, number: int) -> None:
        """Delete an item."""

    def value(self, name: str, text: str) -> Any:
        """What an item of `read` has for a text of an attribute: ``_v``, ``_bf``, ``_deleted`` or ``price``."""

    def text(self, value: Any) -> str:
        """`value` backwards, versions without their form."""

    def drop(self) -> None:
        """Take all of it away."""


class DynamoItems:
    """A table of DynamoDB."""

    def __init__(self, table: str) -> None:
        self.table, self.client = table, dynamodb.client()

    def create(self) -> None:
        self.client.create_table(
            TableName=self.table, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )  # fmt: skip

    def exists(self) -> bool:
        return self.table in self.client.list_tables()["TableNames"]

    def read(self) -> dict[int, dict[str, Any]]:
        pages = self.client.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return {int(item["pk"]["S"].partition("#")[2]): item for page in pages for item in page["Items"]}

    def write(self, number: int, item: Mapping[str, Any]) -> None:
        self.client.put_item(TableName=self.table, Item={**item, "pk": {"S": f"RIDE#{number}"}})

    def remove(self, number: int) -> None:
        self.client.delete_item(TableName=self.table, Key={"pk": {"S": f"RIDE#{number}"}})

    def value(self, name: str, text: str) -> Any:
        return {"BOOL": True} if name == "_deleted" else {"S" if name == "_bf" else "N": text}

    def text(self, value: Any) -> str:
        return str(next(iter(value.values())))

    def drop(self) -> None:
        if self.exists():
            self.client.delete_table(TableName=self.table)


class RedisItems:
    """Keys of Redis below a prefix: hashes, or JSON documents."""

    def __init__(self, prefix: str, layout: str) -> None:
        self.prefix, self.layout = prefix, layout
        self.client = redis_py.Redis(HOST, config.port("redis"))

    def read(self) -> dict[int, dict[str, Any]]:
        return {int(key.rpartition(b":")[2]): self._item(key) for key in self._keys()}

    def _item(self, key: bytes) -> dict[str, Any]:
        if self.layout == "string":
            return dict(json.loads(self.client.get(key)))
        return {name.decode(): value.decode("latin-1") for name, value in self.client.hgetall(key).items()}

    def _keys(self) -> Iterator[bytes]:
        return iter(self.client.scan_iter(f"{self.prefix}*", count=1000))

    def write(self, number: int, item: Mapping[str, Any]) -> None:
        self.remove(number)
        if self.layout == "string":
            self.client.set(f"{self.prefix}{number}", json.dumps(item))
        else:
            mapping = {name: value.encode("latin-1") for name, value in item.items()}
            self.client.hset(f"{self.prefix}{number}", mapping=mapping)

    def remove(self, number: int) -> None:
        self.client.delete(f"{self.prefix}{number}")

    def value(self, name: str, text: str) -> Any:
        if name == "_v":
            return f"n{int(text):020d}"
        return float(text) if name == "price" and self.layout == "string" else text

    def text(self, value: Any) -> str:
        text = str(value)
        return str(int(text[1:])) if len(text) == 21 and text[0] == "n" else text

    def drop(self) -> None:
        for key in list(self._keys()):
            self.client.delete(key)
        self.client.close()
        # All specs of one server share its rate: the next test must not be as slow as this one wanted to be.
        with connections.engine(connections.STORE).begin() as connection:
            connection.execute(sa.delete(tables.BUCKET).where(tables.BUCKET.c.resource.startswith("redis:")))


@dataclass
class Stage:
    """Runs of the backfill's DAGs on one spec."""

    name: str
    schema: str
    folder: Path
    run_dag: Callable[..., Any]
    target: Items
    """By a client of its own."""
    document: dict[str, Any] = field(default_factory=dict)
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

    @property
    def table(self) -> str:
        """Of DynamoDB."""
        return str(self.document["target"]["table"])

    def items(self) -> dict[int, dict[str, Any]]:
        """Items by id, as the store has them; tombstones, too."""
        return self.target.read()

    def versions(self) -> dict[int, int]:
        """Version by id."""
        return {key: int(self.target.text(item["_v"])) for key, item in self.items().items()}

    def stamps(self) -> dict[int, str | None]:
        """By id, the plan that has written the item; None: somebody else."""
        return {key: self.target.text(item["_bf"]) if "_bf" in item else None for key, item in self.items().items()}

    def edit(self, number: int, without: str = "", **texts: str) -> None:
        """Change an item in place, as a client without a condition does."""
        changed = self.items()[number] | {name: self.target.value(name, text) for name, text in texts.items()}
        self.target.write(number, {name: value for name, value in changed.items() if name != without})

    def written_by_an_application(self, updated: int, deleted: int) -> dict[int, dict[str, Any]]:
        """Change one row and delete another, in both stores, as an application does; the two items as they are then."""
        self.execute(
            f"UPDATE {{s}}.rides SET price = 5 WHERE id = {updated}", f"DELETE FROM {{s}}.rides WHERE id = {deleted}"
        )
        version, made = self.rows(f"SELECT row_version FROM {{s}}.rides WHERE id = {updated}")[0][0], self.target.value
        self.edit(updated, without="_bf", price="5", _v=str(version))
        self.target.write(deleted, {"_v": made("_v", "2"), "_deleted": made("_deleted", "1")})
        return {key: item for key, item in self.items().items() if key in (updated, deleted)}

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

    def fell_silent(self, days: float) -> str:
        """A process of the application reported for an hour, and then no more, so many days ago; its name."""
        end = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
        row = {
            "spec": self.name, "application": APPLICATION, "instance": f"gone-{days:g}-{uuid.uuid4().hex}",
            "counted_from": end - timedelta(hours=1), "counted_to": end, "counts": {"hits": 5, "fallback_hits": 0}, "is_last": False,
        }  # fmt: skip
        with connections.engine(connections.STORE).begin() as connection:
            connection.execute(sa.insert(tables.COUNTER), row)
        return str(row["instance"])

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


def succeeded(stage: Stage, run: Any) -> None:
    """A run that ended well and alerted nobody."""
    assert str(run.state) == "success", (states(run), stage.report()["reasons"])
    assert stage.alerts() == []


def failed(stage: Stage, run: Any, task: str) -> str:
    """The alert of the only task that failed by itself."""
    assert str(run.state) == "failed", states(run)
    bad = [name for name, state in states(run).items() if state == "failed" and name != "any_failure"]
    assert bad == [task], states(run)
    return stage.only_alert()


def tables_of(report: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Rows of a report's tables by title."""
    return {each["title"]: each["rows"] for each in report["sections"] if "rows" in each}


def watch_deferrals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why tasks give their worker away, from now on."""
    found, original = list[str](), operators._BackfillOperator.look_again

    def look_again(operator: Any, spec: Any, by: str, reason: str) -> None:
        found.append(by)
        original(operator, spec, by, reason)

    monkeypatch.setattr(operators._BackfillOperator, "look_again", look_again)
    return found


@contextmanager
def stage(folder: Path, run_dag: Callable[..., Any], kind: str = "dynamodb", rows: int = 0) -> Iterator[Stage]:
    """A table with rows, and an empty target.

    Args:
        folder: of specs
        run_dag: the fixture
        kind: ``dynamodb``, ``import`` (a table that is not there yet, and a bucket), or a layout of Redis, ``hash`` or ``string``
        rows: of the table
    """
    tag = uuid.uuid4().hex[:8]
    name, more = f"rides_{tag}", dict[str, Any]()
    target: dict[str, Any] = {"kind": "dynamodb", "table": f"carshare_{tag}", "key": {"pk": "RIDE#{id}"}}
    items: DynamoItems | RedisItems
    if kind in ("hash", "string"):
        target = {"kind": "redis", "prefix": f"carshare:{tag}:", "layout": kind, "key": "{id}"}
        items = RedisItems(target["prefix"], kind)
    else:
        items = DynamoItems(target["table"])
        if kind == "import":
            bucket = f"staging-{tag}"
            aws.client("s3").create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": config.AWS_REGION}
            )
            more = {"engine": "import", "staging_s3_uri": f"s3://{bucket}/backfill"}
        else:
            items.create()
    made = Stage(name, f"stage_{tag}", folder, run_dag, items)
    made.queue = _subscribed(made.name)
    with ExitStack() as stack:
        stack.callback(items.drop)
        made.execute("CREATE DATABASE {s}", DDL, TRIGGER)
        stack.callback(made.execute, "DROP DATABASE {s}")
        for host in ("%", "localhost", HOST):
            made.execute(f"GRANT SELECT, TRIGGER ON {{s}}.* TO '{MYSQL_USER}'@'{host}'")
            # Grants outlive their schema.
            stack.callback(made.execute, f"REVOKE SELECT, TRIGGER ON {{s}}.* FROM '{MYSQL_USER}'@'{host}'")
        made.declare(
            description="rides of a test", owner="dba", enabled=True,
            view={"table": f"{made.schema}.rides", "alias": "r", "sql": VIEW.format(s=made.schema)},
            version={"column": "row_version", "raised_by": "the trigger, and ids are never used again"}, target=target,
            limits=LIMITS,
            live={"since": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(), "applications": [APPLICATION], "stream": "no stream"},
            verify={"drain_s": 1}, **more,
        )  # fmt: skip
        assert made.journal  # its tables are there before anybody reports
        if kind != "import":  # dual writes begin after it
            made.heard()
        made.fill(rows)
        yield made


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
