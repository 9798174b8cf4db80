-- One view over all generations of an archived table.
CREATE OR REPLACE VIEW {{ view | ident_trino }} AS
{% for table, columns in selects %}
SELECT {{ columns | join(", ") }}
FROM {{ table | ident_trino }}
{{ "UNION ALL" if not loop.last }}
{% endfor %}
