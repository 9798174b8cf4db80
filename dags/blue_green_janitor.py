"""
### blue_green_janitor

Removes what rehearsals left behind: everything that carries the tag `dbops:rehearsal` and whose `dbops:expires-at` has passed, in the
account and region of every spec under `include/specs/blue_green`. It looks each resource up by its resource id and reads its tags anew just
before it deletes it. A tagged resource whose expiry cannot be read is reported, not deleted. What the probes of a rehearsal wrote
(`DBOPS_RECORDINGS` of the machine that this task runs on) is unlinked 30 days after it ended and expired; its figures stay in the store.

| parameter | meaning |
|---|---|
| `dry_run` | true: list what is expired, delete nothing. A scheduled run deletes |
| `confirm` | `expired`, typed out: lets a manual run delete |

Example: `{"dry_run": false, "confirm": "expired"}`

### If this fails at 3 am

- Something that costs money by the hour is left. The message names it. Nothing without the tag was touched.
- "deletion protection", "has members", "is being created": the next sweep, an hour later, tries again. Look only when it fails twice.
- "expiry cannot be read": somebody changed a tag. Correct `dbops:expires-at` (ISO 8601, UTC) or delete the resource by hand.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from dbops import alerting
from dbops.blue_green import operators as blue_green

with DAG(
    dag_id="blue_green_janitor",
    description="Removes rehearsals that are expired",
    doc_md=__doc__,
    schedule="20 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=5)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["blue_green", "mysql", "destructive"],
    params={
        "dry_run": Param(True, type="boolean", title="Dry run", description="List only; a scheduled run deletes"),
        "confirm": Param(
            None, type=["string", "null"], title="Confirm", description="expired, typed out, lets a manual run delete"
        ),
    },
) as dag:
    blue_green.SweepOperator(task_id="sweep")
