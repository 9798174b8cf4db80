-- Runs of stored programs, and the statements and instructions inside them.
SELECT
    'programs' AS dbops_inventory,
    LOWER(p.OBJECT_TYPE) AS kind,
    p.OBJECT_SCHEMA AS schema_name,
    p.OBJECT_NAME AS name,
    p.COUNT_STAR AS executions,
    p.COUNT_STATEMENTS AS statements
FROM performance_schema.events_statements_summary_by_program AS p
