"""``cdc_redis.handler.lambda_handler``: one batch of a Kinesis stream, with partial batch responses, as `cdc_apply.handler` treats it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import boto3
import redis
from botocore.config import Config
from cdc_apply import handler
from cdc_apply.apply import DAY_S
from cdc_apply.changes import Record, Write
from cdc_apply.settings import Settings as CdcSettings
from cdc_apply.values import RejectError

from cdc_redis import rows
from cdc_redis.settings import Address, Settings, Table, read
from dbops.keyvalue.items import Reject
from dbops.keyvalue.rules import Outcome
from dbops.keyvalue.stores import RedisStore

CONNECT_S, ANSWER_S = 2, 5


@dataclass
class Batch(handler.Batch):
    """One invocation; `dynamodb` is not used."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    stores: Mapping[str, RedisStore] = field(default_factory=dict)
    """Both by source table."""
    namespace: ClassVar[str] = "dbops/cdc_redis"

    def _writes(self, said: Record) -> list[Write]:
        return rows.writes(said, self.tables.get(said.table), self.settings)

    def _write(self, write: Write) -> str:
        days = write.table.tombstone_days
        asked = rows.for_store(write, int(self.now_s) + days * DAY_S if days else None)
        try:
            outcome = self.stores[write.source].put(asked)
        except Reject as error:
            raise RejectError(str(error)) from error
        return _named(outcome, write, self.settings)


def stores(settings: Settings, client: Any) -> dict[str, RedisStore]:
    """The store of each table."""
    return {
        name: RedisStore(client, table.view, table.prefix, "hash" if table.layout == "hash" else "string")
        for name, table in settings.tables.items()
    }


def connect(address: Address, secrets: Any) -> Any:
    """A client of the server; a cluster's follows slots that move.

    Args:
        address: of it
        secrets: client of Secrets Manager, for an address that names a secret: the password, or JSON with ``password``
    """
    password = None
    if address.secret:
        text = secrets.get_secret_value(SecretId=address.secret)["SecretString"]
        password = json.loads(text)["password"] if text.lstrip().startswith("{") else text
    options: dict[str, Any] = {
        "host": address.host, "port": address.port, "username": address.username or None, "password": password, "ssl": address.ssl,
        "socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S, "decode_responses": False,
    }  # fmt: skip
    return redis.RedisCluster(**options, dynamic_startup_nodes=False) if address.cluster else redis.Redis(**options)


def lambda_handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point.

    Raises:
        SettingsError: the settings do not fit; nothing is applied, and the batch stays in the stream
        redis.exceptions.RedisError: the server cannot be reached; the same
    """
    settings, made, rejects = _resources(os.environ.get("CDC_SETTINGS", ""))
    batch = Batch(
        settings.cdc, None, rejects, time.time(), context.get_remaining_time_in_millis, sys.stdout,
        tables=settings.tables, stores=made,
    )  # fmt: skip
    return batch.apply(event["Records"])


@lru_cache(maxsize=1)
def _resources(text: str) -> tuple[Settings, dict[str, RedisStore], handler.Rejects | None]:
    settings = read(text, Path(__file__).parent)
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 4})
    rejects = None
    if settings.cdc.rejects:
        bucket, _, prefix = settings.cdc.rejects.removeprefix("s3://").partition("/")
        rejects = handler.Rejects(boto3.client("s3", config=config), bucket, prefix.strip("/"))
    secrets = boto3.client("secretsmanager", config=config) if settings.redis.secret else None
    return settings, stores(settings, connect(settings.redis, secrets)), rejects


def _named(outcome: Outcome, write: Write, settings: CdcSettings) -> str:
    """An outcome in the words of cdc_apply."""
    if outcome.is_written:
        return "written"
    if outcome.reason == "unversioned":
        return "foreign"
    return "same" if (outcome.there or {}).get(settings.version) == write.version else "older"
