"""Where a task writes: settings of its target, and what its tables are called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dbops.dms import endpoints, mappings, settings
from dbops.dms.mappings import Names, Table
from dbops.dms.spec import DmsSpec
from dbops.dms.states import Endpoint


class PlaceUnknown(ValueError):
    """It cannot be said where the target keeps something; the message says what to give."""


def target_settings(spec: DmsSpec, found: Endpoint | None = None) -> Mapping[str, Any]:
    """Settings of the target's engine: those that AWS holds, with the declared ones over them.

    Args:
        spec: as declared
        found: the endpoint as AWS shows it; an existing endpoint is known by nothing else

    Raises:
        PlaceUnknown: the spec names an existing endpoint and `found` is None
    """
    held = dict(found.settings) if found is not None else {}
    if spec.target.kind != "existing":
        return {**held, **endpoints.settings(spec.target)}
    if found is None:
        raise PlaceUnknown(f"target: {spec.target.arn} is an existing endpoint; pass it as DescribeEndpoints shows it")
    return held


def needed(held: Mapping[str, Any], key: str, spec: DmsSpec) -> str:
    """A setting of the target that cannot be done without. Raises PlaceUnknown."""
    if not held.get(key):
        raise PlaceUnknown(f"target: the {spec.target_engine} endpoint has no {key}; set it at the endpoint")
    return str(held[key])


def names(spec: DmsSpec, table: Table, columns: Sequence[str]) -> Names:
    """What the table and its columns are called on the target."""
    schema = settings.get(settings.effective(spec.settings), "TargetMetadata.TargetSchema")
    return mappings.resolve(spec.rules, table, columns, target_schema=str(schema or ""))
