"""What was tried with raw texts while they were at hand, and what each analysis concluded, for the difference to the next one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"

INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "inventory_trial",
        sa.Column("spec", sa.String(100), nullable=False),
        sa.Column("fingerprint", sa.CHAR(64), nullable=False),
        sa.Column("schema_name", sa.String(64), nullable=False, comment="default schema of the session, '' = none"),
        sa.Column("tried_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column(
            "target",
            sa.String(100),
            nullable=False,
            comment="version of the 8.0 server that was asked, '' = rules only",
        ),
        sa.Column("plan", sa.JSON(), comment="tables of EXPLAIN, without values; null = no plan to be had"),
        sa.Column("findings", sa.JSON(), nullable=False, comment="of the upgrade check, values masked"),
        sa.PrimaryKeyConstraint("spec", "fingerprint", "schema_name", "tried_at"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "inventory_analysis",
        sa.Column("spec", sa.String(100), nullable=False),
        sa.Column("run", sa.String(300), nullable=False, comment="dag_id/run_id"),
        sa.Column("until", INSTANT, nullable=False, comment="end of the window, UTC"),
        sa.Column(
            "document", sa.JSON(), nullable=False, comment="class of every statement, verdict and advice of every table"
        ),
        sa.PrimaryKeyConstraint("spec", "run"),
        if_not_exists=True,
        **OPTIONS,
    )
