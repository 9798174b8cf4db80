-- Length in bytes of the longest value of each column of one table. It reads the whole table, so the server ends it after limit_ms.
SELECT /*+ MAX_EXECUTION_TIME({{ limit_ms }}) */
    {% for column in columns %}
    MAX(LENGTH(t.{{ column | ident }})) AS {{ ("longest_" ~ loop.index0) | ident }}{{ "," if not loop.last }}
    {% endfor %}
FROM {{ table | ident }} AS t
