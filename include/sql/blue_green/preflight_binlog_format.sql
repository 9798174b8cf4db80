-- The setting that replication to green needs, where it differs.
SELECT 'server' AS object, CONCAT('binlog_format is ', @@GLOBAL.binlog_format, ', log_bin is ', @@GLOBAL.log_bin) AS detail
FROM DUAL
WHERE @@GLOBAL.binlog_format <> 'ROW' OR @@GLOBAL.log_bin = 0
