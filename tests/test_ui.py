from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from dbops.reports import Report, Verdict
from dbops.store import Store


@pytest.fixture(scope="module")
def airflow_api(request):
    """Airflow's own API server application, with this repository's plugin in it."""
    request.getfixturevalue("airflow_db")
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow.api_fastapi.app import create_app, purge_cached_app

    purge_cached_app()
    yield create_app()
    purge_cached_app()
    os.environ.pop("_AIRFLOW_PROCESS_CONTEXT")


@pytest.fixture
def client(airflow_api):
    from fastapi.testclient import TestClient

    return TestClient(airflow_api, base_url="http://airflow.example.com", follow_redirects=False)


@pytest.fixture
def token(airflow_api):
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def sign(role: str) -> str:
        return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="dba", role=role))

    return sign


@pytest.fixture
def store(tmp_path, monkeypatch):
    from dbops import ui

    opened = Store(sa.create_engine(f"sqlite:///{tmp_path}/s.db"))
    opened.migrate()
    monkeypatch.setattr(ui, "store", lambda: opened)
    return opened


def save(store: Store, run_id: str = "run 1", html: str = "<!doctype html><p>hello") -> int:
    report = Report(
        title="T",
        dag_id="s3_archive",
        run_id=run_id,
        spec="trips",
        verdict=Verdict.WARNING,
        provenance="real AWS",
        generated_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    return store.save_report(report, html, "")


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def test_the_internals_that_guard_the_pages_exist():
    """They are not part of Airflow's public interface: an upgrade that moves them must fail here."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view, requires_authenticated

    assert AccessView.PLUGINS
    assert callable(requires_access_view)
    assert callable(requires_authenticated)


@pytest.mark.parametrize("path", ["/dbops/", "/dbops/report/1", "/dbops/report/999"])
def test_anonymous_readers_are_turned_away(client, store, path):
    save(store)
    assert client.get(path).status_code == 401
    assert client.get(path, headers=bearer("forged")).status_code == 403


def test_a_user_without_the_right_to_view_plugins_is_refused(client, store, token):
    from unittest.mock import patch

    from airflow.api_fastapi.app import get_auth_manager

    assert client.get("/dbops/", headers=bearer(token("viewer"))).status_code == 200
    with patch.object(type(get_auth_manager()), "is_authorized_view", return_value=False):
        assert client.get("/dbops/", headers=bearer(token("viewer"))).status_code == 403


def test_a_report_is_served_as_stored_with_strict_headers(client, store, token):
    report_id = save(store)
    response = client.get(f"/dbops/report/{report_id}", headers=bearer(token("admin")))
    assert (response.status_code, response.text) == (200, "<!doctype html><p>hello")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "script" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, no-store"


def test_the_cookie_of_the_ui_opens_the_page_in_its_frame(client, store, token):
    client.cookies.set("_token", token("admin"))
    assert client.get("/dbops/").status_code == 200


def test_the_list_links_to_reports_relatively_and_escapes(client, store, token):
    report_id = save(store, run_id="<script>x</script>")
    text = client.get("/dbops/", headers=bearer(token("admin"))).text
    assert f'href="report/{report_id}"' in text
    assert "<script>x" not in text
    assert "WARNING" in text


def test_an_empty_store_says_so(client, store, token):
    assert "No run has written a report yet" in client.get("/dbops/", headers=bearer(token("admin"))).text


def test_unknown_report_is_404_and_a_wrong_id_422(client, store, token):
    assert client.get("/dbops/report/999", headers=bearer(token("admin"))).status_code == 404
    assert client.get("/dbops/report/x", headers=bearer(token("admin"))).status_code == 422


def test_a_broken_store_is_503_without_details(client, monkeypatch, token):
    from dbops import ui

    def fail() -> Store:
        raise RuntimeError("user dbops at 10.0.0.1")

    monkeypatch.setattr(ui, "store", fail)
    for path in ("/dbops/", "/dbops/report/1"):
        response = client.get(path, headers=bearer(token("admin")))
        assert response.status_code == 503
        assert "dbops_store" in response.text
        assert "10.0.0.1" not in response.text


@pytest.mark.parametrize("path", ["/dbops/docs", "/dbops/redoc", "/dbops/openapi.json"])
def test_no_documentation_is_published(client, store, token, path):
    assert client.get(path, headers=bearer(token("admin"))).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_pages_are_read_only(client, store, token, method):
    assert client.request(method, "/dbops/report/1", headers=bearer(token("admin"))).status_code == 405


def test_airflow_lists_the_plugin_with_its_view_and_link(client, token):
    plugins = client.get("/api/v2/plugins", headers=bearer(token("admin"))).json()["plugins"]
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "dbops"]
    (view,) = plugin["external_views"]
    assert (view["href"], view["destination"], view["name"]) == ("dbops/", "nav", "dbops reports")
    assert plugin["operator_extra_links"]
    assert client.get("/api/v2/plugins/importErrors", headers=bearer(token("admin"))).json()["total_entries"] == 0
