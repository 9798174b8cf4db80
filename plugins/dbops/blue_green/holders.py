"""Who stands in the way of a switchover on blue, and what an attempt's causes are ranked by.

A switchover waits for long writes and DDL of blue, and cuts the rest. Nobody is killed here: the gate waits for a bounded time, and then
names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any, Literal

from dbops import mysql, sql
from dbops.blue_green.ladder import Evidence

Kind = Literal["transaction", "ddl", "lock wait", "xa"]
STATEMENT_LENGTH = 200
# Comments before the first word are passed over.
_DDL = (
    "(p.COMMAND IN ('Query', 'Execute') AND p.INFO REGEXP "
    "'^([[:space:]]|/[*]([^*]|[*][^/])*[*]/)*(ALTER|CREATE|DROP|OPTIMIZE|RENAME|TRUNCATE)[[:space:]]')"
)
_MACHINE_NOW = "CONVERT_TZ(NOW(), @@SESSION.time_zone, 'SYSTEM')"


@dataclass(frozen=True)
class Holder:
    """One session, or a prepared XA transaction that no session owns (connection 0).

    ``rows``: changed by its open transaction; ``statement``: what it runs now without its values, "" when it is idle.
    """

    connection: int
    user: str
    host: str
    kind: Kind
    seconds: int
    rows: int
    statement: str

    @property
    def writes(self) -> bool:
        """It has changed rows, is DDL, or waits to go on: what a switchover waits for. One that has only read is cut."""
        return self.kind != "transaction" or self.rows > 0

    def __str__(self) -> str:
        if self.kind == "xa":
            return f"prepared XA transaction without a session, {self.seconds} s, {self.rows} rows: see XA RECOVER"
        doing = self.statement or "idle"
        return f"connection {self.connection} of {self.user}@{self.host}, {self.kind} for {self.seconds} s, {self.rows} rows: {doing}"


@dataclass(frozen=True)
class Baseline:
    """Tables without a primary key, and the rows that had been changed in them by then; None when the server does not count."""

    tables: tuple[tuple[str, str], ...]
    changes: int | None


def in_the_way(conn: Any, older_than_s: float) -> list[Holder]:
    """Transactions, DDL and waits for locks that are at least so old, the oldest first; without those of this connection and of AWS.

    InnoDB shows its transactions as they were when somebody first looked after 0.1 s in which nobody did: do not ask more often.

    Args:
        conn: blue, as a user with PROCESS (another one sees only itself: then MySQL refuses)
        older_than_s: seconds

    Raises:
        MySQLdb.Error: it cannot be asked, so nothing is known
    """
    statement = sql.render("blue_green/holders", is_ddl=_DDL, machine_now=_MACHINE_NOW)
    return [
        Holder(
            connection=int(row["connection"]),
            user=row["user"] or "",
            host=row["host"] or "",
            kind=row["kind"],
            seconds=int(row["seconds"]),
            rows=int(row["rows_modified"]),
            statement=masked(row["statement"] or ""),
        )
        for row in mysql.rows(conn, statement, {"older_than_s": older_than_s})
    ]


def baseline(conn: Any) -> Baseline:
    """Note before an attempt what :func:`evidence` counts from."""
    found = mysql.rows(conn, sql.render("blue_green/keyless_tables"))
    tables = tuple((row["schema_name"], row["name"]) for row in found)
    return Baseline(tables, _changes(conn, tables))


def evidence(conn: Any, since: Baseline | None = None) -> Evidence:
    """What blue shows now: ages of what writes, connections, rows changed without a key since the baseline; the lag is for others to add.

    Without a baseline, where the server does not count, or when it counts anew (restarted, or another server by now),
    ``writes_without_key`` is None: not measured.
    """
    found = [holder for holder in in_the_way(conn, 0) if holder.writes]
    ages = {
        kind: [float(h.seconds) for h in found if (h.kind == "ddl") == (kind == "ddl")] for kind in ("ddl", "other")
    }
    before = None if since is None else since.changes
    now = None if since is None or before is None else _changes(conn, since.tables)
    return Evidence(
        longest_transaction_s=max(ages["other"], default=0.0),
        longest_ddl_s=max(ages["ddl"], default=0.0),
        connections=int(mysql.scalar(conn, sql.render("blue_green/client_connections"))),
        writes_without_key=None if now is None or before is None or now < before else now - before,
    )


def worst(parts: Iterable[Evidence]) -> Evidence:
    """The largest of each figure over several looks; None where none of them measured it."""
    columns = list(zip(*(astuple(part) for part in parts), strict=True))
    return Evidence(*(max((value for value in column if value is not None), default=None) for column in columns))


def _changes(conn: Any, tables: Iterable[tuple[str, str]]) -> int | None:
    if not mysql.scalar(conn, "SELECT @@performance_schema"):
        return None
    wanted = set(tables)
    found = mysql.rows(conn, sql.render("blue_green/row_changes"))
    return sum(int(row["changes"]) for row in found if (row["schema_name"], row["name"]) in wanted)


_VALUES = re.compile(
    r"""'(?:[^'\\]|\\.|'')*(?:'|$)      # text; a statement may be cut off inside of it
      | "(?:[^"\\]|\\.|"")*(?:"|$)
      | /\*.*?(?:\*/|$) | (?:--\s|\#)[^\n]*
      | (?P<name>`(?:[^`]|``)*`)         # a name may have digits and quotes
      | \b(?:0x[0-9a-f]+|0b[01]+|\d+(?:\.\d*)?(?:e[+-]?\d+)?)\b""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def masked(statement: str) -> str:
    """The statement on one line without values and comments, for people; at most STATEMENT_LENGTH characters."""

    def blank(found: re.Match[str]) -> str:
        if found["name"]:
            return found[0]
        return " " if found[0].startswith(("/*", "--", "#")) else "?"

    text = " ".join(_VALUES.sub(blank, statement).split())
    return text if len(text) <= STATEMENT_LENGTH else f"{text[: STATEMENT_LENGTH - 1]}…"
