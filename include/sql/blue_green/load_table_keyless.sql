-- Made-up data without a primary key or any index: each row change of replication scans it.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL,
    customer INT UNSIGNED NOT NULL,
    amount DECIMAL(12, 2) NOT NULL,
    state ENUM ('new', 'paid', 'sent', 'returned') NOT NULL,
    created_at DATETIME(3) NOT NULL,
    note VARCHAR(800) NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
