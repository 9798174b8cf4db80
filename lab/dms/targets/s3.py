"""Rows into objects of a bucket: CSV files, one folder for each table, in the names and columns that DMS uses."""

from __future__ import annotations

import csv
import datetime as dt
import io
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lab.dms.source import Change, LostError, Transaction
from lab.dms.targets import Loaded, Mapped, Row

LETTERS = {"insert": "I", "update": "U", "delete": "D"}


class S3Target:
    """A folder of a bucket as the target of one task."""

    batch = 5000

    def __init__(self, client: Any, settings: dict[str, Any]) -> None:
        self.client, self.settings = client, settings
        self.numbers: dict[str, int] = {}
        self.pending: dict[str, list[list[Any]]] = {}
        self.committed_s = 0

    def prepare(self, mapped: Mapped, mode: str) -> None:
        self.numbers[mapped.table.full_name] = 0
        if mode == "DO_NOTHING":
            return
        listed = self._call("list_objects_v2", Prefix=self._folder(mapped)).get("Contents", ())
        for each in listed:
            self._call("delete_object", Key=each["Key"])

    def load(self, mapped: Mapped, rows: list[Row]) -> Loaded:
        if rows:
            self.numbers[mapped.table.full_name] = number = self.numbers.get(mapped.table.full_name, 0) + 1
            first = ["I"] if self.settings.get("IncludeOpForFullLoad") else []
            name = f"{self._folder(mapped)}LOAD{number:08X}.csv"
            self._write(name, [[*first, *map(_cell, row.values())] for row in rows])
        return Loaded(len(rows))

    def begin(self, transaction: Transaction) -> None:
        self.pending = {}

    def apply(self, mapped: Mapped, change: Change, before: Row | None, after: Row | None, tolerant: bool) -> None:
        row = after if after is not None else before
        assert row is not None
        line = [LETTERS[change.kind], *map(_cell, row.values())]
        self.pending.setdefault(self._folder(mapped), []).append(line)

    def ddl(self, mapped: Mapped, kind: str, statement: str) -> None:
        """Files stay as they are."""

    def commit(self) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S%f")
        for folder, lines in self.pending.items():
            self._write(f"{folder}{now}.csv", lines)
        self.pending = {}

    def exception(self, mapped: Mapped, statement: str, error: str) -> None:
        """This target has no control tables."""

    def _folder(self, mapped: Mapped) -> str:
        root = self.settings.get("BucketFolder")
        return f"{root + '/' if root else ''}{mapped.names.schema}/{mapped.names.table}/"

    def _write(self, key: str, lines: list[list[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._call("put_object", Key=key, Body=text.getvalue().encode())

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self.client, operation)(Bucket=self.settings["BucketName"], **arguments)
        except (BotoCoreError, ClientError) as error:
            raise LostError(f"Failed to write to s3://{self.settings['BucketName']}: {error}") from error


def _cell(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
