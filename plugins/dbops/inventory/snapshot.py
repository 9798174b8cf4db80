"""A snapshot: everything that one instance shows now. A source that cannot be read becomes a named gap, never a lost snapshot.

Needs ``SELECT ON performance_schema.*``; reads only. Order matters: facts and settings, then digests and counters in one statement, then
everything that only adds text. Our own statements are counted on the connection itself (fresh connections make that exact).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import MySQLdb

from dbops.inventory import parse, sources
from dbops.inventory.model import NOT_READ, Gap, Instance, Program, Sighting, Snapshot, TableIo
from dbops.inventory.sources import Reader, Statements

T = TypeVar("T")
CLOCK_TOLERANCE = timedelta(minutes=1)
NO_PRIVILEGE = (1044, 1142, 1143, 1227)
GRANT = "GRANT SELECT ON performance_schema.* TO the connection's user"
RESTART = "a restart of the server"
SOURCES = frozenset(("statements", "prepared", "programs", "table_io", "history"))
_CONSUMERS = {
    "global_instrumentation": "nothing is counted",
    "statements_digest": "statements are counted but not named",
    "thread_instrumentation": "no statement of a client is counted by thread, and none is in the history",
    "events_statements_current": "the history stays empty",
    "events_statements_history": "texts of routine bodies and (before 8.0) texts with comments are not seen",
}
_LOST = {
    "Performance_schema_program_lost": ("runs of stored programs", "performance_schema_max_program_instances"),
    "Performance_schema_prepared_statements_lost": (
        "prepared statements", "performance_schema_max_prepared_statements_instances",
    ),
    "Performance_schema_nested_statement_lost": (
        "statements nested in stored programs", "performance_schema_max_statement_stack",
    ),
    "Performance_schema_table_instances_lost": ("row counters of tables", "performance_schema_max_table_instances"),
    "Performance_schema_thread_instances_lost": ("statements of sessions", "performance_schema_max_thread_instances"),
}  # fmt: skip


class ClockError(RuntimeError):
    """Server and caller do not agree what time it is; the message names both."""


def take(
    conn: Any, name: str, now: datetime, *, catalog_programs: Sequence[Program] = (), own_executions: int = 0
) -> Snapshot:
    """Read one instance.

    Args:
        conn: a fresh DB-API connection to it; its time zone becomes UTC and its SELECTs get a time limit
        name: of the instance, as the history shall know it
        now: naive UTC, of this moment: the order of snapshots, and which entries of a log lie between two, hang on it
        catalog_programs: routines, triggers, events and (kind ``view``) views whose bodies belong to the snapshot. The history remembers
            them: a snapshot every 15 minutes need not bring them
        own_executions: statements that other connections of this inventory sent since the previous snapshot and that carry no mark

    Raises:
        MySQLdb.Error: the instance does not even tell its version and uptime; anything less is a gap of the snapshot
        ClockError: `now` is more than a minute from the server's clock
    """
    reader = Reader(conn)
    found_facts = reader.query("instance")[0]
    clock: datetime = found_facts.pop("now")
    if abs(clock - now) > CLOCK_TOLERANCE:
        raise ClockError(
            f"instance {name}: its clock says {clock:%Y-%m-%d %H:%M:%S} UTC, this snapshot's is {now:%Y-%m-%d %H:%M:%S} UTC; snapshots are"
            " put in order by their time: correct the clock of the worker or of the server (NTP)"
        )
    facts = {name: str(value) for name, value in found_facts.items() if name != sources.OWN_MARK}
    gaps: list[Gap] = []
    attempt = _Attempt(gaps)
    attempt("session settings", reader.pin_session, None)
    status = sources.status(reader)
    # By the server's own clock, so that neither a late task nor another machine's clock looks like a restart.
    instance = _instance(name, facts, clock - timedelta(seconds=status["Uptime"]))
    if facts["performance_schema"] != "1":
        gaps.append(_switched_off())
        return _text_only(instance, now, catalog_programs, own_executions + reader.sent, facts, gaps)

    gaps += _lost(status)
    setup = attempt("performance_schema's own settings", lambda: sources.setup(reader), list[tuple[str, str, str]]())
    gaps += _unwatched(setup)
    instance = replace(instance, settings={**instance.settings, "consumers": _consumers(setup)})
    before = reader.sent
    found = attempt(NOT_READ, lambda: sources.statements(reader, facts, samples=_has_samples(facts)), Statements())
    gaps += _texts(found)
    measured = NOT_READ in attempt.done
    prepared = attempt("prepared", lambda: sources.prepared(reader), list[Sighting]())
    runs, inner = attempt("programs", lambda: sources.programs(reader), (dict[str, int](), dict[str, int]()))
    io = attempt("table_io", lambda: sources.table_io(reader), tuple[TableIo, ...]())
    recent = [
        sighting
        for consumer in ("events_statements_history", "events_statements_history_long")
        if ("consumer", consumer, "YES") in setup
        for sighting in attempt("history", partial(sources.recent, reader, consumer, facts, clock), list[Sighting]())
    ]
    own, after = (found.own, reader.sent - before) if measured else (sources.questions(reader), 0)
    return Snapshot(
        instance=instance,
        taken_at=now,
        sightings=(*_own_told(found.digests, [*found.samples, *recent]), *found.samples, *prepared, *recent,
                   *sources.bodies(tuple(catalog_programs), parse.split_body)),
        event_counts=found.event_counts,
        event_errors=found.event_errors,
        digest_lost=status.get("Performance_schema_digest_lost", 0),
        null_row=found.null_row,
        table_io=io,
        program_counts=runs,
        own_executions=own_executions + own,
        own_after=after,
        own_unmarked=own_executions + max(own - before, 0) if measured else own_executions,
        connection_id=int(facts["connection_id"]),
        program_statements=inner,
        read=SOURCES & set(attempt.done),
        gaps=tuple(gaps),
    )  # fmt: skip


class _Attempt:
    """Runs a source; its failure becomes a gap."""

    def __init__(self, gaps: list[Gap]) -> None:
        self.gaps = gaps
        self.done: list[str] = []

    def __call__(self, what: str, source: Callable[[], T], otherwise: T) -> T:
        try:
            result = source()
        except (MySQLdb.Error, UnicodeDecodeError) as error:
            code = error.args[0] if isinstance(error, MySQLdb.Error) and error.args else None
            remedy, cost = (
                (GRANT, "none") if code in NO_PRIVILEGE else ("see the error; the next snapshot tries again", "")
            )
            self.gaps.append(Gap(what, f"not readable: {error}", remedy, cost, blind=what == NOT_READ))
            return otherwise
        self.done.append(what)
        return result


def _instance(name: str, facts: Mapping[str, str], started_at: datetime) -> Instance:
    kept = ("version", "server_uuid", "connection_id", "read_only")
    return Instance(
        name=name,
        version=facts["version"],
        server_uuid=facts["server_uuid"],
        started_at=started_at,
        read_only=facts["read_only"] == "1",
        settings={key: value for key, value in facts.items() if key not in kept},
    )


def _text_only(
    instance: Instance, now: datetime, programs: Sequence[Program], own: int, facts: Mapping[str, str], gaps: list[Gap]
) -> Snapshot:
    return Snapshot(
        instance, now, tuple(sources.bodies(tuple(programs), parse.split_body)), {}, 0, 0, 0, (), own_executions=own,
        connection_id=int(facts["connection_id"]), gaps=tuple(gaps),
    )  # fmt: skip


def _has_samples(facts: Mapping[str, str]) -> bool:
    return int(facts["version"].split(".")[0]) >= 8


def _own_told(digests: list[Sighting], texts: list[Sighting]) -> list[Sighting]:
    """Digests of which a text with our comment was seen are ours too: SHOW and SET have no column to name."""
    ours = {(t.schema, t.digest) for t in texts if t.own and t.digest}
    return [replace(d, own=True) if (d.schema, d.digest) in ours else d for d in digests]


def _consumers(setup: list[tuple[str, str, str]]) -> str:
    return ",".join(sorted(name for kind, name, value in setup if kind == "consumer" and value == "YES"))


# -- gaps ------------------------------------------------------------------------------------------------------------------------


def _switched_off() -> Gap:
    return Gap(
        "every execution",
        "performance_schema is OFF",
        "set performance_schema = ON; until then a slow log with long_query_time = 0 shows statements",
        f"{RESTART}; 100 to 400 MB and up to a few percent of CPU",
        blind=True,
    )


def _lost(status: Mapping[str, int]) -> list[Gap]:
    return [
        Gap(what, f"{name} = {status[name]}: performance_schema had no room for them", f"raise {variable}", f"{RESTART}; memory")
        for name, (what, variable) in _LOST.items()
        if status.get(name)
    ]  # fmt: skip


def _unwatched(setup: list[tuple[str, str, str]]) -> list[Gap]:
    gaps = []
    for kind, name, value in setup:
        match kind, value:
            case "consumer", "NO" if name in _CONSUMERS:
                gaps.append(
                    Gap(f"consumer {name}", f"it is off: {_CONSUMERS[name]}",
                        f"UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME = '{name}'"
                        f" and performance_schema_consumer_{name} = ON in the parameter group", "no restart; a few percent of CPU",
                        blind=name == "global_instrumentation")
                )  # fmt: skip
            case "instruments_off", count if count != "0":
                pattern = "wait/io/table/sql/handler" if name == "table_io" else "statement/%"
                gaps.append(
                    Gap(f"{name} instruments", f"{count} of them are off, so what they watch is not counted",
                        f"UPDATE performance_schema.setup_instruments SET ENABLED = 'YES', TIMED = 'YES' WHERE NAME LIKE '{pattern}'",
                        "no restart; a few percent of CPU", blind=name == "statement")
                )  # fmt: skip
            case "actor", "NO":
                gaps.append(_excluded(f"sessions of {name}", "setup_actors excludes them"))
            case "threads_off", count if count != "0":
                gaps.append(_excluded(f"{count} open sessions", "threads.INSTRUMENTED is NO for them"))
    if setup and not any(kind == "actor" and (name, value) == ("%@%", "YES") for kind, name, value in setup):
        gaps.append(_excluded("users that setup_actors does not list", "setup_actors has no row for '%'@'%'"))
    return gaps


def _excluded(what: str, why: str) -> Gap:
    remedy = "INSERT INTO performance_schema.setup_actors VALUES ('%', '%', '%', 'YES', 'YES'), delete other rows; then reconnect"
    return Gap(what, why, remedy, "no restart", blind=True)


def _texts(found: Statements) -> list[Gap]:
    gaps = []
    if found.not_utf8:
        gaps.append(
            Gap(f"{found.not_utf8} texts", "they hold bytes that are not valid in their session's character set: the text ends there or"
                " shows U+FFFD", "have the client set its character set (SET NAMES), or read the slow log", "a change in the client")
        )  # fmt: skip
    if found.without_text:
        gaps.append(
            Gap("digests without text", "the server shows a digest and no text for it", "raise max_digest_length and"
                " performance_schema_max_digest_length above 0, together; the ledger counts them as truncated", f"{RESTART}; memory")
        )  # fmt: skip
    return gaps
