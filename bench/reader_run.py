"""One reader of bench.readers in one process: the whole bench table -> Arrow -> Parquet (zstd) in memory.

Every reader makes the same columns of the same types, in the same chunks of the key; the digest of the content, taken after the clock
has stopped, shows that it did.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench import archive_run, measure, source
from dbops import connections, keys, mysql, sql
from dbops.archive import checksum, codec, export, plan
from dbops.archive.ledger import Chunk, Plan, utcnow
from lab import config

CHUNK_ROWS = 100_000
PAGE_ROWS = 20_000


class Source:
    """The table, its codecs, and its chunks."""

    def __init__(self) -> None:
        conn = connections.mysql()
        table = mysql.read_table(conn, source.SCHEMA, source.TABLE)
        assert table is not None, f"{source.FULL_NAME} is missing: run python -m bench readers"
        self.key = keys.row_key(table)
        self.codecs = tuple(codec.codecs(table))
        self.schema = pa.schema([(c.name, c.arrow_type) for c in self.codecs])
        self.types = {c.name: c.data_type for c in table.columns}
        walk = plan.walk(conn, table, self.key, "TRUE", chunk_rows=CHUNK_ROWS)
        self.chunks, self.rows = walk.chunks, walk.rows
        conn.close()

    def where(self, chunk: Chunk) -> str:
        return self.key.between(chunk.lower, chunk.upper)


class _Memory:
    """Stands for the S3 client: keeps the objects."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def put_object(self, *, Body: Any, **_: Any) -> None:
        self.bodies.append(Body.read())


def product(src: Source, chunk: Chunk) -> bytes:
    """dbops.archive.export: one canonical text a row, parsed by pyarrow's CSV reader, with the checksum of every batch."""
    now = utcnow()
    made = Plan(
        "bench", "bench", source.FULL_NAME, "open", "", "", now, "TRUE", src.codecs, "", "a.b.c", src.rows, len(src.chunks), 0, "", now
    )  # fmt: skip
    kept, conn = _Memory(), connections.mysql(raw=True)
    export.export_chunk(conn, kept, made, chunk, src.key, batch_rows=1000, partition=None, data_uri="s3://bench/data")
    conn.close()
    return kept.bodies[0]


def product_without_checksum(src: Source, chunk: Chunk) -> bytes:
    """The same, with the MD5s left out: what the checksum costs."""
    checksum.of_rows = lambda rows: checksum.Checksum(len(rows), len(rows))
    codec.append_long = lambda texts, _: texts
    return product(src, chunk)


def cells(src: Source, chunk: Chunk) -> bytes:
    """mysqlclient, every value as raw bytes, cast column by column in Arrow."""
    from MySQLdb.cursors import SSCursor

    def expression(name: str, kind: str) -> str:
        return sql.ident(name) + (
            "+0e0" if kind == "float" else "+0" if kind in codec.INTEGERS or kind == "decimal" else ""
        )

    wanted = ", ".join(expression(n, k) for n, k in src.types.items())
    conn = connections.mysql(raw=True)

    def batches() -> Any:
        with conn.cursor(SSCursor) as cursor:
            cursor.execute(
                f"SELECT {wanted} FROM {sql.ident((source.SCHEMA, source.TABLE))} WHERE {src.where(chunk)} ORDER BY id"
            )
            while rows := cursor.fetchmany(PAGE_ROWS):
                columns = [pa.array(values, pa.binary()).cast(pa.string()) for values in zip(*rows, strict=True)]
                yield pa.record_batch(
                    [c.cast(f.type) for c, f in zip(columns, src.schema, strict=True)], schema=src.schema
                )

    body = _parquet(src.schema, batches())
    conn.close()
    return body


def connectorx(src: Source, chunk: Chunk) -> bytes:
    """connectorx, binary protocol, types forced by casts in the SELECT; no checksum."""
    return _parquet(src.schema, _connectorx_typed(src, chunk, ()).to_batches())


def connectorx_md5(src: Source, chunk: Chunk) -> bytes:
    """The same, with the MD5 of every row's canonical text taken by MySQL, and the checksum of every batch summed from it here."""
    import numpy as np

    got = _connectorx_typed(src, chunk, (f"CAST(MD5({codec.mysql_row_text(src.codecs)}) AS CHAR) AS row_md5",))
    texts = "".join(got.column("row_md5").to_pylist())
    words = np.frombuffer(bytes.fromhex(texts), dtype=">u8").reshape(-1, 2)
    starts = np.arange(0, len(words), 1000)
    first60 = words[:, 0] >> np.uint64(4)
    np.add.reduceat(first60 >> np.uint64(30), starts)
    np.add.reduceat(first60 & np.uint64((1 << 30) - 1), starts)
    np.bitwise_xor.reduceat(words[:, 1].astype(np.uint64), starts)
    return _parquet(src.schema, got.drop_columns(["row_md5"]).to_batches())


def _connectorx_typed(src: Source, chunk: Chunk, more: tuple[str, ...]) -> pa.Table:
    import connectorx as cx

    def expression(name: str, kind: str, to: pa.DataType) -> str:
        column = sql.ident(name)
        if kind == "float":
            return f"{column}+0e0 AS {column}"
        return f"CAST({column} AS {'SIGNED' if pa.types.is_integer(to) else 'CHAR'}) AS {column}"

    wanted = ", ".join([*(expression(n, k, src.schema.field(n).type) for n, k in src.types.items()), *more])
    got = cx.read_sql(
        url(source.SERVER), return_type="arrow", protocol="binary",
        query=f"SELECT {wanted} FROM {source.FULL_NAME} AS t WHERE {src.where(chunk)} ORDER BY t.id",
    )  # fmt: skip
    cast = {f.name: got.column(f.name).combine_chunks().cast(f.type) for f in src.schema}
    return pa.table({**cast, **{name: got.column(name) for name in got.column_names if name not in cast}})


def connectorx_text(src: Source, chunk: Chunk) -> bytes:
    """The product's way with connectorx as the transport: canonical texts in one Arrow column, parsed where they lie, checksummed."""
    import connectorx as cx
    from pyarrow import csv

    short = [c for c in src.codecs if not c.is_long]
    texts = [f"CAST(CONCAT({codec.mysql_short_text(src.codecs)}, '\\n') AS CHAR) AS row_text"]
    texts += [f"{c.payload_sql} AS {sql.ident(c.name)}" for c in src.codecs if c.payload_sql]
    got = cx.read_sql(
        url(source.SERVER), return_type="arrow", protocol="binary",
        query=f"SELECT {', '.join(texts)} FROM {source.FULL_NAME} AS t WHERE {src.where(chunk)} ORDER BY t.id",
    )  # fmt: skip
    got = got.combine_chunks()
    rows = got.column(0).chunk(0).cast(pa.large_binary()).buffers()[2]
    parsed = csv.read_csv(
        rows,
        read_options=csv.ReadOptions(column_names=[c.name for c in short], use_threads=False, block_size=1 << 30),
        parse_options=csv.ParseOptions(delimiter="|", quote_char=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types={c.name: c.wire_type for c in short}, null_values=["N"], strings_can_be_null=True
        ),
    ).combine_chunks()
    columns, payloads = [], []
    for c in src.codecs:
        if c.is_long:
            payloads.append(got.column(c.name).cast(pa.binary()).to_pylist())
            columns.append(got.column(c.name).chunk(0).cast(c.arrow_type))
        else:
            columns.append(c.decode(parsed.column(c.name).chunk(0)))
    hashed = codec.append_long(rows.to_pybytes().split(b"\n")[:-1], payloads)
    for start in range(0, len(hashed), 1000):
        checksum.of_rows(hashed[start : start + 1000])
    return _parquet(src.schema, pa.Table.from_arrays(columns, schema=src.schema).to_batches())


def url(server: str, options: str = "") -> str:
    """connectorx takes the whole connection as a URL."""
    return f"mysql://{config.MYSQL_USER}:{config.MYSQL_PASSWORD}@{config.HOST}:{config.port(server)}/{config.SOURCE_SCHEMA}{options}"


READERS: dict[str, Callable[[Source, Chunk], bytes]] = {
    "dbops": product,
    "dbops, no checksum": product_without_checksum,
    "mysqlclient cells": cells,
    "connectorx": connectorx,
    "connectorx, MD5 in MySQL": connectorx_md5,
    "connectorx, dbops text": connectorx_text,
}


def _parquet(schema: pa.Schema, batches: Any) -> bytes:
    body = io.BytesIO()
    with pq.ParquetWriter(body, schema, compression="zstd", compression_level=export.ZSTD_LEVEL) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return body.getvalue()


def digest(bodies: list[bytes], schema: pa.Schema) -> str:
    """SHA-256 of the source's columns as CSV, read back from the Parquet files."""
    from pyarrow import csv

    found = hashlib.sha256()
    for body in bodies:
        table = pq.read_table(pa.BufferReader(body), columns=schema.names, use_threads=False).cast(schema)
        text = io.BytesIO()
        csv.write_csv(table.combine_chunks(), text, csv.WriteOptions(include_header=False))
        found.update(text.getbuffer())
    return found.hexdigest()


def main() -> None:
    """Read, measure, print."""
    arguments = json.load(sys.stdin)
    reader, src = READERS[arguments["reader"]], Source()
    if arguments["reader"].startswith("connectorx"):
        import connectorx  # noqa: F401 - its load time is not what is compared
    else:
        import MySQLdb
        import pyarrow.csv  # noqa: F401

        assert MySQLdb
    archive_run.spec()  # and neither is that of pydantic and YAML
    cpu, began = time.process_time(), time.monotonic()
    with ThreadPoolExecutor(arguments["workers"]) as pool:
        bodies = list(pool.map(lambda chunk: reader(src, chunk), src.chunks))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({
        "rows": src.rows, "seconds": seconds, "cpu_s": cpu, "peak_rss_mb": measure.peak_rss_mb(),
        "parquet_bytes": sum(map(len, bodies)), "digest": digest(bodies, src.schema),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
