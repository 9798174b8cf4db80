"""The store that is moved to: what the application writes, what the change stream applies to, what the oracle looks at."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Protocol

from dbops.keyvalue.rules import Names
from dbops.keyvalue.stores import DynamoStore, RedisStore, Store
from dbops.keyvalue.views import View
from dbops.mysql import read_table
from lab import config, dynamodb, mysql
from lab.config import HOST
from lab.migration import oracle, replica, scene, stream
from lab.migration.replica import Replica, State
from lab.migration.scene import SUBJECTS, Subject
from lab.migration.stream import Consumer


class Side(Protocol):
    """A store."""

    name: str
    key: str
    """Access key of the account; empty where there is none."""
    subjects: tuple[Subject, ...]
    """Tables that move to it."""

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
    """Tables of DynamoDB Local, in an account of their own: in one that many tables were made in, it gets slow."""

    name = "DynamoDB"

    def __init__(self, schema: str, subjects: Sequence[Subject] = SUBJECTS) -> None:
        self.schema, self.subjects = schema, tuple(subjects)
        self.key = f"move{uuid.uuid4().hex[:12]}"
        self.client = dynamodb.client(self.key)
        self.tables = {each.name: f"{schema}_{each.name}" for each in subjects}

    def make(self) -> None:
        for subject in self.subjects:
            kinds = list(zip(subject.template, ("HASH", "RANGE"), strict=False))
            self.client.create_table(
                TableName=self.tables[subject.name], BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in kinds],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in kinds],
                StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            )  # fmt: skip

    def remove(self) -> None:
        for table in self.tables.values():
            with suppress(self.client.exceptions.ResourceNotFoundException):  # it was not made
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


class RedisSide:
    """Keys of Redis with a prefix of their own, which the lab's connection lets a backfill write; each is a hash."""

    name, key = "Redis", ""

    def __init__(self, schema: str, subjects: Sequence[Subject] = SUBJECTS) -> None:
        import redis

        self.schema, self.subjects = schema, tuple(subjects)
        self.client = redis.Redis(HOST, config.port("redis"))
        self.replica: Replica | None = None
        self.root = f"carshare:{schema}:"

    def prefix(self, subject: Subject) -> str:
        """Of a table's keys."""
        return f"{self.root}{subject.name}:"

    def make(self) -> None:
        self.replica = Replica(HOST, config.port("redis"), self.root)

    def remove(self) -> None:
        if self.replica is not None:
            self.replica.close()
        for key in list(self.client.scan_iter(f"{self.root}*", 1000)):
            self.client.unlink(key)
        self.client.close()

    def template(self, subject: Subject) -> Mapping[str, str]:
        return {"key": subject.redis}

    def target(self, subject: Subject) -> dict[str, Any]:
        return {"kind": "redis", "prefix": self.prefix(subject), "layout": "hash", "key": subject.redis}

    def store(self, subject: Subject, view: View) -> Store:
        return RedisStore(self.client, view, self.prefix(subject))

    def consumer(self) -> Consumer:
        address = {"host": HOST, "port": config.port("redis"), "ssl": False, "cluster": True}
        return stream.cdc_redis(
            {"tables": {f"{self.schema}.{each.name}": self._told(each) for each in self.subjects}, "redis": address}
        )

    def _told(self, subject: Subject) -> dict[str, Any]:
        with closing(mysql.root_connection("mysql57")) as connection:
            table = read_table(connection, self.schema, subject.name)
        assert table is not None
        types = {each.name: f"{each.column_type}{'' if each.nullable else ' not null'}" for each in table.columns}
        del types[scene.VERSION]
        return {
            "prefix": self.prefix(subject), "layout": "hash", "key": subject.redis, "columns": types,
            "version": {"column": scene.VERSION}, "policy": {"empty_set": "null"},
        }  # fmt: skip

    def items(self, subject: Subject) -> dict[str, oracle.Item]:
        found = replica.scan(HOST, config.port("redis"), self.prefix(subject))
        return {self._key(subject, key): replica.item_of(each, subject.columns) for key, each in found.items()}

    def history(self, subject: Subject) -> list[tuple[str, oracle.Item | None, oracle.Item | None]]:
        assert self.replica is not None
        self.replica.settle()
        prefix = self.prefix(subject).encode()
        return [
            (self._key(subject, key), self._item(subject, old), self._item(subject, new))
            for key, old, new in list(self.replica.changes)
            if key.startswith(prefix)
        ]

    def _item(self, subject: Subject, state: State | None) -> oracle.Item | None:
        return None if state is None else replica.item_of(state, subject.columns)

    def _key(self, subject: Subject, key: bytes) -> str:
        return key.decode().removeprefix(self.prefix(subject))
