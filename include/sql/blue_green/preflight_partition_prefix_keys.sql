-- Partitioned by KEY over a column that is indexed by its first characters only: such a column was silently left out.
SELECT DISTINCT CONCAT(p.TABLE_SCHEMA, '.', p.TABLE_NAME) AS object, CONCAT('column ', s.COLUMN_NAME, ', index ', s.INDEX_NAME) AS detail
FROM information_schema.PARTITIONS AS p
INNER JOIN information_schema.STATISTICS AS s ON s.TABLE_SCHEMA = p.TABLE_SCHEMA AND s.TABLE_NAME = p.TABLE_NAME
WHERE (p.PARTITION_METHOD LIKE '%KEY' OR p.SUBPARTITION_METHOD LIKE '%KEY') AND s.SUB_PART IS NOT NULL AND s.INDEX_NAME = 'PRIMARY'
    AND (COALESCE(p.PARTITION_EXPRESSION, '') = '' OR LOCATE(CONCAT('`', s.COLUMN_NAME, '`'), p.PARTITION_EXPRESSION) > 0)
