-- Rows that were updated or deleted since the server began to count, by table; @@performance_schema is 0 where it does not count.
SELECT s.OBJECT_SCHEMA AS schema_name, s.OBJECT_NAME AS name, s.COUNT_UPDATE + s.COUNT_DELETE AS changes
FROM performance_schema.table_io_waits_summary_by_table AS s
WHERE s.COUNT_UPDATE + s.COUNT_DELETE > 0
