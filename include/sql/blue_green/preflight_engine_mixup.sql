-- Tables that InnoDB knows and that the server takes for tables of another engine.
SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) AS object, CONCAT('known to InnoDB, but of ', t.ENGINE) AS detail
FROM information_schema.TABLES AS t
INNER JOIN information_schema.INNODB_SYS_TABLES AS i ON i.NAME = CONCAT(t.TABLE_SCHEMA, '/', t.TABLE_NAME)
WHERE t.ENGINE <> 'InnoDB'
