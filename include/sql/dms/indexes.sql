-- Indexed columns of the tables of some schemas, in index order and the primary key first. A prefix index has prefix_chars set.
SELECT
    s.TABLE_SCHEMA AS table_schema,
    s.TABLE_NAME AS table_name,
    s.INDEX_NAME AS index_name,
    s.NON_UNIQUE = 0 AS is_unique,
    s.COLUMN_NAME AS column_name,
    s.SUB_PART AS prefix_chars,
    s.NULLABLE = 'YES' AS nullable,
    s.INDEX_TYPE AS index_type
FROM information_schema.STATISTICS AS s
WHERE s.TABLE_SCHEMA IN %(schemas)s
ORDER BY s.TABLE_SCHEMA, s.TABLE_NAME, s.INDEX_NAME = 'PRIMARY' DESC, s.INDEX_NAME, s.SEQ_IN_INDEX
