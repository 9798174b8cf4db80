-- Length in bytes of the longest value of each column of one table: of all of its rows, or of the newest by its key. The server ends it after
-- limit_ms.
SELECT /*+ MAX_EXECUTION_TIME({{ limit_ms }}) */
    {% for column in columns %}
    MAX(LENGTH(t.{{ column | ident }})) AS {{ ("longest_" ~ loop.index0) | ident }}{{ "," if not loop.last }}
    {% endfor %}
{% if newest %}
FROM (
    SELECT
        {% for column in columns %}
        n.{{ column | ident }}{{ "," if not loop.last }}
        {% endfor %}
    FROM {{ table | ident }} AS n
    ORDER BY {% for name in key %}n.{{ name | ident }} DESC{{ ", " if not loop.last }}{% endfor %}

    LIMIT {{ newest }}
) AS t
{% else %}
FROM {{ table | ident }} AS t
{% endif %}
