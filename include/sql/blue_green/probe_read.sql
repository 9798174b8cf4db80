-- Which server answers, and the newest write of a probe that it has: its heartbeat.
SELECT
    @@server_uuid AS server_uuid,
    @@version AS version,
    (SELECT p.sent_ns FROM {{ table | ident }} AS p WHERE p.run = %(run)s ORDER BY p.seq DESC LIMIT 1) AS beat_ns
