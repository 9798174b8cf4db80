"""The ledger of DMS tasks: who works on a spec, what was decided, planned and done, checkpoints, failures, comparisons.

Indices are written as UNIQUE constraints, because those are part of CREATE TABLE: a killed migration repeats whole statements.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def _spec() -> sa.Column[str]:
    return sa.Column("spec", sa.String(100), nullable=False)


def _run() -> sa.Column[str]:
    return sa.Column("run", sa.String(300), nullable=False, comment="dag_id/run_id")


def _table() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("table_schema", sa.String(64), nullable=False), sa.Column(
        "table_name", sa.String(64), nullable=False
    )


def upgrade() -> None:
    op.create_table(
        "dms_claim",
        _spec(),
        _run(),
        sa.Column("claimed_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("claimed_until", INSTANT, nullable=False, comment="UTC; from then on another run may take it over"),
        sa.PrimaryKeyConstraint("spec"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "dms_event",
        sa.Column(
            "event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("event_key", sa.CHAR(64), nullable=False, comment="of run, spec, kind, subject and reason: a retry says nothing twice"),
        _spec(),
        sa.Column("noted_at", INSTANT, nullable=False, comment="UTC"),
        _run(),
        sa.Column("kind", sa.String(40), nullable=False, comment="decision, step, failure, quarantine, release ..."),
        sa.Column("subject", sa.String(255), nullable=False, comment="table or step; empty: the task"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False, comment="what it was decided from"),
        sa.UniqueConstraint("event_key", name="dms_event_once"),
        sa.UniqueConstraint("spec", "event_id", name="dms_event_by_spec"),
        sa.UniqueConstraint("noted_at", "event_id", name="dms_event_by_time"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip
    op.create_table(
        "dms_plan",
        _run(),
        _spec(),
        sa.Column("made_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", "spec"),
        sa.UniqueConstraint("spec", "made_at", "run", name="dms_plan_by_spec"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "dms_step",
        _run(),
        _spec(),
        sa.Column("number", sa.Integer(), nullable=False, comment="of the plan's steps, from 0"),
        sa.Column("state", sa.String(10), nullable=False, comment="noted: about to be done, or being done; done"),
        sa.Column("noted_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("done_at", INSTANT, comment="UTC"),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", "spec", "number"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "dms_checkpoint",
        _spec(),
        sa.Column("saved_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("task", sa.String(255), nullable=False, comment="identifier at AWS"),
        sa.Column("status", sa.String(60), nullable=False),
        sa.Column("stop_reason", sa.String(100), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=False, comment="RecoveryCheckpoint; empty: the task had none"),
        sa.Column("statistics", sa.JSON(), comment="of its tables; null: they could not be had"),
        sa.PrimaryKeyConstraint("spec", "saved_at"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "dms_restart",
        _spec(),
        sa.Column("restart_id", sa.String(190), nullable=False),
        sa.Column("restarted_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("spec", "restart_id"),
        sa.UniqueConstraint("spec", "restarted_at", "restart_id", name="dms_restart_by_time"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "dms_table_failure",
        _spec(),
        *_table(),
        sa.Column("failure_id", sa.String(190), nullable=False, comment="what makes it one failure, however often it is seen"),
        sa.Column("failed_at", INSTANT, nullable=False, comment="UTC; when it was seen first"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cleared_at", INSTANT, comment="UTC; null: it counts for the quarantine"),
        sa.Column("cleared_by", sa.String(300), comment="loaded, or who released the table"),
        sa.PrimaryKeyConstraint("spec", "table_schema", "table_name", "failure_id"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip
    op.create_table(
        "dms_comparison",
        _spec(),
        *_table(),
        sa.Column("compared_at", INSTANT, nullable=False, comment="UTC"),
        sa.Column("status", sa.String(20), nullable=False, comment="equal, differ, unsettled, not comparable"),
        *(
            sa.Column(name, sa.BigInteger(), comment=comment)
            for name, comment in (
                ("source_rows", "counted rows"),
                ("target_rows", "counted rows"),
                ("missing", "keys of the source that the target lacks"),
                ("extra", "keys of the target that the source lacks"),
                ("differing", "keys that both have, with other values"),
            )
        ),
        sa.Column("sample", sa.JSON(), nullable=False, comment="some of these keys"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("spec", "table_schema", "table_name", "compared_at"),
        if_not_exists=True,
        **OPTIONS,
    )
