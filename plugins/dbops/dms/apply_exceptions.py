"""Rows that DMS could not apply at a MySQL target and only noted there, in ``awsdms_apply_exceptions`` of its control schema.

With the policy LOG_ERROR nothing else tells of them: the task runs, every table says completed, and rows are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbops import mysql, sql
from dbops.dms import health, places, settings
from dbops.dms.mappings import Table
from dbops.dms.places import PlaceUnknown
from dbops.dms.spec import DmsSpec
from dbops.dms.states import TableStatistics, Task

CONTROL_SCHEMA = "awsdms_control"
"""Where DMS keeps its control tables at a MySQL target, unless ControlTablesSettings.ControlSchema names another schema."""
_EVER = datetime(1970, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Noted:
    """Rows of one table of the target that were not applied."""

    count: int
    newest: datetime


def read(connection: Any, spec: DmsSpec, task: Task) -> dict[tuple[str, str], Noted]:
    """What is noted of a task since it began anew, by schema and table of the target; nothing where DMS has made no such table.

    Args:
        connection: of the target, in UTC
        spec: of the task
        task: as AWS has it

    Raises:
        MySQLdb.Error: the server is not there, or the login may not read the table
    """
    import MySQLdb
    from MySQLdb.constants import ER

    since = task.fresh_start_at or _EVER
    given = {
        "resource_id": health.resource_id(task.arn),
        "identifier": task.identifier,
        "since": since.astimezone(UTC).replace(tzinfo=None),
    }
    schema = settings.get(spec.settings, "ControlTablesSettings.ControlSchema") or CONTROL_SCHEMA
    try:
        rows = mysql.rows(connection, sql.render("dms/apply_exceptions", schema=schema), given)
    except MySQLdb.Error as error:
        if error.args[0] in (ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR):
            return {}
        raise
    return {
        (str(row["table_schema"]), str(row["table_name"])): Noted(
            int(row["row_count"]), row["newest"].replace(tzinfo=UTC)
        )
        for row in rows
    }


def of_tables(
    spec: DmsSpec, noted: Mapping[tuple[str, str], Noted], tables: Iterable[TableStatistics]
) -> dict[Table, int]:
    """The same by table of the source; what was noted before a table was loaded last is repaired by that load."""
    found = {}
    for one in tables:
        try:
            names = places.names(spec, one.table, ())
        except PlaceUnknown:
            continue
        seen = noted.get((names.schema, names.table))
        if seen and (one.load_started_at is None or seen.newest > one.load_started_at):
            found[one.table] = seen.count
    return found
