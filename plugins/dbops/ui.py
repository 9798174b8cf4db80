"""The read-only report pages at /dbops/: a FastAPI app that Airflow's API server mounts.

Mounted plugin apps get no login check from Airflow, so every route here depends on one: a signed-in user who may view
plugins. Routes are plain functions, which FastAPI runs in threads: a slow store must not block the API server's event
loop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view, requires_authenticated
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse

from dbops import reports
from dbops.store import Store, StoreError

log = logging.getLogger(__name__)

LISTED = 200
HEADERS = {
    # The page is shown in a frame of the Airflow origin: even HTML that slipped through must not run, load or post
    # anything.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

app = FastAPI(
    title="dbops reports",
    dependencies=[Depends(requires_authenticated()), Depends(requires_access_view(AccessView.PLUGINS))],
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
)


@lru_cache(maxsize=1)
def store() -> Store:
    """The store of this process; its engine pools the connections."""
    return Store.open()


@app.middleware("http")
async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Every answer, errors included, carries the headers."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


@app.get("/")
def index() -> HTMLResponse:
    """The newest reports of every DAG."""
    try:
        newest = store().newest(LISTED)
    except Exception as error:
        return _unavailable(error)
    return HTMLResponse(reports.environment().get_template("index.html").render(reports=newest, limit=LISTED))


@app.get("/report/{report_id}")
def report(report_id: int) -> HTMLResponse:
    """One report."""
    try:
        return HTMLResponse(store().report_html(report_id))
    except StoreError as error:
        raise HTTPException(404, f"There is no report {report_id}.") from error
    except Exception as error:
        return _unavailable(error)


def _unavailable(error: Exception) -> HTMLResponse:
    # the cause may name hosts and users: it goes to the log of the API server, not to the reader
    log.error("the report store cannot be read", exc_info=error)
    page = reports.environment().get_template("message.html")
    text = (
        "The report store cannot be read now. "
        "The API server needs the Airflow connection dbops_store; its log has the cause."
    )
    return HTMLResponse(page.render(title="Reports are unavailable", body=text), status_code=503)
