"""Links to the AWS console."""

from __future__ import annotations

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink


class DmsReplicationTaskLink(BaseAwsLink):
    """Helper class for constructing the link to a replication task."""

    name = "DMS Replication Task"
    key = "dms_replication_task"
    format_str = BASE_AWS_CONSOLE_LINK + "/dms/v2/home?region={region_name}#taskDetails/{replication_task_id}"


class DmsReplicationConfigsLink(BaseAwsLink):
    """Helper class for constructing the link to the list of serverless replications."""

    name = "DMS Serverless Replications"
    key = "dms_serverless_replications"
    format_str = BASE_AWS_CONSOLE_LINK + "/dms/v2/home?region={region_name}#serverlessReplications"
