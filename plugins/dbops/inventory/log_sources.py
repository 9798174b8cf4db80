"""Where a slow or general log is read: files, RDS, CloudWatch Logs; each from where the last read ended.

A source hands a log out as :class:`Chunk` values, each with the token of its beginning. :class:`Reading` makes entries and sightings of
them and keeps the position behind the last entry as a string: the next read is given that string and goes on there, also when the file was
rotated meanwhile. What was removed before it could be read is a :class:`Gap`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from botocore.exceptions import BotoCoreError, ClientError

from dbops.inventory import logs
from dbops.inventory.logs import Entry, LogKind, Tally
from dbops.inventory.model import Gap, Sighting

Token = Mapping[str, Any]
"""Where a chunk begins, as JSON values that only its source understands."""

_HEAD_BYTES = 1024
"""A file is known by its first bytes: they hold the times of its first entries, and stay when the file gets another name."""
_BLOCK_BYTES = 1 << 20
_RDS_LINES = 10_000
"""The most that DownloadDBLogFilePortion gives."""


_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeError, BotoCoreError, ClientError)
"""What reading a file, a compressed file, RDS and CloudWatch Logs may raise."""


class LogSourceError(RuntimeError):
    """There is no such log, or it cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a log that may begin and end within a line."""

    data: bytes
    token: Token
    place: str
    """Name of the file or stream, for messages."""
    skipped: int = 0
    """`data` begins so many bytes behind the place of the token."""


class LogSource(Protocol):
    """A log that can be read from a position on."""

    gaps: list[Gap]

    def chunks(self, token: Token | None, skip: int) -> Iterator[Chunk]:
        """The log from `skip` bytes behind `token` on; all that there is of it, oldest first, without a token.

        Raises:
            LogSourceError: there is no such log
        """


class Reading:
    """One read of a log, from a checkpoint to what is its end now.

    Args:
        source: the log
        log: its format
        checkpoint: of the last read; None: from the oldest line that there is

    Raises:
        LogSourceError: the checkpoint is that of another kind of log
    """

    def __init__(self, source: LogSource, log: LogKind, checkpoint: str | None = None) -> None:
        try:
            saved = json.loads(checkpoint) if checkpoint else {}
        except ValueError as error:
            raise LogSourceError(
                f"the checkpoint of a {log} is not JSON: read that log without a checkpoint"
            ) from error
        if checkpoint and saved.get("log") != log:
            raise LogSourceError(
                f"checkpoint of a {saved.get('log')!r} cannot continue a {log!r}: read that log without a checkpoint"
            )
        self._source, self._log = source, log
        self._from: tuple[Token | None, int] = (saved.get("token"), saved.get("skip", 0))
        self._marks: deque[tuple[int, Token, int]] = deque()
        self._seen = 0
        self._places: list[tuple[int, str, bool]] = []
        reader = logs.SlowLog if log == "slow_log" else logs.GeneralLog
        self._reader = reader(log, saved.get("state"), self._where)

    @property
    def totals(self) -> logs.Totals:
        """What was read so far."""
        return self._reader.totals

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What this read could not see."""
        return (*self._source.gaps, *self.totals.gaps(self._log))

    @property
    def checkpoint(self) -> str:
        """Where the next read goes on: behind the last entry that was handed out."""
        token, skip = self._position()
        return json.dumps({"log": self._log, "token": token, "skip": skip, "state": self._reader.state()})

    def entries(self, *, final: bool = False) -> Iterator[Entry]:
        """Entries up to the end of the log.

        Args:
            final: nobody writes to the log any more; otherwise its last entry is left to the next read, since it may not be whole

        Raises:
            LogFormatError: after the entries before it
            LogSourceError: there is no such log, or it cannot be read to its end; the checkpoint of before is still good
        """
        return self._reader.read(self._pieces(), final=final)

    def sightings(self, *, final: bool = False, tally: Tally | None = None) -> Iterator[Sighting]:
        """Those entries added up; see :func:`logs.aggregate`."""
        return logs.aggregate(self.entries(final=final), source=self._log, tally=tally)

    def _pieces(self) -> Iterator[bytes]:
        lines = 0
        for chunk in self._chunks():
            if not self._places or chunk.place != self._places[-1][1]:
                self._places.append(
                    (lines, chunk.place, chunk.skipped > 0 or (self._from[0] is not None and not self._places))
                )
            self._forget()
            self._marks.append((self._seen, chunk.token, chunk.skipped))
            self._seen += len(chunk.data)
            lines += chunk.data.count(b"\n")
            yield chunk.data

    def _chunks(self) -> Iterator[Chunk]:
        try:
            yield from self._source.chunks(*self._from)
        except _UNREADABLE as error:
            place = self._places[-1][1] if self._places else "its beginning"
            raise LogSourceError(
                f"{self._log} not readable at or behind {place}: {type(error).__name__}: {error}; it is read again from where the last read"
                " ended"
            ) from error

    def _where(self, line: int) -> str:
        first, place, resumed = next((p for p in reversed(self._places) if p[0] < line), (0, "", False))
        return f"{place}, line {line - first}{' after the checkpoint' if resumed else ''}"

    def _forget(self) -> None:
        while len(self._marks) > 1 and self._marks[1][0] <= self._reader.consumed:
            self._marks.popleft()

    def _position(self) -> tuple[Token | None, int]:
        self._forget()
        if not self._marks:
            return self._from
        start, token, skip = self._marks[0]
        return token, skip + self._reader.consumed - start


# -- logs in files that are rotated -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    name: str
    written: float
    """Time of the last write, seconds since 1970."""


class _Rotated:
    """What local files and RDS share: older files whose names begin with the log's, and one that goes on under another name."""

    def __init__(self) -> None:
        self.gaps: list[Gap] = []

    def chunks(self, token: Token | None, skip: int) -> Iterator[Chunk]:
        """See LogSource."""
        files = self._list()
        if token is None:
            later = files
        else:
            at = next((at for at in self._likely(files, token) if self._is(files[at], token)), None)
            if at is None:
                self.gaps.append(Gap(
                    f"what was written to {token['file']} after byte {token['bytes'] + skip}", "the file is gone",
                    "read the log more often than the server removes it (Aurora: after 24 hours, or when its storage fills)",
                ))  # fmt: skip
                later = [file for file in files if file.written > token["written"]]
            else:
                later = files[at + 1 :]
                yield from self._go_on(files[at], token, skip)
        for file in later:
            yield from self._read(file, None, 0, 0)

    def _go_on(self, file: _File, token: Token, skip: int) -> Iterator[Chunk]:
        if file.name == token["file"]:
            return self._read(file, token["at"], token["bytes"], skip)
        # Renamed: its bytes are the same, a marker may not be.
        marker, start = self._at_byte(token["bytes"] + skip)
        return self._read(file, marker, start, token["bytes"] + skip - start)

    def _likely(self, files: list[_File], token: Token) -> list[int]:
        """The file of the token is the oldest that was written to since; files that hold no entry yet all begin alike."""
        return sorted(range(len(files)), key=lambda at: (files[at].written < token["written"], at))

    def _is(self, file: _File, token: Token) -> bool:
        head = self._head(file.name)[: token["head_bytes"]]
        return len(head) == token["head_bytes"] and hashlib.sha256(head).hexdigest() == token["head"]

    def _read(self, file: _File, marker: Any, start: int, skip: int) -> Iterator[Chunk]:
        """From `skip` bytes behind the marker, which is at byte `start`, to the end of the file."""
        head = self._head(file.name) if start else b""
        for at, data in self._portions(file.name, marker):
            head = head or data[:_HEAD_BYTES]
            token = {
                "file": file.name, "at": at, "bytes": start, "written": file.written,
                "head": hashlib.sha256(head).hexdigest(), "head_bytes": len(head),
            }  # fmt: skip
            start += len(data)
            if skip < len(data):
                yield Chunk(data[skip:], token, file.name, skip)
            skip = max(0, skip - len(data))

    def _list(self) -> list[_File]:
        """The log's files, oldest first, the one that is written to last. Raises LogSourceError when there is none."""
        raise NotImplementedError

    def _head(self, name: str) -> bytes:
        """The file's first _HEAD_BYTES bytes."""
        raise NotImplementedError

    def _at_byte(self, offset: int) -> tuple[Any, int]:
        """The last marker that is not behind that byte, and the byte at which it is."""
        raise NotImplementedError

    def _portions(self, name: str, marker: Any) -> Iterator[tuple[Any, bytes]]:
        """(marker, bytes behind it) to the end of the file; marker None: from its beginning."""
        raise NotImplementedError


class Files(_Rotated):
    """A log on a disk that this process can read, with the older files that mysqladmin, mv or logrotate made of it (also ``.gz``)."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path)

    def _list(self) -> list[_File]:
        found = [
            _File(str(path), path.stat().st_mtime)
            for path in self._path.parent.glob(f"{self._path.name}*")
            if path.is_file() and path.name[len(self._path.name) :][:1] in ("", ".", "-", "_")
        ]
        if not found:
            raise LogSourceError(
                f"log file {self._path}: no such file; SHOW VARIABLES LIKE 'slow_query_log_file' (or 'general_log_file') says where it is,"
                " log_output must contain FILE, and this process must be able to read it"
            )
        names = {file.name for file in found}
        # While logrotate compresses a file, both are there.
        whole = [f for f in found if not (f.name.endswith(".gz") and f.name.removesuffix(".gz") in names)]
        return sorted(whole, key=lambda file: (file.name == str(self._path), file.written, file.name))

    def _head(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read(_HEAD_BYTES)

    def _at_byte(self, offset: int) -> tuple[Any, int]:
        return offset, offset

    def _portions(self, name: str, marker: Any) -> Iterator[tuple[Any, bytes]]:
        at = marker or 0
        with self._open(name) as file:
            file.seek(at)
            while data := file.read(_BLOCK_BYTES):
                yield at, data
                at += len(data)

    @staticmethod
    def _open(name: str) -> BinaryIO:
        return cast(BinaryIO, gzip.open(name, "rb") if name.endswith(".gz") else Path(name).open("rb"))


_HOUR = re.compile(r"\.[\d.-]+\Z")
"""What RDS puts behind the name of a file that is rotated: ``.9``, ``.2026-07-01.09``."""


class RdsLogs(_Rotated):
    """A log of an RDS or Aurora instance through DescribeDBLogFiles and DownloadDBLogFilePortion.

    A portion that RDS cuts at 1 MB is asked for again with fewer lines; only a single line of more than 1 MB stays cut.

    Args:
        client: boto3 client of ``rds``; needs rds:DescribeDBLogFiles and rds:DownloadDBLogFilePortion on the instance
        instance: DB instance identifier
        name: of the current file, ``slowquery/mysql-slowquery.log`` or ``general/mysql-general.log``, or only the folder
    """

    def __init__(self, client: Any, instance: str, name: str) -> None:
        super().__init__()
        self._client, self._instance, self._name = client, instance, name
        self._heads: dict[str, bytes] = {}

    def _list(self) -> list[_File]:
        pages = self._client.get_paginator("describe_db_log_files").paginate(
            DBInstanceIdentifier=self._instance, FilenameContains=self._name
        )
        found = [
            _File(file["LogFileName"], file["LastWritten"] / 1000)
            for page in pages
            for file in page.get("DescribeDBLogFiles", ())
            if file["LogFileName"].startswith(self._name)
        ]
        if not found:
            raise LogSourceError(
                f"log file {self._name} of instance {self._instance}: RDS has no such file; in its parameter group set slow_query_log = 1"
                " (or general_log = 1) and log_output = FILE"
            )
        # The file that is written to has no hour behind its name; it and the one before it may be written to in the same moment.
        return sorted(found, key=lambda file: (_HOUR.search(file.name) is None, file.written, file.name))

    def _head(self, name: str) -> bytes:
        if name not in self._heads:
            self._heads[name] = self._portion(name, "0", 50)[0][:_HEAD_BYTES]
        return self._heads[name]

    def _at_byte(self, offset: int) -> tuple[Any, int]:
        return None, 0

    def _portions(self, name: str, marker: Any) -> Iterator[tuple[Any, bytes]]:
        at, lines = marker or "0", _RDS_LINES
        while True:
            data, behind, pending = self._portion(name, at, lines)
            cut = data.rstrip(b"\n").endswith(logs.TRUNCATED)
            if cut and lines > 1:
                lines = max(1, lines // 4)
                continue
            if data:
                yield at, data
            # RDS has been seen to say that nothing is pending beside a portion that it cut.
            if not data or behind == at or not (pending or cut):
                return
            at, lines = behind, min(_RDS_LINES, lines * 2)

    def _portion(self, name: str, marker: str, lines: int) -> tuple[bytes, str, bool]:
        answer = self._client.download_db_log_file_portion(
            DBInstanceIdentifier=self._instance, LogFileName=name, Marker=marker, NumberOfLines=lines
        )
        return (
            (answer.get("LogFileData") or "").encode(),
            answer.get("Marker") or marker,
            bool(answer.get("AdditionalDataPending")),
        )


# -- CloudWatch Logs -----------------------------------------------------------------------------------------------------------


class CloudWatchLogs:
    """A log that RDS publishes to CloudWatch Logs, where it is kept as long as the group's retention says: one event an entry.

    Args:
        client: boto3 client of ``logs``; needs logs:FilterLogEvents on the group
        group: ``/aws/rds/cluster/<cluster>/slowquery`` or ``/aws/rds/instance/<instance>/slowquery`` (or ``general``)
        stream: the instance
        since_ms: where a read without a checkpoint begins, milliseconds since 1970
    """

    def __init__(self, client: Any, group: str, stream: str, *, since_ms: int = 0) -> None:
        self.gaps: list[Gap] = []
        self._client, self._group, self._stream, self._since = client, group, stream, since_ms

    def chunks(self, token: Token | None, skip: int) -> Iterator[Chunk]:
        """See LogSource."""
        since, seen = (token["since"], list(token["seen"])) if token else (self._since, [])
        for event in self._events(since):
            if event["timestamp"] == since and event["eventId"] in seen:
                continue
            here = {"since": since, "seen": list(seen)}
            if event["timestamp"] != since:
                since, seen = event["timestamp"], []
            seen.append(event["eventId"])
            data = event["message"].encode()
            data = data if data.endswith(b"\n") else data + b"\n"
            if skip < len(data):
                yield Chunk(data[skip:], here, f"{self._group} {self._stream}", skip)
            skip = max(0, skip - len(data))

    def _events(self, since: int) -> Iterator[Mapping[str, Any]]:
        pages = self._client.get_paginator("filter_log_events").paginate(
            logGroupName=self._group, logStreamNames=[self._stream], startTime=since
        )
        try:
            for page in pages:
                yield from page["events"]
        except self._client.exceptions.ResourceNotFoundException as error:
            raise LogSourceError(
                f"log group {self._group}, stream {self._stream}: not found; publish the log"
                " (CloudwatchLogsExportConfiguration: slowquery, general) or correct the names"
            ) from error
