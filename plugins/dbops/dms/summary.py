"""The reports and alerts of DMS tasks: of one spec with everything that is known of it, and of a scheduled run over many.

The verdict is fail-closed: a task that runs and whose health nobody measured is no OK. Nothing is left out without saying so. What AWS and
MySQL have said is masked, because a failure may quote a login.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from dbops import reports
from dbops.alerting import MAX_MESSAGE, mask
from dbops.dms import charts
from dbops.dms.charts import Measured, Point
from dbops.dms.decision import Decision
from dbops.dms.failures import Failure
from dbops.dms.ledger import Compared, Event, TableFailure, said
from dbops.dms.lint import Finding
from dbops.dms.mappings import Table
from dbops.dms.plan import Plan
from dbops.dms.spec import DmsSpec
from dbops.dms.states import TableStatistics, Task
from dbops.reports import Verdict

MAX_CHARTS = 12
"""Charts in the report of many specs."""
MAX_REASONS = 30
"""Reasons of the verdict that the report of many specs lists."""
MAX_EVENTS = 100
"""Events in the report of many specs."""
SHOWN = 100
"""Rows of a long table on the page; the CSV file beside the report has all."""
ALL_SHOWN = 500
"""The same of the table with a row a spec."""
ALERT_CHARS = MAX_MESSAGE - 500
_WORST_FIRST = (Verdict.FAILED, Verdict.REFUSED, Verdict.WARNING, Verdict.DRY_RUN, Verdict.OK)
_ARN = re.compile(r'\s*"?\w+"?: "?arn:[^"\s]+"?,?')
_STATUSES = ("differ", "unsettled", "not comparable", "equal")


class Healthy(Protocol):
    """A verdict on a task, as :mod:`dbops.dms.health` gives it: healthy, unhealthy, loading, standing."""

    @property
    def verdict(self) -> str: ...  # noqa: D102
    @property
    def reasons(self) -> Sequence[str]: ...  # noqa: D102


class Checked(Protocol):
    """One check of a preflight; its status is ok, warning or stop."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def where(self) -> str: ...  # noqa: D102
    @property
    def found(self) -> str: ...  # noqa: D102
    @property
    def fix(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Standing:
    """What a run knows of one spec when it ends; None or empty where it did not ask."""

    spec: DmsSpec
    task: Task | None = None
    plan: Plan | None = None
    steps: Mapping[int, str] = field(default_factory=dict)
    """Number of a step of the plan, from 0 -> noted or done; a step that was not begun is missing."""
    failures: tuple[Failure, ...] = ()
    health: Healthy | None = None
    tables: tuple[TableStatistics, ...] | None = None
    measured: Measured | None = None
    comparisons: tuple[Compared, ...] = ()
    checks: tuple[Checked, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Of the linter."""
    failing: tuple[TableFailure, ...] = ()
    """Tables with failures in a row."""
    events: tuple[Event, ...] = ()
    """The newest of the event log, newest first."""
    events_count: int = 0
    """How many the log has."""
    error: str = ""
    """Why the run could not do its work on the spec: another run has it, AWS refused."""

    @property
    def decision(self) -> Decision | None:
        """What was decided."""
        return self.plan.decision if self.plan else None

    @property
    def is_done(self) -> bool:
        """Whether every step of the plan is done."""
        return self.plan is not None and all(self.steps.get(n) == "done" for n in range(len(self.plan.steps)))

    @property
    def quarantined(self) -> tuple[Table, ...]:
        """Tables that are left to a person."""
        return tuple(one.table for one in self.failing if one.failures >= self.spec.quarantine_after)


# Verdicts ------------------------------------------------------------------------------------------------------------


def judge(of: Standing, *, dry_run: bool = False) -> tuple[Verdict, list[str]]:
    """The verdict on one spec, and its reasons, never none.

    FAILED: it does not replicate as declared, or the run could not find out; REFUSED: something must not go on, or waits for an approval;
    WARNING: it replicates, and a person should look; DRY_RUN: nothing was changed; OK.
    """
    if of.error:
        return Verdict.FAILED, [_masked(of.error)]
    wrong = [*_unfinished(of, dry_run=dry_run), *_wrong(of)]
    against = _against(of)
    doubts = _doubts(of)
    if against:
        return (Verdict.FAILED if _wrong(of) and not dry_run else Verdict.REFUSED), _masked_all(
            [*against, *wrong, *doubts]
        )
    if dry_run:
        steps = len(of.plan.steps) if of.plan else 0
        told = f"dry run: {_count(steps, 'step')} would be done" if steps else "dry run: there is nothing to do"
        return Verdict.DRY_RUN, _masked_all([told, *wrong, *doubts])
    if wrong:
        return Verdict.FAILED, _masked_all([*wrong, *doubts])
    if doubts:
        return Verdict.WARNING, _masked_all(doubts)
    return Verdict.OK, _masked_all(_good(of))


def _unfinished(of: Standing, *, dry_run: bool) -> list[str]:
    if of.plan is None or of.plan.is_blocked or dry_run or of.is_done:
        return []
    done = sum(1 for state in of.steps.values() if state == "done")
    where = next(n for n in range(len(of.plan.steps)) if of.steps.get(n) != "done")
    return [
        f"the plan is unfinished: {done} of {len(of.plan.steps)} steps are done, the next is {of.plan.steps[where]}; "
        "run the same action again, which goes on from there"
    ]


def _wrong(of: Standing) -> list[str]:
    found = []
    if of.health is not None and of.health.verdict not in ("healthy", "loading", "standing"):
        found += [f"{of.health.verdict}: {reason}" for reason in of.health.reasons]
    if not _is_repaired(of):
        found += [f"{one.kind}: {one.evidence}" for one in of.failures]
    for one in of.comparisons:
        if one.status == "differ":
            found.append(f"table {one.table} differs: {one.reason or _counts(one)}")
    return found


def _is_repaired(of: Standing) -> bool:
    """Whether the failures that were seen are those that this run's steps have worked on."""
    good = of.health is not None and of.health.verdict in ("healthy", "loading")
    return good and bool(of.plan and of.plan.steps) and of.is_done


def _against(of: Standing) -> list[str]:
    if of.plan is None:
        return []
    return [*(f"refused: {text}" for text in of.plan.refusals), *(f"approval: {text}" for text in of.plan.approvals)]


def _doubts(of: Standing) -> list[str]:
    found = []
    if of.quarantined:
        names = _listed(map(str, of.quarantined), 10)
        found.append(f"{_count(len(of.quarantined), 'table')} in quarantine, left to a person: {names}")
    if of.failures and _is_repaired(of):
        found += [f"{one.kind}: {one.evidence}; the steps of this run work on it" for one in of.failures]
    if of.health is None and of.task is not None and of.task.status == "running":
        found.append("the task is running, and its health was not measured")
    unsettled = [one for one in of.comparisons if one.status == "unsettled"]
    if unsettled:
        names = _listed((str(one.table) for one in unsettled), 10)
        found.append(f"{_count(len(unsettled), 'table')} could not be compared yet, because rows still change: {names}")
    return found


def _good(of: Standing) -> list[str]:
    found = []
    if of.health is not None:
        found += [f"{of.health.verdict}: {reason}" for reason in of.health.reasons] or [of.health.verdict]
    if of.plan is not None and of.plan.steps:
        found.append(f"{_count(len(of.plan.steps), 'step')} done: {_listed((one.kind for one in of.plan.steps), 10)}")
    if of.decision is not None:
        found.append(of.decision.reason)
    left_out = [one for one in of.comparisons if one.status == "not comparable"]
    if left_out:
        found.append(f"{_count(len(left_out), 'table')} cannot be compared row by row; see the comparison")
    return found or ["nothing was asked, and nothing was done"]


# One spec ------------------------------------------------------------------------------------------------------------


def report(of: Standing, common: Mapping[str, Any], *, action: str = "ensure", dry_run: bool = False) -> reports.Report:
    """The report of one spec.

    Args:
        of: what the run knows
        common: dag_id, run_id, parameters, versions and provenance
        action: what was asked for
        dry_run: nothing was changed
    """
    verdict, reasons = judge(of, dry_run=dry_run)
    sections: list[reports.Section] = [
        *_decision(of),
        *_plan(of),
        *_failures([of]),
        *_charts(of),
        *_tables(of),
        *_comparisons([of]),
        *_failing([of]),
        *_checks(of),
        *_events(of),
        reports.Code(title="The spec as it ran", language="yaml", body=_yaml(of.spec)),
    ]
    return reports.Report(
        title=f"DMS task {of.spec.name}: {action}{' (dry run)' if dry_run else ''}", spec=of.spec.name, verdict=verdict,
        reasons=reasons, figures=_figures(of), sections=sections, **common,
    )  # fmt: skip


def _figures(of: Standing) -> list[reports.Figure]:
    task, found = of.task, []
    if task is not None:
        note = task.raw_stop_reason or task.stop_reason
        found.append(reports.Figure(label="Task", value=task.raw_status or task.status, note=_masked(note)))
    if of.health is not None:
        found.append(reports.Figure(label="Health", value=of.health.verdict))
    if of.decision is not None:
        found.append(
            reports.Figure(label="Decision", value=of.decision.action, note=_masked(of.decision.next_step or of.decision.reason))
        )  # fmt: skip
    if of.plan is not None:
        done = sum(1 for state in of.steps.values() if state == "done")
        found.append(reports.Figure(label="Steps", value=str(len(of.plan.steps)), note=f"{done} done"))
    if of.tables is not None:
        bad = sum(1 for one in of.tables if one.is_failed)
        loading = sum(1 for one in of.tables if one.is_loading)
        found.append(
            reports.Figure(label="Tables", value=f"{len(of.tables):,}", note=f"{bad} failed, {loading} not loaded yet")
        )
        found.append(reports.Figure(label="Rows loaded", value=f"{sum(one.rows for one in of.tables):,}"))
    if of.measured is not None:
        limit = f"limit {of.spec.limits.latency_s:g} s each"
        found.append(reports.Figure(label="Latency source / target", value=_latency(of.measured), note=limit))
    return found


def _decision(of: Standing) -> list[reports.Section]:
    if of.decision is None:
        return []
    decided = of.decision
    rows: list[list[Any]] = [["what", decided.action], ["why", decided.reason]]
    if decided.proposed:
        rows.append(["with an approval", decided.proposed])
    if decided.next_step:
        rows.append(["safe next step", decided.next_step])
    rows.append(["replaces rows of the target", decided.is_destructive])
    if of.task is not None:
        rows.append(["status", of.task.raw_status or of.task.status])
        rows.append(["stop reason", of.task.raw_stop_reason or of.task.stop_reason or None])
        rows.append(["checkpoint", of.task.checkpoint or None])
        rows.append(["last failure of the task", of.task.failure or None])
    if of.health is not None:
        rows += [["health", f"{of.health.verdict}: {reason}"] for reason in of.health.reasons]
    return [_table("Decision", ["", ""], rows)]


def _plan(of: Standing) -> list[reports.Section]:
    if of.plan is None:
        return []
    against = [["refused", text] for text in of.plan.refusals]
    against += [["needs an approval", text] for text in of.plan.approvals]
    against += [["note", text] for text in of.plan.notes]
    found: list[reports.Section] = []
    if against:
        found.append(_table("What stands against the plan, and notes", ["what", "text"], against))
    if not of.plan.steps:
        return (
            [*found, reports.Text(title="Plan", body="There is nothing to do: everything is as declared.")]
            if not against
            else found
        )
    rows = []
    for number, step in enumerate(of.plan.steps):
        state = {"noted": "begun", "done": "done"}.get(of.steps.get(number, ""), "not begun")
        rows.append([number + 1, step.kind, step.subject, step.why, step.method or None, step.is_disruptive, state])
    columns = ["step", "what", "of", "why, and what changes", "call", "disruptive", "state"]
    note = f"Digest of this very plan, for its approval: {of.plan.digest}" if of.plan.approvals else ""
    found.append(_table("Plan", columns, rows, note=note))
    called = [
        {"step": n, "call": s.method, "arguments": s.arguments} for n, s in enumerate(of.plan.steps, 1) if s.method
    ]
    if called:
        body = _masked_but_arns(json.dumps(called, indent=1, ensure_ascii=False, default=str))
        found.append(
            reports.Code(
                title="Arguments of the calls (@source, @target, @instance, @task: their ARNs)",
                language="json",
                body=body,
            )
        )
    return found  # fmt: skip


def _failures(all_of: Sequence[Standing]) -> list[reports.Section]:
    columns = ["symptom", "cause", "do", "tables", "kind", "stands in the way of going on"]
    rows = [
        [of.spec.name, one.evidence, one.cause, one.action, ", ".join(map(str, one.tables)) or None, one.kind,
         {"from_beginning": "only a whole new load helps", "fix_first": "repair it first"}.get(one.hindrance, "no")]
        for of in all_of for one in of.failures
    ]  # fmt: skip
    return _of_specs("Failures that were recognised", columns, rows, all_of, file="failures")


def _tables(of: Standing) -> list[reports.Section]:
    if not of.tables:
        return []
    left = set(of.quarantined)
    ordered = sorted(of.tables, key=lambda one: (not one.is_failed, not one.error_rows, not one.is_loading, one.table))
    rows = [
        [
            str(one.table), "in quarantine" if one.table in left else None, one.raw_state or one.state, one.rows, one.error_rows,
            one.condition_failed_rows, one.inserts, one.updates, one.deletes, one.ddls,
            one.applied_inserts, one.applied_updates, one.applied_deletes, _utc(one.load_started_at), _utc(one.load_ended_at),
            one.validation_state or None,
        ]
        for one in ordered
    ]  # fmt: skip
    columns = [
        "table", "left to a person", "state", "rows loaded", "failed rows", "refused by a condition", "inserts", "updates", "deletes",
        "DDL", "applied inserts", "applied updates", "applied deletes", "load began", "load ended", "validation",
    ]  # fmt: skip
    return [_table("Tables, failed ones first", columns, rows, file="tables", shown=SHOWN)]


def _comparisons(all_of: Sequence[Standing]) -> list[reports.Section]:
    chosen = [
        (of, one) for of in all_of for one in of.comparisons
        if len(all_of) == 1 or one.status != "equal" or bool(getattr(one, "not_compared", False))
    ]  # fmt: skip
    chosen.sort(key=lambda pair: _STATUSES.index(pair[1].status) if pair[1].status in _STATUSES else -1)
    rows = [
        [of.spec.name, str(one.table), one.status, one.source_rows, one.target_rows, one.missing, one.extra, one.differing,
         _listed(one.sample, 5) or None, said(one) or None]
        for of, one in chosen
    ]  # fmt: skip
    columns = [
        "table",
        "verdict",
        "rows at the source",
        "at the target",
        "missing",
        "extra",
        "with other values",
        "keys",
        "reason",
    ]
    equal = sum(1 for of in all_of for one in of.comparisons if one.status == "equal")
    note = f"{_count(equal, 'table')} found equal." if len(all_of) > 1 else ""
    return _of_specs("Rows of source and target, compared", columns, rows, all_of, file="comparisons", note=note)


def _failing(all_of: Sequence[Standing]) -> list[reports.Section]:
    rows = [
        [of.spec.name, str(one.table), one.failures, of.spec.quarantine_after, one.table in of.quarantined, _utc(one.failed_at), one.reason]
        for of in all_of for one in of.failing
    ]  # fmt: skip
    columns = ["table", "failures in a row", "limit", "in quarantine", "last seen", "last reason"]
    note = "A table in quarantine is not reloaded by itself: repair the cause, then release it." if rows else ""
    return _of_specs("Tables that fail", columns, rows, all_of, file="failing", note=note)


def _checks(of: Standing) -> list[reports.Section]:
    found: list[reports.Section] = []
    if of.checks:
        order = {"stop": 0, "warning": 1}
        rows = [
            [one.id, one.status, one.where, one.found, getattr(one, "overridden", "") or None, one.fix or None]
            for one in sorted(of.checks, key=lambda one: order.get(one.status, 2))
        ]
        columns = ["check", "status", "where", "found", "overridden because", "fix"]
        found.append(_table("Preflight", columns, rows, file="preflight", shown=SHOWN))
    if of.findings:
        rows = [
            [one.rule, one.level, one.where, one.text, one.reason, one.overridden or None, one.fix]
            for one in of.findings
        ]
        columns = ["rule", "level", "where", "found", "why it matters", "overridden because", "fix"]
        found.append(_table("Settings and mappings", columns, rows, file="lint", shown=SHOWN))
    return found


def _events(of: Standing) -> list[reports.Section]:
    if not of.events:
        return []
    rows = [[one.at, one.run, one.kind, one.subject or None, one.reason] for one in of.events]
    count = max(of.events_count, len(rows))
    return [
        _table(
            "Event log, newest first", ["when, UTC", "run", "kind", "of", "reason"], rows,
            note=f"{len(rows):,} of {_count(count, 'event')} shown; all of them are in dms_event of the store.",
        )
    ]  # fmt: skip


# Many specs ----------------------------------------------------------------------------------------------------------


def report_many(
    all_of: Sequence[Standing], common: Mapping[str, Any], *, title: str = "DMS tasks", dry_run: bool = False
) -> reports.Report:
    """One report of a run over many specs: a row for each, the worst first, and what is wrong with which.

    Args:
        all_of: what the run knows of each spec
        common: dag_id, run_id, parameters, versions and provenance
        title: of the report
        dry_run: nothing was changed
    """
    judged = [(judge(of, dry_run=dry_run), of) for of in all_of]
    judged.sort(key=lambda pair: (_WORST_FIRST.index(pair[0][0]), pair[1].spec.name))
    worst = [of for _, of in judged]
    verdict = judged[0][0][0] if judged else Verdict.WARNING
    sections: list[reports.Section] = [
        _overview(judged),
        *_failures(worst),
        *_steps_of(worst),
        *_failing(worst),
        *_comparisons(worst),
        *_charts_of(judged),
        *_events_of(judged),
    ]
    return reports.Report(
        title=f"{title}{' (dry run)' if dry_run else ''}", verdict=verdict, reasons=_reasons_of(judged), figures=_figures_of(judged),
        sections=sections, **common,
    )  # fmt: skip


Judged = Sequence[tuple[tuple[Verdict, list[str]], Standing]]


def _reasons_of(judged: Judged) -> list[str]:
    if not judged:
        return ["no spec is enabled, so nothing is looked after"]
    bad = [(of, reasons) for (verdict, reasons), of in judged if verdict not in (Verdict.OK, Verdict.DRY_RUN)]
    if not bad:
        return [f"{_count(len(judged), 'spec')}, none needs a look"]
    told = [f"{of.spec.name}: {reason}" for of, reasons in bad for reason in reasons]
    if len(told) > MAX_REASONS:
        return [*told[:MAX_REASONS], f"and {len(told) - MAX_REASONS:,} more reasons; the table has every spec"]
    return told


def _figures_of(judged: Judged) -> list[reports.Figure]:
    verdicts = Counter(verdict for (verdict, _), _ in judged)
    healths = Counter(of.health.verdict if of.health else "not measured" for _, of in judged)
    steps = sum(len(of.plan.steps) for _, of in judged if of.plan)
    done = sum(1 for _, of in judged for state in of.steps.values() if state == "done")
    left = sum(len(of.quarantined) for _, of in judged)
    note = ", ".join(f"{verdicts[one]} {one.value}" for one in _WORST_FIRST if verdicts[one])
    return [
        reports.Figure(label="Specs", value=f"{len(judged):,}", note=note),
        reports.Figure(label="Healthy", value=f"{healths.pop('healthy', 0):,}", note=", ".join(f"{n} {k}" for k, n in healths.items())),
        reports.Figure(label="Steps", value=f"{steps:,}", note=f"{done:,} done"),
        reports.Figure(label="Tables in quarantine", value=f"{left:,}"),
    ]  # fmt: skip


def _overview(judged: Judged) -> reports.Table:
    rows = []
    for (verdict, reasons), of in judged:
        task, decided = of.task, of.decision
        failed = None if of.tables is None else sum(1 for one in of.tables if one.is_failed)
        rows.append([
            of.spec.name, verdict.value, (task.raw_status or task.status) if task else None, of.health.verdict if of.health else None,
            decided.action if decided else None, reasons[0], (decided.next_step if decided else "") or None,
            _latency(of.measured) if of.measured else None, None if of.tables is None else len(of.tables), failed,
            len(of.quarantined), of.spec.owner,
        ])  # fmt: skip
    columns = ["spec", "verdict", "task", "health", "decision", "reason", "safe next step", "latency source / target", "tables", "failed",
               "in quarantine", "owner"]  # fmt: skip
    return _table("Every spec, the worst first", columns, rows, file="specs", shown=ALL_SHOWN)


def _steps_of(all_of: Sequence[Standing]) -> list[reports.Section]:
    rows = []
    for of in all_of:
        for number, step in enumerate(of.plan.steps if of.plan else ()):
            state = {"noted": "begun", "done": "done"}.get(of.steps.get(number, ""), "not begun")
            rows.append([of.spec.name, number + 1, step.kind, step.subject, step.why, state])
    columns = ["step", "what", "of", "why, and what changes", "state"]
    return _of_specs("Steps", columns, rows, all_of, file="steps")


def _charts_of(judged: Judged) -> list[reports.Section]:
    wrong = [
        of for (verdict, _), of in judged if verdict not in (Verdict.OK, Verdict.DRY_RUN) and of.measured is not None
    ]
    drawn = [chart for of in wrong[:MAX_CHARTS] for chart in _charts(of)]
    left_out = [of.spec.name for of in wrong[MAX_CHARTS:]]
    if not left_out:
        return drawn
    body = (
        f"Charts of the {MAX_CHARTS} worst specs are above. {_count(len(left_out), 'more spec')} with a chart to look at: "
        f"{', '.join(left_out)}. The action status of dms_task_control draws the one of a single spec."
    )
    return [*drawn, reports.Text(title="Charts that are not shown", body=body)]


def _events_of(judged: Judged) -> list[reports.Section]:
    wrong = [of for (verdict, _), of in judged if verdict is not Verdict.OK]
    told = sorted(((one, of) for of in wrong for one in of.events), key=lambda pair: pair[0].at, reverse=True)
    if not told:
        return []
    rows: list[list[Any]] = [[one.at, of.spec.name, one.kind, one.subject or None, one.reason] for one, of in told]
    count = sum(max(of.events_count, len(of.events)) for of in wrong)
    return [
        _table(
            "Event log of the specs that need a look, newest first", ["when, UTC", "spec", "kind", "of", "reason"], rows[:MAX_EVENTS],
            note=f"{min(len(rows), MAX_EVENTS):,} of {_count(count, 'event')} shown; all of them are in dms_event of the store.",
        )
    ]  # fmt: skip


def _charts(of: Standing) -> list[reports.Section]:
    if of.measured is None:
        return []
    return [charts.of_task(of.spec.task_identifier, of.measured, of.spec.limits.latency_s)]


# Alerts --------------------------------------------------------------------------------------------------------------


def alert(failures: Sequence[Failure], decision: Decision | None, health: Healthy | None, *, spec: str = "") -> str:
    """Text of an alert: what is wrong with which table, why, what was decided, and what is safe to do now.

    Args:
        failures: that were recognised
        decision: what was decided
        health: of the task
        spec: its name
    """
    lines = [f"Spec:             {spec}"] if spec else []
    for one in failures:
        names = f"table {_listed(map(str, one.tables), 10)}: " if one.tables else ""
        lines.append(f"What:             {names}{one.evidence}")
        lines.append(f"Why:              {one.cause}")
        lines.append(f"Repair:           {one.action}")
    if health is not None and health.verdict not in ("healthy", "standing"):
        lines += [f"Health:           {health.verdict}: {reason}" for reason in health.reasons]
    if decision is not None:
        lines.append(f"Decided:          {decision.action}: {decision.reason}")
    lines.append(f"Safe to do now:   {_safe(failures, decision)}")
    return _masked("\n".join(lines))


def alert_many(all_of: Sequence[Standing], *, dry_run: bool = False) -> str:
    """One alert of a run over many specs, the worst first; "" when none needs a look. What does not fit is named.

    It is short enough for SNS.
    """
    judged = [(judge(of, dry_run=dry_run), of) for of in all_of]
    wrong = [(judgement, of) for judgement, of in judged if judgement[0] not in (Verdict.OK, Verdict.DRY_RUN)]
    if not wrong:
        return ""
    wrong.sort(key=lambda pair: (_WORST_FIRST.index(pair[0][0]), pair[1].spec.name))
    head = f"{len(wrong)} of {_count(len(all_of), 'spec')} need a look."
    parts, room = [head], ALERT_CHARS - len(head)
    for number, ((verdict, reasons), of) in enumerate(wrong):
        part = _alert_of(of, verdict, reasons)
        left = [other.spec.name for _, other in wrong[number:]]
        tail = f"Not told here, see the report: {_listed(left, 30)}"
        if len(part) + len(tail) + 4 > room:
            parts.append(tail)
            break
        parts.append(part)
        room -= len(part) + 2
    return "\n\n".join(parts)


def _alert_of(of: Standing, verdict: Verdict, reasons: Sequence[str]) -> str:
    text = alert(of.failures, of.decision, of.health, spec=of.spec.name)
    told = [reason for reason in reasons if reason.removeprefix("unhealthy: ") not in text][:10]
    return "\n".join([text, *(f"{verdict.value + ':':<18}{reason}" for reason in told)])


def _safe(failures: Sequence[Failure], decision: Decision | None) -> str:
    if decision is not None and decision.next_step:
        return f"{decision.next_step}."
    if decision is not None and decision.action == "wait":
        return "Wait: the next run looks again. Nothing has to be done by hand."
    hindering = next((one for one in failures if one.hindrance != "none"), None) or next(iter(failures), None)
    if hindering is not None:
        return f"{hindering.action[:1].upper()}{hindering.action[1:]}."
    return "Read the report. The action status changes nothing; ensure goes on from where it was."


# Small things --------------------------------------------------------------------------------------------------------


def _table(title: str, columns: list[str], rows: list[list[Any]], **more: Any) -> reports.Table:
    return reports.Table(title=title, columns=columns, rows=[_masked_all(row) for row in rows], **more)


def _of_specs(
    title: str, columns: list[str], rows: list[list[Any]], all_of: Sequence[Standing], *, file: str, note: str = ""
) -> list[reports.Section]:
    """A table whose rows begin with the spec, which is left out where there is only one; nothing without a row."""
    if not rows:
        return []
    if len(all_of) == 1:
        return [_table(title, columns, [row[1:] for row in rows], file=file, shown=SHOWN, note=note)]
    return [_table(title, ["spec", *columns], rows, file=file, shown=SHOWN, note=note)]


def _masked(value: str) -> str:
    return str(mask(value))


def _masked_but_arns(text: str) -> str:
    """An ARN is no secret, also where its key says so: who reads a plan wants to see which secret is meant."""
    return "\n".join(line if _ARN.fullmatch(line) else _masked(line) for line in text.split("\n"))


def _masked_all(values: Iterable[Any]) -> list[Any]:
    return [_masked(value) if isinstance(value, str) else value for value in values]


def _listed(values: Iterable[str], most: int) -> str:
    every = list(values)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _counts(one: Compared) -> str:
    found = {"missing": one.missing, "extra": one.extra, "with other values": one.differing}
    told = ", ".join(f"{number:,} {what}" for what, number in found.items() if number)
    return told or f"{one.source_rows} rows at the source, {one.target_rows} at the target"


def _latency(measured: Measured) -> str:
    def last(points: Sequence[Point]) -> str:
        return f"{points[-1].value:.4g} s" if points else "unknown"

    return f"{last(measured.latency_source)} / {last(measured.latency_target)}"


def _utc(moment: datetime | None) -> Any:
    return None if moment is None else moment.astimezone(UTC)


def _yaml(spec: DmsSpec) -> str:
    import yaml

    document = spec.model_dump(mode="json", exclude_unset=True)
    return _masked_but_arns(str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True)))
