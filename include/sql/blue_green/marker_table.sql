-- Where a row is written on blue to learn, from its arrival on green, that all that was written before it has arrived too.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    token CHAR(32) CHARACTER SET ascii NOT NULL PRIMARY KEY
) ENGINE = InnoDB
