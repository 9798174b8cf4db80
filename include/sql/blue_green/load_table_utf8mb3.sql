-- Made-up text in the character set that 8.0 deprecates.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL,
    customer INT UNSIGNED NOT NULL,
    title VARCHAR(60) NOT NULL,
    note TEXT NULL,
    PRIMARY KEY (id),
    KEY title (title)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8 COLLATE utf8_general_ci
