"""
### query_inventory_snapshot

Every 15 minutes, reads the statement counters of every instance, and the part of its logs that is new, into the history of
`query_inventory`. It only reads, and takes a second or two an instance: MySQL forgets its counters at a restart, a failover or a
TRUNCATE, and prepared statements when they are closed; the history does not. New statements of a log are checked for MySQL 8.0 while
their text is at hand: by PREPARE on the spec's 8.0 server, if it has one.

| parameter | meaning |
|---|---|
| `spec` | name of one spec; empty = all enabled ones |

Example: `{"spec": "shop"}`

### If this fails at 3 am

- Nothing was changed. One missed snapshot costs nothing unless the instance restarts before the next: then what ran in between is a gap,
  and the report says so.
- One instance red again and again: its endpoint, its password or a privilege changed. The alert has MySQL's own message. It can wait for
  the morning.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.inventory import operators as inventory

with DAG(
    dag_id="query_inventory_snapshot",
    description="Statement counters of every instance into the history, every 15 minutes",
    doc_md=__doc__,
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    default_args=alerting.default_args(execution_timeout=timedelta(minutes=10)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["inventory", "mysql", "read-only"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec", description="Name of one spec; empty: all enabled",
            examples=specs.names("inventory"),
        ),
    },
) as dag:  # fmt: skip
    instances = inventory.ListInstancesOperator(task_id="list_instances", retries=0)
    snapshot = inventory.SnapshotOperator.partial(task_id="snapshot", full=False).expand(
        target_instance=instances.output
    )
    any_failure = inventory.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain([instances, snapshot], any_failure)
