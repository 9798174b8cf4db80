-- Views with a column name of more than 64 characters.
SELECT CONCAT(v.TABLE_SCHEMA, '.', v.TABLE_NAME) AS object, 'a column name of more than 64 characters' AS detail
FROM information_schema.VIEWS AS v
WHERE v.VIEW_DEFINITION REGEXP '[[:space:]]AS[[:space:]]`[^`]{65,}`'
