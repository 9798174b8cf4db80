-- Names of the base tables that this login may see, without those of the server itself.
SELECT
    t.TABLE_SCHEMA AS table_schema,
    t.TABLE_NAME AS table_name
FROM information_schema.TABLES AS t
WHERE t.TABLE_TYPE = 'BASE TABLE'
    AND t.TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')
ORDER BY t.TABLE_SCHEMA, t.TABLE_NAME
