-- Names that begin with a dollar sign: without quotes deprecated from 8.0.32 on.
SELECT CONCAT(n.kind, ' ', n.object) AS object, 'begins with $' AS detail
FROM (
    SELECT 'schema' AS kind, s.SCHEMA_NAME AS object, s.SCHEMA_NAME AS name FROM information_schema.SCHEMATA AS s
    UNION ALL
    SELECT 'table', CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME), t.TABLE_NAME FROM information_schema.TABLES AS t
    UNION ALL
    SELECT 'column', CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME), c.COLUMN_NAME FROM information_schema.COLUMNS AS c
    UNION ALL
    SELECT 'routine', CONCAT(r.ROUTINE_SCHEMA, '.', r.ROUTINE_NAME), r.ROUTINE_NAME FROM information_schema.ROUTINES AS r
) AS n
WHERE n.name LIKE '$%' AND n.name NOT LIKE '$%$'
