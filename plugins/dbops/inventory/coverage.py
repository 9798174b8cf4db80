"""How much of what ran is named: a ledger per instance and interval that balances.

The server counts every statement by event name whether or not it can name it, and (measured on 5.7.22 and 8.0.15, exactly)

    SUM(statement/sql/*) - statement/sql/error = SUM(digest rows) + the NULL row

while ``statement/com/Execute`` (server-side prepared statements) and ``statement/sp/stmt`` (statements inside stored programs) have no
digest. So each execution is explained by a statement whose whole text is known, or it belongs to a gap:
``explained + the gaps' executions = executions_total``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dbops.inventory.deltas import Delta, Deltas, deltas, is_first_sight
from dbops.inventory.model import Gap, Snapshot

_EXECUTE = re.compile(r"\s*EXECUTE\b", re.IGNORECASE)
_BUILDS = re.compile(r"\s*(?:EXECUTE|PREPARE)\b", re.IGNORECASE)
_MEMORY = "a restart of the server; memory"
_SLOW_LOG = "read a window of the slow log with long_query_time = 0"


@dataclass(frozen=True)
class Coverage:
    """Executions in one interval of one instance (or a sum of such), errors and our own left out of the total."""

    executions_total: int
    named_digest: int
    """In digest rows with a text, whatever that text is worth."""
    prepared: int
    """``statement/com/Execute``: by server-side prepared statements."""
    in_programs: int
    """``statement/sp/stmt``: inside routines, triggers and events."""
    null_row: int
    errors: int
    """Statements that did not parse (``statement/sql/error``); those that failed later are executions."""
    own: int
    """Sent by this inventory."""
    explained: int
    """By a statement whose whole and true text is known."""
    gaps: tuple[Gap, ...] = ()
    resets: tuple[str, ...] = ()
    measured: bool = True
    """False when the counters could not be read, or do not count all that runs: then nothing is known, and 0 % is explained."""
    since: datetime | None = None
    """Previous snapshot; None = since the server began to count."""
    until: datetime | None = None
    unmeasured_s: float = 0.0
    """Of the time between the two snapshots, what was not counted, or was forgotten before anybody looked."""

    @property
    def explained_percent(self) -> float:
        """100 when nothing ran, 0 when nothing could be measured."""
        if not self.measured:
            return 0.0
        return 100.0 * self.explained / self.executions_total if self.executions_total else 100.0


def coverage(
    previous: Snapshot | None, current: Snapshot, *, programs: Collection[str] = (), building: Collection[str] = (),
    definitions_known: bool = True,
) -> Coverage:  # fmt: skip
    """The ledger between two snapshots of one instance, or since its counters began.

    Args:
        previous: None at the first snapshot
        current: a digest whose sighting has a ``program`` of the kind view is the digest of that view's body
        programs: stored programs (as str(Program)) whose bodies are known besides those among the sightings
        building: those whose bodies PREPARE and EXECUTE SQL, besides those among the sightings
        definitions_known: the bodies of all views are known. Until then no digest can be trusted, and nothing is explained
    """
    since = None if previous is None or is_first_sight(previous, current) else previous.taken_at
    if "statements" not in current.read:
        return Coverage(0, 0, 0, 0, 0, 0, 0, 0, distinct(current.gaps), (), False, since, current.taken_at)
    found = deltas(previous, current)
    ledger = _Ledger(previous, current, found)
    bodies = [(s.program, s.text) for s in current.sightings if s.source == "routine" and s.program]
    gaps = [
        *current.gaps, *_restart_gap(previous, found), *ledger.digest_gaps(), *ledger.prepared_gaps(),
        *ledger.program_gaps(
            {*programs, *(name for name, _ in bodies)}, {*building, *(name for name, text in bodies if _BUILDS.match(text))}
        ),
    ]  # fmt: skip
    # The gaps that the snapshot itself brought describe sources; their executions are counted here.
    gaps = [*current.gaps, *_within(ledger.total, gaps[len(current.gaps) :])]
    hidden = sum(gap.executions or 0 for gap in gaps[len(current.gaps) :])
    if not definitions_known and ledger.total > hidden:
        gaps.append(_unknown_views(ledger.total - hidden))
        hidden = ledger.total
    return Coverage(
        executions_total=ledger.total,
        named_digest=ledger.named,
        prepared=ledger.prepared,
        in_programs=ledger.in_programs,
        null_row=ledger.null_row,
        errors=ledger.errors,
        own=ledger.own,
        explained=ledger.total - hidden,
        gaps=distinct(gaps),
        resets=tuple(map(str, found.resets)),
        measured=not any(gap.blind for gap in current.gaps),
        unmeasured_s=_unmeasured(previous, current, found).total_seconds(),
        since=since,
        until=current.taken_at,
    )


_SHARED_DIGEST = "other statements may share a truncated digest"
_CUT_PREPARED = "truncated prepared statements"
_SHOWN_BY_LOGS = (
    "statements over views", "server-side prepared statements", "SQL EXECUTE", _CUT_PREPARED, "truncated digests", _SHARED_DIGEST,
    "statements in the NULL row of the digest table", "statements before a TRUNCATE", "statements without a digest",
)  # fmt: skip


def with_logs(ledger: Coverage, only_in_logs: int) -> Coverage:
    """The ledger with the gaps made smaller that a log of the same interval closes.

    Args:
        ledger: by the counters
        only_in_logs: executions, begun and ended within the interval, of statements that logs show and no digest names, beyond those
            of open prepared statements. What does not parse is in a slow log too, so errors are taken off
    """
    left = max(only_in_logs - ledger.errors, 0)
    gaps: list[Gap] = []
    closed = 0
    for gap in sorted(
        ledger.gaps, key=lambda g: _SHOWN_BY_LOGS.index(g.what) if g.what in _SHOWN_BY_LOGS else len(_SHOWN_BY_LOGS)
    ):
        shown = min(left - closed, gap.executions or 0) if gap.what in _SHOWN_BY_LOGS else 0
        closed += shown
        if not shown or gap.executions != shown:
            gaps.append(replace(gap, executions=gap.executions - shown) if shown and gap.executions else gap)
    return replace(ledger, explained=ledger.explained + closed, gaps=distinct(gaps))


def combined(parts: Sequence[Coverage]) -> Coverage:
    """One ledger of several intervals or instances; equal gaps are added up. Without parts nothing is measured."""
    if not parts:
        return Coverage(0, 0, 0, 0, 0, 0, 0, 0, measured=False)
    names = ("executions_total", "named_digest", "prepared", "in_programs", "null_row", "errors", "own", "explained")
    begins, ends = [p.since for p in parts], [p.until for p in parts if p.until]
    return Coverage(
        **{name: sum(getattr(part, name) for part in parts) for name in names},
        gaps=distinct(gap for part in parts for gap in part.gaps),
        resets=tuple(reset for part in parts for reset in part.resets),
        measured=all(part.measured for part in parts),
        unmeasured_s=sum(part.unmeasured_s for part in parts),
        since=None if None in begins else min(b for b in begins if b),
        until=max(ends, default=None),
    )


class _Ledger:
    """The figures of one interval."""

    def __init__(self, previous: Snapshot | None, current: Snapshot, found: Deltas) -> None:
        self.found = found
        self.previous_at = previous.taken_at if previous else None
        events = found.event_counts
        self.errors = events.get("statement/sql/error", 0)
        self.prepared = events.get("statement/com/Execute", 0)
        self.in_programs = events.get("statement/sp/stmt", 0)
        self.digests = [d for d in found.items if d.sighting.source == "digest"]
        top_level = sum(count for name, count in events.items() if name.startswith("statement/sql/")) - self.errors
        in_rows = sum(d.executions or 0 for d in self.digests)
        marked = sum(d.executions or 0 for d in self.digests if d.sighting.own)
        excess = max(in_rows + found.null_row - top_level, 0)
        if previous is None or found.was_reset("events"):
            # Counters that were truncated apart from the digest table show less than it: then its sum is the better total.
            top_level, excess = top_level + excess, 0
        # The connection's own counters are exact; marks show what other connections of ours sent and nobody told of.
        self.own = min(max(_own_by_connection(previous, current, found), marked), top_level)
        marked = min(marked, self.own)
        self.total = top_level - self.own + self.prepared + self.in_programs

        discarded = max(top_level - in_rows - found.null_row, 0)
        unmarked = min(_unmarked(previous, current), self.own - marked)
        hidden = self.own - marked - unmarked  # ours, but in no digest row
        in_discarded = min(hidden, discarded)
        in_null_row = min(hidden - in_discarded, found.null_row)
        self.discarded, self.null_row = discarded - in_discarded, found.null_row - in_null_row
        # On a busy server the rows are read a moment after the counters: the next interval has what is too much here.
        self.named = max(in_rows - excess - (self.own - in_discarded - in_null_row), 0)
        self.first = is_first_sight(previous, current)
        self.whole_samples = {
            (s.schema, s.digest) for s in current.sightings if s.source == "sample" and not s.truncated and s.digest
        }
        self.settings = current.instance.settings

    def digest_gaps(self) -> Iterable[Gap]:
        """Top-level statements without a digest row, and rows whose text is not that of the statement."""
        if self.null_row:
            size = self.settings.get("digests_size", "?")
            yield Gap(
                "statements in the NULL row of the digest table", f"the table is full ({size} rows): new digests have no row",
                "raise performance_schema_digests_size, or truncate the table after a snapshot",
                f"{_MEMORY}: about 4 KB a row", self.null_row,
            )  # fmt: skip
        if self.discarded:
            yield _discarded_gap(self.found, self.first, self.discarded)
        if self.found.was_reset("events") and self.found.was_reset("digests"):
            yield Gap(
                "the time before a TRUNCATE", "the digest table and the event counters were truncated: what ran between"
                f" {self.previous_at:%Y-%m-%d %H:%M:%S} UTC and then is not known",
                "take a snapshot before truncating them, or do not truncate the event counters", "none",
            )  # fmt: skip
        if self.found.was_reset("events"):
            yield Gap(
                "part of the prepared statements and of statements in programs", "the event counters were truncated",
                "do not truncate events_statements_summary_global_by_event_name", "none",
            )  # fmt: skip
        merged, cut, shared = self._sum(self._merged), self._sum(self._is_cut), self._sum(self._is_shared)
        if merged:
            yield Gap(
                "statements over views", "before 5.7.36 the digest of a statement over a view is that of the view's body,"
                " even for writes", f"{_SLOW_LOG}; or upgrade", "I/O on the server while the log is on", merged,
            )  # fmt: skip
        if cut:
            length = self.settings.get("max_digest_length", "?")
            yield Gap(
                "truncated digests", f"their text ends at max_digest_length = {length} bytes: tables after the cut are not known",
                "set max_digest_length, performance_schema_max_digest_length and performance_schema_max_sql_text_length to 4096",
                f"{_MEMORY}: 140 MB", cut,
            )  # fmt: skip
        if shared:
            yield Gap(
                _SHARED_DIGEST, "statements that differ only behind max_digest_length have one digest, and the server keeps the text of"
                " one execution", "set max_digest_length, performance_schema_max_digest_length and performance_schema_max_sql_text_length"
                " to 4096", f"{_MEMORY}: 140 MB", shared,
            )  # fmt: skip

    def prepared_gaps(self) -> Iterable[Gap]:
        """Executions of prepared statements whose text was closed, or is not shown."""
        open_now = [d for d in self.found.items if d.sighting.source == "prepared" and not d.sighting.own]
        by_sql = sum(d.executions or 0 for d in open_now if d.sighting.key.endswith(":sql"))
        by_client = sum(d.executions or 0 for d in open_now) - by_sql
        executed = self._sum(lambda d: _EXECUTE.match(d.sighting.text) is not None)
        cut = [d for d in open_now if d.sighting.truncated]
        cut_by_sql = sum(d.executions or 0 for d in cut if d.sighting.key.endswith(":sql"))
        cut_by_client = sum(d.executions or 0 for d in cut) - cut_by_sql
        if hidden := min(cut_by_sql, executed) + min(cut_by_client, self.prepared):
            yield Gap(
                _CUT_PREPARED, "the server keeps 1,024 bytes of their text: tables behind that are not known",
                f"{_SLOW_LOG}; or shorten them", "I/O on the server while the log is on", hidden,
            )  # fmt: skip
        if (hidden := self.prepared - by_client) > 0:
            yield Gap(
                "server-side prepared statements", "closed before a snapshot saw them: the server shows their text only while they are"
                " open", f"take snapshots more often; or {_SLOW_LOG}; or turn off server-side prepared statements in the client"
                " (useServerPrepStmts=false)", "none, I/O, or a change in the client", hidden,
            )  # fmt: skip
        if (hidden := executed - by_sql) > 0:
            yield Gap(
                "SQL EXECUTE", "its digest is EXECUTE `name`; the text behind it is shown from 8.0 on, while the statement is open",
                "read a window of the general log, which has the text", "I/O on the server while the log is on", hidden,
            )  # fmt: skip

    def program_gaps(self, known: Collection[str], building: Collection[str]) -> Iterable[Gap]:
        """Statements inside programs whose body nobody read, that were dropped, or that build their SQL themselves."""
        inside = self.found.program_statements
        instructions = sum(n for name, n in self.found.event_counts.items() if name.startswith("statement/sp/"))
        of_unknown = sum(count for name, count in inside.items() if name not in known)
        hidden = min(self.in_programs, of_unknown + max(instructions - sum(inside.values()), 0))
        if hidden:
            names = sorted(name for name in inside if name not in known)
            listed = f"the bodies of {', '.join(names)} were not read" if names else "the program was dropped"
            yield Gap(
                "statements in stored programs", listed, "let the full analysis read the catalog"
                " (SELECT on mysql.proc in 5.7, SHOW_ROUTINE from 8.0.20 on, TRIGGER, EVENT)", "none", hidden,
            )  # fmt: skip
        built = {name: count for name, count in inside.items() if name in building and name in known}
        if hidden := min(self.in_programs - hidden, sum(built.values())):
            yield Gap(
                "SQL that programs build", f"PREPARE and EXECUTE in {', '.join(sorted(built))}: no source shows what they run",
                "read the program, or the general log while it runs", "I/O on the server while the log is on", hidden,
            )  # fmt: skip

    def _sum(self, condition: Callable[[Delta], bool]) -> int:
        return sum(d.executions or 0 for d in self.digests if not d.sighting.own and condition(d))

    @staticmethod
    def _merged(delta: Delta) -> bool:
        return (delta.sighting.program or "").startswith("view ")

    def _is_cut(self, delta: Delta) -> bool:
        sighting = delta.sighting
        whole = not sighting.truncated or (sighting.schema, sighting.digest) in self.whole_samples
        return not (sighting.text and whole) and not self._merged(delta)

    def _is_shared(self, delta: Delta) -> bool:
        """A whole sample proves one execution of a cut digest, not that the others were the same statement."""
        sighting = delta.sighting
        return sighting.truncated and sighting.executions != 1 and not self._is_cut(delta) and not self._merged(delta)


def _unmeasured(previous: Snapshot | None, current: Snapshot, found: Deltas) -> timedelta:
    """How long before a restart, a failover or a TRUNCATE of everything nobody had looked."""
    if previous is None:
        return timedelta(0)
    emptied = previous.taken_at
    if found.was_reset("server"):
        emptied = current.taken_at if is_first_sight(previous, current) else current.instance.started_at
    elif found.was_reset("digests") and found.was_reset("events"):
        seen = (s.first_seen for s in current.sightings if s.source == "digest" and s.first_seen)
        emptied = min(seen, default=current.taken_at)
    return max(min(emptied, current.taken_at) - previous.taken_at, timedelta(0))


def _within(total: int, gaps: Iterable[Gap]) -> Iterable[Gap]:
    """The gaps, their executions together no more than ran: rows that were read after the counters may have more."""
    for gap in gaps:
        hidden = None if gap.executions is None else min(gap.executions, total)
        total -= hidden or 0
        yield replace(gap, executions=hidden)


def _own_by_connection(previous: Snapshot | None, current: Snapshot, found: Deltas) -> int:
    """Our statements by the connections' own counters: exact, also for those that no digest row shows."""
    if previous is None or found.was_reset("server"):
        return current.own_executions
    if previous.connection_id == current.connection_id:
        return max(current.own_executions - previous.own_executions, 0)
    return previous.own_after + current.own_executions


def _unmarked(previous: Snapshot | None, current: Snapshot) -> int:
    same = previous is not None and previous.connection_id == current.connection_id
    return 0 if same else current.own_unmarked


def _restart_gap(previous: Snapshot | None, found: Deltas) -> Iterable[Gap]:
    if previous is not None and found.was_reset("server"):
        (reset,) = (r for r in found.resets if r.what == "server")
        yield Gap(
            "the time before a restart", f"{reset.reason}; what ran between {previous.taken_at:%Y-%m-%d %H:%M:%S} UTC and the end of the"
            " former server is not known", "take snapshots more often, and one before a planned restart", "none",
        )  # fmt: skip


def _unknown_views(count: int) -> Gap:
    return Gap(
        "views are not known yet", "the full analysis has not read the definitions: any digest may be that of a view's body, and its"
        " statement may be a write", "let the full analysis run, with SHOW VIEW on every schema", "none", count,
    )  # fmt: skip


def _discarded_gap(found: Deltas, first: bool, count: int) -> Gap:
    if found.was_reset("digests"):
        return Gap(
            "statements before a TRUNCATE", "the digest table was truncated after they ran and before this snapshot",
            "take snapshots more often; Performance Insights truncates a full table by itself: raise performance_schema_digests_size",
            _MEMORY, count,
        )  # fmt: skip
    if first:
        return Gap(
            "statements before the first snapshot", "the digest table was truncated, or its consumer was off, since the server started",
            "none for the past: later intervals are counted", "none", count,
        )  # fmt: skip
    # MySQL adds to a digest row without a lock (PFS_single_stat::aggregate_value, storage/perfschema/pfs_stat.h): of one statement
    # that ends in two threads at the same instant one count is lost. The event counters are each thread's own and lose none.
    return Gap(
        "statements without a digest", "they ran while the counters were read, or ended in the same instant as another of their digest"
        " (MySQL counts digests without a lock), or ran with the consumer statements_digest off",
        "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME = 'statements_digest'", "none", count,
    )  # fmt: skip


def distinct(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Gaps with the same words once, their executions added up; largest first."""
    merged: dict[tuple[str, str, str, str], Gap] = {}
    for gap in gaps:
        key = (gap.what, gap.why, gap.remedy, gap.cost)
        known = merged.get(key)
        if known is None:
            merged[key] = gap
        elif gap.executions is not None:
            merged[key] = replace(known, executions=gap.executions + (known.executions or 0))
    return tuple(sorted(merged.values(), key=lambda gap: -(gap.executions or 0)))
