"""Writes to DynamoDB under the rule of the versions, and says what each came to."""

from __future__ import annotations

from typing import Any, Literal

from botocore.exceptions import ClientError

from cdc_apply.changes import Write
from cdc_apply.settings import Settings
from cdc_apply.values import Item, RejectError

Outcome = Literal["written", "same", "older", "foreign"]
DAY_S = 86_400
_TOO_LARGE = "item size"


def put(client: Any, write: Write, settings: Settings, now_s: float) -> Outcome:
    """Put the item, or its tombstone, unless what is there is as new.

    Returns:
        ``written``; ``same`` when this version was there; ``older`` when a newer one was; ``foreign`` when the item that is there has no
        version or one of another kind, and so stays

    Raises:
        RejectError: DynamoDB takes no such item
        ClientError: it could not be written this time
    """
    try:
        client.put_item(**request(write, settings, now_s))
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code == "ValidationException" and _TOO_LARGE in message.lower():
            raise RejectError("the item is larger than DynamoDB's limit of 400 KB") from error
        if code != "ConditionalCheckFailedException":
            raise
        return _classified(error.response.get("Item"), write, settings)
    return "written"


def request(write: Write, settings: Settings, now_s: float) -> dict[str, Any]:
    """The PutItem: the only condition that the function knows."""
    ((kind, _),) = write.version.items()
    item: Item = {**write.key, settings.version: write.version}
    names = {"#key": next(iter(write.key)), "#version": settings.version}
    is_newer = "#version < :version"
    if write.attributes is None:
        item[settings.deleted] = {"BOOL": True}
        if days := write.table.tombstone_days:
            item[settings.expires] = {"N": str(int(now_s) + days * DAY_S)}
        names["#deleted"] = settings.deleted
        # A row and its end may have one version when the version is a column of the row.
        is_newer = f"({is_newer} OR (#version = :version AND attribute_not_exists(#deleted)))"
    else:
        item |= write.attributes
    return {
        "TableName": write.table.target,
        "Item": item,
        "ConditionExpression": f"attribute_not_exists(#key) OR (attribute_type(#version, :kind) AND {is_newer})",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": {":version": write.version, ":kind": {"S": kind}},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _classified(there: Item | None, write: Write, settings: Settings) -> Outcome:
    version = (there or {}).get(settings.version)
    if version is None or version.keys() != write.version.keys():
        return "foreign"
    return "same" if version == write.version else "older"
