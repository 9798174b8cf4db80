-- Generated columns that convert types: from 8.0.28 on the result may have another character set.
SELECT CONCAT(c.TABLE_SCHEMA, '.', c.TABLE_NAME, '.', c.COLUMN_NAME) AS object, LEFT(c.GENERATION_EXPRESSION, 100) AS detail
FROM information_schema.COLUMNS AS c
WHERE c.GENERATION_EXPRESSION REGEXP '[[:<:]](cast|convert)[[:space:]]*[(]' AND c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
