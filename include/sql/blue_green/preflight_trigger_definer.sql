-- Triggers without a definer, or whose definer does not exist.
SELECT CONCAT(t.TRIGGER_SCHEMA, '.', t.TRIGGER_NAME) AS object, CONCAT('definer ''', t.DEFINER, '''') AS detail
FROM information_schema.TRIGGERS AS t
LEFT JOIN mysql.user AS u ON CONCAT(u.User, '@', u.Host) = t.DEFINER
WHERE t.TRIGGER_SCHEMA NOT IN ('mysql', 'sys') AND u.User IS NULL
