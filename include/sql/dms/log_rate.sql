-- Bytes of binary log written a second since the server started.
SELECT f.SUM_NUMBER_OF_BYTES_WRITE / GREATEST(s.VARIABLE_VALUE, 1) AS bytes_per_s
FROM performance_schema.file_summary_by_event_name AS f
INNER JOIN performance_schema.global_status AS s
    ON s.VARIABLE_NAME = 'Uptime'
WHERE f.EVENT_NAME = 'wait/io/file/sql/binlog'
