from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from dbops.inventory.log_sources import CloudWatchLogs, Files, LogSource, LogSourceError, RdsLogs, Reading
from dbops.inventory.logs import TRUNCATED, LogFormatError

OPENED = (
    "/usr/sbin/mysqld, Version: 5.7.22-log (x). started with:\n"
    "Tcp port: 3306  Unix socket: /s\nTime                 Id Command    Argument\n"
)


def slow(number: int, statement: str = "", use: str = "") -> str:
    return (
        f"# Time: 2026-07-01T10:00:{number % 60:02}.{number:06}Z\n# User@Host: app[app] @  [10.0.0.1]  Id:     7\n"
        "# Query_time: 0.001500  Lock_time: 0.000250 Rows_sent: 3  Rows_examined: 40\n"
        + (f"use {use};\n" if use else "")
        + f"SET timestamp=1782900000;\n{statement or f'SELECT {number}'};\n"
    )


def read(source: LogSource, checkpoint: str | None = None, *, final: bool = False) -> tuple[list[str], str, Reading]:
    """Texts, the checkpoint behind them, the reading."""
    reading = Reading(source, "slow_log", checkpoint)
    found = [entry.text for entry in reading.entries(final=final)]
    return found, reading.checkpoint, reading


# -- files --------------------------------------------------------------------------------------------------------------------


class Log:
    """A log file that grows and is rotated, each file written a second after the one before."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "slow.log"
        self.now = 1_782_900_000
        self.add(OPENED)

    def add(self, *parts: str) -> None:
        with self.path.open("a") as file:
            file.write("".join(parts))
        self._touch(self.path)

    def rotate(self, suffix: str, *, compress: bool = False) -> None:
        name = f"slow.log{suffix}"
        old = self.path.rename(self.path.with_name(name))
        if compress:
            (self.path.parent / f"{name}.gz").write_bytes(gzip.compress(old.read_bytes()))
            self._touch(self.path.parent / f"{name}.gz")
            old.unlink()
        self.add(OPENED)

    def _touch(self, path: Path) -> None:
        self.now += 1
        os.utime(path, (self.now, self.now))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_file_is_read_on_where_the_last_read_ended(log: Log) -> None:
    log.add(slow(1, use="shop"), slow(2))
    found, checkpoint, _ = read(Files(log.path))
    assert found == ["SELECT 1"]  # the last entry may still be written to
    again, same, _ = read(Files(log.path), checkpoint)
    assert (again, same) == ([], checkpoint)
    log.add(slow(3), slow(4)[:-40])
    found, checkpoint, _ = read(Files(log.path), checkpoint)
    assert found == ["SELECT 2"]
    log.add(slow(4)[-40:])
    reading = Reading(Files(log.path), "slow_log", checkpoint)
    entries = [*reading.entries(final=True)]
    assert [(e.text, e.schema) for e in entries] == [("SELECT 3", "shop"), ("SELECT 4", "shop")]
    assert read(Files(log.path), reading.checkpoint, final=True)[0] == []
    assert reading.gaps == ()


@pytest.mark.parametrize("compress", [False, True])
def test_a_rotation_between_two_reads_loses_and_repeats_nothing(log: Log, compress: bool) -> None:
    log.add(slow(1), slow(2))
    found, checkpoint, _ = read(Files(log.path))
    log.add(slow(3))
    log.rotate(".1", compress=compress)
    log.add(slow(4), slow(5))
    more, checkpoint, reading = read(Files(log.path), checkpoint)
    assert [*found, *more] == ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4"]
    assert reading.gaps == ()
    assert read(Files(log.path), checkpoint, final=True)[0] == ["SELECT 5"]


def test_all_of_the_older_files_are_read_once(log: Log) -> None:
    for number in range(1, 7):
        log.add(slow(number))
        log.rotate(f"-2026070{number}")
    log.path.with_name("slow.logbook").write_text("no log")
    found, checkpoint, _ = read(Files(log.path), final=True)
    assert found == [f"SELECT {n}" for n in range(1, 7)]
    log.add(slow(7))
    log.rotate("-20260707")
    log.add(slow(8))
    log.rotate("-20260708")
    log.add(slow(9), slow(10))
    assert read(Files(log.path), checkpoint)[0] == ["SELECT 7", "SELECT 8", "SELECT 9"]


@pytest.mark.parametrize("written", [40, None])
def test_a_file_that_is_being_compressed_is_read_once(log: Log, written: int | None) -> None:
    log.add(slow(1), slow(2))
    log.rotate(".1")
    log.add(slow(3))
    rotated = log.path.with_name("slow.log.1")
    log.path.with_name("slow.log.1.gz").write_bytes(gzip.compress(rotated.read_bytes())[:written])
    assert read(Files(log.path), final=True)[0] == ["SELECT 1", "SELECT 2", "SELECT 3"]


def test_a_file_that_was_removed_is_a_gap(log: Log) -> None:
    log.add(slow(1), slow(2))
    _, checkpoint, _ = read(Files(log.path))
    log.rotate(".1")
    log.path.with_name("slow.log.1").unlink()
    log.add(slow(3))
    found, _, reading = read(Files(log.path), checkpoint, final=True)
    assert found == ["SELECT 3"]
    (gap,) = reading.gaps
    assert gap.what == f"what was written to {log.path} after byte {len(OPENED) + len(slow(1))}"


def test_a_file_that_was_emptied_in_place_is_noticed(log: Log) -> None:
    log.add(slow(1), slow(2))
    _, checkpoint, _ = read(Files(log.path))
    log.path.write_text("")
    log.add(OPENED, slow(3), slow(4), slow(5))
    found, _, reading = read(Files(log.path), checkpoint, final=True)
    assert found == ["SELECT 3", "SELECT 4", "SELECT 5"]
    assert len(reading.gaps) == 1


def test_many_blocks(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbops.inventory.log_sources._BLOCK_BYTES", 100)
    log.add(*(slow(n, f"SELECT {n},\n'{'x' * (n % 300)}'") for n in range(200)))
    whole = read(Files(log.path), final=True)[0]
    assert len(whole) == 200
    found: list[str] = []
    checkpoint = None
    content = log.path.read_bytes()
    for end in range(1000, len(content) + 1000, 1000):
        log.path.write_bytes(content[:end])
        more, checkpoint, _ = read(Files(log.path), checkpoint)
        found += more
    found += read(Files(log.path), checkpoint, final=True)[0]
    assert found == whole


def test_what_is_wrong_with_a_file_is_said_with_its_name(log: Log, tmp_path: Path) -> None:
    with pytest.raises(LogSourceError, match=r"log file .*/no\.log: no such file; SHOW VARIABLES"):
        read(Files(tmp_path / "no.log"))
    log.add(slow(1))
    log.rotate(".1")
    log.add(slow(2), "2026-07-01T10:00:00.000001Z\t    7 Query\tSELECT 3\n", slow(4))
    reading = Reading(Files(log.path), "slow_log")
    found: list[str] = []
    with pytest.raises(LogFormatError, match=rf"^{log.path}, line 9: expected an entry of MySQL's slow log"):
        found.extend(entry.text for entry in reading.entries())
    assert found == ["SELECT 1", "SELECT 2"]
    with pytest.raises(LogFormatError, match=rf"^{log.path}, line 1 after the checkpoint: "):
        read(Files(log.path), reading.checkpoint)


def test_a_checkpoint_belongs_to_one_kind_of_log(log: Log) -> None:
    log.add(slow(1))
    _, checkpoint, _ = read(Files(log.path), final=True)
    with pytest.raises(LogSourceError, match=r"checkpoint of a 'slow_log' cannot continue a 'general_log'"):
        Reading(Files(log.path), "general_log", checkpoint)


def test_sightings_and_what_was_not_seen(log: Log) -> None:
    log.add(
        slow(1),
        slow(2),
        slow(3, "# administrator command: Quit"),
        slow(4, f"SELECT 'x\n {TRUNCATED.decode()}\n")[:-3],
        slow(5),
    )
    reading = Reading(Files(log.path), "slow_log")
    found = [*reading.sightings(final=True)]
    assert sorted((s.executions, s.truncated) for s in found) == [(1, True), (3, False)]
    assert reading.totals.admin.total() == 1
    assert [gap.what for gap in reading.gaps] == ["slow_log: 1 statements were cut"]


# -- RDS ----------------------------------------------------------------------------------------------------------------------

NAME = "slowquery/mysql-slowquery.log"


class Rds:
    """DescribeDBLogFiles and DownloadDBLogFilePortion as RDS answers them: markers 'hour:byte', portions of `limit` bytes."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.limit = limit
        self.files: dict[str, tuple[int, str]] = {}
        self.asked: list[dict[str, Any]] = []

    def describe(self, **request: Any) -> dict[str, Any]:
        return {"DescribeDBLogFiles": [
            {"LogFileName": name, "LastWritten": written, "Size": len(text)}
            for name, (written, text) in self.files.items() if request["FilenameContains"] in name
        ]}  # fmt: skip

    def download(self, **request: Any) -> dict[str, Any]:
        text = self.files[request["LogFileName"]][1]
        start = int(request["Marker"].split(":")[-1])
        data = "".join(text[start:].splitlines(keepends=True)[: request["NumberOfLines"]])
        if len(data) > self.limit:
            data = data[: self.limit]
            end = start + len(data)
            return {
                "LogFileData": f"{data}\n {TRUNCATED.decode()}\n",
                "Marker": f"10:{end}",
                "AdditionalDataPending": False,
            }
        end = start + len(data)
        return {"LogFileData": data, "Marker": f"10:{end}", "AdditionalDataPending": end < len(text)}

    def source(self) -> RdsLogs:
        return RdsLogs(self, "shop-1", NAME)

    # What the source uses of a client. test_the_calls_are_those_of_botocore holds the calls against botocore's model.
    def get_paginator(self, operation: str) -> Rds:
        assert operation == "describe_db_log_files"
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        assert request["DBInstanceIdentifier"] == "shop-1"
        return [self.describe(**request)]

    def download_db_log_file_portion(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        return self.download(**request)


def test_portions_are_followed_to_the_end() -> None:
    rds, text = Rds(), OPENED + "".join(slow(n) for n in range(5000))
    rds.files = {
        NAME: (2000, text),
        "slowquery/mysql-slowquery.log.9": (1000, OPENED + slow(0, "SELECT 'old'")),
        "error/mysql.log": (1, "x"),
    }
    found, checkpoint, _ = read(rds.source())
    assert found == ["SELECT 'old'", *(f"SELECT {n}" for n in range(4999))]
    calls = len(rds.asked)
    rds.files[NAME] = (3000, text + slow(5000) + slow(5001))
    assert read(rds.source(), checkpoint, final=True)[0] == ["SELECT 4999", "SELECT 5000", "SELECT 5001"]
    assert len(rds.asked) - calls <= 3, "the second read begins at its marker"


def test_a_portion_that_rds_cut_is_asked_for_again_with_fewer_lines() -> None:
    rds = Rds(limit=2000)
    statements = [f"SELECT {n},\n '{'x' * (n % 700)}'" for n in range(300)]
    rds.files = {NAME: (2000, OPENED + "".join(slow(n, text) for n, text in enumerate(statements)))}
    found, _, reading = read(rds.source(), final=True)
    assert found == statements
    assert reading.gaps == ()


def test_a_line_longer_than_a_portion_stays_cut_and_the_rest_goes_on() -> None:
    rds = Rds(limit=2000)
    rds.files = {NAME: (2000, OPENED + slow(1) + slow(2, f"SELECT '{'x' * 5000}'") + slow(3) + slow(4))}
    reading = Reading(rds.source(), "slow_log")
    entries = [*reading.entries(final=True)]
    assert [(e.text[:12], e.truncated) for e in entries] == [
        ("SELECT 1", False),
        ("SELECT 'xxxx", True),
        ("SELECT 3", False),
        ("SELECT 4", False),
    ]
    assert [gap.what for gap in reading.gaps] == ["slow_log: 1 statements were cut"]


def test_a_rotation_in_rds_loses_and_repeats_nothing() -> None:
    rds = Rds()
    rds.files = {NAME: (2000, OPENED + slow(1) + slow(2))}
    found, checkpoint, _ = read(rds.source())
    rds.files = {
        "slowquery/mysql-slowquery.log.9": (1000, OPENED + slow(0)),  # yesterday's, named after the same hour
        "slowquery/mysql-slowquery.log.10": (3000, OPENED + slow(1) + slow(2) + slow(3)),
        NAME: (4000, OPENED + slow(4) + slow(5)),
    }
    more, _, reading = read(rds.source(), checkpoint, final=True)
    assert [*found, *more] == [f"SELECT {n}" for n in range(1, 6)]
    assert reading.gaps == ()


@pytest.mark.parametrize("name", [NAME, "slowquery"])
@pytest.mark.parametrize("hours", [(".9", ".10"), (".2026-07-01.09", ".2026-07-01.10")])
def test_files_of_one_moment_are_read_in_their_order(name: str, hours: tuple[str, str]) -> None:
    """The file that is written to is the last, also where RDS says that it and the one before it were written to at the same time."""
    rds = Rds()
    rds.files = {
        NAME: (3000, OPENED + slow(3) + slow(4)),
        f"{NAME}{hours[1]}": (3000, OPENED + slow(2)),
        f"{NAME}{hours[0]}": (2000, OPENED + slow(1)),
    }
    found, checkpoint, _ = read(RdsLogs(rds, "shop-1", name))
    assert found == ["SELECT 1", "SELECT 2", "SELECT 3"]
    rds.files[NAME] = (4000, OPENED + slow(3) + slow(4) + slow(5))
    assert read(RdsLogs(rds, "shop-1", name), checkpoint, final=True)[0] == ["SELECT 4", "SELECT 5"]


def test_a_log_that_rds_removed_is_a_gap() -> None:
    rds = Rds()
    rds.files = {NAME: (2000, OPENED + slow(1) + slow(2))}
    _, checkpoint, _ = read(rds.source())
    rds.files = {"slowquery/mysql-slowquery.log.11": (3000, OPENED + slow(4)), NAME: (4000, OPENED + slow(5))}
    found, _, reading = read(rds.source(), checkpoint, final=True)
    assert found == ["SELECT 4", "SELECT 5"]
    assert len(reading.gaps) == 1
    rds.files = {"error/mysql-error.log": (1, "")}
    with pytest.raises(
        LogSourceError, match=r"of instance shop-1: RDS has no such file; in its parameter group set slow_query_log = 1"
    ):
        read(rds.source())


def test_the_calls_are_those_of_botocore() -> None:
    client = boto3.client("rds", "eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    asked = {"DBInstanceIdentifier": "shop-1", "LogFileName": NAME}
    describe = {"DBInstanceIdentifier": "shop-1", "FilenameContains": NAME}
    file = {"LogFileName": NAME, "LastWritten": 1_782_900_000_000, "Size": 10}
    with Stubber(client) as stub:

        def answer(data: str, marker: str, *, pending: bool, to: str, lines: int = 10_000) -> None:
            response = {"LogFileData": data, "Marker": marker, "AdditionalDataPending": pending}
            stub.add_response("download_db_log_file_portion", response, {**asked, "Marker": to, "NumberOfLines": lines})

        stub.add_response("describe_db_log_files", {"DescribeDBLogFiles": [], "Marker": "more"}, describe)
        stub.add_response("describe_db_log_files", {"DescribeDBLogFiles": [file]}, {**describe, "Marker": "more"})
        answer(OPENED + slow(1), "10:400", pending=True, to="0")
        answer(slow(2), "10:600", pending=False, to="10:400")
        found, checkpoint, _ = read(RdsLogs(client, "shop-1", NAME))
        stub.assert_no_pending_responses()
        stub.add_response("describe_db_log_files", {"DescribeDBLogFiles": [file]}, describe)
        answer(OPENED + slow(1) + slow(2), "10:600", pending=False, to="0", lines=50)
        answer(slow(2) + slow(3), "10:800", pending=False, to="10:400")
        more, _, _ = read(RdsLogs(client, "shop-1", NAME), checkpoint, final=True)
        stub.assert_no_pending_responses()
        stub.add_client_error("describe_db_log_files", "DBInstanceNotFound", "DBInstance shop-1 not found.")
        with pytest.raises(LogSourceError, match=r"DBInstance shop-1 not found.*read again"):
            read(RdsLogs(client, "shop-1", NAME))
    assert [*found, *more] == ["SELECT 1", "SELECT 2", "SELECT 3"]


# -- CloudWatch Logs ----------------------------------------------------------------------------------------------------------

GROUP = "/aws/rds/cluster/shop/slowquery"


@pytest.fixture
def cloudwatch() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("logs", "eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_log_group(logGroupName=GROUP)
        for stream in ("shop-1", "shop-2"):
            client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        yield client


NOW_MS = int(time.time() * 1000) - 3_600_000


def put(client: Any, *events: tuple[int, str], stream: str = "shop-1") -> None:
    client.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": NOW_MS + at, "message": text} for at, text in events],
    )


def test_events_of_one_instance_are_read_on_where_the_last_read_ended(cloudwatch: Any) -> None:
    put(cloudwatch, (1, slow(1).rstrip("\n")), (2, slow(2, "SELECT\n2").rstrip("\n")), (2, slow(3).rstrip("\n")))
    put(cloudwatch, (1, slow(99)), stream="shop-2")
    source = lambda: CloudWatchLogs(cloudwatch, GROUP, "shop-1")  # noqa: E731
    found, checkpoint, _ = read(source())
    assert found == ["SELECT 1", "SELECT\n2"]
    assert read(source(), checkpoint)[0] == []
    put(cloudwatch, (2, slow(4)), (2, slow(5)), (7, slow(6)))
    found, checkpoint, _ = read(source(), checkpoint)
    assert found == ["SELECT 3", "SELECT 4", "SELECT 5"]
    found, checkpoint, reading = read(source(), checkpoint, final=True)
    assert found == ["SELECT 6"]
    assert read(source(), checkpoint, final=True)[0] == []
    assert reading.gaps == ()


def test_pages_of_events(cloudwatch: Any) -> None:
    for start in range(0, 12_000, 4000):
        put(cloudwatch, *((n // 3, slow(n)) for n in range(start, start + 4000)))
    found, checkpoint, _ = read(CloudWatchLogs(cloudwatch, GROUP, "shop-1"))
    assert found == [f"SELECT {n}" for n in range(11_999)]
    assert read(CloudWatchLogs(cloudwatch, GROUP, "shop-1"), checkpoint, final=True)[0] == ["SELECT 11999"]


def test_where_a_first_read_begins(cloudwatch: Any) -> None:
    put(cloudwatch, *((n, slow(n)) for n in range(10)))
    assert read(CloudWatchLogs(cloudwatch, GROUP, "shop-1", since_ms=NOW_MS + 8), final=True)[0] == [
        "SELECT 8",
        "SELECT 9",
    ]


def test_a_group_that_is_not_there(cloudwatch: Any) -> None:
    with pytest.raises(LogSourceError, match=r"log group /aws/rds/none, stream shop-1: not found; publish the log"):
        read(CloudWatchLogs(cloudwatch, "/aws/rds/none", "shop-1"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x1f\x8b no gzip", "BadGzipFile"),
        (gzip.compress(b"x" * 5000, mtime=0)[:-20], "EOFError"),
        (gzip.compress(bytes(range(256)) * 99, mtime=0)[:20] + b"\xff" * 99, "error"),
    ],
)
def test_a_damaged_file_is_one_error_and_keeps_the_position(log: Log, content: bytes, expected: str) -> None:
    log.add(slow(1), slow(2))
    _, checkpoint, _ = read(Files(log.path))
    damaged = log.path.with_name(f"{log.path.name}.9.gz")
    damaged.write_bytes(content)
    os.utime(damaged, (2e9, 2e9))
    reading = Reading(Files(log.path), "slow_log", checkpoint)
    with pytest.raises(LogSourceError, match=expected):
        [*reading.entries()]
    damaged.unlink()
    found, _, _ = read(Files(log.path), checkpoint, final=True)
    assert found == ["SELECT 2"]


def test_a_checkpoint_that_is_no_json(log: Log) -> None:
    with pytest.raises(LogSourceError, match="not JSON: read that log without a checkpoint"):
        Reading(Files(log.path), "slow_log", "{")
