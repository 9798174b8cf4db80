"""Tables run and report.

MySQL commits each DDL statement by itself, so every statement must be harmless when a killed migration runs again
(if_not_exists).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("dag_id", sa.String(250), nullable=False),
        sa.Column("run_id", sa.String(250), nullable=False),
        sa.Column("spec", sa.String(100), nullable=False, comment="empty when the run has no spec"),
        sa.Column("started_at", INSTANT, comment="UTC"),
        sa.Column("finished_at", INSTANT, comment="UTC, null while running"),
        sa.Column("verdict", sa.String(20), comment="OK, WARNING, FAILED, REFUSED or DRY_RUN"),
        sa.Column("provenance", sa.String(60), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "run_id", "spec"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "report",
        sa.Column(
            "report_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("dag_id", sa.String(250), nullable=False),
        sa.Column("run_id", sa.String(250), nullable=False),
        sa.Column("spec", sa.String(100), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("document", sa.JSON(), nullable=False, comment="the report as data, see docs"),
        sa.Column("html", sa.Text().with_variant(mysql.LONGTEXT(), "mysql"), nullable=False),
        sa.Column("s3_uri", sa.String(1024), nullable=False),
        sa.UniqueConstraint("dag_id", "run_id", "spec", name="report_of_run"),
        # an index, written as a constraint because that is part of CREATE TABLE; CREATE INDEX would be a second
        # statement
        sa.UniqueConstraint("dag_id", "spec", "created_at", "report_id", name="report_by_time"),
        if_not_exists=True,
        **OPTIONS,
    )
