-- Tables with FTS in their name, which versions before 8.0.18 take for parts of a FULLTEXT index during the upgrade.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, 'FTS in its name' AS detail
FROM information_schema.TABLES AS t
WHERE t.TABLE_NAME LIKE BINARY '%FTS%' AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
