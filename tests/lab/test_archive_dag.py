"""s3_archive and s3_archive_restore as Airflow runs them: real DAG files, real lab, alerts read back from a queue."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import archive_kit
import pytest
import yaml
from archive_kit import Bench
from conftest import ROOT

from dbops.store import Store
from lab import aws, config
from tests.lab import approval_kit

pytestmark = pytest.mark.lab

DDL = """(
  id BIGINT UNSIGNED NOT NULL, day DATETIME(3) NOT NULL, note VARCHAR(80) NULL,
  PRIMARY KEY (id), KEY day (day)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""
ROWS = 2000
COLD = 1800


def rows() -> Iterator[tuple[Any, ...]]:
    for i in range(ROWS):
        yield 2 * i + 1, "2026-06-30" if i % 10 == 9 else "2026-01-15", f"row {i}"


class House:
    """Specs of a bench in a folder of their own, a topic with a queue, and DAG runs."""

    def __init__(self, bench: Bench, folder: Path, run_dag: Callable[..., Any]) -> None:
        self.bench, self.folder, self._run_dag = bench, folder / "archive", run_dag
        self.folder.mkdir(parents=True)
        sns, self.sqs, name = aws.client("sns"), aws.client("sqs"), bench.schema
        self.topic = sns.create_topic(Name=name)["TopicArn"]
        self.queue = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        sns.subscribe(
            TopicArn=self.topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:{config.AWS_REGION}:{config.AWS_ACCOUNT}:{name}"
        )

    def table(self, name: str = "t", ddl: str = DDL, **over: Any) -> str:
        """A filled table and its spec; returns the spec's name."""
        self.bench.fresh_table(ddl, rows() if ddl == DDL else (), table=name)
        self.bench.sql(f"ANALYZE TABLE {name}")
        purge = {"batch_rows": 200, "max_wait_s": 1, "lock_wait_s": 1, **over.pop("purge", {})}
        spec = self.bench.spec(name, chunk_bytes=65536, enabled=True, purge={**purge, "allowed": True}, **over)
        values = spec.model_dump(mode="json", by_alias=True, exclude={"name"}, exclude_defaults=True)
        (self.folder / f"{spec.name}.yaml").write_text(yaml.safe_dump(values))
        return spec.name

    def run(self, conf: dict[str, Any] | None = None, dag_id: str = "s3_archive", **arguments: Any) -> Any:
        """dag.test() of the DAG file with this conf and no logical date."""
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(ROOT / "dags" / f"{dag_id}.py"))
        assert not bag.import_errors
        return self._run_dag(bag.dags[dag_id], run_conf=conf, **{"logical_date": None, **arguments})

    def archive(self, spec: str, **conf: Any) -> Any:
        return self.run({"spec": spec, "as_of": "2026-07-01", **conf})

    def purge(self, spec: str, table: str = "t", **arguments: Any) -> Any:
        conf = {"spec": spec, "as_of": "2026-07-01", "dry_run": False, "confirm": f"{self.bench.schema}.{table}"}
        return self.run(conf, **arguments)

    def scheduled(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A run as the scheduler makes it: run type `scheduled`, no conf, dated 2026-07-01."""
        from datetime import UTC, datetime

        from airflow.models import dagrun
        from airflow.utils.types import DagRunType

        make = dagrun.get_or_create_dagrun

        def make_scheduled(*, session: Any, **arguments: Any) -> Any:
            run = make(session=session, **arguments)
            run.run_type = DagRunType.SCHEDULED
            session.commit()
            return run

        with monkeypatch.context() as patch:
            patch.setattr(dagrun, "get_or_create_dagrun", make_scheduled)
            return self.run(run_after=datetime(2026, 7, 1, 1, 30, tzinfo=UTC))

    def alerts(self) -> list[dict[str, Any]]:
        """Messages that came since the last look."""
        found: list[dict[str, Any]] = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def only_task_alert(self) -> str:
        """The text of the one task that failed; the run's own alert is there too."""
        alerts = self.alerts()
        tasks = [
            a for a in alerts if a["MessageAttributes"].get("task_id", {}).get("Value") not in (None, "", "any_failure")
        ]
        tasks = [a for a in tasks if "run failed" not in a["Subject"]]
        assert len(tasks) == 1, [a["Subject"] for a in alerts]
        assert any("run failed" in a["Subject"] for a in alerts)
        return str(tasks[0]["Message"])

    def left(self, table: str = "t") -> int:
        return self.bench.count(table)

    def in_lake(self, table: str = "t") -> int:
        return int(self.bench.trino(f'SELECT count(*) FROM lake."{self.bench.namespace}"."{table}"')[0][0])

    def reports(self, spec: str, dag_id: str = "s3_archive") -> list[Any]:
        """Reports of the spec, newest first."""
        return Store.open().history(dag_id, spec)


def states(run: Any) -> dict[str, str]:
    """{task: state}, worst first where it is mapped."""
    found: dict[str, str] = {}
    for ti in run.get_task_instances():
        if found.get(ti.task_id) != "failed":
            found[ti.task_id] = str(ti.state)
    return found


@pytest.fixture
def house(tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    with archive_kit.bench("mysql_default") as bench:
        house = House(bench, tmp_path / "specs", run_dag)
        monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path / "specs"))
        for conn_id, extra in (
            ("MYSQL_DEFAULT", {"dbops_purge_allow": [f"{bench.schema}.*"]}),
            ("AWS_DEFAULT", {"dbops_sns_topic_arn": house.topic}),
        ):
            connection = json.loads(os.environ[f"AIRFLOW_CONN_{conn_id}"])
            connection["extra"] |= extra
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps(connection))
        yield house


def test_a_dry_run_writes_nothing(house: House) -> None:
    spec = house.table()
    run = house.archive(spec)
    assert run.state == "success", states(run)
    assert house.left() == ROWS
    (report,) = house.reports(spec)
    assert report.verdict == "DRY_RUN"
    html = Store.open().report_html(report.report_id)
    assert f"{COLD:,}" in html
    assert "`day` &lt; &#39;2026-06-30 00:00:00&#39;" in html
    assert not house.bench.sql("SELECT 1 FROM dbops_archive.archive_plan WHERE spec = %s", (spec,))
    assert not house.bench.trino(f"SHOW SCHEMAS FROM lake LIKE '{house.bench.namespace}'")
    assert house.alerts() == []


def test_purge_then_restore(house: House) -> None:
    spec = house.table()
    run = house.archive(spec, dry_run=False)
    assert run.state == "success", states(run)
    assert states(run)["purge"] == "skipped", "without confirm nothing is deleted"
    assert (house.left(), house.in_lake()) == (ROWS, COLD)
    assert house.reports(spec)[0].verdict == "OK"

    from airflow.sdk.timezone import utcnow

    run = house.purge(spec, logical_date=utcnow())
    assert run.state == "success", states(run)
    assert (house.left(), house.in_lake()) == (ROWS - COLD, COLD)
    assert house.reports(spec)[0].verdict == "OK"
    assert house.bench.sql("SELECT state FROM dbops_archive.archive_plan WHERE spec = %s", (spec,)) == (("done",),)
    (by,) = house.bench.sql(
        "SELECT DISTINCT b.deleted_by FROM dbops_archive.archive_batch AS b INNER JOIN dbops_archive.archive_plan AS p"
        " ON p.plan_id = b.plan_id WHERE p.spec = %s",
        (spec,),
    )
    assert by == (f"s3_archive/{run.run_id}",)

    before = house.bench.sql("SELECT * FROM t ORDER BY id")
    run = house.run({"spec": spec}, "s3_archive_restore")
    assert run.state == "success", states(run)
    assert house.reports(spec, "s3_archive_restore")[0].verdict == "OK"
    ((scratch,),) = house.bench.sql(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", (house.bench.restore_schema,)
    )
    restored = house.bench.sql(
        f"SELECT id, DATE(day), note FROM `{house.bench.restore_schema}`.`{scratch}` ORDER BY id"
    )
    assert [(i, str(day), note) for i, day, note in restored] == [r for r in rows() if r[1] == archive_kit.COLD]
    assert house.bench.sql("SELECT * FROM t ORDER BY id") == before
    assert house.alerts() == []
    run = house.run({"spec": spec, "chunk": [0]}, "s3_archive_restore")
    assert run.state == "failed"
    assert "unknown conf key 'chunk'; allowed: chunks, column, from" in house.only_task_alert()
    run = house.run({"spec": spec, "chunks": [0], "column": "day", "from": "2026-01-01"}, "s3_archive_restore")
    assert run.state == "failed"
    assert "give chunks or a column range, not both" in house.only_task_alert()


@pytest.mark.parametrize(
    ("conf", "text"),
    [
        ({"dry_rum": False}, "unknown conf key 'dry_rum'; allowed: "),
        ({"spec": "nosuch"}, "no spec named 'nosuch'; known specs: "),
        ({"dry_run": False, "spec": None}, "spec is empty and dry_run is false"),
        ({"dry_run": False, "confirm": "carshare.t"}, "confirmation is 'carshare.t'; type "),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_before_anything_is_written(house: House, conf: dict[str, Any], text: str) -> None:
    spec = house.table()
    run = house.archive(**{"spec": spec, **conf})
    assert run.state == "failed"
    alert = house.only_task_alert()
    assert text in alert
    if "known specs" in text:
        assert spec in alert
    assert "Nothing was written or deleted" in alert
    assert house.left() == ROWS
    assert not house.bench.sql("SELECT 1 FROM dbops_archive.archive_plan WHERE spec = %s", (spec,))


def test_a_preflight_refusal_is_reported_and_alerted(house: House) -> None:
    spec = house.table(ddl="(id INT NULL, day DATETIME NOT NULL, KEY day (day)) ENGINE=MyISAM")
    run = house.archive(spec)
    assert run.state == "failed"
    assert states(run)["preflight"] == "failed"
    (report,) = house.reports(spec)
    assert report.verdict == "REFUSED"
    alert = house.only_task_alert()
    for part in ("[engine]", "[key]", "Fix: ", "Nothing was written", f"{house.bench.schema}.t"):
        assert part in alert


def test_a_scheduled_run_purges_where_the_spec_allows_and_goes_on_after_a_failure(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = house.table("good")
    kept = house.table("kept")
    path = house.folder / f"{kept}.yaml"
    path.write_text(path.read_text().replace("allowed: true", "allowed: false"))
    house.table("bad", ddl="(id INT NULL, day DATETIME NOT NULL, KEY day (day)) ENGINE=MyISAM")
    run = house.scheduled(monkeypatch)
    assert run.state == "failed"
    assert states(run)["any_failure"] == "failed"
    assert house.left("good") == ROWS - COLD
    assert house.in_lake("good") == COLD
    assert house.left("kept") == ROWS
    assert [house.reports(spec)[0].verdict for spec in (good, kept)] == ["OK", "OK"]
    assert house.bench.sql("SELECT state FROM dbops_archive.archive_plan WHERE spec = %s", (good,)) == (("done",),)
    assert any("preflight" in alert["Subject"] for alert in house.alerts())


def test_a_loss_is_accepted_by_typing_the_plan_and_turns_one_run_red(house: House) -> None:
    spec = house.table()
    run = house.purge(spec)
    assert run.state == "success", states(run)
    ((plan_id,),) = house.bench.sql("SELECT plan_id FROM dbops_archive.archive_plan WHERE spec = %s", (spec,))
    # As if the run had been killed before it closed the plan, and somebody had erased rows then.
    house.bench.sql(
        "UPDATE dbops_archive.archive_plan SET state = 'open', open_table = source_table, closed_at = NULL WHERE plan_id = %s",
        (plan_id,),
    )
    house.bench.trino(f'DELETE FROM lake."{house.bench.namespace}".t WHERE id < 20')
    run = house.archive(spec, dry_run=False)
    assert run.state == "failed"
    assert states(run)["reconcile"] == "failed"
    alert = house.only_task_alert()
    assert "9 purged rows are missing" in alert
    assert f"accept_loss: {plan_id}" in alert

    run = house.archive(spec, dry_run=False, accept_loss="t-20260101-00000000")
    assert run.state == "failed"
    assert "no archive plan 't-20260101-00000000'" in house.only_task_alert()

    run = house.archive(spec, dry_run=False, accept_loss=plan_id)
    assert run.state == "failed"
    assert states(run)["preflight"] == "failed"
    assert "is done with a loss that was accepted: 9 purged rows are missing" in house.only_task_alert()
    report = house.reports(spec)[0]
    assert report.verdict == "FAILED"
    assert "Lost rows by chunk" in Store.open().report_html(report.report_id)

    house.bench.sql("INSERT INTO t VALUES (2, '2026-01-15', 'new'), (4, '2026-01-15', 'new')")
    run = house.purge(spec)
    assert run.state == "success", states(run)
    assert (house.left(), house.in_lake()) == (ROWS - COLD, COLD - 9 + 2)
    assert house.alerts() == []


def test_a_plan_is_given_up_although_its_table_is_gone(house: House) -> None:
    spec = house.table()
    run = house.archive(spec, dry_run=False)
    assert run.state == "success", states(run)
    assert house.in_lake() == COLD
    house.bench.sql("DROP TABLE t")
    run = house.archive(spec, dry_run=False, abandon_open_plan=True)
    assert run.state == "failed"
    assert "[table]" in house.only_task_alert()
    assert house.in_lake() == 0
    assert house.bench.sql("SELECT state FROM dbops_archive.archive_plan WHERE spec = %s", (spec,)) == (("abandoned",),)


def test_an_abandon_that_fails_says_what_state_it_left(house: House) -> None:
    spec = house.table()
    run = house.archive(spec, dry_run=False)
    assert run.state == "success", states(run)
    table = f'lake."{house.bench.namespace}".t'
    house.bench.trino(f"INSERT INTO {table} SELECT * FROM {table} WHERE id < 20")
    house.bench.trino(f'UPDATE {table} SET "_archive_batch" = 99 WHERE id = 3')
    house.bench.trino(f'UPDATE {table} SET "_archive_chunk" = 99 WHERE id = 5')
    run = house.archive(spec, dry_run=False, abandon_open_plan=True)
    assert run.state == "failed"
    assert states(run)["preflight"] == "failed"
    alert = house.only_task_alert()
    assert "stays `abandoning`" in alert
    assert "No row was deleted from MySQL" in alert
    assert "Nothing was written" not in alert
    assert house.left() == ROWS


# -- approval -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(airflow_db: None) -> Iterator[str]:
    with approval_kit.api_server() as address:
        yield address


# dag.test() waits for an answer for ever.
@pytest.mark.timeout(240, method="signal")
def test_approval(house: House, api: str) -> None:
    spec = house.table(purge={"approval": True})

    # Somebody marks the approval as successful: that is no answer, and the purge refuses.
    run = house.purge(spec, mark_success_pattern="approve")
    assert run.state == "failed"
    assert states(run)["purge"] == "failed"
    assert "needs an approval" in house.only_task_alert()
    assert house.left() == ROWS

    # The first answer is no, the second is yes.
    for choice, left, verdict in (("Reject", ROWS, "failed"), ("Approve", ROWS - COLD, "success")):
        heard: list[Any] = []
        person = Thread(target=approval_kit.answer, args=(api, choice, heard), daemon=True)
        person.start()
        run = house.purge(spec)
        person.join(30)
        assert heard[0]["subject"] == f"Purge {house.bench.schema}.t?"
        assert heard[0]["options"] == ["Approve", "Reject"]
        assert (run.state, house.left()) == (verdict, left), states(run)
    ((plan_id, by, digest),) = house.bench.sql(
        "SELECT plan_id, approved_by, approved_digest FROM dbops_archive.archive_plan WHERE spec = %s", (spec,)
    )
    assert by == "dba"
    assert f"`{digest}`" in heard[0]["body"]
    assert f"`{plan_id}`" in heard[0]["body"]
    assert house.in_lake() == COLD
    assert any("waits for approval" in alert["Subject"] for alert in house.alerts())
