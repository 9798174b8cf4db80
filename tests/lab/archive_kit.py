"""What the tests of the archive share: services over the lab's connections, and a source, a lake namespace and specs of their own.

A test opens a :class:`Bench`: two MySQL schemas (source and restore) and an Iceberg namespace with names that no other test has, so
tests are independent, can be repeated, and can run side by side on one lab.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dbops.archive import steps
from dbops.archive.purge import Outcome
from dbops.archive.spec import ArchiveSpec
from dbops.archive.steps import Moved, Planned, Reconciled, Services
from lab import config, env, mysql, stack

SERVERS = {"mysql_default": "mysql57", "mysql80": "mysql80"}
"""Airflow connection -> server of the lab."""
RUN_AFTER = datetime(2026, 7, 1, tzinfo=UTC)
"""The date of every run: with `older_than_days: 1`, rows before 2026-06-30 are cold."""
COLD, WARM = "2026-01-15", "2026-06-30"


def require_lab() -> None:
    """Fail, naming the command, unless every service of the lab answers."""
    down = [state.name for state in stack.status() if not state.ready]
    if down:
        pytest.fail(f"the lab is not ready ({', '.join(down)}); start it with `make lab-up`", pytrace=False)


def use_lab_connections() -> None:
    """Give this process the lab's Airflow connections (only those: Airflow's own settings stay the tests')."""
    for name, value in env.environment().items():
        if name.startswith("AIRFLOW_CONN_") or name.lower() == "no_proxy":
            os.environ[name] = value


def services(conn_id: str = "mysql_default", *, run: str = "test", **over: Any) -> Services:
    """Services of that source as a task would have them; `over` replaces fields."""
    from dbops.archive.operators import build_services

    use_lab_connections()
    spec = make_spec(connection=conn_id)
    return replace(build_services(spec, run=run), **over)


def make_spec(**over: Any) -> ArchiveSpec:
    """A valid spec of ``carshare.t`` with column `day`; `over` replaces or adds fields (`purge` is merged)."""
    purge = {"allowed": True, "max_lag_s": None, "max_threads_running": None, **over.pop("purge", {})}
    values: dict[str, Any] = {
        "name": "t", "description": "a test", "owner": "tests", "schema": config.SOURCE_SCHEMA, "table": "t",
        "cold": {"column": "day", "older_than_days": 1}, "target": {"namespace": "test"}, "full_scan": True, "purge": purge,
    }  # fmt: skip
    return ArchiveSpec.model_validate({**values, **over})


@dataclass
class Ran:
    """What :func:`run_all` did."""

    planned: Planned
    plan_id: str
    moved: list[Moved] = field(default_factory=list)
    outcome: Outcome | None = None
    reconciled: Reconciled | None = None


def run_all(services: Services, spec: ArchiveSpec, purge: bool = True, run_after: datetime = RUN_AFTER) -> Ran:
    """The whole flow of s3_archive through its steps; fails on any refusal."""
    refusals = steps.check(services, spec, purging=purge)
    assert not refusals, [str(r) for r in refusals]
    planned = steps.make_plan(services, spec, run_after, dry_run=False)
    assert not planned.refusals, [str(r) for r in planned.refusals]
    assert planned.plan is not None, f"no row is cold: {planned.predicate}"
    ran = Ran(planned, planned.plan.plan_id)
    groups = steps.groups(planned.chunks)
    for span in groups:
        ran.moved.append(steps.export_group(services, spec, ran.plan_id, span))
    ran.moved.append(steps.publish_plan(services, ran.plan_id))
    for span in groups:
        ran.moved.append(steps.verify_group(services, ran.plan_id, span))
    if purge:
        ran.outcome = Outcome()
        for span in groups:
            moved, outcome = steps.purge_group(services, spec, ran.plan_id, span, confirm=spec.full_name)
            ran.moved.append(moved)
            ran.outcome.add(outcome)
    ran.reconciled = steps.reconcile(services, ran.plan_id)
    return ran


@dataclass
class Bench:
    """Names and connections of one test."""

    conn_id: str
    schema: str
    root: Any
    """Connection with every privilege, default schema = `schema`, autocommit, sql_mode ''."""
    services: Services

    @property
    def server(self) -> str:
        """mysql57 or mysql80."""
        return SERVERS[self.conn_id]

    @property
    def restore_schema(self) -> str:
        return f"{self.schema}r"

    @property
    def namespace(self) -> str:
        """Iceberg namespace."""
        return self.schema

    def spec(self, table: str = "t", **over: Any) -> ArchiveSpec:
        """A spec of a table of this bench."""
        return make_spec(**{
            "name": f"{self.schema}_{''.join(c if c.isalnum() else '_' for c in table.lower())}",
            "connection": self.conn_id, "schema": self.schema, "table": table, "restore_schema": self.restore_schema,
            "target": {"namespace": self.namespace}, **over,
        })  # fmt: skip

    def sql(self, statement: str, args: Sequence[Any] | None = None) -> tuple[tuple[Any, ...], ...]:
        """Run a statement as root and return its rows."""
        with self.root.cursor() as cursor:
            cursor.execute(statement, args)
            return cursor.fetchall()

    def count(self, table: str, where: str = "TRUE") -> int:
        return int(self.sql(f"SELECT COUNT(*) FROM `{self.schema}`.`{table}` WHERE {where}")[0][0])

    def fresh_table(self, ddl: str, rows: Iterable[Sequence[Any]] = (), table: str = "t") -> str:
        """Create `table` anew in this bench from ``CREATE TABLE``'s body (or a whole statement) and fill it."""
        self.sql(f"DROP TABLE IF EXISTS `{table}`")
        fresh_table(
            self.root,
            ddl if ddl.lstrip().upper().startswith("CREATE") else f"CREATE TABLE `{table}` {ddl}",
            rows,
            table,
        )
        return table

    def trino(self, statement: str) -> list[list[Any]]:
        from dbops.archive import verify

        with closing(self.services.trino()) as conn:
            return verify.trino_rows(conn, statement)


def fresh_table(conn_root: Any, ddl: str, rows: Iterable[Sequence[Any]] = (), table: str = "t") -> None:
    """Run a CREATE TABLE and insert whole rows (in column order) into `table`."""
    listed = [tuple(row) for row in rows]
    with conn_root.cursor() as cursor:
        cursor.execute(ddl)
        if listed:
            holes = ", ".join(["%s"] * len(listed[0]))
            cursor.executemany(f"INSERT INTO `{table}` VALUES ({holes})", listed)


@contextmanager
def bench(conn_id: str = "mysql_default", **over: Any) -> Iterator[Bench]:
    """A bench on that source; everything that it made goes away at the end. `over` replaces fields of the services."""
    require_lab()
    use_lab_connections()
    schema = f"t{uuid.uuid4().hex[:10]}"
    root = mysql.root_connection(SERVERS[conn_id])
    made = Bench(conn_id, schema, root, services(conn_id, **{"purge_allowed": (f"{schema}.*",), **over}))
    try:
        with root.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = ''")
            for name, privileges in ((schema, mysql.SOURCE_PRIVILEGES), (made.restore_schema, "ALL PRIVILEGES")):
                cursor.execute(f"CREATE DATABASE `{name}` DEFAULT CHARACTER SET utf8mb4")
                for host in ("%", "localhost", config.HOST):
                    cursor.execute(f"GRANT {privileges} ON `{name}`.* TO '{config.MYSQL_USER}'@'{host}'")
            cursor.execute(f"USE `{schema}`")
        made.services.migrate()
        yield made
    finally:
        _clean(made)


def _clean(made: Bench) -> None:
    with suppress(Exception):
        made.root.ping()
    catalog = made.services.catalog()
    with suppress(Exception):  # views are Trino's own; the namespace may not exist
        for (name,) in made.trino(
            f"SELECT table_name FROM lake.information_schema.views WHERE table_schema = '{made.namespace}'"
        ):
            made.trino(f'DROP VIEW lake."{made.namespace}"."{name}"')
    with suppress(Exception):
        for identifier in catalog.list_tables(made.namespace):
            with suppress(Exception):
                catalog.drop_table(identifier)
        catalog.drop_namespace(made.namespace)
    with suppress(Exception):
        _delete_objects(made)
    # A new connection: a test may have broken or killed the bench's own.
    with closing(mysql.root_connection(made.server)) as root, root.cursor() as cursor:
        plans = (
            "SELECT plan_id FROM (SELECT plan_id FROM dbops_archive.archive_plan WHERE source_table LIKE %s) AS mine"
        )
        for table in ("event", "refusal", "batch", "file", "chunk", "plan"):
            cursor.execute(
                f"DELETE FROM dbops_archive.archive_{table} WHERE plan_id IN ({plans})", (f"{made.schema}.%",)
            )
        cursor.execute("SET SESSION foreign_key_checks = 0")
        for name in (made.restore_schema, made.schema):
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
            for host in ("%", "localhost", config.HOST):
                with suppress(Exception):
                    cursor.execute(f"REVOKE ALL PRIVILEGES ON `{name}`.* FROM '{config.MYSQL_USER}'@'{host}'")
    with suppress(Exception):
        made.root.close()


def _delete_objects(made: Bench) -> None:
    """Free the simulated S3, which holds objects in memory, of what the bench's tables and manifests left."""
    client = made.services.s3()
    for prefix in (f"warehouse/{made.namespace}", f"warehouse/_dbops/manifests/{made.namespace}"):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=config.LAKE_BUCKET, Prefix=prefix):
            if objects := [{"Key": found["Key"]} for found in page.get("Contents", ())]:
                client.delete_objects(Bucket=config.LAKE_BUCKET, Delete={"Objects": objects})
