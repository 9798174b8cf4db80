"""What bench.inventory measures of the product, in a process of its own: reads its arguments as JSON from stdin, prints a JSON object."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from bench import measure
from dbops.inventory import fingerprint, logs
from dbops.inventory.log_sources import Files, Reading


def aggregate(log: str) -> dict[str, Any]:
    """Read, fingerprint and add up a slow log, as the DAG's task does."""
    began, cpu = time.monotonic(), time.process_time()
    reading = Reading(Files(log), "slow_log")
    sightings = executions = 0
    for sighting in reading.sightings(final=True):
        sightings += 1
        executions += sighting.executions or 0
    return {
        "seconds": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu,
        "entries": reading.totals.entries,
        "admin": reading.totals.admin.total(),
        "executions": executions,
        "sightings": sightings,
        "gaps": [gap.what for gap in reading.gaps],
        "peak_rss_mb": measure.peak_rss_mb(),
    }


def each(log: str, to: str) -> dict[str, Any]:
    """Write one line an entry, to compare with another tool: time, normalised statement (or the command), text; as JSON."""
    known: dict[str, str] = {}
    entries = 0
    with Path(to).open("w") as file:
        for entry in Reading(Files(log), "slow_log").entries(final=True):
            form, _ = logs.normal_form(entry.text)
            if entry.kind == "admin":
                normal = f"administrator command: {entry.text}"
            else:
                normal = known.get(form) or known.setdefault(form, fingerprint.normalise(entry.text))
            at = entry.at.isoformat() if entry.at else None
            file.write(json.dumps([at, normal, entry.text]) + "\n")
            entries += 1
    return {"entries": entries}


def analyse(digests: str) -> dict[str, Any]:
    """Analyse digest texts, one a line."""
    from dbops.inventory import parse  # brings sqlglot, which the log reader does not need

    texts = Path(digests).read_text().splitlines()
    began, cpu, methods = time.monotonic(), time.process_time(), dict[str, int]()
    for text in texts:
        method = parse.analyse(text, is_digest=True).method
        methods[method] = methods.get(method, 0) + 1
    return {
        "seconds": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu,
        "digests": len(texts),
        "methods": methods,
        "peak_rss_mb": measure.peak_rss_mb(),
    }


def main() -> None:
    """Do what is asked, print its figures."""
    arguments = json.load(sys.stdin)
    work = {"aggregate": aggregate, "each": each, "analyse": analyse}[arguments.pop("what")]
    print(json.dumps(work(**arguments)))


if __name__ == "__main__":
    main()
