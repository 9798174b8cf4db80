-- Variables that 8.0 has removed and that somebody has set: they cannot be set there, and what they did is gone.
SELECT d.name AS object, CONCAT('is ', v.VARIABLE_VALUE, ', by default ', d.initial) AS detail
FROM (
    SELECT 'date_format' AS name, '%Y-%m-%d' AS initial
    UNION ALL SELECT 'datetime_format', '%Y-%m-%d %H:%i:%s'
    UNION ALL SELECT 'time_format', '%H:%i:%s'
    UNION ALL SELECT 'innodb_checksums', 'ON'
    UNION ALL SELECT 'innodb_file_format', 'Barracuda'
    UNION ALL SELECT 'innodb_file_format_check', 'ON'
    UNION ALL SELECT 'innodb_large_prefix', 'ON'
    UNION ALL SELECT 'innodb_locks_unsafe_for_binlog', 'OFF'
    UNION ALL SELECT 'innodb_stats_sample_pages', '8'
    UNION ALL SELECT 'innodb_support_xa', 'ON'
    UNION ALL SELECT 'innodb_undo_logs', '128'
    UNION ALL SELECT 'internal_tmp_disk_storage_engine', 'InnoDB'
    UNION ALL SELECT 'log_builtin_as_identified_by_password', 'OFF'
    UNION ALL SELECT 'log_warnings', '2'
    UNION ALL SELECT 'max_tmp_tables', '32'
    UNION ALL SELECT 'multi_range_count', '256'
    UNION ALL SELECT 'old_passwords', '0'
    UNION ALL SELECT 'query_cache_type', 'OFF'
    UNION ALL SELECT 'secure_auth', 'ON'
    UNION ALL SELECT 'show_compatibility_56', 'OFF'
    UNION ALL SELECT 'sync_frm', 'ON'
) AS d
INNER JOIN performance_schema.global_variables AS v ON v.VARIABLE_NAME = d.name
WHERE v.VARIABLE_VALUE <> d.initial
