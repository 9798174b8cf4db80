-- Tables that keep the hidden column of a FULLTEXT index which was dropped.
SELECT REPLACE(i.NAME, '/', '.') AS object, 'FTS_DOC_ID without a FULLTEXT index' AS detail
FROM information_schema.INNODB_SYS_TABLES AS i
INNER JOIN information_schema.INNODB_SYS_COLUMNS AS h ON h.TABLE_ID = i.TABLE_ID AND h.NAME = 'FTS_DOC_ID'
LEFT JOIN information_schema.STATISTICS AS s ON CONCAT(s.TABLE_SCHEMA, '/', s.TABLE_NAME) = i.NAME AND s.INDEX_TYPE = 'FULLTEXT'
LEFT JOIN information_schema.COLUMNS AS c ON CONCAT(c.TABLE_SCHEMA, '/', c.TABLE_NAME) = i.NAME AND c.COLUMN_NAME = 'FTS_DOC_ID'
WHERE s.INDEX_NAME IS NULL AND c.COLUMN_NAME IS NULL
