"""Slow and general query logs: bytes in, entries out, and entries added up to sightings, all with bounded memory.

The formats are those that MySQL 5.7 and 8.0 (and the Aurora versions built on them) write to files, to RDS and to CloudWatch Logs:

- slow log: ``# Time:`` (ISO 8601), ``# User@Host:``, ``# Query_time:`` with its counters, ``use x;`` where the default schema is not that
  of the entry before, ``SET timestamp=..;``, then the statement and ``;``. One entry a client command; prepared statements come with their
  values, failed statements are there too, what a routine runs inside is not.
- general log: time, connection, command, argument. Who a connection is, and its default schema, is said once, when it connects.

Applications have a hand in this text. Whatever a line holds, it ends up in an entry, in a number of :class:`Totals` or in a
:class:`LogFormatError`, and no entry that was read before is lost by it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from dbops.inventory import fingerprint as fingerprints
from dbops.inventory import text as sqltext
from dbops.inventory.model import Gap, Sighting

LogKind = Literal["slow_log", "general_log"]
EntryKind = Literal["query", "prepare", "execute", "admin"]

MAX_TEXT_BYTES = 16 << 20
"""A longer statement is cut here and marked, so that no entry fills the memory."""
MAX_CONNECTIONS = 20_000
"""So many connections of a general log are remembered; those that said nothing for the longest time are forgotten first."""
TRUNCATED = b"[Your log message was truncated]"
"""RDS writes this in place of what did not fit into a portion of 1 MB."""
_PROBE_BYTES = 1 << 20
"""A log without an entry in so many bytes is not a log of this kind."""
_BATCH_BYTES = 256 << 10
_TAIL_BYTES = 4096


class LogFormatError(ValueError):
    """The text is not the log that it should be; the message names the place and what was expected, not what is there: it may be values."""

    def __init__(self, where: str, expected: str) -> None:
        super().__init__(f"{where}: expected {expected}")


class Entry(NamedTuple):
    """One command as a log has it. Times are naive UTC; what the log does not say is None."""

    at: datetime | None
    """Slow log: when the statement ended; general log: when it arrived."""
    connection: int | None
    user: str | None
    host: str | None
    schema: str | None
    """The session's default schema. The slow log says it only where it changes, and never that there is none: an entry of a session without
    one shows that of the entry before. A statement that needed a default schema and did not fail had the one shown."""
    text: str
    kind: EntryKind
    query_ms: float | None = None
    lock_ms: float | None = None
    rows_sent: int | None = None
    rows_examined: int | None = None
    truncated: bool = False


@dataclass
class Totals:
    """What was read, and what could not be."""

    entries: int = 0
    admin: Counter[str] = field(default_factory=Counter)
    """Commands that are no statements (Quit, Ping, Close stmt ...): they are counted here and not among the sightings."""
    undecodable: int = 0
    """Entries with bytes that are not UTF-8; such bytes read as U+FFFD."""
    truncated: int = 0
    suppressed: int = 0
    """Executions that the server left out of the slow log (log_throttle_queries_not_using_indexes), as it says itself."""
    skipped_bytes: int = 0
    """Text that belongs to no entry: a log that begins in the middle, the rest of a truncated message."""

    def gaps(self, log: LogKind) -> tuple[Gap, ...]:
        """What the log did not show, each with the remedy."""
        found = []
        if self.truncated:
            found.append(Gap(
                f"{log}: {self.truncated} statements were cut",
                f"RDS cuts a portion at 1 MB, this reader a statement at {MAX_TEXT_BYTES >> 20} MiB",
                "publish the log to CloudWatch Logs",
            ))  # fmt: skip
        if self.suppressed:
            found.append(Gap(
                f"{log}: the server left {self.suppressed} executions out", "log_throttle_queries_not_using_indexes is not 0",
                "set log_throttle_queries_not_using_indexes = 0 while the log is read", "a longer log", self.suppressed,
            ))  # fmt: skip
        if self.undecodable:
            found.append(Gap(
                f"{log}: {self.undecodable} statements hold bytes that are not UTF-8", "such bytes read as U+FFFD: a name that holds one"
                " is not found in the catalog", "have the client use utf8mb4 (SET NAMES) and send BLOBs as parameters or 0x...",
                "a change in the client",
            ))  # fmt: skip
        if self.skipped_bytes:
            found.append(Gap(
                f"{log}: {self.skipped_bytes} bytes belong to no entry", "the log begins inside an entry, or a part of it is lost",
                "read the log more often than the server removes it",
            ))  # fmt: skip
        return tuple(found)


def read_slow(lines: Iterable[bytes], *, name: str = "slow log") -> Iterator[Entry]:
    """Entries of a whole slow log, from lines or pieces of any size. Raises LogFormatError after the entries before it."""
    return SlowLog(name).read(lines)


def read_general(lines: Iterable[bytes], *, name: str = "general log") -> Iterator[Entry]:
    """Entries of a whole general log, from lines or pieces of any size. Raises LogFormatError after the entries before it."""
    return GeneralLog(name).read(lines)


# mysqld writes three lines when it opens a log: at its start, after FLUSH LOGS, after a rotation.
_OPENED = re.compile(
    rb"(?:\A|(?<=\n))[^\s'(,]+, Version: [^\n]* started with:\r?\n[Tt][Cc][Pp] port: [^\n]*\nTime  [^\n]*(?:\n|\Z)"
)
_OPENED_HINT = b" started with:"
_OPENING = re.compile(rb"[^\s'(,]+, Version: ")
_TRUNCATED_LINE = re.compile(rb"\s*" + re.escape(TRUNCATED) + rb"\s*(?:\n|\Z)")
_GENERAL_TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d)"
_SLOW_HEAD = re.compile(
    rb"# (?:Time: ([^\n]+)\n# )?User@Host: ([^\n]+)\n((?:# (?!Time: |User@Host: )[^\n]*\n){0,6}?)"
    rb"# Query_time: ([\d.]+) +Lock_time: ([\d.]+) +Rows_sent: (\d+) +Rows_examined: (\d+)([^\n]*\n"
    rb"(?:# (?!administrator command: )[^\n]*\n)*)"
    # "use x;" may be the statement, too; as a part of the header it stands before SET timestamp
    rb"(?:use ([^\n]+);\r?\n(?=SET ))?(?:SET (?:last_insert_id=\d+,)?(?:insert_id=\d+,)?timestamp=(\d+)(?:\.\d+)?;\r?\n)?"
)
# What a client may send, by the server's own names; the argument is free text.
_GENERAL_HEAD = re.compile(
    rb"(?:\A|(?<=\n))(" + _GENERAL_TIME + rb")\t *(\d+) ("
    rb"Query|Execute|Prepare|Connect|Quit|Init DB|Close stmt|Reset stmt|Change user|Ping|Statistics|Field List|Long Data|Fetch|"
    rb"Reset Connection|Refresh|Processlist|Kill|Debug|Shutdown|Create DB|Drop DB|Set option|Sleep|Time|Delayed insert|Connect Out|"
    rb"Binlog Dump GTID|Binlog Dump|Table Dump|Register Slave|Register Replica|Daemon|Error|Clone|"
    rb"Group Replication Data Stream subscription)\t"
)
_GENERAL_AFTER = re.compile(rb"(?:\A|(?<=;\n))" + _GENERAL_TIME + rb"\t *\d+ ")


class _Log:
    """What the two formats share: records out of bytes, and how far that has come.

    Args:
        name: of the log, for messages
        state: what :meth:`state` gave where an earlier read ended
        where: names a place for messages, from its line in what is read; default `name` and that line
    """

    kind: LogKind
    _head: re.Pattern[bytes]
    _start: re.Pattern[bytes]
    """How an entry begins that is not whole yet."""
    _expected: str

    def __init__(
        self, name: str, state: Mapping[str, Any] | None = None, where: Callable[[int], str] | None = None
    ) -> None:
        self.totals = Totals()
        self.consumed = 0
        """Bytes up to the end of the last entry that was handed out."""
        self._where = where or (lambda line: f"{name}, line {line}")
        self._lines = 0
        self._rare = False
        """The batch holds what only :meth:`_finish_rare` knows."""
        self._restore(state or {})

    def read(self, pieces: Iterable[bytes], *, final: bool = True) -> Iterator[Entry]:
        """Entries in the order of the log.

        Args:
            pieces: the log in pieces of any size; lines, as a binary file gives them, will do
            final: False: the log is still written to, so its last entry may be incomplete and is left for the next time

        Raises:
            LogFormatError: after the entries before it
        """
        feed = iter(pieces)
        buffer, wanted, dropped, ended = b"", _BATCH_BYTES, 0, False
        while not ended:
            more, ended = _fill(feed, wanted)
            buffer += more
            self._rare = _OPENED_HINT in buffer or TRUNCATED in buffer
            current: re.Match[bytes] | None = None
            for found in self._head.finditer(buffer):
                if current is None:
                    self._begin(buffer, found.start())
                else:
                    body = buffer[current.end() : found.start()]
                    try:
                        if not self._parts(current, body, found):
                            continue
                    except _OtherKindError as error:
                        yield self._finish(current, body[: error.at], error.at + dropped, dropped > 0)
                        raise self._wrong(buffer, current.end() + error.at) from None
                    yield self._finish(current, body, len(body) + dropped, dropped > 0)
                    dropped = 0
                current = found
            if current is None:
                self._no_entry(buffer, ended, final)
                continue
            start = current.start()
            if ended and final:
                yield self._finish(current, buffer[current.end() :], len(buffer) - current.end() + dropped, dropped > 0)
            self._lines += buffer.count(b"\n", 0, start)
            buffer = buffer[start:]
            # One long statement must not be searched again for every batch that is added to it, nor be held whole.
            wanted = _BATCH_BYTES if start else max(_BATCH_BYTES, len(buffer))
            if len(buffer) > MAX_TEXT_BYTES + 2 * _BATCH_BYTES:
                kept = buffer[: MAX_TEXT_BYTES + _BATCH_BYTES] + buffer[-_TAIL_BYTES:]
                dropped += len(buffer) - len(kept)
                buffer = kept

    def state(self) -> dict[str, Any]:
        """What a later read must know to go on behind the last entry, as JSON values."""
        raise NotImplementedError

    def _restore(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _parts(self, before: re.Match[bytes], body: bytes, found: re.Match[bytes]) -> bool:
        """Whether `found` begins an entry, and is not text of the one before. Raises _OtherKindError."""
        raise NotImplementedError

    def _entry(self, head: re.Match[bytes], body: bytes, cut: bool) -> Entry:
        raise NotImplementedError

    def _other(self, text: bytes) -> int | None:
        """Where text before the first entry has an entry of the other kind of log."""
        raise NotImplementedError

    def _opened(self) -> None:
        """A new log file begins."""

    def _finish(self, head: re.Match[bytes], body: bytes, size: int, cut: bool) -> Entry:
        self.consumed += head.end() - head.start() + size
        self.totals.entries += 1
        if self._rare or cut or len(body) > MAX_TEXT_BYTES:
            return self._finish_rare(head, body, cut)
        return self._entry(head, body, False)

    def _finish_rare(self, head: re.Match[bytes], body: bytes, cut: bool) -> Entry:
        opened = _reopened(body)
        if opened:
            self.totals.skipped_bytes += len(body) - opened.end()
            body = body[: opened.start()]
        if marked := _TRUNCATED_LINE.search(body):
            body, cut = body[: marked.start()], True
        if len(body) > MAX_TEXT_BYTES:
            body, cut = body[:MAX_TEXT_BYTES], True
        entry = self._entry(head, body, cut)
        if opened:
            self._opened()
        self.totals.truncated += cut
        return entry

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.totals.undecodable += 1
            return raw.decode("utf-8", "replace")

    def _begin(self, buffer: bytes, end: int) -> None:
        """Text before the first entry: mysqld's three lines, or the rest of an entry that began before the log does."""
        self.consumed += end
        text = buffer[:end]
        if (at := self._other(text)) is not None:
            raise self._wrong(buffer, at)
        if opened := _OPENED.search(text):
            self._opened()
            text = text[: opened.start()] + text[opened.end() :]
        self.totals.skipped_bytes += len(text.strip(b"\0"))

    def _no_entry(self, buffer: bytes, ended: bool, final: bool) -> None:
        """There is no entry so far. Raises LogFormatError when none is to be expected."""
        if (at := self._other(buffer)) is not None:
            raise self._wrong(buffer, at)
        rest = _OPENED.sub(b"", buffer).strip(b"\0\r\n ")
        begun = rest + b"\n" if buffer.endswith(b"\n") else rest
        begins = self._start.match(begun) or (not final and (b"\n" not in rest or _OPENING.match(rest)))
        if len(buffer) > _PROBE_BYTES or (ended and rest and not begins):
            raise self._wrong(buffer, buffer.find(rest[:1000]))

    def _wrong(self, buffer: bytes, at: int) -> LogFormatError:
        line = self._lines + buffer.count(b"\n", 0, at) + 1
        return LogFormatError(self._where(line), self._expected)


class _OtherKindError(Exception):
    """At that byte of a body begins an entry of the other kind of log."""

    def __init__(self, at: int) -> None:
        self.at = at


class SlowLog(_Log):
    """Reads a slow log."""

    kind = "slow_log"
    _head = _SLOW_HEAD
    _start = re.compile(rb"# (?:Time: |User@Host: )[^\n]*(?:\n# [^\n]*)*\n?#?\Z")
    _expected = "an entry of MySQL's slow log ('# Time: ', '# User@Host: ', '# Query_time: ')"

    def state(self) -> dict[str, Any]:
        """See _Log."""
        return {"schema": self._schema}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._schema: str | None = state.get("schema")
        self._known: dict[bytes, tuple[str | None, str | None, int | None]] = {}

    def _opened(self) -> None:
        self._schema = None  # the server names the schema again at the next entry that has one

    def _parts(self, before: re.Match[bytes], body: bytes, found: re.Match[bytes]) -> bool:
        if body.endswith(b";\n") or not body:
            earlier, later = before[1], found[1]
            if not later:
                return not _open_string(body)  # without a time nothing but the text tells an entry from a pasted one
            return not earlier or not later or later >= earlier or not _quoted(earlier, later, body)
        if (other := _GENERAL_AFTER.search(body)) and not _open_string(body[: other.start()]):
            raise _OtherKindError(other.start())
        return _TRUNCATED_LINE.search(body) is not None or _reopened(body) is not None

    def _other(self, text: bytes) -> int | None:
        other = _GENERAL_HEAD.search(text)
        return other.start() if other else None

    def _entry(self, head: re.Match[bytes], body: bytes, cut: bool) -> Entry:
        time, who, before, query_s, lock_s, sent, examined, after, schema, stamp = head.groups()
        if schema is not None:
            self._schema = self._text(schema)
        user, host, connection = self._known.get(who) or self._who(who)
        if before or len(after) > 2:
            connection = self._extras(before + after, connection)
        if body.endswith(b";\n"):
            body = body[:-2]
        elif not cut:
            body = body.rstrip(b"\r\n").removesuffix(b";")
        text, kind = self._text(body), _QUERY
        if text[:1] in "#t":
            text, kind = self._command(text)
        at = _time(time) if time else _EPOCH + timedelta(seconds=int(stamp)) if stamp else None
        return _new(Entry, (
            at, connection, user, host, self._schema, text, kind,
            _milliseconds(query_s), _milliseconds(lock_s), int(sent), int(examined), cut,
        ))  # fmt: skip

    def _command(self, text: str) -> tuple[str, EntryKind]:
        if command := _ADMIN.fullmatch(text):
            self.totals.admin[command[1]] += 1
            return command[1], _COMMAND
        if throttled := _THROTTLE.match(text):
            self.totals.suppressed += int(throttled[1])
            return text, _COMMAND
        return text, _QUERY

    def _who(self, text: bytes) -> tuple[str | None, str | None, int | None]:
        found = _USER_HOST.match(text)
        who: tuple[str | None, str | None, int | None] = (None, None, None)
        if found:
            # The first name is the account's (empty for the anonymous one), the second what the client logged in as.
            account, login, host, address, connection = found.groups()
            who = (self._text(login or account), self._text(host or address), int(connection) if connection else None)
        if len(self._known) >= MAX_CONNECTIONS:
            self._known.clear()
        self._known[text] = who
        return who

    def _extras(self, lines: bytes, connection: int | None) -> int | None:
        """What forks of MySQL and log_slow_extra add to the header."""
        if named := _SCHEMA.search(lines):
            self._schema = self._text(named[1]) or None
        thread = _THREAD.search(lines)
        return int(thread[1]) if thread else connection


def _milliseconds(seconds: bytes) -> float | None:
    """None for what no statement takes: when the clock of a host is set back, the server writes 18446744073709.5 (or two points)."""
    try:
        found = float(seconds)
    except ValueError:
        return None
    return found * 1000 if found < _TOO_LONG_S else None


_TOO_LONG_S = 1e10
_new = tuple.__new__  # a third of the time that Entry() takes: its fields are all given here
_QUERY: EntryKind = "query"
_COMMAND: EntryKind = "admin"
_EPOCH = datetime(1970, 1, 1)
_ADMIN = re.compile(
    r"# administrator command: ([A-Z][A-Za-z ]{0,40})"
)  # and not an application's comment of many lines
_USER_HOST = re.compile(rb"(.*?)\[(.*?)\] @ (.*?) \[(.*?)\](?: +Id: +(\d+))?\s*$")
_THREAD = re.compile(rb"\bThread_id: (\d+)")
_SCHEMA = re.compile(rb"\bSchema: (\S*)")
_THROTTLE = re.compile(r"throttle: +(\d+) ")
_CONNECT = re.compile(r"(?P<user>.*)@(?P<host>\S*) (?:as .* )?on (?P<schema>.*) using \S+\s*$", re.DOTALL)
_USE_STATEMENT = re.compile(r"(?:\s|/\*.*?\*/)*use\s+(`(?:[^`]|``)+`|[^\s;]+)\s*;?\s*$", re.IGNORECASE | re.DOTALL)
_STATEMENTS: dict[bytes, EntryKind] = {b"Query": "query", b"Prepare": "prepare", b"Execute": "execute"}


class GeneralLog(_Log):
    """Reads a general log. The schema follows Connect, Init DB, Change user and ``use x``, as if those had succeeded."""

    kind = "general_log"
    _head = _GENERAL_HEAD
    _start = re.compile(rb"\d\d\d\d-[^\n]*\Z")
    _expected = "an entry of MySQL's general log (time, connection, command, argument; parted by tabs)"

    def state(self) -> dict[str, Any]:
        """See _Log."""
        return {"connections": {str(number): known for number, known in self._connections.items()}}

    def _restore(self, state: Mapping[str, Any]) -> None:
        saved = state.get("connections", {})
        self._connections: OrderedDict[int, list[str | None]] = OrderedDict(
            (int(n), list(known)) for n, known in saved.items()
        )

    def _opened(self) -> None:
        """Nothing to forget: connections outlive a rotation, and after a start of the server every number is said anew at Connect."""

    def _parts(self, before: re.Match[bytes], body: bytes, found: re.Match[bytes]) -> bool:
        if (
            b"\n# User@Host: " in body
            and (other := _SLOW_HEAD.search(body))
            and not _open_string(body[: other.start()])
        ):
            raise _OtherKindError(other.start())
        return found[1] >= before[1] or not _quoted(before[1], found[1], body)

    def _other(self, text: bytes) -> int | None:
        other = _SLOW_HEAD.search(text)
        return other.start() if other else None

    def _entry(self, head: re.Match[bytes], body: bytes, cut: bool) -> Entry:
        time, number, command = head.groups()
        text, kind, connection = self._text(body.rstrip(b"\r\n")), _STATEMENTS.get(command, _COMMAND), int(number)
        known = self._connections.get(connection)
        if known is None:
            known = self._connections[connection] = [None, None, None]
            if len(self._connections) > MAX_CONNECTIONS:
                self._connections.popitem(last=False)
        else:
            self._connections.move_to_end(connection)
        if kind == "admin":
            name = command.decode()
            self._follow(connection, name, text)
            self.totals.admin[name] += 1
            text = f"{name} {text}".strip()
        elif kind == "query" and (used := _USE_STATEMENT.match(text)):
            known[2] = used[1].strip("`").replace("``", "`")
        user, host, schema = known
        return Entry(_time(time), connection, user, host, schema, text, kind, truncated=cut)

    def _follow(self, connection: int, command: str, text: str) -> None:
        known = self._connections[connection]
        if command in ("Connect", "Change user"):
            if found := _CONNECT.match(text):
                known[:] = [found["user"], found["host"], found["schema"] or None]
        elif command == "Init DB":
            known[2] = text
        elif command == "Quit":
            del self._connections[connection]


def _fill(feed: Iterator[bytes], wanted: int) -> tuple[bytes, bool]:
    """At least that many bytes, and whether there are no more."""
    parts, size = [], 0
    for piece in feed:
        parts.append(piece)
        size += len(piece)
        if size >= wanted:
            return b"".join(parts), False
    return b"".join(parts), True


def _time(text: bytes) -> datetime | None:
    """Naive UTC from ISO 8601, None for anything else."""
    try:
        if text[-1:] == b"Z":
            return datetime.fromisoformat(text[:-1].decode())
        at = datetime.fromisoformat(text.decode().strip())
    except ValueError:
        return None
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at


# What is open reaches to the end: to look for its end at every quote in it would take hours for a cut BLOB of 16 MB.
_PIECE = re.compile(
    rb"""'(?:[^'\\]|\\.|'')*+(?:'|\\?(?P<open>\Z))|"(?:[^"\\]|\\.|"")*+(?:"|\\?(?P<open2>\Z))|`(?:[^`]|``)*+(?:`|(?P<open3>\Z))"""
    rb"""|/\*.*?(?:\*/|(?P<open4>\Z))|--(?=\s|\Z)[^\n]*|\#[^\n]*""",
    re.DOTALL,
)


def _reopened(body: bytes) -> re.Match[bytes] | None:
    """The three lines of an opened log, behind a statement and not within one."""
    opened = _OPENED.search(body) if _OPENED_HINT in body else None
    return opened if opened and not _open_string(body[: opened.start()]) else None


def _open_string(text: bytes) -> bool:
    return any(piece.lastgroup for piece in _PIECE.finditer(text))


def _quoted(before: bytes, found: bytes, body: bytes) -> bool:
    """Whether what looks like the next entry is text of the statement before it: in an open string, and older than that statement.

    People put pieces of logs into tables. After a statement that failed because it left a string open, the next entry is not older.
    """
    at, earlier = _time(before), _time(found)
    return at is not None and earlier is not None and earlier < at and _open_string(body)


# -- one statement, many texts ------------------------------------------------------------------------------------------------

# Both patterns consume the first character as a set, so that the search runs over code at the speed of C. No number: digits of a name (a
# letter before or behind them), the version of /*!50000. A string that is open takes the end of the text with it, and _END.
_VALUE = r"""
    (?<=')[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+(?:'|\Z)
    |(?<=")[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+(?:"|\Z)
    |(?<=[0-9])(?<![\w$@!`][0-9])(?:(?<=0)[xX][0-9a-fA-F]++|[0-9]*+(?:\.[0-9]*+)?+(?:[eE][+-]?[0-9]++)?+)(?![\w$`])
"""
_VALUES = re.compile(rf"['\"0-9](?:{_VALUE})", re.VERBOSE | re.DOTALL)
_PARTS = re.compile(
    rf"""(['"0-9`/\-\#](?:{_VALUE}
    |(?<=`)[^`]*+(?:`|\Z)
    |(?<=/)\*(?!!).*?(?:\*/|\Z)
    |(?<=-)-(?=[\s\x00-\x1f]|\Z)[^\n]*
    |(?<=\#)[^\n]*
    ))""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"`[^`]*`")
_COMMENT = re.compile(r"/\*(?!!).*?\*/", re.DOTALL)
# The capitals and small letters that people write; the word comes first, so that the search is one for a constant.
_NULLS = {word: re.compile(rf"{word}(?:(?<=[(,]{word})|(?<=[(,] {word}))(?=[,)])") for word in ("NULL", "null")}
_LIST = re.compile(r"\?(?:\s*,\s*[-+]?\?)+")
_ROWS = re.compile(r"(\([^()]*(?:\([^()]*\)[^()]*)*\))(?:\s*,\s*\1){2,}")


def normal_form(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without its literals, and its comments: a cheap key that many executions of one statement share.

    Finer than :func:`fingerprint.fingerprint`, never coarser: equal keys have equal fingerprints, so that the costly one is computed once a
    key. Letters keep their case and blanks stay; lists of values and the rows of VALUES are folded.
    """
    code: str = text
    comments: tuple[str, ...] = ()
    if text.endswith("*/") and (at := _last_comment(text)) >= 0:
        code, comments = text[:at], (text[at:],)
    key = _VALUES.sub("?", code + _END)
    if not key.endswith(_END):
        return _exact_form(text)
    key = key[: -len(_END)]
    if "/*" in code:
        opened, closed = key.count("/*"), key.count("*/")
        # No string that was taken out holds a comment's beginning or end: each is within a comment or within code.
        if opened != closed or code.count("/*") != opened or code.count("*/") != closed:
            return _exact_form(text)
        comments = (*_COMMENT.findall(code), *comments)
        pieces = _COMMENT.split(key)
        key = " ".join(pieces)
        if any(piece.count("`") % 2 for piece in pieces):
            return _exact_form(text)
    form = _settled(key) if len(key) <= _SETTLED_LENGTH else _settle(key)
    return (form, comments) if form is not None else _exact_form(text)


def _settle(key: str) -> str | None:
    """The folded key, or None when it shows that the values were perhaps not read right, so that the slow and exact way is needed.

    A quote in a comment or in a quoted name opens no string, a comment's sign in a string opens no comment; text in which that matters
    leaves a quote, a comment's sign, or a value within a quoted name behind.
    """
    if any(sign in key for sign in _DOUBTS) or key.count("`") % 2 or "?" in "".join(_NAME.findall(key)):
        return None
    return _fold(key)


_END = "\n\x1f"
"""Put behind a text: a comment ends before it, a string that is open swallows it."""
_DOUBTS = ("'", '"', "#", "--", ".?", "/*")
_SETTLED_LENGTH = 1000
_settled = lru_cache(maxsize=20_000)(_settle)


def _last_comment(text: str) -> int:
    """Where the comment begins that ends a text, -1 when it is none."""
    at = text.rfind("/*")
    return at if at >= 0 and text.find("*/", at + 2) == len(text) - 2 and text[at + 2] != "!" else -1


def _exact_form(text: str) -> tuple[str, tuple[str, ...]]:
    parts = _PARTS.split(text + _END)
    if not parts[-1].endswith(_END) or any("/*" in code for code in parts[::2]):
        # Something is open at the end, or code stands in /*! */: the text is its own key.
        return f"\0{text}", sqltext.comments(text)
    parts[-1] = parts[-1][: -len(_END)]
    comments: list[str] = []
    for at in range(1, len(parts), 2):
        first = parts[at][0]
        if first in "/-#":
            comments.append(parts[at])
            parts[at] = " "
        elif first != "`":
            parts[at] = "?"
    key = "".join(parts)
    # A value behind a point: .5, or t.1e1, or worse.
    return (f"\0{text}" if ".?" in key else _fold(key)), tuple(comments)


def _fold(key: str) -> str:
    if "?," in key:
        for word, pattern in _NULLS.items():
            if word in key:
                key = pattern.sub("?", key)
        key = _LIST.sub("?\1", key)
    if "), (" in key or "),(" in key:
        key = _ROWS.sub(r"\1,\1", key)
    return key.strip().rstrip(" \t\r\n;")


MAX_SPELLINGS = 3
"""Texts of one statement beside the first that differ in more than values: in quotes, blanks, letter case."""
MAX_WHO = 50
"""Different callers, and different users, that are kept for one statement; MORE says that there were more."""
MORE = "(more)"
# sqlcommenter's tags that differ from request to request
_REQUEST_TAGS = re.compile(r"trace(?:parent|state)='[^']*',?")


def _callers(comments: tuple[str, ...]) -> tuple[str, ...]:
    """Who sent it: ``action=show,controller=orders``, and the words of each other comment."""
    return _known_callers(_REQUEST_TAGS.sub("", "\n".join(comments)))


def _comments(found: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Those that :func:`normal_form` found, unless a backslash leaves it open where a string ends and so what is a comment."""
    return sqltext.comments(text) if "\\'" in text or '\\"' in text else found


_known_callers = lru_cache(maxsize=20_000)(sqltext.callers)


class _Group:
    """The executions of one statement under one default schema."""

    __slots__ = (
        "callers",
        "examined",
        "executions",
        "first",
        "last",
        "lock_ms",
        "sent",
        "spellings",
        "text",
        "total_ms",
        "truncated",
        "users",
    )

    def __init__(self, text: str, truncated: bool, at: datetime | None) -> None:
        self.text = text
        self.spellings: dict[str, str] = {}
        self.truncated = truncated
        self.executions = self.examined = self.sent = 0
        self.total_ms = self.lock_ms = 0.0
        self.first = self.last = at
        self.users: set[tuple[str | None, str | None]] = set()
        self.callers: set[str] = set()

    def seen(self, at: datetime) -> None:
        # A log is nearly in the order of time.
        if self.last is None or at > self.last:
            self.last = at
        elif self.first is None or at < self.first:
            self.first = at


_Key = tuple[str, str | None, bool]


class Tally:
    """Adds entries up by fingerprint and default schema.

    Memory is bounded: normal forms whose fingerprint is known are kept up to `max_forms`, the least used go first; when `max_groups`
    groups or `max_text_bytes` of their texts are held, `full` is true and :meth:`take` empties it.
    """

    def __init__(
        self, source: LogKind, *, max_groups: int = 50_000, max_text_bytes: int = 64 << 20, max_forms: int = 50_000,
        max_form_bytes: int = 64 << 20,
    ) -> None:  # fmt: skip
        self.source = source
        self._max_groups, self._max_text_bytes = max_groups, max_text_bytes
        self._max_forms, self._max_form_bytes = max_forms, max_form_bytes
        self._groups: dict[_Key, _Group] = {}
        self._text_bytes = self._form_bytes = 0
        self._forms: OrderedDict[str, str] = OrderedDict()
        self.full = False
        """It is time to :meth:`take`."""

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, entry: Entry) -> None:
        """Count an entry; commands that are no statements do not count."""
        at, _, user, host, schema, text, kind, query_ms, lock_ms, sent, examined, truncated = entry
        if kind == "admin":
            return
        form, comments = normal_form(text)
        own = bool(comments) and text.lstrip().startswith(sqltext.own_comment())
        callers = _callers(_comments(comments, text)) if comments and not own else ()
        digest = None if truncated else self._forms.get(form)
        is_new = digest is None
        if digest is None:
            digest = self._fingerprint(form, text, truncated)
        else:
            self._forms.move_to_end(form)
        group = self._groups.get((digest, schema, own))
        if group is None:
            group = self._groups[digest, schema, own] = _Group(text, truncated, at)
            self._text_bytes += len(text)
            self.full = len(self._groups) >= self._max_groups or self._text_bytes >= self._max_text_bytes
        elif is_new and not truncated and len(group.spellings) < MAX_SPELLINGS and len(text) <= _SETTLED_LENGTH:
            group.spellings[form] = text
        if kind != "prepare":
            group.executions += 1
        if query_ms is not None:
            group.total_ms += query_ms
            group.lock_ms += lock_ms or 0.0
            group.sent += sent or 0
            group.examined += examined or 0
        if at is not None:
            group.seen(at)
        if len(group.users) <= MAX_WHO:
            group.users.add((user, host))
        if callers and len(group.callers) <= MAX_WHO:
            group.callers.update(callers)

    def take(self) -> Iterator[Sighting]:
        """What was added up since the last time, most executions first; the tally is empty afterwards."""
        groups, self._groups, self._text_bytes, self.full = self._groups, {}, 0, False
        for key, group in sorted(groups.items(), key=lambda item: -item[1].executions):
            yield self._sighting(key, group)

    def _fingerprint(self, form: str, text: str, truncated: bool) -> str:
        if truncated:
            return fingerprints.fingerprint(text, truncated=True)
        known = self._forms[form] = fingerprints.fingerprint(text)
        self._form_bytes += len(form)
        while len(self._forms) > self._max_forms or (self._form_bytes > self._max_form_bytes and len(self._forms) > 1):
            self._form_bytes -= len(self._forms.popitem(last=False)[0])
        return known

    def _sighting(self, key: _Key, group: _Group) -> Sighting:
        _, schema, own = key
        user, host = next(iter(group.users)) if len(group.users) == 1 else (None, None)
        timed: dict[str, float] = {}
        if self.source == "slow_log":
            timed = {
                "total_ms": group.total_ms, "lock_ms": group.lock_ms, "rows_examined": group.examined, "rows_sent": group.sent,
            }  # fmt: skip
        return Sighting(
            self.source,
            hashlib.sha256(repr(key).encode(errors="replace")).hexdigest(),
            group.text,
            spellings=tuple(group.spellings.values()),
            schema=schema,
            truncated=group.truncated,
            executions=group.executions,
            counters=timed,
            first_seen=group.first,
            last_seen=group.last,
            user=user,
            host=host,
            own=own,
            users=_limited({f"{name or ''}@{of or ''}" for name, of in group.users if name or of}),
            callers=_limited(group.callers),
        )


def _limited(names: set[str]) -> frozenset[str]:
    return frozenset(names) if len(names) <= MAX_WHO else frozenset((*sorted(names)[:MAX_WHO], MORE))


def aggregate(entries: Iterable[Entry], *, source: LogKind, tally: Tally | None = None) -> Iterator[Sighting]:
    """Entries added up by statement and default schema.

    A sighting's executions and counters are those of these entries: what two reads give, or one read that was too long for the memory
    and gives a key twice, has to be added. A statement that was only prepared has 0 executions.

    Raises:
        LogFormatError: what `entries` raises, after the sightings of what came before it
    """
    tally = Tally(source) if tally is None else tally
    broken: LogFormatError | None = None
    try:
        for entry in entries:
            tally.add(entry)
            if tally.full:
                yield from tally.take()
    except LogFormatError as error:
        broken = error
    yield from tally.take()
    if broken is not None:
        raise broken
