# ruff: noqa: E501 - a statement and its truth stand on one line
"""A car-sharing workload whose truth is known: over which channel each statement is sent, and which tables it touches.

A line is ``channel SQL --> access table, table; access table`` with access r (read), w (written), d (definition). Tables that a view,
trigger, routine or foreign key leads to belong to the truth. Channels: t (text, schema shop), n (text, no schema), x (text, schema crm),
p (server-side prepared, still open at the snapshot), b (inside a stored program; RETURN x is listed as DO x).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEMA = """
CREATE DATABASE shop;
CREATE DATABASE crm;
CREATE TABLE shop.stations (id INT PRIMARY KEY, city VARCHAR(40), capacity INT, KEY city (city));
CREATE TABLE shop.members (id INT PRIMARY KEY, name VARCHAR(40), email VARCHAR(80), city VARCHAR(40), status VARCHAR(10), UNIQUE KEY email (email));
CREATE TABLE shop.cars (id INT PRIMARY KEY, plate VARCHAR(12), station_id INT, model VARCHAR(20), KEY station (station_id));
CREATE TABLE shop.rides (id INT PRIMARY KEY, member_id INT, car_id INT, started_at DATETIME, ended_at DATETIME, price DECIMAL(8,2), KEY m (member_id, started_at), CONSTRAINT ride_member FOREIGN KEY (member_id) REFERENCES shop.members (id) ON DELETE CASCADE);
CREATE TABLE shop.payments (id INT AUTO_INCREMENT PRIMARY KEY, ride_id INT, amount DECIMAL(8,2), status VARCHAR(10), KEY r (ride_id));
CREATE TABLE shop.tariffs (k VARCHAR(20) PRIMARY KEY, v INT);
CREATE TABLE shop.old_tariffs (k VARCHAR(20) PRIMARY KEY, v INT);
CREATE TABLE shop.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100), at DATETIME);
CREATE TABLE shop.sessions (token VARCHAR(40) PRIMARY KEY, member_id INT, expires_at DATETIME, data BLOB);
CREATE TABLE shop.follows (follower INT, followee INT, PRIMARY KEY (follower, followee), KEY back (followee, follower));
CREATE TABLE shop.positions (car_id INT, at DATETIME, lat DOUBLE, lon DOUBLE, PRIMARY KEY (car_id, at));
CREATE TABLE shop.category (id INT PRIMARY KEY, parent_id INT, name VARCHAR(20));
CREATE TABLE shop.notes (id INT PRIMARY KEY, body TEXT, FULLTEXT KEY ft (body));
CREATE TABLE shop.staging (a INT, b INT);
CREATE TABLE shop.ledger_2025 (id INT PRIMARY KEY, v INT);
CREATE TABLE crm.people (id INT PRIMARY KEY, member_id INT, note VARCHAR(80));
CREATE TABLE crm.leads (id INT PRIMARY KEY, email VARCHAR(80));
CREATE VIEW shop.active_members AS SELECT id, name, city FROM shop.members WHERE status = 'active';
CREATE VIEW shop.ride_costs AS SELECT r.id AS id, r.member_id AS member_id, p.amount AS amount FROM shop.rides r JOIN shop.payments p ON p.ride_id = r.id;
CREATE TRIGGER shop.payment_told AFTER INSERT ON shop.payments FOR EACH ROW INSERT INTO shop.audit (what) VALUES (NEW.status);
CREATE PROCEDURE shop.close_ride(IN n INT) BEGIN UPDATE rides SET ended_at = '2026-01-01' WHERE id = n; INSERT INTO payments (ride_id, amount, status) VALUES (n, 5, 'open'); END;
CREATE PROCEDURE shop.drop_sessions() DELETE FROM sessions WHERE expires_at < '2000-01-01';
CREATE FUNCTION shop.member_name(n INT) RETURNS VARCHAR(40) READS SQL DATA RETURN (SELECT name FROM members WHERE id = n);
CREATE EVENT shop.nightly ON SCHEDULE EVERY 1 SECOND DISABLE DO DELETE FROM shop.follows WHERE follower = 0;
INSERT INTO shop.stations VALUES (1, 'Bonn', 5), (2, 'Ulm', 3);
INSERT INTO shop.members VALUES (1, 'Ann', 'a@x', 'Bonn', 'active'), (2, 'Bob', 'b@x', 'Ulm', 'gone'), (9, 'Zoe', 'z@x', 'Ulm', 'gone');
INSERT INTO shop.cars VALUES (1, 'BN-1', 1, 'up'), (2, 'UL-2', 2, 'zoe');
INSERT INTO shop.rides VALUES (1, 1, 1, '2026-01-01', NULL, 3.5), (2, 2, 2, '2026-01-02', '2026-01-03', 9)
"""

TEXT = r"""
t SELECT id, name FROM members WHERE id = 1 --> r shop.members
t SELECT * FROM members WHERE email = 'a@x' --> r shop.members
t SELECT name FROM members WHERE id IN (1, 2, 3) --> r shop.members
t SELECT COUNT(*) FROM members --> r shop.members
t SELECT city, COUNT(*) AS n FROM members GROUP BY city HAVING n > 1 ORDER BY n --> r shop.members
t SELECT DISTINCT status FROM members --> r shop.members
t SELECT * FROM members WHERE name LIKE 'A%' ORDER BY name LIMIT 10 --> r shop.members
t SELECT m.name, r.started_at FROM members m JOIN rides r ON r.member_id = m.id WHERE m.id = 1 --> r shop.members, shop.rides
t SELECT m.name, COUNT(r.id) FROM members m LEFT JOIN rides r ON r.member_id = m.id GROUP BY m.name --> r shop.members, shop.rides
t SELECT c.plate, s.city FROM cars c, stations s WHERE s.id = c.station_id --> r shop.cars, shop.stations
t SELECT * FROM rides WHERE member_id = 1 AND started_at >= '2026-01-01' --> r shop.rides
t SELECT * FROM rides WHERE member_id = 1 ORDER BY started_at DESC LIMIT 1 --> r shop.rides
t SELECT SUM(price) FROM rides WHERE started_at BETWEEN '2026-01-01' AND '2026-02-01' --> r shop.rides
t SELECT * FROM rides WHERE id = 1 FOR UPDATE --> r shop.rides
t SELECT * FROM rides WHERE id = 1 LOCK IN SHARE MODE --> r shop.rides
t SELECT * FROM members WHERE id IN (SELECT member_id FROM rides WHERE car_id = 2) --> r shop.members, shop.rides
t SELECT * FROM members m WHERE EXISTS (SELECT 1 FROM follows f WHERE f.follower = m.id) --> r shop.members, shop.follows
t SELECT (SELECT MAX(price) FROM rides) AS top, name FROM members WHERE id = 2 --> r shop.rides, shop.members
t SELECT id FROM members UNION SELECT id FROM cars --> r shop.members, shop.cars
t SELECT id FROM members UNION ALL SELECT followee FROM follows ORDER BY 1 LIMIT 3 --> r shop.members, shop.follows
t SELECT * FROM (SELECT member_id, COUNT(*) n FROM rides GROUP BY member_id) q JOIN members m ON m.id = q.member_id --> r shop.rides, shop.members
t SELECT a.follower FROM follows a JOIN follows b ON b.follower = a.followee AND b.followee = a.follower --> r shop.follows
t SELECT followee FROM follows WHERE follower = 1 --> r shop.follows
t SELECT data FROM sessions WHERE token = 'abc' --> r shop.sessions
t SELECT lat, lon FROM positions WHERE car_id = 1 AND at > '2026-01-01' --> r shop.positions
t SELECT DATE(at), AVG(lat) FROM positions WHERE car_id = 1 GROUP BY DATE(at) --> r shop.positions
t SELECT id FROM notes WHERE MATCH(body) AGAINST ('brake') --> r shop.notes
t SELECT v FROM tariffs WHERE k = 'night' --> r shop.tariffs
t SELECT t.v, o.v FROM tariffs t JOIN old_tariffs o USING (k) --> r shop.tariffs, shop.old_tariffs
t SELECT SQL_NO_CACHE id FROM category WHERE parent_id = 1 --> r shop.category
t SELECT STRAIGHT_JOIN c.name, p.name FROM category c JOIN category p ON p.id = c.parent_id --> r shop.category
t SELECT CASE WHEN price > 5 THEN 'dear' ELSE 'cheap' END AS k, COUNT(*) FROM rides GROUP BY k --> r shop.rides
t SELECT SHA1(email), MD5(name) FROM members WHERE id = 2 --> r shop.members
t SELECT IFNULL(ended_at, started_at) + INTERVAL 1 DAY FROM rides WHERE car_id = 1 --> r shop.rides
t SELECT member_name(1) --> r shop.members
t SELECT id, member_name(member_id) FROM rides WHERE id = 2 --> r shop.rides, shop.members
t SELECT * FROM members PROCEDURE_NOT_THERE WHERE PROCEDURE_NOT_THERE.id = 3 --> r shop.members
t SELECT * FROM rides r RIGHT JOIN cars c ON c.id = r.car_id WHERE r.id IS NULL --> r shop.rides, shop.cars
t SELECT * FROM cars NATURAL JOIN stations --> r shop.cars, shop.stations
t SELECT * FROM crm.people p JOIN members m ON m.id = p.member_id --> r crm.people, shop.members
t SELECT @top := MAX(price) FROM rides --> r shop.rides
t SELECT GROUP_CONCAT(plate ORDER BY plate SEPARATOR ',') FROM cars --> r shop.cars
t INSERT INTO members (id, name, email) VALUES (10, 'Cid', 'c@x') --> w shop.members
t INSERT INTO members (id, name, email) VALUES (11, 'Dan', 'd@x'), (12, 'Eve', 'e@x') --> w shop.members
t INSERT INTO members SET id = 13, name = 'Fay', email = 'f@x' --> w shop.members
t INSERT IGNORE INTO stations VALUES (1, 'Bonn', 5) --> w shop.stations
t INSERT INTO tariffs (k, v) VALUES ('night', 1) ON DUPLICATE KEY UPDATE v = v + VALUES(v) --> w shop.tariffs
t REPLACE INTO tariffs (k, v) VALUES ('day', 2) --> w shop.tariffs
t REPLACE INTO old_tariffs SELECT k, v FROM tariffs --> w shop.old_tariffs; r shop.tariffs
t INSERT INTO audit (what) SELECT name FROM members WHERE status = 'gone' --> w shop.audit; r shop.members
t INSERT INTO payments (ride_id, amount, status) VALUES (1, 3.5, 'open') --> w shop.payments, shop.audit
t INSERT INTO sessions (token, member_id, expires_at) VALUES ('abc', 1, NOW() + INTERVAL 1 HOUR) --> w shop.sessions
t INSERT INTO follows VALUES (1, 2), (2, 1) --> w shop.follows
t INSERT INTO positions VALUES (1, '2026-01-01 10:00:00', 50.7, 7.1) --> w shop.positions
t INSERT LOW_PRIORITY INTO category VALUES (1, NULL, 'all') --> w shop.category
t INSERT INTO notes VALUES (1, 'the brake squeaks') --> w shop.notes
t UPDATE members SET status = 'active' WHERE id = 10 --> w shop.members
t UPDATE tariffs SET v = v + 1 WHERE k = 'day' --> w shop.tariffs
t UPDATE rides SET price = price * 1.1 WHERE started_at < '2026-01-02' --> w shop.rides
t UPDATE rides r JOIN members m ON m.id = r.member_id SET r.price = 0 WHERE m.status = 'gone' --> w shop.rides; r shop.members
t UPDATE cars c, stations s SET c.station_id = s.id, s.capacity = s.capacity - 1 WHERE s.city = 'Ulm' AND c.id = 1 --> w shop.cars, shop.stations
t UPDATE IGNORE members SET email = 'a@x' WHERE id = 11 --> w shop.members
t UPDATE LOW_PRIORITY sessions SET data = 'x' WHERE token = 'abc' --> w shop.sessions
t UPDATE members SET city = (SELECT city FROM stations WHERE id = 1) WHERE id = 12 --> w shop.members; r shop.stations
t UPDATE payments SET status = 'paid' WHERE ride_id = 1 LIMIT 1 --> w shop.payments
t DELETE FROM positions WHERE at < '2020-01-01' --> w shop.positions
t DELETE FROM sessions WHERE token = 'zzz' --> w shop.sessions
t DELETE LOW_PRIORITY QUICK FROM category WHERE id = 77 --> w shop.category
t DELETE IGNORE FROM follows WHERE follower = 99 --> w shop.follows
t DELETE FROM members WHERE id = 9 --> w shop.members, shop.rides
t DELETE r, p FROM rides r JOIN payments p ON p.ride_id = r.id WHERE r.id = 88 --> w shop.rides, shop.payments
t DELETE FROM r, p USING rides r JOIN payments p ON p.ride_id = r.id WHERE r.id = 89 --> w shop.rides, shop.payments
t DELETE p FROM payments p LEFT JOIN rides r ON r.id = p.ride_id WHERE r.id IS NULL AND p.id > 1000 --> w shop.payments; r shop.rides
t DELETE FROM audit WHERE what LIKE '%SHA%' ORDER BY id LIMIT 5 --> w shop.audit
t DELETE FROM old_tariffs WHERE k IN (SELECT k FROM tariffs WHERE v > 1000) --> w shop.old_tariffs; r shop.tariffs
t TRUNCATE TABLE staging --> w shop.staging
t TRUNCATE old_tariffs --> w shop.old_tariffs
t SELECT * FROM active_members WHERE id = 1 --> r shop.members
t SELECT city, COUNT(*) FROM active_members GROUP BY city --> r shop.members
t SELECT a.name, r.id FROM active_members a JOIN rides r ON r.member_id = a.id --> r shop.members, shop.rides
t SELECT SUM(amount) FROM ride_costs WHERE member_id = 1 --> r shop.rides, shop.payments
t UPDATE active_members SET name = 'Anna' WHERE id = 1 --> w shop.members
t CALL close_ride(1) --> w shop.rides, shop.payments, shop.audit
t CALL drop_sessions() --> w shop.sessions
b UPDATE rides SET ended_at = '2026-01-01' WHERE id = n --> w shop.rides
b INSERT INTO payments (ride_id, amount, status) VALUES (n, 5, 'open') --> w shop.payments, shop.audit
b DELETE FROM sessions WHERE expires_at < '2000-01-01' --> w shop.sessions
b DO (SELECT name FROM members WHERE id = n) --> r shop.members
b INSERT INTO shop.audit (what) VALUES (NEW.status) --> w shop.audit
b DELETE FROM shop.follows WHERE follower = 0 --> w shop.follows
t CREATE TABLE scratch (id INT PRIMARY KEY) --> d shop.scratch
t CREATE TABLE scratch2 AS SELECT id FROM members --> d shop.scratch2; r shop.members
t CREATE TEMPORARY TABLE tmp1 (id INT) --> d shop.tmp1
t ALTER TABLE staging ADD COLUMN c INT, ADD INDEX ix (c) --> d shop.staging
t CREATE INDEX by_v ON tariffs (v) --> d shop.tariffs
t DROP INDEX by_v ON tariffs --> d shop.tariffs
t ANALYZE TABLE cars --> d shop.cars
t OPTIMIZE TABLE staging --> d shop.staging
t DROP TABLE scratch --> d shop.scratch
t DROP TABLE IF EXISTS scratch2 --> d shop.scratch2
t LOCK TABLES cars READ --> r shop.cars
t UNLOCK TABLES -->
t BEGIN -->
t COMMIT -->
t SET @x = 1 -->
t SHOW TABLES -->
t DO SLEEP(0) -->
t SELECT NOW() -->
t HANDLER cars OPEN --> r shop.cars
t HANDLER cars CLOSE --> r shop.cars
n SELECT name FROM shop.members WHERE id = 2 --> r shop.members
n SELECT p.note, m.name FROM crm.people p JOIN shop.members m ON m.id = p.member_id --> r crm.people, shop.members
n UPDATE shop.cars SET model = 'e-up' WHERE id = 1 --> w shop.cars
n DELETE FROM crm.leads WHERE id = 5 --> w crm.leads
n INSERT INTO crm.leads VALUES (1, 'l@x') --> w crm.leads
n SELECT COUNT(*) FROM shop.rides, crm.people --> r shop.rides, crm.people
n SELECT 1 + 1 -->
n INSERT INTO crm.people SELECT id, id, name FROM shop.members WHERE id = 1 --> w crm.people; r shop.members
x SELECT note FROM people WHERE id = 1 --> r crm.people
x SELECT l.email FROM leads l JOIN shop.members m ON m.email = l.email --> r crm.leads, shop.members
x DELETE FROM shop.follows WHERE follower = 55 --> w shop.follows
x UPDATE people SET note = 'called' WHERE member_id = 1 --> w crm.people
x DELETE l FROM leads l JOIN shop.members m ON m.email = l.email --> w crm.leads; r shop.members
x REPLACE INTO leads VALUES (2, 'm@x') --> w crm.leads
p SELECT plate FROM cars WHERE id = ? --> r shop.cars
p SELECT capacity FROM stations WHERE city = ? AND capacity > ? --> r shop.stations
p INSERT INTO audit (what) VALUES (?) --> w shop.audit
p UPDATE stations SET capacity = ? WHERE id = ? --> w shop.stations
p DELETE FROM notes WHERE id = ? --> w shop.notes
p DELETE FROM positions WHERE car_id = ? AND at < ? --> w shop.positions
p REPLACE INTO tariffs (k, v) VALUES (?, ?) --> w shop.tariffs
"""


@dataclass(frozen=True)
class Line:
    """A statement, how it is sent, and its truth as (table, access)."""

    channel: str
    sql: str
    uses: frozenset[tuple[str, str]]

    @property
    def schema(self) -> str | None:
        """Default schema of the session."""
        return {"n": None, "x": "crm"}.get(self.channel, "shop")


_ACCESS = {"r": "read", "w": "write", "d": "ddl"}


def _line(text: str) -> Line:
    match = re.fullmatch(r"([tnxpb]) (.+?) -->(.*)", text)
    assert match is not None, text
    uses: set[tuple[str, str]] = set()
    for group in filter(None, match[3].strip().split("; ")):
        access, names = group.split(" ", 1)
        uses |= {(name, _ACCESS[access]) for name in names.split(", ")}
    return Line(match[1], match[2], frozenset(uses))


SCHEMA_STATEMENTS = [statement.rstrip(";\n") for statement in re.split(r";\n(?=CREATE|INSERT)", SCHEMA.strip())]
LINES = [_line(text) for text in TEXT.strip().splitlines()]

VALUES = {
    "SELECT plate FROM cars WHERE id = ?": (1,),
    "SELECT capacity FROM stations WHERE city = ? AND capacity > ?": ("Bonn", 1),
    "INSERT INTO audit (what) VALUES (?)": ("prepared",),
    "UPDATE stations SET capacity = ? WHERE id = ?": (9, 1),
    "DELETE FROM notes WHERE id = ?": (8,),
    "DELETE FROM positions WHERE car_id = ? AND at < ?": (1, "2001-01-01"),
    "REPLACE INTO tariffs (k, v) VALUES (?, ?)": ("noon", 3),
}
"""Of the placeholders of what is prepared."""
