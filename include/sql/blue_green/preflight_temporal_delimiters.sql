-- Partitions by dates that are written with other delimiters than - and :, deprecated from 8.0.29 on.
SELECT CONCAT(p.TABLE_SCHEMA, '.', p.TABLE_NAME) AS object, CONCAT('partition ', p.PARTITION_NAME, ': ', p.PARTITION_DESCRIPTION) AS detail
FROM information_schema.PARTITIONS AS p
INNER JOIN information_schema.COLUMNS AS c
    ON c.TABLE_SCHEMA = p.TABLE_SCHEMA AND c.TABLE_NAME = p.TABLE_NAME AND LOCATE(CONCAT('`', c.COLUMN_NAME, '`'), p.PARTITION_EXPRESSION) > 0
WHERE p.PARTITION_METHOD IN ('RANGE COLUMNS', 'LIST COLUMNS') AND c.DATA_TYPE IN ('date', 'datetime', 'timestamp')
    AND p.PARTITION_DESCRIPTION REGEXP '''[0-9]{2,4}[^-0-9'']'
