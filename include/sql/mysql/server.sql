-- What kind of server answers, and whether it takes writes.
SELECT
    @@version AS version,
    @@server_uuid AS server_uuid,
    @@read_only AS read_only,
    @@innodb_read_only AS innodb_read_only,
    @@log_bin AS log_bin,
    @@binlog_format AS binlog_format,
    @@max_allowed_packet AS max_allowed_packet,
    @@innodb_file_per_table AS file_per_table
