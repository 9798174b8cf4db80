-- Programs that keep a sql_mode which 8.0 does not know (MAXDB has a check of its own).
SELECT CONCAT(p.kind, ' ', p.object) AS object, CONCAT('sql_mode ', p.sql_mode) AS detail
FROM (
    {% include 'blue_green/_sql_modes.sql' %}

) AS p
WHERE p.sql_mode REGEXP '(^|,)(DB2|MSSQL|MYSQL323|MYSQL40|ORACLE|POSTGRESQL|NO_FIELD_OPTIONS|NO_KEY_OPTIONS|NO_TABLE_OPTIONS)(,|$)'
    AND NOT FIND_IN_SET('MAXDB', p.sql_mode)
