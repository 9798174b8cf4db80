"""The demo source: a car-sharing company, with the column types, keys and blemishes that such schemas have in life."""

from __future__ import annotations

# In the order in which foreign keys allow them to be created.
TABLES = {
    "members": """
CREATE TABLE IF NOT EXISTS members (
  id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  email       VARCHAR(190) NOT NULL,
  full_name   VARCHAR(120) NOT NULL,
  born_on     DATE NULL,
  status      ENUM('active','suspended','closed') NOT NULL DEFAULT 'active',
  licence     SET('B','BE','C','A') NOT NULL DEFAULT 'B',
  balance     DECIMAL(12,2) NOT NULL DEFAULT 0.00,
  preferences JSON NULL,
  created_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (id),
  UNIQUE KEY email (email)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
    "cars": """
CREATE TABLE IF NOT EXISTS cars (
  id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  vin         CHAR(17) NOT NULL,
  plate       VARCHAR(16) NOT NULL,
  model       VARCHAR(60) NOT NULL,
  equipment   SET('child_seat','roof_box','tow_bar','winter_tyres') NOT NULL DEFAULT '',
  odometer_km DECIMAL(9,1) NOT NULL,
  bought_in   YEAR NOT NULL,
  retired_on  DATE NULL,
  PRIMARY KEY (id),
  UNIQUE KEY vin (vin)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
    "rides": """
CREATE TABLE IF NOT EXISTS rides (
  id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  member_id   BIGINT UNSIGNED NOT NULL,
  car_id      BIGINT UNSIGNED NOT NULL,
  status      ENUM('booked','running','finished','cancelled') NOT NULL,
  started_at  DATETIME(3) NOT NULL,
  ended_at    DATETIME(3) NULL,
  distance_km DECIMAL(8,3) NULL,
  price       DECIMAL(10,2) NOT NULL,
  rating      TINYINT NULL,
  comment     VARCHAR(280) NULL,
  PRIMARY KEY (id),
  KEY started_at (started_at),
  KEY member_id (member_id),
  KEY car_id (car_id),
  CONSTRAINT rides_member FOREIGN KEY (member_id) REFERENCES members (id) ON DELETE RESTRICT,
  CONSTRAINT rides_car FOREIGN KEY (car_id) REFERENCES cars (id) ON DELETE RESTRICT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
    "payments": """
CREATE TABLE IF NOT EXISTS payments (
  id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  ride_id      BIGINT UNSIGNED NOT NULL,
  amount       DECIMAL(10,2) NOT NULL,
  currency     CHAR(3) NOT NULL DEFAULT 'EUR',
  method       ENUM('card','sepa','wallet','voucher') NOT NULL,
  reference    VARBINARY(16) NOT NULL,
  paid_at      DATETIME NOT NULL,
  refunded_at  DATETIME NULL,
  PRIMARY KEY (id),
  KEY paid_at (paid_at),
  KEY ride_id (ride_id),
  CONSTRAINT payments_ride FOREIGN KEY (ride_id) REFERENCES rides (id) ON DELETE RESTRICT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
    "positions": """
CREATE TABLE IF NOT EXISTS positions (
  id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  car_id      BIGINT UNSIGNED NOT NULL,
  ride_id     BIGINT UNSIGNED NULL,
  recorded_at DATETIME(3) NOT NULL,
  latitude    DECIMAL(9,6) NOT NULL,
  longitude   DECIMAL(9,6) NOT NULL,
  speed_kmh   FLOAT NULL,
  heading     SMALLINT UNSIGNED NULL,
  battery_pct TINYINT UNSIGNED NOT NULL,
  state       ENUM('parked','reserved','driving','charging','service') NOT NULL,
  flags       SET('door_open','ignition','low_signal','roaming') NOT NULL DEFAULT '',
  raw         JSON NULL,
  PRIMARY KEY (id),
  KEY recorded_at (recorded_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4""",
}
