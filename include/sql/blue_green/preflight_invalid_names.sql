-- Names that 5.1 left behind.
SELECT s.SCHEMA_NAME AS object, 'schema' AS detail FROM information_schema.SCHEMATA AS s WHERE s.SCHEMA_NAME LIKE '#mysql50#%'
UNION ALL
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME), 'table' FROM information_schema.TABLES AS t WHERE t.TABLE_NAME LIKE '#mysql50#%'
