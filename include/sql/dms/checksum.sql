-- Checksum of a set of rows: rows, hashes (NULL where a row is longer than max_allowed_packet), sum of 60 bits, XOR of 64 bits.
-- LIMIT 2^64-1 keeps MySQL from merging the derived table, which would compute every MD5 more than once.
SELECT
    COUNT(*) AS n,
    COUNT(h) AS nh,
    SUM(CAST(CONV(SUBSTR(h, 1, 15), 16, 10) AS UNSIGNED)) AS s,
    BIT_XOR(CAST(CONV(SUBSTR(h, 17, 16), 16, 10) AS UNSIGNED)) AS x
FROM (
    SELECT MD5({{ row_text }}) AS h
    FROM {{ table | ident }}{% if index %} FORCE INDEX ({{ index | ident }}){% endif %}

    WHERE {{ where }}
    LIMIT 18446744073709551615
) AS hashed
