-- Texts of the last statements of each thread ({{ table }}), those of routine bodies included, without what did not parse: nobody knows
-- what of it is a value. age_ps: how long ago each ended.
SELECT
    'recent' AS dbops_inventory,
    h.EVENT_NAME AS event_name,
    h.CURRENT_SCHEMA AS schema_name,
    h.DIGEST AS digest,
    CAST(h.SQL_TEXT AS BINARY) AS sql_text,
    h.OBJECT_TYPE AS object_type,
    h.OBJECT_SCHEMA AS object_schema,
    h.OBJECT_NAME AS object_name,
    t.PROCESSLIST_USER AS user,
    t.PROCESSLIST_HOST AS host,
    CAST(o.TIMER_START AS DECIMAL(30)) - h.TIMER_END AS age_ps
FROM performance_schema.{{ table | ident }} AS h
LEFT JOIN (
    SELECT DISTINCT
        c.THREAD_ID,
        c.PROCESSLIST_USER,
        c.PROCESSLIST_HOST
    FROM performance_schema.threads AS c
) AS t ON t.THREAD_ID = h.THREAD_ID
LEFT JOIN (
    SELECT MAX(n.TIMER_START) AS TIMER_START
    FROM performance_schema.events_statements_current AS n
    INNER JOIN performance_schema.threads AS me ON me.THREAD_ID = n.THREAD_ID
    WHERE me.PROCESSLIST_ID = CONNECTION_ID()
) AS o ON TRUE
WHERE h.SQL_TEXT IS NOT NULL
    AND h.EVENT_NAME <> 'statement/sql/error'
