"""
### dms_task_watch

Every ten minutes, for every enabled spec of `include/specs/dms`: brings the DMS task to the declared state and judges its health. It
looks at the whole account at once, so that calls to AWS grow with pages of its answers, not with tasks; only specs that need something
get tasks of their own.

Nothing that replaces rows of the target, or disturbs a protected task, is done here: such a plan is reported, with the `dms_task_control`
run that does it after an approval.

A task that a person has stopped, drained or deleted by `dms_task_control` is left alone until it is given back; the report says so.

| parameter | meaning |
|---|---|
| `spec` | name of one spec; empty: all enabled |

Example: `{}`

A failure alerts once, and again after twelve hours; each run's report shows it.

### If this fails at 3 am

- **Nothing was lost by this run**: it only does what the plan in its report says, and never replaces rows.
- `look` red: AWS did not answer, or a spec is wrong; tasks of DMS go on without us.
- `carry_out` red: the alert names the table or reason, and the next step. Most need `dms_task_control`, some only a repaired source.
- `reconcile` red: rows differ after a load. Do not read from the target before it is reloaded.
- `health` red: latency, a table or the canary. If both latencies are high, look at the source first.
- Look at the source's binary log retention before you wait until morning with a task that stands.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.dms import operators as dms

GO_ON = {"trigger_rule": TriggerRule.ALL_DONE}

with DAG(
    dag_id="dms_task_watch",
    description="Every DMS task that is declared: ensured, and its health judged",
    doc_md=__doc__,
    schedule="*/10 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=1)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["dms", "mysql"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec", description="Name of one spec; empty: all enabled",
            examples=specs.names("dms"),
        ),
    },
) as dag:  # fmt: skip
    look = dms.LookOperator(task_id="look", watch=True)
    carry_out = dms.CarryOutOperator.partial(
        task_id="carry_out", watch=True, max_active_tis_per_dagrun=4, **GO_ON
    ).expand(item=look.output)
    reconcile = dms.ReconcileOperator.partial(
        task_id="reconcile", watch=True, pool="dbops_source", max_active_tis_per_dagrun=2, **GO_ON
    ).expand(item=look.output)
    health = dms.HealthOperator.partial(task_id="health", watch=True, **GO_ON).expand(item=look.output)
    report = dms.ReportOperator(task_id="report", watch=True, **GO_ON)
    # The steps above run on after a failure before them, so their states alone would not turn the run red.
    any_failure = dms.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain(look, carry_out, reconcile, health, report)
    chain([look, carry_out, reconcile, health, report], any_failure)
