-- Triggers of the tables of some schemas; a login without TRIGGER on a table sees none of it.
SELECT
    t.EVENT_OBJECT_SCHEMA AS table_schema,
    t.EVENT_OBJECT_TABLE AS table_name,
    t.TRIGGER_NAME AS name,
    t.ACTION_TIMING AS timing,
    t.EVENT_MANIPULATION AS event
FROM information_schema.TRIGGERS AS t
WHERE t.EVENT_OBJECT_SCHEMA IN %(schemas)s
ORDER BY t.EVENT_OBJECT_SCHEMA, t.EVENT_OBJECT_TABLE, t.TRIGGER_NAME
