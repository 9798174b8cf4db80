-- What has been filled in: a row per chunk, written in the transaction that writes the chunk's rows.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    table_name VARCHAR(64) NOT NULL,
    chunk INT UNSIGNED NOT NULL,
    row_count INT UNSIGNED NOT NULL,
    settings VARCHAR(200) NOT NULL,
    PRIMARY KEY (table_name, chunk)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
