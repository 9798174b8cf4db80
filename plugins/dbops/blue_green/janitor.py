"""Remove rehearsals whose time is over, however they came to be left: a worker that died, a run that was deleted, keep_old."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dbops.blue_green import resources, teardown
from dbops.blue_green.resources import Resource
from dbops.blue_green.teardown import Removal


@dataclass(frozen=True)
class Expired:
    """Rehearsals whose time is over, with what stands of them; and what carries the tag but cannot be judged."""

    rehearsals: Mapping[str, tuple[Resource, ...]]
    doubtful: tuple[Resource, ...]
    """Without a name or a readable expiry: reported, never deleted."""


@dataclass(frozen=True)
class Sweep:
    """What came of each expired rehearsal, and what a person has to look at."""

    removals: Mapping[str, Removal]
    doubtful: tuple[Resource, ...]

    @property
    def is_clean(self) -> bool:
        """Nothing needs a person."""
        return not self.doubtful and all(removal.is_complete for removal in self.removals.values())


def expired(rds: Any, now: datetime) -> Expired:
    """What is over at `now` (naive UTC, or aware). A rehearsal is over when the latest expiry of all that it has made has passed.

    So a person who needs one of its resources for longer sets its tag to a later time, and the rehearsal stands until then.
    """
    moment = resources.utc(now)
    by_name: dict[str, list[Resource]] = {}
    doubtful = []
    for resource in resources.found(rds):
        if not resource.rehearsal or resources.expires_at(resource) is None:
            doubtful.append(resource)
        else:
            by_name.setdefault(resource.rehearsal, []).append(resource)
    over = {
        name: tuple(found)
        for name, found in sorted(by_name.items())
        if all((until := resources.expires_at(resource)) is not None and until <= moment for resource in found)
    }
    return Expired(over, tuple(doubtful))


def sweep(rds: Any, now: Callable[[], datetime], wait: Callable[[], None], patience: timedelta) -> Sweep:
    """Remove every rehearsal that is over; each is given `patience`, so that one that is stuck does not keep the others.

    The expiry is read anew before each deletion: one that was moved meanwhile is obeyed. See :func:`teardown.remove` for the arguments.
    """
    found = expired(rds, now())
    removals = {
        name: teardown.remove(rds, name, now, wait, now() + patience, expiry="past") for name in found.rehearsals
    }
    return Sweep(removals, found.doubtful)
