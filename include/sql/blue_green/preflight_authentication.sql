-- Accounts that log in by another plugin than those of both versions.
SELECT CONCAT(u.User, '@', u.Host) AS object, u.plugin AS detail
FROM mysql.user AS u
WHERE u.plugin NOT IN ('mysql_native_password', 'caching_sha2_password', 'sha256_password', 'AWSAuthenticationPlugin')
