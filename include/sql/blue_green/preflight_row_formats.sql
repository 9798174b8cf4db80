-- Tables of InnoDB in another row format than that of new ones.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, CONCAT('row format ', t.ROW_FORMAT) AS detail
FROM information_schema.TABLES AS t
WHERE t.ENGINE = 'InnoDB' AND t.ROW_FORMAT <> 'Dynamic' AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
