-- Made-up numbers in types that 8.0 deprecates: zero-filled, with display width, FLOAT with digits.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL,
    number INT(10) UNSIGNED ZEROFILL NOT NULL,
    short SMALLINT(5) NOT NULL,
    rate FLOAT(9, 3) NOT NULL,
    made_in YEAR(4) NOT NULL,
    note VARCHAR(800) NULL,
    PRIMARY KEY (id),
    KEY number (number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
