"""MySQL 5.7 with continuing writes -> DMS -> Kinesis -> Lambda -> DynamoDB, while parts of the way are killed.

The judge is not on the way: rows are read from MySQL by a client of its own and turned into items by the code below; DynamoDB's stream
tells every state that an item ever had.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import MySQLdb
import pytest

from lab import aws, config, dynamodb, lambda_runner
from lab.lambda_runner import Deployed, EventSource, Runner
from tests.lab.dms_kit import ROLE, Dms

pytestmark = pytest.mark.lab
FUNCTION = config.ROOT / "include" / "lambda" / "cdc_apply"
HANDLER = "cdc_apply.handler.lambda_handler"
TABLE = """
CREATE TABLE {s}.rides (
  id BIGINT UNSIGNED, user_id INT, at DATETIME(6), price DECIMAL(12,2), distance DOUBLE, note MEDIUMTEXT, ticket VARBINARY(12),
  extras SET('child seat', 'roof box'), track JSON, row_version BIGINT NOT NULL, PRIMARY KEY (user_id, id)
) CHARACTER SET utf8mb4
"""
COLUMNS = {
    "id": "integer", "user_id": "integer", "at": "string", "price": "number", "distance": "number", "note": "string",
    "ticket": "binary", "extras": "set", "track": "json", "row_version": "integer",
}  # fmt: skip
LOB_KB = 1000
WIDTH = 20
BIG = 2**64 - 10**6  # ids of 20 digits, which come rounded unless the endpoint is told otherwise
ROWS = 400
WRITES = 400  # transactions, beside those of the load
TARGET = "rides"
STREAM = "changes"
GIVEN_UP_S = 240


@dataclass
class Writer:
    """An application that goes on writing: rows come, change, change their key, go, and come back."""

    lab: Dms
    schema: str
    seed: int
    version: int = 0
    ids: int = 0
    keys: list[tuple[int, int]] = field(default_factory=list)
    gone: list[tuple[int, int]] = field(default_factory=list)
    done: int = 0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def connect(self) -> MySQLdb.Connection:
        return self.lab.source.connect(init_command="SET sql_log_bin = 1", autocommit=False)

    def fill(self) -> None:
        with closing(self.connect()) as connection:
            for _ in range(ROWS):
                self._insert(connection, self._new())
            connection.commit()

    def execute(self, statement: str, *arguments: Any) -> None:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(s=self.schema), arguments)
            connection.commit()

    def _run(self) -> None:
        try:
            with closing(self.connect()) as connection:
                while self.done < WRITES and not self.ended.is_set():
                    for _ in range(self.random.choice([1, 1, 1, 2, 5])):
                        self._step(connection)
                    if self.random.random() < 0.05:
                        connection.rollback()  # nothing of it may arrive
                        self._look(connection)
                    else:
                        connection.commit()
                    self.done += 1
                    if self.done % 150 == 0:
                        connection.query("FLUSH BINARY LOGS")
                    self.ended.wait(0.004)
        except BaseException as error:
            self.failure = error

    def _look(self, connection: MySQLdb.Connection) -> None:
        """What there is, after a transaction of which nobody knows any more."""
        connection.query(f"SELECT user_id, id FROM {self.schema}.rides")
        there = {(int(user), int(ride)) for user, ride in connection.store_result().fetch_row(0)}
        known = {*self.keys, *self.gone}
        self.keys, self.gone = sorted(there), sorted(known - there)
        connection.commit()

    def _step(self, connection: MySQLdb.Connection) -> None:
        choice = self.random.random()
        if choice < 0.25 or not self.keys:
            self._insert(connection, self._new())
        elif choice < 0.33 and self.gone:
            self._insert(connection, self.gone.pop(self.random.randrange(len(self.gone))))
        elif choice < 0.45:
            key = self.keys.pop(self.random.randrange(len(self.keys)))
            self._do(connection, "DELETE FROM {s}.rides WHERE (user_id, id) = (%s, %s)", *key)
            self.gone.append(key)
        elif choice < 0.55:
            old = self.keys.pop(self.random.randrange(len(self.keys)))
            new = (100 + self.random.randrange(40), old[1])
            if new in self.keys or new in self.gone:
                self.keys.append(old)
                return
            self.version += 1
            self._do(
                connection,
                "UPDATE {s}.rides SET user_id = %s, row_version = %s WHERE (user_id, id) = (%s, %s)",
                new[0], self.version, *old,
            )  # fmt: skip
            self.keys.append(new)
            self.gone.append(old)
        else:
            names = self.random.sample([name for name in COLUMNS if name not in ("id", "user_id", "row_version")], 3)
            self.version += 1
            values, sets = self._values(), "".join(f"{name} = %s, " for name in names)
            self._do(
                connection,
                f"UPDATE {{s}}.rides SET {sets}row_version = %s WHERE (user_id, id) = (%s, %s)",
                *(values[name] for name in names), self.version, *self.random.choice(self.keys),
            )  # fmt: skip

    def _new(self) -> tuple[int, int]:
        self.ids += 1
        return self.random.randrange(40), BIG + self.ids

    def _insert(self, connection: MySQLdb.Connection, key: tuple[int, int]) -> None:
        self.version += 1
        values = {"user_id": key[0], "id": key[1], **self._values(), "row_version": self.version}
        places = ", ".join(["%s"] * len(values))
        self._do(connection, f"INSERT INTO {{s}}.rides ({', '.join(values)}) VALUES ({places})", *values.values())
        self.keys.append(key)

    def _values(self) -> dict[str, Any]:
        one = self.random
        return {
            "at": one.choice([None, f"2024-0{one.randint(1, 9)}-11 10:20:30.{one.randrange(10**6):06d}"]),
            "price": one.choice([None, Decimal(one.randrange(10**9)) / 100]),
            "distance": one.choice([None, 0.1, 1e20, -2.5e-7, one.random() * 1000]),
            "note": one.choice([None, "", "Köln 🚲", "x" * one.randrange(3000)]),
            "ticket": one.choice([None, b"", b"\x00\xff\x00", bytes(one.randrange(256) for _ in range(12))]),
            "extras": one.choice([None, "", "child seat", "child seat,roof box"]),
            "track": one.choice([None, json.dumps({"points": [[one.random(), 2], []], "ok": True, "by": None})]),
        }

    def _do(self, connection: MySQLdb.Connection, statement: str, *arguments: Any) -> None:
        with connection.cursor() as cursor:
            assert cursor.execute(statement.format(s=self.schema), arguments) == 1


# --- the judge --------------------------------------------------------------------------------------------------------


def rows_as_items(lab: Dms, schema: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What the target must hold, by key; from MySQL alone."""
    found = {}
    for row in lab.source.rows(
        f"SELECT *, CAST(at AS CHAR) AS at_text, CAST(track AS CHAR) AS json FROM {schema}.rides"
    ):
        item: dict[str, Any] = {name: {"N": plain(row[name])} for name in ("id", "user_id", "row_version")}
        item |= {name: {"N": plain(row[name])} for name in ("price", "distance") if row[name] is not None}
        if row["at"] is not None:
            item["at"] = {"S": row["at_text"].replace(" ", "T") + "Z"}
        if row["note"] is not None:
            item["note"] = {"S": row["note"]}
        if row["ticket"] is not None:
            item["ticket"] = {"B": row["ticket"]}
        if row["extras"]:
            item["extras"] = {"SS": sorted(row["extras"].split(","))}
        if row["json"] is not None:
            item["track"] = document(json.loads(row["json"], parse_float=Decimal))
        key = f"USER#{row['user_id']}", f"RIDE#{row['id']:0{WIDTH}d}"
        found[key] = {"pk": {"S": key[0]}, "sk": {"S": key[1]}, **item}
    return found


def plain(number: Any) -> str:
    """A number as DynamoDB gives it back, up to 38 digits: without exponent and without zeros at its end."""
    text = f"{Decimal(repr(number) if isinstance(number, float) else number):f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def document(value: Any) -> dict[str, Any]:
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | Decimal):
        return {"N": plain(value)}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, list):
        return {"L": [document(each) for each in value]}
    return {"M": {name: document(each) for name, each in value.items()}}


def canonical(value: Any) -> Any:
    """Numbers in one form, wherever they are."""
    if isinstance(value, dict):
        return {
            name: plain(Decimal(each)) if name == "N" and isinstance(each, str) else canonical(each)
            for name, each in value.items()
        }
    return [canonical(each) for each in value] if isinstance(value, list) else value


@dataclass
class Judge:
    """What is in the target, and how it came to that."""

    client: Any
    streams: Any
    lab: Dms
    writer: Writer

    def items(self) -> dict[tuple[str, str], dict[str, Any]]:
        pages = self.client.get_paginator("scan").paginate(TableName=TARGET, ConsistentRead=True)
        return {(item["pk"]["S"], item["sk"]["S"]): item for page in pages for item in page["Items"]}

    def differences(self) -> list[Any]:
        """Keys whose item is not what MySQL says; a tombstone is what a row leaves that is gone."""
        expected = rows_as_items(self.lab, self.writer.schema)
        items = self.items()
        found = {
            key: canonical({name: value for name, value in item.items() if name != "_v"})
            for key, item in items.items()
            if "_deleted" not in item
        }
        wrong = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
        return sorted(wrong)

    def settle(self) -> None:
        """Wait until both sides are equal."""
        end = time.monotonic() + GIVEN_UP_S
        while found := self.differences():
            assert time.monotonic() < end, f"{len(found)} keys differ:\n{self.explain()}"
            time.sleep(0.2)

    def explain(self) -> str:
        expected, items = rows_as_items(self.lab, self.writer.schema), self.items()
        return "\n".join(
            f"{key}\n  row  {expected.get(key)}\n  item {items.get(key)}" for key in self.differences()[:5]
        )

    def history(self) -> list[tuple[Any, Any]]:
        """Every change of the table: the item before and after it, from DynamoDB's own stream."""
        arn, found = self.client.describe_table(TableName=TARGET)["Table"]["LatestStreamArn"], []
        shards, asked = [], {"StreamArn": arn}
        while asked:
            page = self.streams.describe_stream(**asked)["StreamDescription"]
            shards += page["Shards"]
            last = page.get("LastEvaluatedShardId")
            asked = {"StreamArn": arn, "ExclusiveStartShardId": last} if last else {}
        for shard in shards:
            where = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = self.streams.get_shard_iterator(**where)["ShardIterator"]
            while iterator:
                answer = self.streams.get_records(ShardIterator=iterator, Limit=1000)
                found += [
                    (each["dynamodb"].get("OldImage"), each["dynamodb"].get("NewImage")) for each in answer["Records"]
                ]
                iterator = answer.get("NextShardIterator") if answer["Records"] else None
        return found


def rank(item: dict[str, Any]) -> tuple[Any, bool]:
    ((kind, text),) = item["_v"].items()
    return (Decimal(text) if kind == "N" else text), "_deleted" in item


# --- the way ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


class Mapping:
    """The event source mapping in a process of its own, which can be killed."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.job, self.log = folder / "job.json", folder / "mapping.log"
        self.job.write_text(json.dumps(told))
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "lab.lambda_runner", str(self.job)]
            self.process = subprocess.Popen(command, cwd=config.ROOT, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()


def make_target(key: str) -> Any:
    client = dynamodb.client(key)
    names = ("pk", "sk")
    client.create_table(
        TableName=TARGET, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": n, "KeyType": t} for n, t in zip(names, ("HASH", "RANGE"), strict=True)],
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )  # fmt: skip
    return client


def make_task(lab: Dms, schema: str) -> str:
    """A task as the function's README wants it."""
    kinesis = lab.client("kinesis")
    kinesis.create_stream(StreamName=f"{STREAM}-{schema}", ShardCount=3)
    arn = kinesis.describe_stream_summary(StreamName=f"{STREAM}-{schema}")["StreamDescriptionSummary"]["StreamARN"]
    endpoint = lab.make_endpoint("target", EngineName="kinesis", KinesisSettings={
        "StreamArn": arn, "MessageFormat": "json", "ServiceAccessRoleArn": ROLE, "IncludeTransactionDetails": True,
        "IncludeNullAndEmpty": True, "IncludeControlDetails": True, "IncludeTableAlterOperations": True,
        "UseLargeIntegerValue": True, "PartitionIncludeSchemaTable": True,
    })  # fmt: skip
    by_key = {
        "rule-type": "object-mapping", "rule-action": "map-record-to-record",
        "object-locator": {"schema-name": schema, "table-name": "%"},
        "mapping-parameters": {"partition-key-type": "primary-key"},
    }  # fmt: skip
    return lab.task(
        schema, endpoint, rules=[by_key],
        BeforeImageSettings={"EnableBeforeImage": True, "FieldName": "before-image", "ColumnFilter": "pk-only"},
        TargetMetadata={"LobMaxSize": LOB_KB},
    )  # fmt: skip


def stream_records(kinesis: Any, stream: str) -> dict[tuple[str, str], Any]:
    """Everything in a stream, by shard and number."""
    found: dict[tuple[str, str], Any] = {}
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        begin = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        iterator = begin["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=1000)
            found |= {(shard["ShardId"], each["SequenceNumber"]): each for each in answer["Records"]}
            iterator = answer.get("NextShardIterator") if answer["Records"] else None
    return found


@pytest.mark.parametrize("version", ["log", {"column": "row_version"}], ids=["by log", "by column"])
def test_the_target_equals_the_source_whatever_dies_on_the_way(lab: Dms, version: Any, tmp_path: Path) -> None:
    schema = lab.schema(TABLE)
    writer = Writer(lab, schema, seed=7)
    writer.fill()
    key = f"test{uuid.uuid4().hex}"
    judge = Judge(make_target(key), aws.client("dynamodbstreams", config.dynamodb_endpoint(), key=key), lab, writer)
    ((file, offset, *_),) = lab.source.sql("SHOW MASTER STATUS")
    task, stream, kinesis, sqs = make_task(lab, schema), f"{STREAM}-{schema}", lab.client("kinesis"), lab.client("sqs")
    queue = sqs.create_queue(QueueName=f"failures-{schema}")["QueueUrl"]
    table = {
        "target": TARGET, "key": {"pk": "USER#{user_id}", "sk": f"RIDE#{{id:{WIDTH}}}"}, "version": version,
        "columns": COLUMNS, "lobs": {"note": LOB_KB, "track": LOB_KB}, "load_position": f"{file}:{offset}",
    }  # fmt: skip
    environment = {
        "CDC_SETTINGS": json.dumps({"tables": {f"{schema}.rides": table}}), "AWS_ENDPOINT_URL": lab.endpoint,
        "AWS_ENDPOINT_URL_DYNAMODB": config.dynamodb_endpoint(), "AWS_ACCESS_KEY_ID": key,
    }  # fmt: skip
    archive = lambda_runner.package(FUNCTION, tmp_path / "cdc_apply.zip")
    source = {"stream": stream, "batch_size": 100, "bisect_on_error": True, "maximum_retry_attempts": 3}
    mapping = Mapping(tmp_path, {
        "endpoint": lab.endpoint, "archive": str(archive), "handler": HANDLER, "environment": environment, "timeout_s": 60,
        "source": source, "queue": queue, "state": str(tmp_path / "state.json"), "log": str(tmp_path / "function.log"),
    })  # fmt: skip
    try:
        writer.thread.start()
        lab.run(task)
        for number in (1, 2, 3):
            lab.until(lambda number=number: writer.failure or writer.done > WRITES * number // 5, GIVEN_UP_S)  # type: ignore[misc]
            mapping.kill()
            if number == 2:
                lab.until(lambda: lab.status(task) == "running", GIVEN_UP_S)
                os.kill(lab.pid(task), signal.SIGKILL)  # it writes again what followed its last checkpoint
            mapping.start()
        lab.until(lambda: lab.is_loaded(task), GIVEN_UP_S)
        old = [
            {name: each[name] for name in ("Data", "PartitionKey")} for each in stream_records(kinesis, stream).values()
        ]
        for begin in range(0, len(old), 400):
            kinesis.put_records(StreamName=stream, Records=old[begin : begin + 400])
        put = kinesis.put_record(StreamName=stream, Data=b'{"metadata": ', PartitionKey="poison")
        poison = put["ShardId"], put["SequenceNumber"]
        writer.thread.join(GIVEN_UP_S)
        assert writer.failure is None, writer.failure
        assert writer.done == WRITES
        judge.settle()
        large = min(writer.keys)
        note = "UPDATE {s}.rides SET note = REPEAT('y', %s), row_version = %s WHERE (user_id, id) = (%s, %s)"
        writer.execute(note, 500_000, writer.version + 1, *large)
        lost = failures(sqs, queue, 2)
        assert lost[poison]["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert {each["KinesisBatchInfo"]["batchSize"] for each in lost.values()} == {1}  # nothing else went with them
        bad = {where for where, each in stream_records(kinesis, stream).items() if b"y" * 100 in each["Data"]}
        assert {poison, *bad} == lost.keys()
        assert [key[1] for key in judge.differences()] == [f"RIDE#{large[1]:0{WIDTH}d}"]  # it keeps its older state
        writer.execute(note, 5, writer.version + 2, *large)
        judge.settle()
    finally:
        writer.ended.set()
        mapping.stop()
    lab.stop(task)
    before = judge.items()
    assert judge.differences() == [], judge.explain()
    assert len(before) > len(rows_as_items(lab, schema)) > 200  # there are tombstones too

    # A mapping that begins anew gives the function every batch that there ever was.
    function = Deployed(archive, HANDLER, environment, tmp_path / "again.log", 60)
    lost_again: list[Any] = []
    begin = EventSource(stream, 500, bisect_on_error=True, maximum_retry_attempts=0, on_failure=lost_again.append)
    try:
        with Runner(kinesis, function, begin) as runner:
            runner.drain(GIVEN_UP_S)
    finally:
        function.close()
    # The row that was too large is not even tried where a newer version of it is in the same batch.
    assert poison in {place(each) for each in lost_again} <= lost.keys()
    assert judge.items() == before
    history = judge.history()
    assert len(history) > WRITES / 2
    for old, new in history:
        assert new is not None, old  # nothing is ever taken away: what is gone is a tombstone
        assert old is None or rank(old) < rank(new), (old, new)


def place(message: dict[str, Any]) -> tuple[str, str]:
    """Shard and number of the first record that a message of the destination names."""
    return message["KinesisBatchInfo"]["shardId"], message["KinesisBatchInfo"]["startSequenceNumber"]


def failures(sqs: Any, queue: str, number: int) -> dict[tuple[str, str], Any]:
    """Messages of the destination by the first record that they name; waits for so many."""
    found: dict[tuple[str, str], Any] = {}
    end = time.monotonic() + GIVEN_UP_S
    while len(found) < number:
        assert time.monotonic() < end, found
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get(
            "Messages", ()
        ):
            body = json.loads(message["Body"])
            found[place(body)] = body
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found
