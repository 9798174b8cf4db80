-- Rows that open transactions have changed: the upgrade's clean shutdown rolls them back.
SELECT 'server' AS object, CONCAT(SUM(x.trx_rows_modified), ' rows in ', COUNT(*), ' open transactions') AS detail
FROM information_schema.INNODB_TRX AS x
WHERE x.trx_rows_modified > 0
HAVING SUM(x.trx_rows_modified) > %(rows)s
