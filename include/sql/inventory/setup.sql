-- What performance_schema is told to watch: consumers, instruments that are off, users and threads that are left out.
SELECT
    'consumer' AS dbops_inventory,
    c.NAME AS name,
    c.ENABLED AS value
FROM performance_schema.setup_consumers AS c
WHERE c.NAME LIKE 'events\_statements\_%'
    OR c.NAME IN ('global_instrumentation', 'thread_instrumentation', 'statements_digest')
UNION ALL
SELECT
    'instruments_off',
    IF(
        i.NAME LIKE 'statement/sql/%' OR i.NAME LIKE 'statement/sp/%' OR i.NAME LIKE 'statement/abstract/%'
            OR i.NAME IN ('statement/com/Query', 'statement/com/Execute'),
        'statement', 'minor statement'
    ) AS kind,
    CAST(COUNT(*) AS CHAR)
FROM performance_schema.setup_instruments AS i
WHERE i.NAME LIKE 'statement/%'
    AND i.ENABLED = 'NO'
GROUP BY kind
UNION ALL
SELECT
    'instruments_off',
    'table_io',
    CAST(COUNT(*) AS CHAR)
FROM performance_schema.setup_instruments AS i
WHERE i.NAME = 'wait/io/table/sql/handler'
    AND i.ENABLED = 'NO'
UNION ALL
SELECT
    'actor',
    CONCAT(a.USER, '@', a.HOST),
    a.ENABLED
FROM performance_schema.setup_actors AS a
UNION ALL
SELECT
    'threads_off',
    'foreground',
    CAST(COUNT(*) AS CHAR)
FROM performance_schema.threads AS t
WHERE t.TYPE = 'FOREGROUND'
    AND t.PROCESSLIST_ID IS NOT NULL
    AND t.INSTRUMENTED = 'NO'
