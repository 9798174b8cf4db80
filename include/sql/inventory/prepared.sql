-- Prepared statements that are open now, with their executions. OWNER_OBJECT_SCHEMA is NULL for clients: the schema of the session is the
-- best that can be had. The derived table gives 5.7, whose performance_schema has no indexes, one to join by.
SELECT
    'prepared' AS dbops_inventory,
    p.OWNER_THREAD_ID AS thread_id,
    p.STATEMENT_ID AS statement_id,
    p.STATEMENT_NAME AS statement_name,
    CAST(p.SQL_TEXT AS BINARY) AS sql_text,
    p.OWNER_OBJECT_TYPE AS object_type,
    p.OWNER_OBJECT_SCHEMA AS object_schema,
    p.OWNER_OBJECT_NAME AS object_name,
    t.PROCESSLIST_DB AS schema_name,
    t.PROCESSLIST_USER AS user,
    t.PROCESSLIST_HOST AS host,
    p.COUNT_EXECUTE AS executions,
    p.SUM_TIMER_EXECUTE AS total_ps,
    p.SUM_LOCK_TIME AS lock_ps,
    p.SUM_ROWS_EXAMINED AS rows_examined,
    p.SUM_ROWS_SENT AS rows_sent,
    p.SUM_ROWS_AFFECTED AS rows_affected,
    p.SUM_ERRORS AS errors,
    p.SUM_WARNINGS AS warnings,
    p.SUM_NO_INDEX_USED AS no_index_used,
    p.SUM_SELECT_SCAN AS select_scan,
    p.SUM_SELECT_FULL_JOIN AS full_join,
    p.SUM_SORT_ROWS AS sort_rows,
    p.SUM_CREATED_TMP_DISK_TABLES AS tmp_disk_tables
FROM performance_schema.prepared_statements_instances AS p
LEFT JOIN (
    SELECT DISTINCT
        c.THREAD_ID,
        c.PROCESSLIST_DB,
        c.PROCESSLIST_USER,
        c.PROCESSLIST_HOST
    FROM performance_schema.threads AS c
) AS t ON t.THREAD_ID = p.OWNER_THREAD_ID
