-- Rows of the driving table in a range, read from the index alone.
SELECT COUNT(*)
FROM {{ table | ident }} AS {{ alias | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ range }}
{%- if predicate %}

    AND ({{ predicate }}
    )
{%- endif %}
