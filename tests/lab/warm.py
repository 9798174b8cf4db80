"""What every worker has done before it is forked; nothing of dbops, whose functions a worker replaces by ones that kill it."""

from __future__ import annotations

import boto3

from tests import clients

clients.read_files_once()
clients.ask_no_stack()
for service in ("cloudwatch", "dms", "dynamodb", "rds", "s3", "sns"):
    boto3.client(service, region_name="eu-central-1", aws_access_key_id="none", aws_secret_access_key="none")
