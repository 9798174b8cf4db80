{# Values: ours, theirs (accounts, 'name'@'host'), schemas (list), follows (the task follows changes), is_managed (RDS or Aurora),
   canary (schema and table, or None), assessed (AWS's premigration assessment is used), has_roles (8.0 and later), target_schemas (schemas
   of a MySQL target, when the two logins are those of the target; else empty). #}
{% if not target_schemas %}
-- What the connection of dbops needs at the source: it reads, and writes nothing but the canary.
GRANT REPLICATION CLIENT ON *.* TO {{ ours }};
{% for schema in schemas %}
GRANT SELECT ON {{ schema | ident }}.* TO {{ ours }};
{% endfor %}
-- How fast the binary log is written, from which its age is estimated.
GRANT SELECT ON `performance_schema`.* TO {{ ours }};
-- What the login of DMS is granted. It shows hashes of passwords too: without it there is a warning, and the rest of the preflight works.
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
{% if assessed %}
-- What AWS's premigration assessment reads as the login of DMS.
GRANT SELECT ON `mysql`.`user` TO {{ theirs }};
GRANT SELECT ON `mysql`.`db` TO {{ theirs }};
GRANT SELECT ON `mysql`.`tables_priv` TO {{ theirs }};
{% if has_roles %}
GRANT SELECT ON `mysql`.`role_edges` TO {{ theirs }};
{% endif %}
GRANT SELECT ON `performance_schema`.`replication_connection_status` TO {{ theirs }};
{% if is_managed %}
GRANT SELECT ON `mysql`.`rds_configuration` TO {{ theirs }};
{% endif %}
{% endif %}
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
