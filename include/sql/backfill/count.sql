-- What a range holds, in one read view: rows of the driving table (and the cold ones among them), rows of the view, keys of the view.
-- More rows than keys: a join finds several partners.
SELECT
    driving.row_count,
    driving.cold_rows,
    viewed.view_rows,
    viewed.view_keys
FROM (
    SELECT
        COUNT(*) AS row_count,
        COALESCE(SUM({% if cold %}({{ cold }}
        ) IS TRUE{% else %}1{% endif %}), 0) AS cold_rows
    FROM {{ table | ident }} AS {{ alias | ident }} FORCE INDEX ({{ index | ident }})
    WHERE {{ range }}
{%- if predicate %}

        AND ({{ predicate }}
        )
{%- endif %}

) AS driving
CROSS JOIN (
    SELECT STRAIGHT_JOIN
        COUNT(*) AS view_rows,
        COUNT(DISTINCT {{ view_keys }}) AS view_keys
    FROM (
{{ view }}
    ) AS view_row
) AS viewed
