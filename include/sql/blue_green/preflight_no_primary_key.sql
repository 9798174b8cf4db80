-- Tables whose rows no key names: row events scan them on green, once a row.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, CONCAT('about ', t.TABLE_ROWS, ' rows') AS detail
FROM information_schema.TABLES AS t
LEFT JOIN information_schema.TABLE_CONSTRAINTS AS c
    ON c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.CONSTRAINT_TYPE = 'PRIMARY KEY'
WHERE t.TABLE_TYPE = 'BASE TABLE' AND t.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') AND c.TABLE_NAME IS NULL
