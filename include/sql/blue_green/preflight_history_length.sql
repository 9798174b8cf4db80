-- Undo log records that wait for purge: the upgrade's clean shutdown waits for it as well.
SELECT 'server' AS object, CONCAT('history list length ', m.COUNT) AS detail
FROM information_schema.INNODB_METRICS AS m
WHERE m.NAME = 'trx_rseg_history_len' AND m.COUNT > %(history)s
