-- The first row, in key order, that fails a check.
SELECT {{ literals }}
FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ where }}
    AND {{ condition }}
ORDER BY {{ order_by }}
LIMIT 1
