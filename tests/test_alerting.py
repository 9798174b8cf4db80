from __future__ import annotations

import asyncio
import json
import logging
import re
from datetime import timedelta

import pytest
from conftest import REGION
from hypothesis import given
from hypothesis import strategies as st

from dbops import alerting, connections
from dbops.alerting import UNSENT, Explained


@pytest.fixture
def inbox(aws, monkeypatch):
    """Reads what arrived in a queue subscribed to the alert topic."""
    sns, sqs = connections.aws_client("sns"), connections.aws_client("sqs")
    topic = sns.create_topic(Name="dbops-alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="dbops-alerts")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    extra = {"region_name": REGION, "endpoint_url": aws, "dbops_sns_topic_arn": topic}
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "login": "lab", "password": "lab", "extra": extra})
    )

    def read() -> list[dict]:
        messages: list[dict] = []
        while batch := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            messages += [json.loads(message["Body"]) for message in batch]
            for message in batch:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return messages

    return read


def fields(message: dict) -> dict[str, str]:
    return {
        name.strip(): value.strip()
        for name, _, value in (line.partition(": ") for line in message["Message"].splitlines())
    }


def test_two_failing_tasks_and_their_run_give_three_different_messages(run_dag, inbox):
    """A shared notifier with templates sent the first task's text twice and crashed for the DAG in dag.test()."""
    from airflow.sdk import DAG, Param, task

    with DAG(
        "t_alert",
        schedule=None,
        default_args=alerting.default_args(retries=0),
        on_failure_callback=alerting.dag_failure_callback(),
        params={"spec": Param("trips", type="string")},
    ) as dag:

        @task
        def purge():
            raise Explained(
                "batch 7 differs between MySQL and the archive",
                happened="6 of 50 batches were deleted, each one proven",
                safe_next="Nothing is lost. Export the chunk again, then clear this task.",
                target="carshare.trips",
            )

        @task
        def measure():
            raise ConnectionError("server gone, password=hunter2-secret")

        purge()
        measure()
    run = run_dag(dag, logical_date=None)
    assert run.state == "failed"
    messages = inbox()
    assert len(messages) == 3
    (whole_run,) = [message for message in messages if "run failed" in message["Subject"]]
    by_task = {
        message["MessageAttributes"]["task_id"]["Value"]: message for message in messages if message is not whole_run
    }
    explained = fields(by_task["purge"])
    assert (
        by_task["purge"]["Subject"]
        == "[dbops ERROR] t_alert.purge failed: batch 7 differs between MySQL and the archive"
    )
    assert explained["Severity"] == "ERROR"
    assert (explained["DAG"], explained["Task"], explained["Run"], explained["Try"]) == (
        "t_alert",
        "purge",
        run.run_id,
        "1",
    )
    assert explained["Target"] == "carshare.trips"
    assert explained["What"] == "batch 7 differs between MySQL and the archive"
    assert explained["Already happened"] == "6 of 50 batches were deleted, each one proven"
    assert explained["Safe to do now"] == "Nothing is lost. Export the chunk again, then clear this task."
    assert re.match(r"http://airflow\.example\.com:8080/dags/t_alert/runs/\S+/tasks/purge", explained["Log"])

    plain = fields(by_task["measure"])
    assert plain["Task"] == "measure"
    assert plain["Target"] == "trips (parameter spec)"
    assert plain["Safe to do now"] == alerting.DEFAULT_SAFE_NEXT
    assert "hunter2" not in json.dumps(by_task["measure"])

    assert whole_run["Subject"].startswith("[dbops ERROR] t_alert")
    assert fields(whole_run)["Run"] == run.run_id
    assert fields(whole_run)["Log"].startswith("http://airflow.example.com:8080/dags/t_alert/runs/")


def test_each_failing_task_alerts_once_after_its_last_try(run_dag, inbox):
    from airflow.sdk import DAG, task

    with DAG(
        "t_alert_retry", schedule=None, default_args=alerting.default_args(retries=1, retry_delay=timedelta(0))
    ) as dag:

        @task
        def flaky():
            raise RuntimeError("no")

        flaky()
    run_dag(dag)
    (message,) = inbox()
    assert fields(message)["Try"] == "2"


def test_an_approval_asks_with_a_link(inbox, airflow_db):
    from airflow.providers.standard.operators.hitl import ApprovalOperator
    from airflow.sdk import DAG

    with DAG("t_approve", schedule=None):
        approve_switchover = ApprovalOperator(
            task_id="approve_switchover", subject="Go?", notifiers=[alerting.approval_notifier()]
        )

    class TaskInstance:
        dag_id, task_id, run_id, map_index, try_number = "t_approve", "approve_switchover", "r1", -1, 1

    ti = TaskInstance()
    alerting.approval_notifier()(
        {"ti": ti, "task_instance": ti, "task": approve_switchover, "run_id": "r1", "params": {"cluster": "blue-1"}}
    )
    (message,) = inbox()
    found = fields(message)
    assert message["Subject"] == "[dbops APPROVAL] t_approve.approve_switchover waits for approval"
    assert found["Severity"] == "APPROVAL"
    assert found["Target"] == "blue-1 (parameter cluster)"
    assert re.match(r"http://airflow\.example\.com:8080/.*approve_switchover.*required_actions", found["Approve"])
    assert "Already happened" not in found


def test_without_a_topic_the_alert_is_marked_in_the_log(aws, caplog):
    with caplog.at_level(logging.WARNING):
        assert alerting.notify("ERROR", "s", "m") is False
    assert f"{UNSENT}: connection 'aws_default' has no extra 'dbops_sns_topic_arn'" in caplog.text


def test_nothing_that_goes_wrong_is_raised(monkeypatch, caplog):
    monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT", raising=False)
    assert alerting.notify("ERROR", "s", "m") is False
    assert UNSENT in caplog.text

    class Hostile:
        def __getattr__(self, name):
            raise RuntimeError(name)

    for context in ({}, {"ti": Hostile(), "dag_run": Hostile()}, {"params": Hostile()}, None):
        alerting.SnsAlert()(context)
    alerting.SnsAlert()()


def test_an_unreachable_topic_is_marked_in_the_log(monkeypatch, caplog):
    extra = {"endpoint_url": "http://127.0.0.1:9", "dbops_sns_topic_arn": f"arn:aws:sns:{REGION}:123456789012:x"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "login": "a", "password": "b", "extra": extra})
    )
    assert alerting.notify("ERROR", "s", "m") is False
    assert f"{UNSENT}: EndpointConnectionError" in caplog.text


def test_limits_of_sns(inbox):
    assert alerting.notify("ERROR", "Zähler\nläuft \x07" + "x" * 500, "😀" * 200_000)
    (message,) = inbox()
    assert re.fullmatch(r"[\x20-\x7e]{100}", message["Subject"])
    assert len(json.dumps({"default": message["Message"]})) < 256 * 1024
    assert message["Message"].endswith("more characters)")


def test_a_long_exception_does_not_hide_the_rest():
    context = {"exception": RuntimeError("x" * 100_000), "run_id": "r"}
    _, text, _ = alerting.compose(context, "ERROR", "failed")
    assert len(text) < 6_000
    assert "Safe to do now" in text


def test_the_explanation_of_a_cause_is_found():
    try:
        try:
            raise Explained("inner", happened="half", safe_next="wait", target="t1")
        except Explained as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        _, text, _ = alerting.compose({"exception": error, "run_id": "r"}, "ERROR", "failed")
    assert "RuntimeError: outer" in text
    for value in ("half", "wait", "t1"):
        assert value in text


def test_a_deadline_alert_may_await_it(inbox):
    class DagRun:
        dag_id, run_id, conf = "t_deadline", "r", {}

    async def fire() -> None:
        await alerting.SnsAlert(event="is late", context={"dag_run": DagRun(), "deadline": {"deadline_time": "03:00"}})

    asyncio.run(fire())
    (message,) = inbox()
    assert "t_deadline is late: deadline passed" in message["Subject"]


def test_default_args():
    def own(context):
        """Another callback."""

    args = alerting.default_args(retries=0, on_failure_callback=own)
    assert isinstance(args["on_failure_callback"][0], alerting.SnsAlert)
    assert args["on_failure_callback"][1] is own
    assert args["retries"] == 0
    assert {"owner", "retries", "execution_timeout"} <= set(args)


@pytest.mark.parametrize(
    "text",
    [
        "password=SECRET",
        "password: 'SECRET with space'",
        '{"master_user_password": "SECRET"}',
        '{\\"password\\": \\"SECRET\\"}',
        "MASTER_PASSWORD='SECRET'",
        "mysql://dbops:SECRET@db/x",
        "mysql+mysqldb://u:SECRET/with@at@db:3306/x",
        "CREATE USER x IDENTIFIED BY 'SECRET'",
        "ALTER USER x IDENTIFIED WITH mysql_native_password AS 'SECRET'",
        "aws_secret_access_key = SECRET",
        "X-Amz-Security-Token=SECRET&x=1",
        "?X-Amz-Signature=SECRET",
        "Authorization: Bearer SECRET",
        "-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----",
        "MYSQL_PWD=SECRET mysqldump",
        "--password=SECRET",
        "{'passwd': 'SECRET'}",
        "eyJhbGciOiJI.eyJzdWIiOiI.SECRET",
    ],
)
def test_mask_hides(text):
    assert "SECRET" not in alerting.mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "Access denied for user 'dbops'@'10.0.0.1' (using password: YES)",
        "table carshare.trips: 12 rows",
        "see https://airflow.example.com/dags/x",
    ],
)
def test_mask_keeps(text):
    assert alerting.mask(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_mask_keeps_the_shape_of_data(value):
    masked = alerting.mask(value)
    assert type(masked) is type(value) or isinstance(value, (list, dict))
    json.dumps(masked)
