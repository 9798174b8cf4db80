"""What a DBA declares for one backfill: the YAML under ``include/specs/backfill``."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from dbops import connections
from dbops.guardrails import Window
from dbops.specs import Spec

ROOM = "backfill"
CHUNK = "{chunk}"
"""Where a view's SQL takes the range of keys that is read."""
_COLUMN = r"^[A-Za-z0-9_$]+$"
_ATTRIBUTE = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
_TABLE = r"^[A-Za-z0-9_$]+\.[A-Za-z0-9_$]+$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnPolicy(_Part):
    """What is done where MySQL has a value that the store has not (`dbops.keyvalue.codec.Policy`)."""

    nulls: Literal["omit", "null"] = Field(default="omit", description="leave the attribute out, or write NULL")
    zero_dates: Literal["reject", "null", "text"] = Field(default="reject", description="dates that no calendar has")
    enum_error: Literal["reject", "text"] = Field(default="reject", description="index 0 of an ENUM")
    empty_set: Literal["list", "null"] = Field(default="list", description="a SET without members")
    json_as: Literal["document", "text"] = Field(default="document", description="JSON as map and list, or one text")


class SourceView(_Part):
    """The query whose rows become items, one each."""

    sql: str = Field(
        min_length=1,
        description="one SELECT whose WHERE holds {chunk}: the range of keys that is read. Joins are allowed, one row for each of `table`",
    )
    table: str = Field(pattern=_TABLE, description="schema.table whose rows are walked by their key, one item each")
    alias: str = Field(pattern=_COLUMN, description="its alias in `sql`")
    types: dict[str, str] = Field(
        default_factory=dict,
        description="column type of what is no plain column of a table, as MySQL writes it: `total: decimal(10,2)`",
    )
    policy: ColumnPolicy = Field(default_factory=ColumnPolicy, description="for values that the store has not")
    policies: dict[str, ColumnPolicy] = Field(default_factory=dict, description="the same for single columns")

    @field_validator("sql")
    @classmethod
    def _one_chunk(cls, value: str) -> str:
        if value.count(CHUNK) != 1:
            raise ValueError(
                f"holds {CHUNK} {value.count(CHUNK)} times: write it once in WHERE, as in WHERE {CHUNK} AND ..."
            )
        return value.strip()


class RowVersion(_Part):
    """How new a row is; every writer of the store uses the same."""

    column: str = Field(pattern=_COLUMN, description="column of the view; it is not written as an attribute of its own")
    kind: Literal["int", "text"] = Field(default="int", description="whole number, or a text that sorts by its bytes")
    widths: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        default=(), description="characters that a text version has, as in [20]; numbers have none"
    )
    scope: Literal["row", "shared"] = Field(
        default="row",
        description="row: every row counts for itself; shared: versions of all joined tables rise together, in the order of commits",
    )
    raised_by: str = Field(
        default="",
        description="who raises it with every write and after a deletion, where neither a trigger nor ON UPDATE does: for the preflight",
    )

    @model_validator(mode="after")
    def _widths(self) -> RowVersion:
        if (self.kind == "text") != bool(self.widths):
            raise ValueError("widths: give them for kind text, and only there")
        return self


class Tombstone(_Part):
    """Which rows of MySQL stand for a deletion."""

    column: str = Field(
        pattern=_COLUMN, description="column of the view: a row in which it is true or not 0 is written as a tombstone"
    )


class Cold(_Part):
    """Which rows nobody writes or reads any more."""

    where: str = Field(min_length=1, description="SQL expression over the driving table, with its alias")
    only: bool = Field(
        default=True,
        description="true: copy these only, hot rows come by dual writes; false: copy all, the cold ones first",
    )


class DynamoTarget(_Part):
    """A table of DynamoDB."""

    kind: Literal["dynamodb"] = Field(description="DynamoDB")
    connection: str = Field(default=connections.AWS, description="Airflow connection")
    region: str | None = Field(default=None, description="default: the connection's")
    table: str = Field(pattern=r"^[a-zA-Z0-9_.-]{3,255}$", description="name of the table")
    key: dict[Annotated[str, Field(pattern=_ATTRIBUTE)], str] = Field(
        min_length=1, max_length=2, description="key attribute: template, the partition key first, as in pk: RIDE#{id}"
    )

    def resource(self, region: str | None = None) -> str:
        """Names what is written, for limits that all backfills into it share.

        Args:
            region: where the table is, also where only the connection says so: two specs of one table then have one name for it
        """
        return f"dynamodb:{region or self.region or ''}:{self.table}"

    @property
    def allow_name(self) -> str:
        """What the allow-list of the connection has to match."""
        return self.table


class RedisTarget(_Part):
    """Keys of MemoryDB, ElastiCache or Redis."""

    kind: Literal["redis"] = Field(description="Redis protocol")
    connection: str = Field(default=connections.REDIS, description="Airflow connection")
    prefix: str = Field(default="", max_length=200, description="before each key, such as ride:")
    layout: Literal["hash", "string"] = Field(
        default="hash", description="a hash with a field a column, or one JSON document"
    )
    key: str = Field(min_length=1, description="template of the key after the prefix, as in {id}")

    def resource(self, region: str | None = None) -> str:
        """Names what is written, for limits that all backfills into it share; the connection says where it is, not a region."""
        return f"redis:{self.connection}"

    @property
    def allow_name(self) -> str:
        """What the allow-list of the connection has to match; ``*`` for a target without prefix."""
        return self.prefix or "*"


Target = Annotated[DynamoTarget | RedisTarget, Field(discriminator="kind")]
Engine = Literal["put", "import", "bulk"]


class Limits(_Part):
    """What the copy may use."""

    units_per_s: int = Field(
        default=500,
        ge=1,
        le=1_000_000,
        description="write units a second over all tasks and runs (Redis: keys of up to 1 KB)",
    )
    read_units_per_s: int = Field(
        default=2000,
        ge=1,
        le=1_000_000,
        description="read units a second over all tasks and runs: reading back, verification, roll-back (Redis: keys of up to 4 KB)",
    )
    tasks: int = Field(default=4, ge=1, le=256, description="mapped tasks that copy")
    threads: int = Field(default=8, ge=1, le=64, description="requests that a task has under way")
    chunk_rows: int = Field(default=10_000, ge=1, le=1_000_000, description="rows of a chunk, the unit of the journal")
    page_rows: int = Field(
        default=500, ge=1, le=50_000, description="rows that are read at once in the beginning; then see page_s"
    )
    page_s: float = Field(
        default=2.0, gt=0, le=60, description="pages grow and shrink until reading and writing one takes so long"
    )
    max_lag_s: float | None = Field(
        default=10.0, gt=0, description="replica lag at which the copy waits; null: there is no replica"
    )
    max_threads_running: int | None = Field(
        default=40, ge=1, description="Threads_running of the source at which it waits"
    )
    max_wait_s: float = Field(
        default=900, gt=0, description="a task that is held back so long ends and leaves its checkpoint"
    )
    window: Window | None = Field(default=None, description="time of day in which it copies; none: any time")
    look_again_s: float = Field(
        default=300,
        gt=0,
        le=86_400,
        description="a task that is held back gives its worker away and looks again after so long",
    )
    lease_s: float = Field(
        default=60,
        ge=5,
        le=3600,
        description="a task of which nothing is heard for so long loses its chunk to another one",
    )
    budget_usd: float = Field(default=10.0, ge=0, description="estimates above it need an approval")
    max_hours: float = Field(default=72.0, gt=0, description="estimates above it are refused")


class Live(_Part):
    """Dual writes and change stream, which have to be there before the first chunk is read."""

    since: AwareDatetime = Field(description="when both were complete: ISO 8601 with zone")
    applications: list[str] = Field(
        min_length=1,
        description="names under which the writing applications report their counters; each has to be heard of",
    )
    silent_minutes: int = Field(default=15, ge=1, description="so long an application may be silent")
    replication_task: str | None = Field(
        default=None, description="identifier of the DMS task that carries the changes; null: see stream"
    )
    stream: str = Field(
        default="", description="without replication_task: what carries the changes, for the reader of the report"
    )
    max_stream_lag_s: float = Field(
        default=60, gt=0, description="CDCLatencySource and CDCLatencyTarget of the task, each"
    )

    @model_validator(mode="after")
    def _carried(self) -> Live:
        if not (self.replication_task or self.stream):
            raise ValueError("replication_task: name it, or say in `stream` what carries the changes")
        return self


class Rejects(_Part):
    """Rows that cannot be items: too large, of a value without form."""

    policy: Literal["dead_letter", "stop"] = Field(
        default="dead_letter", description="note the row and go on, or stop at the first"
    )
    max_rows: int = Field(default=0, ge=0, description="more rejects than this fail the run")

    @property
    def allowed(self) -> int:
        """So many rejects do not fail the run: none where it stops at the first."""
        return 0 if self.policy == "stop" else self.max_rows


class Verify(_Part):
    """How the end is proven."""

    mode: Literal["full", "sample"] = Field(default="full", description="every row, or a sample with its bound")
    sample_rows: int = Field(default=300_000, ge=100, description="rows of a sample over all strata")
    reverse: bool = Field(default=True, description="also look for items whose row is not there")
    drain_s: float = Field(default=60, gt=0, description="so long a row that MySQL has newer may take to arrive")
    shared_table: bool = Field(
        default=False,
        description="the table holds items of other views too: those whose key is none of this view's are counted, not failed",
    )
    max_differences: int = Field(
        default=10_000, ge=1, description="so many differences end a verification early, and it says where"
    )


class Gate(_Part):
    """When reads may leave MySQL."""

    quiet_days: int = Field(
        default=7, ge=1, le=365, description="days in a row without a fall-back hit, in every application"
    )


class BackfillSpec(Spec):
    """One backfill: a query, a key, a target."""

    connection: str = Field(default=connections.MYSQL, description="Airflow connection of the source writer")
    read_connection: str | None = Field(default=None, description="reader for plan and copy; default: the writer")
    view: SourceView = Field(description="the query whose rows become items")
    version: RowVersion = Field(description="how new a row is")
    tombstone: Tombstone | None = Field(default=None, description="rows that stand for a deletion")
    cold: Cold | None = Field(default=None, description="rows that nobody uses any more; none: all rows are copied")
    target: Target = Field(description="the store")
    engine: Engine = Field(
        default="put",
        description="put: conditional writes; import: S3 and ImportTable into a new table; bulk: StartBulkPutItems",
    )
    staging_s3_uri: str | None = Field(
        default=None, pattern=r"^s3://[^/]+/.*$", description="folder for the objects of import and bulk"
    )
    limits: Limits = Field(default_factory=Limits, description="what the copy may use")
    live: Live = Field(description="dual writes and change stream")
    rejects: Rejects = Field(default_factory=Rejects, description="rows that cannot be items")
    verify: Verify = Field(default_factory=Verify, description="how the end is proven")
    gate: Gate = Field(default_factory=Gate, description="when reads may leave MySQL")

    @model_validator(mode="after")
    def _fits_engine(self) -> BackfillSpec:
        if self.engine != "put" and self.target.kind != "dynamodb":
            raise ValueError(f"engine: {self.engine!r} is DynamoDB's; use put for {self.target.kind}")
        if self.engine != "put" and not self.staging_s3_uri:
            raise ValueError(f"staging_s3_uri: engine {self.engine!r} writes objects; name an s3:// folder")
        return self

    @property
    def keys(self) -> dict[str, str]:
        """Key attribute -> template. A key of Redis is one text; it is called ``key``."""
        return self.target.key if self.target.kind == "dynamodb" else {"key": self.target.key}

    @property
    def reader(self) -> str:
        """Connection of plan and copy."""
        return self.read_connection or self.connection

    def rule_digest(self) -> str:
        """Changes when other rows, items or keys would be meant; an open plan is only continued under the same rules."""
        rules = self.model_dump_json(include={"connection", "view", "version", "tombstone", "cold", "target", "engine"})
        return hashlib.sha256(rules.encode()).hexdigest()

    def live_since(self) -> datetime:
        """When dual writes and stream were complete."""
        return self.live.since
