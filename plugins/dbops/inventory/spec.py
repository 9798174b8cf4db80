"""What a DBA declares for one inventory: the YAML under ``include/specs/inventory``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dbops import connections
from dbops.specs import Spec

ROOM = "inventory"

_NAME = r"^[A-Za-z0-9_.:-]+$"
_TABLE_PATTERN = r"^[^.\s]+\.[^.\s]+$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InstanceSpec(_Part):
    """One server of the cluster. Every instance counts by itself: a reader's statements are nowhere on the writer."""

    name: str = Field(
        pattern=_NAME, max_length=60, description="how reports call it; keep it when the endpoint changes"
    )
    connection: str = Field(description="Airflow connection of this instance (not of the cluster endpoint)")


class FileLog(_Part):
    """A log in a folder that the worker can read."""

    source: Literal["file"] = Field(description="a file beside the worker")
    instance: str = Field(description="name of the instance that writes it")
    kind: Literal["slow", "general"] = Field(description="which log")
    path: str = Field(
        min_length=1, description="the live file; rotated ones beside it (path.1, path.1.gz ...) are read too"
    )


class RdsLog(_Part):
    """A log of an RDS or Aurora instance, read by rds:DownloadDBLogFilePortion. Aurora keeps it for 24 hours at most."""

    source: Literal["rds"] = Field(description="the files of an instance")
    instance: str = Field(description="name of the instance that writes it")
    kind: Literal["slow", "general"] = Field(description="which log")
    db_instance: str = Field(min_length=1, description="DBInstanceIdentifier")


class CloudWatchLog(_Part):
    """A log that RDS exports to CloudWatch Logs, read by logs:FilterLogEvents."""

    source: Literal["cloudwatch"] = Field(description="a log group")
    instance: str = Field(description="name of the instance that writes it")
    kind: Literal["slow", "general"] = Field(description="which log")
    group: str = Field(min_length=1, description="log group, for example /aws/rds/cluster/shop/slowquery")
    stream: str = Field(min_length=1, description="log stream: the instance's identifier")


Log = Annotated[FileLog | RdsLog | CloudWatchLog, Field(discriminator="source")]


class InventorySpec(Spec):
    """One cluster."""

    instances: list[InstanceSpec] = Field(min_length=1, description="every instance of the cluster, writer and readers")
    logs: list[Log] = Field(
        default_factory=list, description="slow and general logs: the only full record of prepared statements"
    )
    schemas: list[str] = Field(
        default_factory=list, description="schemas whose tables are judged; empty: all but MySQL's own"
    )
    upgrade_connection: str | None = Field(
        default=None,
        description="an 8.0 server with the same schemas: statements are prepared there; default: rules only",
    )
    aws_connection: str = Field(default=connections.AWS, description="Airflow connection of RDS and CloudWatch Logs")
    window_days: int = Field(
        default=35, ge=1, le=3660, description="how far the analysis looks back; cover a business cycle"
    )
    cold_after_days: int = Field(
        default=30,
        ge=1,
        le=3660,
        description="a table without reads or writes for so long, watched all that time, is cold",
    )
    stale_after_minutes: int = Field(
        default=60,
        ge=15,
        le=10_080,
        description="an instance without a snapshot for so long at the end of the window is not watched",
    )
    coverage_limit: float = Field(
        default=99.0,
        ge=0,
        le=100,
        description="percent of executions that named statements must explain before anything is advised",
    )
    under_migration: list[Annotated[str, Field(pattern=_TABLE_PATTERN)]] = Field(
        default_factory=list, description="schema.table patterns: a new write statement on one of them raises an alert"
    )
    keep_samples: bool = Field(
        default=True,
        description="keep samples and the statement history (masked) and EXPLAIN their SELECTs; false: neither",
    )

    @model_validator(mode="after")
    def _consistent(self) -> InventorySpec:
        names = [i.name for i in self.instances]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"instances: name {doubled[0]!r} is used twice; each instance needs its own")
        # Airflow finds a connection in the environment whatever the case of its id.
        connections_ = [i.connection.upper() for i in self.instances]
        for i in self.instances:
            if connections_.count(i.connection.upper()) > 1:
                raise ValueError(f"instances: connection {i.connection!r} is used twice; one server would count as two")
        places = [log.model_dump(exclude={"instance"}) for log in self.logs]
        for log in self.logs:
            if places.count(log.model_dump(exclude={"instance"})) > 1:
                raise ValueError(
                    f"logs: the same {log.kind} log is named twice; an instance's statements are in one of its own"
                )
            if log.instance not in names:
                raise ValueError(f"logs: instance {log.instance!r} is not one of {', '.join(names)}")
        if self.cold_after_days > self.window_days:
            raise ValueError(
                f"cold_after_days: {self.cold_after_days} is longer than window_days ({self.window_days}): nothing could be found cold"
            )
        return self

    @property
    def writer(self) -> InstanceSpec:
        """The instance whose catalog is read while it answers: the first."""
        return self.instances[0]
