"""dbops: runbooks for MySQL and Aurora MySQL as Airflow DAGs.

Shared modules live here (connections, sql, specs, guardrails, store, reports, alerting, mysql), one subpackage per
capability. `dbops_plugin.py` beside this package is the only file that Airflow's plugin scanner executes.
"""

from __future__ import annotations

import os
from pathlib import Path


def include_dir() -> Path:
    """Folder of SQL templates and specs: DBOPS_INCLUDE_DIR, else `include/` beside `plugins/`."""
    return Path(os.environ.get("DBOPS_INCLUDE_DIR") or Path(__file__).resolve().parents[2] / "include")
