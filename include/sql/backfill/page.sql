-- Rows of a view under the codecs' expressions, in the order of the driving table's key. STRAIGHT_JOIN begins with that table: otherwise
-- a small table that is joined may come first, and every page is sorted.
SELECT STRAIGHT_JOIN
    {{ columns }}
FROM (
{{ view }}
) AS view_row
ORDER BY {{ order_by }}
