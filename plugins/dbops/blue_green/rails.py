"""What a rehearsal may touch: its account and region, what carries its tags, and what its budget allows. Everything here fails closed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from dbops.blue_green import resources
from dbops.blue_green.cost import Cost
from dbops.blue_green.resources import NAME, OWNER, REHEARSAL, YES, Kind, Resource
from dbops.blue_green.spec import Placement, RehearsalSpec

Expiry = Literal["ahead", "any", "past"]
PRODUCTION = frozenset({"prod", "production", "prd", "live"})
_ENVIRONMENT = frozenset({"env", "environment", "stage"})


class RailError(RuntimeError):
    """A rail said no; the text names what was asked for, what is there, and what to do."""


def require_placement(account: str, region: str, placement: Placement) -> None:
    """Refuse unless the client is in an account and region that the spec lists. Raises RailError."""
    if account not in placement.accounts:
        listed = ", ".join(placement.accounts)
        raise RailError(
            f"account {account!r} is not in placement.accounts ({listed}); add it there, or correct aws_connection"
        )
    if region != placement.region:
        raise RailError(
            f"region {region!r} of aws_connection is not placement.region ({placement.region!r}); correct one of them"
        )


def require_ours(
    rds: Any, kind: Kind, resource_id: str, name: str, now: datetime, *, expiry: Expiry = "ahead"
) -> Resource:
    """The resource as it is now, if it belongs to the rehearsal `name`. Call this just before each call that changes it.

    Args:
        rds: client
        kind: kind of the resource
        resource_id: its id, which stays when a switchover moves its name
        name: the rehearsal that wants to touch it
        now: naive UTC, or aware
        expiry: ``ahead``: an expired one is refused; ``any``: for deletion; ``past``: only an expired one (the janitor)

    Raises:
        RailError: it is gone, is not tagged, belongs to another rehearsal or to nobody, is marked as production, or its expiry forbids it
    """
    seen = resources.by_id(rds, kind, resource_id)
    if seen is None:
        raise RailError(f"{kind} {resource_id} does not exist (any more)")
    require_tags(seen, name, now, expiry=expiry)
    return seen


def require_tags(seen: Resource, name: str, now: datetime, *, expiry: Expiry = "ahead") -> None:
    """The same for a resource whose tags were read a moment ago. Raises RailError."""
    if not seen.is_ours:
        given = seen.tags.get(REHEARSAL)
        raise RailError(
            f"{seen} has tag {REHEARSAL}={given!r}, not {YES!r}; it is not of a rehearsal and is left alone"
        )
    if not name or seen.rehearsal != name:
        raise RailError(
            f"{seen} has tag {NAME}={seen.rehearsal!r}; it is not of the rehearsal {name!r} and is left alone"
        )
    if not seen.tags.get(OWNER, "").strip():
        raise RailError(f"{seen} has no tag {OWNER}; tag it with who answers for it")
    if mark := is_production(seen.tags):
        raise RailError(f"{seen} has tag {mark}; a rehearsal never touches production")
    until = resources.expires_at(seen)
    if until is None:
        given = seen.tags.get(resources.EXPIRES)
        raise RailError(
            f"{seen} has tag {resources.EXPIRES}={given!r}; set it to an ISO 8601 time, for example 2026-03-01T05:00:00Z"
        )
    moment = resources.utc(now)
    if expiry == "ahead" and moment >= until:
        raise RailError(
            f"{seen} has expired at {until:%Y-%m-%d %H:%M} UTC; it may only be deleted (max_hours of the spec)"
        )
    if expiry == "past" and moment < until:
        raise RailError(f"{seen} expires only at {until:%Y-%m-%d %H:%M} UTC")


def is_production(tags: Mapping[str, str]) -> str:
    """The tag that marks a resource as production, as ``key=value``; "" when none does."""
    for key, value in tags.items():
        if key.strip().lower() in _ENVIRONMENT and value.strip().lower() in PRODUCTION:
            return f"{key}={value}"
    return ""


def require_budget(cost: Cost, spec: RehearsalSpec) -> None:
    """Refuse when the estimate is over max_cost_usd, or is in another currency. Raises RailError."""
    if cost.currency != "USD":
        raise RailError(f"the price file is in {cost.currency}, but max_cost_usd is in USD; give prices in USD")
    if not math.isfinite(cost.total) or cost.total > spec.max_cost_usd:
        largest = max(cost.items, key=lambda item: item[1], default=("nothing", 0.0))
        raise RailError(
            f"the rehearsal is estimated at {cost.total:.2f} USD, over max_cost_usd ({spec.max_cost_usd:.2f}); the largest item is "
            f"{largest[0]} ({largest[1]:.2f}). Raise max_cost_usd, or lower expected_hours, readers or instance_class"
        )


def require_free(rds: Any, name: str, mine: Collection[str] = ()) -> None:
    """Refuse when something of a rehearsal of this name stands that this run has not made.

    Args:
        rds: client
        name: the rehearsal
        mine: resource ids that this run has noted (a repeated task meets what it has made)

    Raises:
        RailError: naming what stands there
    """
    if foreign := [r for r in resources.found(rds, name) if r.resource_id not in mine]:
        listed = ", ".join(f"{r} ({r.status})" for r in foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise RailError(
            f"another run of the rehearsal {name!r} is not over: {listed}. Wait for its teardown, or let the janitor remove it"
        )


def adopt(rds: Any, deployment_id: str, name: str, tags: Sequence[Mapping[str, str]]) -> list[Resource]:
    """Tag what a deployment has made, so that rails and teardown know it: the targets of a deployment of ours are ours.

    RDS creates green's cluster and instances after the call, untagged, so this has to be called again until they are all there (and once
    more after a switchover, which copies tags from one side to the other). It only ever adds tags.

    Returns:
        the resources that were tagged just now

    Raises:
        RailError: the deployment is not of this rehearsal, or a target is tagged as another rehearsal's or as production
    """
    deployment = next(
        (d for d in pages_of_deployments(rds) if d["BlueGreenDeploymentIdentifier"] == deployment_id), None
    )
    own = {tag["Key"]: tag.get("Value") or "" for tag in (deployment or {}).get("TagList") or ()}
    if deployment is None or own.get(REHEARSAL) != YES or own.get(NAME) != name:
        raise RailError(
            f"deployment {deployment_id} has tag {NAME}={own.get(NAME)!r}; it is not of the rehearsal {name!r}"
        )
    adopted = []
    for target in targets(rds, deployment):
        if (
            target.is_ours
            and target.rehearsal == name
            and target.tags.get(OWNER)
            and target.tags.get(resources.EXPIRES)
        ):
            continue
        if target.rehearsal not in ("", name) or (mark := is_production(target.tags)):
            why = f"the rehearsal {target.rehearsal!r}" if target.rehearsal not in ("", name) else mark
            raise RailError(f"{target}, a target of deployment {deployment_id}, belongs to {why}; look at it by hand")
        rds.add_tags_to_resource(ResourceName=target.arn, Tags=[dict(tag) for tag in tags])
        adopted.append(target)
    return adopted


def pages_of_deployments(rds: Any) -> Iterator[dict[str, Any]]:
    """Every deployment of the account and region, as it is described."""
    return resources.pages(rds, "describe_blue_green_deployments", "BlueGreenDeployments")


def targets(rds: Any, deployment: Mapping[str, Any]) -> list[Resource]:
    """Cluster and instances of the deployment's green side that exist now, by the ARNs it names and by membership in its cluster."""
    arns = {deployment.get("Target")} | {row.get("TargetMember") for row in deployment.get("SwitchoverDetails") or ()}
    sources = {deployment.get("Source")} | {
        row.get("SourceMember") for row in deployment.get("SwitchoverDetails") or ()
    }
    arns -= sources | {None, ""}
    clusters = [r for r in resources.described(rds, "cluster") if r.arn in arns]
    names = {cluster.identifier for cluster in clusters}
    members = [
        r
        for r in resources.described(rds, "instance")
        if r.arn not in sources and (r.arn in arns or r.cluster in names)
    ]
    return [*clusters, *members]
