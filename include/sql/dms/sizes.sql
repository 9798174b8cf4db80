-- Engine, size and partitioning of the base tables of some schemas; sizes are the engine's estimate.
SELECT
    t.TABLE_SCHEMA AS table_schema,
    t.TABLE_NAME AS table_name,
    t.ENGINE AS engine,
    t.TABLE_ROWS AS row_estimate,
    t.DATA_LENGTH AS data_bytes,
    t.INDEX_LENGTH AS index_bytes,
    t.DATA_FREE AS free_bytes,
    t.AVG_ROW_LENGTH AS average_row_bytes,
    t.CREATE_OPTIONS LIKE '%%partitioned%%' AS is_partitioned
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA IN %(schemas)s
    AND t.TABLE_TYPE = 'BASE TABLE'
