"""ImportTable for DynamoDB Local, which has none: a door in front of it that answers the three calls of an import.

All others are passed on. An import reads the objects from the simulated S3, makes the table in DynamoDB Local and puts the items
there, in the account of the key that asks. As on AWS: the table must not exist; a token within eight hours is one import; of items with one
key any is left, here the one that is read last; an item that is refused is counted and written to the log group
``/aws-dynamodb/imports``; of an object that is not JSON the rest is left out. ``python -m lab.dynamodb_import --port N`` serves until
SIGTERM; tests use `serve`.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import http.client
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.exceptions import ClientError

from lab import aws, config

LOG_GROUP = "/aws-dynamodb/imports"
TOKEN_S = 8 * 3600
CALLS = ("ImportTable", "DescribeImport", "ListImports")
_KEY = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/")


class RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Import:
    """One import; `asked` is its request."""

    arn: str
    asked: dict[str, Any]
    key: str
    region: str
    started: float = field(default_factory=time.time)
    status: str = "IN_PROGRESS"
    ended: float | None = None
    processed: int = 0
    imported: int = 0
    errors: int = 0
    size: int = 0
    failure: tuple[str, str] = ("", "")

    @property
    def table(self) -> str:
        return str(self.asked["TableCreationParameters"]["TableName"])

    def described(self) -> dict[str, Any]:
        made = {
            "ImportArn": self.arn, "ImportStatus": self.status, "TableArn": self.arn.partition("/import/")[0],
            "CloudWatchLogGroupArn": f"arn:aws:logs:{self.region}:{config.AWS_ACCOUNT}:log-group:{LOG_GROUP}:*", "StartTime": self.started,
            "ProcessedItemCount": self.processed, "ImportedItemCount": self.imported, "ErrorCount": self.errors,
            "ProcessedSizeBytes": self.size, **self.asked,
        }  # fmt: skip
        if self.ended is not None:
            made["EndTime"] = self.ended
        if self.failure[0]:
            made |= {"FailureCode": self.failure[0], "FailureMessage": self.failure[1]}
        return made


class Imports:
    """All imports of one door."""

    def __init__(self, dynamodb: str, s3: str) -> None:
        self.dynamodb, self.s3 = dynamodb, s3
        """Addresses."""
        self.go = threading.Event()
        """Cleared, an import stays IN_PROGRESS."""
        self.go.set()
        self.found: dict[str, Import] = {}
        self._lock = threading.Lock()

    def answer(self, call: str, asked: dict[str, Any], key: str, region: str) -> dict[str, Any]:
        """What a call is answered.

        Raises:
            RefusedError: with the code of AWS
        """
        if call == "ImportTable":
            return {"ImportTableDescription": self._start(asked, key, region).described()}
        mine = [each for each in self.found.values() if (each.key, each.region) == (key, region)]
        if call == "ListImports":
            names = ("ImportArn", "ImportStatus", "TableArn", "S3BucketSource", "CloudWatchLogGroupArn", "StartTime")
            return {"ImportSummaryList": [{n: each.described()[n] for n in names} for each in mine]}
        for each in mine:
            if each.arn == asked.get("ImportArn"):
                return {"ImportTableDescription": each.described()}
        raise RefusedError("ImportNotFoundException", f"Import not found: {asked.get('ImportArn')}")

    def _start(self, asked: dict[str, Any], key: str, region: str) -> Import:
        with self._lock:
            token, table = asked.get("ClientToken"), asked["TableCreationParameters"]["TableName"]
            for each in self.found.values():
                if token and each.asked.get("ClientToken") == token and time.time() - each.started < TOKEN_S:
                    if each.asked != asked:
                        raise RefusedError("ImportConflictException", "the token was used with other parameters")
                    return each
            client = aws.client("dynamodb", self.dynamodb, key=key, region=region)
            try:
                client.describe_table(TableName=table)
                raise RefusedError("ResourceInUseException", f"Table already exists: {table}")
            except client.exceptions.ResourceNotFoundException:
                pass
            number = f"{int(time.time() * 1000)}-{uuid.uuid4().hex[:8]}"
            arn = f"arn:aws:dynamodb:{region}:{config.AWS_ACCOUNT}:table/{table}/import/{number}"
            made = self.found[arn] = Import(arn, asked, key, region)
        threading.Thread(target=self._run, args=(made, client), daemon=True).start()
        return made

    def _run(self, made: Import, client: Any) -> None:
        try:
            source, parameters = made.asked["S3BucketSource"], made.asked["TableCreationParameters"]
            client.create_table(**parameters)
            self.go.wait()
            s3 = aws.client("s3", self.s3, region=made.region)
            pages = s3.get_paginator("list_objects_v2").paginate(
                Bucket=source["S3Bucket"], Prefix=source.get("S3KeyPrefix", "")
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    body = s3.get_object(Bucket=source["S3Bucket"], Key=entry["Key"])["Body"].read()
                    self._object(made, client, source["S3Bucket"], entry["Key"], body)
            made.status = "COMPLETED"
        except ClientError as error:
            made.status = "FAILED"
            made.failure = (error.response["Error"]["Code"], error.response["Error"]["Message"])
        except Exception as error:
            made.status, made.failure = "FAILED", ("InternalServerError", repr(error))
        made.ended = time.time()

    def _object(self, made: Import, client: Any, bucket: str, key: str, body: bytes) -> None:
        plain = gzip.decompress(body) if made.asked.get("InputCompressionType") == "GZIP" else body
        made.size += len(plain)
        for index, text in enumerate(plain.splitlines()):
            made.processed += 1
            try:
                item = json.loads(text)["Item"]
                client.put_item(TableName=made.table, Item={name: _attribute(value) for name, value in item.items()})
                made.imported += 1
            except ClientError as error:
                self._refuse(made, bucket, key, index, error.response["Error"]["Message"])
            except (ValueError, KeyError, TypeError) as error:
                self._refuse(made, bucket, key, index, f"Encountered invalid input: {type(error).__name__}")
                return  # the rest of the object is left

    def _refuse(self, made: Import, bucket: str, key: str, index: int, message: str) -> None:
        made.errors += 1
        logs = aws.client("logs", self.s3, region=made.region)
        stream = f"{made.arn.rpartition('/')[2]}/error"
        for create in (
            lambda: logs.create_log_group(logGroupName=LOG_GROUP),
            lambda: logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream),
        ):
            try:
                create()
            except logs.exceptions.ResourceAlreadyExistsException:
                continue
        pointer = {"bucket": bucket, "key": key, "itemIndex": index}
        text = json.dumps({"itemS3Pointer": pointer, "importArn": made.arn, "errorMessages": [message]})
        logs.put_log_events(
            logGroupName=LOG_GROUP, logStreamName=stream,
            logEvents=[{"timestamp": int(time.time() * 1000), "message": text}],
        )  # fmt: skip


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    """From DynamoDB JSON to the form of the client, which encodes bytes itself."""
    ((kind, plain),) = value.items()
    match kind:
        case "B":
            return {"B": base64.b64decode(plain)}
        case "BS":
            return {"BS": [base64.b64decode(each) for each in plain]}
        case "L":
            return {"L": [_attribute(each) for each in plain]}
        case "M":
            return {"M": {name: _attribute(each) for name, each in plain.items()}}
    return value


@contextmanager
def serve(dynamodb: str, s3: str, port: int = 0) -> Iterator[tuple[str, Imports]]:
    """A door in threads of this process; gives its address and its imports.

    Args:
        dynamodb: address of DynamoDB Local
        s3: address of the simulated AWS
        port: 0 for any
    """
    imports = Imports(dynamodb, s3)

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            if call not in CALLS:
                self._pass_on(body)
                return
            found = _KEY.search(self.headers.get("Authorization", ""))
            key, region = found.groups() if found else ("", config.AWS_REGION)
            try:
                self._say(200, imports.answer(call, json.loads(body), key, region))
            except RefusedError as error:
                kind = f"com.amazonaws.dynamodb.v20120810#{error.code}"
                self._say(400, {"__type": kind, "message": str(error)})

        def _pass_on(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(dynamodb.removeprefix("http://"), timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        def _say(self, status: int, plain: dict[str, Any]) -> None:
            content = json.dumps(plain).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Not one line for every request."""

    server = ThreadingHTTPServer((config.HOST, port), Door)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{config.HOST}:{server.server_address[1]}", imports
    finally:
        imports.go.set()
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lab.dynamodb_import", description="Serve ImportTable.")
    parser.add_argument("--port", type=int, required=True)
    with serve(config.dynamodb_endpoint(), config.aws_endpoint(), parser.parse_args().port) as (address, _):
        print(address, flush=True)
        threading.Event().wait()
