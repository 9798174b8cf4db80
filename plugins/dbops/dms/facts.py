"""What is known of a MySQL server as a source or target of DMS, as frozen values; :mod:`source` and :mod:`target` read it.

None is "could not be read", which is never "none": :mod:`checks` holds it against the server and names the grant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dbops import mysql
from dbops.dms.lint import Facts, TableFacts
from dbops.dms.mappings import Table

CheckStatus = Literal["ok", "warning", "stop"]
NEVER = mysql.FOREVER
"""Hours of a retention that never ends."""


def is_on(variables: Mapping[str, str], *names: str) -> bool:
    """Whether any of the variables is on, by whatever word."""
    return any(variables.get(name, "").upper() in ("ON", "1", "TRUE", "YES") for name in names)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    ``where`` is "" for the server, or for all tables; ``fix`` is "" where nothing is to be done; ``overridden`` is the reason that the
    spec gives to go on.
    """

    id: str
    status: CheckStatus
    where: str
    found: str
    fix: str = ""
    overridden: str = ""

    @property
    def stops(self) -> bool:
        """Whether the task must not be started like this."""
        return self.status == "stop"

    def __str__(self) -> str:
        reason = f" Overridden: {self.overridden}." if self.overridden else ""
        return f"[{self.id}] {f'{self.where} ' if self.where else ''}{self.found}.{f' {self.fix}.' if self.fix else ''}{reason}"


@dataclass(frozen=True)
class BinaryLog:
    """A binary log file that the server still has."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Account:
    """An account of a login, ``'dms'@'10.%'``, and its lines of SHOW GRANTS with the roles that are active after a login."""

    name: str
    grants: tuple[str, ...]


@dataclass(frozen=True)
class Login:
    """The login by which DMS comes in. ``accounts`` is None when nobody may say what it is granted, for which ``reason`` has the cause."""

    name: str
    accounts: tuple[Account, ...] | None
    reason: str = ""


@dataclass(frozen=True)
class SourceTable:
    """A selected table. ``longest`` is the longest value of a LOB column in bytes; ``unmeasured`` says of the others why not."""

    shape: mysql.Table
    is_partitioned: bool = False
    invisible: tuple[str, ...] = ()
    """Columns that SELECT * does not show."""
    cascades: tuple[str, ...] = ()
    """Foreign keys of this table by which a change of another table changes rows here: ``name (ON DELETE CASCADE)``."""
    longest: Mapping[str, int] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    newest: Mapping[str, int] = field(default_factory=dict)
    """Longest value among the newest rows, of columns that were not measured to the end."""

    @property
    def table(self) -> Table:
        """Its name."""
        return Table(self.shape.schema, self.shape.name)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Columns of the primary key; none when there is none."""
        return next((index.columns for index in self.shape.indexes if index.name == "PRIMARY"), ())


@dataclass(frozen=True)
class SourceFacts:
    """A MySQL server as a source. Names of ``variables`` are in lower case; a variable that this version lacks is not there."""

    version: str
    variables: Mapping[str, str]
    is_managed: bool
    """RDS or Aurora."""
    tables: tuple[Table, ...]
    """Every base table that our login may see."""
    selected: tuple[SourceTable, ...]
    """Those that the mappings select, sorted."""
    logs: tuple[BinaryLog, ...] | None = None
    log_filters: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """binlog_do_db and binlog_ignore_db; they stand in no variable."""
    retention_hours: float | None = None
    """How long a binary log is kept at least; 0: purged as soon as possible; :data:`NEVER`."""
    is_replica: bool | None = None
    replica_lag_s: float | None = None
    """Of a replica; None: it does not run."""
    log_bytes_per_s: float | None = None
    """Binary log written a second since the server started."""
    own_grants: tuple[str, ...] = ()
    """Lines of SHOW GRANTS of our login."""
    login: Login | None = None
    """None: nobody named it."""

    @property
    def version_tuple(self) -> tuple[int, ...]:
        """(5, 7, 22) for '5.7.22-log'."""
        return mysql.version_tuple(self.version)

    @property
    def is_aurora(self) -> bool:
        """Aurora MySQL."""
        return "aurora_version" in self.variables

    @property
    def is_aurora_reader(self) -> bool:
        """A reader of an Aurora cluster: it has no binary log of its own."""
        return self.is_aurora and self.is_on("innodb_read_only")

    @property
    def binary_logs(self) -> tuple[str, ...] | None:
        """Names of the binary logs, oldest first; None when they could not be read."""
        return None if self.logs is None else tuple(log.name for log in self.logs)

    @property
    def bytes_to_load(self) -> int:
        """Data of the selected tables, by InnoDB's estimate."""
        return sum(one.shape.data_bytes for one in self.selected)

    @property
    def oldest_log_hours(self) -> float | None:
        """Age of the oldest binary log, estimated from the size of all and the rate at which they are written."""
        if not self.logs or not self.log_bytes_per_s:
            return None
        return sum(log.size_bytes for log in self.logs) / self.log_bytes_per_s / 3600

    def value(self, name: str) -> str:
        """A variable; "" when this version has none."""
        return self.variables.get(name, "")

    def is_on(self, *names: str) -> bool:
        """Whether any of the variables is on, by whatever word."""
        return is_on(self.variables, *names)

    def lint_facts(self, target_settings: Mapping[str, object] | None = None) -> Facts:
        """The same for the linter; tables that are not selected have a name only.

        Args:
            target_settings: of a target endpoint that exists, as AWS answers them
        """
        known = {one.table: one for one in self.selected}
        tables = tuple(
            TableFacts(table, known[table].shape.columns, known[table].primary_key, known[table].longest)
            if table in known
            else TableFacts(table, ())
            for table in self.tables
        )
        return Facts(tables, target_settings)


@dataclass(frozen=True)
class TargetTable:
    """What a selected table becomes. ``shape`` is None when it is not there; ``triggers`` None when our login may not see them."""

    source: Table
    table: Table
    columns: Mapping[str, str]
    """Column of the source -> column of the target, those that go there."""
    shape: mysql.Table | None
    foreign_keys: tuple[str, ...] = ()
    triggers: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class TargetFacts:
    """A MySQL server as a target. Names of ``variables`` are in lower case."""

    version: str
    variables: Mapping[str, str]
    tables: tuple[TargetTable, ...]
    login: Login | None = None
    """None: nobody named it."""
