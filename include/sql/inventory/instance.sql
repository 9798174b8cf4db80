-- Who answers, and the sizes that bound what it can show.
SELECT
    'instance' AS dbops_inventory,
    CONNECTION_ID() AS connection_id,
    UTC_TIMESTAMP(6) AS now,
    @@version AS version,
    @@server_uuid AS server_uuid,
    @@hostname AS hostname,
    @@read_only OR @@innodb_read_only AS read_only,
    @@performance_schema AS performance_schema,
    @@performance_schema_digests_size AS digests_size,
    LEAST(@@max_digest_length, @@performance_schema_max_digest_length) AS max_digest_length,
    @@performance_schema_max_sql_text_length AS max_sql_text_length,
    @@performance_schema_events_statements_history_size AS history_size,
    @@max_prepared_stmt_count AS max_prepared_stmt_count
