-- Made-up data in partitions.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL,
    customer INT UNSIGNED NOT NULL,
    amount DECIMAL(12, 2) NOT NULL,
    created_at DATETIME(3) NOT NULL,
    note VARCHAR(800) NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
PARTITION BY HASH (id) PARTITIONS 8
