"""
### backfill_roll_back

Removes what one backfill wrote, item by item, where nobody has written since: an item goes only if it still carries that plan's stamp and
the version that the plan gave it, checked by the store in the same step. Items that applications, readers or the change stream have written
meanwhile stay, and are counted. MySQL is not touched.

| parameter | meaning |
|---|---|
| `spec` | name of the spec |
| `plan_id` | the plan, typed out; a dry run without it shows the newest |
| `dry_run` | true, the default: show what the plan wrote, remove nothing |
| `confirm` | the spec's name, typed out: lets this run remove items |

Example: `{"spec": "rides_dynamodb", "plan_id": "rides_dynamodb-20261129-0a1b2c3d", "dry_run": false, "confirm": "rides_dynamodb"}`

**Before you start it**, see that readers fall back to MySQL again (`falls_back=True` in the applications): a removed item is a miss.
**Resuming.** The journal knows which chunks are rolled back; clear the task or start it again.

### If this fails at 3 am

- Nothing is lost: every item that was removed has its row in MySQL, and readers fall back to it.
- `roll_back` red: clear it when the target answers again; it goes on with the chunks that are left. Start no other backfill of the
  spec meanwhile: it would find items equal that are removed after it. A newer plan that had found items equal is copied and
  verified again by the next run.
- "items stay though they bear the stamp": the store was written after MySQL had ended. Compare them before you go on with MySQL.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.backfill import operators as backfill

with DAG(
    dag_id="backfill_roll_back",
    description="Removes the items that one backfill wrote and nobody has written since",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=3),
    default_args=alerting.default_args(execution_timeout=timedelta(days=2)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["backfill", "mysql", "destructive"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec (required)", description="Name of one spec", examples=specs.names("backfill"),
        ),
        "plan_id": Param(
            None, type=["string", "null"], title="Plan", pattern=r"^[a-z0-9_]+-[0-9]{8}-[0-9a-f]{8}$",
            description="The plan whose items go; the dry run shows it",
        ),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Show what the plan wrote; remove nothing"),
        "confirm": Param(
            None, type=["string", "null"], title="Confirm", description="The spec's name, typed out, lets this run remove items",
        ),
    },
) as dag:  # fmt: skip
    choose = backfill.ChoosePlanOperator(task_id="choose_plan", retries=0)
    roll_back = backfill.RollBackOperator.partial(task_id="roll_back", pool="dbops_backfill").expand(span=choose.output)
    report = backfill.RollBackReportOperator(
        task_id="report", choosing_task_id="choose_plan", trigger_rule=TriggerRule.ALL_DONE
    )
    any_failure = backfill.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain(choose, roll_back, report)
    chain([choose, roll_back, report], any_failure)
