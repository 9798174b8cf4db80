"""``python -m bench scaling``: what the steps of a backfill cost here, and what follows from that for many rows and many tasks.

Each step is measured on the same rows in one process, in rounds; the medians go into :mod:`bench.simulation`. What cannot be measured
here, because it is DynamoDB's and not the lab's, is an assumption that the output names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import measure, scaling_run, simulation
from bench.measure import median, table
from bench.simulation import Costs, Result, Setting
from lab import config, env, mysql, seed
from lab.config import LabError

SERVER, JOURNAL = "mysql57", "mysql80"
TABLE = scaling_run.TABLE
PAGE_ROWS, THREADS = 1_000, 8
SIZES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
TASKS = (1, 4, 16, 64, 256)
CALL_S = 0.010
"""Assumed: a request of 25 statements over the network to DynamoDB, beyond the task's own CPU."""
SOURCE_CORES = 1.0
"""Assumed: cores of the source server that the copy may use."""
STORES = (("new on-demand table", 4, 4_000.0), ("warmed up, default quota", 40, 40_000.0))
"""Name, partitions, write units a second of the limiter."""


def bench(rows: int, rounds: int) -> dict[str, Any]:
    """Measure the steps, print them and what follows."""
    print(f"\n== scaling: {rows:,} rows of {config.SOURCE_SCHEMA}.{TABLE} on {SERVER}, {rounds} rounds ==", flush=True)
    make(rows)
    try:
        found = measured(rows, rounds)
        print_steps(found)
        costs = costs_of(found)
        print_costs(costs, found)
        projected = project(costs, found)
        checked = validate(rows, costs, found)
    finally:
        mysql.execute(SERVER, [f"DROP TABLE IF EXISTS {config.SOURCE_SCHEMA}.{TABLE}"])
    return {**found, "costs": asdict(costs), "projection": projected, "validation": checked}


def make(rows: int) -> None:
    """The source table with exactly so many rows, each with a version."""
    seed.seed(SERVER, 10_000)
    columns = "member_id, car_id, status, started_at, ended_at, distance_km, price, rating, comment"
    with mysql.root_connection(SERVER, config.SOURCE_SCHEMA) as conn, conn.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        cursor.execute(f"CREATE TABLE {TABLE} LIKE rides")
        cursor.execute(f"ALTER TABLE {TABLE} ADD COLUMN version BIGINT UNSIGNED NOT NULL DEFAULT 1")
        made = 0
        while made < rows:
            made += cursor.execute(
                f"INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM rides ORDER BY id LIMIT {min(10_000, rows - made)}"
            )
            conn.commit()
        cursor.execute(f"ANALYZE TABLE {TABLE}")
        cursor.fetchall()


def measured(rows: int, rounds: int) -> dict[str, Any]:
    """Steps as a process of its own measures them."""
    asked = {"what": "costs", "rows": rows, "rounds": rounds, "page_rows": PAGE_ROWS, "threads": THREADS}
    child = measure.run_child([sys.executable, "-m", "bench.scaling_run"], text=json.dumps(asked))
    return {**json.loads(child.output.splitlines()[-1]), "peak_rss_mb": child.peak_rss_mb}


def of(found: dict[str, Any], step: str, what: str = "cpu_s") -> float:
    """Median over the rounds, in seconds."""
    return median([one[what] for one in found["steps"][step]])


def least(found: dict[str, Any], step: str, what: str = "seconds") -> float:
    """Smallest of the rounds: a time on the clock that the rest of the machine disturbed least."""
    return float(min(one[what] for one in found["steps"][step]))


def costs_of(found: dict[str, Any], call_s: float = CALL_S) -> Costs:
    """What the simulation takes: tasks with a core of their own, servers on machines of theirs."""
    read = "read: both statements of a page"
    return Costs(
        read_s=max(0.0, least(found, read) - least(found, read, "cpu_s")),
        cpu_s=of(found, "page: read, codec, key")
        + of(found, "write: PartiQL INSERT of 25")
        + of(found, "read back: BatchGetItem of 100")
        + 2 * of(found, "canonical hash"),
        call_s=call_s,
        units=found["units"],
        claim_s=least(found, "journal: claim"),
        checkpoint_s=least(found, "journal: checkpoint"),
        journal_cpu_s=of(found, "journal: checkpoint", f"{JOURNAL}_cpu_s"),
        # All change one row, so the server does them one after the other; that its clients wait for this machine's CPU is not its doing.
        grant_s=of(found, f"bucket: grant, {scaling_run.GRANTING} tasks at once", f"{JOURNAL}_cpu_s"),
    )


def print_steps(found: dict[str, Any]) -> None:
    """The medians of the steps."""
    rows = []
    for step, rounds in found["steps"].items():
        values = [one["cpu_s"] * 1e6 for one in rounds]
        servers = [of(found, step, f"{name}_cpu_s") * 1e6 for name in scaling_run.SERVERS]
        rows.append([step, of(found, step, "seconds") * 1e6, of(found, step) * 1e6, measure.spread(values), *servers])
    print("\nMicroseconds for a row (journal: for a chunk; a request: for itself); medians of the rounds:")
    columns = ["step", "wall", "own CPU", "from-to", *(f"CPU of {name}" for name in scaling_run.SERVERS)]
    print(table(columns, rows))
    print(
        f"an item has {found['item_bytes']:.0f} bytes, {found['units']:.2f} write units; peak RSS {found['peak_rss_mb']} MB"
    )


def print_costs(costs: Costs, found: dict[str, Any]) -> None:
    """What one task comes to, and what was not measured."""
    rate = 1 / max(costs.cpu_s, costs.read_s)
    print(f"\nOne task: {rate:,.0f} rows/s at most, by {costs.cpu_s * 1e6:.0f} us of its CPU for a row")
    print(f"MySQL is waited for {costs.read_s * 1e6:.0f} us a row, while the page before is written")
    source = SOURCE_CORES / of(found, "page: read, codec, key", f"{SERVER}_cpu_s")
    print(f"The source: {source:,.0f} rows/s for {SOURCE_CORES:g} core of it")
    print(
        f"Assumed, not measured: {CALL_S * 1000:g} ms for a request to DynamoDB; each task has a core, each server its own machine"
    )


def project(costs: Costs, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Simulate all sizes and numbers of tasks, print hours and what limits."""
    source = SOURCE_CORES / of(found, "page: read, codec, key", f"{SERVER}_cpu_s")
    projected = []
    for name, partitions, units in STORES:
        rows = []
        for tasks in TASKS:
            asked = Setting(1, tasks, units, partitions, source_rows_per_s=source, threads=THREADS)
            results = [simulation.run(costs, replace(asked, rows=size, chunk_rows=_chunk(size))) for size in SIZES]
            last = results[-1]
            rate = SIZES[-1] / last.seconds
            rows.append([tasks, rate, last.limited_by, *(_time(one.seconds) for one in results)])
            projected += [_raw(name, tasks, size, one) for size, one in zip(SIZES, results, strict=True)]
        print(f"\n{name} ({partitions} partitions, limiter {units:,.0f} units/s), keys spread over the partitions:")
        print(
            table(["tasks", "rows/s", "limited by", *(f"{size:.0e} rows".replace("e+0", "e") for size in SIZES)], rows)
        )
    print("\nWhat else it depends on (16 tasks, 1e8 rows, warmed up):")
    base = Setting(100_000_000, 16, 40_000.0, 40, source_rows_per_s=source, threads=THREADS)
    variants = {
        "as above": (costs, base),
        "a request takes 50 ms": (replace(costs, call_s=0.05), base),
        "one key range a chunk, chunks shuffled": (costs, replace(base, layout="shuffled")),
        "one key range a chunk, chunks in key order": (costs, replace(base, layout="ordered")),
        "one index that projects all": (replace(costs, units=costs.units * 2), base),
        "each task killed once an hour": (costs, replace(base, kills_per_task_hour=1.0)),
        "the source gives 4 cores": (costs, replace(base, source_rows_per_s=source * 4)),
        "no limit of the source": (costs, replace(base, source_rows_per_s=float("inf"))),
    }
    rows = []
    for what, (cost, setting) in variants.items():
        one = simulation.run(cost, setting)
        rows.append([what, setting.rows / one.seconds, _time(one.seconds), one.limited_by, one.kills, one.rows_again])
        projected.append(_raw(what, setting.tasks, setting.rows, one))
    print(table(["variant", "rows/s", "time", "limited by", "kills", "rows again"], rows))
    return projected


def _chunk(rows: int) -> int:
    """Chunks of the spec's default, larger where the journal would have more than 100,000 of them."""
    return max(10_000, rows // 100_000)


def _raw(name: str, tasks: int, rows: int, one: Result) -> dict[str, Any]:
    return {"store": name, "tasks": tasks, "rows": rows, **asdict(one)}


def _time(seconds: float) -> str:
    if seconds < 5_400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} d"


@dataclass(frozen=True)
class Case:
    """A run that is predicted and then done."""

    name: str
    tasks: int
    limit_share: float | None
    """Of what the store takes; None: no limit."""
    kill_at_s: float | None = None


CASES = (
    Case("1 task, no limit", 1, None),
    Case("2 tasks, no limit", 2, None),
    Case("1 task, limiter at half of what the store takes", 1, 0.5),
    Case("2 tasks, the same limiter", 2, 0.5),
    Case("2 tasks, the same, one killed with kill -9", 2, 0.5, 3.0),
)
CHECK_LEASE_S, CHECK_CHUNK, CHECK_PAGE_S = 4.0, 2_000, 0.5


def validate(rows: int, costs: Costs, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Predict small runs, do them with the real worker, journal and bucket, and compare."""
    alone = of(found, "a request of 25, alone", "seconds") - of(found, "a request of 25, alone")
    steps = ("write: PartiQL INSERT of 25", "read back: BatchGetItem of 100", "page: read, codec, key")
    servers = sum(of(found, step, f"{name}_cpu_s") for step in steps for name in scaling_run.SERVERS)
    here = replace(costs, call_s=alone, server_cpu_s=servers)
    print(
        f"\nThe simulation against real runs of {rows:,} rows into DynamoDB Local, whose rate is measured before each of them:"
    )
    results, lines = [], []
    for case in CASES:
        real = _run(case)
        limit, takes = real["limit"], real["takes"]
        asked = Setting(
            rows, case.tasks, limit or float("inf"), partitions=1_000, account_units=takes, threads=THREADS, chunk_rows=CHECK_CHUNK,
            page_s=CHECK_PAGE_S, lease_s=CHECK_LEASE_S, restart_s=real.get("restart_s", 0.0), cores=real["cores"],
            killed=((case.kill_at_s, 0),) if case.kill_at_s else (),
        )  # fmt: skip
        predicted = simulation.run(here, asked)
        assert real["told"]["read"] == rows, real
        assert real["told"]["written"] + real["told"]["equal"] == rows, real
        limited_by = predicted.limited_by.replace("account", "store")
        lines.append([case.name, takes, real["cores"], predicted.seconds, real["seconds"], real["seconds"] / predicted.seconds, limited_by,
                      real["told"]["equal"], predicted.rows_again])  # fmt: skip
        results.append({"case": case.name, **real, "predicted": asdict(predicted)})
    columns = [
        "run",
        "store takes rows/s",
        "on cores",
        "predicted s",
        "measured s",
        "measured : predicted",
        "limited by",
        "rows again",
        "predicted",
    ]
    print(table(columns, lines))
    return results


def _run(case: Case) -> dict[str, Any]:
    planned = _ask(what="plan", chunk_rows=CHECK_CHUNK)
    plan_id, takes = str(planned["plan_id"]), float(planned["takes"])
    limit = takes * case.limit_share if case.limit_share else None
    asked = {
        "what": "copy", "plan_id": plan_id, "tasks": case.tasks, "units_per_s": limit, "threads": THREADS, "lease_s": CHECK_LEASE_S,
        "chunk_rows": CHECK_CHUNK, "page_rows": simulation.FIRST_PAGE, "page_s": CHECK_PAGE_S,
    }  # fmt: skip
    tasks = [_Task({**asked, "owner": f"task {number}"}) for number in range(case.tasks)]
    spare = _Task({**asked, "owner": "task 0, again"}) if case.kill_at_s else None
    began = min(task.go() for task in tasks)
    more: dict[str, Any] = {"takes": takes, "cores": planned["cores"], "limit": limit}
    if spare is not None and case.kill_at_s is not None:
        time.sleep(max(0.0, began + case.kill_at_s - time.time()))
        tasks.pop(0).kill()
        killed = time.time()
        more["restart_s"] = spare.go() - killed
        tasks.append(spare)
    ended = max(task.end() for task in tasks)
    return {"seconds": ended - began, "told": _ask(what="told", plan_id=plan_id), **more}


def _ask(**asked: Any) -> dict[str, Any]:
    child = measure.run_child([sys.executable, "-m", "bench.scaling_run"], text=json.dumps(asked) + "\n")
    return dict(json.loads(child.output.splitlines()[-1]))


class _Task:
    """A process that copies."""

    def __init__(self, asked: dict[str, Any]) -> None:
        surroundings = {**os.environ, **env.environment()}
        surroundings["PYTHONPATH"] = os.pathsep.join([str(config.ROOT / "plugins"), surroundings["PYTHONPATH"]])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.scaling_run"], cwd=config.ROOT, env=surroundings, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._say(json.dumps(asked))
        while self._line() != "ready":
            pass

    def go(self) -> float:
        """Begin; when that was."""
        self._say("go")
        return float(json.loads(self._line())["began"])

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def end(self) -> float:
        """Wait for the end; when that was."""
        return float(json.loads(self._line())["ended"])

    def _say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise LabError(f"a task of the bench ended with {self.process.wait()}")
        return line.strip()
