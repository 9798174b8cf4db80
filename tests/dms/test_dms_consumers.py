"""The function behind a stream, at moto and with answers that moto does not give."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dbops.dms import consumers, proving
from dbops.dms.health import Health
from dbops.dms.spec import Consumer
from tests.dms.dms_kit import KINESIS, MYSQL_TARGET, spec

LOGIN = {"region_name": "eu-central-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
FUNCTION = "cdc-apply"


class World:
    """An account with the function, its mapping of the stream, its queue, and a metric of this minute."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.stream = (
            self.client("kinesis").create_stream(StreamName="shop", ShardCount=1)
            and (
                self.client("kinesis").describe_stream_summary(StreamName="shop")["StreamDescriptionSummary"][
                    "StreamARN"
                ]
            )
        )
        role = self.client("iam").create_role(RoleName="lambda", AssumeRolePolicyDocument=json.dumps({}))["Role"]["Arn"]
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("handler.py", "def handle(event, context): pass")
        self.client("lambda").create_function(
            FunctionName=FUNCTION,
            Runtime="python3.11",
            Role=role,
            Handler="handler.handle",
            Code={"ZipFile": code.getvalue()},
        )
        made = self.client("lambda").create_event_source_mapping(FunctionName=FUNCTION, EventSourceArn=self.stream)
        self.mapping = made["UUID"]
        self.queue = self.client("sqs").create_queue(QueueName="given-up")["QueueUrl"]
        self.age(1500)

    def client(self, service: str) -> Any:
        return boto3.client(service, **LOGIN)

    def age(self, milliseconds: float, minutes_ago: int = 0) -> None:
        data = {
            "MetricName": "IteratorAge", "Dimensions": [{"Name": "FunctionName", "Value": FUNCTION}], "Unit": "Milliseconds",
            "Timestamp": self.now - timedelta(minutes=minutes_ago, seconds=5), "Value": milliseconds,
        }  # fmt: skip
        self.client("cloudwatch").put_metric_data(Namespace="AWS/Lambda", MetricData=[data])

    def wrong(self, **more: Any) -> tuple[str, ...]:
        of = Consumer(function=FUNCTION, queue_url=self.queue, max_iterator_age_s=60, **more)
        return consumers.wrong(of, self.stream, self.client, self.now)


@pytest.fixture
def world() -> Iterator[World]:
    with mock_aws():
        yield World()


def test_a_function_that_reads_is_well(world: World) -> None:
    assert world.wrong() == ()


def test_a_mapping_that_is_off_or_missing_is_named(world: World) -> None:
    world.client("lambda").update_event_source_mapping(UUID=world.mapping, Enabled=False)
    (text,) = world.wrong()
    assert world.mapping in text
    assert "not Enabled" in text
    world.client("lambda").delete_event_source_mapping(UUID=world.mapping)
    (text,) = world.wrong()
    assert "no event source mapping" in text


def test_a_function_that_is_behind_is_named_with_limit(world: World) -> None:
    world.age(90_000)
    assert world.wrong() == ("function cdc-apply is 90 s behind the stream, limit 60 s (consumer.max_iterator_age_s)",)


def test_a_function_that_reads_nothing_is_not_well(world: World) -> None:
    world.now += timedelta(minutes=20)
    assert world.wrong() == ("function cdc-apply has read nothing for 10 min (no IteratorAge)",)


def test_records_that_were_given_up_are_counted(world: World) -> None:
    world.client("sqs").send_message(QueueUrl=world.queue, MessageBody="{}")
    (text,) = world.wrong()
    assert "holds 1 records that the function gave up" in text


def test_the_tasks_verdict_takes_it_in(world: World) -> None:
    of = spec(target=KINESIS, consumer={"function": FUNCTION})
    good, bad = Health("healthy", ("fine",)), Health("unhealthy", ("latency",))

    def judged(found: Health) -> Health:
        return proving.with_consumer(of, found, world.stream, world.client, world.now)

    assert judged(good).verdict == "healthy"
    assert "cdc-apply reads the stream" in judged(good).reasons[-1]
    world.age(90_000)
    assert judged(good).verdict == "unhealthy"
    assert judged(bad).reasons[-1] == "latency"
    assert judged(Health("loading", ("later",))) == Health("loading", ("later",))


def test_only_a_stream_has_a_consumer() -> None:
    with pytest.raises(ValueError, match="consumer: only a stream"):
        spec(target=MYSQL_TARGET, consumer={"function": FUNCTION})
