"""Tables by the words that stand before them: for text that was cut and for text that the parser does not understand.

Reads tokens, so that strings, comments and quoted names cannot mislead; knows lists, aliases, common table expressions and where a write's
targets stand. It sees no columns, and a result says that it comes from here (method ``truncated-regex`` or ``unparsed``).
"""

from __future__ import annotations

from collections.abc import Sequence

from dbops.inventory import text as sqltext
from dbops.inventory.model import Analysis, Method, TableName

_MODIFIERS = frozenset(("LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE", "LATERAL"))
_NO_TABLE = frozenset((
    "SELECT", "SET", "WHERE", "VALUES", "VALUE", "DUAL", "ON", "OUTFILE", "DUMPFILE", "IF", "NOT", "EXISTS", "USING", "JOIN",
    "INNER", "LEFT", "RIGHT", "CROSS", "NATURAL", "STRAIGHT_JOIN", "ORDER", "GROUP", "HAVING", "LIMIT", "UNION", "FOR", "LOCK",
    "PARTITION", "USE", "FORCE", "WINDOW", "WITH", "FROM", "PROCEDURE", "INTO", "AS",
))  # fmt: skip
# FROM is no clause in EXTRACT(YEAR FROM x), TRIM(LEADING ? FROM x), SUBSTRING(x FROM 2).
_FROM_FUNCTIONS = frozenset(("EXTRACT", "TRIM", "SUBSTRING", "SUBSTR", "MID"))
_NOT_A_TARGET_BEFORE = frozenset(("KEY", "FOR", "ON"))  # ON DUPLICATE KEY UPDATE, FOR UPDATE, ON UPDATE CASCADE


def scan(text: str, kind: sqltext.Kind, method: Method, reason: str) -> Analysis:
    """Tables of a SELECT or of a write, whole or cut."""
    return _Scan(Analysis(kind, method, reason=reason), sqltext.code_tokens(text)).run()


class _Scan:
    def __init__(self, found: Analysis, tokens: Sequence[sqltext.Token]) -> None:
        self.found = found
        self.tokens = tokens
        self.aliases: dict[str, TableName] = {}
        self.named: dict[str, TableName] = {}
        """Tables without an alias."""
        self.tables: list[tuple[TableName, int]] = []
        """(table, depth of parentheses)."""

    def run(self) -> Analysis:
        ctes = self._ctes()
        functions: list[bool] = []
        at = 0
        while at < len(self.tokens):
            word = self._word(at)
            if self._text(at) == "(":
                functions.append(at > 0 and self._word(at - 1) in _FROM_FUNCTIONS)
            elif self._text(at) == ")" and functions:
                functions.pop()
            elif self._opens_tables(word, at) and not (functions and functions[-1]):
                at = self._table_list(at + 1, len(functions))
                continue
            at += 1
        self._assign(ctes)
        return self.found

    def _text(self, at: int) -> str:
        return self.tokens[at].text if 0 <= at < len(self.tokens) else ""

    def _word(self, at: int) -> str:
        return self.tokens[at].text.upper() if 0 <= at < len(self.tokens) and self.tokens[at].kind == "word" else ""

    def _opens_tables(self, word: str, at: int) -> bool:
        before = self._word(at - 1)
        match word:
            case "FROM" | "JOIN" | "STRAIGHT_JOIN":
                return True
            case "USING":  # DELETE FROM a USING b; not JOIN b USING (x)
                return self.found.kind == "delete" and self._text(at + 1) != "("
            case "INTO":  # not SELECT x INTO variable
                return self.found.kind in ("insert", "replace")
            case "UPDATE":
                return before not in _NOT_A_TARGET_BEFORE
            case "INSERT" | "REPLACE" | "DELETE":  # INSERT t VALUES ..., DELETE a, b FROM ...; not REPLACE(x, y, z)
                return self.found.kind == word.lower() and before != "ON" and self._text(at + 1) != "("
        return False

    def _parts(self, at: int) -> tuple[list[str], int]:
        """The parts of ``a``, ``a.b`` or ``a.b.c`` that begins at `at`, and the place after it."""
        parts: list[str] = []
        while self._is_name(at):
            parts.append(_bare(self._text(at)))
            at += 1
            if self._text(at) != ".":
                break
            at += 1
            if self._text(at) == "*":  # DELETE t.* FROM t
                at += 1
                break
        return parts, at

    def _name(self, at: int) -> tuple[TableName, int] | None:
        parts, after = self._parts(at)
        if not parts:
            return None
        return (TableName(parts[0], parts[1]) if len(parts) > 1 else TableName(None, parts[0])), after

    def _is_name(self, at: int) -> bool:
        if not 0 <= at < len(self.tokens):
            return False
        token = self.tokens[at]
        return token.kind == "name" or (token.kind == "word" and token.text.upper() not in _NO_TABLE)

    def _table_list(self, at: int, depth: int) -> int:
        """Read ``a [AS] x, b y`` from `at`; gives the place of the first token that does not belong to it."""
        while True:
            while self._word(at) in _MODIFIERS or self._text(at) == "(":
                if self._text(at) == "(" and self._word(at + 1) in ("SELECT", "WITH"):
                    return at
                at += 1
            found = self._name(at)
            if found is None:
                return at
            name, at = found
            if self._text(at) == "(" and self._word(at - 1) and not self._is_insert():
                return at  # a table function
            self.tables.append((name, depth))
            at += self._word(at) == "AS"
            if self._is_name(at):
                self.aliases[_bare(self._text(at)).lower()] = name
                at += 1
            else:
                self.named[name.table.lower()] = name
            if self._text(at) != ",":
                return at
            at += 1

    def _is_insert(self) -> bool:
        return self.found.kind in ("insert", "replace") and len(self.tables) == 0

    def _ctes(self) -> set[str]:
        """Names before ``AS (`` (with or without a column list) that follow WITH or a comma."""
        names: set[str] = set()
        if not any(self._word(at) == "WITH" for at in range(len(self.tokens))):
            return names
        for at in range(len(self.tokens) - 1):
            if self._word(at) == "AS" and self._text(at + 1) == "(":
                back = at - 1
                if self._text(back) == ")":
                    while back > 0 and self._text(back) != "(":
                        back -= 1
                    back -= 1
                if self._word(back - 1) in ("WITH", "RECURSIVE") or self._text(back - 1) == ",":
                    names.add(_bare(self._text(back)).lower())
        return names

    # -- access

    def _assign(self, ctes: set[str]) -> None:
        kind = self.found.kind
        tables = [(n, d) for n, d in self.tables if n.schema or n.table.lower() not in ctes]
        targets = self._targets(kind, tables)
        for at, (name, depth) in enumerate(tables):
            # A target that stands in a SELECT too is read as well.
            inside = at > 0 if kind in ("insert", "replace") else depth > 0
            if (name not in targets or inside) and not self._is_alias(name):
                self.found.uses.add((name, "ddl" if kind == "ddl" else "read"))
        self.found.uses |= {(name, "write") for name in targets}

    def _by_alias(self, name: str) -> TableName | None:
        return self.aliases.get(name.lower()) or self.named.get(name.lower())

    def _is_alias(self, name: TableName) -> bool:
        return name.schema is None and self.aliases.get(name.table.lower(), name) != name

    def _targets(self, kind: sqltext.Kind, tables: list[tuple[TableName, int]]) -> set[TableName]:
        if kind in ("insert", "replace"):
            return {name for name, _ in tables[:1]}
        if kind == "update":
            return self._update_targets([name for name, depth in tables if depth == 0])
        if kind == "delete":
            return self._delete_targets()
        return set()

    def _update_targets(self, tables: list[TableName]) -> set[TableName]:
        starts = [at for at in range(len(self.tokens)) if self._word(at) == "SET"]
        if len(tables) == 1 or not starts:
            if len(tables) > 1:
                self.found.flags.add("ambiguous-target")
            return set(tables)
        targets: set[TableName] = set()
        depth = 0
        for at in range(starts[0], len(self.tokens)):
            depth += {"(": 1, ")": -1}.get(self._text(at), 0)
            if depth == 0 and self._word(at) in ("WHERE", "ORDER", "LIMIT"):
                break
            if depth == 0 and (at == starts[0] or self._text(at) == ","):
                targets |= self._assigned(at + 1, tables)
        return targets

    def _assigned(self, at: int, tables: list[TableName]) -> set[TableName]:
        """The tables that may own the column on the left of the assignment that begins at `at`."""
        parts, _ = self._parts(at)
        match parts:
            case [schema, table, _]:
                return {TableName(schema, table)}
            case [qualifier, _]:
                return {self._by_alias(qualifier) or TableName(None, qualifier)}
        self.found.flags.add("ambiguous-target")
        return set(tables)

    def _delete_targets(self) -> set[TableName]:
        """DELETE FROM t | DELETE a, b FROM ... | DELETE FROM a, b USING ...: the first list holds the targets."""
        start = next((at for at in range(len(self.tokens)) if self._word(at) == "DELETE"), 0) + 1
        while self._word(start) in _MODIFIERS:
            start += 1
        if self._word(start) == "FROM":
            start += 1
        targets: set[TableName] = set()
        while found := self._name(start):
            name, start = found
            known = self._by_alias(name.table)
            targets.add(known if known and name.schema in (None, known.schema) else name)
            if self._text(start) != ",":
                break
            start += 1
        return targets


def _bare(name: str) -> str:
    return name[1:].removesuffix("`").replace("``", "`") if name.startswith("`") else name
