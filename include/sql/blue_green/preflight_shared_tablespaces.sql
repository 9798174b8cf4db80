-- Partitions in a shared tablespace.
SELECT t.NAME AS object, CONCAT('space type ', t.SPACE_TYPE) AS detail
FROM information_schema.INNODB_SYS_TABLES AS t
WHERE t.NAME LIKE '%#P#%' AND t.SPACE_TYPE <> 'Single'
