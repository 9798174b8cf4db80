-- Stored programs and views with their bodies, for checks that look into them; included there.
SELECT CONCAT(r.ROUTINE_SCHEMA, '.', r.ROUTINE_NAME) AS object, LOWER(r.ROUTINE_TYPE) AS kind, r.ROUTINE_DEFINITION AS body
FROM information_schema.ROUTINES AS r WHERE r.ROUTINE_SCHEMA NOT IN ('mysql', 'sys')
UNION ALL
SELECT CONCAT(t.TRIGGER_SCHEMA, '.', t.TRIGGER_NAME), 'trigger', t.ACTION_STATEMENT
FROM information_schema.TRIGGERS AS t WHERE t.TRIGGER_SCHEMA NOT IN ('mysql', 'sys')
UNION ALL
SELECT CONCAT(e.EVENT_SCHEMA, '.', e.EVENT_NAME), 'event', e.EVENT_DEFINITION
FROM information_schema.EVENTS AS e WHERE e.EVENT_SCHEMA NOT IN ('mysql', 'sys')
UNION ALL
SELECT CONCAT(v.TABLE_SCHEMA, '.', v.TABLE_NAME), 'view', v.VIEW_DEFINITION
FROM information_schema.VIEWS AS v WHERE v.TABLE_SCHEMA NOT IN ('mysql', 'sys')
