"""Rows into DynamoDB: one item for one row, with the types and the object mappings that DMS has."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lab.dms.source import Change, LostError, Transaction
from lab.dms.targets import Loaded, Mapped, Row, RowError, TableError

PLACE = re.compile(r"\$\{([^}]+)\}")
DIGITS = 38
CAPACITY = 200
TRY_LATER = {"ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError"}


class DynamoDBTarget:
    """The tables of one account and region."""

    batch = 1  # an item that is refused must not leave others of its batch behind

    def __init__(self, client: Any) -> None:
        self.client = client
        self.conditional = False

    def prepare(self, mapped: Mapped, mode: str) -> None:
        name, keys = _table(mapped), _keys(mapped)
        exists = self._call("describe_table", {"ResourceNotFoundException"}, TableName=name) is not None
        if exists and mode in {"DROP_AND_CREATE", "TRUNCATE_BEFORE_LOAD"}:
            self._call("delete_table", TableName=name)
            exists = False
        self.conditional = mode == "DO_NOTHING"
        if not exists:
            types = {key: "N" if _is_number(mapped, key) else "S" for key in keys}
            self._call(
                "create_table",
                TableName=name,
                KeySchema=[{"AttributeName": k, "KeyType": t} for k, t in zip(keys, ("HASH", "RANGE"), strict=False)],
                AttributeDefinitions=[{"AttributeName": k, "AttributeType": t} for k, t in types.items()],
                ProvisionedThroughput={"ReadCapacityUnits": CAPACITY, "WriteCapacityUnits": CAPACITY},
            )

    def load(self, mapped: Mapped, rows: list[Row]) -> Loaded:
        done = Loaded()
        condition = {
            "ConditionExpression": "attribute_not_exists(#k)",
            "ExpressionAttributeNames": {"#k": _keys(mapped)[0]},
        }
        for row in rows:
            extra = condition if self.conditional else {}
            item = _item(mapped, row)
            taken = self._call(
                "put_item", {"ConditionalCheckFailedException"}, TableName=_table(mapped), Item=item, **extra
            )
            done.rows += taken is not None
            done.condition_failed += taken is None
        return done

    def begin(self, transaction: Transaction) -> None:
        pass

    def apply(self, mapped: Mapped, change: Change, before: Row | None, after: Row | None, tolerant: bool) -> None:
        name, keys = _table(mapped), _keys(mapped)
        if after is None:
            assert before is not None
            item = _item(mapped, before)
            self._call("delete_item", TableName=name, Key={key: item[key] for key in keys})
            return
        item = _item(mapped, after)
        if before is None:
            self._call("put_item", TableName=name, Item=item)
            return
        old = _item(mapped, before)
        moved = any(old[key] != item[key] for key in keys)
        # A new primary key makes an item of what the statement changed, and leaves the old one: AWS documents that as a limitation.
        values = {k: v for k, v in item.items() if k not in keys and (not moved or old.get(k) != v)}
        gone = [k for k in old if k not in item and k not in keys]
        self._call("update_item", TableName=name, Key={key: item[key] for key in keys}, **_update(values, gone))

    def ddl(self, mapped: Mapped, kind: str, statement: str) -> None:
        """DMS ignores changes of tables here, but for a dropped one."""
        if kind == "drop":
            self._call("delete_table", {"ResourceNotFoundException"}, TableName=_table(mapped))

    def commit(self) -> None:
        pass

    def exception(self, mapped: Mapped, statement: str, error: str) -> None:
        name = "awsdms_apply_exceptions"
        if self._call("describe_table", {"ResourceNotFoundException"}, TableName=name) is None:
            self._call(
                "create_table",
                TableName=name,
                KeySchema=[
                    {"AttributeName": "TABLE_NAME", "KeyType": "HASH"},
                    {"AttributeName": "ERROR", "KeyType": "RANGE"},
                ],
                AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("TABLE_NAME", "ERROR")],
                ProvisionedThroughput={"ReadCapacityUnits": CAPACITY, "WriteCapacityUnits": CAPACITY},
            )
        item = {"TABLE_NAME": {"S": mapped.names.table}, "ERROR": {"S": error}, "STATEMENT": {"S": statement or " "}}
        self._call("put_item", TableName=name, Item=item)

    def _call(self, operation: str, expected: set[str] = frozenset(), **arguments: Any) -> Any:  # type: ignore[assignment]
        try:
            return getattr(self.client, operation)(**arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in expected:
                return None
            if code in TRY_LATER:
                raise LostError(str(error)) from error
            raise RowError(str(error), statement=operation) from error
        except BotoCoreError as error:
            raise LostError(str(error)) from error


def _table(mapped: Mapped) -> str:
    return str((mapped.rule or {}).get("target-table-name") or mapped.names.table)


def _parameters(mapped: Mapped) -> dict[str, Any]:
    return (mapped.rule or {}).get("mapping-parameters", {})


def _keys(mapped: Mapped) -> list[str]:
    """Names of the partition key and, when there is one, of the sort key."""
    given = _parameters(mapped)
    if "partition-key-name" in given:
        return [given[name] for name in ("partition-key-name", "sort-key-name") if name in given]
    if len(mapped.key) != 1:
        raise TableError(
            f"Table {mapped.table.full_name} has a primary key of {len(mapped.key)} columns: DynamoDB needs an object mapping"
        )
    return mapped.key


def _is_number(mapped: Mapped, key: str) -> bool:
    for each in _parameters(mapped).get("attribute-mappings", ()):
        if each["target-attribute-name"] == key:
            return bool(each.get("attribute-sub-type") == "number")
    names = {target: source for source, target in mapped.names.columns.items()}
    kinds = {column.name: column.data_type for column in mapped.table.columns}
    return kinds.get(names.get(key, key), "").rstrip("t").endswith(("in", "decimal", "double", "float", "year", "bi"))


def _item(mapped: Mapped, row: Row) -> dict[str, Any]:
    given = _parameters(mapped)
    left = {name: value for name, value in row.items() if name not in given.get("exclude-columns", ())}
    made: dict[str, Any] = {}
    for each in given.get("attribute-mappings", ()):
        value = _attribute(each, row)
        if value is not None:
            made[each["target-attribute-name"]] = value
        for used in PLACE.findall(each["value"]) if isinstance(each["value"], str) else ():
            if each["value"] == f"${{{used}}}" and each["target-attribute-name"] == used:
                left.pop(used, None)
    rest = {name: _typed(value) for name, value in left.items() if value is not None and not isinstance(value, bytes)}
    if (mapped.rule or {}).get("rule-action") == "map-record-to-document":
        keys = set(_keys(mapped))
        made.update({name: value for name, value in rest.items() if name in keys and name not in made})
        made["_doc"] = {"M": {name: value for name, value in rest.items() if name not in keys}}
    else:
        made = {**rest, **made}
    if missing := [key for key in _keys(mapped) if key not in made]:
        raise RowError(f"The key attribute {missing[0]} has no value", statement="put_item")
    return made


def _attribute(given: dict[str, Any], row: Row) -> dict[str, Any] | None:
    value = given["value"]
    if isinstance(value, dict):  # a document in DynamoDB's own JSON, with places
        return _document(value, row)
    whole = PLACE.fullmatch(value)
    if whole and row.get(whole[1]) is None:
        return None
    text = PLACE.sub(lambda found: _text(row.get(found[1])), value)
    return {"N": text} if given.get("attribute-sub-type") == "number" else {"S": text}


def _document(value: Any, row: Row) -> Any:
    if isinstance(value, dict):
        return {name: _document(each, row) for name, each in value.items()}
    if isinstance(value, list):
        return [_document(each, row) for each in value]
    return PLACE.sub(lambda found: _text(row.get(found[1])), value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if len(number.as_tuple().digits) > DIGITS:
        raise RowError(f"Number overflow. Attempting to store a number with more than {DIGITS} significant digits")
    return {"N": str(number)}


def _update(values: dict[str, Any], gone: list[str]) -> dict[str, Any]:
    names = {f"#{i}": name for i, name in enumerate([*values, *gone])}
    if not names:
        return {}
    sets = [f"#{i} = :{i}" for i in range(len(values))]
    parts = [f"SET {', '.join(sets)}"] if sets else []
    if gone:
        parts.append(f"REMOVE {', '.join(f'#{i + len(values)}' for i in range(len(gone)))}")
    made: dict[str, Any] = {"UpdateExpression": " ".join(parts), "ExpressionAttributeNames": names}
    if values:
        made["ExpressionAttributeValues"] = {f":{i}": value for i, value in enumerate(values.values())}
    return made
