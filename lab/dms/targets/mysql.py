"""Rows into MySQL: tables with a primary key and no other index, as DMS makes them, and one transaction for one of the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import MySQLdb
import MySQLdb.constants.CLIENT

from lab.dms.source import DDL, GONE, Change, Column, LostError, Source, Transaction
from lab.dms.targets import Loaded, Mapped, Row, RowError, TableError

TRUNCATED = {1264, 1265, 1406}
CONTROL = """CREATE TABLE IF NOT EXISTS `{schema}`.awsdms_apply_exceptions (
  TASK_NAME VARCHAR(128) NOT NULL, TABLE_OWNER VARCHAR(128) NOT NULL, TABLE_NAME VARCHAR(128) NOT NULL,
  ERROR_TIME TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), STATEMENT LONGTEXT NOT NULL, ERROR LONGTEXT NOT NULL)"""


class MySQLTarget:
    """A MySQL server as the target of a task."""

    batch = 500

    def __init__(self, address: dict[str, Any], task: str, control_schema: str, initial: str = "") -> None:
        self.task, self.control_schema = task, control_schema
        self.reader = Source(**address)
        try:
            self.connection = MySQLdb.connect(
                **address,
                charset="utf8mb4",
                connect_timeout=5,
                client_flag=MySQLdb.constants.CLIENT.FOUND_ROWS,
                init_command="SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'",
            )
            if initial:
                self._run(initial)
        except MySQLdb.Error as error:
            raise LostError(f"Cannot connect to the target: {error}") from error

    def prepare(self, mapped: Mapped, mode: str) -> None:
        name = _name(mapped)
        try:
            self._run(f"CREATE DATABASE IF NOT EXISTS `{mapped.names.schema}`")
            if mode == "DROP_AND_CREATE":
                self._run(f"DROP TABLE IF EXISTS {name}")
            self._run(f"CREATE TABLE IF NOT EXISTS {name} ({_definition(mapped)})")
            if mode == "TRUNCATE_BEFORE_LOAD":
                self._run(f"TRUNCATE TABLE {name}")
        except RowError as error:
            raise TableError(f"Failed to prepare table {name}: {error}") from error

    def load(self, mapped: Mapped, rows: list[Row]) -> Loaded:
        if rows:
            try:
                self._run(_insert(mapped, rows[0]), [list(row.values()) for row in rows])
            except RowError:
                self.connection.rollback()
                raise
            self.commit()
        return Loaded(len(rows))

    def begin(self, transaction: Transaction) -> None:
        pass

    def apply(self, mapped: Mapped, change: Change, before: Row | None, after: Row | None, tolerant: bool) -> None:
        if change.kind == "insert":
            assert after is not None
            self._run(_insert(mapped, after, "REPLACE" if tolerant else "INSERT"), list(after.values()))
        elif change.kind == "delete":
            assert before is not None
            self._one(mapped, f"DELETE FROM {_name(mapped)} WHERE ", before, [], tolerant)
        else:
            assert before is not None
            assert after is not None
            if tolerant and any(before[name] != after[name] for name in mapped.key):
                self._one(mapped, f"DELETE FROM {_name(mapped)} WHERE ", before, [], tolerant)
            if tolerant:
                self._run(_insert(mapped, after, "REPLACE"), list(after.values()))
                return
            sets = ", ".join(f"`{name}` = %s" for name in after)
            self._one(mapped, f"UPDATE {_name(mapped)} SET {sets} WHERE ", before, list(after.values()), tolerant)

    def ddl(self, mapped: Mapped, kind: str, statement: str) -> None:
        name = _name(mapped)
        if kind == "truncate":
            self._run(f"TRUNCATE TABLE {name}")
        elif kind == "drop":
            self._run(f"DROP TABLE IF EXISTS {name}")
        elif kind == "alter":
            self._run(f"ALTER TABLE {name} {after_name(statement)}")

    def commit(self) -> None:
        try:
            self.connection.commit()
        except MySQLdb.Error as error:
            raise LostError(f"Lost connection to the target: {error}") from error

    def exception(self, mapped: Mapped, statement: str, error: str) -> None:
        self._run(f"CREATE DATABASE IF NOT EXISTS `{self.control_schema}`")
        self._run(CONTROL.format(schema=self.control_schema))
        self._run(
            f"INSERT INTO `{self.control_schema}`.awsdms_apply_exceptions (TASK_NAME, TABLE_OWNER, TABLE_NAME, STATEMENT, ERROR) "
            "VALUES (%s, %s, %s, %s, %s)",
            [self.task, mapped.names.schema, mapped.names.table, statement, error],
        )

    def mismatches(self, mapped: Mapped, batches: Iterator[list[Row]]) -> list[Any]:
        """Keys of rows that differ from those of the source, or are on one side only."""
        theirs = {tuple(row[name] for name in mapped.key): row for batch in batches for row in batch}
        table = self.reader.table(mapped.names.schema, mapped.names.table)
        names = [column.name for column in table.columns]
        mine = {}
        for batch in self.reader.read(table, "", []):
            for values in batch:
                row = dict(zip(names, values, strict=True))
                mine[tuple(row[name] for name in mapped.key)] = {
                    name: row.get(name) for name in mapped.names.columns.values()
                }
        return [key for key in theirs.keys() | mine.keys() if theirs.get(key) != mine.get(key)]

    def _one(self, mapped: Mapped, statement: str, before: Row, args: list[Any], tolerant: bool) -> None:
        key = mapped.key or list(before)
        where = " AND ".join(f"`{name}` <=> %s" for name in key)
        limit = "" if mapped.key else " LIMIT 1"
        if not self._run(statement + where + limit, args + [before[name] for name in key]) and not tolerant:
            raise RowError("RetCode: SQL_ERROR: 0 rows affected", statement=f"{statement}{where}")

    def _run(self, statement: str, args: Any = None) -> int:
        try:
            with self.connection.cursor() as cursor:
                many = bool(args) and isinstance(args[0], list)
                changed = cursor.executemany(statement, args) if many else cursor.execute(statement, args)
                return int(changed or 0)
        except MySQLdb.Error as error:
            code = error.args[0] if error.args else 0
            if code in GONE:
                raise LostError(f"Lost connection to the target: {error}") from error
            raise RowError(
                f"RetCode: SQL_ERROR NativeError: {code} Message: {error}", code in TRUNCATED, statement
            ) from error


def after_name(statement: str) -> str:
    """What an ALTER TABLE says behind the name of its table."""
    found = DDL.match(statement)
    return statement[found.end() :].strip() if found else ""


def _name(mapped: Mapped) -> str:
    return f"`{mapped.names.schema}`.`{mapped.names.table}`"


def _insert(mapped: Mapped, row: Row, verb: str = "INSERT") -> str:
    columns, marks = ", ".join(f"`{name}`" for name in row), ", ".join(["%s"] * len(row))
    return f"{verb} INTO {_name(mapped)} ({columns}) VALUES ({marks})"


def _definition(mapped: Mapped) -> str:
    lines = []
    for column in mapped.table.columns:
        if column.name in mapped.names.columns:
            needed = " NOT NULL" if column.name in mapped.table.key else " NULL"
            lines.append(f"`{mapped.names.columns[column.name]}` {_type(column)}{needed}")
    if mapped.key:
        lines.append(f"PRIMARY KEY ({', '.join(f'`{name}`' for name in mapped.key)})")
    return ", ".join(lines)


def _type(column: Column) -> str:
    has_charset = column.charset and column.data_type != "json"
    return f"{column.column_type} CHARACTER SET {column.charset}" if has_charset else column.column_type
