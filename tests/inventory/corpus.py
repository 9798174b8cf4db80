"""Statements with the tables that they touch, written by hand beside them in corpus.txt: what the parser is judged by.

A line is ``[versions] SQL  --> access table, table; access table``; versions 5.7 or 8.0 when only one of them accepts the statement, access
r (read), w (written), d (definition or maintenance) or c (routine that is called). Names are as the statement writes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A statement and its truth: uses as (schema or None, table, access), routines that it calls."""

    sql: str
    uses: frozenset[tuple[str | None, str, str]]
    routines: frozenset[str]
    only: str

    def on(self, version: str) -> bool:
        """Whether the server of that version accepts the statement."""
        return self.only in ("", version)


_ACCESS = {"r": "read", "w": "write", "d": "ddl"}
_LINE = re.compile(r"(?:\[(?P<only>5\.7|8\.0)\] )?(?P<sql>.*?)(?P<spaces>\s+)-->(?P<truth>[^>]*)")


def _case(line: str) -> Case:
    match = _LINE.fullmatch(line)
    assert match is not None, line
    uses: set[tuple[str | None, str, str]] = set()
    routines: set[str] = set()
    for group in filter(None, match["truth"].strip().split("; ")):
        access, names = group.split(" ", 1)
        for name in names.split(", "):
            schema, _, table = name.rpartition(".")
            if access == "c":
                routines.add(name)
            else:
                uses.add((schema or None, table, _ACCESS[access]))
    return Case(match["sql"], frozenset(uses), frozenset(routines), match["only"] or "")


CASES = [_case(line) for line in Path(__file__).with_suffix(".txt").read_text().splitlines()]
