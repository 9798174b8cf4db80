-- What a DELETE on one table depends on: its columns in order, its DELETE triggers, and keys that would change or delete rows elsewhere.
SELECT
    'column' AS kind,
    c.ORDINAL_POSITION AS position,
    c.COLUMN_NAME AS name
FROM information_schema.COLUMNS AS c
WHERE c.TABLE_SCHEMA = %(schema)s
    AND c.TABLE_NAME = %(table)s
UNION ALL
SELECT
    'trigger',
    0,
    t.TRIGGER_NAME
FROM information_schema.TRIGGERS AS t
WHERE t.TRIGGER_SCHEMA = %(schema)s
    AND t.EVENT_OBJECT_TABLE = %(table)s
    AND t.EVENT_MANIPULATION = 'DELETE'
UNION ALL
SELECT
    'foreign key',
    0,
    f.ID
FROM information_schema.{{ dictionary }} AS f
WHERE f.REF_NAME IN %(referenced)s
{%- if rules_in_dictionary %}
    -- TYPE is a set of bits: 1 is ON DELETE CASCADE, 2 is ON DELETE SET NULL.
    AND f.TYPE & 3 <> 0
{%- else %}
    -- TYPE is always 0 in 8.0. A key whose rule this user may not see counts as one that reaches further.
    AND f.ID NOT IN (
        SELECT CONCAT(r.CONSTRAINT_SCHEMA, '/', r.CONSTRAINT_NAME)
        FROM information_schema.REFERENTIAL_CONSTRAINTS AS r
        WHERE r.UNIQUE_CONSTRAINT_SCHEMA = %(schema)s
            AND r.REFERENCED_TABLE_NAME = %(table)s
            AND r.DELETE_RULE IN ('RESTRICT', 'NO ACTION')
    )
{%- endif %}

ORDER BY kind, position, name
