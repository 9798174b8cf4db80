"""query_inventory and query_inventory_snapshot as Airflow runs them, on a server of their own: reports, files, differences, alerts."""

from __future__ import annotations

import csv
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from dbops import connections
from dbops.store import Store
from lab import aws, config
from tests.inventory.workload import SCHEMA_STATEMENTS
from tests.lab.inventory_kit import Mysqld

pytestmark = pytest.mark.lab


class House:
    """A server, a spec, a topic with a queue, and DAG runs."""

    def __init__(
        self, server: Mysqld, folder: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.server, self.folder, self._run_dag = server, folder / "inventory", run_dag
        self.folder.mkdir(parents=True)
        self.spec = f"inv_{uuid.uuid4().hex[:8]}"
        sns, self.sqs = aws.client("sns"), aws.client("sqs")
        topic = sns.create_topic(Name=self.spec)["TopicArn"]
        self.queue = self.sqs.create_queue(QueueName=self.spec)["QueueUrl"]
        endpoint = f"arn:aws:sqs:{config.AWS_REGION}:{config.AWS_ACCOUNT}:{self.spec}"
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=endpoint)
        monkeypatch.setenv("DBOPS_SPECS_DIR", str(folder))
        connection = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
        connection["extra"]["dbops_sns_topic_arn"] = topic
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        for name, port in (("INV_WRITER", server.port), ("INV_DOWN", 1)):
            monkeypatch.setenv(
                f"AIRFLOW_CONN_{name}",
                json.dumps({"conn_type": "mysql", "host": config.HOST, "port": port, "login": "root"}),
            )
        self.write_spec()

    def write_spec(self, **over: Any) -> None:
        values = {
            "description": "a test", "owner": "tests", "enabled": True, "schemas": ["shop"], "upgrade_connection": "mysql80",
            "instances": [{"name": "writer", "connection": "inv_writer"}], "under_migration": ["shop.tar*"], **over,
        }  # fmt: skip
        (self.folder / f"{self.spec}.yaml").write_text(yaml.safe_dump(values))

    def sql(self, *statements: str) -> None:
        with closing(self.server.connect(database="shop")) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                cursor.fetchall()

    def run(self, conf: dict[str, Any] | None = None, dag_id: str = "query_inventory") -> Any:
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(ROOT / "dags" / f"{dag_id}.py"))
        assert not bag.import_errors
        return self._run_dag(
            bag.dags[dag_id], run_conf={"spec": self.spec} if conf is None else conf, logical_date=None
        )

    def report(self) -> Any:
        found = Store.open().latest("query_inventory", self.spec)
        assert found is not None
        return found

    def rows(self, file: str) -> list[dict[str, str]]:
        """Rows of a CSV file beside the newest report."""
        bucket, key = self.report().s3_uri.removeprefix("s3://").split("/", 1)
        body = connections.aws_client("s3").get_object(Bucket=bucket, Key=f"{key.removesuffix('html')}{file}.csv")[
            "Body"
        ]
        return list(csv.DictReader(body.read().decode().splitlines()))

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mysqld]:
    server = Mysqld("mysql57", tmp_path_factory.mktemp("mysql57"))
    server.start()
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in SCHEMA_STATEMENTS:
            cursor.execute(statement)
    yield server
    server.stop()


@pytest.fixture
def house(server: Mysqld, tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> House:
    return House(server, tmp_path / "specs", run_dag, monkeypatch)


def test_an_analysis_then_a_new_write_on_a_table_under_migration(house: House) -> None:
    house.sql("SELECT name FROM members WHERE id = 1", "UPDATE tariffs SET v = 1 WHERE k = 'day'")
    assert house.run().state == "success"
    first = house.report()
    assert first.verdict in ("OK", "WARNING")
    by_label = {f["label"]: f["value"] for f in first.document["figures"]}
    assert by_label["Changes"] == "first analysis"
    assert not [a for a in house.alerts() if "under migration" in a["Subject"]]
    statements = {row["Text (masked)"].strip(): row for row in house.rows("statements")}
    point = next(row for text, row in statements.items() if "`members`" in text and "`id` = ?" in text)
    assert (point["Access"], point["Executions"]) == ("point", "1")

    house.sql("DELETE FROM tariffs WHERE k = 'secret-4711'", "SELECT city FROM members WHERE id = 2")
    assert house.run(dag_id="query_inventory_snapshot").state == "success"
    assert house.run().state == "success"
    assert any(
        "new write on a table under migration: shop.tariffs: DELETE" in r for r in house.report().document["reasons"]
    )
    changes = [(row["Change"], row["Writes"]) for row in house.rows("changes") if "tariffs" in row["Text"]]
    assert changes == [("new", "shop.tariffs")]
    (alert,) = [a for a in house.alerts() if "under migration" in a["Subject"]]
    assert "shop.tariffs: DELETE FROM" in alert["Message"]
    assert "4711" not in alert["Message"] + house.report().document.__repr__()
    writers = {(row["Table"], row["Operation"]) for row in house.rows("writers")}
    assert {("shop.tariffs", "delete"), ("shop.tariffs", "update"), ("shop.sessions", "delete")} <= writers


def test_an_instance_that_is_down_is_named_and_the_rest_is_analysed(house: House) -> None:
    instances = [{"name": "writer", "connection": "inv_writer"}, {"name": "reader", "connection": "inv_down"}]
    house.write_spec(instances=instances)
    assert house.run().state == "failed"
    report = house.report()
    assert report.verdict == "WARNING"
    assert "instance reader has no snapshot near the end of the window" in report.document["reasons"]
    assert {row["Store"] for row in house.rows("advice")} == {"not decidable"}
    assert any("Can't connect" in a["Message"] for a in house.alerts())


@pytest.mark.parametrize(
    ("conf", "text"),
    [
        ({"spec": "nowhere"}, "no spec named 'nowhere'"),
        ({"spce": "x"}, "unknown conf key 'spce'"),
    ],
)
def test_a_wrong_form_is_refused(house: House, conf: dict[str, Any], text: str) -> None:
    assert house.run(conf).state == "failed"
    assert any(text in a["Message"] for a in house.alerts())


def test_a_wrong_spec_is_named_by_line_and_field(house: House) -> None:
    house.write_spec(
        instances=[{"name": "a", "connection": "x"}, {"name": "a", "connection": "y"}], cold_after_days=400
    )
    assert house.run().state == "failed"
    assert any("'a' is used twice" in a["Message"] for a in house.alerts())
