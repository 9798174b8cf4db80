"""The source of a task: a MySQL server, its tables read one by one, and its binary log followed from a position."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import MySQLdb
import MySQLdb.cursors

from lab.config import LabError

HEARTBEAT_S = 0.2
BATCH = 500
LOB_TYPES = {"text", "mediumtext", "longtext", "tinytext", "blob", "mediumblob", "longblob", "tinyblob", "json", "geometry"}  # fmt: skip
TEMPORAL = {"date", "datetime", "timestamp", "time"}
CHARSETS = {"latin1": "cp1252", "utf8mb3": "utf8", "utf8mb4": "utf8", "ucs2": "utf-16-be", "utf16": "utf-16-be"}
SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys", "awsdms_control")
# Whatever else a server says will be said again at the next try.
GONE = {1040, 1053, 1205, 1213, 1317, 2002, 2003, 2006, 2013, 2055}
DENIED = {1045, 1142, 1227}
STRANGE = "Bad event read from the binary log: the table does not have the columns of the event"
CHECKPOINT = re.compile(r"checkpoint:V1#\d+#([^:#]+):(\d+)")
DML = re.compile(
    r"^\s*(insert|update|delete|replace)\s+(?:(?:low_priority|delayed|high_priority|quick|ignore)\s+)*(?:(?:into|from)\s+)?"
    r"(?:`?(\w+)`?\.)?`?(\w+)`?",
    re.IGNORECASE,
)
DDL = re.compile(
    r"^\s*(?:/\*.*?\*/\s*)?(alter|create|drop|truncate|rename)\s+(?:table\s+)?(?:if\s+(?:not\s+)?exists\s+)?(?:`?(\w+)`?\.)?`?(\w+)`?",
    re.IGNORECASE | re.DOTALL,
)


class FatalError(Exception):
    """What a task cannot get over; the text is what LastFailureMessage says."""


class LostError(Exception):
    """The source or the target does not answer; trying again may help."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in the binary log. Files are numbered, so positions have an order."""

    file: str
    offset: int

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}"

    def checkpoint(self) -> str:
        """In the notation of RecoveryCheckpoint."""
        return f"checkpoint:V1#1#{self}:-1:{self.offset}:0:{self}#0#0#*#0#1"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Of ``file:offset`` or of a checkpoint.

        Raises:
            LabError: it is neither
        """
        found = CHECKPOINT.match(text) or re.fullmatch(r"([^:#\s]+\.\d+):(\d+)", text)
        if found is None:
            raise LabError(f"CdcStartPosition {text!r} is neither a log position nor a checkpoint")
        return cls(found[1], int(found[2]))


@dataclass(frozen=True)
class Column:
    """A column as information_schema describes it."""

    name: str
    data_type: str  # such as int, varchar, json
    column_type: str  # such as int(10) unsigned
    charset: str | None
    precision: int

    @property
    def is_lob(self) -> bool:
        return self.data_type in LOB_TYPES

    @property
    def is_unsigned(self) -> bool:
        return "unsigned" in self.column_type

    @property
    def is_bytes(self) -> bool:
        return self.data_type in {"binary", "varbinary", "geometry"} or self.data_type.endswith("blob")

    @property
    def members(self) -> list[str]:
        """Values of an ENUM or SET."""
        return [m.replace("''", "'") for m in re.findall(r"'((?:[^']|'')*)'", self.column_type)]

    @property
    def length(self) -> int:
        found = re.search(r"\((\d+)\)", self.column_type)
        return int(found[1]) if found else 0

    def select(self) -> str:
        """An expression whose value is the one that `value` makes of the binary log."""
        if self.data_type == "float":  # as text, it has six digits
            return f"(`{self.name}` + 0e0)"
        if self.data_type == "bit":
            return f"CAST(`{self.name}` AS UNSIGNED)"
        if self.data_type in TEMPORAL or self.data_type == "json":
            return f"CAST(`{self.name}` AS CHAR)"
        return f"`{self.name}`"

    def value(self, raw: Any, is_null: bool = True) -> Any:
        """Plain value of what the binary log holds: number, text or bytes."""
        convert = CONVERT.get(self.data_type)
        if raw is None and (is_null or convert is None):
            return None
        return convert(self, raw) if convert else raw


def _text_time(column: Column, raw: Any) -> str:
    if isinstance(raw, dt.datetime):
        text = raw.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")
        return text + (f".{raw.microsecond:06d}"[: 1 + column.precision] if column.precision else "")
    if isinstance(raw, dt.date):
        return raw.isoformat()
    zero = "0000-00-00" if column.data_type == "date" else "0000-00-00 00:00:00"
    return zero + ("." + "0" * column.precision if column.precision and column.data_type != "date" else "")


def _text_duration(column: Column, raw: dt.timedelta) -> str:
    sign, span = ("-", -raw) if raw < dt.timedelta() else ("", raw)
    seconds = span.days * 86400 + span.seconds
    text = f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return text + (f".{span.microseconds:06d}"[: 1 + column.precision] if column.precision else "")


def _plain(value: Any) -> Any:
    """JSON of the binary log has its names and texts as bytes."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


CONVERT: dict[str, Callable[[Column, Any], Any]] = {
    "datetime": _text_time,
    "timestamp": _text_time,
    "date": _text_time,
    "time": _text_duration,
    "year": lambda _, raw: 0 if raw == 1900 else raw,
    "bit": lambda _, raw: int(raw, 2),
    "enum": lambda _, raw: raw,
    "set": lambda column, raw: ",".join(m for m in column.members if m in (raw or ())),
    "binary": lambda column, raw: raw.ljust(column.length, b"\0"),
    "json": lambda _, raw: json.dumps(_plain(raw), ensure_ascii=False, default=str),
}


@dataclass(frozen=True)
class Table:
    """A base table of the source."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]  # columns of the primary key

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Change:
    """One row of a row event, or a statement that changes a table."""

    kind: str  # insert, update, delete; or alter, create, drop, truncate, rename
    schema: str
    table: str
    position: Position
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    statement: str = ""


@dataclass
class Transaction:
    """What was committed together; ``end`` is the position from which the next one is read."""

    changes: list[Change] = field(default_factory=list)
    committed_s: int = 0
    end: Position = Position("", 0)

    @property
    def number(self) -> int:
        """A number that grows with the log."""
        return int(self.end.file.rpartition(".")[2] or 0) << 36 | self.end.offset


class Source:
    """A MySQL server as a task sees it."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        self.address = {"host": host, "port": port, "user": user, "password": password}

    def connect(self, **options: Any) -> MySQLdb.Connection:
        try:
            return MySQLdb.connect(
                **self.address,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=5,
                init_command="SET time_zone = '+00:00'",
                **options,
            )
        except MySQLdb.Error as error:
            raise LostError(f"Cannot connect to ODBC provider: {error}") from error

    def query(self, statement: str, args: Any = None) -> list[dict[str, Any]]:
        """Rows of a statement.

        Raises:
            LostError: the server went away
            FatalError: it answers that it will not, such as for want of a privilege
        """
        try:
            with closing(self.connect(cursorclass=MySQLdb.cursors.DictCursor)) as connection:
                cursor = connection.cursor()
                cursor.execute(statement, args)
                return list(cursor.fetchall())
        except MySQLdb.Error as error:
            if error.args and error.args[0] in GONE:
                raise LostError(f"Lost connection to the source: {error}") from error
            raise FatalError(f"Error executing source query: {error}") from error

    def tables(self, takes: Callable[[str, str], bool]) -> list[Table]:
        """Base tables for which ``takes(schema, table)``, by name."""
        found = self.query(
            "SELECT table_schema AS s, table_name AS t FROM information_schema.tables "
            f"WHERE table_type = 'BASE TABLE' AND table_schema NOT IN {SYSTEM_SCHEMAS} ORDER BY 1, 2"
        )
        return [self.table(row["s"], row["t"]) for row in found if takes(row["s"], row["t"])]

    def table(self, schema: str, name: str) -> Table:
        """Description of a table; without columns when there is none of that name."""
        columns = self.query(
            "SELECT column_name AS c, data_type AS d, column_type AS ct, character_set_name AS cs, "
            "COALESCE(datetime_precision, 0) AS p, column_key AS k FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            (schema, name),
        )
        key = self.query(
            "SELECT column_name AS c FROM information_schema.key_column_usage WHERE table_schema = %s "
            "AND table_name = %s AND constraint_name = 'PRIMARY' ORDER BY ordinal_position",
            (schema, name),
        )
        described = tuple(Column(r["c"], str(_str(r["d"])), str(_str(r["ct"])), r["cs"], int(r["p"])) for r in columns)
        return Table(schema, name, described, tuple(row["c"] for row in key))

    def position(self) -> Position:
        """Where the next event will be.

        Raises:
            FatalError: the server writes no binary log
        """
        state = self.query("SHOW MASTER STATUS")
        if not state:
            raise FatalError("Binary logging must be enabled for MySQL source database")
        return Position(state[0]["File"], int(state[0]["Position"]))

    def oldest(self) -> Position:
        return Position(self.query("SHOW BINARY LOGS")[0]["Log_name"], 4)

    def require_cdc(self) -> None:
        """What AWS documents for changes from MySQL.

        Raises:
            FatalError: a variable has another value; the text names it
        """
        wanted = {"log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_checksum": "NONE"}
        if self.query("SHOW SLAVE STATUS"):
            wanted["log_slave_updates"] = "ON"
        found = self.query(f"SHOW GLOBAL VARIABLES WHERE variable_name IN {tuple(wanted)}")
        for row in found:
            if row["Value"] != wanted[row["Variable_name"]]:
                raise FatalError(
                    f"The {row['Variable_name']} variable of the MySQL source is {row['Value']}: CDC needs "
                    f"{wanted[row['Variable_name']]}"
                )

    def read(self, table: Table, where: str, args: list[str]) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of a table in batches, in the order of its primary key, as of the time of the call."""
        expressions = ", ".join(column.select() for column in table.columns)
        order = f" ORDER BY {', '.join(f'`{name}`' for name in table.key)}" if table.key else ""
        statement = f"SELECT {expressions} FROM `{table.schema}`.`{table.name}`{where}{order}"
        try:
            with closing(self.connect(cursorclass=MySQLdb.cursors.SSCursor)) as connection:
                cursor = connection.cursor()
                cursor.execute(statement, args or None)
                while batch := cursor.fetchmany(BATCH):
                    yield [tuple(map(_read, table.columns, row)) for row in batch]
        except MySQLdb.OperationalError as error:
            raise LostError(
                f"{error}; the connection to the source was lost while {table.full_name} was read"
            ) from error


def _read(column: Column, value: Any) -> Any:
    if isinstance(value, bytes) and not column.is_bytes:
        return value.decode(CHARSETS.get(column.charset or "", "utf8"))
    return value.encode() if isinstance(value, str) and column.is_bytes else value


def _str(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


class Follower:
    """Reads the binary log from a position on, transaction by transaction."""

    def __init__(
        self, source: Source, begin: Position, server_id: int, describe: Callable[[str, str, bool], Table | None]
    ) -> None:
        """Describes a follower, which reads when `transactions` is asked.

        Args:
            source: the server
            begin: position after which transactions are read
            server_id: an id that no other replica of the server has
            describe: the table of a name, or None when the task does not take it; True asks for what it is now
        """
        self.source, self.begin, self.server_id, self.describe = source, begin, server_id, describe
        self.ignored: Callable[[str, str, str], object] = lambda schema, table, statement: None  # a change without rows
        self.read_at, self.lag_s = 0.0, 0.0  # of the last event that was read
        self.here = begin
        self.known: dict[tuple[str, str], Table | None] = {}
        self.changed: set[tuple[str, str]] = set()  # by a statement that was read
        self.stop = threading.Event()
        logging.getLogger("pymysqlreplication").setLevel(logging.ERROR)

    def transactions(self) -> Iterator[Transaction | None]:
        """Transactions in the order of the log; None from time to time when there is nothing new.

        Raises:
            FatalError: the log does not have the position any more, or an event cannot be read
            LostError: the server went away
        """
        import pymysql

        stream = self._stream()
        try:
            yield from self._grouped(stream)
        except pymysql.err.OperationalError as error:
            code, text = (*error.args, "", "")[:2]
            if code == 1236:
                raise FatalError(f"Error {code} ({text}) reading binary log") from error
            if code in DENIED:
                raise FatalError(f"Error {code} ({text}) starting to read the binary log") from error
            raise LostError(f"Lost connection to the source: {error}") from error
        except (pymysql.err.Error, OSError, struct.error) as error:
            raise LostError(f"Lost connection to the source: {error!r}") from error
        finally:
            stream.close()

    def _stream(self) -> Any:
        import pymysql
        from pymysqlreplication import BinLogStreamReader, event, row_event

        made: list[Any] = []

        def connect(**settings: Any) -> Any:
            if len(made) == 2:  # it would go on in the middle of a transaction, without the tables of its rows
                raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")
            made.append(pymysql.connect(**settings))
            return made[-1]

        kinds = [event.QueryEvent, event.XidEvent, event.HeartbeatLogEvent, event.RotateEvent]
        rows = [row_event.WriteRowsEvent, row_event.UpdateRowsEvent, row_event.DeleteRowsEvent]
        return BinLogStreamReader(
            connection_settings={**self.source.address, "connect_timeout": 5, "read_timeout": 30},
            server_id=self.server_id,
            blocking=True,
            resume_stream=True,
            log_file=self.begin.file,
            log_pos=self.begin.offset,
            only_events=[*kinds, *rows],
            slave_heartbeat=HEARTBEAT_S,
            pymysql_wrapper=connect,
            enable_logging=False,
        )

    def _grouped(self, stream: Any) -> Iterator[Transaction | None]:
        made = Transaction()
        while not self.stop.is_set():
            event = stream.fetchone()
            if event is None:
                raise LostError("Lost connection to the source: end of the binary log dump")
            kind = type(event).__name__
            self.here = here = Position(stream.log_file, int(stream.log_pos))
            if kind in {"HeartbeatLogEvent", "RotateEvent"}:
                yield None
                continue
            self.read_at, self.lag_s = time.time(), max(0.0, time.time() - event.timestamp)
            if kind == "XidEvent" or (kind == "QueryEvent" and self._query(event, made, here)):
                made.committed_s, made.end = event.timestamp, here
                yield made
                made = Transaction()
            elif kind.endswith("RowsEvent"):
                made.changes += self._rows(event, kind, here)

    def _query(self, event: Any, made: Transaction, here: Position) -> bool:
        """Take in a statement; True when it ends its transaction."""
        text = _str(event.query)
        if text == "BEGIN" or text.startswith("SAVEPOINT"):
            return False
        if found := DML.match(text):
            # Written with another binlog_format: DMS has no rows to apply, and goes on.
            self.ignored(found[2] or _str(event.schema), found[3], text)
        if found := DDL.match(text):
            schema = found[2] or _str(event.schema)
            self.known.pop((schema, found[3]), None)
            self.changed.add((schema, found[3]))
            made.changes.append(Change(found[1].lower(), schema, found[3], here, statement=text))
        return True

    def _known(self, schema: str, name: str) -> Table | None:
        if (schema, name) not in self.known:
            self.known[schema, name] = self.describe(schema, name, (schema, name) in self.changed)
        return self.known[schema, name]

    def _rows(self, event: Any, kind: str, here: Position) -> Iterator[Change]:
        schema, name = getattr(event, "schema", None), getattr(event, "table", None)
        if not schema or not name:
            return
        table = self._known(schema, name)
        if table is None:
            return
        if len(table.columns) < len(event.columns):
            raise FatalError(f"{STRANGE} ({table.full_name})")
        # A description that is newer than the event may have columns behind those of the event.
        table = replace(table, columns=table.columns[: len(event.columns)])
        for seen, column in zip(event.columns, table.columns, strict=True):
            seen.name, seen.unsigned = column.name, column.is_unsigned
            seen.character_set_name = "binary" if column.is_bytes else column.charset
            seen.enum_values = ["", *column.members] if column.data_type == "enum" else None
            seen.set_values = column.members if column.data_type == "set" else None
        for row in event.rows:
            if kind == "UpdateRowsEvent":
                before = _row(table, row["before_values"], row.get("before_none_sources"))
                after = _row(table, row["after_values"], row.get("after_none_sources"))
                yield Change("update", schema, name, here, before, after)
            elif kind == "WriteRowsEvent":
                yield Change("insert", schema, name, here, None, _row(table, row["values"], row.get("none_sources")))
            else:
                yield Change("delete", schema, name, here, _row(table, row["values"], row.get("none_sources")), None)


def _row(table: Table, values: dict[str, Any], none_sources: dict[str, str] | None) -> dict[str, Any]:
    why = none_sources or {}
    return {c.name: c.value(values[c.name], is_null=why.get(c.name, "null") == "null") for c in table.columns}
