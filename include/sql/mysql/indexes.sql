-- Every indexed column of one table, one row a column, in index order. A prefix index has prefix_chars set.
SELECT
    s.INDEX_NAME AS index_name,
    s.NON_UNIQUE = 0 AS is_unique,
    s.SEQ_IN_INDEX AS position,
    s.COLUMN_NAME AS column_name,
    s.SUB_PART AS prefix_chars,
    s.NULLABLE = 'YES' AS nullable,
    s.INDEX_TYPE AS index_type
FROM information_schema.STATISTICS AS s
WHERE s.TABLE_SCHEMA = %(schema)s
    AND s.TABLE_NAME = %(table)s
ORDER BY s.INDEX_NAME = 'PRIMARY' DESC, s.INDEX_NAME, s.SEQ_IN_INDEX
