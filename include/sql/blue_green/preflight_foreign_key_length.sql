-- Foreign keys with a name of more than 64 characters.
SELECT f.ID AS object, CONCAT(CHAR_LENGTH(SUBSTRING_INDEX(f.ID, '/', -1)), ' characters') AS detail
FROM information_schema.INNODB_SYS_FOREIGN AS f
WHERE CHAR_LENGTH(SUBSTRING_INDEX(f.ID, '/', -1)) > 64
