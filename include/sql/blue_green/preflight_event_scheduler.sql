-- Events that run on blue: green is created with the scheduler off.
SELECT CONCAT(e.EVENT_SCHEMA, '.', e.EVENT_NAME) AS object, CONCAT('status ', e.STATUS) AS detail
FROM information_schema.EVENTS AS e
WHERE e.STATUS = 'ENABLED' AND @@GLOBAL.event_scheduler = 'ON'
