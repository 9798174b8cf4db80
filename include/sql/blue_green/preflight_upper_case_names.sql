-- Names with capitals on a server that compares names in lower case.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, 'capitals, and lower_case_table_names is 1' AS detail
FROM information_schema.TABLES AS t
WHERE @@GLOBAL.lower_case_table_names = 1 AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
    AND (BINARY t.TABLE_NAME <> BINARY LOWER(t.TABLE_NAME) OR BINARY t.TABLE_SCHEMA <> BINARY LOWER(t.TABLE_SCHEMA))
UNION ALL
SELECT s.SCHEMA_NAME, 'capitals, and lower_case_table_names is 1'
FROM information_schema.SCHEMATA AS s
WHERE @@GLOBAL.lower_case_table_names = 1 AND BINARY s.SCHEMA_NAME <> BINARY LOWER(s.SCHEMA_NAME)
