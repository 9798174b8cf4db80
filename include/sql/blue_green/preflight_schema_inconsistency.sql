-- Tables of InnoDB that the server does not know.
SELECT REPLACE(i.NAME, '/', '.') AS object, 'in InnoDB only' AS detail
FROM information_schema.INNODB_SYS_TABLES AS i
LEFT JOIN information_schema.TABLES AS t ON CONCAT(t.TABLE_SCHEMA, '/', t.TABLE_NAME) = i.NAME
WHERE i.NAME LIKE '%/%' AND i.NAME NOT LIKE '%@%' AND i.NAME NOT LIKE '%#%' AND i.NAME NOT LIKE '%/FTS\_%' AND t.TABLE_NAME IS NULL
