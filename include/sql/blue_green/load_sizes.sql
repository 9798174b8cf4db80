-- Bytes of each table of the made-up data, indexes included.
SELECT t.TABLE_NAME AS name, t.DATA_LENGTH + t.INDEX_LENGTH AS bytes
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA = %(schema)s AND t.TABLE_NAME LIKE 'dbops\_load\_%%'
