-- The sql_mode that each stored program keeps, and that of the server; included where one is looked for.
SELECT LOWER(r.ROUTINE_TYPE) AS kind, CONCAT(r.ROUTINE_SCHEMA, '.', r.ROUTINE_NAME) AS object, r.SQL_MODE AS sql_mode
FROM information_schema.ROUTINES AS r WHERE r.ROUTINE_SCHEMA NOT IN ('mysql', 'sys')
UNION ALL
SELECT 'trigger', CONCAT(t.TRIGGER_SCHEMA, '.', t.TRIGGER_NAME), t.SQL_MODE
FROM information_schema.TRIGGERS AS t WHERE t.TRIGGER_SCHEMA NOT IN ('mysql', 'sys')
UNION ALL
SELECT 'event', CONCAT(e.EVENT_SCHEMA, '.', e.EVENT_NAME), e.SQL_MODE FROM information_schema.EVENTS AS e
UNION ALL
SELECT 'server', 'global', @@GLOBAL.sql_mode
