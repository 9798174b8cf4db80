-- Leftovers of Aurora's DDL recovery; the tables exist on Aurora only.
SELECT 'mysql.ddl_log_md_table' AS object, CONCAT(COUNT(*), ' rows') AS detail FROM mysql.ddl_log_md_table HAVING COUNT(*) > 0
UNION ALL
SELECT 'mysql.ddl_log_table', CONCAT(COUNT(*), ' rows') FROM mysql.ddl_log_table HAVING COUNT(*) > 0
