"""What the simulated DMS writes to DynamoDB, Kinesis and S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.dms_kit import ROLE, Dms

pytestmark = pytest.mark.lab
BIG = 18446744073709551615


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


@pytest.fixture
def orders(lab: Dms) -> str:
    schema = lab.schema(
        "CREATE TABLE {s}.orders (id BIGINT UNSIGNED PRIMARY KEY, at DATETIME(3), note TEXT, amount DECIMAL(10,2), raw VARBINARY(9))"
    )
    lab.write(
        f"INSERT INTO {schema}.orders VALUES (1, '2024-05-06 07:08:09.123', 'first', 1.50, x'00ff'), ({BIG}, NULL, '', 2, NULL)"
    )
    return schema


def stream(lab: Dms, name: str, **settings: Any) -> str:
    kinesis = lab.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=2)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    given = {"StreamArn": arn, "MessageFormat": "json", "ServiceAccessRoleArn": ROLE, **settings}
    return lab.make_endpoint("target", EngineName="kinesis", KinesisSettings=given)


def records(lab: Dms, name: str) -> list[Any]:
    """Everything in a stream: (partition key, text)."""
    kinesis, found = lab.client("kinesis"), []
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        begin = kinesis.get_shard_iterator(StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
        found += kinesis.get_records(ShardIterator=begin["ShardIterator"])["Records"]
    return [
        (each["PartitionKey"], each["Data"].decode()) for each in sorted(found, key=lambda each: each["SequenceNumber"])
    ]


def data(lab: Dms, name: str) -> list[Any]:
    made = [(key, json.loads(text)) for key, text in records(lab, name)]
    return [(key, record) for key, record in made if record["metadata"]["record-type"] == "data"]


def test_items_follow_their_rows(lab: Dms, orders: str) -> None:
    dynamodb = lab.client("dynamodb")
    target = lab.make_endpoint("target", EngineName="dynamodb", DynamoDbSettings={"ServiceAccessRoleArn": ROLE})
    task = lab.task(orders, target)
    lab.run(task)
    lab.replicating(task)

    def items() -> dict[str, Any]:
        """By id. DynamoDB Local keeps the zeros at the end of a number in UpdateItem, which DynamoDB never does."""
        return {
            item["id"]["N"]: {
                **item,
                **({"amount": {"N": f"{float(item['amount']['N']):g}"}} if "amount" in item else {}),
            }
            for item in dynamodb.scan(TableName="orders")["Items"]
        }

    assert items()["1"] == {
        "id": {"N": "1"},
        "at": {"S": "2024-05-06 07:08:09.123"},
        "note": {"S": "first"},
        "amount": {"N": "1.5"},
    }  # no binary
    assert items()[str(BIG)] == {"id": {"N": str(BIG)}, "note": {"S": ""}, "amount": {"N": "2"}}  # no NULL
    lab.write(
        f"INSERT INTO {orders}.orders VALUES (2, NULL, 'second', NULL, NULL), (3, NULL, 'third', NULL, NULL)",
        f"UPDATE {orders}.orders SET note = NULL, amount = 7 WHERE id = 1",
        f"DELETE FROM {orders}.orders WHERE id = 2",
        f"UPDATE {orders}.orders SET id = 4, amount = 8 WHERE id = 3",
    )
    lab.until(lambda: lab.tables(task)["orders"]["AppliedUpdates"] == 2)
    assert items()["1"] == {"id": {"N": "1"}, "at": {"S": "2024-05-06 07:08:09.123"}, "amount": {"N": "7"}}
    assert "2" not in items()
    # A changed primary key makes a new and incomplete item, and leaves the old one.
    assert items()["4"] == {"id": {"N": "4"}, "amount": {"N": "8"}}
    assert items()["3"]["note"] == {"S": "third"}
    lab.stop(task)


def test_a_row_that_is_no_item_is_an_error_of_its_table_and_the_others_arrive(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.notes (id VARCHAR(9) PRIMARY KEY, note MEDIUMTEXT, huge DECIMAL(65,0))")
    lab.write(
        f"INSERT INTO {schema}.notes VALUES ('', 'empty key', 1), ('large', REPEAT('x', 500000), 1), ('fits', REPEAT('x', 400000), 1)",
        f"INSERT INTO {schema}.notes VALUES ('digits', 'x', 123456789012345678901234567890123456789)",
    )
    target = lab.make_endpoint("target", EngineName="dynamodb", DynamoDbSettings={"ServiceAccessRoleArn": ROLE})
    task = lab.task(schema, target, "full-load", TargetMetadata={"LobMaxSize": 1000})
    lab.run(task)
    assert lab.ended(task)["StopReason"] == "Stop Reason FULL_LOAD_ONLY_FINISHED"
    assert (lab.table(task)["FullLoadRows"], lab.table(task)["FullLoadErrorRows"]) == (1, 3)
    store = lab.client("dynamodb")
    assert [item["id"]["S"] for item in store.scan(TableName="notes")["Items"]] == ["fits"]
    errors = " ".join(item["ERROR"]["S"] for item in store.scan(TableName="awsdms_apply_exceptions")["Items"])
    assert "Item size has exceeded the maximum allowed size" in errors
    assert "empty string value" in errors
    assert "38 significant digits" in errors


def test_items_that_are_there_are_kept_and_counted(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.visits (tenant INT, id INT, note VARCHAR(20), PRIMARY KEY (tenant, id))")
    lab.write(f"INSERT INTO {schema}.visits VALUES (1, 1, 'old'), (1, 2, 'new')")
    target = lab.make_endpoint("target", EngineName="dynamodb", DynamoDbSettings={"ServiceAccessRoleArn": ROLE})
    composite = lab.task(schema, target, "full-load")
    lab.run(composite)
    assert lab.ended(composite)["StopReason"] == "Stop Reason FULL_LOAD_ONLY_FINISHED"
    assert lab.table(composite)["TableState"] == "Table error"  # a primary key of two columns needs an object mapping
    attributes = [
        {
            "target-attribute-name": "pk",
            "attribute-type": "scalar",
            "attribute-sub-type": "string",
            "value": "T#${tenant}",
        }
    ]
    rule = {
        "rule-type": "object-mapping",
        "rule-action": "map-record-to-record",
        "object-locator": {"schema-name": schema, "table-name": "visits"},
        "target-table-name": "visits",
        "mapping-parameters": {
            "partition-key-name": "pk",
            "sort-key-name": "id",
            "exclude-columns": ["tenant"],
            "attribute-mappings": attributes,
        },
    }
    task = lab.task(schema, target, "full-load", rules=[rule])
    dynamodb = lab.client("dynamodb")
    lab.run(task)
    lab.ended(task)
    dynamodb.delete_item(TableName="visits", Key={"pk": {"S": "T#1"}, "id": {"N": "2"}})
    dynamodb.put_item(TableName="visits", Item={"pk": {"S": "T#1"}, "id": {"N": "1"}, "note": {"S": "live"}})
    lab.run(task, "reload-target")
    lab.ended(task)
    table = lab.table(task)
    assert (table["FullLoadRows"], table["FullLoadCondtnlChkFailedRows"]) == (1, 1)
    notes = {item["id"]["N"]: item["note"]["S"] for item in dynamodb.scan(TableName="visits")["Items"]}
    assert notes == {"1": "live", "2": "new"}


def test_records_say_what_happened_where_in_the_log(lab: Dms, orders: str) -> None:
    rule = {
        "rule-type": "object-mapping",
        "rule-action": "map-record-to-record",
        "object-locator": {"schema-name": orders, "table-name": "orders"},
        "mapping-parameters": {"partition-key-type": "primary-key"},
    }
    target = stream(
        lab,
        "details",
        IncludeTransactionDetails=True,
        IncludeNullAndEmpty=True,
        IncludeControlDetails=True,
        IncludePartitionValue=True,
        PartitionIncludeSchemaTable=True,
    )
    task = lab.task(orders, target, rules=[rule])
    lab.run(task)
    lab.replicating(task)
    lab.write(f"UPDATE {orders}.orders SET amount = 3 WHERE id = 1", f"DELETE FROM {orders}.orders WHERE id = {BIG}")
    lab.until(lambda: len(data(lab, "details")) == 4)
    (control,) = (json.loads(text) for _, text in records(lab, "details") if '"control"' in text)
    assert control["metadata"]["operation"] == "create-table"
    assert control["control"]["table-def"]["primary-key"] == ["id"]
    by_operation = {record["metadata"]["operation"]: (key, record) for key, record in data(lab, "details")}
    key, update = by_operation["update"]
    assert key == f"{orders}.orders.1"
    assert update["data"] == {
        "id": 1,
        "at": "2024-05-06T07:08:09.123Z",
        "note": "first",
        "amount": 3.0,
        "raw": "0x00ff",
    }
    deleted = by_operation["delete"][1]
    assert deleted["data"]["at"] is None
    assert deleted["metadata"]["transaction-id"] == update["metadata"]["transaction-id"]
    assert deleted["metadata"]["prev-transaction-record-id"] == update["metadata"]["transaction-record-id"] == 1
    places = [record["metadata"]["stream-position"].split(":") for record in (update, deleted)]
    assert places[0][0] == places[1][0]
    assert int(places[0][1]) < int(places[1][1])
    assert "transaction-id" not in by_operation["load"][1]["metadata"]
    lab.stop(task)


def test_a_long_number_is_rounded_unless_the_endpoint_says_otherwise(lab: Dms, orders: str) -> None:
    for name, settings, text in (
        ("short", {}, '"id": 1.844674407370955E19'),
        ("long", {"UseLargeIntegerValue": True}, f'"id": {BIG}'),
    ):
        task = lab.task(orders, stream(lab, name, **settings), "full-load")
        lab.run(task)
        lab.ended(task)
        keys, texts = zip(*records(lab, name), strict=True)
        assert set(keys) == {f"{orders}.orders"}  # one shard for a whole table
        assert any(text in each for each in texts), texts
        assert all("null" not in each for each in texts)


def test_files_hold_the_load_and_then_the_changes(lab: Dms, orders: str) -> None:
    s3 = lab.client("s3")
    s3.create_bucket(Bucket="files", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    given = {"BucketName": "files", "BucketFolder": "dms", "ServiceAccessRoleArn": ROLE}
    task = lab.task(orders, lab.make_endpoint("target", EngineName="s3", S3Settings=given))
    lab.run(task)
    lab.replicating(task)
    lab.write(f"DELETE FROM {orders}.orders WHERE id = 1")

    def texts() -> list[str]:
        keys = [
            each["Key"]
            for each in s3.list_objects_v2(Bucket="files", Prefix=f"dms/{orders}/orders/").get("Contents", ())
        ]
        return [s3.get_object(Bucket="files", Key=key)["Body"].read().decode() for key in sorted(keys, reverse=True)]

    lab.until(lambda: len(texts()) == 2)
    load, changes = texts()
    assert load == f"1,2024-05-06 07:08:09.123,first,1.50,00ff\n{BIG},,,2.00,\n"
    assert changes == "D,1,2024-05-06 07:08:09.123,first,1.50,00ff\n"
    lab.stop(task)
