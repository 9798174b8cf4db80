"""
### query_inventory

Lists every SQL statement that runs on a cluster, what it touches, and how much of the truth that list is; says which tables are hot or
cold, who writes each of them, which store would fit, and what MySQL 8.0 would break. The first step of a migration.

**What it looks at** is declared in `include/specs/inventory/<name>.yaml`: one connection for every instance of the cluster, and, if you
have them, slow and general logs. It only reads. `query_inventory_snapshot` takes a cheap snapshot every 15 minutes; this DAG takes a full
one and analyses what the history of the window holds.

| parameter | meaning |
|---|---|
| `spec` | name of one spec; empty = all enabled ones |
| `window_days` | how far the analysis looks back; empty = the spec's `window_days` |

Example: `{"spec": "shop"}`

**Reading the report.** Coverage comes first: the share of executions that statements with a name explain, counted by the server itself.
Every gap is named with its remedy and cost. Below the spec's `coverage_limit` no store is advised and nothing is called unused. The CSV
files beside the report hold every row.

### If this fails at 3 am

- Nothing was changed anywhere but in dbops' own store. You can go back to sleep.
- `snapshot` red: that instance could not be read. Its counters go on; clear the task when it answers. The analysis says that the
  instance is missing and advises nothing until then.
- `analyse` red: clear it, repeating is harmless. "no snapshot lies in the window": the snapshots failed before.
- An alert "new write statements on tables under migration" is not a failure: somebody deployed a write that the dual write does not know.
  Tell the owner of the move in the morning, before the next table is switched.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.inventory import operators as inventory

with DAG(
    dag_id="query_inventory",
    description="Every SQL statement of a cluster, what it touches, and how much of the truth that is",
    doc_md=__doc__,
    schedule="15 4 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=1)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["inventory", "mysql", "read-only"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec", description="Name of one spec; empty: all enabled",
            examples=specs.names("inventory"),
        ),
        "window_days": Param(
            None, type=["integer", "null"], minimum=1, maximum=3660, title="Window in days", description="Empty: the spec's own",
        ),
    },
) as dag:  # fmt: skip
    instances = inventory.ListInstancesOperator(task_id="list_instances", retries=0)
    snapshot = inventory.SnapshotOperator.partial(task_id="snapshot", full=True).expand(
        target_instance=instances.output
    )
    # An instance that is down must not hide what the others showed; the report says that it is missing.
    window = inventory.CloseWindowOperator(task_id="close_window", trigger_rule=TriggerRule.ALL_DONE)
    analyse = inventory.AnalyseOperator.partial(task_id="analyse").expand(window=window.output)
    any_failure = inventory.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain(snapshot, window)
    chain([instances, snapshot, window, analyse], any_failure)
