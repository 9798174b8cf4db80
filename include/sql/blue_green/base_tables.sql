-- Base tables of a schema.
SELECT t.TABLE_NAME AS name
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA = %(schema)s AND t.TABLE_TYPE = 'BASE TABLE'
ORDER BY t.TABLE_NAME
