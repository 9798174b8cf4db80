-- The next chunk in key order: its number of rows, how many of them fail each check, and (for a key of one column) its last key.
-- FORCE INDEX: another index would sort every chunk anew.
SELECT
    chunk.row_count
{%- for condition in conditions %},
    chunk.failed_{{ loop.index0 }}
{%- endfor %}
{%- if single %},
    {{ literals }} AS last_key
{%- endif %}

FROM (
    SELECT
        COUNT(*) AS row_count
    {%- for condition in conditions %},
        COALESCE(SUM(page.check_{{ loop.index0 }}), 0) AS failed_{{ loop.index0 }}
    {%- endfor %}
    {%- if single %},
        MAX(page.{{ keys[0] | ident }}) AS {{ keys[0] | ident }}
    {%- endif %}

    FROM (
        SELECT
            {% for name in keys %}{{ name | ident }}{{ ", " if not loop.last }}{% endfor %}
        {%- for condition in conditions %},
            {{ condition }} AS check_{{ loop.index0 }}
        {%- endfor %}

        FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
        WHERE {{ range }}
            AND {{ predicate }}
        ORDER BY {{ order_by }}
        LIMIT {{ chunk_rows }}
    ) AS page
) AS chunk
