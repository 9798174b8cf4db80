"""One way to bring the rows of the bench's table into DynamoDB, in one process. Started by bench.backfill; arguments and result are JSON.

naive          a script: one PutItem after the other, on condition that the item is not there; boto3's resource with its defaults
batch_writer   a script: boto3's batch_writer, which knows no conditions
engine         the worker of the backfill: journal, pages, codec, conditional writes in batches, read back, checkpoints
engine-blind   the same without reading back
store          only the target's writes, of rows that are in memory already: what the store takes
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import measure
from dbops import connections
from dbops.backfill import copying, dynamodb
from dbops.backfill.journal import Journal
from dbops.backfill.records import Plan, PlannedChunk
from dbops.backfill.source import Source, open_source
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import Pressure
from dbops.keys import Key
from dbops.keyvalue.rules import Write
from lab import config

PLAN = "bench_backfill"
SAMPLE_S = 0.005
# Where a thread is, by the innermost frame that tells.
PLACES = (
    ("waiting for DynamoDB", ("/ssl.py", "/socket.py", "/http/client.py")),
    ("MySQLdb", ("/MySQLdb/",)),
    ("botocore, urllib3", ("/botocore/", "/boto3/", "/urllib3/", "/s3transfer/")),
    ("codec, items, rules", ("/dbops/keyvalue/",)),
    ("journal", ("/sqlalchemy/", "/dbops/backfill/journal.py", "/dbops/backfill/tables.py")),
    ("source", ("/dbops/backfill/source.py", "/dbops/sql.py", "/dbops/keys.py")),
    ("target", ("/dbops/backfill/dynamodb.py",)),
    ("worker", ("/dbops/backfill/copying.py", "/dbops/backfill/worker.py")),
)
IDLE = ("/threading.py", "/concurrent/futures/thread.py", "/concurrent/futures/_base.py", "/queue.py")


class Free:
    """A pace without a limit."""

    def spend(self, units: float) -> None:
        """Nothing to wait for."""

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        """The store of the bench turns nothing away."""
        raise AssertionError(pressure)


def spec(schema: str, table: str, target: str, chunk_rows: int, threads: int) -> BackfillSpec:
    """The view that is copied."""
    return BackfillSpec.model_validate({
        "name": PLAN,
        "description": "rows of the bench",
        "owner": "bench",
        "view": {
            "sql": "SELECT r.id, r.user_id, r.car_id, r.status, r.started_at, r.ended_at, r.price, r.distance_km, r.note, r.version"
            f" FROM {schema}.{table} AS r WHERE {{chunk}}",
            "table": f"{schema}.{table}",
            "alias": "r",
        },
        "version": {"column": "version"},
        "target": {"kind": "dynamodb", "table": target, "key": {"pk": "RIDE#{id}"}},
        "limits": {"chunk_rows": chunk_rows, "threads": threads, "max_lag_s": None},
        "live": {"since": "2026-01-01T00:00:00Z", "applications": ["bench"], "stream": "none"},
    })  # fmt: skip


def client(arguments: dict[str, Any], kind: str = "client") -> Any:
    """boto3's client, or its resource, of the lab's DynamoDB; a script takes the defaults."""
    import boto3
    from botocore.config import Config

    own = dynamodb.client_config(arguments["threads"]) if kind == "client" else Config()
    return getattr(boto3, kind)(
        "dynamodb", endpoint_url=arguments["endpoint"], region_name=config.AWS_REGION,
        aws_access_key_id=arguments["account"], aws_secret_access_key=config.AWS_SECRET, config=own.merge(Config(proxies={})),
    )  # fmt: skip


def scripted(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows as a script reads and converts them."""
    import MySQLdb.cursors

    with closing(connections.mysql()) as conn, conn.cursor(MySQLdb.cursors.SSDictCursor) as cursor:
        cursor.execute(f"SELECT * FROM {arguments['source']} ORDER BY id LIMIT {arguments['rows']}")
        for row in cursor:
            item = {"pk": f"RIDE#{row['id']}", "_v": row.pop("version")}
            for name, value in row.items():
                if isinstance(value, datetime):
                    item[name] = value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                elif value is not None:
                    item[name] = value
            yield item


def naive(arguments: dict[str, Any]) -> None:
    """One conditional PutItem after the other."""
    from boto3.dynamodb.conditions import Attr

    table = client(arguments, "resource").Table(arguments["target"])
    for item in scripted(arguments):
        table.put_item(Item=item, ConditionExpression=Attr("pk").not_exists())


def batch_writer(arguments: dict[str, Any]) -> None:
    """boto3's own batches, which overwrite."""
    with client(arguments, "resource").Table(arguments["target"]).batch_writer() as batch:
        for item in scripted(arguments):
            batch.put_item(Item=item)


def planned(source: Source, rows: int, chunk_rows: int) -> list[PlannedChunk]:
    """Chunks of the first rows; their ids begin with 1 and have no gaps."""
    chunks: list[PlannedChunk] = []
    with closing(connections.mysql()) as conn:
        low: Key | None = None
        last: Key = (str(rows),)
        while low != last:
            high = source.nth_key(conn, low, chunk_rows) or last
            high = min(high, last, key=lambda key: int(key[0]))
            chunks.append(PlannedChunk(len(chunks), low, high, chunk_rows))
            low = high
    return chunks


def engine(arguments: dict[str, Any], source: Source, journal: Journal, *, is_checked: bool) -> None:
    """The worker."""
    with dynamodb.DynamoTarget(
        client(arguments), arguments["target"], source.view, threads=arguments["threads"]
    ) as target:
        done = copying.copy(
            journal, source, connections.mysql, target, Free(), lambda: 0.0, PLAN, "bench", is_checked=is_checked
        )
    assert done.end == "done", done
    assert done.tally.written == arguments["rows"] == done.tally.read, done.tally


def store(arguments: dict[str, Any], source: Source, writes: list[Write]) -> None:
    """The target alone."""
    with dynamodb.DynamoTarget(
        client(arguments), arguments["target"], source.view, threads=arguments["threads"]
    ) as target:
        for begin in range(0, len(writes), 1000):
            sent = target.write(writes[begin : begin + 1000], Free())
            assert all(outcome.is_written for outcome in sent.outcomes)


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy, and say what it took. Libraries are loaded, plan and connection are there before the clock starts."""
    arm, schema, table = arguments["arm"], *arguments["source"].split(".")
    copied = spec(schema, table, arguments["target"], arguments["chunk_rows"], arguments["threads"])
    with closing(connections.mysql()) as conn:
        source = open_source(conn, copied)
        writes: list[Write] = []
        if arm == "store":
            last = source.last_key(conn)
            assert last is not None
            page = source.page(conn, None, last, arguments["rows"], PLAN)
            writes = [row.write for row in page.rows if row.write]
    client(arguments, "resource")
    path = Path(arguments["journal"])
    path.unlink(missing_ok=True)
    import sqlalchemy

    journal = Journal.open(sqlalchemy.create_engine(f"sqlite:///{path}"))
    if arm.startswith("engine"):
        chunks = planned(source, arguments["rows"], arguments["chunk_rows"])
        now = datetime.now(UTC)
        plan = Plan(PLAN, PLAN, copied.rule_digest(), "planned", now, "", "", arguments["rows"], len(chunks))
        journal.begin(plan, chunks, 1)
    work = {
        "naive": lambda: naive(arguments),
        "batch_writer": lambda: batch_writer(arguments),
        "engine": lambda: engine(arguments, source, journal, is_checked=True),
        "engine-blind": lambda: engine(arguments, source, journal, is_checked=False),
        "store": lambda: store(arguments, source, writes),
    }[arm]
    server = measure.service("dynamodb")
    server_cpu, cpu, began = sum(server.cpu_times()[:2]), time.process_time(), time.monotonic()
    base_mb = measure.peak_rss_mb()
    with profiled(arguments.get("is_profiled", False)) as profile:
        work()
    seconds = time.monotonic() - began
    return {
        "arm": arm, "rows": arguments["rows"], "seconds": seconds, "client_cpu_s": time.process_time() - cpu,
        "server_cpu_s": sum(server.cpu_times()[:2]) - server_cpu, "base_rss_mb": base_mb, "peak_rss_mb": measure.peak_rss_mb(),
        "profile": dict(profile),
    }  # fmt: skip


@contextmanager
def profiled(is_wanted: bool) -> Iterator[Counter[str]]:
    """Where threads are that are not idle, by samples of their stacks."""
    found: Counter[str] = Counter()
    if not is_wanted:
        yield found
        return
    ended, me = threading.Event(), threading.get_ident()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            for ident, frame in sys._current_frames().items():
                if ident not in (threading.get_ident(), me) and (place := place_of(frame)):
                    found[place] += 1

    thread = threading.Thread(target=sample)
    thread.start()
    yield found
    ended.set()
    thread.join()


def place_of(frame: Any) -> str:
    """What a thread is at; empty for one that has nothing to do."""
    file = frame.f_code.co_filename
    if file.endswith(IDLE):
        return ""
    while frame is not None:
        file = frame.f_code.co_filename
        for place, parts in PLACES:
            if any(part in file for part in parts):
                return place
        frame = frame.f_back
    return "others"


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.stdin.read()))))
