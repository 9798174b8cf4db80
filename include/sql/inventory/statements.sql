-- Event counts, own count and digests in one statement: none of them counts this statement yet, so on an idle server
-- SUM(digest) = SUM(statement/sql/%) - statement/sql/error holds exactly. Times in picoseconds. Text as bytes: what the server sends
-- need not be UTF-8.
SELECT
    'event' AS dbops_inventory,
    NULL AS schema_name,
    NULL AS digest,
    CAST(e.EVENT_NAME AS BINARY) AS digest_text,
    e.COUNT_STAR AS executions,
    e.SUM_TIMER_WAIT AS total_ps,
    e.SUM_LOCK_TIME AS lock_ps,
    e.SUM_ROWS_EXAMINED AS rows_examined,
    e.SUM_ROWS_SENT AS rows_sent,
    e.SUM_ROWS_AFFECTED AS rows_affected,
    e.SUM_ERRORS AS errors,
    e.SUM_WARNINGS AS warnings,
    e.SUM_NO_INDEX_USED AS no_index_used,
    e.SUM_SELECT_SCAN AS select_scan,
    e.SUM_SELECT_FULL_JOIN AS full_join,
    e.SUM_SORT_ROWS AS sort_rows,
    e.SUM_CREATED_TMP_DISK_TABLES AS tmp_disk_tables,
    NULL AS first_seen,
    NULL AS last_seen,
{% if samples %}
    NULL AS p95_ps,
    NULL AS p99_ps,
    NULL AS sample_text,
    NULL AS sample_seen
{% else %}
    NULL AS sample_text
{% endif %}
FROM performance_schema.events_statements_summary_global_by_event_name AS e
WHERE e.COUNT_STAR > 0
UNION ALL
SELECT
    'own', NULL, NULL, NULL, o.COUNT_STAR, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL{{ ", NULL, NULL, NULL" if samples }}
FROM performance_schema.events_statements_summary_by_thread_by_event_name AS o
INNER JOIN performance_schema.threads AS t ON t.THREAD_ID = o.THREAD_ID
WHERE t.PROCESSLIST_ID = CONNECTION_ID()
    AND o.EVENT_NAME LIKE 'statement/sql/%'
    AND o.COUNT_STAR > 0
UNION ALL
SELECT
    'digest',
    d.SCHEMA_NAME,
    d.DIGEST,
    CAST(d.DIGEST_TEXT AS BINARY),
    d.COUNT_STAR,
    d.SUM_TIMER_WAIT,
    d.SUM_LOCK_TIME,
    d.SUM_ROWS_EXAMINED,
    d.SUM_ROWS_SENT,
    d.SUM_ROWS_AFFECTED,
    d.SUM_ERRORS,
    d.SUM_WARNINGS,
    d.SUM_NO_INDEX_USED,
    d.SUM_SELECT_SCAN,
    d.SUM_SELECT_FULL_JOIN,
    d.SUM_SORT_ROWS,
    d.SUM_CREATED_TMP_DISK_TABLES,
    d.FIRST_SEEN,
    d.LAST_SEEN,
{% if samples %}
    d.QUANTILE_95,
    d.QUANTILE_99,
    CAST(d.QUERY_SAMPLE_TEXT AS BINARY),
    d.QUERY_SAMPLE_SEEN
{% else %}
    NULL
{% endif %}
FROM performance_schema.events_statements_summary_by_digest AS d
