-- Transactions that a switchover would wait for.
SELECT CONCAT('connection ', x.trx_mysql_thread_id) AS object,
    CONCAT('open for ', TIMESTAMPDIFF(SECOND, x.trx_started, NOW()), ' s, ', x.trx_rows_modified, ' rows modified') AS detail
FROM information_schema.INNODB_TRX AS x
WHERE x.trx_started <= NOW() - INTERVAL %(seconds)s SECOND
