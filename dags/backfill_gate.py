"""
### backfill_gate

May reads leave MySQL? For every enabled spec under `include/specs/backfill`, once a day: the plan is verified, the change stream runs and
has delivered, every application reports its counters without a hole, and no read had to fall back to MySQL for `gate.quiet_days` days in a
row. It reads only. The verdict of the report is good when the gate is open; what keeps it closed is told by name.

| parameter | meaning |
|---|---|
| `spec` | name of one spec; empty: all that are enabled |
| `gone` | processes of applications that fell silent and are known to be dead, as the report names them |
| `stream_is_drained` | for a change stream that is no DMS task: a person says that it runs and has delivered everything |

Example: `{"spec": "rides_dynamodb"}`

A gate that is closed is no failure: that is the state of every move until its end. The run is red only when it cannot tell.

### If this fails at 3 am

- Nothing depends on it at night. It reads the store and the spec, and writes its report.
- "not heard of" in the report: an application does not report its counters. Silence is no proof, so the gate stays closed.
- It cannot read the store: see the other DAGs' alerts, they have the same cause.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from dbops import alerting, specs
from dbops.backfill import operators as backfill

with DAG(
    dag_id="backfill_gate",
    description="May reads leave MySQL? Fall-back hits, reports and verification of every backfill",
    doc_md=__doc__,
    schedule="45 5 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=1)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["backfill", "mysql", "read-only"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec", description="Name of one spec; empty: all enabled",
            examples=specs.names("backfill"),
        ),
        "gone": Param(
            None, type=["array", "null"], items={"type": "string"}, title="Processes that are gone",
            description="Fell silent, and are known to be dead",
        ),
        "stream_is_drained": Param(
            False, type="boolean", title="The stream is drained", description="Said by a person, where no DMS task carries the changes",
        ),
    },
) as dag:  # fmt: skip
    choose = backfill.ChooseSpecsOperator(task_id="choose_specs", retries=0)
    gate = backfill.GateOperator.partial(task_id="gate").expand(spec=choose.output)
