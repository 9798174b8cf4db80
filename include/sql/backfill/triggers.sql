-- What triggers of one table do.
SELECT
    t.TRIGGER_NAME AS name,
    t.EVENT_MANIPULATION AS event,
    t.ACTION_TIMING AS timing,
    t.ACTION_STATEMENT AS body
FROM information_schema.TRIGGERS AS t
WHERE t.EVENT_OBJECT_SCHEMA = %(schema)s
    AND t.EVENT_OBJECT_TABLE = %(table)s
ORDER BY t.TRIGGER_NAME
