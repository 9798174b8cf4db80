-- The key of the row at a distance from a key, read from the index alone; no row when there are fewer. The distance is that of a page or
-- a chunk, never of the table.
SELECT {{ literals }}
FROM {{ table | ident }} AS {{ alias | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ range }}
{%- if predicate %}

    AND ({{ predicate }}
    )
{%- endif %}

ORDER BY {{ order_by }}
LIMIT 1 OFFSET {{ rows - 1 }}
