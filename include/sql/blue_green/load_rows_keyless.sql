-- A chunk of rows of load_table_keyless.
{% import 'blue_green/_load_noise.sql' as noise with context %}
INSERT INTO {{ table | ident }} (id, customer, amount, state, created_at, note)
SELECT
    {{ base }} + n.n,
    {{ noise.whole('customer') }} % 1000000,
    {{ noise.whole('amount') }} % 10000000 / 100,
    {{ noise.whole('state') }} % 4 + 1,
    '2020-01-01' + INTERVAL {{ noise.whole('created_at') }} % 150000000 SECOND,
    {{ noise.note() }}
FROM {{ numbers | ident }} AS n
WHERE n.n < {{ rows }}
