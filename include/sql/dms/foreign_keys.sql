-- Foreign keys of the tables of some schemas, and the tables to which they point.
SELECT
    r.CONSTRAINT_SCHEMA AS table_schema,
    r.TABLE_NAME AS table_name,
    r.CONSTRAINT_NAME AS name,
    r.REFERENCED_TABLE_NAME AS parent
FROM information_schema.REFERENTIAL_CONSTRAINTS AS r
WHERE r.CONSTRAINT_SCHEMA IN %(schemas)s
ORDER BY r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.CONSTRAINT_NAME
