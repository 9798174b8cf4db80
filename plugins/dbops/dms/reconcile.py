"""Rows of source and target compared one by one, by nothing that DMS counts itself.

DMS may end a load "successfully" although the source went away in the middle of it, may cut values with a line in a log, and may leave
rows out. So tables are compared after every full load, also after a clean one, and also while changes go on: rows that differ are looked
at again until they settle (see :mod:`dbops.dms.settling`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dbops import mysql
from dbops.dms import mappings, places
from dbops.dms.mappings import Table
from dbops.dms.places import PlaceUnknown
from dbops.dms.settling import Outcome
from dbops.dms.spec import RELATIONAL, DmsSpec
from dbops.dms.states import Endpoint
from dbops.sql import ident, lit

Status = Literal["equal", "differ", "unsettled", "not comparable"]

SETTLE_S = 60.0
CHUNK_ROWS = 20_000


@dataclass(frozen=True)
class Comparison:
    """What one table is on both sides. Counts are exact as of the moments at which rows were read; None where none could be had."""

    table: Table
    status: Status
    source_rows: int | None = None
    target_rows: int | None = None
    missing: int = 0
    """Rows of the source that the target does not have."""
    extra: int = 0
    """Rows of the target that the source does not have."""
    differing: int = 0
    """Rows of both sides with another value in some column."""
    sample: tuple[str, ...] = ()
    """At most 20 rows: the class, and the key as SQL literals of the source."""
    reason: str = ""
    unsettled: int = 0
    """Rows that differed at the last look and had changed meanwhile; they are in no other count."""
    not_compared: tuple[str, ...] = ()
    """Columns of the source that could not be compared, each with the reason."""


@dataclass(frozen=True)
class Patience:
    """How long a row may differ, and the clocks by which that is told."""

    settle_s: float = SETTLE_S
    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def compare(
    spec: DmsSpec,
    tables: Sequence[Table],
    *,
    source: Any,
    target: Any,
    endpoint: Endpoint | None = None,
    patience: Patience | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> tuple[Comparison, ...]:
    """Compare tables, one after another, in the order given.

    Nothing is locked and nothing is written. What a server refuses for one table (no such privilege) makes that table not comparable; a
    connection that is lost ends the comparison with the driver's error.

    Args:
        spec: as declared; its mappings say what tables and columns are called on the target, its filters which rows go there
        tables: of the source
        source: connection of the source from :func:`dbops.connections.mysql`, so with its session settings
        target: the same of a target that is MySQL; otherwise a boto3 client of DynamoDB, S3 or Kinesis
        endpoint: the target as AWS shows it; needed when the spec names an existing endpoint that is S3
        patience: how long rows that differ may take to settle; with settle_s 0 they are looked at twice
        chunk_rows: rows that are read at once; memory is bounded by a few of them
    """
    patience = patience or Patience()
    return tuple(_compared(spec, table, source, target, endpoint, patience, chunk_rows) for table in tables)


def _compared(
    spec: DmsSpec,
    table: Table,
    source: Any,
    target: Any,
    endpoint: Endpoint | None,
    patience: Patience,
    chunk_rows: int,
) -> Comparison:
    import MySQLdb
    from MySQLdb.constants import CR

    if spec.target_engine == "kinesis":
        return not_comparable(table, "a stream holds changes, not rows; compare what its consumer made of them")
    try:
        described = mysql.read_table(source, *table)
        if described is None:
            return not_comparable(table, "the source has no such table, or shows it to this user not")
        try:
            return _one(spec, table, described, source, target, endpoint, patience, chunk_rows)
        except PlaceUnknown as error:
            return not_comparable(table, str(error))
    except MySQLdb.Error as error:
        if (
            not error.args
            or not isinstance(error.args[0], int)
            or error.args[0] >= CR.MIN_ERROR
            or error.args[0] in _LOST
        ):
            raise
        return not_comparable(table, f"MySQL refuses it: {error.args[0]} {error.args[-1]}")


_LOST = frozenset({0, 1040, 1053, 1158, 1159, 1160, 1161})
"""Errors of a server that goes away or has no room; another try may help."""


def _one(
    spec: DmsSpec,
    table: Table,
    described: mysql.Table,
    source: Any,
    target: Any,
    endpoint: Endpoint | None,
    patience: Patience,
    chunk_rows: int,
) -> Comparison:
    from dbops.dms import reconcile_dynamodb, reconcile_mysql, reconcile_s3

    names = places.names(spec, table, [column.name for column in described.columns])
    where = filters(spec.rules, table)
    if spec.target_engine in RELATIONAL:
        return reconcile_mysql.compare(
            table, described, names, where, source=source, target=target, patience=patience, chunk_rows=chunk_rows
        )
    if spec.target_engine == "dynamodb":
        rule = mappings.object_rule(spec.rules, table)
        return reconcile_dynamodb.compare(
            table, described, names, where, rule, source=source, target=target, patience=patience
        )
    held = places.target_settings(spec, endpoint)
    return reconcile_s3.compare(
        spec, table, described, names, where, held, source=source, target=target, chunk_rows=chunk_rows
    )


def not_comparable(table: Table, reason: str, **more: Any) -> Comparison:
    """A table of which nothing can be said, with the reason."""
    return Comparison(table, "not comparable", reason=reason, **more)


def judged(
    table: Table,
    outcome: Outcome,
    source_rows: int,
    target_rows: int,
    patience: Patience,
    notes: Sequence[str] = (),
    not_compared: Sequence[str] = (),
) -> Comparison:
    """A comparison from the outcome of its rows."""
    status: Status = "differ" if outcome.wrong else "unsettled" if outcome.unsettled else "equal"
    reasons = list(notes)
    if outcome.unsettled:
        reasons.append(f"{outcome.unsettled} rows changed and still differed after {patience.settle_s:g} s")
    if outcome.hurried:
        reasons.append(
            f"{outcome.hurried} of the differences were looked at twice without waiting, as so many differed"
        )
    return Comparison(
        table, status, source_rows, target_rows, outcome.missing, outcome.extra, outcome.differing, outcome.sample,
        "; ".join(reasons), outcome.unsettled, tuple(not_compared),
    )  # fmt: skip


_OPERATORS: Mapping[str, str] = {"eq": "=", "noteq": "<>", "ste": "<=", "gte": ">="}


def filters(rules: Sequence[Mapping[str, Any]], table: Table) -> str:
    """SQL of the source filters of a table's selection rules: conditions of one filter by OR, filters by AND; TRUE without any."""
    found = []
    for rule in mappings.of_table(rules, mappings.SELECTION, table):
        for each in rule.get("filters") or () if rule.get("rule-action") != "exclude" else ():
            column = ident(str(each["column-name"]))
            conditions = [_condition(column, one) for one in each.get("filter-conditions") or ()]
            found.append(f"({' OR '.join(conditions) or 'TRUE'})")
    return " AND ".join(found) or "TRUE"


def _condition(column: str, given: Mapping[str, Any]) -> str:
    operator = str(given.get("filter-operator"))
    if operator in ("null", "notnull"):
        return f"{column} IS {'NOT ' if operator == 'notnull' else ''}NULL"
    if operator in ("between", "notbetween"):
        low, high = lit(str(given.get("start-value"))), lit(str(given.get("end-value")))
        return f"{column} {'NOT ' if operator == 'notbetween' else ''}BETWEEN {low} AND {high}"
    if operator not in _OPERATORS:
        raise PlaceUnknown(f"mappings: the filter-operator {operator!r} is not known, so the rows it takes are not")
    return f"{column} {_OPERATORS[operator]} {lit(str(given.get('value')))}"
