-- Columns in utf8 (utf8mb3), which is deprecated.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME) AS object, CONCAT(COUNT(*), ' columns in ', c.CHARACTER_SET_NAME) AS detail
FROM information_schema.COLUMNS AS c
WHERE c.CHARACTER_SET_NAME IN ('utf8', 'utf8mb3') AND c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
GROUP BY c.TABLE_SCHEMA, c.TABLE_NAME, c.CHARACTER_SET_NAME
