-- ENUM and SET columns with an element of more than 255 characters.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, UPPER(c.DATA_TYPE) AS detail
FROM information_schema.COLUMNS AS c
WHERE c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
    AND ((c.DATA_TYPE = 'enum' AND c.CHARACTER_MAXIMUM_LENGTH > 255)
        OR (c.DATA_TYPE = 'set' AND c.COLUMN_TYPE REGEXP CONCAT('''', REPEAT('[^'']', 256))))
