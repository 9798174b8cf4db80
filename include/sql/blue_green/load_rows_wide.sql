-- A chunk of rows of load_table_wide.
{% import 'blue_green/_load_noise.sql' as noise with context %}
INSERT INTO {{ table | ident }} (
    id, {% for number in range(1, 41) %}n{{ number }}, {% endfor %}{% for number in range(1, 11) %}t{{ number }}, {% endfor %}
    ratio, attributes, payload, flags
)
SELECT
    w.id,
{% for number in range(1, 41) %}
    w.a % {{ number * 7919 }},
{% endfor %}
{% for number in range(1, 11) %}
    SUBSTR(w.h, {{ number * 5 }}, {{ number * 8 }}),
{% endfor %}
    w.a / 7,
    JSON_OBJECT('customer', w.a % 1000, 'tags', JSON_ARRAY('é', LEFT(w.h, 8)), 'open', w.a % 2 = 0),
    CONCAT(UNHEX(w.h), UNHEX(w.g), UNHEX(REVERSE(w.h)), UNHEX(REVERSE(w.g)), UNHEX(w.h), UNHEX(w.g)),
    w.a % 16
FROM (
    SELECT {{ base }} + n.n AS id, {{ noise.whole('a') }} AS a, {{ noise.hex('h') }} AS h, {{ noise.hex('g') }} AS g
    FROM {{ numbers | ident }} AS n
    WHERE n.n < {{ rows }}
    LIMIT {{ rows }}
) AS w
