-- Programs with a no-break space in their text.
SELECT CONCAT(programs.kind, ' ', programs.object) AS object, 'has a no-break space' AS detail
FROM (
    {% include 'blue_green/_programs.sql' %}

) AS programs
WHERE programs.kind <> 'view' AND LOCATE(CONVERT(0xC2A0 USING utf8), programs.body) > 0
