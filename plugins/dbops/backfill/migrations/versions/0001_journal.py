"""The journal of backfills: plans and chunks, what became of the rows, verifications, the rate that all tasks share, counters.

Indices are written as UNIQUE constraints, because those are part of CREATE TABLE: a killed migration repeats whole statements.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def _plan_id() -> sa.Column[str]:
    return sa.Column("plan_id", sa.String(120), nullable=False)


def _spec() -> sa.Column[str]:
    return sa.Column("spec", sa.String(100), nullable=False)


def _instant(name: str, comment: str = "UTC", *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, INSTANT, nullable=nullable, comment=comment)


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0", comment=comment)


def _number(name: str, comment: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=False, server_default="0", comment=comment)


def _text(name: str, length: int, comment: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default="", comment=comment or None)


def upgrade() -> None:
    _plans()
    _chunks()
    _rows()
    _verifications()
    _pace()


def _plans() -> None:
    op.create_table(
        "backfill_plan",
        sa.Column("plan_id", sa.String(120), nullable=False, comment="also the stamp of the items that it writes"),
        _spec(),
        sa.Column("open_spec", sa.String(100), comment="the spec while the plan is open, else null: one open plan a spec"),
        sa.Column("state", sa.String(20), nullable=False, comment="planned, copying, copied; verified, rolled_back, abandoned"),
        sa.Column("rule_digest", sa.CHAR(64), nullable=False, comment="of view, key, version and target in the spec"),
        _instant("made_at"),
        _instant("closed_at", "UTC; null: the plan is open", nullable=True),
        sa.Column("server_uuid", sa.String(36), nullable=False, comment="of the source writer that it was made on"),
        sa.Column("log_position", sa.Text(), nullable=False, comment="GTID set or file:position of the source when it was made"),
        sa.Column("planned_rows", sa.BigInteger(), nullable=False),
        sa.Column("planned_chunks", sa.Integer(), nullable=False),
        sa.Column("shuffle_seed", sa.BigInteger(), nullable=False, comment="gave the chunks their positions"),
        sa.Column("estimate", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("plan_id"),
        sa.UniqueConstraint("open_spec", name="backfill_plan_one_open"),
        sa.UniqueConstraint("spec", "made_at", "plan_id", name="backfill_plan_by_spec"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip
    op.create_table(
        "backfill_approval",
        _plan_id(),
        sa.Column("digest", sa.String(100), nullable=False, comment="of what was approved"),
        sa.Column("approved_by", sa.String(300), nullable=False),
        _instant("approved_at"),
        _instant("withdrawn_at", "UTC; null: it holds", nullable=True),
        sa.PrimaryKeyConstraint("plan_id", "digest"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "backfill_pause",
        _spec(),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_by", sa.String(300), nullable=False),
        _instant("paused_at"),
        sa.PrimaryKeyConstraint("spec"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "backfill_event",
        sa.Column("event_id", SERIAL, primary_key=True, autoincrement=True),
        _plan_id(),
        _instant("noted_at"),
        sa.Column("kind", sa.String(40), nullable=False, comment="wait, pressure, pause, rate, claim_lost, approval, state ..."),
        sa.Column("reason", sa.Text(), nullable=False),
        _number("seconds", "that it took"),
        _count("times", "how often, or how many rows"),
        _text("run", 300, "dag_id/run_id"),
        sa.UniqueConstraint("plan_id", "event_id", name="backfill_event_by_plan"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip
    op.create_table(
        "backfill_sample",
        _plan_id(),
        _instant("sampled_at"),
        _count("rows_done", "rows read so far"),
        _number("write_units", "so far"),
        _count("refused_requests", "so far"),
        sa.PrimaryKeyConstraint("plan_id", "sampled_at"),
        if_not_exists=True,
        **OPTIONS,
    )


def _chunks() -> None:
    op.create_table(
        "backfill_chunk",
        _plan_id(),
        sa.Column("chunk_no", sa.Integer(), nullable=False, comment="from 0, in key order"),
        sa.Column("position", sa.Integer(), nullable=False, comment="in the order in which chunks are taken"),
        sa.Column("low_key", sa.Text(), comment="rows above this key ... ; JSON array of SQL literals; null: from the first row"),
        sa.Column("high_key", sa.Text(), nullable=False, comment="... up to and with this one"),
        sa.Column("planned_rows", sa.BigInteger(), nullable=False),
        sa.Column("is_cold", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False, comment="planned, done, rolled_back; planned with a lease: worked on"),
        sa.Column("reached_key", sa.Text(), comment="rows up to this key are done; null: none yet"),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0", comment="how often it was claimed"),
        sa.Column("checkpoints", sa.Integer(), nullable=False, server_default="0", comment="how often progress was kept"),
        sa.Column("owner", sa.String(300), comment="who has the lease, or had it last; null: it was given back"),
        _instant("claimed_at", "UTC; by the last owner", nullable=True),
        _instant("leased_until", "UTC; from then on another worker may take it", nullable=True),
        _instant("done_at", nullable=True),
        sa.Column("error", sa.Text(), nullable=False, comment="why the last owner gave it back"),
        _count("rows_read", "of the last pass, as all rows_ columns are"),
        _count("rows_written", "became live items"),
        _count("rows_buried", "became tombstones"),
        _count("rows_equal", "this version was there already"),
        _count("rows_newer", "a newer item was there and stays"),
        _count("rows_tombstoned", "a tombstone was there and stays"),
        _count("rows_unversioned", "an item without version was there and stays"),
        _count("rows_rejected", "cannot be an item; see backfill_reject"),
        _count("rows_checked", "read back after the write, and right"),
        _count("item_bytes", "sent"),
        _number("write_units", "of all passes"),
        _count("requests", "of all passes"),
        _count("refused_requests", "of all passes; turned away by the store and sent again"),
        _number("read_s", "seconds of reading MySQL"),
        _number("write_s", "seconds of writing"),
        _number("waited_s", "seconds of waiting for pace and brake"),
        _count("digest_rows", "rows in the digest"),
        _count("digest_high", "sum of the 64-bit hashes of the items modulo 2^64: upper 32 bits"),
        _count("digest_low", "lower 32 bits"),
        _count("rows_removed", "items that the roll-back has taken out"),
        _count("rows_kept", "items that the roll-back has left: changed since"),
        sa.PrimaryKeyConstraint("plan_id", "chunk_no"),
        sa.UniqueConstraint("plan_id", "state", "position", name="backfill_chunk_next"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip


def _rows() -> None:
    op.create_table(
        "backfill_reject",
        _plan_id(),
        sa.Column("chunk_no", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.CHAR(64), nullable=False, comment="SHA-256 of row_key"),
        sa.Column("row_key", sa.Text(), nullable=False, comment="JSON array of SQL literals"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why the row cannot be an item; holds no value of it"),
        _instant("noted_at"),
        sa.PrimaryKeyConstraint("plan_id", "chunk_no", "key_hash"),
        if_not_exists=True,
        **OPTIONS,
    )


def _verifications() -> None:
    op.create_table(
        "backfill_verification",
        sa.Column("verification_id", SERIAL, primary_key=True, autoincrement=True),
        _plan_id(),
        sa.Column("run", sa.String(300), nullable=False, comment="dag_id/run_id"),
        sa.Column("mode", sa.String(20), nullable=False, comment="full, sample"),
        sa.Column("is_open", sa.Boolean(), comment="1 while it goes on, then null"),
        _instant("began_at"),
        _instant("ended_at", "UTC; null: it goes on, or was killed", nullable=True),
        _text("verdict", 20, "clean, differences, unfinished; empty while it goes on"),
        sa.Column(
            "bound", sa.Double(), comment="of a sample: with 95 % confidence no larger share of the rows is wrong"
        ),
        sa.UniqueConstraint("plan_id", "verification_id", name="backfill_verification_by_plan"),
        sa.UniqueConstraint("plan_id", "run", "mode", "is_open", name="backfill_verification_one_open"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "backfill_verification_part",
        sa.Column("verification_id", sa.BigInteger(), nullable=False),
        sa.Column("direction", sa.String(10), nullable=False, comment="forward: rows to items; reverse: items to rows; sample: drawn"),
        sa.Column("part", sa.Integer(), nullable=False, comment="chunk, segment of the store, stratum of a sample"),
        _text("name", 100, "of a stratum"),
        _count("rows_equal", "same content, same version; or gone on both sides"),
        _count("rows_target_newer", "the item is newer: fine"),
        _count("rows_source_newer", "the row is still newer at the end"),
        _count("rows_missing", "the row has no item"),
        _count("rows_extra", "the item lives, its row is not there"),
        _count("rows_converter", "one version, two contents"),
        _count("rows_unversioned", "the item has no version, or one of another kind"),
        _count("rows_ahead", "the item is newer and MySQL does not get there: its version went down"),
        _count("rows_rejected", "cannot be items"),
        _count("items_foreign", "of other views, in a table that holds several"),
        _count("rows_unread", "drawn, but not there any more when read"),
        _count("looked_again", "not equal at first sight"),
        _number("seconds", "that it took"),
        sa.Column("note", sa.Text(), nullable=False),
        _instant("ended_at"),
        sa.PrimaryKeyConstraint("verification_id", "direction", "part"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip
    op.create_table(
        "backfill_difference",
        sa.Column("verification_id", sa.BigInteger(), nullable=False),
        sa.Column("key_hash", sa.CHAR(64), nullable=False, comment="SHA-256 of item_key"),
        sa.Column("direction", sa.String(10), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.Text(), nullable=False, comment="key of the item, canonical JSON"),
        sa.Column("class", sa.String(20), nullable=False, comment="source_newer, missing, extra, converter, unversioned, ahead"),
        sa.Column("source_version", sa.Text(), nullable=False),
        sa.Column("target_version", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False, comment="which attributes differ"),
        sa.Column("looks", sa.Integer(), nullable=False, comment="how often it was looked at"),
        _instant("noted_at"),
        sa.PrimaryKeyConstraint("verification_id", "key_hash", "direction"),
        sa.UniqueConstraint("verification_id", "direction", "part", "key_hash", name="backfill_difference_by_part"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip


def _pace() -> None:
    op.create_table(
        "backfill_bucket",
        sa.Column("resource", sa.String(255), nullable=False, comment="the store that is written"),
        _number("limit_units_per_s", "lowest limit of the specs that write to it now"),
        _instant("limit_until", "UTC; from then on a higher limit may take its place"),
        _number(
            "eased_units_per_s",
            "rate right after the store turned writes away last; it rises by 1 % of the limit a second",
        ),
        _instant("eased_at", "UTC; when that was; null: never", nullable=True),
        _instant("free_at", "UTC; all time before it is granted"),
        _number("granted_units", "since the row was made"),
        _number("refused_units", "turned away by the store since the row was made"),
        _count("easings", "how often the rate was halved"),
        _count("revision", "how often the row was changed"),
        sa.PrimaryKeyConstraint("resource"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "backfill_counter",
        _spec(),
        sa.Column("application", sa.String(100), nullable=False),
        sa.Column("instance", sa.String(100), nullable=False, comment="a process of it from its start to its end"),
        _instant("counted_to", "UTC; end of the time that is counted"),
        _instant("counted_from", "UTC; its begin: the end of the report before, or the start of the process"),
        sa.Column("counts", sa.JSON(), nullable=False, comment="what was added in that time: fallback_hits, writes ..."),
        sa.Column("is_last", sa.Boolean(), nullable=False, server_default=sa.false(), comment="1: the process said that it ends"),
        sa.PrimaryKeyConstraint("spec", "application", "instance", "counted_to"),
        sa.UniqueConstraint("spec", "counted_to", "application", "instance", name="backfill_counter_by_time"),
        if_not_exists=True,
        **OPTIONS,
    )  # fmt: skip
