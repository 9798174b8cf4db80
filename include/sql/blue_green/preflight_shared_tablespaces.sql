-- Partitions in a shared tablespace.
SELECT REPLACE(SUBSTRING_INDEX(t.NAME, '#P#', 1), '/', '.') AS object,
    CONCAT('partition ', SUBSTRING_INDEX(t.NAME, '#P#', -1), ', space type ', t.SPACE_TYPE) AS detail
FROM information_schema.INNODB_SYS_TABLES AS t
WHERE t.NAME LIKE '%#P#%' AND t.SPACE_TYPE <> 'Single'
