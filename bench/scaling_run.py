"""One process of the bench ``scaling``: measures what the steps of a copy cost. Reads its arguments as JSON, prints a JSON object.

Started by bench.scaling in the lab's Airflow environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import psutil

from bench import measure
from dbops import connections
from dbops.backfill import copying
from dbops.backfill import dynamodb as store
from dbops.backfill import source as reading
from dbops.backfill.journal import Journal
from dbops.backfill.pacing import SMALLEST_GRANT_S, Bucket
from dbops.backfill.records import Plan, PlannedChunk, Tally
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import Pressure
from dbops.keyvalue import items, rules
from dbops.keyvalue.items import Digest
from dbops.keyvalue.rules import Write
from lab import config, dynamodb, processes

ACCOUNT = "benchscaling"
TABLE = "bench_rides"
CHUNKS = 40
LEASE_S = 60.0
GRANTS, GRANTING = 25, 8
TAKEN, THREADS = 2_000, 8
SERVERS = ("mysql57", "mysql80", "dynamodb")


class Free:
    """A pace without limit."""

    def spend(self, units: float) -> None:
        """At once."""

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        """Nothing turns writes away here."""


def spec(**limits: Any) -> BackfillSpec:
    """The bench's rides as items."""
    columns = "id, member_id, car_id, status, started_at, ended_at, distance_km, price, rating, comment, version"
    selected = ", ".join(f"r.{name.strip()}" for name in columns.split(","))
    return BackfillSpec.model_validate(
        {
            "name": TABLE,
            "description": "rides of the bench",
            "owner": "bench",
            "view": {
                "sql": f"SELECT {selected} FROM {config.SOURCE_SCHEMA}.{TABLE} AS r WHERE {{chunk}}",
                "table": f"{config.SOURCE_SCHEMA}.{TABLE}",
                "alias": "r",
            },
            "version": {"column": "version"},
            "target": {"kind": "dynamodb", "table": TABLE, "key": {"pk": "RIDE#{id}"}},
            "limits": limits,
            "live": {"since": "2026-01-01T00:00:00Z", "applications": ["bench"], "stream": "none: nobody else writes"},
        }
    )


def client(threads: int) -> Any:
    """A client for the bench's own account of DynamoDB Local."""
    import boto3

    return boto3.client(
        "dynamodb", endpoint_url=config.dynamodb_endpoint(), region_name=config.AWS_REGION, aws_access_key_id=ACCOUNT,
        aws_secret_access_key=config.AWS_SECRET, config=store.client_config(threads),
    )  # fmt: skip


def empty_table() -> None:
    """The target without an item."""
    account = dynamodb.client(ACCOUNT)
    if TABLE in account.list_tables()["TableNames"]:
        account.delete_table(TableName=TABLE)
    account.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )


class Meter:
    """Seconds, own CPU and CPU of the servers, of each step and round."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, float]]] = {}
        self._servers = [measure.service(name) for name in SERVERS if processes.find(name)]

    @contextmanager
    def step(self, name: str, count: int) -> Iterator[None]:
        """Measure the block, which does something `count` times."""
        servers, cpu, began = self._server_cpu(), time.process_time(), time.perf_counter()
        yield
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        one = {"seconds": seconds / count, "cpu_s": used / count}
        one |= {f"{server}_cpu_s": (now - servers[server]) / count for server, now in self._server_cpu().items()}
        self.found.setdefault(name, []).append(one)

    def _server_cpu(self) -> dict[str, float]:
        found = {}
        for name, process in zip(SERVERS, self._servers, strict=True):
            times: Any = psutil.Process(process.pid).cpu_times()
            found[name] = float(times.user + times.system)
        return found


def costs(rows: int, rounds: int, page_rows: int, threads: int) -> dict[str, Any]:
    """Measure every step on the same rows, one after the other in each round."""
    meter, asked = Meter(), spec()
    with closing(connections.mysql()) as conn:
        source = reading.open_source(conn, asked)
        last = source.last_key(conn)
        assert last is not None
        warm = _pages(source, conn, last, page_rows)
        writes = [row.write for row in warm[:rows] if row.write is not None]
        assert len(writes) == rows, (len(writes), rows)
        for _ in range(rounds):
            _round(meter, source, conn, last, writes, page_rows, threads)
    documents = [rules.document(write, source.names) for write in writes]
    sizes = [items.item_size(one) for one in documents]
    return {
        "steps": meter.found,
        "item_bytes": sum(sizes) / rows,
        "units": sum(items.write_units(one) for one in documents) / rows,
    }


def _round(
    meter: Meter, source: Source, conn: Any, last: tuple[str, ...], writes: list[Write], page_rows: int, threads: int
) -> None:
    rows = len(writes)
    with meter.step("read: both statements of a page", rows), conn.cursor() as cursor:
        low = None
        while low != last:
            high = source.nth_key(conn, low, page_rows) or last
            cursor.execute(source.page_sql(low, high))
            cursor.fetchall()
            low = high
    with meter.step("page: read, codec, key", rows):
        _pages(source, conn, last, page_rows)
    view = source.view
    values = [view.row({**write.key, **(write.attributes or {})}) for write in writes]
    with meter.step("codec", rows):
        for row in values:
            view.attributes(row)
    with meter.step("key template", rows):
        for row in values:
            view.key(row)
    whole = [{**write.key, **(write.attributes or {})} for write in writes]
    with meter.step("canonical hash", rows):
        for item in whole:
            items.item_hash(item)
    empty_table()
    some = [writes[first : first + page_rows] for first in range(0, rows, page_rows)]
    with store.DynamoTarget(client(threads), TABLE, view, threads=threads) as target:
        target.read([writes[0].key])
        with meter.step("write: PartiQL INSERT of 25", rows):
            for page in some:
                sent = target.write(page, Free())
                assert all(one.is_written for one in sent.outcomes)
        with meter.step("write again: all equal", rows):
            for page in some:
                sent = target.write(page, Free())
                assert {one.reason for one in sent.outcomes} == {"equal"}
        with meter.step("read back: BatchGetItem of 100", rows):
            for page in some:
                assert None not in target.read([write.key for write in page])
    with store.DynamoTarget(client(1), TABLE, view, threads=1) as target:
        target.read([writes[0].key])
        few = writes[: 40 * 25]
        with meter.step("a request of 25, alone", 40):
            for first in range(0, len(few), 25):
                target.write([*few[first : first + 25]], Free())
    _journal(meter)
    _bucket(meter)


def _pages(source: Source, conn: Any, last: tuple[str, ...], page_rows: int) -> list[SourceRow]:
    found, low, is_end = [], None, False
    while not is_end:
        page = source.page(conn, low, last, page_rows, "bench")
        found += page.rows
        low, is_end = page.last, page.is_end
    return found


def _journal(meter: Meter) -> None:
    """What the journal is asked for each chunk."""
    journal = Journal.open(connections.engine())
    plan_id = f"{TABLE}-{os.getpid()}-{time.monotonic_ns()}"
    if left := journal.open_plan(TABLE):
        journal.set_state(left.plan_id, "abandoned", expected=[left.state])
    now = datetime.now(UTC)
    plan = Plan(plan_id, TABLE, "0" * 64, "copying", now, "bench", "bench", CHUNKS * 10, CHUNKS)
    chunks = [PlannedChunk(n, (str(n),) if n else None, (str(n + 1),), 10) for n in range(CHUNKS)]
    with meter.step("journal: begin, for each chunk", CHUNKS):
        journal.begin(plan, chunks, 1)
    tally = Tally(read=10, written=10, digest=Digest(10, 1))
    with meter.step("journal: claim", CHUNKS):
        claimed = [journal.claim(plan_id, "bench", LEASE_S) for _ in range(CHUNKS)]
    held = [one for one in claimed if one is not None]
    assert len(held) == CHUNKS
    with meter.step("journal: checkpoint", CHUNKS):
        held = [journal.checkpoint(one, "bench", one.high, tally, LEASE_S) for one in held]
    with meter.step("journal: heartbeat", CHUNKS):
        for one in held:
            journal.beat(one, "bench", LEASE_S)
    with meter.step("journal: finish", CHUNKS):
        for one in held:
            journal.finish(one, "bench", tally)
    journal.set_state(plan_id, "abandoned", expected=["copying"])


class Skipping:
    """A clock that is moved on where somebody would wait, so that a grant takes only what asking for it takes."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return time.monotonic() + self.skipped

    def wait(self, seconds: float) -> bool:
        """At once."""
        self.skipped += seconds
        return False


def _bucket(meter: Meter) -> None:
    """Grants of as many tasks at once as there are: all change the same row."""
    engine, name = connections.engine(), f"bench:{os.getpid()}:{time.monotonic_ns()}"

    def draw(count: int) -> None:
        clock = Skipping()
        pace = Bucket(engine, name, 1e6, tasks=GRANTING * 100, max_wait_s=1e9, wait=clock.wait, monotonic=clock)
        for _ in range(count):
            pace.spend(1e6 * SMALLEST_GRANT_S)

    draw(1)
    with meter.step("bucket: grant, one task", GRANTS):
        draw(GRANTS)
    with (
        ThreadPoolExecutor(GRANTING) as pool,
        meter.step(f"bucket: grant, {GRANTING} tasks at once", GRANTS * GRANTING),
    ):
        for one in [pool.submit(draw, GRANTS) for _ in range(GRANTING)]:
            one.result()


def plan(chunk_rows: int) -> dict[str, Any]:
    """A plan over the whole table, an empty target, how many rows a second that takes and gives back just now, and on how much CPU."""
    asked, journal = spec(chunk_rows=chunk_rows), Journal.open(connections.engine())
    if left := journal.open_plan(TABLE):
        journal.set_state(left.plan_id, "abandoned", expected=[left.state])
    with closing(connections.mysql()) as conn:
        source, chunks, low = reading.open_source(conn, asked), [], None
        last = source.last_key(conn)
        while last is not None and low != last:
            high = source.nth_key(conn, low, chunk_rows) or last
            chunks.append(PlannedChunk(len(chunks), low, high, chunk_rows))
            low = high
        takes, cores = _takes(source, conn)
    empty_table()
    plan_id = f"{TABLE}-{os.getpid()}-{time.monotonic_ns()}"
    made = Plan(
        plan_id,
        TABLE,
        asked.rule_digest(),
        "copying",
        datetime.now(UTC),
        "bench",
        "bench",
        chunk_rows * len(chunks),
        len(chunks),
    )
    journal.begin(made, chunks, 1)
    return {"plan_id": plan_id, "takes": takes, "cores": cores}


def _takes(source: Source, conn: Any) -> tuple[float, float]:
    empty_table()
    last = source.nth_key(conn, None, TAKEN) or source.last_key(conn)
    assert last is not None
    writes = [row.write for row in source.page(conn, None, last, TAKEN, "bench").rows if row.write is not None]
    with store.DynamoTarget(client(THREADS), TABLE, source.view, threads=THREADS) as target:
        target.read([writes[0].key])
        meter = Meter()
        with meter.step("takes", len(writes)):
            target.write(writes, Free())
            target.read([write.key for write in writes])
    (one,) = meter.found["takes"]
    return 1 / one["seconds"], (one["cpu_s"] + one["dynamodb_cpu_s"]) / one["seconds"]


def copy(asked: dict[str, Any]) -> dict[str, Any]:
    """One task of a copy: says that it is ready, begins when it is told to."""
    limits = {name: asked[name] for name in ("threads", "tasks", "chunk_rows", "page_rows", "page_s")}
    engine = connections.engine()
    with closing(connections.mysql()) as conn:
        source = reading.open_source(conn, spec(**limits))
    limit = asked["units_per_s"]
    pace = Bucket(engine, asked["plan_id"], limit, tasks=asked["tasks"]) if limit else Free()
    with store.DynamoTarget(client(asked["threads"]), TABLE, source.view, threads=asked["threads"]) as target:
        target.read([{"pk": {"S": "none"}}])
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.time()
        print(json.dumps({"began": began}), flush=True)
        done = copying.copy(
            Journal.open(engine), source, connections.mysql, target, pace, lambda: 0.0, asked["plan_id"], asked["owner"],
            lease_s=asked["lease_s"],
        )  # fmt: skip
    assert done.end == "done", done
    return {"began": began, "ended": time.time(), "rows": done.tally.read}


def told(plan_id: str) -> dict[str, Any]:
    """What the journal holds of a plan."""
    journal = Journal.open(connections.engine())
    tally, counts = journal.tally(plan_id), journal.counts(plan_id)
    journal.set_state(plan_id, "abandoned", expected=["copying"])
    return {
        "read": tally.read,
        "written": tally.written,
        "equal": tally.equal,
        "checked": tally.checked,
        "chunks": counts,
    }


def main() -> None:
    """Do what the first line of standard input asks for."""
    asked = json.loads(sys.stdin.readline())
    match asked.pop("what"):
        case "costs":
            found = costs(**asked)
        case "plan":
            found = plan(**asked)
        case "copy":
            found = copy(asked)
        case "told":
            found = told(**asked)
        case other:
            raise SystemExit(f"bench.scaling_run: {other!r} is unknown")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
