"""The only file that Airflow's plugin scanner executes: registers the report pages and the report link."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from dbops.reports import ReportLink


async def report_pages(scope: dict[str, Any], receive: object, send: object) -> None:
    """The FastAPI app of dbops.ui, imported at its first request.

    Workers load this file too and should not pay for the API server.
    """
    from dbops.ui import app

    await app(scope, receive, send)  # type: ignore[arg-type]


class DbopsPlugin(AirflowPlugin):
    """Report pages at /dbops/, a menu entry for them and the button "dbops report" on tasks."""

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
    operator_extra_links = [ReportLink()]  # noqa: RUF012
