"""
### dms_task_control

Brings one AWS DMS task, or serverless replication, to what its spec declares, or does one thing with it on request; and proves that it
replicates: by the state of every table, by rows compared at both ends after a load, by latencies, and by a canary row that is seen to
arrive. `dms_task_watch` does `ensure` for all enabled specs every ten minutes.

**What a task should be** is declared in `include/specs/dms/<name>.yaml`.

| parameter | meaning |
|---|---|
| `spec` | name of the spec |
| `action` | see below |
| `dry_run` | true: look, decide and report; nothing is called |
| `confirm` | the spec's name, typed out: for `stop`, `drain`, `delete`, `reload_tables`, `reload_target` |
| `tables` | for `reload_tables`: `schema.table`, each; empty: those that failed or differ. A table named here leaves its quarantine |

| action | what it does |
|---|---|
| `status` | looks and reports |
| `ensure` | makes what is missing, changes what differs, starts or resumes what should run, reloads tables that failed |
| `start`, `resume` | the same, although the last failure would hold `ensure` back |
| `reload_tables` | loads tables anew while the task runs |
| `reload_target` | loads everything anew; replaces rows of the target, so it always needs an approval |
| `stop` | saves the checkpoint, then stops |
| `drain` | stops, and goes on until everything that was committed when the run began has arrived: for a cut-over |
| `delete` | saves the checkpoint, then deletes a task that stands |

Example: `{"spec": "rides_dynamodb", "action": "ensure", "dry_run": false}`

After `stop`, `drain` and `delete`, `dms_task_watch` leaves the task alone until a run with `ensure`, `start`, `resume` or `reload_target`
gives it back.

**Approval.** Where a plan replaces rows of the target, or disturbs a task that its spec declares as protected, the run asks (`approve`).
The answer is for that very plan: if the task changes before it is carried out, the run stops and asks for a new one.

**Resuming.** Everything is in the store (tables `dms_*`). A task that died is tried again; it looks at AWS first, and calls nothing whose
effect is there. Only one run works on a spec at a time.

### If this fails at 3 am

- **The source is not at risk**: only the canary row is written there.
- `look` red: the message names what cannot be done, with its fix. Nothing was called.
- `carry_out` red: the plan was refused, or was not approved (nothing was called), or a step failed: the ledger tells which were done.
  Clear it when the cause is gone; it goes on with the step that is not done.
- `await_task` red: a table failed, or the task ended for a bad reason; the report has cause and action for each. The task is left as it is.
- `reconcile` red: rows differ, although DMS said that all is complete. Do not read from the target. Run `ensure`: it reloads these tables.
- `health` red: latencies or the canary. If both latencies are high, look at the source first: a long transaction, then its load.
- A DMS task that stands keeps its place for as long as the source keeps its binary log. Look at the retention before you go back to sleep.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.dms import operators as dms

GO_ON = {"trigger_rule": TriggerRule.ALL_DONE}

with DAG(
    dag_id="dms_task_control",
    description="A DMS task brought to the declared state, and proven to replicate",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # A load takes hours; other specs do not wait for it, and two runs on one spec are kept apart by their claim.
    max_active_runs=16,
    dagrun_timeout=timedelta(hours=72),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=48)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["dms", "mysql", "destructive"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec (required)", description="Name of one spec", examples=specs.names("dms"),
        ),
        "action": Param("status", type="string", enum=list(dms.ACTIONS), title="Action", description="What to do with the task"),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Look, decide and report; nothing is called"),
        "confirm": Param(
            None, type=["string", "null"], title="Confirm", description="The spec's name, typed out, for actions that disturb replication",
        ),
        "tables": Param(
            None, type=["array", "null"], items={"type": "string", "pattern": r"^[^.]+\.[^.]+$"}, title="Tables to reload",
            description="schema.table; empty: those that failed or differ",
        ),
    },
) as dag:  # fmt: skip
    look = dms.LookOperator(task_id="look", retries=0)
    list_approvals = dms.ListApprovalsOperator(task_id="list_approvals")
    approve = HITLOperator.partial(
        task_id="approve",
        options=[dms.APPROVE, dms.REJECT],
        defaults=[dms.REJECT],
        response_timeout=timedelta(hours=8),
        # A repeated approval would show the text of the first attempt.
        retries=0,
        notifiers=[alerting.approval_notifier()],
    ).expand_kwargs(list_approvals.output)
    carry_out = dms.CarryOutOperator.partial(
        task_id="carry_out", asking_task_id="list_approvals", approval_task_id="approve", **GO_ON
    ).expand(item=look.output)
    await_task = dms.AwaitTaskOperator.partial(task_id="await_task", **GO_ON).expand(item=look.output)
    reconcile = dms.ReconcileOperator.partial(task_id="reconcile", **GO_ON).expand(item=look.output)
    health = dms.HealthOperator.partial(task_id="health", wait_for_latency=True, **GO_ON).expand(item=look.output)
    report = dms.ReportOperator(task_id="report", **GO_ON)
    # The steps above run on after a failure before them, so their states alone would not turn the run red.
    any_failure = dms.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain(look, list_approvals, approve, carry_out, await_task, reconcile, health, report)
    chain([look, list_approvals, carry_out, await_task, reconcile, health, report], any_failure)
