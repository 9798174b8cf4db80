"""Tables: hot or cold with window and evidence, indexes and columns that nobody uses, and what that proposes to other rooms.

Two witnesses: when statements that touch the table ran, and when the server's row counters of the table moved. Silence is evidence only
for as long as somebody watched and could name what ran; otherwise the answer is ``no evidence``, which is not ``cold``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

import yaml

from dbops import mysql
from dbops.inventory import access
from dbops.inventory.model import Catalog, Reference, Statement, TableRef
from dbops.inventory.register import Register, RowCounts

Verdict = Literal["hot", "quiet", "cold", "no evidence"]
"""hot: touched within the last day of the window; quiet: within `cold_after`; cold: not, and watched all that time."""
_HOT = timedelta(days=1)


class RowActivity(RowCounts, Protocol):
    """A row of History.table_io: differences within the window; `index` is None for the whole table and '' for rows read without one."""

    @property
    def fetched(self) -> int: ...  # noqa: D102
    @property
    def moved(self) -> Mapping[str, tuple[datetime, datetime]]: ...  # noqa: D102


@dataclass(frozen=True)
class Window:
    """What the analysis looked at."""

    since: datetime
    until: datetime
    watched_since: datetime | None
    """First snapshot in the window (of the instance that was added last); None = none at all."""
    coverage_percent: float
    """Executions that named statements explain; see :class:`dbops.inventory.coverage.Coverage`."""
    uncounted: str = ""
    """Why the row counters do not tell all of it, where they do not."""

    @property
    def watched(self) -> timedelta:
        """For how long snapshots were taken."""
        return self.until - max(self.since, self.watched_since) if self.watched_since else timedelta(0)

    def why_silent_proves_nothing(self, cold_after: timedelta, coverage_limit: float) -> str:
        """Why nothing may be concluded from not having seen something; '' when it may."""
        if self.watched < cold_after:
            return f"watched for {_days(self.watched)} of the {_days(cold_after)} that silence must last"
        if self.coverage_percent < coverage_limit:
            return f"{self.coverage_percent:.1f} % of executions are explained, {coverage_limit:g} % are needed"
        return self.uncounted


@dataclass(frozen=True)
class TableHeat:
    """How much a table is used, and by which evidence."""

    table: TableRef
    verdict: Verdict
    reason: str
    row_estimate: int
    size_bytes: int
    """Data and indexes, InnoDB's estimate."""
    family: str
    """The name with ``#`` for a trailing number: t_001 and t_002 are one family, t_#."""
    reads: int
    """Executions of statements that read it."""
    writes: int
    last_read: datetime | None
    """By statement."""
    last_write: datetime | None
    rows_read: int
    """By the server's counters."""
    rows_written: int
    rows_last_read: datetime | None
    """End of the last interval in which the counters moved."""
    rows_last_written: datetime | None
    readers: tuple[str, ...]
    """Ids of statements that read it, the busiest first."""
    writers: tuple[str, ...]

    @property
    def last_touched(self) -> datetime | None:
        """By whichever witness saw it last."""
        return _latest(self.last_read, self.last_write, self.rows_last_read, self.rows_last_written)


def activity(
    statements: Iterable[Statement],
    catalog: Catalog,
    table_io: Iterable[RowActivity],
    window: Window,
    *,
    cold_after: timedelta,
    coverage_limit: float,
) -> list[TableHeat]:
    """Every base table of the catalog, the hottest first.

    Args:
        statements: of the window
        catalog: the tables
        table_io: rows of History.table_io, all instances
        window: when, and how well it was watched
        cold_after: silence that makes a table cold
        coverage_limit: percent below which silence proves nothing
    """
    statements = list(statements)
    touching = by_table(statements)
    vague = _vague(statements)
    counters: dict[TableRef, list[RowActivity]] = {}
    for io in table_io:
        if io.index is None:
            counters.setdefault(io.table, []).append(io)
    silence = window.why_silent_proves_nothing(cold_after, coverage_limit)
    if not counters and not silence:
        silence = "the server's row counters are not available, so a read that no statement shows would go unseen"
    found = [
        _heat(
            table,
            definition,
            touching.get(table, ()),
            counters.get(table, ()),
            window,
            cold_after,
            silence or _may_mean(table, vague, window, cold_after),
        )
        for table, definition in catalog.tables.items()
    ]
    order = {"hot": 0, "quiet": 1, "no evidence": 2, "cold": 3}
    return sorted(found, key=lambda h: (order[h.verdict], -(h.reads + h.writes), h.table))


def _vague(statements: Iterable[Statement]) -> dict[str, list[Statement]]:
    """Name of a table (lower case) -> statements that name it so, and of whose session no default schema is known."""
    found: dict[str, list[Statement]] = {}
    for statement in statements:
        if statement.schema is None and (statement.activity.executions or statement.activity.last_seen):
            for name in statement.unresolved:
                found.setdefault(name.lower(), []).append(statement)
    return found


def _may_mean(table: TableRef, vague: Mapping[str, Sequence[Statement]], window: Window, cold_after: timedelta) -> str:
    """A statement that may have touched the table, where one may; '' where none may."""
    late = [
        s.id
        for s in vague.get(table.table.lower(), ())
        if s.activity.last_seen is None or window.until - s.activity.last_seen < cold_after
    ]
    return f"{late[0]} names a table {table.table} and its default schema is not known" if late else ""


def by_table(statements: Iterable[Statement]) -> dict[TableRef, list[Statement]]:
    """The statements that touch each table."""
    found: dict[TableRef, list[Statement]] = {}
    for statement in statements:
        for table in statement.tables():
            found.setdefault(table, []).append(statement)
    return found


def _heat(
    table: TableRef,
    definition: mysql.Table,
    statements: Sequence[Statement],
    counters: Sequence[RowActivity],
    window: Window,
    cold_after: timedelta,
    silence: str,
) -> TableHeat:
    # A history or a log may show that a statement ran, and not how often.
    ran = [s for s in statements if s.activity.executions or s.activity.last_seen]
    readers = [s for s in ran if table in s.tables("read")]
    writers = [s for s in ran if table in s.tables("write")]
    last_read = _latest(*(s.activity.last_seen for s in readers))
    last_write = _latest(*(s.activity.last_seen for s in writers))
    rows_last_read = _latest(*(io.moved["fetched"][1] for io in counters if "fetched" in io.moved))
    rows_last_written = _latest(
        *(io.moved[name][1] for io in counters for name in ("inserted", "updated", "deleted") if name in io.moved)
    )
    last = _latest(last_read, last_write, rows_last_read, rows_last_written)
    verdict, reason = _verdict(last, window, cold_after, silence or _made_anew(table, statements, window, cold_after))
    return TableHeat(
        table=table,
        verdict=verdict,
        reason=reason,
        row_estimate=definition.row_estimate,
        size_bytes=definition.data_bytes + definition.index_bytes,
        family=re.sub(r"\d+$", "#", table.table),
        reads=sum(s.activity.executions for s in readers),
        writes=sum(s.activity.executions for s in writers),
        last_read=last_read,
        last_write=last_write,
        rows_read=sum(io.fetched for io in counters),
        rows_written=sum(io.inserted + io.updated + io.deleted for io in counters),
        rows_last_read=rows_last_read,
        rows_last_written=rows_last_written,
        readers=_busiest(readers),
        writers=_busiest(writers),
    )


def _verdict(last: datetime | None, window: Window, cold_after: timedelta, silence: str) -> tuple[Verdict, str]:
    if last is not None and window.until - last < cold_after:
        return ("hot" if window.until - last < _HOT else "quiet"), f"last touched {last:%Y-%m-%d %H:%M}"
    seen = f"last touched {last:%Y-%m-%d}" if last else f"not touched since {window.since:%Y-%m-%d}"
    if silence:
        return "no evidence", f"{seen}, but {silence}"
    return "cold", f"{seen}; watched for {_days(window.watched)}, {window.coverage_percent:.1f} % explained"


_PARTITIONS = re.compile(
    r"\b(?:ADD|DROP|TRUNCATE|REORGANIZE|REBUILD|ANALYZE|OPTIMIZE|CHECK|REPAIR|COALESCE)\s+PARTITION\b", re.IGNORECASE
)


def _made_anew(table: TableRef, statements: Iterable[Statement], window: Window, cold_after: timedelta) -> str:
    """Whether the table had this name and definition for as long as silence must last; '' when nothing speaks against it."""
    changed = [
        s
        for s in statements
        if s.analysis.kind == "ddl" and table in s.tables("ddl") and s.activity.last_seen is not None
        and window.until - s.activity.last_seen < cold_after and not _PARTITIONS.search(s.text)
    ]  # fmt: skip
    if not changed:
        return ""
    newest = max(changed, key=lambda s: s.activity.last_seen or window.since)
    return f"it was created, renamed or altered on {newest.activity.last_seen:%Y-%m-%d} ({newest.id})"


def _latest(*times: datetime | None) -> datetime | None:
    return max((t for t in times if t is not None), default=None)


def _busiest(statements: Iterable[Statement]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(s.id for s in sorted(statements, key=lambda s: -s.activity.executions)))


def _days(length: timedelta) -> str:
    days = length / timedelta(days=1)
    return f"{days:.0f} days" if days >= 2 else f"{length / timedelta(hours=1):.0f} hours"


# -- indexes and columns -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unused:
    """An index that served no row, or a column that no statement asks for."""

    table: TableRef
    kind: Literal["index", "column"]
    name: str
    finding: str
    caveat: str


@dataclass(frozen=True)
class UnusedParts:
    """What is unused, and what cannot be judged."""

    items: tuple[Unused, ...]
    not_judged: tuple[str, ...]
    """Reasons, each with the tables that it keeps from being judged."""


def unused(
    statements: Sequence[Statement],
    catalog: Catalog,
    table_io: Sequence[RowActivity],
    window: Window,
    *,
    cold_after: timedelta,
    coverage_limit: float,
) -> UnusedParts:
    """Indexes and columns that are not used, of tables that are. A short or poorly explained window proves nothing."""
    if why := window.why_silent_proves_nothing(cold_after, coverage_limit):
        return UnusedParts((), (f"no table: {why}",))
    items: list[Unused] = []
    reasons: dict[str, list[TableRef]] = {}
    all_touching, vague = by_table(statements), _vague(statements)
    all_io: dict[TableRef, list[RowActivity]] = {}
    for row in table_io:
        all_io.setdefault(row.table, []).append(row)
    for table, definition in sorted(catalog.tables.items()):
        touching = [s for s in all_touching.get(table, ()) if table in s.tables("read", "write")]
        io = all_io.get(table, [])
        if not any(row.index is None and _rows(row) for row in io):
            reasons.setdefault("no row was read or written in the window", []).append(table)
            continue
        if anew := _made_anew(table, all_touching.get(table, ()), window, cold_after):
            reasons.setdefault(anew, []).append(table)
            continue
        items += _unused_indexes(table, definition, touching, io, catalog)
        blind = [
            s.id
            for s in touching
            if s.analysis.method in ("truncated-regex", "unparsed") or s.analysis.kind == "handler"
        ]
        if blind:
            reasons.setdefault(
                f"columns: statements whose columns are not known touch it ({', '.join(sorted(blind)[:3])})", []
            ).append(table)
        elif maybe := _may_mean(table, vague, window, cold_after):
            reasons.setdefault(f"columns: {maybe}", []).append(table)
        elif touching:
            items += _unused_columns(table, definition, touching, catalog)
    return UnusedParts(tuple(items), tuple(f"{why}: {', '.join(map(str, of))}" for why, of in reasons.items()))


def _rows(io: RowActivity) -> int:
    return io.fetched + io.inserted + io.updated + io.deleted


def _unused_indexes(
    table: TableRef, definition: mysql.Table, touching: Sequence[Statement], io: Sequence[RowActivity], catalog: Catalog
) -> Iterator[Unused]:
    by_index: dict[str, int] = {}
    for row in io:
        if row.index:
            by_index[row.index] = by_index.get(row.index, 0) + row.fetched + row.updated + row.deleted
    if not by_index:
        return  # the server does not count by index: no evidence
    references = [r for r in catalog.references if table in (r.child, r.parent)]
    for index in definition.indexes:
        if index.unique or by_index.get(index.name, 0) or index.index_type not in ("BTREE", "HASH"):
            continue  # a unique index is a rule, whether it is read or not; full-text and spatial reads are counted otherwise
        if any(
            _supports(index, columns) and not any(_supports(i, columns) for i in definition.indexes if i is not index)
            for columns in _referenced(table, references)
        ):
            continue  # InnoDB would refuse to drop it
        wanted = sorted(
            {s.id for s in touching if s.activity.executions and access.pattern(s, table, catalog).index == index.name}
        )
        caveats = [f"the conditions of {', '.join(wanted)} would allow it"] if wanted else []
        caveats += (
            ["a foreign key of this table may need it"]
            if any(not r.child_columns for r in references if r.child == table)
            else []
        )
        yield Unused(table, "index", index.name, "no row was read through it", "; ".join(caveats))


def _referenced(table: TableRef, references: Iterable[Reference]) -> Iterator[tuple[str, ...]]:
    """The columns of the table, on either side, that foreign keys tie."""
    for reference in references:
        if reference.child == table:
            yield reference.child_columns
        if reference.parent == table:
            yield reference.parent_columns


def _supports(index: mysql.Index, tied: Sequence[str]) -> bool:
    """Whether the index begins with the columns that a foreign key ties."""
    columns = [c.lower() for c in tied]
    return (
        bool(columns)
        and index.index_type == "BTREE"
        and not index.has_prefix
        and [c.lower() for c in index.columns[: len(columns)]] == columns
    )


def _unused_columns(
    table: TableRef, definition: mysql.Table, touching: Sequence[Statement], catalog: Catalog
) -> Iterator[Unused]:
    asked = _of_triggers(table, catalog)
    by_star: set[str] = set()
    for statement in touching:
        named = {column.lower() for _, column, role in statement.analysis.columns if role != "written"}
        # What a view or a program asks for stands in its body, maybe by another name.
        followed = any(use.via for use in statement.uses if use.table == table)
        for use in statement.columns:
            if use.table == table and use.role != "written":
                known = followed or use.role != "read" or use.column.lower() in named
                (asked if known else by_star).add(use.column.lower())
    key = {c.lower() for i in definition.indexes if i.unique for c in i.columns}
    key |= {c.lower() for columns in _referenced(table, catalog.references) for c in columns}
    computed = ["a generated column may be computed from it"] if any(c.is_generated for c in definition.columns) else []
    for column in definition.columns:
        name = column.name.lower()
        if name in asked or name in key:
            continue
        finding = "only read by SELECT *" if name in by_star else "never read, filtered, joined or sorted by"
        exported = ["a value that only people or exports read is not seen"] if name in by_star else []
        yield Unused(
            table, "column", column.name, finding, "; ".join(exported + ([] if column.is_generated else computed))
        )


_TRIGGER_ROW = re.compile(r"\b(?:NEW|OLD)\s*\.\s*(?:`((?:[^`]|``)+)`|([\w$]+))", re.IGNORECASE)


def _of_triggers(table: TableRef, catalog: Catalog) -> set[str]:
    """Columns that the table's own triggers look at."""
    bodies = [p.body for p in catalog.programs if p.kind == "trigger" and p.table == table]
    return {
        (quoted.replace("``", "`") or bare).lower() for body in bodies for quoted, bare in _TRIGGER_ROW.findall(body)
    }


# -- proposals ---------------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9_$]+")
_TIME_TYPES = ("datetime", "timestamp", "date")
_BIRTH = re.compile(r"creat|insert|placed|paid|record|logged|start|time|date|_at$|_on$", re.IGNORECASE)


@dataclass(frozen=True)
class Proposal:
    """A spec for another room, to be read, completed and reviewed by a person; it is written to the report and nowhere else."""

    room: Literal["archive", "backfill"]
    name: str
    """Stem of the file that it would be."""
    why: str
    yaml: str


def propose_archive(
    heats: Iterable[TableHeat],
    statements: Sequence[Statement],
    catalog: Catalog,
    window: Window,
    table_io: Iterable[RowCounts] = (),
    *,
    cold_after: timedelta,
    coverage_limit: float,
    min_bytes: int = 64 * 1024**2,
) -> list[Proposal]:
    """Specs of s3_archive for cold tables and for large ones that only grow.

    Args:
        heats: of :func:`activity`
        statements: of the window
        catalog: the tables
        window: as for `activity`
        table_io: as for `activity`
        cold_after: for how long nothing but inserts must have been seen
        coverage_limit: percent below which it is not known that there was nothing else
        min_bytes: smaller tables are not worth an archive
    """
    found = []
    all_touching = by_table(statements)
    changed = {io.table for io in table_io if io.index is None and (io.updated or io.deleted)}
    unproven = window.why_silent_proves_nothing(cold_after, coverage_limit)
    for heat in heats:
        definition, touching = catalog.tables[heat.table], all_touching.get(heat.table, ())
        if heat.size_bytes < min_bytes or definition.engine != "InnoDB" or definition.row_key is None:
            continue
        grows_only = (
            not unproven
            and heat.table not in changed
            and heat.writes > 0
            and not _operations(touching, heat.table) - {"insert", "load"}
        )
        why = (
            heat.reason
            if heat.verdict == "cold"
            else "it was only inserted into, so old rows do not change"
            if grows_only
            else ""
        )
        column = _age_column(definition, touching)
        if why and column and all(_NAME.fullmatch(n) for n in (*_names(heat.table), column)):
            days = int(window.watched / timedelta(days=1)) if heat.verdict == "cold" else 365
            found.append(_archive(heat, definition, column, max(days, 1), f"{heat.verdict}: {why}"))
    return found


def _names(table: TableRef) -> tuple[str, str]:
    return table.schema, table.table


def _operations(statements: Iterable[Statement], table: TableRef) -> set[str]:
    return {
        "unknown" if s.analysis.method in ("truncated-regex", "unparsed")
        else "update" if {"upsert", "replace"} & s.analysis.flags
        else s.analysis.kind
        for s in statements if table in s.tables("write")
    }  # fmt: skip


def _age_column(definition: mysql.Table, touching: Iterable[Statement]) -> str | None:
    """The time column by which rows get old: indexed before not, ranged over before not, named like a birth before not."""
    ranged = {p.column.lower() for s in touching for p in s.analysis.predicates if p.operator == "range"}
    leading = {i.columns[0].lower() for i in definition.indexes if i.index_type == "BTREE"}
    times = [c.name for c in definition.columns if c.data_type in _TIME_TYPES]
    return max(times, key=lambda c: (c.lower() in leading, c.lower() in ranged, bool(_BIRTH.search(c))), default=None)


def _archive(heat: TableHeat, definition: mysql.Table, column: str, days: int, why: str) -> Proposal:
    leads = any(i.columns[0].lower() == column.lower() and i.index_type == "BTREE" for i in definition.indexes)
    spec: dict[str, object] = {
        "description": f"Rows of {heat.table} by {column}: {heat.verdict}",
        "owner": "name the team that answers for it",
        "enabled": False,
        "schema": heat.table.schema,
        "table": heat.table.table,
        "cold": {"column": column, "older_than_days": days},
        **({} if leads else {"full_scan": True}),
        "target": {
            "namespace": re.sub(r"[^a-z0-9_]", "_", heat.table.schema.lower()),
            # A partition is not named after a column with a dollar sign.
            **({"partitioning": [f"month({column})"]} if re.fullmatch(r"\w+", column) else {}),
        },
    }
    if not re.fullmatch(r"[a-z0-9_]+", heat.table.table.lower()):
        spec["target"] = {**spec["target"], "table": re.sub(r"[^a-z0-9_]", "_", heat.table.table.lower())}  # type: ignore[dict-item]
    size = f"{heat.size_bytes / 1024**2:,.0f} MiB, about {heat.row_estimate:,} rows"
    notes = [
        f"Proposed because {why}; {size}.",
        "Check cold.older_than_days and add holds before use; purge stays off until it is allowed.",
    ]
    if not leads:
        notes.append(f"No index begins with {column}: finding the cold rows reads the whole table.")
    return Proposal("archive", _file_name(heat.table), why, _document(notes, spec))


def propose_backfill(name: str, tables: Sequence[TableRef], catalog: Catalog, register: Register) -> Proposal:
    """The tables that must move together, each with its key, size and what makes its writes hard to double.

    Args:
        name: stem of the file
        tables: a group of :func:`dbops.inventory.fit.groups`
        catalog: the tables
        register: all writers
    """
    listed = []
    for table in sorted(tables):
        definition = catalog.tables[table]
        known = register.of(table)
        listed.append({
            "schema": table.schema,
            "table": table.table,
            "key": list(definition.row_key.columns) if definition.row_key else [],
            "row_estimate": definition.row_estimate,
            "data_bytes": definition.data_bytes,
            "writers": sorted({w.statement for w in known}),
            "hazards": sorted({hazard for w in known for hazard in w.hazards}),
        })  # fmt: skip
    holes = [str(h) for h in register.holes if h.table in tables]
    notes = [
        "Tables that statements join or foreign keys tie; every writer must write twice before the copy begins.",
        *holes,
    ]
    why = f"{len(listed)} tables with {sum(len(t['writers']) for t in listed)} write statements"  # type: ignore[misc,arg-type]
    return Proposal("backfill", name, why, _document(notes, {"tables": listed}))


def _file_name(table: TableRef) -> str:
    return re.sub(r"[^a-z0-9_]", "_", f"{table.schema}_{table.table}".lower()).lstrip("_")[:100]


def _document(notes: Iterable[str], content: Mapping[str, object]) -> str:
    comments = "".join(f"# {' '.join(note.split())}\n" for note in notes)
    return comments + yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120)
