-- The last key of a chunk of so many rows, in key order; no row when fewer are left.
SELECT {{ literals | join(", ") }}
FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ where }}
ORDER BY {{ order_by }}
LIMIT 1 OFFSET {{ chunk_rows - 1 }}
