-- DDL that runs now.
SELECT CONCAT('connection ', p.ID) AS object, CONCAT(p.TIME, ' s: ', LEFT(p.INFO, 80)) AS detail
FROM information_schema.PROCESSLIST AS p
WHERE p.COMMAND = 'Query' AND p.INFO REGEXP '^[[:space:]]*(ALTER|CREATE|DROP|OPTIMIZE|RENAME|TRUNCATE)[[:space:]]'
