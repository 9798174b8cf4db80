"""What a DBA declares for one DMS task: the YAML under ``include/specs/dms``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dbops import connections
from dbops.dms import mappings, settings
from dbops.dms.mappings import Table
from dbops.dms.states import TaskType
from dbops.specs import Spec

ROOM = "dms"
DCUS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384)
_IDENTIFIER = re.compile(r"[A-Za-z](?:-?[A-Za-z0-9])*")
_SECRET = re.compile(r"password|passwd|secret_?key|access_?key|token", re.IGNORECASE)
_POSITION = re.compile(r"checkpoint:.+|[A-Za-z0-9_.-]+\.\d{6,}:\d+|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", re.ASCII)

Engine = Literal["mysql", "aurora", "mariadb", "dynamodb", "kinesis", "s3"]
RELATIONAL: frozenset[str] = frozenset({"mysql", "aurora", "mariadb"})


def _arn(service: str, kind: str = "") -> str:
    return rf"^arn:[a-z-]+:{service}:[a-z0-9-]*:\d*:{kind}.+$"


Identifier = Annotated[str, Field(min_length=1, max_length=255)]
RoleArn = Annotated[str, Field(pattern=_arn("iam", "role/"))]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _identifier(value: str) -> str:
    if not _IDENTIFIER.fullmatch(value):
        raise ValueError("expected letters, digits and single hyphens, a letter first and no hyphen at the end")
    return value


class Instance(_Part):
    """A replication instance that exists; it can serve many tasks, so no task changes it."""

    kind: Literal["instance"] = Field(description="runs on a replication instance")
    identifier: Identifier = Field(description="identifier of the replication instance")


class Serverless(_Part):
    """A serverless replication."""

    kind: Literal["serverless"] = Field(description="runs as a serverless replication")
    min_dcu: int = Field(default=1, description="capacity units that it keeps; one is 2 GB of memory")
    max_dcu: int = Field(description="capacity units that it may grow to: 1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384")
    multi_az: bool = Field(default=False, description="with a standby in another zone")
    subnet_group: str | None = Field(default=None, description="replication subnet group")
    security_groups: list[str] = Field(default_factory=list, description="VPC security group ids")

    @model_validator(mode="after")
    def _sizes(self) -> Serverless:
        for name, value in (("min_dcu", self.min_dcu), ("max_dcu", self.max_dcu)):
            if value not in DCUS:
                raise ValueError(f"{name}: {value} is not one of {', '.join(map(str, DCUS))}")
        if self.min_dcu > self.max_dcu:
            raise ValueError(f"min_dcu: {self.min_dcu} is more than max_dcu ({self.max_dcu})")
        return self


class ExistingEndpoint(_Part):
    """An endpoint that somebody else looks after; it is read, never changed."""

    kind: Literal["existing"] = Field(description="an endpoint that exists")
    arn: str = Field(pattern=_arn("dms", "endpoint:"), description="ARN of the endpoint")
    engine: Engine = Field(description="engine of the endpoint; a run stops when AWS says another one")


class _Declared(_Part):
    identifier: Identifier = Field(description="identifier of the endpoint; it is made when there is none")

    @field_validator("identifier")
    @classmethod
    def _named(cls, value: str) -> str:
        return _identifier(value)


class MySqlEndpoint(_Declared):
    """A MySQL server; host, user and password are in the secret."""

    kind: Literal["mysql", "aurora", "mariadb"] = Field(description="engine: RDS for MySQL, Aurora MySQL or MariaDB")
    secret_arn: str = Field(pattern=_arn("secretsmanager", "secret:"), description="ARN of the secret of the login")
    secret_role_arn: RoleArn = Field(description="role by which DMS reads the secret")
    ssl_mode: Literal["none", "require", "verify-ca", "verify-full"] = Field(
        default="require", description="how the connection is secured"
    )
    certificate_arn: str | None = Field(
        default=None, pattern=_arn("dms", "cert:"), description="for verify-ca and verify-full"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="keys of MySQLSettings, for example ServerTimezone"
    )

    @model_validator(mode="after")
    def _without_secrets(self) -> MySqlEndpoint:
        _refuse_secrets(self.settings)
        if named := sorted({"Username", "ServerName", "Port"} & self.settings.keys()):
            raise ValueError(f"settings: {named[0]} is in the secret ({self.secret_arn}); remove it here")
        return self


class DynamoDbEndpoint(_Declared):
    """DynamoDB as a target."""

    kind: Literal["dynamodb"] = Field(description="DynamoDB")
    role_arn: RoleArn = Field(description="role by which DMS writes")


class KinesisEndpoint(_Declared):
    """A Kinesis stream as a target. The defaults carry what a consumer needs to keep order and to tell NULL from absent."""

    kind: Literal["kinesis"] = Field(description="a Kinesis data stream")
    role_arn: RoleArn = Field(description="role by which DMS writes")
    stream_arn: str = Field(pattern=_arn("kinesis", "stream/"), description="ARN of the stream")
    include_transaction_details: bool = Field(
        default=True, description="commit time and log position: the version of a change"
    )
    include_null_and_empty: bool = Field(default=True, description="columns that are NULL are in the record")
    include_control_details: bool = Field(default=True, description="changes of tables are in the stream")
    include_table_alter_operations: bool = Field(
        default=True, description="what empties, drops or alters a table is in the stream"
    )
    partition_include_schema_table: bool = Field(
        default=True, description="keys of different tables spread over the shards"
    )
    use_large_integer_value: bool = Field(
        default=True, description="BIGINT of more than 16 digits in full, not in scientific notation"
    )


class S3Endpoint(_Declared):
    """A folder of a bucket as a target."""

    kind: Literal["s3"] = Field(description="files in S3")
    role_arn: RoleArn = Field(description="role by which DMS writes")
    bucket: str = Field(min_length=3, description="name of the bucket")
    folder: str = Field(default="", description="folder in it")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="further keys of S3Settings, for example DataFormat"
    )

    @model_validator(mode="after")
    def _without_secrets(self) -> S3Endpoint:
        _refuse_secrets(self.settings)
        return self


Declared = MySqlEndpoint | DynamoDbEndpoint | KinesisEndpoint | S3Endpoint
Compute = Annotated[Instance | Serverless, Field(discriminator="kind")]
SourceEndpoint = Annotated[ExistingEndpoint | MySqlEndpoint, Field(discriminator="kind")]
TargetEndpoint = Annotated[
    ExistingEndpoint | MySqlEndpoint | DynamoDbEndpoint | KinesisEndpoint | S3Endpoint, Field(discriminator="kind")
]


class Limits(_Part):
    """What is still healthy."""

    latency_s: float = Field(default=60, gt=0, description="CDCLatencySource and CDCLatencyTarget, each")
    samples: int = Field(
        default=3, ge=1, le=60, description="so many points in a row must hold it; a missing one breaks it"
    )
    error_rows: int = Field(default=0, ge=0, description="rows of a table that may fail to load")
    restarts: int = Field(
        default=3, ge=1, le=100, description="resumes in a row without progress, before a person has to look"
    )
    start_minutes: int = Field(default=30, ge=1, description="how long a start may take")
    load_hours: float = Field(default=24, gt=0, description="how long a full load may take")


class Canary(_Part):
    """A row that a run writes at the source and waits for on the target: the proof that changes arrive."""

    schema_name: str = Field(min_length=1, description="schema of the table at the source")
    table: str = Field(min_length=1, description="table with the columns id (primary key), token and written_at")
    target: str | None = Field(
        default=None, description="table, stream or prefix at the target, if it is called otherwise"
    )
    max_age_s: int = Field(default=120, ge=1, description="how long the row may be on its way")


class Consumer(_Part):
    """The Lambda function that applies the records of a stream; without it changes end in the stream."""

    function: str = Field(min_length=1, description="name or ARN of the function")
    queue_url: str | None = Field(
        default=None, description="SQS queue to which the event source mapping sends records that it gave up"
    )
    max_iterator_age_s: float = Field(
        default=60, gt=0, description="how old the newest record that the function has read may be"
    )


class Assessment(_Part):
    """Where AWS writes the result of a premigration assessment."""

    bucket: str = Field(min_length=3, description="S3 bucket of the result")
    folder: str = Field(default="dms-assessments", description="folder in the bucket")
    role_arn: RoleArn = Field(description="role by which DMS writes it")


class DmsSpec(Spec):
    """One task, or one serverless replication."""

    identifier: str = Field(
        default="", max_length=255, description="identifier of the task; name with hyphens when left out"
    )
    task_type: TaskType = Field(description="what it does: load, follow the changes, or both")
    compute: Compute = Field(description="what it runs on")
    source: SourceEndpoint = Field(description="the MySQL server that is read")
    target: TargetEndpoint = Field(description="where the rows go")
    mappings: list[dict[str, Any]] = Field(
        min_length=1, description="table mappings: the list of rules as DMS takes it"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="task settings, only the keys that this spec decides; others are left as they are",
    )
    wanted: Literal["running", "stopped"] = Field(
        default="running", description="stopped: scheduled runs leave the task standing"
    )
    cdc_start: str | None = Field(
        default=None,
        description="task_type cdc: where its first run begins (mysql-bin.000024:373, checkpoint:..., or a UTC time); null: now",
    )
    limits: Limits = Field(default_factory=Limits, description="what is still healthy")
    protected: bool = Field(
        default=True, description="emptying a table of the target, stopping and deleting need an approval"
    )
    canary: Canary | None = Field(default=None, description="the row by which replication is proven")
    consumer: Consumer | None = Field(
        default=None, description="target kinesis: the function that reads the stream; its health is the task's"
    )
    quarantine_after: int = Field(
        default=3, ge=1, le=20, description="failed loads of a table, before it is left to a person"
    )
    assessment: Assessment | None = Field(default=None, description="premigration assessment before the first start")
    overrides: dict[str, str] = Field(
        default_factory=dict,
        description="id of a rule of the linter or a check of the preflight -> reason for which the run goes on in spite of it",
    )
    connection: str = Field(default=connections.MYSQL, description="Airflow connection of the source")
    target_connection: str | None = Field(default=None, description="Airflow connection of a target that is MySQL")
    aws_connection: str = Field(
        default=connections.AWS, description="Airflow connection of DMS, CloudWatch and the target"
    )
    region: str | None = Field(default=None, description="AWS region; that of aws_connection when left out")

    @field_validator("mappings")
    @classmethod
    def _mapped(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mappings.parse(value)
        return value

    @field_validator("settings")
    @classmethod
    def _set(cls, value: dict[str, Any]) -> dict[str, Any]:
        return settings.declared(value)

    @model_validator(mode="after")
    def _consistent(self) -> DmsSpec:
        _identifier(self.task_identifier)
        if self.source.kind == "existing" and self.source.engine not in RELATIONAL:
            raise ValueError(f"source: engine {self.source.engine} is no MySQL")
        if _key(self.source) == _key(self.target):
            raise ValueError("target: it is the source")
        if self.cdc_start and self.task_type != "cdc":
            raise ValueError(f"cdc_start: only a task of task_type cdc begins there, this one is {self.task_type}")
        if self.cdc_start and not _POSITION.fullmatch(self.cdc_start):
            raise ValueError(f"cdc_start: {self.cdc_start!r} is no position, checkpoint or time")
        if self.canary and not mappings.selected(self.rules, [self.canary_table or Table("", "")]):
            raise ValueError(f"canary: no rule of mappings selects {self.canary_table}, so it would never arrive")
        if self.consumer and self.target_engine != "kinesis":
            raise ValueError(f"consumer: only a stream is read by a function; the target is {self.target_engine}")
        if empty := sorted(rule for rule, reason in self.overrides.items() if not reason.strip()):
            raise ValueError(f"overrides: {empty[0]} has no reason")
        return self

    @property
    def task_identifier(self) -> str:
        """Identifier of the task at AWS, which keeps it in lower case."""
        return (self.identifier or self.name.replace("_", "-")).lower()

    @property
    def rules(self) -> tuple[dict[str, Any], ...]:
        """The mappings in canonical order."""
        return mappings.parse(self.mappings)

    @property
    def canary_table(self) -> Table | None:
        """The canary's table at the source."""
        return Table(self.canary.schema_name, self.canary.table) if self.canary else None

    @property
    def target_engine(self) -> str:
        """Engine of the target as DMS calls it."""
        return engine(self.target)

    @property
    def has_load(self) -> bool:
        """Whether it loads whole tables."""
        return self.task_type != "cdc"

    @property
    def has_cdc(self) -> bool:
        """Whether it follows the changes."""
        return self.task_type != "full-load"


def engine(endpoint: ExistingEndpoint | Declared) -> str:
    """Engine as DMS calls it."""
    return endpoint.engine if endpoint.kind == "existing" else endpoint.kind


def _key(endpoint: ExistingEndpoint | Declared) -> str:
    return endpoint.arn if endpoint.kind == "existing" else endpoint.identifier


def _refuse_secrets(given: dict[str, Any]) -> None:
    """A secret never stands in a file; a key is refused by its name."""
    if found := sorted(key for key in given if _SECRET.search(key)):
        raise ValueError(
            f"settings: {found[0]} does not belong in a spec; put it into the secret and name the secret's ARN"
        )
