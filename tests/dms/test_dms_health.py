from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.dms import health, proving, states
from dbops.dms.canary import Seen
from dbops.dms.health import Measured, Point
from tests.dms import dms_kit

NOW = datetime(2026, 3, 1, 12, 5, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CANARY = {"schema_name": "shop", "table": "canary"}
INSTANCES = (states.Instance("dms-one", dms_kit.INSTANCE_ARN, "available"),)


def series(*values: float, back: int = 1) -> tuple[Point, ...]:
    """Points of consecutive minutes; the last one is `back` minutes old."""
    end = NOW.replace(second=0) - back * MINUTE
    return tuple(Point(end - MINUTE * (len(values) - 1 - i), value) for i, value in enumerate(values))


def measured(**more: Any) -> Measured:
    good = {"latency_source": series(1, 1, 1), "latency_target": series(2, 2, 2), "incoming": series(0, 5, 3)}
    return Measured(**{**good, **more})


def task(**more: Any) -> states.Task:
    return states.task(dms_kit.task_row(**more))


def tables(**more: Any) -> tuple[states.TableStatistics, ...]:
    return (states.table_statistics(dms_kit.table_row(**more)),)


SEEN = Seen("t", NOW - timedelta(seconds=9), NOW - timedelta(seconds=5))


def judge(
    spec: Any = None, of: Any = None, points: Any = ..., seen: Any = SEEN, stats: Any = ..., now: datetime = NOW
) -> health.Health:
    return health.judge(
        spec or dms_kit.spec(canary=CANARY), of or task(), measured() if points is ... else points,
        tables=tables() if stats is ... else stats, canary=seen, now=now,
    )  # fmt: skip


def test_a_task_that_replicates() -> None:
    found = judge()
    assert found == health.Health(
        "healthy",
        (
            "latency of source 1 s and target 2 s over 3 points, limit 60 s",
            "the canary row took 4 s to the target, limit 120 s",
        ),
    )
    without = judge(dms_kit.spec(), seen=None)
    assert without.verdict == "healthy"
    assert "no canary is declared" in without.reasons[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"points": None}, "no metrics"),
        ({"points": Measured()}, "CDCLatencySource has no point"),
        ({"points": measured(latency_target=())}, "CDCLatencyTarget has no point"),
        ({"points": measured(latency_target=series(1, 60, 1))}, "CDCLatencyTarget was 60 s within the last 3 points, limit 60 s"),
        ({"points": measured(latency_source=series(1, 1))}, "CDCLatencySource has 2 of the last 3 points; 12:02 UTC is missing"),
        ({"points": measured(latency_source=(*series(1, back=4), *series(1, 1, back=1)))}, "12:02 UTC is missing"),
        ({"points": measured(latency_source=series(1, 1, 1, back=4))}, "newest point of CDCLatencySource is 4 min old, limit 3 min"),
        ({"points": measured(incoming=())}, "CDCIncomingChanges has no point"),
        ({"points": measured(incoming=series(5, back=9))}, "CDCIncomingChanges is 9 min old"),
        ({"points": measured(incoming=series(1, 20, 30, 45))}, "grew from 1 to 45 over 4 points"),
        ({"seen": None}, "the canary row of shop.canary was not seen on the target, limit 120 s"),
        ({"seen": Seen("t", NOW - timedelta(seconds=200), NOW)}, "took 200 s to the target, limit 120 s"),
        ({"seen": Seen("t", NOW - timedelta(seconds=202), NOW - timedelta(seconds=200))}, "last seen 200 s ago, limit 120 s"),
        ({"stats": None}, "statistics of the tables are unknown"),
        ({"stats": ()}, "the task has no table"),
        ({"stats": tables(state="Table error")}, "table shop.orders is in state Table error"),
        ({"stats": tables(state="Something new")}, "table shop.orders is in state Something new"),
        ({"stats": tables(FullLoadErrorRows=3)}, "table shop.orders has 3 rows that failed to load, limit 0"),
        ({"of": task(ReplicationTaskStats={"TablesErrored": 2})}, "AWS counts 2 tables with errors"),
        ({"of": task(Status="stopped", StopReason="Stop Reason NORMAL")}, "the task is stopped, wanted running: stop reason NORMAL"),
        ({"of": task(Status="failed", LastFailureMessage="Last Error x")}, "Last Error x"),
        ({"of": task(Status="modifying")}, "the task is modifying, wanted running"),
        ({"of": task(Status="of a new kind")}, "the task is of a new kind"),
        ({"of": states.missing("shop-orders")}, "AWS has no task shop-orders"),
    ],
)  # fmt: skip
def test_what_is_not_healthy(change: dict[str, Any], reason: str) -> None:
    found = judge(**change)
    assert found.verdict == "unhealthy"
    assert any(reason in one for one in found.reasons), found.reasons


def test_zero_latency_is_no_proof() -> None:
    zero = measured(latency_source=series(0, 0, 0), latency_target=series(0, 0, 0), incoming=series(0, 0, 0))
    assert judge(points=zero, seen=None).verdict == "unhealthy"
    assert judge(points=zero).verdict == "healthy"


def test_the_newest_points_may_be_three_minutes_old() -> None:
    late = measured(latency_source=series(1, 1, 1, back=3), latency_target=series(1, 1, 1, back=2))
    assert judge(points=late).verdict == "healthy"


def test_changes_that_wait_and_are_worked_off() -> None:
    assert judge(points=measured(incoming=series(9, 20, 30, 29))).verdict == "healthy"


def test_rows_in_error_within_the_limit() -> None:
    spec = dms_kit.spec(canary=CANARY, limits={"error_rows": 3})
    assert judge(spec, stats=tables(FullLoadErrorRows=3)).verdict == "healthy"


def test_a_load_on_its_way() -> None:
    going = tables(state="Full load", FullLoadStartTime=NOW - timedelta(hours=2))
    found = judge(stats=going, points=None, seen=None)
    assert found == health.Health("loading", ("1 of 1 tables are not loaded yet: shop.orders (Full load, 10 rows)",))
    late = judge(dms_kit.spec(limits={"load_hours": 1.5}), stats=going, seen=None)
    assert late.verdict == "unhealthy"
    assert late.reasons == ("table shop.orders loads for 2.0 h, limit 1.5 h",)
    broken = (*going, *tables(name="items", state="Table error"))
    assert judge(stats=broken).reasons == ("table shop.items is in state Table error",)


def test_a_start_takes_its_time() -> None:
    begun = task(Status="starting", ReplicationTaskStats={"StartDate": NOW - timedelta(minutes=29)})
    assert judge(of=begun).verdict == "loading"
    late = judge(of=begun, now=NOW + timedelta(minutes=2))
    assert late == health.Health("unhealthy", ("starting for 31 min, limit 30 min",))


def test_a_full_load_alone() -> None:
    spec = dms_kit.spec(task_type="full-load")
    done = task(MigrationType="full-load", Status="stopped", StopReason="Stop Reason FULL_LOAD_ONLY_FINISHED")
    assert judge(spec, done, None, None).verdict == "healthy"
    assert judge(spec, done, None, None, stats=None).verdict == "unhealthy"
    assert judge(spec, done, None, None, stats=tables(state="Table error")).verdict == "unhealthy"
    fatal = task(MigrationType="full-load", Status="stopped", StopReason="Stop Reason FATAL_ERROR")
    assert judge(spec, fatal, None, None).verdict == "unhealthy"
    assert judge(spec, task(MigrationType="full-load"), None, None).verdict == "loading"
    assert judge(spec, task(MigrationType="full-load", Status="ready"), None, None).verdict == "unhealthy"


@pytest.mark.parametrize(("status", "verdict"), [
    ("stopped", "standing"), ("ready", "standing"), ("failed", "unhealthy"), ("running", "healthy"),
])  # fmt: skip
def test_a_task_that_shall_stand(status: str, verdict: str) -> None:
    assert judge(dms_kit.spec(wanted="stopped"), task(Status=status), seen=None).verdict == verdict


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 120)), max_size=8),
    st.lists(st.one_of(st.none(), st.floats(0, 120)), max_size=8),
    st.integers(1, 5),
    st.integers(0, 6),
)
def test_healthy_needs_every_point_of_both_latencies(
    source: list[float | None], target: list[float | None], samples: int, back: int
) -> None:
    def points(values: list[float | None]) -> tuple[Point, ...]:
        made = series(*[-1 if value is None else value for value in values], back=back)
        return tuple(one for one, value in zip(made, values, strict=True) if value is not None)

    def holds(values: list[float | None]) -> bool:
        kept = list(values)
        trailing = 0
        while kept and kept[-1] is None:
            kept.pop()
            trailing += 1
        last = kept[-samples:]
        return len(last) == samples and all(v is not None and v < 60 for v in last) and back + trailing <= 3

    spec = dms_kit.spec(limits={"samples": samples})
    given_points = measured(latency_source=points(source), latency_target=points(target), incoming=series(0))
    assert (judge(spec, points=given_points, seen=None).verdict == "healthy") == (holds(source) and holds(target))


class CloudWatch:
    """Answers GetMetricData two results a page, the series split over pages, and ListMetrics one metric a page."""

    def __init__(self, metrics: list[dict[str, Any]] | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.metrics = metrics or []

    def get_metric_data(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append(("get_metric_data", arguments))
        assert len(arguments["MetricDataQueries"]) <= 500
        first = int(arguments.get("NextToken", 0))
        at = arguments["StartTime"] + MINUTE * (1 + first)
        results = [
            {"Id": query["Id"], "Timestamps": [at], "Values": [len(query["MetricStat"]["Metric"]["MetricName"])]}
            for query in arguments["MetricDataQueries"]
        ]
        return {"MetricDataResults": results, **({"NextToken": "1"} if first == 0 else {})}

    def list_metrics(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append(("list_metrics", arguments))
        first = int(arguments.get("NextToken", 0))
        named = [one for one in self.metrics if one["MetricName"] == arguments["MetricName"]]
        return {
            "Metrics": named[first : first + 1],
            **({"NextToken": str(first + 1)} if first + 1 < len(named) else {}),
        }


def test_calls_grow_with_pages_not_with_tasks() -> None:
    many = [
        task(ReplicationTaskIdentifier=f"t{i}", ReplicationTaskArn=f"arn:aws:dms:eu-central-1:1:task:RES{i}")
        for i in range(200)
    ]
    client = CloudWatch()
    found = dms_kit.ask(client, health.latencies(many, INSTANCES, until=NOW, minutes=15))
    assert len(found) == 200
    assert len(client.calls) == 2 * 3  # 1,200 series, 500 a call, two pages each
    one = found["arn:aws:dms:eu-central-1:1:task:RES7"]
    assert [point.value for point in one.latency_source] == [16.0, 16.0]
    assert one.load_rows[0].at < one.load_rows[1].at
    query = client.calls[0][1]["MetricDataQueries"][0]["MetricStat"]
    assert query["Metric"]["Dimensions"] == [
        {"Name": "ReplicationInstanceIdentifier", "Value": "dms-one"},
        {"Name": "ReplicationTaskIdentifier", "Value": "RES0"},
    ]
    assert (query["Stat"], query["Period"], query["Metric"]["Namespace"]) == ("Maximum", 60, "AWS/DMS")


def test_a_task_without_a_known_instance_has_no_measures() -> None:
    lost = task(ReplicationInstanceArn="arn:aws:dms:eu-central-1:1:rep:OTHER")
    client = CloudWatch()
    assert dms_kit.ask(client, health.latencies([lost], INSTANCES, until=NOW, minutes=5)) == {}
    assert client.calls == []


def test_serverless_goes_by_the_dimensions_that_cloudwatch_has() -> None:
    arn = "arn:aws:dms:eu-central-1:1:replication-config:SERVERLESS"
    named = [{"Name": "SomeIdentifier", "Value": "SERVERLESS"}]
    other = {"MetricName": "CDCLatencySource", "Dimensions": [{"Name": "ReplicationTaskIdentifier", "Value": "X"}]}
    client = CloudWatch([other, {"MetricName": "CDCLatencySource", "Dimensions": named}])
    of = states.serverless({"ReplicationConfigIdentifier": "less", "ReplicationConfigArn": arn})
    found = dms_kit.ask(client, health.latencies([of], (), until=NOW, minutes=5))
    assert set(found) == {arn}
    queries = client.calls[-1][1]["MetricDataQueries"]
    assert all(query["MetricStat"]["Metric"]["Dimensions"] == named for query in queries)


@pytest.mark.parametrize(
    ("action", "status", "reason", "stands"),
    [
        ("stop", "stopped", "Stop Reason NORMAL", True), ("stop", "stopped", "Stop Reason FATAL_ERROR", False),
        ("stop", "failed", "", False), ("drain", "stopped", "Stop Reason STOPPED_AT_COMMIT_TIME", True),
        ("drain", "stopped", "Stop Reason NORMAL", False), ("ensure", "stopped", "Stop Reason NORMAL", False),
        ("stop", "running", "", False),
    ],
)  # fmt: skip
def test_a_task_that_stands_as_the_run_was_asked_is_well(action: str, status: str, reason: str, stands: bool) -> None:
    found = proving.as_asked({"action": action}, task(Status=status, StopReason=reason))
    assert (found is not None) is stands
    if found:
        assert found == health.Health("standing", (f"the task is stopped, as {action} asked",))
