-- Tables of another engine than InnoDB: their copy is not consistent.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, CONCAT('engine ', t.ENGINE) AS detail
FROM information_schema.TABLES AS t
WHERE t.TABLE_TYPE = 'BASE TABLE' AND t.ENGINE <> 'InnoDB' AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
