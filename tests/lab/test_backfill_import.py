"""Rows of MySQL by S3 and ImportTable into a table of DynamoDB Local, and every item compared with its row."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops import connections
from dbops.backfill import importing, plan, source
from dbops.backfill.journal import Journal
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetError
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import document
from lab import aws, config, dynamodb, dynamodb_import, mysql
from tests.backfill import journal_kit

pytestmark = pytest.mark.lab
ROWS = 250
SERVER = "mysql57"


@pytest.fixture
def schema() -> Iterator[str]:
    name = f"import_{uuid.uuid4().hex[:8]}"
    with mysql.root_connection(SERVER) as conn, conn.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"GRANT ALL ON {name}.* TO '{config.MYSQL_USER}'@'%'")
        cursor.execute(
            f"CREATE TABLE {name}.rides (id BIGINT UNSIGNED PRIMARY KEY, note TEXT, photo VARBINARY(20), track JSON, price DECIMAL(10,2),"
            " gone TINYINT NOT NULL, version BIGINT NOT NULL)"
        )
        values = [
            (n, f"Köln {n}" if n % 3 else None, bytes([n % 256]), '{"a": [1, 2.5]}', n / 4, n % 11 == 0, n)
            for n in range(ROWS)
        ]
        cursor.executemany(f"INSERT INTO {name}.rides VALUES (%s, %s, %s, %s, %s, %s, %s)", values)
        conn.commit()
        yield name
        cursor.execute(f"DROP DATABASE {name}")
        cursor.execute(f"REVOKE ALL ON {name}.* FROM '{config.MYSQL_USER}'@'%'")  # grants outlive their schema


@pytest.fixture
def door() -> Iterator[tuple[str, dynamodb_import.Imports]]:
    with dynamodb_import.serve(config.dynamodb_endpoint(), config.aws_endpoint()) as made:
        yield made


@pytest.fixture
def account() -> str:
    return f"import{uuid.uuid4().hex}"


def spec(schema: str, bucket: str, **more: Any) -> BackfillSpec:
    return BackfillSpec.model_validate({
        "name": "rides_import", "description": "rides", "owner": "dba", "engine": "import", "staging_s3_uri": f"s3://{bucket}/staging",
        "view": {
            "sql": f"SELECT r.id, r.note, r.photo, r.track, r.price, r.gone, r.version FROM {schema}.rides AS r WHERE {{chunk}}",
            "table": f"{schema}.rides", "alias": "r",
        },
        "version": {"column": "version", **more}, "tombstone": {"column": "gone"}, "limits": {"page_rows": 17},
        "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "RIDE#{id}"}},
        "live": {"since": "2026-01-01T00:00:00Z", "applications": ["shop"], "stream": "kept until the import has ended"},
    })  # fmt: skip


def opened(declared: BackfillSpec) -> Any:
    conn = connections.mysql()
    try:
        return conn, source.open_source(conn, declared)
    except BaseException:
        conn.close()
        raise


def staged(declared: BackfillSpec, tmp_path: Path, s3: Any) -> tuple[importing.Folder, importing.Manifest, Any]:
    conn, found = opened(declared)
    with closing(conn):
        walked = plan.walk(conn, found, 40)
        journal = Journal.open(sa.create_engine(f"sqlite:///{tmp_path / 'journal.db'}"))
        made = journal_kit.a_plan(declared.name, len(walked.chunks), rows=walked.rows)
        journal.begin(made, walked.chunks, 1)
        where = importing.folder(declared, made.plan_id)
        done = importing.stage(journal, found, connections.mysql, s3, where, made.plan_id, "worker")
        assert (done.end, done.chunks) == ("done", 7)
        rows = found.page(conn, None, (str(ROWS),), ROWS + 1, made.plan_id).rows
    return where, importing.seal(journal, s3, where, made.plan_id), (found, rows)


def test_the_imported_table_equals_the_rows(schema: str, door: Any, account: str, tmp_path: Path) -> None:
    address, imports = door
    s3, bucket = aws.client("s3"), f"staging-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": config.AWS_REGION})
    declared = spec(schema, bucket)
    where, sealed, (found, rows) = staged(declared, tmp_path, s3)
    assert sealed.items == ROWS
    client = dynamodb.client(account, endpoint=address)
    imports.go.clear()
    arn = importing.start(client, s3, where, declared.target.table, found.view, sealed)  # type: ignore[union-attr]
    assert importing.start(client, s3, where, "rides", found.view, sealed) == arn
    s3.delete_object(Bucket=bucket, Key=where.key("import.json"))  # it died between the call and the note
    assert importing.start(client, s3, where, "rides", found.view, sealed) == arn, "the token finds it"
    assert importing.look(client, arn).status == "IN_PROGRESS"
    imports.go.set()
    ended = importing.wait(client, arn, poll_s=0.05)
    importing.check(ended, sealed, importing.refusals(aws.client("logs"), ended))
    items = client.get_paginator("scan").paginate(TableName="rides", ConsistentRead=True)
    assert {canonical(item) for page in items for item in page["Items"]} == {
        canonical(document(row.write, found.names)) for row in rows
    }
    assert sum("_deleted" in document(row.write, found.names) for row in rows) == ROWS // 11 + 1
    s3.delete_object(Bucket=bucket, Key=where.key("import.json"))
    imports.found.clear()  # eight hours later
    with pytest.raises(TargetError, match="'rides' exists"):
        importing.start(client, s3, where, "rides", found.view, sealed)


def test_items_that_the_import_refuses_are_counted_and_named(
    schema: str, door: Any, account: str, tmp_path: Path
) -> None:
    address, _ = door
    s3, bucket = aws.client("s3"), f"staging-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": config.AWS_REGION})
    where, sealed, (found, _) = staged(spec(schema, bucket), tmp_path, s3)
    bad = importing.line({"other": {"S": "no key"}})
    s3.put_object(Bucket=bucket, Key=where.key(sealed.objects[0][0]), Body=importing.gzip.compress(bad + b"{\n" + bad))
    client = dynamodb.client(account, endpoint=address)
    arn = importing.start(client, s3, where, "rides", found.view, sealed)
    ended = importing.wait(client, arn, poll_s=0.05)
    assert (ended.status, ended.errors, ended.imported) == ("COMPLETED", 2, ROWS - 40)
    refused = importing.refusals(aws.client("logs"), ended)
    assert [(each.object_key, each.index) for each in refused] == [(where.key(sealed.objects[0][0]), n) for n in (0, 1)]
    assert "keys was not given a value" in refused[0].reasons[0]
    with pytest.raises(TargetError, match=r"250 items were staged, 212 processed, 210 imported, 2 errors \(staging/"):
        importing.check(ended, sealed, refused)


def test_the_door_passes_everything_else_on(door: Any, account: str) -> None:
    client = dynamodb.client(account, endpoint=door[0])
    assert client.list_tables()["TableNames"] == []
    assert client.list_imports()["ImportSummaryList"] == []
    with pytest.raises(client.exceptions.ImportNotFoundException):
        client.describe_import(
            ImportArn="arn:aws:dynamodb:eu-central-1:123456789012:table/a/import/01658528578619-c4d4e311"
        )
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_table(TableName="none")
