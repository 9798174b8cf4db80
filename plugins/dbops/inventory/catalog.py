"""Definitions on one server, in a few statements whatever its size: what names in statements are resolved against.

information_schema shows each user only what its privileges reach, without an error. So :func:`read` looks for the traces of what is hidden:
empty view definitions, routine bodies that are NULL, names at work in performance_schema that information_schema does not have, and schemas
in which the user lacks the privilege to see triggers or events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import MySQLdb

from dbops import mysql, sql
from dbops.inventory import text as sqltext
from dbops.inventory.model import NO_SHOW_VIEW, Catalog, Gap, Program, Reference, TableRef
from dbops.inventory.sources import Reader

SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")
_TABLE = ("table_schema", "table_name")
_SIZES = ("row_estimate", "data_bytes", "index_bytes", "free_bytes", "average_row_bytes")
_ROUTINE_BODIES = (
    "GRANT SELECT ON mysql.proc (5.7), SELECT ON *.* (8.0 before 8.0.20) or SHOW_ROUTINE (8.0.20 and later)"
)

Row = dict[str, Any]


def read(conn: Any, schemas: Sequence[str] | None = None) -> tuple[Catalog, list[Gap]]:
    """Read the definitions in `schemas`, or in every schema but the server's own.

    A part that the user may not read, or that takes longer than the limit, is a gap and empty in the catalog. The connection's session
    is set to UTC and gets a time limit for each SELECT.
    """
    Reader(conn).pin_session()
    if not conn.get_server_info().startswith("5."):
        with _Marked(conn).cursor() as cursor:
            # 8.0 answers from a cache of up to a day; 5.7 has neither the cache nor the variable.
            cursor.execute("SET SESSION information_schema_stats_expiry = 0")
    reader = _Parts(Reader(conn), schemas)
    settings = reader.reader.rows("SELECT 'catalog' AS dbops_inventory, @@lower_case_table_names AS folds")[0]
    folds = bool(settings["folds"])
    columns = reader.grouped("catalog_columns", _TABLE)
    indexes = reader.grouped("catalog_indexes", _TABLE)
    tables = {
        _ref(row["table_schema"], row["table_name"], folds): _table(row, columns, indexes)
        for row in reader.rows("catalog_tables")
        if row["table_type"] == "BASE TABLE"
    }
    views = {
        _ref(row["table_schema"], row["table_name"], folds): _text(row["definition"])
        for row in reader.rows("catalog_views")
    }
    programs = tuple(_program(row, folds) for row in reader.rows("catalog_programs"))
    references = tuple(
        _reference(pairs, folds)
        for pairs in reader.grouped("catalog_references", ("child_schema", "child_table", "name")).values()
    )
    catalog = Catalog(tables, views, programs, references, folds)
    return catalog, [*reader.gaps, *_hidden(catalog, reader)]


class _Parts:
    """Runs the catalog's statements; one that fails is a gap and gives no rows."""

    def __init__(self, reader: Reader, schemas: Sequence[str] | None) -> None:
        self.reader = reader
        self.condition = ("NOT IN " if schemas is None else "IN ") + _list(
            SYSTEM_SCHEMAS if schemas is None else schemas
        )
        self.gaps: list[Gap] = []

    def rows(self, name: str) -> list[Row]:
        try:
            return self.reader.query(name, schemas=self.condition)
        except MySQLdb.Error as error:
            self.gaps.append(Gap(
                f"definitions ({name.removeprefix('catalog_')})", f"{error.args[-1]}",
                "grant the privileges that docs/inventory.md lists and run again",
            ))  # fmt: skip
            return []

    def grouped(self, name: str, keys: tuple[str, ...]) -> dict[tuple[str, ...], list[Row]]:
        """Rows in their order by the values of these columns."""
        found: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows(name):
            found.setdefault(tuple(row[key] for key in keys), []).append(row)
        return found


def _list(schemas: Iterable[str]) -> str:
    # The statements go out without parameters, so a % in a name needs no care.
    return "(" + ", ".join(sql.lit(schema) for schema in schemas) + ")"


def _ref(schema: str, table: str, folds: bool) -> TableRef:
    return TableRef(schema.lower(), table.lower()) if folds else TableRef(schema, table)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _table(
    row: Row, columns: dict[tuple[str, ...], list[Row]], indexes: dict[tuple[str, ...], list[Row]]
) -> mysql.Table:
    key = (row["table_schema"], row["table_name"])
    return mysql.Table(
        schema=key[0],
        name=key[1],
        engine=row["engine"] or "",
        **{size: int(row[size] or 0) for size in _SIZES},
        columns=tuple(_column(c) for c in columns.get(key, ())),
        indexes=tuple(
            mysql.index_of(name, list(parts))
            for name, parts in groupby(indexes.get(key, ()), key=lambda part: str(part["index_name"]))
        ),
    )


def _column(row: Row) -> mysql.Column:
    values = {name: value for name, value in row.items() if name not in ("dbops_inventory", *_TABLE)}
    return mysql.column_of({**values, "column_type": _text(values["column_type"])})


def _program(row: Row, folds: bool) -> Program:
    table = _ref(row["table_schema"], row["table_name"], folds) if row["table_name"] else None
    return Program(_text(row["kind"]), row["schema_name"], row["name"], _text(row["body"]), table, _text(row["event"]))


def _reference(pairs: list[Row], folds: bool) -> Reference:
    first = pairs[0]
    return Reference(
        name=first["name"],
        child=_ref(first["child_schema"], first["child_table"], folds),
        parent=_ref(first["parent_schema"], first["parent_table"], folds),
        delete_rule=first["delete_rule"],
        update_rule=first["update_rule"],
        child_columns=tuple(pair["child_column"] for pair in pairs),
        parent_columns=tuple(pair["parent_column"] for pair in pairs),
    )


# -- what the user cannot see ---------------------------------------------------------------------------------------------------


def _hidden(catalog: Catalog, parts: _Parts) -> Iterable[Gap]:
    if views := sorted(str(view) for view, definition in catalog.views.items() if not definition):
        yield Gap(f"definition of {len(views)} views: {_some(views)}", NO_SHOW_VIEW, "GRANT SHOW VIEW ON them")
    if bodies := sorted(str(program) for program in catalog.programs if not program.body):
        yield Gap(
            f"body of {len(bodies)} programs: {_some(bodies)}", "the user may call but not read them", _ROUTINE_BODIES
        )
    known = {("table", ref.schema.lower(), ref.table.lower()) for ref in (*catalog.tables, *catalog.views)}
    known |= {(p.kind, p.schema.lower(), p.name.lower()) for p in catalog.programs}
    seen = {(row["kind"], row["schema_name"], row["name"]) for row in parts.rows("catalog_hidden")}
    hidden = sorted(
        f"{kind} {schema}.{name}" for kind, schema, name in seen if (kind, schema.lower(), name.lower()) not in known
    )
    if hidden:
        yield Gap(
            f"definition of {len(hidden)} objects at work: {_some(hidden)}",
            "performance_schema counts them and information_schema does not show them: dropped since, or hidden from the user",
            "GRANT SELECT, TRIGGER, EVENT, SHOW VIEW ON their schemas, and for routines " + _ROUTINE_BODIES,
        )
    yield from _unprivileged(catalog, parts)


def _unprivileged(catalog: Catalog, parts: _Parts) -> Iterable[Gap]:
    """Triggers and events leave no trace for a user without their privilege, so the privilege itself is asked for."""
    granted = {(row["privilege"], row["schema_name"]) for row in parts.rows("catalog_privileges")}
    schemas = sorted({ref.schema for ref in (*catalog.tables, *catalog.views)})
    for privilege, objects in (("TRIGGER", "triggers"), ("EVENT", "events")):
        if (privilege, None) in granted:
            continue
        lacking = [s for s in schemas if (privilege, s) not in granted]
        if lacking and _has_roles(parts.reader):
            conn = _Marked(parts.reader.conn)
            lacking = [schema for schema in lacking if not mysql.has_privilege(conn, privilege, schema, "*")]
        if lacking:
            yield Gap(
                f"{objects} in {len(lacking)} schemas: {_some(lacking)}", f"the user lacks {privilege} on them",
                f"GRANT {privilege} ON each schema's tables (schema.*)",
            )  # fmt: skip


def _has_roles(reader: Reader) -> bool:
    # 5.7 has no roles. There SHOW GRANTS would pass for a statement of the application: no text of it is kept that has our comment.
    return not reader.conn.get_server_info().startswith("5.")


class _Marked:
    """A connection whose statements carry our comment."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def cursor(self) -> Any:
        cursor = self.conn.cursor()
        execute = cursor.execute
        cursor.execute = lambda statement, args=None: execute(f"{sqltext.own_comment()} {statement}", args)
        return cursor


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
