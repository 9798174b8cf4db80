-- The last key of a chunk of so many rows, for a key of several columns.
SELECT {{ literals }}
FROM (
    SELECT {% for name in keys %}{{ name | ident }}{{ ", " if not loop.last }}{% endfor %}

    FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
    WHERE {{ range }}
        AND {{ predicate }}
    ORDER BY {{ order_by }}
    LIMIT {{ chunk_rows }}
) AS page
ORDER BY {% for name in keys %}{{ name | ident }} DESC{{ ", " if not loop.last }}{% endfor %}

LIMIT 1
