"""The inventory's vocabulary: plain values that its modules exchange. All times are naive UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dbops import mysql

Access = Literal["read", "write", "ddl"]
Method = Literal["ast", "ast-normalised", "command-regex", "truncated-regex", "unparsed"]
Role = Literal["read", "written", "filtered", "joined", "sorted"]
Source = Literal["digest", "sample", "prepared", "history", "routine", "slow_log", "general_log"]

# Counters that a sighting may carry, summed over executions. Times in milliseconds.
COUNTERS = (
    "total_ms", "lock_ms", "rows_examined", "rows_sent", "rows_affected", "errors", "warnings", "no_index_used", "select_scan",
    "full_join", "sort_rows", "tmp_disk_tables",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class TableName:
    """A table as a statement writes it; ``schema`` is None where it relies on the session's default."""

    schema: str | None
    table: str


@dataclass(frozen=True, order=True)
class TableRef:
    """A table that exists in the catalog, spelled as the server spells it."""

    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class Occurrence:
    """One place where a statement names a table: tables of one SELECT, UPDATE or DELETE are joined there and share its `scope`."""

    scope: int
    alias: str
    """Lower case; the table's name where it has none."""
    table: TableName | None
    """None: a derived table or common table expression."""
    after: frozenset[str] = frozenset()
    """Aliases that an outer join makes MySQL read before it."""


@dataclass(frozen=True)
class Predicate:
    """A condition on one column: ``=``, ``<=>``, ``in``, ``range``, ``prefix`` (LIKE 'x%'), ``like``, ``null``, ``match``, ``other``.

    ``other`` is what bounds nothing: part of an expression, of a NOT, of CASE, or of HAVING.
    """

    table: TableName | None
    column: str
    operator: str
    either: bool = False
    """Below an OR: the row may meet another condition instead."""
    scope: int = 0
    alias: str = ""
    """The occurrence in `scope` that has the column; '' where only the catalog can tell."""
    others: tuple[tuple[str, str], ...] = ()
    """Columns of the same scope on the other side (alias or '', column): their rows must be read first."""
    branch: tuple[int, int] | None = None
    """(OR, which of its alternatives)."""
    serves: frozenset[str] | None = None
    """In the ON of an outer join: the aliases whose rows it may find; it drops none of the others. None: not in such a one."""
    joins: bool = False
    """In an ON."""


@dataclass
class Analysis:
    """Everything that could be read from one text, names as written."""

    kind: str
    method: Method
    uses: set[tuple[TableName, Access]] = field(default_factory=set)
    columns: set[tuple[TableName | None, str, Role]] = field(default_factory=set)
    """(table, or None where only the catalog can tell, column, role)."""
    predicates: list[Predicate] = field(default_factory=list)
    occurrences: list[Occurrence] = field(default_factory=list)
    alternatives: dict[int, int] = field(default_factory=dict)
    """OR -> how many alternatives it has."""
    reassigned: set[str] = field(default_factory=set)
    """Columns (lower case) that ON DUPLICATE KEY UPDATE sets: what the INSERT names besides changes no row that is there."""
    shown: dict[str, tuple[TableName, str]] = field(default_factory=dict)
    """Of a SELECT: name of a column of its result (lower case) -> the column that it is, where it is one and no expression."""
    flags: set[str] = field(default_factory=set)
    """join aggregate sort limit distinct subquery union cte recursive lock fulltext window upsert star truncated ambiguous-target
    multi-row self-reference (an UPDATE that reads what it writes) nondeterministic (NOW, UUID, RAND, LAST_INSERT_ID) or-condition ..."""
    routines: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    reason: str = ""

    def tables(self, access: Access) -> set[TableName]:
        """Tables with that access."""
        return {name for name, how in self.uses if how == access}


# -- the schema --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A stored routine, trigger or event: kind ``procedure``, ``function``, ``trigger`` or ``event``, and its body."""

    kind: str
    schema: str
    name: str
    body: str
    table: TableRef | None = None
    """For a trigger: its table."""
    event: str = ""
    """For a trigger: INSERT, UPDATE or DELETE; for an event: its schedule."""

    def __str__(self) -> str:
        return f"{self.kind} {self.schema}.{self.name}"


@dataclass(frozen=True)
class Reference:
    """A foreign key: deleting or updating a parent row does this to the child's."""

    name: str
    child: TableRef
    parent: TableRef
    delete_rule: str
    update_rule: str
    child_columns: tuple[str, ...] = ()
    parent_columns: tuple[str, ...] = ()
    """In the order of `child_columns`; empty: not known, so any update of the parent may reach the child."""


@dataclass(frozen=True)
class Catalog:
    """Definitions on one server. Keys are lower case where the server compares names without case."""

    tables: Mapping[TableRef, mysql.Table]
    views: Mapping[TableRef, str]
    """View -> its SELECT as information_schema prints it ('' when the user may not see it)."""
    programs: tuple[Program, ...]
    references: tuple[Reference, ...]
    folds_case: bool
    """lower_case_table_names is not 0."""


# -- what an instance showed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sighting:
    """One statement as one source of one instance shows it at one moment. ``text`` is raw: mask it before it is stored."""

    source: Source
    key: str
    """Unique within (instance, source) and stable between snapshots."""
    text: str
    schema: str | None = None
    """The session's default schema, which is not necessarily that of the tables."""
    is_digest: bool = False
    """``text`` has MySQL's digest spelling."""
    truncated: bool = False
    digest: str | None = None
    executions: int | None = None
    """Cumulative since the source began to count; None when the source shows text only (sample, history, routine)."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """Cumulative like executions; names from COUNTERS. Gauges (p95_ms, p99_ms) are in `gauges`."""
    gauges: Mapping[str, float] = field(default_factory=dict)
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    user: str | None = None
    host: str | None = None
    program: str | None = None
    """str(Program) that holds the statement, where it does not come from a client."""
    own: bool = False
    """Sent by this inventory."""
    users: frozenset[str] = frozenset()
    """user@host of all executions, where a source adds up several; a log has `user` and `host` only where there is one."""
    callers: frozenset[str] = frozenset()
    """From the comments of all executions, where a source reads them (logs); spelled as in Activity."""
    spellings: tuple[str, ...] = ()
    """Other raw texts of it, where a source adds up several (logs)."""


@dataclass(frozen=True)
class TableIo:
    """Rows, not statements: performance_schema.table_io_waits_summary_by_table (index None) and ..._by_index_usage."""

    table: TableRef
    index: str | None
    fetched: int
    inserted: int
    updated: int
    deleted: int


@dataclass(frozen=True)
class Gap:
    """Something that the inventory cannot see, why, what it costs to see it, and (where known) how many executions it hides."""

    what: str
    why: str
    remedy: str
    cost: str = ""
    executions: int | None = None
    blind: bool = False
    """What it hides is counted nowhere, so that no share of executions can be told while it lasts."""


NOT_READ = "statements"
"""Gap.what of digests and event counters that could not be read."""
NO_SHOW_VIEW = "the user lacks SHOW VIEW"
NO_VIEWS = "definitions (views)"


def hides_views(gap: Gap) -> bool:
    """Whether a gap of the catalog means that there may be views whose bodies are not known."""
    return gap.why == NO_SHOW_VIEW or gap.what == NO_VIEWS


@dataclass(frozen=True)
class Instance:
    """Facts about the server at the time of a snapshot."""

    name: str
    version: str
    server_uuid: str
    started_at: datetime
    read_only: bool
    settings: Mapping[str, str]
    """performance_schema, digests_size, max_digest_length (the smaller of the two), max_sql_text_length, consumers that are on ..."""


@dataclass(frozen=True)
class Snapshot:
    """What one instance showed at one moment."""

    instance: Instance
    taken_at: datetime
    sightings: tuple[Sighting, ...]
    event_counts: Mapping[str, int]
    """events_statements_summary_global_by_event_name: name -> COUNT_STAR ('statement/sql/select', 'statement/com/Execute' ...)."""
    event_errors: int
    digest_lost: int
    null_row: int
    """COUNT_STAR of the digest table's NULL row: executions for which no digest slot was left."""
    table_io: tuple[TableIo, ...]
    program_counts: Mapping[str, int] = field(default_factory=dict)
    """str(Program) -> executions, from events_statements_summary_by_program."""
    own_executions: int = 0
    """Statements that this inventory sent before the counters were read: by this connection, and by others that the caller knows of."""
    own_after: int = 0
    """Statements that this connection sent from that moment on: the next interval has them."""
    own_unmarked: int = 0
    """Of own_executions, those that no digest can show to be ours: what the driver sent when it connected."""
    connection_id: int = 0
    program_statements: Mapping[str, int] = field(default_factory=dict)
    """str(Program) -> statements and instructions (SET, IF, jumps) run inside it."""
    read: frozenset[str] = frozenset()
    """Sources that were read: statements, prepared, programs, table_io, history. What is not here says nothing, not "zero"."""
    log_positions: Mapping[str, str] = field(default_factory=dict)
    """Name of a log -> where the next read of it begins; the history keeps it together with what was read before."""
    gaps: tuple[Gap, ...] = ()
    """What this instance cannot or will not show."""
    log_positions_before: Mapping[str, str] | None = None
    """Where the reading of the logs began, as the history had it; None: not told. The history refuses what it has had meanwhile."""
    definitions_read: bool = False
    """The definitions of all views are among the sightings; False says nothing: only a full snapshot reads them."""


# -- what it means ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Use:
    """A table that a statement touches; ``via`` names the view, program or foreign key that leads there ('' when it is named)."""

    table: TableRef
    access: Access
    via: str = ""
    on: str = ""
    """Of a foreign key: DELETE or UPDATE, whichever of the parent's rows sets it off."""


@dataclass(frozen=True, order=True)
class ColumnUse:
    """A column of a table and what a statement does with it."""

    table: TableRef
    column: str
    role: Role


@dataclass(frozen=True)
class Activity:
    """How often and when a statement ran within the analysed window, over all instances."""

    executions: int = 0
    """0 when only text sources (routine bodies, samples) know it."""
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    instances: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    """user@host where a source knows it."""
    callers: frozenset[str] = frozenset()
    """From comments: sqlcommenter tags as ``controller=orders,action=show`` or the comment itself."""
    programs: frozenset[str] = frozenset()
    counters: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    peak_per_second: float | None = None
    """Highest mean rate over one interval between two snapshots; None with a single snapshot (a sum is not a rate)."""


@dataclass(frozen=True)
class Statement:
    """A distinct statement: its masked text, what it touches, what it did."""

    fingerprint: str
    schema: str | None
    text: str
    """Masked: no literal."""
    is_digest: bool
    analysis: Analysis
    uses: frozenset[Use]
    columns: frozenset[ColumnUse]
    unresolved: tuple[str, ...] = ()
    """Names that the catalog does not have."""
    activity: Activity = field(default_factory=Activity)

    @property
    def id(self) -> str:
        """Short name for reports: the fingerprint's first 12 digits."""
        return self.fingerprint[:12]

    def tables(self, *access: Access) -> frozenset[TableRef]:
        """Tables with any of these accesses (all when none is given)."""
        return frozenset(u.table for u in self.uses if not access or u.access in access)
