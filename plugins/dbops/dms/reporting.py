"""The report of a run, from its plans in the ledger and from a look at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dbops import asking
from dbops.dms import account, carry, failures, health, proving, states
from dbops.dms.decision import Decision
from dbops.dms.failures import Evidence
from dbops.dms.health import Health
from dbops.dms.plan import Plan
from dbops.dms.spec import DmsSpec
from dbops.dms.summary import Standing

if TYPE_CHECKING:
    from dbops.dms.account import Account
    from dbops.dms.control import Services
    from dbops.dms.health import Measured

EVENTS = 50
CHART_MINUTES = 180
"""Minutes of metrics in the charts."""


def standings(
    services: Services, specs: Sequence[DmsSpec], run: str, proven: Mapping[str, Mapping[str, Any]], *, is_watch: bool
) -> list[Standing]:
    """What is known of each spec of one account at the end of a run.

    Args:
        services: of the account
        specs: what the run was about
        run: ``dag_id/run_id``
        proven: name of a spec -> verdict and reasons, for those whose health the run has judged to the end
        is_watch: a run over many: statistics of tables are asked for only where a task's own counts do not suffice
    """
    held = asking.ask(services.dms, account.look(specs))
    tasks = [held.task(spec) for spec in specs if held.task(spec).arn and spec.has_cdc]
    measured: Mapping[str, Measured] = {}
    if tasks:
        question = health.latencies(tasks, held.instances, until=services.now(), minutes=CHART_MINUTES)
        measured = asking.ask(services.cloudwatch, question)
    return [_standing(services, spec, run, held, measured, proven.get(spec.name), is_watch=is_watch) for spec in specs]


def _standing(
    services: Services,
    spec: DmsSpec,
    run: str,
    held: Account,
    measured: Mapping[str, Measured],
    proven: Mapping[str, Any] | None,
    *,
    is_watch: bool,
) -> Standing:
    ledger, task = services.ledger, held.task(spec)
    document = ledger.plan(run, spec.name) or {}
    of_task, counted = measured.get(task.arn), account.is_counted_complete(task, spec)
    tables = asking.ask(services.dms, states.statistics(task)) if task.arn and not (is_watch and counted) else None
    seen = Evidence(
        task, tables=tables, instance_status=held.instance_status(spec), messages=held.said(spec),
        restarts=ledger.restarts(spec.name, task.checkpoint), restarts_limit=spec.limits.restarts,
        error_rows_limit=spec.limits.error_rows,
    )  # fmt: skip
    judged = Health(proven["verdict"], tuple(proven["reasons"])) if proven else None
    if judged is None and task.arn:
        judged = proving.preliminary(spec, task, of_task, tables, services.now())
    return Standing(
        spec,
        task,
        plan=plan_of(document) if document else None,
        steps={number: one["state"] for number, one in ledger.steps(run, spec.name).items()},
        failures=failures.recognise(seen),
        health=judged,
        tables=tables,
        measured=of_task,
        comparisons=ledger.comparisons(spec.name, datetime.fromisoformat(document["at"])) if document else (),
        failing=ledger.failing(spec.name),
        events=ledger.events(spec.name, EVENTS),
        events_count=ledger.count_events(spec.name),
        error=str(document.get("error") or "") if document else "the run has kept no plan for it",
    )


def plan_of(document: Mapping[str, Any]) -> Plan:
    """The plan that a run has kept."""
    made = document["decision"]
    decided = Decision(made["action"], made["reason"], made["next_step"], made["proposed"])
    return Plan(
        decided,
        tuple(carry.step_of(one) for one in document["steps"]),
        tuple(document["refusals"]),
        tuple(document["approvals"]),
        tuple(document["notes"]),
    )
