-- Tables in sys where 8.0 puts its views.
SELECT CONCAT('sys.', t.TABLE_NAME) AS object, CONCAT('a table of ', t.ENGINE) AS detail
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA = 'sys' AND t.TABLE_TYPE = 'BASE TABLE' AND t.TABLE_NAME <> 'sys_config'
