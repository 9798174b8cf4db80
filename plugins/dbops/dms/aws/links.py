"""Links to the AWS console."""

from __future__ import annotations

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink


class DmsTaskLink(BaseAwsLink):
    """Helper class for constructing the link to a replication task, or to the list of serverless replications."""

    name = "DMS Task"
    key = "dms_task"
    format_str = BASE_AWS_CONSOLE_LINK + "/dms/v2/home?region={region_name}#{fragment}"

    @staticmethod
    def fragment(identifier: str, *, is_serverless: bool) -> str:
        """The page of the console."""
        return "serverlessReplications" if is_serverless else f"taskDetails/{identifier}"
