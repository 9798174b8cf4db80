"""What the checks say of plans, targets, applications and streams."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dbops.backfill import findings, liveness, preflight
from dbops.backfill.estimate import Sample
from dbops.backfill.findings import Finding
from dbops.backfill.source import ViewError
from dbops.backfill.target import Index, TargetFacts
from dbops.keyvalue.rules import Version
from tests.backfill.preflight_kit import NOW, TABLE, Heard, ids, made
from tests.backfill.source_kit import PLAIN, RIDES, built, declared

GOOD = {
    "table": "r",
    "type": "range",
    "key": "PRIMARY",
    "possible_keys": "PRIMARY",
    "Extra": "Using where",
    "select_type": "SIMPLE",
}
JOINED = {**GOOD, "table": "m", "type": "eq_ref", "Extra": None}
REDIS = {"target": {"kind": "redis", "key": "{id}"}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, []),
        ({"type": "index"}, {}, ["range_access"]),
        ({"type": "ALL", "key": None}, {}, ["range_access"]),
        ({"type": "ref", "key": "status"}, {}, ["range_access"]),
        ({"table": "m"}, {}, ["range_access"]),
        ({"table": None, "type": None, "key": None, "Extra": "Impossible WHERE"}, {}, ["range_access"]),
        ({"Extra": "Using where; Using filesort"}, {}, ["sorted_pages"]),
        ({"Extra": "Using temporary"}, {}, ["sorted_pages"]),
        ({}, {"select_type": "DERIVED"}, ["sorted_pages"]),
        ({}, {"type": "ALL", "possible_keys": None}, ["join_scan"]),
        ({}, {"type": "ALL"}, []),
        ({}, {"type": "ref", "key": "member"}, ["join_unique?"]),
    ],
)
def test_a_page_is_a_range_of_the_key_or_the_run_stops(
    first: dict[str, Any], second: dict[str, Any], expected: list[str]
) -> None:
    assert ids(preflight.judge_plan(built(declared(RIDES)), [{**GOOD, **first}, {**JOINED, **second}])) == expected


@pytest.mark.parametrize(
    ("spec", "facts", "expected"),
    [
        ({}, {}, []),
        ({}, {"exists": False}, ["target"]),
        ({}, {"state": "CREATING"}, ["target"]),
        ({}, {"key": (("pk", "N"),)}, ["target_key"]),
        ({}, {"key": (("pk", "S"), ("sk", "S"))}, ["target_key"]),
        ({}, {"ttl_attribute": "_exp"}, ["target_ttl"]),
        ({}, {"ttl_attribute": "expires"}, ["target_ttl?"]),
        ({}, {"point_in_time_recovery": False}, ["target_pitr?"]),
        ({}, {"point_in_time_recovery": None}, ["target_pitr?"]),
        ({}, {"indexes": (Index("a", "ACTIVE"), Index("b", "CREATING"))}, ["target_index"]),
        ({}, {"replicas": 1}, []),
        ({"engine": "bulk", "staging_s3_uri": "s3://a/b"}, {"replicas": 1}, ["target_replicas"]),
        ({"engine": "import", "staging_s3_uri": "s3://a/b"}, {}, ["target"]),
        ({"engine": "import", "staging_s3_uri": "s3://a/b"}, {"exists": False}, []),
        (REDIS, {"eviction": "noeviction", "memory_limit": 10**9, "memory_used": 1}, []),
        (REDIS, {"eviction": "noeviction", "memory_limit": 10**9, "memory_used": 5 * 10**8}, ["target_memory"]),
        (REDIS, {"eviction": "noeviction", "memory_limit": 0}, ["target_memory?"]),
        (REDIS, {"eviction": "allkeys-lru", "memory_limit": 10**9}, ["target_eviction"]),
        (REDIS, {"exists": False}, ["target"]),
    ],
)
def test_a_target_that_cannot_take_or_keep_items_stops_the_run(
    spec: dict[str, Any], facts: dict[str, Any], expected: list[str]
) -> None:
    found = TargetFacts(**{**TABLE.__dict__, **facts})
    assert ids(preflight.check_target(built(declared(**spec)), found, made())) == expected


def test_the_table_of_the_import_that_goes_on_is_not_in_its_way() -> None:
    imported = built(declared(engine="import", staging_s3_uri="s3://a/b"))
    assert ids(preflight.check_target(imported, TABLE, made(), is_own=True)) == []


def test_key_types_are_those_of_plain_columns_or_text() -> None:
    found = built(declared(target={"kind": "dynamodb", "table": "rides", "key": {"pk": "{id}", "sk": "RIDE#{id:pad}"}}))
    assert [template.kind for _, template in found.view.keys.parts] == ["N", "S"]
    (absent,) = preflight.check_target(found, TargetFacts(exists=False, state=""), None)
    assert "create it with the key pk (N), sk (S)" in absent.fix


def test_the_type_report_says_what_is_not_exact() -> None:
    sql = PLAIN.replace("r.status", "r.status, r.price, r.rating, r.updated_at")
    found = {row.column: (row.form, row.how) for row in preflight.type_report(built(declared(sql)))}
    assert found == {
        "id": ("N", "exact"),
        "status": ("S", "exact; index 0 rejects the row"),
        "price": ("N", "exact; NULL is left out"),
        "rating": ("N", "exact; NULL is left out; S beyond 1E-130 to 9.99E+125"),
        "updated_at": ("S", "exact; zero dates reject the row"),
    }


@pytest.mark.parametrize(
    ("policy", "max_rows", "rejects", "expected"),
    [
        ("dead_letter", 0, 0, []),
        ("dead_letter", 0, 1, ["rejects"]),
        ("dead_letter", 5, 5, ["rejects?"]),
        ("dead_letter", 5, 6, ["rejects"]),
        ("stop", 5, 1, ["rejects"]),
    ],
)
def test_rejects_of_the_sample_stop_a_run_that_would_fail(
    policy: str, max_rows: int, rejects: int, expected: list[str]
) -> None:
    spec = declared(rejects={"policy": policy, "max_rows": max_rows})
    sample = Sample(100, (), 0, {"born (date) is a zero date": rejects} if rejects else {}, 1.0)
    assert ids(preflight.check_sample(spec, sample)) == expected


def test_time_is_refused_and_cost_asks() -> None:
    spec = declared(limits={"max_hours": 0.1, "budget_usd": 1})
    assert ids(preflight.check_estimate(spec, made())) == ["hours", "budget?"]
    assert ids(preflight.check_estimate(declared(), made())) == []


def test_a_version_that_falls_is_found() -> None:
    before = {("1",): Version(5), ("2",): Version(5), ("3",): Version(5)}
    assert ids(preflight.judge_versions(before, {("1",): Version(5), ("2",): Version(6)})) == []
    assert ids(preflight.judge_versions(before, {("1",): Version(4)})) == ["version_falls"]


def test_a_check_that_cannot_be_made_is_a_refusal_and_refusals_come_first() -> None:
    def breaks() -> list[Finding]:
        raise ConnectionError("no\n route")

    def views() -> list[Finding]:
        raise ViewError("view.sql: twice")

    found = findings.run({"a": lambda: [findings.warning("a", "b", "c")], "log": breaks, "sample": views})
    assert ids(found) == ["log", "view", "a?"]
    assert str(found[0]) == (
        "[log] cannot be looked at: ConnectionError: no route. Fix: correct the connection or its grants"
    )


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        ([Heard()], []),
        ([Heard(), Heard(counts={"writes": 0})], []),
        ([], ["dual_write"]),
        ([Heard(application="other")], ["dual_write"]),
        ([Heard(at=NOW - timedelta(minutes=16))], ["dual_write"]),
        ([Heard(at=NOW - timedelta(minutes=16)), Heard(at=NOW - timedelta(minutes=14))], []),
        ([Heard(counts={"hits": 5, "writes": 0})], ["dual_write"]),
        ([Heard(since=datetime(2026, 1, 2, tzinfo=UTC))], ["live_since?"]),
        ([Heard(counts={"writes": 5, "failed": 1})], ["dual_write_failed?"]),
    ],
)
def test_every_application_has_to_be_heard_of_and_to_write(beats: list[Heard], expected: list[str]) -> None:
    assert ids(liveness.check_applications(declared(), beats, NOW)) == expected


def test_a_time_to_come_is_no_begin_of_dual_writes() -> None:
    spec = declared(live={"since": "2026-03-01T12:00:01Z", "applications": ["shop"], "stream": "x"})
    assert ids(liveness.check_applications(spec, [Heard()], NOW)) == ["live_since"]


@mock_aws
@pytest.mark.parametrize(
    ("task", "points", "expected"),
    [
        ({}, {"CDCLatencySource": 3, "CDCLatencyTarget": 4}, ["stream_since?"]),
        ({}, {"CDCLatencySource": 3}, ["stream_latency", "stream_since?"]),
        ({}, {"CDCLatencySource": 61, "CDCLatencyTarget": 4}, ["stream_latency", "stream_since?"]),
        ({"MigrationType": "full-load"}, {"CDCLatencySource": 3, "CDCLatencyTarget": 4}, ["stream", "stream_since?"]),
        ({"stopped": True}, {}, ["stream"]),
        ({"ReplicationTaskIdentifier": "another"}, {}, ["stream"]),
        (None, {}, ["stream"]),
    ],
    ids=["good", "no metric", "late", "load", "stopped", "other", "none"],
)
def test_the_task_has_to_run_and_to_keep_up(
    task: dict[str, Any] | None, points: dict[str, float], expected: list[str]
) -> None:
    dms, cloudwatch = (boto3.client(name, region_name="eu-central-1") for name in ("dms", "cloudwatch"))
    now = datetime.now(UTC)
    if task is not None:
        instance = dms.create_replication_instance(
            ReplicationInstanceIdentifier="i", ReplicationInstanceClass="dms.t3.medium"
        )["ReplicationInstance"]["ReplicationInstanceArn"]
        task = dict(task)
        is_stopped = task.pop("stopped", False)
        arn = dms.create_replication_task(
            **{
                "ReplicationTaskIdentifier": "carry", "SourceEndpointArn": "arn:s", "TargetEndpointArn": "arn:t",
                "ReplicationInstanceArn": instance, "MigrationType": "cdc", "TableMappings": "{}", **task,
            }
        )["ReplicationTask"]["ReplicationTaskArn"]  # fmt: skip
        if not is_stopped:
            dms.start_replication_task(ReplicationTaskArn=arn, StartReplicationTaskType="start-replication")
        for name, value in points.items():
            dimensions = {"ReplicationInstanceIdentifier": "i", "ReplicationTaskIdentifier": arn.rpartition(":")[2]}
            cloudwatch.put_metric_data(
                Namespace="AWS/DMS",
                MetricData=[
                    {
                        "MetricName": name, "Value": value, "Timestamp": now,
                        "Dimensions": [{"Name": key, "Value": each} for key, each in dimensions.items()],
                    }
                ],
            )  # fmt: skip
    live = {"since": "2026-01-01T00:00:00Z", "applications": ["shop"], "replication_task": "carry"}
    found = liveness.check_stream(declared(live=live), dms, cloudwatch, now)
    assert sorted(ids(found)) == sorted(expected)


class Suspended:
    """A task that runs without one of its tables."""

    def describe_replication_tasks(self, **_: Any) -> dict[str, Any]:
        return {
            "ReplicationTasks": [
                {
                    "ReplicationTaskIdentifier": "carry", "ReplicationTaskArn": "arn:task:T", "ReplicationInstanceArn": "arn:i",
                    "Status": "running", "MigrationType": "cdc", "ReplicationTaskStartDate": datetime(2025, 1, 1, tzinfo=UTC),
                    "ReplicationTaskStats": {"TablesErrored": 1},
                }
            ]
        }  # fmt: skip

    def describe_replication_instances(self, **_: Any) -> dict[str, Any]:
        return {"ReplicationInstances": [{"ReplicationInstanceIdentifier": "i"}]}

    def get_metric_statistics(self, **_: Any) -> dict[str, Any]:
        return {"Datapoints": [{"Timestamp": NOW, "Maximum": 1.0}]}


def test_a_task_that_runs_without_one_of_its_tables_is_no_stream() -> None:
    live = {"since": "2026-01-01T00:00:00Z", "applications": ["shop"], "replication_task": "carry"}
    spec, aws = declared(live=live), Suspended()
    assert ids(liveness.check_stream(spec, aws, aws, NOW)) == ["stream_tables"]
    state = liveness.stream_state(spec, aws, aws, NOW)
    assert state is not None
    assert not state.is_running


def test_a_stream_that_is_not_of_dms_is_only_declared() -> None:
    assert ids(liveness.check_stream(declared(), None, None, NOW)) == ["stream?"]
