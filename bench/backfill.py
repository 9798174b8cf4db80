"""``python -m bench backfill``: the backfill's worker against a script of conditional PutItems and against boto3's batch_writer.

All ways read the same rows of MySQL and make the same items, each in a process and a table of its own, in turn. `backfill_run` has them.

DynamoDB Local answers in a fraction of a millisecond and works on one write of a table at a time; DynamoDB answers in a few
milliseconds and has no such limit. So there is a second part, through a proxy that adds a delay to each answer.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from bench import measure
from dbops.keyvalue.items import canonical
from lab import config, dynamodb, mysql
from lab.config import LabError

SERVER, SCHEMA, TABLE, TARGET = "mysql57", "bench_backfill", "rides", "rides"
NAIVE_SHARE = 5
"""The script copies every so manieth part of the rows, from the first on: it is slow."""
SMALLER, LARGER = 4, 5
"""Memory is also taken of a copy of so many times fewer, and so many times more rows."""
TO_NAIVE, TO_BATCH_WRITER = 8.0, 0.5
SAMPLE = 100
CHUNK = 64 * 1024
FILL = f"""
INSERT INTO {SCHEMA}.{TABLE} SELECT id + %(done)s, (id + %(done)s) * 7919 %% 100003, (id + %(done)s) %% 997,
    ELT(1 + (id + %(done)s) %% 3, 'booked', 'running', 'finished'), started_at + INTERVAL %(done)s SECOND,
    IF((id + %(done)s) %% 3 = 2, started_at + INTERVAL %(done)s + 900 SECOND, NULL), ((id + %(done)s) %% 10000) / 100,
    ((id + %(done)s) %% 50000) / 1000, REPEAT(CHAR(97 + (id + %(done)s) %% 26), (id + %(done)s) %% 80), id + %(done)s
FROM {SCHEMA}.{TABLE} ORDER BY id LIMIT %(rows)s
"""


def bench(rows: int, rounds: int, latency_ms: float, threads: int) -> dict[str, Any]:
    """Measure, print, and give the raw figures."""
    print(
        f"\n== backfill: {rows:,} rows of {SERVER} into DynamoDB Local, {threads} threads, {rounds} rounds in turn =="
    )
    make(rows * LARGER)
    results: list[dict[str, Any]] = []
    try:
        with TemporaryDirectory() as folder:
            for arm in ("store", "naive"):  # a server that has just started is not yet compiled
                one(arm, rows // 2, folder, threads)
            for _ in range(rounds):
                results += [
                    one(arm, rows, folder, threads)
                    for arm in ("naive", "engine", "batch_writer", "engine-blind", "store")
                ]
            sized = [one("engine", count, folder, threads) for count in (rows // SMALLER, rows * LARGER)]
            profile = one("engine", rows, folder, threads, is_profiled=True)["profile"]
            with delayed(latency_ms / 1000) as endpoint:
                far = [
                    one(arm, rows // SMALLER, folder, threads, endpoint=endpoint)
                    for _ in range(rounds)
                    for arm in ("naive", "engine", "batch_writer")
                ]
    finally:
        drop()
    print("\nOn the loopback, medians:")
    show(results)
    ratios = {"loopback": verdicts(results, rounds)}
    bottleneck(results, profile)
    engine = [each for each in (*results, *sized) if each["arm"] == "engine"]
    counts = sorted({each["rows"] for each in engine})
    peaks = {count: max(each["peak_rss_mb"] for each in engine if each["rows"] == count) for count in counts}
    print(f"\npeak memory of the engine: {', '.join(f'{peak} MB for {count:,} rows' for count, peak in peaks.items())}")
    print(f"\nWith {latency_ms:g} ms more for each answer:")
    show(far)
    ratios["delayed"] = verdicts(far, rounds)
    return {"rows": rows, "runs": results, "delayed": far, "profile": profile, "ratios": ratios, "peaks_mb": peaks}


def one(
    arm: str, rows: int, folder: str, threads: int, *, endpoint: str | None = None, is_profiled: bool = False
) -> dict[str, Any]:
    """One run in a process and an account of its own."""
    wanted = max(1, rows // NAIVE_SHARE) if arm == "naive" else rows
    account = f"bench{uuid.uuid4().hex[:12]}"
    client = dynamodb.client(account)
    client.create_table(
        TableName=TARGET, BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}], AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )  # fmt: skip
    arguments = {
        "arm": arm, "rows": wanted, "source": f"{SCHEMA}.{TABLE}", "target": TARGET, "threads": threads, "chunk_rows": 10_000,
        "endpoint": endpoint or config.dynamodb_endpoint(), "account": account, "journal": f"{folder}/journal.db",
        "is_profiled": is_profiled,
    }  # fmt: skip
    try:
        ran = measure.run_child([sys.executable, "-m", "bench.backfill_run"], text=json.dumps(arguments))
        found: dict[str, Any] = json.loads(ran.output.strip().splitlines()[-1])
        check(client, wanted)
    finally:
        client.delete_table(TableName=TARGET)
    found["rate"] = wanted / found["seconds"]
    print(f"{arm:13} {wanted:>8,} rows {found['seconds']:7.2f} s {found['rate']:9,.0f} items/s", flush=True)
    return found


def check(client: Any, rows: int) -> None:
    """Every way has to make the same items. Raises LabError for a missing one or another."""
    count = client.describe_table(TableName=TARGET)["Table"]["ItemCount"]
    if count != rows:
        raise LabError(f"{count:,} items of {rows:,} arrived")
    with closing(mysql.root_connection(SERVER, SCHEMA)) as conn, conn.cursor() as cursor:
        cursor.execute(
            f"SELECT id, version, user_id, note, CAST(started_at AS CHAR), price FROM {TABLE} WHERE id <= %s ORDER BY RAND(1) LIMIT %s",
            (rows, SAMPLE),
        )
        for number, version, user, note, started_at, price in cursor.fetchall():
            item = client.get_item(TableName=TARGET, Key={"pk": {"S": f"RIDE#{number}"}}, ConsistentRead=True)["Item"]
            wanted = {
                "_v": {"N": str(version)}, "user_id": {"N": str(user)}, "note": {"S": note}, "price": {"N": str(price)},
                "started_at": {"S": started_at.replace(" ", "T") + "Z"},
            }  # fmt: skip
            if canonical({name: item.get(name) for name in wanted}) != canonical(wanted):
                raise LabError(f"item of ride {number} is {item}, not {wanted}")


def show(results: Sequence[dict[str, Any]]) -> None:
    """A line for each way: rate, CPU of both sides for an item, how busy the server was."""
    lines = []
    for arm in dict.fromkeys(each["arm"] for each in results):
        runs = [each for each in results if each["arm"] == arm]
        rates = [each["rate"] for each in runs]
        lines.append((
            arm, measure.median(rates), f"{min(rates):,.0f}-{max(rates):,.0f}",
            measure.median([1e6 * each["client_cpu_s"] / each["rows"] for each in runs]),
            measure.median([1e6 * each["server_cpu_s"] / each["rows"] for each in runs]),
            measure.median([100 * each["server_cpu_s"] / each["seconds"] for each in runs]),
            max(each["peak_rss_mb"] for each in runs),
        ))  # fmt: skip
    headers = ("way", "items/s", "spread", "client us/item", "server us/item", "server CPU %", "peak RSS MB")
    print(measure.table(headers, lines))


def verdicts(results: Sequence[dict[str, Any]], rounds: int) -> dict[str, list[float]]:
    """Ratios within a round, and what was wanted of their median."""
    by_arm = {
        arm: [each["rate"] for each in results if each["arm"] == arm] for arm in ("naive", "batch_writer", "engine")
    }
    found = {}
    print()
    for other, wanted in (("naive", TO_NAIVE), ("batch_writer", TO_BATCH_WRITER)):
        ratios = [by_arm["engine"][each] / by_arm[other][each] for each in range(rounds)]
        reached = "reached" if measure.median(ratios) >= wanted else "NOT reached"
        print(
            f"engine : {other} = {measure.median(ratios):.2f} (rounds {measure.spread(ratios)}); target {wanted}: {reached}"
        )
        found[other] = ratios
    return found


def bottleneck(results: Sequence[dict[str, Any]], profile: dict[str, int]) -> None:
    """Say what the engine waits for."""
    rate = {
        arm: measure.median([each["rate"] for each in results if each["arm"] == arm])
        for arm in ("engine", "engine-blind", "store")
    }
    total = sum(profile.values()) or 1
    print(
        f"\nwhat the store takes when nothing is read or converted: {rate['store']:,.0f} items/s; the engine reaches "
        f"{100 * rate['engine-blind'] / rate['store']:.0f} % of it without reading back, "
        f"{100 * rate['engine'] / rate['store']:.0f} % with it"
    )
    print("busy threads of the engine, by samples of their stacks:")
    for place, count in sorted(profile.items(), key=lambda each: -each[1]):
        print(f"  {100 * count / total:5.1f} %  {place}")


def make(rows: int) -> None:
    """The table, the same for the same number of rows."""
    drop()
    with closing(mysql.root_connection(SERVER)) as conn, conn.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(f"CREATE DATABASE {SCHEMA}")
        cursor.execute(f"GRANT SELECT ON {SCHEMA}.* TO {config.MYSQL_USER}")
        cursor.execute(
            f"CREATE TABLE {SCHEMA}.{TABLE} (id BIGINT UNSIGNED PRIMARY KEY, user_id BIGINT NOT NULL, car_id INT NOT NULL, "
            "status ENUM('booked', 'running', 'finished') NOT NULL, started_at DATETIME(6) NOT NULL, ended_at DATETIME(6), "
            "price DECIMAL(10, 2) NOT NULL, distance_km DECIMAL(8, 3), note VARCHAR(200) CHARACTER SET utf8mb4, "
            "version BIGINT UNSIGNED NOT NULL)"
        )
        cursor.execute(
            f"INSERT INTO {SCHEMA}.{TABLE} VALUES (1, 17, 3, 'finished', '2026-01-01 10:00:00.123456', NULL, 12.5, 3.25, 'a', 1)"
        )
        done = 1
        while done < rows:
            some = min(done, rows - done)
            cursor.execute(FILL, {"done": done, "rows": some})
            done += some
        conn.commit()
        cursor.execute(f"ANALYZE TABLE {SCHEMA}.{TABLE}")
        cursor.fetchall()


def drop() -> None:
    """Remove the bench's schema."""
    with closing(mysql.root_connection(SERVER)) as conn, conn.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(f"DROP DATABASE IF EXISTS {SCHEMA}")


@contextmanager
def delayed(seconds: float) -> Iterator[str]:
    """An address that leads to DynamoDB Local, with each answer so much later."""
    to = (config.HOST, config.port("dynamodb"))
    listener = socket.create_server((config.HOST, 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(to)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = threading.Event()
            threading.Thread(target=_pump, args=(client, server, asked.set), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, _Late(asked, seconds)), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://{config.HOST}:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()


class _Late:
    """Waits before the first bytes of the answer to what was asked."""

    def __init__(self, asked: threading.Event, seconds: float) -> None:
        self.asked, self.seconds = asked, seconds

    def __call__(self) -> None:
        if self.asked.is_set():
            self.asked.clear()
            time.sleep(self.seconds)


def _pump(source: socket.socket, sink: socket.socket, before: Callable[[], None]) -> None:
    """Carry bytes one way."""
    try:
        while data := source.recv(CHUNK):
            before()
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for each in (source, sink):
            each.close()
