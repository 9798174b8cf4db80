-- Programs that seem to call a function which 8.0 has removed.
SELECT CONCAT(programs.kind, ' ', programs.object) AS object, 'calls a removed function' AS detail
FROM (
    {% include 'blue_green/_programs.sql' %}

) AS programs
WHERE UPPER(programs.body) REGEXP '[[:<:]](ENCODE|DECODE|ENCRYPT|DES_ENCRYPT|DES_DECRYPT|PASSWORD|GEOMFROMTEXT|ASTEXT|ASBINARY|GLENGTH|NUMPOINTS|MBREQUAL|POINTFROMTEXT|POLYFROMTEXT)[`]?[[:space:]]*[(]'
