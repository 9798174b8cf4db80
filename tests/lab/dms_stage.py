"""The example specs in the lab, under an application that never stops writing: what the tests of the DMS DAGs share."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import MySQLdb
import MySQLdb.cursors
import sqlalchemy as sa
import yaml

from dbops import connections
from dbops.dms import states
from dbops.dms.ledger import Ledger
from lab import aws, config, dynamodb, examples, lambda_runner, mysql, processes, seed, stack
from lab.dms import faults
from lab.lambda_runner import Deployed, EventSource, Runner
from tests.dms import dms_kit

SPECS = ("rides_dynamodb", "rides_kinesis", "fleet_mysql80")
REFUSED = "rides_refused"
FUNCTION = config.ROOT / "include" / "lambda" / "cdc_apply"
WAIT_S = 120
LOB_KB = 64
PAUSE_S = 0.03  # between two transactions of the application
# What the target of cdc_apply is told of the source's columns; "set" and "string" are what DMS writes.
COLUMNS = {
    "rides": {
        "id": "integer", "member_id": "integer", "car_id": "integer", "status": "string", "started_at": "string",
        "ended_at": "string", "distance_km": "number", "price": "number", "rating": "integer", "comment": "string",
    },
    "payments": {
        "id": "integer", "ride_id": "integer", "amount": "number", "currency": "string", "method": "string",
        "reference": "binary", "paid_at": "string", "refunded_at": "string",
    },
}  # fmt: skip
CANARY = {"id": "integer", "token": "string", "written_at": "string"}
SOME = "(SELECT id FROM {table} ORDER BY RAND() LIMIT 1)"
MEMBER, CAR, RIDE = (
    f"(SELECT id FROM {SOME.format(table=name)} AS {name[0]})" for name in ("members", "cars", "rides")
)
WRITES = (
    f"INSERT INTO rides (member_id, car_id, status, started_at, price, comment) SELECT {MEMBER}, {CAR}, 'booked', NOW(3), "
    "RAND() * 100, NULLIF(REPEAT('ü 🚲', RAND() * 9), '')",
    f"INSERT INTO payments (ride_id, amount, method, reference, paid_at) SELECT {RIDE}, RAND() * 100, 'card', "
    "UNHEX(REPLACE(UUID(), '-', '')), NOW()",
    "INSERT INTO members (email, full_name, preferences) SELECT UUID(), 'İpek Müller', JSON_OBJECT('a', RAND(), 'b', JSON_ARRAY(1, NULL))",
    "UPDATE rides SET ended_at = NOW(3), distance_km = RAND() * 100, rating = RAND() * 5, status = 'finished' ORDER BY RAND() LIMIT 2",
    "UPDATE payments SET refunded_at = IF(refunded_at IS NULL, NOW(), NULL) ORDER BY RAND() LIMIT 1",
    "UPDATE members SET balance = RAND() * 1000, preferences = NULL ORDER BY RAND() LIMIT 1",
    "DELETE FROM payments WHERE id > {payments} ORDER BY RAND() LIMIT 1",
    "DELETE FROM rides WHERE id > {rides} AND id NOT IN (SELECT ride_id FROM payments) ORDER BY RAND() LIMIT 1",
    "UPDATE cars SET odometer_km = RAND() * 1000 ORDER BY RAND() LIMIT 1",
)
UNDO = ("DELETE FROM payments WHERE id > {payments}", "DELETE FROM rides WHERE id > {rides}",
        "DELETE FROM members WHERE id > {members}")  # fmt: skip


class Application(threading.Thread):
    """Writes to the source until it is told to stop; a server that goes away it awaits."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.random, self.ended, self.failure, self.done = random.Random(11), threading.Event(), None, 0
        self.begin = {
            name: query("mysql57", f"SELECT MAX(id) FROM carshare.{name}")[0][0]
            for name in ("rides", "payments", "members")
        }

    failure: BaseException | None

    def run(self) -> None:
        """Until `stop`."""
        while not self.ended.is_set():
            try:
                with closing(mysql.root_connection("mysql57", config.SOURCE_SCHEMA)) as connection:
                    self._write(connection)
            except MySQLdb.OperationalError:  # the server restarts
                self.ended.wait(0.2)
            except BaseException as error:
                self.failure = error
                return

    def _write(self, connection: Any) -> None:
        connection.autocommit(False)
        while not self.ended.is_set():
            with connection.cursor() as cursor:
                for _ in range(self.random.choice([1, 1, 3])):
                    cursor.execute(
                        self.random.choice(WRITES)
                        .replace("{payments}", str(self.begin["payments"]))
                        .replace("{rides}", str(self.begin["rides"]))
                    )
            connection.rollback() if self.random.random() < 0.05 else connection.commit()
            self.done += 1
            self.ended.wait(PAUSE_S)

    def stop(self) -> None:
        """Stop, and tell what went wrong."""
        self.ended.set()
        self.join(30)
        if self.failure is not None:
            raise self.failure

    def undo(self) -> None:
        """Take away the rows that came."""
        mysql.execute("mysql57", [text.replace("FROM ", "FROM carshare.").format(**self.begin) for text in UNDO])


def query(server: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Rows of a server, as root."""
    with closing(mysql.root_connection(server)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        return list(cursor.fetchall())


@dataclass(frozen=True)
class KillAfter:
    """SIGKILL to the worker as soon as AWS has answered a call: for a worker of `tests.lab.worker`."""

    operation: str

    def install(self) -> None:
        """Wrap every client of this process."""
        from botocore.client import BaseClient

        original = BaseClient._make_api_call

        def make(client: Any, operation: str, arguments: Any) -> Any:
            answer = original(client, operation, arguments)
            if operation == self.operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        BaseClient._make_api_call = make


def run_in_worker(dag_id: str, conf: dict[str, Any], at: datetime, environment: dict[str, str]) -> None:
    """What a worker process runs: ``airflow dags test`` of a DAG that is in the metadata database."""
    os.environ.update(environment)
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(config.ROOT / "dags" / f"{dag_id}.py"))
    bag.dags[dag_id].test(run_conf=conf, logical_date=at, run_after=at)


@dataclass
class World:
    """An account without tasks, an application that writes, and a function behind the stream."""

    folder: Path
    application: Application
    runner: Runner
    key: str
    dms: Any = field(default_factory=lambda: aws.client("dms"))

    @property
    def faults(self) -> Path:
        """Folder of the simulated DMS."""
        return config.home() / "rds" / "dms"

    def spec(self, name: str, of: str = "", **over: Any) -> None:
        """Write a spec: an example with a verdict after one minute of metrics instead of three, and patience with failures."""
        text = (config.ROOT / "include" / "specs" / "dms" / f"{of or name}.yaml").read_text()
        values = {**yaml.safe_load(text), "quarantine_after": 20, **over}
        values["limits"] = {**values["limits"], "samples": 1, "restarts": 20, **over.get("limits", {})}
        (self.folder / "dms").mkdir(exist_ok=True)
        (self.folder / "dms" / f"{name}.yaml").write_text(yaml.safe_dump(values))

    def task(self, spec: str) -> states.Task:
        """As AWS has it."""
        return dms_kit.ask(self.dms, states.one_task(spec.replace("_", "-")))  # type: ignore[no-any-return]

    def tables(self, spec: str) -> dict[str, states.TableStatistics]:
        """Statistics by name of the table."""
        return {one.table.name: one for one in dms_kit.ask(self.dms, states.statistics(self.task(spec)))}

    def pid(self, spec: str) -> int:
        """Process of a running task."""
        path = self.faults / states_id(self.task(spec)) / "state.json"
        return int(json.loads(path.read_text())["pid"])

    def until(self, holds: Callable[[], Any], what: str = "it") -> Any:
        """Wait until something holds."""
        end = time.monotonic() + WAIT_S
        while not (found := holds()):
            assert time.monotonic() < end, f"{what} did not come true"
            time.sleep(0.2)
        return found

    @contextmanager
    def fault(self, **switches: Any) -> Iterator[None]:
        """Fault switches of the block."""
        faults.set_faults(self.faults, **switches)
        try:
            yield
        finally:
            faults.set_faults(self.faults)

    def restart_source(self) -> None:
        """End MySQL 5.7 and start it again."""
        with processes.exclusive():
            processes.stop("mysql57")
            processes.start(stack.services()["mysql57"])

    def remove(self) -> None:
        """Take every task away; endpoints stay, others may use them."""
        for name in [path.stem for path in (self.folder / "dms").glob("*.yaml")]:
            if self.task(name).status in ("running", "starting"):
                self.dms.stop_replication_task(ReplicationTaskArn=self.task(name).arn)
                self.until(lambda name=name: self.task(name).status in ("stopped", "failed"), f"stop of {name}")  # type: ignore[misc]
            if (held := self.task(name)).status != "missing":
                self.dms.delete_replication_task(ReplicationTaskArn=held.arn)
                self.until(lambda name=name: self.task(name).status == "missing", f"end of {name}")  # type: ignore[misc]


def states_id(task: states.Task) -> str:
    """Resource id of a task."""
    return task.arn.rpartition(":")[2]


def forget(specs: tuple[str, ...]) -> None:
    """Empty the ledger of these specs: what earlier tests kept is not of these tasks."""
    engine = connections.engine(connections.STORE)
    Ledger.open(engine)
    with engine.begin() as connection:
        for table in sa.inspect(connection).get_table_names():
            if table.startswith("dms_") and "spec" in {
                one["name"] for one in sa.inspect(connection).get_columns(table)
            }:
                names = sa.bindparam("names", specs, expanding=True)
                connection.execute(sa.text(f"DELETE FROM {table} WHERE spec IN :names").bindparams(names))


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """The lab as the example specs want it, and nothing of them there."""
    seed.seed("mysql57", 200)
    examples.provision()
    kinesis = aws.client("kinesis")
    kinesis.delete_stream(StreamName=examples.STREAM)  # records of earlier tests are not of this source
    examples.provision()
    application, key = Application(), f"stage{uuid.uuid4().hex}"
    function = deployed(folder, key)
    source = EventSource(examples.STREAM, 200, bisect_on_error=True, maximum_retry_attempts=50)
    with closing(function), Runner(kinesis, function, source) as runner:
        made = World(folder, application, runner, key)
        for name in SPECS:
            made.spec(name)
        faults.set_faults(made.faults)
        forget((*SPECS, REFUSED))
        made.remove()
        application.start()
        try:
            yield made
        finally:
            faults.set_faults(made.faults)
            made.remove()
            application.stop()
            application.undo()


def deployed(folder: Path, key: str) -> Deployed:
    """cdc_apply and its target tables."""
    client = dynamodb.client(key)
    ((log, offset, *_),) = query("mysql57", "SHOW MASTER STATUS")
    tables = {}
    for name, columns in {"carshare.rides": COLUMNS["rides"], "carshare.payments": COLUMNS["payments"],
                          "dbops_canary.rides_kinesis": CANARY}.items():  # fmt: skip
        client.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        )  # fmt: skip
        tables[name] = {
            "target": name, "key": {"id": "{id}"}, "version": "log", "columns": columns, "load_position": f"{log}:{offset}",
        }  # fmt: skip
    environment = {
        "CDC_SETTINGS": json.dumps({"tables": tables}), "AWS_ENDPOINT_URL": config.aws_endpoint(),
        "AWS_ENDPOINT_URL_DYNAMODB": config.dynamodb_endpoint(), "AWS_ACCESS_KEY_ID": key,
    }  # fmt: skip
    archive = lambda_runner.package(FUNCTION, folder / "cdc_apply.zip")
    return Deployed(archive, "cdc_apply.handler.lambda_handler", environment, folder / "function.log", 60)


# The judge: reads source and targets with clients of its own, and shares no code with dbops.dms.reconcile --------------


def items(key: str, table: str) -> list[dict[str, Any]]:
    """Every item of a DynamoDB table."""
    pages = dynamodb.client(key).get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


def source_rows(table: str) -> dict[int, dict[str, Any]]:
    """Rows of a table of the source by id, without what is NULL."""
    return _rows("mysql57", f"carshare.{table}")


def rows_of_mysql80(table: str) -> dict[int, dict[str, Any]]:
    """Rows of the target of fleet_mysql80."""
    return _rows("mysql80", f"carshare_dms.{table}")


def rows_of_dynamodb(table: str, key: str = config.AWS_KEY) -> dict[int, dict[str, Any]]:
    """Items as rows of the source, without tombstones and versions."""
    found = [{name: _value(name, each) for name, each in item.items() if name != "_v"} for item in items(key, table)]
    return {int(row["id"]): row for row in found if "_deleted" not in row}


def _rows(server: str, table: str) -> dict[int, dict[str, Any]]:
    with closing(mysql.root_connection(server)) as connection, connection.cursor(MySQLdb.cursors.DictCursor) as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return {
            row["id"]: {name: _plain(name, value) for name, value in row.items() if value is not None} for row in cursor
        }


class Near(float):
    """A DOUBLE of a JSON document, of which MySQL reads the text with an error in its last digits."""

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and math.isclose(self, other, rel_tol=1e-15)


def _plain(name: str, value: Any) -> Any:
    if name == "preferences":
        return json.loads(value, parse_float=Near)
    return Decimal(value) if isinstance(value, int) else value


def _value(name: str, value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    if kind == "N":
        return Decimal(held)
    if name.endswith("_at") and kind == "S":
        return datetime.fromisoformat(held).replace(tzinfo=None)
    return held
