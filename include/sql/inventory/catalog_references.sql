-- Foreign keys of which either side is in the schemas, one row a column pair.
SELECT
    'catalog' AS dbops_inventory,
    k.CONSTRAINT_NAME AS name,
    k.TABLE_SCHEMA AS child_schema,
    k.TABLE_NAME AS child_table,
    k.COLUMN_NAME AS child_column,
    k.REFERENCED_TABLE_SCHEMA AS parent_schema,
    k.REFERENCED_TABLE_NAME AS parent_table,
    k.REFERENCED_COLUMN_NAME AS parent_column,
    r.DELETE_RULE AS delete_rule,
    r.UPDATE_RULE AS update_rule
FROM information_schema.KEY_COLUMN_USAGE AS k
INNER JOIN information_schema.REFERENTIAL_CONSTRAINTS AS r
    ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA
    AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME
    AND r.TABLE_NAME = k.TABLE_NAME
WHERE k.REFERENCED_TABLE_NAME IS NOT NULL
    AND (k.TABLE_SCHEMA {{ schemas }} OR k.REFERENCED_TABLE_SCHEMA {{ schemas }})
ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION
