-- Triggers of one table with their event and time.
SELECT
    t.TRIGGER_NAME AS name,
    t.EVENT_MANIPULATION AS event,
    t.ACTION_TIMING AS timing
FROM information_schema.TRIGGERS AS t
WHERE t.EVENT_OBJECT_SCHEMA = %(schema)s
    AND t.EVENT_OBJECT_TABLE = %(table)s
ORDER BY t.TRIGGER_NAME
