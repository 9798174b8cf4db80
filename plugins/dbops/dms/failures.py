"""What goes wrong with DMS, recognised from everything that is seen at once, each with its cause and what to do.

A status word hides most of it: a task is running without a table, a load ends successfully after its source was stopped. So tables,
counted rows, messages and the instance are looked at, whatever the status says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Literal

from dbops.dms.decision import Hindrance
from dbops.dms.mappings import Table
from dbops.dms.states import TableStatistics, Task

Kind = Literal[
    "table_error", "rows_absent", "load_cut_short", "lob_cut", "binlog_purged", "cdc_settings", "bad_event",
    "endless_restart", "instance_full", "nothing_migrated", "duplicate_rows", "connection",
]  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What was seen at once; None where nobody asked."""

    task: Task
    tables: tuple[TableStatistics, ...] | None = None
    instance_status: str = ""
    messages: tuple[str, ...] = ()
    """Events of the task and lines of its log, beside the task's own last failure."""
    apply_exceptions: Mapping[Table, int] = field(default_factory=dict)
    """Rows of awsdms_apply_exceptions at the target, by table."""
    source_rows: Mapping[Table, int] = field(default_factory=dict)
    """Counted rows; only tables that were counted on both sides are compared."""
    target_rows: Mapping[Table, int] = field(default_factory=dict)
    restarts: int = 0
    """Restarts in a row without progress."""
    restarts_limit: int = 3
    error_rows_limit: int = 0
    load_ended: bool = False
    """The full load has come to its end, and both sides were counted at rest."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every message."""
        return tuple(text for text in (self.task.failure, *self.messages) if text)


@dataclass(frozen=True)
class Failure:
    """One thing that goes wrong."""

    kind: Kind
    evidence: str
    cause: str
    action: str
    tables: tuple[Table, ...] = ()
    hindrance: Hindrance = "none"

    def __str__(self) -> str:
        return f"{self.evidence}. {self.cause}. Do: {self.action}."


@dataclass(frozen=True)
class Advice:
    """What is known of a kind of failure."""

    cause: str
    action: str
    hindrance: Hindrance = "none"


ADVICE: dict[Kind, Advice] = {
    "table_error": Advice(
        "The task goes on without a table after an error (TableErrorPolicy and DataErrorEscalationPolicy are SUSPEND_TABLE)",
        "read the table's error in the task log, repair it, then reload this table",
    ),
    "rows_absent": Advice(
        "Rows that could not be converted or applied were left out and only logged",
        "read awsdms_apply_exceptions at the target and the task log, make the error policies stop, then reload the table",
    ),
    "load_cut_short": Advice(
        "A source that is stopped within a full load lets the task end successfully with rows missing",
        "find out whether the source was restarted meanwhile, then load the table again",
    ),
    "lob_cut": Advice(
        "Limited LOB mode cuts longer values, with a warning only",
        "measure the longest value, raise LobMaxSize or give the table lob-settings, then reload it",
    ),
    "binlog_purged": Advice(
        "The source has purged the log from which changes would be read on",
        "raise the retention (mysql.rds_set_configuration 'binlog retention hours'), then load the target anew with an approval",
        "from_beginning",
    ),
    "cdc_settings": Advice(
        "The source does not log as CDC needs it: binlog_format ROW, binlog_row_image FULL, binlog_checksum NONE, log_slave_updates on"
        " a replica, backups on, no compressed transactions",
        "set the source's parameter group, restart it if needed, then start or resume by hand",
        "fix_first",
    ),
    "bad_event": Advice(
        "The log holds an event that DMS cannot read, mostly of unsupported DDL",
        "find the DDL in the log, keep such DDL out of the time of the task, then load the target anew with an approval",
        "from_beginning",
    ),
    "endless_restart": Advice(
        "A recoverable error comes back at every restart (RecoverableErrorCount -1 restarts for ever)",
        "bound RecoverableErrorCount, repair what the last failure names, then resume by hand",
    ),
    "instance_full": Advice(
        "Logs or cached changes have filled the replication instance",
        "delete the task's logs (Logging.DeleteTaskLogs), move it to a larger instance, watch FreeStorageSpace and SwapUsage;"
        " then resume by hand",
        "fix_first",
    ),
    "nothing_migrated": Advice(
        "The mappings match no table (FailOnNoTablesCaptured is false by default)",
        "correct the selection rules, set FailOnNoTablesCaptured, then start by hand",
        "fix_first",
    ),
    "duplicate_rows": Advice(
        "A load was repeated into a table that keeps its rows and has no primary key, or the target had rows before",
        "give the target a primary key or empty it before the load; for changes set ApplyErrorInsertPolicy to UPDATE_RECORD",
    ),
    "connection": Advice(
        "An endpoint cannot be reached, or refuses the login",
        "test both connections, look at the secret, security groups and the server; then resume by hand",
        "fix_first",
    ),
}  # fmt: skip

_PURGED = re.compile(
    r"could not find first log file name in binary log index|purged (the )?(required |needed )?binary logs"
    r"|binary logs? (has|have|was|were) (been )?purged",
    re.IGNORECASE,
)
_BAD_EVENT = re.compile(r"\bbad (binlog )?event\b|unsupported (binlog )?event|compressed transaction", re.IGNORECASE)
_CDC_SETTINGS = re.compile(
    r"binlog_format|binlog_row_image|binlog_checksum|log_slave_updates|log_replica_updates"
    r"|binary logging (must be|is not) enabled|row[- ]based (logging|replication) (is required|must)"
    r"|not configured for (cdc|binary logging)",
    re.IGNORECASE,
)
_TRUNCATED = re.compile(r"truncated to \d+ bytes|lob .*truncat|truncat.* lob|data truncat", re.IGNORECASE)
_DUPLICATE = re.compile(r"duplicate entry|duplicate key|\b1062\b", re.IGNORECASE)
_FULL = re.compile(
    r"no space left|storage[- ](is )?full|out of (disk|storage|memory)|low (memory|disk|storage)", re.IGNORECASE
)
_NO_TABLES = re.compile(r"no tables (were|was|are)? ?(found|captured|selected)", re.IGNORECASE)
_CONNECTION = re.compile(
    r"can'?t connect|cannot connect|access denied|test connection failed|unknown mysql server host|connection (refused|timed out)"
    r"|lost connection|server has gone away",
    re.IGNORECASE,
)
_RESTART = re.compile(r"recoverable error|task .*(is being |was )?restart", re.IGNORECASE)
_NAME = re.compile(r"table ['\"`]?([A-Za-z0-9_$]+)['\"`]?\.['\"`]?([A-Za-z0-9_$]+)", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")

Hits = Iterator[tuple[str, tuple[Table, ...]]]


def recognise(seen: Evidence) -> tuple[Failure, ...]:
    """Everything that goes wrong, at most once a kind, what only a new load or a repair helps with first."""
    found = []
    for kind, look in _LOOKS.items():
        hits = list(look(seen))
        if hits:
            advice = ADVICE[kind]
            named = tuple(sorted({table for _, tables in hits for table in tables}))
            texts = list(dict.fromkeys(text for text, _ in hits))
            shown = "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
            found.append(Failure(kind, shown, advice.cause, advice.action, named, advice.hindrance))
    order = {"from_beginning": 0, "fix_first": 1, "none": 2}
    return tuple(sorted(found, key=lambda failure: order[failure.hindrance]))


def hindrance(found: Iterable[Failure]) -> Hindrance:
    """What the failures together say about going on."""
    kinds = {failure.hindrance for failure in found}
    return next((one for one in ("from_beginning", "fix_first") if one in kinds), "none")


def differing(found: Iterable[Failure]) -> tuple[Table, ...]:
    """Tables that say complete and whose rows are not: missing, cut or doubled."""
    kinds = ("rows_absent", "load_cut_short", "lob_cut", "duplicate_rows")
    return tuple(sorted({table for failure in found if failure.kind in kinds for table in failure.tables}))


def _table_error(seen: Evidence) -> Hits:
    for one in seen.tables or ():
        if one.is_failed:
            yield (
                f"table {one.table} is in state {one.raw_state or one.state} while the task is {seen.task.status}",
                (one.table,),
            )
    counted = seen.task.tables_errored or 0
    if counted and not any(one.is_failed for one in seen.tables or ()):
        yield f"AWS counts {counted} tables with errors", ()


def _rows_absent(seen: Evidence) -> Hits:
    for one in seen.tables or ():
        if one.error_rows > seen.error_rows_limit:
            yield f"table {one.table} has {one.error_rows} rows that failed to load", (one.table,)
    for table, count in seen.apply_exceptions.items():
        if count:
            yield f"table {table} has {count} rows in awsdms_apply_exceptions", (table,)


def _load_cut_short(seen: Evidence) -> Hits:
    if seen.load_ended:
        for table, rows in seen.source_rows.items():
            there = seen.target_rows.get(table)
            if there is not None and there < rows:
                yield f"table {table} has {there:,} rows at the target and {rows:,} at the source", (table,)


def _duplicate_rows(seen: Evidence) -> Hits:
    if seen.load_ended:
        for table, rows in seen.source_rows.items():
            there = seen.target_rows.get(table)
            if there is not None and there > rows:
                yield f"table {table} has {there:,} rows at the target and only {rows:,} at the source", (table,)
    yield from _said(seen, _DUPLICATE)


def _binlog_purged(seen: Evidence) -> Hits:
    yield from _said(seen, _PURGED)


def _cdc_settings(seen: Evidence) -> Hits:
    if seen.task.status != "running":
        yield from _said(seen, _CDC_SETTINGS)


def _endless_restart(seen: Evidence) -> Hits:
    if seen.restarts >= seen.restarts_limit:
        yield f"{seen.restarts} restarts in a row without progress", ()
    if seen.task.stop_reason == "RECOVERABLE_ERROR":
        yield f"stopped with {seen.task.raw_stop_reason or seen.task.stop_reason}", ()
    repeated = [text for text in seen.messages if _RESTART.search(text)]
    if len(repeated) >= seen.restarts_limit:
        yield f"{len(repeated)} events of restarts, the last: {_short(repeated[-1])}", ()


def _instance_full(seen: Evidence) -> Hits:
    if seen.instance_status == "storage-full":
        yield "the replication instance is storage-full", ()
    if seen.task.stop_reason in ("STOPPED_DUE_TO_LOW_MEMORY", "STOPPED_DUE_TO_LOW_DISK"):
        yield f"stopped with {seen.task.raw_stop_reason or seen.task.stop_reason}", ()
    yield from _said(seen, _FULL)


def _nothing_migrated(seen: Evidence) -> Hits:
    yield from _said(seen, _NO_TABLES)
    if seen.tables == () and seen.task.has_run and seen.task.status in ("running", "stopped"):
        yield f"the task is {seen.task.status} and has no table", ()


def _connection(seen: Evidence) -> Hits:
    if seen.task.status != "running":
        yield from _said(seen, _CONNECTION)


def _said(seen: Evidence, pattern: re.Pattern[str]) -> Hits:
    for text in seen.texts:
        if pattern.search(text):
            named = [Table(*match.groups()) for match in _NAME.finditer(text)]
            left = tuple(table for table in named if not _is_loaded_since(seen, table, text))
            if named and not left:
                continue
            yield f"DMS says: {_short(text)}", left


def _is_loaded_since(seen: Evidence, table: Table, text: str) -> bool:
    """Whether the load of a table began after an event about it, which has its time in UTC before its text."""
    found = _TIME.match(text)
    began = next((one.load_started_at for one in seen.tables or () if one.table == table), None)
    return bool(found and began and f"{began.astimezone(UTC):%Y-%m-%d %H:%M:%S}" > found[0])


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 300 else f"{plain[:300]}..."


_LOOKS: dict[Kind, Callable[[Evidence], Hits]] = {
    "table_error": _table_error,
    "rows_absent": _rows_absent,
    "load_cut_short": _load_cut_short,
    "lob_cut": lambda seen: _said(seen, _TRUNCATED),
    "binlog_purged": _binlog_purged,
    "cdc_settings": _cdc_settings,
    "bad_event": lambda seen: _said(seen, _BAD_EVENT),
    "endless_restart": _endless_restart,
    "instance_full": _instance_full,
    "nothing_migrated": _nothing_migrated,
    "duplicate_rows": _duplicate_rows,
    "connection": _connection,
}
