"""Create what the DAGs expect in the simulated AWS, and the tables of the Iceberg catalog; harmless when they exist.

Runs in the service airflow-init of docker-compose.yaml, with the connections of Airflow.
"""

from __future__ import annotations

import sys

from dbops import connections
from lab import aws, config


def main() -> None:
    """Provision; exits with a message when the simulated AWS has forgotten the lake that the catalog describes."""
    catalog = connections.iceberg_catalog()
    buckets = {bucket["Name"] for bucket in connections.aws_client("s3").list_buckets()["Buckets"]}
    if {config.LAKE_BUCKET, config.REPORTS_BUCKET} <= buckets:
        return
    if catalog.list_namespaces():
        sys.exit(
            "The simulated S3 is new and empty, but the Iceberg catalog describes objects of the old one. "
            "Start all over: docker compose down --volumes"
        )
    aws.provision(connections.extra(connections.AWS)["endpoint_url"])


if __name__ == "__main__":
    main()
