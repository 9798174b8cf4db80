"""What a DBA declares for one rehearsal: the YAML under ``include/specs/blue_green``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dbops import connections
from dbops.blue_green.switchover import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from dbops.specs import Spec

ROOM = "blue_green"
MAX_ATTEMPTS = 5
"""Rungs of a ladder: the DAG has a group of tasks for each."""

Timeout = Annotated[int, Field(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Synthetic(_Part):
    """A new, empty cluster or instance that is filled with made-up data."""

    kind: Literal["synthetic"] = Field(description="made-up data")
    engine_version: str = Field(min_length=1, description="version of blue, for example 5.7.mysql_aurora.2.11.4")


class Snapshot(_Part):
    """A copy of production, restored from a snapshot; the snapshot itself is only read."""

    kind: Literal["snapshot"] = Field(description="restored from a snapshot")
    snapshot: str = Field(
        min_length=1, description="identifier of the cluster snapshot (form instance: of the DB snapshot)"
    )


class Clone(_Part):
    """A copy-on-write clone of a cluster at its latest restorable time; the cluster itself is only read."""

    kind: Literal["clone"] = Field(description="a clone of a cluster, made by a restore to a point in time")
    cluster: str = Field(min_length=1, description="identifier of the cluster")


Source = Annotated[Synthetic | Snapshot | Clone, Field(discriminator="kind")]


class Target(_Part):
    """What green becomes."""

    engine_version: str = Field(min_length=1, description="version of green, for example 8.0.mysql_aurora.3.08.2")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="parameters of green's own parameter group, over the defaults of its family"
    )


class Placement(_Part):
    """Where the instances stand, and how large they are."""

    region: str = Field(min_length=1, description="AWS region, for example eu-central-1")
    accounts: list[Annotated[str, Field(pattern=r"^\d{12}$")]] = Field(
        min_length=1,
        description="AWS accounts in which a rehearsal may run; the account of aws_connection must be one of them",
    )
    instance_class: str = Field(
        pattern=r"^db\.", description="class of every instance, the one of production if times shall mean much"
    )
    readers: int = Field(default=0, ge=0, le=15, description="reader instances beside the writer")
    subnet_group: str | None = Field(default=None, description="DB subnet group")
    security_groups: list[str] = Field(default_factory=list, description="VPC security group ids")


class Data(_Part):
    """Made-up data that is added to blue, and the clients that hang on it."""

    gigabytes: float = Field(default=5.0, ge=0, le=1024, description="size of the made-up data; 0: none")
    tables: int = Field(default=8, ge=1, le=20_000, description="tables that share it; many of them cost metadata time")
    without_key: bool = Field(
        default=True, description="one of the tables has no primary key, which row-based replication hates"
    )
    connections: int = Field(
        default=50, ge=0, le=15_000, description="idle client connections that are open at each switchover"
    )
    seed: int = Field(default=1, ge=0, description="the same seed makes the same rows")


class Query(_Part):
    """A SELECT whose answer and plan are compared between blue and green."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="how reports call it")
    sql: str = Field(min_length=1, description="one SELECT, without a closing semicolon")
    schema_name: str | None = Field(default=None, description="default schema of the statement")


class Compare(_Part):
    """Which statements are compared, and how often each is run."""

    queries: list[Query] = Field(default_factory=list, description="statements of this spec")
    inventory: str | None = Field(
        default=None, description="spec of query_inventory whose sampled SELECTs are compared as well"
    )
    repeats: int = Field(
        default=5, ge=1, le=100, description="timed runs of each statement on each side, after one to warm up"
    )
    limit_s: int = Field(
        default=30, ge=1, le=3600, description="a statement that runs longer on a side is stopped there, and reported"
    )


class Gate(_Part):
    """What must hold before a switchover is asked for."""

    max_lag_s: float = Field(default=1.0, gt=0, description="replica lag of green, by heartbeat and by CloudWatch")
    samples: int = Field(default=3, ge=1, le=100, description="so many samples in a row must hold it")
    max_transaction_s: int = Field(
        default=30, ge=1, le=3600, description="open transactions and DDL on blue that are older are waited for"
    )
    wait_minutes: int = Field(
        default=15,
        ge=1,
        le=1440,
        description="how long the gate waits, before it names who stands in the way and gives up",
    )


class Fault(_Part):
    """Something that stands in the way of one attempt on purpose, to show what it does."""

    attempt: int = Field(ge=1, le=MAX_ATTEMPTS, description="rung of the ladder, from 1")
    kind: Literal["long_transaction", "running_ddl"] = Field(description="what holds the attempt up")


class RehearsalSpec(Spec):
    """One rehearsal."""

    form: Literal["cluster", "instance"] = Field(
        default="cluster", description="cluster: Aurora MySQL; instance: RDS for MySQL"
    )
    source: Source = Field(description="what blue is made from")
    target: Target = Field(description="what green becomes")
    placement: Placement = Field(description="account, region, classes, network")
    data: Data = Field(default_factory=Data, description="made-up data and clients")
    ladder: list[Timeout] = Field(
        default=[60, 180, 300], min_length=1, max_length=MAX_ATTEMPTS,
        description="SwitchoverTimeout of each attempt, in seconds; the first success ends it",
    )  # fmt: skip
    gate: Gate = Field(default_factory=Gate, description="what must hold before each attempt")
    faults: list[Fault] = Field(default_factory=list, description="what stands in the way on purpose")
    compare: Compare = Field(default_factory=Compare, description="statements whose results and plans are compared")
    breaking_ddl: bool = Field(
        default=False, description="try DDL that is known to break replication to green, instead of a switchover"
    )
    probe_period_ms: int = Field(
        default=50, ge=10, le=100, description="time between two probes of a lane; at most 100 (10 Hz)"
    )
    post_run_minutes: float = Field(
        default=5, ge=0, le=240, description="how long the new version is watched under the probes' load"
    )
    overrides: dict[str, str] = Field(
        default_factory=dict, description="preflight check id -> reason for which the run goes on in spite of it"
    )
    max_cost_usd: float = Field(gt=0, description="a rehearsal that is estimated to cost more is refused")
    max_hours: float = Field(
        default=6, gt=0, le=72, description="after so long the janitor removes it, whatever it is doing"
    )
    expected_hours: float = Field(
        default=2, gt=0, le=72, description="what the estimate is made for; with keep_old it is made for max_hours"
    )
    keep_old: bool = Field(
        default=False, description="leave the instances standing at the end (the report says what they cost an hour)"
    )
    connection: str = Field(
        default="dbops_rehearsal",
        description="Airflow connection with the login and password of blue's master user; host and port are not used",
    )
    aws_connection: str = Field(default=connections.AWS, description="Airflow connection of RDS and CloudWatch")

    @model_validator(mode="after")
    def _consistent(self) -> RehearsalSpec:
        if self.expected_hours > self.max_hours:
            raise ValueError(f"expected_hours: {self.expected_hours:g} is longer than max_hours ({self.max_hours:g})")
        for fault in self.faults:
            if fault.attempt > len(self.ladder):
                raise ValueError(f"faults: attempt {fault.attempt} does not exist, the ladder has {len(self.ladder)}")
        attempts = [fault.attempt for fault in self.faults]
        if twice := sorted({number for number in attempts if attempts.count(number) > 1}):
            raise ValueError(f"faults: attempt {twice[0]} has two; give each attempt one at most")
        if self.form == "instance" and self.source.kind == "clone":
            raise ValueError("source: kind clone is for form cluster; an instance is made from a snapshot")
        if self.form == "instance" and self.placement.readers:
            raise ValueError(
                f"placement.readers: {self.placement.readers} with form instance; only a cluster has readers here"
            )
        names = [query.name for query in self.compare.queries]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"compare.queries: name {doubled[0]!r} is used twice; each query needs its own")
        return self

    @property
    def engine(self) -> str:
        """Engine as the RDS API calls it."""
        return "aurora-mysql" if self.form == "cluster" else "mysql"
