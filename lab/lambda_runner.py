"""The simulated AWS has no Lambda: this feeds a Kinesis stream to a function, as an event source mapping does.

Semantics of "Configuring partial batch response with Kinesis Data Streams" of the Lambda guide: a batch of one shard at a time, in order;
on an error all of it again, in halves with bisect; with ReportBatchItemFailures from the lowest reported sequence number on, and a
malformed report is a failure of all. A batch that has been retried often enough, and a record that is too old, are passed over; the
destination for failures is told where they are, not what they hold. AWS does not document whether progress begins a new count of retries
and whether a split is one; here it does not and is not.

``python -m lab.lambda_runner JOB.json`` is a mapping in a process of its own, until SIGTERM: see `serve`.

Not simulated: ParallelizationFactor, filters, tumbling windows.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lab import aws, config
from lab.config import LabError

Record = dict[str, Any]
Function = Callable[[dict[str, Any]], Any]
PAYLOAD_BYTES = 6 * 1024 * 1024
POLL_S = 0.1
LONGEST_BACKOFF_S = 5.0
# Runs in the function's process. Its standard output is the function's log, so that answers take a pipe of their own.
RUNTIME = """
import importlib, json, os, sys, time, traceback
folder, name, descriptor = sys.argv[1:]
sys.path.insert(0, folder)
answers = os.fdopen(int(descriptor), "w")
module, _, function = name.rpartition(".")
class Context:
    aws_request_id = function_name = ""
    def get_remaining_time_in_millis(self):
        return max(0, int((self.deadline - time.time()) * 1000))
for line in sys.stdin:
    asked, context = json.loads(line), Context()
    context.deadline, context.aws_request_id = asked["deadline"], asked["id"]
    try:
        answer = {"result": getattr(importlib.import_module(module), function)(asked["event"], context)}
    except BaseException as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.flush()
    print(json.dumps(answer), file=answers, flush=True)
"""


class FunctionError(RuntimeError):
    """The function raised, timed out or ended."""


class RuntimeEndedError(FunctionError):
    """The instance timed out or ended; the next invocation needs another."""


def package(folder: Path, to: Path, *more: Path) -> Path:
    """Zip a folder of include/lambda as it is deployed; the function's name is then ``<folder>.<module>.<function>``.

    Args:
        folder: of the function
        to: the zip
        more: other folders beside it, or files, which keep their place below ``plugins``
    """
    with zipfile.ZipFile(to, "w") as archive:
        for top in (folder, *more):
            parent = config.ROOT / "plugins" if (config.ROOT / "plugins") in top.parents else top.parent
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if not path.is_file() or "__pycache__" in path.parts:
                    continue
                entry = zipfile.ZipInfo(str(path.relative_to(parent)))  # no times: the same files are the same zip
                entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return to


def package_cdc_redis(to: Path) -> Path:
    """Zip cdc_redis with what it is made of, as its README says; redis-py is that of this environment."""
    functions, dbops = config.ROOT / "include" / "lambda", config.ROOT / "plugins" / "dbops"
    files = [dbops / f"{name}.py" for name in ("__init__", "asking", "mysql", "sql")]
    return package(functions / "cdc_redis", to, functions / "cdc_apply", dbops / "keyvalue", *files)


class Instance:
    """A process that runs the function, one invocation at a time."""

    def __init__(self, folder: Path, handler: str, environment: Mapping[str, str], log: Path) -> None:
        self._answers, theirs = os.pipe()
        command = [sys.executable, "-Iu", "-c", RUNTIME, str(folder), handler, str(theirs)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=out, pass_fds=[theirs], text=True
            )
        os.close(theirs)

    def invoke(self, event: dict[str, Any], timeout_s: float) -> Any:
        """Invoke the function.

        Raises:
            FunctionError: it raised
            RuntimeEndedError: it timed out or ended
        """
        assert self.process.stdin is not None
        asked = {"event": event, "deadline": time.time() + timeout_s, "id": str(uuid.uuid4())}
        with suppress(OSError):  # it has ended, so there is no answer
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        until = time.monotonic() + timeout_s
        answer = self._answer(until)
        if answer is None:
            hangs = self.process.poll() is None and time.monotonic() >= until
            raise RuntimeEndedError(f"Task timed out after {timeout_s:.2f} seconds" if hangs else "Runtime exited")
        if "error" in answer:
            raise FunctionError(answer["error"])
        return answer["result"]

    def end(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        os.close(self._answers)

    def _answer(self, until: float) -> dict[str, Any] | None:
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            read = os.read(self._answers, 65536) if ready else b""
            if not read:
                return None
            text += read
        answer: dict[str, Any] = json.loads(text)
        return answer


class Deployed:
    """A function from a zip, with no environment but its own; every invocation at the same time has an instance of its own."""

    def __init__(
        self, archive: Path, handler: str, environment: Mapping[str, str], log: Path, timeout_s: float = 30.0
    ) -> None:
        self.handler, self.log, self.timeout_s = handler, log, timeout_s
        self.environment = {
            "PATH": os.defpath,
            "AWS_REGION": config.AWS_REGION,
            "AWS_DEFAULT_REGION": config.AWS_REGION,
            "AWS_ACCESS_KEY_ID": config.AWS_KEY,
            "AWS_SECRET_ACCESS_KEY": config.AWS_SECRET,
            **environment,
        }
        self._lock = threading.Lock()
        self._free: list[Instance] = []
        self._busy: list[Instance] = []
        self._folder = Path(tempfile.mkdtemp(prefix="lambda-"))
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(self._folder)

    def __call__(self, event: dict[str, Any]) -> Any:
        """Invoke it.

        Raises:
            FunctionError: it raised, timed out or ended
        """
        with self._lock:
            instance = (
                self._free.pop() if self._free else Instance(self._folder, self.handler, self.environment, self.log)
            )
            self._busy.append(instance)
        try:
            return instance.invoke(event, self.timeout_s)
        except RuntimeEndedError:
            with self._lock:
                self._busy.remove(instance)
            instance.end()
            raise
        finally:
            with self._lock:
                if instance in self._busy:
                    self._busy.remove(instance)
                    self._free.append(instance)

    def kill(self) -> int:
        """SIGKILL to what runs an invocation now; returns how many."""
        with self._lock:
            for instance in self._busy:
                instance.process.kill()
            return len(self._busy)

    def close(self) -> None:
        """End the processes and remove the files; nothing may be invoking it."""
        while self._free:
            self._free.pop().end()
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class EventSource:
    """The event source mapping: names and defaults are those of CreateEventSourceMapping."""

    stream: str
    batch_size: int = 100
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON"
    maximum_retry_attempts: int = -1
    maximum_record_age_s: float = -1
    bisect_on_error: bool = False
    report_batch_item_failures: bool = True
    on_failure: Callable[[dict[str, Any]], object] | None = None
    """Gets the message that AWS sends to the destination: which records, not what they hold."""
    backoff_s: float = 0.05
    function_name: str = "cdc-apply"


class Runner:
    """Reads every shard of a stream and invokes the function; where it is outlives it if it is given a file."""

    def __init__(
        self,
        kinesis: Any,
        function: Function,
        source: EventSource,
        state: Path | None = None,
        *,
        now: Callable[[], float] = time.time,
        cloudwatch: Any = None,
    ) -> None:
        self.kinesis, self.function, self.source, self.state, self.now = kinesis, function, source, state, now
        self.cloudwatch = cloudwatch
        """Gets AWS/Lambda IteratorAge of every invocation."""
        self.arn: str = kinesis.describe_stream_summary(StreamName=source.stream)["StreamDescriptionSummary"][
            "StreamARN"
        ]
        self.enabled = threading.Event()
        self.enabled.set()
        self.invocations = 0
        self.age_s: dict[str, float] = {}
        """IteratorAge by shard: how old the last record of the last batch was when the function was given it."""
        self.failure: BaseException | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._checkpoints: dict[str, str] = (
            json.loads(state.read_text()) if state is not None and state.is_file() else {}
        )
        self._closed: set[str] = set()
        self._threads: dict[str, threading.Thread] = {}

    def __enter__(self) -> Runner:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to read, in threads; LATEST is what comes from now on."""
        if self.source.starting_position == "LATEST":
            for shard in (each["ShardId"] for each in self._shards()):
                if shard not in self._checkpoints and (newest := self._newest(shard)) is not None:
                    self._checkpoints[shard] = str(newest)
        self._threads[""] = threading.Thread(target=self._guarded, args=(self._watch,), daemon=True)
        self._threads[""].start()

    def stop(self) -> None:
        """End after the invocation under way; what it had not reached is read again by the next runner."""
        self._ended.set()
        for thread in [*self._threads.values()]:
            thread.join()
        if self.failure is not None:
            raise LabError(f"the runner of {self.source.stream} ended: {self.failure!r}") from self.failure

    def drain(self, seconds: float = 60.0) -> None:
        """Wait until everything that was in the stream has been disposed of.

        Raises:
            LabError: it was not in that time
        """
        end = time.monotonic() + seconds
        newest = {shard["ShardId"]: self._newest(shard["ShardId"]) for shard in self._shards()}
        while not all(self._is_past(shard, sequence) for shard, sequence in newest.items()):
            if self.failure is not None or time.monotonic() > end:
                raise LabError(f"{self.source.stream} was not read to its end within {seconds:.0f} s") from self.failure
            time.sleep(0.02)

    def _is_past(self, shard: str, sequence: int | None) -> bool:
        return sequence is None or int(self._checkpoints.get(shard, 0)) >= sequence

    def _newest(self, shard: str) -> int | None:
        iterator, newest = self._iterator(shard), None
        while iterator:
            answer = self.kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            if not answer["Records"]:
                return newest
            newest, iterator = int(answer["Records"][-1]["SequenceNumber"]), answer.get("NextShardIterator")
        return newest

    def _shards(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked = {"StreamName": self.source.stream}
        while asked:
            answer = self.kinesis.list_shards(**asked)
            found += answer["Shards"]
            asked = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else {}
        return found

    def _iterator(self, shard: str) -> str:
        where = {"ShardIteratorType": "TRIM_HORIZON"}
        if shard in self._checkpoints:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._checkpoints[shard]}
        return str(
            self.kinesis.get_shard_iterator(StreamName=self.source.stream, ShardId=shard, **where)["ShardIterator"]
        )

    def _guarded(self, run: Callable[..., None], *arguments: Any) -> None:
        try:
            run(*arguments)
        except BaseException as error:
            self.failure = error
            self._ended.set()

    def _watch(self) -> None:
        """A shard is read when its parents, from which it was split or merged, have been read to their end."""
        while not self._ended.is_set():
            shards = self._shards()
            present = {shard["ShardId"] for shard in shards}
            for shard in shards:
                name, parents = shard["ShardId"], {shard.get("ParentShardId"), shard.get("AdjacentParentShardId")}
                if name not in self._threads and not (parents & present) - self._closed:
                    self._threads[name] = threading.Thread(target=self._guarded, args=(self._read, name), daemon=True)
                    self._threads[name].start()
            self._ended.wait(1)

    def _read(self, shard: str) -> None:
        iterator: str | None = self._iterator(shard)
        while iterator and not self._ended.is_set():
            if not self.enabled.is_set():
                self._ended.wait(POLL_S)
                continue
            answer = self.kinesis.get_records(ShardIterator=iterator, Limit=self.source.batch_size)
            for batch in _within_payload(answer["Records"]):
                self._dispose(shard, batch)
            iterator = answer.get("NextShardIterator")
            if not answer["Records"]:
                self._ended.wait(POLL_S)
        if not iterator:
            self._closed.add(shard)

    def _dispose(self, shard: str, batch: Sequence[Record]) -> None:
        """Invoke until every record is done with or given up, in order."""
        waiting = [(list(batch), 0)]
        while waiting and not self._ended.is_set():
            records, retries = waiting.pop(0)
            if not (records := self._of_age(shard, records, retries)):
                continue
            failed_at, error = self._invoke(shard, records)
            if failed_at:
                self._checkpoint(shard, records[failed_at - 1])
            if failed_at == len(records):
                continue
            rest = records[failed_at:]
            if self.source.bisect_on_error and failed_at == 0 and len(rest) > 1:
                middle = (len(rest) + 1) // 2
                waiting[:0] = [(rest[:middle], retries), (rest[middle:], retries)]
            elif 0 <= self.source.maximum_retry_attempts <= retries:
                self._give_up(shard, rest, "RetryAttemptsExhausted", retries + 1, error)
            else:
                self._ended.wait(min(LONGEST_BACKOFF_S, self.source.backoff_s * 2 ** min(retries, 20)))
                waiting.insert(0, (rest, retries + 1))

    def _of_age(self, shard: str, records: list[Record], retries: int) -> list[Record]:
        if self.source.maximum_record_age_s < 0:
            return records
        oldest = self.now() - self.source.maximum_record_age_s
        old = [each for each in records if each["ApproximateArrivalTimestamp"].timestamp() < oldest]
        if old:
            self._give_up(shard, old, "RecordAgeExceeded", retries, "")
        return records[len(old) :]

    def _invoke(self, shard: str, records: list[Record]) -> tuple[int, str]:
        """How many records, from the first on, are done; and the text of the error."""
        self.invocations += 1
        self.age_s[shard] = self.now() - records[-1]["ApproximateArrivalTimestamp"].timestamp()
        if self.cloudwatch is not None:
            age = {
                "MetricName": "IteratorAge",
                "Dimensions": [{"Name": "FunctionName", "Value": self.source.function_name}],
                "Value": self.age_s[shard] * 1000,
                "Unit": "Milliseconds",
            }
            self.cloudwatch.put_metric_data(Namespace="AWS/Lambda", MetricData=[age])
        try:
            answer = self.function(self.event(shard, records))
        except FunctionError as error:
            return 0, str(error)
        if not self.source.report_batch_item_failures:
            return len(records), ""
        return done(answer, [each["SequenceNumber"] for each in records]), ""

    def event(self, shard: str, records: Sequence[Record]) -> dict[str, Any]:
        """What the function is given."""
        return {
            "Records": [
                {
                    "kinesis": {
                        "kinesisSchemaVersion": "1.0",
                        "partitionKey": each["PartitionKey"],
                        "sequenceNumber": each["SequenceNumber"],
                        "data": base64.b64encode(each["Data"]).decode(),
                        "approximateArrivalTimestamp": each["ApproximateArrivalTimestamp"].timestamp(),
                    },
                    "eventSource": "aws:kinesis",
                    "eventVersion": "1.0",
                    "eventID": f"{shard}:{each['SequenceNumber']}",
                    "eventName": "aws:kinesis:record",
                    "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda",
                    "awsRegion": config.AWS_REGION,
                    "eventSourceARN": self.arn,
                }
                for each in records
            ]
        }

    def _give_up(self, shard: str, records: Sequence[Record], condition: str, invoked: int, error: str) -> None:
        if self.source.on_failure is not None:
            first, last = records[0], records[-1]
            now = datetime.now(UTC).isoformat()
            self.source.on_failure(
                {
                    "requestContext": {
                        "requestId": str(uuid.uuid4()),
                        "functionArn": f"arn:aws:lambda:{config.AWS_REGION}:123456789012:function:{self.source.function_name}",
                        "condition": condition,
                        "approximateInvokeCount": invoked,
                    },
                    "responseContext": {
                        "statusCode": 200,
                        "executedVersion": "$LATEST",
                        "functionError": error or None,
                    },
                    "version": "1.0",
                    "timestamp": now,
                    "KinesisBatchInfo": {
                        "shardId": shard,
                        "startSequenceNumber": first["SequenceNumber"],
                        "endSequenceNumber": last["SequenceNumber"],
                        "approximateArrivalOfFirstRecord": first["ApproximateArrivalTimestamp"].isoformat(),
                        "approximateArrivalOfLastRecord": last["ApproximateArrivalTimestamp"].isoformat(),
                        "batchSize": len(records),
                        "streamArn": self.arn,
                    },
                }
            )
        self._checkpoint(shard, records[-1])

    def _checkpoint(self, shard: str, record: Record) -> None:
        with self._lock:
            self._checkpoints[shard] = record["SequenceNumber"]
            if self.state is not None:
                new = self.state.with_suffix(".new")
                new.write_text(json.dumps(self._checkpoints))
                new.replace(self.state)


def serve(job: Path) -> None:
    """Feed the function until SIGTERM. After any other end the same call goes on from the state.

    Args:
        job: a JSON file with ``endpoint`` (of Kinesis and SQS); ``archive``, ``handler``, ``environment``, ``timeout_s`` and ``log`` of the
            function; ``source`` (an `EventSource` without its destination); ``queue`` (URL of the destination, or null) and ``state``

    Raises:
        LabError: the stream cannot be read any more
    """
    told: dict[str, Any] = json.loads(job.read_text())
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    sqs = aws.client("sqs", told["endpoint"])

    def send(message: dict[str, Any]) -> None:
        sqs.send_message(QueueUrl=told["queue"], MessageBody=json.dumps(message))

    source = EventSource(**told["source"], on_failure=send if told["queue"] else None)
    function = Deployed(
        Path(told["archive"]), told["handler"], told["environment"], Path(told["log"]), told["timeout_s"]
    )
    try:
        with Runner(aws.client("kinesis", told["endpoint"]), function, source, Path(told["state"])) as runner:
            while runner.failure is None and not ended.wait(POLL_S):
                pass
    finally:
        function.close()


def done(answer: Any, sequences: Sequence[str]) -> int:
    """How many records, from the first on, a partial batch response leaves behind."""
    if answer is None or answer == {}:
        return len(sequences)
    failures = answer.get("batchItemFailures", ()) if isinstance(answer, dict) else ""
    if failures is None:
        return len(sequences)
    if not isinstance(failures, list | tuple):
        return 0
    failed = [each.get("itemIdentifier") if isinstance(each, dict) else None for each in failures]
    if any(each not in sequences for each in failed):
        return 0
    return min((sequences.index(each) for each in failed), default=len(sequences))


def _within_payload(records: Sequence[Record]) -> list[list[Record]]:
    """Batches that fit into an event."""
    batches: list[list[Record]] = []
    size = 0
    for record in records:
        bytes_of_it = len(record["Data"]) * 4 // 3 + 500
        if not batches or size + bytes_of_it > PAYLOAD_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(record)
        size += bytes_of_it
    return batches


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
