"""The ledger: plan, chunk, file, batch, refusal, event and pause, on the source server so that they commit with the DELETE.

Plain DDL, each statement harmless when a killed migration runs again: MySQL commits every DDL by itself, and has no CREATE INDEX IF NOT
EXISTS, so indexes are part of CREATE TABLE. Times are UTC.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    archive_plan (
        plan_id         VARCHAR(120) NOT NULL,
        spec            VARCHAR(100) NOT NULL,
        source_table    VARCHAR(140) NOT NULL COMMENT 'schema.table',
        open_table      VARCHAR(140) NULL COMMENT 'source_table while the plan is open: one open plan a table',
        state           VARCHAR(20) NOT NULL COMMENT 'open, abandoning, done or abandoned',
        rule_digest     CHAR(64) NOT NULL COMMENT 'of the rules in the spec; other rules need another plan',
        server_uuid     VARCHAR(64) NOT NULL,
        cutoff          DATETIME NOT NULL,
        predicate       LONGTEXT NOT NULL,
        columns_json    LONGTEXT NOT NULL COMMENT 'columns with their codecs, in order',
        create_table    LONGTEXT NOT NULL COMMENT 'SHOW CREATE TABLE at plan time',
        lake_table      VARCHAR(300) NOT NULL COMMENT 'catalog.namespace.table of this generation',
        planned_rows    BIGINT NOT NULL,
        planned_chunks  INT NOT NULL,
        source_bytes    BIGINT NOT NULL COMMENT 'data and indexes before, as InnoDB estimates',
        created_by      VARCHAR(300) NOT NULL COMMENT 'dag_id/run_id',
        created_at      DATETIME(6) NOT NULL,
        approved_by     VARCHAR(250) NULL,
        approved_digest CHAR(64) NULL COMMENT 'of the verified checksums that the person saw',
        approved_at     DATETIME(6) NULL,
        closed_at       DATETIME(6) NULL,
        PRIMARY KEY (plan_id),
        UNIQUE KEY one_open_plan_a_table (open_table),
        KEY plan_by_spec (spec, created_at)
    )""",
    """
    archive_chunk (
        plan_id       VARCHAR(120) NOT NULL,
        chunk_no      INT NOT NULL,
        lower_key     TEXT NULL COMMENT 'exclusive; NULL = from the start',
        upper_key     TEXT NOT NULL COMMENT 'inclusive',
        planned_rows  BIGINT NOT NULL,
        state         VARCHAR(20) NOT NULL COMMENT 'planned, exported, published or verified',
        wire_bytes    BIGINT NULL COMMENT 'canonical text and long values that MySQL sent',
        snapshot_id   BIGINT NULL COMMENT 'Iceberg snapshot that first held all files of the chunk',
        exported_at   DATETIME(6) NULL,
        published_at  DATETIME(6) NULL,
        verified_at   DATETIME(6) NULL,
        PRIMARY KEY (plan_id, chunk_no)
    )""",
    """
    archive_file (
        plan_id     VARCHAR(120) NOT NULL,
        chunk_no    INT NOT NULL,
        file_no     INT NOT NULL,
        uri         VARCHAR(1024) NOT NULL,
        sha256      CHAR(64) NOT NULL,
        file_bytes  BIGINT NOT NULL,
        file_rows   BIGINT NOT NULL,
        PRIMARY KEY (plan_id, chunk_no, file_no)
    )""",
    """
    archive_batch (
        plan_id       VARCHAR(120) NOT NULL,
        chunk_no      INT NOT NULL,
        batch_no      INT NOT NULL,
        lower_key     TEXT NULL COMMENT 'exclusive; NULL = from the start',
        upper_key     TEXT NOT NULL COMMENT 'inclusive',
        state         VARCHAR(20) NOT NULL COMMENT 'exported, verified, refused, changed or done',
        source_n      BIGINT NULL COMMENT 'rows that MySQL sent',
        source_nh     BIGINT NULL COMMENT 'of these, rows with a hash',
        source_s      DECIMAL(38, 0) NULL COMMENT 'sum of the first 60 bits of the row MD5s',
        source_x      BIGINT UNSIGNED NULL COMMENT 'XOR of the last 64 bits of the row MD5s',
        lake_n        BIGINT NULL COMMENT 'the same as Trino read it',
        lake_nh       BIGINT NULL,
        lake_s        DECIMAL(38, 0) NULL,
        lake_x        BIGINT UNSIGNED NULL,
        deleted_rows  BIGINT NULL,
        deleted_at    DATETIME(6) NULL COMMENT 'set in the transaction that deleted',
        deleted_by    VARCHAR(300) NULL COMMENT 'dag_id/run_id',
        reason        VARCHAR(1000) NULL COMMENT 'why refused or changed',
        PRIMARY KEY (plan_id, chunk_no, batch_no),
        KEY batch_by_state (plan_id, state)
    )""",
    """
    archive_refusal (
        refusal_id   BIGINT NOT NULL AUTO_INCREMENT,
        plan_id      VARCHAR(120) NOT NULL,
        chunk_no     INT NOT NULL,
        batch_no     INT NOT NULL,
        row_key      VARCHAR(1000) NOT NULL,
        column_name  VARCHAR(64) NULL,
        reason       VARCHAR(1000) NOT NULL,
        found_at     DATETIME(6) NOT NULL,
        PRIMARY KEY (refusal_id),
        KEY refusal_by_batch (plan_id, chunk_no, batch_no)
    )""",
    """
    archive_event (
        event_id     BIGINT NOT NULL AUTO_INCREMENT,
        plan_id      VARCHAR(120) NOT NULL,
        at           DATETIME(6) NOT NULL COMMENT 'end of the step',
        stage        VARCHAR(20) NOT NULL,
        run          VARCHAR(300) NOT NULL COMMENT 'dag_id/run_id',
        seconds      DOUBLE NOT NULL,
        event_rows   BIGINT NOT NULL,
        event_bytes  BIGINT NOT NULL,
        message      VARCHAR(2000) NOT NULL,
        PRIMARY KEY (event_id),
        KEY event_by_plan (plan_id, event_id)
    )""",
    """
    archive_pause (
        source_table  VARCHAR(140) NOT NULL COMMENT 'schema.table, or * for every table',
        reason        VARCHAR(500) NOT NULL,
        paused_at     DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        PRIMARY KEY (source_table)
    )""",
)


def upgrade() -> None:
    for table in TABLES:
        op.execute(
            f"CREATE TABLE IF NOT EXISTS {table.strip()} ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
        )
