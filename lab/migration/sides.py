"""The store that is moved to: what the application writes, what the change stream applies to, what the oracle looks at."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from dbops.keyvalue.rules import Names
from dbops.keyvalue.stores import DynamoStore, Store
from dbops.keyvalue.views import View
from lab import dynamodb
from lab.migration import oracle, scene, stream
from lab.migration.scene import SUBJECTS, Subject
from lab.migration.stream import Consumer


class Side(Protocol):
    """A store."""

    name: str

    def make(self) -> None:
        """Make what is needed."""

    def remove(self) -> None:
        """Take it away again."""

    def template(self, subject: Subject) -> Mapping[str, str]:
        """Key attribute -> template."""

    def target(self, subject: Subject) -> dict[str, Any]:
        """As a spec declares it."""

    def store(self, subject: Subject, view: View) -> Store:
        """For applications."""

    def consumer(self) -> Consumer:
        """Of the change stream."""

    def items(self, subject: Subject) -> dict[str, oracle.Item]:
        """For the oracle: all items by key."""

    def history(self, subject: Subject) -> list[tuple[str, oracle.Item | None, oracle.Item | None]]:
        """For the oracle: every change."""


class DynamoSide:
    """Tables of DynamoDB Local in an account of their own."""

    name = "dynamodb"

    def __init__(self, schema: str, key: str = "") -> None:
        self.schema = schema
        self.key = key or f"move{uuid.uuid4().hex[:12]}"
        self.client = dynamodb.client(self.key)
        self.tables = {each.name: f"{schema}_{each.name}" for each in SUBJECTS}

    def make(self) -> None:
        for subject in SUBJECTS:
            kinds = list(zip(subject.template, ("HASH", "RANGE"), strict=False))
            self.client.create_table(
                TableName=self.tables[subject.name], BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in kinds],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in kinds],
                StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            )  # fmt: skip

    def remove(self) -> None:
        for table in self.tables.values():
            self.client.delete_table(TableName=table)

    def template(self, subject: Subject) -> Mapping[str, str]:
        return subject.template

    def target(self, subject: Subject) -> dict[str, Any]:
        return {"kind": "dynamodb", "table": self.tables[subject.name], "key": dict(subject.template)}

    def store(self, subject: Subject, view: View) -> Store:
        return DynamoStore(self.client, self.tables[subject.name], Names())

    def consumer(self) -> Consumer:
        return stream.cdc_apply(scene.cdc_settings(self.schema, self.tables), self.key)

    def items(self, subject: Subject) -> dict[str, oracle.Item]:
        return self._table(subject).items()

    def history(self, subject: Subject) -> list[tuple[str, oracle.Item | None, oracle.Item | None]]:
        return self._table(subject).history()

    def _table(self, subject: Subject) -> oracle.DynamoTable:
        return oracle.DynamoTable(self.tables[subject.name], subject.template, self.key)
