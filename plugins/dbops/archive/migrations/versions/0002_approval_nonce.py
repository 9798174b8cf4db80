"""A name for each question for approval, so that a late answer to an older question does not count.

MySQL commits the ALTER by itself and has no ADD COLUMN IF NOT EXISTS: a migration that is killed after it finds the column when it runs
again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

FIND = sa.text(
    "SELECT COUNT(*) FROM information_schema.COLUMNS"
    " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'archive_plan' AND COLUMN_NAME = 'approval_nonce'"
)


def upgrade() -> None:
    if not op.get_bind().execute(FIND).scalar_one():
        op.execute(
            "ALTER TABLE archive_plan ADD COLUMN approval_nonce CHAR(32) NULL COMMENT 'names the question that was asked last'"
        )
