"""``python -m bench backfill-redis``: the conditional pipelines of the backfill against redis-benchmark, which only sets keys."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import Any

from bench import measure
from bench.measure import median, table
from dbops.keyvalue.stores import PUT_LUA
from lab import config
from lab.config import LabError

ITEMS = 100_000
PIPELINE = 64
CLIENTS = 8
LAYOUTS = ("hash", "string")
WANTED = 0.5
SCRIPT = "script: redis-py's cluster pipeline, SET"


def bench(rounds: int, items: int = ITEMS) -> dict[str, Any]:
    """Each way in turn, `rounds` times, over the same keys of the lab's Redis."""
    binary = shutil.which("redis-benchmark")
    if binary is None:
        raise LabError("redis-benchmark is missing: run `apt-get install -y redis-tools`")
    shapes = {layout: _ours(layout, 1)["bytes"] for layout in LAYOUTS}
    print(
        f"\n== backfill-redis: {items:,} items of 10 columns ({shapes['string']} bytes as JSON) into the lab's Redis, {rounds} rounds ==",
        flush=True,
    )
    runs: list[dict[str, Any]] = []
    for number in range(rounds):
        ways = [
            *(("redis-benchmark SET", lambda: _theirs(binary, items, ["set"], shapes["string"])),),
            *((f"redis-benchmark EVALSHA {layout}", lambda layout=layout: _theirs_script(binary, items, layout)) for layout in LAYOUTS),
            (SCRIPT, lambda: _ours("script", items)),
            *((f"dbops {layout}", lambda layout=layout: _ours(layout, items)) for layout in LAYOUTS),
        ]  # fmt: skip
        for name, run in ways if number % 2 == 0 else ways[::-1]:
            with measure.cpu_account() as cpu:
                found = run()
            runs.append({"way": name, "round": number, "redis_cpu_s": cpu.services["redis"], **found})
    _print(runs, items)
    return {"items": items, "runs": runs}


def _ours(layout: str, items: int) -> dict[str, Any]:
    arguments = json.dumps({"layout": layout, "items": items, "threads": CLIENTS})
    child = measure.run_child([sys.executable, "-m", "bench.backfill_redis_run"], text=arguments)
    found: dict[str, Any] = json.loads(child.output.splitlines()[-1])
    return {**found, "peak_rss_mb": child.peak_rss_mb}


def _theirs(binary: str, items: int, command: list[str], size: int | None = None) -> dict[str, Any]:
    words = [binary, "-h", config.HOST, "-p", str(config.port("redis")), "-P", str(PIPELINE), "-c", str(CLIENTS)]
    words += ["-n", str(items), "-r", str(items), "-q", *(["-d", str(size), "-t"] if size else []), *command]
    child = measure.run_child(words)
    rates = re.findall(r"([0-9.]+) requests per second", child.output)
    if not rates:
        raise LabError(f"redis-benchmark said no rate: {child.output[-300:]}")
    return {"items_per_s": float(rates[-1]), "client_cpu_s": child.cpu_s, "peak_rss_mb": child.peak_rss_mb}


def _theirs_script(binary: str, items: int, layout: str) -> dict[str, Any]:
    """The same command with the same words from a client in C, keys at random: what the server's script allows."""
    words = _ours(layout, 1)["command"]
    import redis

    client = redis.Redis(config.HOST, config.port("redis"))
    client.script_load(PUT_LUA)
    client.flushall()
    client.close()
    words[3] = "bench:__rand_int__"
    return _theirs(binary, items, words)


def _print(runs: list[dict[str, Any]], items: int) -> None:
    ways = list(dict.fromkeys(run["way"] for run in runs))
    middle = {
        way: {
            key: median([run[key] for run in runs if run["way"] == way])
            for key in ("items_per_s", "client_cpu_s", "redis_cpu_s", "peak_rss_mb")
        }
        for way in ways
    }
    plain = middle[ways[0]]["items_per_s"]
    print(table(
        ["way", "items/s", "of SET", "client CPU us/item", "redis CPU us/item", "peak RSS MB"],
        [
            [way, m["items_per_s"], m["items_per_s"] / plain, m["client_cpu_s"] / items * 1e6, m["redis_cpu_s"] / items * 1e6,
             int(m["peak_rss_mb"])]
            for way, m in middle.items()
        ],
    ))  # fmt: skip
    for layout in LAYOUTS:
        ours, script = middle[f"dbops {layout}"], middle[f"redis-benchmark EVALSHA {layout}"]
        ratio = ours["items_per_s"] / plain
        bound = "client" if ours["client_cpu_s"] > ours["redis_cpu_s"] else "server"
        print(
            f"{layout}: {ratio:.2f} of the rate of SET ({'kept' if ratio >= WANTED else 'not kept'}: {WANTED}); "
            f"{ours['items_per_s'] / script['items_per_s']:.2f} of the same script sent by a client in C, "
            f"{ours['items_per_s'] / middle[SCRIPT]['items_per_s']:.1f} times a script's unconditional SETs; the {bound} is what is busy"
        )
