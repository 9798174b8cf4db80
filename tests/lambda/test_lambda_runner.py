"""The lab's event source mapping: batches, retries, bisect, partial responses, age; and the function as it is deployed."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import cdc_kit
import pytest
from cdc_kit import change, load
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.kinesis import models

from lab import aws, config, lambda_runner
from lab import kinesis as lab_kinesis
from lab.lambda_runner import Deployed, EventSource, FunctionError, Runner

FUNCTION = Path(__file__).resolve().parents[2] / "include" / "lambda" / "cdc_apply"
STREAM = "changes"


@pytest.fixture
def kinesis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(models, "Shard", lab_kinesis.Shard)
    with mock_aws():
        client = boto3.client("kinesis", region_name=config.AWS_REGION)
        client.create_stream(StreamName=STREAM, ShardCount=1)
        yield client


def fill(kinesis: Any, *data: str) -> list[str]:
    return [
        kinesis.put_record(StreamName=STREAM, Data=each.encode(), PartitionKey="k")["SequenceNumber"] for each in data
    ]


class Seen:
    """A function that notes what it was given; `answer` says what it returns or raises."""

    def __init__(self, answer: Callable[[list[str], dict[str, str]], Any] = lambda *_: None) -> None:
        self.answer, self.batches = answer, list[str]()

    def __call__(self, event: dict[str, Any]) -> Any:
        texts = {
            cdc_kit.base64.b64decode(r["kinesis"]["data"]).decode(): r["kinesis"]["sequenceNumber"]
            for r in event["Records"]
        }
        self.batches.append("".join(texts))
        return self.answer([*texts], texts)


def failing_at(bad: str) -> Callable[[list[str], dict[str, str]], Any]:
    def answer(texts: list[str], sequences: dict[str, str]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": sequences[each]} for each in reversed(texts) if each in bad]}

    return answer


def raising_at(bad: str) -> Callable[[list[str], dict[str, str]], Any]:
    def answer(texts: list[str], _: dict[str, str]) -> Any:
        if set(texts) & {*bad}:
            raise FunctionError("boom")

    return answer


def run(
    kinesis: Any, function: Any, state: Path | None = None, now: Callable[[], float] = time.time, **source: Any
) -> tuple[Runner, list[Any]]:
    lost: list[Any] = []
    told = EventSource(STREAM, on_failure=lost.append, backoff_s=0.001, **source)
    with Runner(kinesis, function, told, state, now=now) as runner:
        runner.drain()
    return runner, lost


def test_no_record_is_lost_when_many_are_put_and_read_at_once(kinesis: Any) -> None:
    stream = models.kinesis_backends[DEFAULT_ACCOUNT_ID][config.AWS_REGION].streams[STREAM]
    (shard,) = stream.shards.values()
    read: list[Any] = []
    ended = threading.Event()

    def put() -> None:
        for number in range(500):
            shard.put_record("k", str(number), "")

    def follow() -> None:
        while not ended.is_set() or len(read) < len(shard.records):
            read.extend(shard.get_records(str(len(read)), 7)[0])

    threads = [threading.Thread(target=put) for _ in range(4)]
    reader = threading.Thread(target=follow)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    assert [each.sequence_number for each in read] == [*range(1, 2001)]
    assert sorted(int(each.data) for each in read) == sorted([*range(500)] * 4)


def test_a_batch_has_so_many_records_and_the_next_begins_after_it(kinesis: Any) -> None:
    fill(kinesis, *"abcdefg")
    seen = Seen()
    run(kinesis, seen, batch_size=3)
    assert seen.batches == ["abc", "def", "g"]


def test_from_the_lowest_reported_record_on_all_is_given_again(kinesis: Any) -> None:
    fill(kinesis, *"abcdef")
    seen = Seen(failing_at("dc"))
    seen_before = seen.answer

    def once(texts: list[str], sequences: dict[str, str]) -> Any:
        return seen_before(texts, sequences) if len(seen.batches) == 1 else None

    seen.answer = once
    run(kinesis, seen)
    assert seen.batches == ["abcdef", "cdef"]


def test_without_partial_responses_a_report_means_nothing(kinesis: Any) -> None:
    fill(kinesis, *"abc")
    seen = Seen(failing_at("b"))
    run(kinesis, seen, report_batch_item_failures=False)
    assert seen.batches == ["abc"]


def test_a_batch_that_has_been_retried_often_enough_is_passed_over_and_told(kinesis: Any) -> None:
    sequences = fill(kinesis, *"abcd")
    seen = Seen(raising_at("b"))
    _, lost = run(kinesis, seen, batch_size=2, maximum_retry_attempts=2)
    assert seen.batches == ["ab", "ab", "ab", "cd"]
    (message,) = lost
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == 3
    assert message["responseContext"]["functionError"] == "boom"
    batch = message["KinesisBatchInfo"]
    assert [batch["startSequenceNumber"], batch["endSequenceNumber"], batch["batchSize"]] == [*sequences[:2], 2]


def test_bisect_leaves_only_the_poison_behind(kinesis: Any) -> None:
    sequences = fill(kinesis, *"abcdefgh")
    seen = Seen(raising_at("f"))
    _, lost = run(kinesis, seen, maximum_retry_attempts=1, bisect_on_error=True)
    assert seen.batches == ["abcdefgh", "abcd", "efgh", "ef", "e", "f", "f", "gh"]
    assert [each["KinesisBatchInfo"]["startSequenceNumber"] for each in lost] == [sequences[5]]


def test_with_bisect_a_report_splits_where_it_says(kinesis: Any) -> None:
    fill(kinesis, *"abcdef")
    seen = Seen(failing_at("d"))
    _, lost = run(kinesis, seen, maximum_retry_attempts=1, bisect_on_error=True)
    assert seen.batches == ["abcdef", "def", "de", "d", "e", "f"]
    assert [each["KinesisBatchInfo"]["batchSize"] for each in lost] == [1]


def test_old_records_are_passed_over(kinesis: Any) -> None:
    fill(kinesis, *"ab")
    between = time.time() + 0.1
    time.sleep(0.2)
    fill(kinesis, *"cd")
    seen = Seen()
    _, lost = run(kinesis, seen, now=lambda: between + 60, maximum_record_age_s=60)
    assert seen.batches == ["cd"]
    (message,) = lost
    assert message["requestContext"]["condition"] == "RecordAgeExceeded"
    assert message["KinesisBatchInfo"]["batchSize"] == 2


def test_a_record_that_fails_for_ever_ends_with_its_age(kinesis: Any) -> None:
    fill(kinesis, *"ab")
    _, lost = run(kinesis, Seen(failing_at("a")), maximum_record_age_s=0.5)
    assert lost[0]["requestContext"]["condition"] == "RecordAgeExceeded"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, 3), ({}, 3), ({"batchItemFailures": []}, 3), ({"batchItemFailures": None}, 3),
        ({"batchItemFailures": [{"itemIdentifier": "30"}, {"itemIdentifier": "20"}]}, 1),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, 0), ({"batchItemFailures": [{"itemIdentifier": None}]}, 0),
        ({"batchItemFailures": [{"sequenceNumber": "20"}]}, 0), ({"batchItemFailures": [{"itemIdentifier": "99"}]}, 0),
        ({"batchItemFailures": "20"}, 0), ({"batchItemFailures": ["20"]}, 0), ("done", 0),
    ],
)  # fmt: skip
def test_a_response_leaves_behind_what_it_does_not_report(answer: Any, expected: int) -> None:
    assert lambda_runner.done(answer, ["10", "20", "30"]) == expected


def test_latest_begins_with_what_comes_and_a_state_with_what_is_left(kinesis: Any, tmp_path: Path) -> None:
    fill(kinesis, "a")
    seen = Seen()
    with Runner(kinesis, seen, EventSource(STREAM, starting_position="LATEST"), tmp_path / "state") as runner:
        fill(kinesis, "b")
        runner.drain()
    fill(kinesis, "c")
    run(kinesis, seen, tmp_path / "state")
    assert seen.batches == ["b", "c"]


def test_disabled_it_invokes_nothing(kinesis: Any) -> None:
    seen = Seen()
    runner = Runner(kinesis, seen, EventSource(STREAM))
    runner.enabled.clear()
    with runner:
        fill(kinesis, "a")
        time.sleep(0.3)
        assert seen.batches == []
        runner.enabled.set()
        runner.drain()
    assert seen.batches == ["a"]


def test_cloudwatch_is_told_how_far_behind_the_function_is(kinesis: Any) -> None:
    cloudwatch = boto3.client("cloudwatch", region_name=config.AWS_REGION)
    fill(kinesis, "a")
    source = EventSource(STREAM, function_name="f")
    with Runner(kinesis, Seen(), source, now=lambda: time.time() + 60, cloudwatch=cloudwatch) as runner:
        runner.drain()
    now = datetime.now(UTC)
    (point,) = cloudwatch.get_metric_statistics(
        Namespace="AWS/Lambda", MetricName="IteratorAge", Dimensions=[{"Name": "FunctionName", "Value": "f"}], Period=600,
        StartTime=now - timedelta(minutes=9), EndTime=now + timedelta(minutes=1), Statistics=["Maximum"],
    )["Datapoints"]  # fmt: skip
    assert 60_000 <= point["Maximum"] < 180_000


def test_children_of_a_shard_are_read_after_it(kinesis: Any) -> None:
    seen = Seen()
    with Runner(kinesis, seen, EventSource(STREAM, batch_size=1)) as runner:
        fill(kinesis, *"abc")
        shard = kinesis.list_shards(StreamName=STREAM)["Shards"][0]["ShardId"]
        kinesis.split_shard(StreamName=STREAM, ShardToSplit=shard, NewStartingHashKey=str(2**127))
        fill(kinesis, *"def")
        runner.drain()
    assert sorted(seen.batches) == [*"abcdef"]
    assert [each for each in seen.batches if each in "abc"] == [*"abc"]


# --- deployed ---------------------------------------------------------------------------------------------------------


def test_the_function_imports_the_standard_library_and_boto3_only() -> None:
    imported = set()
    for file in FUNCTION.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add((node.module or "").partition(".")[0])
    assert imported - {*sys.stdlib_module_names} == {"boto3", "botocore", "cdc_apply"}


def test_the_zip_runs_where_there_is_nothing_but_boto3(tmp_path: Path) -> None:
    archive = lambda_runner.package(FUNCTION, tmp_path / "cdc_apply.zip")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for name in ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        origin = Path(str(spec.origin))
        origin = origin.parent if origin.name == "__init__.py" else origin
        (runtime / origin.name).symlink_to(origin)
    code = f"""
import sys
sys.path[:0] = [{str(archive)!r}, {str(runtime)!r}]
from cdc_apply.handler import lambda_handler
class Context:
    get_remaining_time_in_millis = staticmethod(lambda: 60_000)
print(lambda_handler({{"Records": []}}, Context))
print([path for path in sys.path if "site-packages" in path])
"""
    told = {"tables": {"shop.rides": {"target": "t", "key": {"pk": "{id}"}}}, "rejects": "s3://rejects/cdc"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False,
        env={"CDC_SETTINGS": json.dumps(told), "AWS_DEFAULT_REGION": config.AWS_REGION},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["{'batchItemFailures': []}", "[]"], done.stderr


def test_the_readme_deploys_it_with_every_setting_of_the_mapping_that_keeps_records() -> None:
    readme = (FUNCTION / "README.md").read_text()
    (command,) = re.findall(r"aws lambda create-event-source-mapping.*?```", readme, re.DOTALL)
    for option in (
        "--function-response-types ReportBatchItemFailures", "--bisect-batch-on-function-error", "--maximum-retry-attempts 1000",
        "--parallelization-factor 1", '"OnFailure"', "--starting-position TRIM_HORIZON",
    ):  # fmt: skip
        assert option in command
    assert "zip -r cdc_apply.zip cdc_apply" in readme
    assert "--handler cdc_apply.handler.lambda_handler" in readme


def test_the_same_files_are_the_same_zip(tmp_path: Path) -> None:
    first, second = (lambda_runner.package(FUNCTION, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    assert {*zipfile.ZipFile(first).namelist()} == {f"cdc_apply/{path.name}" for path in FUNCTION.glob("*.*")}


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployed]]:
    made: list[Deployed] = []

    def deployed(source: str | Path, handler: str, timeout_s: float = 30, **environment: str) -> Deployed:
        if isinstance(source, str):
            folder = tmp_path / "own"
            folder.mkdir()
            (folder / "f.py").write_text(source)
            source = folder
        archive = lambda_runner.package(source, tmp_path / "f.zip")
        made.append(Deployed(archive, handler, environment, tmp_path / "log", timeout_s))
        return made[-1]

    yield deployed
    for each in made:
        each.close()


def test_a_function_that_raises_hangs_or_ends_is_an_error_and_the_next_invocation_works(
    deploy: Any, tmp_path: Path
) -> None:
    source = """
import os, time
def f(event, context):
    print("log of the function", context.get_remaining_time_in_millis() > 0)
    if event == "raise": raise ValueError("no")
    if event == "hang": time.sleep(60)
    if event == "end": os._exit(3)
    return [event, os.environ.get("GIVEN"), "HOME" in os.environ]
"""
    function = deploy(source, "own.f.f", GIVEN="yes")
    for event, said in (
        ("raise", "ValueError: no"),
        ("hang", "Task timed out after 1.00 seconds"),
        ("end", "Runtime exited"),
    ):
        function.timeout_s = 1 if event == "hang" else 30
        with pytest.raises(FunctionError, match=said):
            function(event)
        function.timeout_s = 30
        assert function("ok") == ["ok", "yes", False]
    assert (tmp_path / "log").read_text().count("log of the function True") == 6


def rows(item: Any) -> dict[str, Any]:
    return {name: value for name, value in item.items() if not name.startswith("_")}


def test_end_to_end_the_table_equals_the_rows_although_the_function_is_killed(
    deploy: Any, moto_server: str, tmp_path: Path
) -> None:
    name, stream = f"rides-{tmp_path.name}", f"stream-{tmp_path.name}"[:100]
    dynamodb, kinesis, s3 = (aws.client(each, moto_server) for each in ("dynamodb", "kinesis", "s3"))
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )  # fmt: skip
    kinesis.create_stream(StreamName=stream, ShardCount=2)
    bucket = "rejects-of-the-runner"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": config.AWS_REGION})
    told = {
        "tables": {"shop.rides": {"target": name, "key": {"pk": "RIDE#{id}"}, "columns": {"id": "integer"}}},
        "rejects": f"s3://{bucket}/{tmp_path.name}",
    }
    function = deploy(
        FUNCTION, "cdc_apply.handler.lambda_handler", AWS_ENDPOINT_URL=moto_server, CDC_SETTINGS=json.dumps(told)
    )

    expected: dict[int, Any] = {}
    records = [(key, load({"id": key, "n": 0})) for key in range(20)]
    for at in range(1, 151):
        key = at * 7 % 40
        if at % 5 == 0:
            expected[key] = None
            records.append((key, change("delete", at, {"id": key, "n": at})))
        else:
            expected[key] = at
            records.append((key, change("update", at, {"id": key, "n": at})))
    expected = {key: expected.get(key, 0) for key in range(40) if key in expected or key < 20}
    records.insert(100, (0, "poison"))

    def batch(slice_: list[Any]) -> list[Any]:
        return [
            {"Data": (each if isinstance(each, str) else json.dumps(each)).encode(), "PartitionKey": str(key)}
            for key, each in slice_
        ]

    ended = threading.Event()

    def killer() -> None:
        for after in (1, 4, 7):
            while runner.invocations < after and not ended.wait(0.005):
                pass
            while not function.kill() and not ended.wait(0.001):
                pass

    runner = Runner(kinesis, function, EventSource(stream, batch_size=20, backoff_s=0.01), tmp_path / "state")
    thread = threading.Thread(target=killer)
    try:
        for start in range(0, len(records), 100):
            kinesis.put_records(StreamName=stream, Records=batch(records[start : start + 100]))
        kinesis.put_records(StreamName=stream, Records=batch(records[50:150]))  # DMS writes at least once
        with runner:
            thread.start()
            runner.drain(120)
    finally:
        ended.set()
        thread.join()
    found = {item["pk"]["S"]: rows(item) for item in dynamodb.scan(TableName=name)["Items"]}
    assert found == {
        f"RIDE#{key}": {
            "pk": {"S": f"RIDE#{key}"},
            **({} if n is None else {"id": {"N": str(key)}, "n": {"N": str(n)}}),
        }
        for key, n in expected.items()
    }
    assert len(s3.list_objects_v2(Bucket=bucket, Prefix=tmp_path.name)["Contents"]) == 2
