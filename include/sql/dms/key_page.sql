-- Keys and values of a page of rows, in key order.
SELECT {{ (literals + values) | join(", ") }}
FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ where }}
ORDER BY {{ order_by }}
LIMIT {{ chunk_rows }}
