"""The report of a run, from its plans in the ledger and from a look at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dbops import asking
from dbops.dms import account, carry, control, failures, health, proving, states, summary
from dbops.dms.decision import Decision
from dbops.dms.health import Health
from dbops.dms.plan import Plan
from dbops.dms.spec import DmsSpec
from dbops.dms.summary import Standing
from dbops.reports import Verdict

if TYPE_CHECKING:
    from dbops.dms.account import Account
    from dbops.dms.control import Services
    from dbops.dms.health import Measured
    from dbops.dms.ledger import KeptComparison, Recall

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
    kept = _kept(services, specs, run)
    found = [
        _standing(
            services, spec, held, measured.get(held.task(spec).arn), kept, proven.get(spec.name), is_watch=is_watch
        )
        for spec in specs
    ]
    # A report of many shows the events of those that need a look.
    return [one if is_watch and summary.judge(one)[0] is Verdict.OK else _with_events(services, one) for one in found]


@dataclass(frozen=True)
class _Kept:
    """What the ledger holds of the specs of a run, by spec."""

    plans: Mapping[str, dict[str, Any]]
    steps: Mapping[str, dict[int, dict[str, Any]]]
    comparisons: Mapping[str, tuple[KeptComparison, ...]]
    recall: Recall


def _kept(services: Services, specs: Sequence[DmsSpec], run: str) -> _Kept:
    ledger, names = services.ledger, [spec.name for spec in specs]
    plans = ledger.plans(run, names)
    began = min((datetime.fromisoformat(document["at"]) for document in plans.values()), default=None)
    compared = ledger.comparisons_of(names, began) if began else {}
    return _Kept(plans, ledger.steps_of(run, names), compared, ledger.recall(names))


def _with_events(services: Services, one: Standing) -> Standing:
    name = one.spec.name
    return replace(one, events=services.ledger.events(name, EVENTS), events_count=services.ledger.count_events(name))


def _standing(
    services: Services,
    spec: DmsSpec,
    held: Account,
    measured: Measured | None,
    kept: _Kept,
    proven: Mapping[str, Any] | None,
    *,
    is_watch: bool,
) -> Standing:
    task, document = held.task(spec), kept.plans.get(spec.name) or {}
    counted = account.is_counted_complete(task, spec)
    tables = asking.ask(services.dms, states.statistics(task)) if task.arn and not (is_watch and counted) else None
    judged = Health(proven["verdict"], tuple(proven["reasons"])) if proven else None
    if judged is None and document.get("held"):
        judged = Health("standing", tuple(document["health"]["reasons"]))
    elif judged is None and task.arn:
        judged = proving.as_asked(document, task) or proving.preliminary(spec, task, measured, tables, services.now())
    return Standing(
        spec,
        task,
        plan=plan_of(document) if document else None,
        steps={number: one["state"] for number, one in kept.steps.get(spec.name, {}).items()},
        failures=failures.recognise(control.evidence(spec, held, tables, kept.recall)),
        health=judged,
        tables=tables,
        measured=measured,
        comparisons=kept.comparisons.get(spec.name, ()),
        failing=kept.recall.failing.get(spec.name, ()),
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
