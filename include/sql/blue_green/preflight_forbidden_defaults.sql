-- Defaults on columns that cannot have one in 8.0.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, c.DATA_TYPE AS detail
FROM information_schema.COLUMNS AS c
WHERE c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') AND c.COLUMN_DEFAULT IS NOT NULL
    AND c.DATA_TYPE IN ('blob', 'tinyblob', 'mediumblob', 'longblob', 'text', 'tinytext', 'mediumtext', 'longtext', 'json', 'geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring', 'multipolygon', 'geometrycollection')
