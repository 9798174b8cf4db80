-- The rows of one chunk in key order: canonical text, key literals, then the values that travel beside the text.
SELECT
    CAST({{ row_text }} AS BINARY) AS row_text
    {%- for expression in key_literals %},
    {{ expression }} AS key_{{ loop.index }}
    {%- endfor %}
    {%- for expression in payloads %},
    {{ expression }} AS payload_{{ loop.index }}
    {%- endfor %}

FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ range }}
    AND {{ predicate }}
ORDER BY {{ order_by }}
