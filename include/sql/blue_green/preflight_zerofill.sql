-- Columns with ZEROFILL: deprecated, and lost in most other stores.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, c.COLUMN_TYPE AS detail
FROM information_schema.COLUMNS AS c
WHERE c.COLUMN_TYPE LIKE '%zerofill%' AND c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
