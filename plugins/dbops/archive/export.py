"""Export one chunk: MySQL's canonical text -> Arrow -> Parquet -> S3 under a content-addressed name.

Reader: mysqlclient fetches one canonical text a row and pyarrow's CSV reader parses a page of them at once, so the text that is
checksummed is the text that was sent. ``make bench-readers`` measures it beside mysqlclient with one value a cell and beside connectorx.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dbops import sql
from dbops.archive import checksum, codec
from dbops.archive.checksum import Checksum
from dbops.archive.ledger import Batch, Chunk, File, Plan
from dbops.keys import Key, RowKey, from_row

if TYPE_CHECKING:
    from io import BufferedRandom

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from MySQLdb.connections import Connection

PAGE_ROWS = 10_000
# A page ends early at this size, and rows are fetched in small lots, so that 10,000 rows of 1 MiB never sit in memory.
PAGE_BYTES = 16 * 1024**2
FETCH_ROWS = 250
ZSTD_LEVEL = 1
# Pages are joined into row groups: small ones cost Trino a read each. The bytes bound what a chunk holds back over all its files.
ROW_GROUP_ROWS = 100_000
HELD_BACK_BYTES = 32 * 1024**2
MAX_FILES_PER_CHUNK = 400

PLAN_COLUMN, CHUNK_COLUMN, BATCH_COLUMN, TIME_COLUMN = (
    "_archive_plan",
    "_archive_chunk",
    "_archive_batch",
    "_archive_at",
)
ARCHIVE_COLUMNS = {PLAN_COLUMN: "string", CHUNK_COLUMN: "int32", BATCH_COLUMN: "int32", TIME_COLUMN: "timestamptz"}


class ExportError(RuntimeError):
    """The chunk could not be exported exactly; nothing was recorded for it."""


@dataclass(frozen=True)
class Exported:
    """What one chunk became."""

    files: list[File]
    batches: list[Batch]
    rows: int
    wire_bytes: int


@dataclass
class _Page:
    """Rows of one fetch: texts of the short columns, whole canonical texts, and the long columns' values, one list a column."""

    rows: list[tuple[Any, ...]]
    short_texts: list[bytes]
    texts: list[bytes]
    payloads: list[list[bytes | None]]
    wire_bytes: int
    key_columns: int

    def key(self, index: int) -> Key:
        """Key of one row."""
        return from_row(self.rows[index][1 : 1 + self.key_columns])


@dataclass
class _OpenFile:
    """A Parquet file under construction; pages wait in `held` until they make a row group."""

    body: BufferedRandom
    writer: pq.ParquetWriter
    rows: int = 0
    held: list[pa.RecordBatch] = field(default_factory=list)
    held_rows: int = 0

    def add(self, part: pa.RecordBatch) -> None:
        self.held.append(part)
        self.held_rows += part.num_rows
        self.rows += part.num_rows
        if self.held_rows >= ROW_GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self.held:
            self.writer.write_table(pa.Table.from_batches(self.held), row_group_size=self.held_rows)
            self.held, self.held_rows = [], 0

    @property
    def held_bytes(self) -> int:
        return sum(part.get_total_buffer_size() for part in self.held)


@dataclass
class _Batches:
    """Cuts the stream of rows into batches of `size` rows and checksums each."""

    chunk: Chunk
    size: int
    done: list[Batch] = field(default_factory=list)
    _begun: Checksum = field(default_factory=Checksum)

    def add(self, page: _Page) -> np.ndarray[Any, Any]:
        """Take the next rows; returns the batch number of each."""
        import numpy as np

        rows = len(page.texts)
        numbers = (np.arange(rows) + self._begun.n) // self.size + len(self.done)
        start = 0
        while start < rows:
            end = min(rows, start + self.size - self._begun.n)
            self._begun += checksum.of_rows(page.texts[start:end])
            if self._begun.n == self.size:
                self._close(page.key(end - 1))
            start = end
        return numbers

    def finish(self) -> list[Batch]:
        """Close the last batch; its range ends at the chunk's upper key, so that no key lies between batches."""
        if self._begun.n:
            self._close(self.chunk.upper)
        elif self.done:
            self.done[-1] = replace(self.done[-1], upper=self.chunk.upper)
        return self.done

    def _close(self, upper: Key) -> None:
        lower: Key | None = self.done[-1].upper if self.done else self.chunk.lower
        self.done.append(Batch(self.chunk.chunk_no, len(self.done), lower, upper, self._begun))
        self._begun = Checksum()


def lake_schema(codecs: Sequence[codec.Codec]) -> pa.Schema:
    """Arrow schema of an archived file: the source's columns, then the ``_archive_*`` columns."""
    import pyarrow as pa

    columns = [(c.name, c.arrow_type) for c in codecs]
    return pa.schema(columns + [(name, codec.arrow_type(kind)) for name, kind in ARCHIVE_COLUMNS.items()])


def export_chunk(
    conn: Connection,
    s3: Any,
    plan: Plan,
    chunk: Chunk,
    key: RowKey,
    *,
    batch_rows: int,
    partition: tuple[str, str] | None,
    data_uri: str,
) -> Exported:
    """Export the rows of one chunk that meet the plan's predicate; `conn` reads (raw), `s3` is a boto3 client.

    Object names contain the SHA-256 of the content, so a repeated export writes the same object, or another one if rows changed, and
    never overwrites what a snapshot may refer to. Memory is bounded by a page of rows and one row group per open partition.
    Raises ExportError.
    """
    batches = _Batches(chunk, batch_rows)
    split = _Splitter(plan.codecs, partition)
    wire_bytes = rows = 0
    constants = {PLAN_COLUMN: plan.plan_id, CHUNK_COLUMN: chunk.chunk_no, TIME_COLUMN: plan.created_at}
    with ExitStack() as stack:
        open_files: dict[Any, _OpenFile] = {}
        for page in _pages(conn, plan, chunk, key):
            wire_bytes += page.wire_bytes
            rows += len(page.texts)
            numbers = batches.add(page)
            table = _arrow(plan.codecs, page, numbers, constants)
            for value, part in split(table):
                target = open_files.get(value)
                if target is None:
                    if len(open_files) == MAX_FILES_PER_CHUNK:
                        raise ExportError(
                            f"chunk {chunk.chunk_no} of {plan.plan_id} holds more than {MAX_FILES_PER_CHUNK} values of {partition};"
                            " use a coarser partitioning"
                        )
                    target = open_files[value] = _open_file(stack, table.schema)
                target.add(part)
            if sum(f.held_bytes for f in open_files.values()) > HELD_BACK_BYTES:
                for file in open_files.values():
                    file.flush()
        files = [
            _upload(s3, plan, chunk, number, value, open_files[value], data_uri)
            for number, value in enumerate(sorted(open_files, key=repr))
        ]
    return Exported(files, batches.finish(), rows, wire_bytes)


def plan_prefix(data_uri: str, plan_id: str) -> str:
    """Where all objects of a plan, and no others, belong."""
    return f"{data_uri.rstrip('/')}/{plan_id}/"


def _pages(conn: Connection, plan: Plan, chunk: Chunk, key: RowKey) -> Iterator[_Page]:
    from MySQLdb.cursors import SSCursor

    payloads = [c.payload_sql for c in plan.codecs if c.payload_sql]
    statement = sql.render(
        "archive/export_rows",
        row_text=codec.mysql_short_text(plan.codecs),
        key_literals=[c.literal_sql for c in key.columns],
        payloads=payloads,
        table=plan.source,
        index=key.index,
        range=key.between(chunk.lower, chunk.upper),
        predicate=plan.predicate,
        order_by=key.order_by,
    )
    first_long = 1 + len(key.columns)
    with conn.cursor(SSCursor) as cursor:
        cursor.execute(statement)
        for rows in _lots(cursor, first_long):
            texts = [row[0] for row in rows]
            long_values = [[row[i] for row in rows] for i in range(first_long, first_long + len(payloads))]
            if None in texts:
                at = from_row(rows[texts.index(None)][1:first_long])
                raise ExportError(
                    f"row {at} of {plan.source_table}: its text exceeds the server's max_allowed_packet; raise it"
                )
            size = sum(map(len, texts)) + sum(len(v) for values in long_values for v in values if v is not None)
            yield _Page(rows, texts, codec.append_long(texts, long_values), long_values, size, len(key.columns))


def _lots(cursor: Any, first_long: int) -> Iterator[list[tuple[Any, ...]]]:
    """The cursor's rows in lists of at most PAGE_ROWS rows and little more than PAGE_BYTES bytes of long values."""
    page: list[tuple[Any, ...]] = []
    size = 0
    while lot := cursor.fetchmany(FETCH_ROWS):
        page += lot
        if len(lot[0]) > first_long:
            size += sum(len(value) for row in lot for value in row[first_long:] if value is not None)
        if len(page) >= PAGE_ROWS or size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def _arrow(
    codecs: Sequence[codec.Codec], page: _Page, batch_numbers: np.ndarray[Any, Any], constants: dict[str, Any]
) -> pa.RecordBatch:
    import pyarrow as pa
    from pyarrow import csv

    short = [c for c in codecs if not c.is_long]
    parsed = csv.read_csv(
        pa.py_buffer(b"\n".join(page.short_texts)),
        # One block a page: a column then is one chunk.
        read_options=csv.ReadOptions(column_names=[c.name for c in short], use_threads=False, block_size=1 << 30),
        parse_options=csv.ParseOptions(delimiter="|", quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types={c.name: c.wire_type for c in short}, null_values=["N"], strings_can_be_null=True
        ),
    )
    wires, payloads = iter(parsed.columns), iter(page.payloads)
    columns = []
    for c in codecs:
        if c.is_long:
            values = next(payloads)
            try:
                columns.append(c.decode_long(values))
            except pa.ArrowInvalid as error:
                raise _not_utf8(c, page, values) from error
        else:
            wire = next(wires)
            column = c.decode(wire.chunk(0) if wire.num_chunks == 1 else wire.combine_chunks())
            try:
                column.validate(full=c.form == "hex_text")
            except pa.ArrowInvalid as error:
                raise _not_utf8(c, page, column.cast(pa.binary()).to_pylist()) from error
            columns.append(column)
    rows = len(page.texts)
    for name, kind in ARCHIVE_COLUMNS.items():
        to = codec.arrow_type(kind)
        columns.append(
            pa.array(batch_numbers, to) if name == BATCH_COLUMN else pa.repeat(pa.scalar(constants[name], to), rows)
        )
    return pa.RecordBatch.from_arrays(columns, schema=lake_schema(codecs))


def _not_utf8(c: codec.Codec, page: _Page, values: Sequence[bytes | None]) -> ExportError:
    """MySQL 5.7 stores such bytes in columns of utf8 and utf8mb4 (half a surrogate pair, for example); Parquet and Iceberg do not."""
    at = next(i for i, value in enumerate(values) if value is not None and not _is_utf8(value))
    return ExportError(
        f"row {page.key(at)}: column {c.name} holds bytes that are not UTF-8, although its character set says so; correct the row, or"
        f" archive the column as bytes: lossy_text_as_binary: [{c.name}], and run once with abandon_open_plan: true"
    )


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _Splitter:
    """Splits a page by the value of the table's Iceberg partition: a file must hold one value only (add_files reads it from the bounds)."""

    def __init__(self, codecs: Sequence[codec.Codec], partition: tuple[str, str] | None) -> None:
        self.column = self.transform = None
        if partition:
            from pyiceberg.transforms import parse_transform

            name, column = partition
            source = next(c for c in codecs if c.name.lower() == column.lower())
            self.column = source.name
            self.transform = parse_transform(name).pyarrow_transform(source.iceberg_type)

    def __call__(self, page: pa.RecordBatch) -> Iterator[tuple[Any, pa.RecordBatch]]:
        if self.transform is None:
            yield None, page
            return
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.transform(page.column(self.column))
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        distinct = pc.unique(values).to_pylist()
        if len(distinct) == 1:
            yield distinct[0], page
            return
        for value in distinct:
            mask = values.is_null() if value is None else pc.equal(values, pa.scalar(value, values.type))
            yield value, page.filter(mask)


def _open_file(stack: ExitStack, schema: pa.Schema) -> _OpenFile:
    import pyarrow.parquet as pq

    body = stack.enter_context(tempfile.TemporaryFile(prefix="dbops-chunk-"))  # noqa: SIM115 - the stack closes it
    writer = pq.ParquetWriter(body, schema, compression="zstd", compression_level=ZSTD_LEVEL)
    stack.callback(writer.close)
    return _OpenFile(body, writer)


def _upload(s3: Any, plan: Plan, chunk: Chunk, number: int, value: Any, file: _OpenFile, data_uri: str) -> File:
    import base64
    from urllib.parse import urlsplit

    file.flush()
    file.writer.close()
    size = file.body.tell()
    file.body.seek(0)
    digest = hashlib.file_digest(file.body, "sha256")
    name = f"chunk={chunk.chunk_no:06d}-{number:03d}-{digest.hexdigest()[:16]}.parquet"
    uri = plan_prefix(data_uri, plan.plan_id) + name
    where = urlsplit(uri)
    file.body.seek(0)
    s3.put_object(
        Bucket=where.netloc,
        Key=where.path.lstrip("/"),
        Body=file.body,
        ContentLength=size,
        ChecksumAlgorithm="SHA256",
        ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
    )
    return File(chunk.chunk_no, number, uri, digest.hexdigest(), size, file.rows)
