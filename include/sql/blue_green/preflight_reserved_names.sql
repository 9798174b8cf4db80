-- Objects whose name 8.0 reserves: unquoted uses of it stop working.
SELECT CONCAT(n.kind, ' ', n.object) AS object, CONCAT(UPPER(n.name), ' is reserved') AS detail
FROM (
    SELECT 'schema' AS kind, s.SCHEMA_NAME AS object, s.SCHEMA_NAME AS name FROM information_schema.SCHEMATA AS s
    WHERE s.SCHEMA_NAME NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
    UNION ALL
    SELECT 'table', CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME), t.TABLE_NAME FROM information_schema.TABLES AS t
    WHERE t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
    UNION ALL
    SELECT 'column', CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME), c.COLUMN_NAME FROM information_schema.COLUMNS AS c
    WHERE c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
    UNION ALL
    SELECT 'routine', CONCAT(r.ROUTINE_SCHEMA, '.', r.ROUTINE_NAME), r.ROUTINE_NAME FROM information_schema.ROUTINES AS r
    WHERE r.ROUTINE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
) AS n
WHERE UPPER(n.name) IN %(words)s
