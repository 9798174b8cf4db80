-- Highest lag of the Aurora readers that answered in the last 5 minutes; NULL when the cluster has no reader.
-- Source: AWS re:Post "aurora-read-replica-restart"; MASTER_SESSION_ID is the writer.
SELECT MAX(h.REPLICA_LAG_IN_MILLISECONDS) / 1000 AS lag_seconds, COUNT(*) AS replicas
FROM information_schema.REPLICA_HOST_STATUS AS h
WHERE h.SESSION_ID <> 'MASTER_SESSION_ID'
    AND h.LAST_UPDATE_TIMESTAMP > NOW() - INTERVAL 5 MINUTE
