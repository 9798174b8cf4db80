"""The journal of rehearsals: what each step found, when each phase began, and the figures that are compared across rehearsals."""

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
        "rehearsal",
        sa.Column("rehearsal", sa.String(63), nullable=False, comment="also the prefix of its AWS identifiers"),
        sa.Column("spec", sa.String(100), nullable=False),
        sa.Column("run", sa.String(300), nullable=False, comment="dag_id/run_id"),
        sa.Column("began_at", INSTANT, nullable=False, comment="UTC"),
        sa.PrimaryKeyConstraint("rehearsal"),
        sa.UniqueConstraint("spec", "began_at", "rehearsal", name="rehearsal_by_spec"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "rehearsal_step",
        sa.Column("rehearsal", sa.String(63), nullable=False),
        sa.Column("step", sa.String(60), nullable=False, comment="preflight, load, attempt_1 ..."),
        sa.Column("written_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("rehearsal", "step"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "rehearsal_phase",
        sa.Column("rehearsal", sa.String(63), nullable=False),
        sa.Column("began_at", INSTANT, nullable=False, comment="UTC, by the clock of the worker"),
        sa.Column("phase", sa.String(60), nullable=False),
        sa.PrimaryKeyConstraint("rehearsal", "began_at", "phase"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "rehearsal_figure",
        sa.Column("rehearsal", sa.String(63), nullable=False),
        sa.Column("figure", sa.String(60), nullable=False, comment="write_downtime_s, switchover_s, creation_s ..."),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("rehearsal", "figure"),
        sa.UniqueConstraint("figure", "rehearsal", name="figure_by_name"),
        if_not_exists=True,
        **OPTIONS,
    )
