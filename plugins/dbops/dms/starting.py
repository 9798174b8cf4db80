"""Which way of starting a task AWS allows now; a refusal names the right one."""

from __future__ import annotations

from typing import Literal, get_args

from dbops.dms.states import Task

StartType = Literal["start-replication", "resume-processing", "reload-target"]
STARTABLE = ("ready", "stopped", "failed")


def refusal(task: Task, start_type: str, *, has_position: bool = False) -> str:
    """Why AWS would refuse this start; "" when it would not.

    Args:
        task: as it stands
        start_type: StartReplicationTaskType
        has_position: a CdcStartPosition or a CdcStartTime is given
    """
    if start_type not in get_args(StartType):
        return f"start type {start_type!r} is not one of {', '.join(get_args(StartType))}"
    if task.status not in STARTABLE:
        return f"the task is {task.raw_status or task.status}; only one that is {', '.join(STARTABLE)} can be started"
    if not task.has_run and start_type != "start-replication":
        return f"{start_type} is for a task that has run, and this one has not: use start-replication"
    if has_position and (task.task_type == "full-load" or start_type != "start-replication"):
        return f"a position is only for the start-replication of a task that follows changes, not for {start_type} of {task.task_type}"
    return _of_a_task_that_ran(task, start_type, has_position) if task.has_run else ""


def _of_a_task_that_ran(task: Task, start_type: str, has_position: bool) -> str:
    load_only = task.is_serverless and task.task_type == "full-load"
    if start_type == "start-replication" and not (task.task_type == "cdc" and has_position):
        if task.task_type == "cdc":
            right = "resume-processing, or give a position"
        else:
            again = "reload-target, which loads every table again"
            right = again if load_only else f"resume-processing, or {again}"
        return f"start-replication is for the first start, and this task has run: use {right}"
    if start_type == "reload-target" and task.task_type == "cdc":
        return "reload-target loads tables, and a task of type cdc loads none: use resume-processing"
    if start_type == "resume-processing" and load_only:
        return "a serverless full load cannot be resumed: use reload-target, which loads every table again"
    return ""
