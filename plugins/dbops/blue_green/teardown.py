"""Remove everything that a rehearsal has made, by resource id, in the order in which RDS lets it go.

A round looks at what stands, asks for what can be deleted now, and the next round comes after ``wait``; so every answer of AWS but a hard
refusal is simply met again, until nothing stands or the deadline has come. Nothing is remembered between two calls of :func:`remove`: a
teardown that was killed is called again.

    deployment -> readers -> writers -> clusters -> snapshots -> parameter groups

A deployment that is being created or switched over is waited for, and nothing beside it is touched meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbops.blue_green import rails, resources
from dbops.blue_green.rails import Expiry, RailError
from dbops.blue_green.resources import Kind, Resource

UNTOUCHABLE = frozenset({"PROVISIONING", "SWITCHOVER_IN_PROGRESS"})
"""States of a deployment in which AWS refuses to delete it, and in which nothing of it may be pulled away."""
TRIES = 3
"""A refusal that waiting does not cure is met so often before a resource is given up."""
_GROUPS: tuple[Kind, ...] = ("cluster_parameter_group", "parameter_group")
_USERS: tuple[Kind, ...] = ("deployment", "cluster", "instance")
_FIRST: tuple[Kind, ...] = (*_USERS, "cluster_snapshot", "snapshot")
_TAGS = (resources.REHEARSAL, resources.NAME, resources.OWNER, resources.EXPIRES)
_LATER = frozenset({"InternalFailure", "InternalError", "ServiceUnavailable", "RequestTimeout"})

_Key = tuple[Kind, str]


@dataclass(frozen=True)
class Removal:
    """What was removed, what still stands, and why."""

    removed: tuple[Resource, ...]
    left: tuple[Resource, ...]
    errors: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Nothing is left, and this is certain."""
        return not self.left and not self.errors


def left(rds: Any, name: str) -> list[Resource]:
    """What stands of a rehearsal."""
    return resources.found(rds, name)


def remove(
    rds: Any,
    name: str,
    now: Callable[[], datetime],
    wait: Callable[[], None],
    deadline: datetime,
    *,
    expiry: Expiry = "any",
) -> Removal:
    """Remove a rehearsal. Errors of AWS do not end it: what cannot be removed is reported, and the rest is removed.

    Args:
        rds: client
        name: the rehearsal; nothing without its tags is touched
        now: naive UTC, or aware
        wait: returns when it is time to look again, a few seconds later
        deadline: of the same kind as `now`; what stands then is reported
        expiry: ``past`` removes only what has expired (the janitor)
    """
    work = _Removing(rds, name, now, expiry)
    while work.round() and now() < deadline:
        wait()
    for _ in range(TRIES - 1):
        if (removal := work.result()) is not None:
            return removal
        wait()
    return work.result() or Removal((), tuple(work.seen.values()), (work.listing,))


class _Removing:
    def __init__(self, rds: Any, name: str, now: Callable[[], datetime], expiry: Expiry) -> None:
        self.rds, self.name, self.now, self.expiry = rds, name, now, expiry
        self.seen: dict[_Key, Resource] = {}
        self.asked: set[_Key] = set()
        self.failures: dict[_Key, int] = {}
        self.problems: dict[_Key, str] = {}
        self.listing, self.refused = "", 0

    def round(self) -> bool:
        """Ask for what can go now. True: something may be different the next time."""
        try:
            standing = resources.found(self.rds, self.name, _FIRST)
            if not any(r.kind in _USERS for r in standing):  # nothing of ours uses a parameter group any more
                standing += resources.found(self.rds, self.name, _GROUPS)
        except Exception as error:
            self.listing = _text("the list of resources", error)
            self.refused += not _passes(error)
            return self.refused < TRIES
        self.listing, self.refused = "", 0
        self.seen |= {_key(resource): resource for resource in standing}
        self.asked.clear()
        of = {kind: [r for r in standing if r.kind == kind] for kind in resources.KINDS}
        for deployment in of["deployment"]:
            self._attempt(deployment, self._end_deployment)
        if any(d.status in UNTOUCHABLE or not self._is_given_up(d) for d in of["deployment"]):
            return True
        self._end_clusters(of["cluster"], of["instance"])
        for kind in ("cluster_snapshot", "snapshot", *_GROUPS):
            for resource in of[kind]:
                self._attempt(resource, self._delete)
        return any(not self._is_given_up(r) for r in standing)

    def _end_clusters(self, clusters: list[Resource], instances: list[Resource]) -> None:
        for instance in itertools.chain((r for r in instances if not r.is_writer), self._writers(instances)):
            self._attempt(instance, self._delete)
        for cluster in clusters:
            members = [r for r in instances if r.cluster == cluster.identifier]
            if stuck := [r for r in members if self._is_given_up(r)]:
                self._fail(cluster, f"{cluster} cannot go before {', '.join(map(str, stuck))}", is_final=True)
            elif not self._standing(members):
                self._attempt(cluster, self._delete_cluster)

    def result(self) -> Removal | None:
        """Compare what was seen with what exists now, tagged or not; None when AWS did not answer."""
        try:
            exist = {_key(r): r for kind in resources.KINDS for r in resources.described(self.rds, kind)}
        except Exception as error:
            self.listing = _text("the list of resources", error)
            return None
        standing = tuple(r for r in exist.values() if r.is_ours and r.rehearsal == self.name)
        removed = tuple(r for key, r in self.seen.items() if key not in exist)
        errors = [self.problems.get(_key(r), f"{r} is {r.status} at the end") for r in standing]
        errors += [
            f"{exist[key]} has lost its tags meanwhile and is left alone"
            for key in self.seen
            if key in exist and exist[key] not in standing
        ]
        return Removal(removed, standing, tuple(errors))

    def _attempt(self, resource: Resource, action: Callable[[Resource], None]) -> None:
        """Let a resource go, if its rails allow it at this moment."""
        key = _key(resource)
        if self._is_given_up(resource):
            return
        if resource.status.lower() == "deleting":
            self.problems.pop(key, None)
            return
        try:
            action(resource)
        except RailError as error:
            self._fail(resource, str(error), is_final=True)
        except Exception as error:
            if resources.is_not_found(error):
                self.asked.add(key)
            else:
                self._fail(resource, _text(str(resource), error), is_final=False, counts=not _passes(error))
        else:
            self.problems.pop(key, None)

    def _fail(self, resource: Resource, text: str, *, is_final: bool, counts: bool = True) -> None:
        key = _key(resource)
        self.problems[key] = text
        self.failures[key] = TRIES if is_final else self.failures.get(key, 0) + counts

    def _ours(self, resource: Resource) -> Resource | None:
        """The resource as it is now; None when it is gone. Raises RailError."""
        seen = resources.by_id(self.rds, resource.kind, resource.resource_id)
        if seen is not None:
            rails.require_tags(seen, self.name, self.now(), expiry=self.expiry)
        return seen

    def _end_deployment(self, deployment: Resource) -> None:
        if deployment.status == "SWITCHOVER_IN_PROGRESS":
            return self._wait_for(deployment)
        # What it has made must be known as ours before it goes: afterwards nothing would prove it.
        if adopted := self._adopt(deployment):
            raise _LaterError(f"{', '.join(map(str, adopted))} of {deployment} has got its tags just now")
        if (seen := self._ours(deployment)) is None:
            return None
        if seen.status in UNTOUCHABLE or seen.status == "DELETING":
            return self._wait_for(seen)
        switched = seen.status == "SWITCHOVER_COMPLETED"
        if not switched:
            for target in self._targets(seen):
                self._unprotect(target)
        # After a completed switchover AWS refuses DeleteTarget; both sides are then removed one by one.
        arguments = {} if switched else {"DeleteTarget": True}
        self.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=seen.resource_id, **arguments)
        return None

    def _wait_for(self, deployment: Resource) -> None:
        raise _LaterError(f"{deployment} is {deployment.status} and cannot be deleted yet")

    def _adopt(self, deployment: Resource) -> list[Resource]:
        own = [{"Key": key, "Value": deployment.tags[key]} for key in _TAGS if key in deployment.tags]
        rails.require_tags(deployment, self.name, self.now(), expiry=self.expiry)
        adopted = rails.adopt(self.rds, deployment.resource_id, self.name, own)
        self.seen |= {_key(target): target for target in self._targets(deployment)}
        return adopted

    def _targets(self, deployment: Resource) -> list[Resource]:
        described = rails.pages_of_deployments(self.rds)
        return [
            target
            for each in described
            if each["BlueGreenDeploymentIdentifier"] == deployment.resource_id
            for target in rails.targets(self.rds, each)
        ]

    def _writers(self, instances: list[Resource]) -> Iterator[Resource]:
        """Writers whose readers are gone or going; told one by one, after the readers were asked for."""
        for writer in instances:
            readers = (r for r in instances if not r.is_writer and r.cluster == writer.cluster)
            if writer.is_writer and not self._standing(readers):
                yield writer

    def _delete_cluster(self, cluster: Resource) -> None:
        foreign = [
            r
            for r in resources.described(self.rds, "instance")
            if r.cluster == cluster.identifier and not (r.is_ours and r.rehearsal == self.name)
        ]
        if foreign:
            names = ", ".join(r.identifier for r in foreign)
            raise ValueError(f"instance {names} is in it and is not of this rehearsal; remove it by hand")
        self._delete(cluster)

    def _delete(self, resource: Resource) -> None:
        self._unprotect(resource)
        if (seen := self._ours(resource)) is None:
            return
        if seen.status.lower() != "deleting":
            _DELETE[seen.kind](self.rds, seen)
        self.asked.add(_key(seen))

    def _unprotect(self, resource: Resource) -> None:
        if not resource.deletion_protection or (seen := self._ours(resource)) is None:
            return
        if seen.kind == "cluster":
            self.rds.modify_db_cluster(
                DBClusterIdentifier=seen.identifier, DeletionProtection=False, ApplyImmediately=True
            )
        elif seen.kind == "instance":
            self.rds.modify_db_instance(
                DBInstanceIdentifier=seen.identifier, DeletionProtection=False, ApplyImmediately=True
            )

    def _standing(self, some: Iterable[Resource]) -> list[Resource]:
        """Those that are neither going nor given up."""
        return [
            r
            for r in some
            if r.kind == "deployment" or (r.status.lower() != "deleting" and _key(r) not in self.asked)
            if not self._is_given_up(r)
        ]

    def _is_given_up(self, resource: Resource) -> bool:
        return self.failures.get(_key(resource), 0) >= TRIES


class _LaterError(Exception):
    """To be met again in the next round; no failure."""


def _delete_instance(rds: Any, seen: Resource) -> None:
    # The snapshot and the backups of a member are its cluster's.
    alone = {} if seen.cluster else {"SkipFinalSnapshot": True, "DeleteAutomatedBackups": True}
    rds.delete_db_instance(DBInstanceIdentifier=seen.identifier, **alone)


_DELETE: dict[Kind, Callable[[Any, Resource], object]] = {
    "instance": _delete_instance,
    "cluster": lambda rds, seen: rds.delete_db_cluster(
        DBClusterIdentifier=seen.identifier, SkipFinalSnapshot=True, DeleteAutomatedBackups=True
    ),
    "cluster_snapshot": lambda rds, seen: rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=seen.identifier),
    "snapshot": lambda rds, seen: rds.delete_db_snapshot(DBSnapshotIdentifier=seen.identifier),
    "cluster_parameter_group": lambda rds, seen: rds.delete_db_cluster_parameter_group(
        DBClusterParameterGroupName=seen.identifier
    ),
    "parameter_group": lambda rds, seen: rds.delete_db_parameter_group(DBParameterGroupName=seen.identifier),
}


def _key(resource: Resource) -> _Key:
    return resource.kind, resource.resource_id


def _passes(error: Exception) -> bool:
    """Waiting may cure it: a state that will change, throttling, a network that failed. A refusal, and what we raise ourselves, stays."""
    code = resources.error_code(error)
    if isinstance(error, _LaterError) or resources.is_throttled(error) or code in _LATER:
        return True
    if not code:
        return not isinstance(error, (TypeError, ValueError, KeyError, AttributeError))
    return code.startswith("Invalid") and "State" in code


def _text(subject: str, error: Exception) -> str:
    if isinstance(error, _LaterError):
        return str(error)
    return f"{subject}: {resources.error_code(error) or type(error).__name__}: {error}"
