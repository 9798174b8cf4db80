"""The store: runs and reports in the MySQL schema `dbops`, reached through the connection `dbops_store`.

Plain SQL reads it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dbops import connections
from dbops.alerting import mask

if TYPE_CHECKING:
    from dbops.reports import Report

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "dbops_version"
LOCK_WAIT_S = 60
MAX_TEXT = 8_000
"""Characters of a reason that a ledger keeps."""

_run = sa.table(
    "run", *map(sa.column, ("dag_id", "run_id", "spec", "started_at", "finished_at", "verdict", "provenance"))
)
_report = sa.table(
    "report",
    sa.column("report_id", sa.BigInteger),
    *map(sa.column, ("dag_id", "run_id", "spec", "verdict")),
    sa.column("created_at", sa.DateTime),
    sa.column("document", sa.JSON),
    *map(sa.column, ("html", "s3_uri")),
)
_SUMMARY = [column for column in _report.c if column.name not in {"document", "html"}]


class StoreError(RuntimeError):
    """The store could not be migrated or lacks what was asked for."""


@dataclass(frozen=True)
class StoredReport:
    """A report without its HTML. `document` is Report.document(), empty in listings that leave it out."""

    report_id: int
    dag_id: str
    run_id: str
    spec: str
    verdict: str
    created_at: datetime
    s3_uri: str
    document: dict[str, Any]


def migrate(engine: sa.Engine, script_location: Path, version_table: str) -> None:
    """Bring a schema to the newest alembic revision in `script_location`; one query when it is there already.

    Concurrent callers wait for each other (GET_LOCK on MySQL, up to 60 s, then StoreError). The folder's env.py finds
    the open connection and the version table in `context.config.attributes`.
    """
    head = _head(script_location)
    with engine.connect() as connection:
        if _version(connection, version_table) == head:
            return
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection, "version_table": version_table})
        config.set_main_option("script_location", str(script_location).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with _lock(connection, version_table):
            command.upgrade(config, "head")
            connection.commit()


class Store:
    """Reads and writes runs and reports. Instances are cheap; the engine pools the connections."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, conn_id: str = connections.STORE) -> Store:
        """The store behind an Airflow connection, migrated."""
        store = cls(connections.engine(conn_id))
        store.migrate()
        return store

    def migrate(self) -> None:
        """Create or upgrade the tables; one query when they are current."""
        migrate(self.engine, MIGRATIONS, VERSION_TABLE)

    def start_run(self, dag_id: str, run_id: str, spec: str, provenance: str) -> None:
        """Note that a run began; a repeated call (retry, cleared task) keeps the first time."""
        with self.engine.begin() as connection:
            key = {"dag_id": dag_id, "run_id": run_id, "spec": spec}
            values = {"started_at": naive(datetime.now(UTC)), "provenance": provenance}
            self._put(connection, _run, key, insert=values, update={"provenance": provenance})

    def save_report(self, report: Report, html: str, s3_uri: str) -> int:
        """Store a report and close its run.

        A second report of the same DAG, run and spec replaces the first and keeps its id.
        """
        key = {"dag_id": report.dag_id, "run_id": report.run_id, "spec": report.spec}
        closing = {
            "finished_at": naive(report.generated_at),
            "verdict": report.verdict.value,
            "provenance": report.provenance,
        }
        values = {
            "verdict": report.verdict.value,
            "created_at": naive(report.generated_at),
            "document": report.document(),
            "html": html,
            "s3_uri": s3_uri,
        }
        with self.engine.begin() as connection:
            self._put(connection, _run, key, insert=closing, update=closing)
            self._put(connection, _report, key, insert=values, update=values)
            return int(connection.execute(sa.select(_report.c.report_id).where(*_where(_report, key))).scalar_one())

    def report_html(self, report_id: int) -> str:
        """The HTML of a report; StoreError when there is none."""
        with self.engine.connect() as connection:
            html = connection.execute(
                sa.select(_report.c.html).where(_report.c.report_id == report_id)
            ).scalar_one_or_none()
        if html is None:
            raise StoreError(f"the store has no report {report_id}")
        return str(html)

    def latest(self, dag_id: str, spec: str | None = None) -> StoredReport | None:
        """The newest report of a DAG, of any spec or of one."""
        return next(iter(self._select(dag_id, spec, 1)), None)

    def history(self, dag_id: str, spec: str | None = None, limit: int = 30) -> list[StoredReport]:
        """Reports of a DAG, newest first, with their documents."""
        return self._select(dag_id, spec, limit)

    def newest(self, limit: int = 200) -> list[StoredReport]:
        """Reports of every DAG, newest first, without their documents."""
        return self._select(None, None, limit, columns=_SUMMARY)

    def _select(
        self, dag_id: str | None, spec: str | None, limit: int, columns: Sequence[Any] = (*_SUMMARY, _report.c.document)
    ) -> list[StoredReport]:
        query = sa.select(*columns).order_by(_report.c.created_at.desc(), _report.c.report_id.desc()).limit(limit)
        if dag_id is not None:
            query = query.where(_report.c.dag_id == dag_id)
        if spec is not None:
            query = query.where(_report.c.spec == spec)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            StoredReport(**{"document": {}, **row, "created_at": row["created_at"].replace(tzinfo=UTC)}) for row in rows
        ]

    def _put(
        self,
        connection: sa.Connection,
        table: sa.TableClause,
        key: dict[str, str],
        insert: dict[str, Any],
        update: dict[str, Any],
    ) -> None:
        """Insert, or update the row with the same key, in one statement.

        Two tries of a task may write at the same time.
        """
        if connection.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            upsert: Any = sqlite_insert(table).values(**key, **insert)
            connection.execute(upsert.on_conflict_do_update(index_elements=list(key), set_=update))
        else:
            from sqlalchemy.dialects.mysql import insert as mysql_insert

            connection.execute(mysql_insert(table).values(**key, **insert).on_duplicate_key_update(**update))


def _where(table: sa.TableClause, key: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key.items()]


def naive(moment: datetime) -> datetime:
    """UTC without zone, as DATETIME columns hold it; what has no zone is UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def aware(moment: datetime) -> datetime:
    """With UTC as its zone."""
    return moment.replace(tzinfo=UTC)


def is_duplicate(error: sa.exc.IntegrityError) -> bool:
    """Whether a row of the same key is there already."""
    return getattr(error.orig, "args", (None,))[0] == 1062 or "UNIQUE constraint" in str(error.orig)


def kept_text(text: str) -> str:
    """A text as ledgers keep it: masked, and cut where it is very long."""
    masked = str(mask(text))
    return masked if len(masked) <= MAX_TEXT else f"{masked[:MAX_TEXT]}..."


@lru_cache(maxsize=8)
def _head(script_location: Path) -> str | None:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(script_location)).get_current_head()


def _version(connection: sa.Connection, version_table: str) -> str | None:
    version = sa.table(version_table, sa.column("version_num"))
    try:
        return connection.execute(sa.select(version.c.version_num)).scalar_one_or_none()
    except (sa.exc.ProgrammingError, sa.exc.OperationalError) as error:
        # MySQL 1146, SQLite "no such table"; anything else (access denied, server gone) is not for a migration to solve
        if getattr(error.orig, "args", (None,))[0] == 1146 or "no such table" in str(error.orig):
            return None
        raise
    finally:
        connection.rollback()


@contextmanager
def _lock(connection: sa.Connection, version_table: str) -> Iterator[None]:
    if connection.dialect.name != "mysql":
        yield
        return
    schema = connection.execute(sa.text("SELECT DATABASE()")).scalar_one()
    if not schema:
        raise StoreError("the connection names no schema; set the schema field of the Airflow connection")
    # lock names are global to the server and at most 64 characters
    name = f"dbops:{hashlib.sha256(f'{schema}.{version_table}'.encode()).hexdigest()[:40]}"
    if (
        connection.execute(sa.text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": LOCK_WAIT_S}).scalar_one()
        != 1
    ):
        raise StoreError(
            f"another migration of schema {schema} holds the lock {name} for more than {LOCK_WAIT_S} s; "
            "see SHOW PROCESSLIST"
        )
    try:
        yield
    finally:
        connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": name})
        connection.commit()
