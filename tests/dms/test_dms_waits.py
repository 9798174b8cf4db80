"""What is waited for: open, good or bad from looks alone, through JSON at every step, and never good for what is unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.dms import states, waits
from dbops.dms.states import Status, TableState
from dbops.dms.waits import Reloading, Seen, Wait
from dbops.dms.waits.base import MISSING_LOOKS, TABLES_TOLD, statistics
from tests.dms.dms_kit import INSTANCE_ARN, TASK_ARN, Paged, ask, table_row, task_row

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SINCE = waits.iso(NOW)
CONFIG_ARN = "arn:aws:dms:eu-central-1:123456789012:replication-config:SHOP"


def at(second: float) -> datetime:
    return NOW + timedelta(seconds=second)


def table(name: str = "orders", state: str = "Table completed", started: float | None = 1, **more: Any) -> Any:
    begun = {} if started is None else {"FullLoadStartTime": at(started)}
    return states.table_statistics(table_row(name, state, **begun, **more))


def seen(status: str = "running", *tables: Any, reason: str = "", started: float = 0, **more: Any) -> Seen:
    stats = {"TablesErrored": 0, "StartDate": at(started), **more.pop("stats", {})}
    given = {"StopReason": f"Stop Reason {reason}"} if reason else {}
    row = task_row(Status=status, ReplicationTaskStats=stats, **given, **more)
    return Seen(states.task(row), tables=tuple(tables) if tables else None)


def looked(wait: Any, *looks: Seen, second: float = 10) -> Any:
    """After these looks, each time made again from its JSON."""
    for number, one in enumerate(looks):
        wait = waits.load(json.loads(json.dumps(waits.dump(wait)))).advance(one, at(second + number))
    return wait


STANDING = waits.Standing(arn=TASK_ARN)
STARTED = waits.Started(arn=TASK_ARN, since=SINCE, before=waits.iso(at(-500)))
ENDED = waits.Ended(arn=TASK_ARN, since=SINCE)
STOPPED = waits.Stopped(arn=TASK_ARN)
GONE = waits.Gone(arn=TASK_ARN)
LOADED = waits.Loaded(arn=TASK_ARN, since=SINCE)
RELOADED = waits.Reloaded(arn=TASK_ARN, before=(Reloading.of(table()),))
VALIDATED = waits.Validated(arn=TASK_ARN)
HEALTHY = waits.CdcHealthy(arn=TASK_ARN, max_source_s=5, max_target_s=5, min_points=2)
CONNECTED = waits.Connected(instance_arn=INSTANCE_ARN, endpoint_arns=("one", "two"))
ASSESSED = waits.Assessed(run_arn="run")
OF_TASKS = (STANDING, STARTED, ENDED, STOPPED, LOADED, RELOADED, VALIDATED, HEALTHY)
ALL = (*OF_TASKS, GONE, CONNECTED, ASSESSED)


@pytest.mark.parametrize("wait", ALL, ids=lambda wait: type(wait).__name__)
def test_a_wait_is_made_again_from_its_json(wait: Wait) -> None:
    document = waits.dump(wait)
    assert waits.load(json.loads(json.dumps(document))) == wait
    assert waits.dump(waits.load(document)) == document
    with pytest.raises(ValueError, match="has no verdict"):
        waits.load({**document, "verdict": "good"})


def test_a_wait_of_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'Forever' is not one of Assessed"):
        waits.load({"kind": "Forever"})


@pytest.mark.parametrize("wait", OF_TASKS, ids=lambda wait: type(wait).__name__)
def test_a_task_that_is_gone_is_bad_and_one_that_is_not_listed_once_is_not(wait: Any) -> None:
    missing = Seen(states.missing(TASK_ARN))
    assert looked(wait, *[missing] * (MISSING_LOOKS - 1)).outcome == "open"
    assert looked(wait, missing, missing, seen("creating"), missing, missing).missing == 2
    assert looked(wait, *[missing] * MISSING_LOOKS).outcome == "bad"
    assert looked(GONE, seen("deleting"), missing).outcome == "good"


@pytest.mark.parametrize("wait", [*OF_TASKS, GONE], ids=lambda wait: type(wait).__name__)
@pytest.mark.parametrize("status", ["a new word of AWS", "", "creating", "modifying", "starting", "moving", "testing"])
def test_what_is_unknown_or_on_its_way_is_open(wait: Any, status: str) -> None:
    assert looked(wait, seen(status, table())).outcome == "open"


@given(
    st.sampled_from([*OF_TASKS, GONE]),
    st.lists(
        st.builds(
            seen,
            st.sampled_from(get_args(Status)),
            st.builds(table, state=st.sampled_from(get_args(TableState)), started=st.sampled_from([None, 1, 90])),
            reason=st.sampled_from(["", "NORMAL", "FATAL_ERROR", "STOPPED_AT_COMMIT_TIME"]),
        ),
        max_size=4,
    ),
)
def test_no_wait_breaks_and_no_table_in_error_is_loaded_or_validated(wait: Any, looks: list[Seen]) -> None:
    after = looked(wait, *looks)
    assert after.outcome in ("open", "good", "bad")
    assert after.reasons
    if isinstance(wait, waits.Loaded | waits.Reloaded | waits.Validated) and after.outcome == "good":
        assert all(not one.is_failed for one in looks[-1].tables or ())


def test_standing() -> None:
    assert [looked(STANDING, seen(one)).outcome for one in ("ready", "stopped", "failed")] == ["good"] * 3
    assert [looked(STANDING, seen(one)).outcome for one in ("running", "deleting", "failed-move")] == ["bad"] * 3
    there = replace(STANDING, instance_arn="another")
    assert looked(there, seen("stopped")).outcome == "open"
    assert looked(there, seen("stopped", ReplicationInstanceArn="another")).outcome == "good"
    capacity = replace(seen("stopped"), provision="deprovisioning")
    assert looked(STANDING, capacity).reason == "the task is stopped, its capacity is deprovisioning"
    assert looked(STANDING, replace(capacity, provision="deprovisioned")).outcome == "good"
    assert looked(replace(STANDING, may_hold_capacity=True), capacity).outcome == "good"


def test_started_is_not_taken_from_the_run_before() -> None:
    before = seen("stopped", table(), reason="FATAL_ERROR", started=-500)
    assert looked(STARTED, before).outcome == "open"
    late = looked(STARTED, before, second=400)
    assert (late.outcome, "did not start within 300 s" in late.reason) == ("bad", True)
    assert looked(STARTED, before, seen("starting"), seen("running")).outcome == "good"


def test_started_that_has_ended_already_is_judged_by_its_end() -> None:
    over = seen("stopped", table(), reason="FULL_LOAD_ONLY_FINISHED", MigrationType="full-load")
    assert looked(STARTED, over).outcome == "good"
    assert looked(STARTED, replace(over, tables=None)).reasons == ("statistics of the tables are unknown",)
    failed = looked(STARTED, seen("failed", reason="FATAL_ERROR", LastFailureMessage="no binlog"))
    assert (failed.outcome, failed.reason) == ("bad", "the task is failed: no binlog")


@pytest.mark.parametrize(
    ("look", "outcome", "reason"),
    [
        (seen("running", table()), "open", "the task is running"),
        (seen("stopped", table(), reason="NORMAL"), "good", "stopped with NORMAL"),
        (seen("stopped", table(), reason="FATAL_ERROR"), "bad", "FATAL_ERROR"),
        (seen("stopped", table(), reason="RECOVERABLE_ERROR"), "bad", "RECOVERABLE_ERROR"),
        (seen("stopped", table(state="Table error"), reason="NORMAL"), "bad", "shop.orders is in state Table error"),
        (seen("stopped", table(FullLoadErrorRows=3), reason="NORMAL"), "bad", "3 rows that failed to load"),
        (seen("stopped", reason="NORMAL"), "bad", "statistics of the tables are unknown"),
        (seen("ready"), "open", "was not started yet"),
        (seen("failed"), "bad", "the task is failed"),
    ],
)
def test_ended(look: Seen, outcome: str, reason: str) -> None:
    after = looked(ENDED, look)
    assert (after.outcome, reason in after.reason) == (outcome, True), after.reason


def test_ended_in_the_way_that_was_asked_for() -> None:
    end = seen("stopped", table(), reason="STOPPED_AT_COMMIT_TIME")
    assert looked(replace(ENDED, stop_reasons=("STOPPED_AT_COMMIT_TIME",)), end).outcome == "good"
    other = looked(replace(ENDED, stop_reasons=("STOPPED_AT_SERVER_TIME",)), end)
    assert (other.outcome, "expected STOPPED_AT_SERVER_TIME" in other.reason) == ("bad", True)
    draining = replace(ENDED, stop_at="commit_time:2026", before=waits.iso(at(-9)))
    assert looked(draining, end).outcome == "open"  # not of a run with this stop position
    assert (
        looked(
            draining, replace(seen("stopped", table(), reason="NORMAL", started=-9), stop_at="commit_time:2026")
        ).outcome
        == "open"
    )
    assert looked(draining, replace(end, stop_at="commit_time:2026")).outcome == "good"
    assert looked(replace(ENDED, not_before=waits.iso(at(5))), end).outcome == "open"
    later = seen("stopped", table(), reason="NORMAL", stats={"StopDate": at(6)})
    assert looked(replace(ENDED, not_before=waits.iso(at(5))), later).outcome == "good"
    assert (
        looked(replace(ENDED, max_error_rows=3), seen("stopped", table(FullLoadErrorRows=3), reason="NORMAL")).outcome
        == "good"
    )
    assert looked(ENDED, seen("ready"), second=400).outcome == "bad"


def test_stopped_is_what_was_asked_for_whatever_the_reason() -> None:
    assert looked(STOPPED, seen("running"), seen("stopping")).outcome == "open"
    after = looked(STOPPED, seen("stopped", table(), reason="FATAL_ERROR"))
    assert (after.outcome, "FATAL_ERROR" in after.reason) == ("good", True)
    assert looked(STOPPED, seen("deleting")).outcome == "bad"


@pytest.mark.parametrize(
    ("look", "outcome", "reason"),
    [
        (seen("running", table("a"), table("b")), "good", "2 tables are completed"),
        (seen("running", table("a"), table("b", "Full load")), "open", "1 of 2 tables are not completed: shop.b"),
        (seen("running", table("a"), table("b", "Table error")), "bad", "shop.b is in state Table error"),
        (seen("running", table("a"), table("b", "Table cancelled")), "bad", "shop.b is in state Table cancelled"),
        (seen("running", table("a"), table("b", "a new state")), "bad", "shop.b is in state a new state"),
        (
            seen("running", table("a", FullLoadErrorRows=2)),
            "bad",
            "2 rows failed to load, 0 are put up with: shop.a (2)",
        ),
        (seen("running", table("a"), stats={"TablesErrored": 1}), "bad", "AWS counts 1 tables with errors"),
        (seen("running", table("a"), stats={"TablesQueued": 4}), "open", "4 tables that are loading or queued"),
        (seen("running"), "open", "statistics of the tables are unknown"),
        (replace(seen("running"), tables=()), "open", "the task has 0 tables, expected at least 1"),
        (seen("running", table("a"), MigrationType="full-load"), "open", "has not ended yet"),
        (seen("stopped", table("a"), reason="FULL_LOAD_ONLY_FINISHED", MigrationType="full-load"), "good", "1 tables"),
        (seen("stopped", table("a"), reason="STOPPED_AFTER_CACHED_EVENTS"), "good", "1 tables"),
        (seen("stopped", table("a"), reason="FATAL_ERROR"), "bad", "FATAL_ERROR"),
        (seen("stopped", table("a"), reason="a new reason"), "bad", "stopped with Stop Reason a new reason"),
        (seen("stopped", table("a", "Before load"), reason="NORMAL"), "bad", "not completed: shop.a"),
        (seen("failed", LastFailureMessage="no binlog"), "bad", "no binlog"),
        (seen("ready"), "open", "was not started yet"),
        (seen("running", table("a"), MigrationType="cdc"), "bad", "a task of type cdc loads no table"),
    ],
)
def test_loaded(look: Seen, outcome: str, reason: str) -> None:
    after = looked(LOADED, look)
    assert (after.outcome, reason in after.reason) == (outcome, True), after.reason


def test_loaded_with_limits_and_grace() -> None:
    assert looked(LOADED, seen("ready"), second=400).outcome == "bad"
    errors = seen("running", table("a", FullLoadErrorRows=2))
    assert looked(replace(LOADED, max_error_rows=2), errors).outcome == "good"
    assert looked(replace(LOADED, min_tables=2), seen("running", table("a"))).outcome == "open"
    fresh = replace(LOADED, not_before=waits.iso(at(50)))
    assert looked(fresh, seen("running", table("a", started=1))).outcome == "open"
    assert looked(fresh, seen("running", table("a", "Table error", started=1))).outcome == "open"
    assert looked(fresh, seen("running", table("a", started=60))).outcome == "good"


def test_reloaded_needs_a_load_that_began_after_the_call() -> None:
    stale, anew = seen("running", table()), seen("running", table(started=60))
    reloading = seen("running", table(state="Table is being reloaded"))
    assert looked(RELOADED, stale, stale, stale).outcome == "open"
    assert looked(RELOADED, stale, anew).outcome == "good"
    # The statistics tell seconds: a load that began in the second of the one before was seen loading, or says reloaded.
    assert looked(RELOADED, stale, reloading, stale).outcome == "good"
    assert looked(RELOADED, seen("running", table(FullLoadReloaded=True))).outcome == "good"
    failed = looked(RELOADED, reloading, seen("running", table(state="Table error", started=60)))
    assert (failed.outcome, failed.reason) == ("bad", "table shop.orders is in state Table error")


def test_reloaded_takes_no_error_and_no_load_of_before() -> None:
    broken = waits.Reloaded(arn=TASK_ARN, before=(Reloading.of(table(state="Table error")),))
    assert looked(broken, seen("running", table(state="Table error"))).outcome == "open"
    assert looked(broken, seen("running", table(started=60))).outcome == "good"
    loading = waits.Reloaded(
        arn=TASK_ARN, before=(Reloading.of(table(state="Table is being reloaded", FullLoadReloaded=True)),)
    )
    same = table(state="Table is being reloaded", FullLoadReloaded=True)
    assert looked(loading, seen("running", same), seen("running", table(FullLoadReloaded=True))).outcome == "open"
    assert looked(loading, seen("running", table(FullLoadReloaded=True, started=60))).outcome == "good"


def test_reloaded_judges_all_tables_and_the_task() -> None:
    both = waits.Reloaded(arn=TASK_ARN, before=(Reloading.of(table("a")), Reloading.of(table("b"))))
    half = seen("running", table("a", started=60), table("b"))
    assert looked(both, half).reason == "1 of 2 tables are not loaded anew: shop.b"
    ended = looked(both, seen("stopped", *half.tables or (), reason="FATAL_ERROR", LastFailureMessage="no source"))
    assert (ended.outcome, ended.reason) == ("bad", "the task is stopped: no source; not loaded anew: shop.b")
    errors = seen("running", table("a", started=60, FullLoadErrorRows=1), table("b", started=60))
    assert looked(both, errors).outcome == "bad"
    assert looked(replace(both, max_error_rows=1), errors).outcome == "good"


@pytest.mark.parametrize(
    ("look", "outcome"),
    [
        (seen("running", table(ValidationState="Validated")), "good"),
        (seen("running", table(ValidationState="Validated", ValidationPendingRecords=1)), "open"),
        (seen("running", table(ValidationState="Validated", ValidationFailedRecords=1)), "bad"),
        (seen("running", table(ValidationState="Pending records")), "open"),
        (seen("running", table(ValidationState="Preparing table")), "open"),
        (seen("running", table(ValidationState="a new state")), "open"),
        (seen("running", table(ValidationState="Mismatched records")), "bad"),
        (seen("running", table(ValidationState="Suspended records")), "bad"),
        (seen("running", table(ValidationState="No primary key")), "bad"),
        (seen("running", table(ValidationState="Not enabled")), "bad"),
        (seen("running", table(state="Table error", ValidationState="Validated")), "bad"),
        (seen("stopped", table(ValidationState="Pending records")), "bad"),
        (seen("failed", table(ValidationState="Validated")), "bad"),
        (seen("running"), "open"),
    ],
)
def test_validated(look: Seen, outcome: str) -> None:
    assert looked(VALIDATED, look).outcome == outcome


def test_validated_of_some_tables() -> None:
    look = seen("running", table("a", ValidationState="Validated"), table("b", ValidationState="No primary key"))
    assert looked(replace(VALIDATED, tables=("shop.a",)), look).outcome == "good"
    assert looked(replace(VALIDATED, tables=("shop.a", "shop.c")), look).reason.endswith("not validated: shop.c")
    assert looked(replace(VALIDATED, without_key=True), look).outcome == "good"


def points(*values: float, newest: float = 0, every: float = 60) -> Any:
    """Points whose last period ended so many seconds ago."""
    begins = [at(-newest - every * (len(values) - number)) for number in range(len(values))]
    return tuple(zip(begins, values, strict=True))


@pytest.mark.parametrize(
    ("source", "target", "outcome"),
    [
        (points(9, 1, 1), points(1, 2, 5), "good"),
        (points(1, 9), points(1, 1), "open"),
        (points(9, 1), points(1, 1), "open"),
        (points(1, 1), points(1, 6), "open"),
        ((), points(1, 1), "open"),
        (points(1, 1), (), "open"),
        (points(1), points(1, 1), "open"),
        (points(1, 1, newest=301), points(1, 1), "open"),
        (points(1, 1, newest=290), points(1, 1), "good"),
        (points(1, 1, every=120), points(1, 1), "open"),
        (points(1, float("nan")), points(1, 1), "open"),
    ],
)
def test_healthy_by_its_points(source: Any, target: Any, outcome: str) -> None:
    measured = {"CDCLatencySource": source, "CDCLatencyTarget": target}
    after = HEALTHY.judged(seen("running", table()), measured, NOW)
    assert after.outcome == outcome, after.reason


def test_healthy_by_the_task() -> None:
    measured = {name: points(1, 1) for name in ("CDCLatencySource", "CDCLatencyTarget")}
    for look, outcome in (
        (seen("running", table()), "good"),
        (seen("running", table(state="Table error")), "bad"),
        (seen("running", table(state="Full load")), "open"),
        (seen("running"), "open"),
        (seen("stopped", table()), "bad"),
        (seen("ready"), "open"),
        (seen("running", table(), MigrationType="full-load"), "bad"),
    ):
        assert HEALTHY.judged(look, measured, NOW).outcome == outcome
    late = replace(HEALTHY, not_before=waits.iso(at(-90)))
    assert late.judged(seen("running", table()), measured, NOW).outcome == "open"
    with pytest.raises(ValueError, match="min_points=0"):
        replace(HEALTHY, min_points=0)


def probes(*found: tuple[str, str]) -> Any:
    return tuple(
        states.ConnectionTest(arn, INSTANCE_ARN, status, "cannot log in" if status == "failed" else "")
        for arn, status in found
    )


def test_connected_does_not_take_the_result_of_an_older_test() -> None:
    good = probes(("one", "successful"), ("two", "successful"))
    assert CONNECTED.advance(good).outcome == "open"
    assert CONNECTED.advance(good).advance(good).outcome == "good"
    assert CONNECTED.advance(probes(("one", "testing"), ("two", "testing"))).advance(good).outcome == "good"
    half = CONNECTED.advance(good).advance(probes(("one", "successful"), ("two", "testing")))
    assert half.outcome == "open"
    bad = half.advance(probes(("one", "successful"), ("two", "failed")))
    assert (bad.outcome, bad.reason) == ("bad", "endpoint two: cannot log in")
    assert CONNECTED.advance(()).advance(()).outcome == "open"
    assert CONNECTED.advance(good[:1]).advance(good[:1]).outcome == "open"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("starting", "open"), ("provisioning", "open"), ("running", "open"), ("a new word", "open"), ("", "open"),
        ("passed", "good"), ("warning", "good"), ("failed", "bad"), ("error-provisioning", "bad"),
        ("error-executing", "bad"), ("cancelling", "bad"), ("invalid state", "bad"), ("deleting", "bad"),
    ],
)  # fmt: skip
def test_assessed(status: str, outcome: str) -> None:
    row = {"ReplicationTaskAssessmentRunArn": "run", "Status": status, "AssessmentRunName": "before"}
    individual = [{"IndividualAssessmentName": "unsupported-data-types", "Status": "warning"}, {"Status": "passed"}]
    after = ASSESSED.advance(row, individual)
    assert after.outcome == outcome
    assert "unsupported-data-types: warning" in after.reasons


def test_assessed_that_is_gone() -> None:
    wait = ASSESSED
    for _ in range(MISSING_LOOKS):
        wait = wait.advance(None, [])
    assert wait.outcome == "bad"


class Answered(Exception):
    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}


Answered.__module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Answered("ThrottlingException"), "open"),
        (Answered("InternalFailure", 500), "open"),
        (Answered("ServiceUnavailable", 503), "open"),
        (ConnectionResetError("peer"), "open"),
        (TimeoutError(), "open"),
        (Answered("AccessDeniedException"), "bad"),
        (Answered("AccessDeniedFault"), "bad"),
        (Answered("ExpiredTokenException"), "bad"),
        (Answered("InvalidParameterValueException"), "bad"),
    ],
)
@pytest.mark.parametrize("wait", [*OF_TASKS, GONE, CONNECTED, ASSESSED], ids=lambda wait: type(wait).__name__)
def test_a_call_that_fails_for_a_while_ends_no_wait_and_one_that_is_refused_does(
    wait: Any, error: Exception, outcome: str
) -> None:
    class Broken:
        def __getattr__(self, operation: str) -> Any:
            def call(**_: Any) -> Any:
                raise error

            return call

    after = ask(Broken(), wait.looking(NOW))
    assert after.outcome == outcome
    assert replace(after, outcome="open", reasons=wait.reasons) == wait


def test_an_error_of_no_client_is_our_own() -> None:
    class Mistaken:
        def __getattr__(self, operation: str) -> Any:
            raise KeyError("bug")

    with pytest.raises(KeyError):
        ask(Mistaken(), LOADED.looking(NOW))


def test_botocore_errors_without_an_answer() -> None:
    from botocore import exceptions

    assert waits.passes(exceptions.EndpointConnectionError(endpoint_url="x"))
    assert waits.passes(exceptions.ReadTimeoutError(endpoint_url="x"))
    assert waits.passes(exceptions.NoCredentialsError())
    assert not waits.passes(exceptions.ParamValidationError(report="x"))


def test_looking_asks_every_page_and_nothing_once_it_is_over() -> None:
    client = Paged(
        describe_replication_tasks=[task_row(ReplicationTaskStats={"TablesErrored": 0})],
        describe_table_statistics=[table_row(f"t{number}") for number in range(5)],
    )
    after = ask(client, LOADED.looking(NOW))
    assert (after.outcome, after.reason) == ("good", "5 tables are completed")
    assert [name for name, _ in client.calls] == ["describe_replication_tasks"] + ["describe_table_statistics"] * 3
    assert ask(client, after.looking(NOW)) is after
    assert len(client.calls) == 4


def test_a_serverless_replication_is_seen_with_its_capacity() -> None:
    config = {"ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop", "ReplicationType": "cdc"}
    row = {
        "ReplicationConfigArn": CONFIG_ARN, "Status": "stopped", "StopReason": "Stop Reason NORMAL",
        "CdcStopPosition": "commit_time:2026-03-01T03:00:00", "ProvisionData": {"ProvisionState": "deprovisioning"},
    }  # fmt: skip
    client = Paged(describe_replication_configs=[config], describe_replications=[row])
    found = ask(client, waits.seeing(CONFIG_ARN))
    assert (found.task.status, found.holds_capacity, found.stop_at) == ("stopped", True, row["CdcStopPosition"])
    refused = Paged(
        describe_replication_configs=[config],
        describe_replications=[],
        describe_replication_table_statistics=Answered("InvalidResourceStateFault"),
    )
    new = ask(refused, waits.seeing(CONFIG_ARN, tables=True))
    assert (new.task.status, new.tables, new.holds_capacity) == ("ready", None, False)
    assert ask(Paged(), waits.seeing(CONFIG_ARN)).task.status == "missing"


def test_a_document_lists_what_failed_first_and_is_bounded() -> None:
    many = tuple(table(f"t{number:04}") for number in range(TABLES_TOLD + 100))
    told = statistics((*many, table("zzz", "Table error", FullLoadErrorRows=7)))
    assert (told["tables"], len(told["by_table"]), told["by_table"][0]["table"]) == (
        TABLES_TOLD + 101,
        TABLES_TOLD,
        "shop.zzz",
    )
    assert told["states"] == {"Table completed": TABLES_TOLD + 100, "Table error": 1}
    assert told["error_rows"] == 7
