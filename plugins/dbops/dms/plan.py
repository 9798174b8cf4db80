"""From what a spec declares and what AWS has to an ordered list of steps; empty when there is nothing to do.

A plan changes nothing. Where something must not go on it says why in ``refusals``, and a plan with a refusal is carried out in no part.
ARNs of what the plan itself makes are not known yet: a step names them by a token, which :func:`call` replaces.

What AWS allows: endpoints and type of a task cannot be changed, only those of a new one; a task is modified while it is ready, stopped or
failed, and moved while it is stopped or failed; ReloadTables takes ten tables at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from dbops.dms import decision, endpoints, mappings, settings
from dbops.dms.decision import Decision, Known
from dbops.dms.lint import Finding
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec, Serverless, engine
from dbops.dms.states import TRANSIENT, ConnectionTest, Endpoint, Instance, Task

Kind = Literal[
    "create_endpoint", "modify_endpoint", "test_connection", "create_task", "assess", "save_checkpoint", "stop_task",
    "move_task", "modify_task", "start_task", "reload_tables", "delete_task",
]  # fmt: skip
SOURCE, TARGET, INSTANCE, TASK = "@source", "@target", "@instance", "@task"
"""Tokens for ARNs in the arguments of a step."""
RELOAD_AT_ONCE = 10
# Method of the client for a task, and for a serverless replication; a checkpoint is saved by us.
_METHODS: dict[Kind, tuple[str, str]] = {
    "create_endpoint": ("create_endpoint", "create_endpoint"),
    "modify_endpoint": ("modify_endpoint", "modify_endpoint"),
    "test_connection": ("test_connection", ""),
    "create_task": ("create_replication_task", "create_replication_config"),
    "assess": ("start_replication_task_assessment_run", ""),
    "save_checkpoint": ("", ""),
    "stop_task": ("stop_replication_task", "stop_replication"),
    "move_task": ("move_replication_task", ""),
    "modify_task": ("modify_replication_task", "modify_replication_config"),
    "start_task": ("start_replication_task", "start_replication"),
    "reload_tables": ("reload_tables", "reload_replication_tables"),
    "delete_task": ("delete_replication_task", "delete_replication_config"),
}
_START_TYPES = {
    "start": "start-replication", "cdc_from_checkpoint": "start-replication", "resume": "resume-processing",
    "reload_target": "reload-target",
}  # fmt: skip


class PlanError(ValueError):
    """A step cannot be turned into a call yet; the text names what is missing."""


@dataclass(frozen=True)
class World:
    """What AWS has of what the spec is about."""

    task: Task
    endpoints: tuple[Endpoint, ...]
    instances: tuple[Instance, ...] = ()
    connections: tuple[ConnectionTest, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step. ``method`` is the client's, "" for a step of ours; ``arguments`` hold tokens where an ARN is not known yet."""

    kind: Kind
    subject: str
    why: str
    method: str
    arguments: dict[str, Any]
    is_disruptive: bool = False
    """Replication pauses, or rows of the target are replaced."""

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}: {self.why}"


@dataclass(frozen=True)
class Plan:
    """What will be done, in order."""

    decision: Decision
    steps: tuple[Step, ...] = ()
    refusals: tuple[str, ...] = ()
    """Why nothing of it may be carried out."""
    approvals: tuple[str, ...] = ()
    """What a person has to approve before anything of it is carried out."""
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do and nothing against it."""
        return not (self.steps or self.refusals or self.approvals)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing of it may be carried out now."""
        return bool(self.refusals or self.approvals)

    @property
    def digest(self) -> str:
        """Of what this very plan does: an approval is for it and for no other. Ask with the plan that is made as approved."""
        done = [(step.kind, step.subject, step.method, step.arguments) for step in self.steps]
        return hashlib.sha256(json.dumps(done, sort_keys=True, default=str).encode()).hexdigest()


def make(
    spec: DmsSpec,
    world: World,
    known: Known,
    *,
    tables: Sequence[Table] = (),
    start_at: str = "",
    findings: Iterable[Finding] = (),
    is_assessed: bool = False,
) -> Plan:
    """The plan that brings the task to what the spec declares and `known` asks for.

    Args:
        spec: what is declared
        world: what AWS has
        known: from :func:`dbops.dms.decision.known`
        tables: those that ``reload_tables`` is about
        start_at: position of a first start that follows changes (the spec's, or the saved checkpoint)
        findings: of the linter
        is_assessed: a premigration assessment of this task has passed
    """
    task, is_new = world.task, world.task.status == "missing"
    decided = _decided(known, is_new=is_new)
    refusals = [*_lint(findings), *_endpoint_refusals(spec, world), *_no_instance(spec, world), *_fixed(spec, world)]
    if task.status in TRANSIENT:
        return Plan(decided, refusals=tuple(refusals), notes=(decided.reason,))
    prepared = _endpoint_steps(spec, world)
    prepared += _connection_steps(spec, world, decided, {step.subject for step in prepared})
    approvals: list[str] = []
    if is_new:
        steps = [*prepared, _create(spec)]
    else:
        steps, waits = _changes(spec, world, prepared, decided, known)
        if waits:
            return Plan(decided, refusals=tuple(refusals), notes=(waits,))
    was_stopped = any(step.kind == "stop_task" for step in steps)
    if was_stopped:
        approvals += _unapproved(spec, known.approved, "stopping the running task")
    steps += _going_on(spec, decided, tables, start_at, was_stopped=was_stopped, is_assessed=is_assessed)
    if decided.action == "refuse":
        (approvals if decided.needs_approval else refusals).append(f"{decided.reason}. {decided.next_step}.")
    if decided.action == "reload_tables" and not tables:
        refusals.append("reload_tables: no table is named, and none has failed")
    if task.status == "ready" and any(step.kind == "move_task" for step in steps):
        refusals.append("a task that is ready cannot be moved: start and stop it once, or delete it and run ensure")
    notes: list[str] = []
    if unavailable := _unavailable(spec, world):
        (refusals if steps else notes).append(unavailable)
    return Plan(decided, tuple(steps), tuple(refusals), tuple(approvals), tuple(notes))


def _decided(known: Known, *, is_new: bool) -> Decision:
    """The decision, for a task that is made first as for one that is ready, and for one that is stopped first as for one that stands."""
    if is_new:
        return decision.decide(replace(known, status="ready", has_run=False, tables="unknown"))
    if known.wish == "reload_target" and known.status == "running":
        return decision.decide(replace(known, status="stopped", has_run=True))
    return decision.decide(known)


def stop(spec: DmsSpec, task: Task, *, is_approved: bool, drain_at: datetime | None = None) -> Plan:
    """Stop a running task with its checkpoint saved; with `drain_at`, go on from there until what was committed by then has arrived."""
    decided = Decision("none", "stopping is asked for", is_destructive=False)
    if task.status != "running":
        text = f"the task is {task.raw_status or task.status}"
        if drain_at is not None or task.status in (*TRANSIENT, "unknown"):
            return Plan(
                decided, refusals=(f"{text}; only a running one can be {'drained' if drain_at else 'stopped'}",)
            )
        return Plan(decided, notes=(f"{text}, so there is nothing to stop",))
    if drain_at is not None and not spec.has_cdc:
        return Plan(decided, refusals=("a task of type full-load follows no changes, so nothing can be drained",))
    steps = _stopping(spec, "it is asked for")
    if drain_at is not None:
        at = f"{drain_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
        steps.append(
            _start(spec, "resume", f"until what was committed by {at} UTC is applied", stop_at=f"commit_time:{at}")
        )
    return Plan(decided, tuple(steps), approvals=_unapproved(spec, is_approved, "stopping"))


def delete(spec: DmsSpec, task: Task, *, is_approved: bool) -> Plan:
    """Delete a task that stands, with its checkpoint saved. Endpoints stay: others may use them."""
    decided = Decision("none", "deleting is asked for", is_destructive=True)
    if task.status in ("missing", "deleting"):
        return Plan(decided, notes=(f"the task is {task.status}",))
    steps = (
        _step(spec, "save_checkpoint", "the place to begin from, if it is made again", {}),
        _step(spec, "delete_task", "it is asked for", _of_task(spec), is_disruptive=True),
    )
    if task.status not in ("ready", "stopped", "failed", "failed-move"):
        return Plan(decided, steps, (f"the task is {task.raw_status or task.status}; stop it first",))
    return Plan(decided, steps, approvals=_unapproved(spec, is_approved, "deleting"))


def call(step: Step, arns: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Method and arguments of a step, its tokens replaced.

    Args:
        step: with a method
        arns: token -> ARN

    Raises:
        PlanError: the step is no call, or an ARN is missing
    """
    if not step.method:
        raise PlanError(f"{step.kind} is no call to AWS")
    return step.method, {key: _resolved(step, key, value, arns) for key, value in step.arguments.items()}


def _resolved(step: Step, key: str, value: Any, arns: Mapping[str, str]) -> Any:
    if value not in (SOURCE, TARGET, INSTANCE, TASK):
        return value
    if not (found := arns.get(value)):
        raise PlanError(f"{step.kind} {step.subject}: {key} needs the ARN of {value[1:]}, which is not known yet")
    return found


def arns(spec: DmsSpec, world: World) -> dict[str, str]:
    """Token -> ARN of everything that exists."""
    found = {TASK: world.task.arn}
    for token, _, declared in _sides(spec):
        found[token] = declared.arn if declared.kind == "existing" else _arn_of(world, declared.identifier)
    held = _instance(spec, world)
    found[INSTANCE] = held.arn if held else ""
    return {token: arn for token, arn in found.items() if arn}


# What stands against it ----------------------------------------------------------------------------------------------


def _lint(findings: Iterable[Finding]) -> list[str]:
    return [f"{one.where} {one.text} ({one.rule}): {one.reason}. {one.fix}." for one in findings if one.stops]


def _endpoint_refusals(spec: DmsSpec, world: World) -> list[str]:
    found = []
    for _, side, declared in _sides(spec):
        if declared.kind == "existing":
            held = next((one for one in world.endpoints if one.arn == declared.arn), None)
            if held is None:
                found.append(f"{side}: endpoint {declared.arn} does not exist; correct its ARN")
            elif (held.engine, held.side) != (declared.engine, side):
                found.append(
                    f"{side}: endpoint {held.identifier} is a {held.side} of engine {held.engine}, not a {side} of "
                    f"engine {engine(declared)}; correct the spec"
                )
        elif (held := _endpoint(world, declared.identifier)) is not None:
            found += [
                f"{side}: endpoint {held.identifier}: {change}; AWS changes that at no endpoint, so give it another identifier"
                for change in endpoints.fixed(endpoints.diff(declared, side, held))
            ]
    return found


def _instance(spec: DmsSpec, world: World) -> Instance | None:
    """The replication instance; AWS keeps identifiers in lower case."""
    name = spec.compute.identifier.lower() if spec.compute.kind == "instance" else ""
    return next((one for one in world.instances if one.identifier.lower() == name), None)


def _no_instance(spec: DmsSpec, world: World) -> list[str]:
    if spec.compute.kind != "instance" or _instance(spec, world) is not None:
        return []
    return [
        f"compute: replication instance {spec.compute.identifier} does not exist; make it, or correct the identifier"
    ]


def _unavailable(spec: DmsSpec, world: World) -> str:
    """A task that only runs on is not disturbed by it; whatever changes would be."""
    held = _instance(spec, world)
    if held is None or held.status == "available":
        return ""
    return f"compute: replication instance {held.identifier} is {held.status}, not available"


def _fixed(spec: DmsSpec, world: World) -> list[str]:
    """Differences that no change of the task can remove."""
    task = world.task
    if task.status == "missing":
        return []
    known = arns(spec, world)
    pairs = (
        ("source endpoint", task.source_arn, known.get(SOURCE, "one that does not exist yet")),
        ("target endpoint", task.target_arn, known.get(TARGET, "one that does not exist yet")),
        ("type", task.task_type, spec.task_type),
    )
    return [
        f"the {what} of the task is {held}, declared is {wanted}; AWS changes that at no task: save its checkpoint, delete it, "
        "and run ensure, which makes it anew"
        for what, held, wanted in pairs
        if held != wanted
    ]


def _unapproved(spec: DmsSpec, is_approved: bool, what: str) -> tuple[str, ...]:
    if is_approved or not spec.protected:
        return ()
    return (f"{what} needs an approval, because the spec declares the task as protected",)


# Steps ---------------------------------------------------------------------------------------------------------------


def _endpoint_steps(spec: DmsSpec, world: World) -> list[Step]:
    found = []
    for token, side, declared in _sides(spec):
        if declared.kind == "existing":
            continue
        held, given = _endpoint(world, declared.identifier), endpoints.arguments(declared, side)
        if held is None:
            found.append(
                Step("create_endpoint", declared.identifier, f"there is no such {side}", "create_endpoint", given)
            )
        elif changes := endpoints.diff(declared, side, held):
            why = "; ".join(map(str, changes))
            wanted = {"EndpointArn": token, **given}
            found.append(
                Step("modify_endpoint", declared.identifier, why, "modify_endpoint", wanted, is_disruptive=True)
            )
    return found


def _connection_steps(spec: DmsSpec, world: World, decided: Decision, touched: set[str]) -> list[Step]:
    """Both ends are tested before a start, and an end that is made or changed; a serverless replication tests them itself."""
    if spec.compute.kind != "instance":
        return []
    starts = decided.action in _START_TYPES or decided.proposed in _START_TYPES
    known, found = arns(spec, world), []
    for token, side, declared in _sides(spec):
        pair = (known.get(token), known.get(INSTANCE))
        last = next((one for one in world.connections if (one.endpoint_arn, one.instance_arn) == pair), None)
        if declared.kind != "existing" and declared.identifier in touched:
            why = "it is new or changed"
        elif not starts or (last is not None and last.status == "successful"):
            continue
        else:
            why = "it was never tested" if last is None else f"the last test was {last.status} {last.failure}".rstrip()
        given = {"ReplicationInstanceArn": INSTANCE, "EndpointArn": token}
        found.append(Step("test_connection", side, why, "test_connection", given))
    return found


def _create(spec: DmsSpec) -> Step:
    return _step(spec, "create_task", "there is no such task", _task_arguments(spec, json.dumps(spec.settings)))


def _task_arguments(spec: DmsSpec, task_settings: str) -> dict[str, Any]:
    common = {
        "SourceEndpointArn": SOURCE,
        "TargetEndpointArn": TARGET,
        "TableMappings": mappings.canonical(spec.mappings),
    }
    if isinstance(spec.compute, Serverless):
        return {
            "ReplicationConfigIdentifier": spec.task_identifier,
            "ReplicationType": spec.task_type,
            "ReplicationSettings": task_settings,
            "ComputeConfig": compute_config(spec.compute),
            **common,
        }
    return {
        "ReplicationTaskIdentifier": spec.task_identifier,
        "ReplicationInstanceArn": INSTANCE,
        "MigrationType": spec.task_type,
        "ReplicationTaskSettings": task_settings,
        **common,
    }


def compute_config(compute: Serverless) -> dict[str, Any]:
    """ComputeConfig of a serverless replication, the keys that the spec decides."""
    found: dict[str, Any] = {
        "MinCapacityUnits": compute.min_dcu,
        "MaxCapacityUnits": compute.max_dcu,
        "MultiAZ": compute.multi_az,
    }
    if compute.subnet_group:
        found["ReplicationSubnetGroupId"] = compute.subnet_group
    if compute.security_groups:
        found["VpcSecurityGroupIds"] = sorted(compute.security_groups)
    return found


def _changes(
    spec: DmsSpec, world: World, prepared: list[Step], decided: Decision, known: Known
) -> tuple[list[Step], str]:
    """Steps that change a task that exists, and why they have to wait."""
    changing = [*_move(spec, world), *modifications(spec, world.task)]
    disturbing = [step for step in prepared if step.kind == "modify_endpoint"]
    stops = (known.wanted_stopped and known.wish == "ensure") or known.wish == "reload_target"
    if world.task.status != "running" or not (changing or disturbing or stops):
        return [*prepared, *changing], ""
    if decided.action == "wait":
        return [], f"{decided.reason}; when that has ended: {'; '.join(map(str, [*disturbing, *changing]))}"
    why = "it cannot be changed while it runs"
    if stops:
        why = "a whole new load is asked for" if known.wish == "reload_target" else "the spec declares that it stands"
    # An endpoint is modified while nothing runs on it, so the stop comes first.
    return [*_stopping(spec, why), *prepared, *changing], ""


def _move(spec: DmsSpec, world: World) -> list[Step]:
    wanted = arns(spec, world).get(INSTANCE)
    if world.task.is_serverless or not wanted or world.task.instance_arn == wanted:
        return []
    why = f"it is on {world.task.instance_arn or 'no instance'}, declared is {wanted}"
    given = {**_of_task(spec), "TargetReplicationInstanceArn": INSTANCE}
    return [_step(spec, "move_task", why, given, is_disruptive=True)]


def modifications(spec: DmsSpec, task: Task) -> list[Step]:
    """The step that brings settings, mappings and capacity of a task to what is declared; none when they are so."""
    is_serverless = spec.compute.kind == "serverless"
    wrong, given, why = settings.diff(spec.settings, task.settings), _of_task(spec), []
    if wrong:
        merged = json.dumps(settings.merged(task.settings, spec.settings), sort_keys=True)
        given["ReplicationSettings" if is_serverless else "ReplicationTaskSettings"] = merged
        why += [str(change) for change in wrong]
    if changed := mappings.diff(spec.mappings, task.mappings):
        given["TableMappings"] = mappings.canonical(spec.mappings)
        why += [str(change) for change in changed]
    if isinstance(spec.compute, Serverless):
        held = {key: sorted(value) if isinstance(value, list) else value for key, value in task.compute}
        wanted = compute_config(spec.compute)
        if other := [key for key, value in wanted.items() if (held.get(key) or None) != (value or None)]:
            given["ComputeConfig"] = {**{key: value for key, value in held.items() if value is not None}, **wanted}
            why += [f"ComputeConfig.{key} becomes {wanted[key]}, was {held.get(key)}" for key in other]
    return [_step(spec, "modify_task", "; ".join(why), given)] if why else []


def _going_on(
    spec: DmsSpec, decided: Decision, tables: Sequence[Table], start_at: str, *, was_stopped: bool, is_assessed: bool
) -> list[Step]:
    """The steps of the decision, after everything is as declared."""
    found, action = [], decided.action
    if was_stopped and spec.wanted == "running" and action in ("none", "reload_tables"):
        found.append(_start(spec, "resume", "it was stopped to be changed"))
    if (
        action in ("start", "cdc_from_checkpoint")
        and spec.assessment
        and spec.compute.kind == "instance"
        and not is_assessed
    ):
        found.append(_assess(spec))
    if action in _START_TYPES:
        position = start_at if action == "cdc_from_checkpoint" else ""
        found.append(_start(spec, action, decided.reason, start_at=position, is_disruptive=decided.is_destructive))
    if action == "reload_tables":
        chosen = sorted(set(tables))
        for first in range(0, len(chosen), RELOAD_AT_ONCE):
            batch = chosen[first : first + RELOAD_AT_ONCE]
            given = {
                **_of_task(spec),
                "TablesToReload": [{"SchemaName": one.schema, "TableName": one.name} for one in batch],
                "ReloadOption": "data-reload",
            }
            why = f"{', '.join(map(str, batch))}: {decided.reason}"
            found.append(_step(spec, "reload_tables", why, given, is_disruptive=decided.is_destructive))
    return found


def assessment_name(spec: DmsSpec) -> str:
    """Name of the assessment run before a first start."""
    return f"{spec.task_identifier}-first-start"


def _assess(spec: DmsSpec) -> Step:
    assessment = spec.assessment
    given = {**_of_task(spec), "AssessmentRunName": assessment_name(spec)}
    if assessment is not None:
        given |= {
            "ServiceAccessRoleArn": assessment.role_arn,
            "ResultLocationBucket": assessment.bucket,
            "ResultLocationFolder": assessment.folder,
        }
    return _step(spec, "assess", "before its first start", given)


def _stopping(spec: DmsSpec, why: str) -> list[Step]:
    return [
        _step(spec, "save_checkpoint", "the place to go on from", {}),
        _step(spec, "stop_task", why, _of_task(spec), is_disruptive=True),
    ]


def _start(
    spec: DmsSpec, action: str, why: str, *, start_at: str = "", stop_at: str = "", is_disruptive: bool = False
) -> Step:
    kind = "StartReplicationType" if spec.compute.kind == "serverless" else "StartReplicationTaskType"
    given = {**_of_task(spec), kind: _START_TYPES[action]}
    if start_at:
        given["CdcStartPosition"] = start_at
    if stop_at:
        given["CdcStopPosition"] = stop_at
    return _step(spec, "start_task", why, given, is_disruptive=is_disruptive)


def _of_task(spec: DmsSpec) -> dict[str, Any]:
    return {"ReplicationConfigArn" if spec.compute.kind == "serverless" else "ReplicationTaskArn": TASK}


def _step(spec: DmsSpec, kind: Kind, why: str, arguments: dict[str, Any], *, is_disruptive: bool = False) -> Step:
    method = _METHODS[kind][spec.compute.kind == "serverless"]
    return Step(kind, spec.task_identifier, why, method, arguments, is_disruptive)


def _sides(spec: DmsSpec) -> tuple[tuple[str, endpoints.Side, Any], ...]:
    return ((SOURCE, "source", spec.source), (TARGET, "target", spec.target))


def _endpoint(world: World, identifier: str) -> Endpoint | None:
    """AWS keeps identifiers in lower case."""
    return next((one for one in world.endpoints if one.identifier.lower() == identifier.lower()), None)


def _arn_of(world: World, identifier: str) -> str:
    held = _endpoint(world, identifier)
    return held.arn if held else ""
