"""What the SQL of a view says, before any server is asked: its tables, its select list, and all that would break a copy by ranges of keys.

A view is one SELECT over the driving table and tables that are joined to it one to one. What is refused would make a row depend on
other rows of the range (aggregates, LIMIT, DISTINCT), on the moment (NOW, RAND), or on rows whose change the version does not see
(subqueries).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from dbops.backfill.spec import CHUNK, SourceView
from dbops.sql import ident

_MARK = "__dbops_chunk__"
_CLAUSES = {
    "distinct": "DISTINCT",
    "group": "GROUP BY",
    "having": "HAVING",
    "windows": "WINDOW",
    "order": "ORDER BY",
    "limit": "LIMIT",
    "offset": "OFFSET",
    "locks": "FOR UPDATE, FOR SHARE or LOCK IN SHARE MODE",
    "with_": "WITH",
    "hint": "an optimizer hint",
    "operation_modifiers": "a modifier of SELECT",
    "into": "INTO",
    "laterals": "LATERAL",
}
# fmt: off
_OF_THE_MOMENT = frozenset({
    "NOW", "SYSDATE", "CURDATE", "CURTIME", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "UTC_DATE",
    "UTC_TIME", "UTC_TIMESTAMP", "RAND", "UUID", "UUID_SHORT", "RANDOM_BYTES", "CONNECTION_ID", "USER", "CURRENT_USER", "SESSION_USER",
    "SYSTEM_USER", "CURRENT_ROLE", "DATABASE", "SCHEMA", "CURRENT_SCHEMA", "VERSION", "CURRENT_VERSION", "LAST_INSERT_ID", "FOUND_ROWS",
    "ROW_COUNT", "SLEEP", "BENCHMARK", "GET_LOCK", "RELEASE_LOCK", "LOAD_FILE", "MASTER_POS_WAIT",
})
# fmt: on
_BARE = frozenset({"UTC_DATE", "UTC_TIME", "UTC_TIMESTAMP"})
"""Functions without parentheses that sqlglot takes for columns."""
_AGGREGATES = frozenset({"JSON_ARRAYAGG", "JSON_OBJECTAGG", "STD", "BIT_XOR"})


class ViewError(ValueError):
    """The view cannot be read as items; the text names the field of the spec, the value and the fix."""


@dataclass(frozen=True)
class Joined:
    """A table of FROM; the driving one comes first."""

    alias: str
    schema: str
    table: str
    is_optional: bool = False
    """Of a LEFT JOIN: all its columns may be NULL."""


@dataclass(frozen=True)
class Selected:
    """One column of the result."""

    name: str
    expression: exp.Expr

    @property
    def column(self) -> exp.Column | None:
        """The column of a table that it is, and nothing else; None for an expression."""
        return self.expression if isinstance(self.expression, exp.Column) else None


@dataclass(frozen=True)
class Query:
    """A view whose form is good. Made by :func:`parse`."""

    text: str
    tables: tuple[Joined, ...]
    selected: tuple[Selected, ...]
    columns: tuple[exp.Column, ...]
    """Every mention of a column."""
    hint_at: int
    """Where in `text` the index of the driving table is named."""
    has_filter: bool
    """Not every row of the driving table is in it: WHERE has more than the range, or it has an inner join."""

    def ranged(self, index: str) -> str:
        """The text with the key's index forced, in which `{chunk}` still stands for the range.

        Without that MySQL 5.7 and 8.0 take an index of another condition of WHERE, or of a join, and sort each page.
        """
        return f"{self.text[: self.hint_at]} FORCE INDEX ({ident(index)}){self.text[self.hint_at :]}"


def parse(view: SourceView) -> Query:
    """The view's query, if it can be copied by ranges of the driving table's key.

    Raises:
        ViewError: it cannot; the text says what to write instead
    """
    text = view.sql.rstrip().rstrip(";")
    select = _select(text)
    for name, clause in _CLAUSES.items():
        if select.args.get(name):
            raise _refused(
                f"has {clause}: a row must not depend on the other rows of its range, nor lock them; take it out"
            )
    tables = _tables(select, view)
    for node in select.walk():
        if node is not select:
            _check_node(node)
    conjuncts = _check_chunk(select)
    named = tuple(column for column in select.find_all(exp.Column) if column.name != _MARK)
    _check_columns(named, tables)
    return Query(
        text,
        tables,
        tuple(_selected(select)),
        named,
        _end_of_table(select),
        conjuncts > 1 or any(not joined.is_optional for joined in tables[1:]),
    )


def check_predicate(field: str, text: str, alias: str) -> tuple[exp.Column, ...]:
    """The columns of an expression over the driving table alone.

    Args:
        field: of the spec, for the error
        text: SQL
        alias: of the driving table

    Raises:
        ViewError: it is no single expression, or looks at something else
    """
    _check_comments(field, text)
    try:
        (found,) = sqlglot.parse(f"SELECT 1 FROM {ident('t')} WHERE ({text}\n)", dialect="mysql")
    except (sqlglot.errors.SqlglotError, ValueError) as error:
        raise ViewError(f"{field}: {_short(text)!r} is no SQL expression: {_first_line(error)}") from error
    where = found.args.get("where") if isinstance(found, exp.Select) else None
    if where is None or not isinstance(where.this, exp.Paren) or where.find(exp.Query, exp.AggFunc):
        raise ViewError(
            f"{field}: {_short(text)!r} is more than one expression over columns of {alias}: no subquery, no aggregate"
        )
    named = tuple(where.find_all(exp.Column))
    if strange := next((column for column in named if column.table != alias or column.db), None):
        raise ViewError(f"{field}: {strange.sql('mysql')}: write {alias}.{strange.name}, a column of the driving table")
    if where.find(exp.Parameter, exp.SessionParameter, exp.Placeholder):
        raise ViewError(f"{field}: {_short(text)!r} has a variable or parameter; write the value")
    return named


def may_be_null(expression: exp.Expr, nullable: frozenset[tuple[str, str]]) -> bool:
    """Whether an expression can be NULL; True for what is not known.

    Args:
        expression: of the view
        nullable: (alias, column in lower case) of columns that can be
    """
    match expression:
        case exp.Literal() | exp.Boolean():
            return False
        case exp.Column():
            return (expression.table, expression.name.lower()) in nullable
        case exp.Coalesce():
            return all(may_be_null(each, nullable) for each in [expression.this, *expression.expressions])
        case exp.Greatest() | exp.Least():
            return any(may_be_null(each, nullable) for each in [expression.this, *expression.expressions])
        case exp.Paren() | exp.Cast() | exp.Neg():
            return may_be_null(expression.this, nullable)
        case exp.Add() | exp.Sub() | exp.Mul():
            return may_be_null(expression.left, nullable) or may_be_null(expression.right, nullable)
    # UNIX_TIMESTAMP of a time that is there is a number, 0 before 1970; NULL only for dates that no calendar has.
    if isinstance(expression, exp.Anonymous) and expression.name.upper() == "UNIX_TIMESTAMP":
        return any(may_be_null(each, nullable) for each in expression.expressions)
    return True


def newest_of(expression: exp.Expr) -> tuple[exp.Expr, ...]:
    """The versions of which an expression takes the greatest; itself where it is no GREATEST."""
    while isinstance(expression, exp.Paren | exp.Cast):
        expression = expression.this
    if isinstance(expression, exp.Greatest):
        return (expression.this, *expression.expressions)
    return (expression,)


# --- parts --------------------------------------------------------------------------------------------------------------


def _select(text: str) -> exp.Select:
    _check_comments("view.sql", text)
    try:
        found = sqlglot.parse(text.replace(CHUNK, f"({_MARK})"), dialect="mysql")
    except (sqlglot.errors.SqlglotError, ValueError) as error:
        raise _refused(f"cannot be parsed: {_first_line(error)}") from error
    if len(found) != 1 or not isinstance(found[0], exp.Select) or not found[0].args.get("from_"):
        raise _refused(
            "is not one SELECT ... FROM (no UNION, no second statement); write one, without parentheses around it"
        )
    return found[0]


def _check_comments(field: str, text: str) -> None:
    if found := re.search(r"/\*[!+]", text):
        raise ViewError(f"{field}: {found[0]} is run by MySQL and not seen by these checks: take it out")


def _tables(select: exp.Select, view: SourceView) -> tuple[Joined, ...]:
    joins: list[exp.Join] = select.args.get("joins") or []
    found = [_joined(select.args["from_"].this, is_optional=False)]
    for join in joins:
        if join.args.get("method") or join.side.upper() not in ("", "LEFT") or join.args.get("using"):
            raise _refused(
                f"has {join.sql('mysql')!r}: write JOIN ... ON or LEFT JOIN ... ON, the driving table first (no RIGHT, NATURAL, USING)"
            )
        found.append(_joined(join.this, is_optional=join.side.upper() == "LEFT"))
    driving = found[0]
    if f"{driving.schema}.{driving.table}" != view.table or driving.alias != view.alias:
        raise ViewError(
            f"view.table: {view.table} AS {view.alias} is not the first table of FROM, which is {driving.schema}.{driving.table} AS "
            f"{driving.alias}: pages are ranges of its key, so begin FROM with it"
        )
    return tuple(found)


def _joined(node: exp.Expr, *, is_optional: bool) -> Joined:
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier) or node.args.get("joins"):
        raise _refused(f"reads from {_short(node.sql('mysql'))!r}: FROM and JOIN take tables by name only")
    if not node.db or node.catalog:
        raise _refused(f"names {node.name!r} without its schema: write schema.table")
    for name in ("hints", "partition", "sample", "pivots", "version"):
        if node.args.get(name):
            raise _refused(
                f"has {_short(node.sql('mysql'))!r}: take out what follows the name; the copy forces the key's index itself"
            )
    return Joined(node.alias_or_name, node.db, node.name, is_optional)


def _end_of_table(select: exp.Select) -> int:
    """Just after the driving table and its alias."""
    table = select.args["from_"].this
    alias = table.args.get("alias")
    last = alias.this if alias is not None else table.this
    return int(last.meta["end"]) + 1


def _check_node(node: exp.Expr) -> None:
    match node:
        case exp.Query():
            raise _refused(
                f"has a subquery {_short(node.sql('mysql'))!r}: what it reads can change without the version; join the table instead"
            )
        case exp.Star():
            raise _refused("has *: name the columns, or a column that is added later would become an attribute unseen")
        case exp.Parameter() | exp.SessionParameter() | exp.Placeholder():
            raise _refused(f"has the parameter or variable {node.sql('mysql')!r}: write the value")
        case exp.AggFunc() | exp.Window():
            raise _refused(f"has {_short(node.sql('mysql'))!r}: it is another one for every range of rows; take it out")
        case exp.Func():
            _check_function(node)


def _check_function(node: exp.Func) -> None:
    name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).upper()
    if name in _AGGREGATES:
        raise _refused(f"has {name}(): it is another one for every range of rows; take it out")
    if name in _OF_THE_MOMENT or (name == "UNIX_TIMESTAMP" and not node.expressions):
        raise _refused(
            f"has {name}(), which is another value at each read: copy and verification would never agree; take it out"
        )


def _check_chunk(select: exp.Select) -> int:
    """How many conditions WHERE joins by AND; the range has to be one of them."""
    where = select.args.get("where")
    conjuncts = (
        list(where.this.flatten()) if where and isinstance(where.this, exp.And) else [where.this] if where else []
    )
    if not any(each.name == _MARK for each in (node.unnest() for node in conjuncts) if isinstance(each, exp.Column)):
        raise _refused(
            f"{CHUNK} is not a condition of WHERE that AND joins to the others: write WHERE {CHUNK} AND (...)"
        )
    return len(conjuncts)


def _check_columns(named: tuple[exp.Column, ...], tables: tuple[Joined, ...]) -> None:
    aliases = {joined.alias for joined in tables}
    for column in named:
        if column.db:
            raise _refused(f"has {column.sql('mysql')}: write alias.column")
        if not column.table and len(tables) > 1:
            raise _refused(
                f"has {column.sql('mysql')} without alias: write one of {', '.join(sorted(aliases))} before it"
            )
        if not column.table:
            if column.name.upper() in _BARE and not column.this.quoted:
                raise _refused(f"has {column.name}, which is another value at each read: take it out")
            column.set("table", exp.to_identifier(tables[0].alias))
        elif column.table not in aliases:
            raise _refused(
                f"has {column.sql('mysql')}: there is no alias {column.table!r}, only {', '.join(sorted(aliases))}"
            )


def _selected(select: exp.Select) -> Iterator[Selected]:
    seen: set[str] = set()
    for node in select.expressions:
        name = node.alias if isinstance(node, exp.Alias) else node.name if isinstance(node, exp.Column) else ""
        if not name:
            raise _refused(f"selects {_short(node.sql('mysql'))!r} without a name: write AS name")
        if name.lower() in seen:
            raise _refused(f"selects {name!r} twice: call one of them otherwise")
        seen.add(name.lower())
        yield Selected(name, node.this if isinstance(node, exp.Alias) else node)


def _refused(text: str) -> ViewError:
    return ViewError(f"view.sql: {text}")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}..."


def _first_line(error: Exception) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0]
