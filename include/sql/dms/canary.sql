-- The table of the canary, for a DBA to create at the source before a spec declares it; dbops never creates it.
-- The user of the source's Airflow connection needs SELECT, INSERT and UPDATE on it, and a selection rule has to take it.
-- One row (id = 1) is overwritten by each run, so the table does not grow.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id INT NOT NULL PRIMARY KEY,
    token VARCHAR(64) CHARACTER SET ascii NOT NULL COMMENT 'new with each write, so that a run recognises its own',
    written_at DATETIME(6) NOT NULL COMMENT 'UTC, by the clock of the worker'
) ENGINE = InnoDB COMMENT = 'dbops: proof that replication carries changes'
