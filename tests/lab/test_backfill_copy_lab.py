"""The copy against MySQL and DynamoDB Local: real faults of calls, workers that are killed, what the target says of the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ReadTimeoutError
from conftest import ROOT

from dbops.backfill import dynamodb, plan
from dbops.backfill.dynamodb import DynamoTarget
from dbops.backfill.journal import Journal
from dbops.backfill.source import open_source
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical, item_size
from dbops.keyvalue.rules import Names, Version, Write
from lab import mysql
from tests.backfill import dynamo_kit, journal_kit
from tests.backfill.dynamo_kit import Purse, write
from tests.lab import backfill_worker

pytestmark = pytest.mark.lab

NAMES = Names()
ROWS = 3_000


@dataclass
class Answer:
    """Stands in for one of HTTP."""

    status_code: int


@dataclass
class Faults:
    """Answers in place of calls (before-call), and answers that never arrive (after-call)."""

    plans: dict[str, list[Callable[[], tuple[int, dict[str, Any]]]]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    def before(self, model: Any, **_: Any) -> Any:
        self.calls[model.name] += 1
        plans = self.plans.get(model.name)
        if not plans:
            return None
        status, parsed = plans.pop(0)()
        return Answer(status), parsed

    def after(self, model: Any, http_response: Any, **_: Any) -> None:
        if self.lost[model.name] and not isinstance(http_response, Answer):
            self.lost[model.name] -= 1
            raise ReadTimeoutError(endpoint_url="http://dynamodb")


def error(code: str, status: int = 400, **more: Any) -> tuple[int, dict[str, Any]]:
    meta = {"HTTPStatusCode": status, "RequestId": "r"}
    return status, {"Error": {"Code": code, "Message": "told by the test"}, "ResponseMetadata": meta, **more}


@pytest.fixture
def account() -> str:
    return f"c{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(account: str) -> Any:
    made = backfill_worker.client(account)
    made.create_table(
        TableName="users", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}], AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )  # fmt: skip
    return made


@pytest.fixture
def faults(client: Any) -> Faults:
    made = Faults()
    client.meta.events.register("before-call.dynamodb", made.before)
    client.meta.events.register("after-call.dynamodb", made.after)
    return made


@pytest.fixture
def users(client: Any) -> Iterator[DynamoTarget]:
    with DynamoTarget(client, "users", dynamo_kit.VIEW, threads=4) as made:
        yield made


def scanned(target: DynamoTarget) -> dict[str, dict[str, Any]]:
    return {item["pk"]["S"]: item for segment in range(3) for page in target.scan(segment, 3) for item in page.items}


def test_faults_of_calls_change_no_outcome(users: DynamoTarget, faults: Faults) -> None:
    reasons = [
        {"reason": "TableWriteKeyRangeThroughputExceeded", "resource": "arn:aws:dynamodb:eu-central-1:1:table/users"}
    ]
    throttled = {"Code": "ProvisionedThroughputExceeded", "Message": "slow down"}
    faults.plans = {
        "BatchExecuteStatement": [
            lambda: error("ThrottlingException", throttlingReasons=reasons),
            lambda: error("InternalServerError", 500),
            lambda: (200, {"Responses": [{"Error": throttled}] * 25, "ResponseMetadata": {"HTTPStatusCode": 200}}),
        ],
        "PutItem": [lambda: error("ProvisionedThroughputExceededException", ThrottlingReasons=reasons)],
        "BatchGetItem": [lambda: error("ThrottlingException")],
    }
    faults.lost = Counter(BatchExecuteStatement=2, PutItem=1, BatchGetItem=1)
    purse = Purse()
    writes = [write(number) for number in range(100)]
    sent = users.write(writes, purse)
    assert all(outcome.is_written for outcome in sent.outcomes), sent.outcomes
    assert {pressure.kind for pressure in sent.pressures} == {"key_range", "server", "table"}
    assert {canonical(item) for item in scanned(users).values()} == {
        canonical(rules.document(w, NAMES)) for w in writes
    }
    assert sum(faults.lost.values()) == 0


def test_every_item_that_may_be_there_gets_its_outcome(users: DynamoTarget, client: Any) -> None:
    found: dict[int, dict[str, Any] | None] = {
        0: None, 1: rules.document(write(1, 1), NAMES), 2: rules.document(write(2, 5), NAMES), 3: rules.document(write(3, 9), NAMES),
        4: rules.document(dynamo_kit.tombstone(4, 5), NAMES), 5: dynamo_kit.key(5), 6: {**dynamo_kit.key(6), "_v": {"S": "0001"}},
        7: rules.document(dynamo_kit.tombstone(7, 4), NAMES),
    }  # fmt: skip
    for item in found.values():
        if item is not None:
            client.put_item(TableName="users", Item=item)
    live = users.write([write(number, 5) for number in found], Purse())
    assert [outcome.reason for outcome in live.outcomes] == [
        None, None, "equal", "newer", "tombstone", "unversioned", "unversioned", None,
    ]  # fmt: skip
    dead = users.write([dynamo_kit.tombstone(number, 5) for number in found], Purse())
    assert [outcome.reason for outcome in dead.outcomes] == [
        None, None, None, "newer", "tombstone", "unversioned", "unversioned", None,
    ]  # fmt: skip


def test_large_and_malformed_items_do_not_take_their_batch_with_them(users: DynamoTarget) -> None:
    writes = [write(number, name="x" * 390_000) for number in range(24)]
    largest = write(24, name="")
    room = dynamodb.ITEM_BYTES - item_size(rules.document(largest, NAMES))
    writes += [write(24, name="x" * room), write(25, name="x" * (room + 1))]
    writes += [write(26), Write(dynamo_kit.key(27), Version(1), {"name": {"N": "1e400"}}), write(28)]
    sent = users.write(writes, Purse())
    assert [place for place, outcome in enumerate(sent.outcomes) if not outcome.is_written] == [25, 27]
    assert "409,601 bytes" in sent.rejects[25]
    assert sent.rejects[27] == "DynamoDB refuses the item: ValidationException (Number overflow)"
    assert len(scanned(users)) == 27


def test_removal_takes_only_what_is_unchanged(users: DynamoTarget, client: Any) -> None:
    users.write([write(number, 2) for number in range(4)], Purse())
    users.write([write(1, 3, stamp="other")], Purse())
    users.write([dynamo_kit.tombstone(2, 2)], Purse())
    removed = [users.remove(dynamo_kit.key(number), Version(2), "run") for number in range(5)]
    assert removed == [True, False, False, True, False]
    assert scanned(users).keys() == {"USER#1", "USER#2"}


def test_a_scan_goes_on_where_it_was(users: DynamoTarget) -> None:
    users.write([write(number, name="x" * 40_000) for number in range(100)], Purse())
    pages = list(users.scan(0, 1))
    assert len(pages) > 2
    rest = list(users.scan(0, 1, pages[0].next))
    assert [page.items for page in rest] == [page.items for page in pages[1:]]
    assert pages[-1].next is None
    assert sum(len(page.items) for page in pages) == 100


def test_facts(users: DynamoTarget, client: Any) -> None:
    found = users.facts()
    assert (found.exists, found.state, found.key, found.billing) == (True, "ACTIVE", (("pk", "S"),), "PAY_PER_REQUEST")
    client.update_time_to_live(TableName="users", TimeToLiveSpecification={"Enabled": True, "AttributeName": "_exp"})
    assert users.facts().ttl_attribute == "_exp"
    assert not DynamoTarget(client, "nobody", dynamo_kit.VIEW, threads=1).facts().exists


@dataclass
class Stage:
    """A table of MySQL, its plan, and the folder of the journal."""

    folder: Path
    account: str
    journal: Journal
    plan_id: str
    target: DynamoTarget

    def start(self, owner: str, lease_s: float = 1.0) -> subprocess.Popen[str]:
        """A worker in a process of its own."""
        arguments = json.dumps({
            "plan_id": self.plan_id, "owner": owner, "journal": str(self.folder / "journal.db"), "account": self.account,
            "lease_s": lease_s, "page_rows": 50,
        })  # fmt: skip
        python_path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
        return subprocess.Popen(
            [sys.executable, "-m", "tests.lab.backfill_worker", arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": python_path},
        )  # fmt: skip

    def wait_for_progress(self, rows: int) -> int:
        """Until the journal has more rows than that."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (read := self.journal.tally(self.plan_id).read) > rows or not self.journal.counts(self.plan_id)[
                "planned"
            ]:
                return read
            time.sleep(0.02)
        raise AssertionError("no progress within 60 s")


@pytest.fixture
def stage(tmp_path: Path, account: str, client: Any) -> Iterator[Stage]:
    schema = backfill_worker.SCHEMA
    backfill_worker.make(ROWS)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'journal.db'}", connect_args={"timeout": 60})
    journal = Journal.open(engine)
    with closing(backfill_worker.connect()) as conn:
        source = open_source(conn, backfill_worker.spec(50))
        walked = plan.walk(conn, source, 400)
    made = journal_kit.a_plan("users", chunks=len(walked.chunks))
    journal.begin(made, walked.chunks, 7)
    with DynamoTarget(client, "users", source.view, threads=2) as target:
        yield Stage(tmp_path, account, journal, made.plan_id, target)
    engine.dispose()
    with closing(mysql.root_connection(backfill_worker.SERVER)) as conn, conn.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {schema}")


def test_workers_are_killed_again_and_again_and_every_row_arrives_once(stage: Stage) -> None:
    seen = 0
    for kill in range(4):
        worker = stage.start(f"victim {kill}")
        seen = stage.wait_for_progress(seen)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL or not stage.journal.counts(stage.plan_id)["planned"]
    pair = [stage.start(name) for name in ("left", "right")]
    ends = [worker.communicate(timeout=120)[0] for worker in pair]
    assert [worker.returncode for worker in pair] == [0, 0], ends
    assert [json.loads(text.splitlines()[-1])["end"] for text in ends] == ["done", "done"]
    tally = stage.journal.tally(stage.plan_id)
    assert stage.journal.counts(stage.plan_id) == {"planned": 0, "done": 8, "rolled_back": 0, "leased": 0}
    assert tally.read == ROWS
    assert tally.written + tally.equal == ROWS
    assert tally.equal < ROWS / 2  # only the pages under way were written again
    items = scanned(stage.target)
    assert len(items) == ROWS
    for number in range(1, ROWS + 1):
        item = items[f"USER#{number}"]
        assert (item["name"], item["_v"], item["_bf"]) == (
            {"S": f"name {number}"}, {"N": str(number)}, {"S": stage.plan_id},
        )  # fmt: skip


def test_a_worker_that_is_asked_to_end_gives_its_chunk_back(stage: Stage) -> None:
    worker = stage.start("polite", lease_s=60)
    stage.wait_for_progress(0)
    worker.send_signal(signal.SIGTERM)
    out = worker.communicate(timeout=60)[0]
    assert worker.returncode == 0
    assert json.loads(out.splitlines()[-1])["end"] in ("stop", "done")
    assert stage.journal.live_leases(stage.plan_id) == 0
    last = stage.start("last")
    assert last.wait(120) == 0
    last.communicate()
    assert stage.journal.tally(stage.plan_id).read == ROWS
