"""
### s3_archive

Moves cold rows of MySQL tables to Iceberg on S3, proves each of them equal through Trino, and only then deletes them, batch by batch,
each batch in the transaction that proves it once more under lock.

**What it archives** is declared in `include/specs/archive/<name>.yaml`. A scheduled run takes every enabled spec and purges where the
spec says `purge.allowed: true`. Any other run is a dry run until you say otherwise.

| parameter | meaning |
|---|---|
| `spec` | name of one spec; empty = all enabled ones (dry run only) |
| `dry_run` | true: look, count and report, write nothing |
| `confirm` | `schema.table`, typed out: allows this run to delete. Without it the rows are archived and proven, and stay |
| `as_of` | date that the cut-off counts from; empty = the run's own date |
| `abandon_open_plan` | give up an unfinished plan first; its rows stay in MySQL and leave the lake |
| `adopt_server` | after a failover for good: the `server_uuid` of the new writer, which may then go on where the old one ended |
| `accept_loss` | the id of a plan, typed out: close it although purged rows of it are lost; the run does only that, and ends red |

Example: `{"spec": "positions", "dry_run": false, "confirm": "carshare.positions"}`

**Resuming.** All state is in the schema `dbops_archive` on the source server. A killed run leaves an open plan; clearing a task, or
starting another run, continues it. To pause the deletes of a table at once:
`INSERT INTO dbops_archive.archive_pause (source_table, reason) VALUES ('carshare.positions', 'incident')`; delete the row to go on.

### If this fails at 3 am

- **No row is lost.** A row leaves MySQL only in a transaction that found it equal to what Trino read. You can go back to sleep and read
  the report in the morning.
- `preflight` or `plan` red: nothing was written. The report names each refusal with its fix.
- `export`, `publish` or `verify` red: rows were only read. Clear the red task when S3 and Trino answer again.
- `purge` red: batches that `dbops_archive.archive_batch` calls `done` are deleted and proven, all others are untouched. Clear the task,
  or leave it: the next run goes on. "still blocked" means that lag, load, the window or a pause held it back as it should.
- `reconcile` red: something does not add up, or a batch was refused. Rows that are not `done` are in MySQL. Do not delete S3 objects.
- "purged rows are missing" or "have other values": somebody deleted, changed or rolled back rows of the lake table after the purge. Find
  out who, and roll the snapshot forward before it expires. Only when they are gone for good (an erasure that the law demands, a lost
  object): run once with `accept_loss`, and `abandon_open_plan` if the plan is unfinished. The loss is recorded and reported by chunk.
- "file ... cannot be read": the object is lost or damaged. Restore it from a version or a copy; `accept_loss` only when there is none.
- "was made on server ...": the connection leads to a clone, or to the writer after a failover. A clone must not go on with the
  original's plans; correct the connection. After a failover, run once with `adopt_server`.
- "which dbops_archive of this server does not know": a clone, or a server restored from a backup, is about to archive rows that are in the
  lake already. Restore the ledger too; the message has the Trino statement for the case that the rows are in MySQL again.
- The source table was dropped: run once with `abandon_open_plan`; `s3_archive_restore` gives back what had been purged.
- Never delete from `dbops_archive` by hand, and never run `optimize`, `expire_snapshots` or `remove_orphan_files` on a table with an
  open plan. After an `optimize` the purge refuses; abandon the plan.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, TriggerRule, chain

from dbops import alerting, specs
from dbops.archive import operators as archive

# Specs are independent of each other: a step works on what the ledger says, whether or not another spec's step failed before.
GO_ON = {"trigger_rule": TriggerRule.ALL_DONE}

with DAG(
    dag_id="s3_archive",
    description="Cold rows to Iceberg on S3, verified through Trino, then purged",
    doc_md=__doc__,
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=20),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=12)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["archive", "mysql", "s3", "trino", "destructive"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec", description="Name of one spec; empty: all enabled (dry run only)",
            examples=specs.names("archive"),
        ),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Look, count and report; write nothing"),
        "confirm": Param(
            None, type=["string", "null"], title="Confirm the purge", pattern=r"^[^.]+\.[^.]+$",
            description="schema.table, typed out, lets this run delete rows; empty: archive and prove only",
        ),
        "as_of": Param(
            None, type=["string", "null"], format="date", title="As of",
            description="Date that the cut-off counts from; empty: the run's own date",
        ),
        "abandon_open_plan": Param(
            False, type="boolean", title="Abandon an open plan", description="Give up an unfinished plan first; nothing is deleted",
        ),
        "adopt_server": Param(
            None, type=["string", "null"], title="Adopt the plan of a lost server", pattern=r"^[0-9a-fA-F-]{36}$",
            description="server_uuid of this writer, typed out, lets it go on where another server ended",
        ),
        "accept_loss": Param(
            None, type=["string", "null"], title="Accept the loss of a plan", pattern=r"^[a-z0-9_]+-[0-9]{8}-[0-9a-f]{8}$",
            description="plan_id, typed out, closes that plan although purged rows of it are lost; the run does nothing else",
        ),
    },
) as dag:  # fmt: skip
    choose = archive.ChooseSpecsOperator(task_id="choose_specs", retries=0)
    preflight = archive.PreflightOperator.partial(task_id="preflight").expand(spec=choose.output)
    plan = archive.PlanOperator.partial(task_id="plan", **GO_ON).expand(spec=preflight.output)
    groups = archive.ListGroupsOperator(task_id="list_groups", plans=plan.output, **GO_ON)
    export = archive.ExportOperator.partial(
        task_id="export", pool="dbops_source", max_active_tis_per_dagrun=4, **GO_ON
    ).expand(group=groups.output)
    publish = archive.PublishOperator.partial(task_id="publish", pool="dbops_archive_commit", **GO_ON).expand(
        plan=plan.output
    )
    verify = archive.VerifyOperator.partial(task_id="verify", max_active_tis_per_dagrun=2, **GO_ON).expand(
        group=groups.output
    )
    list_approvals = archive.ListApprovalsOperator(task_id="list_approvals", plans=plan.output, **GO_ON)
    approve = HITLOperator.partial(
        task_id="approve",
        options=[archive.APPROVE, archive.REJECT],
        defaults=[archive.REJECT],
        response_timeout=timedelta(hours=8),
        # A repeated approval would show the text of the first attempt.
        retries=0,
        notifiers=[alerting.approval_notifier()],
    ).expand_kwargs(list_approvals.output)
    record_approvals = archive.RecordApprovalsOperator(
        task_id="record_approvals", asking_task_id="list_approvals", approval_task_id="approve", **GO_ON
    )
    purge = archive.PurgeOperator.partial(
        task_id="purge", pool="dbops_source", max_active_tis_per_dagrun=2, **GO_ON
    ).expand(group=groups.output)
    reconcile = archive.ReconcileOperator.partial(task_id="reconcile", **GO_ON).expand(plan=plan.output)
    # The steps above run on after a failure elsewhere, so their states alone would not turn the run red.
    any_failure = archive.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)

    chain(export, publish, verify, list_approvals, approve, record_approvals, purge, reconcile)
    chain(
        [choose, preflight, plan, groups, export, publish, verify, list_approvals, record_approvals, purge, reconcile],
        any_failure,
    )
