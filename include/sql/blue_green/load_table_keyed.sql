-- Made-up data as most tables have it: a primary key, an index, text.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL,
    customer INT UNSIGNED NOT NULL,
    amount DECIMAL(12, 2) NOT NULL,
    state ENUM ('new', 'paid', 'sent', 'returned') NOT NULL,
    created_at DATETIME(3) NOT NULL,
    note VARCHAR(800) NULL,
    PRIMARY KEY (id),
    KEY customer (customer, created_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
