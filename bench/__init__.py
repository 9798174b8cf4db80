"""Side-by-side measurements; ``python -m bench`` or ``make bench``. Figures hold for the machine and the moment of one run only."""

from __future__ import annotations

import sys
from pathlib import Path

# As in Airflow, where the plugins folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins"))

import dbops.archive  # noqa: F401 - as in a task, before anything imports pyarrow: it chooses Arrow's memory pool
