"""One identity for a statement, whichever source shows it: a digest of 5.7 or 8.0, a sample, a log, a routine's body.

MySQL's own DIGEST cannot be that identity: 5.7 and 8.0 hash differently, print ``IN (?)`` and ``IN (...)`` differently, and text from a log
has none. The fingerprint is the SHA-256 of the token stream that both kinds of text can be brought to: what a digest loses (values, quotes,
comments, letter case of keywords used as names, which synonym was written) is taken from full text too. Needs no parser, so there is no
statement without one.

Not equal, because the server's text has lost what it would take (each is a test):
- a digest cut at max_digest_length and the full text;
- a statement over a view before 5.7.36, whose digest is that of the view's body;
- a name with a back-quote in it, which digests do not escape;
- ``/*!80000 ... */``, which 5.7 skips and we read;
- text of a session with ANSI_QUOTES or NO_BACKSLASH_ESCAPES.
Equal although they differ: names that differ by letter case only, and ``a || b`` and ``a | b``, which digests print alike.
"""

from __future__ import annotations

import hashlib

from dbops.inventory import text as sqltext

# What MySQL's lexer reads as one token (sql/lex.h of 5.7 and 8.0), in the spelling kept here.
_SYNONYMS = {
    "character": "char", "fields": "columns", "schema": "database", "schemas": "databases", "dec": "decimal", "float4": "float",
    "float8": "double", "integer": "int", "int1": "tinyint", "int2": "smallint", "int3": "mediumint", "middleint": "mediumint",
    "int4": "int", "int8": "bigint", "rlike": "regexp", "some": "any", "varcharacter": "varchar", "distinctrow": "distinct",
    "explain": "describe", "relay_thread": "io_thread", "ndbcluster": "ndb", "geomcollection": "geometrycollection",
    "session_user": "user", "system_user": "user", "curdate": "current_date", "curtime": "current_time",
    "now": "current_timestamp", "localtime": "current_timestamp", "localtimestamp": "current_timestamp", "substr": "substring",
    "mid": "substring", "std": "stddev_pop", "stddev": "stddev_pop", "variance": "var_pop",
    **{f"sql_tsi_{unit}": unit for unit in ("second", "minute", "hour", "day", "week", "month", "quarter", "year")},
    "<>": "!=", "||": "|", "\\n": "?", "...": "?+",
}  # fmt: skip
_VALUE, _LIST = "?", "?+"
_VALUES = frozenset((_VALUE, _LIST))
# After these a + or - is a sign (the server's list is shorter: `a = - ?` is a digest, `a, ?` has lost the sign).
_BEFORE_SIGN = frozenset((
    "(", ",", "=", "!=", "<", ">", "<=", ">=", "<=>", ":=", "+", "-", "*", "/", "%", "^", "&", "|", "<<", ">>", "&&", "!", "~",
    "every", "at", "starts", "ends", "default", "return", "if", "elseif", "case", "when", "then", "else", "while", "until",
    "select", "or", "xor", "and", "not", "between", "like", "regexp", "interval", "div", "mod", "in", "is", "limit", "offset",
    "by", "set", "values", "where", "having", "on", "as", "distinct", "all", "using",
))  # fmt: skip


def fingerprint(text: str, *, is_digest: bool = False, truncated: bool = False) -> str:
    """SHA-256 (hex) of what the statement is, without its values.

    Args:
        text: the statement in any spelling, masked or not; any text has a fingerprint
        is_digest: `text` has MySQL's digest spelling
        truncated: `text` was cut: its last token is left out and the result differs from that of any whole text
    """
    return hashlib.sha256(
        normalise(text, is_digest=is_digest, truncated=truncated).encode(errors="replace")
    ).hexdigest()


def normalise(text: str, *, is_digest: bool = False, truncated: bool = False) -> str:
    """The token stream that is hashed, tokens joined by blanks: lower case, values ``?``, lists of values ``?+``."""
    parts = _Parts()
    for token in sqltext.code_tokens(sqltext.statement_of(text) if is_digest else text):
        parts.add(token.kind, token.text)
    out = parts.out
    while out and out[-1] == ";":
        out.pop()
    if truncated:
        out = [*out[:-1], "..."]
    return " ".join(out)


class _Parts:
    """Collects tokens and folds what digests fold."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.opened: list[int] = []

    def add(self, kind: str, value: str) -> None:
        if kind in ("string", "number", "mark"):
            self._add_value(_VALUE)
        elif kind == "variable":
            self.out += ["@", _VALUE]
        elif kind == "name":
            self._add_word(value.strip("`").replace("``", "`").lower())
        else:
            self._add_word(value.lower())

    def _add_word(self, word: str) -> None:
        word = _SYNONYMS.get(word, word)
        if word in _VALUES:
            self._add_value(word)
        elif word == "null" and self._is_value():
            self._add_value(_VALUE)
        elif word == ")":
            self.out.append(word)
            if self.opened:
                self._close(self.opened.pop())
        else:
            if word == "(":
                self.opened.append(len(self.out))
            self.out.append(word)

    def _is_value(self) -> bool:
        return not self.out or self.out[-1] not in ("is", "not")

    def _add_value(self, value: str) -> None:
        out = self.out
        if out and out[-1].startswith("_") and out[-1].isascii():
            out.pop()  # a character set introducer
        if out[-3:] == ["(", "_charset", ")"]:
            del out[-3:]  # the same in a digest
            self.opened = [at for at in self.opened if at < len(out)]
        while len(out) > 1 and out[-1] in ("-", "+") and out[-2] in _BEFORE_SIGN:
            out.pop()
        if len(out) > 1 and out[-1] == "," and out[-2] in _VALUES:
            del out[-2:]
            value = _LIST
        if out[-1:] == ["limit"] or out[-2:] == ["limit", _LIST]:
            value = _VALUE
        out.append(value)
        if out[-4:] == ["limit", _VALUE, "offset", _VALUE]:
            del out[-2:]

    def _close(self, start: int) -> None:
        out = self.out
        size = len(out) - start
        if size == 3 and out[start + 1] == _VALUE and start and out[start - 1] == "in":
            out[start + 1] = _LIST
        other = start - 1 - size
        # The lists are compared last: parentheses may be nested a hundred thousand deep.
        if (
            other > 0
            and out[start - 1] == ","
            and not _is_call(out[other - 1])
            and out[other : start - 1] == out[start:]
        ):
            del out[start - 1 :]


def _is_call(before: str) -> bool:
    return before not in ("values", "value", "(", ",", "in")
