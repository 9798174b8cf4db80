-- Routines whose schema is gone.
SELECT CONCAT(LOWER(p.type), ' ', p.db, '.', p.name) AS object, 'its schema does not exist' AS detail
FROM mysql.proc AS p
LEFT JOIN information_schema.SCHEMATA AS s ON s.SCHEMA_NAME = CONVERT(p.db USING utf8)
WHERE s.SCHEMA_NAME IS NULL
