-- Canonical text of every archived row of a batch, and the canonical text of its key columns.
SELECT
    {{ key_text }} AS key_text,
    {{ row_text }} AS row_text
FROM {{ table | ident_trino }} FOR VERSION AS OF {{ snapshot_id }}
WHERE {{ where }}
