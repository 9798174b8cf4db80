-- Names that performance_schema has seen at work: what is here and not in information_schema is hidden from the user.
SELECT
    'catalog' AS dbops_inventory,
    LOWER(p.OBJECT_TYPE) AS kind,
    p.OBJECT_SCHEMA AS schema_name,
    p.OBJECT_NAME AS name
FROM performance_schema.events_statements_summary_by_program AS p
WHERE p.OBJECT_SCHEMA {{ schemas }}
UNION ALL
SELECT
    'catalog',
    'table',
    t.OBJECT_SCHEMA,
    t.OBJECT_NAME
FROM performance_schema.table_io_waits_summary_by_table AS t
WHERE t.OBJECT_SCHEMA {{ schemas }}
    AND t.COUNT_STAR > 0
