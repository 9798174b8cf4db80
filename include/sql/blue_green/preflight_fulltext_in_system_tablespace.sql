-- Auxiliary tables of FULLTEXT indexes in the system tablespace: DDL on such a table stops an 8.0 server.
SELECT DISTINCT CONCAT(SUBSTRING_INDEX(i.NAME, '/', 1), '.', SUBSTRING_INDEX(owner.NAME, '/', -1)) AS object, 'FULLTEXT index in the system tablespace' AS detail
FROM information_schema.INNODB_SYS_TABLES AS i
INNER JOIN information_schema.INNODB_SYS_TABLES AS owner ON owner.TABLE_ID = CONV(SUBSTRING(SUBSTRING_INDEX(i.NAME, '/', -1), 5, 16), 16, 10)
WHERE i.NAME LIKE '%/FTS\_%' AND i.SPACE = 0
