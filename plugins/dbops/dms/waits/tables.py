"""Waits for the tables of a task: loaded, loaded anew, validated. They are judged one by one, never by the status of the task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, TypeVar

from dbops.dms.mappings import Table
from dbops.dms.states import TRANSIENT, TableStatistics
from dbops.dms.waits.base import Judgement, Seen, TaskWait, has_grace, iso, parsed, status_text
from dbops.dms.waits.task import GRACE_S, _ending

R = TypeVar("R", bound="Reloaded")
NAMED = 20
"""Tables that a reason names."""
_PENDING = frozenset({"", "pending records", "pending validation", "preparing table", "pending revalidation"})
_FINAL = frozenset({"not enabled", "mismatched records", "suspended records", "no primary key", "table error", "error"})


def named(tables: Iterable[object]) -> str:
    """Names of tables, cut where there are too many."""
    found = [str(one) for one in tables]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


@dataclass(frozen=True, kw_only=True)
class Loaded(TaskWait):
    """Until the full load is over: every table completed, none in error, no more rows that failed than are put up with.

    A task with changes runs on then; one of type full-load has to have ended as well, with the right reason.
    """

    since: str
    """When the waiting began, ISO 8601: for the grace of a task that nobody has started yet."""
    grace_s: float = GRACE_S
    max_error_rows: int = 0
    min_tables: int = 1
    not_before: str = ""
    """A load of a table that began before this moment (ISO 8601) is an older one."""

    def _needs_tables(self) -> bool:
        return True

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.task_type == "cdc":
            return "bad", ("a task of type cdc loads no table",)
        if task.status in TRANSIENT or task.status == "unknown":
            return "open", (status_text(task),)
        if task.status == "ready":
            if has_grace(self.since, self.grace_s, now):
                return "open", (f"{status_text(task)}, and was not started yet",)
            return "bad", (f"{status_text(task)}, and was not started within {self.grace_s:g} s",)
        if task.status != "running" and (task.status != "stopped" or task.stop_reason not in _ENDS_LOADED):
            ended = _ending(seen, self.max_error_rows)
            return ("bad", tuple(dict.fromkeys((*ended[1], *self._wrong(seen))))) if ended[0] != "open" else ended
        if wrong := self._wrong(seen):
            return "bad", tuple(wrong)
        if missing := self._not_yet(seen):
            return ("open" if task.status == "running" or self._has_grace(now) else "bad"), tuple(missing)
        if task.status == "running" and task.task_type == "full-load":
            return "open", ("every table is completed, and the task has not ended yet",)
        return "good", (f"{len(seen.tables or ())} tables are completed",)

    def _has_grace(self, now: datetime) -> bool:
        return bool(self.not_before) and has_grace(self.since, self.grace_s, now)

    def _wrong(self, seen: Seen) -> list[str]:
        tables = [one for one in seen.tables or () if not self._is_older(one)]
        found = [f"table {one.table} is in state {one.raw_state or one.state}" for one in tables if one.is_failed]
        errors = sum(one.error_rows for one in tables)
        if errors > self.max_error_rows:
            which = named(f"{one.table} ({one.error_rows})" for one in tables if one.error_rows)
            found.append(f"{errors} rows failed to load, {self.max_error_rows} are put up with: {which}")
        if seen.task.tables_errored and not self.not_before and not any(one.is_failed for one in tables):
            found.append(f"AWS counts {seen.task.tables_errored} tables with errors")
        return found

    def _not_yet(self, seen: Seen) -> list[str]:
        if seen.tables is None:
            return ["statistics of the tables are unknown"]
        if len(seen.tables) < self.min_tables:
            return [f"the task has {len(seen.tables)} tables, expected at least {self.min_tables}"]
        waiting = [one.table for one in seen.tables if one.state != "Table completed" or self._is_older(one)]
        if waiting:
            return [f"{len(waiting)} of {len(seen.tables)} tables are not completed: {named(waiting)}"]
        counted = (seen.task.tables_loading or 0) + (seen.task.tables_queued or 0)
        return [f"AWS counts {counted} tables that are loading or queued"] if counted else []

    def _is_older(self, one: TableStatistics) -> bool:
        begun = parsed(self.not_before)
        return begun is not None and (one.load_started_at is None or one.load_started_at < begun)


# Ends after which a load may be whole; another one says that it is not, whatever the tables say.
_ENDS_LOADED = frozenset({
    "NORMAL", "FULL_LOAD_ONLY_FINISHED", "STOPPED_AFTER_FULL_LOAD", "STOPPED_AFTER_CACHED_EVENTS", "STOPPED_AFTER_DDL_APPLY",
    "STOPPED_AT_SERVER_TIME", "STOPPED_AT_COMMIT_TIME",
})  # fmt: skip


class Reloading(NamedTuple):
    """A table whose load is asked for, as it was before. JSON values, so that it goes through a trigger."""

    schema: str
    name: str
    started: str
    ended: str
    reloaded: bool
    was_loading: bool

    @classmethod
    def of(cls, one: TableStatistics) -> Reloading:
        """From the statistics before the call."""
        return cls(
            one.table.schema,
            one.table.name,
            iso(one.load_started_at),
            iso(one.load_ended_at),
            one.reloaded,
            one.is_loading,
        )

    @property
    def table(self) -> Table:
        """Its name."""
        return Table(self.schema, self.name)

    def is_anew(self, one: TableStatistics) -> bool:
        """Whether what the statistics show is a later load than the one before the call."""
        if one.is_loading and not self.was_loading:
            return True
        if iso(one.load_started_at) != self.started:
            return True
        return one.reloaded and not (self.reloaded or self.was_loading)


@dataclass(frozen=True, kw_only=True)
class Reloaded(TaskWait):
    """Until each table has been loaded anew. ReloadTables is asynchronous: the ``Table completed`` of the load before proves nothing."""

    before: tuple[Reloading, ...]
    loading: tuple[str, ...] = ()
    """Tables that were seen loading since the call."""
    max_error_rows: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "before", tuple(Reloading(*one) for one in self.before))

    def _needs_tables(self) -> bool:
        return True

    def advance(self: R, seen: Seen, now: datetime) -> R:
        """The wait after one more look; it remembers which tables it saw loading."""
        found = {one.table: one for one in seen.tables or ()}
        begun = {str(one.table) for one in self.before if one.table in found and self._begun(one, found[one.table])}
        return super(Reloaded, replace(self, loading=tuple(sorted({*self.loading, *begun})))).advance(seen, now)

    def _begun(self, before: Reloading, one: TableStatistics) -> bool:
        return before.is_anew(one)

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        found = {one.table: one for one in seen.tables or ()}
        anew = {
            one.table: found[one.table] for one in self.before if str(one.table) in self.loading and one.table in found
        }
        failed = [
            f"table {one.table} is in state {one.raw_state or one.state}" for one in anew.values() if one.is_failed
        ]
        errors = {name: one.error_rows for name, one in anew.items() if one.error_rows}
        if sum(errors.values()) > self.max_error_rows:
            failed += [f"table {name} has {count} rows that failed to load" for name, count in sorted(errors.items())]
        if failed:
            return "bad", tuple(failed)
        waiting = [
            one.table for one in self.before if not (one.table in anew and anew[one.table].state == "Table completed")
        ]
        if not waiting:
            return "good", (f"{len(self.before)} tables were loaded anew",)
        if task.status != "running" and task.status not in (*TRANSIENT, "unknown"):
            return "bad", (status_text(task), f"not loaded anew: {named(waiting)}")
        if seen.tables is None:
            return "open", ("statistics of the tables are unknown",)
        return "open", (f"{len(waiting)} of {len(self.before)} tables are not loaded anew: {named(waiting)}",)


@dataclass(frozen=True, kw_only=True)
class Validated(TaskWait):
    """Until DMS has found the rows of every table equal. Validation is for relational targets and S3 only."""

    tables: tuple[str, ...] = ()
    """``schema.table`` of those that matter; all of the task when empty."""
    without_key: bool = False
    """Put up with tables that cannot be validated because they have no primary key."""

    def _needs_tables(self) -> bool:
        return True

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.status not in ("running", "stopped") and task.status not in (*TRANSIENT, "ready", "unknown"):
            return "bad", (status_text(task),)
        if seen.tables is None:
            return "open", ("statistics of the tables are unknown",)
        chosen = [one for one in seen.tables if not self.tables or str(one.table) in self.tables]
        if wrong := [text for one in chosen if (text := self._wrong(one))]:
            return "bad", tuple(wrong)
        names = {str(one.table) for one in chosen}
        missing = [name for name in self.tables if name not in names]
        waiting = [str(one.table) for one in chosen if not self._is_done(one)]
        if missing or waiting or not chosen:
            reason = f"not validated: {named([*missing, *waiting]) or 'no table is known yet'}"
            return ("bad" if task.status == "stopped" else "open"), (f"{status_text(task)}, {reason}",)
        return "good", (f"{len(chosen)} tables are validated",)

    def _is_done(self, one: TableStatistics) -> bool:
        word = one.validation_state.lower()
        return (word == "validated" and not one.validation_pending) or (self.without_key and word == "no primary key")

    def _wrong(self, one: TableStatistics) -> str:
        word = one.validation_state.lower()
        details = f": {one.validation_details}" if one.validation_details else ""
        if one.is_failed:
            return f"table {one.table} is in state {one.raw_state or one.state}"
        if one.validation_failed or one.validation_suspended:
            return f"table {one.table}: {one.validation_failed} rows differ, {one.validation_suspended} cannot be compared{details}"
        if self._is_done(one) or word in _PENDING or word == "validated":
            return ""
        return (
            f"table {one.table}: {one.validation_state}{details}" if word in _FINAL else ""
        )  # one not known is not done either
