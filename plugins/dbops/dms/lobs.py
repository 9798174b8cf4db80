"""Longest values of LOB columns, measured within a budget: a table takes as long as reading it, and the server ends what takes longer.

What was not measured to the end is told, never left out, and its newest rows are looked at: a value among them that is too long proves a
cut, while short ones prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dbops import mysql, sql
from dbops.dms.facts import SourceTable
from dbops.dms.lint import LOB_TYPES
from dbops.mysql import Column

SAMPLE_ROWS = 1000
SAMPLE_SHARE = 6
"""Newest rows are looked at for this part of the budget, in addition to it."""
_TINY: Mapping[str, int] = {"tinytext": 255, "tinyblob": 255}
"""Types whose longest value is known without looking."""
_TIMEOUT = 3024
_SINCE = (5, 7, 8)
"""First version that ends a SELECT after a time."""


def measure(
    connection: Any, tables: tuple[SourceTable, ...], *, version: str, budget_s: float, clock: Callable[[], float]
) -> tuple[SourceTable, ...]:
    """The tables with their longest values, the smallest table first: most are known when the budget is spent.

    Args:
        connection: of a login that may read the tables
        tables: whose columns are known
        version: of the server
        budget_s: for all tables together
        clock: seconds that only grow
    """
    end = clock() + budget_s
    done: dict[Any, SourceTable] = {}
    for one in sorted(tables, key=lambda one: one.shape.data_bytes):
        open_ = _unknown(one)
        if "mariadb" in version.lower() or mysql.version_tuple(version) < _SINCE:
            why = "this server cannot be told to end a statement after a time"
            done[one.table] = replace(one, longest=_tiny(one), unmeasured=dict.fromkeys(open_, why))
        else:
            done[one.table] = _whole(connection, one, open_, end - clock(), budget_s)
    end = clock() + budget_s / SAMPLE_SHARE
    for one in sorted(done.values(), key=lambda one: -one.shape.data_bytes):
        if one.unmeasured and one.primary_key and mysql.version_tuple(version) >= _SINCE:
            done[one.table] = _sampled(connection, one, end - clock())
    return tuple(done[one.table] for one in tables)


def _lobs(one: SourceTable) -> list[Column]:
    return [column for column in one.shape.columns if column.data_type in LOB_TYPES]


def _tiny(one: SourceTable) -> dict[str, int]:
    return {column.name: _TINY[column.data_type] for column in _lobs(one) if column.data_type in _TINY}


def _unknown(one: SourceTable) -> list[str]:
    return [column.name for column in _lobs(one) if column.data_type not in _TINY]


def _whole(connection: Any, one: SourceTable, open_: list[str], left_s: float, budget_s: float) -> SourceTable:
    """The table with its longest values, or with the reason why they are unknown."""
    if not open_:
        return replace(one, longest=_tiny(one))
    found, why = None, f"the budget of {budget_s:g} s was spent on smaller tables"
    if left_s > 0:
        found, why = _asked(connection, one, open_, left_s)
        why = why or f"it takes longer than what was left of {budget_s:g} s"
    if found is None:
        return replace(one, longest=_tiny(one), unmeasured=dict.fromkeys(open_, why))
    return replace(one, longest={**_tiny(one), **found})


def _sampled(connection: Any, one: SourceTable, left_s: float) -> SourceTable:
    """The table with the longest values among its newest rows, if there is time for them."""
    if left_s <= 0:
        return one
    found, _ = _asked(connection, one, list(one.unmeasured), left_s, newest=SAMPLE_ROWS)
    return replace(one, newest=found or {})


def _asked(
    connection: Any, one: SourceTable, columns: list[str], limit_s: float, newest: int = 0
) -> tuple[dict[str, int] | None, str]:
    """Longest values, None when the server ended the statement or refused it; and why it refused."""
    import MySQLdb

    statement = sql.render(
        "dms/longest_values", columns=columns, table=tuple(one.table), key=one.primary_key, newest=newest,
        limit_ms=max(1, int(limit_s * 1000)),
    )  # fmt: skip
    try:
        (row,) = mysql.rows(connection, statement)
    except MySQLdb.Error as error:
        if error.args[0] == _TIMEOUT:
            return None, ""
        if error.args[0] in mysql.DENIED:
            return None, f"our login may not read it ({error.args[-1]})"
        raise
    return {name: int(value or 0) for name, value in zip(columns, row.values(), strict=True)}, ""
