-- Partitioned tables of an engine that cannot partition in 8.0.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, CONCAT('engine ', t.ENGINE) AS detail
FROM information_schema.TABLES AS t
WHERE t.CREATE_OPTIONS LIKE '%partitioned%' AND t.ENGINE NOT IN ('InnoDB', 'ndbcluster') AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
