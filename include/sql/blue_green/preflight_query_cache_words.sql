-- Programs with SQL_CACHE or SQL_NO_CACHE.
SELECT CONCAT(programs.kind, ' ', programs.object) AS object, 'query cache word' AS detail
FROM (
    {% include 'blue_green/_programs.sql' %}

) AS programs
WHERE UPPER(programs.body) REGEXP '[[:<:]]SQL_(NO_)?CACHE[[:>:]]'
