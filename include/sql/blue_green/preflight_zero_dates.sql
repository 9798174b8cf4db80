-- Columns whose default is a zero date.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, CONCAT('default ', c.COLUMN_DEFAULT) AS detail
FROM information_schema.COLUMNS AS c
WHERE c.DATA_TYPE IN ('date', 'datetime', 'timestamp') AND c.COLUMN_DEFAULT LIKE '%-00%' AND c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
