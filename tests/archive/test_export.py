"""Export of hand-made rows: what lands in the objects, how batches are cut, and what is refused. MySQL and S3 are stand-ins."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbops.archive import checksum, codec, export
from dbops.archive.export import ExportError
from dbops.archive.ledger import Chunk, Plan
from dbops.keys import KeyColumn, RowKey
from dbops.mysql import Column

KEY = RowKey("PRIMARY", (KeyColumn("id", "CAST(`id` + 0 AS CHAR)"),))
COLUMNS = [
    Column("id", "int", "int(11)", nullable=False),
    Column("day", "date", "date", nullable=True),
    Column("v", "varchar", "varchar(20)", nullable=True, max_octets=80),
    Column("note", "text", "text", nullable=True, max_octets=65535),
]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def plan(columns: list[Column] | None = None) -> Plan:
    codecs = tuple(codec.codec_for(c) for c in columns or COLUMNS)
    return Plan(
        "p1",
        "t",
        "s.t",
        "open",
        "r",
        "u",
        AT,
        "`day` < '2026-01-01'",
        codecs,
        "CREATE TABLE `t` (\n)",
        "lake.s.t",
        0,
        1,
        0,
        "run",
        AT,
    )


Row = tuple[int, str | None, str | None, str | None]


def wire(row: Row) -> tuple[bytes | None, ...]:
    """As MySQL sends the row: canonical text of the short columns, the key, the long value."""
    number, day, v, note = row
    text = f"{number}|{day or 'N'}|{'N' if v is None else v.encode().hex().upper()}"
    return (text.encode(), str(number).encode(), None if note is None else note.encode())


class Server:
    """A MySQL connection that answers one SELECT."""

    def __init__(self, rows: list[tuple[bytes | None, ...]]) -> None:
        self.rows, self.statement, self.at = rows, "", 0

    @contextmanager
    def cursor(self, kind: Any) -> Iterator[Server]:
        assert kind.__name__ == "SSCursor", "a whole chunk must not be held in memory"
        yield self

    def execute(self, statement: str) -> None:
        self.statement, self.at = statement, 0

    def fetchmany(self, size: int) -> list[tuple[bytes | None, ...]]:
        found = self.rows[self.at : self.at + size]
        self.at += size
        return found


class Bucket(dict[str, bytes]):
    """An S3 client; refuses a body that is not what its checksum says."""

    def put_object(
        self, *, Bucket: str, Key: str, Body: Any, ContentLength: int, ChecksumAlgorithm: str, ChecksumSHA256: str
    ) -> None:
        content = Body.read()
        assert len(content) == ContentLength
        assert ChecksumAlgorithm == "SHA256"
        assert base64.b64decode(ChecksumSHA256) == hashlib.sha256(content).digest()
        self[f"s3://{Bucket}/{Key}"] = content

    def table(self, uri: str) -> pa.Table:
        return pq.read_table(io.BytesIO(self[uri]))


def run(
    rows: list[Row], *, batch_rows: int = 3, partition: tuple[str, str] | None = None, chunk: Chunk | None = None
) -> tuple[export.Exported, Bucket]:
    bucket = Bucket()
    made = export.export_chunk(
        Server([wire(r) for r in rows]), bucket, plan(), chunk or Chunk(7, ("0",), ("999",), len(rows)), KEY, batch_rows=batch_rows,
        partition=partition, data_uri="s3://lake/s/t/data/",
    )  # fmt: skip
    return made, bucket


ROWS: list[Row] = [
    (1, "2025-01-31", "a", "long"), (2, "2025-02-01", "", ""), (3, None, None, None), (5, "0001-01-01", "N|N", "é\n"),
    (8, "9999-12-31", "🚲", "N"), (13, "2025-01-01", "x ", "|"), (21, "2025-02-28", "\\", "\0"),
]  # fmt: skip


def test_rows_arrive_with_their_types_and_where_they_belong() -> None:
    made, bucket = run(ROWS)
    (file,) = made.files
    assert file.uri.startswith("s3://lake/s/t/data/p1/chunk=000007-000-")
    table = bucket.table(file.uri)
    assert table.schema.equals(export.lake_schema(plan().codecs))
    assert [(r["id"], r["day"] and r["day"].isoformat(), r["v"], r["note"]) for r in table.to_pylist()] == ROWS
    assert table["_archive_plan"].unique().to_pylist() == ["p1"]
    assert table["_archive_chunk"].unique().to_pylist() == [7]
    assert table["_archive_at"].unique().to_pylist() == [AT]
    assert table["_archive_batch"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]
    assert (made.rows, file.file_rows, file.file_bytes) == (7, 7, len(bucket[file.uri]))
    assert file.sha256 == hashlib.sha256(bucket[file.uri]).hexdigest()
    assert file.sha256[:16] in file.uri


def test_batches_leave_no_key_between_them_and_hash_the_whole_text() -> None:
    made, _ = run(ROWS)
    assert [(b.batch_no, b.lower, b.upper) for b in made.batches] == [
        (0, ("0",), ("3",)),
        (1, ("3",), ("13",)),
        (2, ("13",), ("999",)),
    ]
    whole = codec.append_long([wire(r)[0] or b"" for r in ROWS], [[wire(r)[2] for r in ROWS]])
    assert [b.source for b in made.batches] == [checksum.of_rows(whole[i : i + 3]) for i in (0, 3, 6)]
    assert [b.chunk_no for b in made.batches] == [7] * 3


def test_the_last_full_batch_also_ends_at_the_chunks_upper_key() -> None:
    made, _ = run(ROWS[:6])
    assert [(b.lower, b.upper, b.source.n) for b in made.batches] == [(("0",), ("3",), 3), (("3",), ("999",), 3)]


def test_the_first_chunk_has_no_lower_key() -> None:
    made, _ = run(ROWS[:2], chunk=Chunk(0, None, ("2",), 2))
    assert [(b.lower, b.upper) for b in made.batches] == [(None, ("2",))]


def test_a_chunk_whose_rows_have_gone_makes_no_file_and_no_batch() -> None:
    made, bucket = run([])
    assert (made.files, made.batches, made.rows, bucket) == ([], [], 0, {})


def test_a_repeated_export_writes_the_same_object_and_a_changed_row_another() -> None:
    first, again = run(ROWS)[0].files, run(ROWS)[0].files
    assert first == again
    other = run([*ROWS[:-1], (21, "2025-02-28", "\\", "changed")])[0].files
    assert other[0].uri != first[0].uri


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.none() | st.dates().map(str), st.none() | st.text(max_size=5), st.none() | st.text(max_size=9)),
        max_size=40),
    fetch=st.integers(1, 7), page=st.integers(1, 9), page_bytes=st.integers(1, 60), batch=st.integers(1, 11),
)  # fmt: skip
def test_pages_do_not_show(
    monkeypatch: pytest.MonkeyPatch, rows: list[Any], fetch: int, page: int, page_bytes: int, batch: int
) -> None:
    """However rows are fetched, batches and contents are the same, and every row is there once."""
    listed: list[Row] = [(i, *row) for i, row in enumerate(rows)]
    with monkeypatch.context() as patch:
        expected, there = run(listed, batch_rows=batch)
        for name, value in (
            ("FETCH_ROWS", fetch),
            ("PAGE_ROWS", page),
            ("PAGE_BYTES", page_bytes),
            ("HELD_BACK_BYTES", 200),
        ):
            patch.setattr(export, name, value)
        found, here = run(listed, batch_rows=batch)
    assert found.batches == expected.batches
    assert sum(b.source.n for b in found.batches) == len(listed)
    assert [b.source.n for b in found.batches[:-1]] == [batch] * (len(found.batches) - 1)
    assert [here.table(f.uri).to_pylist() for f in found.files] == [
        there.table(f.uri).to_pylist() for f in expected.files
    ]


def test_a_file_holds_one_partition_only() -> None:
    made, bucket = run([r for r in ROWS if r[1]], partition=("month", "DAY"))
    found = [[r["day"].isoformat()[:7] for r in bucket.table(f.uri).to_pylist()] for f in made.files]
    assert sorted(found) == [["0001-01"], ["2025-01", "2025-01"], ["2025-02", "2025-02"], ["9999-12"]]
    assert [f.file_no for f in made.files] == [0, 1, 2, 3]
    assert sum(f.file_rows for f in made.files) == 6


def test_rows_without_partition_value_get_a_file_of_their_own() -> None:
    made, bucket = run(ROWS, partition=("year", "day"))
    nulls = [
        [r["id"] for r in bucket.table(f.uri).to_pylist()] for f in made.files if bucket.table(f.uri)["day"].null_count
    ]
    assert nulls == [[3]]


def test_too_many_partitions_in_a_chunk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_FILES_PER_CHUNK", 3)
    with pytest.raises(
        ExportError, match=r"chunk 7 of p1 holds more than 3 values of \('day', 'day'\); use a coarser partitioning"
    ):
        run([r for r in ROWS if r[1]], partition=("day", "day"))


@pytest.mark.parametrize(
    ("row", "column"),
    [((b"42|2025-01-31|61EDA080", b"42", b"x"), "v"), ((b"42|2025-01-31|N", b"42", b"\xed\xa0\x80"), "note")],
)
def test_bytes_that_are_no_utf8_are_refused_by_key_and_column(row: tuple[bytes, ...], column: str) -> None:
    server, bucket = Server([wire(ROWS[0]), row]), Bucket()
    with pytest.raises(
        ExportError, match=rf"row \('42',\): column {column} holds bytes .*lossy_text_as_binary: \[{column}\]"
    ):
        export.export_chunk(
            server, bucket, plan(), Chunk(0, None, ("99",), 2), KEY, batch_rows=3, partition=None, data_uri="s3://lake/d"
        )  # fmt: skip
    assert bucket == {}


def test_a_row_that_the_server_could_not_render_is_refused_by_its_key() -> None:
    server, bucket = Server([wire(ROWS[0]), (None, b"42", b"x")]), Bucket()
    with pytest.raises(
        ExportError, match=r"row \('42',\) of s\.t: its text exceeds the server's max_allowed_packet; raise it"
    ):
        export.export_chunk(
            server, bucket, plan(), Chunk(0, None, ("99",), 2), KEY, batch_rows=3, partition=None, data_uri="s3://lake/d"
        )  # fmt: skip
    assert bucket == {}


def test_text_that_does_not_parse_as_its_type_is_an_error_not_a_null() -> None:
    server = Server([(b"1|2025-02-30|N", b"1", None)])
    with pytest.raises(pa.ArrowInvalid, match="date32"):
        export.export_chunk(
            server, Bucket(), plan(), Chunk(0, None, ("99",), 1), KEY, batch_rows=3, partition=None, data_uri="s3://l/d"
        )


def test_the_statement_reads_the_range_and_the_predicate_in_key_order() -> None:
    server = Server([])
    export.export_chunk(
        server, Bucket(), plan(), Chunk(0, ("5",), ("9",), 1), KEY, batch_rows=3, partition=None, data_uri="s3://l/d"
    )
    assert "FORCE INDEX (`PRIMARY`)" in server.statement
    assert "`id` > 5 AND `id` <= 9\n    AND `day` < '2026-01-01'\nORDER BY `id`" in server.statement
