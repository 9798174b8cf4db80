"""Links to the AWS console."""

from __future__ import annotations

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink


class BlueGreenDeploymentLink(BaseAwsLink):
    """Helper class for constructing the link to a Blue/Green deployment: the list of databases, which shows it and both its sides."""

    name = "Blue/Green Deployment"
    key = "rds_blue_green_deployment"
    format_str = BASE_AWS_CONSOLE_LINK + "/rds/home?region={region_name}#databases:"


class RdsDbClusterLink(BaseAwsLink):
    """Helper class for constructing the link to a DB cluster."""

    name = "DB Cluster"
    key = "rds_db_cluster"
    format_str = (
        BASE_AWS_CONSOLE_LINK + "/rds/home?region={region_name}#database:id={db_cluster_identifier};is-cluster=true"
    )


class RdsDbInstanceLink(BaseAwsLink):
    """Helper class for constructing the link to a DB instance."""

    name = "DB Instance"
    key = "rds_db_instance"
    format_str = (
        BASE_AWS_CONSOLE_LINK + "/rds/home?region={region_name}#database:id={db_instance_identifier};is-cluster=false"
    )


class RdsDbClusterParameterGroupLink(BaseAwsLink):
    """Helper class for constructing the link to a DB cluster parameter group."""

    name = "DB Cluster Parameter Group"
    key = "rds_db_cluster_parameter_group"
    format_str = (
        BASE_AWS_CONSOLE_LINK
        + "/rds/home?region={region_name}#parameter-groups-detail:ids={db_cluster_parameter_group_name};"
        + "type=DbClusterParameterGroup;editing=false"
    )
