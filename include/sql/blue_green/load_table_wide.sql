-- Made-up data of many columns, with JSON and binary ones.
CREATE TABLE IF NOT EXISTS {{ table | ident }} (
    id BIGINT UNSIGNED NOT NULL,
{% for number in range(1, 41) %}
    n{{ number }} INT NULL,
{% endfor %}
{% for number in range(1, 11) %}
    t{{ number }} VARCHAR(100) NULL,
{% endfor %}
    ratio DOUBLE NOT NULL,
    attributes JSON NULL,
    payload VARBINARY(600) NOT NULL,
    flags SET ('new', 'seen', 'größer', 'last') NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
