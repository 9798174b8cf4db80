"""``python -m bench archive``: s3_archive against pt-archiver on the same rows."""

from __future__ import annotations

import datetime as dt
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import measure, source
from bench.measure import Child, Cpu, median, table
from lab import config

PT = "pt-archiver"
OURS = "s3_archive"
RSS_LIMIT_MB = 512
TARGET_RATIO = 2.0


def bench(rows: int, pairs: int, large_rows: int) -> dict[str, Any]:
    """Measure `pairs` alternating pairs of `rows` rows and one larger run, print the tables, keep the raw figures."""
    now = dt.datetime.now(dt.UTC)
    print(
        f"\n== archive: {rows:,} cold rows of {source.FULL_NAME} on {source.SERVER}, {pairs} pairs, alternating ==",
        flush=True,
    )
    source.ensure_seed(min(rows, 1_000_000))
    seeded = min(rows, 1_000_000)
    runs: list[dict[str, Any]] = []
    arms: dict[str, Callable[[dt.datetime], dict[str, Any]]] = {OURS: run_ours, PT: run_pt_archiver}
    try:
        for pair in range(pairs):
            for tool in sorted(arms, reverse=bool(pair % 2) == (OURS > PT)):
                runs.append(_measured(tool, arms[tool], rows, seeded, now) | {"pair": pair})
                _print_run(runs[-1])
        large = None
        if large_rows > rows:
            large = _measured(OURS, run_ours, large_rows, seeded, now)
            _print_run(large)
    finally:
        source.drop()
    result = {"rows": rows, "runs": runs, "large": large}
    _print(result, pairs)
    return result


def _measured(
    tool: str, run: Callable[[dt.datetime], dict[str, Any]], rows: int, seeded: int, now: dt.datetime
) -> dict[str, Any]:
    source.make(rows, seeded, now)
    assert source.counts(now) == (rows, rows + source.HOT_ROWS), "the fresh table is not as it should be"
    history_before = source.history()
    with measure.cpu_account() as cpu:
        figures = run(now)
    backlog = source.history()
    after_cpu, after_s = source.quiet()
    assert source.counts(now) == (0, source.HOT_ROWS), f"{tool} left cold rows or deleted hot ones"
    return {
        "tool": tool, "rows": rows, **figures, "cpu": asdict(cpu), "history_before": history_before, "history_after": backlog,
        "mysqld_cpu_after_s": after_cpu, "idle_after_s": after_s,
    }  # fmt: skip


def run_ours(now: dt.datetime) -> dict[str, Any]:
    """The five steps in one process; seconds are those of the steps, without the start of Python and its imports."""
    child = measure.run_child([sys.executable, "-m", "bench.archive_run"], text=json.dumps({"now": now.isoformat()}))
    found = json.loads(child.output.splitlines()[-1])
    assert found["closed"], found["problems"]
    assert found["purged"] == found["lake_rows"] == found["rows"]
    seconds = sum(stage["seconds"] for stage in found["stages"])
    return {**found, "seconds": seconds, "process_cpu_s": child.cpu_s, "peak_rss_mb": child.peak_rss_mb}


def run_pt_archiver(now: dt.datetime) -> dict[str, Any]:
    """pt-archiver as a DBA would call it: rows to a file, bulk deletes of 5,000 rows, a commit each."""
    with tempfile.TemporaryDirectory(prefix="bench-pt-") as folder:
        login = Path(folder) / "client.cnf"
        login.write_text(f"[client]\nuser={config.MYSQL_USER}\npassword={config.MYSQL_PASSWORD}\n")
        file = Path(folder) / "rows.txt"
        child = measure.run_child(pt_command(login, file, now))
        with file.open("rb") as lines:
            written = sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))
        return {
            "seconds": child.seconds, "client_cpu_s": child.cpu_s, "process_cpu_s": child.cpu_s,
            "peak_rss_mb": child.peak_rss_mb, "file_lines": written, "file_bytes": file.stat().st_size,
        }  # fmt: skip


def pt_command(login: Path, file: Path, now: dt.datetime) -> list[str]:
    """The command line; the password is in a file, not in the arguments."""
    dsn = f"h={config.HOST},P={config.port(source.SERVER)},F={login},D={source.SCHEMA},t={source.TABLE}"
    return [
        PT, "--source", dsn, "--file", str(file), "--where", f"{source.TIME_COLUMN} < '{source.cutoff(now):%Y-%m-%d}'",
        "--bulk-delete", "--limit", "5000", "--commit-each", "--no-check-charset",
    ]  # fmt: skip


def _others(run: dict[str, Any]) -> float:
    return float(run["cpu"]["machine"] - sum(run["cpu"]["services"].values()) - run["process_cpu_s"])


def _print_run(run: dict[str, Any]) -> None:
    steps = "".join(f" {s['stage']} {s['seconds']:.2f}" for s in run.get("stages", ()))
    print(
        f"{run['tool']:<12}{run['rows']:>10,} rows {run['seconds']:>7.2f} s {run['rows'] / run['seconds']:>9,.0f} rows/s;{steps}"
        f" RSS {run['peak_rss_mb']} MB",
        flush=True,
    )


def _print(result: dict[str, Any], pairs: int) -> None:
    by_tool = {tool: [r for r in result["runs"] if r["tool"] == tool] for tool in (OURS, PT)}
    rows = result["rows"]

    def mid(tool: str, value: Callable[[dict[str, Any]], float]) -> float:
        return median([value(r) for r in by_tool[tool]])

    print(f"\nMedians of {pairs} pairs (smallest-largest):")
    print(table(
        ["tool", "seconds", "", "rows/s", "peak RSS MB", "undo left", "idle after s"],
        [[t, mid(t, lambda r: r["seconds"]), measure.spread([r["seconds"] for r in by_tool[t]]),
          rows / mid(t, lambda r: r["seconds"]), int(mid(t, lambda r: r["peak_rss_mb"])), mid(t, lambda r: r["history_after"]),
          mid(t, lambda r: r["idle_after_s"])] for t in by_tool],
    ))  # fmt: skip
    ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in zip(by_tool[OURS], by_tool[PT], strict=True)]
    print(
        f"\nratio of rows/s, {OURS} : {PT} = {median(ratios):.2f} (pairs {measure.spread(ratios)});"
        f" target {TARGET_RATIO}: {'reached' if median(ratios) >= TARGET_RATIO else 'not reached'}."
        f" {PT} writes a text file and checks nothing."
    )
    stages = [s["stage"] for s in by_tool[OURS][0]["stages"]]
    seconds = {s: median([r["stages"][i]["seconds"] for r in by_tool[OURS]]) for i, s in enumerate(stages)}
    print(f"\nStages of {OURS}, medians:")
    print(table(["stage", "seconds", "rows/s"], [[s, seconds[s], rows / seconds[s]] for s in stages]))
    names = list(by_tool[OURS][0]["cpu"]["services"])
    print("\nCPU seconds, medians (steps and their process start; 'others' is everything else on the machine):")
    print(table(
        ["tool", "client", *names, "others", "sum", "after the end: mysqld57"],
        [[t, mid(t, lambda r: r["process_cpu_s"]), *(mid(t, lambda r, n=n: r["cpu"]["services"][n]) for n in names),
          mid(t, _others), mid(t, lambda r: r["cpu"]["machine"]), mid(t, lambda r: r["mysqld_cpu_after_s"])] for t in by_tool],
    ))  # fmt: skip
    peaks = [r["peak_rss_mb"] for r in by_tool[OURS]]
    print(f"\nPeak RSS of the process that runs the steps: {max(peaks)} MB at {rows:,} rows", end="")
    if large := result["large"]:
        print(f", {large['peak_rss_mb']} MB at {large['rows']:,} rows", end="")
        peaks.append(large["peak_rss_mb"])
    print(f"; limit {RSS_LIMIT_MB} MB: {'kept' if max(peaks) <= RSS_LIMIT_MB else 'EXCEEDED'}")


__all__ = ["Child", "Cpu", "bench"]
