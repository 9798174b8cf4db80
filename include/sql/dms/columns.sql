-- Columns of the tables of some schemas in ordinal order. An invisible column is one that SELECT * leaves out (8.0.23 and later).
SELECT
    c.TABLE_SCHEMA AS table_schema,
    c.TABLE_NAME AS table_name,
    c.COLUMN_NAME AS name,
    LOWER(c.DATA_TYPE) AS data_type,
    c.COLUMN_TYPE AS column_type,
    c.IS_NULLABLE = 'YES' AS nullable,
    c.CHARACTER_SET_NAME AS charset,
    c.COLLATION_NAME AS collation,
    c.CHARACTER_MAXIMUM_LENGTH AS max_chars,
    c.CHARACTER_OCTET_LENGTH AS max_octets,
    c.NUMERIC_PRECISION AS numeric_precision,
    c.NUMERIC_SCALE AS numeric_scale,
    c.GENERATION_EXPRESSION <> '' AS is_generated,
    c.EXTRA LIKE '%%auto_increment%%' AS is_auto_increment,
    c.EXTRA LIKE '%%INVISIBLE%%' AS is_invisible
FROM information_schema.COLUMNS AS c
WHERE c.TABLE_SCHEMA IN %(schemas)s
ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION
