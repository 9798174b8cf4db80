-- Variables that have 5.7's default, which 8.0 has changed: set them in green's group to keep it.
SELECT d.name AS object, CONCAT(v.VARIABLE_VALUE, ', in 8.0 by default ', d.new) AS detail
FROM (
    SELECT 'character_set_server' AS name, 'latin1' AS old, 'utf8mb4' AS new
    UNION ALL SELECT 'collation_server', 'latin1_swedish_ci', 'utf8mb4_0900_ai_ci'
    UNION ALL SELECT 'explicit_defaults_for_timestamp', 'OFF', 'ON'
    UNION ALL SELECT 'event_scheduler', 'OFF', 'ON'
    UNION ALL SELECT 'local_infile', 'ON', 'OFF'
    UNION ALL SELECT 'innodb_autoinc_lock_mode', '1', '2'
    UNION ALL SELECT 'innodb_flush_neighbors', '1', '0'
    UNION ALL SELECT 'innodb_max_dirty_pages_pct', '75.000000', '90.000000'
    UNION ALL SELECT 'max_allowed_packet', '4194304', '67108864'
    UNION ALL SELECT 'max_error_count', '64', '1024'
    UNION ALL SELECT 'table_open_cache', '2000', '4000'
    UNION ALL SELECT 'optimizer_trace_max_mem_size', '16384', '1048576'
    UNION ALL SELECT 'log_error_verbosity', '3', '2'
    UNION ALL SELECT 'slave_rows_search_algorithms', 'TABLE_SCAN,INDEX_SCAN', 'INDEX_SCAN,HASH_SCAN'
) AS d
INNER JOIN performance_schema.global_variables AS v ON v.VARIABLE_NAME = d.name
WHERE v.VARIABLE_VALUE = d.old
