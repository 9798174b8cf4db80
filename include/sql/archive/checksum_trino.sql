-- The same checksum in Trino; XOR is signed here.
SELECT
{% for column in group_by %}
    {{ column | ident_trino }},
{% endfor %}
    count(*) AS n,
    count(h) AS nh,
    sum(CAST(bitwise_right_shift(from_big_endian_64(substr(h, 1, 8)), 4) AS decimal(38, 0))) AS s,
    bitwise_xor_agg(from_big_endian_64(substr(h, 9, 8))) AS x
FROM (
    SELECT
{% for column in group_by %}
        {{ column | ident_trino }},
{% endfor %}
        md5(to_utf8({{ row_text }})) AS h
    FROM {{ table | ident_trino }}
{%- if snapshot_id is not none %} FOR VERSION AS OF {{ snapshot_id }}
{%- endif %}

    WHERE {{ where }}
) AS hashed
{% if group_by %}
GROUP BY {% for column in group_by %}{{ column | ident_trino }}{{ ", " if not loop.last }}{% endfor %}

{% endif %}
