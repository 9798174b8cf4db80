-- Indexes over the first bytes of a geometry.
SELECT CONCAT(s.TABLE_SCHEMA, '.', s.TABLE_NAME) AS object, CONCAT('index ', s.INDEX_NAME, ', column ', s.COLUMN_NAME) AS detail
FROM information_schema.STATISTICS AS s
INNER JOIN information_schema.COLUMNS AS c ON c.TABLE_SCHEMA = s.TABLE_SCHEMA AND c.TABLE_NAME = s.TABLE_NAME AND c.COLUMN_NAME = s.COLUMN_NAME
WHERE s.SUB_PART IS NOT NULL AND s.INDEX_TYPE <> 'SPATIAL'
    AND c.DATA_TYPE IN ('geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring', 'multipolygon', 'geometrycollection')
