-- Write the canary row, whether it is there or not.
INSERT INTO {{ table | ident }} (id, token, written_at)
VALUES (1, %(token)s, %(written_at)s)
ON DUPLICATE KEY UPDATE token = %(token)s, written_at = %(written_at)s
