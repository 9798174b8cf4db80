"""A DMS that takes time: what was called is under way for some looks. It refuses what AWS refuses, and can die around any call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.dms.dms_kit import CHECKPOINT, INSTANCE_ARN, validate

START = datetime(2026, 3, 1, tzinfo=UTC)


class Fault(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code, "Message": "refused"}}


class Killed(BaseException):
    """The process ended here."""


class FakeDms:
    """Attributes: `looks` is how many describe calls a transition takes; `kill_at` the number of the changing call that kills, before or
    after AWS has carried it out (`kill_after`); `changed` counts changing calls by method."""

    def __init__(self, looks: int = 2, kill_at: int = 0, kill_after: bool = True) -> None:
        self.looks, self.kill_at, self.kill_after = looks, kill_at, kill_after
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.tests: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.tables: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.changed: Counter[str] = Counter()
        self.described = 0
        self.test_result = "successful"
        self.assessments: list[dict[str, Any]] = []
        self.next_assessment = "passed"
        self._pending: list[list[Any]] = []
        self._clock = START

    def now(self) -> datetime:
        self._clock += timedelta(seconds=1)
        return self._clock

    def later(self, then: Callable[[], None]) -> None:
        self._pending.append([self.looks, then])

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(**given: Any) -> Any:
            validate(method, given)
            if method.startswith("describe_"):
                self.described += 1
                for pending in list(self._pending):
                    pending[0] -= 1
                    if pending[0] <= 0:
                        self._pending.remove(pending)
                        pending[1]()
                return getattr(self, f"_{method}")(given)
            number = sum(self.changed.values()) + 1
            if number == self.kill_at and not self.kill_after:
                self.kill_at = 0
                raise Killed
            answer = getattr(self, f"_{method}")(given)
            self.changed[method] += 1
            if number == self.kill_at:
                self.kill_at = 0
                raise Killed
            return answer

        return call

    def _describe_replication_tasks(self, given: dict[str, Any]) -> dict[str, Any]:
        wanted = [value for one in given.get("Filters", ()) for value in one["Values"]]
        found = [task for name, task in self.tasks.items() if not wanted or name in wanted]
        if wanted and not found:
            raise Fault("ResourceNotFoundFault")
        return {"ReplicationTasks": found}

    def _describe_endpoints(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"Endpoints": list(self.endpoints.values())}

    def _describe_replication_instances(self, _: dict[str, Any]) -> dict[str, Any]:
        one = {
            "ReplicationInstanceIdentifier": "dms-one", "ReplicationInstanceArn": INSTANCE_ARN,
            "ReplicationInstanceStatus": "available",
        }  # fmt: skip
        two = {**one, "ReplicationInstanceIdentifier": "dms-two", "ReplicationInstanceArn": f"{INSTANCE_ARN}2"}
        return {"ReplicationInstances": [one, two]}

    def _describe_connections(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"Connections": list(self.tests.values())}

    def _describe_table_statistics(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"TableStatistics": self.tables}

    def _describe_events(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"Events": self.events}

    def _describe_replication_task_assessment_runs(self, _: dict[str, Any]) -> dict[str, Any]:
        task = next(iter(self.tasks.values()))["ReplicationTaskArn"]
        rows = [
            {"ReplicationTaskArn": task, "ReplicationTaskAssessmentRunArn": f"arn:{one['AssessmentRunName']}", **one}
            for one in self.assessments
        ]
        return {"ReplicationTaskAssessmentRuns": rows}

    def _describe_replication_task_individual_assessments(self, _: dict[str, Any]) -> dict[str, Any]:
        ends = self.assessments[-1]["Status"]
        return {
            "ReplicationTaskIndividualAssessments": [{"IndividualAssessmentName": "unsupported-types", "Status": ends}]
        }

    def _start_replication_task_assessment_run(self, given: dict[str, Any]) -> dict[str, Any]:
        row = {"AssessmentRunName": given["AssessmentRunName"], "Status": "running"}
        self.assessments.append(row)
        ends = self.next_assessment
        self.later(lambda: row.update(Status=ends))
        return {
            "ReplicationTaskAssessmentRun": {"ReplicationTaskAssessmentRunArn": f"arn:{given['AssessmentRunName']}"}
        }

    def _create_endpoint(self, given: dict[str, Any]) -> None:
        name = given["EndpointIdentifier"]
        if name in self.endpoints:
            raise Fault("ResourceAlreadyExistsFault")
        row = {**given, "EndpointArn": f"arn:aws:dms:eu-central-1:123456789012:endpoint:{name}", "Status": "creating"}
        self.endpoints[name] = row
        self.later(lambda: row.update(Status="active"))

    def _modify_endpoint(self, given: dict[str, Any]) -> None:
        row = next(row for row in self.endpoints.values() if row["EndpointArn"] == given["EndpointArn"])
        row["Status"] = "modifying"
        self.later(lambda: row.update({**given, "Status": "active"}))

    def _test_connection(self, given: dict[str, Any]) -> None:
        held = self.tests.get(given["EndpointArn"])
        if held and held["Status"] == "testing":
            raise Fault("InvalidResourceStateFault")
        row = {**given, "Status": "testing"}
        self.tests[given["EndpointArn"]] = row
        self.later(lambda: row.update(Status=self.test_result, LastFailureMessage="no route"))

    def _create_replication_task(self, given: dict[str, Any]) -> None:
        name = given["ReplicationTaskIdentifier"]
        if name in self.tasks:
            raise Fault("ResourceAlreadyExistsFault")
        row = {
            **given,
            "ReplicationTaskArn": f"arn:aws:dms:eu-central-1:123456789012:task:{name}",
            "Status": "creating",
        }
        self.tasks[name] = row
        self.later(lambda: row.update(Status="ready"))

    def _task(self, given: dict[str, Any], *allowed: str) -> dict[str, Any]:
        row = next(
            (row for row in self.tasks.values() if row["ReplicationTaskArn"] == given["ReplicationTaskArn"]), None
        )
        if row is None:
            raise Fault("ResourceNotFoundFault")
        if row["Status"] not in allowed:
            raise Fault("InvalidResourceStateFault")
        return row

    def _modify_replication_task(self, given: dict[str, Any]) -> None:
        row = self._task(given, "ready", "stopped", "failed")
        before = row["Status"]
        row["Status"] = "modifying"
        self.later(lambda: row.update({**given, "Status": before}))

    def _move_replication_task(self, given: dict[str, Any]) -> None:
        row = self._task(given, "stopped", "failed")
        row["Status"] = "moving"
        there = given["TargetReplicationInstanceArn"]
        self.later(lambda: row.update(Status="stopped", ReplicationInstanceArn=there))

    def _start_replication_task(self, given: dict[str, Any]) -> None:
        row = self._task(given, "ready", "stopped", "failed")
        row |= {"Status": "starting", "StopReason": ""}
        fresh = self.now() if given["StartReplicationTaskType"] == "reload-target" else START

        def run() -> None:
            row["Status"] = "running"
            row["RecoveryCheckpoint"] = CHECKPOINT
            row["ReplicationTaskStats"] = {
                "TablesLoaded": len(self.tables), "TablesLoading": 0, "TablesQueued": 0, "TablesErrored": 0,
                "StartDate": self.now(), "FreshStartDate": fresh,
            }  # fmt: skip

        self.later(run)

    def _stop_replication_task(self, given: dict[str, Any]) -> None:
        row = self._task(given, "running")
        row["Status"] = "stopping"
        self.later(lambda: row.update(Status="stopped", StopReason="Stop Reason NORMAL"))

    def _delete_replication_task(self, given: dict[str, Any]) -> None:
        row = self._task(given, "ready", "stopped", "failed")
        row["Status"] = "deleting"
        self.later(lambda: self.tasks.pop(row["ReplicationTaskIdentifier"]))

    def _reload_tables(self, given: dict[str, Any]) -> None:
        self._task(given, "running")
        wanted = {(one["SchemaName"], one["TableName"]) for one in given["TablesToReload"]}

        def begin() -> None:
            for row in self.tables:
                if (row["SchemaName"], row["TableName"]) in wanted:
                    row["FullLoadStartTime"] = self.now()

        self.later(begin)


class FakeLedger:
    """What the carrying out of a plan needs of the ledger, in memory; it outlives a killed run as the real one does."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self.notes: list[tuple[str, str]] = []
        self.checkpoints: list[str] = []
        self.restarts: list[str] = []
        self.failed: list[str] = []

    def steps(self, run: str, spec: str) -> dict[int, dict[str, Any]]:
        return {number: dict(one) for number, one in self.kept.get((run, spec), {}).items()}

    def step(self, run: str, spec: str, number: int, state: str, document: dict[str, Any] | None = None) -> None:
        held = self.kept.setdefault((run, spec), {})
        if number not in held or (state, held[number]["state"]) in {
            ("called", "noted"),
            ("done", "noted"),
            ("done", "called"),
        }:
            held[number] = {"state": state, "document": dict(document or {})}

    def uncalled(self, run: str, spec: str, number: int) -> None:
        held = self.kept[run, spec][number]
        held["state"], held["document"] = (
            "noted",
            {k: v for k, v in held["document"].items() if not k.startswith("called")},
        )

    def table_failed(self, spec: str, table: Any, reason: str, at: datetime, *, failure_id: str = "") -> int:
        self.failed.append(str(table))
        return len(self.failed)

    def note(self, spec: str, run: str, kind: str, reason: str, *, subject: str = "", document: Any = None) -> int:
        self.notes.append((kind, reason))
        return len(self.notes)

    def save_checkpoint(self, spec: str, task: Any, statistics: Any, at: datetime) -> None:
        self.checkpoints.append(task.checkpoint)

    def restarted(self, spec: str, checkpoint: str, at: datetime, *, restart_id: str = "") -> None:
        if restart_id not in self.restarts:
            self.restarts.append(restart_id)
