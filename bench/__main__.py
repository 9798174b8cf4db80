"""``python -m bench [name]``: all of them without a name."""

from __future__ import annotations

import argparse
import sys
import time

from bench import archive, backfill, backfill_redis, dag_import, inventory, measure, readers, scaling, switchovers
from lab.config import ROOT, LabError


def main(argv: list[str] | None = None) -> int:
    """Run the benches; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure side by side against the running lab."
    )
    parser.add_argument(
        "name",
        nargs="?",
        choices=[
            "archive",
            "readers",
            "dag-import",
            "inventory",
            "switchovers",
            "backfill",
            "backfill-redis",
            "scaling",
        ],
        help="one bench; default all",
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows a run (default 1,000,000)")
    parser.add_argument(
        "--large-rows", type=int, default=3_000_000, help="rows of the run that shows the memory (0: none)"
    )
    parser.add_argument("--pairs", type=int, default=2, help="alternating pairs of archive runs (default 2)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of every reader (default 2)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="connections of a reader (default 2)")
    parser.add_argument("--entries", type=int, default=200_000, help="entries of the slow log (default 200,000)")
    parser.add_argument("--switchovers", type=int, default=20, help="switchovers to measure (default 20)")
    parser.add_argument("--items", type=int, default=40_000, help="rows of the backfill (default 40,000)")
    parser.add_argument("--threads", type=int, default=8, help="requests that the backfill has under way (default 8)")
    parser.add_argument("--latency-ms", type=float, default=4.0, help="of an answer of DynamoDB (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="what the switchovers vary with (default 1)")
    parser.add_argument("--sample", type=int, default=20_000, help="rows by which scaling measures (default 20,000)")
    arguments = parser.parse_args(argv)
    counts = (
        arguments.rows,
        arguments.pairs,
        arguments.rounds,
        arguments.entries,
        arguments.switchovers,
        arguments.sample,
        arguments.items,
        arguments.threads,
    )
    if min(*counts, *arguments.workers) < 1:
        parser.error("counts of rows, rounds, items, threads and so on start at 1")
    benches = {
        "archive": lambda: archive.bench(arguments.rows, arguments.pairs, arguments.large_rows),
        "readers": lambda: readers.bench(arguments.rows, arguments.rounds, tuple(arguments.workers)),
        "dag-import": lambda: dag_import.bench(max(3, arguments.rounds)),
        "inventory": lambda: inventory.bench(arguments.entries, arguments.pairs),
        "switchovers": lambda: switchovers.bench(arguments.switchovers, arguments.seed),
        "backfill": lambda: backfill.bench(arguments.items, arguments.rounds, arguments.latency_ms, arguments.threads),
        "backfill-redis": lambda: backfill_redis.bench(max(2, arguments.rounds)),
        "scaling": lambda: scaling.bench(arguments.sample, max(3, arguments.rounds)),
    }
    began = time.monotonic()
    try:
        measure.show_machine()
        for name in [arguments.name] if arguments.name else benches:
            path = measure.record(name, benches[name]())
            print(f"raw figures: {path.relative_to(ROOT)}", flush=True)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\n{time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
