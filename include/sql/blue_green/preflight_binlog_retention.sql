-- Aurora and RDS keep binlogs for so many hours; NULL purges them as soon as possible.
SELECT 'server' AS object, 'binlog retention hours is NULL' AS detail
FROM mysql.rds_configuration AS c
WHERE c.name = 'binlog retention hours' AND c.value IS NULL
