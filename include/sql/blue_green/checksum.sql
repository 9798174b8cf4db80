-- Number of rows of a table, and a sum over them that does not depend on their order and counts each of two equal rows.
SELECT
    COUNT(*) AS row_count,
    COUNT({{ text }}) AS hashed,
    SUM(CAST(CONV(LEFT(MD5({{ text }}), 15), 16, 10) AS UNSIGNED)) AS checksum
FROM {{ table | ident }}
