"""What a rehearsal waits for, in the worker or in the triggerer, and its end: teardown and janitor."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from dbops import asking
from dbops.blue_green import (
    attempt,
    attempts,
    companion,
    janitor,
    readiness,
    resources,
    results,
    steps,
    switchover,
    teardown,
)
from dbops.blue_green.rails import RailError
from dbops.blue_green.readiness import Readiness
from dbops.blue_green.spec import RehearsalSpec
from dbops.blue_green.steps import Services, StepError

TEARDOWN_DEADLINE = timedelta(hours=2)
KEEP_RECORDINGS = timedelta(days=30)
"""So long after a rehearsal ended and expired, what its probes wrote is kept: the figures stay in the store for ever."""
_OF_REHEARSAL = re.compile(r"(?P<name>dbops-.+)-(?:blue|green|arms|witness)\.jsonl(?:\.(?:log|stop))?")
GREEN_LOOKS = 2000
"""Looks at a deployment that is being created before the trigger gives it back to its task."""


def green_state(services: Services, name: str) -> Readiness:
    """What has been seen of green so far. A failure is looked at anew: its cause may be gone when the task is cleared."""
    kept = services.journal(name).get("readiness")
    state = readiness.load(kept) if kept else Readiness()
    return Readiness(steps=state.steps) if state.outcome == "FAILED" else state


def await_green(services: Services, name: str) -> None:
    """Look until green is ready, in this process.

    Raises:
        StepError: the creation failed, or took longer than the deadline of the services
    """
    identifier = services.journal(name).require("deployment")["id"]
    state, wait = green_state(services, name), services.waiting("green")
    while True:
        seen = asking.ask(services.rds, readiness.checking(identifier, state.target, services.now()))
        state = readiness.advance(state, seen)
        keep_green(services, name, readiness.dump(state))
        if state.is_over:
            return require_green(state)
        adopt_early(services, name)
        wait()


def adopt_early(services: Services, name: str) -> None:
    """Tag what AWS has made of green by now: should everything here end, the janitor finds it."""
    with suppress(RailError):  # tags of a deployment are not shown at once
        steps.adopt(services, name)


def keep_green(services: Services, name: str, state: Mapping[str, Any]) -> None:
    """Keep what was seen, by whoever looked."""
    services.journal(name).put("readiness", state, services.now())


def require_green(state: Readiness) -> None:
    """Raises StepError unless it is ready."""
    if state.outcome == "FAILED":
        raise StepError(f"green cannot become available: {state.reason}")
    if state.outcome != "READY":
        raise StepError(f"green is not available yet: {state.reason}; clear this task to wait on")


def green_trigger(services: Services, name: str, spec: RehearsalSpec) -> Any:
    """The trigger that goes on where the journal stands."""
    from dbops.blue_green.aws.triggers import BlueGreenReadyTrigger

    return BlueGreenReadyTrigger(
        blue_green_deployment_identifier=services.journal(name).require("deployment")["id"],
        state=readiness.dump(green_state(services, name)), waiter_max_attempts=GREEN_LOOKS, waiter_delay=services.poll_s,
        aws_conn_id=spec.aws_connection, region_name=spec.placement.region,
    )  # fmt: skip


def await_switchover(services: Services, name: str, number: int) -> switchover.Memory:
    """Look until the attempt is over, in this process; its own deadline ends it."""
    while True:
        memory = attempts.look(services, name, number)
        if memory.is_over:
            return memory
        services.sleep(min(services.poll_s, 2.0))


def keep_attempt(services: Services, name: str, number: int, document: Mapping[str, Any]) -> switchover.Memory:
    """Keep what the trigger saw of an attempt."""
    attempts.Kept(services.journal(name), number, services.now()).save(dict(document))
    return attempt.load(document).memory


def switchover_trigger(services: Services, name: str, number: int, spec: RehearsalSpec) -> Any:
    """The trigger that watches the attempt from what the journal holds."""
    from dbops.blue_green.aws.triggers import BlueGreenSwitchoverTrigger

    return BlueGreenSwitchoverTrigger(
        attempt=services.journal(name).require(f"memory_{number}"), waiter_delay=min(services.poll_s, 2.0),
        aws_conn_id=spec.aws_connection, region_name=spec.placement.region,
    )  # fmt: skip


def tear_down(services: Services, name: str) -> dict[str, Any]:
    """End what runs beside and remove everything, unless the spec keeps it; the document says what is left and what it costs."""
    journal = services.journal(name)
    spec = steps.spec_of(journal)
    journal.enter("teardown", services.now())
    errors = []
    for end in (attempts.release, steps.stop_probes):
        try:
            end(services, name)
        except Exception as error:  # a process ends by itself in the end; what stands in AWS does not
            errors.append(str(error))
    if spec.keep_old:
        return results.account_for(services, name, teardown.left(services.rds, name), errors, keep=True)
    deadline = services.now() + TEARDOWN_DEADLINE
    removal = teardown.remove(services.rds, name, services.now, _pause(services), deadline)
    return results.account_for(services, name, removal.left, (*errors, *removal.errors), keep=False)


def sweep(services: Services, *, dry_run: bool, say: Callable[[str], None]) -> list[str]:
    """Remove what is expired in one account and region; returns what is left, and what cannot be told, in words.

    What their probes wrote on this machine goes when it is long over.
    """
    found = janitor.expired(services.rds, services.now())
    for name, standing in found.rehearsals.items():
        say(f"expired: {name}: {', '.join(map(str, standing))}")
    doubtful = [f"{each}: its name or expiry cannot be read" for each in found.doubtful]
    if not dry_run:
        swept = janitor.sweep(services.rds, services.now, _pause(services), TEARDOWN_DEADLINE)
        for name, removal in swept.removals.items():
            say(f"removed of {name}: {', '.join(map(str, removal.removed)) or 'nothing'}")
            doubtful += [f"{name}: {error}" for error in (*map(str, removal.left), *removal.errors)]
    try:
        forget_recordings(services, dry_run=dry_run, say=say)
    except OSError as error:
        doubtful.append(f"recordings: {error}")
    return doubtful


def forget_recordings(services: Services, *, dry_run: bool, say: Callable[[str], None]) -> None:
    """Unlink what probes and their companions wrote for rehearsals of this account and region of which nothing stands any more.

    Files whose rehearsal is not in the store stay: somebody else's are none of ours.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(services.recordings.glob("dbops-*")):
        if named := _OF_REHEARSAL.fullmatch(path.name):
            files.setdefault(named["name"], []).append(path)
    over = [name for name in files if _is_long_over(services, name)]
    standing = {each.rehearsal for each in resources.found(services.rds)} if over else set()
    for name in over:
        if name in standing or any(companion.is_running(path) for path in files[name]):
            continue
        say(f"recordings of {name}: {len(files[name])} files")
        for path in files[name] if not dry_run else ():
            path.unlink(missing_ok=True)


def _is_long_over(services: Services, name: str) -> bool:
    journal, limit = services.journal(name), services.now() - KEEP_RECORDINGS
    documents = journal.steps()
    if "begin" not in documents or steps.spec_of(journal).placement.region != services.rds.meta.region_name:
        return False
    last = max(at for at, _ in journal.phases())
    return "teardown" in documents and last < limit and steps.expires_at(journal) < limit


def _pause(services: Services) -> Callable[[], None]:
    return lambda: services.sleep(services.poll_s)
