"""The only file that Airflow's plugin scanner executes: registers the report pages and the links on tasks."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from dbops.blue_green.aws import links
from dbops.reports import ReportLink


async def report_pages(scope: dict[str, Any], receive: object, send: object) -> None:
    """The FastAPI app of dbops.ui, imported at its first request.

    Workers load this file too and should not pay for the API server.
    """
    from dbops.ui import app

    await app(scope, receive, send)  # type: ignore[arg-type]


class DbopsPlugin(AirflowPlugin):
    """Report pages at /dbops/, a menu entry for them, the button "dbops report" on tasks, and links to the AWS console."""

    name = "dbops"
    fastapi_apps = [{"app": report_pages, "url_prefix": "/dbops", "name": "dbops reports"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "dbops reports",
            "href": "dbops/",
            "destination": "nav",
            "category": "browse",
            "url_route": "dbops-reports",
        }
    ]
    operator_extra_links = [  # noqa: RUF012
        ReportLink(),
        links.BlueGreenDeploymentLink(),
        links.RdsDbClusterLink(),
        links.RdsDbInstanceLink(),
        links.RdsDbClusterParameterGroupLink(),
    ]
