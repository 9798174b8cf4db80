"""Which SELECTs are compared: those of the spec, and those that the inventory has seen.

The inventory keeps no values, so a placeholder gets a neutral one, of a type that its neighbours suggest. Rows that match such values may
be few, but plans, errors and warnings are those of the statement. What cannot be filled is named, not dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from dbops import sql
from dbops.blue_green.compare import Statement
from dbops.blue_green.spec import Compare

_MISSING = (1146, "no such table")
_DATES = (exp.Date, exp.TsOrDsToDate, exp.Timestamp)


@dataclass(frozen=True)
class Chosen:
    """Statements to compare, and (statement, why) of what is left out."""

    statements: tuple[Statement, ...]
    left_out: tuple[tuple[str, str], ...]


def choose(compare: Compare, store: sa.Engine) -> Chosen:
    """The spec's queries, then the inventory's SELECTs when the spec names an inventory."""
    chosen = [Statement(query.name, query.sql, query.schema_name) for query in compare.queries]
    if not compare.inventory:
        return Chosen(tuple(chosen), ())
    rows = _rows(store, compare.inventory)
    if not rows:
        why = "the inventory of this spec holds no statement; run query_inventory first"
        return Chosen(tuple(chosen), ((f"inventory {compare.inventory}", why),))
    found = of_inventory(rows)
    return Chosen((*chosen, *found.statements), found.left_out)


def of_inventory(rows: Iterable[tuple[str, str, str]]) -> Chosen:
    """Fill the values of (fingerprint, text, schema); of several texts of a fingerprint the first that can be filled counts."""
    chosen: dict[str, Statement] = {}
    left: dict[str, str] = {}
    for fingerprint, text, schema in rows:
        if fingerprint in chosen:
            continue
        try:
            filled = fill(text)
        except ValueError as error:
            left.setdefault(fingerprint, str(error))
            continue
        if filled is None:  # not a SELECT: not for comparing
            continue
        chosen[fingerprint] = Statement(f"inventory_{fingerprint[:12]}", filled, schema)
    return Chosen(tuple(chosen.values()), tuple((f, why) for f, why in left.items() if f not in chosen))


def fill(text: str) -> str | None:
    """The SELECT with neutral values for its placeholders; None when it is another kind of statement.

    Raises:
        ValueError: it cannot be parsed, or it locks rows
    """
    words = text.lstrip(" (\n\t").split(None, 1)
    if not words or words[0].upper() not in ("SELECT", "WITH"):
        return None
    # MySQL's digests write "..." for the rest of a list.
    plain = text.replace("(...)", "(?)").replace(", ...", "").replace("IN (?)", "IN (1)")
    try:
        tree = parse_one(plain, read="mysql")
    except SqlglotError as error:
        raise ValueError(f"cannot be parsed: {str(error).splitlines()[0][:200]}") from error
    if not isinstance(tree, exp.Query):
        return None
    if next(tree.find_all(exp.Lock), None) is not None:
        raise ValueError("locks rows (FOR UPDATE or LOCK IN SHARE MODE)")
    for placeholder in list(tree.find_all(exp.Placeholder, exp.Parameter)):
        placeholder.replace(_neutral(placeholder))
    return tree.sql(dialect="mysql")


def _neutral(placeholder: exp.Expression) -> exp.Expression:
    parent = placeholder.parent
    if isinstance(parent, exp.Limit):
        return exp.Literal.number(100)
    if isinstance(parent, exp.Offset):
        return exp.Literal.number(0)
    if isinstance(parent, exp.Interval):
        return exp.Literal.string("1")
    if isinstance(parent, exp.Like):
        return exp.Literal.string("a%")
    if isinstance(parent, _DATES):
        return exp.Literal.string("2020-01-01")
    return exp.Literal.number(1)


def _rows(store: sa.Engine, spec: str) -> list[tuple[str, str, str]]:
    statement = sql.render("blue_green/inventory_statements").replace("%(spec)s", ":spec")
    try:
        with store.connect() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(sa.text(statement), {"spec": spec})]
    except sa.exc.DBAPIError as error:
        if _is_missing(error.orig):
            return []
        raise


def _is_missing(error: Any) -> bool:
    """The store has no inventory yet."""
    code, text = _MISSING
    return bool(error.args) and (error.args[0] == code or text in str(error.args[0]))
