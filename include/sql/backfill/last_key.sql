-- The greatest key of a range.
SELECT {{ literals }}
FROM {{ table | ident }} AS {{ alias | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ range }}
{%- if predicate %}

    AND ({{ predicate }}
    )
{%- endif %}

ORDER BY {% for name in keys %}{{ (alias, name) | ident }} DESC{{ ", " if not loop.last }}{% endfor %}

LIMIT 1
