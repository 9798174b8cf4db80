-- Keys and values of the rows of a list of keys.
SELECT {{ (literals + values) | join(", ") }}
FROM {{ table | ident }}
WHERE ({{ names | join(", ") }}) IN ({{ keys | join(", ") }})
    AND {{ filter }}
