-- AUTO_INCREMENT on a floating-point column, which is deprecated.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, CONCAT('AUTO_INCREMENT on ', c.DATA_TYPE) AS detail
FROM information_schema.COLUMNS AS c
WHERE c.EXTRA LIKE '%auto_increment%' AND c.DATA_TYPE IN ('float', 'double') AND c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
