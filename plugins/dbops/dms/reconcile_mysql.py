"""Source and target both MySQL: chunks of the key are compared by checksum, rows of a chunk that differs by their hashes.

Both servers work at the same time, and a chunk that is equal costs one row of traffic. Chunks are cut by the order of the source; where
a text key has another order on the target, a row may be looked for in the wrong chunk and is then found by its key alone, so what is
counted as different is exact all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from dbops import mysql, sql
from dbops.dms import forms
from dbops.dms.forms import Form
from dbops.dms.mappings import Names, Table
from dbops.dms.reconcile import Comparison, Patience, Status, judged, not_comparable
from dbops.dms.settling import Outcome, Settling
from dbops.keys import Key, KeyColumn, RowKey, from_row


@dataclass(frozen=True)
class _Side:
    """One server's half of a pair of tables."""

    connection: Any
    table: tuple[str, str]
    forms: tuple[Form, ...]
    is_source: bool
    key: RowKey
    """Without columns for a table that cannot be walked."""
    filter: str = "TRUE"

    @property
    def text(self) -> str:
        return forms.row_text(self.forms, is_source=self.is_source)

    def figures(self, where: str) -> tuple[int, int, int, int]:
        """Rows, hashes, sum and XOR of the rows of a range."""
        statement = sql.render(
            "dms/checksum", table=self.table, row_text=self.text, where=f"{where} AND {self.filter}",
            index=self.key.index,
        )  # fmt: skip
        n, nh, s, x = _all(self.connection, statement)[0]
        return int(n), int(nh), int(s or 0), int(x or 0)

    def hashes(self, low: Key | None, high: Key | None, chunk_rows: int) -> Iterator[list[tuple[Key, Any]]]:
        """(key, hash) of the rows of a range, in pages."""
        while True:
            where = f"{_range(self.key, low, high)} AND {self.filter}"
            statement = sql.render(
                "dms/row_hashes", table=self.table, index=self.key.index, literals=_literals(self.key), where=where,
                row_text=self.text, order_by=self.key.order_by, chunk_rows=chunk_rows,
            )  # fmt: skip
            found = [(from_row(row[:-1]), row[-1]) for row in _all(self.connection, statement)]
            if found:
                yield found
            if len(found) < chunk_rows:
                return
            low = found[-1][0]

    def states(self, keys: Sequence[Key]) -> dict[Key, Any]:
        """What the rows of these keys are now: hash, and documents of JSON; keys that are not there are left out."""
        documents = [form.value(is_source=self.is_source) for form in self.forms if form.is_json]
        plain = [form for form in self.forms if not form.is_json]
        statement = sql.render(
            "dms/rows_by_key", table=self.table, names=[sql.ident(name) for name in self.key.names],
            literals=_literals(self.key), values=[f"MD5({forms.row_text(plain, is_source=self.is_source)})", *documents],
            keys=[f"({', '.join(key)})" for key in keys], filter=self.filter,
        )  # fmt: skip
        width = len(self.key.columns)
        found: dict[Key, list[Any]] = {}
        for row in _all(self.connection, statement):
            held = (_plain(row[width]), *(forms.document(value) for value in row[width + 1 :]))
            # A row that the server cannot render is the same as no other.
            state = held if held[0] is not None else (f"too long on the {'source' if self.is_source else 'target'}",)
            found.setdefault(from_row(row[:width]), []).append(state)
        return {
            key: states[0] if len(states) == 1 else tuple(sorted(states, key=repr)) for key, states in found.items()
        }


def compare(
    table: Table,
    described: mysql.Table,
    names: Names,
    where: str,
    *,
    source: Any,
    target: Any,
    patience: Patience,
    chunk_rows: int,
) -> Comparison:
    """Compare one table; see :func:`dbops.dms.reconcile.compare`."""
    place = (names.schema, names.table)
    there = mysql.read_table(target, *place)
    if there is None:
        rows = int(mysql.scalar(source, f"SELECT COUNT(*) FROM {sql.ident(table)} WHERE {where}"))
        reason = f"the target has no table {'.'.join(place)}, or shows it to this user not"
        return Comparison(table, "differ", rows, 0, missing=rows, reason=reason)
    pairs, not_compared, absent = _pairs(described, there, names)
    if not pairs:
        return not_comparable(table, "no column of it can be compared", not_compared=tuple(not_compared))
    keys = _keys(described, there, names)
    if keys is None:
        not_compared += [
            f"{form.source.name}: JSON is compared by its document, which needs a key" for form in pairs if form.is_json
        ]
        pairs = tuple(form for form in pairs if not form.is_json)
        keys = _NO_KEY, _NO_KEY
    ours = _Side(source, (described.schema, described.name), pairs, True, keys[0], where)
    theirs = _Side(target, (there.schema, there.name), pairs, False, keys[1])
    with ThreadPoolExecutor(1) as pool:
        walk = _Walk(table, ours, theirs, pool, patience, chunk_rows, _is_same_order(described, there, names))
        found = walk.keyed() if keys[0].columns else walk.keyless()
    return _finished(found, not_compared, absent)


_NO_KEY = RowKey("", ())


def _finished(found: Comparison, not_compared: Sequence[str], absent: Sequence[str]) -> Comparison:
    """With the columns that were left out; one that the target does not have is a difference of every row."""
    status: Status = "differ" if absent else found.status
    lacking = [f"the target has no column {name}" for name in absent]
    reason = "; ".join(filter(None, [*lacking, found.reason]))
    return replace(found, status=status, reason=reason, not_compared=tuple(not_compared))


def _pairs(here: mysql.Table, there: mysql.Table, names: Names) -> tuple[tuple[Form, ...], list[str], list[str]]:
    """Columns that can be compared, those that cannot with the reason, and names that the target lacks."""
    pairs: list[Form] = []
    not_compared: list[str] = []
    absent: list[str] = []
    for column in here.columns:
        name = names.columns.get(column.name)
        if name is None:
            not_compared.append(f"{column.name}: the mappings remove it")
        elif (other := there.column(name)) is None:
            (not_compared if column.is_generated else absent).append(
                f"{column.name}: generated, and not on the target" if column.is_generated else name
            )
        elif (form := forms.form(column, other)) is None:
            not_compared.append(f"{column.name}: {column.column_type} and {other.column_type} have no common form")
        else:
            pairs.append(form)
    return tuple(pairs), not_compared, absent


def _keys(here: mysql.Table, there: mysql.Table, names: Names) -> tuple[RowKey, RowKey] | None:
    """The key of the source on both sides; None when it cannot be walked on either."""
    index = here.row_key
    if index is None:
        return None
    ours, theirs = [], []
    for name in index.columns:
        column, mapped = here.column(name), names.columns.get(name)
        other = there.column(mapped) if mapped else None
        if column is None or other is None:
            return None
        literals = forms.key_literal(column, other, column), forms.key_literal(column, other, other)
        if literals[0] is None or literals[1] is None:
            return None
        ours.append(KeyColumn(column.name, literals[0]))
        theirs.append(KeyColumn(other.name, literals[1]))
    leading = theirs[0].name.lower()
    usable = [one for one in there.indexes if one.columns[0].lower() == leading and not one.has_prefix]
    if not usable:
        return None
    # One that has the whole key, in its order, is best; the primary key before all others.
    wanted = [one.name.lower() for one in theirs]
    usable.sort(
        key=lambda one: ([name.lower() for name in one.columns[: len(wanted)]] != wanted, one.name != "PRIMARY")
    )
    return RowKey(index.name, tuple(ours)), RowKey(usable[0].name, tuple(theirs))


def _is_same_order(here: mysql.Table, there: mysql.Table, names: Names) -> bool:
    """Whether both sides order their keys alike, so that a range has the same rows on both."""
    for name in here.row_key.columns if here.row_key else ():
        column, other = here.column(name), there.column(names.columns.get(name, ""))
        if column is not None and other is not None and column.collation != other.collation:
            return False
    return True


@dataclass(frozen=True)
class _Walk:
    """One table from its first to its last chunk."""

    table: Table
    source: _Side
    target: _Side
    pool: ThreadPoolExecutor
    patience: Patience
    chunk_rows: int
    is_same_order: bool

    def keyed(self) -> Comparison:
        """Row by row."""
        settling = Settling(self._look, ", ".join, self.patience.settle_s, self.patience.wait, self.patience.clock)
        low: Key | None = None
        rows = [0, 0]
        while True:
            high = self._last_key(low)
            figures = self._both(low, high)
            rows[0] += figures[0][0]
            rows[1] += figures[1][0]
            if figures[0] != figures[1] or figures[0][0] != figures[0][1]:
                settling.suspect(self._suspects(low, high))
            if high is None:
                break
            low = high
        outcome = settling.finish()
        notes = []
        if not self.is_same_order:
            rows[1] = self.target.figures("TRUE")[0]
            notes.append("the key has another collation on the target, so its rows were counted on their own")
        return judged(self.table, outcome, rows[0], rows[1], self.patience, notes)

    def keyless(self) -> Comparison:
        """By number of rows and checksum alone, until they are equal or the time is over."""
        reason = "no key that can be walked on both sides: only the number of rows and the checksum of all are compared"
        end, seen = self.patience.clock() + self.patience.settle_s, []
        while True:
            seen.append(self._figures("TRUE", "TRUE"))
            ours, theirs = seen[-1]
            if (ours == theirs and ours[0] == ours[1]) or (self.patience.clock() >= end and len(seen) > 1):
                break
            self.patience.wait(min(5.0, max(0.0, end - self.patience.clock())))
        if ours == theirs and ours[0] == ours[1]:
            return judged(self.table, Outcome(), ours[0], theirs[0], self.patience, [reason])
        status: Status = "unsettled" if len(set(seen)) > 1 else "differ"
        return Comparison(
            self.table, status, ours[0], theirs[0], max(0, ours[0] - theirs[0]), max(0, theirs[0] - ours[0]), reason=reason
        )  # fmt: skip

    def _last_key(self, low: Key | None) -> Key | None:
        key = self.source.key
        statement = sql.render(
            "dms/last_key", table=self.source.table, index=key.index, literals=_literals(key),
            where=f"{key.above(low)} AND {self.source.filter}", order_by=key.order_by, chunk_rows=self.chunk_rows,
        )  # fmt: skip
        found = _all(self.source.connection, statement)
        return from_row(found[0]) if found else None

    def _both(self, low: Key | None, high: Key | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._figures(_range(self.source.key, low, high), _range(self.target.key, low, high))

    def _figures(self, ours: str, theirs: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Both servers at the same time."""
        other: Future[tuple[int, int, int, int]] = self.pool.submit(self.target.figures, theirs)
        try:
            mine = self.source.figures(ours)
        finally:
            there = other.result()
        return mine, there

    def _suspects(self, low: Key | None, high: Key | None) -> Iterator[Key]:
        """Keys of a chunk whose rows differ, or are on one side only."""
        here = {key: value for page in self.source.hashes(low, high, self.chunk_rows) for key, value in page}
        for page in self.target.hashes(low, high, self.chunk_rows):
            for key, value in page:
                if here.pop(key, None) != value or value is None:
                    yield key
        yield from here

    def _look(self, keys: Sequence[Key]) -> dict[Key, tuple[Any, Any]]:
        other = self.pool.submit(self.target.states, keys)
        try:
            ours = self.source.states(keys)
        finally:
            theirs = other.result()
        return {key: (ours.get(key), theirs.get(key)) for key in keys}


def _range(key: RowKey, low: Key | None, high: Key | None) -> str:
    return key.above(low) if high is None else key.between(low, high)


def _literals(key: RowKey) -> list[str]:
    return [column.literal_sql for column in key.columns]


def _all(connection: Any, statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
