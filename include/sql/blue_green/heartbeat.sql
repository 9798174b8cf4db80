-- The newest heartbeat that the server has, and how old the server's own clock says it is.
SELECT
    p.run,
    p.seq,
    p.sent_ns,
    TIMESTAMPDIFF(MICROSECOND, p.written_at, CURRENT_TIMESTAMP(6)) / 1e6 AS age_s
FROM {{ table | ident }} AS p
WHERE p.run = %(run)s
ORDER BY p.seq DESC
LIMIT 1
