-- Engine, size and encoding of one table; no row when it does not exist or is a view.
SELECT
    t.ENGINE AS engine,
    t.ROW_FORMAT AS row_format,
    t.TABLE_ROWS AS row_estimate,
    t.DATA_LENGTH AS data_bytes,
    t.INDEX_LENGTH AS index_bytes,
    t.DATA_FREE AS free_bytes,
    t.AVG_ROW_LENGTH AS average_row_bytes,
    t.TABLE_COLLATION AS collation
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA = %(schema)s
    AND t.TABLE_NAME = %(table)s
    AND t.TABLE_TYPE = 'BASE TABLE'
