-- Sessions with an open transaction, running DDL, or a lock that they wait for; and transactions of nobody, which are prepared XA ones.
-- trx_started is in the machine's time zone, whatever that of the session.
SELECT
    p.ID AS connection,
    p.USER AS user,
    p.HOST AS host,
    CASE
        WHEN {{ is_ddl }} THEN 'ddl'
        WHEN t.waits OR p.STATE LIKE 'Waiting for%%lock%%' OR p.STATE = 'Waiting for table flush' THEN 'lock wait'
        WHEN t.thread IS NOT NULL THEN 'transaction'
    END AS kind,
    GREATEST(COALESCE(t.seconds, 0), IF({{ is_ddl }} OR p.STATE LIKE 'Waiting for%%', p.TIME, 0)) AS seconds,
    COALESCE(t.rows_modified, 0) AS rows_modified,
    LEFT(p.INFO, 10000) AS statement
FROM information_schema.PROCESSLIST AS p
LEFT JOIN (
    SELECT
        x.trx_mysql_thread_id AS thread,
        MAX(x.trx_state = 'LOCK WAIT') AS waits,
        MAX(TIMESTAMPDIFF(SECOND, x.trx_started, {{ machine_now }})) AS seconds,
        SUM(x.trx_rows_modified) AS rows_modified
    FROM information_schema.INNODB_TRX AS x
    WHERE x.trx_mysql_thread_id <> 0
    GROUP BY x.trx_mysql_thread_id
) AS t ON t.thread = p.ID
WHERE p.ID <> CONNECTION_ID() AND p.USER NOT IN ('system user', 'event_scheduler', 'rdsadmin')
HAVING kind IS NOT NULL AND seconds >= %(older_than_s)s
UNION ALL
SELECT
    0, '', '', 'xa', TIMESTAMPDIFF(SECOND, x.trx_started, {{ machine_now }}) AS seconds, x.trx_rows_modified, NULL
FROM information_schema.INNODB_TRX AS x
WHERE x.trx_mysql_thread_id = 0
HAVING seconds >= %(older_than_s)s
ORDER BY seconds DESC, connection
