"""From everything that is known of a task to what this run does with it; nothing here changes anything.

One :func:`judge` a spec: it asks AWS and the source for what the decision still lacks, recognises failures, and makes the plan. A plan
that needs an approval is made a second time as approved: the digest of that one is what a person approves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from dbops import asking
from dbops.dms import (
    account,
    apply_exceptions,
    assessment,
    carry,
    checks,
    decision,
    failures,
    lint,
    places,
    plan,
    proving,
    source,
    states,
    target,
)
from dbops.dms.account import Account
from dbops.dms.decision import Decision, Known, Wish
from dbops.dms.facts import Check
from dbops.dms.failures import Evidence, Failure
from dbops.dms.health import Health, Measured
from dbops.dms.ledger import FREED, HELD, Claimed, Ledger, Recall, failure_id
from dbops.dms.lint import Finding
from dbops.dms.mappings import Table
from dbops.dms.plan import Plan
from dbops.dms.spec import RELATIONAL, DmsSpec
from dbops.dms.states import TableStatistics, Task

Action = Literal[
    "ensure", "start", "resume", "reload_tables", "reload_target", "stop", "drain", "delete", "status"
]  # fmt: skip
WISHES: dict[str, Wish] = {
    "ensure": "ensure", "start": "start", "resume": "resume", "reload_tables": "reload_tables",
    "reload_target": "reload_target",
}  # fmt: skip
GIVEN_BACK = "dms_task_control with ensure, start, resume or reload_target gives it back to the scheduled runs"
HOLDING: frozenset[str] = frozenset({"stop", "drain", "delete"})
"""Actions after which the scheduled runs leave the task to the person who asked for them."""
CONFIRMED: frozenset[str] = frozenset({"stop", "drain", "delete", "reload_target", "reload_tables"})
"""Actions that disturb replication or replace rows: the spec's name has to be typed out."""


CLAIM = timedelta(minutes=30)
"""How long a run that died keeps others from the spec; a task that waits renews it for as long as it may wait."""
RESUMED_HOURS = 24
"""Hours after its last step, within which a plan that was begun is gone on with; longer where a load may take longer."""


class ControlError(ValueError):
    """What is asked for cannot be done with this spec; nothing was touched."""


@dataclass(frozen=True)
class Wanted:
    """What a run asks for."""

    action: Action = "ensure"
    tables: tuple[Table, ...] = ()
    """For ``reload_tables``: those that are named; none: those that failed or differ."""
    _: KW_ONLY
    is_confirmed: bool = False
    """The spec's name was typed out."""
    drain_at: datetime | None = None
    is_watch: bool = False
    """A scheduled run: it leaves alone what a person has stopped or deleted."""
    is_looking: bool = False
    """Nothing will be called: it neither claims the spec nor waits for the run that works on it."""


@dataclass(frozen=True)
class Services:
    """How a run reaches AWS, its servers and the ledger."""

    dms: Any
    cloudwatch: Any
    ledger: Ledger
    connect: Callable[[str], Any]
    """Airflow connection id -> an open MySQL connection."""
    now: Callable[[], datetime]


@dataclass(frozen=True)
class Judged:
    """What is known of one task, and what follows."""

    spec: DmsSpec
    wanted: Wanted
    task: Task
    statistics: tuple[TableStatistics, ...] | None
    """None where the task's own counts say that all is well, and nobody asked further."""
    failures: tuple[Failure, ...]
    findings: tuple[Finding, ...]
    plan: Plan
    """As it stands: with what has to be approved first."""
    approved: Plan
    """As it is when a person has approved it; the same plan where nothing has to be."""
    at: datetime
    source_error: str = ""
    """Why the logs of the source could not be asked for."""
    notes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    """Of the servers, where a start was planned."""
    differing: tuple[Table, ...] = ()
    """Tables that say completed, and whose rows do not."""
    held_by: str = ""
    """What a person did to it; "" when the scheduled runs look after it."""

    @property
    def decision(self) -> Decision:
        """What is decided."""
        return self.plan.decision

    @property
    def document(self) -> dict[str, Any]:
        """As it is kept in the ledger: what a later task of this run, or a run after a kill, carries out."""
        return {
            "spec": self.spec.name,
            "action": self.wanted.action,
            "at": self.at.isoformat(),
            "task": {"identifier": self.task.identifier, "arn": self.task.arn, "status": self.task.status},
            "decision": {
                "action": self.decision.action,
                "reason": self.decision.reason,
                "next_step": self.decision.next_step,
                "proposed": self.decision.proposed,
            },
            "steps": [carry.step_document(step) for step in self.approved.steps],
            "digest": self.approved.digest,
            "refusals": list(self.approved.refusals),
            "approvals": list(self.plan.approvals),
            "notes": [*self.plan.notes, *self.notes, *([self.source_error] if self.source_error else [])],
            "findings": [f"{one.where} {one.text} ({one.rule}): {one.reason}. {one.fix}." for one in self.findings],
            "failures": [
                {"kind": one.kind, "text": str(one), "tables": [str(table) for table in one.tables]}
                for one in self.failures
            ],
            "tables": [str(table) for table in self.wanted.tables],
            "drain_at": self.wanted.drain_at.isoformat() if self.wanted.drain_at else None,
        }


def check(spec: DmsSpec, wanted: Wanted) -> None:
    """Refuse what can be seen to be wrong before anything is asked.

    Raises:
        ControlError: names the parameter, its value and the fix
    """
    if wanted.tables and wanted.action != "reload_tables":
        named = ", ".join(map(str, wanted.tables))
        raise ControlError(
            f"tables: {named} are named, but action is {wanted.action}; leave them out, or reload_tables"
        )
    if wanted.action == "drain" and not spec.has_cdc:
        raise ControlError(f"action: drain is for a task that follows changes; {spec.name} is {spec.task_type}")
    if wanted.action in ("reload_target", "reload_tables") and not spec.has_load:
        raise ControlError(f"action: {wanted.action} needs a load; {spec.name} is {spec.task_type}")
    if unknown := lint.unknown_overrides(spec, checks.ids() | target.ids()):
        raise ControlError(f"overrides: {', '.join(unknown)} is no rule and no check; correct the spec")


def judge(services: Services, spec: DmsSpec, held: Account, wanted: Wanted, kept: Recall | None = None) -> Judged:
    """Everything that is known of one task now, and the plan that follows.

    Args:
        services: how AWS, servers and ledger are reached
        spec: the spec
        held: what AWS has
        wanted: what the run asks for
        kept: what the ledger holds, where it was asked for many specs at once

    Raises:
        ControlError: what is asked for cannot be done with this spec
    """
    check(spec, wanted)
    if rivals := held.rivals.get(spec.task_identifier):
        raise ControlError(
            f"identifier: {', '.join(rivals)} all declare the task {spec.task_identifier}, and would undo each other's changes; "
            "give each its own identifier"
        )
    kept = kept or services.ledger.recall([spec.name])
    task, at = held.task(spec), services.now()
    if wanted.is_watch and (by_hand := kept.held.get(spec.name)):
        left = Plan(Decision("none", f"a person looks after it: {by_hand}; {GIVEN_BACK}"))
        return Judged(spec, wanted, task, None, (), (), left, left, at, held_by=by_hand)
    noted, unread = _exceptions(services, spec, task)
    statistics = _statistics(services, spec, held, wanted, kept, must=bool(noted))
    logs, trouble = _logs(services, spec, task)
    seen = evidence(spec, held, statistics, kept, apply_exceptions.of_tables(spec, noted, statistics or ()))
    found = failures.recognise(seen)
    if wanted.action not in WISHES:
        plain = [_plain(spec, task, wanted, is_approved=is_approved) for is_approved in (False, True)]
        return Judged(spec, wanted, task, statistics, found, lint.lint(spec), plain[0], plain[1], at, trouble, unread)

    began = {one.table: one.load_started_at for one in statistics or () if one.load_started_at}
    differing = {*kept.differing(spec.name, began), *failures.differing(found)}
    quarantined = set(kept.quarantined(spec.name, spec.quarantine_after)) - set(wanted.tables)
    start_at, has_predecessor, lost = _start_at(services, spec, held)
    known = decision.known(
        task,
        spec.task_type,
        wish=WISHES[wanted.action],
        wanted_stopped=spec.wanted == "stopped",
        statistics=statistics,
        quarantined=quarantined,
        differing=differing,
        logs=logs,
        start_at=start_at,
        hindrance=failures.hindrance(found),
        may_restart=seen.restarts < spec.limits.restarts,
        empties=lint.empties_target(spec) and spec.protected,
        counted_complete=statistics is None and account.is_counted_complete(task, spec),
        predecessor=has_predecessor,
    )
    tables = wanted.tables or decision.to_reload(statistics or (), quarantined, differing)
    findings, notes, looked = _preflight(services, spec, held, known, tables, start_at)
    made = [
        plan.make(
            spec, held.world(spec), replace(known, approved=is_approved), tables=tables, start_at=start_at,
            findings=[*lost, *findings], is_assessed=_is_assessed(services, spec, task),
        )
        for is_approved in (False, True)
    ]  # fmt: skip
    return Judged(
        spec, wanted, task, statistics, found, findings, made[0], made[1], at, trouble, (*unread, *notes), looked,
        differing=tuple(sorted(differing)),
    )  # fmt: skip


def _start_at(services: Services, spec: DmsSpec, held: Account) -> tuple[str, bool, list[Finding]]:
    """Where a task that has not run begins, whether one before it has run, and what stands against that position.

    A declared position is for the first task of all: the place that a task before has come to goes before it, unless the declared one is
    certainly behind it.
    """
    task, ledger = held.task(spec), services.ledger
    if task.has_run:
        return spec.cdc_start or "", False, []
    kept, has_predecessor = ledger.last_checkpoint(spec.name), ledger.has_run(spec.name)
    source_arn, of = plan.arns(spec, held.world(spec)).get(plan.SOURCE), ledger.checkpoint_source(spec.name)
    is_of_another = bool(kept and of and of != source_arn)
    if spec.cdc_start and (not has_predecessor or is_of_another or not kept or decision.newer(spec.cdc_start, kept)):
        return spec.cdc_start, has_predecessor, []
    if spec.has_load or not has_predecessor or (kept and not is_of_another):
        return kept, has_predecessor, []
    why = (
        f"the checkpoint of the task before is of source endpoint {of}"
        if kept
        else "the task before left no checkpoint"
    )
    lost = Finding(
        "position-lost", "error", "task", why, "a start from now on would leave out every change in between",
        "Set cdc_start to the position from which this source has to be read",
    )  # fmt: skip
    return kept, has_predecessor, [lost]


def _plain(spec: DmsSpec, task: Task, wanted: Wanted, *, is_approved: bool) -> Plan:
    """Plans that need no decision."""
    if wanted.action == "delete":
        return plan.delete(spec, task, is_approved=is_approved)
    if wanted.action == "stop":
        return plan.stop(spec, task, is_approved=is_approved)
    if wanted.action == "drain":
        return plan.stop(spec, task, is_approved=is_approved, drain_at=wanted.drain_at)
    return Plan(Decision("none", f"only looked: the task is {task.raw_status or task.status}"))


def _statistics(
    services: Services, spec: DmsSpec, held: Account, wanted: Wanted, kept: Recall, *, must: bool = False
) -> tuple[TableStatistics, ...] | None:
    """Statistics of the tables, where the task's own counts do not suffice."""
    task = held.task(spec)
    if not task.arn:
        return None
    is_known = not (kept.differing(spec.name) or kept.quarantined(spec.name, spec.quarantine_after))
    if wanted.action == "ensure" and is_known and not must and account.is_counted_complete(task, spec):
        return None
    return asking.ask(services.dms, states.statistics(task))


def _logs(services: Services, spec: DmsSpec, task: Task) -> tuple[tuple[str, ...] | None, str]:
    """Names of the source's binary logs, where a position matters; a source that cannot be asked is unknown, and said."""
    if task.status not in ("ready", "stopped", "failed", "missing") or not spec.has_cdc:
        return None, ""
    try:
        with services.connect(spec.connection) as connection:
            return source.binary_logs(connection), ""
    except Exception as error:  # whatever the client library raises: the decision takes it as unknown
        return None, f"the source ({spec.connection}) could not be asked: {error}"


def _exceptions(
    services: Services, spec: DmsSpec, task: Task
) -> tuple[dict[tuple[str, str], apply_exceptions.Noted], tuple[str, ...]]:
    """Rows that were not applied at a MySQL target; one that cannot be asked is said, and stops nothing."""
    if not (task.has_run and spec.target_connection and spec.target_engine in RELATIONAL):
        return {}, ()
    try:
        with services.connect(spec.target_connection) as connection:
            return apply_exceptions.read(connection, spec, task), ()
    except Exception as error:  # whatever the client library raises
        return {}, (f"rows that were not applied are unknown: the target ({spec.target_connection}) says {error}",)


def evidence(
    spec: DmsSpec,
    held: Account,
    statistics: Sequence[TableStatistics] | None,
    kept: Recall,
    not_applied: Mapping[Table, int] | None = None,
) -> Evidence:
    """What failures of a task are recognised from."""
    task = held.task(spec)
    began = {one.table: one.load_started_at for one in statistics or () if one.load_started_at}
    differ = kept.differing(spec.name, began)
    compared = {one.table: one for one in kept.compared(spec.name)} if differ else {}
    counted = [
        one for table in differ if (one := compared.get(table)) and None not in (one.source_rows, one.target_rows)
    ]
    return Evidence(
        task,
        tables=None if statistics is None else tuple(statistics),
        instance_status=held.instance_status(spec),
        messages=held.said(spec),
        restarts=kept.restarts(spec.name, task.checkpoint),
        restarts_limit=spec.limits.restarts,
        error_rows_limit=spec.limits.error_rows,
        apply_exceptions=not_applied or {},
        source_rows={one.table: one.source_rows or 0 for one in counted},
        target_rows={one.table: one.target_rows or 0 for one in counted},
        load_ended=bool(counted),
    )


def _preflight(
    services: Services, spec: DmsSpec, held: Account, known: Known, tables: Sequence[Table], start_at: str
) -> tuple[tuple[Finding, ...], tuple[str, ...], tuple[Check, ...]]:
    """Findings of the linter and of the servers at both ends, where something is going to be done.

    A rule that needs facts holds what it cannot see against the spec; so where nothing is done, and nobody looked, only the linter's
    warnings are told.
    """
    first = plan.make(spec, held.world(spec), replace(known, approved=True), tables=tables, start_at=start_at)
    if not first.steps:
        return tuple(one for one in lint.lint(spec) if one.level == "warning"), (), ()
    known_arns = plan.arns(spec, held.world(spec))
    at_aws = {one.arn: source.endpoint_settings(one) for one in held.endpoints}
    ends = [at_aws.get(known_arns.get(token, "")) for token in (plan.SOURCE, plan.TARGET)]
    with services.connect(spec.connection) as connection:
        facts = source.gather(connection, spec)
    version = next((one.engine_version for one in held.instances if one.arn == known_arns.get(plan.INSTANCE)), "")
    seen = list(source.check(spec, facts, source_settings=ends[0], target_settings=ends[1], engine_version=version))
    if spec.target_connection is not None and spec.target_engine in RELATIONAL:
        with services.connect(spec.target_connection) as connection:
            there = target.gather(connection, facts, lambda table, columns: places.names(spec, table, columns))
        seen += target.check(spec, facts, there, target_settings=ends[1])
    found = lint.lint(spec, facts.lint_facts(ends[1]))
    rules = {one.rule for one in found}
    stops = [one for one in seen if one.stops and one.id not in rules]
    found += tuple(
        Finding(one.id, "error", one.where, one.found, "DMS cannot replicate like this", one.fix) for one in stops
    )
    return found, tuple(str(one) for one in seen if one.status == "warning" and one.id not in rules), tuple(seen)


def _is_assessed(services: Services, spec: DmsSpec, task: Task) -> bool:
    if not (spec.assessment and task.arn and spec.compute.kind == "instance"):
        return False
    found = asking.ask(services.dms, assessment.last(task.arn, plan.assessment_name(spec)))
    return found is not None and found.verdict in ("passed", "warning")


# What a run keeps of it ----------------------------------------------------------------------------------------------


def look(
    services: Services,
    specs: Sequence[DmsSpec],
    held: Account,
    wanted: Wanted,
    run: str,
    measured: Mapping[str, Measured],
    *,
    refused: Mapping[str, Claimed] | None = None,
) -> dict[str, dict[str, Any]]:
    """Judge specs and keep their plans in the ledger, once a run: a run that began a plan goes on with that one.

    Args:
        services: how AWS, servers and ledger are reached
        specs: of one account and region, each claimed by this run
        held: what AWS has
        wanted: what the run asks for
        run: ``dag_id/run_id``
        measured: ARN of a task -> its metrics
        refused: in a run over many: why some of them could not be claimed; those are left to the other run. What one spec cannot be
            asked is kept in its plan, and the others go on

    Returns:
        name of a spec -> its plan's document

    Raises:
        ControlError: what is asked for cannot be done with the spec (only without `refused`)
    """
    ledger, names = services.ledger, [spec.name for spec in specs]
    begun, kept = ledger.steps_of(run, names), ledger.recall(names)
    plans = ledger.plans(run, sorted(begun)) if begun else {}
    made: dict[str, tuple[dict[str, Any], str]] = {}
    for spec in specs:
        if spec.name in plans:
            continue
        try:
            if error := (refused or {}).get(spec.name):
                raise error
            document = _judged(services, spec, held, wanted, run, measured, kept)
        except Exception as error:
            if refused is None:
                raise
            document = _left(spec, held, wanted, services.now(), error)
        made[spec.name] = document, headline(document)
    ledger.keep_plans(run, made)
    return {**plans, **{name: document for name, (document, _) in made.items()}}


def claim(services: Services, spec: DmsSpec, run: str, is_over: Callable[[str], bool]) -> None:
    """Claim the spec for a run. Raises Claimed when a run that has not ended works on it."""
    now = services.now()
    try:
        services.ledger.claim(spec.name, run, now + CLAIM, now)
    except Claimed as error:
        if not is_taken_over(services, spec.name, run, error, is_over):
            raise


def is_taken_over(services: Services, name: str, run: str, refused: Claimed, is_over: Callable[[str], bool]) -> bool:
    """Take over the claim of a run that has ended, however long it was made for; False when that run goes on."""
    if not is_over(refused.run):
        return False
    now = services.now()
    services.ledger.release_claim(name, refused.run)
    try:
        services.ledger.claim(name, run, now + CLAIM, now)
    except Claimed:  # somebody else was faster
        return False
    return True


def _judged(
    services: Services,
    spec: DmsSpec,
    held: Account,
    wanted: Wanted,
    run: str,
    measured: Mapping[str, Measured],
    kept: Recall,
) -> dict[str, Any]:
    judged = judge(services, spec, held, wanted, kept)
    remember(services, judged, kept)
    found = proving.preliminary(spec, judged.task, measured.get(judged.task.arn), judged.statistics, judged.at)
    if judged.held_by:
        found = Health("standing", (judged.decision.reason,))
    document = judged.document
    return {
        **document,
        "error": "",
        "held": bool(judged.held_by),
        "health": {"verdict": found.verdict, "reasons": list(found.reasons)},
        "carry": bool(document["steps"] or document["refusals"] or document["approvals"]),
        "compare": bool(to_compare(services, spec, judged.task, judged.statistics, kept)),
        "prove": proving.is_running(spec, document)
        and (spec.canary is not None or spec.consumer is not None or found.verdict == "unhealthy"),
    }


def remember_hand(services: Services, spec: DmsSpec, run: str, document: Mapping[str, Any]) -> None:
    """After an action of a person: who looks after the task from now on, and which tables have left their quarantine."""
    ledger, action = services.ledger, document["action"]
    if action in HOLDING:
        ledger.note(spec.name, run, HELD, action)
    elif ledger.held([spec.name]):
        ledger.note(spec.name, run, FREED, action)
    for name in document["tables"]:
        ledger.release(spec.name, Table(*name.split(".", 1)), run)


def _left(spec: DmsSpec, held: Account, wanted: Wanted, now: datetime, error: Exception) -> dict[str, Any]:
    """A spec that could not be judged, in the form of a plan."""
    task = held.task(spec)
    is_claimed = isinstance(error, Claimed)
    text = str(error) if is_claimed else f"{type(error).__name__}: {error}"
    return {
        "spec": spec.name, "action": wanted.action, "at": now.isoformat(),
        "task": {"identifier": task.identifier, "arn": task.arn, "status": task.status},
        "decision": {"action": "wait" if is_claimed else "refuse", "reason": text, "next_step": "", "proposed": None},
        "steps": [], "digest": "", "refusals": [], "approvals": [], "notes": [],
        "findings": [], "failures": [], "tables": [], "drain_at": None,
        "error": "" if is_claimed else text, "health": {"verdict": "unknown", "reasons": [text]},
        "carry": not is_claimed, "compare": False, "prove": False,
    }  # fmt: skip


def remember(services: Services, judged: Judged, kept: Recall) -> None:
    """Count failures of tables in the ledger, each once however often it is seen; a load that ended well ends the count."""
    failing = {one.table for one in kept.failing.get(judged.spec.name, ())}
    for one in judged.statistics or ():
        if one.table in judged.differing and not one.is_failed:
            # Else a table whose rows never come right would be reloaded by each run, for ever.
            identity = f"rows differ, loaded {one.load_started_at}"
            services.ledger.table_failed(judged.spec.name, one.table, "its rows differ", judged.at, failure_id=identity)
        elif one.is_failed:
            reason = f"{one.raw_state or one.state}, {one.error_rows} rows failed"
            identity = failure_id(one, judged.task)
            services.ledger.table_failed(judged.spec.name, one.table, reason, judged.at, failure_id=identity)
        elif one.table in failing and one.state == "Table completed" and not one.error_rows:
            services.ledger.table_loaded(judged.spec.name, one.table, one.load_ended_at)


def headline(document: Mapping[str, Any]) -> str:
    """A plan in one line."""
    made = document["decision"]
    steps = ", ".join(one["kind"] for one in document["steps"]) or "no step"
    against = f"; not carried out: {'; '.join(document['refusals'])}" if document["refusals"] else ""
    asked = f"; needs an approval: {'; '.join(document['approvals'])}" if document["approvals"] else ""
    return f"{made['action']}, because {made['reason']}: {steps}{against}{asked}"


def require_unchanged(services: Services, spec: DmsSpec, document: Mapping[str, Any]) -> None:
    """Refuse to begin a plan that would be another one now: what was shown, and approved, is what is done.

    Raises:
        ControlError: the plan made now differs
    """
    held = asking.ask(services.dms, account.one(spec, events=True))
    carry.unchanged(spec, held, document["task"]["arn"])
    wanted = Wanted(
        document["action"],
        tuple(Table(*name.split(".", 1)) for name in document["tables"]),
        drain_at=datetime.fromisoformat(document["drain_at"]) if document["drain_at"] else None,
    )
    now = judge(services, spec, held, wanted)
    if now.approved.digest != document["digest"]:
        raise ControlError(
            f"the task has changed since the plan was made (it is {now.task.raw_status or now.task.status}): planned was "
            f"{headline(document)}; now it would be {headline(now.document)}; run again"
        )


def require_same(
    services: Services, spec: DmsSpec, document: Mapping[str, Any], steps: Mapping[int, Mapping[str, Any]]
) -> None:
    """Refuse to go on with a plan that was begun, when another task stands there by now, or when it was begun too long ago.

    Raises:
        CarryError: the task is another one
        ControlError: nothing of the plan has been done for longer than a step may take
    """
    last = max(one.get("done_at") or one["noted_at"] for one in steps.values())
    limit = timedelta(hours=max(RESUMED_HOURS, spec.limits.load_hours))
    if services.now() - last > limit:
        raise ControlError(
            f"the plan was begun, and went on last at {last:%Y-%m-%d %H:%M} UTC, more than {limit} ago; start a new run, which looks again"
        )
    carry.unchanged(spec, asking.ask(services.dms, account.one(spec)), document["task"]["arn"])


def awaited(spec: DmsSpec, document: Mapping[str, Any]) -> str:
    """What a run waits for after its steps: ``loaded``, ``drained``, "" for nothing."""
    kinds = {one["kind"] for one in document["steps"]}
    if document["action"] == "drain":
        return "drained" if "start_task" in kinds else ""
    return "loaded" if spec.has_load and kinds & {"start_task", "reload_tables"} else ""


def to_compare(
    services: Services,
    spec: DmsSpec,
    task: Task,
    statistics: Iterable[TableStatistics] | None,
    kept: Recall | None = None,
) -> tuple[Table, ...]:
    """Tables whose load has ended since their rows were compared last.

    Where there are no statistics, the end of the whole load tells, and no table is named before somebody asks for them.
    """
    if not spec.has_load:
        return ()
    if statistics is None:
        ended = task.load_finished_at
        newest = (kept or services.ledger.recall([spec.name])).last_compared.get(spec.name)
        return (Table("%", "%"),) if ended and (newest is None or newest < ended) else ()
    compared = services.ledger.compared(spec.name)
    return tuple(
        one.table
        for one in statistics
        if one.state == "Table completed"
        and one.load_ended_at is not None
        and (one.table not in compared or compared[one.table] < one.load_ended_at)
    )
