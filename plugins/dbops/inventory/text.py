"""SQL text before it is parsed: tokens, kind by first keyword, literals masked, MySQL's digest spelling undone, truncation, callers.

One tokenizer serves masking, fingerprints and the rules of :mod:`parse`. It follows MySQL's lexer without ANSI_QUOTES ("x" is a string)
and NO_BACKSLASH_ESCAPES, and never fails: what is left open at the end of a cut text ends there. Rules for digest text were measured on
MySQL 5.7.22 and 8.0.15; each names what the server prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

Kind = str
"""select, insert, replace, update, delete, load, truncate, call, do, handler, ddl, lock, transaction, set, show, admin, prepared, other"""

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("SELECT", "WITH", "TABLE", "VALUES"), "select"),
    "INSERT": "insert",
    "REPLACE": "replace",
    "UPDATE": "update",
    "DELETE": "delete",
    "LOAD": "load",
    "IMPORT": "load",
    "TRUNCATE": "truncate",
    "CALL": "call",
    "DO": "do",
    "HANDLER": "handler",
    **dict.fromkeys(("CREATE", "ALTER", "DROP", "RENAME"), "ddl"),
    **dict.fromkeys(("LOCK", "UNLOCK"), "lock"),
    **dict.fromkeys(("BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "XA"), "transaction"),
    "SET": "set",
    **dict.fromkeys(("SHOW", "EXPLAIN", "DESCRIBE", "DESC", "HELP"), "show"),
    **dict.fromkeys(
        ("ANALYZE", "CHECK", "CHECKSUM", "OPTIMIZE", "REPAIR", "FLUSH", "RESET", "KILL", "GRANT", "REVOKE", "PURGE", "CHANGE",
         "STOP", "CACHE", "INSTALL", "UNINSTALL", "SHUTDOWN", "RESTART", "CLONE", "BINLOG", "USE", "SIGNAL", "RESIGNAL", "GET"),
        "admin",
    ),
    **dict.fromkeys(("PREPARE", "EXECUTE", "DEALLOCATE"), "prepared"),
}  # fmt: skip
_AFTER_WITH = ("SELECT", "UPDATE", "DELETE", "INSERT", "REPLACE", "TABLE", "VALUES")

# -- tokens ------------------------------------------------------------------------------------------------------------------

_IN_NAME = r"\w$\u0080-\U0010ffff"
_QUOTED = r"""'(?:[^'\\]|''|\\.|\\\Z)*+(?:'|\Z)|"(?:[^"\\]|""|\\.|\\\Z)*+(?:"|\Z)"""
_NO_ESCAPES = r"""'(?:[^']|'')*+(?:'|\Z)|"(?:[^"]|"")*+(?:"|\Z)"""
_LEXER = r"""
    (?P<space>[\s\x00]+)
    |(?P<version>/\*!\d*)
    |(?P<hint>/\*\+(?:=\s*(?:{_QUOTED})|(?!\*/).)*+(?:\*/|\Z))
    |(?P<comment>/\*.*?(?:\*/|\Z)|--(?=[\s\x00-\x1f]|\Z)[^\n]*|\#[^\n]*)
    |(?P<string>[nNxXbB](?=')(?:{_QUOTED})|{_QUOTED})
    |(?P<name>`(?:[^`]|``)*+(?:`|\Z))
    |(?P<number>(?<![{_IN_NAME}`]\.)(?:0[xX][0-9a-fA-F]*|0b[01]*|(?:\d+(?:\.\d*)?|(?<![{_IN_NAME}`])\.\d+)(?:[eE][-+]?(?:\d+|\Z))?)
        (?![{_IN_NAME}]))
    |(?P<word>[{_IN_NAME}]+)
    |(?P<variable>@(?!@)(?:[{_IN_NAME}.]+|{_QUOTED}|`(?:[^`]|``)*+(?:`|\Z)))
    |(?P<mark>\?)
    |(?P<op>:=|<=>|->>|->|<=|>=|<>|!=|<<|>>|\|\||&&|\.\.\.|@@|\\N|.)
"""


def _token_pattern(quoted: str) -> re.Pattern[str]:
    form = _LEXER.replace("{_QUOTED}", quoted).replace("{_IN_NAME}", _IN_NAME)
    return re.compile(form, re.VERBOSE | re.DOTALL)


_TOKEN = _token_pattern(_QUOTED)
_TOKEN_WITHOUT_ESCAPES = _token_pattern(_NO_ESCAPES)


class Token(NamedTuple):
    """A piece of text: string, number, name (in back-quotes), word, variable (@x, or the host of a user), mark (?), op, comment or hint."""

    kind: str
    text: str
    """As written."""
    start: int
    end: int


def plain(text: str) -> str:
    """The text with ``/*!40101 SQL */`` as SQL."""
    if "/*!" not in text:
        return text
    parts: list[str] = []
    at = depth = 0
    while match := _TOKEN.match(text, at):
        part, at = match[0], match.end()
        if match.lastgroup == "version":
            part, depth = " ", depth + 1
        elif depth and part == "*" and text.startswith("/", at):  # of code, not of a string or comment within
            part, at, depth = " ", at + 1, depth - 1
        parts.append(part)
    return "".join(parts)


def tokens(text: str) -> Iterator[Token]:
    """Every token but white space, with its place in :func:`plain` text. What stands in ``/*! ... */`` is code, whatever its version."""
    for match in _TOKEN.finditer(plain(text)):
        kind = match.lastgroup
        if kind and kind != "space":
            yield Token(kind, match[0], match.start(), match.end())


def code_tokens(text: str) -> list[Token]:
    """Tokens without comments and hints."""
    return [token for token in tokens(text) if token.kind not in ("comment", "hint")]


def kind_of(text: str) -> Kind:
    """The kind by the first keyword, after comments and opening parentheses; "other" for what no keyword names.

    ``WITH`` takes the kind of the statement that follows its common table expressions.
    """
    depth = 0
    in_with = False
    for kind, value, *_ in tokens(text):
        if value == "(":
            depth += 1
        elif value == ")":
            depth -= 1
        elif kind == "word" and in_with:
            if depth == 0 and value.upper() in _AFTER_WITH:
                return _KINDS[value.upper()]
        elif kind == "word":
            if value.upper() != "WITH":
                return _KINDS.get(value.upper(), "other")
            in_with, depth = True, 0
        elif kind not in ("comment", "hint") and not in_with:
            return "other"
    return "select" if in_with else "other"


# -- literals ----------------------------------------------------------------------------------------------------------------

_DIGEST_ROWS = "/* , ... */"
"""What a digest prints for more rows of a VALUES list; the one comment that means something."""
_INTRODUCER = re.compile(r"_[a-zA-Z0-9]+\Z")
_MASKED_VARIABLE = re.compile(r"@['\"0-9.]")
_VALUES = frozenset(("?", "NULL", "null", "..."))


def mask_literals(text: str) -> str:
    """The text with every string and number replaced by ``?`` and comments kept out: what may be stored.

    Works on text that no parser accepts, including text that was cut inside a string. Kept is what a judgement needs: the wildcards at the
    ends of a LIKE pattern (``'?%'``), NULL, hints, and that an IN list or a list of rows has more than one entry (the third and later ones
    of literals go). Text in double quotes is a string here, as in MySQL without ANSI_QUOTES. Masking twice is masking once.
    """
    return "".join(_Mask(text).parts)


_CLOSED = re.compile(r"""[nNxXbB]?(?:'(?:[^'\\]|''|\\.)*+'|"(?:[^"\\]|""|\\.)*+")|`(?:[^`]|``)*+`""", re.DOTALL)
_CLOSED_WITHOUT_ESCAPES = re.compile(r"""[nNxXbB]?(?:'(?:[^']|'')*+'|"(?:[^"]|"")*+")|`(?:[^`]|``)*+`""", re.DOTALL)
_ESCAPED_QUOTE = re.compile(r"\\['\"]")


def storable(text: str, *, cut: bool = False) -> tuple[str, bool]:
    """(masked text, whether it is the whole text): as :func:`mask_literals`, without what may be a value that looks like code.

    Where a string is open at the end of a text that is not `cut`, or a quote behind a backslash may end a string or not
    (NO_BACKSLASH_ESCAPES) and both can be, nobody knows what is code behind the first such literal: the text ends there with ``?``. So it
    does where MySQL refused a statement and a log kept it: at a value that is out of its quotes (``'O'Brien'``), an unquoted address or
    password.
    """
    code = plain(text)
    end = _doubtful(code, cut)
    return (mask_literals(text), True) if end is None else (f"{mask_literals(code[:end]).rstrip()} ?".lstrip(), False)


def _doubtful(code: str, cut: bool) -> int | None:
    found = [at for at in (_ambiguous(code, cut), _out_of_quotes(code)) if at is not None]
    return min(found, default=None)


def _ambiguous(code: str, cut: bool) -> int | None:
    quoted = [m for m in _TOKEN.finditer(code) if m.lastgroup in ("string", "name")]
    strings = [m for m in quoted if m.lastgroup == "string"]
    escaped = next((m.start() for m in strings if _ESCAPED_QUOTE.search(m[0])), None)
    if quoted and not _CLOSED.fullmatch(quoted[-1][0]):
        first = escaped if cut else strings[0].start() if strings else None
        return quoted[-1].start() if first is None else first
    if escaped is None or (not cut and not _closes_without_escapes(code)):
        return None  # no valid statement of a session with NO_BACKSLASH_ESCAPES leaves a string open
    return escaped


def _closes_without_escapes(code: str) -> bool:
    quoted = [m[0] for m in _TOKEN_WITHOUT_ESCAPES.finditer(code) if m.lastgroup in ("string", "name")]
    return all(map(_CLOSED_WITHOUT_ESCAPES.fullmatch, quoted))


# Without a blank between them: after a string, and before a variable.
_TOUCHES_STRING = frozenset((
    "AND", "OR", "XOR", "NOT", "IS", "IN", "LIKE", "BETWEEN", "DIV", "MOD", "REGEXP", "RLIKE", "SOUNDS", "COLLATE", "ESCAPE", "THEN",
    "ELSE", "WHEN", "END", "AS", "FROM", "WHERE", "ASC", "DESC", "LIMIT", "ORDER", "GROUP", "HAVING", "UNION", "ON", "USING", "INTO", "FOR",
    "WITH", "LOCK", "PROCEDURE", "PATH", "COLUMNS", "SEPARATOR",
))  # fmt: skip
_TOUCHES_VARIABLE = frozenset((
    "SELECT", "AND", "OR", "XOR", "NOT", "IN", "LIKE", "BETWEEN", "DIV", "MOD", "REGEXP", "RLIKE", "THEN", "ELSE", "WHEN", "CASE", "BY",
    "ON", "WHERE", "HAVING", "SET", "INTO", "VALUES", "USING", "DISTINCT", "ALL", "INTERVAL", "AGAINST", "CALL", "DO", "RETURN",
))  # fmt: skip
_WITH_VALUES = frozenset(("select", "insert", "replace", "update", "delete", "call", "do"))
_PASSWORDS = frozenset(("PASSWORD", "MASTER_PASSWORD", "SOURCE_PASSWORD"))
_NO_PASSWORD = frozenset(("PASSWORD", "OLD_PASSWORD", "RANDOM", "EXPIRE", "NULL"))
_SET_PASSWORD = re.compile(r"\s*SET\s+PASSWORD\b", re.IGNORECASE)
_BLANK_OR_SIGN = re.compile(r"[\s=(,<>]")


def _out_of_quotes(code: str) -> int | None:
    """Where a value stands as code, so that MySQL refuses the statement; None when nothing looks like it."""
    with_values = kind_of(code) in _WITH_VALUES
    string: int | None = None
    before: list[tuple[str, str]] = [("", "")] * 2  # kind and capitals of the two tokens before
    end = 0
    for match in _TOKEN.finditer(code):
        kind, value = match.lastgroup or "", match[0]
        if kind in ("space", "comment", "hint"):
            continue
        last, word, touches = before[1], value.upper() if kind in ("word", "op") else "", match.start() == end
        if kind == "string" and string is None:
            string = match.start()
        if with_values and touches:
            if last[0] == "string" and (kind == "number" or (kind == "word" and word not in _TOUCHES_STRING)):
                return string
            if kind == "variable" and last[0] not in ("", "op") and last[1] not in _TOUCHES_VARIABLE:
                return max((m.end() for m in _BLANK_OR_SIGN.finditer(code, 0, match.start())), default=0)
        if kind == "word" and not with_values and word not in _NO_PASSWORD and _asks_for_password(before, code):
            return match.start()
        before, end = [last, (kind, word)], match.end()
    return None


def _asks_for_password(before: list[tuple[str, str]], code: str) -> bool:
    first, second = before[0][1], before[1][1]
    return (first == "IDENTIFIED" and second == "BY") or (
        second == "=" and (first in _PASSWORDS or _SET_PASSWORD.match(code) is not None)
    )


class _Mask:
    """Masked tokens; each part carries the blank before it."""

    def __init__(self, text: str) -> None:
        self.parts: list[str] = []
        self.bare: list[str] = []
        self.opened: list[int] = []
        blank = False
        for match in _TOKEN.finditer(plain(text)):
            kind, value = match.lastgroup or "", match[0]
            masked = self._masked(kind, value)
            if masked is None:
                blank = bool(self.bare)
                continue
            self._add(masked, blank)
            blank = False

    def _masked(self, kind: str, value: str) -> str | None:
        """What stands for a token; None for what only separates."""
        match kind:
            case "space":
                return None
            case "comment":
                return value if value == _DIGEST_ROWS else None
            case "hint":
                return f"/*+ {mask_literals(value[3:].removesuffix('*/'))} */"
            case "string" if self.bare and self.bare[-1].upper() == "LIKE":
                return _masked_pattern(value)
            case "string" | "number":
                return "?"
            case "variable" if _MASKED_VARIABLE.match(value):
                return "@?"
            case "op" if value == "\\N":
                return "NULL"
        return value

    def _add(self, value: str, blank: bool) -> None:
        if value == "?" and self.bare and _INTRODUCER.match(self.bare[-1]):
            self.bare[-1], self.parts[-1] = "?", self.parts[-1][: -len(self.bare[-1])] + "?"
            return
        self.bare.append(value)
        self.parts.append(f" {value}" if blank else value)
        if value == "(":
            self.opened.append(len(self.bare) - 1)
        elif value == ")" and self.opened:
            self._shorten(self.opened.pop())

    def _shorten(self, start: int) -> None:
        """At a closing parenthesis: drop the third and later entries of an IN list and of a list of rows."""
        size = len(self.bare) - start
        if size > 5 and start and self.bare[start - 1].upper() == "IN" and _is_list(self.bare[start:]):
            self.bare[start:] = ["(", "?", ",", "?", ")"]
            self.parts[start:] = [self.parts[start], "?", ",", " ?", ")"]
        elif self._repeats(start, size, 1) and self._repeats(start, size, 2):
            del self.bare[start - 1 :], self.parts[start - 1 :]

    def _repeats(self, start: int, size: int, back: int) -> bool:
        """Whether the row `back` places before the one at `start` is the same but for its literals."""
        other = start - back * (size + 1)
        if (
            other < 1
            or self.bare[other + size] != ","
            or self.bare[other] != "("
            or self.bare[other - 1].upper() not in _BEFORE_ROW
        ):
            return False
        rows = zip(self.bare[start : start + size], self.bare[other : other + size], strict=True)
        return all(a == b or (a in _VALUES and b in _VALUES) for a, b in rows)


_BEFORE_ROW = frozenset(("VALUES", "VALUE", "IN", "(", ","))


def _is_list(group: list[str]) -> bool:
    return all(value in _VALUES for value in group[1:-1:2]) and all(value == "," for value in group[2:-1:2])


def _masked_pattern(literal: str) -> str:
    inner = literal.lstrip("nN").strip("'\"")
    first = "%" if inner.startswith(("%", "_")) else ""
    last = "%" if inner.endswith(("%", "_")) and not inner.endswith(("\\%", "\\_")) else ""
    return f"'{first}?{last}'" if first or last else "?"


# -- the spelling of digests --------------------------------------------------------------------------------------------------

_SYNONYMS = {
    "VARCHARACTER": "VARCHAR",
    "DISTINCTROW": "DISTINCT",
    "SYSTEM_USER": "USER",
    **{f"SQL_TSI_{unit}": unit for unit in ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")},
}
_SYNONYM = re.compile(r"\b(" + "|".join(_SYNONYMS) + r")\b")

# (pattern, replacement) on digest text only; the comment says what the server prints.
_DIGEST_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"/\* , \.\.\. \*/"), ""),  # more rows of a VALUES list
    (re.compile(r"\bIN \(\s*\.\.\.\s*\)"), "IN ( ?, ? )"),
    (re.compile(r"\(\s*\.\.\.\s*\)"), "( ?, ?, ? )"),  # arguments, VALUES (...)
    (re.compile(r"\bLIMIT \?, \.\.\."), "LIMIT ?, ?"),
    (re.compile(r"\?, \.\.\."), "?, ?, ?"),  # folded arguments; IF() needs three
    (re.compile(r"@@\s*(?:(?:SESSION|GLOBAL|LOCAL)\s*\.\s*)?`?(\w+)`?", re.IGNORECASE), r"@@\1"),
    (re.compile(r"@\s*\?"), "@v"),
    (re.compile(r"`(\w+)` \("), r"\1 ("),  # function names are back-quoted
    (re.compile(r"\s+\.\s+"), "."),  # `a` . `b`
    (re.compile(r"\bFIELDS \("), "COLUMNS ("),  # of JSON_TABLE
]


_GENERATED = re.compile(r"\s*(?:\(unknown\) )?`?\bparse_gcol_expr\b`? \(.*\Z", re.IGNORECASE | re.DOTALL)


def statement_of(digest_text: str) -> str:
    """A digest text without what was parsed behind the statement.

    The statement that opens a table with generated columns has their expressions at the end of its digest: ``PARSE_GCOL_EXPR ( ... )`` in
    5.7, ``(unknown) `parse_gcol_expr` ( ... )`` in 8.0. They come and go with FLUSH TABLES and a restart.
    """
    return _GENERATED.sub("", digest_text) if "parse_gcol_expr" in digest_text.lower() else digest_text


def undo_digest(text: str) -> str:
    """SQL that a parser accepts, from the text that MySQL prints for a digest. Names keep their quotes, values stay ``?``."""
    result = statement_of(text).strip()
    for pattern, replacement in _DIGEST_RULES:
        result = pattern.sub(replacement, result)
    return _SYNONYM.sub(lambda m: _SYNONYMS[m[1]], result)


# A token takes 2 bytes in the digest's buffer, an identifier its length and 4; what digests fold is one token.
_DIGEST_TOKEN = re.compile(
    r"`(?P<quoted>(?:[^`]|``)*)`|\((?:\?|\.\.\.)\)(?: /\* , \.\.\. \*/)?|\?, \.\.\.|[A-Za-z_$][\w$]*|\?|\.\.\.|:=|<=>|<=|>=|<>|!="
    r"|<<|>>|\|\||&&|->>|->|[^\s\w]|\d+"
)
_SLACK = 12
_LONGEST_IDENTIFIER = 4 + 64 * 3


def digest_bytes(text: str) -> int:
    """Estimate of the bytes that a digest text took in the server's token buffer, a few too many rather than too few."""
    total = 0
    for token in _DIGEST_TOKEN.finditer(text):
        quoted = token["quoted"]
        total += 2 if quoted is None else 4 + len(quoted.encode(errors="replace"))
    return total


def is_truncated(text: str, max_digest_length: int) -> bool:
    """Whether a digest text was cut. MySQL leaves no mark, so this is judged by how full the token buffer is.

    The first token that does not fit ends the text. Most are 2 bytes long and leave the buffer full to the last few bytes; an identifier
    may leave as much free as it is long, and then what stands before it is unfinished. A whole text that fills the buffer is taken for cut.
    """
    if statement_of(text) != text:
        return False  # what was cut, if anything, stands behind the statement
    free = max_digest_length - digest_bytes(text)
    return free < _SLACK or (free < _LONGEST_IDENTIFIER and _is_unfinished(text))


def _is_unfinished(text: str) -> bool:
    """Parentheses are open, or the last token is one that an identifier may follow."""
    pieces = [token.text for token in code_tokens(text)]
    return pieces.count("(") > pieces.count(")") or not pieces or pieces[-1] not in ("?", ")", "*", "...")


# -- callers -----------------------------------------------------------------------------------------------------------------

_SQLCOMMENTER = re.compile(r"([\w.%-]+)='((?:[^'\\]|\\.)*)'")


@dataclass(frozen=True)
class Caller:
    """Who sends a statement, as far as its comments say: sqlcommenter pairs, and other comments as they stand."""

    tags: tuple[tuple[str, str], ...] = ()
    comments: tuple[str, ...] = ()


def comments(text: str) -> tuple[str, ...]:
    """Its comments as written; none behind the place from which on nobody knows what is code and what a value, see :func:`storable`."""
    if not any(sign in text for sign in ("/*", "--", "#")):
        return ()
    code = plain(text)
    end = _doubtful(code, cut=False)
    return tuple(token.text for token in tokens(code if end is None else code[:end]) if token.kind == "comment")


def caller(text: str) -> Caller:
    """Read comments. Source of the pair format: open-telemetry.github.io/opentelemetry-sqlcommenter (sorted, url-encoded)."""
    tags: dict[str, str] = {}
    others = []
    for comment in comments(text):
        if comment == _DIGEST_ROWS:
            continue
        body = comment.removeprefix("/*").removesuffix("*/").lstrip("#-").strip()
        pairs = _SQLCOMMENTER.findall(body)
        if pairs:
            tags |= {unquote(k): unquote(v.replace("\\'", "'")) for k, v in pairs}
        elif body:
            others.append(body[:200])
    return Caller(tuple(sorted(tags.items())), tuple(others))


_CALLER_TAGS = frozenset(("controller", "action", "framework", "route", "application", "db_driver", "job", "service"))
"""Pairs that name code. Others (a user, a trace, a session) are values."""
_NOT_A_WORD = re.compile(r"\S*[\d@=?'\"]\S*")


def callers(text: str) -> tuple[str, ...]:
    """Who sends a statement, as it may be stored: the pairs that name code, and the plain words of each other comment.

    What looks like a value is ``?``: numbers and long hexadecimal words in pairs, strings and words with a digit, ``@`` or ``=`` elsewhere.
    """
    found = caller(text)
    tags = ",".join(f"{name}={_nameless(value)}" for name, value in found.tags if name in _CALLER_TAGS)
    words = (_NOT_A_WORD.sub("?", storable(comment)[0]).strip() for comment in found.comments)
    return tuple(part for part in (tags, *words) if part.strip("? "))


def _nameless(value: str) -> str:
    return "?" if "@" in value else re.sub(r"[0-9A-Fa-f-]{12,}|[0-9]{3,}", "?", value)


OWN_TAG = "dbops"


def own_comment() -> str:
    """The comment that marks our own statements, so that they can be told from the workload and subtracted."""
    return f"/* {OWN_TAG}='inventory' */"
