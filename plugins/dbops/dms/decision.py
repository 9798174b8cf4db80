"""What is to be done with a task now: one pure function of everything that is known, which always decides and says why.

It is fail-closed: an unknown status, position or table leads to ``refuse`` (a person looks) or ``wait`` (it passes by itself), never to a
start. What empties tables of the target is only decided with an approval; without one the decision is ``refuse`` and names in ``proposed``
what was meant.

What AWS allows: start-replication is the only valid first start, and with a load it loads everything; resume-processing and reload-target
need an earlier start; reload-target, and a change of the position, need a task that stands; ReloadTables needs a running task that has a
load; a full load that is serverless cannot be resumed. Resuming loads tables that were not loaded to their end from their beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dbops.dms.mappings import Table
from dbops.dms.states import PLANNED_STOPS, TRANSIENT, Status, StopReason, TableStatistics, Task, TaskType

Action = Literal["none", "wait", "start", "resume", "reload_tables", "reload_target", "cdc_from_checkpoint", "refuse"]
Wish = Literal["ensure", "start", "resume", "reload_tables", "reload_target"]
"""``ensure``: what the spec declares; the others are what a person asks for."""
Position = Literal["none", "covered", "purged", "unknown"]
"""The position from which changes would be read on: there is none, the source still has its log, has it no more, or nobody knows."""
Tables = Literal["unknown", "complete", "loading", "failed", "differ", "quarantined"]
"""All tables at once, the first that holds: unknown, failed, loading, differ (DMS says complete, rows say otherwise), quarantined (all that
failed or differ are left to a person), complete."""
Hindrance = Literal["none", "from_beginning", "fix_first"]
"""What a recognised failure says about going on: nothing, only a whole new load helps, or something has to be repaired first.

A message stays after its cause is repaired, so ``fix_first`` only holds back what nobody has asked for."""

_POSITION = re.compile(r"([A-Za-z0-9_.-]+)\.(\d{6,}):(\d+)")


@dataclass(frozen=True)
class Known:
    """Everything that a decision is made from."""

    wish: Wish
    task_type: TaskType
    is_serverless: bool
    wanted_stopped: bool
    """The spec declares that it stands."""
    status: Status
    has_run: bool
    stop_reason: StopReason
    load_finished: bool
    """The whole load has come to its end at some time."""
    position: Position
    tables: Tables
    hindrance: Hindrance
    may_restart: bool
    """Fewer restarts without progress than the limit."""
    empties: bool
    """A load drops or empties tables of the target that are declared protected."""
    approved: bool
    """A person approved what this decision proposes, for this very plan."""


@dataclass(frozen=True)
class Decision:
    """What to do, why, and what a person can safely do next."""

    action: Action
    reason: str
    next_step: str = ""
    proposed: Action | None = None
    """With ``refuse``: what would be done with an approval."""
    is_destructive: bool = False

    @property
    def needs_approval(self) -> bool:
        """Whether it waits for a person's approval, and for nothing else."""
        return self.proposed is not None


def decide(known: Known) -> Decision:
    """What to do now."""
    if (standing := _of_status(known)) is not None:
        return standing
    if known.wanted_stopped and known.wish == "ensure":
        still = "it still runs, so the plan stops it" if known.status == "running" else "it stands"
        return Decision("none", f"the spec declares that it stands, and {still}")
    if known.status == "running":
        return _running(known)
    if not known.has_run:
        return _first_start(known)
    if known.wish == "reload_target":
        return _reload_target(known, "a whole new load is asked for")
    if known.wish == "reload_tables":
        return _refuse("tables can only be reloaded while the task runs", "Resume it first, then reload the tables")
    return _standing(known)


def _of_status(known: Known) -> Decision | None:
    """The decision where the status alone leaves no choice."""
    status = known.status
    if status in TRANSIENT:
        return Decision("wait", f"the task is {status}, which passes by itself")
    if status == "missing":
        return _refuse("the task does not exist", "Run ensure, which makes it")
    if status == "deleting":
        return _refuse("the task is being deleted", "Find out who deletes it; run ensure when it is gone")
    if status == "failed-move":
        return _refuse("the move to another instance failed", "Move it again, or delete it and run ensure")
    if status not in ("ready", "running", "stopped", "failed"):
        return _refuse("AWS says a status that is not known here", "Look at the task in the console")
    return None


def _running(known: Known) -> Decision:
    if known.wish == "reload_target":
        return _refuse("a whole new load needs a task that stands", "Stop the task, then ask for reload_target again")
    if known.wish == "reload_tables":
        return _reload_tables(known, "reloading tables is asked for")
    if known.tables == "unknown":
        return _refuse("the task is running, but the states of its tables are unknown", "Look at its table statistics")
    if known.tables == "failed":
        return _reload_tables(known, "the task is running without tables that failed")
    if known.tables == "differ":
        return _reload_tables(known, "every table says complete, but rows of source and target differ")
    if known.tables == "quarantined":
        return _refuse(
            "the task is running without tables that failed too often",
            "Read the error of each table, repair its cause, and reload it by hand with reload_tables",
        )
    if known.tables == "loading":
        return Decision("wait", "the task is running and loads tables")
    return Decision("none", "the task is running, and every table is complete")


def _reload_tables(known: Known, why: str) -> Decision:
    if known.task_type == "cdc":
        return _refuse(
            f"{why}, but a task of type cdc loads no table",
            "Repair the cause, load the tables by another way, then resume",
        )
    if known.hindrance == "fix_first" and known.wish == "ensure":
        return _refuse(
            f"{why}, but what made them fail is not repaired", "Repair the cause that the report names first"
        )
    return _destructive(known, "reload_tables", why) if known.empties else Decision("reload_tables", why)


def _first_start(known: Known) -> Decision:
    if known.wish in ("resume", "reload_tables"):
        return _refuse("the task has never run, so there is nothing to go on with", "Start it")
    if known.hindrance == "from_beginning" and known.task_type == "cdc":
        return _refuse("the task has never run, and its position cannot be read from", "Begin at another position")
    if known.hindrance == "fix_first" and known.wish == "ensure":
        return _refuse(
            "the task has never run, and something stands in its way", "Repair what the report names, then start it"
        )
    if known.task_type == "cdc":
        return _first_cdc(known)
    if known.position != "none":
        # Its predecessor has loaded the target: a start loads everything again over it.
        return _destructive(known, "start", "the task is new, but a task before it has loaded this target")
    why = "the task has never run"
    return _destructive(known, "start", why) if known.empties else Decision("start", why)


def _first_cdc(known: Known) -> Decision:
    if known.wish == "reload_target":
        return _refuse("a task of type cdc loads nothing", "Use a task of type full-load-and-cdc for a whole new load")
    if known.position == "none":
        return Decision("start", "the task has never run; changes are read from now on")
    if known.position == "covered":
        return Decision("cdc_from_checkpoint", "the task has never run, and the source has the log of its position")
    if known.position == "unknown" and known.wish == "start":
        return Decision("cdc_from_checkpoint", f"the task has never run; a person asks for the start, and {_UNASKED}")
    return _no_position(known, "the task has never run")


def _standing(known: Known) -> Decision:
    """A task that has run and stands: ready after a modification, stopped or failed."""
    if known.hindrance == "fix_first" and known.wish == "ensure":
        return _refuse(
            f"the task is {known.status}, and going on would fail again", "Repair what the report names, then resume"
        )
    if known.hindrance == "from_beginning":
        return _reload_target(known, "the failure cannot be passed by going on")
    return _standing_load(known) if known.task_type == "full-load" else _standing_cdc(known)


def _standing_load(known: Known) -> Decision:
    if known.tables == "unknown":
        return _refuse("the load has stopped, and the states of its tables are unknown", "Look at its table statistics")
    if known.tables == "complete":
        if known.load_finished and known.stop_reason in ("NORMAL", "FULL_LOAD_ONLY_FINISHED"):
            return Decision("none", "the load has finished, and every table is complete")
        return _refuse(
            f"every table says complete, but the load {_ended(known)}", "Compare rows of source and target, then decide"
        )
    if known.tables == "differ":
        return _reload_target(known, "the load has finished, but rows of source and target differ")
    if known.tables == "quarantined":
        return _refuse(
            "the load has stopped without tables that failed too often",
            "Read the error of each table and repair its cause; then resume by hand after taking it out of quarantine",
        )
    if (no := _no_restart(known)) is not None:
        return no
    if known.is_serverless:
        return _reload_target(known, "a serverless full load cannot be resumed, and tables are missing")
    return Decision("resume", f"the load {_ended(known)} before every table was complete; complete ones are kept")


def _standing_cdc(known: Known) -> Decision:
    asked = known.wish in ("start", "resume")
    if (no := None if asked else _unasked(known)) is not None:
        return no
    if known.position == "covered":
        return Decision("resume", f"the task {_ended(known)}, and the source has the log of its position")
    if known.position == "none" and not known.load_finished and known.task_type != "cdc":
        return Decision("resume", f"the task {_ended(known)} within its load; tables that are not complete load again")
    if known.position == "unknown" and asked:
        return Decision("resume", f"the task {_ended(known)}; a person asks to go on, and {_UNASKED}")
    return _no_position(known, f"the task {_ended(known)}")


_UNASKED = "whether the source has the log is only known when DMS asks for it"


def _unasked(known: Known) -> Decision | None:
    """Why a task that follows changes is not resumed, unless a person asks for it."""
    if known.stop_reason in PLANNED_STOPS:
        return Decision("none", f"the task {_ended(known)}, as it was told to; resume it by hand when it shall go on")
    if (no := _no_restart(known)) is not None:
        return no
    if known.stop_reason in ("STOPPED_DUE_TO_LOW_MEMORY", "STOPPED_DUE_TO_LOW_DISK"):
        return _refuse(
            f"the task {_ended(known)}", "Delete task logs, or move it to a larger instance; then resume it by hand"
        )
    modified = known.status == "ready" and known.stop_reason == ""
    if known.stop_reason in ("", "unknown", "EXPRESS_LICENSE_LIMITS_REACHED") and not modified:
        return _refuse(f"the task {_ended(known)}", "Read its log; resume it by hand when the cause is known")
    return None


def _no_position(known: Known, why: str) -> Decision:
    """Changes cannot be read on: nobody may start over a gap."""
    if known.position == "purged" and known.task_type == "full-load-and-cdc":
        return _reload_target(known, f"{why}, and the source has purged the log of its position")
    if known.position == "purged":
        return _refuse(
            f"{why}, and the source has purged the log of its position: the changes in between are lost to it",
            "Make a new load, or begin from now with a new task and repair the difference",
        )
    missing = "no position is known" if known.position == "none" else "nobody knows whether the source has its log"
    return _refuse(
        f"{why}, and {missing}", "Ask the source for its oldest binary log, and compare it with the checkpoint"
    )


def _no_restart(known: Known) -> Decision | None:
    if known.may_restart or known.wish in ("start", "resume"):
        return None
    return _refuse(
        f"the task {_ended(known)} and was restarted too often without progress",
        "Read its last failure and repair the cause; then resume it by hand",
    )


def _reload_target(known: Known, why: str) -> Decision:
    if known.task_type == "cdc":
        return _refuse(f"{why}, but a task of type cdc loads nothing", "Use a task of type full-load-and-cdc")
    return _destructive(known, "reload_target", why)


def _destructive(known: Known, action: Action, why: str) -> Decision:
    if known.approved:
        return Decision(action, f"{why}; approved", is_destructive=True)
    return Decision(
        "refuse", f"{why}; it replaces rows of the target, and nobody has approved that",
        f"Look at the plan, then approve {action}", proposed=action, is_destructive=True,
    )  # fmt: skip


def _refuse(why: str, next_step: str) -> Decision:
    return Decision("refuse", why, next_step)


def _ended(known: Known) -> str:
    reason = {"": "no reason", "unknown": "a reason that is not known here"}.get(known.stop_reason, known.stop_reason)
    return f"{known.status if known.status != 'ready' else 'stopped'} with {reason}"


def tables(
    statistics: Iterable[TableStatistics] | None,
    quarantined: Iterable[Table],
    errored: int | None,
    differing: Iterable[Table] = (),
) -> Tables:
    """All tables as one word.

    Args:
        statistics: None when they could not be had; none at all is unknown as well
        quarantined: tables that failed so often that they are left to a person
        errored: the number of tables with errors that the task itself counts
        differing: tables whose rows were compared and found to differ
    """
    seen, left = list(statistics or ()), set(quarantined)
    failed = {one.table for one in seen if one.is_failed}
    if not seen or any(one.state == "unknown" for one in seen) or errored is None or (errored and not failed):
        return "unknown"
    if failed - left:
        return "failed"
    if any(one.is_loading for one in seen):
        return "loading"
    if set(differing) - left:
        return "differ"
    return "quarantined" if failed or set(differing) else "complete"


def to_reload(
    statistics: Iterable[TableStatistics], quarantined: Iterable[Table], differing: Iterable[Table] = ()
) -> tuple[Table, ...]:
    """The tables that ``reload_tables`` is about when nobody names any."""
    return tuple(sorted(({one.table for one in statistics if one.is_failed} | set(differing)) - set(quarantined)))


def position(checkpoint: str, logs: Iterable[str] | None) -> Position:
    """Whether the source still has the binary log in which changes would be read on.

    Args:
        checkpoint: RecoveryCheckpoint (``checkpoint:V1#27#mysql-bin-changelog.157832:1975:-1:...``) or ``mysql-bin.000024:373``
        logs: names from SHOW BINARY LOGS; None when the source could not be asked
    """
    if not checkpoint.strip():
        return "none"
    found = _POSITION.search(checkpoint)
    if found is None or logs is None:
        return "unknown"
    name, number, _ = found.groups()
    numbers = [int(end) for stem, _, end in (log.rpartition(".") for log in logs) if stem == name and end.isdigit()]
    if not numbers:  # another server, or the logs were named anew: not the log of this position
        return "unknown"
    if int(number) < min(numbers):
        return "purged"
    return "covered" if int(number) <= max(numbers) else "unknown"


def known(
    task: Task,
    task_type: TaskType,
    *,
    wish: Wish = "ensure",
    wanted_stopped: bool = False,
    statistics: Iterable[TableStatistics] | None,
    quarantined: Iterable[Table] = (),
    differing: Iterable[Table] = (),
    logs: Iterable[str] | None,
    start_at: str = "",
    hindrance: Hindrance = "none",
    may_restart: bool = True,
    empties: bool,
    approved: bool = False,
    counted_complete: bool = False,
    predecessor: bool = False,
) -> Known:
    """What is known, from what AWS and the source answered.

    Args:
        task: as AWS has it
        task_type: as declared
        wish: what is asked for
        wanted_stopped: the spec declares that it stands
        statistics: of its tables; None when they could not be had, or need not be
        quarantined: tables that are left to a person
        differing: tables whose rows were compared and found to differ
        logs: names of the source's binary logs; None when it could not be asked
        start_at: for a task that has never run: the position that the spec declares, or the checkpoint that was saved of the task before it
        hindrance: what :mod:`failures` says
        may_restart: fewer restarts without progress than the limit
        empties: a load drops or empties protected tables
        approved: a person approved it
        counted_complete: the task's own counts say that every table is complete; then statistics may be None
        predecessor: a task before this one has run, so that a new one goes on from it even where its position is not known
    """
    at = position(task.checkpoint if task.has_run else start_at, logs)
    return Known(
        wish=wish,
        task_type=task_type,
        is_serverless=task.is_serverless,
        wanted_stopped=wanted_stopped,
        status=task.status,
        has_run=task.has_run,
        stop_reason=task.stop_reason,
        load_finished=task.load_finished_at is not None,
        position="unknown" if at == "none" and predecessor and not task.has_run else at,
        tables="complete" if counted_complete else tables(statistics, quarantined, task.tables_errored, differing),
        hindrance=hindrance,
        may_restart=may_restart,
        empties=empties,
        approved=approved,
    )


def newer(one: str, other: str) -> bool:
    """Whether a position is certainly behind another one in the same logs."""
    first, second = _place(one), _place(other)
    return first is not None and second is not None and first[0] == second[0] and first[1:] > second[1:]


def _place(text: str) -> tuple[str, int, int] | None:
    found = _POSITION.search(text)
    return (found[1], int(found[2]), int(found[3])) if found else None
