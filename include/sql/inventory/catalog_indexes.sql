-- Indexed columns, one row a column, in index order and the primary key first. A prefix index has prefix_chars set. An index that 8.0 was
-- told not to use has the type INVISIBLE.
SELECT
    'catalog' AS dbops_inventory,
    s.TABLE_SCHEMA AS table_schema,
    s.TABLE_NAME AS table_name,
    s.INDEX_NAME AS index_name,
    s.NON_UNIQUE = 0 AS is_unique,
    s.COLUMN_NAME AS column_name,
    s.SUB_PART AS prefix_chars,
    s.NULLABLE = 'YES' AS nullable,
    /*!80000 IF(s.IS_VISIBLE = 'NO', 'INVISIBLE', */ s.INDEX_TYPE /*!80000 ) */ AS index_type
FROM information_schema.STATISTICS AS s
WHERE s.TABLE_SCHEMA {{ schemas }}
ORDER BY s.TABLE_SCHEMA, s.TABLE_NAME, s.INDEX_NAME = 'PRIMARY' DESC, s.INDEX_NAME, s.SEQ_IN_INDEX
