-- Programs and views whose definer does not exist: they fail when they are used.
SELECT CONCAT(d.kind, ' ', d.object) AS object, CONCAT('definer ''', d.definer, '''') AS detail
FROM (
    SELECT LOWER(r.ROUTINE_TYPE) AS kind, CONCAT(r.ROUTINE_SCHEMA, '.', r.ROUTINE_NAME) AS object, r.DEFINER AS definer
    FROM information_schema.ROUTINES AS r WHERE r.ROUTINE_SCHEMA NOT IN ('mysql', 'sys') AND r.DEFINER <> ''
    UNION ALL
    SELECT 'event', CONCAT(e.EVENT_SCHEMA, '.', e.EVENT_NAME), e.DEFINER
    FROM information_schema.EVENTS AS e WHERE e.EVENT_SCHEMA NOT IN ('mysql', 'sys') AND e.DEFINER <> ''
    UNION ALL
    SELECT 'view', CONCAT(v.TABLE_SCHEMA, '.', v.TABLE_NAME), v.DEFINER
    FROM information_schema.VIEWS AS v WHERE v.TABLE_SCHEMA NOT IN ('mysql', 'sys') AND v.DEFINER <> ''
) AS d
LEFT JOIN mysql.user AS u ON CONCAT(u.User, '@', u.Host) = d.definer
WHERE u.User IS NULL
