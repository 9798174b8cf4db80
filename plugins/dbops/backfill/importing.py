"""The engine ``import``: rows to S3, and one ImportTable into a table that does not exist yet.

For cold rows by the billion: it costs no write units. It knows no conditions, so nothing else may write the table before it has ended:

1. The change stream is on, and kept (an event source mapping that is not enabled yet), before the first row is read.
2. `stage` writes each chunk as one object, `seal` says which objects count, `start` and `wait` import them.
3. `check` holds the counts together. Then the stream is applied, dual writes begin, and the verification looks at every row: what changed
   between the reading of a row and the beginning of dual writes comes by the stream, under the condition that every other write has.

An attempt to stage a chunk has an object of its own below ``parts/``; only what the journal has finished is copied to ``data/``, which is
what is imported. So a worker that lost its lease cannot put an older row beside a newer one: of two items with one key ImportTable keeps
any.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dbops import asking
from dbops.backfill.journal import Journal
from dbops.backfill.records import Chunk, Rejected, Tally
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetError
from dbops.backfill.worker import LEASE_S, Brakes, Copied, Worker
from dbops.connections import closing
from dbops.keyvalue import rules
from dbops.keyvalue.items import Attribute, Digest, Item, item_hash
from dbops.keyvalue.views import View

OBJECTS = 50_000
"""Of one import: quota of the service (S3DataImport.Validation)."""
POLL_S = 15.0
ERRORS_READ = 1_000
_KEPT = "import.json"


@dataclass(frozen=True)
class Folder:
    """Where one plan's objects are."""

    bucket: str
    prefix: str
    """Ends with a slash."""

    def key(self, name: str) -> str:
        """Key of an object."""
        return f"{self.prefix}{name}"


@dataclass(frozen=True)
class Manifest:
    """The objects of one import. `digest` names this very content."""

    plan_id: str
    objects: tuple[tuple[str, int, str], ...]
    """Name below the folder, items, ETag of the part that it was copied from."""
    items: int
    digest: str


@dataclass(frozen=True)
class Imported:
    """How an import ended, as the service says."""

    arn: str
    status: str
    processed: int
    imported: int
    errors: int
    size_bytes: int
    failure: str = ""
    log_group: str = ""


@dataclass(frozen=True)
class Kept:
    """What is kept of an import beside the manifest, from before the service is asked for it."""

    digest: str
    """Of the manifest."""
    attempt: int = 0
    arn: str = ""
    """Empty: the answer was not kept; the same request finds it."""
    has_failed: bool = False
    """Its table is of no use."""


@dataclass(frozen=True)
class Refusal:
    """An item that the import did not take."""

    object_key: str
    index: int
    reasons: tuple[str, ...] = field(default=())


def folder(spec: BackfillSpec, plan_id: str) -> Folder:
    """Where the spec wants the objects of a plan."""
    bucket, _, prefix = (spec.staging_s3_uri or "").removeprefix("s3://").partition("/")
    return Folder(bucket, f"{prefix.strip('/')}/{plan_id}/".lstrip("/"))


# --- rows to objects ---------------------------------------------------------------------------------------------------


def stage(
    journal: Journal,
    source: Source,
    connect: Callable[[], Any],
    s3: Any,
    where: Folder,
    plan_id: str,
    owner: str,
    span: tuple[int, int] | None = None,
    *,
    brake: Brakes = lambda: 0.0,
    stop: threading.Event | None = None,
    lease_s: float = LEASE_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> Copied:
    """Write chunks as objects until none is left; each chunk is in memory at once.

    Args:
        journal: holds the plan
        source: what is read
        connect: opens a connection for it, values decoded
        s3: client
        where: the plan's folder
        plan_id: of the plan
        owner: names this worker
        span: positions of its own, first and end
        brake: asked before each page
        stop: ends the work before the next page
        lease_s: see `worker.LEASE_S`
        monotonic: a clock

    Raises:
        ViewError, MySQLdb.Error: the source cannot be read
        ClientError: S3 does not take an object
    """
    with closing(connect()) as conn:
        worker = _Worker(
            journal, source, plan_id, owner, brake, stop or threading.Event(), lease_s, monotonic, conn, s3, where
        )
        return worker.run(span)


@dataclass
class _Worker(Worker):
    conn: Any
    s3: Any
    where: Folder

    def chunk(self, chunk: Chunk, require_lease: Callable[[], None]) -> None:
        self.journal.clear_rejects(self.plan_id, chunk.number)
        began = self.monotonic()
        rows = self._rows(chunk, require_lease)
        tally = self._upload(chunk, rows, self.monotonic() - began)
        self.reject(chunk, [Rejected(row.key, row.reject) for row in rows if row.write is None])
        self.journal.finish(chunk, self.owner, tally)
        self.tally += tally

    def _rows(self, chunk: Chunk, require_lease: Callable[[], None]) -> list[SourceRow]:
        found: list[SourceRow] = []
        low = chunk.low
        while True:
            require_lease()
            self.may_go_on()
            page = self.source.page(self.conn, low, chunk.high, self.source.spec.limits.page_rows, self.plan_id)
            found += page.rows
            if page.is_end or page.last is None:
                return found
            low = page.last

    def _upload(self, chunk: Chunk, rows: Sequence[SourceRow], read_s: float) -> Tally:
        names, began = self.source.names, self.monotonic()
        items = [rules.document(row.write, names) for row in rows if row.write is not None]
        lines = [line(item) for item in items]
        # Items next to each other in key order would all go to one partition of the new table.
        random.Random(f"{self.plan_id}/{chunk.number}").shuffle(lines)  # noqa: S311 - it spreads load
        body = gzip.compress(b"".join(lines), 6, mtime=0)
        self.s3.put_object(
            Bucket=self.where.bucket, Key=self.where.key(part(chunk)), Body=body, Metadata={"items": str(len(lines))}
        )
        buried = sum(row.write is not None and row.write.is_tombstone for row in rows)
        return Tally(
            read=len(rows), written=len(lines) - buried, buried=buried, rejected=len(rows) - len(lines), bytes=sum(map(len, lines)),
            requests=1, read_s=read_s, write_s=self.monotonic() - began,
            digest=Digest.of(item_hash(item, names.all) for item in items),
        )  # fmt: skip


def line(item: Item) -> bytes:
    """An item as a line of DynamoDB JSON."""
    plain = {"Item": {name: _plain(attribute) for name, attribute in item.items()}}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def part(chunk: Chunk) -> str:
    """Name of the object of one attempt at a chunk."""
    return f"parts/{chunk.number:06d}-{chunk.attempt:04d}.json.gz"


# --- what counts -------------------------------------------------------------------------------------------------------


def seal(journal: Journal, s3: Any, where: Folder, plan_id: str) -> Manifest:
    """Copy the objects that the journal has finished to where they are imported from, and write the manifest. May be repeated.

    Raises:
        TargetError: chunks are not staged, an object is not what the journal says, or there are too many
    """
    chunks = journal.chunks(plan_id)
    if missing := [chunk.number for chunk in chunks if chunk.state != "done"]:
        raise TargetError(
            f"plan {plan_id}: {len(missing)} chunks are not staged (first: {missing[0]}); stage them first"
        )
    if len(chunks) > OBJECTS:
        raise TargetError(
            f"plan {plan_id} has {len(chunks):,} chunks, an import takes {OBJECTS:,} objects: raise limits.chunk_rows and plan anew"
        )
    objects = tuple(_sealed(s3, where, chunk) for chunk in sorted(chunks, key=lambda each: each.number))
    _no_others(s3, where, {name for name, _, _ in objects})
    items = sum(count for _, count, _ in objects)
    digest = hashlib.sha256(repr(objects).encode()).hexdigest()
    made = Manifest(plan_id, objects, items, digest)
    s3.put_object(Bucket=where.bucket, Key=where.key("manifest.json"), Body=json.dumps(asdict(made), indent=1).encode())
    return made


def _sealed(s3: Any, where: Folder, chunk: Chunk) -> tuple[str, int, str]:
    name, wanted = f"data/{chunk.number:06d}.json.gz", chunk.tally.written + chunk.tally.buried
    key = where.key(part(chunk))
    try:
        found = s3.head_object(Bucket=where.bucket, Key=key)
    except Exception as error:
        if asking.code(error) not in ("404", "NoSuchKey", "NotFound"):
            raise
        raise TargetError(
            f"s3://{where.bucket}/{key} is gone, which chunk {chunk.number} was staged in: reopen the chunk and stage it again"
        ) from error
    count = int(found["Metadata"].get("items", -1))
    if count != wanted:
        raise TargetError(
            f"s3://{where.bucket}/{key} says {count} items, the journal {wanted}: reopen chunk {chunk.number} and stage it again"
        )
    s3.copy_object(Bucket=where.bucket, Key=where.key(name), CopySource={"Bucket": where.bucket, "Key": key})
    return name, count, found["ETag"]


def _no_others(s3: Any, where: Folder, names: Collection[str]) -> None:
    """Whatever is below ``data/`` is imported, so nothing else may be."""
    prefix = where.key("data/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=prefix)
    found = {each["Key"].removeprefix(where.prefix) for page in pages for each in page.get("Contents", ())}
    if others := sorted(found - set(names)):
        raise TargetError(
            f"s3://{where.bucket}/{prefix} holds objects of no chunk ({', '.join(others[:3])}): they would be imported too, remove them"
        )


# --- the import --------------------------------------------------------------------------------------------------------


def start(dynamodb: Any, s3: Any, where: Folder, table: str, view: View, sealed: Manifest) -> str:
    """Start the import, or find the one that was started; gives its ARN.

    One that has failed, or was of other objects, is followed by another one when its table is gone.

    Raises:
        TargetError: the table exists, or the service does not take the request
    """
    found = kept(s3, where) or Kept(sealed.digest)
    if (found.has_failed or found.digest != sealed.digest) and not _exists(dynamodb, table):
        found = Kept(sealed.digest, found.attempt + 1)
    if found.digest != sealed.digest:
        raise TargetError(
            f"import {found.arn or 'of this plan'} was started from other objects than these: delete table {table!r}, then run again"
        )
    if found.arn:
        return found.arn
    _keep(s3, where, found)
    # The same token within eight hours is the same import: a task that dies here starts no second one, nor do two runs at once.
    token = f"{sealed.plan_id}-{sealed.digest[:16]}" + (f"-{found.attempt}" if found.attempt else "")
    try:
        answer = dynamodb.import_table(**request(where, table, view, token))
    except Exception as error:
        code = asking.code(error)
        if code == "ResourceInUseException":
            raise TargetError(
                f"target.table {table!r} exists: an import makes its table itself. Take engine put for a table with items, or another name"
            ) from error
        if code:
            raise TargetError(f"ImportTable into {table!r} was refused: {code}: {asking.text(error)}") from error
        raise
    arn: str = answer["ImportTableDescription"]["ImportArn"]
    _keep(s3, where, replace(found, arn=arn))
    return arn


def kept(s3: Any, where: Folder) -> Kept | None:
    """What is known of the plan's import; None when none was asked for."""
    try:
        answer = s3.get_object(Bucket=where.bucket, Key=where.key(_KEPT))
    except Exception as error:
        if asking.code(error) in ("NoSuchKey", "404"):
            return None
        raise
    return Kept(**json.loads(answer["Body"].read()))


def give_up(s3: Any, where: Folder) -> None:
    """Keep that the import has failed: when its table is gone, `start` begins another one."""
    if (found := kept(s3, where)) is not None:
        _keep(s3, where, replace(found, has_failed=True))


def _keep(s3: Any, where: Folder, found: Kept) -> None:
    s3.put_object(Bucket=where.bucket, Key=where.key(_KEPT), Body=json.dumps(asdict(found)).encode())


def _exists(dynamodb: Any, table: str) -> bool:
    try:
        dynamodb.describe_table(TableName=table)
    except Exception as error:
        if asking.is_missing(error):
            return False
        raise
    return True


def request(where: Folder, table: str, view: View, token: str) -> dict[str, Any]:
    """Arguments of ImportTable."""
    kinds = ("HASH", "RANGE")
    parts = view.keys.parts
    return {
        "ClientToken": token,
        "S3BucketSource": {"S3Bucket": where.bucket, "S3KeyPrefix": where.key("data/")},
        "InputFormat": "DYNAMODB_JSON",
        "InputCompressionType": "GZIP",
        "TableCreationParameters": {
            "TableName": table,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": n, "AttributeType": t.kind} for n, t in parts],
            "KeySchema": [
                {"AttributeName": name, "KeyType": kind} for (name, _), kind in zip(parts, kinds, strict=False)
            ],
        },
    }


def look(dynamodb: Any, arn: str) -> Imported:
    """How far an import is."""
    found: Mapping[str, Any] = dynamodb.describe_import(ImportArn=arn)["ImportTableDescription"]
    failure = " ".join(str(found[name]) for name in ("FailureCode", "FailureMessage") if found.get(name))
    return Imported(
        arn, found["ImportStatus"], int(found.get("ProcessedItemCount") or 0), int(found.get("ImportedItemCount") or 0),
        int(found.get("ErrorCount") or 0), int(found.get("ProcessedSizeBytes") or 0), failure, found.get("CloudWatchLogGroupArn") or "",
    )  # fmt: skip


def wait(dynamodb: Any, arn: str, *, poll_s: float = POLL_S, sleep: Callable[[float], object] = time.sleep) -> Imported:
    """Wait until an import has ended; whatever ends this wait, the import goes on.

    Args:
        dynamodb: client
        arn: of the import
        poll_s: between looks
        sleep: waits
    """
    while (found := look(dynamodb, arn)).status in ("IN_PROGRESS", "CANCELLING"):
        sleep(poll_s)
    return found


def check(found: Imported, sealed: Manifest, refusals: Sequence[Refusal] = ()) -> None:
    """Hold an import that has ended to its manifest.

    Raises:
        TargetError: it failed, or took not every item; the table is to be deleted before the next attempt
    """
    after = "The table, where there is one, is not whole: delete it, then run again"
    if found.status != "COMPLETED":
        raise TargetError(f"import {found.arn} ended {found.status}: {found.failure or 'no reason given'}. {after}")
    if (found.processed, found.imported, found.errors) != (sealed.items, sealed.items, 0):
        first = "; ".join(f"{each.object_key}#{each.index}: {', '.join(each.reasons)}" for each in refusals[:3])
        raise TargetError(
            f"import {found.arn}: {sealed.items:,} items were staged, {found.processed:,} processed, {found.imported:,} imported, "
            f"{found.errors:,} errors ({first or 'see ' + (found.log_group or 'the log group /aws-dynamodb/imports')}). {after}"
        )


def refusals(logs: Any, found: Imported, limit: int = ERRORS_READ) -> list[Refusal]:
    """What the import's log says about items that it did not take; at most so many. Empty where there is no log that may be read.

    Args:
        logs: client of CloudWatch Logs
        found: the import
        limit: entries
    """
    group = found.log_group.partition(":log-group:")[2].removesuffix(":*") or "/aws-dynamodb/imports"
    stream = f"{found.arn.rpartition('/')[2]}/error"
    made: list[Refusal] = []
    asked: dict[str, Any] = {"logGroupName": group, "logStreamName": stream, "startFromHead": True}
    while len(made) < limit:
        try:
            answer = logs.get_log_events(**asked)
        except Exception as error:
            if asking.is_missing(error) or asking.code(error) == "AccessDeniedException":
                return made
            raise
        made += [_refusal(each["message"]) for each in answer["events"]]
        if not answer["events"] or answer["nextForwardToken"] == asked.get("nextToken"):
            break
        asked["nextToken"] = answer["nextForwardToken"]
    return made[:limit]


def _refusal(message: str) -> Refusal:
    try:
        plain = json.loads(message)
        where = plain["itemS3Pointer"]
        return Refusal(where["key"], int(where["itemIndex"]), tuple(plain.get("errorMessages", ())))
    except (ValueError, KeyError, TypeError):
        return Refusal("", -1, (message[:500],))


def _plain(attribute: Attribute) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "B":
            return {"B": base64.b64encode(value).decode()}
        case "BS":
            return {"BS": [base64.b64encode(each).decode() for each in value]}
        case "L":
            return {"L": [_plain(each) for each in value]}
        case "M":
            return {"M": {name: _plain(each) for name, each in value.items()}}
    return attribute
