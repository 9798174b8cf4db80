-- Rows read and written per table (index_name NULL) and per index (empty = rows reached without one).
SELECT
    'table_io' AS dbops_inventory,
    t.OBJECT_SCHEMA AS schema_name,
    t.OBJECT_NAME AS table_name,
    NULL AS index_name,
    t.COUNT_FETCH AS fetched,
    t.COUNT_INSERT AS inserted,
    t.COUNT_UPDATE AS updated,
    t.COUNT_DELETE AS deleted
FROM performance_schema.table_io_waits_summary_by_table AS t
WHERE t.OBJECT_TYPE = 'TABLE'
UNION ALL
SELECT
    'index',
    i.OBJECT_SCHEMA,
    i.OBJECT_NAME,
    COALESCE(i.INDEX_NAME, ''),
    i.COUNT_FETCH,
    i.COUNT_INSERT,
    i.COUNT_UPDATE,
    i.COUNT_DELETE
FROM performance_schema.table_io_waits_summary_by_index_usage AS i
WHERE i.OBJECT_TYPE = 'TABLE'
