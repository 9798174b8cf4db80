from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from conftest import REGION

from dbops.dms import canary, states
from dbops.dms.canary import CanaryError, Seen
from tests.dms import dms_kit

NOW = datetime.now(UTC)
SINCE = NOW - timedelta(seconds=5)
WRITTEN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CANARY = {"schema_name": "shop", "table": "canary"}
RENAME = {
    "rule-type": "transformation", "rule-id": "7", "rule-name": "7", "rule-target": "column", "rule-action": "rename",
    "object-locator": {"schema-name": "shop", "table-name": "canary", "column-name": "token"}, "value": "mark",
}  # fmt: skip
SCHEMA = {
    "rule-type": "transformation", "rule-id": "8", "rule-name": "8", "rule-target": "schema", "rule-action": "add-suffix",
    "object-locator": {"schema-name": "shop"}, "value": "_new",
}  # fmt: skip


def mapped(**more: Any) -> dict[str, Any]:
    return {
        "rule-type": "object-mapping", "rule-id": "9", "rule-name": "9", "rule-action": "map-record-to-record",
        "object-locator": {"schema-name": "shop", "table-name": "canary"}, **more,
    }  # fmt: skip


def spec(target: dict[str, Any], *rules: dict[str, Any], **own: Any) -> Any:
    return dms_kit.spec(target=target, mappings=[dms_kit.SELECT_ALL, *rules], canary={**CANARY, **own})


@pytest.fixture
def client(aws: str) -> Any:
    def make(service: str) -> Any:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        return boto3.client(service, region_name=REGION, endpoint_url=aws, **keys)

    return make


def reader(of: Any, client: Any, **more: Any) -> canary.Reader:
    return canary.reader(of, **{"since": SINCE, "now": lambda: NOW, "connect": None, "client": client, **more})  # type: ignore[arg-type]


class Rows:
    """A connection whose cursor remembers what it was asked and answers one row."""

    def __init__(self, row: Any = None, error: Exception | None = None) -> None:
        self.row, self.error, self.asked, self.open = row, error, list[Any](), True

    def cursor(self) -> Rows:
        return self

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, args: Any = None) -> None:
        self.asked.append((statement, args))
        if self.error:
            raise self.error

    def fetchone(self) -> Any:
        return self.row

    def commit(self) -> None:
        self.asked.append("commit")

    def close(self) -> None:
        self.open = False


def test_a_write_is_an_upsert_that_is_committed() -> None:
    connection = Rows()
    canary.write(connection, spec(dms_kit.MYSQL_TARGET), "one", WRITTEN)
    (statement, args), commit = connection.asked
    assert "INSERT INTO `shop`.`canary`" in statement
    assert "ON DUPLICATE KEY UPDATE" in statement
    assert args == {"token": "one", "written_at": datetime(2026, 3, 1, 12, 0, 0, 123456)}
    assert commit == "commit"


@pytest.mark.parametrize("token", ["", "x" * 65, "é"])
def test_a_token_that_the_table_would_not_hold(token: str) -> None:
    with pytest.raises(CanaryError, match="1 to 64 characters"):
        canary.write(Rows(), spec(dms_kit.MYSQL_TARGET), token, WRITTEN)


def test_a_spec_without_a_canary() -> None:
    with pytest.raises(CanaryError, match="declares none"):
        canary.write(Rows(), dms_kit.spec(), "one", WRITTEN)


def test_the_statement_for_the_dba_names_the_table() -> None:
    assert "CREATE TABLE IF NOT EXISTS `shop`.`canary`" in canary.ddl(spec(dms_kit.MYSQL_TARGET))


def mysql(*rules: dict[str, Any], **own: Any) -> Any:
    document = dms_kit.document(
        target=dms_kit.MYSQL_TARGET, mappings=[dms_kit.SELECT_ALL, *rules], canary={**CANARY, **own}
    )
    return dms_kit.DmsSpec.model_validate({**document, "target_connection": "green"})


def test_mysql_by_the_names_of_the_target() -> None:
    opened: list[str] = []
    rows = Rows(("one", WRITTEN.replace(tzinfo=None)))
    found = reader(mysql(RENAME, SCHEMA), None, connect=lambda name: opened.append(name) or rows)
    assert found.seen("one") == Seen("one", WRITTEN, NOW)
    assert found.seen("two") is None
    assert opened == ["green", "green"]
    assert not rows.open
    assert "`mark` AS token" in rows.asked[0][0]
    assert "FROM `shop_new`.`canary`" in rows.asked[0][0]


@pytest.mark.parametrize(("target", "table"), [("beacon", "`shop`.`beacon`"), ("ops.beacon", "`ops`.`beacon`")])
def test_mysql_in_a_table_of_another_name(target: str, table: str) -> None:
    rows = Rows()
    assert reader(mysql(target=target), None, connect=lambda _: rows).seen("one") is None
    assert f"FROM {table}" in rows.asked[0][0]


def test_a_table_that_is_not_there_yet_is_no_error() -> None:
    import MySQLdb

    missing = Rows(error=MySQLdb.ProgrammingError(1146, "no such table"))
    assert reader(mysql(), None, connect=lambda _: missing).seen("one") is None
    denied = Rows(error=MySQLdb.OperationalError(1142, "denied"))
    with pytest.raises(MySQLdb.OperationalError):
        reader(mysql(), None, connect=lambda _: denied).seen("one")
    assert not denied.open


def test_mysql_without_a_connection() -> None:
    with pytest.raises(CanaryError, match="target_connection"):
        reader(spec(dms_kit.MYSQL_TARGET), None)


def test_a_column_that_the_mappings_remove() -> None:
    gone = {**RENAME, "rule-action": "remove-column"}
    with pytest.raises(CanaryError, match=r"column token of shop\.canary"):
        reader(spec(dms_kit.DYNAMODB, gone), lambda _: None)


def make_table(dynamodb: Any, name: str, **keys: str) -> None:
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
    )  # fmt: skip


def test_dynamodb_by_the_default_mapping(client: Any) -> None:
    dynamodb = client("dynamodb")
    found = reader(spec(dms_kit.DYNAMODB), client)
    assert found.seen("one") is None  # no table yet
    make_table(dynamodb, "canary", id="N")
    assert found.seen("one") is None
    item = {"id": {"N": "1"}, "token": {"S": "one"}, "written_at": {"S": "2026-03-01 12:00:00.123456"}}
    dynamodb.put_item(TableName="canary", Item=item)
    assert found.seen("one") == Seen("one", WRITTEN, NOW)
    assert found.seen("two") is None


def test_dynamodb_by_the_templates_of_an_object_mapping(client: Any) -> None:
    dynamodb = client("dynamodb")
    rule = mapped(**{
        "target-table-name": "beacons", "rule-action": "map-record-to-document",
        "mapping-parameters": {
            "partition-key-name": "pk", "sort-key-name": "n",
            "attribute-mappings": [
                {"target-attribute-name": "pk", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "CANARY#${id}"},
                {"target-attribute-name": "n", "attribute-type": "scalar", "attribute-sub-type": "number", "value": "${id}"},
            ],
        },
    })  # fmt: skip
    make_table(dynamodb, "beacons", pk="S", n="N")
    document = {"M": {"token": {"S": "one"}, "written_at": {"S": "2026-03-01T12:00:00.123456Z"}}}
    dynamodb.put_item(TableName="beacons", Item={"pk": {"S": "CANARY#1"}, "n": {"N": "1"}, "_doc": document})
    assert reader(spec(dms_kit.DYNAMODB, rule), client).seen("one") == Seen("one", WRITTEN, NOW)


def test_a_key_that_is_not_known_before_the_look(client: Any) -> None:
    attribute = {"target-attribute-name": "pk", "attribute-type": "scalar", "attribute-sub-type": "string"}
    by_time = {"partition-key-name": "pk", "attribute-mappings": [{**attribute, "value": "${written_at}"}]}
    with pytest.raises(CanaryError, match="made of written_at"):
        reader(spec(dms_kit.DYNAMODB, mapped(**{"mapping-parameters": by_time})), client).seen("one")
    with pytest.raises(CanaryError, match="key attribute other no value"):
        reader(spec(dms_kit.DYNAMODB, mapped(**{"mapping-parameters": {"partition-key-name": "other"}})), client).seen(
            "one"
        )


def record(token: str, table: str = "canary", **more: Any) -> bytes:
    data = {"id": 1, "token": token, "written_at": "2026-03-01T12:00:00.123456Z"}
    metadata = {"record-type": "data", "operation": "update", "schema-name": "shop", "table-name": table}
    return json.dumps({"data": data, "metadata": metadata, **more}).encode() + b"\n"


def test_kinesis_reads_every_shard_and_goes_on_from_look_to_look(client: Any) -> None:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="shop", ShardCount=3)
    found = reader(spec(dms_kit.KINESIS), client)
    assert isinstance(found, canary.KinesisReader)

    def put(data: bytes, shard: int) -> None:
        hash_key = kinesis.list_shards(StreamName="shop")["Shards"][shard]["HashKeyRange"]["StartingHashKey"]
        kinesis.put_record(StreamName="shop", Data=data, PartitionKey="p", ExplicitHashKey=hash_key)

    put(b'{"control": {}, "metadata": {"record-type": "control"}}', 0)
    put(b"\xff no JSON", 1)
    put(record("one", table="other"), 1)
    assert found.seen("one") is None
    put(record("one"), 2)
    assert found.seen("one") == Seen("one", WRITTEN, NOW)
    assert found.records == 4
    put(record("two"), 0)
    assert found.seen("two") == Seen("two", WRITTEN, NOW)
    assert found.records == 5  # nothing was read twice
    assert found.seen("one") is not None


def test_kinesis_begins_just_before_the_write(client: Any) -> None:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="shop", ShardCount=1)
    kinesis.put_record(StreamName="shop", Data=record("one"), PartitionKey="p")
    later = reader(spec(dms_kit.KINESIS), client, since=datetime.now(UTC) + timedelta(seconds=90))
    assert later.seen("one") is None
    assert reader(spec(dms_kit.KINESIS), client).seen("one") is not None


class Stream:
    """A stream of one shard whose iterators expire once and whose reads are throttled once."""

    def __init__(self) -> None:
        self.iterators: list[dict[str, Any]] = []
        self.script: list[Any] = ["ok", "ProvisionedThroughputExceededException", "ExpiredIteratorException", "ok"]

    def list_shards(self, **_: Any) -> dict[str, Any]:
        return {"Shards": [{"ShardId": "s1"}]}

    def get_shard_iterator(self, **arguments: Any) -> dict[str, Any]:
        self.iterators.append(arguments)
        return {"ShardIterator": str(len(self.iterators))}

    def get_records(self, **_: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        step = self.script.pop(0) if self.script else "ok"
        if step != "ok":
            raise ClientError({"Error": {"Code": step}}, "GetRecords")
        records = [{"SequenceNumber": "42", "Data": record("one")}] if len(self.iterators) == 1 else []
        return {"Records": records, "NextShardIterator": "next", "MillisBehindLatest": 0}


def test_kinesis_survives_a_throttled_read_and_an_iterator_that_expired() -> None:
    stream = Stream()
    found = reader(spec(dms_kit.KINESIS), lambda _: stream)
    assert found.seen("two") is None  # throttled behind the first record
    assert found.seen("two") is None
    assert found.seen("one") is not None
    assert stream.iterators[0]["ShardIteratorType"] == "AT_TIMESTAMP"
    assert stream.iterators[1]["StartingSequenceNumber"] == "42"


def test_an_existing_endpoint_is_known_by_what_aws_shows(client: Any) -> None:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="shop", ShardCount=1)
    existing = spec({"kind": "existing", "arn": dms_kit.TARGET_ARN, "engine": "kinesis"})
    with pytest.raises(CanaryError, match="pass it as DescribeEndpoints shows it"):
        reader(existing, client)
    shown = states.Endpoint("e", dms_kit.TARGET_ARN, "target", "kinesis", settings=(("StreamArn", dms_kit.STREAM),))
    assert reader(existing, client, endpoint=shown).seen("one") is None
    bare = states.Endpoint("e", dms_kit.TARGET_ARN, "target", "kinesis")
    with pytest.raises(CanaryError, match="no StreamArn"):
        reader(existing, client, endpoint=bare)


LINES = 'U,1,zero,2026-03-01 11:00:00.000000\nU,1,"one",2026-03-01 12:00:00.123456\n'


@pytest.mark.parametrize(
    ("settings", "key", "body"),
    [
        ({}, "cdc/shop/canary/{stamp}.csv", LINES.encode()),
        ({"CompressionType": "gzip"}, "cdc/shop/canary/{stamp}.csv.gz", gzip.compress(LINES.encode(), mtime=0)),
        ({"CsvDelimiter": "|"}, "cdc/shop/canary/{stamp}.csv", LINES.replace(",", "|").encode()),
        ({"AddColumnName": True}, "cdc/shop/canary/{stamp}.csv", b"Op,id,token,written_at\n" + LINES.encode()),
        ({"TimestampColumnName": "ts"}, "cdc/shop/canary/{stamp}.csv", LINES.replace("U,", "U,now,").encode()),
        ({"CdcInsertsOnly": True}, "cdc/shop/canary/{stamp}.csv", LINES.replace("U,", "").encode()),
        ({"DatePartitionEnabled": True}, "cdc/shop/canary/2026/03/01/{stamp}.csv", LINES.encode()),
        ({"DataFormat": "parquet"}, "cdc/shop/canary/{stamp}.parquet", None),
    ],
)  # fmt: skip
def test_s3_in_each_layout(client: Any, settings: dict[str, Any], key: str, body: bytes | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if body is None:
        rows = {"Op": ["U"], "id": [1], "token": ["one"], "written_at": [WRITTEN.replace(tzinfo=None)]}
        buffer = io.BytesIO()
        pq.write_table(pa.table(rows), buffer)
        body = buffer.getvalue()
    s3 = client("s3")
    s3.create_bucket(Bucket="shop-lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    found = reader(spec({**dms_kit.S3, "settings": settings}), client)
    assert found.seen("one") is None
    s3.put_object(Bucket="shop-lake", Key="cdc/shop/canary/LOAD00000001.csv", Body=b"")
    s3.put_object(Bucket="shop-lake", Key=key.format(stamp=f"{NOW:%Y%m%d-%H%M%S}000"), Body=body)
    s3.put_object(Bucket="shop-lake", Key="cdc/shop/canary2/x.csv", Body=b"U,1,two,x\n")
    assert found.seen("one") == Seen("one", WRITTEN, NOW)
    assert found.seen("two") is None


def test_s3_leaves_files_alone_that_are_older_than_the_write_or_were_read(client: Any) -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="shop-lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="shop-lake", Key=f"cdc/shop/canary/{NOW:%Y%m%d}-1.csv", Body=LINES.encode())
    later = reader(spec(dms_kit.S3), client, since=datetime.now(UTC) + timedelta(seconds=90))
    assert later.seen("one") is None
    found = reader(spec(dms_kit.S3), client)
    assert found.seen("one") is not None
    s3.delete_object(Bucket="shop-lake", Key=f"cdc/shop/canary/{NOW:%Y%m%d}-1.csv")
    assert found.seen("one") is not None


@pytest.mark.parametrize(("text", "wanted"), [
    ("2026-03-01 12:00:00.123456", WRITTEN), ("2026-03-01T12:00:00.123456Z", WRITTEN), (b"2026-03-01 12:00:00.123456", WRITTEN),
    (WRITTEN, WRITTEN), (WRITTEN.replace(tzinfo=None), WRITTEN),
    ("2026-03-01T13:00:00.123456+01:00", WRITTEN), ("", None), (None, None), ("x", None),
])  # fmt: skip
def test_times_as_each_target_writes_them(text: Any, wanted: datetime | None) -> None:
    assert canary.moment(text) == wanted
