from __future__ import annotations

import base64
import gzip
import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from conftest import REGION

from dbops.backfill import bulk, importing
from dbops.backfill.brake import Held
from dbops.backfill.importing import Folder, Imported, Manifest
from dbops.backfill.journal import Journal
from dbops.backfill.records import Plan
from dbops.backfill.source import Page, SourceRow
from dbops.backfill.target import TargetError
from dbops.backfill.worker import Copied
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Names, document
from tests.backfill import journal_kit, redis_kit, source_kit

NAMES = Names()
WHERE = Folder("staging", "backfill/plan/")


@pytest.fixture
def s3(aws: str) -> Any:
    client = boto3.client("s3", endpoint_url=aws, region_name=REGION, aws_access_key_id="k", aws_secret_access_key="s")
    client.create_bucket(Bucket=WHERE.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return client


@pytest.fixture
def journal(tmp_path: Path) -> tuple[Journal, Plan]:
    return journal_kit.begun(sa.create_engine(f"sqlite:///{tmp_path / 'journal.db'}"), journal_kit.Clock())


@dataclass
class Rows:
    """A source of ten rows a chunk; every seventh key cannot be an item, every fifth is a tombstone."""

    spec: Any
    names: Names = NAMES
    version: int = 1
    pages: int = 0

    def page(self, conn: Any, low: Any, high: Any, limit: int, stamp: str) -> Page:
        self.pages += 1
        numbers = [*range(int(low[0]) + 1 if low else 1, int(high[0]) + 1)][:limit]
        return Page([self.row(n, stamp) for n in numbers], (str(numbers[-1]),), numbers[-1] == int(high[0]))

    def row(self, n: int, stamp: str) -> SourceRow:
        if n % 7 == 0:
            return SourceRow((str(n),), None, "at is a zero date")
        made = redis_kit.tombstone(n) if n % 5 == 0 else redis_kit.write(n, self.version, stamp=stamp)
        return SourceRow((str(n),), made)


class Connection:
    def close(self) -> None:
        pass


def rows(**more: Any) -> Rows:
    declared = {"rejects": {"max_rows": 100}, "limits": {"page_rows": 4}, **more}
    return Rows(source_kit.declared(**declared))


def stage(journal: tuple[Journal, Plan], source: Any, s3: Any, **more: Any) -> Copied:
    kept, plan = journal
    return importing.stage(kept, source, Connection, s3, WHERE, plan.plan_id, "worker", **more)


def objects(s3: Any, prefix: str = "data/") -> dict[str, list[Any]]:
    found = s3.list_objects_v2(Bucket=WHERE.bucket, Prefix=WHERE.key(prefix)).get("Contents", ())
    return {
        each["Key"].rpartition("/")[2]: [
            json.loads(text)["Item"]
            for text in gzip.decompress(s3.get_object(Bucket=WHERE.bucket, Key=each["Key"])["Body"].read()).splitlines()
        ]
        for each in found
    }


def test_each_chunk_is_one_object_of_shuffled_lines_and_the_journal_knows_what_it_holds(journal: Any, s3: Any) -> None:
    staged = stage(journal, rows(), s3)
    assert (staged.end, staged.chunks) == ("done", 3)
    tally = staged.tally
    assert (tally.read, tally.written, tally.buried, tally.rejected) == (30, 20, 6, 4)
    sealed = importing.seal(journal[0], s3, WHERE, journal[1].plan_id)
    assert (sealed.items, len(sealed.objects)) == (26, 3)
    found = objects(s3)
    assert [*found] == ["000000.json.gz", "000001.json.gz", "000002.json.gz"]
    keys = [[int(item["pk"]["S"].removeprefix("USER#")) for item in each] for each in found.values()]
    assert sorted(n for each in keys for n in each) == [n for n in range(1, 31) if n % 7]
    assert any(each != sorted(each) for each in keys)
    item = next(item for each in found.values() for item in each if item["pk"]["S"] == "USER#1")
    expected = document(redis_kit.write(1, stamp=journal[1].plan_id), NAMES)
    assert item["photo"] == {"B": base64.b64encode(b"\0\xff").decode()}
    assert canonical({**item, "photo": {"B": base64.b64decode(item["photo"]["B"])}}) == canonical(expected)
    assert sorted(int(each.key[0]) for each in journal[0].rejects(journal[1].plan_id)) == [7, 14, 21, 28]
    manifest = json.loads(s3.get_object(Bucket=WHERE.bucket, Key=WHERE.key("manifest.json"))["Body"].read())
    assert manifest["digest"] == sealed.digest
    assert importing.seal(journal[0], s3, WHERE, journal[1].plan_id) == sealed, "it may be repeated"


def test_an_attempt_that_lost_its_chunk_leaves_nothing_that_is_imported(journal: Any, s3: Any) -> None:
    """A worker is so slow that another one takes its chunk; then it wakes, and writes its older rows as last."""
    kept, plan = journal
    slow, quick = rows(), rows()
    quick.version = 2
    page, woken = slow.page, threading.Event()

    def late(*arguments: Any) -> Page:
        found = page(*arguments)
        if not woken.is_set():
            woken.set()
            kept.clock.move(10_000)
            assert importing.stage(kept, quick, Connection, s3, WHERE, plan.plan_id, "other").end == "done"  # type: ignore[arg-type]
        return found

    slow.page = late  # type: ignore[method-assign]
    slow.spec = source_kit.declared(limits={"page_rows": 100}, rejects={"max_rows": 100})
    assert stage(journal, slow, s3).chunks == 0
    assert len(objects(s3, "parts/")) == 4
    importing.seal(kept, s3, WHERE, plan.plan_id)
    live = [item for each in objects(s3).values() for item in each if "_deleted" not in item]
    assert {item["_v"]["N"] for item in live} == {"2"}


@pytest.mark.parametrize(
    ("held", "end"), [(Held("pause", "incident"), "pause"), (Held("stop", "incident"), "stop"), (Held("window", "incident"), "window")],
    ids=["pause", "stop", "window"],
)  # fmt: skip
def test_the_work_ends_cleanly_says_why_and_goes_on(journal: Any, s3: Any, held: Held, end: str) -> None:
    asked: list[int] = []

    def brake() -> None:
        asked.append(1)
        if len(asked) == 6:
            raise held

    first = stage(journal, rows(), s3, brake=brake)
    assert (first.end, first.reason, first.chunks) == (end, "incident", 1)
    stop = threading.Event()
    stop.set()
    assert stage(journal, rows(), s3, stop=stop).end == "stop"
    assert journal[0].live_leases(journal[1].plan_id) == 0
    with pytest.raises(TargetError, match="2 chunks are not staged"):
        importing.seal(journal[0], s3, WHERE, journal[1].plan_id)
    assert stage(journal, rows(), s3).chunks == 2
    assert importing.seal(journal[0], s3, WHERE, journal[1].plan_id).items == 26


def test_the_lease_is_renewed_while_an_object_is_written(
    journal: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beaten, beat, put = threading.Event(), journal[0].beat, s3.put_object

    def heard(*arguments: Any) -> None:
        beat(*arguments)
        beaten.set()

    def slow(**asked: Any) -> Any:
        assert beaten.wait(10)
        return put(**asked)

    monkeypatch.setattr(journal[0], "beat", heard)
    monkeypatch.setattr(s3, "put_object", slow)
    assert stage(journal, rows(limits={"page_rows": 100}), s3, lease_s=0.3).chunks == 3


def test_an_error_gives_the_chunk_back(journal: Any, s3: Any) -> None:
    source = rows()
    source.row = lambda n, stamp: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        stage(journal, source, s3)
    assert journal[0].live_leases(journal[1].plan_id) == 0
    assert stage(journal, rows(), s3).chunks == 3


@pytest.mark.parametrize(
    ("rejects", "says"),
    [
        ({"max_rows": 1}, "2 rows cannot be items"),
        ({"policy": "stop", "max_rows": 100}, "a row cannot be an item: "),
    ],
    ids=["too many", "stop"],
)
def test_too_many_rows_without_form_end_it(journal: Any, s3: Any, rejects: Any, says: str) -> None:
    staged = stage(journal, rows(rejects=rejects), s3)
    assert staged.end == "rejects"
    assert says in staged.reason
    assert "table backfill_reject has the keys" in staged.reason
    assert "key " not in staged.reason.replace("table backfill_reject has the keys", "")
    assert journal[0].live_leases(journal[1].plan_id) == 0


def test_objects_that_are_not_what_was_staged_are_named(journal: Any, s3: Any) -> None:
    kept, plan = journal
    stage(journal, rows(), s3)
    importing.seal(kept, s3, WHERE, plan.plan_id)
    s3.put_object(Bucket=WHERE.bucket, Key=WHERE.key("data/old.json.gz"), Body=b"")
    with pytest.raises(TargetError, match=r"objects of no chunk \(data/old.json.gz\)"):
        importing.seal(kept, s3, WHERE, plan.plan_id)
    s3.delete_object(Bucket=WHERE.bucket, Key=WHERE.key("data/old.json.gz"))
    chunk = kept.chunks(plan.plan_id)[0]
    s3.put_object(Bucket=WHERE.bucket, Key=WHERE.key(importing.part(chunk)), Body=b"", Metadata={"items": "1"})
    with pytest.raises(TargetError, match="says 1 items, the journal"):
        importing.seal(kept, s3, WHERE, plan.plan_id)
    s3.delete_object(Bucket=WHERE.bucket, Key=WHERE.key(importing.part(chunk)))
    with pytest.raises(TargetError, match=r"is gone, which chunk \d was staged in"):
        importing.seal(kept, s3, WHERE, plan.plan_id)


SEALED = Manifest("plan", (("data/000000.json.gz", 3, "e"),), 3, "d" * 64)


class Dynamo:
    """The three calls of an import."""

    def __init__(self, *statuses: str, error: str = "") -> None:
        self.statuses, self.error, self.asked = [*statuses], error, list[Any]()
        self.has_table = False

    def describe_table(self, TableName: str) -> Any:
        if not self.has_table:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "DescribeTable")

    def import_table(self, **asked: Any) -> Any:
        self.asked.append(asked)
        if self.error:
            raise ClientError({"Error": {"Code": self.error, "Message": "no"}}, "ImportTable")  # type: ignore[arg-type]
        self.has_table = True
        return {"ImportTableDescription": {"ImportArn": f"arn:import/{len(self.asked)}"}}

    def describe_import(self, ImportArn: str) -> Any:
        return {
            "ImportTableDescription": {
                "ImportStatus": self.statuses.pop(0), "ProcessedItemCount": 3, "ImportedItemCount": 3, "ErrorCount": 0,
            }
        }  # fmt: skip


def test_one_import_is_started_however_often_it_is_asked_for(s3: Any) -> None:
    dynamo = Dynamo()
    view = redis_kit.VIEW
    assert [importing.start(dynamo, s3, WHERE, "users", view, SEALED) for _ in range(2)] == ["arn:import/1"] * 2
    (asked,) = dynamo.asked
    assert asked["ClientToken"] == "plan-" + "d" * 16
    assert asked["S3BucketSource"] == {"S3Bucket": "staging", "S3KeyPrefix": "backfill/plan/data/"}
    assert asked["TableCreationParameters"]["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    with pytest.raises(TargetError, match="from other objects than these"):
        importing.start(dynamo, s3, WHERE, "users", view, replace(SEALED, digest="e" * 64))


def test_an_import_is_followed_by_another_one_only_when_it_has_failed_and_its_table_is_gone(s3: Any) -> None:
    dynamo, view = Dynamo(), redis_kit.VIEW

    def start(sealed: Manifest = SEALED) -> str:
        return importing.start(dynamo, s3, WHERE, "users", view, sealed)

    importing.give_up(s3, WHERE)
    assert importing.kept(s3, WHERE) is None, "there is none to give up"
    assert start() == "arn:import/1"
    dynamo.has_table = False  # not there yet, or deleted: nobody has looked
    assert start() == "arn:import/1"
    dynamo.has_table = True
    importing.give_up(s3, WHERE)
    assert start() == "arn:import/1", "half a table is there"
    dynamo.has_table = False
    assert [start(), start()] == ["arn:import/2"] * 2
    dynamo.has_table = False
    assert start(replace(SEALED, digest="e" * 64)) == "arn:import/3", "of other objects"
    assert [each["ClientToken"] for each in dynamo.asked] == [
        "plan-" + "d" * 16, "plan-" + "d" * 16 + "-1", "plan-" + "e" * 16 + "-2",
    ]  # fmt: skip


def test_an_import_of_which_the_answer_was_lost_is_asked_for_with_the_same_token(s3: Any, monkeypatch: Any) -> None:
    dynamo, keep = Dynamo(), importing._keep

    def dying(s3: Any, where: Folder, found: importing.Kept) -> None:
        if found.arn:
            raise KeyboardInterrupt
        keep(s3, where, found)

    monkeypatch.setattr(importing, "_keep", dying)
    with pytest.raises(KeyboardInterrupt):
        importing.start(dynamo, s3, WHERE, "users", redis_kit.VIEW, SEALED)
    assert importing.kept(s3, WHERE) == importing.Kept(SEALED.digest), (
        "the table that is there now is known for its own"
    )
    monkeypatch.undo()
    importing.start(dynamo, s3, WHERE, "users", redis_kit.VIEW, SEALED)
    assert len({each["ClientToken"] for each in dynamo.asked}) == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("ResourceInUseException", "'users' exists: an import makes"),
        ("LimitExceededException", "was refused: LimitExc"),
    ],
)
def test_a_request_that_is_refused_says_what_to_do(s3: Any, code: str, text: str) -> None:
    with pytest.raises(TargetError, match=text):
        importing.start(Dynamo(error=code), s3, WHERE, "users", redis_kit.VIEW, SEALED)


def test_waiting_ends_with_the_import() -> None:
    slept: list[float] = []
    found = importing.wait(Dynamo("IN_PROGRESS", "IN_PROGRESS", "COMPLETED"), "arn", poll_s=7, sleep=slept.append)
    assert (found.status, slept) == ("COMPLETED", [7, 7])
    importing.check(found, SEALED)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"status": "FAILED", "failure": "S3AccessDenied no"}, "ended FAILED: S3AccessDenied no"),
        ({"status": "CANCELLED"}, "ended CANCELLED"),
        ({"imported": 2, "errors": 1}, "3 items were staged, 3 processed, 2 imported, 1 errors"),
        ({"processed": 2, "imported": 2}, "3 items were staged, 2 processed"),
    ],
    ids=["failed", "cancelled", "errors", "left out"],
)
def test_an_import_that_is_not_whole_fails_and_says_what_is_left(change: Any, text: str) -> None:
    found = Imported("arn", "COMPLETED", 3, 3, 0, 100)
    refusal = importing.Refusal("data/000000.json.gz", 2, ("too large",))
    with pytest.raises(TargetError, match=text) as caught:
        importing.check(replace(found, **change), SEALED, [refusal])
    assert "delete it" in str(caught.value)


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_a_log_that_cannot_be_read_does_not_hide_that_the_import_is_not_whole(code: str) -> None:
    class Logs:
        def get_log_events(self, **asked: Any) -> Any:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "GetLogEvents")

    found = Imported("arn/import/1", "COMPLETED", 3, 2, 1, 100)
    assert importing.refusals(Logs(), found) == []


def test_the_bulk_engine_is_refused_until_both_of_its_conditions_are_met(monkeypatch: Any) -> None:
    client = boto3.client("dynamodb", region_name=REGION, aws_access_key_id="k", aws_secret_access_key="s")
    assert bulk.OPERATION not in client.meta.service_model.operation_names, (
        "then try the form of a condition, and write `line`"
    )
    with pytest.raises(bulk.NotSupported, match="does not know StartBulkPutItems"):
        bulk.require(client)

    class Newer:
        class meta:
            class service_model:
                operation_names = (bulk.OPERATION,)

    with pytest.raises(bulk.NotSupported, match="unconditional put"):
        bulk.require(Newer)
    monkeypatch.setattr(bulk, "line", lambda write, names: b"")
    bulk.require(Newer)


def test_a_bulk_request_and_what_is_answered() -> None:
    asked = bulk.Asked("users", WHERE, WHERE, "token", 2000)
    assert asked.request["OutputS3Configuration"]["OutputType"] == ["ERROR", "CONDITION_CHECK_FAILURE"]
    assert asked.request["MaxWriteRequestUnits"] == 2000
    with pytest.raises(ValueError, match=r"limits.units_per_s is 500; a bulk operation takes 1024"):
        _ = replace(asked, units_per_s=500).request
    assert bulk.Answered("arn", bulk.status("COMPLETED_WITH_ERRORS"), 3, 1).has_ended
    assert not bulk.Answered("arn", bulk.status("CANCELLING"), 3, 1).has_ended
    with pytest.raises(TargetError, match="'PAUSED', which is not known"):
        bulk.status("PAUSED")
