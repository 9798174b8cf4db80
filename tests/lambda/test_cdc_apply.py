"""The function that applies DMS's Kinesis records to DynamoDB."""

from __future__ import annotations

import cdc_kit
from cdc_kit import FakeDynamo, change


def test_a_row_becomes_an_item_and_its_end_a_tombstone() -> None:
    client, using = FakeDynamo(), cdc_kit.settings()
    row = {"id": 5, "city": "Köln", "price": 12.5}
    batch = cdc_kit.apply(client, [change("insert", 100, row)], using)
    version = {"S": "0000.0000000007.000000000100.0000000001"}
    assert client.item({"N": "5"}) == {
        "pk": {"N": "5"}, "id": {"N": "5"}, "city": {"S": "Köln"}, "price": {"N": "12.5"}, "_v": version,
    }  # fmt: skip
    assert batch.response == {"batchItemFailures": []}  # type: ignore[attr-defined]
    cdc_kit.apply(client, [change("delete", 200, row)], using)
    assert client.item({"N": "5"}) == {
        "pk": {"N": "5"}, "_v": {"S": "0000.0000000007.000000000200.0000000001"}, "_deleted": {"BOOL": True},
    }  # fmt: skip
