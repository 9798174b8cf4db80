-- Keys and hashes of the rows of a chunk, in key order.
SELECT
{% for literal in literals %}
    {{ literal }} AS key_{{ loop.index }},
{% endfor %}
    MD5({{ row_text }}) AS h
FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ where }}
ORDER BY {{ order_by }}
LIMIT {{ chunk_rows }}
