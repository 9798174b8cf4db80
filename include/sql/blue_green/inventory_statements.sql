SELECT t.fingerprint, t.text, k.schema_name
FROM inventory_text AS t
JOIN (
  SELECT k.fingerprint, MAX(k.schema_name) AS schema_name
  FROM inventory_key AS k
  JOIN inventory_watch AS w ON w.watch_id = k.watch_id
  WHERE w.spec = %(spec)s AND k.schema_name <> ''
  GROUP BY k.fingerprint
) AS k ON k.fingerprint = t.fingerprint
WHERE t.spec = %(spec)s AND NOT t.truncated
  AND NOT EXISTS (
    SELECT 1 FROM inventory_origin AS o
    WHERE o.spec = t.spec AND o.fingerprint = t.fingerprint AND o.kind = 'own'
  )
ORDER BY t.fingerprint, t.is_digest, t.source
