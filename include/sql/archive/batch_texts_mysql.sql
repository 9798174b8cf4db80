-- Key and canonical text of every row of a batch, to name the rows and columns that differ.
SELECT
{% for expression in key_literals %}
    {{ expression }} AS key_{{ loop.index }},
{% endfor %}
    CAST({{ row_text }} AS BINARY) AS row_text
FROM {{ table | ident }}
WHERE {{ where }}
ORDER BY {{ order_by }}
