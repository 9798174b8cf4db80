{#- Text and numbers that look random and follow from seed, table and id alone: the same seed makes the same rows on any server. -#}
{% macro hex(salt) %}SHA2(CONCAT_WS(':', {{ seed }}, {{ number }}, '{{ salt }}', {{ base }} + n.n), 512){% endmacro %}
{% macro whole(salt) %}CRC32(CONCAT_WS(':', {{ seed }}, {{ number }}, '{{ salt }}', {{ base }} + n.n)){% endmacro %}
{% macro note() %}IF(n.n % 50 = 7, NULL, CONCAT('Größe №', n.n % 100, ' ', {{ hex('a') }}, {{ hex('b') }}, {{ hex('c') }}, {{ hex('d') }})){% endmacro %}
