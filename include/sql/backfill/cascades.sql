-- Foreign keys by which rows of one table change when rows of another do: without a trigger, and without an event in the binary log.
SELECT
    r.CONSTRAINT_NAME AS name,
    r.DELETE_RULE AS delete_rule,
    r.UPDATE_RULE AS update_rule
FROM information_schema.REFERENTIAL_CONSTRAINTS AS r
WHERE r.CONSTRAINT_SCHEMA = %(schema)s
    AND r.TABLE_NAME = %(table)s
    AND (r.DELETE_RULE IN ('CASCADE', 'SET NULL') OR r.UPDATE_RULE IN ('CASCADE', 'SET NULL'))
ORDER BY r.CONSTRAINT_NAME
