-- The next keys in key order that meet the predicate. FORCE INDEX: another index would sort every page anew.
SELECT {{ literals }}
FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ range }}
    AND {{ predicate }}
ORDER BY {{ order_by }}
LIMIT {{ page_rows }}
