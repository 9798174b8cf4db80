"""What a task or a serverless replication is made of, and how AWS's differs: only what is declared is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbops.dms import mappings, settings
from dbops.dms.states import Task

Mappings = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Definition:
    """A declared task; None is not declared. With ``compute`` it is a serverless replication, without it runs on ``instance_arn``."""

    identifier: str
    source_arn: str | None = None
    target_arn: str | None = None
    task_type: str | None = None
    table_mappings: Mappings | None = None
    task_settings: settings.Settings | str | None = None
    instance_arn: str | None = None
    compute: Mapping[str, Any] | None = None

    @property
    def is_serverless(self) -> bool:
        """Whether it has no replication instance."""
        return self.compute is not None


@dataclass(frozen=True)
class Difference:
    """Something that AWS has otherwise. ``cure`` says how it is changed: modify, move, or only by a new task."""

    text: str
    cure: str

    def __str__(self) -> str:
        return self.text


def differences(declared: Definition, task: Task) -> tuple[Difference, ...]:
    """Everything that is declared and that the task has otherwise, in order.

    Raises:
        MappingError: the declared mappings cannot be read
        SettingsError: settings cannot be read
    """
    fixed = (
        ("source endpoint", declared.source_arn, task.source_arn),
        ("target endpoint", declared.target_arn, task.target_arn),
        ("type", declared.task_type, task.task_type),
    )
    found = [
        Difference(f"{what} is {held}, declared is {wanted}", "new")
        for what, wanted, held in fixed
        if wanted not in (None, held)
    ]
    if declared.instance_arn not in (None, task.instance_arn) and not declared.is_serverless:
        found.append(
            Difference(f"replication instance is {task.instance_arn}, declared is {declared.instance_arn}", "move")
        )
    if declared.table_mappings is not None:
        wanted_rules = mappings.parse(declared.table_mappings)
        found += [Difference(f"table mappings: {one}", "modify") for one in mappings.diff(wanted_rules, task.mappings)]
    if declared.task_settings is not None:
        wanted = settings.declared(declared.task_settings)
        found += [Difference(f"settings: {one}", "modify") for one in settings.diff(wanted, task.settings)]
    if declared.compute is not None:
        held = dict(task.compute)
        found += [
            Difference(f"ComputeConfig.{key} is {held.get(key)}, declared is {value}", "modify")
            for key, value in sorted(declared.compute.items())
            if not _same(value, held.get(key))
        ]
    return tuple(found)


def creation(declared: Definition) -> tuple[str, dict[str, Any]]:
    """Method of the client and arguments that make it. Raises MappingError and SettingsError."""
    given: dict[str, Any] = {
        "SourceEndpointArn": declared.source_arn,
        "TargetEndpointArn": declared.target_arn,
        "TableMappings": mappings.canonical(declared.table_mappings or ()),
    }
    own = settings.canonical(settings.declared(declared.task_settings)) if declared.task_settings else None
    if declared.is_serverless:
        given |= {"ReplicationConfigIdentifier": declared.identifier, "ReplicationType": declared.task_type}
        given |= {"ComputeConfig": dict(declared.compute or {}), "ReplicationSettings": own}
        return "create_replication_config", _given(given)
    given |= {"ReplicationTaskIdentifier": declared.identifier, "MigrationType": declared.task_type}
    given |= {"ReplicationInstanceArn": declared.instance_arn, "ReplicationTaskSettings": own}
    return "create_replication_task", _given(given)


def modification(declared: Definition, task: Task) -> tuple[str, dict[str, Any]]:
    """Method of the client and arguments that change what differs; settings go over those that AWS has."""
    given: dict[str, Any] = {}
    if declared.table_mappings is not None and mappings.diff(mappings.parse(declared.table_mappings), task.mappings):
        given["TableMappings"] = mappings.canonical(declared.table_mappings)
    if declared.task_settings is not None:
        wanted = settings.declared(declared.task_settings)
        if settings.diff(wanted, task.settings):
            key = "ReplicationSettings" if task.is_serverless else "ReplicationTaskSettings"
            given[key] = settings.canonical(settings.merged(task.settings, wanted))
    if task.is_serverless:
        if declared.compute is not None and differences(
            Definition(declared.identifier, compute=declared.compute), task
        ):
            held = {key: value for key, value in task.compute if value is not None}
            given["ComputeConfig"] = {**held, **declared.compute}
        return "modify_replication_config", {"ReplicationConfigArn": task.arn, **given}
    return "modify_replication_task", {"ReplicationTaskArn": task.arn, **given}


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    return bool(one == other)
