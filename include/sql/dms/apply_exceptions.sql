-- Rows that DMS could not apply, by table of the target, since a task began anew: how many, and the newest.
SELECT
    TABLE_OWNER AS table_schema,
    TABLE_NAME AS table_name,
    COUNT(*) AS row_count,
    MAX(ERROR_TIME) AS newest
FROM {{ schema | ident }}.awsdms_apply_exceptions
WHERE TASK_NAME IN (%(resource_id)s, %(identifier)s)
  AND ERROR_TIME >= %(since)s
GROUP BY TABLE_OWNER, TABLE_NAME
