"""Where a task writes: one module for each kind of target, behind `Target`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from lab.dms.mappings import Filter, Names
from lab.dms.source import Change, Table, Transaction

Row = dict[str, Any]


class RowError(Exception):
    """The target does not take a row; the error policies of the task say what that means."""

    def __init__(self, text: str, truncated: bool = False, statement: str = "") -> None:
        super().__init__(text)
        self.truncated, self.statement = truncated, statement


class TableError(Exception):
    """The target cannot hold the table."""


@dataclass
class Loaded:
    """What became of a batch of a full load."""

    rows: int = 0
    condition_failed: int = 0  # items that were there already (DynamoDB)


@dataclass(frozen=True)
class Mapped:
    """A table of the source with everything that the mappings and LOB settings say about it."""

    table: Table
    names: Names
    rule: dict[str, Any] | None  # of object-mapping
    filters: tuple[Filter, ...]
    lob_bytes: int | None  # LOB values are cut there; None: never

    @property
    def key(self) -> list[str]:
        """Columns of the primary key by their names on the target."""
        return [self.names.columns[name] for name in self.table.key if name in self.names.columns]

    def row(self, values: Row) -> tuple[Row, list[str]]:
        """Values by their names on the target, and what the log says of those that were cut."""
        made, cut = {}, []
        for column in self.table.columns:
            if column.name not in self.names.columns or column.name not in values:
                continue
            value = values[column.name]
            if self.lob_bytes is not None and column.is_lob and value is not None and len(value) > self.lob_bytes:
                cut.append(
                    f"Value of column '{column.name}' in table '{self.table.full_name}' was truncated to {self.lob_bytes} bytes, "
                    f"actual length: {len(value)} bytes"
                )
                value = value[: self.lob_bytes]
            made[self.names.columns[column.name]] = value
        return made, cut

    def takes(self, values: Row | None) -> bool:
        """Whether the filters let a row through."""
        return values is not None and all(each.holds(values) for each in self.filters)


class Target(Protocol):
    """A target of one task; every method may raise LostError, and what a row or a table has wrong as its own error."""

    batch: int  # rows of one `load`

    def prepare(self, mapped: Mapped, mode: str) -> None:
        """Make the table ready for a full load; ``mode`` is TargetTablePrepMode."""

    def load(self, mapped: Mapped, rows: list[Row]) -> Loaded:
        """Write rows of a full load; all of them or, with RowError, none."""

    def begin(self, transaction: Transaction) -> None:
        """A transaction of the source begins."""

    def apply(self, mapped: Mapped, change: Change, before: Row | None, after: Row | None, tolerant: bool) -> None:
        """Apply a change of a row.

        Args:
            mapped: its table
            change: as the source has it
            before: the row that was, by the names of the target
            after: the row that is
            tolerant: the change may have reached the target before
        """

    def ddl(self, mapped: Mapped, kind: str, statement: str) -> None:
        """Follow a statement that changed the table on the source."""

    def commit(self) -> None:
        """Everything since `begin` is kept."""

    def exception(self, mapped: Mapped, statement: str, error: str) -> None:
        """Write a line to awsdms_apply_exceptions, where the target has that table."""
