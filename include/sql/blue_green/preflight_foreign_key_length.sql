-- Foreign keys with a name of more than 64 characters.
SELECT REPLACE(f.FOR_NAME, '/', '.') AS object,
    CONCAT(SUBSTRING_INDEX(f.ID, '/', -1), ': ', CHAR_LENGTH(SUBSTRING_INDEX(f.ID, '/', -1)), ' characters') AS detail
FROM information_schema.INNODB_SYS_FOREIGN AS f
WHERE CHAR_LENGTH(SUBSTRING_INDEX(f.ID, '/', -1)) > 64
