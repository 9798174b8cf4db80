-- Rows of a view by key, in no order.
SELECT STRAIGHT_JOIN
    {{ columns }}
FROM (
{{ view }}
) AS view_row
