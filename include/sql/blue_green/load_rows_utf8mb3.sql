-- A chunk of rows of load_table_utf8mb3.
{% import 'blue_green/_load_noise.sql' as noise with context %}
INSERT INTO {{ table | ident }} (id, customer, title, note)
SELECT
    {{ base }} + n.n,
    {{ noise.whole('customer') }} % 1000000,
    CONCAT(ELT({{ noise.whole('title') }} % 4 + 1, 'Çelik ', 'Müller ', '田中 ', 'Łucja '), LEFT({{ noise.hex('title') }}, 20)),
    {{ noise.note() }}
FROM {{ numbers | ident }} AS n
WHERE n.n < {{ rows }}
