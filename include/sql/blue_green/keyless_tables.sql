-- Tables without a primary key.
SELECT t.TABLE_SCHEMA AS schema_name, t.TABLE_NAME AS name
FROM information_schema.TABLES AS t
LEFT JOIN information_schema.TABLE_CONSTRAINTS AS k
    ON k.TABLE_SCHEMA = t.TABLE_SCHEMA AND k.TABLE_NAME = t.TABLE_NAME AND k.CONSTRAINT_TYPE = 'PRIMARY KEY'
WHERE t.TABLE_TYPE = 'BASE TABLE'
    AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')
    AND k.CONSTRAINT_NAME IS NULL
ORDER BY t.TABLE_SCHEMA, t.TABLE_NAME
