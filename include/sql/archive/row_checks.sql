-- How many rows of a key range fail each check; one column a check, in order.
SELECT
{% for condition in conditions %}
    COALESCE(SUM({{ condition }}), 0) AS check_{{ loop.index0 }}{{ "," if not loop.last }}
{% endfor %}
FROM {{ table | ident }} FORCE INDEX ({{ index | ident }})
WHERE {{ where }}
