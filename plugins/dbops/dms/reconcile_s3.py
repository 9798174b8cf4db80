"""Source MySQL, target files in S3: number of rows and keys, of a full load without changes.

A load writes rows in no order that could be relied on, so keys of both sides are kept as hashes of 8 bytes in parts on disk, and parts are
compared one after another: memory is bounded by one part. Two keys with one hash (one pair in 4 * 10^9 rows is likely) are not told apart.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbops import mysql, sql
from dbops.dms import files, forms, places, values
from dbops.dms.mappings import Names, Table
from dbops.dms.reconcile import Comparison, not_comparable
from dbops.dms.settling import MAX_SAMPLE
from dbops.dms.spec import DmsSpec
from dbops.keys import Key, KeyColumn, RowKey, from_row

if TYPE_CHECKING:
    import numpy as np

PARTS = 64
_FLUSH = 1 << 18
CHANGED = "rows that the source changed since the load are differences"


def compare(
    spec: DmsSpec,
    table: Table,
    described: mysql.Table,
    names: Names,
    where: str,
    held: Mapping[str, Any],
    *,
    source: Any,
    target: Any,
    chunk_rows: int,
) -> Comparison:
    """Compare one table; see :func:`dbops.dms.reconcile.compare`. `target` is a client of S3."""
    if spec.has_cdc:
        return not_comparable(
            table, "files of changes stand beside those of the load; only a full load without changes is compared"
        )
    layout, bucket = files.Layout.of(held), places.needed(held, "BucketName", spec)
    key = _key(described, names)
    kinds = [forms.kind(column) for name in key.names if (column := described.column(name))]
    with tempfile.TemporaryDirectory(prefix="dbops-") as folder:
        ours, theirs = (_Hashes(Path(folder), side) for side in ("source", "target"))
        for page in _source(source, table, described, key, where, chunk_rows):
            ours.add(text for _, text in page)
        for rows in _target(target, bucket, layout, names):
            theirs.add(_text(row, names, key, kinds) for row in rows)
        if not key.columns:
            return _counts(table, ours.count, theirs.count)
        missing, extra, some = _difference(ours, theirs)
        sample = _named(source, table, described, key, where, chunk_rows, some["missing"], "missing")
        if len(sample) < MAX_SAMPLE and some["extra"]:
            for rows in _target(target, bucket, layout, names):
                texts = {_text(row, names, key, kinds): row for row in rows}
                found = [one for text, one in texts.items() if _hash(text) in some["extra"]]
                sample += [
                    f"extra {', '.join(str(row.get(names.columns[name])) for name in key.names)}" for row in found
                ]
    rest = [column.name for column in described.columns if column.name not in key.names]
    return Comparison(
        table, "differ" if missing or extra else "equal", ours.count, theirs.count, missing, extra, 0,
        tuple(sample[:MAX_SAMPLE]), f"only keys are compared; {CHANGED}", 0,
        (f"{', '.join(rest)}: of files only the keys are compared",) if rest else (),
    )  # fmt: skip


def _counts(table: Table, ours: int, theirs: int) -> Comparison:
    return Comparison(
        table, "equal" if ours == theirs else "differ", ours, theirs, max(0, ours - theirs), max(0, theirs - ours), 0, (),
        f"no key that both sides have: only the number of rows is compared; {CHANGED}",
    )  # fmt: skip


def _key(described: mysql.Table, names: Names) -> RowKey:
    """The key of the source as far as files have it whole; without columns when they do not."""
    index = described.row_key
    columns = []
    for name in index.columns if index else ():
        column = described.column(name)
        literal = forms.key_literal(column, column, column) if column else None
        if column is None or literal is None or column.name not in names.columns:
            return RowKey("", ())
        columns.append(KeyColumn(column.name, literal))
    return RowKey(index.name if index else "", tuple(columns))


def _source(
    connection: Any, table: Table, described: mysql.Table, key: RowKey, where: str, chunk_rows: int
) -> Iterator[list[tuple[Key, str]]]:
    """(key as literals, text) of every row; without a key only as many rows as there are."""
    if not key.columns:
        count = int(mysql.scalar(connection, f"SELECT COUNT(*) FROM {sql.ident(table)} WHERE {where}"))
        for begin in range(0, count, chunk_rows):
            yield [((), "")] * min(chunk_rows, count - begin)
        return
    columns = [column for name in key.names if (column := described.column(name))]
    low: Key | None = None
    while True:
        statement = sql.render(
            "dms/key_page", table=table, index=key.index, literals=[one.literal_sql for one in key.columns],
            values=[values.select(column) for column in columns], where=f"{key.above(low)} AND {where}",
            order_by=key.order_by, chunk_rows=chunk_rows,
        )  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute(statement)
            found = cursor.fetchall()
        width = len(columns)
        page = [(from_row(row[:width]), _joined(_source_texts(columns, row[width:]))) for row in found]
        if page:
            yield page
        if len(page) < chunk_rows:
            return
        low = page[-1][0]


def _source_texts(columns: list[mysql.Column], row: Any) -> list[str]:
    read = [values.read(column, value) for column, value in zip(columns, row, strict=True)]
    return ["" if value is None else value.text for value in read]


def _target(s3: Any, bucket: str, layout: files.Layout, names: Names) -> Iterator[list[files.Row]]:
    for found in files.listed(s3, bucket, layout.prefix(names)):
        if found.is_load:
            yield from files.rows(s3, bucket, found, layout, names)


def _text(row: files.Row, names: Names, key: RowKey, kinds: list[str]) -> str:
    pairs = zip(key.names, kinds, strict=True)
    return _joined([values.canonical(kind, row.get(names.columns[name]) or "") for name, kind in pairs])


def _joined(texts: list[str]) -> str:
    return "".join(f"{len(text)}:{text}" for text in texts)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _named(
    connection: Any, table: Table, described: mysql.Table, key: RowKey, where: str, chunk_rows: int,
    wanted: set[int], kind: str,
) -> list[str]:  # fmt: skip
    """Rows of the source whose hashes are wanted, by their keys."""
    found: list[str] = []
    for page in _source(connection, table, described, key, where, chunk_rows) if wanted else ():
        found += [f"{kind} {', '.join(literals)}" for literals, text in page if _hash(text) in wanted]
        if len(found) >= len(wanted):
            break
    return found


@dataclass
class _Hashes:
    """Hashes of keys, in parts on disk."""

    folder: Path
    side: str
    count: int = 0
    _parts: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(PARTS)])

    def add(self, texts: Iterable[str]) -> None:
        blake2b = hashlib.blake2b
        for text in texts:
            digest = blake2b(text.encode(), digest_size=8).digest()
            part = self._parts[digest[0] % PARTS]
            part += digest
            if len(part) >= _FLUSH:
                self._flush(digest[0] % PARTS)
            self.count += 1

    def sorted(self, number: int) -> np.ndarray[Any, Any]:
        """The hashes of one part."""
        import numpy as np

        self._flush(number)
        return np.sort(np.fromfile(self._path(number), dtype="<u8"))

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.side}-{number}"

    def _flush(self, number: int) -> None:
        with self._path(number).open("ab") as file:
            file.write(self._parts[number])
        self._parts[number].clear()


def _difference(ours: _Hashes, theirs: _Hashes) -> tuple[int, int, dict[str, set[int]]]:
    """How many keys are on one side only, counting a key twice that is there twice, and some of their hashes."""
    import numpy as np

    counts, some = {"missing": 0, "extra": 0}, {"missing": set[int](), "extra": set[int]()}
    for number in range(PARTS):
        (here, n), (there, m) = (np.unique(side.sorted(number), return_counts=True) for side in (ours, theirs))
        both = np.union1d(here, there)
        more = np.zeros(len(both), dtype=np.int64)
        more[np.searchsorted(both, here)] += n
        more[np.searchsorted(both, there)] -= m
        for kind, sign in (("missing", 1), ("extra", -1)):
            chosen = more * sign > 0
            counts[kind] += int((more[chosen] * sign).sum())
            some[kind] |= {int(one) for one in both[chosen][: MAX_SAMPLE - len(some[kind])]}
    return counts["missing"], counts["extra"], some
