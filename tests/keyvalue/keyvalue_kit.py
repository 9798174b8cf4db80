"""Columns, views and stores of the tests of keyvalue."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dbops.keyvalue import views
from dbops.keyvalue.views import View
from dbops.mysql import Column


def column(name: str, column_type: str, *, nullable: bool = True, collation: str | None = None) -> Column:
    """A column as information_schema describes it."""
    return Column(name, column_type.split("(")[0].split(" ")[0], column_type, nullable=nullable, collation=collation)


def users(**more: Any) -> View:
    """A view with a column of most kinds."""
    columns = [
        column("id", "bigint(20) unsigned", nullable=False),
        column("name", "varchar(40)"),
        column("balance", "decimal(65,30)"),
        column("score", "double"),
        column("born", "date"),
        column("seen", "datetime(6)"),
        column("photo", "blob"),
        column("tags", "set('a','b','c')"),
        column("profile", "json"),
        column("active", "bit(1)"),
    ]
    return views.view(columns, {"pk": "USER#{id}"}, **more)


@contextmanager
def dynamodb_table(client: Any, view: View) -> Iterator[str]:
    """A table of its own with the key of a view."""
    name = f"t{uuid.uuid4().hex[:12]}"
    kinds = zip(view.keys.parts, ("HASH", "RANGE"), strict=False)
    schema = [{"AttributeName": part[0], "KeyType": kind} for part, kind in kinds]
    definitions = [{"AttributeName": part, "AttributeType": "S"} for part, _ in view.keys.parts]
    client.create_table(
        TableName=name, KeySchema=schema, AttributeDefinitions=definitions, BillingMode="PAY_PER_REQUEST"
    )
    yield name
    client.delete_table(TableName=name)


@contextmanager
def redis_server() -> Iterator[int]:
    """The port of a redis-server that keeps nothing and ends with the test."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.fail("redis-server is missing: run `apt-get install -y redis-tools redis-server`", pytrace=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder, "--daemonize", "no"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([binary, *options], stdout=log, stderr=log)
        try:
            _wait(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "redis-server did not start"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(7) == b"+PONG\r\n":
                    return
        except OSError:
            time.sleep(0.05)
    pytest.fail("redis-server did not answer within 30 s")
