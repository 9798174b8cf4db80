"""Rows of MySQL as writes to a store: pages in the order of the driving table's key, rows by key, one row for a reader that missed.

The view's query runs as a derived table, so that each column is read by the expression of its codec; MySQL 5.7 and 8.0 merge it, and read a
range of the driving table's key with neither a temporary table nor a sort. :func:`build` refuses what could give a row another version,
another key or another row of the store than its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqlglot import exp

from dbops import keys, mysql, sql
from dbops.backfill import query
from dbops.backfill.query import Joined, Query, Selected, ViewError
from dbops.backfill.spec import CHUNK, BackfillSpec, ColumnPolicy
from dbops.keys import Key, RowKey, UnusableKey
from dbops.keyvalue import views
from dbops.keyvalue.codec import ColumnCodec, Policy, UnknownType
from dbops.keyvalue.items import Reject
from dbops.keyvalue.keys import TemplateError
from dbops.keyvalue.rules import Domain, Names, VersionError, Write
from dbops.keyvalue.views import Loaded, Row, View
from dbops.mysql import Column, Index, Table
from dbops.sql import ident

__all__ = [
    "Counted", "Page", "Source", "SourceRow", "ViewError", "WalkSql", "build", "open_source", "walk_sql",
]  # fmt: skip

PAGE_BYTES = 16 * 1024 * 1024
"""Of the texts and bytes of a page: a page that has more ends before its last row."""
FETCH_ROWS = 25
KEYS_AT_ONCE = 200
"""Rows that one statement reads by key: MySQL dives into the index for each (eq_range_index_dive_limit)."""
_VERSIONS = {
    "int": {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal"},
    "text": {"char", "varchar", "binary", "varbinary"},
}
_NO_TRUTH = {
    "char",
    "varchar",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "json",
    "enum",
    "set",
    "binary",
    "varbinary",
}
_BYTES = {"binary", "varbinary"}
_SAME = {
    "integer": "int",
    "numeric": "decimal",
    "dec": "decimal",
    "fixed": "decimal",
    "bool": "tinyint",
    "boolean": "tinyint",
}
_UNICODE = {
    "utf8mb4": "utf-8",
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "ascii": "ascii",
    "utf16": "utf-16-be",
    "ucs2": "utf-16-be",
}
_ONE_PLANE = {"utf8", "utf8mb3", "ucs2"}


@dataclass(frozen=True)
class SourceRow:
    """A row as the write of its item, or why it has none."""

    key: Key
    """Of the driving table."""
    write: Write | None
    """With attributes, or a tombstone; None for a reject."""
    reject: str = ""
    """Column and reason, no value."""


@dataclass(frozen=True)
class Page:
    """Rows of a view next to each other. The rows of the driving table up to `last` are done when these are."""

    rows: list[SourceRow]
    last: Key | None
    """Greatest key that was looked at; the end of the range when `is_end`."""
    is_end: bool
    """The range has nothing after this page."""


@dataclass(frozen=True)
class Counted:
    """What a range holds."""

    rows: int
    """Of the driving table, under the predicate."""
    cold_rows: int
    """Among them; all where the spec names no cold ones."""
    view_rows: int
    view_keys: int
    """Less than `view_rows` when a join finds several partners of a row."""


@dataclass(frozen=True)
class WalkSql:
    """Statements of a walk over the driving table. Each returns one row or none."""

    nth_key: str
    """Key literals of the last row of a full chunk; no row when fewer are left."""
    last_key: str
    """Key literals of the last row of all that are left; no row when none is."""


@dataclass(frozen=True)
class Source:
    """A view that can be copied. Made by :func:`open_source`."""

    spec: BackfillSpec
    table: Table
    """The driving one."""
    key: RowKey
    """Of the driving table, under its alias."""
    view: View
    predicate: str
    """SQL over the driving table; empty when all rows are meant."""
    query: Query
    tables: Mapping[str, Table]
    """All, by alias."""
    outputs: tuple[str, ...]
    """Names in the view of the key's columns, in key order."""

    @property
    def names(self) -> Names:
        """Attributes that are not columns."""
        return self.view.names

    def page(self, conn: Any, low: Key | None, high: Key, limit: int, stamp: str) -> Page:
        """The next rows with low < key <= high, of at most so many rows of the driving table; the view may have fewer.

        Args:
            conn: of `dbops.connections.mysql`, values decoded
            low: exclusive; None for the beginning
            high: inclusive
            limit: rows of the driving table, at least 1
            stamp: of the plan, for live items

        Raises:
            ViewError: a row of the driving table has several rows in the view
            MySQLdb.Error: of the server
        """
        last = self._one_key(conn, self._key_sql("nth_key", self.key.between(low, high), rows=limit)) or high
        records, is_cut = self._some(conn, self._statement("page", self.key.between(low, last), cold_only=True))
        made = [self._row(record, stamp) for record in self._distinct(records)]
        if is_cut:
            return Page(made, made[-1].key, is_end=False)
        return Page(made, last, last == high)

    def rows(self, conn: Any, found: Sequence[Key], stamp: str = "") -> dict[Key, SourceRow]:
        """Rows by key of the driving table, cold or not. A key that MySQL does not store to the letter is not in it.

        Raises:
            ViewError: a row of the driving table has several rows in the view
            MySQLdb.Error: of the server
        """
        wanted = list(dict.fromkeys(found))
        made: dict[Key, SourceRow] = {}
        for begin in range(0, len(wanted), KEYS_AT_ONCE):
            some = wanted[begin : begin + KEYS_AT_ONCE]
            made |= {row.key: row for row in self._read(conn, self._statement("rows", self._any_of(some)), stamp)}
        return {key: made[key] for key in wanted if key in made}

    def load(self, conn: Any, row: Row) -> Loaded | None:
        """The row for a reader that missed it, found by MySQL's own equality; None when it is absent or buried. For `Repository`.

        Args:
            conn: of `dbops.connections.mysql`, values decoded
            row: columns of the key, at least

        Raises:
            Reject: a value of the key is none of its column
            MySQLdb.Error: of the server
        """
        key = self._key_of(conn, row)
        if key is None:
            return None
        records = self._records(conn, self._statement("rows", self._any_of([key])))
        if not records or self._is_buried(records[0]):
            return None
        return self._loaded(records[0])

    def driving_key(self, conn: Any | None, found: Mapping[str, Any]) -> Key | None:
        """The driving table's key of an item, live or tombstone, or of a row of the view.

        An item's comes from the text of its own key, which has all columns of it. None when no row of the view can have this item.

        Args:
            conn: only asked for key columns in character sets other than Unicode, latin1 and ASCII
            found: the item in wire form, or the row's values
        """
        try:
            values = self._values_of_key(found) if self._is_item(found) else found
            return None if values is None else self._key_of(conn, values)
        except Reject:
            return None

    def count(self, conn: Any, low: Key | None, high: Key) -> Counted:
        """What the range holds; reads all of it."""
        chunk = self.key.between(low, high)
        statement = sql.render(
            "backfill/count",
            view=self._view_sql(chunk, cold_only=True),
            view_keys=", ".join(map(ident, self.outputs)),
            cold=self.spec.cold.where if self.spec.cold else "",
            **self._driving(chunk),
        )
        with conn.cursor() as cursor:
            cursor.execute(statement)
            return Counted(*map(int, cursor.fetchone()))

    def size(self, conn: Any, low: Key | None, high: Key) -> int:
        """Rows of the driving table in the range, under the predicate; reads the index alone."""
        with conn.cursor() as cursor:
            cursor.execute(sql.render("backfill/size", **self._driving(self.key.between(low, high))))
            return int(cursor.fetchone()[0])

    def nth_key(self, conn: Any, low: Key | None, rows: int) -> Key | None:
        """The key of the last of the next so many rows of the driving table; None when there are fewer."""
        return self._one_key(conn, walk_sql(self, low, rows).nth_key)

    def last_key(self, conn: Any, low: Key | None = None) -> Key | None:
        """The greatest key after `low`; None when there is none."""
        return self._one_key(conn, walk_sql(self, low, 1).last_key)

    def page_sql(self, low: Key | None, high: Key) -> str:
        """The statement that reads a page, for EXPLAIN."""
        return self._statement("page", self.key.between(low, high), cold_only=True)

    # --- statements ----------------------------------------------------------------------------------------------------

    def _driving(self, chunk: str) -> dict[str, Any]:
        return {
            "table": (self.table.schema, self.table.name),
            "alias": self.key.alias,
            "index": self.key.index,
            "range": chunk,
            "predicate": self.predicate,
        }

    def _key_sql(self, name: str, chunk: str, *, rows: int = 1) -> str:
        return sql.render(
            f"backfill/{name}",
            literals=self.key.select_literals,
            order_by=self.key.order_by,
            keys=self.key.names,
            rows=rows,
            **self._driving(chunk),
        )

    @cached_property
    def _ranged(self) -> str:
        return self.query.ranged(self.key.index)

    def _view_sql(self, chunk: str, *, cold_only: bool = False) -> str:
        if cold_only and self.predicate:
            chunk = f"({chunk}) AND ({self.predicate}\n)"
        return self._ranged.replace(CHUNK, f"({chunk})")

    def _statement(self, name: str, chunk: str, *, cold_only: bool = False) -> str:
        return sql.render(
            f"backfill/{name}",
            columns=self._columns,
            view=self._view_sql(chunk, cold_only=cold_only),
            order_by=", ".join(map(ident, self.outputs)),
        )

    @cached_property
    def _columns(self) -> str:
        """Key literals, columns of the items, version, whether it is a tombstone."""
        shown = keys.row_key(_renamed(self.table, self.outputs))
        listed = [*(column.literal_sql for column in shown.columns), *(codec.select_sql for codec in self.view.codecs)]
        tombstone = self.spec.tombstone
        buried = f"{ident(tombstone.column)} IS TRUE" if tombstone else "FALSE"
        return ",\n    ".join([*listed, ident(self.spec.version.column), buried])

    def _any_of(self, found: Sequence[Key]) -> str:
        if len(self.outputs) == 1:
            return f"{ident((self.key.alias, self.key.names[0]))} IN ({', '.join(key[0] for key in found)})"
        return " OR ".join(f"({self.key.equals(key)})" for key in found)

    # --- reading -------------------------------------------------------------------------------------------------------

    def _one_key(self, conn: Any, statement: str) -> Key | None:
        with conn.cursor() as cursor:
            cursor.execute(statement)
            found = cursor.fetchone()
        return None if found is None else keys.from_row(found)

    def _records(self, conn: Any, statement: str) -> Sequence[tuple[Any, ...]]:
        with conn.cursor() as cursor:
            cursor.execute(statement)
            return self._distinct(cursor.fetchall())

    def _some(self, conn: Any, statement: str) -> tuple[list[tuple[Any, ...]], bool]:
        """Records in order, and whether they were cut where they had too many bytes: after small rows a page may be of large ones."""
        from MySQLdb.cursors import SSCursor

        found: list[tuple[Any, ...]] = []
        size = 0
        with conn.cursor(SSCursor) as cursor:  # the rest of what is cut is passed over when it is closed, not kept
            cursor.execute(statement)
            while some := cursor.fetchmany(FETCH_ROWS):
                found += some
                size += sum(len(value) for record in some for value in record if isinstance(value, str | bytes))
                if size > PAGE_BYTES and len(some) == FETCH_ROWS:
                    return found, cursor.fetchone() is not None
        return found, False

    def _distinct(self, records: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        width = len(self.outputs)
        seen: set[tuple[Any, ...]] = set()
        for record in records:
            if (key := record[:width]) in seen:
                raise ViewError(
                    f"view.sql: the row of {self.spec.view.table} with key {', '.join(map(str, keys.from_row(key)))} is in it more than "
                    "once: a join finds several partners. Join by a unique key"
                )
            seen.add(key)
        return records

    def _read(self, conn: Any, statement: str, stamp: str) -> list[SourceRow]:
        return [self._row(record, stamp) for record in self._records(conn, statement)]

    def _row(self, record: tuple[Any, ...], stamp: str) -> SourceRow:
        key, loaded = keys.from_row(record[: len(self.outputs)]), self._loaded(record)
        try:
            if self._is_buried(record):
                return SourceRow(key, self.view.tombstone(loaded.row, loaded.version))
            return SourceRow(key, self.view.write(loaded, stamp=stamp))
        except Reject as error:
            return SourceRow(key, None, str(error))
        except VersionError:
            domain = self.view.domain
            wanted = (
                "a whole number of 64 bits" if domain.kind == "int" else f"ASCII text of {domain.widths} characters"
            )
            kind = "NULL" if loaded.version is None else f"a {type(loaded.version).__name__} out of its domain"
            return SourceRow(key, None, f"{self.spec.version.column} is {kind}: a version is {wanted}")

    def _loaded(self, record: tuple[Any, ...]) -> Loaded:
        width = len(self.outputs)
        return Loaded(dict(zip(self.view.by_name, record[width:-2], strict=True)), record[-2])

    def _is_buried(self, record: tuple[Any, ...]) -> bool:
        return bool(record[-1])

    # --- keys ----------------------------------------------------------------------------------------------------------

    def _is_item(self, found: Mapping[str, Any]) -> bool:
        return all(isinstance(found.get(name), dict) for name in self.view.keys.names)

    def _values_of_key(self, item: Mapping[str, Any]) -> dict[str, Any] | None:
        """Values of the key's columns, from the key of an item; None when its two parts contradict each other, or it is none of ours."""
        made: dict[str, Any] = {}
        for name, template in self.view.keys.parts:
            if template.is_plain:
                codec = self.view.by_name[template.columns[0]]
                values = {codec.name: codec.decode(item[name])}
            elif "S" in item[name]:
                values = template.values(item[name]["S"])
            else:
                return None
            if any(made.setdefault(column, value) != value for column, value in values.items()):
                return None
        return made

    def _key_of(self, conn: Any | None, row: Row) -> Key | None:
        parts = [
            _literal(self.view.by_name[output], row[output], column, conn)
            for output, column in zip(self.outputs, _key_columns(self.table), strict=True)
        ]
        return None if None in parts else tuple(part for part in parts if part is not None)


def open_source(conn: Any, spec: BackfillSpec) -> Source:
    """The source of a spec, with the definitions that the server has now.

    Args:
        conn: of `dbops.connections.mysql`, values decoded
        spec: what a DBA declared

    Raises:
        ViewError: its view cannot be read as items
        MySQLdb.Error: the server is not there
    """
    import MySQLdb

    form = query.parse(spec.view)
    tables: dict[str, Table] = {}
    for joined in form.tables:
        table = mysql.read_table(conn, joined.schema, joined.table)
        if table is None:
            raise ViewError(
                f"view.sql: {joined.schema}.{joined.table} does not exist, is a view, or may not be seen: correct it, or GRANT SELECT"
            )
        tables[joined.alias] = table
    source = build(spec, form, tables)
    try:
        with conn.cursor() as cursor:
            cursor.execute(source._statement("rows", "FALSE"))
    except MySQLdb.Error as error:
        raise ViewError(f"view.sql: MySQL refuses it: {error.args[-1]}") from error
    return source


def build(spec: BackfillSpec, form: Query, tables: Mapping[str, Table]) -> Source:
    """The source of a spec over tables that are known.

    Args:
        spec: what a DBA declared
        form: of :func:`query.parse`
        tables: definition by alias

    Raises:
        ViewError: the view cannot be read as items
    """
    _check_mentions(form, tables)
    driving = tables[spec.view.alias]
    try:
        key = keys.row_key(driving, spec.view.alias)
    except UnusableKey as error:
        raise ViewError(f"view.table: {error}") from error
    outputs = _outputs(form, key)
    _check_version(spec, form, tables)
    view = _view(spec, form, tables)
    _check_key(spec, view, outputs)
    _check_tombstone(spec, form, tables)
    if spec.cold:
        for column in query.check_predicate("cold.where", spec.cold.where, spec.view.alias):
            if driving.column(column.name) is None:
                raise ViewError(f"cold.where: {spec.view.table} has no column {column.name!r}")
    predicate = spec.cold.where if spec.cold and spec.cold.only else ""
    return Source(spec, driving, key, view, predicate, form, dict(tables), outputs)


def walk_sql(source: Source, low: Key | None, rows: int) -> WalkSql:
    """Statements that cut the next chunk of so many rows of the driving table after `low`."""
    chunk = source.key.above(low)
    return WalkSql(source._key_sql("nth_key", chunk, rows=rows), source._key_sql("last_key", chunk))


# --- what is refused ----------------------------------------------------------------------------------------------------


def _check_mentions(form: Query, tables: Mapping[str, Table]) -> None:
    for column in form.columns:
        table = tables[column.table]
        if table.column(column.name) is None:
            raise ViewError(f"view.sql: {table.full_name} AS {column.table} has no column {column.name!r}")


def _outputs(form: Query, key: RowKey) -> tuple[str, ...]:
    """What the view calls the columns of the driving table's key."""
    found: dict[str, str] = {}
    for selected in form.selected:
        if (column := selected.column) is not None and column.table == key.alias:
            found.setdefault(column.name.lower(), selected.name)
    if missing := [name for name in key.names if name.lower() not in found]:
        raise ViewError(
            f"view.sql: does not select {', '.join(f'{key.alias}.{name}' for name in missing)} of the key {key.index}: select them"
        )
    return tuple(found[name.lower()] for name in key.names)


def _check_version(spec: BackfillSpec, form: Query, tables: Mapping[str, Table]) -> None:
    name = spec.version.column
    selected = next((each for each in form.selected if each.name == name), None)
    if selected is None:
        raise ViewError(
            f"version.column: {name!r} is not selected by view.sql, which has {', '.join(each.name for each in form.selected)}: select it"
        )
    if query.may_be_null(selected.expression, _nullable(form.tables, tables)):
        raise ViewError(
            f"version.column: {name!r} may be NULL, and a row without version is never written: make the column NOT NULL, or select "
            "COALESCE(..., 0)"
        )
    column = selected.column
    kind = tables[column.table].column(column.name) if column is not None else None
    if kind is not None and (kind.data_type not in _VERSIONS[spec.version.kind] or kind.numeric_scale):
        raise ViewError(
            f"version.column: {name!r} is {kind.column_type}, and version.kind {spec.version.kind} needs "
            f"{', '.join(sorted(_VERSIONS[spec.version.kind]))} without decimals; of a time select "
            "CAST(UNIX_TIMESTAMP(updated_at) * 1000000 AS UNSIGNED)"
        )
    _check_version_tables(spec, form, selected)
    if spec.version.kind == "text":
        _check_order(selected, tables)


def _check_version_tables(spec: BackfillSpec, form: Query, selected: Selected) -> None:
    name = selected.name
    parts = [{column.table for column in part.find_all(exp.Column)} for part in query.newest_of(selected.expression)]
    aliases = [joined.alias for joined in form.tables]
    if missing := [alias for alias in aliases if {alias} not in parts]:
        raise ViewError(
            f"version.column: {name!r} has no version of {', '.join(missing)}: a change there would not be newer. Select "
            f"GREATEST({', '.join(f'{alias}.version' for alias in aliases)}), with COALESCE around those of a LEFT JOIN"
        )
    if len(aliases) > 1 and spec.version.scope != "shared":
        raise ViewError(
            "version.scope: is 'row', and the view joins tables: the greatest of versions that count apart does not rise with "
            "each change. Take all of them from one sequence, a row that is locked until the commit, and say shared"
        )


def _check_order(selected: Selected, tables: Mapping[str, Table]) -> None:
    """GREATEST compares texts by their collation, every store by their bytes: 'a' is below 'B' for the one and above it for the other."""
    parts = query.newest_of(selected.expression)
    for part in parts if len(parts) > 1 else ():
        is_cast = isinstance(part, exp.Cast) and part.to.this in (exp.DataType.Type.BINARY, exp.DataType.Type.VARBINARY)
        for column in () if is_cast else part.find_all(exp.Column):
            found = tables[column.table].column(column.name)
            if found is not None and found.data_type not in _BYTES and not (found.collation or "").endswith("_bin"):
                raise ViewError(
                    f"version.column: {selected.name!r} takes the greatest of texts by the collation of {column.sql('mysql')}, and the "
                    f"store compares bytes: select GREATEST(CAST({column.sql('mysql')} AS BINARY), ...)"
                )


def _nullable(joined: Iterable[Joined], tables: Mapping[str, Table]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (each.alias, column.name.lower())
        for each in joined
        for column in tables[each.alias].columns
        if column.nullable or each.is_optional
    )


def _view(spec: BackfillSpec, form: Query, tables: Mapping[str, Table]) -> View:
    known = {selected.name for selected in form.selected}
    for field, named in (("types", spec.view.types), ("policies", spec.view.policies)):
        if strange := sorted(set(named) - known):
            raise ViewError(
                f"view.{field}: {strange[0]!r} is no column of view.sql, which has {', '.join(sorted(known))}"
            )
    hidden = {spec.version.column} | ({spec.tombstone.column} if spec.tombstone else set())
    optional = {joined.alias for joined in form.tables if joined.is_optional}
    columns = [_column(each, spec, tables, optional) for each in form.selected if each.name not in hidden]
    version = spec.version
    try:
        return views.view(
            columns,
            spec.keys,
            domain=Domain(version.kind, version.widths),
            policy=_policy(spec.view.policy),
            policies={name: _policy(policy) for name, policy in spec.view.policies.items()},
        )
    except UnknownType as error:
        raise ViewError(f"view.sql: {error}") from error
    except TemplateError as error:
        raise ViewError(f"target.key: {error}") from error
    except ValueError as error:
        raise ViewError(f"view.sql: {error}") from error


def _policy(declared: ColumnPolicy) -> Policy:
    return Policy(declared.nulls, declared.zero_dates, declared.enum_error, declared.empty_set, declared.json_as)


def _column(selected: Selected, spec: BackfillSpec, tables: Mapping[str, Table], optional: set[str]) -> Column:
    declared, column = spec.view.types.get(selected.name), selected.column
    if column is None:
        if declared is None:
            raise ViewError(
                f"view.types: {selected.name!r} is no plain column: declare its type, as in {selected.name}: decimal(10,2)"
            )
        return _declared(selected.name, declared)
    if declared is not None:
        raise ViewError(f"view.types: {selected.name!r} is a plain column, its type is that of the table: take it out")
    base = tables[column.table].column(column.name)
    if base is None:  # looked up before
        raise ViewError(f"view.sql: no column {column.name!r}")
    return replace(base, name=selected.name, nullable=base.nullable or column.table in optional)


def _declared(name: str, column_type: str) -> Column:
    flat = " ".join(column_type.split())
    word = flat.split("(")[0].split(" ")[0].lower()
    return Column(name, _SAME.get(word, word), flat, nullable=True)


def _check_key(spec: BackfillSpec, view: View, outputs: tuple[str, ...]) -> None:
    if missing := [name for name in outputs if name not in view.keys.columns]:
        raise ViewError(
            f"target.key: {', '.join(spec.keys.values())} has no {', '.join(f'{{{name}}}' for name in missing)}: two rows of "
            f"{spec.view.table} would get one key. Its templates need every column of the table's own key"
        )


def _check_tombstone(spec: BackfillSpec, form: Query, tables: Mapping[str, Table]) -> None:
    if spec.tombstone is None:
        return
    name = spec.tombstone.column
    selected = next((each for each in form.selected if each.name == name), None)
    if selected is None:
        raise ViewError(f"tombstone.column: {name!r} is not selected by view.sql: select it")
    if name == spec.version.column:
        raise ViewError(f"tombstone.column: {name!r} is the version: name another column")
    column = selected.column
    kind = tables[column.table].column(column.name) if column is not None else None
    if kind is not None and kind.data_type in _NO_TRUTH:
        raise ViewError(
            f"tombstone.column: {name!r} is {kind.column_type}, which is neither true nor false: select an expression such as "
            f"{name} = 'deleted' AS is_deleted"
        )


# --- keys ---------------------------------------------------------------------------------------------------------------


def _key_columns(table: Table) -> list[Column]:
    index = table.row_key
    found = [table.column(name) for name in index.columns] if index else []
    return [column for column in found if column is not None]


def _renamed(table: Table, outputs: Sequence[str]) -> Table:
    """A table that has nothing but the key, under the names of the view."""
    columns = tuple(replace(column, name=name) for column, name in zip(_key_columns(table), outputs, strict=True))
    index = Index("view", tuple(outputs), unique=True, nullable=False, has_prefix=False, index_type="BTREE")
    return replace(table, columns=columns, indexes=(index,))


def _literal(codec: ColumnCodec, value: Any, column: Column, conn: Any | None) -> str | None:
    """The literal that MySQL itself makes of a key column (`keys.RowKey.select_literals`); None when the column cannot hold the value.

    Raises:
        Reject: the value is none of the column's type
    """
    attribute = codec.encode(value)
    if attribute is None:
        return None
    match codec.kind:
        case "integer":
            return str(attribute["N"])
        case "decimal" | "decimal_text":
            return f"{codec.decode(attribute):f}"
        case "date" | "time":
            return f"'{attribute['S']}'"
        case "moment":
            return f"'{attribute['S'].removesuffix('Z').replace('T', ' ')}'"
        case "binary":
            return f"X'{attribute['B'].hex().upper()}'"
    charset = column.charset or "utf8mb4"
    found = _in_charset(charset, attribute["S"], conn)
    return None if found is None else f"_{charset} X'{found}'"


def _in_charset(charset: str, text: str, conn: Any | None) -> str | None:
    """Hexadecimal digits of a text in a character set of MySQL; None when it has not all of its characters."""
    if charset in _UNICODE and not (charset in _ONE_PLANE and any(ord(char) > 0xFFFF for char in text)):
        return _encoded(text, _UNICODE[charset])
    if charset in _ONE_PLANE:
        return None
    if charset == "latin1":
        # MySQL's latin1 is cp1252 with the five places that it leaves free.
        made = [
            _encoded(char, "cp1252") or (f"{ord(char):02X}" if ord(char) in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else None)
            for char in text
        ]
        return None if None in made else "".join(filter(None, made))
    if conn is None:
        raise ViewError(f"a key column is in character set {charset}: its literal needs a connection to MySQL")
    converted = f"CONVERT(%s USING {charset})"
    with conn.cursor() as cursor:
        cursor.execute(f"SELECT HEX({converted}), HEX(CONVERT({converted} USING utf8mb4))", (text, text))
        digits, back = cursor.fetchone()
    return str(digits) if bytes.fromhex(back) == text.encode() else None


def _encoded(text: str, encoding: str) -> str | None:
    try:
        return text.encode(encoding).hex().upper()
    except UnicodeError:
        return None
