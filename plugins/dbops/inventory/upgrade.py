"""Which statements an upgrade from MySQL 5.7 to 8.0 breaks or changes: asked of an 8.0 server where there is one, else by rules.

The rules work on tokens, because a parser that accepts a statement proves nothing about 8.0, and a word inside a string or behind a dot
breaks nothing. Words, functions, variables and tables below are what a 5.7.22 server accepts and an 8.0.15 server does not, taken from the
servers themselves; a word that a later 8.0 reserves names its release. Where a text has lost what a rule needs (MySQL's digest quotes every
name and drops every literal), the answer is ``needs raw text``, never silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dbops.inventory import access
from dbops.inventory import text as sqltext
from dbops.inventory.model import Statement
from dbops.sql import ident

if TYPE_CHECKING:
    import MySQLdb

Severity = Literal["breaks", "changes", "deprecated", "needs raw text", "not checked"]


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


RESERVED: dict[str, tuple[int, int, int]] = {
    **dict.fromkeys(
        ("CUBE", "CUME_DIST", "DENSE_RANK", "EMPTY", "EXCEPT", "FIRST_VALUE", "FUNCTION", "GROUPING", "GROUPS", "JSON_TABLE", "LAG",
         "LAST_VALUE", "LATERAL", "LEAD", "NTH_VALUE", "NTILE", "OF", "OVER", "PERCENT_RANK", "PERSIST", "PERSIST_ONLY", "RANK",
         "RECURSIVE", "ROW", "ROWS", "ROW_NUMBER", "SYSTEM", "WINDOW"),
        (8, 0, 14),
    ),
    "INTERSECT": (8, 0, 31),
}  # fmt: skip
"""Words that 5.7 takes as unquoted names and 8.0 does not -> first release in which the word is reserved (8.0.14 or earlier: 8.0.14)."""
KEYWORDS_57 = frozenset({"CUBE", "FUNCTION", "ROW", "ROWS"})
"""Those of them that are keywords in 5.7 already: its digest prints them bare when they were not quoted, so there the digest can tell."""
_WINDOW_FUNCTIONS = {
    "CUME_DIST", "DENSE_RANK", "FIRST_VALUE", "LAG", "LAST_VALUE", "LEAD", "NTH_VALUE", "NTILE", "PERCENT_RANK", "RANK", "ROW_NUMBER",
}  # fmt: skip

REMOVED_FUNCTIONS = _words("""
    AREA ASBINARY ASTEXT ASWKB ASWKT BUFFER CENTROID CONTAINS CONVEXHULL CROSSES DECODE DES_DECRYPT DES_ENCRYPT DIMENSION DISJOINT
    DISTANCE ENCODE ENCRYPT ENDPOINT ENVELOPE EQUALS EXTERIORRING GEOMCOLLFROMTEXT GEOMCOLLFROMWKB GEOMETRYCOLLECTIONFROMTEXT
    GEOMETRYCOLLECTIONFROMWKB GEOMETRYFROMTEXT GEOMETRYFROMWKB GEOMETRYN GEOMETRYTYPE GEOMFROMTEXT GEOMFROMWKB GLENGTH INTERIORRINGN
    INTERSECTS ISCLOSED ISEMPTY ISSIMPLE LINEFROMTEXT LINEFROMWKB LINESTRINGFROMTEXT LINESTRINGFROMWKB MBREQUAL MLINEFROMTEXT
    MLINEFROMWKB MPOINTFROMTEXT MPOINTFROMWKB MPOLYFROMTEXT MPOLYFROMWKB MULTILINESTRINGFROMTEXT MULTILINESTRINGFROMWKB
    MULTIPOINTFROMTEXT MULTIPOINTFROMWKB MULTIPOLYGONFROMTEXT MULTIPOLYGONFROMWKB NUMGEOMETRIES NUMINTERIORRINGS NUMPOINTS OVERLAPS
    PASSWORD POINTFROMTEXT POINTFROMWKB POINTN POLYFROMTEXT POLYFROMWKB POLYGONFROMTEXT POLYGONFROMWKB SRID STARTPOINT TOUCHES WITHIN
    X Y
    """)
REMOVED_VARIABLES = _words("""
    date_format datetime_format have_crypt ignore_builtin_innodb ignore_db_dirs innodb_checksums innodb_file_format
    innodb_file_format_check innodb_file_format_max innodb_large_prefix innodb_locks_unsafe_for_binlog innodb_stats_sample_pages
    innodb_support_xa innodb_undo_logs log_builtin_as_identified_by_password log_syslog log_syslog_facility log_syslog_include_pid
    log_syslog_tag log_warnings max_tmp_tables metadata_locks_cache_size metadata_locks_hash_instances multi_range_count old_passwords
    query_cache_limit query_cache_min_res_unit query_cache_size query_cache_type query_cache_wlock_invalidate secure_auth
    show_compatibility_56 sync_frm time_format tx_isolation tx_read_only
    """)
REMOVED_MODES = _words(
    "DB2 MAXDB MSSQL MYSQL323 MYSQL40 ORACLE POSTGRESQL NO_AUTO_CREATE_USER NO_FIELD_OPTIONS NO_KEY_OPTIONS NO_TABLE_OPTIONS"
)
REMOVED_TABLES: dict[str, frozenset[str]] = {
    "information_schema": _words("""
        global_status global_variables innodb_lock_waits innodb_locks innodb_sys_columns innodb_sys_datafiles innodb_sys_fields
        innodb_sys_foreign innodb_sys_foreign_cols innodb_sys_indexes innodb_sys_tables innodb_sys_tablespaces innodb_sys_tablestats
        innodb_sys_virtual session_status session_variables
        """),
    "mysql": frozenset({"event", "ndb_binlog_index", "proc"}),
    "performance_schema": frozenset({"setup_timers"}),
}


@dataclass(frozen=True)
class Finding:
    """One thing that 8.0 rejects, does otherwise, or will lose; or that cannot be told from this text."""

    rule: str
    severity: Severity
    evidence: str
    """The words that the rule stopped at, or the server's own message."""
    fix: str
    by: Literal["rule", "server"] = "rule"


# -- tokens ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str
    """A kind of :func:`dbops.inventory.text.tokens`."""
    text: str
    """Words in upper case, quoted names without quotes, everything else as written."""


def _token(kind: str, written: str) -> _Token:
    if kind == "word":
        return _Token(kind, written.upper())
    return _Token(kind, written[1:-1].replace("``", "`") if kind == "name" else written)


class _Text:
    """A statement's tokens, with what was lost before they got here."""

    def __init__(self, text: str, *, is_digest: bool, masked: bool, target: tuple[int, int, int]) -> None:
        self.tokens = [_token(t.kind, t.text) for t in sqltext.code_tokens(text)]
        self.target = target
        self.kind = sqltext.kind_of(text)
        self.is_digest = is_digest
        self.no_literals = is_digest or masked

    def text(self, at: int) -> str:
        """Upper case text of a word or operator; '' for everything else and outside the statement."""
        if 0 <= at < len(self.tokens) and self.tokens[at].kind in ("word", "op", "mark"):
            return self.tokens[at].text
        return ""

    def is_name(self, at: int) -> bool:
        return 0 <= at < len(self.tokens) and self.tokens[at].kind in ("word", "name")

    def words(self, *words: str) -> Iterator[int]:
        """Positions at which these words follow one another, not behind a dot."""
        for at in range(len(self.tokens) - len(words) + 1):
            if (
                self.text(at) == words[0]
                and self.text(at - 1) != "."
                and all(self.text(at + i) == w for i, w in enumerate(words))
            ):
                yield at

    def closing(self, opening: int) -> int:
        """Position of the parenthesis that closes the one at `opening`; the text's end when none does."""
        depth = 0
        for at in range(opening, len(self.tokens)):
            depth += {"(": 1, ")": -1}.get(self.text(at), 0)
            if depth == 0:
                return at
        return len(self.tokens)

    def opening(self, closing: int) -> int:
        """Position of the parenthesis that the one at `closing` closes; -1 when none does."""
        depth = 0
        for at in range(closing, -1, -1):
            depth += {")": 1, "(": -1}.get(self.text(at), 0)
            if depth == 0:
                return at
        return -1

    def show(self, start: int, end: int) -> str:
        """The tokens as evidence: literals masked."""
        shown = (
            "?" if t.kind in ("string", "number") else f"`{t.text}`" if t.kind == "name" else t.text
            for t in self.tokens[start:end]
        )
        return " ".join(shown)


# -- rules -------------------------------------------------------------------------------------------------------------------

Hit = tuple[Severity, str]
_RULES: list[tuple[str, str, Callable[[_Text], Iterator[Hit]]]] = []


def _rule(name: str, fix: str) -> Callable[[Callable[[_Text], Iterator[Hit]]], Callable[[_Text], Iterator[Hit]]]:
    def add(function: Callable[[_Text], Iterator[Hit]]) -> Callable[[_Text], Iterator[Hit]]:
        _RULES.append((name, fix, function))
        return function

    return add


# The parenthesis after a name that follows one of these opens a column list, not arguments.
_BEFORE_NAME = {
    "INTO", "TABLE", "INDEX", "KEY", "REFERENCES", "FROM", "JOIN", "UPDATE", "CONSTRAINT", "EXISTS", "WITH", "PROCEDURE", "FUNCTION",
    "CALL", "VIEW", "LIKE", "COLUMN", "ADD", "PARTITION", "UNIQUE", "FULLTEXT", "REPLACE", "INSERT",
}  # fmt: skip


def _names_a_list(text: _Text, at: int) -> bool:
    """Whether the name at `at`, with a parenthesis after it, is a table, index or routine rather than a function that is called."""
    before = text.text(at - 1)
    if before in ("INSERT", "REPLACE"):
        return text.kind in ("insert", "replace")
    return before in _BEFORE_NAME or before == "." or (before == "ON" and text.kind == "ddl")


@_rule(
    "removed function",
    "use its successor: ST_... for spatial functions, AES_ENCRYPT/AES_DECRYPT, SHA2, JSON_ARRAY_APPEND",
)
def _removed_function(text: _Text) -> Iterator[Hit]:
    for at, token in enumerate(text.tokens):
        name = token.text.upper() if token.kind in ("word", "name") else ""
        if name in REMOVED_FUNCTIONS and text.text(at + 1) == "(" and not _names_a_list(text, at):
            yield "breaks", text.show(at, at + 2) + "...)"


def _windowed(text: _Text, at: int) -> bool:
    """``f(...) OVER``, which only 8.0 knows, maybe with FROM FIRST, RESPECT NULLS between."""
    after = text.closing(at + 1) + 1
    return text.text(at + 1) == "(" and text.text(after) in ("OVER", "FROM", "RESPECT", "IGNORE")


def _is_call(text: _Text, closing: int) -> bool:
    """Whether the parenthesis closes the arguments of a function, and not a subquery or a list."""
    before = text.opening(closing) - 1
    return text.is_name(before) and text.text(before) not in _BEFORE_NAME


_GRAMMAR: dict[str, Callable[[_Text, int], bool]] = {
    "CUBE": lambda t, at: t.text(at - 1) == "WITH",
    "RECURSIVE": lambda t, at: t.text(at - 1) == "WITH",
    "OF": lambda t, at: t.text(at - 1) in ("UPDATE", "SHARE") and t.text(at - 2) == "FOR",
    "ROW": lambda t, at: (
        t.text(at - 1) == "EACH"
        or (t.text(at - 1) == "CURRENT" and t.text(at + 1) in ("AND", ")"))
        or (t.text(at + 1) == "(" and not _names_a_list(t, at))
        or _is_value_of_set(t, at)
    ),
    "SYSTEM": lambda t, at: _is_value_of_set(t, at),
    "ROWS": lambda t, at: (
        _is_count(t, at - 1) or t.text(at + 1) in ("BETWEEN", "UNBOUNDED", "CURRENT") or _is_count(t, at + 1)
    ),
    "FUNCTION": lambda t, at: (
        t.text(at - 1) in ("CREATE", "DROP", "ALTER", "SHOW", "AGGREGATE")
        or (
            t.kind in ("ddl", "admin")
            and t.is_name(at + 1)
            and t.text(at - 1) not in ("TABLE", "INTO", "FROM", "ADD", ",", "(", "COLUMN")
        )
    ),
    "OVER": lambda t, at: t.text(at - 1) == "NULLS" or (t.text(at - 1) == ")" and _is_call(t, at - 1)),
    "WINDOW": lambda t, at: t.is_name(at + 1) and t.text(at + 2) == "AS" and t.text(at + 3) == "(",
    **dict.fromkeys(
        ("EXCEPT", "INTERSECT"),
        lambda t, at: (
            t.text(at + 1) in ("SELECT", "ALL", "DISTINCT", "(", "TABLE", "VALUES") and not _names_a_list(t, at)
        ),
    ),
    **dict.fromkeys(
        ("LATERAL", "JSON_TABLE"), lambda t, at: t.text(at + 1) == "(" and t.text(at - 1) in ("FROM", "JOIN", ",")
    ),
    "EMPTY": lambda t, at: t.text(at - 1) == "ON" and (t.text(at - 2) in ("NULL", "ERROR") or _is_count(t, at - 2)),
    "GROUPING": lambda t, at: t.text(at + 1) == "(" and not _names_a_list(t, at),
    "PERSIST": lambda t, at: t.kind in ("set", "admin") and t.text(at - 1) in ("SET", ",", "RESET", "@@"),
    "PERSIST_ONLY": lambda t, at: t.kind == "set" and t.text(at - 1) in ("SET", ",", "@@"),
    "GROUPS": lambda t, at: False,
    **dict.fromkeys(_WINDOW_FUNCTIONS, _windowed),
}
"""Where a word that has become reserved is grammar of 5.7 or 8.0, and not a name."""
_NEVER = (99, 0, 0)


def _is_value_of_set(text: _Text, at: int) -> bool:
    return text.kind == "set" and text.text(at - 1) in ("=", ":=")


def _is_count(text: _Text, at: int) -> bool:
    return 0 <= at < len(text.tokens) and (text.tokens[at].kind in ("number", "string") or text.tokens[at].text == "?")


@_rule(
    "reserved word",
    "quote the name with backticks (works in both versions), or put its table's name and a dot before it",
)
def _reserved_word(text: _Text) -> Iterator[Hit]:
    for at, token in enumerate(text.tokens):
        name = token.text.upper()
        if RESERVED.get(name, _NEVER) > text.target or text.text(at - 1) == ".":
            continue
        if token.kind == "word" and not _GRAMMAR[name](text, at):
            yield "breaks", text.show(max(at - 1, 0), at + 1)
        elif token.kind == "name" and text.is_digest and name not in KEYWORDS_57:
            yield "needs raw text", f"`{token.text}`: the digest quotes it whether the statement did or not"


_GROUP_ENDS = (")", "HAVING", "ORDER", "LIMIT", "PROCEDURE", "FOR", "LOCK", "UNION", "INTO", "WINDOW", ";")
_SELECT_ENDS = (")", "UNION", ";")


def _clause(text: _Text, at: int, ends: tuple[str, ...]) -> Iterator[int]:
    """Positions from `at` to the first of `ends`, without what stands in parentheses."""
    while at < len(text.tokens) and text.text(at) not in ends:
        yield at
        at = text.closing(at) + 1 if text.text(at) == "(" else at + 1


def _group_by(text: _Text) -> Iterator[tuple[int, int | None]]:
    """(position of GROUP, position of the first direction) of each GROUP BY."""
    for start in text.words("GROUP", "BY"):
        yield (
            start,
            next((at for at in _clause(text, start + 2, _GROUP_ENDS) if text.text(at) in ("ASC", "DESC")), None),
        )


@_rule("GROUP BY direction", "GROUP BY without ASC or DESC, and an ORDER BY with it")
def _group_direction(text: _Text) -> Iterator[Hit]:
    for start, direction in _group_by(text):
        if direction is not None:
            yield "breaks", text.show(start, direction + 1)


@_rule("GROUP BY order", "add ORDER BY where the order matters: 8.0 no longer sorts groups by itself")
def _group_order(text: _Text) -> Iterator[Hit]:
    for start, direction in _group_by(text):
        if direction is None and not any(text.text(at) == "ORDER" for at in _clause(text, start + 2, _SELECT_ENDS)):
            yield "changes", text.show(start, start + 4)


_PHRASES: tuple[tuple[str, Severity, str, tuple[str, ...]], ...] = (
    ("PROCEDURE ANALYSE", "breaks", "remove it", ("PROCEDURE", "ANALYSE")),
    ("query cache", "breaks", "remove it: 8.0 has no query cache", ("FLUSH", "QUERY", "CACHE")),
    ("query cache", "breaks", "remove it: 8.0 has no query cache", ("RESET", "QUERY", "CACHE")),
    ("DES keys", "breaks", "remove it: DES functions are gone", ("FLUSH", "DES_KEY_FILE")),
    ("EXPLAIN variant", "breaks", "plain EXPLAIN shows the same", ("EXPLAIN", "EXTENDED")),
    ("EXPLAIN variant", "breaks", "plain EXPLAIN shows the same", ("EXPLAIN", "PARTITIONS")),
    ("EXPLAIN variant", "breaks", "plain EXPLAIN shows the same", ("DESCRIBE", "EXTENDED")),
    ("EXPLAIN variant", "breaks", "plain EXPLAIN shows the same", ("DESC", "EXTENDED")),
    ("password hash", "breaks", "IDENTIFIED WITH mysql_native_password AS '<hash>'", ("IDENTIFIED", "BY", "PASSWORD")),
    ("upgrade of directory names", "breaks", "run it before the upgrade", ("UPGRADE", "DATA", "DIRECTORY", "NAME")),
    ("SQL_CALC_FOUND_ROWS", "deprecated", "a second query with COUNT(*)", ("SQL_CALC_FOUND_ROWS",)),
    ("FOUND_ROWS", "deprecated", "a second query with COUNT(*)", ("FOUND_ROWS", "(")),
    ("JSON_MERGE", "deprecated", "JSON_MERGE_PRESERVE", ("JSON_MERGE", "(")),
)


@_rule("SQL_CACHE", "remove it: 8.0 has no query cache")
def _sql_cache(text: _Text) -> Iterator[Hit]:
    options = {"SELECT", "ALL", "DISTINCT", "DISTINCTROW", "HIGH_PRIORITY", "STRAIGHT_JOIN", "SQL_SMALL_RESULT", "SQL_BIG_RESULT",
               "SQL_BUFFER_RESULT", "SQL_CALC_FOUND_ROWS"}  # fmt: skip
    for at in text.words("SQL_CACHE"):
        if text.text(at - 1) in options:
            yield "breaks", text.show(at - 1, at + 1)


@_rule(r"literal \N", "write NULL")
def _null_literal(text: _Text) -> Iterator[Hit]:
    for token in text.tokens:
        if token.text == "\\N":
            yield "breaks", r"\N"


@_rule(
    "GRANT that makes or changes a user",
    "CREATE USER or ALTER USER before, GRANT without IDENTIFIED, REQUIRE and limits",
)
def _grant_identified(text: _Text) -> Iterator[Hit]:
    if text.text(0) != "GRANT":
        return
    for at, token in enumerate(text.tokens):
        follows_to = any(text.text(i) == "TO" for i in range(at))
        if (
            token.kind == "word"
            and follows_to
            and (token.text in ("IDENTIFIED", "REQUIRE") or token.text.startswith("MAX_"))
        ):
            yield "breaks", f"GRANT ... {text.show(at, at + 2)}"
            return


@_rule("partitioning without InnoDB", "ENGINE = InnoDB: 8.0 partitions natively only")
def _partitioning(text: _Text) -> Iterator[Hit]:
    if text.kind != "ddl" or not any(text.words("PARTITION", "BY")):
        return
    for at in text.words("ENGINE"):
        value = at + 2 if text.text(at + 1) == "=" else at + 1
        if text.is_name(value) and text.tokens[value].text.upper() not in ("INNODB", "NDB", "NDBCLUSTER"):
            yield "breaks", text.show(at, value + 1) + " ... PARTITION BY"


@_rule(
    "removed variable",
    "transaction_isolation, transaction_read_only, log_error_verbosity ... or nothing: see the manual of 8.0",
)
def _removed_variable(text: _Text) -> Iterator[Hit]:
    for at, token in enumerate(text.tokens):
        if token.kind not in ("word", "name") or token.text.lower() not in REMOVED_VARIABLES:
            continue
        scope = at - 1
        if text.text(scope) == "." and text.text(scope - 1) in ("GLOBAL", "SESSION", "LOCAL"):
            scope -= 2
        if text.text(scope) == "@@" or (
            text.kind == "set" and text.text(at + 1) in ("=", ":=") and text.text(at - 1) != "."
        ):
            yield "breaks", text.show(scope if text.text(scope) == "@@" else at, at + 1)
    if text.kind == "show" and any(text.words("VARIABLES")):
        for token in text.tokens:
            if token.kind == "string" and token.text[1:-1].lower() in REMOVED_VARIABLES:
                yield "changes", f"SHOW VARIABLES finds no {token.text[1:-1]}: the answer is empty"
        if text.no_literals and any(token.text == "?" for token in text.tokens):
            yield "needs raw text", "SHOW VARIABLES ... ?: which variable is lost"


@_rule("removed sql_mode", "leave the mode out of the list")
def _removed_mode(text: _Text) -> Iterator[Hit]:
    at = next(iter(_assignments(text, "sql_mode")), None)
    if at is None:
        return
    lost = False
    for token in text.tokens[at:]:
        if token.kind in ("string", "word", "name"):
            for mode in sorted(set(re.findall(r"\w+", token.text.upper())) & REMOVED_MODES):
                yield "breaks", f"sql_mode {mode}"
        lost = lost or token.text == "?"
    if lost and text.no_literals:
        yield "needs raw text", "SET sql_mode = ?"


def _assignments(text: _Text, variable: str) -> Iterator[int]:
    if text.kind == "set":
        for at, token in enumerate(text.tokens):
            if token.kind in ("word", "name") and token.text.lower() == variable and text.text(at + 1) in ("=", ":="):
                yield at


@_rule(
    "removed system table",
    "its successor: INNODB_TABLES ..., performance_schema.data_locks, information_schema.ROUTINES, EVENTS",
)
def _removed_table(text: _Text) -> Iterator[Hit]:
    for at, token in enumerate(text.tokens):
        if token.kind not in ("word", "name"):
            continue
        schema = text.tokens[at - 2].text.lower() if at >= 2 and text.text(at - 1) == "." else None
        name = token.text.lower()
        if schema is not None and name in REMOVED_TABLES.get(schema, ()) and text.text(at + 1) != ".":
            yield "breaks", text.show(at - 2, at + 1)
        elif (
            schema is None
            and name.startswith("innodb_")
            and name in REMOVED_TABLES["information_schema"]
            and _is_table(text, at)
        ):
            yield "breaks", text.show(at - 1, at + 1)


def _is_table(text: _Text, at: int) -> bool:
    return text.text(at - 1) in ("FROM", "JOIN", ",") and text.text(at + 1) != "."


_WORD_BOUNDARY = re.compile(r"\[\[:[<>]:\]\]")


@_rule("regular expression", r"\\b in place of [[:<:]] and [[:>:]]; 8.0 has another engine (ICU)")
def _regular_expression(text: _Text) -> Iterator[Hit]:
    for at, token in enumerate(text.tokens):
        if token.kind != "word" or token.text not in ("REGEXP", "RLIKE") or text.text(at - 1) == ".":
            continue
        after = text.tokens[at + 1 : at + 2]
        if after and after[0].kind == "string":
            if _WORD_BOUNDARY.search(after[0].text):
                yield "breaks", f"{token.text} with [[:<:]] or [[:>:]]"
        elif text.no_literals and after and after[0].text == "?":
            yield "needs raw text", f"{token.text} ?: the pattern is lost"
        elif any(t.kind == "string" and _WORD_BOUNDARY.search(t.text) for t in text.tokens[at + 1 :]):
            yield "breaks", f"{token.text} with [[:<:]] or [[:>:]]"


@_rule("VALUES() in an upsert", "INSERT ... VALUES (...) AS new ON DUPLICATE KEY UPDATE a = new.a (8.0.19)")
def _upsert_values(text: _Text) -> Iterator[Hit]:
    for start in text.words("DUPLICATE", "KEY", "UPDATE"):
        if any(
            text.text(at) in ("VALUES", "VALUE") and text.text(at + 1) == "(" for at in range(start, len(text.tokens))
        ):
            yield "deprecated", "ON DUPLICATE KEY UPDATE ... VALUES(...)"


@_rule("operator", "AND, OR (|| becomes concatenation under PIPES_AS_CONCAT)")
def _operators(text: _Text) -> Iterator[Hit]:
    for sign in sorted({t.text for t in text.tokens if t.kind == "op"} & {"&&", "||"}):
        yield "deprecated", sign


_DML = ("select", "insert", "replace", "update", "delete")


@_rule("BINARY operator", "CAST(... AS BINARY)")
def _binary(text: _Text) -> Iterator[Hit]:
    for at in text.words("BINARY") if text.kind in _DML else ():
        after = text.tokens[at + 1].kind if at + 1 < len(text.tokens) else ""
        operand = after in ("word", "name", "string", "variable", "mark") or text.text(at + 1) == "("
        if operand and text.text(at - 1) not in ("AS", ","):
            yield "deprecated", text.show(at, at + 2)


@_rule("character set utf8", "utf8mb4; in a later release utf8 will mean utf8mb4")
def _utf8(text: _Text) -> Iterator[Hit]:
    before = ("USING", "CHARSET", "SET", "NAMES", "=")
    for at, token in enumerate(text.tokens):
        name = token.text.upper() if token.kind in ("word", "name") else ""
        if name == "_UTF8" or (name in ("UTF8", "UTF8MB3") and text.text(at - 1) in before):
            yield "deprecated", text.show(max(at - 1, 0), at + 1)


def check(
    text: str, *, is_digest: bool = False, masked: bool = False, target: tuple[int, int, int] = (8, 0, 99)
) -> list[Finding]:
    """What the rules say about one statement that 5.7 accepts.

    Args:
        text: the statement; the more raw it is, the more the rules can tell
        is_digest: `text` is MySQL's DIGEST_TEXT: names are quoted and literals lost
        masked: literals were replaced by ``?`` (see :func:`dbops.inventory.text.mask_literals`), names are as written
        target: release of 8.0; words that only a later one reserves are left out
    """
    scanned = _Text(text, is_digest=is_digest, masked=masked, target=target)
    found = [
        Finding(name, severity, evidence, fix) for name, fix, rule in _RULES for severity, evidence in rule(scanned)
    ]
    found += [
        Finding(name, severity, scanned.show(at, at + len(words)), fix)
        for name, severity, fix, words in _PHRASES
        for at in scanned.words(*words)
    ]
    return list(dict.fromkeys(found))


def check_statement(statement: Statement) -> list[Finding]:
    """The rules on a statement of the inventory: its stored text has no literals, so some answers are ``needs raw text``."""
    return check(statement.text, is_digest=statement.is_digest, masked=True)


# -- the server --------------------------------------------------------------------------------------------------------------

_NO_PREPARE = 1295
_DIGEST_FAILED = 3676
# What these say is that the object or the privilege is missing there, not that 8.0 refuses the statement.
_ABOUT_THE_SERVER = {1044, 1045, 1046, 1049, 1054, 1142, 1143, 1146, 1227, 1305, 1370, _NO_PREPARE, 3024}
# Rules for what neither PREPARE nor EXPLAIN looks at: MySQL checks it when the statement runs.
_ONLY_WHEN_RUN = {"partitioning without InnoDB"}


def check_on_server(
    conn: Any, text: str, *, schema: str | None = None, is_digest: bool = False, masked: bool = False
) -> list[Finding]:
    """What an 8.0 server says about one statement: PREPARE, then EXPLAIN; nothing is executed and nothing is written.

    Literals that MySQL looks at only when a statement runs (a pattern of REGEXP, a list of sql_mode) are tried on their own. Rules add
    what only a run could show, and warnings. Where the server lacks the table, column or privilege the answer is ``not checked`` beside
    what the rules say.

    Args:
        conn: a connection to the 8.0 server (best: a restored copy with the same schemas) that nobody else uses, in autocommit
        text: the statement as raw as there is
        schema: default schema of the session that sent it
        is_digest: see :func:`check`
        masked: see :func:`check`
    """
    rules = check(text, is_digest=is_digest, masked=masked)
    if sqltext.kind_of(text) == "other":
        return [
            Finding("server", "not checked", "no MySQL statement begins like this", "look at the text", "server"),
            *rules,
        ]
    statement = sqltext.undo_digest(text) if is_digest else text
    said = _ask(conn, statement, schema) or _try_literals(conn, statement, is_digest=is_digest, masked=masked)
    if said is None:
        return [f for f in rules if f.severity != "breaks" or f.rule in _ONLY_WHEN_RUN]
    return [
        said,
        *(f for f in rules if said.severity == "not checked" or f.severity != "breaks" or f.rule in _ONLY_WHEN_RUN),
    ]


def _ask(conn: Any, statement: str, schema: str | None) -> Finding | None:
    """The server's objection, or None."""
    import MySQLdb

    comment = sqltext.own_comment()
    try:
        with conn.cursor() as cursor:
            if schema:
                cursor.execute(f"{comment} USE {ident(schema)}")
            _prepare(cursor, statement)
        if access.explainable(statement):
            access.explain_json(conn, statement, schema)
    except MySQLdb.Error as error:
        return _verdict(error, statement)
    return None


def _prepare(cursor: Any, statement: str) -> None:
    import MySQLdb

    comment = sqltext.own_comment()
    cursor.execute(f"{comment} SET @dbops_probe = %s", (f"{comment} {statement}",))
    try:
        cursor.execute(f"{comment} PREPARE dbops_probe FROM @dbops_probe")
    except MySQLdb.Error as error:
        if error.args[0] != _NO_PREPARE or any(t.kind == "mark" for t in sqltext.code_tokens(statement)):
            raise
        # LOAD DATA, DROP FUNCTION, LOCK TABLES ... : the grammar at least can be asked.
        cursor.execute(f"{comment} SELECT STATEMENT_DIGEST_TEXT(@dbops_probe)")
        cursor.fetchall()
    else:
        cursor.execute(f"{comment} DEALLOCATE PREPARE dbops_probe")


_MISSING = re.compile(r"(?:(?P<schema>\w+)\.)?(?P<name>\w+)'? (?:does not|doesn't) exist")


def _verdict(error: MySQLdb.Error, statement: str) -> Finding:
    """Whether the message means that 8.0 has given something up, or that this server lacks what the statement names."""
    code, message = int(error.args[0]), str(error.args[-1])
    if code in access.CONNECTION_LOST:
        raise error
    # 'schema.name' or schema.name: a table event of the application is not mysql.event.
    missing = _MISSING.search(message)
    schema, name = (missing["schema"] or "", missing["name"]) if missing else ("", "")
    gone = {
        1305: name.upper() in REMOVED_FUNCTIONS,
        1146: name.lower() in REMOVED_TABLES.get(schema.lower(), ()),
        1054: "SQL_CACHE" in message.upper(),  # 8.0 takes it for a column
    }
    # Without a default schema the digest function fails, and a literal that was masked may stand where no placeholder can.
    unfit = (code == _DIGEST_FAILED and "SQL syntax" not in message) or "near '?" in message
    message = _without_values(code, message, statement)
    if (code in _ABOUT_THE_SERVER or unfit) and not gone.get(code):
        return Finding(
            "server", "not checked", f"{code}: {message}", "restore the schema there, or grant the privilege", "server"
        )
    return Finding("server", "breaks", f"{code}: {message}", "see the rule's advice, or the manual of 8.0", "server")


_NAMES_AN_OBJECT = {1049, 1146, 1193, 1305}
_NEAR = re.compile(r"near '(.*)' at line \d+", re.DOTALL)
_SHOWN_TOKENS = 4


def _without_values(code: int, message: str, statement: str) -> str:
    """The message as it may be stored: what it quotes is a value, but for names of objects and the place where the grammar stopped."""
    near = _NEAR.search(message)
    head, place = (message[: near.start()], _place(near[1], statement)) if near else (message, "")
    if code in _NAMES_AN_OBJECT:
        head = re.sub(r"'([\w.$]+)'", r"`\1`", head)
    return f"{sqltext.mask_literals(head).strip()} {place}".strip()


def _place(near: str, statement: str) -> str:
    """The tokens at which the server stopped; it quotes the text from there on, which may begin within a value."""
    at = len(statement) - len(near) if statement.endswith(near) else statement.find(near[:70])
    if at < 0 or "/*!" in statement or not sqltext.storable(statement)[1]:
        return "near ?"
    found = [t for t in sqltext.code_tokens(statement) if t.start >= at][:_SHOWN_TOKENS]
    shown = " ".join("?" if t.kind in ("string", "number") else t.text for t in found)
    return f"near {shown or 'its end'}"


def _try_literals(conn: Any, statement: str, *, is_digest: bool, masked: bool) -> Finding | None:
    """Patterns and modes, which the server only looks at when a statement runs, tried on their own."""
    import MySQLdb

    scanned = _Text(statement, is_digest=is_digest, masked=masked, target=_NEVER)
    comment = sqltext.own_comment()
    try:
        with conn.cursor() as cursor:
            for pattern in _patterns(scanned):
                cursor.execute(f"{comment} SELECT 'x' REGEXP {pattern}")
                cursor.fetchall()
            if modes := _modes(scanned):
                cursor.execute(
                    f"{comment} SET @dbops_mode = @@SESSION.sql_mode, SESSION sql_mode = %s", (",".join(modes),)
                )
                cursor.execute(f"{comment} SET SESSION sql_mode = @dbops_mode")
    except MySQLdb.Error as error:
        return _verdict(error, statement)
    return None


def _patterns(text: _Text) -> Iterator[str]:
    """Literal patterns of REGEXP, in the spelling of the statement."""
    for at, token in enumerate(text.tokens[:-1]):
        if token.kind == "word" and token.text in ("REGEXP", "RLIKE") and text.tokens[at + 1].kind == "string":
            yield text.tokens[at + 1].text


def _modes(text: _Text) -> list[str]:
    at = next(iter(_assignments(text, "sql_mode")), len(text.tokens))
    words = (re.findall(r"\w+", t.text) for t in text.tokens[at:] if t.kind == "string")
    return [mode for found in words for mode in found]
