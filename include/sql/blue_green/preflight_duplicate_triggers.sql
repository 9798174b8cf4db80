-- Triggers of a schema whose names differ in case only.
SELECT CONCAT(t.schema_name, '.', t.name) AS object, GROUP_CONCAT(t.written ORDER BY BINARY t.written SEPARATOR ', ') AS detail
FROM (
    SELECT g.TRIGGER_SCHEMA AS schema_name, LOWER(g.TRIGGER_NAME) AS name, g.TRIGGER_NAME AS written FROM information_schema.TRIGGERS AS g
) AS t
GROUP BY t.schema_name, t.name
HAVING COUNT(*) > 1
