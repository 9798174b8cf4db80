-- Triggers and events without a definer, which the dictionary of 8.0 does not take. (INFORMATION_SCHEMA cannot show such an event.)
SELECT CONCAT('trigger ', t.TRIGGER_SCHEMA, '.', t.TRIGGER_NAME) AS object, 'no definer' AS detail
FROM information_schema.TRIGGERS AS t WHERE t.TRIGGER_SCHEMA <> 'sys' AND COALESCE(t.DEFINER, '') = ''
UNION ALL
SELECT CONCAT('event ', e.db, '.', e.name), 'no definer'
FROM mysql.event AS e WHERE COALESCE(e.definer, '') = ''
