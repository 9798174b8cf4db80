-- A database of this name cannot be switched over.
SELECT s.SCHEMA_NAME AS object, 'the name is refused' AS detail
FROM information_schema.SCHEMATA AS s
WHERE s.SCHEMA_NAME = 'tmp'
