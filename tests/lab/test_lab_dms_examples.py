"""The example specs run in the lab as they are: planned from nothing, carried out, loaded, and followed by a change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from dbops import connections, specs
from dbops.dms import decision, lint, plan, states
from dbops.dms.spec import DmsSpec
from lab import aws, examples, seed
from tests.dms import dms_kit

pytestmark = pytest.mark.lab
WAIT_S = 120


@pytest.fixture(scope="module")
def account(lab_is_up: None) -> Any:
    seed.seed("mysql57", 1000)
    examples.provision()
    examples.provision()
    return aws.client("dms")


@pytest.fixture(params=["fleet_mysql80", "rides_dynamodb", "rides_kinesis"])
def spec(request: pytest.FixtureRequest, account: Any) -> Iterator[DmsSpec]:
    loaded = specs.load("dms", request.param, DmsSpec)
    remove(account, loaded)
    yield loaded
    remove(account, loaded)


def ask(account: Any, question: Any) -> Any:
    return dms_kit.ask(account, question)


def task(account: Any, spec: DmsSpec) -> states.Task:
    return ask(account, states.one_task(spec.task_identifier))


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.2)
    return found


def remove(account: Any, spec: DmsSpec) -> None:
    """The task; endpoints stay, others may use them."""
    held = task(account, spec)
    if held.status == "running":
        account.stop_replication_task(ReplicationTaskArn=held.arn)
        until(lambda: task(account, spec).status in ("stopped", "failed"))
    if held.status != "missing":
        account.delete_replication_task(ReplicationTaskArn=held.arn)
        until(lambda: task(account, spec).status == "missing")


def planned(account: Any, spec: DmsSpec) -> tuple[plan.Plan, plan.World]:
    held = task(account, spec)
    world = plan.World(
        held,
        ask(account, states.endpoints()),
        ask(account, states.instances()),
        ask(account, states.connection_tests()),
    )
    statistics = None if held.status == "missing" else ask(account, states.statistics(held))
    known = decision.known(
        held, spec.task_type, statistics=statistics, logs=None, empties=spec.protected and lint.empties_target(spec)
    )
    return plan.make(spec, world, known, findings=lint.lint(spec)), world


def carry_out(account: Any, spec: DmsSpec, made: plan.Plan) -> None:
    for step in made.steps:
        _, world = planned(account, spec)
        method, arguments = plan.call(step, plan.arns(spec, world))
        getattr(account, method)(**arguments)
        if step.kind == "test_connection":
            until(lambda: all(one.status != "testing" for one in ask(account, states.connection_tests())))
        if step.kind in ("create_task", "assess"):
            until(lambda: task(account, spec).status == "ready")


def test_an_example_is_made_loads_follows_changes_and_needs_nothing_more(account: Any, spec: DmsSpec) -> None:
    made, _ = planned(account, spec)
    assert not made.is_blocked, (made.refusals, made.approvals)
    carry_out(account, spec, made)
    until(lambda: task(account, spec).status in ("running", "failed", "stopped"))

    def statistics() -> dict[str, states.TableStatistics]:
        held = task(account, spec)
        assert held.status == "running", (held.raw_stop_reason, held.failure)
        return {one.table.name: one for one in ask(account, states.statistics(held))}

    until(lambda: statistics() and all(one.state == "Table completed" for one in statistics().values()))
    canary = spec.canary
    assert canary is not None
    assert statistics()[canary.table].applied_inserts == statistics()[canary.table].applied_updates == 0
    with closing(connections.mysql(spec.connection)) as source, source.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO `{canary.schema_name}`.`{canary.table}` VALUES (1, UUID(), UTC_TIMESTAMP(6)) "
            "ON DUPLICATE KEY UPDATE token = UUID(), written_at = UTC_TIMESTAMP(6)"
        )
    until(lambda: statistics()[canary.table].inserts + statistics()[canary.table].updates == 1)
    again, _ = planned(account, spec)
    assert again.is_empty, [*map(str, again.steps), *again.refusals, *again.approvals]
