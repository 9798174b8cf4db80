from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from dbops import connections, store
from dbops.reports import Report, Verdict
from dbops.store import Store, StoreError

AT = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def report(**changes) -> Report:
    fields = {
        "title": "T",
        "dag_id": "s3_archive",
        "run_id": "manual__1",
        "spec": "trips",
        "verdict": Verdict.OK,
        "provenance": "real AWS",
        "generated_at": AT,
    }
    return Report(**{**fields, **changes})


def sqlite_store(tmp_path) -> Store:
    result = Store(sa.create_engine(f"sqlite:///{tmp_path}/store.db"))
    result.migrate()
    return result


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.lab)])
def opened(request, tmp_path):
    """A migrated, empty store: SQLite always, MySQL through the connection dbops_store with the mark lab."""
    if request.param == "sqlite":
        yield sqlite_store(tmp_path)
        return
    result = Store.open()

    def clean() -> None:
        with result.engine.begin() as connection:
            for table in ("run", "report"):
                connection.execute(sa.text(f"DELETE FROM {table} WHERE dag_id LIKE 't-store%'"))

    clean()
    yield result
    clean()
    result.engine.dispose()


def queries(engine: sa.Engine) -> list[str]:
    seen: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return seen


def test_migrate_is_idempotent_and_one_query_when_current(opened):
    seen = queries(opened.engine)
    opened.migrate()
    assert len(seen) == 1
    assert {"run", "report", store.VERSION_TABLE} <= set(sa.inspect(opened.engine).get_table_names())


@pytest.mark.parametrize("lost", [[], ["report"], ["run", "report"]])
def test_a_killed_migration_continues(tmp_path, lost):
    """MySQL commits DDL at once, so a kill can leave some tables and no version row."""
    opened = sqlite_store(tmp_path)
    with opened.engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM {store.VERSION_TABLE}"))
        for table in lost:
            connection.execute(sa.text(f"DROP TABLE {table}"))
    opened.migrate()
    opened.save_report(report(), "<p>", "")


def test_an_error_other_than_a_missing_table_is_raised(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/absent/store.db")
    with pytest.raises(sa.exc.OperationalError, match="unable to open"):
        Store(engine).migrate()


def test_a_room_migrates_its_own_schema(tmp_path):
    """migrate() takes any alembic folder, with its own version table beside the store's."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((store.MIGRATIONS / "env.py").read_text())
    (folder / "versions" / "a.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision = 'a'\ndown_revision = None\n"
        "def upgrade():\n    op.create_table('chunk', sa.Column('id', sa.Integer, primary_key=True))\n"
    )
    opened = sqlite_store(tmp_path)
    store.migrate(opened.engine, folder, "archive_version")
    assert {"chunk", "archive_version", "report"} <= set(sa.inspect(opened.engine).get_table_names())


def test_save_replaces_the_report_of_the_same_run_and_keeps_its_id(opened):
    first = opened.save_report(report(dag_id="t-store"), "<p>1", "s3://b/1.html")
    other = opened.save_report(report(dag_id="t-store", spec="cars"), "<p>c", "")
    changed = report(dag_id="t-store", verdict=Verdict.FAILED, title="T2")
    again = opened.save_report(changed, "<p>2 ☃", "s3://b/2.html")
    assert first == again != other
    assert opened.report_html(first) == "<p>2 ☃"
    (found,) = opened.history("t-store", "trips", 10)
    assert (found.verdict, found.s3_uri, found.created_at, found.document["title"]) == (
        "FAILED",
        "s3://b/2.html",
        AT,
        "T2",
    )


def test_run_ids_that_differ_in_case_only_are_two_runs(opened):
    ids = {opened.save_report(report(dag_id="t-store", run_id=run_id), "", "") for run_id in ("Run", "run")}
    assert len(ids) == 2


def test_latest_and_history(opened):
    for number in range(4):
        spec = "trips" if number % 2 else "cars"
        opened.save_report(
            report(dag_id="t-store", run_id=f"r{number}", spec=spec, generated_at=AT + timedelta(days=number)), "", ""
        )
    assert opened.latest("t-store").run_id == "r3"
    assert opened.latest("t-store", "cars").run_id == "r2"
    assert opened.latest("t-store-none") is None
    assert [entry.run_id for entry in opened.history("t-store", "trips", 1)] == ["r3"]
    assert [entry.run_id for entry in opened.history("t-store")] == ["r3", "r2", "r1", "r0"]
    listed = [entry for entry in opened.newest(1000) if entry.dag_id == "t-store"]
    assert [entry.run_id for entry in listed] == ["r3", "r2", "r1", "r0"]
    assert listed[0].document == {}


def test_unknown_report(opened):
    with pytest.raises(StoreError, match="no report 987654321"):
        opened.report_html(987654321)


def test_a_run_keeps_its_first_start_and_is_closed_by_its_report(opened):
    for _ in range(2):
        opened.start_run("t-store", "r", "trips", "simulated AWS, real MySQL")
        with opened.engine.connect() as connection:
            row = connection.execute(sa.text("SELECT * FROM run WHERE dag_id = 't-store'")).mappings().one()
        assert row["finished_at"] is None
    started = row["started_at"]
    opened.save_report(report(dag_id="t-store", run_id="r"), "", "")
    with opened.engine.connect() as connection:
        row = connection.execute(sa.text("SELECT * FROM run WHERE dag_id = 't-store'")).mappings().one()
    assert (row["started_at"], row["verdict"], row["provenance"]) == (started, "OK", "real AWS")
    assert row["finished_at"] is not None


def test_values_that_json_lacks_become_null(opened):
    opened.save_report(report(dag_id="t-store", parameters={"ratio": float("nan"), "at": AT}), "", "")
    assert opened.latest("t-store").document["parameters"]["ratio"] is None


@pytest.mark.lab
def test_concurrent_migrations_of_an_empty_schema():
    """Eight sessions create the tables at once: GET_LOCK lets one work and the others find the work done."""
    opened = Store.open()
    with opened.engine.begin() as connection:
        rows = connection.execute(
            sa.text("SELECT (SELECT COUNT(*) FROM run) + (SELECT COUNT(*) FROM report)")
        ).scalar_one()
        kept = "dbops_test_version"
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {kept}"))
    errors: list[BaseException] = []

    def work() -> None:
        engine = connections.engine()
        try:
            store.migrate(engine, store.MIGRATIONS, kept)
        except BaseException as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with opened.engine.begin() as connection:
        assert connection.execute(sa.text(f"SELECT version_num FROM {kept}")).scalars().all() == ["0001"]
        assert (
            rows
            == connection.execute(
                sa.text("SELECT (SELECT COUNT(*) FROM run) + (SELECT COUNT(*) FROM report)")
            ).scalar_one()
        )
        connection.execute(sa.text(f"DROP TABLE {kept}"))
    opened.engine.dispose()
