"""The plan: ordered, whole, empty the second time, and nothing of it is carried out while something speaks against it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.dms import decision, endpoints, lint, plan, states
from dbops.dms.mappings import Table
from dbops.dms.plan import Plan, PlanError, World
from dbops.dms.spec import DmsSpec
from dbops.dms.states import ConnectionTest, Endpoint, Instance
from tests.dms.dms_kit import (
    CHECKPOINT,
    DYNAMODB,
    INSTANCE_ARN,
    KINESIS,
    LOG,
    MYSQL,
    MYSQL_TARGET,
    ROLE,
    S3,
    SAFE,
    SELECT_ALL,
    SOURCE_ARN,
    TARGET_ARN,
    TASK_ARN,
    spec,
    table_row,
    task_row,
    validate,
)

SERVERLESS = {"kind": "serverless", "max_dcu": 8}


class Account:
    """DMS as far as a plan needs it: it takes the calls of a plan, refuses what AWS refuses, and answers what it has."""

    def __init__(self, instances: tuple[str, ...] = ("dms-one", "dms-two")) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.instances = tuple(
            Instance(name, INSTANCE_ARN if name == "dms-one" else f"arn:{name}", "available") for name in instances
        )
        self.tests: dict[tuple[str, str], str] = {}
        self.task: dict[str, Any] | None = None
        self.is_serverless = False
        self.checkpoint = ""

    @property
    def world(self) -> World:
        found = tuple(
            states.endpoint({**row, "EndpointArn": f"arn:{name}", "EngineName": row["EngineName"]})
            for name, row in self.endpoints.items()
        )
        tests = tuple(ConnectionTest(*pair, status) for pair, status in self.tests.items())
        return World(self.state, found, self.instances, tests)

    @property
    def state(self) -> states.Task:
        if self.task is None:
            return states.missing("shop-orders")
        if self.is_serverless:
            config = {"ReplicationConfigIdentifier": "shop-orders", "ReplicationConfigArn": TASK_ARN, **self.task}
            return states.serverless(config, self.task)
        return states.task({"ReplicationTaskArn": TASK_ARN, **self.task})

    def carry_out(self, of: DmsSpec, what: Plan) -> None:
        assert not what.is_blocked, what
        for step in what.steps:
            if step.kind == "save_checkpoint":
                self.checkpoint = CHECKPOINT
                continue
            method, arguments = plan.call(step, plan.arns(of, self.world))
            validate(method, arguments)
            getattr(self, method)(**arguments)

    def create_endpoint(self, **given: Any) -> None:
        assert given["EndpointIdentifier"] not in self.endpoints
        self.endpoints[given["EndpointIdentifier"]] = given

    def modify_endpoint(self, EndpointArn: str, **given: Any) -> None:
        assert self.task is None or self.task["Status"] != "running"
        self.endpoints[given["EndpointIdentifier"]].update(given)

    def test_connection(self, ReplicationInstanceArn: str, EndpointArn: str) -> None:
        self.tests[EndpointArn, ReplicationInstanceArn] = "successful"

    def create_replication_task(self, **given: Any) -> None:
        assert self.task is None
        expanded = {"Extra": {"AWS": "adds"}, **json.loads(given["ReplicationTaskSettings"])}
        self.task = {**given, "Status": "ready", "ReplicationTaskSettings": json.dumps(expanded, indent=2)}

    def create_replication_config(self, **given: Any) -> None:
        self.task, self.is_serverless = {**given, "Status": "created"}, True

    def modify_replication_task(self, **given: Any) -> None:
        assert self.task is not None
        assert self.task["Status"] in ("ready", "stopped", "failed")
        self.task.update({key: value for key, value in given.items() if not key.endswith("TaskArn")})

    modify_replication_config = modify_replication_task

    def move_replication_task(self, ReplicationTaskArn: str, TargetReplicationInstanceArn: str) -> None:
        assert self.task is not None
        assert self.task["Status"] in ("stopped", "failed")
        self.task["ReplicationInstanceArn"] = TargetReplicationInstanceArn

    def stop_replication_task(self, **_: Any) -> None:
        assert self.task is not None
        assert self.task["Status"] == "running"
        self.task |= {"Status": "stopped", "StopReason": "Stop Reason NORMAL"}

    stop_replication = stop_replication_task

    def start_replication_task(self, **given: Any) -> None:
        assert self.task is not None
        kind = given.get("StartReplicationTaskType") or given["StartReplicationType"]
        stats = "ReplicationStats" if self.is_serverless else "ReplicationTaskStats"
        assert self.task["Status"] in ("ready", "created", "stopped", "failed")
        assert (kind == "start-replication") is (stats not in self.task)
        now = datetime(2026, 3, 1, tzinfo=UTC)
        self.task |= {"Status": "running", "StopReason": "", "RecoveryCheckpoint": CHECKPOINT, "last_start": given}
        self.task[stats] = {"TablesErrored": 0, "FreshStartDate": now, "FullLoadFinishDate": now}

    start_replication = start_replication_task

    def start_replication_task_assessment_run(self, **_: Any) -> None:
        assert self.task is not None
        assert self.task["Status"] == "ready"

    def reload_tables(self, **given: Any) -> None:
        assert self.task is not None
        assert self.task["Status"] == "running"
        assert 1 <= len(given["TablesToReload"]) <= 10


def make(of: DmsSpec, account: Account | World, *rows: dict[str, Any], **more: Any) -> Plan:
    world = account.world if isinstance(account, Account) else account
    seen = [states.table_statistics(row) for row in rows or [table_row()]]
    of_plan = {key: more.pop(key) for key in ("tables", "findings", "is_assessed") if key in more}
    start_at = more.pop("start_at", of.cdc_start or "")
    known = decision.known(
        world.task, of.task_type, wanted_stopped=of.wanted == "stopped", statistics=seen, logs=[LOG],
        start_at=start_at, empties=of.protected and lint.empties_target(of), **more,
    )  # fmt: skip
    return plan.make(of, world, known, start_at=start_at, **of_plan)


def kinds(what: Plan) -> list[str]:
    return [step.kind for step in what.steps]


def running(of: DmsSpec) -> Account:
    account = Account()
    account.carry_out(of, make(of, account, approved=True))
    return account


FIRST = ["create_endpoint", "create_endpoint", "test_connection", "test_connection", "create_task", "start_task"]


@pytest.mark.parametrize("target", [MYSQL_TARGET, DYNAMODB, KINESIS, S3])
@pytest.mark.parametrize("task_type", ["full-load", "cdc", "full-load-and-cdc"])
def test_the_first_plan_makes_everything_and_the_second_is_empty(target: dict[str, Any], task_type: str) -> None:
    of, account = spec(target=target, task_type=task_type), Account()
    first = make(of, account)
    assert kinds(first) == FIRST
    account.carry_out(of, first)
    assert make(of, account).is_empty
    assert make(of, account).notes == ()


def test_a_serverless_replication_tests_its_connections_itself() -> None:
    of, account = spec(compute=SERVERLESS), Account(())
    first = make(of, account)
    assert [step.method for step in first.steps] == [
        "create_endpoint",
        "create_endpoint",
        "create_replication_config",
        "start_replication",
    ]
    account.carry_out(of, first)
    assert make(of, account).is_empty
    more = make(spec(compute={**SERVERLESS, "max_dcu": 16}), account, approved=True)
    assert kinds(more) == ["save_checkpoint", "stop_task", "modify_task", "start_task"]
    account.carry_out(of, more)
    assert make(spec(compute={**SERVERLESS, "max_dcu": 16}), account).is_empty


def test_a_change_stops_a_running_task_and_resumes_it() -> None:
    account = running(spec())
    other = spec(settings={**SAFE, "Logging": {"EnableLogging": False}}, mappings=[SELECT_ALL, {
        **SELECT_ALL, "rule-id": "2", "rule-name": "2", "rule-action": "exclude",
        "object-locator": {"schema-name": "shop", "table-name": "tmp%"}}])  # fmt: skip
    asked = make(other, account)
    assert asked.approvals == (
        "stopping the running task needs an approval, because the spec declares the task as protected",
    )
    assert not asked.refusals
    changed = make(other, account, approved=True)
    assert kinds(changed) == ["save_checkpoint", "stop_task", "modify_task", "start_task"]
    assert "Logging.EnableLogging becomes false, was true" in changed.steps[2].why
    assert "rule 2 is added" in changed.steps[2].why
    assert changed.digest == make(other, account, approved=True).digest != make(spec(), account).digest
    account.carry_out(other, changed)
    assert account.checkpoint == CHECKPOINT
    assert account.task is not None
    assert account.task["last_start"]["StartReplicationTaskType"] == "resume-processing"
    assert json.loads(account.task["ReplicationTaskSettings"])["Extra"] == {"AWS": "adds"}
    assert make(other, account).is_empty


def test_a_change_waits_for_a_load() -> None:
    account = running(spec())
    what = make(
        spec(settings={}, protected=False, mappings=[{**SELECT_ALL, "rule-id": "7"}]),
        account,
        table_row(state="Full load"),
    )
    assert what.steps == ()
    assert "loads tables; when that has ended" in what.notes[0]


def test_a_move_and_an_endpoint_that_changes() -> None:
    account = running(spec())
    moved = spec(compute={"kind": "instance", "identifier": "DMS-two"}, protected=False)
    what = make(moved, account)
    assert kinds(what) == ["save_checkpoint", "stop_task", "move_task", "start_task"]
    account.carry_out(moved, what)
    assert make(moved, account).is_empty
    other = spec(
        compute={"kind": "instance", "identifier": "dms-two"},
        protected=False,
        source={**MYSQL, "ssl_mode": "verify-ca"},
    )
    what = make(other, account)
    assert kinds(what) == ["save_checkpoint", "stop_task", "modify_endpoint", "test_connection", "start_task"]
    assert 'SslMode becomes "verify-ca", was "require"' in what.steps[2].why
    account.carry_out(other, what)
    assert make(other, account).is_empty
    fresh = Account()
    fresh.carry_out(spec(wanted="stopped"), make(spec(wanted="stopped"), fresh))
    assert "cannot be moved" in make(moved, fresh).refusals[0]


def test_what_the_spec_wants_stopped_is_made_and_not_started_and_stopped_when_it_runs() -> None:
    of, account = spec(wanted="stopped"), Account()
    first = make(of, account)
    assert kinds(first) == FIRST[:-1]
    account.carry_out(of, first)
    assert make(of, account).is_empty
    account = running(spec())
    assert make(of, account).is_blocked
    what = make(of, account, approved=True)
    assert kinds(what) == ["save_checkpoint", "stop_task"]
    account.carry_out(of, what)
    assert make(of, account).is_empty
    assert kinds(make(spec(), account)) == ["start_task"]


def test_reload_in_batches_of_ten() -> None:
    of = spec(protected=False)
    account = running(of)
    failed = [table_row(f"t{n:02}", "Table error") for n in range(23)]
    tables = [Table("shop", f"t{n:02}") for n in range(23)]
    what = make(of, account, *failed, tables=tables)
    assert [len(step.arguments["TablesToReload"]) for step in what.steps] == [10, 10, 3]
    account.carry_out(of, what)
    assert "no table is named" in make(of, account, *failed).refusals[0]


def test_a_whole_new_load_of_a_running_task_stops_it_first() -> None:
    of = spec()
    account = running(of)
    asked = make(of, account, wish="reload_target")
    assert any("approve reload_target" in text for text in asked.approvals)
    what = make(of, account, wish="reload_target", approved=True)
    assert kinds(what) == ["save_checkpoint", "stop_task", "start_task"]
    assert what.steps[-1].is_disruptive
    assert what.steps[-1].arguments["StartReplicationTaskType"] == "reload-target"
    account.carry_out(of, what)


def test_a_first_start_of_changes_goes_to_its_position_and_an_assessment_comes_first() -> None:
    of = spec(task_type="cdc", cdc_start=f"{LOG}:373", assessment={"bucket": "results", "role_arn": ROLE})
    account = Account()
    what = make(of, account)
    assert kinds(what) == [*FIRST[:-1], "assess", "start_task"]
    assert what.steps[-1].arguments == {
        "ReplicationTaskArn": plan.TASK, "StartReplicationTaskType": "start-replication", "CdcStartPosition": f"{LOG}:373",
    }  # fmt: skip
    assert "assess" not in kinds(make(of, account, is_assessed=True))
    account.carry_out(of, what)
    assert make(of, account).is_empty


def test_a_start_over_a_target_that_is_emptied_is_asked_for() -> None:
    of, account = spec(settings={**SAFE, "FullLoadSettings": {"TargetTablePrepMode": "DROP_AND_CREATE"}}), Account()
    what = make(of, account)
    assert what.approvals
    assert not what.refusals
    assert kinds(make(of, account, approved=True)) == FIRST
    assert kinds(make(spec(settings=of.settings, protected=False), account)) == FIRST


def test_what_cannot_be_changed_is_refused() -> None:
    account = running(spec())
    refused = make(spec(task_type="cdc"), account)
    assert "the type of the task is full-load-and-cdc, declared is cdc" in refused.refusals[0]
    refused = make(spec(target=DYNAMODB), account)
    assert any("the target endpoint of the task is" in text for text in refused.refusals)
    refused = make(spec(target={**KINESIS, "identifier": "shop-green"}), account)
    assert any("AWS changes that at no endpoint" in text for text in refused.refusals)
    refused = make(spec(compute={"kind": "instance", "identifier": "none"}), Account())
    assert any("does not exist; make it" in text for text in refused.refusals)
    findings = lint.lint(spec(settings={}))
    assert any("truncation-silent" in text for text in make(spec(), Account(), findings=findings).refusals)


def test_endpoints_that_exist_are_read_only() -> None:
    existing = {"kind": "existing", "arn": SOURCE_ARN, "engine": "mysql"}
    of = spec(source=existing, target={"kind": "existing", "arn": TARGET_ARN, "engine": "kinesis"})
    world = World(states.missing("x"), (
        Endpoint("a", SOURCE_ARN, "source", "mysql"), Endpoint("b", TARGET_ARN, "target", "kinesis")), Account().instances)  # fmt: skip
    assert kinds(make(of, world)) == ["test_connection", "test_connection", "create_task", "start_task"]
    swapped = replace(world, endpoints=(Endpoint("a", SOURCE_ARN, "source", "oracle"),))
    assert [
        "is a source of engine oracle" in text or "does not exist" in text for text in make(of, swapped).refusals
    ] == [True, True]


def test_the_right_one_of_several_endpoints_is_looked_at() -> None:
    existing = {"kind": "existing", "arn": SOURCE_ARN, "engine": "mysql"}
    of = spec(source=existing, target={"kind": "existing", "arn": TARGET_ARN, "engine": "kinesis"})
    found = (
        Endpoint("b", TARGET_ARN, "target", "kinesis"),
        Endpoint("x", "arn:x", "target", "s3"),
        Endpoint("a", SOURCE_ARN, "source", "mysql"),
    )
    world = World(states.missing("x"), found, Account().instances)
    assert not make(of, world).is_blocked
    (refusal,) = make(of, replace(world, endpoints=found[:2])).refusals
    assert refusal == f"source: endpoint {SOURCE_ARN} does not exist; correct its ARN"
    (refusal,) = make(of, replace(world, endpoints=(replace(found[0], side="source"), *found[1:]))).refusals
    assert "b is a source of engine kinesis, not a target" in refusal


def test_a_connection_is_tested_again_until_it_is_good() -> None:
    of, account = spec(wanted="stopped"), Account()
    account.carry_out(of, make(of, account))
    source = next(pair for pair in account.tests if pair[0] == "arn:shop-blue")
    account.tests = {("arn:other", source[1]): "failed", **account.tests, source: "failed"}
    what = make(spec(), account)
    assert [(step.kind, step.subject) for step in what.steps] == [
        ("test_connection", "source"),
        ("start_task", "shop-orders"),
    ]
    assert what.steps[0].why == "the last test was failed"
    assert make(of, account).is_empty  # nothing starts, so nothing is tested
    account.tests = {}
    assert [step.why for step in make(spec(), account).steps[:2]] == ["it was never tested"] * 2


def test_only_what_differs_is_sent() -> None:
    account = running(spec(protected=False))
    logged = make(spec(protected=False, settings={**SAFE, "Logging": {"EnableLogging": False}}), account)
    assert logged.steps[2].arguments.keys() == {"ReplicationTaskArn", "ReplicationTaskSettings"}
    mapped = make(spec(protected=False, mappings=[{**SELECT_ALL, "rule-id": "5"}]), account)
    assert mapped.steps[2].arguments.keys() == {"ReplicationTaskArn", "TableMappings"}
    assert mapped.steps[3].arguments.keys() == {"ReplicationTaskArn", "StartReplicationTaskType"}
    compute = {**SERVERLESS, "subnet_group": "private", "security_groups": ["sg-2", "sg-1"]}
    serverless = Account(())
    serverless.carry_out(spec(compute=compute), make(spec(compute=compute), serverless))
    assert serverless.task is not None
    assert serverless.task["ComputeConfig"] == {
        "MinCapacityUnits": 1, "MaxCapacityUnits": 8, "MultiAZ": False, "ReplicationSubnetGroupId": "private",
        "VpcSecurityGroupIds": ["sg-1", "sg-2"],
    }  # fmt: skip
    serverless.task["ComputeConfig"]["KmsKeyId"] = "arn:key"
    serverless.task["ComputeConfig"]["VpcSecurityGroupIds"] = ["sg-2", "sg-1"]
    assert make(spec(compute=compute), serverless).is_empty
    larger = make(spec(compute={**compute, "max_dcu": 16}, protected=False), serverless)
    assert larger.steps[2].arguments.keys() == {"ReplicationConfigArn", "ComputeConfig"}
    assert larger.steps[2].arguments["ComputeConfig"]["KmsKeyId"] == "arn:key"
    logged = make(spec(compute=compute, settings={"Logging": {"EnableLogging": False}}, protected=False), serverless)
    assert logged.steps[2].arguments.keys() == {"ReplicationConfigArn", "ReplicationSettings"}
    assert make(
        spec(compute=compute), serverless, tables=[Table("shop", "orders")]
    ).is_empty  # named, but nothing is to be reloaded
    assert (
        "VpcSecurityGroupIds" not in (make(spec(compute=SERVERLESS), Account(())).steps[2].arguments["ComputeConfig"])
    )


def test_a_refusal_is_no_question_for_an_approval_and_a_warning_is_no_refusal() -> None:
    account = running(spec())
    assert account.task is not None
    account.task["ReplicationTaskStats"]["TablesErrored"] = None
    what = make(spec(), account)
    assert (len(what.refusals), what.approvals, what.steps) == (1, (), ())
    warned = lint.lint(spec())
    assert warned
    assert not any(one.stops for one in warned)
    assert not make(spec(), Account(), findings=warned).is_blocked
    account.task |= {"Status": "stopped", "StopReason": "Stop Reason NORMAL"}
    resumed = make(spec(), account, start_at="mysql-bin.000002:4")
    assert "CdcStartPosition" not in resumed.steps[-1].arguments


def test_an_instance_that_is_not_available_stops_only_what_changes() -> None:
    account = running(spec())
    account.instances = (replace(account.instances[0], status="modifying"),)
    assert make(spec(), account).is_empty
    assert make(spec(), account).notes == ("compute: replication instance dms-one is modifying, not available",)
    assert make(spec(wanted="stopped"), account, approved=True).refusals == make(spec(), account).notes


def test_a_passing_status_is_waited_for() -> None:
    account = running(spec())
    assert account.task is not None
    account.task["Status"] = "modifying"
    what = make(spec(settings={}), account)
    assert (what.decision.action, what.steps, what.is_blocked) == ("wait", (), False)
    assert "passes by itself" in what.notes[0]


def test_stop_drain_and_delete() -> None:
    of, task = spec(), states.task(task_row())
    assert kinds(plan.stop(of, task, is_approved=True)) == ["save_checkpoint", "stop_task"]
    assert plan.stop(of, task, is_approved=False).approvals
    assert not plan.stop(spec(protected=False), task, is_approved=False).is_blocked
    drained = plan.stop(of, task, is_approved=True, drain_at=datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert kinds(drained) == ["save_checkpoint", "stop_task", "start_task"]
    assert drained.steps[-1].arguments["CdcStopPosition"] == "commit_time:2026-03-01T12:00:00"
    stopped = states.task(task_row(Status="stopped"))
    assert plan.stop(of, stopped, is_approved=True).is_empty
    assert plan.stop(of, states.task(task_row(Status="stopping")), is_approved=True).refusals
    assert plan.stop(of, stopped, is_approved=True, drain_at=datetime.now(UTC)).is_blocked
    assert plan.stop(spec(task_type="full-load"), task, is_approved=True, drain_at=datetime.now(UTC)).refusals
    assert kinds(plan.delete(of, stopped, is_approved=True)) == ["save_checkpoint", "delete_task"]
    assert plan.delete(of, stopped, is_approved=False).approvals
    assert plan.delete(of, task, is_approved=True).refusals
    assert plan.delete(of, states.missing("x"), is_approved=True).is_empty


def test_a_step_without_its_arn_is_no_call() -> None:
    step = make(spec(), Account()).steps[-1]
    with pytest.raises(PlanError, match="ARN of task"):
        plan.call(step, {})
    method, arguments = plan.call(
        plan.delete(spec(), states.task(task_row(Status="stopped")), is_approved=True).steps[1], {plan.TASK: "x"}
    )
    validate(method, arguments)
    with pytest.raises(PlanError, match="no call"):
        plan.call(plan.stop(spec(), states.task(task_row()), is_approved=True).steps[0], {})


def test_no_secret_is_in_a_plan() -> None:
    shown = json.dumps([step.arguments for step in make(spec(), Account()).steps])
    assert "Password" not in shown
    assert MYSQL["secret_arn"] in shown


def test_endpoints_are_compared_as_aws_answers_them() -> None:
    of = spec(target=KINESIS)
    assert of.target.kind == "kinesis"
    row = {**endpoints.arguments(of.target, "target"), "EndpointType": "TARGET"}
    row["KinesisSettings"] = {**row["KinesisSettings"], "MessageFormat": "JSON_UNFORMATTED"}
    assert endpoints.diff(of.target, "target", states.endpoint(row)) == ()
    row["KinesisSettings"].pop("UseLargeIntegerValue")
    (change,) = endpoints.diff(of.target, "target", states.endpoint(row))
    assert str(change) == "UseLargeIntegerValue becomes true, was not set"
    off = spec(target={**KINESIS, "use_large_integer_value": False}).target
    assert off.kind == "kinesis"
    assert endpoints.diff(off, "target", states.endpoint(row)) == ()


GROUPS = st.fixed_dictionaries({}, optional={
    "Logging": st.fixed_dictionaries({"EnableLogging": st.booleans()}),
    "TargetMetadata": st.fixed_dictionaries({"LobMaxSize": st.integers(1, 99)}),
})  # fmt: skip
SPECS = st.fixed_dictionaries({
    "settings": GROUPS, "wanted": st.sampled_from(["running", "stopped"]), "task_type": st.just("cdc"),
    "compute": st.sampled_from([{"kind": "instance", "identifier": name} for name in ("dms-one", "dms-two")]),
    "source": st.sampled_from([MYSQL, {**MYSQL, "ssl_mode": "none"}]),
    "mappings": st.sampled_from([[SELECT_ALL], [{**SELECT_ALL, "rule-id": "5"}]]),
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(SPECS, min_size=1, max_size=4))
def test_whatever_is_declared_one_after_the_other_the_second_plan_is_empty(declared: list[dict[str, Any]]) -> None:
    account = Account()
    for more in declared:
        of = spec(**more)
        what = make(of, account, approved=True)
        if what.refusals:
            assert "cannot be moved" in what.refusals[0]
            continue
        account.carry_out(of, what)
        again = make(of, account)
        assert again.is_empty, (again, what)
        assert account.task is not None
        assert (account.task["Status"] == "running") is (of.wanted == "running")
