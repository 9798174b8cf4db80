-- Views. The definition is empty for a user without SHOW VIEW.
SELECT
    'catalog' AS dbops_inventory,
    v.TABLE_SCHEMA AS table_schema,
    v.TABLE_NAME AS table_name,
    v.VIEW_DEFINITION AS definition
FROM information_schema.VIEWS AS v
WHERE v.TABLE_SCHEMA {{ schemas }}
