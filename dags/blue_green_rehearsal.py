"""
### blue_green_rehearsal

If we upgraded tonight: what breaks, how long are we down, which SwitchoverTimeout works, what does it cost? Makes a blue cluster of its
own, upgrades it by an RDS Blue/Green deployment, switches over with one timeout after the other until one works, and measures from a
client's side. It never changes the cluster or snapshot that blue is made from.

**What it rehearses** is declared in `include/specs/blue_green/<name>.yaml`. Every value of the form replaces the spec's.

| parameter | meaning |
|---|---|
| `spec` | name of the spec |
| `dry_run` | true: price and checks, nothing is created |
| `confirm` | the spec's name, typed out: lets this run create, switch over and delete what it made |
| `source` | what blue is made from: `{"kind": "snapshot", "snapshot": "..."}`, or another kind of the spec's `source` |
| `target_version` | engine version of green |
| `instance_class` | class of every instance |
| `gigabytes`, `tables`, `connections` | made-up data, and idle clients at each switchover |
| `ladder` | SwitchoverTimeout of each attempt, in seconds |
| `max_cost_usd`, `max_hours` | refused above this estimate; removed by the janitor after so long |
| `keep_old` | leave the instances standing at the end |

Example: `{"spec": "shop_upgrade", "dry_run": false, "confirm": "shop_upgrade"}`

**Resuming.** All state is in the store (tables `rehearsal*`). A task whose worker died is tried again, and goes on; a switchover is never
called twice. When a task stays red, the teardown follows at once: then start a new run. With `keep_old` all stands until it expires: clear
the red task, and it goes on. Every task must run on one machine, because probes write to its disk (`DBOPS_RECORDINGS`).

### If this fails at 3 am

- **Production was not touched.** Everything that is changed or deleted carries the tag `dbops:rehearsal` and is looked up by its resource
  id just before. You can go back to sleep, unless the alert says that something is left: that costs money by the hour.
- `plan` or `preflight` red: each check is named with its fix. Nothing (plan), or blue alone (preflight), was made.
- `provision`, `fill`, `await_green` red: AWS was slow or refused; the message has its reason. Start a new run when it is gone.
- `gate` red: lag, an open transaction or DDL stood in the way for too long; each is named. Nothing was switched.
- `switchover` red: the worker or the connection was lost. AWS goes on by itself, and
  the teardown waits for its end. A task that is tried again looks, and does not call again.
- `examine` says REFUSED: AWS did not begin the attempt, and says why. The next rung goes on behind a gate of its own;
  clear `gate` to try the same one again.
- `examine` red, "is stuck": members ended differently. Look at the deployment in the RDS console; the old side still has every row.
- `teardown` red: it lists what is left and what an hour of it costs. Clear it; `blue_green_janitor` tries again when it is expired.
- A NO-GO is not a failure: the run is green, and the report has the reasons.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, TaskGroup, TriggerRule, chain

from dbops import alerting, specs
from dbops.blue_green import operators as blue_green

MAX_ATTEMPTS = 5

with DAG(
    dag_id="blue_green_rehearsal",
    description="The upgrade by Blue/Green deployment, rehearsed, measured, explained and cleaned up",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=72),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=6)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["blue_green", "mysql", "destructive"],
    params={
        "spec": Param(
            None, type=["string", "null"], title="Spec (required)", description="Name of one spec",
            examples=specs.names("blue_green"),
        ),
        "dry_run": Param(True, type="boolean", title="Dry run", description="Price and checks; nothing is created"),
        "confirm": Param(
            None, type=["string", "null"], title="Confirm", description="The spec's name, typed out, lets this run create and delete",
        ),
        "source": Param(None, type=["object", "null"], title="Source of blue", description="Empty: the spec's own"),
        "target_version": Param(None, type=["string", "null"], title="Version of green", description="Empty: the spec's own"),
        "instance_class": Param(
            None, type=["string", "null"], title="Instance class", pattern=r"^db\.", description="Empty: the spec's own",
        ),
        "gigabytes": Param(None, type=["number", "null"], title="Made-up data, GB", minimum=0, description="Empty: the spec's own"),
        "tables": Param(None, type=["integer", "null"], title="Tables of it", minimum=1, description="Empty: the spec's own"),
        "connections": Param(None, type=["integer", "null"], title="Idle connections", minimum=0, description="Empty: the spec's own"),
        "ladder": Param(
            None, type=["array", "null"], items={"type": "integer", "minimum": 30, "maximum": 3600}, title="Timeout ladder, seconds",
            description="Empty: the spec's own",
        ),
        "max_cost_usd": Param(None, type=["number", "null"], title="Budget, USD", exclusiveMinimum=0, description="Empty: the spec's own"),
        "max_hours": Param(
            None, type=["number", "null"], title="Hours until it expires", exclusiveMinimum=0, description="Empty: the spec's own",
        ),
        "keep_old": Param(None, type=["boolean", "null"], title="Keep what was made", description="Empty: the spec's own"),
    },
) as dag:  # fmt: skip
    begin = blue_green.BeginOperator(task_id="begin", retries=0)
    plan = blue_green.PlanOperator(task_id="plan")
    provision = blue_green.ProvisionOperator(task_id="provision")
    preflight = blue_green.PreflightOperator(task_id="preflight")
    fill = blue_green.FillOperator(task_id="fill")
    start_probes = blue_green.StartProbesOperator(task_id="start_probes")
    create_green = blue_green.CreateGreenOperator(task_id="create_green")
    await_green = blue_green.AwaitGreenOperator(task_id="await_green")
    replicate = blue_green.ReplicateOperator(task_id="replicate")
    compare = blue_green.CompareOperator(task_id="compare")
    break_replication = blue_green.BreakReplicationOperator(task_id="break_replication")
    chain(
        begin,
        plan,
        provision,
        preflight,
        fill,
        start_probes,
        create_green,
        await_green,
        replicate,
        compare,
        break_replication,
    )

    # A rung that is not needed is skipped, and the next one sees by the journal that it is not needed either.
    before, examined = break_replication, []
    for number in range(1, MAX_ATTEMPTS + 1):
        with TaskGroup(f"attempt_{number}"):
            gate = blue_green.GateOperator(task_id="gate", number=number, trigger_rule=TriggerRule.NONE_FAILED)
            switchover = blue_green.SwitchoverOperator(task_id="switchover", number=number)
            examine = blue_green.ExamineOperator(task_id="examine", number=number)
            chain(before, gate, switchover, examine)
        before = examine
        examined.append(examine)

    conclude = blue_green.ConcludeLadderOperator(
        task_id="conclude_ladder", trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
    )
    verify = blue_green.VerifyOperator(task_id="verify")
    watch = blue_green.WatchOperator(task_id="watch")
    measure = blue_green.MeasureOperator(task_id="measure", trigger_rule=TriggerRule.ALL_DONE)
    teardown = blue_green.TeardownOperator(task_id="teardown").as_teardown(setups=begin, on_failure_fail_dagrun=True)
    report = blue_green.ReportOperator(task_id="report", trigger_rule=TriggerRule.ALL_DONE)
    any_failure = blue_green.AnyFailureOperator(task_id="any_failure", trigger_rule=TriggerRule.ONE_FAILED, retries=0)
    chain(examined, conclude, verify, watch, measure, teardown, report)
    chain([t for t in dag.tasks if t not in (any_failure, report, begin)], any_failure)
