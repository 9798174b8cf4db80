-- A chunk of rows of load_table_zerofill.
{% import 'blue_green/_load_noise.sql' as noise with context %}
INSERT INTO {{ table | ident }} (id, number, short, rate, made_in, note)
SELECT
    {{ base }} + n.n,
    {{ noise.whole('number') }},
    CAST({{ noise.whole('short') }} % 65536 AS SIGNED) - 32768,
    {{ noise.whole('rate') }} % 1000000 / 1000,
    1970 + {{ noise.whole('made_in') }} % 60,
    {{ noise.note() }}
FROM {{ numbers | ident }} AS n
WHERE n.n < {{ rows }}
