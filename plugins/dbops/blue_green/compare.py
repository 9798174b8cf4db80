"""The same SELECTs on blue and green: answers, errors, warnings, time and plan of each.

Only statements that read are sent, each in a read-only transaction under a time limit. Answers are compared by two hashes: of the rows as
a multiset, and of the rows in their order, because 8.0 no longer sorts for GROUP BY: rows that only come in another order are a verdict of
their own.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Verdict = Literal["same", "order only", "better", "worse", "different", "broken", "not compared"]
RATIO = 1.5
"""Median times further apart than this are better or worse, if they also differ by MIN_DIFFERENCE_S, and if even the fastest run of the
slower side took longer than the other side's median: a busy machine slows some runs, not all."""
MIN_DIFFERENCE_S = 0.005
ROWS_RATIO = 10
"""MySQL's estimates of rows further apart than this are a difference of the plans."""
LOOKS = 3
"""An answer that differs is asked for so often before it counts: green may have been behind."""
PAUSE_S = 1.0
FETCH = 1000
MAX_WARNINGS = 20
DIGITS = 12
"""Of a floating-point number that count: sums in another order differ in the last ones."""
_TIME_LIMIT = 3024
_LOST = frozenset({2006, 2013, 2055})
# They wait, take a lock that outlives the statement, or read files of the server.
_ACTING = frozenset({
    "BENCHMARK", "GET_LOCK", "LOAD_FILE", "MASTER_POS_WAIT", "RELEASE_ALL_LOCKS", "RELEASE_LOCK", "SLEEP", "SOURCE_POS_WAIT",
    "WAIT_FOR_EXECUTED_GTID_SET", "WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS",
})  # fmt: skip
_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})


@dataclass(frozen=True)
class Statement:
    """One SELECT: how reports call it, its text, and the default schema of the session that sends it."""

    name: str
    sql: str
    schema_name: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What became of one statement. Errors and warnings are ``number: text``; times are medians in seconds over the timed runs.

    ``verdict``, the worst that applies: ``broken`` (an error on green only), ``different`` (other rows), ``worse`` (slower on green),
    ``order only``, ``better``, ``same``; ``not compared`` says nothing about green, and ``note`` says why.
    """

    name: str
    verdict: Verdict
    rows: int | None = None
    rows_green: int | None = None
    error_blue: str = ""
    error_green: str = ""
    warnings_blue: tuple[str, ...] = ()
    warnings_green: tuple[str, ...] = ()
    seconds_blue: float | None = None
    seconds_green: float | None = None
    time_ratio: float | None = None
    """Green's median by blue's."""
    plan_differences: tuple[str, ...] = ()
    note: str = ""


def compare(
    blue: Any,
    green: Any,
    statements: Sequence[Statement],
    repeats: int,
    limit_s: float,
    *,
    on_progress: Callable[[int], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> list[Comparison]:
    """Run each statement on both sides, once to warm up and to compare answers, then `repeats` times in turns to compare times.

    Args:
        blue: connection that nobody else uses, in the session settings of the application (sql_mode!), as a user with SELECT
        green: the same on green
        statements: compared one after the other
        repeats: timed runs on each side
        limit_s: a statement that runs longer on a side is stopped there
        on_progress: called with the number of statements that are done
        wait: pauses so many seconds before an answer that differs is asked for again

    Raises:
        MySQLdb.Error: a connection was lost
    """
    sides = (_Side(blue, limit_s), _Side(green, limit_s))
    found: dict[int, Comparison] = {}
    # A session that has once chosen a schema cannot be without one again, so statements without one come first.
    order = sorted(range(len(statements)), key=lambda at: statements[at].schema_name is not None)
    try:
        for at in order:
            found[at] = _compare(*sides, statements[at], repeats, wait)
            if on_progress is not None:
                on_progress(len(found))
    finally:
        for side in sides:
            side.close()
    return [found[at] for at in range(len(statements))]


def refusal(text: str) -> str:
    """Why a statement is not sent, or "" for one SELECT that only reads."""
    from sqlglot import tokenize
    from sqlglot.errors import TokenError

    try:
        tokens = tokenize(text, read="mysql")
    except TokenError as error:
        return f"it cannot be read: {error}"
    if any(comment.startswith(("!", "M!")) for token in tokens for comment in token.comments):
        return "it has text in a comment that MySQL would run"
    words = [
        "" if token.token_type.name in ("STRING", "IDENTIFIER", "HINT") else token.text.upper() for token in tokens
    ]
    first = next((word for word in words if word != "("), "")
    if first not in ("SELECT", "WITH"):
        return f"it begins with {first or 'nothing'}, not with SELECT or WITH"
    return next(_forbidden(words), "")


def _chooses_freely(text: str) -> bool:
    from sqlglot import tokenize

    kinds = {token.token_type.name for token in tokenize(text, read="mysql")}
    return "LIMIT" in kinds and "ORDER_BY" not in kinds


def _forbidden(words: Sequence[str]) -> Iterator[str]:
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        if word == ";" and after:
            yield "it is more than one statement"
        elif word in ("INTO", ":=", "?"):
            yield {"INTO": "it writes its rows somewhere", ":=": "it assigns a variable", "?": "it has placeholders"}[
                word
            ]
        elif (word == "FOR" and after in ("UPDATE", "SHARE")) or (word == "LOCK" and after == "IN"):
            yield "it locks rows"
        elif word in _ACTING and after == "(":
            yield f"it calls {word}, which does more than read"
        elif word in _WRITING and after != "(" and words[0] == "WITH":  # REPLACE() and INSERT() are functions, too
            yield f"it has {word}"


def _compare(
    blue: _Side, green: _Side, statement: Statement, repeats: int, wait: Callable[[float], None]
) -> Comparison:
    if why := refusal(statement.sql):
        return Comparison(statement.name, "not compared", note=why)
    text = statement.sql.strip().rstrip(";")
    now = time.time()
    first = [side.run(text, statement.schema_name, now) for side in (blue, green)]
    seen, note = [first], ""
    while len(seen) < LOOKS and not (seen[-1][0].error or seen[-1][1].error) and seen[-1][0].rows != seen[-1][1].rows:
        wait(PAUSE_S)
        seen.append([side.run(text, statement.schema_name, now) for side in (blue, green)])
    of_blue, of_green = seen[-1]
    if len(seen) > 1 and of_blue.rows == of_green.rows:
        note = "the answers differed at first: green was behind, or blue is being written to"
    verdict, why = _answers(of_blue, of_green, [look[0] for look in seen])
    if verdict == "different" and not why and _chooses_freely(text):
        why = "it has LIMIT without ORDER BY, so each server may choose which rows come"
    base = Comparison(
        statement.name, verdict, of_blue.count, of_green.count, of_blue.error, of_green.error, of_blue.warnings, of_green.warnings,
        plan_differences=_plans(blue, green, text, of_blue, of_green), note=why or note,
    )  # fmt: skip
    if of_blue.error or of_green.error or verdict == "not compared":
        return base
    return _timed(base, blue, green, text, repeats, now, statement.schema_name)


def _answers(blue: _Answer, green: _Answer, looks: Sequence[_Answer]) -> tuple[Verdict, str]:
    if blue.error or green.error:
        return _errors(blue, green)
    if blue.rows != green.rows:
        if len({look.rows for look in looks}) > 1:
            return "not compared", "blue itself answers otherwise each time"
        if blue.names != green.names:
            return "different", "the columns have other names as well"
        return "different", ""
    if blue.names != green.names:
        changed = [f"{a} is {b}" for a, b in zip(blue.names, green.names, strict=False) if a != b]
        return "different", f"the same rows, but columns have other names: {', '.join(changed[:5])}"
    return ("same" if blue.ordered == green.ordered else "order only"), ""


def _errors(blue: _Answer, green: _Answer) -> tuple[Verdict, str]:
    limited = blue.is_limited, green.is_limited
    if blue.error and green.error:
        return "not compared", "it takes longer than the limit on both sides" if all(
            limited
        ) else "it fails on both sides"
    if green.error:
        return ("worse", "it takes longer than the limit on green") if limited[1] else ("broken", "")
    return "better", "it takes longer than the limit on blue" if limited[0] else "it fails on blue"


def _timed(
    base: Comparison, blue: _Side, green: _Side, text: str, repeats: int, now: float, schema: str | None
) -> Comparison:
    """The comparison with times, and the verdict that follows from them."""
    times: dict[_Side, list[float]] = {blue: [], green: []}
    for turn in range(repeats):
        for side in (blue, green) if turn % 2 == 0 else (green, blue):  # whatever disturbs the machine disturbs both
            answer = side.run(text, schema, now)
            if answer.error:
                return replace(base, note=f"a timed run failed: {answer.error}")
            times[side].append(answer.seconds)
    on_blue, on_green = (statistics.median(times[side]) for side in (blue, green))
    ratio, verdict = on_green / on_blue, base.verdict
    if abs(on_green - on_blue) >= MIN_DIFFERENCE_S:
        if ratio > RATIO and min(times[green]) > on_blue and verdict in ("same", "order only"):
            verdict = "worse"
        elif ratio < 1 / RATIO and min(times[blue]) > on_green and verdict == "same":
            verdict = "better"
    note = base.note
    if verdict == "worse" and base.verdict == "order only":
        note = "; ".join(filter(None, [note, "the rows come in another order as well"]))
    return replace(base, verdict=verdict, seconds_blue=on_blue, seconds_green=on_green, time_ratio=ratio, note=note)


@dataclass(frozen=True)
class _Answer:
    """What one run gave: hashes of the rows as a multiset and in order, or the error."""

    rows: int = 0
    ordered: str = ""
    count: int | None = None
    names: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def is_limited(self) -> bool:
        return self.error.startswith(f"{_TIME_LIMIT}:")


class _Side:
    """One connection, with what has to be put back in the end."""

    def __init__(self, conn: Any, limit_s: float) -> None:
        import MySQLdb

        self._conn = conn
        conn.autocommit(True)
        self._limit_before = self._one("SELECT @@SESSION.max_execution_time")
        self._schema = self._one("SELECT DATABASE()")
        self._do(f"SET SESSION max_execution_time = {int(limit_s * 1000)}")
        self._fixes_time = True
        try:
            self._do("SET timestamp = DEFAULT")
        except (
            MySQLdb.Error
        ):  # a release that lets only administrators set it: statements with NOW() are then compared as they are
            self._fixes_time = False

    def close(self) -> None:
        """Put the session back as it was; nothing to do when the connection is lost."""
        import MySQLdb

        try:
            self._do(f"SET SESSION max_execution_time = {int(self._limit_before)}")
            if self._fixes_time:
                self._do("SET timestamp = DEFAULT")
        except MySQLdb.Error as error:
            if error.args[0] not in _LOST:
                raise

    def run(self, text: str, schema: str | None, now: float) -> _Answer:
        """Run it in a read-only transaction, with one and the same NOW() on both sides."""
        import MySQLdb

        try:
            if schema or self._schema:
                self._conn.select_db(schema or self._schema)
            if self._fixes_time:
                self._do(f"SET timestamp = {now:.6f}")
            self._do("START TRANSACTION READ ONLY")
            try:
                return self._read(text)
            finally:
                self._do("ROLLBACK")
        except MySQLdb.Error as error:
            if error.args[0] in _LOST:
                raise
            return _Answer(error=f"{error.args[0]}: {error.args[-1]}")

    def _read(self, text: str) -> _Answer:
        from MySQLdb.cursors import SSCursor

        rows, count, ordered = 0, 0, hashlib.blake2b(digest_size=16)
        begun = time.perf_counter()
        spent = 0.0  # on hashes, which is not the server's time
        with self._conn.cursor(SSCursor) as cursor:
            cursor.execute(text)
            names = tuple(column[0] for column in cursor.description)
            while some := cursor.fetchmany(FETCH):
                paused = time.perf_counter()
                for row in some:
                    digest = hashlib.blake2b(_canonical(row), digest_size=16).digest()
                    rows = (rows + int.from_bytes(digest, "big")) % 2**128
                    ordered.update(digest)
                count += len(some)
                spent += time.perf_counter() - paused
            seconds = time.perf_counter() - begun - spent
        with self._conn.cursor() as cursor:
            cursor.execute(f"SHOW WARNINGS LIMIT {MAX_WARNINGS}")
            warnings = tuple(f"{number}: {message}" for _, number, message in cursor.fetchall())
        return _Answer(rows, ordered.hexdigest(), count, names, seconds, "", warnings)

    def plan(self, text: str) -> Mapping[str, Any] | str:
        """EXPLAIN FORMAT=JSON, or why there is none; in the schema of the last run."""
        import MySQLdb

        try:
            self._do("START TRANSACTION READ ONLY")
            try:
                return dict(json.loads(self._one(f"EXPLAIN FORMAT=JSON {text}")))
            finally:
                self._do("ROLLBACK")
        except MySQLdb.Error as error:
            if error.args[0] in _LOST:
                raise
            return f"{error.args[0]}: {error.args[-1]}"

    def _do(self, statement: str) -> None:
        with self._conn.cursor() as cursor:
            cursor.execute(statement)

    def _one(self, statement: str) -> Any:
        with self._conn.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0]


def _canonical(row: Sequence[Any]) -> bytes:
    """A row as bytes, each value with its length; the same for values that a client would see as the same."""
    parts = []
    for value in row:
        if value is None:
            parts.append(b"N")
            continue
        if isinstance(value, float):
            value = f"{value:.{DIGITS}g}"
        data = value if isinstance(value, bytes) else str(value).encode()
        parts.append(b"%d:%s" % (len(data), data))
    return b",".join(parts)


@dataclass(frozen=True)
class _Step:
    """How a plan reads one table."""

    table: str
    access: str
    key: str
    rows: int


def _plans(blue: _Side, green: _Side, text: str, of_blue: _Answer, of_green: _Answer) -> tuple[str, ...]:
    if of_green.error and not of_green.is_limited:
        return ()
    plans = [side.plan(text) for side in (blue, green)]
    for name, plan in zip(("blue", "green"), plans, strict=True):
        if isinstance(plan, str):
            return () if name == "blue" and of_blue.error else (f"no plan of {name}: {plan}",)
    return tuple(plan_differences(*plans))  # type: ignore[arg-type]


def plan_differences(blue: Mapping[str, Any], green: Mapping[str, Any]) -> list[str]:
    """What differs between two plans of EXPLAIN FORMAT=JSON: order of tables, access, key, rows; sorting and temporary tables."""
    steps = [_steps(plan) for plan in (blue, green)]
    orders = [" ".join(step.table for step in of) for of in steps]
    found = [] if orders[0] == orders[1] else [f"tables in order {orders[0] or 'none'} -> {orders[1] or 'none'}"]
    by_table = {step.table: step for step in steps[1]}
    for step in steps[0]:
        other = by_table.get(step.table)
        if other is None:
            continue
        for what, before, after in (("access", step.access, other.access), ("key", step.key, other.key)):
            if before != after:
                found.append(f"{step.table}: {what} {before} -> {after}")
        low, high = sorted((step.rows, other.rows))
        if high >= ROWS_RATIO * max(low, 1):
            found.append(f"{step.table}: rows {step.rows} -> {other.rows}")
    for flag, words in (("using_filesort", "filesort"), ("using_temporary_table", "temporary table")):
        counts = [sum(node.get(flag) is True for node in _nodes(plan)) for plan in (blue, green)]
        if counts[0] != counts[1]:
            found.append(f"{words}: {counts[0]} -> {counts[1]}")
    return found


def _steps(plan: Mapping[str, Any]) -> list[_Step]:
    tables = [node["table"] for node in _nodes(plan) if isinstance(node.get("table"), dict)]
    return [
        _Step(
            str(table.get("table_name", "")),
            str(table.get("access_type", "none")),
            str(table.get("key", "none")),
            int(table.get("rows_examined_per_scan") or 0),
        )
        for table in tables
    ]


def _nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)
