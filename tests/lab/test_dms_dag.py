"""dms_task_control and dms_task_watch as Airflow runs them: three targets, a source that is always written to, and deaths."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest
from conftest import ROOT

from dbops import connections
from dbops.dms.ledger import Ledger
from dbops.store import Store
from lab import aws, config, env, mysql
from tests.lab import approval_kit, dms_stage, worker
from tests.lab.dms_stage import SPECS, KillAfter, World

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def world(lab_is_up: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.environment().items():
            if name.startswith("AIRFLOW_CONN_"):
                patch.setenv(name, value)
        with dms_stage.world(tmp_path_factory.mktemp("dms")) as made:
            yield made


@dataclass
class Stage:
    """Runs of the DAGs in the world, and what they called and said."""

    world: World
    run_dag: Callable[..., Any]
    said: pytest.LogCaptureFixture
    output: pytest.CaptureFixture[str]
    topic: str
    queue: str
    sqs: Any
    calls: list[str] = field(default_factory=list)
    """Operations of DMS that change something, by this process."""

    def run(self, dag_id: str, conf: dict[str, Any], at: datetime | None = None, **arguments: Any) -> Any:
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(ROOT / "dags" / f"{dag_id}.py"))
        assert not bag.import_errors
        self.calls.clear()
        self.said.clear()
        return self.run_dag(bag.dags[dag_id], run_conf=conf, logical_date=at, run_after=at, **arguments)

    def control(self, spec: str, action: str = "ensure", at: datetime | None = None, **more: Any) -> Any:
        arguments = {key: more.pop(key) for key in ("mark_success_pattern",) if key in more}
        return self.run("dms_task_control", conf(spec, action, **more), at, **arguments)

    def watch(self) -> Any:
        return self.run("dms_task_watch", {})

    def bring_up(self, spec: str) -> None:
        """Make the task where no test before has."""
        if self.world.task(spec).status != "running":
            run = self.control(spec, "start")
            assert str(run.state) == "success", states(run)

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(connections.engine(connections.STORE))

    def plan(self, run: Any, spec: str) -> dict[str, Any]:
        found = self.ledger.plan(f"{run.dag_id}/{run.run_id}", spec)
        assert found is not None
        return found

    def verdict(self, run: Any, spec: str) -> str:
        """What the run found of a task's health."""
        label = f"{run.dag_id}/{run.run_id}"
        (found,) = [one for one in self.ledger.events(spec, 200) if one.run == label and one.kind == "health"]
        return found.reason.partition(":")[0]

    def report(self, run: Any, spec: str) -> Any:
        """The run's report."""
        found = Store.open().latest(run.dag_id, spec)
        assert found is not None
        assert found.document["run_id"] == run.run_id
        return found

    def said_and_printed(self) -> list[str]:
        """What the last run logged, a line each."""
        return "".join(self.output.readouterr()).splitlines() + self.said.text.splitlines()

    def alerts(self) -> list[dict[str, Any]]:
        """Messages that came since the last look."""
        found: list[dict[str, Any]] = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found


def conf(spec: str, action: str = "ensure", **more: Any) -> dict[str, Any]:
    return {"spec": spec, "action": action, "dry_run": False, **more}


def states(run: Any) -> dict[str, str]:
    """{task: state}, worst first where it is mapped."""
    found: dict[str, str] = {}
    for ti in run.get_task_instances():
        if found.get(ti.task_id) != "failed":
            found[ti.task_id] = str(ti.state)
    return found


@pytest.fixture
def stage(
    world: World, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Stage]:  # fmt: skip
    from botocore.client import BaseClient

    sns, sqs, name = aws.client("sns"), aws.client("sqs"), "dms-dag-tests"
    topic, queue = sns.create_topic(Name=name)["TopicArn"], sqs.create_queue(QueueName=name)["QueueUrl"]
    sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{config.AWS_REGION}:{config.AWS_ACCOUNT}:{name}"
    )
    connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    connection["extra"]["dbops_sns_topic_arn"] = topic
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(world.folder))
    monkeypatch.setenv("DBOPS_POLL_S", "0.3")
    made = Stage(world, run_dag, caplog, capfd, topic, queue, sqs)
    made.alerts()
    original = BaseClient._make_api_call  # type: ignore[attr-defined]

    def make(client: Any, operation: str, arguments: Any) -> Any:
        if (
            client is not world.dms
            and client.meta.service_model.service_name == "dms"
            and not operation.startswith("Describe")
        ):
            made.calls.append(operation)
        return original(client, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", make)
    yield made
    assert world.application.failure is None, world.application.failure


def killed(stage: Stage, spec: str, kill: Any, at: datetime) -> None:
    """Run ensure in a process of its own, which dies."""
    environment = {name: os.environ[name] for name in ("DBOPS_SPECS_DIR", "DBOPS_POLL_S", "AIRFLOW_CONN_AWS_DEFAULT")}
    process = worker.start(dms_stage.run_in_worker, "dms_task_control", conf(spec), at, environment, kill=kill)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, process.exitcode


def test_a_dry_run_looks_and_calls_nothing(stage: Stage) -> None:
    run = stage.control("rides_dynamodb", dry_run=True)
    assert str(run.state) == "success", states(run)
    assert stage.calls == []
    assert stage.world.task("rides_dynamodb").status == "missing"
    planned = [step["kind"] for step in stage.plan(run, "rides_dynamodb")["steps"]]
    assert planned[-1] == "start_task"
    assert "create_task" in planned
    report = stage.report(run, "rides_dynamodb")
    assert report.verdict == "DRY_RUN"


def test_a_run_that_is_killed_goes_on_under_its_own_name_and_makes_nothing_twice(stage: Stage) -> None:
    spec, at = "rides_dynamodb", datetime.now(UTC)
    killed(stage, spec, KillAfter("CreateReplicationTask"), at)
    arn = stage.world.task(spec).arn
    run = stage.control(spec, at=at)
    assert str(run.state) == "success", states(run)
    assert "StartReplicationTask" in stage.calls
    assert "CreateReplicationTask" not in stage.calls
    assert stage.world.task(spec).arn == arn
    waits = [record for record in stage.said_and_printed() if "Pausing task as DEFERRED" in record]
    assert {name for name in ("carry_out", "health") for one in waits if f"task_id={name}" in one} == {
        "carry_out",
        "health",
    }
    report = stage.report(run, spec)
    assert report.verdict == "OK"


def test_another_run_takes_over_from_a_killed_one_once_airflow_says_that_it_is_over(stage: Stage) -> None:
    spec, at = "fleet_mysql80", datetime.now(UTC)
    killed(stage, spec, KillAfter("StartReplicationTask"), at)
    dead = f"dms_task_control/manual__{at.isoformat()}"
    run = stage.control(spec)
    assert (str(run.state), states(run)["look"], stage.calls) == ("failed", "failed", [])
    said = next(alert["Message"] for alert in stage.alerts() if "look" in alert["Subject"])
    assert f"is being worked on by {dead} until" in said
    assert "mark it as failed" in said
    end(dead)
    run = stage.control(spec)
    assert str(run.state) == "success", states(run)
    assert stage.calls == []
    assert stage.world.task(spec).status == "running"
    assert stage.report(run, spec).verdict == "OK"


def end(run: str) -> None:
    """Mark a run as failed, as a person does in the grid."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagRun).filter_by(run_id=run.partition("/")[2]).update({"state": "failed"})


def test_a_run_that_is_killed_while_it_waits_in_the_triggerer_goes_on(stage: Stage) -> None:
    spec, at = "rides_kinesis", datetime.now(UTC)
    killed(stage, spec, worker.Kill("dbops.dms.triggers:DmsStepTrigger.look", "before"), at)
    run = stage.control(spec, at=at)
    assert str(run.state) == "success", states(run)
    assert stage.world.task(spec).status == "running"
    assert stage.report(run, spec).verdict == "OK"


def test_tasks_that_died_and_a_source_that_restarts_are_brought_back(stage: Stage) -> None:
    world, ended = stage.world, "fleet_mysql80"
    for spec in SPECS:
        stage.bring_up(spec)
    for spec in ("rides_dynamodb", "rides_kinesis"):  # DMS goes on with them by itself
        os.kill(world.pid(spec), signal.SIGKILL)
    mysql.execute("mysql57", ["FLUSH BINARY LOGS"])
    with world.fault(stop_reason={"fleet-mysql80": "RECOVERABLE_ERROR"}):
        world.until(lambda: world.task(ended).status in ("failed", "stopped"), f"the end of {ended}")
    run = stage.watch()
    assert str(run.state) == "success", states(run)
    assert stage.plan(run, ended)["decision"]["action"] == "resume"
    assert stage.calls == ["StartReplicationTask"]
    before = {spec: world.task(spec).started_at for spec in SPECS}
    world.restart_source()
    mysql.execute("mysql57", ["FLUSH BINARY LOGS"])
    writes = world.application.done
    world.until(lambda: world.application.failure or world.application.done > writes + 20, "the application goes on")
    # The runs of the next test prove by a canary that each follows changes again.
    world.until(lambda: all(world.task(spec).status == "running" for spec in SPECS), "all run")
    assert {spec: world.task(spec).started_at for spec in SPECS} == before


@pytest.mark.parametrize("spec", SPECS)
def test_the_second_plan_is_empty(stage: Stage, spec: str) -> None:
    stage.bring_up(spec)
    run = stage.control(spec)
    assert str(run.state) == "success", states(run)
    plan = stage.plan(run, spec)
    assert [plan[key] for key in ("steps", "refusals", "approvals")] == [[], [], []]
    assert plan["decision"]["action"] == "none"
    assert stage.calls == []
    report = stage.report(run, spec)
    assert report.verdict == "OK"
    assert any("canary" in str(section) for section in report.document["sections"])


def test_the_watch_reloads_alerts_once_and_goes_on_with_the_others(stage: Stage) -> None:
    world, bad, refused = stage.world, "rides_dynamodb", dms_stage.REFUSED
    for spec in SPECS:
        stage.bring_up(spec)
    world.spec(refused, of=bad, connection="nowhere")
    try:
        with world.fault(table_error={"rides-dynamodb": ["carshare.rides"]}):
            world.until(lambda: world.tables(bad)["rides"].is_failed, "the failure of the table")
            first, calls = stage.watch(), [*stage.calls]
            alerts = [alert["Message"] for alert in stage.alerts()]
            second = stage.watch()
    finally:
        (world.folder / "dms" / f"{refused}.yaml").unlink()
    assert (str(first.state), calls) == ("failed", ["ReloadTables"])
    (said,) = [text for text in alerts if "table carshare.rides is in state Table error" in text]
    assert "Target:           DMS task rides-dynamodb" in said
    assert "Safe to do now:   Read the report" in said
    (said,) = [text for text in alerts if "connection 'nowhere' is not defined" in text]
    assert "Target:           DMS task rides-refused" in said
    for spec in ("rides_kinesis", "fleet_mysql80"):
        assert stage.verdict(first, spec) == "healthy"
    assert (str(second.state), stage.calls, stage.alerts()) == ("success", ["ReloadTables"], []), states(second)

    third = stage.watch()
    assert (str(third.state), stage.calls, stage.alerts()) == ("success", ["ReloadTables"], []), states(third)
    assert stage.verdict(third, bad) == "healthy"
    assert {one.state for one in world.tables(bad).values()} == {"Table completed"}


# dag.test() waits for an answer for ever.
@pytest.mark.timeout(400, method="signal")
def test_reload_target_is_done_with_an_approval_only(stage: Stage) -> None:
    spec, world = "rides_dynamodb", stage.world
    stage.bring_up(spec)
    begun = world.tables(spec)["rides"].load_started_at
    run = stage.control(spec, "reload_target", confirm=spec, mark_success_pattern="approve")
    assert states(run)["carry_out"] == "failed"
    assert stage.calls == []
    assert world.tables(spec)["rides"].load_started_at == begun
    heard: list[Any] = []
    with approval_kit.api_server() as address:
        person = Thread(target=approval_kit.answer, args=(address, "Approve", heard), daemon=True)
        person.start()
        run = stage.control(spec, "reload_target", confirm=spec)
        person.join(30)
    assert heard[0]["subject"] == "reload_target of DMS task rides-dynamodb?"
    assert stage.plan(run, spec)["digest"] in heard[0]["body"]
    assert str(run.state) == "success", states(run)
    assert stage.calls == ["StopReplicationTask", "StartReplicationTask"]
    assert world.tables(spec)["rides"].load_started_at > begun


def test_after_a_drain_every_target_equals_the_source(stage: Stage) -> None:
    """The last test: the application stops for good."""
    world = stage.world
    for spec in SPECS:
        stage.bring_up(spec)
    world.application.stop()
    assert world.application.done > 200
    for spec in SPECS:
        world.spec(spec, protected=False)  # the stop of a protected task would wait for an approval
        run = stage.control(spec, "drain", confirm=spec)
        assert str(run.state) == "success", states(run)
        assert world.task(spec).status == "stopped"
        assert stage.report(run, spec).verdict == "OK"
    world.runner.drain(120)
    same = {name: dms_stage.source_rows(name) for name in ("members", "cars", "rides", "payments")}
    assert len(same["rides"]) > 20
    for table in ("members", "cars", "rides"):
        assert dms_stage.rows_of_mysql80(table) == same[table]
    assert dms_stage.rows_of_dynamodb("carshare_rides") == same["rides"]
    for table in ("rides", "payments"):
        assert dms_stage.rows_of_dynamodb(f"carshare.{table}", world.key) == same[table]
