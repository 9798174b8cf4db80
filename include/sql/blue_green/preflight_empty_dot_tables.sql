-- Programs that name a table as .name, without a schema before the dot.
SELECT CONCAT(programs.kind, ' ', programs.object) AS object, 'names a table as .name' AS detail
FROM (
    {% include 'blue_green/_programs.sql' %}

) AS programs
WHERE UPPER(programs.body) REGEXP '[[:<:]](FROM|JOIN|INTO|UPDATE|TABLE)[[:space:]]+[.][A-Z_$`]'
