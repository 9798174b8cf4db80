-- Bodies of procedures, functions, triggers and events. NULL where the user may not see that of a routine.
SELECT
    'catalog' AS dbops_inventory,
    LOWER(r.ROUTINE_TYPE) AS kind,
    r.ROUTINE_SCHEMA AS schema_name,
    r.ROUTINE_NAME AS name,
    r.ROUTINE_DEFINITION AS body,
    NULL AS table_schema,
    NULL AS table_name,
    '' AS event
FROM information_schema.ROUTINES AS r
WHERE r.ROUTINE_SCHEMA {{ schemas }}
UNION ALL
SELECT
    'catalog',
    'trigger',
    t.TRIGGER_SCHEMA,
    t.TRIGGER_NAME,
    t.ACTION_STATEMENT,
    t.EVENT_OBJECT_SCHEMA,
    t.EVENT_OBJECT_TABLE,
    t.EVENT_MANIPULATION
FROM information_schema.TRIGGERS AS t
WHERE t.TRIGGER_SCHEMA {{ schemas }}
UNION ALL
SELECT
    'catalog',
    'event',
    e.EVENT_SCHEMA,
    e.EVENT_NAME,
    e.EVENT_DEFINITION,
    NULL,
    NULL,
    IF(e.EVENT_TYPE = 'RECURRING', CONCAT('EVERY ', e.INTERVAL_VALUE, ' ', e.INTERVAL_FIELD), CONCAT('AT ', e.EXECUTE_AT))
FROM information_schema.EVENTS AS e
WHERE e.EVENT_SCHEMA {{ schemas }}
