-- What is granted on every schema (schema_name NULL) or on a schema to the connected account itself; roles are not followed. Names of
-- schemas in grants are patterns of LIKE.
SELECT
    'catalog' AS dbops_inventory,
    u.PRIVILEGE_TYPE AS privilege,
    NULL AS schema_name
FROM information_schema.USER_PRIVILEGES AS u
WHERE u.GRANTEE = CONCAT(
    '''', SUBSTRING_INDEX(CURRENT_USER(), '@', CHAR_LENGTH(CURRENT_USER()) - CHAR_LENGTH(REPLACE(CURRENT_USER(), '@', ''))),
    '''@''', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), ''''
)
UNION ALL
SELECT
    'catalog',
    p.PRIVILEGE_TYPE,
    s.SCHEMA_NAME
FROM information_schema.SCHEMATA AS s
INNER JOIN information_schema.SCHEMA_PRIVILEGES AS p ON BINARY s.SCHEMA_NAME LIKE p.TABLE_SCHEMA
WHERE p.GRANTEE = CONCAT(
    '''', SUBSTRING_INDEX(CURRENT_USER(), '@', CHAR_LENGTH(CURRENT_USER()) - CHAR_LENGTH(REPLACE(CURRENT_USER(), '@', ''))),
    '''@''', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), ''''
)
