"""The canary: a row that a run writes at the source and looks for on the target, the only proof that changes arrive.

The table has the columns id (primary key), token and written_at; its DDL for the DBA is ``include/sql/dms/canary.sql``. A write is an
upsert of the row with id 1 and a new token. A look is one look and waits for nothing: waiting is the caller's, so a trigger can do it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from dbops import asking, sql
from dbops.dms import files, mappings, places
from dbops.dms.mappings import Names, Table
from dbops.dms.places import PlaceUnknown
from dbops.dms.spec import RELATIONAL, DmsSpec
from dbops.dms.states import Endpoint

ID, TOKEN, WRITTEN_AT = COLUMNS = ("id", "token", "written_at")
MAX_TOKEN = 64
SKEW = timedelta(seconds=60)
"""AWS's clock may differ from ours by so much: records and objects of before the write are looked at, too."""
CALLS_PER_SHARD = 20
"""GetRecords of one shard in one look; the next look goes on from there."""
_PLACE = re.compile(r"\$\{([^}]+)\}")


class CanaryError(ValueError):
    """The canary cannot be written or looked for as the spec declares it; the message says why and what to do."""


@dataclass(frozen=True)
class Seen:
    """A canary row on the target. Times are aware; both are of the worker's clock, so their difference is the way it took."""

    token: str
    written_at: datetime
    seen_at: datetime


class Reader(Protocol):
    """Looks for the row on one target."""

    def seen(self, token: str) -> Seen | None:
        """One look: the row with this token, None while it is not there."""
        ...


def ddl(spec: DmsSpec) -> str:
    """The statement with which a DBA creates the table. Raises CanaryError."""
    return sql.render("dms/canary", table=_table(spec))


def write(connection: Any, spec: DmsSpec, token: str, now: datetime) -> None:
    """Write the row at the source and commit.

    Args:
        connection: of the source
        spec: declares a canary
        token: one that was never written before, at most 64 characters of ASCII; a row that does not change is not replicated
        now: aware

    Raises:
        CanaryError: the spec has no canary, or the token is too long
    """
    if not token or len(token) > MAX_TOKEN or not token.isascii():
        raise CanaryError(f"token: {token!r} is not 1 to {MAX_TOKEN} characters of ASCII")
    statement = sql.render("dms/canary_write", table=_table(spec))
    with connection.cursor() as cursor:
        cursor.execute(statement, {"token": token, "written_at": now.astimezone(UTC).replace(tzinfo=None)})
    connection.commit()


def reader(
    spec: DmsSpec,
    *,
    since: datetime,
    now: Callable[[], datetime],
    connect: Callable[[str], Any],
    client: Callable[[str], Any],
    endpoint: Endpoint | None = None,
) -> Reader:
    """The reader for the target of a spec.

    Args:
        spec: declares a canary
        since: when the row was written, aware; older records and files are not looked at
        now: the clock
        connect: opens an Airflow connection of a MySQL server by its id
        client: a boto3 client by the name of its service
        endpoint: the target as AWS shows it; needed when the spec names an existing endpoint that is Kinesis or S3

    Raises:
        CanaryError: the spec has no canary, or says too little about its target
    """
    table = Table(*_table(spec))
    names = places.names(spec, table, COLUMNS)
    for column in COLUMNS:
        if column not in names.columns:
            raise CanaryError(f"canary: the mappings take the column {column} of {table} to no column of the target")
    try:
        return _reader(spec, table, names, since, now, connect, client, endpoint)
    except PlaceUnknown as error:
        raise CanaryError(f"canary: {error}") from error


def _reader(
    spec: DmsSpec,
    table: Table,
    names: Names,
    since: datetime,
    now: Callable[[], datetime],
    connect: Callable[[str], Any],
    client: Callable[[str], Any],
    endpoint: Endpoint | None,
) -> Reader:
    own = spec.canary.target if spec.canary else None
    if spec.target_engine in RELATIONAL:
        if spec.target_connection is None:
            raise CanaryError("target_connection: it is empty; name the Airflow connection of the target")
        schema, dot, name = (own or "").rpartition(".")
        place = (schema if dot else names.schema, name) if own else (names.schema, names.table)
        return MySqlReader(spec.target_connection, place, names.columns, now, connect)
    if spec.target_engine == "dynamodb":
        rule = mappings.object_rule(spec.rules, table)
        name = own or str((rule or {}).get("target-table-name") or names.table)
        return DynamoDbReader(client("dynamodb"), name, names.columns, rule, since, now)
    held = places.target_settings(spec, endpoint)
    if spec.target_engine == "kinesis":
        stream = own or places.needed(held, "StreamArn", spec)
        return KinesisReader(client("kinesis"), stream, names, since, now)
    return S3Reader(
        client("s3"), places.needed(held, "BucketName", spec), files.Layout.of(held), names, own, since, now
    )


def _table(spec: DmsSpec) -> tuple[str, str]:
    if spec.canary_table is None:
        raise CanaryError(f"canary: spec {spec.name} declares none")
    return spec.canary_table


@dataclass
class MySqlReader:
    """Reads the row by its id."""

    connection: str
    table: tuple[str, str]
    columns: Mapping[str, str]
    now: Callable[[], datetime]
    connect: Callable[[str], Any]

    def seen(self, token: str) -> Seen | None:
        """One look; a table that is not there yet is a row that is not there."""
        import MySQLdb
        from MySQLdb.constants import ER

        opened = self.connect(self.connection)
        try:
            with opened.cursor() as cursor:
                cursor.execute(sql.render("dms/canary_seen", table=self.table, **self.columns))
                row = cursor.fetchone()
        except MySQLdb.Error as error:
            if error.args[0] in (ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR):
                return None
            raise
        finally:
            opened.close()
        if row is None or str(row[0]) != token:
            return None
        return Seen(token, moment(row[1]) or self.now(), self.now())


@dataclass
class DynamoDbReader:
    """Gets the item by the key that the object mapping makes of the row, or by the id where there is none."""

    client: Any
    table: str
    columns: Mapping[str, str]
    rule: Mapping[str, Any] | None
    since: datetime
    now: Callable[[], datetime]

    def seen(self, token: str) -> Seen | None:
        """One consistent look; a table that is not there yet is an item that is not there."""
        try:
            found = self.client.get_item(TableName=self.table, Key=self.key(token), ConsistentRead=True)
        except Exception as error:
            if asking.is_missing(error):
                return None
            raise
        values = dict(_texts(found.get("Item") or {}))
        if token not in values.values():
            return None
        return Seen(token, moment(values.get(self.columns[WRITTEN_AT])) or self.since, self.now())

    def key(self, token: str) -> dict[str, dict[str, str]]:
        """The key of the item. Raises CanaryError when it is made of a column whose value is not known here."""
        given = (self.rule or {}).get("mapping-parameters") or {}
        names = [str(given[name]) for name in ("partition-key-name", "sort-key-name") if given.get(name)]
        return {name: self._attribute(name, given, token) for name in names or [self.columns[ID]]}

    def _attribute(self, name: str, given: Mapping[str, Any], token: str) -> dict[str, str]:
        known = {self.columns[ID]: "1", ID: "1", self.columns[TOKEN]: token, TOKEN: token}
        for one in given.get("attribute-mappings") or ():
            if one.get("target-attribute-name") == name and isinstance(one.get("value"), str):
                used = set(_PLACE.findall(one["value"]))
                if unknown := used - known.keys():
                    raise CanaryError(
                        f"canary: the key attribute {name} is made of {sorted(unknown)[0]}; only id and token are known before a look"
                    )
                text = _PLACE.sub(lambda found: known[found[1]], one["value"])
                return {"N" if one.get("attribute-sub-type") == "number" else "S": text}
        if name == self.columns[ID]:
            return {"N": "1"}
        if name == self.columns[TOKEN]:
            return {"S": token}
        raise CanaryError(
            f"canary: the object mapping gives the key attribute {name} no value that is known before a look"
        )


def _texts(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scalar attributes of an item, also those inside maps (``_doc``)."""
    for name, value in item.items():
        if isinstance(value, Mapping):
            kind, held = next(iter(value.items()), ("", None))
            if kind == "M" and isinstance(held, Mapping):
                yield from _texts(held)
            elif kind in ("S", "N"):
                yield name, str(held)


@dataclass
class KinesisReader:
    """Reads every shard from just before the write on, and goes on from look to look."""

    client: Any
    stream: str
    names: Names
    since: datetime
    now: Callable[[], datetime]
    records: int = 0
    """How many were read so far."""
    _next: dict[str, str | None] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)
    _found: dict[str, Seen] = field(default_factory=dict)

    def seen(self, token: str) -> Seen | None:
        """One look: of each shard at most 20 calls, or until it is at its tip."""
        for shard in self._shards():
            if shard not in self._next:
                self._next[shard] = self._iterator(shard)
        for shard in list(self._next):
            self._read(shard)
        return self._found.get(token)

    def _stream(self) -> dict[str, str]:
        return {"StreamName": self.stream.rpartition("/")[2]}  # DMS writes to streams of its own account only

    def _shards(self) -> list[str]:
        found: list[str] = []
        arguments: dict[str, Any] = self._stream()
        while True:
            answer = self.client.list_shards(**arguments)
            found += [row["ShardId"] for row in answer["Shards"]]
            if not (token := answer.get("NextToken")):
                return found
            arguments = {"NextToken": token}

    def _iterator(self, shard: str) -> str:
        """From where the last look ended, or from just before the write."""
        where: dict[str, Any] = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": self.since - SKEW}
        if last := self._last.get(shard):
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}
        return str(self.client.get_shard_iterator(**self._stream(), ShardId=shard, **where)["ShardIterator"])

    def _read(self, shard: str) -> None:
        for _ in range(CALLS_PER_SHARD):
            if (iterator := self._next[shard]) is None:  # closed by a split or merge, and read to its end
                return
            try:
                answer = self.client.get_records(ShardIterator=iterator)
            except Exception as error:
                if not asking.is_failure(error):
                    raise
                if (
                    asking.code(error) == "ProvisionedThroughputExceededException"
                ):  # five reads a second: the next look goes on
                    return
                if asking.code(error) != "ExpiredIteratorException":
                    raise
                self._next[shard] = self._iterator(shard)
                continue
            self._next[shard] = answer.get("NextShardIterator")
            for record in answer["Records"]:
                self._last[shard] = record["SequenceNumber"]
                self._take(record["Data"])
            if not answer["Records"] and not answer.get("MillisBehindLatest"):
                return

    def _take(self, data: bytes) -> None:
        self.records += 1
        for line in data.splitlines():
            try:
                record = json.loads(line)
                named = record["metadata"]["schema-name"], record["metadata"]["table-name"]
                row = record["data"]
                token = str(row[self.names.columns[TOKEN]])
            except (ValueError, KeyError, TypeError):  # a control record, or of somebody else
                continue
            if named == (self.names.schema, self.names.table):
                at = moment(row.get(self.names.columns[WRITTEN_AT])) or self.since
                self._found.setdefault(token, Seen(token, at, self.now()))


@dataclass
class S3Reader:
    """Reads the files of the canary's table that are newer than the write."""

    client: Any
    bucket: str
    layout: files.Layout
    names: Names
    prefix: str | None
    since: datetime
    now: Callable[[], datetime]
    _read: set[str] = field(default_factory=set)
    _found: dict[str, Seen] = field(default_factory=dict)

    def seen(self, token: str) -> Seen | None:
        """One look; a file is read once."""
        prefix = self.prefix or self.layout.prefix(self.names)
        if self.prefix is None and self.layout.cdc_path:
            prefix = f"{self.layout.folder}/{self.layout.cdc_path}/".lstrip("/")
        # Files of changes are named by their time. Keys of other forms sort behind them, or are in folders of a date.
        is_named_by_time = not self.layout.has_date_folders and not self.layout.cdc_path
        after = f"{prefix}{self.since - timedelta(days=1):%Y%m%d}" if is_named_by_time else ""
        for found in files.listed(self.client, self.bucket, prefix, after=after):
            if found.modified_at >= self.since - SKEW and found.key not in self._read:
                self._take(found)
        return self._found.get(token)

    def _take(self, found: files.Found) -> None:
        column = self.names.columns[TOKEN]
        for batch in files.rows(self.client, self.bucket, found, self.layout, self.names):
            for row in batch:
                if token := row.get(column):
                    at = moment(row.get(self.names.columns[WRITTEN_AT])) or self.since
                    self._found.setdefault(token, Seen(token, at, self.now()))
        self._read.add(found.key)


def moment(value: Any) -> datetime | None:
    """A time as MySQL or DMS writes it, in UTC; None when it is none."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    text = value.decode() if isinstance(value, bytes) else str(value or "")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
