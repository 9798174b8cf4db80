-- Writes of this run that the server has, with how often.
SELECT p.seq, COUNT(*) AS copies
FROM {{ table | ident }} AS p
WHERE p.run = %(run)s
GROUP BY p.seq
ORDER BY p.seq
