"""
### backfill

Copies rows of MySQL into DynamoDB or Redis while applications go on reading and writing both, and proves at the end that every row is
there, that no older value replaced a newer one, and that nothing deleted came back. Every write carries the row's version and is refused
by the store unless it is newer than what is there; so the copy may be repeated, killed and run twice at once.

**What it copies** is declared in `include/specs/backfill/<name>.yaml`: a query, a key, a version, a target, limits.

| parameter | meaning |
|---|---|
| `spec` | name of the spec |
| `dry_run` | true, the default: check everything, measure items, estimate cost and time; writes nothing, whatever else is asked for |
| `confirm` | the spec's name, typed out: lets this run write to the target |
| `copy` | false: leave the copy out, and verify the newest plan |
| `verify` | `full` or `sample`, instead of what the spec says; a plan whose spec says `full` is not verified by a sample |
| `repair` | write rows that the verification finds missing or older once more, on the same condition, and look at them again |
| `bury_extra` | with `repair`: items whose row is gone become tombstones |
| `abandon_open_plan` | give up an unfinished plan first; what it wrote stays (`backfill_roll_back` removes it) |

Example: `{"spec": "rides_dynamodb", "dry_run": false, "confirm": "rides_dynamodb"}`

**Approval.** An estimate above `limits.budget_usd` is asked for (`approve`), for that very plan and price.

**Resuming.** All state is in the store (tables `backfill_*`). A task that died, or a second run, goes on with the chunks that are not done;
an attempt that comes back to life finds its lease gone and writes nothing more to the journal. To hold a backfill at once, in the schema
of `dbops_store` (spec `*` holds all of them; delete the row to go on):
`INSERT INTO backfill_pause (spec, reason, paused_by, paused_at) VALUES ('rides_dynamodb', 'incident', 'you', UTC_TIMESTAMP())`
A task that is held (pause, window, replica lag, load) leaves its checkpoint and its worker, and looks again every few minutes.

### If this fails at 3 am

- **No row was changed in MySQL**, and nothing newer was replaced in the target. You can go back to sleep.
- `look` red: nothing was written. The report names each finding with its fix. "not heard of": an application does not report its counters;
  it may not write both stores, so do not start the copy until it does.
- `copy` red: chunks that the journal calls `done` are in the target and were read back; the others are tried again. Clear the task, or
  start a new run. "turned away": the target has less capacity than `limits.units_per_s`; the rate had fallen already.
- "rejects": rows that cannot be items. Read table `backfill_reject`, correct rows or spec, and start a new run.
- `verify` or `settle` red: the report has the classes. Do not switch reads. `missing` and `source_newer`: run with
  `{"spec": "rides_dynamodb", "dry_run": false, "confirm": "rides_dynamodb", "copy": false, "repair": true}`. `converter` and
  `unversioned`: somebody else writes the target in another form, or without a version: find out who before anything is repaired.
  `extra`: a deletion did not reach the target: look at the change stream first, then repair with `"bury_extra": true` as well.
- `import_table` red: nobody reads the new table yet. The message says whether it has to be deleted before the next attempt.
- The application suffers: insert the pause row, then lower `limits.units_per_s` and `limits.read_units_per_s`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.backfill import operators as backfill

GO_ON = {"trigger_rule": TriggerRule.ALL_DONE}

with DAG(
    dag_id="backfill",
    description="Rows of MySQL into a key-value store under live dual writes, and proven right",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # A copy takes hours; two runs of one spec share its plan, chunk by chunk.
    max_active_runs=16,
    dagrun_timeout=timedelta(days=14),
    default_args=alerting.default_args(execution_timeout=timedelta(days=4)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["backfill", "mysql", "destructive"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec (required)", description="Name of one spec", examples=specs.names("backfill"),
        ),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Check, measure, estimate; write nothing"),
        "confirm": Param(
            None, type=["string", "null"], title="Confirm", description="The spec's name, typed out, lets this run write to the target",
        ),
        "copy": Param(True, type="boolean", title="Copy", description="False: only verify the newest plan"),
        "verify": Param(
            None, type=["string", "null"], enum=["full", "sample", None], title="Verify", description="Instead of the spec's mode",
        ),
        "repair": Param(
            False, type="boolean", title="Repair", description="Write what is missing or older once more, on the same condition",
        ),
        "bury_extra": Param(
            False, type="boolean", title="Bury extra items", description="With repair: items whose row is gone become tombstones",
        ),
        "abandon_open_plan": Param(
            False, type="boolean", title="Abandon an open plan", description="Give up an unfinished plan first; what it wrote stays",
        ),
    },
) as dag:  # fmt: skip
    look = backfill.LookOperator(task_id="look", retries=0)
    plan = backfill.PlanOperator(task_id="plan")
    list_approvals = backfill.ListApprovalsOperator(task_id="list_approvals")
    approve = HITLOperator.partial(
        task_id="approve",
        options=[backfill.APPROVE, backfill.REJECT],
        defaults=[backfill.REJECT],
        response_timeout=timedelta(hours=24),
        # A repeated approval would show the text of the first attempt.
        retries=0,
        notifiers=[alerting.approval_notifier()],
    ).expand_kwargs(list_approvals.output)
    record_approvals = backfill.RecordApprovalsOperator(
        task_id="record_approvals", asking_task_id="list_approvals", approval_task_id="approve", **GO_ON
    )
    copy = backfill.CopyOperator.partial(task_id="copy", pool="dbops_backfill").expand(span=plan.output)
    import_table = backfill.ImportTableOperator(task_id="import_table", trigger_rule=TriggerRule.NONE_FAILED)
    list_parts = backfill.ListPartsOperator(task_id="list_parts", trigger_rule=TriggerRule.NONE_FAILED)
    verify = backfill.VerifyOperator.partial(task_id="verify", pool="dbops_backfill").expand(part=list_parts.output)
    settle = backfill.SettleOperator(task_id="settle", trigger_rule=TriggerRule.NONE_FAILED)
    report = backfill.ReportOperator(task_id="report", **GO_ON)
    # The report is made after a failure, too, so its own state would not turn the run red.
    any_failure = backfill.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain(look, plan, list_approvals, approve, record_approvals, copy, import_table, list_parts, verify, settle, report)
    chain(
        [look, plan, list_approvals, record_approvals, copy, import_table, list_parts, verify, settle, report],
        any_failure,
    )
