-- Columns in the disk format of 5.5, which 8.0 cannot read; the session has show_old_temporals on.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, c.COLUMN_TYPE AS detail
FROM information_schema.COLUMNS AS c
WHERE c.COLUMN_TYPE LIKE '%5.5 binary format%'
