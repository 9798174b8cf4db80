-- Base tables and views with engine and size. Without a list of schemas: every schema but those of the server itself.
SELECT
    'catalog' AS dbops_inventory,
    t.TABLE_SCHEMA AS table_schema,
    t.TABLE_NAME AS table_name,
    t.TABLE_TYPE AS table_type,
    t.ENGINE AS engine,
    t.TABLE_ROWS AS row_estimate,
    t.DATA_LENGTH AS data_bytes,
    t.INDEX_LENGTH AS index_bytes,
    t.DATA_FREE AS free_bytes,
    t.AVG_ROW_LENGTH AS average_row_bytes
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA {{ schemas }}
