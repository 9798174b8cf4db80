{# Values: ours, theirs (accounts, 'name'@'host'), schemas (list), follows (the task follows changes), is_managed (RDS or Aurora),
   canary (schema and table, or None), target_schemas (schemas of a MySQL target, when the two logins are those of the target). #}
{% if not target_schemas %}
-- What the connection of dbops needs at the source: it reads, and writes nothing but the canary.
GRANT REPLICATION CLIENT ON *.* TO {{ ours }};
{% for schema in schemas %}
GRANT SELECT ON {{ schema | ident }}.* TO {{ ours }};
{% endfor %}
-- How fast the binary log is written, from which its age is estimated.
GRANT SELECT ON `performance_schema`.* TO {{ ours }};
-- What the login of DMS is granted. Without it that is a warning, and the rest of the preflight works.
GRANT SELECT ON `mysql`.* TO {{ ours }};
{% if is_managed %}
-- How long RDS and Aurora keep the binary log.
GRANT SELECT ON `mysql`.`rds_configuration` TO {{ ours }};
{% endif %}
{% if canary %}
GRANT SELECT, INSERT, UPDATE ON {{ canary | ident }} TO {{ ours }};
{% endif %}
-- What the login of DMS needs, the one whose name and password are in the secret.
{% if follows %}
GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO {{ theirs }};
{% endif %}
{% for schema in schemas %}
GRANT SELECT ON {{ schema | ident }}.* TO {{ theirs }};
{% endfor %}
{% else %}
-- What the connection of dbops needs at a target that is MySQL: it reads definitions, triggers among them, and compares rows.
{% for schema in target_schemas %}
GRANT SELECT, TRIGGER ON {{ schema | ident }}.* TO {{ ours }};
{% endfor %}
GRANT SELECT ON `mysql`.* TO {{ ours }};
-- What the login of DMS needs there.
{% for schema in target_schemas %}
GRANT ALTER, CREATE, DROP, INDEX, INSERT, UPDATE, DELETE, SELECT ON {{ schema | ident }}.* TO {{ theirs }};
{% endfor %}
GRANT ALL PRIVILEGES ON `awsdms_control`.* TO {{ theirs }};
{% endif %}
