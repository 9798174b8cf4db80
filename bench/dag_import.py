"""``python -m bench dag-import``: what the DAG processor pays for each DAG file, beyond `import airflow.sdk`."""

from __future__ import annotations

import json
import sys
from typing import Any

from bench import measure
from bench.measure import median, table
from lab.config import ROOT

LIMIT_S = 0.3
CODE = """\
import importlib.util, json, sys, time
start = time.perf_counter()
import airflow.sdk
sdk = time.perf_counter()
spec = importlib.util.spec_from_file_location("dag_file", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(json.dumps([sdk - start, time.perf_counter() - sdk]))
"""


def bench(rounds: int) -> dict[str, Any]:
    """Median of `rounds` fresh processes a file."""
    files = sorted((ROOT / "dags").glob("*.py"))
    print(f"\n== dag-import: {len(files)} DAG files, {rounds} fresh processes each ==", flush=True)
    found: dict[str, list[list[float]]] = {}
    for file in files:
        command = [sys.executable, "-c", CODE, str(file)]
        measure.run_child(command)  # compiles what has changed
        found[file.name] = [json.loads(measure.run_child(command).output.splitlines()[-1]) for _ in range(rounds)]
    rows = []
    for name, times in found.items():
        beyond = [t[1] for t in times]
        rows.append(
            [
                name,
                median([t[0] for t in times]),
                median(beyond),
                measure.spread(beyond),
                "yes" if median(beyond) < LIMIT_S else "NO",
            ]
        )
    print(table(["DAG file", "import airflow.sdk s", "beyond it s", "", f"below {LIMIT_S} s"], rows))
    return {"limit_s": LIMIT_S, "seconds": found}
