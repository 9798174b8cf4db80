-- Programs that seem to sort in GROUP BY.
SELECT CONCAT(programs.kind, ' ', programs.object) AS object, 'GROUP BY ... ASC or DESC' AS detail
FROM (
    {% include 'blue_green/_programs.sql' %}

) AS programs
WHERE programs.kind <> 'view'
    AND UPPER(programs.body) REGEXP '[[:<:]]GROUP[[:space:]]+BY[[:space:]]+[A-Z0-9_.,` ]+[[:space:]](ASC|DESC)[[:>:]]'
    AND UPPER(programs.body) NOT REGEXP '[[:<:]]GROUP[[:space:]]+BY[[:space:]]+[A-Z0-9_.,` ]+ORDER'
