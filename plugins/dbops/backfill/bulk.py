"""The engine ``bulk``: StartBulkPutItems, which puts items from S3 into a table that is in use. A port, so far without what is behind it.

The service takes a condition with each item (developerguide/BulkPutItems.Format), which is what makes it fit for a table under dual writes.
Two things are wanted before a row goes this way, and both are looked at, not assumed:

* boto3 has to know the operation. Releases before it do not, and the pinned one is among them.
* The form of an item with its condition in the objects has to be known for certain: a condition that the service does not recognise would
  leave an unconditional put, which is the one thing that a backfill must never do. `line` is None until somebody has tried it.

Requests and answers are those of the API reference; the statuses are known to `Status`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from dbops.backfill.importing import Folder
from dbops.backfill.target import TargetError
from dbops.keyvalue.rules import Names, Write

OPERATION = "StartBulkPutItems"
Status = Literal["IN_PROGRESS", "COMPLETED", "COMPLETED_WITH_ERRORS", "CANCELLING", "CANCELLED", "FAILED"]
ENDED: frozenset[Status] = frozenset({"COMPLETED", "COMPLETED_WITH_ERRORS", "CANCELLED", "FAILED"})
LEAST_UNITS = 1_024
"""A second; the service takes no lower limit."""
Tier = Literal["STANDARD", "ACCELERATED"]
Line = Callable[[Write, Names], bytes]
line: Line | None = None
"""An item with `rules.Condition.NEWER` as a line of an object."""


class NotSupported(TargetError):
    """The engine cannot be used here; the text says what is missing. Nothing was read or written."""


@dataclass(frozen=True)
class Asked:
    """One bulk operation."""

    table: str
    source: Folder
    report: Folder
    """Gets errors and writes whose condition was not met."""
    token: str
    """The same within eight hours is the same operation."""
    units_per_s: int
    tier: Tier = "STANDARD"

    @property
    def request(self) -> dict[str, Any]:
        """Arguments of StartBulkPutItems.

        Raises:
            ValueError: the limit is below what the service takes
        """
        if self.units_per_s < LEAST_UNITS:
            raise ValueError(
                f"limits.units_per_s is {self.units_per_s}; a bulk operation takes {LEAST_UNITS} or more: raise it, or use engine put"
            )
        return {
            "ClientToken": self.token,
            "TableName": self.table,
            "InputS3Configuration": {
                "S3Bucket": self.source.bucket,
                "S3KeyPrefix": self.source.key("data/"),
                "InputFormat": "DYNAMODB_JSON",
                "InputCompressionType": "GZIP",
            },
            "OutputS3Configuration": {
                "S3Bucket": self.report.bucket,
                "S3KeyPrefix": self.report.key("report/"),
                "OutputType": ["ERROR", "CONDITION_CHECK_FAILURE"],
            },
            "MaxWriteRequestUnits": self.units_per_s,
            "PerformanceTier": self.tier,
        }


@dataclass(frozen=True)
class Answered:
    """How far an operation is. A condition that was not met counts as processed, not as failed."""

    arn: str
    status: Status
    processed: int
    failed: int
    reason: str = ""

    @property
    def has_ended(self) -> bool:
        """Nothing more will be written by it."""
        return self.status in ENDED


class Engine(Protocol):
    """What a bulk operation is asked through."""

    def start(self, asked: Asked) -> str:
        """Start it, or find it by its token; returns its ARN."""

    def look(self, arn: str) -> Answered:
        """How far it is."""

    def cancel(self, arn: str) -> None:
        """Ask it to end; what was written stays."""


def status(text: str) -> Status:
    """A status that is known.

    Raises:
        TargetError: it is not, so nobody knows whether the operation has ended
    """
    for known in get_args(Status):
        if text == known:
            return known
    raise TargetError(f"a bulk operation has the status {text!r}, which is not known: look at it in the console")


def require(client: Any) -> None:
    """Refuse where rows cannot go this way.

    Args:
        client: boto3's of DynamoDB

    Raises:
        NotSupported: boto3 does not know the operation, or the form of a condition is not settled
    """
    if OPERATION not in client.meta.service_model.operation_names:
        raise NotSupported(
            f"engine bulk: this boto3 does not know {OPERATION}: use engine put (a table in use) or import (a new table), or a newer boto3"
        )
    if line is None:
        raise NotSupported(
            "engine bulk: how an item carries its condition in the objects has not been tried against the service, and an unknown one "
            "would be an unconditional put: use engine put or import"
        )
