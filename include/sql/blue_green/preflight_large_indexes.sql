-- Indexes of more than 767 bytes in a compact or redundant table: 8.0 cannot open the table.
SELECT DISTINCT CONCAT(s.TABLE_SCHEMA, '.', s.TABLE_NAME) AS object,
    CONCAT('index ', s.INDEX_NAME, ', column ', s.COLUMN_NAME, ', row format ', t.ROW_FORMAT) AS detail
FROM information_schema.STATISTICS AS s
INNER JOIN information_schema.TABLES AS t ON t.TABLE_SCHEMA = s.TABLE_SCHEMA AND t.TABLE_NAME = s.TABLE_NAME
INNER JOIN information_schema.COLUMNS AS c ON c.TABLE_SCHEMA = s.TABLE_SCHEMA AND c.TABLE_NAME = s.TABLE_NAME AND c.COLUMN_NAME = s.COLUMN_NAME
WHERE t.ENGINE = 'InnoDB' AND t.ROW_FORMAT IN ('Compact', 'Redundant') AND s.INDEX_TYPE = 'BTREE'
    AND COALESCE(s.SUB_PART * c.CHARACTER_OCTET_LENGTH / NULLIF(c.CHARACTER_MAXIMUM_LENGTH, 0), c.CHARACTER_OCTET_LENGTH) > 767
