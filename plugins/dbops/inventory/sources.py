"""What one instance shows, source by source: a function per source, plain values out, raw text (mask it before it is stored).

Text is fetched as bytes, because the server's need not be UTF-8. Our own statements carry :func:`text.own_comment`, and their first column
is called ``dbops_inventory``, because digests keep names and lose comments.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from dbops import mysql, sql
from dbops.inventory import text as sqltext
from dbops.inventory.model import COUNTERS, Program, Sighting, TableIo, TableRef

OWN_MARK = "dbops_inventory"
READ_TIMEOUT_MS = 60_000
PICOSECONDS_PER_MS = 1e9

_STATUS = (
    "SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime', 'Performance_schema_digest_lost', 'Performance_schema_program_lost',"
    " 'Performance_schema_prepared_statements_lost', 'Performance_schema_nested_statement_lost',"
    " 'Performance_schema_table_instances_lost', 'Performance_schema_thread_instances_lost') OR Variable_name = 'dbops_inventory'"
)
# 5.7 shows this in place of the text of a statement that was prepared by SQL.
_HIDDEN_PREPARE = re.compile(r"PREPARE .+ FROM \.\.\.", re.IGNORECASE | re.DOTALL)
_WHOLE_PIECE = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`(?:[^`]|``)*`|/\*.*?\*/|--[ \t][^\n]*|#[^\n]*", re.DOTALL
)
_OPEN = re.compile(r"['\"`]|/\*")
_OWN_DIGEST = re.compile(rf"\s*SELECT \? AS `{OWN_MARK}`(?!\w)")
"""How 5.7 and 8.0 print the beginning of our SELECTs; an application may use the name elsewhere."""
PREPARED_TEXT_BYTES = 1024
"""The server keeps no more of a prepared statement's text, and leaves no mark."""


class Reader:
    """Sends statements over one connection (any DB-API one with ``%s`` parameters), marks and counts them."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.sent = 0

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Rows of a statement as dicts."""
        self.sent += 1
        return mysql.rows(self.conn, f"{sqltext.own_comment()} {statement}")

    def query(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of ``include/sql/inventory/<name>.sql``."""
        return self.rows(sql.render(f"inventory/{name}", **values))

    def pin_session(self) -> None:
        """UTC, and a limit for each SELECT: nothing here may weigh on the server for long."""
        self.sent += 1
        with self.conn.cursor() as cursor:
            cursor.execute(
                f"{sqltext.own_comment()} SET time_zone = '+00:00', SESSION max_execution_time = {READ_TIMEOUT_MS}"
            )


@dataclass
class Statements:
    """One reading of the digest table and of the event counters."""

    digests: list[Sighting] = field(default_factory=list)
    samples: list[Sighting] = field(default_factory=list)
    event_counts: dict[str, int] = field(default_factory=dict)
    event_errors: int = 0
    null_row: int = 0
    own: int = 0
    """Statements that this connection had sent when the counters were read."""
    not_utf8: int = 0
    """Texts with bytes that are not UTF-8, or that the server cut at such a byte."""
    without_text: int = 0
    """Executions of digests whose text the server does not show."""


def status(reader: Reader) -> dict[str, int]:
    """Uptime in seconds and what performance_schema had no room for."""
    return {row["Variable_name"]: int(row["Value"]) for row in reader.rows(_STATUS)}


def questions(reader: Reader) -> int:
    """Statements that this connection has sent, this one included; needs no privilege."""
    return int(reader.rows("SHOW SESSION STATUS LIKE 'Questions'")[0]["Value"])


def setup(reader: Reader) -> list[tuple[str, str, str]]:
    """(kind, name, value) of what performance_schema is told to watch."""
    return [(row[OWN_MARK], row["name"], row["value"]) for row in reader.query("setup")]


def statements(reader: Reader, settings: Mapping[str, str], *, samples: bool) -> Statements:
    """Digests (every schema, none, and the NULL row), their samples, and the event counters, all of the same moment."""
    found = Statements()
    digests: dict[str, Sighting] = {}
    for row in reader.query("statements", samples=samples):
        match row[OWN_MARK]:
            case "event":
                name = _decoded(row["digest_text"])[0]
                found.event_counts[name] = int(row["executions"])
                found.event_errors += int(row["errors"])
            case "own":
                found.own += int(row["executions"])
            case _ if row["digest"] is None:
                found.null_row += int(row["executions"])
            case _:
                sighting = _digest(row, int(settings["max_digest_length"]), found)
                twin = digests.get(sighting.key)
                # The server can hold one (schema, digest) twice: bugs.mysql.com/79533.
                digests[sighting.key] = sighting if twin is None else _joined(twin, sighting)
                _add_sample(row, sighting, int(settings["max_sql_text_length"]), found)
    found.digests = list(digests.values())
    return found


def _digest(row: Mapping[str, Any], max_length: int, found: Statements) -> Sighting:
    text, clean = _decoded(row["digest_text"])
    found.not_utf8 += not clean
    if not text:
        found.without_text += int(row["executions"])
    schema = row["schema_name"]
    quantiles = {"p95_ms": row.get("p95_ps"), "p99_ms": row.get("p99_ps")}
    return Sighting(
        source="digest",
        key=f"{row['digest']}:{schema}" if schema else row["digest"],
        text=text.strip(),
        schema=schema,
        is_digest=True,
        truncated=sqltext.is_truncated(text, max_length),
        digest=row["digest"],
        executions=int(row["executions"]),
        counters=_counters(row),
        gauges={name: float(value) / PICOSECONDS_PER_MS for name, value in quantiles.items() if value is not None},
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        own=_OWN_DIGEST.match(text) is not None,
    )


def _add_sample(row: Mapping[str, Any], of: Sighting, limit: int, found: Statements) -> None:
    text, clean = _decoded(row["sample_text"])
    text = _first_statement(text)
    if not text.strip():
        return
    cut, bad = _cut(row["sample_text"], text, limit)
    found.not_utf8 += bad or not clean
    found.samples.append(
        replace(of, source="sample", key=f"{of.key}:{text_hash(text)}", text=text, is_digest=False, truncated=cut, executions=None,
                counters={}, gauges={}, first_seen=None, last_seen=row["sample_seen"], own=is_own(text))
    )  # fmt: skip


def _joined(one: Sighting, other: Sighting) -> Sighting:
    return replace(
        one,
        executions=(one.executions or 0) + (other.executions or 0),
        counters={name: one.counters[name] + other.counters[name] for name in one.counters},
        first_seen=min(filter(None, (one.first_seen, other.first_seen)), default=None),
        last_seen=max(filter(None, (one.last_seen, other.last_seen)), default=None),
    )


def prepared(reader: Reader) -> list[Sighting]:
    """Open prepared statements. ``key`` names the text, then session and statement: ``object_instance_begin`` is a reused address.

    Those that SQL's PREPARE made have "sql" at the end of their key. 5.7 hides their text; such a row is left out.
    """
    found = []
    for row in reader.query("prepared"):
        text, _ = _decoded(row["sql_text"])
        if not text.strip() or _HIDDEN_PREPARE.fullmatch(text.strip()):
            continue
        by_sql = ":sql" if row["statement_name"] else ""
        found.append(
            Sighting(
                source="prepared",
                key=f"{text_hash(text)}:{row['thread_id']}:{row['statement_id']}{by_sql}",
                text=text,
                schema=row["schema_name"] or row["object_schema"],
                truncated=_size(row["sql_text"]) >= PREPARED_TEXT_BYTES,
                executions=int(row["executions"]),
                counters=_counters(row),
                user=row["user"],
                host=row["host"],
                program=_program(row),
                own=is_own(text),
            )
        )
    return found


def recent(reader: Reader, table: str, settings: Mapping[str, str], now: datetime) -> list[Sighting]:
    """Texts of events_statements_history (or _long), one for each (place, text); client and routine statements alike."""
    limit = int(settings["max_sql_text_length"])
    found: dict[str, Sighting] = {}
    who: dict[str, set[str]] = defaultdict(set)
    for row in reader.query("recent", table=table):
        text = _first_statement(_decoded(row["sql_text"])[0])
        if not text.strip():
            continue
        program = _program(row) if row["event_name"].startswith("statement/sp/") else None
        key = ":".join(filter(None, (text_hash(text), row["schema_name"], program)))
        age = timedelta(microseconds=float(row["age_ps"]) / 1e6) if row["age_ps"] is not None else None
        seen = now - max(age, timedelta()) if age is not None else None
        if row["user"]:
            who[key].add(f"{row['user']}@{row['host'] or ''}")
        known = found.get(key)
        if known is None or (seen and (known.last_seen is None or seen > known.last_seen)):
            found[key] = Sighting(
                source="history",
                key=key,
                text=text,
                schema=row["schema_name"],
                truncated=_cut(row["sql_text"], text, limit)[0],
                digest=row["digest"],
                last_seen=seen,
                user=row["user"],
                host=row["host"],
                program=program,
                own=is_own(text),
            )
    return [replace(sighting, users=frozenset(who[key])) for key, sighting in found.items()]


def programs(reader: Reader) -> tuple[dict[str, int], dict[str, int]]:
    """(runs, statements and instructions inside) by str(Program)."""
    rows = reader.query("programs")
    names = [f"{row['kind']} {row['schema_name']}.{row['name']}" for row in rows]
    runs = {name: int(row["executions"]) for name, row in zip(names, rows, strict=True)}
    return runs, {name: int(row["statements"]) for name, row in zip(names, rows, strict=True)}


def table_io(reader: Reader) -> tuple[TableIo, ...]:
    """Row counters per table and index; index '' counts rows that were reached without one."""
    return tuple(
        TableIo(
            TableRef(row["schema_name"], row["table_name"]),
            row["index_name"],
            *(int(row[name]) for name in ("fetched", "inserted", "updated", "deleted")),
        )
        for row in reader.query("table_io")
    )


def bodies(programs: tuple[Program, ...], split: Any) -> list[Sighting]:
    """The statements of routines, triggers and events, and the SELECTs of views (kind ``view``); a program without a body has none.

    Args:
        programs: from the catalog
        split: gives the statements of a compound body
    """
    found = {}
    for program in programs:
        for text in [program.body] if program.kind == "view" else split(program.body):
            if text.strip():
                key = f"{program}:{text_hash(text)}"
                found[key] = Sighting("routine", key, text, schema=program.schema, program=str(program))
    return list(found.values())


def is_own(text: str) -> bool:
    """Whether the text begins with the comment that marks our statements; elsewhere it may be a value."""
    return text.lstrip().startswith(sqltext.own_comment())


def text_hash(text: str) -> str:
    """Short name of a text without its values: lists of one and of many values have the same."""
    masked = re.sub(r"\(\s*\?(?:\s*,\s*\?)*\s*\)", "(?)", sqltext.mask_literals(text))
    masked = re.sub(r"\(\?\)(?:\s*,\s*\(\?\))+", "(?)", masked)
    return hashlib.sha256(masked.encode(errors="replace")).hexdigest()[:24]


def _program(row: Mapping[str, Any]) -> str | None:
    if not row["object_type"] or not row["object_name"]:
        return None
    return f"{row['object_type'].lower()} {row['object_schema']}.{row['object_name']}"


def _counters(row: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(row[name] or 0) for name in COUNTERS if not name.endswith("_ms")}
    times = {f"{name}_ms": float(row[f"{name}_ps"] or 0) / PICOSECONDS_PER_MS for name in ("total", "lock")}
    return {**times, **values}


def _decoded(raw: bytes | str | None) -> tuple[str, bool]:
    """(text, whether every byte was UTF-8); what is not becomes U+FFFD."""
    if raw is None or isinstance(raw, str):
        return raw or "", True
    text = raw.decode(errors="replace")
    return text, "\ufffd" not in text


def _first_statement(text: str) -> str:
    """Without the statements that a multi-statement packet has after it; a body that is being created keeps its semicolons."""
    if ";" not in text or sqltext.kind_of(text) == "ddl":
        return text
    end = _WHOLE_PIECE.sub(lambda piece: " " * len(piece[0]), text).find(";")
    return text if end < 0 else text[:end]


def _cut(raw: bytes | str, text: str, limit: int) -> tuple[bool, bool]:
    """(whether the text was cut, whether that was not for its length).

    A text that is too long ends with "..." (measured). One with a byte that is not valid in the session's character set ends before that
    byte, without a mark: within a string or comment, since MySQL refuses such names.
    """
    too_long = _size(raw) >= limit - 4 and text.endswith("...")
    opened = _OPEN.search(_WHOLE_PIECE.sub(" ", text)) is not None
    return too_long or opened, opened and not too_long


def _size(raw: bytes | str) -> int:
    return len(raw) if isinstance(raw, bytes) else len(raw.encode(errors="replace"))
