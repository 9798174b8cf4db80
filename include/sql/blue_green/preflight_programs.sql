-- Text of stored programs and views; NULL or '' where this user may not see it.
SELECT CONCAT(programs.kind, ' ', programs.object) AS object, programs.body AS detail
FROM (
    {% include 'blue_green/_programs.sql' %}

) AS programs
