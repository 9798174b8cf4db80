-- Tables in mysql that have the name of one that 8.0 makes there.
SELECT CONCAT('mysql.', t.TABLE_NAME) AS object, 'name of the data dictionary' AS detail
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA = 'mysql' AND LOWER(t.TABLE_NAME) IN (
    'catalogs', 'character_sets', 'check_constraints', 'collations', 'column_statistics', 'column_type_elements', 'columns', 'component',
    'dd_properties', 'default_roles', 'events', 'foreign_key_column_usage', 'foreign_keys', 'global_grants', 'index_column_usage', 'index_partitions',
    'index_stats', 'indexes', 'innodb_ddl_log', 'innodb_dynamic_metadata', 'parameter_type_elements', 'parameters', 'password_history', 'resource_groups',
    'role_edges', 'routines', 'schemata', 'st_spatial_reference_systems', 'table_partition_values', 'table_partitions', 'table_stats', 'tables',
    'tablespace_files', 'tablespaces', 'triggers', 'view_routine_usage', 'view_table_usage'
)
