"""What a statement touches: tables by access, columns by role, predicates, and how sure that is.

sqlglot reads SELECT, INSERT, UPDATE and DELETE; what it does not know of MySQL (REPLACE, LOW_PRIORITY, DELETE ... USING, INTO OUTFILE) is
rewritten into what it knows, other statements are read by rules. Every answer has a method: ``ast`` (the text as it is, but for its
literals), ``ast-normalised`` (after MySQL's digest spelling or its own words were undone), ``command-regex`` (a statement for which the
rules are the parser), ``truncated-regex`` (cut text: only what stands before the cut) and ``unparsed`` (with a reason; tables are those
that :mod:`scan` finds). Nothing is guessed silently and nothing is dropped.

What counts as which access: rows read, rows written (TRUNCATE too, also of a partition), ``ddl`` for a change of definition or maintenance
(ALTER, ANALYZE, OPTIMIZE). SHOW, DESCRIBE, EXPLAIN and GRANT read no rows; LOCK TABLES and HANDLER count as reads.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator

import sqlglot
from sqlglot import exp

from dbops.inventory import text as sqltext
from dbops.inventory import tree
from dbops.inventory.model import Access, Analysis, TableName
from dbops.inventory.scan import scan

logging.getLogger("sqlglot").setLevel(
    logging.ERROR
)  # "Falling back to parsing as a Command" is an answer here, not a warning

_DML = {
    "select": (exp.Query, exp.Table),
    "insert": (exp.Insert,),
    "replace": (exp.Insert,),
    "update": (exp.Update,),
    "delete": (exp.Delete,),
}
_NONDETERMINISTIC = frozenset((
    "NOW", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "SYSDATE", "CURDATE", "CURRENT_DATE", "CURTIME", "CURRENT_TIME", "UTC_DATE",
    "UTC_TIME", "UTC_TIMESTAMP", "UNIX_TIMESTAMP", "UUID", "UUID_SHORT", "RAND", "RANDOM_BYTES", "LAST_INSERT_ID", "CONNECTION_ID",
    "FOUND_ROWS", "ROW_COUNT", "USER", "CURRENT_USER", "SESSION_USER", "SYSTEM_USER", "DATABASE", "SCHEMA",
))  # fmt: skip
_WITHOUT_PARENTHESES = frozenset((
    "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIME", "LOCALTIMESTAMP", "UTC_DATE", "UTC_TIME", "UTC_TIMESTAMP",
    "CURRENT_USER",
))  # fmt: skip
_PRINTED_WITHOUT = _WITHOUT_PARENTHESES | {"NOW", "CURDATE", "CURTIME"}  # a digest prints CURRENT_TIMESTAMP as NOW
# Words that a parenthesis may follow without being a function.
_NO_FUNCTION = frozenset((
    "SELECT", "FROM", "WHERE", "AND", "OR", "XOR", "NOT", "IN", "ON", "USING", "AS", "VALUES", "VALUE", "SET", "JOIN", "BY",
    "HAVING", "WHEN", "THEN", "ELSE", "CASE", "EXISTS", "ANY", "ALL", "SOME", "UNION", "LIKE", "BETWEEN", "INTO", "TABLE",
    "INSERT", "KEY", "INDEX", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "OVER", "PARTITION", "LIMIT", "DISTINCT", "INTERVAL",
    "RETURN", "DIV", "MOD", "AGAINST", "VARCHAR", "CHAR", "DECIMAL", "NUMERIC", "INT", "INTEGER", "BIGINT", "SMALLINT",
    "TINYINT", "MEDIUMINT", "FLOAT", "DOUBLE", "BINARY", "VARBINARY", "BIT", "DATETIME", "TIMESTAMP", "TIME", "YEAR", "ENUM",
    "TEXT", "BLOB", "LATERAL", "IS", "REGEXP", "RLIKE", "COLUMNS", "STRAIGHT_JOIN", "CALL", "DO", "FULLTEXT", "SPATIAL",
    "RECURSIVE", "WITH", "EXCEPT",
))  # fmt: skip


_BEFORE_TABLE = frozenset(
    ("INTO", "TABLE", "JOIN", "REFERENCES", "INDEX", "KEY", "CALL", "WITH", "PROCEDURE", "FUNCTION", "VIEW")
)


def analyse(statement: str, *, is_digest: bool = False, truncated: bool = False) -> Analysis:
    """Read one statement. Never raises for what a server may send: the worst answer is ``unparsed`` with a reason.

    Args:
        statement: text in any form, masked or not; literals do not matter
        is_digest: `statement` has MySQL's digest spelling
        truncated: `statement` was cut; see :func:`dbops.inventory.text.is_truncated`
    """
    text = sqltext.mask_literals(statement)
    kind = sqltext.kind_of(text)
    found = _cut(text, kind) if truncated else _by_rule(text, kind) or _by_tree(text, kind, is_digest)
    _facts(found, text, is_digest)
    return found


def _cut(text: str, kind: sqltext.Kind) -> Analysis:
    found = scan(text, kind, "truncated-regex", "the text was cut: tables after the cut are not known")
    rule = _by_rule(text, kind)
    if rule is not None:
        found.uses, found.routines = rule.uses, rule.routines
    found.flags.add("truncated")
    return found


def _by_tree(text: str, kind: sqltext.Kind, is_digest: bool) -> Analysis:
    if kind not in _DML:
        return scan(text, kind, "unparsed", f"no rule reads this {kind} statement" if text else "empty text")
    normal = _normalise(sqltext.undo_digest(text) if is_digest else text, kind)
    # Where a rule changes the text, only the changed text is tried: sqlglot reads LOW_PRIORITY as a table, without a complaint.
    parsed, reason = _parse(normal, kind)
    if parsed is None:
        return scan(text, kind, "unparsed", reason)
    found = Analysis(kind, "ast" if normal == text else "ast-normalised")
    tree.read(parsed, found)
    return found


def _parse(text: str, kind: sqltext.Kind) -> tuple[exp.Expr | None, str]:
    try:
        trees = _trees(text)
    except RecursionError:
        return None, "nested too deeply for the parser"
    except Exception as error:  # whatever the parser stumbles over, a statement is listed, never lost
        if _MARK.search(text):  # in some places sqlglot takes ? for an operator of PostgreSQL
            return _parse(_MARK.sub("'?'", text), kind)
        return None, " ".join(_COLOUR.sub("", str(error)).replace("'?'", "?").split())[:200] or type(error).__name__
    if len(trees) != 1:
        return None, f"{len(trees)} statements in one text"
    parsed = trees[0]
    while isinstance(parsed, exp.Paren):
        parsed = parsed.this
    if not isinstance(parsed, _DML[kind]):
        return None, f"the parser took this {kind} for {type(parsed).__name__}"
    return parsed, ""


def _trees(text: str) -> list[exp.Expr]:
    try:
        return [t for t in sqlglot.parse(text, dialect="mysql") if t is not None]
    except sqlglot.errors.ParseError as error:
        if "number of provided arguments" not in str(error):
            raise
        # How many arguments `?, ...` stands for is not known, so their number must not matter; other errors do.
        dialect = sqlglot.Dialect.get_or_raise("mysql")
        parser = dialect.parser(error_level=sqlglot.ErrorLevel.IGNORE)
        trees = parser.parse(dialect.tokenize(text), text)
        if parser.errors:
            raise parser.errors[0] from error
        return [t for t in trees if t is not None]


_MARK = re.compile(r"(?<!['%])\?(?!['%])")
_COLOUR = re.compile(r"\x1b\[\d*m")


# -- the words of MySQL ------------------------------------------------------------------------------------------------------

_NAME = r"(?:`(?:[^`]|``)+`|[A-Za-z0-9_$\u0080-\U0010ffff]+)"
_TABLE = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_LIST = rf"{_TABLE}(?:\s*,\s*{_TABLE})*"
_QUALIFIED = re.compile(rf"({_NAME})(?:\s*\.\s*({_NAME}))?")


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


_EVERYWHERE = [
    (_rule(r"/\*\+.*?\*/"), ""),  # hints say how, not what
    (
        _rule(
            r"\b(SELECT|INSERT|REPLACE|UPDATE|DELETE)((?:\s+(?:HIGH_PRIORITY|LOW_PRIORITY|DELAYED|QUICK|SQL_NO_CACHE|SQL_CACHE"
            r"|SQL_CALC_FOUND_ROWS|SQL_SMALL_RESULT|SQL_BIG_RESULT|SQL_BUFFER_RESULT|STRAIGHT_JOIN))+)\b"
        ),
        r"\1",
    ),
    (_rule(r"\b(?:DATE|TIME|TIMESTAMP)\s+\?"), "?"),
    (_rule(r"(?:\b_[a-z0-9]+|\(\s*_charset\s*\))\s+\?"), "?"),
    (_rule(r"\?(?:\s+\?)+"), "?"),  # 'a' 'b' is one string
    (_rule(r"\{\s*`?(?:OJ|D|T|TS|FN)\b`?([^{}]*)\}"), r"\1"),  # the escapes of ODBC
    (_rule(r"\bDISTINCTROW\b"), "DISTINCT"),
    (_rule(r";\s*$"), ""),
]
_BY_KIND = {
    "replace": [(_rule(r"\bREPLACE\b(?!\s*\()"), "INSERT")],
    "select": [
        (_rule(r"\bWITH\s+(?:CASCADED\s+|LOCAL\s+)?CHECK\s+OPTION\b"), ""),
        (_rule(r"\bPROCEDURE\s+ANALYSE\s*\([^)]*\)"), ""),
        (
            _rule(
                r"\bINTO\s+(?:(?:OUTFILE|DUMPFILE)\s+\?"
                r"(?:\s+(?:CHARACTER\s+SET\s+\w+|CHARSET\s+\w+|FIELDS|COLUMNS|LINES|OPTIONALLY|(?:TERMINATED|ENCLOSED|ESCAPED|STARTING)\s+BY\s+\?))*"
                r"|@?\s*(?:[\w$.]+|`[^`]*`|\?)(?:\s*,\s*@?\s*(?:[\w$.]+|`[^`]*`|\?))*)"
            ),
            "",
        ),
        (_rule(r"(\bGROUP\s+BY\b[^()]*?)\b(?:ASC|DESC)\b"), r"\1"),
    ],
    "update": [(_rule(r"\bUPDATE\s+IGNORE\b"), "UPDATE")],
    "delete": [
        (_rule(r"\bDELETE\s+IGNORE\b"), "DELETE"),
        (_rule(r"\s*\.\s*\*(?=\s*(?:,|FROM\b|USING\b))"), ""),
        # DELETE FROM a, b USING t1 a JOIN t2 b is DELETE a, b FROM t1 a JOIN t2 b, which sqlglot reads right.
        (_rule(rf"\bDELETE\s+FROM\s+({_LIST})\s+USING\s+(?!\()"), r"DELETE \1 FROM "),
    ],
}  # fmt: skip


def _normalise(text: str, kind: sqltext.Kind) -> str:
    """The statement in words that sqlglot knows."""
    for pattern, replacement in (*_EVERYWHERE, *_BY_KIND.get(kind, ())):
        text = pattern.sub(replacement, text, count=1 if kind == "replace" and replacement == "INSERT" else 0)
    return text.strip()


# -- statements that are read by rules ---------------------------------------------------------------------------------------


def _listed(text: str) -> list[TableName]:
    return [_table(m) for part in text.split(",") if (m := _QUALIFIED.match(part.strip()))]


def _table(match: re.Match[str]) -> TableName:
    first, second = match[1], match[2]
    return TableName(_bare(first), _bare(second)) if second else TableName(None, _bare(first))


def _bare(quoted: str) -> str:
    return quoted[1:-1].replace("``", "`") if quoted.startswith("`") else quoted


_IF = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_RENAMES = rf"{_TABLE}\s+TO\s+{_TABLE}"
_NO_TABLES = (_rule(r"()"), "")

# By kind: patterns in order with the access of their groups; "rest" means that what follows may hold a SELECT.
_RULES: dict[str, list[tuple[re.Pattern[str], str]]] = {
    "load": [
        (_rule(rf"\bINTO\s+TABLE\s+({_TABLE})"), "write"),
        (_rule(rf"^\s*LOAD\s+INDEX\s+INTO\s+CACHE\s+({_LIST})"), "ddl"),
        _NO_TABLES,
    ],
    "truncate": [(_rule(rf"\bTRUNCATE\s+(?:TABLE\s+)?({_TABLE})"), "write")],
    "call": [(_rule(rf"\bCALL\s+({_TABLE})"), "routine")],
    "handler": [(_rule(rf"\bHANDLER\s+({_TABLE})"), "read")],
    "lock": [(_rule(r"^\s*LOCK\s+TABLES?\s+(.+)$"), "read"), _NO_TABLES],
    "ddl": [
        (_rule(rf"^\s*CREATE\b[^;]*?\bTRIGGER\s+{_IF}{_TABLE}\s+(?:BEFORE|AFTER)\s+\w+\s+ON\s+({_TABLE})"), "ddl"),
        (_rule(rf"^\s*RENAME\s+TABLES?\s+({_RENAMES}(?:\s*,\s*{_RENAMES})*)"), "ddl-pairs"),
        (
            _rule(
                r"^\s*(?:CREATE|ALTER|DROP|RENAME)\b(?:\s+OR\s+REPLACE|\s+AGGREGATE|\s+UNDO|\s+DEFINER\s*=\s*(?:CURRENT_USER(?:\s*\(\s*\))?"
                rf"|(?:\?|{_NAME})\s*(?:@\s*(?:\?|{_NAME}))?))*"
                r"\s+(?:PROCEDURE|FUNCTION|EVENT|DATABASE|SCHEMA|USER|SYSTEM_USER|ROLE|SERVER|TABLESPACE|LOGFILE|TRIGGER|INSTANCE|RESOURCE|SPATIAL"
                r"\s+REFERENCE)\b()"
            ),
            "",
        ),
        (_rule(rf"^\s*CREATE\b(?:\s+(?:ONLINE|OFFLINE|UNIQUE|FULLTEXT|SPATIAL))*\s+INDEX\s+{_NAME}\s.*?\bON\s+({_TABLE})"), "ddl"),
        (_rule(rf"^\s*DROP\s+(?:(?:ONLINE|OFFLINE)\s+)?INDEX\s+{_NAME}\s+ON\s+({_TABLE})"), "ddl"),
        (_rule(rf"^\s*DROP\s+(?:TEMPORARY\s+)?(?:TABLES?|VIEW)\s+{_IF}({_LIST})"), "ddl"),
        (_rule(rf"^\s*ALTER\s+(?:ONLINE\s+|OFFLINE\s+|IGNORE\s+)*TABLE\s+({_TABLE})(.*)$"), "ddl alter"),
        (_rule(rf"^\s*CREATE\s+(?:TEMPORARY\s+)?TABLE\s+{_IF}({_TABLE})(.*)$"), "ddl create"),
        (_rule(rf"^\s*(?:CREATE|ALTER)\b[^;]*?\bVIEW\s+({_TABLE})(.*)$"), "ddl create"),
    ],
    "admin": [
        (_rule(r"^\s*(?:ANALYZE|CHECK|CHECKSUM|OPTIMIZE|REPAIR)\s+(?:\w+\s+)?TABLES?\s+(.+)$"), "ddl"),
        _NO_TABLES,
    ],
    "transaction": [_NO_TABLES],
    "set": [_NO_TABLES],
    "show": [_NO_TABLES],
    "do": [_NO_TABLES],
    "prepared": [_NO_TABLES],
}  # fmt: skip
_HOLDS_SELECT = ("set", "do", "call", "ddl", "load")
_REFERENCED = _rule(rf"\bREFERENCES\s+({_TABLE})")
_RENAMED = _rule(rf"\bRENAME\s+(?:TO\s+|AS\s+|=\s*)?(?!(?:INDEX|KEY|COLUMN)\b)({_TABLE})|\bWITH\s+TABLE\s+({_TABLE})")
_EMPTIES = _rule(r"\b(?:TRUNCATE|DROP|EXCHANGE)\s+PARTITION\b")
_EXCHANGED = _rule(rf"\bEXCHANGE\s+PARTITION\b.*?\bWITH\s+TABLE\s+({_TABLE})")
_LIKE = _rule(rf"^\s*\(?\s*LIKE\s+({_TABLE})")
_UNION = _rule(rf"\bUNION\s*=\s*\(\s*({_LIST})\s*\)")


def _by_rule(text: str, kind: sqltext.Kind) -> Analysis | None:
    """Statements for which a rule is the parser; None when no rule applies."""
    for pattern, access in _RULES.get(kind, ()):
        match = pattern.search(text)
        if match:
            found = Analysis(kind, "command-regex")
            rest = text[match.end() :]
            if access.endswith(("alter", "create")):
                rest = match[2]
                found.uses |= set(_definition(rest, access))
            if access.endswith("alter") and _EMPTIES.search(rest):
                found.uses |= {(name, "write") for name in _listed(match[1])}
            if access.split(" ")[0] == "ddl-pairs":
                found.uses |= {
                    (_table(m), "ddl")
                    for m in _QUALIFIED.finditer(re.sub(r"\bTO\b", ",", match[1], flags=re.IGNORECASE))
                }
            elif access == "routine":
                found.routines |= {_dotted(name) for name in _listed(match[1])}
            elif access:
                found.uses |= {(name, _as_access(access)) for name in _listed(match[1])}
            if kind in _HOLDS_SELECT and access != "":
                _add_selects(found, rest)
            elif kind in ("set", "do"):
                _add_selects(found, text)
            return found
    return None


def _as_access(word: str) -> Access:
    return "write" if word == "write" else "read" if word == "read" else "ddl"


def _dotted(name: TableName) -> str:
    return f"{name.schema}.{name.table}" if name.schema else name.table


def _definition(rest: str, access: str) -> Iterator[tuple[TableName, Access]]:
    """Tables that a CREATE or ALTER names beside its own."""
    for match in _REFERENCED.finditer(rest):
        yield from ((name, "read") for name in _listed(match[1]))
    for match in _UNION.finditer(rest):
        yield from ((name, "read") for name in _listed(match[1]))
    if access.endswith("alter"):
        for match in _EXCHANGED.finditer(rest):
            yield from ((name, "write") for name in _listed(match[1]))
        for match in _RENAMED.finditer(rest):
            yield from ((name, "ddl") for name in _listed(match[1] or match[2]))
    elif like := _LIKE.match(rest):
        yield from ((name, "read") for name in _listed(like[1]))


_SELECT_BEGINS = _rule(
    r"\(\s*(?=SELECT\b|WITH\b)|\b(?=SELECT\b)|\b(?=WITH\s+(?:RECURSIVE\s+)?[\w`]+\s*(?:\([^)]*\)\s*)?AS\s*\()"
)


def _add_selects(found: Analysis, text: str) -> None:
    """Merge what the SELECTs in `text` (SET @x = (SELECT ...), CREATE TABLE t SELECT ...) read."""
    at = 0
    while match := _SELECT_BEGINS.search(text, at):
        inner = text[match.end() : _closing(text, match.end())]
        at = match.end() + max(len(inner), 1)
        part = _by_tree(inner, "select", is_digest=True)
        found.uses |= {(name, how) for name, how in part.uses if how == "read"}
        found.columns |= part.columns
        found.flags |= part.flags | {"subquery"}
        if part.method == "unparsed":
            found.method, found.reason = "unparsed", part.reason


def _closing(text: str, start: int) -> int:
    """Where the parenthesis closes that was open at `start`, or the end."""
    depth = 0
    for match in re.finditer(r"[()]|`[^`]*`", text[start:]):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth < 0:
            return start + match.start()
    return len(text)


# -- facts that need no tree -------------------------------------------------------------------------------------------------


def _facts(found: Analysis, text: str, is_digest: bool) -> None:
    """Functions and the flags that follow from words."""
    tokens = [token for token in sqltext.tokens(text) if token.kind != "comment"]
    found.functions |= set(_functions(tokens, _PRINTED_WITHOUT if is_digest else _WITHOUT_PARENTHESES))
    if found.functions & _NONDETERMINISTIC:
        found.flags.add("nondeterministic")
    if any(token.kind == "hint" for token in tokens):
        found.flags.add("hint")
    if found.kind in ("insert", "replace") and "/* , ... */" in text:
        found.flags.add("multi-row")
    if found.kind == "load" and re.search(r"\bREPLACE\s+INTO\s+TABLE\b", text, re.IGNORECASE):
        found.flags.add("replace")
    if found.kind == "prepared":
        found.flags.add("dynamic-sql")
        found.reason = found.reason or "the statement's text stands where it was prepared"


def _functions(tokens: list[sqltext.Token], bare: frozenset[str]) -> Iterable[str]:
    """Names that a parenthesis follows (upper case; schema.name as written), and functions that need none."""
    for at, token in enumerate(tokens):
        if token.kind not in ("word", "name"):
            continue
        word = _bare(token.text).upper()
        before = tokens[at - 1].text.upper() if at else ""
        called = at + 1 < len(tokens) and tokens[at + 1].text == "("
        if before == ".":
            if called and at > 1:
                yield f"{_bare(tokens[at - 2].text)}.{_bare(token.text)}"
        elif (called and word not in _NO_FUNCTION and before not in _BEFORE_TABLE) or (
            not called and token.kind == "word" and word in bare
        ):
            yield word


# -- bodies of routines, triggers and events ------------------------------------------------------------------------------------

_DROPPED = frozenset(("LEAVE", "ITERATE", "OPEN", "CLOSE", "FETCH", "SIGNAL", "RESIGNAL", "END"))
_OPENERS = frozenset(("BEGIN", "LOOP", "REPEAT", "ELSE"))
_UNTIL = {"IF": "THEN", "ELSEIF": "THEN", "WHEN": "THEN", "WHILE": "DO", "UNTIL": "END", "RETURN": "", "CASE": "WHEN"}


def split_body(body: str) -> list[str]:
    """The statements of a routine's, trigger's or event's body, in order, as written but without the compound statements around them.

    Conditions and values that may read tables (IF, WHILE, UNTIL, CASE, RETURN, DEFAULT) come as ``DO expression``; cursors as their SELECT;
    handlers as the statement that they run.
    """
    return _Body(sqltext.plain(body)).statements


class _Body:
    """Takes a body apart at its semicolons, and each piece from its front."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.statements: list[str] = []
        self.piece: list[sqltext.Token] = []
        for token in sqltext.code_tokens(body):
            if token.text == ";":
                self._unwrap()
                self.piece = []
            else:
                self.piece.append(token)
        self._unwrap()

    def _word(self, at: int) -> str:
        return self.piece[at].text.upper() if at < len(self.piece) and self.piece[at].kind != "name" else ""

    def _unwrap(self) -> None:
        """Add the statement in the piece, after the words of compound statements that stand before it."""
        while self.piece:
            word = self._word(0)
            if self._word(1) == ":":  # a label
                del self.piece[:2]
            elif word in _OPENERS:
                del self.piece[0]
            elif word in _UNTIL:
                self._condition(_UNTIL[word])
            elif word == "DECLARE":
                self._declared()
            else:
                if word not in _DROPPED:
                    self.statements.append(self._sql(self.piece))
                return

    def _condition(self, until: str) -> None:
        """Take off the first word and the expression up to `until` that follows it, outside of parentheses and CASE ... END."""
        depth, at = 0, 1
        while at < len(self.piece) and not (depth == 0 and self._word(at) == until):
            depth += {"(": 1, ")": -1, "CASE": 1, "END": -1}.get(self._word(at), 0)
            at += 1
        expression = self.piece[1:at]
        if any(token.text == "(" for token in expression):  # only a function or a subquery can reach a table
            self.statements.append(f"DO {self._sql(expression)}")
        del self.piece[: at if until == "WHEN" else at + 1]

    def _declared(self) -> None:
        """A cursor gives its SELECT, a handler its statement, a variable its default."""
        words = [self._word(at) for at in range(len(self.piece))]
        if "FOR" in words and "CURSOR" in words[:3]:
            del self.piece[: words.index("FOR") + 1]
        elif "FOR" in words and "HANDLER" in words[:3]:
            del self.piece[: self._after_conditions(words.index("FOR") + 1)]
        else:
            del self.piece[: words.index("DEFAULT") if "DEFAULT" in words else len(words)]
            if self.piece:
                self._condition("")

    def _after_conditions(self, at: int) -> int:
        """After the conditions of a handler: SQLSTATE [VALUE] '...', an error number, SQLWARNING, NOT FOUND, SQLEXCEPTION or a name."""
        while True:
            word = self._word(at)
            at += 2 if word in ("SQLSTATE", "NOT") else 1
            if word == "SQLSTATE" and self._word(at - 1) == "VALUE":
                at += 1
            if self._word(at) != ",":
                return at
            at += 1

    def _sql(self, tokens: list[sqltext.Token]) -> str:
        return self.body[tokens[0].start : tokens[-1].end]
