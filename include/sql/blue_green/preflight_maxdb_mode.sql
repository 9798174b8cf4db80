-- Programs that keep the sql_mode MAXDB: 8.0 clears it, and DATETIME in them is then no longer TIMESTAMP.
SELECT CONCAT(p.kind, ' ', p.object) AS object, CONCAT('sql_mode ', p.sql_mode) AS detail
FROM (
    {% include 'blue_green/_sql_modes.sql' %}

) AS p
WHERE FIND_IN_SET('MAXDB', p.sql_mode)
