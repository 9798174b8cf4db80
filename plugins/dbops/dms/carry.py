"""Carry out the steps of a plan one by one, so that a run that dies goes on where it was and calls nothing twice that could do harm.

Before a step is called, it is noted in the ledger; after its effect is seen, it is done. A run that finds a noted step looks at AWS
before it calls: every step's effect can be seen there. A call that AWS refuses because it is carried out already is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from dbops import asking
from dbops.asking import Question
from dbops.dms import account, assessment, endpoints, plan, states
from dbops.dms.account import Account
from dbops.dms.ledger import Ledger
from dbops.dms.mappings import Table
from dbops.dms.plan import INSTANCE, SOURCE, TARGET, Step
from dbops.dms.spec import DmsSpec
from dbops.dms.states import TableStatistics, Task

State = Literal["no", "under way", "done", "failed"]
_ALREADY = frozenset({"InvalidResourceStateFault", "ResourceAlreadyExistsFault"})
"""What AWS answers to a call whose effect is there, or on its way."""


class CarryError(RuntimeError):
    """A step did not reach its effect; the text says which, and what AWS says."""


@dataclass(frozen=True)
class Progress:
    """How far the effect of a step is, as AWS shows it."""

    state: State
    text: str


@dataclass(frozen=True)
class Waiting:
    """A step that was called and whose effect is still on its way."""

    number: int
    step: Step
    note: dict[str, Any]
    progress: Progress
    deadline: datetime


def step_document(step: Step) -> dict[str, Any]:
    """A step as JSON."""
    return {
        "kind": step.kind, "subject": step.subject, "why": step.why, "method": step.method, "arguments": step.arguments,
        "is_disruptive": step.is_disruptive,
    }  # fmt: skip


def step_of(document: Mapping[str, Any]) -> Step:
    """The step of a document."""
    return Step(**document)


# What AWS shows ------------------------------------------------------------------------------------------------------


def progress(spec: DmsSpec, step: Step, note: Mapping[str, Any]) -> Question[Progress]:
    """How far the effect of a step is.

    Args:
        spec: of the task
        step: one that is a call
        note: what was kept before it was called (:func:`before`), with ``called`` once AWS took it
    """
    held = yield from account.one(spec)
    task = held.task(spec)
    if step.kind in ("create_endpoint", "modify_endpoint"):
        found = _endpoint(spec, step, held)
    elif step.kind == "test_connection":
        found = _tested(spec, step, held, note)
    elif step.kind == "reload_tables":
        found = _reloading(step, (yield from states.statistics(task)), note)
    elif step.kind == "assess":
        found = yield from _assessed(step, task, note)
    else:
        found = _of_task(spec, step, task, held, note)
    if found.state == "no" and note.get("called"):
        # AWS took the call and does not show it yet.
        return Progress("under way", found.text)
    return found


def before(spec: DmsSpec, step: Step) -> Question[dict[str, Any]]:
    """What has to be known from before a step, to see its effect."""
    if step.kind not in ("start_task", "reload_tables"):
        yield from ()
        return {}
    task = yield from states.one_task(spec.task_identifier, is_serverless=spec.compute.kind == "serverless")
    if step.kind == "start_task":
        return {
            "started_at": _iso(task.started_at),
            "stopped_at": _iso(task.stopped_at),
            "fresh_start_at": _iso(task.fresh_start_at),
            "checkpoint": task.checkpoint,
        }
    seen = yield from states.statistics(task)
    return {"load_started_at": {str(one.table): _iso(one.load_started_at) for one in seen}}


def _endpoint(spec: DmsSpec, step: Step, held: Account) -> Progress:
    found = next((one for one in held.endpoints if one.identifier.lower() == step.subject.lower()), None)
    if found is None:
        return Progress("no", f"endpoint {step.subject} does not exist")
    if found.status not in ("active", ""):
        return Progress("under way", f"endpoint {step.subject} is {found.status}")
    side: endpoints.Side = "source" if _is_source(spec, step.subject) else "target"
    declared = spec.source if side == "source" else spec.target
    if declared.kind != "existing" and endpoints.diff(declared, side, found):
        return Progress("no", f"endpoint {step.subject} is not as declared")
    return Progress("done", f"endpoint {step.subject} is active and as declared")


def _is_source(spec: DmsSpec, identifier: str) -> bool:
    return spec.source.kind != "existing" and spec.source.identifier == identifier


def _tested(spec: DmsSpec, step: Step, held: Account, note: Mapping[str, Any]) -> Progress:
    known = plan.arns(spec, held.world(spec))
    token = SOURCE if step.arguments["EndpointArn"] == SOURCE else TARGET
    pair = (known.get(token), known.get(INSTANCE))
    last = next((one for one in held.connections if (one.endpoint_arn, one.instance_arn) == pair), None)
    if last is None:
        return Progress("no", f"endpoint {step.subject} was never tested")
    if last.status == "testing":
        return Progress("under way", f"endpoint {step.subject} is being tested")
    if not note.get("called"):
        return Progress("no", f"the last test of endpoint {step.subject} is an old one")
    if last.status == "successful":
        return Progress("done", f"the test of endpoint {step.subject} was successful")
    return Progress("failed", f"the test of endpoint {step.subject} was {last.status}: {last.failure}")


def _reloading(step: Step, seen: tuple[TableStatistics, ...], note: Mapping[str, Any]) -> Progress:
    """A table that says completed proves nothing: it said so before. The start of its load tells."""
    left = _left(step, seen, note)
    if not left:
        return Progress("done", "every table has begun its new load")
    return Progress("no", f"{', '.join(map(str, left))}: the load before is still the last one")


def _left(step: Step, seen: tuple[TableStatistics, ...], note: Mapping[str, Any]) -> list[Table]:
    """Tables of a reload whose new load has not begun."""
    wanted = {Table(one["SchemaName"], one["TableName"]) for one in step.arguments["TablesToReload"]}
    earlier = note.get("load_started_at") or {}
    begun = {
        one.table
        for one in seen
        if one.state == "Table is being reloaded" or _iso(one.load_started_at) != earlier.get(str(one.table))
    }
    return sorted(wanted - begun)


def _not_begun(client: Any, spec: DmsSpec, step: Step, note: Mapping[str, Any]) -> list[Table]:
    task = asking.ask(client, states.one_task(spec.task_identifier, is_serverless=spec.compute.kind == "serverless"))
    return _left(step, asking.ask(client, states.statistics(task)), note)


def _assessed(step: Step, task: Task, note: Mapping[str, Any]) -> Question[Progress]:
    found = yield from assessment.last(task.arn, str(step.arguments["AssessmentRunName"]))
    if found is None:
        return Progress("no", "the premigration assessment has not begun")
    if found.verdict == "failed" and not note.get("called"):
        return Progress("no", f"the premigration assessment before was {found.status}")
    state: State = {"open": "under way", "failed": "failed"}.get(found.verdict, "done")  # type: ignore[assignment]
    said = f": {'; '.join(map(str, found.findings))}" if found.findings else ""
    return Progress(state, f"the premigration assessment is {found.status}{said}")


def _of_task(spec: DmsSpec, step: Step, task: Task, held: Account, note: Mapping[str, Any]) -> Progress:
    told = f"the task is {task.raw_status or task.status}"
    passing = {
        "create_task": "creating", "stop_task": "stopping", "move_task": "moving", "modify_task": "modifying",
        "start_task": "starting", "delete_task": "deleting",
    }  # fmt: skip
    if task.status == passing[step.kind]:
        return Progress("under way", told)
    is_done = {
        "create_task": lambda: task.status != "missing",
        "stop_task": lambda: task.status in ("stopped", "failed", "ready", "missing"),
        "move_task": lambda: task.instance_arn == plan.arns(spec, held.world(spec)).get(INSTANCE),
        "modify_task": lambda: not plan.modifications(spec, task),
        "start_task": lambda: _has_started(step, task, note),
        "delete_task": lambda: task.status == "missing",
    }[step.kind]()
    if step.kind in ("create_task", "move_task", "modify_task") and task.status in ("failed", "failed-move"):
        failed = step.kind == "move_task" or not is_done
        if failed:
            return Progress("failed", f"{told}: {task.failure}")
    return Progress("done" if is_done else "no", told)


def _has_started(step: Step, task: Task, note: Mapping[str, Any]) -> bool:
    """Running, or ended since: a short load can be over before anybody looks.

    A task that runs is no whole new load: who resumed it meanwhile has loaded nothing.
    """
    is_whole = "reload-target" in step.arguments.values()
    if is_whole and not note.get("called") and _iso(task.fresh_start_at) == note.get("fresh_start_at"):
        return False
    if task.status == "running":
        return True
    ended = task.status in ("stopped", "failed") and (
        _iso(task.started_at) != note.get("started_at") or _iso(task.stopped_at) != note.get("stopped_at")
    )
    return ended


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


# Calls ---------------------------------------------------------------------------------------------------------------


def advance(client: Any, ledger: Ledger, spec: DmsSpec, run: str, steps: list[Step], now: Any) -> Waiting | None:
    """Carry out steps until one has to be waited for, or all are done.

    Args:
        client: boto3 client of DMS
        ledger: where steps are kept
        spec: of the task
        run: whose steps they are
        steps: of the plan, in order
        now: returns the time in UTC

    Returns:
        what is waited for; None when every step is done

    Raises:
        CarryError: a step failed, or its effect did not come in time
    """
    kept = ledger.steps(run, spec.name)
    for number, step in enumerate(steps):
        found = kept.get(number) or {}
        if found.get("state") == "done":
            continue
        note = dict(found.get("document") or {})
        if not note:
            note = {"noted_at": now().isoformat(), **asking.ask(client, before(spec, step))}
            ledger.step(run, spec.name, number, "noted", note)
            if "resume-processing" in step.arguments.values():
                # Before the call: a run that dies in it has restarted the task all the same.
                ledger.restarted(spec.name, note["checkpoint"], now(), restart_id=f"{run}#{number}")
        if step.kind == "save_checkpoint":
            text = _save_checkpoint(client, ledger, spec, now())
        elif (waiting := _call(client, ledger, spec, run, number, step, note, now)) is not None:
            return waiting
        else:
            text = "its effect is there"
        ledger.step(run, spec.name, number, "done", note)
        ledger.note(spec.name, run, step.kind, f"{step.why}; {text}", subject=step.subject)
    return None


def _call(
    client: Any, ledger: Ledger, spec: DmsSpec, run: str, number: int, step: Step, note: dict[str, Any], now: Any
) -> Waiting | None:
    seen = asking.ask(client, progress(spec, step, note))
    if seen.state == "no":
        held = asking.ask(client, account.one(spec))
        try:
            _make(client, spec, step, held)
        except Exception as error:
            if asking.code(error) not in _ALREADY:
                raise
            again = asking.ask(client, progress(spec, step, note))
            if again.state == "no":
                raise CarryError(f"{step}: AWS refuses it: {asking.text(error)}") from error
        note |= {"called": True, "called_at": now().isoformat()}
        ledger.step(run, spec.name, number, "called", note)
        seen = asking.ask(client, progress(spec, step, note))
    if seen.state == "done":
        return None
    since = note.get("called_at") or note["noted_at"]
    deadline = datetime.fromisoformat(since) + allowed(spec, step)
    is_late = now() > deadline
    if seen.state == "failed" or is_late:
        # Who repairs the cause and clears the task wants it called again.
        ledger.uncalled(run, spec.name, number)
        for table in _not_begun(client, spec, step, note) if step.kind == "reload_tables" else ():
            # Its state is the old one, so nobody else would count this failure, and each run would reload it for ever.
            ledger.table_failed(spec.name, table, "its reload never began", now(), failure_id=f"{run}#{number}")
        late = f" since {since}, longer than limits allow" if is_late and seen.state != "failed" else ""
        raise CarryError(f"{step}: {seen.text}{late}")
    return Waiting(number, step, note, seen, deadline)


def _make(client: Any, spec: DmsSpec, step: Step, held: Account) -> None:
    if step.kind == "assess" and spec.assessment is not None:
        # One that failed before this step was called is repeated under another name: its cause may be repaired.
        name = str(step.arguments["AssessmentRunName"])
        asking.ask(client, assessment.start(held.task(spec).arn, name, spec.assessment, again=True))
        return
    method, given = plan.call(step, plan.arns(spec, held.world(spec)))
    getattr(client, method)(**given)


def allowed(spec: DmsSpec, step: Step) -> timedelta:
    """How long the effect of a step may take."""
    if step.kind == "assess":
        return timedelta(hours=spec.limits.load_hours)
    return timedelta(minutes=spec.limits.start_minutes)


def _save_checkpoint(client: Any, ledger: Ledger, spec: DmsSpec, at: datetime) -> str:
    question = states.one_task(spec.task_identifier, is_serverless=spec.compute.kind == "serverless")
    task = asking.ask(client, question)
    statistics = asking.ask(client, states.statistics(task)) if task.arn else ()
    ledger.save_checkpoint(spec.name, task, statistics, at)
    return f"kept {task.checkpoint}" if task.checkpoint else "the task has no checkpoint"


def unchanged(spec: DmsSpec, held: Account, task_arn: str) -> None:
    """Refuse when another task stands under the planned one's name: identifiers can be used again, ARNs cannot.

    Raises:
        CarryError: the ARN is another one
    """
    there = held.task(spec).arn
    if task_arn and there and there != task_arn:
        raise CarryError(f"task {spec.task_identifier} is {there} now, planned was {task_arn}; run again")


# Waits that are no step ----------------------------------------------------------------------------------------------


def loaded(spec: DmsSpec) -> Question[Progress]:
    """Whether the full load has come to a good end: every table, by its own state."""
    task = yield from states.one_task(spec.task_identifier, is_serverless=spec.compute.kind == "serverless")
    if task.status in ("missing", "deleting"):
        return Progress("failed", f"the task is {task.status}")
    seen = yield from states.statistics(task)
    if task.status in states.TRANSIENT or task.status == "ready":
        return Progress("under way", f"the task is {task.raw_status or task.status}")
    if task.status != "running":
        end = states.ending(task, seen, spec.task_type)
        text = "; ".join(end.reasons)
        return Progress({"good": "done", "bad": "failed", "open": "under way"}[end.verdict], text)  # type: ignore[arg-type]
    if bad := [one for one in seen if one.is_failed or one.error_rows > spec.limits.error_rows]:
        named = "; ".join(f"table {one.table} is in state {one.raw_state}, {one.error_rows} rows failed" for one in bad)
        return Progress("failed", named)
    if task.tables_errored and not bad:
        return Progress("failed", f"AWS counts {task.tables_errored} tables with errors")
    # Right after a start AWS may still show what was loaded before it.
    fresh = task.fresh_start_at
    open_ = [
        str(one.table) for one in seen if one.is_loading or (fresh and one.load_ended_at and one.load_ended_at < fresh)
    ]
    if open_ or not seen or not spec.has_cdc:
        return Progress("under way", f"loading {', '.join(open_[:10]) or 'tables'} ({len(open_)} of {len(seen)} left)")
    return Progress("done", f"{len(seen)} tables are complete")


def drained(spec: DmsSpec) -> Question[Progress]:
    """Whether the task has stopped at the position that it was given, with everything before applied."""
    task = yield from states.one_task(spec.task_identifier, is_serverless=spec.compute.kind == "serverless")
    told = f"the task is {task.raw_status or task.status} {task.raw_stop_reason}".rstrip()
    if task.status in states.TRANSIENT or task.status in ("running", "ready"):
        return Progress("under way", told)
    if task.status == "stopped" and task.stop_reason in ("STOPPED_AT_COMMIT_TIME", "STOPPED_AT_SERVER_TIME"):
        return Progress("done", told)
    return Progress("failed", f"{told} {task.failure}".rstrip())


WAITS: dict[str, Callable[[DmsSpec], Question[Progress]]] = {"loaded": loaded, "drained": drained}
"""Name of a wait -> its question."""
