-- What MySQL itself does with a column of one table.
SELECT
    LOWER(c.EXTRA) AS extra,
    c.DATETIME_PRECISION AS seconds_scale
FROM information_schema.COLUMNS AS c
WHERE c.TABLE_SCHEMA = %(schema)s
    AND c.TABLE_NAME = %(table)s
    AND c.COLUMN_NAME = %(column)s
