-- Tables in mysql that have the name of one of 8.0's dictionary.
SELECT CONCAT('mysql.', t.TABLE_NAME) AS object, 'name of the data dictionary' AS detail
FROM information_schema.TABLES AS t
WHERE t.TABLE_SCHEMA = 'mysql' AND LOWER(t.TABLE_NAME) IN
    ('catalogs', 'character_sets', 'collations', 'columns', 'events', 'foreign_keys', 'indexes', 'parameters', 'resource_groups', 'routines', 'schemata', 'st_spatial_reference_systems', 'tables', 'tablespaces', 'triggers', 'view_routine_usage', 'view_table_usage')
