-- Tablespaces whose path goes up and down again.
SELECT f.TABLESPACE_NAME AS object, f.FILE_NAME AS detail
FROM information_schema.FILES AS f
WHERE f.FILE_TYPE = 'TABLESPACE' AND f.FILE_NAME REGEXP '[^.]/[.][.]/'
