-- The plugin of new accounts: 8.0 of the community has another default, Aurora and RDS have not.
SELECT 'server' AS object, CONCAT('default_authentication_plugin is ', @@GLOBAL.default_authentication_plugin) AS detail
FROM DUAL
WHERE @@GLOBAL.default_authentication_plugin <> 'caching_sha2_password'
