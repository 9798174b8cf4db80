"""To which source a checkpoint belongs: the names of logs are the same on every server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A killed migration repeats the statement.
    if "source_arn" not in {one["name"] for one in sa.inspect(op.get_bind()).get_columns("dms_checkpoint")}:
        op.add_column(
            "dms_checkpoint",
            sa.Column(
                "source_arn", sa.String(300), nullable=False, server_default="", comment="of the source endpoint"
            ),
        )
