-- Where probes write on blue: a row per attempt, each one also a heartbeat. Only id is unique, so that a write that is there twice shows.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    run VARCHAR(64) NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    sent_ns BIGINT NOT NULL,
    written_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    KEY run_seq (run, seq)
) ENGINE = InnoDB
