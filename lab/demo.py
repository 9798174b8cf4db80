"""The demo: archive a million cold rows for real, with the command that a DBA would type, and show what it proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab import aws, config, env, mysql, seed
from lab.config import LabError

COLD_ROWS = 1_000_000
# On MySQL 5.7 the row with the highest id stays, whatever its age.
SEEDED_ROWS = COLD_ROWS + 1_000
DAG_ID, SPEC, TABLE = "s3_archive", "positions", "carshare.positions"

STAGES = ("export", "publish", "verify", "purge")
STAGES_SQL = """\
SELECT e.stage, SUM(e.event_rows), SUM(e.seconds), COUNT(*)
FROM dbops_archive.archive_event AS e
WHERE e.plan_id = %s
GROUP BY e.stage
ORDER BY MIN(e.event_id)"""
NEWEST_PLAN_SQL = (
    "SELECT plan_id, state FROM dbops_archive.archive_plan WHERE spec = %s ORDER BY created_at DESC LIMIT 1"
)


def run() -> None:
    """Seed what is missing, run the DAG, print a line per stage and the report's path.

    Raises LabError when the DAG fails or when fewer than COLD_ROWS rows were archived, verified and purged.
    """
    began = time.monotonic()
    seed.seed("mysql57", SEEDED_ROWS)
    conf = json.dumps({"spec": SPEC, "dry_run": False, "confirm": TABLE})
    command = [str(Path(sys.executable).parent / "airflow"), "dags", "test", DAG_ID, "-c", conf]
    print(f"$ airflow dags test {DAG_ID} -c '{conf}'", flush=True)
    log = config.home() / "log" / "demo.log"
    with log.open("w") as output:
        result = subprocess.run(
            command, env={**os.environ, **env.environment()}, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if result.returncode:
        raise LabError(f"{DAG_ID} failed with exit code {result.returncode}; its log is {log}")
    _show()
    print(f"{'total':<8} {time.monotonic() - began:>37.1f} s, set-up of the DAG run and seeding included")
    print(f"report:  {aws.newest_report()}")


def _show() -> None:
    with mysql.root_connection("mysql57") as conn, conn.cursor() as cursor:
        cursor.execute(NEWEST_PLAN_SQL, (SPEC,))
        plan_id, state = cursor.fetchone()
        cursor.execute(STAGES_SQL, (plan_id,))
        stages = {stage: (int(rows), float(seconds), tasks) for stage, rows, seconds, tasks in cursor.fetchall()}
    print(f"plan {plan_id} is {state}")
    for stage, (rows, seconds, tasks) in stages.items():
        if stage in STAGES:  # other events move no rows and take no time that is measured
            print(f"{stage:<8} {rows:>12,} rows {seconds:>8.2f} s {rows / seconds:>12,.0f} rows/s  {tasks} tasks")
    short = [stage for stage in STAGES if stages.get(stage, (0,))[0] < COLD_ROWS]
    if short or state != "done":
        raise LabError(
            f"plan {plan_id} is {state} and moved fewer than {COLD_ROWS:,} rows in: {', '.join(short) or 'no stage'}"
        )
