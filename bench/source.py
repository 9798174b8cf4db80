"""The table that the benches archive and read: a copy of cold rows of carshare.positions, made anew before each run.

It is a table of its own, so that a bench leaves the lab's data as it found them.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import MySQLdb

from bench import measure
from dbops import mysql as facts
from lab import config, mysql, seed

SERVER = "mysql57"
SCHEMA = config.SOURCE_SCHEMA
TABLE = "bench_positions"
FULL_NAME = f"{SCHEMA}.{TABLE}"
TIME_COLUMN = "recorded_at"
COLD_AFTER_DAYS = 90
# Rows that stay, with the highest ids: neither tool then has to spare the row with the highest id, which MySQL 5.7 needs.
HOT_ROWS = 1_000
COPY_IDS = 100_000
HISTORY_SMALL = 1_000


def cutoff(now: dt.datetime) -> dt.datetime:
    """The midnight that the spec's `cold` means for a run at `now`."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=COLD_AFTER_DAYS)


def ensure_seed(rows: int) -> None:
    """At least `rows` cold rows in carshare.positions to copy from."""
    seed.seed(SERVER, rows)


def make(rows: int, seeded: int, now: dt.datetime) -> None:
    """Drop and fill the table with exactly `rows` cold rows (copied again with new ids beyond `seeded`), then wait for quiet."""
    before = cutoff(now).strftime("%Y-%m-%d")
    with mysql.root_connection(SERVER, SCHEMA) as conn, conn.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        cursor.execute(f"CREATE TABLE {TABLE} LIKE positions")
        columns = [row[0] for row in _fetch(cursor, "SHOW COLUMNS FROM positions")][1:]
        ids = f"{TIME_COLUMN} < '{before}' ORDER BY id"
        (first,) = _fetch(cursor, f"SELECT id FROM positions WHERE {ids} LIMIT 1")[0]
        made = 0
        while made < rows:
            wanted = min(seeded, rows - made)
            shift = made // seeded * 1_000_000_000
            (last,) = _fetch(cursor, f"SELECT id FROM positions WHERE {ids} LIMIT {wanted - 1}, 1")[0]
            for low in range(first, last + 1, COPY_IDS):
                high = min(low + COPY_IDS - 1, last)
                made += cursor.execute(
                    f"INSERT INTO {TABLE} (id, {', '.join(columns)}) SELECT id + {shift}, {', '.join(columns)} FROM positions"
                    f" WHERE id BETWEEN {low} AND {high} AND {TIME_COLUMN} < '{before}' ORDER BY id"
                )
        cursor.execute(
            f"INSERT INTO {TABLE} (id, {', '.join(columns)}) SELECT id + 1000000000000, {', '.join(columns)} FROM positions"
            f" WHERE {TIME_COLUMN} >= '{before}' ORDER BY id LIMIT {HOT_ROWS}"
        )
        cursor.execute(f"ANALYZE TABLE {TABLE}")
        cursor.fetchall()
    assert made == rows, (made, rows)
    quiet()


def quiet() -> tuple[float, float]:
    """Wait until InnoDB has purged what was deleted and mysqld is idle; returns (CPU seconds it used for that, seconds)."""
    with mysql.root_connection(SERVER) as conn:
        return measure.until_idle(SERVER, lambda: (facts.history_list_length(conn) or 0) < HISTORY_SMALL)


def history() -> float:
    """Undo records that InnoDB still has to purge."""
    with mysql.root_connection(SERVER) as conn:
        return facts.history_list_length(conn) or 0.0


def counts(now: dt.datetime) -> tuple[int, int]:
    """(cold rows, all rows) in the table now."""
    with mysql.root_connection(SERVER, SCHEMA) as conn, conn.cursor() as cursor:
        condition = f"{TIME_COLUMN} < '{cutoff(now):%Y-%m-%d}'"
        cold, every = _fetch(cursor, f"SELECT COALESCE(SUM({condition}), 0), COUNT(*) FROM {TABLE}")[0]
        return int(cold), int(every)


def drop() -> None:
    """Remove the table."""
    with mysql.root_connection(SERVER, SCHEMA) as conn, conn.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")


def _fetch(cursor: MySQLdb.cursors.Cursor, statement: str) -> Any:
    cursor.execute(statement)
    return cursor.fetchall()
