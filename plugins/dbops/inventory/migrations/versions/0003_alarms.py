"""Which new writes on tables under migration somebody was told of, so that a repeated run tells nobody twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"

INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "inventory_alarm",
        sa.Column("spec", sa.String(100), nullable=False),
        sa.Column("fingerprint", sa.CHAR(64), nullable=False),
        sa.Column("schema_name", sa.String(64), nullable=False, comment="default schema of the session, '' = none"),
        sa.Column("table_name", sa.String(130), nullable=False, comment="schema.table that the statement writes"),
        sa.Column("run", sa.String(300), nullable=False, comment="dag_id/run_id that told of it"),
        sa.Column("until", INSTANT, nullable=False, comment="end of that run's window, UTC"),
        sa.PrimaryKeyConstraint("spec", "fingerprint", "schema_name", "table_name"),
        if_not_exists=True,
        **OPTIONS,
    )
