-- Connections of clients, without this one.
SELECT COUNT(*) AS connections
FROM information_schema.PROCESSLIST AS p
WHERE p.ID <> CONNECTION_ID() AND p.USER NOT IN ('system user', 'event_scheduler', 'rdsadmin')
