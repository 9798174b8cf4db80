"""The function behind a stream: DMS can be well while nobody reads what it writes.

Sources: Lambda developer guide, "Using Lambda to process records from Amazon Kinesis Data Streams" (event source mapping, failure
destination) and "Lambda function metrics" (IteratorAge, in milliseconds).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from dbops import asking
from dbops.asking import Question
from dbops.dms.spec import Consumer

PERIOD_S = 60
WINDOW = timedelta(minutes=10)
"""A stream into which somebody writes, the canary for one, has a point of its age within this time."""


def wrong(consumer: Consumer, stream_arn: str, client: Callable[[str], Any], now: datetime) -> tuple[str, ...]:
    """Why the function does not apply what comes, nothing when it does. Fail-closed: what AWS does not tell is wrong.

    Args:
        consumer: as declared
        stream_arn: of the target
        client: name of a service -> a boto3 client
        now: aware
    """
    found = [*asking.ask(client("lambda"), _mapping(consumer, stream_arn))]
    found += asking.ask(client("cloudwatch"), _age(consumer, now))
    if consumer.queue_url:
        found += asking.ask(client("sqs"), _queue(consumer.queue_url))
    return tuple(found)


def _mapping(consumer: Consumer, stream_arn: str) -> Question[list[str]]:
    given = {"FunctionName": consumer.function, "EventSourceArn": stream_arn}
    answer = yield "list_event_source_mappings", given
    mappings = answer.get("EventSourceMappings") or []
    if not mappings:
        return [f"function {consumer.function} has no event source mapping of the stream {stream_arn}"]
    off = [one for one in mappings if one.get("State") != "Enabled"]
    return [
        f"the event source mapping {one.get('UUID')} of {consumer.function} is {one.get('State') or 'in no state'}"
        f" ({one.get('StateTransitionReason') or 'no reason'}), not Enabled"
        for one in off
    ]


def _age(consumer: Consumer, now: datetime) -> Question[list[str]]:
    """IteratorAge is measured when the function reads: no point means that it reads nothing."""
    name = consumer.function.rpartition(":")[2] if consumer.function.startswith("arn:") else consumer.function
    answer = yield "get_metric_statistics", {
        "Namespace": "AWS/Lambda", "MetricName": "IteratorAge", "Dimensions": [{"Name": "FunctionName", "Value": name}],
        "StartTime": now - WINDOW, "EndTime": now, "Period": PERIOD_S, "Statistics": ["Maximum"],
    }  # fmt: skip
    points = sorted(answer.get("Datapoints") or [], key=lambda point: point["Timestamp"])
    if not points:
        return [
            f"function {consumer.function} has read nothing for {WINDOW.total_seconds() / 60:g} min (no IteratorAge)"
        ]
    age_s = float(points[-1]["Maximum"]) / 1000
    if age_s <= consumer.max_iterator_age_s:
        return []
    return [
        f"function {consumer.function} is {age_s:g} s behind the stream, limit {consumer.max_iterator_age_s:g} s"
        " (consumer.max_iterator_age_s)"
    ]


def _queue(url: str) -> Question[list[str]]:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = yield "get_queue_attributes", {"QueueUrl": url, "AttributeNames": names}
    held = answer.get("Attributes") or {}
    if any(name not in held for name in names):
        return [f"queue {url} does not say how many records were given up"]
    count = sum(int(held[name]) for name in names)
    return (
        [f"queue {url} holds {count} records that the function gave up; read them, repair, and send them again"]
        if count
        else []
    )
