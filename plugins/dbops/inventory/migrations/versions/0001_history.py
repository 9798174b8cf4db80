"""The inventory's history: what each instance showed at each snapshot. Rows are added, never changed or deleted.

MySQL commits each DDL statement by itself, so every statement must be harmless when a killed migration runs again (if_not_exists).
Further indexes are written as unique constraints that end with the primary key, because those are part of CREATE TABLE.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql")
NUMBER: sa.types.TypeEngine[float] = sa.Double()
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
COUNTERS = (
    "total_ms", "lock_ms", "rows_examined", "rows_sent", "rows_affected", "errors", "warnings", "no_index_used", "select_scan",
    "full_join", "sort_rows", "tmp_disk_tables",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "inventory_watch",
        sa.Column("watch_id", ID, primary_key=True, autoincrement=True),
        sa.Column("spec", sa.String(100), nullable=False),
        sa.Column("instance", sa.String(200), nullable=False),
        sa.UniqueConstraint("spec", "instance", name="watch_by_name"),
        if_not_exists=True,
        comment="an instance under a spec",
        **OPTIONS,
    )
    op.create_table(
        "inventory_snapshot",
        sa.Column("snapshot_id", ID, primary_key=True, autoincrement=True),
        sa.Column("watch_id", ID, nullable=False),
        sa.Column("taken_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("previous_at", INSTANT, comment="of the snapshot that the differences start from; null at the first"),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("read_only", sa.Boolean(), nullable=False),
        sa.Column("digest_epoch", ID, comment="snapshot that first saw the digest table as it is; null = this one"),
        sa.Column("server_epoch", ID, comment="snapshot that first saw the server since its start; null = this one"),
        sa.Column("state", sa.JSON(), nullable=False, comment="counters that the next snapshot is compared with"),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("coverage", sa.JSON(), nullable=False, comment="ledger since previous_at, with gaps and resets"),
        sa.UniqueConstraint("watch_id", "taken_at", name="snapshot_by_time"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "inventory_key",
        sa.Column("key_id", ID, primary_key=True, autoincrement=True),
        sa.Column("watch_id", ID, nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("source_key", sa.String(400), nullable=False, comment="names the statement within its source"),
        sa.Column("schema_name", sa.String(64), nullable=False, comment="default schema of the session, empty = none"),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), comment="MySQL's, which differs between 5.7 and 8.0"),
        sa.Column("program", sa.String(200), comment="stored program or view that holds the statement"),
        sa.Column("snapshot_id", ID, nullable=False, comment="that showed it first"),
        sa.UniqueConstraint("watch_id", "source", "source_key", name="key_by_name"),
        sa.UniqueConstraint("fingerprint", "schema_name", "key_id", name="key_by_fingerprint"),
        if_not_exists=True,
        comment="a statement as one source of one instance names it",
        **OPTIONS,
    )
    op.create_table(
        "inventory_reading",
        sa.Column("key_id", ID, primary_key=True, autoincrement=False),
        sa.Column("snapshot_id", ID, primary_key=True, autoincrement=False),
        sa.Column(
            "executions", sa.BigInteger(), comment="since the previous snapshot; null = the source shows text only"
        ),
        sa.Column("since", INSTANT, comment="the executions lie between since and until, UTC"),
        sa.Column("until", INSTANT),
        sa.Column("interval_s", NUMBER, comment="length of the interval for a rate; null at the first snapshot"),
        *(sa.Column(name, NUMBER) for name in COUNTERS),
        sa.Column("p95_ms", NUMBER, comment="as the server showed it, since its digest began"),
        sa.Column("p99_ms", NUMBER),
        sa.Column("total", sa.JSON(), comment="cumulative: what the next reading is compared with"),
        sa.UniqueConstraint("snapshot_id", "key_id", name="reading_by_snapshot"),
        if_not_exists=True,
        comment="what a statement did between two snapshots; no row = nothing",
        **OPTIONS,
    )
    op.create_table(
        "inventory_text",
        sa.Column("spec", sa.String(100), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(20), primary_key=True),
        sa.Column("truncated", sa.Boolean(), primary_key=True),
        sa.Column("is_digest", sa.Boolean(), nullable=False),
        sa.Column("text", LONG, nullable=False, comment="without values"),
        sa.Column("snapshot_id", ID, nullable=False),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "inventory_origin",
        sa.Column("spec", sa.String(100), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("schema_name", sa.String(64), primary_key=True),
        sa.Column(
            "kind", sa.String(20), primary_key=True, comment="user, caller, program, or own = sent by the inventory"
        ),
        sa.Column("value", sa.String(250), primary_key=True),
        sa.Column("snapshot_id", ID, nullable=False, comment="that showed it first"),
        if_not_exists=True,
        comment="who sends a statement",
        **OPTIONS,
    )
    op.create_table(
        "inventory_io_key",
        sa.Column("io_key_id", ID, primary_key=True, autoincrement=True),
        sa.Column("watch_id", ID, nullable=False),
        sa.Column("table_schema", sa.String(64), nullable=False),
        sa.Column("table_name", sa.String(64), nullable=False),
        sa.Column(
            "index_name", sa.String(64), nullable=False, comment="* = the table; empty = rows reached without an index"
        ),
        sa.Column("snapshot_id", ID, nullable=False, comment="that showed it first"),
        sa.UniqueConstraint("watch_id", "table_schema", "table_name", "index_name", name="io_key_by_name"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "inventory_io",
        sa.Column("io_key_id", ID, primary_key=True, autoincrement=False),
        sa.Column("snapshot_id", ID, primary_key=True, autoincrement=False),
        sa.Column("since", INSTANT, nullable=False, comment="previous snapshot, or start of the server"),
        *(sa.Column(f"{name}{kind}", sa.BigInteger(), nullable=False, comment=comment)
          for kind, comment in (("", "rows since then"), ("_total", "cumulative"))
          for name in ("fetched", "inserted", "updated", "deleted")),
        sa.Column("moved", sa.JSON(), nullable=False, comment="counter -> last interval ever in which it moved"),
        sa.UniqueConstraint("snapshot_id", "io_key_id", name="io_by_snapshot"),
        if_not_exists=True,
        comment="rows read and written between two snapshots; no row = none",
        **OPTIONS,
    )  # fmt: skip
