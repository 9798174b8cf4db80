"""The simulated AWS: moto's server as a process of its own, and what the product expects to find in the account.

The lab runs it with real databases behind RDS: ``python -m lab.rds``. ``python -m lab.aws --port 18450`` is moto alone, which needs
no MySQL. Both serve until SIGTERM. All state is in memory: a new process is a new account.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lab import config
from lab.config import LabError
from lab.processes import Service, http_get


def serve(host: str, port: int, at_end: Callable[[], object] = lambda: None) -> None:
    """Answer AWS API calls until SIGTERM; what `at_end` ends does not have to wait for threads that still work."""

    def end(*_: object) -> None:
        at_end()
        os._exit(0)

    # moto reads this to build the URLs that it hands out, such as those of queues.
    os.environ["MOTO_PORT"] = str(port)
    from moto import backends
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    from lab import kinesis

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not one line for every request
    signal.signal(signal.SIGTERM, end)
    kinesis.install()
    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services  # it lists moto's folder at every request
    application = DomainDispatcherApplication(create_backend_app)
    make_server(host, port, application, threaded=True, request_handler=MotoRequestHandler).serve_forever()


def service() -> Service:
    def prepare() -> list[str]:
        address = ["--host", config.HOST, "--port", str(config.port("aws"))]
        return [sys.executable, "-m", "lab.rds", *address, "--folder", str(config.home() / "rds")]

    def ready() -> None:
        http_get("aws", "/moto-api/config")

    return Service("aws", prepare, ready, deadline_s=60, cwd=config.ROOT)


def client(  # boto3 makes its classes at run time
    service_name: str, endpoint: str | None = None, *, key: str = config.AWS_KEY, region: str = config.AWS_REGION
) -> Any:
    """A boto3 client of the lab's account; what goes to DynamoDB needs DynamoDB Local's endpoint (`lab.dynamodb.client`)."""
    return boto3.client(
        service_name,
        endpoint_url=endpoint or config.aws_endpoint(),
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=config.AWS_SECRET,
        config=Config(retries={"max_attempts": 2}, proxies={}),
    )


def is_provisioned() -> bool:
    """Whether this account has been set up, which is to say that it still holds the lake."""
    try:
        client("s3").head_bucket(Bucket=config.LAKE_BUCKET)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False
    return True


def provision(endpoint: str | None = None) -> None:
    """Create buckets, topic, queue and subscription; the lake's bucket last, because it marks the account as set up."""
    sns, sqs, s3 = (client(name, endpoint) for name in ("sns", "sqs", "s3"))
    topic = sns.create_topic(Name=config.ALERTS)["TopicArn"]
    url = sqs.create_queue(QueueName=config.ALERTS)["QueueUrl"]
    policy = {
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": config.ALERTS_QUEUE_ARN,
        }
    }
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=config.ALERTS_QUEUE_ARN)
    for bucket in (config.REPORTS_BUCKET, config.LAKE_BUCKET):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": config.AWS_REGION})


def newest_report() -> Path:
    """Copy the newest HTML report of the bucket to .lab/reports, and return its path there.

    Raises:
        LabError: the account does not answer, or holds no report
    """
    s3 = client("s3")
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=config.REPORTS_BUCKET)
        reports = [entry for page in pages for entry in page.get("Contents", ()) if entry["Key"].endswith(".html")]
    except (BotoCoreError, ClientError) as error:
        raise LabError(f"cannot list s3://{config.REPORTS_BUCKET} ({error}): run `python -m lab up`") from error
    if not reports:
        raise LabError(f"s3://{config.REPORTS_BUCKET} holds no *.html: reports appear there when a DAG has run")
    key = max(reports, key=lambda entry: entry["LastModified"])["Key"]
    path = config.home() / "reports" / Path(key).name
    path.parent.mkdir(parents=True, exist_ok=True)
    s3.download_file(config.REPORTS_BUCKET, key, str(path))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lab.aws", description="Serve the simulated AWS.")
    parser.add_argument("--host", default=config.HOST)
    parser.add_argument("--port", type=int, default=config.DEFAULT_PORTS["aws"])
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port)
