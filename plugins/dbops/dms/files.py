"""Files that DMS writes to S3: where those of a table are, and their rows as text.

Source: DMS user guide, "Using Amazon S3 as a target": names of files, the columns in front (Op, timestamp), header, compression.
Where the file has no header and the endpoint adds a timestamp column, that column is taken to stand behind Op and before the data; the
guide does not say so in words.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dbops.dms.mappings import Names

if TYPE_CHECKING:
    import pyarrow as pa

OPERATION = "Op"
BATCH_ROWS = 10_000
Row = dict[str, "str | None"]


@dataclass(frozen=True)
class Layout:
    """How an endpoint writes its files."""

    folder: str = ""
    is_parquet: bool = False
    is_gzip: bool = False
    delimiter: str = ","
    has_header: bool = False
    has_operation_in_load: bool = False
    has_operation_in_changes: bool = True
    timestamp_column: str = ""
    has_date_folders: bool = False
    cdc_path: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Layout:
        """From S3Settings of an endpoint."""
        in_load = bool(settings.get("IncludeOpForFullLoad"))
        return cls(
            folder=str(settings.get("BucketFolder") or "").strip("/"),
            is_parquet=str(settings.get("DataFormat") or "csv").lower() == "parquet",
            is_gzip=str(settings.get("CompressionType") or "none").lower() == "gzip",
            delimiter=str(settings.get("CsvDelimiter") or ","),
            has_header=bool(settings.get("AddColumnName")),
            has_operation_in_load=in_load,
            has_operation_in_changes=in_load or not settings.get("CdcInsertsOnly"),
            timestamp_column=str(settings.get("TimestampColumnName") or ""),
            has_date_folders=bool(settings.get("DatePartitionEnabled")),
            cdc_path=str(settings.get("CdcPath") or "").strip("/"),
        )

    def prefix(self, names: Names) -> str:
        """Prefix of the objects of a table."""
        return f"{self.folder}/{names.schema}/{names.table}/".lstrip("/")

    def columns(self, names: Names, *, is_load: bool) -> list[str]:
        """Names of the columns of a file without a header."""
        front = [OPERATION] if (self.has_operation_in_load if is_load else self.has_operation_in_changes) else []
        return [*front, *([self.timestamp_column] if self.timestamp_column else []), *names.columns.values()]


@dataclass(frozen=True)
class Found:
    """An object of the bucket."""

    key: str
    modified_at: datetime
    size: int

    @property
    def is_load(self) -> bool:
        """Whether it was written by a full load."""
        return self.key.rpartition("/")[2].upper().startswith("LOAD")


def listed(s3: Any, bucket: str, prefix: str, *, after: str = "") -> Iterator[Found]:
    """Every object under a prefix in the order of keys, page by page, without empty ones."""
    arguments = {"Bucket": bucket, "Prefix": prefix, **({"StartAfter": after} if after else {})}
    while True:
        answer = s3.list_objects_v2(**arguments)
        for row in answer.get("Contents") or ():
            if row["Size"] and not row["Key"].endswith("/"):
                yield Found(row["Key"], row["LastModified"], int(row["Size"]))
        if not answer.get("IsTruncated"):
            return
        arguments = {**arguments, "ContinuationToken": answer["NextContinuationToken"]}


def rows(s3: Any, bucket: str, found: Found, layout: Layout, names: Names) -> Iterator[list[Row]]:
    """Rows of an object in batches, values as text, by the names of the target."""
    if layout.is_parquet or found.key.lower().endswith(".parquet"):
        with _local(s3, bucket, found.key) as path:
            yield from _parquet(path)
        return
    columns = None if layout.has_header else layout.columns(names, is_load=found.is_load)
    yield from _csv(s3.get_object(Bucket=bucket, Key=found.key)["Body"], layout, columns, found.key)


@contextmanager
def _local(s3: Any, bucket: str, key: str) -> Iterator[str]:
    """A Parquet file is read from its end, so it has to be here as a whole; on disk, not in memory."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        for part in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
            file.write(part)
        file.flush()
        yield file.name


def _parquet(path: str) -> Iterator[list[Row]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield [{name: _text(value) for name, value in row.items()} for row in batch.to_pylist()]


def _csv(body: Any, layout: Layout, columns: Sequence[str] | None, key: str) -> Iterator[list[Row]]:
    import pyarrow as pa
    from pyarrow import csv

    stream: pa.NativeFile = pa.PythonFile(body, mode="r")
    if layout.is_gzip or key.lower().endswith(".gz"):
        stream = pa.CompressedInputStream(stream, "gzip")
    names, types = list(columns) if columns else None, {name: pa.string() for name in columns or ()}
    reader = csv.open_csv(
        stream,
        read_options=csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )
    for batch in reader:
        yield [{name: _text(value) for name, value in row.items()} for row in _strings(batch)]


def _strings(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return list(batch.to_pylist())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.hex() if isinstance(value, bytes) else str(value)
