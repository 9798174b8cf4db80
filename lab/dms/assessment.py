"""Premigration assessment runs: what they find out about source and tables, and the report that they write to a bucket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from moto.dms.exceptions import InvalidResourceStateFault
from moto.dms.utils import random_id

from lab import aws
from lab.dms.mappings import Mappings
from lab.dms.source import FatalError, LostError, Source

ENDED = {"passed", "warning", "failed", "error-executing", "error-provisioning", "invalid state"}
CHECKS = (
    "mysql-check-binlog-row-image",
    "table-with-primary-key-or-unique-index",
    "unsupported-data-types-in-source",
    "large-objects-are-used-but-target-lob-column-is-not-nullable",
)


class Assessment:
    """A run; it works in a thread of its own, and its task has the status testing meanwhile."""

    def __init__(self, backend: Any, task: Any, given: dict[str, Any]) -> None:
        self.backend, self.task, self.given = backend, task, given
        self.arn = f"arn:aws:dms:{backend.region_name}:{backend.account_id}:assessment-run:{random_id(True, 26)}"
        self.status, self.failure, self.created = "starting", "", time.time()
        self.results: dict[str, str] = {}
        self.before, task.status = task.status, "testing"
        threading.Thread(target=self._run, daemon=True).start()

    def to_dict(self) -> dict[str, Any]:
        counts = {f"{kind}Count": 0 for kind in ("Passed", "Warning", "Failed", "Error")}
        for result in self.results.values():
            counts[f"{result.title()}Count"] += 1
        return {
            "ReplicationTaskAssessmentRunArn": self.arn,
            "ReplicationTaskArn": self.task.arn,
            "Status": self.status,
            "ReplicationTaskAssessmentRunCreationDate": self.created,
            "AssessmentProgress": {
                "IndividualAssessmentCount": len(CHECKS),
                "IndividualAssessmentCompletedCount": len(self.results),
            },
            "ResultStatistic": counts,
            "LastFailureMessage": self.failure,
            "ServiceAccessRoleArn": self.given["ServiceAccessRoleArn"],
            "ResultLocationBucket": self.given["ResultLocationBucket"],
            "ResultLocationFolder": self.given.get("ResultLocationFolder", ""),
            "AssessmentRunName": self.given["AssessmentRunName"],
        }

    def individual(self) -> list[dict[str, Any]]:
        return [
            {
                "ReplicationTaskIndividualAssessmentArn": f"{self.arn.replace('assessment-run', 'individual-assessment')}{number}",
                "ReplicationTaskAssessmentRunArn": self.arn,
                "IndividualAssessmentName": name,
                "Status": self.results.get(name, "pending"),
                "ReplicationTaskIndividualAssessmentStartDate": self.created,
            }
            for number, name in enumerate(CHECKS)
        ]

    def require_ended(self) -> None:
        if self.status not in ENDED:
            raise InvalidResourceStateFault(f"The assessment run {self.arn} is {self.status}")

    def _run(self) -> None:
        ordered = self.backend.fault("assessment", self.task.id)
        try:
            self.status = "provisioning"
            self.backend.delay(self.task.id)
            s3 = aws.client("s3", self.backend.url("s3"))
            s3.head_bucket(Bucket=self.given["ResultLocationBucket"])
            self.status = "running"
            self.results = dict(self._results())
            found = set(self.results.values())
            end = next((each for each in ("error", "failed", "warning") if each in found), "passed")
            name = f"{self.given.get('ResultLocationFolder', '')}/{self.task.id}/{self.given['AssessmentRunName']}.json"
            body = json.dumps({"name": self.given["AssessmentRunName"], "results": self.results}).encode()
            s3.put_object(Bucket=self.given["ResultLocationBucket"], Key=name.lstrip("/"), Body=body)
            self.failure = ""
            end = "error-executing" if end == "error" else end
        except Exception as error:  # whatever keeps it from the bucket
            end, self.failure = "error-provisioning", str(error)
        self.task.status = self.before
        self.status = ordered or end

    def _results(self) -> Iterator[tuple[str, str]]:
        source = Source(**self.backend.address(self.task.source_endpoint_arn))
        try:
            if self.task.migration_type != "full-load":
                source.require_cdc()
            yield CHECKS[0], "passed"
        except FatalError as error:
            self.failure = str(error)
            yield CHECKS[0], "failed"
        except LostError as error:
            self.failure = str(error)
            for name in CHECKS:
                yield name, "error"
            return
        tables = source.tables(Mappings(self.task.table_mappings).takes)
        yield CHECKS[1], "passed" if all(table.key for table in tables) else "warning"
        kinds = {column.data_type for table in tables for column in table.columns}
        yield CHECKS[2], "warning" if "geometry" in kinds else "passed"
        yield CHECKS[3], "passed"
