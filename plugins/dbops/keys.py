"""Row keys: ordered walks and ranges over a primary key of any number of columns, in MySQL's own order.

A key value is stored as a tuple of strings, each the SQL literal of one column, so that it reads the same in the ledger, in a
statement and in a report, and never passes through a client-side type that could lose something.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dbops.mysql import Column, Table
from dbops.sql import ident

Key = tuple[str, ...]

_NUMBERS = {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"}
_TIMES = {"date", "datetime", "timestamp", "time"}
_TEXTS = {"char", "varchar"}
_BYTES = {"binary", "varbinary"}


class UnusableKey(ValueError):
    """The table has no key that can be walked in order; the message says why and what to do."""


@dataclass(frozen=True)
class KeyColumn:
    """One column of a key: how its literal is made in SQL."""

    name: str
    literal_sql: str


@dataclass(frozen=True)
class RowKey:
    """The key by which a table is walked: index name and columns."""

    index: str
    columns: tuple[KeyColumn, ...]
    alias: str = ""
    """Of the table, in statements with several."""

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in key order."""
        return tuple(c.name for c in self.columns)

    @property
    def order_by(self) -> str:
        """``ORDER BY`` list."""
        return ", ".join(self._idents)

    @property
    def select_literals(self) -> str:
        """Select list that gives each key column as its SQL literal."""
        return ", ".join(c.literal_sql for c in self.columns)

    def above(self, low: Key | None) -> str:
        """SQL for keys greater than `low` in MySQL order; TRUE for None."""
        return "TRUE" if low is None else self._bound(low, ">", inclusive=False)

    def up_to(self, high: Key) -> str:
        """SQL for keys less than or equal to `high`."""
        return self._bound(high, "<", inclusive=True)

    def between(self, low: Key | None, high: Key) -> str:
        """SQL for the half-open range (low, high]."""
        return f"{self.above(low)} AND {self.up_to(high)}" if low is not None else self.up_to(high)

    def equals(self, key: Key) -> str:
        """SQL for one key."""
        return " AND ".join(f"{n} = {v}" for n, v in zip(self._idents, key, strict=True))

    @property
    def _idents(self) -> list[str]:
        return [_ident(name, self.alias) for name in self.names]

    def _bound(self, key: Key, operator: str, *, inclusive: bool) -> str:
        """The expanded form ``a > 1 OR (a = 1 AND b > 2)``: MySQL does not use an index range for ``(a, b) > (1, 2)``.

        The redundant first condition on the leading column gives the optimizer a single range to begin with.
        """
        names = self._idents
        last = f"{operator}=" if inclusive else operator
        if len(names) == 1:
            return f"{names[0]} {last} {key[0]}"
        alternatives = []
        for depth in range(len(names)):
            equal = [f"{names[i]} = {key[i]}" for i in range(depth)]
            sign = last if depth == len(names) - 1 else operator
            alternatives.append(" AND ".join([*equal, f"{names[depth]} {sign} {key[depth]}"]))
        return f"({names[0]} {operator}= {key[0]} AND (({') OR ('.join(alternatives)})))"


def row_key(table: Table, alias: str = "") -> RowKey:
    """The key by which rows of the table are walked, in statements that call the table `alias`. Raises UnusableKey."""
    index = table.row_key
    if index is None:
        raise UnusableKey(
            f"{table.full_name} has no PRIMARY KEY and no UNIQUE index of whole NOT NULL columns, so a row cannot be named; add one"
        )
    columns = []
    for name in index.columns:
        column = table.column(name)
        literal = None if column is None else _literal_sql(column, alias)
        if column is None or literal is None:
            kind = "expression" if column is None else column.column_type
            raise UnusableKey(
                f"{table.full_name}: key column {name!r} is of type {kind}, whose order or equality is not that of its literal; "
                "supported: integers, DECIMAL, YEAR, CHAR, VARCHAR, BINARY, VARBINARY, DATE, DATETIME, TIMESTAMP, TIME"
            )
        columns.append(KeyColumn(name, literal))
    return RowKey(index.name, tuple(columns), alias)


def _ident(name: str, alias: str) -> str:
    return ident((alias, name)) if alias else ident(name)


def _literal_sql(column: Column, alias: str) -> str | None:
    c = _ident(column.name, alias)
    if column.data_type in _NUMBERS:
        return f"CAST({c} + 0 AS CHAR)"
    if column.data_type in _TIMES:
        return f"CONCAT('''', CAST({c} AS CHAR), '''')"
    if column.data_type in _TEXTS:
        # The introducer gives the literal the column's own character set; the column's collation wins in the comparison.
        return f"CONCAT('_{column.charset} X''', HEX({c}), '''')"
    if column.data_type in _BYTES:
        return f"CONCAT('X''', HEX({c}), '''')"
    return None


def dump(key: Key | None) -> str | None:
    """A key as it is stored in the ledger (JSON array of literals)."""
    return None if key is None else json.dumps(list(key))


def parse(text: str | None) -> Key | None:
    """The inverse of :func:`dump`."""
    return None if text is None else tuple(str(part) for part in json.loads(text))


def from_row(values: Sequence[object]) -> Key:
    """A key from a row of :attr:`RowKey.select_literals`."""
    return tuple(v.decode("ascii") if isinstance(v, bytes) else str(v) for v in values)
