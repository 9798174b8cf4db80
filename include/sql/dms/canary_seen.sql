-- The canary row as it is on a target that is MySQL.
SELECT {{ token | ident }} AS token, {{ written_at | ident }} AS written_at
FROM {{ table | ident }}
WHERE {{ id | ident }} = 1
