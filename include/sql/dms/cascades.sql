-- Foreign keys of the tables of some schemas by which a change of the parent changes rows of the child, without a row in the binary log.
SELECT
    r.CONSTRAINT_SCHEMA AS table_schema,
    r.TABLE_NAME AS table_name,
    r.CONSTRAINT_NAME AS name,
    r.DELETE_RULE AS delete_rule,
    r.UPDATE_RULE AS update_rule
FROM information_schema.REFERENTIAL_CONSTRAINTS AS r
WHERE r.CONSTRAINT_SCHEMA IN %(schemas)s
    AND (r.DELETE_RULE IN ('CASCADE', 'SET NULL') OR r.UPDATE_RULE IN ('CASCADE', 'SET NULL'))
ORDER BY r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.CONSTRAINT_NAME
